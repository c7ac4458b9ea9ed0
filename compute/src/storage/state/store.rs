//! The object store behind a state URL. Callers see only paths relative to that URL.
//!
//! `file:///dir` is a local directory, created if it does not exist; writes are on the disk (fsync)
//! before they return. `s3://bucket/prefix` takes credentials, region and endpoint from the `AWS_*`
//! environment. `memory://` lives as long as the [`Store`] and its clones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use slatedb::db_cache::DbCache;
use slatedb::db_cache::foyer::{FoyerCache, FoyerCacheOptions};

use super::health::{Health, Watched};
use super::{Error, Tuning};

/// A store that is silent for longer counts as out of reach. It is less than the client waits for
/// an answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of times that the client itself repeats a request, within seconds. SlateDB repeats
/// its requests for as long as it takes, and checks the outcome of a write whose answer was lost.
/// Other requests fail with the last error.
const RETRIES_MAX: usize = 4;
const RETRIES_TIMEOUT: Duration = Duration::from_secs(15);

/// An object store, opened once a process. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The same objects, through a client that also removes directories that a deletion leaves
    /// empty. It deletes only databases that nothing uses any more, so it never races with a write.
    pub(super) removal: Arc<dyn ObjectStore>,
    health: Health,
    /// True if an object can be replaced on condition of its version, which local directories
    /// cannot do.
    pub(super) conditional_overwrite: bool,
    pub(super) cache: Arc<dyn DbCache>,
    pub(super) tuning: Arc<Tuning>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("objects", &self.objects).field("tuning", &self.tuning).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store that a state URL names.
    ///
    /// # Errors
    /// [`Error::Url`] if the URL is not one of the three forms, or the directory or bucket cannot
    /// be used.
    pub fn open(url: &str) -> Result<Store, Error> {
        Self::open_with(url, Tuning::default())
    }

    /// Opens a store with other settings of the databases.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(url: &str, tuning: Tuning) -> Result<Store, Error> {
        let unusable = |reason: String| Error::Url { url: url.to_owned(), reason };
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(unusable("expected file:///dir, s3://bucket/prefix or memory://".to_owned()));
        };
        match scheme {
            "memory" => {
                let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
                Ok(Store::new(Place { removal: Arc::clone(&objects), objects, bucket: None }, true, tuning))
            }
            "file" if rest.starts_with('/') => {
                let local = || LocalFileSystem::new_with_prefix(rest).map_err(|error| unusable(error.to_string()));
                std::fs::create_dir_all(rest).map_err(|error| unusable(error.to_string()))?;
                let objects = local()?.with_fsync(true);
                let removal = local()?.with_automatic_cleanup(true);
                let place = Place { objects: Arc::new(objects), removal: Arc::new(removal), bucket: None };
                // The system's page cache already holds recent writes.
                Ok(Store::new(place, false, Tuning { cache_written: false, ..tuning }))
            }
            "file" => Err(unusable("a directory is named by its absolute path, as in file:///var/lib/weir".to_owned())),
            "s3" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let s3 = AmazonS3Builder::from_env().with_bucket_name(bucket).with_allow_http(true);
                let s3 = s3.with_retry(retries()).build().map_err(|error| unusable(error.to_string()))?;
                let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| unusable(error.to_string()))?;
                let objects: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(s3, prefix));
                // A table that fits into the block cache is not fetched again for each scan.
                let bulk_bytes_min = tuning.bulk_bytes_min.max(tuning.cache_bytes);
                let tuning = Tuning { bulk_bytes_min, ..tuning };
                Ok(Store::new(Place { removal: Arc::clone(&objects), objects, bucket: Some(bucket) }, true, tuning))
            }
            _ => Err(unusable(format!("there is no scheme \"{scheme}\", only file, s3 and memory"))),
        }
    }

    /// A store over the caller's objects, which must support replacement on condition of their
    /// version.
    pub fn over(objects: Arc<dyn ObjectStore>, tuning: Tuning) -> Store {
        Store::new(Place { removal: Arc::clone(&objects), objects, bucket: None }, true, tuning)
    }

    fn new(place: Place<'_>, conditional_overwrite: bool, tuning: Tuning) -> Store {
        let health = Health::default();
        let watched = |objects| Arc::new(Watched::new(objects, health.clone(), place.bucket));
        let (objects, removal) = (watched(place.objects), watched(place.removal));
        // The shards limit contention. More than a few only make the bound on each shard coarser.
        let options = FoyerCacheOptions { max_capacity: tuning.cache_bytes, shards: 4 };
        let cache = Arc::new(FoyerCache::new_with_opts(options));
        Store { objects, removal, health, conditional_overwrite, cache, tuning: Arc::new(tuning) }
    }

    /// The object store itself, for objects outside of databases. Objects of databases must not be
    /// changed.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Checks that the store answers, by listing a prefix that need not exist. A listing shows a
    /// missing bucket, unlike a request for an object.
    ///
    /// # Errors
    /// [`Error::Objects`] if it does not answer in time.
    pub async fn probe(&self) -> Result<(), Error> {
        let path = Path::from("probe");
        let listed = tokio::time::timeout(PROBE_TIMEOUT, self.objects.list_with_delimiter(Some(&path))).await;
        match listed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error::objects("list", path)(error)),
            Err(_) => {
                let error = Error::Silent { seconds: PROBE_TIMEOUT.as_secs() };
                self.health.is_silent(error.to_string());
                Err(error)
            }
        }
    }

    /// The present fault of the store, if it deserves to be told.
    pub fn trouble(&self) -> Option<String> {
        self.health.trouble()
    }

    /// As [`Store::trouble`], with the time at which it began.
    pub fn lasting_trouble(&self) -> Option<(String, Instant)> {
        self.health.lasting_trouble()
    }

    /// The error of the last failed request, as long as none has succeeded since.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.health.last_failure()
    }
}

/// A place of objects.
struct Place<'a> {
    objects: Arc<dyn ObjectStore>,
    /// See [`Store::removal`].
    removal: Arc<dyn ObjectStore>,
    /// The bucket that has to exist.
    bucket: Option<&'a str>,
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRIES_TIMEOUT, ..RetryConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_name_no_store_are_refused_with_a_reason() {
        for (url, reason) in [
            ("state", "expected file:///dir"),
            ("file://state", "absolute path"),
            ("ftp://host/dir", "no scheme \"ftp\""),
            ("file:///dev/null/state", "directory"),
        ] {
            match Store::open(url) {
                Err(Error::Url { reason: given, .. }) => assert!(given.contains(reason), "{url}: {given}"),
                other => panic!("{url}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_directory_is_created() {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("file://{}/a/b", dir.path().display());
        Store::open(&url).expect("a store").probe().await.expect("an answer");
        assert!(dir.path().join("a/b").is_dir());
    }
}

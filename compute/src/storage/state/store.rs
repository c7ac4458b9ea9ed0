//! The object store behind a state URL. All paths that this module's callers see are relative to that URL.
//!
//! `file:///dir` is a local directory, created if it is not there; what is written is on the disk (fsync) before a
//! write returns. `s3://bucket/prefix` takes credentials, region and endpoint from the `AWS_*` environment.
//! `memory://` lives as long as the [`Store`] and its clones.

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

/// After how long the store counts as silent. Less than the client waits for an answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// What the client itself tries again, within seconds. SlateDB goes on for as long as it takes, and looks at what came of a
/// write whose answer was lost; what is asked without SlateDB fails with the last error.
const RETRIES_MAX: usize = 4;
const RETRIES_TIMEOUT: Duration = Duration::from_secs(15);

/// An object store, opened once a process. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The same objects, by a client that also removes the directories that a deletion leaves empty. Only databases
    /// that nothing uses any more are deleted through it, so it never races with a write.
    pub(super) removal: Arc<dyn ObjectStore>,
    health: Health,
    /// Whether an object can be replaced on condition of its version, which local directories cannot.
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
    /// [`Error::Url`] if the URL is not one of the three forms or the directory or bucket cannot be used.
    pub fn open(url: &str) -> Result<Store, Error> {
        Self::open_with(url, Tuning::default())
    }

    /// The same with other settings of the databases.
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
                // The page cache of the system has what was just written.
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

    /// A store over objects of one's own, which have to be replaced on condition of their version.
    pub fn over(objects: Arc<dyn ObjectStore>, tuning: Tuning) -> Store {
        Store::new(Place { removal: Arc::clone(&objects), objects, bucket: None }, true, tuning)
    }

    fn new(place: Place<'_>, conditional_overwrite: bool, tuning: Tuning) -> Store {
        let health = Health::default();
        let watched = |objects| Arc::new(Watched::new(objects, health.clone(), place.bucket));
        let (objects, removal) = (watched(place.objects), watched(place.removal));
        // The shards bound contention; more than a few only make the bound on each shard coarser.
        let options = FoyerCacheOptions { max_capacity: tuning.cache_bytes, shards: 4 };
        let cache = Arc::new(FoyerCache::new_with_opts(options));
        Store { objects, removal, health, conditional_overwrite, cache, tuning: Arc::new(tuning) }
    }

    /// The object store itself, for what is not a database: its objects must not be changed.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Asks the store whether it answers, by listing what need not exist: a bucket that is missing shows in that, as it
    /// would not if an object were looked for.
    ///
    /// # Errors
    /// [`Error::Objects`] if it does not, or not soon.
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

    /// What keeps the store from doing what it is asked, if it is worth telling.
    pub fn trouble(&self) -> Option<String> {
        self.health.trouble()
    }

    /// As [`Store::trouble`], with when it began.
    pub fn lasting_trouble(&self) -> Option<(String, Instant)> {
        self.health.lasting_trouble()
    }

    /// What the last failed request met with, as long as none has succeeded since.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.health.last_failure()
    }
}

/// Where objects are.
struct Place<'a> {
    objects: Arc<dyn ObjectStore>,
    /// See [`Store::removal`].
    removal: Arc<dyn ObjectStore>,
    /// The bucket that has to be there.
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

//! The object store behind a state URL. All paths that this module's callers see are relative to that URL.
//!
//! `file:///dir` is a local directory, created if it is not there; what is written is on the disk (fsync) before a
//! write returns. `s3://bucket/prefix` takes credentials, region and endpoint from the `AWS_*` environment.
//! `memory://` lives as long as the [`Store`] and its clones.

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use slatedb::db_cache::DbCache;
use slatedb::db_cache::foyer::{FoyerCache, FoyerCacheOptions};

use super::{Error, Tuning};

/// An object store, opened once a process. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The same objects, by a client that also removes the directories that a deletion leaves empty. Only databases
    /// that nothing uses any more are deleted through it, so it never races with a write.
    pub(super) removal: Arc<dyn ObjectStore>,
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
                Ok(Store::new(Arc::clone(&objects), objects, true, tuning))
            }
            "file" if rest.starts_with('/') => {
                let local = || LocalFileSystem::new_with_prefix(rest).map_err(|error| unusable(error.to_string()));
                std::fs::create_dir_all(rest).map_err(|error| unusable(error.to_string()))?;
                let objects = local()?.with_fsync(true);
                let removal = local()?.with_automatic_cleanup(true);
                Ok(Store::new(Arc::new(objects), Arc::new(removal), false, tuning))
            }
            "file" => Err(unusable("a directory is named by its absolute path, as in file:///var/lib/weir".to_owned())),
            "s3" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let s3 = AmazonS3Builder::from_env().with_bucket_name(bucket).with_allow_http(true).build();
                let s3 = s3.map_err(|error| unusable(error.to_string()))?;
                let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| unusable(error.to_string()))?;
                let objects: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(s3, prefix));
                Ok(Store::new(Arc::clone(&objects), objects, true, tuning))
            }
            _ => Err(unusable(format!("there is no scheme \"{scheme}\", only file, s3 and memory"))),
        }
    }

    fn new(
        objects: Arc<dyn ObjectStore>,
        removal: Arc<dyn ObjectStore>,
        conditional_overwrite: bool,
        tuning: Tuning,
    ) -> Store {
        // The shards bound contention; more than a few only make the bound on each shard coarser.
        let options = FoyerCacheOptions { max_capacity: tuning.cache_bytes, shards: 4 };
        let cache = Arc::new(FoyerCache::new_with_opts(options));
        Store { objects, removal, conditional_overwrite, cache, tuning: Arc::new(tuning) }
    }

    /// The object store itself, for what is not a database: its objects must not be changed.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Asks the store whether it answers, by looking for an object that need not exist.
    ///
    /// # Errors
    /// [`Error::Objects`] if it does not.
    pub async fn probe(&self) -> Result<(), Error> {
        let path = Path::from("probe");
        match self.objects.head(&path).await {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::objects("look for", path)(error)),
        }
    }
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

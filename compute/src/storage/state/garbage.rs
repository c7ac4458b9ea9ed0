//! Finds and removes the databases that nothing reaches any more. Reachability is computed from the
//! manifests, never from the numbers of terms, because a database may be read through a clone of
//! its clone.
//!
//! Roots are the head's checkpoints and the open databases: their newest manifest and those of all
//! their checkpoints. A manifest names every other database whose files it reads, through however
//! many clones, so the databases that an ancestor itself was cloned from do not count.
//!
//! Nothing may be removed that a newer term builds on. Collection therefore has two halves.
//! [`Survey::take`] lists the existing databases. The caller then reads the head, which must still
//! be of its own term, so that every database of the survey belongs to its term or an older one.
//! [`Survey::collect`] removes the databases of the survey that cannot be reached from that head.
//! It touches no database or checkpoint that was made after the survey, and unreachable files never
//! become reachable again.
//!
//! Two collections may overlap, the older one on a node that has not heard of the newer term. If a
//! database is gone when one gets to it, the other has removed it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use slatedb::VersionedManifest;
use slatedb::admin::Admin;
use slatedb::config::GarbageCollectorOptions;
use slatedb::manifest::ExternalDb;
use uuid::Uuid;
use weir_common::head::SlotState;

use super::{Error, Store};

/// The databases of a cluster at one moment, with their checkpoints.
#[derive(Debug)]
pub struct Survey {
    store: Store,
    /// Every database under the prefix, live or dead, by path. `None`: it has no manifest, because
    /// it is half made or half removed.
    databases: BTreeMap<String, Option<VersionedManifest>>,
}

/// The result of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The removed databases, in the order of removal: each before the databases that it was cloned
    /// from.
    pub databases: Vec<String>,
    /// The number of checkpoints that were removed from dead databases whose files others still
    /// read.
    pub checkpoints: usize,
    /// The number of databases that were kept.
    pub kept: usize,
}

impl Survey {
    /// Lists the databases under `prefix`, which are at `<prefix>/<term>/<slot>`.
    ///
    /// # Errors
    /// If the object store fails.
    pub async fn take(store: &Store, prefix: &str) -> Result<Survey, Error> {
        let list = async |path: &Path| {
            let listing = store.objects.list_with_delimiter(Some(path)).await;
            Ok::<_, Error>(listing.map_err(Error::objects("list", path))?.common_prefixes)
        };
        let mut databases = BTreeMap::new();
        for term in list(&Path::from(prefix)).await? {
            for slot in list(&term).await? {
                let path = slot.to_string();
                let manifest = manifest(store, &path, None).await?;
                databases.insert(path, manifest);
            }
        }
        Ok(Survey { store: store.clone(), databases })
    }

    /// The paths of the databases that existed.
    pub fn databases(&self) -> impl Iterator<Item = &str> {
        self.databases.keys().map(String::as_str)
    }

    /// Removes the databases that can be reached neither from the checkpoints of `head` nor from
    /// `live`, the databases of the caller's own term, made already or not.
    ///
    /// # Errors
    /// If the object store fails; the databases removed until then stay removed, and a later
    /// collection goes on. Corrupt, and nothing is removed, if a database or a checkpoint of the
    /// head is missing, because it is unknown which others it reads.
    pub async fn collect(&self, head: &[SlotState], live: &[String]) -> Result<Collected, Error> {
        let reached = self.reach(head, live).await?;
        let mut collected = Collected::default();
        for path in self.children_first(&reached) {
            self.remove(&path).await?;
            collected.databases.push(path);
        }
        for (path, needed) in &reached {
            if !live.contains(path) {
                collected.checkpoints += self.tidy(path, needed).await?;
            }
        }
        collected.kept = reached.len();
        Ok(collected)
    }

    /// The reachable databases, each with those of its checkpoints that others need.
    async fn reach(&self, head: &[SlotState], live: &[String]) -> Result<HashMap<String, HashSet<Uuid>>, Error> {
        let mut reached: HashMap<String, HashSet<Uuid>> = HashMap::new();
        for slot in head {
            reached.entry(slot.path.clone()).or_default().insert(slot.checkpoint);
        }
        let mut ancestors = Vec::new();
        for (path, committed) in reached.iter().filter(|(path, _)| !live.contains(path)) {
            let newest = manifest(&self.store, path, None).await?;
            self.check_complete(path, newest.as_ref(), committed)?;
            ancestors.extend(self.ancestors_at(path, newest.as_ref(), |id| committed.contains(&id)).await?);
        }
        for path in live {
            let newest = manifest(&self.store, path, None).await?;
            ancestors.extend(self.ancestors_at(path, newest.as_ref(), |_| true).await?);
            // Also the ancestors that it no longer reads but has yet to release, which it does by
            // writing to them.
            ancestors.extend(newest.iter().flat_map(|newest| newest.external_dbs().iter().map(hold)));
            reached.entry(path.clone()).or_default();
        }
        for (path, checkpoint) in ancestors {
            reached.entry(path).or_default().extend(checkpoint);
        }
        Ok(reached)
    }

    /// Checks that a database of the head, which is of an older term, is there with its committed
    /// checkpoints. It was there before the survey. If the survey did not see it, it is lost; if
    /// the survey saw it, only a newer term can have removed it.
    fn check_complete(
        &self,
        path: &str,
        newest: Option<&VersionedManifest>,
        committed: &HashSet<Uuid>,
    ) -> Result<(), Error> {
        let surveyed = self.databases.get(path).and_then(Option::as_ref);
        if let Some(what) = missing(surveyed, committed) {
            return Err(Error::Lost { path: path.to_owned(), what });
        }
        match missing(newest, committed) {
            Some(what) => Err(Error::Superseded { path: path.to_owned(), what }),
            None => Ok(()),
        }
    }

    /// The databases whose files some checkpoints of a database read.
    async fn ancestors_at(
        &self,
        path: &str,
        newest: Option<&VersionedManifest>,
        counts: impl Fn(Uuid) -> bool,
    ) -> Result<Vec<(String, Option<Uuid>)>, Error> {
        let mut ancestors = Vec::new();
        let checkpoints = newest.into_iter().flat_map(VersionedManifest::checkpoints);
        for checkpoint in checkpoints.filter(|checkpoint| counts(checkpoint.id)) {
            // Its manifest may be collected meanwhile; then the checkpoint has been deleted.
            let at = manifest(&self.store, path, Some(checkpoint.manifest_id)).await?;
            let read = at.iter().flat_map(VersionedManifest::external_dbs).filter(|other| !other.sst_ids.is_empty());
            ancestors.extend(read.map(hold));
        }
        Ok(ancestors)
    }

    /// The unreachable databases, each before those whose files it reads.
    fn children_first(&self, reached: &HashMap<String, HashSet<Uuid>>) -> Vec<String> {
        let mut left: BTreeSet<&String> = self.databases.keys().filter(|path| !reached.contains_key(*path)).collect();
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let read: HashSet<&str> = left
                .iter()
                .filter_map(|path| self.databases[*path].as_ref())
                .flat_map(|manifest| manifest.external_dbs())
                .map(|ancestor| ancestor.path.as_str())
                .collect();
            let (inner, leaves): (BTreeSet<_>, BTreeSet<_>) =
                left.iter().partition(|path| read.contains(path.as_str()));
            // Databases cannot read each other in a circle, because a clone's sources exist before
            // it.
            assert!(!leaves.is_empty(), "databases are cloned from each other in a circle: {inner:?}");
            order.extend(leaves.into_iter().cloned());
            left = inner;
        }
        order
    }

    /// Removes a database: first its hold on its ancestors, then its files.
    async fn remove(&self, path: &str) -> Result<(), Error> {
        if let Some(Some(manifest)) = self.databases.get(path) {
            for ancestor in manifest.external_dbs() {
                if let Some(checkpoint) = ancestor.final_checkpoint_id {
                    self.release(&ancestor.path, checkpoint).await?;
                }
            }
        }
        // The newest manifest is the last object in its directory, and that directory the last to
        // go, so that a removal that was cut short can still release the ancestors.
        let mut objects: Vec<Path> = self
            .store
            .objects
            .list(Some(&Path::from(path)))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .map_err(Error::objects("list", path))?;
        objects.sort_by_key(|object| (object.as_ref().contains("/manifest/"), object.to_string()));
        for object in objects {
            match self.store.removal.delete(&object).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(Error::objects("delete", object)(error)),
            }
        }
        Ok(())
    }

    async fn release(&self, path: &str, checkpoint: Uuid) -> Result<(), Error> {
        let admin = Admin::builder(path, self.store.objects.clone()).build();
        let released = admin.delete_checkpoint(checkpoint).await;
        self.unless_removed(path, "delete a checkpoint of", released).await.map(drop)
    }

    /// The result of an action on a dead database; `None` if the database has been removed.
    async fn unless_removed<T>(
        &self,
        path: &str,
        action: &'static str,
        result: Result<T, slatedb::Error>,
    ) -> Result<Option<T>, Error> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(_) if manifest(&self.store, path, None).await?.is_none() => Ok(None),
            Err(error) => Err(Error::database(action, path)(error)),
        }
    }

    /// Removes the checkpoints and files of a dead database that nothing reads.
    async fn tidy(&self, path: &str, needed: &HashSet<Uuid>) -> Result<usize, Error> {
        let Some(Some(surveyed)) = self.databases.get(path) else { return Ok(0) };
        let stale: Vec<Uuid> =
            surveyed.checkpoints().iter().map(|point| point.id).filter(|id| !needed.contains(id)).collect();
        if stale.is_empty() {
            return Ok(0);
        }
        let admin = Admin::builder(path, self.store.objects.clone()).build();
        for checkpoint in &stale {
            self.release(path, *checkpoint).await?;
        }
        // A dead database releases its own ancestors when it is removed. They may be gone before
        // it.
        let options = GarbageCollectorOptions {
            detach_options: None,
            ..self.store.tuning.collection(self.store.conditional_overwrite)
        };
        let collected = admin.run_gc_once(options).await;
        self.unless_removed(path, "collect garbage of", collected).await?;
        Ok(stale.len())
    }
}

/// Names what a database of the head lacks, if it or one of its committed checkpoints is missing.
fn missing(manifest: Option<&VersionedManifest>, committed: &HashSet<Uuid>) -> Option<String> {
    let Some(manifest) = manifest else { return Some("its manifest".to_owned()) };
    let is_there = |id: &Uuid| manifest.checkpoints().iter().any(|checkpoint| checkpoint.id == *id);
    let lost = committed.iter().find(|id| !is_there(id))?;
    Some(format!("its checkpoint {lost}"))
}

/// An ancestor, and the checkpoint there that holds it.
fn hold(ancestor: &ExternalDb) -> (String, Option<Uuid>) {
    (ancestor.path.clone(), ancestor.final_checkpoint_id)
}

async fn manifest(store: &Store, path: &str, id: Option<u64>) -> Result<Option<VersionedManifest>, Error> {
    let admin = Admin::builder(path, store.objects.clone()).build();
    admin.read_manifest(id).await.map_err(Error::database("read the manifest of", path))
}

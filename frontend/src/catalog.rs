//! The relations and jobs of one version of the catalog.
//!
//! This module owns the frontend's copy. Invariant: the copy's version goes back only if the
//! version in the metadata store did, because that was restored or created anew.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use weir_common::catalog::{Entry, Graph, JobState, RelationKind};
use weir_common::ids::TableId;

/// All entries at one version.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) version: u64,
    graph: Graph,
    names: BTreeMap<String, TableId>,
}

impl Catalog {
    pub(crate) fn new(version: u64, entries: impl IntoIterator<Item = Entry>) -> Catalog {
        let graph: Graph = entries.into_iter().collect();
        let names = graph.entries().map(|entry| (entry.name().to_owned(), entry.id())).collect();
        Catalog { version, graph, names }
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.by_id(*self.names.get(name)?)
    }

    /// Returns the entry with an id, if there is one.
    pub(crate) fn by_id(&self, id: TableId) -> Option<&Entry> {
        self.graph.get(id)
    }

    /// Returns all entries, ordered by name.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.names.values().filter_map(|id| self.graph.get(*id))
    }

    /// Returns the job that keeps a relation up to date. A source has one only after it has failed,
    /// since nobody reads it for views from then on.
    pub(crate) fn job<'a>(&'a self, entry: &'a Entry) -> Option<Job<'a>> {
        let failure = self.graph.failed(entry).and_then(|failed| match &failed.job.state {
            JobState::Failed { error, since_ms } => Some(Failure { error, since_ms: *since_ms }),
            JobState::Running => None,
        });
        let kind = entry.relation.kind;
        if !entry.has_job() || kind == RelationKind::Source && failure.is_none() {
            return None;
        }
        Some(Job { name: entry.name(), kind: kind.as_str(), failure })
    }

    /// Returns the entries whose rows a query of this one reads.
    pub(crate) fn read_by<'a>(&'a self, entry: &'a Entry) -> Vec<&'a Entry> {
        self.graph.read_by(entry)
    }

    /// Returns the number of plain views between an entry and the rows that it reads.
    pub(crate) fn depth(&self, entry: &Entry) -> usize {
        self.graph.depth(entry)
    }
}

/// A job in the catalog. Its condition comes from [`crate::jobs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job<'a> {
    pub(crate) name: &'a str,
    /// The kind of the relation that it keeps up to date.
    pub(crate) kind: &'static str,
    /// Present if the job has failed.
    pub(crate) failure: Option<Failure<'a>>,
}

/// The reason why a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure<'a> {
    pub(crate) error: &'a str,
    /// In milliseconds since 1970; absent if an older version recorded the failure.
    pub(crate) since_ms: Option<u64>,
}

/// The newest catalog that this frontend has seen. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatalogCache(Arc<RwLock<Arc<Catalog>>>);

impl CatalogCache {
    pub(crate) fn newest(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Stores a catalog if it is newer than the stored one; returns the stored one. `before` is the
    /// catalog that was stored at the time of the request. If it is newer than the answer, and
    /// still stored, then the versions have gone back.
    pub(crate) fn offer(&self, before: &Arc<Catalog>, catalog: Catalog) -> Arc<Catalog> {
        let mut newest = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let went_back = catalog.version < before.version && Arc::ptr_eq(&newest, before);
        if catalog.version > newest.version || went_back {
            *newest = Arc::new(catalog);
        }
        Arc::clone(&newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_only_goes_back_with_the_store() {
        let cache = CatalogCache::default();
        let before = cache.newest();
        assert_eq!(cache.offer(&before, Catalog::new(3, [])).version, 3);
        // Requested before the newer one arrived.
        assert_eq!(cache.offer(&before, Catalog::new(2, [])).version, 3);
        assert_eq!(cache.offer(&cache.newest(), Catalog::new(1, [])).version, 1);
        assert_eq!(cache.newest().version, 1);
    }
}

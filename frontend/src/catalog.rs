//! The tables of one version of the catalog.
//!
//! This module owns the frontend's copy. Invariant: the copy's version goes back only if the
//! version in the metadata store did, because that was restored or created anew.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use weir_common::catalog::{JobState, RelationKind, Table};
use weir_common::ids::TableId;

/// All tables at one version.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) version: u64,
    tables: BTreeMap<String, Arc<Table>>,
}

impl Catalog {
    pub(crate) fn new(version: u64, tables: impl IntoIterator<Item = Table>) -> Catalog {
        let tables = tables.into_iter().map(|table| (table.declared.name.clone(), Arc::new(table))).collect();
        Catalog { version, tables }
    }

    pub(crate) fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.get(name)
    }

    /// Returns the table with an id, if there is one.
    pub(crate) fn by_id(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables().find(|table| table.id == id)
    }

    /// Returns all tables, ordered by name.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    /// Returns the job that keeps a relation up to date. A source has a job only once it has
    /// failed, since nobody reads it for views from then on.
    pub(crate) fn job<'a>(&'a self, table: &'a Table) -> Option<Job<'a>> {
        let source = table.declared.reads().and_then(|reads| self.by_id(reads.relation));
        let states = std::iter::once(&table.state).chain(source.map(|source| &source.state));
        let failure = states.into_iter().find_map(|state| match state {
            JobState::Failed { error, since_ms } => Some(Failure { error, since_ms: *since_ms }),
            JobState::Running => None,
        });
        let kind = table.declared.kind;
        if kind == RelationKind::Source && failure.is_none() {
            return None;
        }
        Some(Job { name: &table.declared.name, kind: kind.as_str(), failure })
    }

    /// Returns the views that read a relation, ordered by name.
    pub(crate) fn views_of(&self, source: TableId) -> impl Iterator<Item = &Arc<Table>> {
        self.tables().filter(move |table| table.is_view_over(source))
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

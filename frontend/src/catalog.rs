//! The tables, as of one version of the catalog.
//!
//! Owns the frontend's copy. Invariant: the copy's version only goes back when the metadata store's has, which was
//! restored or made anew.

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

    /// The table of an id, if there is one.
    pub(crate) fn by_id(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables().find(|table| table.id == id)
    }

    /// Ordered by name.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    /// The job that keeps a relation up to date. Of a source there is one once it has failed: then nobody reads it for views.
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

    /// The views that read a relation, ordered by name.
    pub(crate) fn views_of(&self, source: TableId) -> impl Iterator<Item = &Arc<Table>> {
        self.tables().filter(move |table| table.is_view_over(source))
    }
}

/// A job as the catalog knows it. Its condition is asked for elsewhere, see [`crate::jobs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job<'a> {
    pub(crate) name: &'a str,
    /// What it keeps up to date.
    pub(crate) kind: &'static str,
    /// Present if it has failed.
    pub(crate) failure: Option<Failure<'a>>,
}

/// Why a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure<'a> {
    pub(crate) error: &'a str,
    /// In milliseconds since 1970; absent if an older version noted it.
    pub(crate) since_ms: Option<u64>,
}

/// The newest catalog that this frontend has seen. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatalogCache(Arc<RwLock<Arc<Catalog>>>);

impl CatalogCache {
    pub(crate) fn newest(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Keeps a catalog if it is newer than what is there, and returns what is kept. `before` is what was there when it
    /// was asked for: if that is newer, and still there, then the numbers have gone back.
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
        // Asked for before the newer one came.
        assert_eq!(cache.offer(&before, Catalog::new(2, [])).version, 3);
        assert_eq!(cache.offer(&cache.newest(), Catalog::new(1, [])).version, 1);
        assert_eq!(cache.newest().version, 1);
    }
}

//! The tables, as of one version of the catalog.
//!
//! Owns the frontend's copy. Invariant: the copy's version never goes back.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use weir_common::catalog::{JobState, Table};
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

    /// Ordered by name.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    /// What runs, and what does not any more; ordered by name.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = Job<'_>> {
        self.tables().map(|table| Job::of(table))
    }
}

/// A job as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job<'a> {
    pub(crate) id: TableId,
    pub(crate) name: &'a str,
    /// What it keeps up to date.
    pub(crate) kind: &'static str,
    /// `running` or `failed`.
    pub(crate) state: &'static str,
    /// Why it failed.
    pub(crate) error: Option<&'a str>,
}

impl Job<'_> {
    pub(crate) fn of(table: &Table) -> Job<'_> {
        let (state, error) = match &table.state {
            JobState::Running => ("running", None),
            JobState::Failed { error } => ("failed", Some(error.as_str())),
        };
        Job { id: table.id, name: &table.declared.name, kind: "table", state, error }
    }
}

/// The newest catalog that this frontend has seen. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatalogCache(Arc<RwLock<Arc<Catalog>>>);

impl CatalogCache {
    pub(crate) fn newest(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Keeps the catalog if it is newer than what is there, and returns the newer one.
    pub(crate) fn offer(&self, catalog: Catalog) -> Arc<Catalog> {
        let mut newest = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if catalog.version > newest.version {
            *newest = Arc::new(catalog);
        }
        Arc::clone(&newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_never_goes_back() {
        let cache = CatalogCache::default();
        assert_eq!(cache.offer(Catalog::new(3, [])).version, 3);
        assert_eq!(cache.offer(Catalog::new(2, [])).version, 3);
        assert_eq!(cache.newest().version, 3);
    }
}

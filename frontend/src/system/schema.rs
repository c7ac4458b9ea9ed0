//! The relations that queries can name: the database `dev` with the schemas `public` (the tables of
//! a catalog), `dead_letters` (their dead letters), `weir_catalog` (jobs and splits), `pg_catalog`
//! and `information_schema`.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::DataFusionError;
use weir_common::catalog::{Entry, RelationKind};
use weir_sql::parser::{DATABASE, PG_CATALOG, SCHEMA};
use weir_sql::relation::NamedRelation;
use weir_sql::writes::STORED;

use super::pg_catalog::SystemSchema;
use super::weir_catalog::WeirCatalog;
use super::{COPIED, DEAD_LETTERS, INFORMATION_SCHEMA, WEIR_CATALOG};
use crate::catalog::Catalog;
use crate::scan::ScannedRelation;
use crate::session::Session;

/// The only database, as of one version of the catalog.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    catalog: Arc<Catalog>,
    session: Arc<Session>,
    /// The rows that a COPY has brought.
    copied: Option<Arc<dyn TableProvider>>,
}

impl Database {
    pub(crate) fn new(catalog: &Arc<Catalog>, session: &Arc<Session>) -> Database {
        Database { catalog: Arc::clone(catalog), session: Arc::clone(session), copied: None }
    }

    pub(crate) fn with_copied(self, rows: Arc<dyn TableProvider>) -> Database {
        Database { copied: Some(rows), ..self }
    }
}

impl CatalogProviderList for Database {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![DATABASE.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == DATABASE).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for Database {
    fn schema_names(&self) -> Vec<String> {
        [SCHEMA, DEAD_LETTERS, PG_CATALOG, INFORMATION_SCHEMA, WEIR_CATALOG].map(str::to_owned).to_vec()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            SCHEMA => Some(Arc::new(Public(Arc::clone(&self.catalog)))),
            DEAD_LETTERS => Some(Arc::new(DeadLetters(Arc::clone(&self.catalog)))),
            PG_CATALOG => Some(Arc::new(SystemSchema::pg_catalog(&self.catalog, &self.session))),
            INFORMATION_SCHEMA => Some(Arc::new(SystemSchema::information_schema(&self.catalog, &self.session))),
            STORED => Some(Arc::new(StoredRows(Arc::clone(&self.catalog)))),
            COPIED => Some(Arc::new(CopiedRows(Arc::clone(self.copied.as_ref()?)))),
            WEIR_CATALOG => Some(Arc::new(WeirCatalog(Arc::clone(&self.catalog)))),
            _ => None,
        }
    }
}

/// The schema `public`.
#[derive(Debug)]
struct Public(Arc<Catalog>);

#[async_trait]
impl SchemaProvider for Public {
    fn table_names(&self) -> Vec<String> {
        self.0.entries().map(|entry| entry.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(entry) = self.0.entry(name) else { return Ok(None) };
        let (relation, rows) = (Arc::clone(&entry.relation), ScannedRelation::of(entry));
        Ok(Some(Arc::new(NamedRelation::new(relation, Arc::new(rows)))))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.entry(name).is_some()
    }
}

/// The tables that statements write to, with their hidden columns. No client is told of it.
#[derive(Debug)]
struct StoredRows(Arc<Catalog>);

#[async_trait]
impl SchemaProvider for StoredRows {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(entry) = self.0.entry(name) else { return Ok(None) };
        let (relation, rows) = (Arc::clone(&entry.relation), ScannedRelation::stored(entry));
        Ok(Some(Arc::new(NamedRelation::new(relation, Arc::new(rows)))))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.entry(name).is_some()
    }
}

/// The rows that a COPY has brought, under the name `rows`.
#[derive(Debug)]
struct CopiedRows(Arc<dyn TableProvider>);

#[async_trait]
impl SchemaProvider for CopiedRows {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(self.table_exist(name).then(|| Arc::clone(&self.0)))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == "rows"
    }
}

/// The schema `dead_letters`. It has the dead letters of each table that keeps them, and of each
/// source, under the name of that relation.
#[derive(Debug)]
struct DeadLetters(Arc<Catalog>);

#[async_trait]
impl SchemaProvider for DeadLetters {
    fn table_names(&self) -> Vec<String> {
        let keeps = self.0.entries().filter(|entry| has_dead_letters(entry));
        keeps.map(|entry| entry.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(entry) = self.0.entry(name) else { return Ok(None) };
        let Some(letters) = ScannedRelation::dead_letters_of(entry) else { return Ok(None) };
        Ok(Some(Arc::new(NamedRelation::new(Arc::clone(&entry.relation), Arc::new(letters)))))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.entry(name).is_some_and(has_dead_letters)
    }
}

fn has_dead_letters(entry: &Entry) -> bool {
    entry.relation.kind == RelationKind::Source || entry.job.dead_letters.is_some()
}

//! What queries can name: the database `dev` with the schemas `public` (the tables of a catalog), `dead_letters` (what is
//! no row of them), `weir_catalog` (what runs), `pg_catalog` and `information_schema`.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use sqlparser::ast::Ident;
use weir_common::catalog::{RelationKind, Table};

use super::pg_catalog::SystemSchema;
use super::{jobs, splits};
use crate::catalog::Catalog;
use crate::parser::{DATABASE, SCHEMA, fold};
use crate::scan::ScannedTable;
use crate::session::Session;

pub(super) const PG_CATALOG: &str = "pg_catalog";
pub(super) const INFORMATION_SCHEMA: &str = "information_schema";
pub(super) const WEIR_CATALOG: &str = "weir_catalog";
pub(super) const DEAD_LETTERS: &str = "dead_letters";

/// The only database, as of one catalog.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) catalog: Arc<Catalog>,
    pub(super) session: Arc<Session>,
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
            WEIR_CATALOG => Some(Arc::new(System(Arc::clone(&self.catalog)))),
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
        self.0.tables().map(|table| table.declared.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let table = self.0.table(name).cloned();
        Ok(table.map(|table| Arc::new(ScannedTable::new(table)) as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table(name).is_some()
    }
}

/// The schema `dead_letters`: for each table that keeps them, and each source, the messages that are no row of it, under its
/// name.
#[derive(Debug)]
struct DeadLetters(Arc<Catalog>);

#[async_trait]
impl SchemaProvider for DeadLetters {
    fn table_names(&self) -> Vec<String> {
        let keeps = self.0.tables().filter(|table| has_dead_letters(table));
        keeps.map(|table| table.declared.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let dead_letters = self.0.table(name).and_then(ScannedTable::dead_letters_of);
        Ok(dead_letters.map(|letters| Arc::new(letters) as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table(name).is_some_and(has_dead_letters)
    }
}

fn has_dead_letters(table: &Arc<Table>) -> bool {
    table.declared.kind == RelationKind::Source || table.dead_letters.is_some()
}

/// The schema `weir_catalog`: what users cannot see in PostgreSQL's catalogs.
#[derive(Debug)]
struct System(Arc<Catalog>);

const JOBS: &str = "jobs";
const SPLITS: &str = "splits";

#[async_trait]
impl SchemaProvider for System {
    fn table_names(&self) -> Vec<String> {
        vec![JOBS.to_owned(), SPLITS.to_owned()]
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        match name {
            JOBS => Ok(Some(Arc::new(jobs::table()?))),
            SPLITS => Ok(Some(Arc::new(splits::table(&self.0)?))),
            _ => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        matches!(name, JOBS | SPLITS)
    }
}

/// Whether a name, as it was written, is that of `weir_catalog.jobs`.
pub(super) fn is_jobs(parts: &[Ident]) -> bool {
    let folded: Vec<String> = parts.iter().map(fold).collect();
    let names: Vec<&str> = folded.iter().map(String::as_str).collect();
    matches!(names.as_slice(), [WEIR_CATALOG, JOBS]) || matches!(names.as_slice(), [DATABASE, WEIR_CATALOG, JOBS])
}

/// The relations of the schema `weir_catalog` with their columns.
///
/// # Errors
/// Internal.
pub(super) fn weir_relations(catalog: &Arc<Catalog>) -> Result<Vec<(&'static str, SchemaRef)>> {
    let (jobs, splits) = (jobs::table()?, splits::table(catalog)?);
    Ok(vec![(JOBS, TableProvider::schema(&jobs)), (SPLITS, TableProvider::schema(&splits))])
}

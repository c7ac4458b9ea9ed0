//! The relations that queries can name: the database `dev` with the schemas `public` (the tables of
//! a catalog), `dead_letters` (their dead letters), `weir_catalog` (jobs and splits), `pg_catalog`,
//! `information_schema` and `rw_catalog`.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::DataFusionError;
use weir_common::catalog::{Entry, Plan, Reads, RelationKind};
use weir_sql::error::Error;
use weir_sql::parser::{DATABASE, PG_CATALOG, SCHEMA};
use weir_sql::relation::NamedRelation;
use weir_sql::writes::STORED;
use weir_sql::{planner, views};

use super::pg_catalog::SystemSchema;
use super::weir_catalog::WeirCatalog;
use super::{COPIED, DEAD_LETTERS, INFORMATION_SCHEMA, RW_CATALOG, WEIR_CATALOG};
use crate::catalog::Catalog;
use crate::scan::ScannedRelation;
use crate::session::Session;

/// The only database, as of one version of the catalog.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    catalog: Arc<Catalog>,
    session: Arc<Session>,
    /// Plans the definitions of views.
    sql: Arc<planner::Planner>,
    /// The relations that the definition of a view names; `None`: names are those of the catalog.
    names: Option<Arc<[Reads]>>,
    /// The rows that a COPY has brought.
    copied: Option<Arc<dyn TableProvider>>,
}

impl Database {
    /// The database that a session's statement reads.
    pub(crate) fn new(catalog: &Arc<Catalog>, session: &Arc<Session>, sql: &Arc<planner::Planner>) -> Database {
        let (catalog, session, sql) = (Arc::clone(catalog), Arc::clone(session), Arc::clone(sql));
        Database { catalog, session, sql, names: None, copied: None }
    }

    /// The database of a COPY, with the rows that it has brought.
    pub(crate) fn with_copied(self, rows: Arc<dyn TableProvider>) -> Database {
        Database { copied: Some(rows), ..self }
    }

    /// The relation that a name means; in a definition, with the columns that it uses.
    fn find(&self, name: &str) -> Option<(&Entry, Option<&Reads>)> {
        match &self.names {
            None => Some((self.catalog.entry(name)?, None)),
            Some(names) => {
                let reads = names.iter().find(|reads| reads.name == name)?;
                Some((self.catalog.by_id(reads.relation)?, Some(reads)))
            }
        }
    }

    /// A view, as the plan of its query.
    async fn expanded(&self, view: &Entry) -> Result<Arc<dyn TableProvider>, Error> {
        let (Plan::Definition(definition), Some(template)) = (&view.job.plan, self.session.template.get()) else {
            return Err(Error::internal(format!("view \"{}\" cannot be planned", view.name())));
        };
        let inner = Database { names: Some(definition.names.clone().into()), copied: None, ..self.clone() };
        let state = planner::state(template, template.config().clone(), Arc::new(inner));
        views::expand(&self.sql, &state, &view.relation).await
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
        [SCHEMA, DEAD_LETTERS, PG_CATALOG, INFORMATION_SCHEMA, WEIR_CATALOG, RW_CATALOG].map(str::to_owned).to_vec()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            SCHEMA => Some(Arc::new(Public(self.clone()))),
            DEAD_LETTERS => Some(Arc::new(DeadLetters(self.clone()))),
            PG_CATALOG => Some(Arc::new(SystemSchema::pg_catalog(&self.catalog, &self.session))),
            INFORMATION_SCHEMA => Some(Arc::new(SystemSchema::information_schema(&self.catalog, &self.session))),
            RW_CATALOG => Some(Arc::new(SystemSchema::rw_catalog(&self.catalog, &self.session))),
            STORED => Some(Arc::new(StoredRows(Arc::clone(&self.catalog)))),
            COPIED => Some(Arc::new(CopiedRows(Arc::clone(self.copied.as_ref()?)))),
            WEIR_CATALOG => Some(Arc::new(WeirCatalog(Arc::clone(&self.catalog)))),
            _ => None,
        }
    }
}

/// The schema `public`.
#[derive(Debug)]
struct Public(Database);

#[async_trait]
impl SchemaProvider for Public {
    fn table_names(&self) -> Vec<String> {
        self.0.catalog.entries().map(|entry| entry.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some((entry, reads)) = self.0.find(name) else { return Ok(None) };
        let provider = match entry.relation.kind {
            RelationKind::View => self.0.expanded(entry).await?,
            _ => Arc::new(NamedRelation::new(Arc::clone(&entry.relation), Arc::new(ScannedRelation::of(entry)))),
        };
        Ok(Some(match reads {
            Some(reads) => views::narrowed(entry.name(), provider, &reads.columns)?,
            None => provider,
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.find(name).is_some()
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
struct DeadLetters(Database);

#[async_trait]
impl SchemaProvider for DeadLetters {
    fn table_names(&self) -> Vec<String> {
        let keeps = self.0.catalog.entries().filter(|entry| has_dead_letters(entry));
        keeps.map(|entry| entry.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some((entry, _)) = self.0.find(name) else { return Ok(None) };
        let Some(letters) = ScannedRelation::dead_letters_of(entry) else { return Ok(None) };
        Ok(Some(Arc::new(NamedRelation::new(Arc::clone(&entry.relation), Arc::new(letters)))))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.find(name).is_some_and(|(entry, _)| has_dead_letters(entry))
    }
}

fn has_dead_letters(entry: &Entry) -> bool {
    entry.relation.kind == RelationKind::Source || entry.job.dead_letters.is_some()
}

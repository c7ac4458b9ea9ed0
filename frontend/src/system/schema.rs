//! The relations that queries can name: the database `dev` with the schemas of a catalog,
//! `dead_letters` (their dead letters), `weir_catalog` (jobs and splits), `pg_catalog`,
//! `information_schema` and `rw_catalog`.
//!
//! Names without a schema are those of the schema [`SEARCHED`], which looks for them along the
//! search path of the session. In definitions of views they are those of `public`.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::DataFusionError;
use weir_common::catalog::{Entry, Plan, Reads, RelationKind, SYSTEM_SCHEMAS};
use weir_sql::error::Error;
use weir_sql::parser::{self, DATABASE, PG_CATALOG, Statement};
use weir_sql::relation::NamedRelation;
use weir_sql::views::{Input, Recomputed, StoredFunctions};
use weir_sql::writes::STORED;
use weir_sql::{planner, views};

use super::pg_catalog::{SystemSchema, is_in_pg_catalog};
use super::weir_catalog::WeirCatalog;
use super::{COPIED, INFORMATION_SCHEMA, RECOMPUTED, RW_CATALOG, WEIR_CATALOG};
use crate::catalog::{Catalog, check_known};
use crate::definitions;
use crate::names::{DEAD_LETTERS, Meaning, SearchPath};
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
    /// The schemas in which names are looked for.
    path: Arc<SearchPath>,
    /// The rows that a COPY has brought.
    copied: Option<Arc<dyn TableProvider>>,
}

/// The schema of names without one. No client is told of it.
pub(crate) const SEARCHED: &str = "weir_searched";

impl Database {
    /// The database that a session's statement reads.
    pub(crate) fn new(catalog: &Arc<Catalog>, session: &Arc<Session>, sql: &Arc<planner::Planner>) -> Database {
        let path = Arc::new(session.search_path());
        let (catalog, session, sql) = (Arc::clone(catalog), Arc::clone(session), Arc::clone(sql));
        Database { catalog, session, sql, names: None, path, copied: None }
    }

    /// The schemas in which names are looked for.
    pub(crate) fn path(&self) -> &SearchPath {
        &self.path
    }

    /// The first schema of the search path that has a relation of this name; `None` for a system
    /// catalog, which is found without.
    pub(crate) fn schema_of(&self, name: &str) -> Option<String> {
        if is_in_pg_catalog(name) {
            return None;
        }
        let has = |schema: &&str| self.schema_named(schema).is_some_and(|schema| schema.table_exist(name));
        self.path.schemas().find(has).map(str::to_owned)
    }

    /// The database of a COPY, with the rows that it has brought.
    pub(crate) fn with_copied(self, rows: Arc<dyn TableProvider>) -> Database {
        Database { copied: Some(rows), ..self }
    }

    /// The relation of which a name means the rows or the dead letters; in a definition, with the
    /// columns that it uses.
    fn find(&self, meaning: &Meaning) -> Option<(&Entry, Option<&Reads>)> {
        match (&self.names, meaning) {
            (None, Meaning::Rows(name)) => Some((self.catalog.entry(name)?, None)),
            (None, Meaning::Letters(shown)) => Some((self.catalog.shown(shown)?, None)),
            (Some(names), meaning) => {
                let reads = names.iter().find(|reads| meaning.is(&reads.name))?;
                Some((self.catalog.by_id(reads.relation)?, Some(reads)))
            }
        }
    }

    fn schema_named(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            DEAD_LETTERS => Some(Arc::new(DeadLetters(self.clone()))),
            PG_CATALOG => Some(Arc::new(SystemSchema::pg_catalog(&self.catalog, &self.session))),
            INFORMATION_SCHEMA => Some(Arc::new(SystemSchema::information_schema(&self.catalog, &self.session))),
            RW_CATALOG => Some(Arc::new(SystemSchema::rw_catalog(&self.catalog, &self.session))),
            STORED => Some(Arc::new(StoredRows(Arc::clone(&self.catalog)))),
            COPIED => Some(Arc::new(CopiedRows(Arc::clone(self.copied.as_ref()?)))),
            RECOMPUTED => Some(Arc::new(RecomputedRows(self.clone()))),
            WEIR_CATALOG => Some(Arc::new(WeirCatalog(Arc::clone(&self.catalog)))),
            // The schemas that a definition names may have other names now.
            name if self.names.is_some() || self.catalog.has_schema(name) => {
                Some(Arc::new(Relations { database: self.clone(), schema: name.to_owned() }))
            }
            _ => None,
        }
    }

    /// The rows that a materialized view over tables and views should have.
    async fn recomputed(&self, view: &Entry) -> Result<Arc<dyn TableProvider>, Error> {
        let internal = || Error::internal(format!("view \"{}\" cannot be computed", view.name()));
        let (Plan::Query(stored), Some(template)) = (&view.job.plan, self.session.template.get()) else {
            return Err(internal());
        };
        let state = planner::state(template, template.config().clone(), Arc::new(self.clone()));
        let text = definitions::qualified_query(&self.catalog, view).ok_or_else(internal)?.to_string();
        let parsed = parser::parse(&text)?.pop().ok_or_else(internal)?;
        let Statement::Query(query) = &parsed.statement else { return Err(internal()) };
        let query = views::planned(&self.sql, &state, &view.relation, (&parsed, query.clone())).await?;
        let input = |reads: &Reads| {
            let entry = self.catalog.by_id(reads.relation).ok_or_else(internal)?;
            check_known(entry)?;
            Ok(Input { relation: Arc::clone(&entry.relation), rows: Arc::new(ScannedRelation::stored(entry)) })
        };
        let inputs = stored.reads.iter().map(input).collect::<Result<Vec<_>, Error>>()?;
        let functions = StoredFunctions::new(&self.sql);
        Ok(Arc::new(Recomputed::new(&view.relation, query, (stored, &inputs), functions)?))
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
        let own = self.catalog.schemas().map(|schema| schema.name.as_str());
        own.chain(SYSTEM_SCHEMAS).map(str::to_owned).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            SEARCHED => Some(Arc::new(Searched(self.clone()))),
            _ => self.schema_named(name),
        }
    }
}

/// The relations that are found along the search path.
#[derive(Debug)]
struct Searched(Database);

#[async_trait]
impl SchemaProvider for Searched {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let schema = self.0.schema_of(name).and_then(|schema| self.0.schema_named(&schema));
        match schema {
            Some(schema) => schema.table(name).await,
            None => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.schema_of(name).is_some()
    }
}

/// A schema of the catalog.
#[derive(Debug)]
struct Relations {
    database: Database,
    schema: String,
}

impl Relations {
    fn find(&self, name: &str) -> Option<(&Entry, Option<&Reads>)> {
        self.database.find(&Meaning::in_schema(&self.schema, name))
    }
}

#[async_trait]
impl SchemaProvider for Relations {
    fn table_names(&self) -> Vec<String> {
        let names = self.database.catalog.entries().map(Entry::name);
        names.filter(|name| name.schema == self.schema).map(|name| name.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some((entry, reads)) = self.find(name) else { return Ok(None) };
        check_known(entry)?;
        let provider = match entry.relation.kind {
            RelationKind::View => self.database.expanded(entry).await?,
            _ => Arc::new(NamedRelation::new(Arc::clone(&entry.relation), Arc::new(ScannedRelation::of(entry)))),
        };
        Ok(Some(match reads {
            Some(reads) => views::narrowed(entry.name(), provider, &reads.columns)?,
            None => provider,
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}

/// The tables that statements write to, with their hidden columns, under their names as they are
/// shown. No client is told of it.
#[derive(Debug)]
struct StoredRows(Arc<Catalog>);

#[async_trait]
impl SchemaProvider for StoredRows {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(entry) = self.0.shown(name) else { return Ok(None) };
        let (relation, rows) = (Arc::clone(&entry.relation), ScannedRelation::stored(entry));
        Ok(Some(Arc::new(NamedRelation::new(relation, Arc::new(rows)))))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.shown(name).is_some()
    }
}

/// The rows that materialized views should have, under the names of these as they are shown. No
/// client is told of it.
#[derive(Debug)]
struct RecomputedRows(Database);

#[async_trait]
impl SchemaProvider for RecomputedRows {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(entry) = self.0.catalog.shown(name) else { return Ok(None) };
        Ok(Some(self.0.recomputed(entry).await?))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.catalog.shown(name).is_some()
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
/// source, under the name of that relation as it is shown: outside of `public` with the schema.
#[derive(Debug)]
struct DeadLetters(Database);

#[async_trait]
impl SchemaProvider for DeadLetters {
    fn table_names(&self) -> Vec<String> {
        let keeps = self.0.catalog.entries().filter(|entry| has_dead_letters(entry));
        keeps.map(|entry| entry.name().to_string()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some((entry, _)) = self.0.find(&Meaning::Letters(name.to_owned())) else { return Ok(None) };
        let Some(letters) = ScannedRelation::dead_letters_of(entry) else { return Ok(None) };
        Ok(Some(Arc::new(NamedRelation::letters(Arc::clone(&entry.relation), Arc::new(letters)))))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.find(&Meaning::Letters(name.to_owned())).is_some_and(|(entry, _)| has_dead_letters(entry))
    }
}

fn has_dead_letters(entry: &Entry) -> bool {
    entry.relation.kind == RelationKind::Source || entry.job.dead_letters.is_some()
}

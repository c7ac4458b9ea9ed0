//! The system catalogs: the schemas `pg_catalog` and `information_schema`, with the relations,
//! columns and types of PostgreSQL 15, a part of RisingWave's `rw_catalog`, and the functions that
//! look up objects in them.
//!
//! [`relations`] declares every relation, from a data file. A relation that has no counterpart in
//! Weir is therefore empty, rather than missing. [`tables`], [`information`] and [`risingwave`]
//! provide the rows: some are fixed, others come from the catalog of the statement ([`objects`]) or
//! from the session.
//! [`names`] and [`functions`] provide the functions; [`searching`] tells them the search path.
//!
//! Invariant: a column has the type that PostgreSQL reports for it. Where Arrow has one type for
//! several of PostgreSQL's, the field is marked ([`weir_sql::types::marked`]).

mod cells;
mod functions;
mod information;
mod keywords;
mod names;
mod objects;
mod relations;
mod risingwave;
mod searching;
mod tables;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::catalog::{MemTable, SchemaProvider, TableFunctionImpl, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ScalarUDF;
use weir_sql::parser::PG_CATALOG;

use super::{INFORMATION_SCHEMA, RW_CATALOG};
use crate::catalog::{Catalog, CatalogCache};
use crate::session::Session;

pub(super) use objects::{origin, origin_in};
pub(crate) use searching::Searching;

/// The only user, with the oid of PostgreSQL's first user.
pub(super) const ROOT: &str = "root";
const ROOT_OID: u32 = 10;
/// `pg_database.oid`; PostgreSQL gives it to its database `postgres`.
const DATABASE_OID: u32 = 5;

/// The rows of `pg_proc`, from PostgreSQL 15.
const PROCEDURES: &str = include_str!("pg_catalog/data/pg_proc.tsv");

/// Returns the functions that look up objects.
pub(super) fn functions(cache: &CatalogCache) -> Vec<ScalarUDF> {
    functions::functions(cache)
}

/// Returns the functions that return rows, by name.
pub(super) fn table_functions() -> Vec<(&'static str, Arc<dyn TableFunctionImpl>)> {
    vec![("pg_get_keywords", Arc::new(keywords::Keywords))]
}

/// Returns the names of the relations that are found without a schema: those of `pg_catalog` and
/// `rw_catalog`.
pub(super) fn names() -> HashSet<&'static str> {
    let relations = relations::all().iter().filter(|relation| relation.schema_name != INFORMATION_SCHEMA);
    relations.map(|relation| relation.name).collect()
}

/// Returns true if an unqualified name is that of a system catalog.
pub(super) fn is_in_pg_catalog(name: &str) -> bool {
    find(PG_CATALOG, name).is_some()
}

/// Finds a relation. Names without a schema are looked for in `pg_catalog`, so that also has those
/// of `rw_catalog`.
fn find(schema: &str, name: &str) -> Option<&'static relations::Relation> {
    let elsewhere = || relations::find(RW_CATALOG, name).filter(|_| schema == PG_CATALOG);
    relations::find(schema, name).or_else(elsewhere)
}

/// One of the schemas, as a session sees it.
#[derive(Clone, Debug)]
pub(super) struct SystemSchema {
    name: &'static str,
    catalog: Arc<Catalog>,
    session: Arc<Session>,
}

impl SystemSchema {
    pub(super) fn pg_catalog(catalog: &Arc<Catalog>, session: &Arc<Session>) -> SystemSchema {
        SystemSchema { name: PG_CATALOG, catalog: Arc::clone(catalog), session: Arc::clone(session) }
    }

    pub(super) fn information_schema(catalog: &Arc<Catalog>, session: &Arc<Session>) -> SystemSchema {
        SystemSchema { name: INFORMATION_SCHEMA, ..SystemSchema::pg_catalog(catalog, session) }
    }

    pub(super) fn rw_catalog(catalog: &Arc<Catalog>, session: &Arc<Session>) -> SystemSchema {
        SystemSchema { name: RW_CATALOG, ..SystemSchema::pg_catalog(catalog, session) }
    }

    fn rows(&self, relation: &'static relations::Relation) -> Result<Vec<RecordBatch>> {
        let rows = match relation.schema_name {
            INFORMATION_SCHEMA => {
                information::rows(relation.name, &objects::all(&self.catalog)?, &objects::namespaces(&self.catalog))
            }
            RW_CATALOG => risingwave::rows(relation.name, &self.catalog)?,
            _ => {
                let mut rows = tables::of_catalog(relation.name, &self.catalog)?;
                rows.extend(tables::of_session(relation.name, &self.session));
                rows
            }
        };
        let fixed = match relation.schema_name {
            PG_CATALOG => fixed(relation)?,
            _ => &[],
        };
        let rows = cells::batch(relation, &rows)?;
        Ok(fixed.iter().cloned().chain([rows]).collect())
    }
}

/// Returns the rows of a relation that never change. They are made once.
fn fixed(relation: &'static relations::Relation) -> Result<&'static [RecordBatch]> {
    if let Some(batches) = relation.fixed.get() {
        return Ok(batches);
    }
    let batches = tables::fixed(relation)?;
    Ok(relation.fixed.get_or_init(|| batches))
}

/// Rows that are made at their first use.
type Fixed = OnceLock<Vec<RecordBatch>>;

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        relations::all()
            .iter()
            .filter(|relation| relation.schema_name == self.name)
            .map(|relation| relation.name.to_owned())
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(relation) = find(self.name, name) else { return Ok(None) };
        let rows = self.rows(relation)?;
        Ok(Some(Arc::new(MemTable::try_new(Arc::clone(&relation.schema), vec![rows])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        find(self.name, name).is_some()
    }
}

#[cfg(test)]
mod tests;

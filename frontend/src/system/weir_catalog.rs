//! The schema `weir_catalog`: the state of Weir that PostgreSQL's catalogs have no place for.

mod jobs;
mod splits;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use sqlparser::ast::Ident;
use weir_sql::parser::{DATABASE, fold};

use super::WEIR_CATALOG;
use crate::catalog::Catalog;

/// The schema.
#[derive(Debug)]
pub(super) struct WeirCatalog(pub(super) Arc<Catalog>);

const JOBS: &str = "jobs";
const SPLITS: &str = "splits";

#[async_trait]
impl SchemaProvider for WeirCatalog {
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

/// Returns true if a name, as it was written, is that of `weir_catalog.jobs`.
pub(super) fn is_jobs(parts: &[Ident]) -> bool {
    let folded: Vec<String> = parts.iter().map(fold).collect();
    let names: Vec<&str> = folded.iter().map(String::as_str).collect();
    matches!(names.as_slice(), [WEIR_CATALOG, JOBS]) || matches!(names.as_slice(), [DATABASE, WEIR_CATALOG, JOBS])
}

/// Returns the relations of the schema `weir_catalog` with their columns.
///
/// # Errors
/// Internal.
pub(super) fn relations(catalog: &Arc<Catalog>) -> Result<Vec<(&'static str, SchemaRef)>> {
    let (jobs, splits) = (jobs::table()?, splits::table(catalog)?);
    Ok(vec![(JOBS, TableProvider::schema(&jobs)), (SPLITS, TableProvider::schema(&splits))])
}

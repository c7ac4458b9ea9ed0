//! A relation of the catalog, as queries name it.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableScan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use weir_common::catalog::Relation;

/// A relation that a plan reads: its entry in the catalog, and the provider of its rows.
#[derive(Debug)]
pub struct NamedRelation {
    relation: Arc<Relation>,
    rows: Arc<dyn TableProvider>,
    are_letters: bool,
}

impl NamedRelation {
    /// A relation whose rows are provided by `rows`.
    pub fn new(relation: Arc<Relation>, rows: Arc<dyn TableProvider>) -> NamedRelation {
        NamedRelation { relation, rows, are_letters: false }
    }

    /// A relation whose dead letters are provided by `letters`.
    pub fn letters(relation: Arc<Relation>, letters: Arc<dyn TableProvider>) -> NamedRelation {
        NamedRelation { relation, rows: letters, are_letters: true }
    }

    /// The catalog's entry of the relation that a scan reads; `None` for a system catalog.
    ///
    /// # Errors
    /// Internal, if the scan's source is not a table provider.
    pub fn of(scan: &TableScan) -> Result<Option<Arc<Relation>>> {
        let provider = source_as_provider(&scan.source)?;
        Ok(provider.downcast_ref::<NamedRelation>().map(|named| Arc::clone(&named.relation)))
    }

    /// True if a scan reads the dead letters of a relation.
    ///
    /// # Errors
    /// Internal, if the scan's source is not a table provider.
    pub fn reads_letters(scan: &TableScan) -> Result<bool> {
        let provider = source_as_provider(&scan.source)?;
        Ok(provider.downcast_ref::<NamedRelation>().is_some_and(|named| named.are_letters))
    }
}

#[async_trait]
impl TableProvider for NamedRelation {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        self.rows.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.rows.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.rows.scan(state, projection, filters, limit).await
    }
}

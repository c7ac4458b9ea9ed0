//! Reads tables and sources for DataFusion. A table's rows come from the slots of compute nodes; a
//! source's rows are read from NATS by one of these nodes, for the statement.
//!
//! A scan of a table has one partition per slot. This module owns nothing durable. The statement's
//! snapshot determines the rows; the scan finds it in the session's configuration.

mod client;
mod decode;
mod exec;
mod keys;
mod narrowing;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use weir_common::catalog::{RelationKind, Table, dead_letter_columns, schema};
use weir_sql::error::{Error, sqlstate};

pub(crate) use client::ComputeNodes;
use exec::{Scan, ScanExec};
use narrowing::Narrowing;

use crate::snapshot::Snapshot;

/// A table or source that queries can read.
#[derive(Debug)]
pub(crate) struct ScannedTable {
    table: Arc<Table>,
    schema: SchemaRef,
    /// True if it provides the source's dead letters instead of its rows.
    dead_letters: bool,
}

impl ScannedTable {
    pub(crate) fn new(table: Arc<Table>) -> ScannedTable {
        let schema = table.schema();
        ScannedTable { table, schema, dead_letters: false }
    }

    /// Returns the dead letters of a relation. A table may keep them; those of a source are read
    /// from its stream, unless acknowledgements delete its messages.
    pub(crate) fn dead_letters_of(table: &Arc<Table>) -> Option<ScannedTable> {
        if table.declared.kind == RelationKind::Source && !table.is_consumed() {
            let schema = schema(&dead_letter_columns());
            return Some(ScannedTable { table: Arc::clone(table), schema, dead_letters: true });
        }
        Some(ScannedTable::new(Arc::new(table.dead_letter_table()?)))
    }
}

#[async_trait]
impl TableProvider for ScannedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let pushed = |filter: &&Expr| match self.narrowed_by([*filter]) == Narrowing::default() {
            true => TableProviderFilterPushDown::Unsupported,
            // The filter narrows the scan, and must still be applied to the rows.
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.table.is_consumed() {
            let message = format!("source \"{}\" cannot be read by a query", self.table.declared.name);
            let hint = "its stream loses what is acknowledged, so what is read has to be stored: create a materialized \
                        view over it, or a table";
            return Err(Error::user(sqlstate::FEATURE_NOT_SUPPORTED, message).with_hint(hint).into());
        }
        let snapshot = state.config().get_extension::<Snapshot>().ok_or_else(|| no_extension("a snapshot"))?;
        let nodes = state.config().get_extension::<ComputeNodes>().ok_or_else(|| no_extension("compute nodes"))?;
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let (table, narrowing) = (Arc::clone(&self.table), self.narrowed_by(filters));
        let (schema, dead_letters) = (Arc::new(self.schema.project(&projection)?), self.dead_letters);
        if narrowing.is_nothing() {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let scan =
            Scan { snapshot, nodes, table, dead_letters, schema, projection, narrowing, conditions: Vec::new(), limit };
        Ok(Arc::new(ScanExec::new(scan)?))
    }
}

impl ScannedTable {
    /// Returns the bounds that conditions put on the messages of a source, or of a table with
    /// blocks.
    fn narrowed_by<'a>(&self, conditions: impl IntoIterator<Item = &'a Expr>) -> Narrowing {
        let declared = &self.table.declared;
        let mut narrowing = Narrowing::default();
        let is_narrowed = match declared.kind {
            RelationKind::Source => !self.dead_letters,
            RelationKind::Table => !declared.is_keyed(),
            RelationKind::MaterializedView => false,
        };
        if is_narrowed {
            for condition in conditions {
                narrowing.add(condition, &declared.columns);
            }
        }
        if declared.kind == RelationKind::Source { narrowing } else { narrowing.of_sequences() }
    }
}

fn no_extension(what: &str) -> datafusion::error::DataFusionError {
    Error::internal(format!("a table is scanned without {what}")).into()
}

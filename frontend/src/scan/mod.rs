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
use weir_common::catalog::{Entry, Relation, RelationKind, dead_letter_columns, schema};
use weir_common::ids::TableId;
use weir_sql::error::{Error, sqlstate};

pub(crate) use client::ComputeNodes;
use exec::{Scan, ScanExec};
use narrowing::Narrowing;

use crate::snapshot::Snapshot;

/// A relation that queries can read.
#[derive(Debug)]
pub(crate) struct ScannedRelation {
    relation: Arc<Relation>,
    /// The job that fills it.
    job: TableId,
    schema: SchemaRef,
    rows: Rows,
}

/// The rows that it provides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// The rows of the relation.
    All,
    /// The dead letters of a source, which are read from its stream.
    DeadLetters,
    /// No rows: the stream of the source loses acknowledged messages.
    Refused,
}

impl ScannedRelation {
    /// Returns the rows of a relation.
    pub(crate) fn of(entry: &Entry) -> ScannedRelation {
        let rows = if entry.is_consumed() { Rows::Refused } else { Rows::All };
        let (relation, schema) = (Arc::clone(&entry.relation), entry.relation.schema());
        ScannedRelation { relation, job: entry.id(), schema, rows }
    }

    /// Returns the rows of a relation with their hidden columns.
    pub(crate) fn stored(entry: &Entry) -> ScannedRelation {
        ScannedRelation { schema: entry.relation.stored_schema(), ..ScannedRelation::of(entry) }
    }

    /// Returns the dead letters of a relation. A table may keep them; those of a source are read
    /// from its stream, unless acknowledgements delete its messages.
    pub(crate) fn dead_letters_of(entry: &Entry) -> Option<ScannedRelation> {
        if entry.relation.kind == RelationKind::Source && !entry.is_consumed() {
            let (relation, schema) = (Arc::clone(&entry.relation), schema(&dead_letter_columns()));
            return Some(ScannedRelation { relation, job: entry.id(), schema, rows: Rows::DeadLetters });
        }
        let letters = entry.dead_letters()?;
        let (schema, relation) = (letters.schema(), Arc::new(letters));
        Some(ScannedRelation { relation, job: entry.id(), schema, rows: Rows::All })
    }
}

#[async_trait]
impl TableProvider for ScannedRelation {
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
        if self.rows == Rows::Refused {
            let message = format!("source \"{}\" cannot be read by a query", self.relation.name);
            let hint = "its stream loses what is acknowledged, so what is read has to be stored: create a materialized \
                        view over it, or a table";
            return Err(Error::user(sqlstate::FEATURE_NOT_SUPPORTED, message).with_hint(hint).into());
        }
        let snapshot = state.config().get_extension::<Snapshot>().ok_or_else(|| no_extension("a snapshot"))?;
        if let Some(entry) = snapshot.catalog.by_id(self.job) {
            snapshot.catalog.check_whole(entry)?;
        }
        let nodes = state.config().get_extension::<ComputeNodes>().ok_or_else(|| no_extension("compute nodes"))?;
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let (relation, narrowing) = (Arc::clone(&self.relation), self.narrowed_by(filters));
        let (schema, dead_letters) = (Arc::new(self.schema.project(&projection)?), self.rows == Rows::DeadLetters);
        if narrowing.is_nothing() {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let scan = Scan {
            snapshot,
            nodes,
            relation,
            dead_letters,
            schema,
            projection,
            narrowing,
            conditions: Vec::new(),
            limit,
        };
        Ok(Arc::new(ScanExec::new(scan)?))
    }
}

impl ScannedRelation {
    /// Returns the bounds that conditions put on the messages of a source, or of a table with
    /// blocks.
    fn narrowed_by<'a>(&self, conditions: impl IntoIterator<Item = &'a Expr>) -> Narrowing {
        let relation = &self.relation;
        let mut narrowing = Narrowing::default();
        let is_narrowed = match relation.kind {
            RelationKind::Source => self.rows != Rows::DeadLetters,
            RelationKind::Table => !relation.is_keyed(),
            RelationKind::MaterializedView | RelationKind::View => false,
        };
        if is_narrowed {
            for condition in conditions {
                narrowing.add(condition, &relation.columns);
            }
        }
        if relation.kind == RelationKind::Source { narrowing } else { narrowing.of_sequences() }
    }
}

fn no_extension(what: &str) -> datafusion::error::DataFusionError {
    Error::internal(format!("a table is scanned without {what}")).into()
}

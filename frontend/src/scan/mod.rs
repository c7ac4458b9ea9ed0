//! Reading tables: DataFusion's view of a table whose rows lie in the slots of compute nodes.
//!
//! A scan has one partition a slot. Owns nothing durable; what is read is decided by the statement's snapshot, which
//! the scan finds in the session's configuration.

mod client;
mod decode;
mod exec;
mod source;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use weir_common::catalog::Table;

pub(crate) use client::ComputeNodes;
use exec::ScanExec;
pub(crate) use source::ReadSource;

use crate::error::Error;
use crate::snapshot::Snapshot;

/// A table that queries can read.
#[derive(Debug)]
pub(crate) struct ScannedTable {
    table: Arc<Table>,
    schema: SchemaRef,
}

impl ScannedTable {
    pub(crate) fn new(table: Arc<Table>) -> ScannedTable {
        let schema = table.schema();
        ScannedTable { table, schema }
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

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (snapshot, nodes) = scanned(state)?;
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&projection)?);
        Ok(Arc::new(ScanExec::new(snapshot, nodes, Arc::clone(&self.table), projection, schema, limit)))
    }
}

/// What a statement reads, and whom it asks.
fn scanned(state: &dyn Session) -> Result<(Arc<Snapshot>, Arc<ComputeNodes>)> {
    let snapshot = state.config().get_extension::<Snapshot>().ok_or_else(|| no_extension("a snapshot"))?;
    let nodes = state.config().get_extension::<ComputeNodes>().ok_or_else(|| no_extension("compute nodes"))?;
    Ok((snapshot, nodes))
}

fn no_extension(what: &str) -> datafusion::error::DataFusionError {
    Error::internal(format!("a table is scanned without {what}")).into()
}

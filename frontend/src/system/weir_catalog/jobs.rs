//! The view `weir_catalog.jobs`. Each read asks for the jobs anew, see [`crate::jobs`].

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use tokio::time::Instant;
use weir_sql::error::Error;

use crate::jobs::{self, Jobs};

#[derive(Debug)]
struct View {
    schema: SchemaRef,
}

/// Returns the view.
pub(super) fn table() -> Result<StreamingTable> {
    let schema = jobs::schema([
        "id",
        "name",
        "kind",
        "state",
        "since",
        "reason",
        "progress",
        "lag",
        "cpu",
        "state_rows",
        "state_bytes",
    ]);
    StreamingTable::try_new(Arc::clone(&schema), vec![Arc::new(View { schema })])
}

impl PartitionStream for View {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let rows = async move {
            let jobs = context.session_config().get_extension::<Jobs>();
            let jobs = jobs.ok_or_else(|| Error::internal("jobs are looked at without a cluster"))?;
            let rows = jobs.list(Instant::now() + jobs.retry_max).await?;
            jobs::batch(&schema, &rows).map_err(DataFusionError::from)
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::once(rows)))
    }
}

//! The view `weir_catalog.splits`, which shows the progress of each split. Each read asks the
//! compute nodes anew.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::future::try_join_all;
use tokio::time::timeout;
use weir_common::catalog::Source;
use weir_common::error::Kind;
use weir_common::ids::{SplitId, TableId};
use weir_common::rpc;
use weir_common::types::SqlType;
use weir_connector_nats::options::subject_of;
use weir_proto::{SplitProgress, SplitsRequest};
use weir_sql::error::Error;

use crate::catalog::Catalog;
use crate::scan::ComputeNodes;
use crate::snapshot::Snapshot;

/// The time that a compute node may take to answer. It waits up to two seconds for NATS servers.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// A split, and the node that reads it.
struct Row {
    node: String,
    progress: SplitProgress,
}

#[derive(Debug)]
struct Splits {
    catalog: Arc<Catalog>,
    schema: SchemaRef,
}

/// Returns the view of a catalog's splits.
pub(super) fn table(catalog: &Arc<Catalog>) -> Result<StreamingTable> {
    let (text, number) = (SqlType::Varchar, SqlType::BigInt);
    let fields = [
        ("source", &text),
        ("split", &text),
        ("subject", &text),
        ("node", &text),
        ("state", &text),
        ("since", &SqlType::Timestamptz),
        ("reason", &text),
        ("read_position", &number),
        ("committed_position", &number),
        ("last_sequence", &number),
        ("lag_messages", &number),
        ("lag_seconds", &SqlType::Double),
        ("ack_floor", &number),
        ("ack_pending", &number),
        ("redelivered", &number),
        ("rebuilds", &number),
        ("bad_records", &number),
        ("lost_messages", &number),
        ("incarnation", &number),
    ];
    let schema = Arc::new(Schema::new(fields.map(|(name, ty)| ty.field(name)).to_vec()));
    let splits = Splits { catalog: Arc::clone(catalog), schema: Arc::clone(&schema) };
    StreamingTable::try_new(schema, vec![Arc::new(splits)])
}

impl PartitionStream for Splits {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (catalog, schema) = (Arc::clone(&self.catalog), Arc::clone(&self.schema));
        let rows = async move {
            let rows = ask(&context).await?;
            batch(&catalog, schema, &rows)
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::once(rows)))
    }
}

/// Asks every node of the statement's snapshot.
async fn ask(context: &TaskContext) -> Result<Vec<Row>> {
    let config = context.session_config();
    let (snapshot, nodes) = (config.get_extension::<Snapshot>(), config.get_extension::<ComputeNodes>());
    let (Some(snapshot), Some(nodes)) = (snapshot, nodes) else {
        return Err(Error::internal("splits are looked at without a snapshot").into());
    };
    let mut addresses: Vec<&str> = snapshot.slots.iter().map(|slot| slot.address.as_str()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let asked = addresses.into_iter().map(|address| {
        let (snapshot, nodes) = (&snapshot, &nodes);
        async move {
            let failed = |error| DataFusionError::External(Box::new(error));
            let mut client = nodes.client(address, snapshot)?;
            let request = SplitsRequest { term: Some(snapshot.term.into()), ask_servers: true, ask_state: false };
            let answer = timeout(NODE_TIMEOUT, client.splits(request)).await.map_err(|_| {
                let message = format!("compute node {address} does not say how far its splits are");
                failed(rpc::Error::new(Kind::Unavailable, message))
            })?;
            let answer = answer.map_err(|status| failed(status.into()))?;
            let splits = answer.into_inner().splits.into_iter();
            Ok::<_, DataFusionError>(splits.map(|progress| Row { node: address.to_owned(), progress }))
        }
    });
    Ok(try_join_all(asked).await?.into_iter().flatten().collect())
}

fn batch(catalog: &Catalog, schema: SchemaRef, rows: &[Row]) -> Result<RecordBatch> {
    let entry = |row: &Row| catalog.by_id(TableId(row.progress.table));
    // Omit splits of relations that are not in the statement's catalog.
    let rows: Vec<&Row> = rows.iter().filter(|row| entry(row).is_some()).collect();
    let text = |of: &dyn Fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(rows.iter().map(|row| of(row))))
    };
    let number = |of: &dyn Fn(&SplitProgress) -> Option<u64>| -> ArrayRef {
        let values = rows.iter().map(|row| of(&row.progress).and_then(|value| i64::try_from(value).ok()));
        Arc::new(Int64Array::from_iter(values))
    };
    let since = rows.iter().map(|row| i64::try_from(row.progress.since_ns / 1000).ok());
    let columns = vec![
        text(&|row| entry(row).map(|entry| entry.name().to_string())),
        text(&|row| entry(row).map(|entry| entry.job.read(&SplitId(row.progress.split.clone())).split.0)),
        text(&|row| entry(row).and_then(|entry| subject(entry.job.stream(), &row.progress.split))),
        text(&|row| Some(row.node.clone())),
        text(&|row| Some(row.progress.state.clone())),
        Arc::new(TimestampMicrosecondArray::from_iter(since).with_timezone("UTC")),
        text(&|row| Some(row.progress.reason.clone()).filter(|reason| !reason.is_empty())),
        number(&|split| Some(split.read_position)),
        number(&|split| Some(split.committed_position)),
        number(&|split| split.last_sequence),
        number(&|split| split.lag_messages),
        Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.progress.lag_seconds))),
        number(&|split| split.ack_floor),
        number(&|split| split.ack_pending),
        number(&|split| Some(split.redelivered)),
        number(&|split| Some(split.rebuilds)),
        number(&|split| Some(split.bad_records)),
        number(&|split| Some(split.lost_messages)),
        number(&|split| Some(split.incarnation.into())),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Returns the subject that the split reads.
fn subject(source: Option<&Source>, split: &str) -> Option<String> {
    subject_of(&SplitId(split.to_owned())).map(str::to_owned).or_else(|| source?.options.get("subject").cloned())
}

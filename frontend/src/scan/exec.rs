//! The plan node that scans a table: one partition a slot, all of one snapshot.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, TryStreamExt, stream};
use tracing::{Instrument, Span, info_span};
use weir_common::catalog::Table;
use weir_common::error::Kind;
use weir_common::rpc;
use weir_common::telemetry::trace;
use weir_proto::{ScanRequest, ScanResponse};

use super::client::ComputeNodes;
use super::decode::decode;
use crate::meta::Slot;
use crate::snapshot::Snapshot;

#[derive(Debug)]
pub(super) struct ScanExec {
    snapshot: Arc<Snapshot>,
    nodes: Arc<ComputeNodes>,
    table: Arc<Table>,
    /// Indexes into the table's columns.
    projection: Vec<usize>,
    schema: SchemaRef,
    /// A slot need not send more rows than this.
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
    /// That of the statement, in which the plan is made; it is executed in tasks that know nothing of it.
    statement: Span,
}

impl ScanExec {
    pub(super) fn new(
        snapshot: Arc<Snapshot>,
        nodes: Arc<ComputeNodes>,
        table: Arc<Table>,
        projection: Vec<usize>,
        schema: SchemaRef,
        limit: Option<usize>,
    ) -> ScanExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(snapshot.slots.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let (properties, statement) = (Arc::new(properties), Span::current());
        ScanExec { snapshot, nodes, table, projection, schema, limit, properties, statement }
    }

    fn request(&self, slot: &Slot) -> ScanRequest {
        ScanRequest {
            term: Some(self.snapshot.term.into()),
            epoch: self.snapshot.epoch.0,
            slot: slot.slot.0,
            table: self.table.id.0,
            projection: self.projection.iter().map(|column| *column as u32).collect(),
            limit: self.limit.map(|limit| limit as u64),
        }
    }

    /// The slot's rows. The request is sent when the stream is first polled; dropping the stream ends the scan.
    fn rows(&self, slot: &Slot) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + 'static> {
        let mut client = self.nodes.client(&slot.address, &self.snapshot)?;
        let request = self.request(slot);
        let schema = Arc::clone(&self.schema);
        let place = format!("slot {} at {}", slot.slot, slot.address);
        // The pin outlives the scan.
        let snapshot = Arc::clone(&self.snapshot);
        let span = info_span!(
            target: trace::TARGET, parent: &self.statement, "scan", otel.kind = "client",
            job = self.table.declared.name, slot = %slot.slot, term = %self.snapshot.term, epoch = %self.snapshot.epoch
        );
        let scan = span.clone();
        let opened = async move {
            let failed = move |error: rpc::Error| failed(&place, error);
            let responses = client.scan(request).await.map_err(|status| failed(status.into()))?.into_inner();
            let batches = until_done(responses.map_err(rpc::Error::from)).and_then(move |response| {
                let _held = (&snapshot, &scan);
                std::future::ready(decode(response, &schema))
            });
            Ok::<_, DataFusionError>(batches.map_err(failed))
        };
        let opened = opened.instrument(span);
        Ok(futures::stream::once(opened).try_flatten())
    }
}

/// What comes before the last message. A stream can end early without an error, if whoever sends it goes; then what came
/// is not all there is.
pub(super) fn until_done(
    responses: impl Stream<Item = Result<ScanResponse, rpc::Error>> + Unpin,
) -> impl Stream<Item = Result<ScanResponse, rpc::Error>> {
    stream::try_unfold(responses, |mut responses| async move {
        match responses.try_next().await? {
            Some(response) if response.done => Ok(None),
            Some(response) => Ok(Some((response, responses))),
            None => Err(rpc::Error::new(Kind::Unavailable, "the scan ended before it was complete")),
        }
    })
}

/// Says where it failed; keeps what retry policy reads.
pub(super) fn failed(place: &str, error: rpc::Error) -> DataFusionError {
    let message = format!("scan of {place} failed: {}", error.message);
    DataFusionError::External(Box::new(rpc::Error { message, ..error }))
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "ScanExec: table={}, columns=[{}]", self.table.declared.name, columns.join(", "))?;
        write!(f, ", slots={}, epoch={}", self.snapshot.slots.len(), self.snapshot.epoch)?;
        self.limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &str {
        "ScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let slot = self.snapshot.slots.get(partition).ok_or_else(|| {
            let message = format!("partition {partition} of a scan of {} slots", self.snapshot.slots.len());
            DataFusionError::External(Box::new(rpc::Error::new(Kind::Internal, message)))
        })?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), self.rows(slot)?)))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let (snapshot, nodes, table) = (Arc::clone(&self.snapshot), Arc::clone(&self.nodes), Arc::clone(&self.table));
        let (projection, schema) = (self.projection.clone(), Arc::clone(&self.schema));
        Some(Arc::new(ScanExec::new(snapshot, nodes, table, projection, schema, limit)))
    }
}

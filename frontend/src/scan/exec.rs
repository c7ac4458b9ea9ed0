//! The plan node that scans: a table with one partition a slot, all of one snapshot, or a source with a single one.

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
use weir_common::catalog::{RelationKind, Table};
use weir_common::error::Kind;
use weir_common::ids::SlotId;
use weir_common::rpc;
use weir_common::telemetry::trace;
use weir_proto::{ReadSourceRequest, ScanRequest, ScanResponse};

use super::client::ComputeNodes;
use super::decode::decode;
use super::narrowing::Narrowing;
use crate::meta::Slot;
use crate::snapshot::Snapshot;

/// What a statement wants of a table or source.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) nodes: Arc<ComputeNodes>,
    pub(super) table: Arc<Table>,
    /// Whether it wants what is no row of the source.
    pub(super) dead_letters: bool,
    /// The columns that it wants.
    pub(super) schema: SchemaRef,
    /// Indexes of these among all columns.
    pub(super) projection: Vec<usize>,
    /// What need not be read of a source.
    pub(super) narrowing: Narrowing,
    /// A slot need not send more rows than this.
    pub(super) limit: Option<usize>,
}

#[derive(Debug)]
pub(super) struct ScanExec {
    scan: Scan,
    /// Those that are asked, a partition each.
    slots: Vec<Slot>,
    properties: Arc<PlanProperties>,
    /// That of the statement, in which the plan is made; it is executed in tasks that know nothing of it.
    statement: Span,
}

impl ScanExec {
    /// # Errors
    /// Unavailable, if there is no node to read a source.
    pub(super) fn new(scan: Scan) -> Result<ScanExec> {
        let slots = scan.slots()?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&scan.schema)),
            Partitioning::UnknownPartitioning(slots.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(ScanExec { scan, slots, properties: Arc::new(properties), statement: Span::current() })
    }

    /// The slot's rows. The request is sent when the stream is first polled; dropping the stream ends the scan.
    fn rows(&self, slot: &Slot) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + 'static> {
        let (mut client, place_held) = self.scan.nodes.scanning(&slot.address, &self.scan.snapshot)?;
        let (scan, asked, schema) = (self.scan.clone(), slot.slot, Arc::clone(&self.scan.schema));
        let place = format!("slot {} at {}", slot.slot, slot.address);
        let span = info_span!(
            target: trace::TARGET, parent: &self.statement, "scan", otel.kind = "client", job = scan.table.declared.name,
            slot = %slot.slot, term = %scan.snapshot.term, epoch = %scan.snapshot.epoch
        );
        let entered = span.clone();
        let opened = async move {
            let failed = move |error: rpc::Error| failed(&place, error);
            let responses = match scan.table.declared.kind {
                RelationKind::Table | RelationKind::MaterializedView => client.scan(scan.of_slot(asked)).await,
                RelationKind::Source => client.read_source(scan.of_source()).await,
            };
            let responses = responses.map_err(|status| failed(status.into()))?.into_inner();
            let batches = until_done(responses.map_err(rpc::Error::from)).and_then(move |response| {
                // The pin and the place on the connection are held until the scan ends.
                let _held = (&scan, &entered, &place_held);
                std::future::ready(decode(response, &schema))
            });
            Ok::<_, DataFusionError>(batches.map_err(failed))
        };
        let opened = opened.instrument(span);
        Ok(futures::stream::once(opened).try_flatten())
    }
}

impl Scan {
    /// Whom to ask: a table's rows are in all slots, a source is read by one node. Sources are spread over the nodes.
    fn slots(&self) -> Result<Vec<Slot>> {
        let slots = &self.snapshot.slots;
        match self.table.declared.kind {
            RelationKind::Table | RelationKind::MaterializedView => Ok(slots.clone()),
            RelationKind::Source => {
                let place = usize::try_from(self.table.id.0).ok().and_then(|id| id.checked_rem(slots.len()));
                let reader = place.map(|place| vec![slots[place].clone()]);
                reader.ok_or_else(|| {
                    let message = "no compute node is there to read the source";
                    DataFusionError::External(Box::new(rpc::Error::new(Kind::Unavailable, message)))
                })
            }
        }
    }

    fn columns(&self) -> Vec<u32> {
        self.projection.iter().map(|column| *column as u32).collect()
    }

    fn of_slot(&self, slot: SlotId) -> ScanRequest {
        ScanRequest {
            term: Some(self.snapshot.term.into()),
            epoch: self.snapshot.epoch.0,
            slot: slot.0,
            table: self.table.id.0,
            projection: self.columns(),
            limit: self.limit.map(|limit| limit as u64),
            layout: self.table.layout().into(),
        }
    }

    fn of_source(&self) -> ReadSourceRequest {
        ReadSourceRequest {
            term: Some(self.snapshot.term.into()),
            table: self.table.id.0,
            projection: self.columns(),
            limit: self.limit.map(|limit| limit as u64),
            subjects: self.narrowing.subjects(),
            from_sequence: self.narrowing.from(),
            to_sequence: self.narrowing.to(),
            dead_letters: self.dead_letters,
            layout: self.table.layout().into(),
        }
    }
}

/// What comes before the last message. A stream can end early without an error, if whoever sends it goes; then what came
/// is not all there is.
fn until_done(
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
fn failed(place: &str, error: rpc::Error) -> DataFusionError {
    let message = format!("scan of {place} failed: {}", error.message);
    DataFusionError::External(Box::new(rpc::Error { message, ..error }))
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scan { snapshot, table, schema, narrowing, limit, .. } = &self.scan;
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let kind = match table.declared.kind {
            _ if self.scan.dead_letters => "dead_letters",
            RelationKind::MaterializedView => "materialized_view",
            kind => kind.as_str(),
        };
        write!(f, "ScanExec: {kind}={}, columns=[{}]", table.declared.name, columns.join(", "))?;
        match table.declared.kind {
            RelationKind::Table | RelationKind::MaterializedView => {
                write!(f, ", slots={}, epoch={}", self.slots.len(), snapshot.epoch)?
            }
            RelationKind::Source => write!(f, "{narrowing}")?,
        }
        limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
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
        let slot = self.slots.get(partition).ok_or_else(|| {
            let message = format!("partition {partition} of a scan of {} slots", self.slots.len());
            DataFusionError::External(Box::new(rpc::Error::new(Kind::Internal, message)))
        })?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.scan.schema), self.rows(slot)?)))
    }

    fn fetch(&self) -> Option<usize> {
        self.scan.limit
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let scan = ScanExec::new(Scan { limit, ..self.scan.clone() }).ok()?;
        Some(Arc::new(scan))
    }
}

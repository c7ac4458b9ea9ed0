//! The plan node of scans. A scan of a table has one partition per slot, all of one snapshot; a
//! scan of a source has a single one.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{DynamicFilterTracking, EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_expr_common::physical_expr::snapshot_physical_expr;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, apply_expression_roots};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tracing::{Instrument, Span, info_span};
use weir_common::catalog::{Relation, RelationKind};
use weir_common::error::Kind;
use weir_common::ids::SlotId;
use weir_common::rpc;
use weir_common::telemetry::trace;
use weir_proto::{KeySet, ReadSourceRequest, ScanRequest, ScanResponse, ValueBox};

use super::client::ComputeNodes;
use super::decode::decode;
use super::keys::{self, Keys};
use super::narrowing::Narrowing;
use crate::meta::Slot;
use crate::snapshot::Snapshot;

/// The part of a table or source that a statement reads.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) nodes: Arc<ComputeNodes>,
    pub(super) relation: Arc<Relation>,
    /// True if it reads the source's dead letters instead of its rows.
    pub(super) dead_letters: bool,
    /// The columns that it reads.
    pub(super) schema: SchemaRef,
    /// The places of these columns among all columns.
    pub(super) projection: Vec<usize>,
    /// The bounds on subjects and sequences.
    pub(super) narrowing: Narrowing,
    /// Conditions that narrow the scan. Other nodes of the plan apply them to the rows again. A
    /// condition that a join makes while it runs is complete before the scan is first polled.
    pub(super) conditions: Vec<Arc<dyn PhysicalExpr>>,
    /// A slot need not send more rows than this.
    pub(super) limit: Option<usize>,
}

#[derive(Debug)]
pub(super) struct ScanExec {
    scan: Scan,
    /// The slots that are scanned, one per partition.
    slots: Vec<Slot>,
    properties: Arc<PlanProperties>,
    /// The span of the statement that the plan belongs to. The tasks that execute the plan run
    /// outside of it.
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

    /// Returns the slot's rows. The first poll sends the request; dropping the stream ends the
    /// scan.
    fn rows(&self, slot: &Slot) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        let (scan, slot, schema) = (self.scan.clone(), slot.clone(), Arc::clone(&self.scan.schema));
        let place = format!("slot {} at {}", slot.slot, slot.address);
        let span = info_span!(
            target: trace::TARGET, parent: &self.statement, "scan", otel.kind = "client", job = %scan.relation.name,
            slot = %slot.slot, term = %scan.snapshot.term, epoch = %scan.snapshot.epoch
        );
        let entered = span.clone();
        let opened = async move {
            let failed = move |error: rpc::Error| failed(&place, error);
            let keys = match scan.keys()? {
                Some(keys) => match keys.of_slot(slot.vnodes) {
                    Some(keys) => Some(keys),
                    None => return Ok(stream::empty().left_stream()),
                },
                None => None,
            };
            let boxes = scan.boxes()?;
            if boxes.as_ref().is_some_and(Vec::is_empty) {
                return Ok(stream::empty().left_stream());
            }
            let boxes = boxes.unwrap_or_default();
            let (mut client, place_held) = scan.nodes.scanning(&slot.address, &scan.snapshot)?;
            let responses = match scan.relation.kind {
                RelationKind::Table | RelationKind::MaterializedView | RelationKind::View => {
                    client.scan(scan.of_slot(slot.slot, keys, boxes)).await
                }
                RelationKind::Source => client.read_source(scan.of_source()).await,
            };
            let responses = responses.map_err(|status| failed(status.into()))?.into_inner();
            let batches = until_done(responses.map_err(rpc::Error::from)).and_then(move |response| {
                // The scan's pin and its place on the connection are held until the scan ends.
                let _held = (&scan, &entered, &place_held);
                std::future::ready(decode(response, &schema))
            });
            Ok::<_, DataFusionError>(batches.map_err(failed).right_stream())
        };
        let opened = opened.instrument(span);
        futures::stream::once(opened).try_flatten()
    }
}

impl Scan {
    /// Returns the slots to scan. A table's rows are in all slots. A source is read by one node;
    /// sources are spread over the nodes.
    fn slots(&self) -> Result<Vec<Slot>> {
        let slots = &self.snapshot.slots;
        match self.relation.kind {
            RelationKind::Table | RelationKind::MaterializedView | RelationKind::View => Ok(slots.clone()),
            RelationKind::Source => {
                let place = usize::try_from(self.relation.id.0).ok().and_then(|id| id.checked_rem(slots.len()));
                let reader = place.map(|place| vec![slots[place].clone()]);
                reader.ok_or_else(|| {
                    let message = "no compute node is there to read the source";
                    DataFusionError::External(Box::new(rpc::Error::new(Kind::Unavailable, message)))
                })
            }
        }
    }

    /// Returns about how many rows the scan has at most; `None` if that is not known.
    fn rows_estimate(&self) -> Option<usize> {
        if self.dead_letters {
            return None;
        }
        let rows = usize::try_from(self.snapshot.messages(self.relation.id)?).unwrap_or(usize::MAX);
        Some(self.limit.map_or(rows, |limit| rows.min(limit)))
    }

    /// Returns the present state of the conditions.
    fn known(&self) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        self.conditions.iter().map(|condition| snapshot_physical_expr(Arc::clone(condition))).collect()
    }

    /// Returns the keys to read; `None` for all keys.
    fn keys(&self) -> Result<Option<Keys>> {
        let conditions = if self.relation.is_keyed() { self.known()? } else { Vec::new() };
        Ok(if conditions.is_empty() { None } else { Keys::of(&conditions, &self.relation, &self.projection) })
    }

    /// Returns the boxes that a block must overlap to be read; `None` if all blocks are read.
    fn boxes(&self) -> Result<Option<Vec<ValueBox>>> {
        let conditions = if self.relation.is_keyed() { Vec::new() } else { self.known()? };
        Ok(if conditions.is_empty() { None } else { keys::blocks(&conditions, &self.relation, &self.projection) })
    }

    /// Returns true if a condition can narrow the scan.
    fn is_told_by(&self, condition: &Arc<dyn PhysicalExpr>) -> bool {
        let first = self.relation.primary_key.first();
        if is_late(condition) {
            // Its values are not known yet.
            let columns = collect_columns(condition);
            return columns.iter().any(|column| first.is_none() || self.projection.get(column.index()) == first);
        }
        match first {
            Some(_) => Keys::are_bounded_by(condition, &self.relation, &self.projection),
            None => keys::blocks([condition], &self.relation, &self.projection).is_some(),
        }
    }

    fn columns(&self) -> Vec<u32> {
        self.projection.iter().map(|column| *column as u32).collect()
    }

    fn of_slot(&self, slot: SlotId, keys: Option<KeySet>, boxes: Vec<ValueBox>) -> ScanRequest {
        ScanRequest {
            term: Some(self.snapshot.term.into()),
            epoch: self.snapshot.epoch.0,
            slot: slot.0,
            table: self.relation.id.0,
            projection: self.columns(),
            limit: self.limit.map(|limit| limit as u64),
            layout: self.relation.layout().into(),
            keys,
            boxes,
            from_sequence: self.narrowing.from(),
            to_sequence: self.narrowing.to(),
        }
    }

    fn of_source(&self) -> ReadSourceRequest {
        ReadSourceRequest {
            term: Some(self.snapshot.term.into()),
            table: self.relation.id.0,
            projection: self.columns(),
            limit: self.limit.map(|limit| limit as u64),
            subjects: self.narrowing.subjects(),
            from_sequence: self.narrowing.from(),
            to_sequence: self.narrowing.to(),
            dead_letters: self.dead_letters,
            layout: self.relation.layout().into(),
        }
    }
}

/// Returns true if a condition changes while the plan runs.
fn is_dynamic(condition: &Arc<dyn PhysicalExpr>) -> bool {
    DynamicFilterTracking::classify(condition).contains_dynamic_filter()
}

/// Returns true if the values of a condition are known only when the plan runs: a join creates it,
/// or it has a sub-query.
fn is_late(condition: &Arc<dyn PhysicalExpr>) -> bool {
    let is_subquery = |part: &Arc<dyn PhysicalExpr>| Ok(part.downcast_ref::<ScalarSubqueryExpr>().is_some());
    is_dynamic(condition) || condition.exists(is_subquery).unwrap_or(false)
}

/// Returns the messages before the last one. A stream that ends without the last message is
/// incomplete, because its sender may be gone.
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

/// Adds the place of the failure to the message, and keeps the parts that the retry policy reads.
fn failed(place: &str, error: rpc::Error) -> DataFusionError {
    let message = format!("scan of {place} failed: {}", error.message);
    DataFusionError::External(Box::new(rpc::Error { message, ..error }))
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scan { snapshot, relation, schema, narrowing, limit, conditions, .. } = &self.scan;
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let kind = match relation.kind {
            _ if self.scan.dead_letters => "dead_letters",
            RelationKind::MaterializedView => "materialized_view",
            kind => kind.as_str(),
        };
        write!(f, "ScanExec: {kind}={}, columns=[{}]", relation.name, columns.join(", "))?;
        match relation.kind {
            RelationKind::Table | RelationKind::MaterializedView | RelationKind::View => {
                let keys = self.scan.keys().ok().flatten();
                let is_asked = |slot: &&Slot| keys.as_ref().is_none_or(|keys| keys.of_slot(slot.vnodes).is_some());
                let asked = self.slots.iter().filter(is_asked).count();
                write!(f, ", slots={asked}, epoch={}{narrowing}", snapshot.epoch)?;
                if !conditions.is_empty() {
                    let conditions: Vec<String> = conditions.iter().map(ToString::to_string).collect();
                    let told = if relation.is_keyed() { "keys" } else { "blocks" };
                    write!(f, ", {told}=[{}]", conditions.join(" AND "))?;
                }
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
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(&self.scan.conditions, f)
    }

    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        // The nodes above apply the conditions again, because the scan may read more rows.
        let kept =
            FilterPushdownPropagation::with_parent_pushdown_result(vec![PushedDown::No; result.parent_filters.len()]);
        // The limit was pushed first, so it counts rows before the conditions apply.
        let is_stored = self.scan.relation.kind != RelationKind::Source;
        if !is_stored || self.scan.limit.is_some() {
            return Ok(kept);
        }
        let conditions = result.parent_filters.into_iter().map(|pushed| pushed.filter);
        let told: Vec<_> = conditions.filter(|condition| self.scan.is_told_by(condition)).collect();
        if told.is_empty() {
            return Ok(kept);
        }
        let conditions = self.scan.conditions.iter().cloned().chain(told).collect();
        let scan = ScanExec::new(Scan { conditions, ..self.scan.clone() })?;
        let may_narrow = scan.scan.conditions.iter().any(is_late);
        if scan.scan.relation.is_keyed() && !may_narrow && scan.scan.keys()?.is_none() {
            // The conditions do not bound the first column of the key.
            return Ok(kept);
        }
        Ok(kept.with_updated_node(Arc::new(scan)))
    }

    /// Drops the conditions that joins made, because the joins make new ones when the plan runs
    /// again.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let is_fixed = |condition: &&Arc<dyn PhysicalExpr>| !is_dynamic(condition);
        let conditions = self.scan.conditions.iter().filter(is_fixed).cloned().collect();
        Ok(Arc::new(ScanExec::new(Scan { conditions, ..self.scan.clone() })?))
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let slot = self.slots.get(partition).ok_or_else(|| {
            let message = format!("partition {partition} of a scan of {} slots", self.slots.len());
            DataFusionError::External(Box::new(rpc::Error::new(Kind::Internal, message)))
        })?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.scan.schema), self.rows(slot))))
    }

    /// Estimates the number of rows, so that joins know the smaller side.
    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.scan.schema);
        if let Some(rows) = self.scan.rows_estimate() {
            let parts = if args.partition().is_some() { self.slots.len().max(1) } else { 1 };
            statistics.num_rows = Precision::Inexact(rows.div_ceil(parts));
        }
        Ok(Arc::new(statistics))
    }

    fn fetch(&self) -> Option<usize> {
        self.scan.limit
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        if !self.scan.conditions.is_empty() {
            // The scan may read rows that do not match, which a limit must not count.
            return None;
        }
        let scan = ScanExec::new(Scan { limit, ..self.scan.clone() }).ok()?;
        Some(Arc::new(scan))
    }
}

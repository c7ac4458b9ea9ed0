//! Reading sources: DataFusion's view of a stream that is stored nowhere but in NATS.
//!
//! One compute node reads it for the statement, up to the stream's last message as of then. What a WHERE says of subject
//! and sequence narrows what is read, and is applied to the rows all the same.

mod narrowing;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{TryFutureExt, TryStreamExt};
use weir_common::catalog::Table;
use weir_common::rpc;
use weir_proto::ReadSourceRequest;

use super::client::ComputeNodes;
use super::decode::decode;
use super::exec::{failed, until_done};
use super::scanned;
use crate::snapshot::Snapshot;
use narrowing::Narrowing;

/// A source that queries can read.
#[derive(Debug)]
pub(crate) struct ReadSource {
    source: Arc<Table>,
    schema: SchemaRef,
}

impl ReadSource {
    pub(crate) fn new(source: Arc<Table>) -> ReadSource {
        let schema = source.schema();
        ReadSource { source, schema }
    }
}

#[async_trait]
impl TableProvider for ReadSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let narrows = |filter: &&Expr| Narrowing::default().add(filter, &self.source.declared.columns);
        let pushed = |narrows| {
            if narrows { TableProviderFilterPushDown::Inexact } else { TableProviderFilterPushDown::Unsupported }
        };
        Ok(filters.iter().map(narrows).map(pushed).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (snapshot, nodes) = scanned(state)?;
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&projection)?);
        let mut narrowing = Narrowing::default();
        for filter in filters {
            narrowing.add(filter, &self.source.declared.columns);
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let (source, properties) = (Arc::clone(&self.source), Arc::new(properties));
        Ok(Arc::new(SourceExec { snapshot, nodes, source, projection, schema, narrowing, limit, properties }))
    }
}

/// The plan node that has a source read.
#[derive(Debug)]
struct SourceExec {
    snapshot: Arc<Snapshot>,
    nodes: Arc<ComputeNodes>,
    source: Arc<Table>,
    /// Indexes into the source's columns.
    projection: Vec<usize>,
    schema: SchemaRef,
    narrowing: Narrowing,
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl SourceExec {
    fn request(&self) -> ReadSourceRequest {
        ReadSourceRequest {
            term: Some(self.snapshot.term.into()),
            table: self.source.id.0,
            projection: self.projection.iter().map(|column| *column as u32).collect(),
            limit: self.limit.map(|limit| limit as u64),
            subjects: self.narrowing.subjects(),
            from_sequence: self.narrowing.from(),
            to_sequence: self.narrowing.to(),
        }
    }
}

impl DisplayAs for SourceExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(
            f,
            "SourceExec: source={}, columns=[{}]{}",
            self.source.declared.name,
            columns.join(", "),
            self.narrowing
        )?;
        self.limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
    }
}

impl ExecutionPlan for SourceExec {
    fn name(&self) -> &str {
        "SourceExec"
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

    /// The request is sent when the stream is first polled; dropping the stream ends reading.
    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let slots = &self.snapshot.slots;
        // Sources are spread over the nodes.
        let place = usize::try_from(self.source.id.0).ok().and_then(|id| id.checked_rem(slots.len()));
        let slot = place.map(|place| &slots[place]).ok_or_else(|| {
            let message = "no compute node is there to read the source";
            DataFusionError::External(Box::new(rpc::Error::new(weir_common::error::Kind::Unavailable, message)))
        })?;
        let mut client = self.nodes.client(&slot.address, &self.snapshot)?;
        let (request, schema) = (self.request(), Arc::clone(&self.schema));
        let place = format!("source \"{}\" at {}", self.source.declared.name, slot.address);
        let decoded = Arc::clone(&schema);
        let opened = async move {
            let responses = client.read_source(request).await.map_err(rpc::Error::from)?.into_inner();
            let responses = until_done(responses.map_err(rpc::Error::from));
            Ok(responses.and_then(move |response| std::future::ready(decode(response, &decoded))))
        };
        let rows = opened.try_flatten_stream().map_err(move |error| failed(&place, error));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }
}

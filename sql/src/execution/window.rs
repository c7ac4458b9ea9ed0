//! Limits window functions to the memory that queries may take.
//!
//! DataFusion's plain window operator keeps all of its input but reserves nothing in the pool of
//! memory, unlike sorts, groupings and joins. The node of this module reserves that memory: for the
//! input, for the concatenated copy of it, and for the result. The operator for windows of bounded
//! memory needs none of this.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;

/// The operator keeps each batch twice: as it arrived, and concatenated with all others.
const COPIES: usize = 2;

/// Wraps the node around every window operator that needs it.
#[derive(Debug)]
pub(crate) struct BoundWindows;

impl PhysicalOptimizerRule for BoundWindows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let bounded = plan.transform_up(|node| {
            if node.is::<WindowAggExec>() {
                Ok(Transformed::yes(Arc::new(Bounded { window: node }) as Arc<dyn ExecutionPlan>))
            } else {
                Ok(Transformed::no(node))
            }
        });
        Ok(bounded?.data)
    }

    fn name(&self) -> &str {
        "bound_windows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A window operator whose memory is reserved.
#[derive(Debug)]
struct Bounded {
    window: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for Bounded {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoundedWindowMemory")
    }
}

impl ExecutionPlan for Bounded {
    fn name(&self) -> &str {
        "BoundedWindowMemory"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.window.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.window]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let window = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.window));
        Ok(Arc::new(Bounded { window }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let name = format!("WindowAggExec[{partition}]");
        let reserved = Arc::new(MemoryConsumer::new(name).register(context.memory_pool()));
        let metered = self.window.children().into_iter().map(|input| {
            let metered = Metered { input: Arc::clone(input), reserved: Arc::clone(&reserved) };
            Arc::new(metered) as Arc<dyn ExecutionPlan>
        });
        let same = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
        let window = Arc::clone(&self.window).replace_children(metered.collect(), same)?;
        let rows = window.execute(partition, context)?;
        let schema = rows.schema();
        // The reservation is held until the stream of the result is dropped.
        let rows = rows.inspect_ok(move |_| {
            let _held = &reserved;
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// The input of a running window operator: reserves memory for each batch that passes.
#[derive(Debug)]
struct Metered {
    input: Arc<dyn ExecutionPlan>,
    reserved: Arc<MemoryReservation>,
}

impl DisplayAs for Metered {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metered")
    }
}

impl ExecutionPlan for Metered {
    fn name(&self) -> &str {
        "Metered"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Metered { input, reserved: Arc::clone(&self.reserved) }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context)?;
        let schema = rows.schema();
        let reserved = Arc::clone(&self.reserved);
        let rows = rows.and_then(move |batch: RecordBatch| {
            let grown = reserved.try_grow(COPIES * batch.get_array_memory_size());
            std::future::ready(grown.map(|()| batch))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.input.metrics()
    }
}

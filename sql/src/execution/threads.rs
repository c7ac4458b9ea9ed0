//! The threads that queries run on.
//!
//! An operator may compute for seconds without yielding its thread: a join without keys compares
//! every row of a batch with every row of the other side in one go. Planning a long statement may
//! take as long. On the threads that serve connections (and, standalone, barriers) two such queries
//! would stop everything else, including their own cancellation. Queries are therefore planned and
//! run on threads of their own, and such a join checks at every batch of pairs whether its result
//! is still wanted.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{FutureExt, StreamExt};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::error::Error;

/// Batches that are computed ahead of the client.
const AHEAD: usize = 2;

/// DataFusion plans recursively, so long expressions need a deeper stack than a thread's default.
const STACK_BYTES: usize = 8 << 20;

/// Plans and runs queries.
#[derive(Debug)]
pub struct QueryThreads {
    handle: Handle,
    /// Taken in `drop`, which must not wait for running queries.
    runtime: Option<Runtime>,
}

impl QueryThreads {
    /// Starts one thread for each core.
    ///
    /// # Errors
    /// Internal, if the system provides no threads.
    pub fn new() -> Result<QueryThreads, Error> {
        let runtime =
            Builder::new_multi_thread().thread_name("query").thread_stack_size(STACK_BYTES).enable_all().build();
        let runtime = runtime.map_err(|error| Error::internal(format!("no threads for queries: {error}")))?;
        Ok(QueryThreads { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Runs a plan and streams its rows. Dropping the stream stops the plan.
    ///
    /// # Errors
    /// Internal, if the plan cannot be made stoppable.
    pub fn execute(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let (plan, stop) = stoppable(plan)?;
        let schema = plan.schema();
        let mut receiver = RecordBatchReceiverStream::builder(Arc::clone(&schema), AHEAD);
        let rows = receiver.tx();
        let run = async move {
            let mut made = execute_stream(plan, context)?;
            while let Some(batch) = made.next().await {
                if rows.send(batch).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        // Turns a panic into an error. The receiver would otherwise resume the panic where it is
        // read, in the connection's task.
        let run = AssertUnwindSafe(run).catch_unwind().map(|run| run.unwrap_or_else(|panic| Err(panicked(&*panic))));
        receiver.spawn_on(run.in_current_span(), &self.handle);
        let rows = receiver.build().inspect(move |_| {
            let _until_dropped = &stop;
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// Runs `run` on a plan and returns its result.
    ///
    /// # Errors
    /// The errors of `run`.
    pub async fn run<T, F>(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        run: impl FnOnce(Arc<dyn ExecutionPlan>) -> F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (plan, _until_done) = stoppable(plan)?;
        self.compute(run(plan)).await
    }

    /// Runs some work and returns its result. Dropping the future aborts the work where it can.
    ///
    /// # Errors
    /// The errors of `work`; Internal if it panicked.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let task = AbortOnDropHandle::new(self.handle.spawn(work.in_current_span()));
        task.await.map_err(|error| Error::internal(format!("a query's task ended: {error}")))?
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> DataFusionError {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::internal(format!("a query panicked: {}", text.unwrap_or("it does not say why"))).into()
}

/// A plan whose joins fail once the guard is dropped.
fn stoppable(plan: Arc<dyn ExecutionPlan>) -> Result<(Arc<dyn ExecutionPlan>, DropGuard)> {
    let stop = CancellationToken::new();
    let plan = plan.transform_up(|node| {
        let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() else { return Ok(Transformed::no(node)) };
        let Some(filter) = join.filter() else { return Ok(Transformed::no(node)) };
        let inner = Arc::clone(filter.expression());
        let expression = Arc::new(UnlessStopped { inner, stop: stop.clone() });
        let filter = JoinFilter::new(expression, filter.column_indices().to_vec(), Arc::clone(filter.schema()));
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(Some(filter)).build()?;
        Ok(Transformed::yes(Arc::new(join) as Arc<dyn ExecutionPlan>))
    });
    Ok((plan?.data, stop.drop_guard()))
}

/// An expression that fails once its result is no longer wanted.
#[derive(Debug)]
struct UnlessStopped {
    inner: Arc<dyn PhysicalExpr>,
    stop: CancellationToken,
}

impl PartialEq for UnlessStopped {
    fn eq(&self, other: &UnlessStopped) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for UnlessStopped {}

impl Hash for UnlessStopped {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for UnlessStopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for UnlessStopped {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.inner.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.inner.nullable(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.stop.is_cancelled() {
            return Err(DataFusionError::Execution("nobody waits for the query any more".to_owned()));
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.inner));
        Ok(Arc::new(UnlessStopped { inner, stop: self.stop.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{Volatility, create_udf};
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn a_query_that_panics_fails_and_nothing_else_does() {
        let boom = |_: &[ColumnarValue]| -> Result<ColumnarValue> { panic!("boom") };
        let boom = create_udf("boom", Vec::new(), DataType::Int64, Volatility::Volatile, Arc::new(boom));
        let context = SessionContext::new();
        let query = context.read_empty().expect("a row").select(vec![boom.call(Vec::new())]).expect("a query");
        let plan = query.create_physical_plan().await.expect("a plan");
        let threads = QueryThreads::new().expect("threads");
        let mut rows = threads.execute(plan, context.task_ctx()).expect("it begins");
        let error = Error::from(rows.next().await.expect("an outcome").expect_err("a panic"));
        assert_eq!((error.sqlstate.as_ref(), error.message.as_str()), ("XX000", "a query panicked: boom"));
    }
}

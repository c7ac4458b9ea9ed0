//! The rows of a view, computed from all rows of its inputs at once.
//!
//! The view's query is evaluated as any other query. If a row fails in it, the view's plan runs
//! over the same rows instead, since it leaves out the rows that fail, as the view does.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, execute_stream,
};
use futures::{StreamExt, TryStreamExt, stream};
use weir_common::catalog::{Query, Relation};
use weir_common::plan::{Distribution, JobPlan, Operator, Stream, StreamColumn};
use weir_stream::chunk::Chunk;
use weir_stream::pipeline::{Failure, Next, Outcome, Pipeline, Place};

use super::StoredFunctions;
use crate::error::Error;

/// The vnode of fragments that have one actor. All rows meet here, whatever it is.
const SINGLE: u16 = 0;
/// The class of errors that a value causes.
const DATA_EXCEPTION: &str = "22";

/// An input of a view.
#[derive(Debug)]
pub struct Input {
    /// The relation.
    pub relation: Arc<Relation>,
    /// Its rows, with hidden columns.
    pub rows: Arc<dyn TableProvider>,
}

/// See the module.
#[derive(Debug)]
pub struct Recomputed {
    schema: SchemaRef,
    query: Arc<dyn TableProvider>,
    plan: Arc<JobPlan>,
    /// For each fragment that follows a relation, the relation's rows.
    leaves: Vec<Option<Leaf>>,
    functions: Arc<StoredFunctions>,
}

/// The rows that a fragment begins with.
#[derive(Debug)]
struct Leaf {
    stream: Stream,
    rows: Arc<dyn TableProvider>,
    projection: Vec<usize>,
}

impl Recomputed {
    /// The rows of `view`: those of `query`, or those that `stored` makes of the rows of `inputs`.
    ///
    /// # Errors
    /// If an input is not what it was.
    pub fn new(
        view: &Relation,
        query: Arc<dyn TableProvider>,
        (stored, inputs): (&Query, &[Input]),
        functions: StoredFunctions,
    ) -> Result<Recomputed, Error> {
        let leaf = |operators: &[Operator]| {
            let (relation, columns) = match operators.first() {
                Some(Operator::Follow { relation, columns, .. }) => (relation, columns),
                Some(Operator::Read { .. }) => {
                    return Err(Error::internal(format!("\"{}\" reads a source, which goes on meanwhile", view.name)));
                }
                _ => return Ok(None),
            };
            let reads = stored.reads.iter().find(|reads| reads.relation == *relation);
            let input = inputs.iter().find(|input| input.relation.id == *relation);
            let (Some(reads), Some(input)) = (reads, input) else {
                return Err(Error::internal(format!("the plan of \"{}\" follows a relation that is gone", view.name)));
            };
            let places = reads.places(&input.relation).map_err(|error| Error::internal(error.to_string()))?;
            let projection: Vec<usize> = columns.iter().map(|column| places[*column]).collect();
            let stream = followed(&input.relation, &projection, || {
                let read = reads.with_origin();
                let (read, origin) = read.split_at(reads.columns.len());
                columns.iter().map(|column| &read[*column]).chain(origin).cloned().collect()
            });
            Ok(Some(Leaf { stream, rows: Arc::clone(&input.rows), projection }))
        };
        let leaves = stored.plan.fragments.iter().map(|fragment| leaf(&fragment.operators));
        let (plan, functions) = (Arc::new(stored.plan.clone()), Arc::new(functions));
        Ok(Recomputed { schema: view.schema(), query, plan, leaves: leaves.collect::<Result<_, _>>()?, functions })
    }
}

/// The stream of a relation's rows, of which these columns are read. `in_blocks`: the columns of a
/// relation whose rows have no key.
fn followed(relation: &Relation, projection: &[usize], in_blocks: impl FnOnce() -> Vec<StreamColumn>) -> Stream {
    if !relation.is_keyed() {
        return Stream { columns: in_blocks(), key: Vec::new(), append_only: true };
    }
    let column = |place: &usize| {
        let column = relation.column(*place);
        StreamColumn { name: column.name.clone(), ty: column.ty.clone() }
    };
    let place = |key: &usize| projection.iter().position(|column| column == key).expect("plans read the key");
    let key = relation.primary_key.iter().map(place).collect();
    Stream { columns: projection.iter().map(column).collect(), key, append_only: false }
}

#[async_trait]
impl TableProvider for Recomputed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let query = self.query.scan(state, None, &[], None).await?;
        let (mut inputs, mut streams) = (Vec::new(), Vec::new());
        for leaf in &self.leaves {
            streams.push(match leaf {
                Some(Leaf { stream, rows, projection }) => {
                    inputs.push(rows.scan(state, Some(projection), &[], None).await?);
                    Some(stream.clone())
                }
                None => None,
            });
        }
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(self.schema.project(&projection)?)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let run = Run { plan: Arc::clone(&self.plan), streams, functions: Arc::clone(&self.functions) };
        let (schema, run) = (Arc::clone(&self.schema), Arc::new(run));
        Ok(Arc::new(RecomputedExec { query, inputs, run, schema, projection, properties: Arc::new(properties) }))
    }
}

/// A plan that runs over all rows of its inputs.
#[derive(Debug)]
struct Run {
    plan: Arc<JobPlan>,
    /// For each fragment that follows a relation, the stream of its rows.
    streams: Vec<Option<Stream>>,
    functions: Arc<StoredFunctions>,
}

#[derive(Clone, Debug)]
struct RecomputedExec {
    query: Arc<dyn ExecutionPlan>,
    /// The rows of the relations that are followed, in the order of the fragments.
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    run: Arc<Run>,
    /// The columns of the view.
    schema: SchemaRef,
    projection: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for RecomputedExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recomputed")
    }
}

impl ExecutionPlan for RecomputedExec {
    fn name(&self) -> &str {
        "Recomputed"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        std::iter::once(&self.query).chain(&self.inputs).collect()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let mut children = children.into_iter();
        let query = children.next().unwrap_or_else(|| Arc::clone(&self.query));
        Ok(Arc::new(RecomputedExec { query, inputs: children.collect(), ..self.as_ref().clone() }))
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (exec, schema) = (self.clone(), self.properties.eq_properties.schema().clone());
        let rows = async move {
            let mut memory = MemoryConsumer::new("Recomputed").register(context.memory_pool());
            let rows = exec.rows(context, &mut memory).await?;
            let project = move |rows: RecordBatch| {
                // The memory is held until the stream of the rows is dropped.
                let _held = &memory;
                Ok(rows.project(&exec.projection)?)
            };
            Ok::<_, DataFusionError>(stream::iter(rows).map(project))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::once(rows).try_flatten())))
    }
}

impl RecomputedExec {
    async fn rows(&self, context: Arc<TaskContext>, memory: &mut MemoryReservation) -> Result<Vec<RecordBatch>> {
        match self.queried(Arc::clone(&context), memory).await {
            Ok(rows) => Ok(rows),
            Err(error) => {
                let error = Error::from(error);
                if !error.sqlstate.starts_with(DATA_EXCEPTION) {
                    return Err(error.into());
                }
                self.left_out(context, memory).await
            }
        }
    }

    /// The rows of the query. All of them are awaited, since the last one may fail.
    async fn queried(&self, context: Arc<TaskContext>, memory: &mut MemoryReservation) -> Result<Vec<RecordBatch>> {
        let (mut batches, mut rows) = (execute_stream(Arc::clone(&self.query), context)?, Vec::new());
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            memory.try_grow(batch.get_array_memory_size())?;
            rows.push(batch);
        }
        Ok(rows)
    }

    /// The rows, without those that fail.
    async fn left_out(&self, context: Arc<TaskContext>, memory: &mut MemoryReservation) -> Result<Vec<RecordBatch>> {
        let mut running = Running::new(&self.run, memory)?;
        let mut inputs: VecDeque<_> = self.inputs.iter().collect();
        for fragment in 0..self.run.streams.len() {
            if let Some(stream) = &self.run.streams[fragment] {
                let input = inputs.pop_front().ok_or_else(|| Error::internal("a plan without its input"))?;
                for partition in 0..input.output_partitioning().partition_count() {
                    let mut batches = input.execute(partition, Arc::clone(&context))?;
                    while let Some(batch) = batches.next().await {
                        let rows = running.leaf(stream, &batch?)?;
                        running.push((fragment, 0), Chunk::inserts(rows))?;
                        running.account()?;
                    }
                }
            }
            running.flush(fragment)?;
        }
        let columns = self.schema.fields().len();
        let shown =
            |rows: RecordBatch| Ok(RecordBatch::try_new(self.schema.clone(), rows.columns()[..columns].into())?);
        running.emitted.into_iter().map(shown).collect()
    }
}

/// A plan that runs.
struct Running<'a> {
    plan: &'a JobPlan,
    pipelines: Vec<Pipeline>,
    /// The rows that left the plan, and their bytes.
    emitted: Vec<RecordBatch>,
    emitted_bytes: usize,
    /// Rows that came so far, of relations without a key.
    rows: i64,
    memory: &'a mut MemoryReservation,
}

impl<'a> Running<'a> {
    fn new(run: &'a Run, memory: &'a mut MemoryReservation) -> Result<Running<'a>> {
        let pipeline = |(number, stream): (usize, &Option<Stream>)| {
            let is_single = run.plan.fragments[number].distribution == Distribution::Single;
            let place = Place { single: is_single.then_some(SINGLE), is_fresh: true };
            let built = Pipeline::new(&run.plan, number, stream.as_ref(), run.functions.as_ref(), place);
            built.map_err(|error| DataFusionError::from(Error::internal(error.to_string())))
        };
        let pipelines = run.streams.iter().enumerate().map(pipeline).collect::<Result<_>>()?;
        Ok(Running { plan: &run.plan, pipelines, emitted: Vec::new(), emitted_bytes: 0, rows: 0, memory })
    }

    /// Rows of a relation as a stream brings them. Those without a key get one.
    fn leaf(&mut self, stream: &Stream, rows: &RecordBatch) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        if columns.len() < stream.columns.len() {
            let count = i64::try_from(rows.num_rows()).expect("a batch is small");
            let sequences = Int64Array::from_iter_values(self.rows..self.rows + count);
            self.rows += count;
            columns.push(Arc::new(StringArray::from(vec![""; rows.num_rows()])));
            columns.push(Arc::new(sequences));
            columns.push(Arc::new(Int32Array::from(vec![0; rows.num_rows()])));
        }
        let fields: Vec<_> = stream.columns.iter().map(|column| column.ty.field(&column.name)).collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// Passes a chunk to a fragment, and what that makes of it to those below.
    fn push(&mut self, (fragment, input): (usize, u16), chunk: Chunk) -> Result<()> {
        let outcome = self.pipelines[fragment].apply(input, chunk);
        self.settle(fragment, outcome)
    }

    fn flush(&mut self, fragment: usize) -> Result<()> {
        let outcome = self.pipelines[fragment].flush();
        self.settle(fragment, outcome)?;
        self.account()
    }

    fn settle(&mut self, fragment: usize, mut outcome: std::result::Result<Outcome, Failure>) -> Result<()> {
        loop {
            // Rows that fail are left out.
            let Outcome { emitted, next, .. } = outcome.map_err(|failure| Error::internal(failure.to_string()))?;
            for chunk in emitted {
                self.send(fragment, chunk)?;
            }
            match next {
                Next::Done => return Ok(()),
                Next::More => outcome = self.pipelines[fragment].resume(),
                Next::Need(_) | Next::Ranges(_) => {
                    return Err(Error::internal("a plan that begins anew reads its state").into());
                }
            }
        }
    }

    fn send(&mut self, fragment: usize, chunk: Chunk) -> Result<()> {
        let edges = self.plan.edges.iter().filter(|edge| usize::from(edge.from) == fragment);
        let to: Vec<(usize, u16)> = edges.map(|edge| (usize::from(edge.to), edge.input)).collect();
        if to.is_empty() {
            if (0..chunk.rows().num_rows()).any(|row| chunk.is_delete(row)) {
                return Err(Error::internal("a plan deletes rows of inputs that only insert").into());
            }
            self.emitted_bytes += chunk.rows().get_array_memory_size();
            self.emitted.push(chunk.rows().clone());
        }
        to.into_iter().try_for_each(|to| self.push(to, chunk.clone()))
    }

    /// Takes the memory that is in use from the pool of all queries.
    fn account(&mut self) -> Result<()> {
        let state: usize = self.pipelines.iter().map(Pipeline::bytes).sum();
        self.memory.try_resize(state + self.emitted_bytes)
    }
}

//! The operators of a fragment, as one actor runs them.
//!
//! A [`Pipeline`] takes chunks, passes them through its operators, and emits what leaves the last
//! one. It does no IO: an operator that needs entries of its state says so by [`Next`], the caller
//! reads them, and the pipeline goes on. The chunk waits in the pipeline meanwhile, so nothing else
//! may be passed to it before.
//!
//! At a barrier the caller flushes: operators that gather changes emit them, upstream first, and
//! each write of the state is there once, by [`Pipeline::take_writes`]. It may do so before, to get
//! memory back, if [`Pipeline::can_flush`] says so.
//!
//! `Read`, `Follow` and `Materialize` are the caller's; the pipeline leaves them out.
//!
//! * `linear`: operators of single rows; `unnest`: rows of arrays;
//! * `constant`: rows that a statement names;
//! * `preaggregate` and `aggregate`: groups, in `groups`, with accumulators, in `accumulate`, and
//!   the values that occur in a group, in `values`;
//! * `batch`: the same accumulators for queries that run once;
//! * `evict`: which entries are forgotten;
//! * `cell`, `payload` and `sorted`: the encoding of values in the state.
//!
//! Entries of the state stay in memory until the caller wants some of it back, by
//! [`Pipeline::evict`].
//!
//! Invariant: a pipeline that is built anew from the state that another one wrote continues as that
//! one would have, after any flush.

use std::fmt::Debug;

use arrow::array::RecordBatch;
use bytes::Bytes;
use weir_common::plan::{Dispatch, Expr, Fragment, JobPlan, Operator, Stream, StreamColumn};
use weir_common::types::SqlType;
use weir_common::view::{Error, Functions};

use crate::chunk::Chunk;

mod accumulate;
mod aggregate;
pub mod batch;
mod cell;
mod constant;
mod evict;
mod groups;
mod linear;
mod payload;
mod preaggregate;
mod sorted;
mod unnest;
mod values;

use aggregate::Aggregate;
use constant::Constant;
use linear::{Expand, Filter, Project};
use preaggregate::PreAggregate;
use unnest::Unnest;

/// The columns behind those that are read of a stream: split, sequence and ordinal.
const ORIGIN: usize = 3;
/// Rows that leave a pipeline before the caller gets a turn.
const ROWS_EMITTED: usize = 16_384;

/// Where a pipeline runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The vnode of all rows, if the fragment has one actor; otherwise each row has its own.
    pub single: Option<u16>,
    /// True if the job is new. Its state is empty, so nothing is read that was not written.
    pub is_fresh: bool,
}

/// A row that an operator leaves out, because an expression or an aggregate fails for it.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedRow {
    /// The operator, by its place in the fragment.
    pub operator: u16,
    /// The row of its input; of an aggregate, the key of the group.
    pub row: RecordBatch,
    /// The reason.
    pub error: Error,
    /// True if the row fails no more: it is deleted, or the aggregate has a result again.
    pub is_delete: bool,
}

/// The rows that an operator leaves out if they fail: those of its input or, of an aggregate, the
/// keys of its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The operator, as `EXPLAIN` shows it.
    pub operator: String,
    /// Their columns.
    pub columns: Vec<StreamColumn>,
    /// The columns that identify a row.
    pub key: Vec<usize>,
    /// The columns whose hash is the vnode of a row; absent: all rows have one, or nothing is ever
    /// deleted.
    pub divided: Option<Vec<usize>>,
}

/// The result of a step.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// Changes that leave the last operator, in order. Their columns are those of the fragment's
    /// output, but may have other names.
    pub emitted: Vec<Chunk>,
    /// Rows that are as they were, although the entries of their groups changed: for those who
    /// store both as one, as `Materialize` may say. Nobody else hears of them.
    pub kept: Vec<RecordBatch>,
    /// Rows that were left out.
    pub failed: Vec<FailedRow>,
    /// How the caller goes on.
    pub next: Next,
}

/// How the caller of a pipeline goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The step is done.
    Done,
    /// There is more; [`Pipeline::resume`] once the emitted changes have left.
    More,
    /// Read these entries of the state, then [`Pipeline::supply`] them.
    Need(Vec<StateKey>),
    /// Read these parts of the state, then [`Pipeline::supply_ranges`] with them.
    Ranges(Vec<StateRange>),
}

/// The key of an entry of the state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateKey {
    /// The table, by its place in [`JobPlan::tables`].
    pub table: u16,
    /// The vnode of the rows that the entry is about.
    pub vnode: u16,
    /// The key, see [`weir_common::key`].
    pub key: Bytes,
    /// The number of bytes of the key by which entries are looked up together.
    pub prefix: usize,
}

/// Entries of the state whose keys have a prefix, by which they are looked up together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRange {
    /// The table, by its place in [`JobPlan::tables`].
    pub table: u16,
    /// The vnode of the rows that the entries are about.
    pub vnode: u16,
    /// The prefix.
    pub prefix: Bytes,
    /// The keys are above this one.
    pub after: Option<Bytes>,
    /// So many entries at most, those with the least keys.
    pub limit: usize,
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// The entry.
    pub key: StateKey,
    /// Its value; `None`: the entry is deleted.
    pub value: Option<Bytes>,
}

/// The reason why a pipeline stopped. It cannot be used any more. A row that fails does not stop
/// it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A row has no result: a division by zero, or a sum that is out of range. The same rows fail
    /// again.
    #[error(transparent)]
    Value(#[from] Error),
    /// More rows were deleted than inserted, or the state is damaged.
    #[error("{0}")]
    Broken(String),
}

/// The operators of a fragment, of one actor.
#[derive(Debug)]
pub struct Pipeline {
    stages: Vec<Box<dyn Operate>>,
    inputs: usize,
    /// Chunks on their way to a stage, the next one last.
    queue: Vec<Queued>,
    /// The stage that is being flushed.
    flushing: Option<usize>,
    /// The stage that waits for its state.
    waiting: Option<usize>,
    /// The place of each stage among the operators, and the rows that may fail there.
    places: Vec<(u16, Failing)>,
    /// Rows that were left out in this step.
    failed: Vec<FailedRow>,
}

/// A chunk on its way.
#[derive(Debug)]
struct Queued {
    stage: usize,
    chunk: Chunk,
    /// True for rows that are kept as they were.
    is_kept: bool,
}

/// An operator of a pipeline.
trait Operate: Debug + Send + Sync {
    /// Takes a chunk. The next step is not [`Next::More`].
    fn apply(&mut self, chunk: Chunk) -> Result<Outcome, Failure>;

    /// Takes what was needed. A flush that needed it is called again afterwards.
    fn supply(&mut self, found: Vec<Option<Bytes>>) -> Result<Outcome, Failure> {
        unreachable!("{self:?} did not ask for {found:?}")
    }

    /// Takes entries of ranges, as [`Operate::supply`] does.
    fn supply_ranges(&mut self, found: Vec<Vec<(Bytes, Bytes)>>) -> Result<Outcome, Failure> {
        unreachable!("{self:?} did not ask for {found:?}")
    }

    /// Emits what was gathered. It is called again as long as the next step is [`Next::More`].
    fn flush(&mut self) -> Result<Outcome, Failure> {
        Ok(Outcome::done(Vec::new()))
    }

    /// True if nothing forbids a flush in the middle of an epoch.
    fn can_flush(&self) -> bool {
        true
    }

    /// Appends changes of the state.
    fn take_writes(&mut self, _writes: &mut Vec<StateWrite>) {}

    /// The next writes that were taken are applied.
    fn applied(&mut self) {}

    /// Memory in use, in bytes.
    fn bytes(&self) -> usize {
        0
    }

    /// Forgets entries until so many bytes are in use, if it can.
    fn evict(&mut self, _target: usize) {}
}

impl Outcome {
    fn done(emitted: Vec<Chunk>) -> Outcome {
        Outcome { emitted, kept: Vec::new(), failed: Vec::new(), next: Next::Done }
    }

    fn need(keys: Vec<StateKey>) -> Outcome {
        Outcome { next: Next::Need(keys), ..Outcome::done(Vec::new()) }
    }

    fn ranges(ranges: Vec<StateRange>) -> Outcome {
        Outcome { next: Next::Ranges(ranges), ..Outcome::done(Vec::new()) }
    }
}

impl Pipeline {
    /// The operators of a fragment. `leaf`: the stream that `Read` or `Follow` brings, if the
    /// fragment begins with one; its key are the columns that its rows are divided by.
    ///
    /// # Errors
    /// [`Error`], if this version lacks a function in its revision.
    ///
    /// # Panics
    /// If the plan does not fit together.
    pub fn new(
        plan: &JobPlan,
        fragment: usize,
        leaf: Option<&Stream>,
        functions: &dyn Functions,
        place: Place,
    ) -> Result<Pipeline, Error> {
        let edges = plan.inputs(fragment).count();
        let mut builder = Builder::new(plan, fragment, leaf, functions, place);
        let (mut stages, mut places) = (Vec::new(), Vec::new());
        for (operator, place) in plan.fragments[fragment].operators.iter().zip(0..) {
            let before = builder.failing(operator);
            if let Some(stage) = builder.stage(operator)? {
                let is_aggregate = matches!(operator, Operator::Aggregate { .. });
                stages.push(stage);
                places.push((place, if is_aggregate { builder.failing(operator).of_groups() } else { before }));
            }
        }
        let inputs = edges + usize::from(leaf.is_some());
        let (queue, failed) = (Vec::new(), Vec::new());
        Ok(Pipeline { stages, inputs, queue, flushing: None, waiting: None, places, failed })
    }

    /// Works on a chunk of an input.
    ///
    /// # Errors
    /// [`Failure`], and the pipeline cannot be used any more.
    ///
    /// # Panics
    /// If the step before is not done, or there is no such input.
    pub fn apply(&mut self, input: u16, chunk: Chunk) -> Result<Outcome, Failure> {
        assert!(usize::from(input) < self.inputs, "there is no input {input}");
        self.assert_idle();
        self.queue.push(Queued { stage: 0, chunk, is_kept: false });
        self.run()
    }

    /// Goes on with the values of the entries that were asked for, in their order.
    ///
    /// # Errors
    /// [`Failure`], and the pipeline cannot be used any more.
    ///
    /// # Panics
    /// If nothing was asked for.
    pub fn supply(&mut self, found: Vec<Option<Bytes>>) -> Result<Outcome, Failure> {
        let stage = self.waiting.take().expect("the pipeline asked for entries");
        let outcome = self.stages[stage].supply(found)?;
        self.go_on(stage, outcome)
    }

    /// Goes on with the entries of the ranges that were asked for, keys and values in order.
    ///
    /// # Errors
    /// [`Failure`], and the pipeline cannot be used any more.
    ///
    /// # Panics
    /// If nothing was asked for.
    pub fn supply_ranges(&mut self, found: Vec<Vec<(Bytes, Bytes)>>) -> Result<Outcome, Failure> {
        let stage = self.waiting.take().expect("the pipeline asked for ranges");
        let outcome = self.stages[stage].supply_ranges(found)?;
        self.go_on(stage, outcome)
    }

    fn go_on(&mut self, stage: usize, outcome: Outcome) -> Result<Outcome, Failure> {
        match self.settle((stage, false), outcome) {
            next @ (Next::Need(_) | Next::Ranges(_)) => Ok(self.outcome((Vec::new(), Vec::new()), next)),
            Next::Done | Next::More => self.run(),
        }
    }

    /// True if it can be flushed in the middle of an epoch: all groups that changed have rows, and
    /// no value was deleted more often than inserted. A delete may overtake the insert on another
    /// way, and only at the end of an epoch all have come.
    pub fn can_flush(&self) -> bool {
        self.stages.iter().all(|stage| stage.can_flush())
    }

    /// Emits what changed since the last flush. The last one of an epoch is at its end.
    ///
    /// # Errors
    /// [`Failure`], and the pipeline cannot be used any more.
    ///
    /// # Panics
    /// If the step before is not done.
    pub fn flush(&mut self) -> Result<Outcome, Failure> {
        self.assert_idle();
        self.flushing = Some(0);
        self.run()
    }

    /// Goes on after [`Next::More`].
    ///
    /// # Errors
    /// [`Failure`], and the pipeline cannot be used any more.
    pub fn resume(&mut self) -> Result<Outcome, Failure> {
        assert!(self.waiting.is_none(), "the pipeline waits for entries");
        self.run()
    }

    /// The rows that an operator may leave out, by its place in the fragment.
    ///
    /// # Panics
    /// If the operator leaves out none.
    pub fn failing(&self, operator: u16) -> &Failing {
        let found = self.places.iter().find(|(place, _)| *place == operator);
        &found.expect("the place of an operator whose rows fail").1
    }

    /// Takes the changes of the state since the last call, one a key. The flush is done.
    ///
    /// # Panics
    /// If the flush is not done.
    pub fn take_writes(&mut self) -> Vec<StateWrite> {
        self.assert_idle();
        let mut writes = Vec::new();
        self.stages.iter_mut().for_each(|stage| stage.take_writes(&mut writes));
        writes
    }

    /// The changes of one [`Pipeline::take_writes`] are applied: reads return them. One call for
    /// each, in their order.
    pub fn applied(&mut self) {
        self.stages.iter_mut().for_each(|stage| stage.applied());
    }

    /// The memory that groups and values take, in bytes.
    pub fn bytes(&self) -> usize {
        self.stages.iter().map(|stage| stage.bytes()).sum()
    }

    /// Forgets groups and values that have not changed for long, until not more than `target` bytes
    /// are in use, if it can. Those whose changes are not applied stay.
    ///
    /// # Panics
    /// If the step before is not done.
    pub fn evict(&mut self, target: usize) {
        self.assert_idle();
        let bytes = self.bytes();
        if bytes > target {
            let share = target as f64 / bytes as f64;
            self.stages.iter_mut().for_each(|stage| stage.evict((stage.bytes() as f64 * share) as usize));
        }
    }

    fn assert_idle(&self) {
        let is_idle = self.queue.is_empty() && self.flushing.is_none() && self.waiting.is_none();
        assert!(is_idle, "the step before is done");
    }

    /// Moves chunks on, the most advanced first, then flushes stage after stage.
    fn run(&mut self) -> Result<Outcome, Failure> {
        let (mut emitted, mut kept) = (Vec::new(), Vec::new());
        let mut rows = 0;
        loop {
            if rows >= ROWS_EMITTED {
                return Ok(self.outcome((emitted, kept), Next::More));
            }
            let next = match (self.queue.pop(), self.flushing) {
                (Some(Queued { stage, chunk, is_kept }), _) if stage == self.stages.len() => {
                    rows += chunk.rows().num_rows();
                    match is_kept {
                        true => kept.push(chunk.rows().clone()),
                        false => emitted.push(chunk),
                    }
                    continue;
                }
                (Some(Queued { stage, chunk, is_kept }), _) => {
                    let outcome = self.stages[stage].apply(chunk)?;
                    self.settle((stage, is_kept), outcome)
                }
                (None, Some(stage)) if stage == self.stages.len() => {
                    self.flushing = None;
                    continue;
                }
                (None, Some(stage)) => {
                    let outcome = self.stages[stage].flush()?;
                    if outcome.next == Next::Done {
                        self.flushing = Some(stage + 1);
                    }
                    self.settle((stage, false), outcome)
                }
                (None, None) => return Ok(self.outcome((emitted, kept), Next::Done)),
            };
            if let Next::Need(_) | Next::Ranges(_) = next {
                return Ok(self.outcome((emitted, kept), next));
            }
        }
    }

    fn outcome(&mut self, (emitted, kept): (Vec<Chunk>, Vec<RecordBatch>), next: Next) -> Outcome {
        Outcome { emitted, kept, failed: std::mem::take(&mut self.failed), next }
    }

    /// Takes the outcome of a stage. `is_kept`: the stage took rows that are kept as they were, and
    /// those that fail have failed before.
    fn settle(&mut self, (stage, is_kept): (usize, bool), outcome: Outcome) -> Next {
        let Outcome { emitted, kept, failed, next } = outcome;
        let operator = self.places[stage].0;
        if !is_kept {
            self.failed.extend(failed.into_iter().map(|failed| FailedRow { operator, ..failed }));
        }
        let emitted = emitted.into_iter().map(|chunk| (chunk, is_kept));
        let kept = kept.into_iter().map(|rows| (Chunk::inserts(rows), true));
        let queued = emitted.chain(kept).filter(|(chunk, _)| chunk.rows().num_rows() > 0);
        let queued: Vec<Queued> = queued.map(|(chunk, is_kept)| Queued { stage: stage + 1, chunk, is_kept }).collect();
        self.queue.extend(queued.into_iter().rev());
        if let Next::Need(_) | Next::Ranges(_) = next {
            self.waiting = Some(stage);
        }
        next
    }
}

/// Builds the operators of a fragment, one after the other.
struct Builder<'a> {
    plan: &'a JobPlan,
    functions: &'a dyn Functions,
    place: Place,
    /// The columns so far.
    columns: Vec<StreamColumn>,
    /// The columns that leave the fragment.
    output: &'a [StreamColumn],
    /// The table of groups that are stored with their rows.
    stored_groups: Option<u16>,
    /// The columns that identify a row.
    key: Vec<usize>,
    /// The columns whose hash decides on the actor; `None`: something else does.
    divided: Option<Vec<usize>>,
}

/// How the vnode of a row is found.
#[derive(Debug)]
enum Division {
    /// All rows have this one.
    Single(u16),
    /// The hash of the group's key.
    Key,
    /// The hash of these columns.
    Columns(Vec<usize>),
}

impl<'a> Builder<'a> {
    fn new(
        plan: &'a JobPlan,
        fragment: usize,
        leaf: Option<&'a Stream>,
        functions: &'a dyn Functions,
        place: Place,
    ) -> Builder<'a> {
        let edge = plan.inputs(fragment).next();
        let (columns, key, divided) = match (edge, leaf) {
            (Some(edge), _) => {
                let divided = match &edge.dispatch {
                    Dispatch::Hash(columns) => Some(columns.clone()),
                    Dispatch::Forward | Dispatch::Single => None,
                };
                let sent = &plan.fragments[usize::from(edge.from)].output;
                (sent.columns.clone(), sent.key.clone(), divided)
            }
            (None, Some(leaf)) if leaf.key.is_empty() => {
                // The last columns say where in a stream a row comes from.
                let count = leaf.columns.len();
                (leaf.columns.clone(), (count.saturating_sub(ORIGIN)..count).collect(), None)
            }
            (None, Some(leaf)) => (leaf.columns.clone(), leaf.key.clone(), Some(leaf.key.clone())),
            (None, None) => (Vec::new(), Vec::new(), None),
        };
        let Fragment { operators, output, .. } = &plan.fragments[fragment];
        let stored_groups = match operators.last() {
            Some(Operator::Materialize { groups, .. }) => *groups,
            _ => None,
        };
        Builder { plan, functions, place, columns, output: &output.columns, stored_groups, key, divided }
    }

    /// The rows that have come so far.
    fn failing(&self, operator: &Operator) -> Failing {
        Failing {
            operator: operator.to_string(),
            columns: self.columns.clone(),
            key: self.key.clone(),
            divided: self.divided.clone(),
        }
    }

    /// The next operator; `None` for those of the caller.
    fn stage(&mut self, operator: &Operator) -> Result<Option<Box<dyn Operate>>, Error> {
        let stage: Box<dyn Operate> = match operator {
            Operator::Read { .. } | Operator::Follow { .. } | Operator::Union | Operator::Materialize { .. } => {
                return Ok(None);
            }
            Operator::Values { rows, emitted } => {
                let vnode = self.place.single.expect("one actor emits the rows");
                let columns = rows.first().map_or(&[][..], Vec::as_slice);
                self.columns = columns.iter().map(|expr| self.column(expr)).collect();
                // The last column numbers the rows.
                self.key = columns.len().checked_sub(1).into_iter().collect();
                Box::new(Constant::new(rows, &self.columns, self.functions, *emitted, (vnode, self.place.is_fresh))?)
            }
            Operator::Project { columns } => {
                let computed: Vec<StreamColumn> = columns.iter().map(|expr| self.column(expr)).collect();
                let project = Project::new(columns, &self.columns, &computed, self.functions)?;
                self.columns = computed;
                self.move_columns(|column| columns.iter().position(|expr| *expr == Expr::Column(column)));
                Box::new(project)
            }
            Operator::Expand { sets } => {
                let first = sets.first().map_or(&[][..], Vec::as_slice);
                let computed: Vec<StreamColumn> = first.iter().map(|expr| self.column(expr)).collect();
                let expand = Expand::new(sets, &self.columns, &computed, self.functions)?;
                self.key = (0..computed.len()).collect();
                self.columns = computed;
                self.divided = None;
                Box::new(expand)
            }
            Operator::Unnest { columns } => {
                let unnest = Unnest::new(&self.columns, columns)?;
                self.columns = unnest.columns().to_vec();
                // The last column is the place of the element.
                self.key.push(self.columns.len() - 1);
                Box::new(unnest)
            }
            Operator::Filter { condition } => Box::new(Filter::new(self.functions.build(condition, &self.columns)?)),
            Operator::PreAggregate { keys, calls } => {
                let operator = PreAggregate::new(&self.columns, (keys, calls), self.output)?;
                self.columns = operator.columns().to_vec();
                self.group(keys);
                Box::new(operator)
            }
            Operator::Aggregate { keys, calls, is_final, groups } => {
                let division = self.division(keys);
                let table = (*groups, &self.plan.tables[usize::from(*groups)]);
                let place = (division, self.place.is_fresh);
                let keeps_rows = self.stored_groups == Some(*groups);
                let operator = Aggregate::new(&self.columns, (keys, calls), *is_final, table, place, keeps_rows)?;
                self.columns = operator.columns().to_vec();
                self.group(keys);
                Box::new(operator)
            }
        };
        Ok(Some(stage))
    }

    fn column(&self, expr: &Expr) -> StreamColumn {
        match expr {
            Expr::Column(column) => self.columns[*column].clone(),
            _ => StreamColumn { name: expr.to_string(), ty: type_of(expr, &self.columns) },
        }
    }

    /// Columns have moved to other places. If one of the key has gone, all columns identify a row.
    fn move_columns(&mut self, place: impl Fn(usize) -> Option<usize>) {
        let key: Option<Vec<usize>> = self.key.iter().map(|column| place(*column)).collect();
        self.key = key.unwrap_or_else(|| (0..self.columns.len()).collect());
        self.divided = self.divided.take().and_then(|columns| columns.into_iter().map(place).collect());
    }

    /// The columns by which rows are grouped have come first.
    fn group(&mut self, keys: &[usize]) {
        self.move_columns(|column| keys.iter().position(|key| *key == column));
        self.key = (0..keys.len()).collect();
    }

    fn division(&self, keys: &[usize]) -> Division {
        match (self.place.single, &self.divided) {
            (Some(vnode), _) => Division::Single(vnode),
            (None, Some(columns)) if columns == keys => Division::Key,
            (None, Some(columns)) => {
                assert!(columns.iter().all(|column| keys.contains(column)), "a group is at one actor");
                Division::Columns(columns.clone())
            }
            (None, None) => panic!("the rows of a group are at one actor"),
        }
    }
}

impl Failing {
    /// The keys of groups, whose columns come first.
    fn of_groups(mut self) -> Failing {
        self.columns.truncate(self.key.len());
        self
    }
}

fn type_of(expr: &Expr, columns: &[StreamColumn]) -> SqlType {
    match expr {
        Expr::Column(column) => columns[*column].ty.clone(),
        Expr::Literal { ty, .. } | Expr::Call { ty, .. } | Expr::Cast { ty, .. } | Expr::Case { ty, .. } => ty.clone(),
    }
}

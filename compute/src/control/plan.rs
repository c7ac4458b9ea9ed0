//! A node's part of a term, as meta plans it.

use std::collections::HashMap;
use std::fmt;

use uuid::Uuid;
use weir_common::catalog::{Entry, Job};
use weir_common::ids::{ActorId, Epoch, JobSplit, SlotId, StatementId, TableId, TermId, VnodeRange};
use weir_common::position::Position;
use weir_common::telemetry::trace::TraceParent;

/// A node's part of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The term.
    pub term: TermId,
    /// The committed epoch it starts from.
    pub epoch: Epoch,
    /// The node's slots.
    pub slots: Vec<SlotPlan>,
    /// Every entry of the catalog.
    pub catalog: Vec<Entry>,
    /// The splits of every running job. The node reads those whose slot is its own.
    pub splits: Vec<SplitPlan>,
    /// Every slot of the term, in the order of their vnodes, and where it runs.
    pub routes: Vec<Route>,
}

/// A slot and the address of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The slot.
    pub slot: SlotId,
    /// Its vnodes.
    pub vnodes: VnodeRange,
    /// Its node, as host:port.
    pub address: String,
}

/// A slot to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotPlan {
    /// Its number.
    pub slot: SlotId,
    /// Its vnodes.
    pub vnodes: VnodeRange,
    /// The path of its new database.
    pub path: String,
    /// The checkpoints that it is a clone of; empty for a new database.
    pub sources: Vec<SourcePlan>,
}

/// A committed checkpoint, or a part of one, that a slot takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// The database.
    pub path: String,
    /// Its checkpoint.
    pub checkpoint: Uuid,
    /// The vnodes to take.
    pub vnodes: VnodeRange,
}

/// A split, the slot whose node reads it, and the position at which reading begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitPlan {
    /// The split.
    pub split: JobSplit,
    /// The slot that its actor runs beside, and that its position is committed with.
    pub slot: SlotId,
    /// The position at which reading begins.
    pub position: Position,
}

impl SplitPlan {
    /// The split that is read for it: its job's own, or that of a view's source.
    pub fn read(&self, job: &Job) -> JobSplit {
        job.read(&self.split.split)
    }
}

/// An actor as slots know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Writer {
    /// It reads a split for a job, and has a position there.
    Split(JobSplit),
    /// It runs a fragment.
    Fragment(ActorId),
}

impl Writer {
    /// Its job.
    pub fn job(&self) -> TableId {
        match self {
            Writer::Split(split) => split.job,
            Writer::Fragment(actor) => actor.fragment.job,
        }
    }
}

impl From<JobSplit> for Writer {
    fn from(split: JobSplit) -> Writer {
        Writer::Split(split)
    }
}

impl From<ActorId> for Writer {
    fn from(actor: ActorId) -> Writer {
        Writer::Fragment(actor)
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Writer::Split(split) => split.fmt(f),
            Writer::Fragment(actor) => actor.fmt(f),
        }
    }
}

/// A change of the running jobs, carried by a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The job of an entry starts, with all of its splits.
    Add(Entry, Vec<SplitPlan>),
    /// Jobs stop, and their state is forgotten.
    Drop(Vec<TableId>),
    /// The job of an entry has failed: these jobs stop, and their state stays.
    Stop(Entry, Vec<TableId>),
}

impl Mutation {
    /// The jobs that stop.
    pub fn stopped(mutation: Option<&Mutation>) -> &[TableId] {
        match mutation {
            Some(Mutation::Drop(jobs) | Mutation::Stop(_, jobs)) => jobs,
            Some(Mutation::Add(..)) | None => &[],
        }
    }

    /// The jobs whose state is forgotten.
    pub fn dropped(mutation: Option<&Mutation>) -> &[TableId] {
        match mutation {
            Some(Mutation::Drop(jobs)) => jobs,
            Some(Mutation::Add(..) | Mutation::Stop(..)) | None => &[],
        }
    }
}

/// A barrier as it arrives at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The term.
    pub term: TermId,
    /// The epoch it ends.
    pub epoch: Epoch,
    /// Snapshots of sealed epochs below this one may be dropped.
    pub lowest_pinned: Epoch,
    /// The change that takes effect with it.
    pub mutation: Option<Mutation>,
    /// The span of meta's that it belongs to.
    pub trace: TraceParent,
    /// Statements that take effect with it, in this order.
    pub statements: Vec<Statement>,
}

/// A statement whose rows are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its id.
    pub id: StatementId,
    /// The table that it writes to.
    pub table: TableId,
    /// The slots that hold rows of it.
    pub slots: Vec<SlotId>,
}

impl Barrier {
    /// The statements of which the actor of a table holds rows in a slot, in their order.
    pub fn statements_of_actors(&self) -> HashMap<(TableId, SlotId), Vec<StatementId>> {
        let mut held: HashMap<_, Vec<StatementId>> = HashMap::new();
        for Statement { id, table, slots } in &self.statements {
            slots.iter().for_each(|slot| held.entry((*table, *slot)).or_default().push(*id));
        }
        held
    }
}

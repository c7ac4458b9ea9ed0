//! The words of the coordinator's core: what happens to it, what it wants done, and what both speak
//! of. No logic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use weir_common::catalog::{Changed, Entry};
use weir_common::head::Head;
use weir_common::ids::{Epoch, JobSplit, NodeId, SchemaId, SlotId, StatementId, TableId, TermId, VnodeRange};
use weir_common::position::Position;

use super::placement::{AssignedSplit, Placement};
use super::positions::{Page, Positions};
use super::statements::Statement;

/// Time since the coordinator started.
pub type Time = Duration;

/// Someone who waits for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiter(pub u64);

/// What is durable, as it was last read or written.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// The head.
    pub head: Head,
    /// Its modification revision; 0 while there is none.
    pub revision: u64,
    /// The committed positions.
    pub positions: Positions,
}

/// How a compare-and-swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied at this revision.
    Applied(u64),
    /// A comparison failed; nothing was applied.
    Refused,
    /// Nobody can tell. It may even be applied later.
    Unknown,
}

/// What happens to the coordinator.
#[derive(Clone, Debug)]
pub enum Event {
    /// The answer to [`Action::Load`]. `leading`: the leader key was still ours just before. If it
    /// no longer is, the next claim is refused.
    Loaded {
        /// Whether this process still leads.
        leading: bool,
        /// What is stored.
        durable: Durable,
    },
    /// A compute node opened its control stream.
    NodeJoined {
        /// Who.
        node: NodeId,
        /// Its gRPC address.
        address: String,
        /// How many slots it offers.
        parallelism: usize,
    },
    /// A control stream ended or fell silent.
    NodeLost(NodeId),
    /// A node wants to be relieved.
    NodeLeaving(NodeId),
    /// A node opened its slots.
    TermReady(NodeId, TermId),
    /// A node cannot take part in the term any more.
    TermFailed(NodeId, TermId, String),
    /// All slots of a node are durable up to an epoch.
    EpochReported(NodeId, Report),
    /// A job cannot go on, and neither can its term.
    JobFailed {
        /// The term.
        term: TermId,
        /// The job.
        job: TableId,
        /// The reason.
        error: String,
        /// True if a node of another version may be able to build it.
        waits: bool,
    },
    /// A reader's ack window is nearly full, or an actor has its first rows.
    BarrierWanted,
    /// Someone waits for a checkpoint.
    Flush(Waiter),
    /// An entry was stored in the catalog; the waiter waits until its job runs.
    Created(Entry, Waiter),
    /// Entries and schemas were removed from the catalog; the waiter waits until the jobs have
    /// stopped.
    Dropped(Vec<TableId>, Vec<SchemaId>, Waiter),
    /// Entries or a schema were added or replaced, and what runs is the same.
    Changed(Changed),
    /// An entry was changed in the catalog, and its job, should it have failed, is to run again;
    /// the waiter waits until a term has begun that knows.
    Altered(Entry, Waiter),
    /// The end of a [`Action::Fail`]: the entry as it is stored.
    Marked(Entry),
    /// The end of a [`Action::Claim`].
    Claimed(TermId, Outcome),
    /// The end of a [`Action::Commit`].
    Committed(TermId, Epoch, Outcome),
    /// A statement of a term is to be committed, or was to be: the waiter waits for the outcome.
    Statement(TermId, Statement, Waiter),
    /// Time has passed.
    Tick,
}

/// What a node says of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The term.
    pub term: TermId,
    /// The epoch.
    pub epoch: Epoch,
    /// The checkpoint of each of its slots.
    pub checkpoints: Vec<(SlotId, Uuid)>,
    /// The positions that moved.
    pub positions: Vec<(JobSplit, Position)>,
    /// The jobs that have stopped in this epoch or a later one, as their users want them to when a
    /// row fails, and why. Their term goes on.
    pub stopped: Vec<(TableId, String)>,
}

/// What the coordinator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the leader key, the head and its position pages.
    Load,
    /// Replace the head, if we lead and its revision is `expected`; mark jobs in the same
    /// transaction.
    Claim {
        /// The revision that the head must have.
        expected: u64,
        /// The new head.
        head: Head,
        /// Entries to be replaced, since their jobs failed, wait, or run again.
        marked: Vec<Entry>,
    },
    /// Write the pages, then replace the head, if we lead and its revision is `expected`.
    Commit {
        /// The revision that the head must have.
        expected: u64,
        /// The new head.
        head: Head,
        /// Pages that the head names and that are not stored yet.
        pages: Vec<Page>,
        /// Statements that the commit makes durable; recorded in the same transaction.
        statements: Vec<StatementId>,
    },
    /// Mark the job of an entry failed in the catalog, unless the entry is dropped first. No epoch
    /// is committed before that.
    Fail(Entry),
    /// Delete position pages that no head names any more.
    Forget(Vec<String>),
    /// Tell a node to start its part of a term.
    StartTerm {
        /// Whom.
        node: NodeId,
        /// Which term.
        term: TermId,
        /// The committed epoch it starts from.
        epoch: Epoch,
        /// All slots and splits of the term.
        placement: Arc<Placement>,
        /// Where each of its nodes is reached.
        addresses: Arc<BTreeMap<NodeId, String>>,
        /// Every entry.
        catalog: Vec<Entry>,
    },
    /// Tell a node that the term has ended.
    StopTerm(NodeId, TermId),
    /// Send a barrier to every node of the term.
    Inject {
        /// Which term.
        term: TermId,
        /// The epoch it ends.
        epoch: Epoch,
        /// Snapshots below it may be dropped.
        lowest_pinned: Epoch,
        /// What changes at the barrier.
        mutation: Option<Mutation>,
        /// Statements that take effect at the barrier, in this order.
        statements: Vec<Statement>,
        /// Whom.
        nodes: Vec<NodeId>,
    },
    /// Tell every node of the term that the epoch is committed.
    Announce {
        /// Which term.
        term: TermId,
        /// Which epoch.
        epoch: Epoch,
        /// Whom.
        nodes: Vec<NodeId>,
    },
    /// The waiter's commit happened: the epoch.
    Resolve(Waiter, Epoch),
    /// The term of the waiter's statement has ended, and a newer one is claimed: the records tell
    /// whether it was committed.
    Recall(Waiter),
    /// End a node's control stream: it does not answer.
    Disconnect(NodeId, String),
    /// Tell a node that it holds nothing any more.
    Release(NodeId),
    /// Stop leading: another process does.
    StepDown,
}

/// A change of what runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The job of an entry starts.
    Add(Entry, Vec<AssignedSplit>),
    /// Jobs stop and their state is forgotten.
    Drop(Vec<TableId>),
    /// The job of an entry has failed: these jobs stop, and their state stays.
    Stop(Entry, Vec<TableId>),
}

/// Where a statement can read.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The term that runs.
    pub term: TermId,
    /// The newest epoch known to be committed.
    pub epoch: Epoch,
    /// Each slot and the address of its node.
    pub slots: Vec<(SlotId, VnodeRange, String)>,
    /// The sum of each job's positions, as places in the streams.
    pub places: Arc<BTreeMap<TableId, u64>>,
    /// The positions at the end of the newest epoch known to be committed.
    pub positions: Arc<BTreeMap<JobSplit, Position>>,
}

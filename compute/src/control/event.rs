//! The words of the node's core, [`super::state`]: its events, its actions, and its messages to
//! meta.

use tokio::sync::mpsc;
use uuid::Uuid;
use weir_common::ids::{Epoch, JobSplit, SlotId, TableId, TermId};
use weir_common::position::Position;

use super::plan::{Barrier, Plan};

/// An event of the node.
#[derive(Clone, Debug)]
pub enum Event {
    /// Meta: stop what runs, and build this.
    Start(Plan),
    /// Meta: a barrier.
    Barrier(Barrier),
    /// Meta: the epoch is committed.
    Committed(TermId, Epoch),
    /// Meta: the term has ended.
    Stop(TermId),
    /// The control stream is gone, and with it the term.
    Disconnected,
    /// [`Action::Open`] has ended.
    Opened(TermId, Result<(), String>),
    /// A slot is durable up to an epoch.
    SlotDurable(TermId, SlotEpoch),
    /// Something of the term broke, and the node cannot go on with it.
    Broken(TermId, String),
    /// The exchange with another node broke. Most likely that node has left the term, which then
    /// ends anyway.
    Separated(TermId, String),
    /// A job cannot go on, for a reason that its user has to fix.
    JobFailed(TermId, TableId, String),
    /// A job has stopped, because a row of it fails and its user wants it to stop then. The actor
    /// that says so discards everything from then on, and has not delivered the barrier of the
    /// epoch yet.
    JobStopped(TermId, TableId, String),
    /// A job cannot be built from its plan by this version.
    JobWaits(TermId, TableId, String),
    /// A reader's ack window is nearly full, or an actor has its first rows.
    CheckpointWanted(TermId),
}

/// A slot's durable epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotEpoch {
    /// The slot.
    pub slot: SlotId,
    /// The epoch.
    pub epoch: Epoch,
    /// The checkpoint that holds it.
    pub checkpoint: Uuid,
    /// The positions of the slot's splits at its end.
    pub positions: Vec<(JobSplit, Position)>,
}

/// An action that the node's core asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the slots and build the actors of a term.
    Open(Plan),
    /// Stop everything of the term that is open or opening.
    Close(TermId),
    /// Hand a barrier to the slots and actors.
    Inject(Barrier),
    /// Acknowledge to NATS the messages of the epoch, and forget older checkpoints.
    Acknowledge(Epoch),
    /// Send a message to meta.
    Send(Message),
}

/// A message from the node to meta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The slots are open; the committed epoch can be read.
    Ready(TermId),
    /// The node can take no further part in the term.
    Failed(TermId, String),
    /// All slots are durable up to an epoch.
    Report {
        /// The term.
        term: TermId,
        /// The epoch.
        epoch: Epoch,
        /// The checkpoint of every slot.
        checkpoints: Vec<(SlotId, Uuid)>,
        /// The positions that moved since the last report.
        positions: Vec<(JobSplit, Position)>,
        /// The jobs that have stopped since the last report, in this epoch or a later one, and why.
        stopped: Vec<(TableId, String)>,
    },
    /// A waiter needs a checkpoint.
    WantBarrier(TermId),
    /// A job cannot go on, and neither can the term.
    JobFailed(TermId, TableId, String),
    /// A job cannot be built by this version.
    JobWaits(TermId, TableId, String),
}

/// Sends events from tasks of a term to their node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Inputs(pub(crate) mpsc::Sender<Event>);

impl Inputs {
    /// Sends an event. It is lost if the node has ended, because then nothing needs it.
    pub(crate) async fn send(&self, event: Event) {
        let _ = self.0.send(event).await;
    }
}

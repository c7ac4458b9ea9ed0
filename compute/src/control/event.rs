//! The words of the node's core, [`super::state`]: what happens to a node, what it wants done, and what it tells meta.

use tokio::sync::mpsc;
use uuid::Uuid;
use weir_common::ids::{Epoch, SlotId, TableId, TableSplit, TermId};
use weir_common::position::Position;

use super::plan::{Barrier, Plan};

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// Meta: stop what runs, build this.
    Start(Plan),
    /// Meta: a barrier.
    Barrier(Barrier),
    /// Meta: the epoch is committed.
    Committed(TermId, Epoch),
    /// Meta: the term has ended.
    Stop(TermId),
    /// The control stream is gone, and with it the term.
    Disconnected,
    /// The end of [`Action::Open`].
    Opened(TermId, Result<(), String>),
    /// A slot is durable up to an epoch.
    SlotDurable(TermId, SlotEpoch),
    /// Something of the term broke: the node cannot go on with it.
    Broken(TermId, String),
    /// The exchange with another node broke. Most likely that node has left the term, which then ends anyway.
    Separated(TermId, String),
    /// A job cannot go on for a reason that its user has to mend.
    JobFailed(TermId, TableId, String),
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
    pub positions: Vec<(TableSplit, Position)>,
}

/// What the node wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the slots and build the actors of a term.
    Open(Plan),
    /// Stop everything of the term that is open or opening.
    Close(TermId),
    /// Hand a barrier to the slots and actors.
    Inject(Barrier),
    /// Acknowledge to NATS what the epoch read; forget older checkpoints.
    Acknowledge(Epoch),
    /// Tell meta.
    Send(Message),
}

/// What a node tells meta.
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
        /// The positions that moved since the report before.
        positions: Vec<(TableSplit, Position)>,
    },
    /// Someone waits for a checkpoint.
    WantBarrier(TermId),
    /// A job cannot go on.
    JobFailed(TermId, TableId, String),
}

/// How tasks of a term send events to their node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Inputs(pub(crate) mpsc::Sender<Event>);

impl Inputs {
    /// Sends an event. Once the node is gone nobody needs it any more.
    pub(crate) async fn send(&self, event: Event) {
        let _ = self.0.send(event).await;
    }
}

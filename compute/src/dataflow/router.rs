//! The router of a term: brings frames and credits to actors, on this node or another.
//!
//! Frames may come from another node before this one knows the actor, because meta sends barriers
//! to each node by itself. They wait until the actor is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use tokio::sync::{mpsc, oneshot};
use weir_common::error::Kind;
use weir_common::ids::{ActorId, EdgeId, Epoch, SlotId, StatementId, TableId};
use weir_common::rpc;
use weir_stream::actor::Announced;
use weir_stream::chunk::Chunk;
use weir_stream::edge::{Credit, Frame};

use crate::storage::slot;

/// A message to an actor.
#[derive(Debug)]
pub(crate) enum Message {
    /// A frame that came over an input.
    Frame(EdgeId, Frame<Chunk>),
    /// A credit for an output.
    Credit(EdgeId, Credit),
    /// A barrier that meta has sent to the node. Only its own node says so, as all that follows.
    Barrier(Announced),
    /// Rows of a statement, to be held until a barrier names it.
    Hold(Hold),
    /// A statement that no barrier will name.
    Abandon(StatementId),
    /// Replayed rows of a keyed table.
    Merge(Merge),
}

/// Rows of a statement.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) statement: StatementId,
    pub(crate) rows: Chunk,
    /// The number of the table's layout that they have.
    pub(crate) layout: u16,
    /// True if the actor gets no more of it.
    pub(crate) is_last: bool,
    /// Answered once they are held, or refused.
    pub(crate) held: oneshot::Sender<Result<(), rpc::Error>>,
}

/// Replayed rows, with the sequences of their messages as the last column. Each is stored unless
/// the stored row comes from a later message.
#[derive(Debug)]
pub(crate) struct Merge {
    pub(crate) rows: RecordBatch,
    /// Answered with the epoch that holds them.
    pub(crate) merged: oneshot::Sender<Result<Epoch, rpc::Error>>,
}

/// Messages to actors of another node.
pub(crate) type Way = mpsc::UnboundedSender<(ActorId, Message)>;

/// Reaches every actor of a term. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Router {
    places: Arc<Mutex<HashMap<ActorId, Place>>>,
    /// The actors of this node that store the rows of tables.
    tables: Arc<Mutex<HashMap<(TableId, SlotId), ActorId>>>,
}

/// The place of an actor.
#[derive(Debug)]
enum Place {
    /// On this node. Unbounded, but credits bound the rows that wait, and meta the barriers.
    Here(mpsc::UnboundedSender<Message>),
    /// On another node.
    There(Way),
    /// Not known yet. Messages wait.
    Unknown(Vec<Message>),
}

impl Router {
    /// Registers an actor of this node. Returns the messages that come for it.
    pub(crate) fn register(&self, actor: ActorId) -> mpsc::UnboundedReceiver<Message> {
        let (sender, inbox) = mpsc::unbounded_channel();
        if let Some(Place::Unknown(waiting)) = self.places().insert(actor, Place::Here(sender.clone())) {
            waiting.into_iter().for_each(|message| drop(sender.send(message)));
        }
        inbox
    }

    /// Registers an actor of another node.
    pub(crate) fn register_remote(&self, actor: ActorId, way: Way) {
        self.places().insert(actor, Place::There(way));
    }

    /// Sends a message to an actor. It is lost if the actor has ended, or if the connection has,
    /// which ends the term.
    pub(crate) fn send(&self, to: ActorId, message: Message) {
        match self.places().entry(to).or_insert_with(|| Place::Unknown(Vec::new())) {
            Place::Here(inbox) => drop(inbox.send(message)),
            Place::There(way) => drop(way.send((to, message))),
            Place::Unknown(waiting) => waiting.push(message),
        }
    }

    /// Makes known the actor that stores the rows of a table in a slot of this node.
    pub(crate) fn register_table(&self, table: TableId, slot: SlotId, actor: ActorId) {
        self.tables().insert((table, slot), actor);
    }

    /// The actor of this node that stores the rows of a table in a slot.
    ///
    /// # Errors
    /// If there is none: nobody writes to the table, or it does not run.
    pub(crate) fn table(&self, table: TableId, slot: SlotId) -> Result<ActorId, rpc::Error> {
        self.tables().get(&(table, slot)).copied().ok_or_else(|| {
            let message = format!("slot {slot} does not store rows of table {table} now");
            rpc::Error::new(Kind::Unavailable, message).with_sqlstate("40001").with_hint("run the statement again")
        })
    }

    /// Has the actor of a table store replayed rows. Returns the epoch that holds them.
    ///
    /// # Errors
    /// If the actor is not here, or ends, or a stored row has no sequence to compare with.
    pub(crate) async fn merge(&self, table: TableId, slot: SlotId, rows: RecordBatch) -> Result<Epoch, rpc::Error> {
        let (merged, answer) = oneshot::channel();
        self.send(self.table(table, slot)?, Message::Merge(Merge { rows, merged }));
        answer.await.map_err(|_| slot::ended())?
    }

    fn places(&self) -> MutexGuard<'_, HashMap<ActorId, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<(TableId, SlotId), ActorId>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

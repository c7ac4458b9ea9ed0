//! An edge: an actor's way to one slot, which may be on another node.
//!
//! Each write of rows needs a credit, so that an actor that is ahead of the slot's seal stops
//! reading. Barriers need none, so that rows that cannot move never hold them up.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use weir_common::ids::{Epoch, VnodeRange};
use weir_common::position::Position;

use crate::control::plan::Writer;
use crate::storage::entries::{self, Entries};
use crate::storage::slot::{self, Credit};

/// The writes of an actor to one slot that may wait to be applied: enough to read on during a seal,
/// and few enough to bound memory to about as many mebibytes.
pub(crate) const CREDITS: usize = 16;

/// The slot takes no more messages: its term has ended, or is about to.
#[derive(Debug)]
pub(crate) struct Closed;

/// An actor's way to one slot.
pub(crate) struct Edge {
    /// The slot's vnodes.
    pub(crate) vnodes: VnodeRange,
    credits: Arc<Semaphore>,
    way: Way,
}

enum Way {
    Local(mpsc::Sender<slot::Message>),
    Remote(mpsc::Sender<Outgoing>),
}

/// A message to a slot of another node.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Framed entries.
    Rows(Bytes),
    /// A barrier and the actor's position.
    Barrier(Epoch, Position),
}

impl Edge {
    /// An edge to a slot of this node.
    pub(crate) fn local(handle: &slot::Handle) -> Edge {
        let way = Way::Local(handle.inbox.clone());
        Edge { vnodes: handle.vnodes, credits: Arc::new(Semaphore::new(CREDITS)), way }
    }

    /// An edge to a slot of another node. The receiver of `way` adds a permit to `credits` for each
    /// credit that comes back; there must be [`CREDITS`] at first.
    pub(crate) fn remote(vnodes: VnodeRange, way: mpsc::Sender<Outgoing>, credits: Arc<Semaphore>) -> Edge {
        Edge { vnodes, credits, way: Way::Remote(way) }
    }

    /// Returns true if it leads to a slot of this node.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.way, Way::Local(_))
    }

    /// Sends one entry. The slot must be on this node.
    pub(crate) async fn write_entry(&self, actor: &Writer, key: Bytes, value: Bytes) -> Result<(), Closed> {
        self.write_local(actor, || Some(vec![(key, Some(value))])).await
    }

    /// Sends framed entries. Waits for a credit while the actor is far ahead of the seal.
    pub(crate) async fn write(&self, actor: &Writer, part: Bytes) -> Result<(), Closed> {
        match &self.way {
            Way::Local(_) => self.write_local(actor, || entries::unframe(part)).await,
            Way::Remote(way) => {
                // The permit comes back over the stream.
                self.credits.acquire().await.map_err(|_| Closed)?.forget();
                way.send(Outgoing::Rows(part)).await.map_err(|_| Closed)
            }
        }
    }

    async fn write_local(&self, actor: &Writer, entries: impl FnOnce() -> Option<Entries>) -> Result<(), Closed> {
        let Way::Local(inbox) = &self.way else { unreachable!("entries stay on their node") };
        let credit = Arc::clone(&self.credits).acquire_owned().await.map_err(|_| Closed)?;
        let entries = entries().expect("framed by this process");
        let message = slot::Message::Write { actor: actor.clone(), entries, credit: Credit::Local(credit) };
        inbox.send(message).await.map_err(|_| Closed)
    }

    /// Sends changes of entries. The slot must be on this node.
    pub(crate) async fn write_changes(&self, actor: &Writer, changes: Entries) -> Result<(), Closed> {
        self.write_local(actor, || Some(changes)).await
    }

    /// Waits until the slot has applied everything that was sent.
    ///
    /// An actor may do so in an epoch whose predecessors it has delivered everywhere: the seals
    /// that its writes wait for do not wait for it.
    pub(crate) async fn applied(&self) -> Result<(), Closed> {
        let all = u32::try_from(CREDITS).expect("a small number");
        self.credits.acquire_many(all).await.map(drop).map_err(|_| Closed)
    }

    /// Sends a barrier, with the position of an actor that reads a split.
    pub(crate) async fn barrier(&self, actor: &Writer, epoch: Epoch, position: Option<Position>) -> Result<(), Closed> {
        match &self.way {
            Way::Local(inbox) => {
                let message = slot::Message::Barrier { actor: actor.clone(), epoch, position };
                inbox.send(message).await.map_err(|_| Closed)
            }
            Way::Remote(way) => {
                let position = position.expect("only readers write to slots of other nodes");
                way.send(Outgoing::Barrier(epoch, position)).await.map_err(|_| Closed)
            }
        }
    }
}

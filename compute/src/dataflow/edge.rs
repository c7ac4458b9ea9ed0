//! An edge: an actor's way to its own slot.
//!
//! Each write of rows needs a credit, so that an actor that is ahead of the slot's seal stops
//! reading. Barriers need none, so that rows that cannot move never hold them up.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use weir_common::ids::{Epoch, VnodeRange};
use weir_common::position::Position;

use crate::control::plan::Writer;
use crate::storage::entries::Entries;
use crate::storage::slot;

/// The writes of an actor to its slot that may wait to be applied: enough to read on during a seal,
/// and few enough to bound memory to about as many mebibytes.
pub(crate) const CREDITS: usize = 16;

/// The slot takes no more messages: its term has ended, or is about to.
#[derive(Debug)]
pub(crate) struct Closed;

/// An actor's way to its slot.
pub(crate) struct Edge {
    /// The slot's vnodes.
    pub(crate) vnodes: VnodeRange,
    credits: Arc<Semaphore>,
    inbox: mpsc::Sender<slot::Message>,
}

impl Edge {
    /// An edge to a slot of this node.
    pub(crate) fn new(handle: &slot::Handle) -> Edge {
        Edge { vnodes: handle.vnodes, credits: Arc::new(Semaphore::new(CREDITS)), inbox: handle.inbox.clone() }
    }

    /// Sends one entry.
    pub(crate) async fn write_entry(&self, actor: &Writer, key: Bytes, value: Bytes) -> Result<(), Closed> {
        self.write(actor, vec![(key, Some(value))]).await
    }

    /// Sends changes of entries. Waits for a credit while the actor is far ahead of the seal.
    pub(crate) async fn write(&self, actor: &Writer, changes: Entries) -> Result<(), Closed> {
        let credit = Arc::clone(&self.credits).acquire_owned().await.map_err(|_| Closed)?;
        let message = slot::Message::Write { actor: actor.clone(), entries: changes, credit };
        self.inbox.send(message).await.map_err(|_| Closed)
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
        let message = slot::Message::Barrier { actor: actor.clone(), epoch, position };
        self.inbox.send(message).await.map_err(|_| Closed)
    }
}

//! The router of a term: brings frames and credits to actors, on this node or another.
//!
//! Frames may come from another node before this one knows the actor, because meta sends barriers
//! to each node by itself. They wait until the actor is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use weir_common::ids::{ActorId, EdgeId};
use weir_stream::actor::Announced;
use weir_stream::chunk::Chunk;
use weir_stream::edge::{Credit, Frame};

/// A message to an actor.
#[derive(Debug)]
pub(crate) enum Message {
    /// A frame that came over an input.
    Frame(EdgeId, Frame<Chunk>),
    /// A credit for an output.
    Credit(EdgeId, Credit),
    /// A barrier that meta has sent to the node. Only its own node says so.
    Barrier(Announced),
}

/// Messages to actors of another node.
pub(crate) type Way = mpsc::UnboundedSender<(ActorId, Message)>;

/// Reaches every actor of a term. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Router(Arc<Mutex<HashMap<ActorId, Place>>>);

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

    fn places(&self) -> MutexGuard<'_, HashMap<ActorId, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

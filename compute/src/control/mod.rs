//! What meta and a compute node tell each other, and the node's core, which decides what follows from it.
//!
//! In reading order:
//!
//! * [`plan`]: what a node runs in a term, and the barriers that change it;
//! * [`state`]: the core: which messages count, and what is reported when;
//! * [`event`]: what happens to a node, what it wants done, and what it tells meta;
//! * `wire`: the same words as Protobuf messages.
//!
//! This room imports no other room. It opens, runs and sends nothing: the `node` room performs the core's actions.

pub mod event;
pub mod plan;
pub mod state;

pub(crate) mod wire;

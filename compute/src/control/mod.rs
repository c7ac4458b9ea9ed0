//! The words that meta and a compute node exchange, and the node's core, which decides what follows
//! from them.
//!
//! In reading order:
//!
//! * [`plan`]: what a node runs in a term, and the barriers that change it;
//! * [`placement`]: the actors of a job's fragments, and the edges between them;
//! * [`state`]: the core, which decides which messages count, and what is reported when;
//! * [`event`]: the core's events, actions and messages;
//! * `wire`: conversions from and to Protobuf messages.
//!
//! This room imports no other room. It opens, runs and sends nothing: the `node` room performs the
//! core's actions.

pub mod event;
pub mod placement;
pub mod plan;
pub mod state;

pub(crate) mod wire;

//! What meta tells a compute node, and the term it takes part in.
//!
//! * [`plan`]: what a node runs in a term;
//! * [`state`]: the pure core: which messages count, what is reported when;
//! * `term`: the slots and actors of a running term;
//! * `session`: the control stream to the leader;
//! * [`task`]: the task that drives all of it.

pub mod plan;
pub mod state;
pub mod task;

mod session;
mod term;

//! The control loop of a compute node.
//!
//! In reading order:
//!
//! * `session`: the control stream to the leader;
//! * `task`: hears meta, asks the core of [`crate::control`], and performs its actions;
//! * `term`: the slots and actors of a running term.

pub(crate) mod task;

mod session;
mod term;

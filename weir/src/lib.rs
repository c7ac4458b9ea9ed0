//! The one program of Weir, with a role for each kind of node.
//!
//! In reading order:
//!
//! * [`config`]: what can be set, and where it may come from: flags, environment, file;
//! * [`run`]: a role from its listeners to its end;
//! * [`signal`]: when to stop.
//!
//! What the roles do is in `weir-meta`, `weir-compute` and `weir-frontend`; this crate only starts them.

pub mod config;
pub mod run;
pub mod signal;

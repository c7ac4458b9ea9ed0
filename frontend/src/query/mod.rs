//! Queries: planned → running.
//!
//! [`planner`] gives `weir_sql`'s planner the functions of a session, from [`functions`], and the
//! tables that a statement reads; [`run`] runs the query, with retries; [`parameters`] and
//! [`values`] parse the values that a client binds.

mod functions;
mod parameters;
mod planner;
mod run;
mod values;

pub(crate) use parameters::bind_parameters;
pub(crate) use planner::Planner;
pub(crate) use run::{Queries, is_lost};
pub(crate) use values::{Raw, scalar};

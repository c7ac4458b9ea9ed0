//! Queries: planned → running.
//!
//! [`planner`] gives the planner of SQL what a statement reads, [`functions`] are those of its
//! session, [`run`] runs it, with retry, [`parameters`] and [`values`] read what a client binds.

mod functions;
mod parameters;
mod planner;
mod run;
mod values;

pub(crate) use parameters::bind_parameters;
pub(crate) use planner::Planner;
pub(crate) use run::Queries;

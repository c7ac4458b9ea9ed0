//! Queries: parsed → planned → running.
//!
//! DataFusion resolves names, plans and executes; this module gives it the catalog as of the statement's snapshot and
//! makes what it yields look like PostgreSQL's. In reading order: [`rewrite`] (what DataFusion reads differently),
//! [`names`] (how result columns are called), [`schema`] and [`system`] (the schemas and tables that queries see),
//! [`planner`] (text to logical plan), [`types`] (of numbers and times), [`equality`] (of values), [`params`] (parameters of prepared statements), [`run`] (execution, with retry).

mod equality;
mod explain;
mod names;
mod params;
mod planner;
mod rewrite;
mod run;
mod schema;
mod system;
mod types;

pub(crate) use params::bind_parameters;
pub(crate) use planner::{Planner, Prepared};
pub(crate) use run::{Batches, Columns, ResultSet, open};

//! Queries: parsed → planned → running.
//!
//! DataFusion resolves names, plans and executes; this module gives it the catalog as of the statement's snapshot and
//! makes what it yields look like PostgreSQL's. In reading order: [`rewrite`] and [`introspection`] (what DataFusion
//! reads differently), [`names`] (how result columns are called), [`schema`], [`system`] and [`views`] (the schemas and
//! tables that queries see), [`planner`] (text to logical plan), [`types`] (of numbers and times), [`equality`] (of
//! values), [`params`] and [`values`] (parameters of prepared statements), [`window`] (the memory of window functions),
//! [`run`] (execution, with retry).

mod equality;
mod explain;
mod introspection;
mod names;
mod params;
mod planner;
mod rewrite;
mod run;
mod schema;
mod system;
mod types;
mod values;
mod views;
mod window;

pub(crate) use params::bind_parameters;
pub(crate) use planner::{Planner, Prepared};
pub(crate) use run::{Batches, Columns, ResultSet, open};

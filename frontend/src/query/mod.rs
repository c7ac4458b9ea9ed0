//! Queries: parsed → planned → running.
//!
//! DataFusion resolves names, plans and executes; this module gives it the catalog as of the
//! statement's snapshot and makes what it yields look like PostgreSQL's. In reading order:
//! [`refused`] (clauses that DataFusion would ignore), [`rewrite`] (what DataFusion reads
//! differently), [`precedence`] (of IS DISTINCT FROM), [`scopes`] (names from FROM), [`collected`]
//! (arrays of sub-queries), [`rows`] (their comparisons), [`similar`] (SIMILAR TO), [`windows`]
//! (their names), [`sets`] (functions that return them), [`tools`] and [`introspection`] (what psql
//! and drivers ask), [`apart`] (columns of one name), [`names`] (how result columns are called),
//! [`origins`] (where they come from), [`schema`], [`splits`] and [`pg_catalog`] (the schemas and
//! tables that queries see), [`planner`] (text to logical plan), [`choices`] (CASE), [`literals`]
//! (that get their type from others), [`multisets`] (INTERSECT ALL, EXCEPT ALL), [`ordered`]
//! (aggregates over sorted rows), [`types`] (of numbers and times), [`equality`] (of values),
//! [`shown`] (groups), [`subqueries`] (as joins), [`params`], [`infer`] and [`values`] (parameters
//! of prepared statements), [`window`] (the memory of window functions), [`threads`] (where they
//! are planned and executed), [`run`] (execution, with retry), [`incremental`] (the queries of
//! views).

mod apart;
mod choices;
mod collected;
mod equality;
mod explain;
mod incremental;
mod infer;
mod introspection;
mod jobs;
mod literals;
mod multisets;
mod names;
mod ordered;
mod origins;
mod params;
mod pg_catalog;
mod planner;
mod precedence;
mod refused;
mod rewrite;
mod rows;
mod run;
mod scalars;
mod schema;
mod scopes;
mod sets;
mod shown;
mod similar;
mod splits;
mod subqueries;
mod threads;
mod tools;
mod types;
mod values;
mod window;
mod windows;

pub(crate) use incremental::{Described, compile as compile_view, describe as describe_view};
pub(crate) use params::bind_parameters;
pub(crate) use planner::{Draft, Planner, Prepared};
pub(crate) use run::{Batches, Columns, ResultSet, describe, open};
pub(crate) use threads::QueryThreads;

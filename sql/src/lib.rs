//! The life of a SQL statement, from its text to a plan.
//!
//! A table of contents, in reading order:
//!
//! * [`parser`]: the text becomes statements, every error with its place in the text;
//! * [`syntax`]: a query is put so that DataFusion reads it as PostgreSQL would, or is refused;
//! * [`parameters`]: `$1`, `$2`, … get their types;
//! * [`planner`]: DataFusion resolves names, in the catalog that it is given, and plans;
//! * `rules`: the plan comes to mean what PostgreSQL means: types, equality, sub-queries;
//! * [`functions`]: the functions and operators that DataFusion lacks, or means differently;
//! * [`execution`]: the threads that plans are made and run on;
//! * [`views`]: the queries of materialized views, compiled into what computes their rows;
//! * [`relation`]: the catalog's relations in a plan;
//! * [`types`] and [`output`]: PostgreSQL's types, and their values in text and binary;
//! * [`keywords`]: the words that have to be quoted;
//! * [`error`]: what a client is told when something fails.
//!
//! This crate knows no session, no server and no system catalogs, and reads no rows: who plans
//! gives it the catalog and, as [`planner::SystemCatalogs`], what there is besides the tables.
//! Invariant: what a statement means depends on its text and on what it is given here, so that a
//! view is the same on every node.

pub mod parser;

pub mod syntax;

pub mod parameters;
pub mod planner;
mod rules;

pub mod functions;

pub mod execution;

pub mod views;

pub mod relation;

pub mod output;
pub mod types;

pub mod keywords;

pub mod error;

pub use error::Error;

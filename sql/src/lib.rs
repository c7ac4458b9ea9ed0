//! The life of a SQL statement, from its text to a plan.
//!
//! In reading order:
//!
//! * [`parser`]: parses the text into statements; every error has its position in the text;
//! * [`syntax`]: rewrites a query so that DataFusion reads it as PostgreSQL would, or refuses it;
//! * [`parameters`]: gives `$1`, `$2`, … their types;
//! * [`planner`]: lets DataFusion resolve the names in a given catalog and make a plan;
//! * `rules`: rewrite the plan to PostgreSQL's semantics: types, equality, sub-queries;
//! * [`functions`]: the functions and operators that DataFusion lacks or defines differently;
//! * [`execution`]: the threads on which queries are planned and run;
//! * [`writes`]: turns INSERT, UPDATE and DELETE into queries for the rows that they write;
//! * [`views`]: compiles the queries of materialized views into evaluators;
//! * [`streaming`]: plans queries as jobs that keep their answers up to date;
//! * [`relation`]: the catalog's relations in a plan;
//! * [`types`] and [`output`]: PostgreSQL's types, and their values in text and binary;
//! * [`keywords`]: the words that have to be quoted;
//! * [`error`]: the errors that clients get.
//!
//! This crate knows no session, no server and no system catalogs, and reads no rows. The caller
//! supplies the catalog and, as [`planner::SystemCatalogs`], everything else that queries can name.
//! Invariant: the meaning of a statement depends only on its text and on these inputs, so a view is
//! the same on every node.

pub mod parser;

pub mod syntax;

pub mod parameters;
pub mod planner;
mod rules;

pub mod functions;

pub mod execution;

pub mod writes;

pub mod views;

pub mod streaming;

pub mod relation;

pub mod output;
pub mod types;

pub mod keywords;

pub mod error;

pub use error::Error;

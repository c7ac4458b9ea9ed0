//! Rewrites syntax trees where DataFusion would read them differently from PostgreSQL.
//!
//! A statement passes the rewrites in this order (`rewritten`): `precedence` (of IS DISTINCT FROM),
//! `schemas` (names with a schema, and names that stand for calls), `scopes` (names from FROM),
//! `aggregates` (that DataFusion lacks), `collected` (arrays of sub-queries), `windows` (their
//! names), `sets` (functions that return sets), `refused` (clauses that DataFusion would ignore),
//! `operations` (of arrays and structs, and ANY and ALL of sub-queries), `rows` (their
//! comparisons), `similar` (SIMILAR TO), `literals` (whose type depends on others), `types`,
//! `apart` (columns of one name), `scalars` (functions of one value in FROM). `names` gives
//! PostgreSQL's names of the result's columns, `tables` lists the tables that a statement names,
//! `substitute` puts others in their places, `joins` classifies joins, and `build` builds
//! expressions.
//!
//! No rewrite knows a type that the text does not state, nor whether a table exists.

mod aggregates;
mod apart;
pub(crate) mod build;
mod collected;
mod joins;
mod literals;
mod names;
mod operations;
mod precedence;
mod refused;
mod rows;
mod scalars;
mod schemas;
mod scopes;
mod sets;
mod similar;
mod substitute;
mod tables;
mod types;
mod windows;

use std::ops::ControlFlow;

use sqlparser::ast::{Statement, visit_expressions_mut};

pub use names::column_names;
pub(crate) use schemas::oid_type;
pub use substitute::{Substitute, in_schemas, substituted};
pub use tables::{table_names, tables, with_names};
pub(crate) use types::as_stored;

use crate::error::Error;

/// Tells what a name without a schema refers to.
pub(crate) struct Known<'a> {
    pub(crate) is_scalar: &'a dyn Fn(&str) -> bool,
    pub(crate) is_aggregate: &'a dyn Fn(&str) -> bool,
    pub(crate) is_window: &'a dyn Fn(&str) -> bool,
    /// True for functions that return tables.
    pub(crate) returns_table: &'a dyn Fn(&str) -> bool,
    /// True for relations of `pg_catalog`.
    pub(crate) is_in_pg_catalog: &'a dyn Fn(&str) -> bool,
}

/// Rewrites a query for DataFusion.
///
/// # Errors
/// The user's: a clause or a type that is not supported, rows of different lengths.
pub(crate) fn rewritten(mut statement: Statement, known: &Known<'_>) -> Result<Statement, Error> {
    precedence::corrected(&mut statement);
    schemas::found(&mut statement, known);
    scopes::found(&mut statement);
    aggregates::replaced(&mut statement)?;
    collected::aggregated(&mut statement);
    windows::expand(&mut statement)?;
    sets::unnested(&mut statement, known.is_aggregate)?;
    refused::check(&statement, known)?;
    let changed = visit_expressions_mut(&mut statement, |expr| {
        operations::of_arrays(expr);
        operations::of_queries(expr);
        match rows::compared(expr).and_then(|()| similar::as_regex(expr)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    });
    if let ControlFlow::Break(error) = changed {
        return Err(error);
    }
    literals::in_statement(&mut statement);
    types::as_written(&mut statement)?;
    apart::set_apart(&mut statement);
    scalars::as_queries(&mut statement, known.returns_table);
    Ok(statement)
}

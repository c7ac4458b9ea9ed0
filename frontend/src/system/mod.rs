//! The relations that queries can name besides tables: the system catalogs, emulated.
//!
//! In reading order: [`schema`] is the database with its schemas, [`pg_catalog`] has PostgreSQL's
//! catalogs and the functions that look up objects in them, [`constants`] has functions that return
//! constants, [`weir_catalog`] shows jobs and splits. [`tools`] and [`introspection`] rewrite the
//! queries of psql and drivers so that they can be planned. [`origins`] finds the tables and
//! columns that a result's columns come from.

mod constants;
mod introspection;
mod origins;
mod pg_catalog;
mod schema;
mod tools;
mod weir_catalog;

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Statement, visit_expressions};
use weir_sql::parser::{fold, identifiers};
use weir_sql::planner::SystemCatalogs;
use weir_sql::syntax::tables;

pub(crate) use constants::constant;
pub(crate) use origins::origins;
pub(crate) use pg_catalog::Searching;
pub(crate) use schema::{Database, SEARCHED};
pub(crate) use tools::{asks_the_catalog, parameter_types, plannable};

use crate::catalog::CatalogCache;
use crate::names::DEAD_LETTERS;

const INFORMATION_SCHEMA: &str = "information_schema";
/// The schema of RisingWave's own catalogs.
const RW_CATALOG: &str = "rw_catalog";
const WEIR_CATALOG: &str = "weir_catalog";
/// The schema of the rows of views, computed from their inputs.
pub(crate) const RECOMPUTED: &str = "weir_recomputed";
/// The schema of the rows that a COPY has brought.
pub(crate) const COPIED: &str = "weir_copied";

/// Returns the system catalogs for the planner. Their functions look up objects in the newest
/// catalog of a cache.
pub(crate) fn catalogs(cache: &CatalogCache) -> SystemCatalogs {
    SystemCatalogs {
        relations: pg_catalog::names(),
        functions: constants::functions().into_iter().chain(pg_catalog::functions(cache)).collect(),
        table_functions: pg_catalog::table_functions(),
    }
}

/// Returns true if a query reads any table, and so needs the newest catalog. A query may read a
/// table by a lookup, such as `'t'::regclass`. `weir_catalog.jobs` does not count, because it is
/// also shown while no snapshot can be pinned.
pub(crate) fn reads_tables(query: &Statement) -> bool {
    tables(query).iter().any(|name| !weir_catalog::is_jobs(name)) || looks_up(query)
}

/// Returns true if a statement calls a function that looks up a relation or a schema.
fn looks_up(statement: &Statement) -> bool {
    const FUNCTIONS: [&str; 13] = [
        "regclass",
        "to_regclass",
        "regclassout",
        "pg_get_viewdef",
        "pg_get_indexdef",
        "pg_table_is_visible",
        "obj_description",
        "col_description",
        "current_schema",
        "current_schemas",
        "regnamespace",
        "to_regnamespace",
        "regnamespaceout",
    ];
    visit_expressions(statement, |expr| match expr {
        Expr::Function(function) => match identifiers(&function.name).as_deref() {
            Some([name]) if FUNCTIONS.contains(&fold(name).as_str()) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

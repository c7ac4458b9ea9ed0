//! What queries can name besides tables: the system catalogs, emulated.
//!
//! In reading order: [`schema`] is the database with its schemas, [`pg_catalog`] PostgreSQL's
//! catalogs with the functions that look things up in them, [`constants`] functions that have
//! nothing to tell, [`weir_catalog`] what runs. [`tools`] and [`introspection`] are queries as psql
//! and drivers ask them, put so that they can be planned. [`origins`] is where the columns of a
//! result come from.

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
pub(crate) use schema::Database;
pub(crate) use tools::{asks_the_catalog, parameter_types, plannable};

use crate::catalog::CatalogCache;

const INFORMATION_SCHEMA: &str = "information_schema";
const WEIR_CATALOG: &str = "weir_catalog";
const DEAD_LETTERS: &str = "dead_letters";

/// What the planner is told of system catalogs. Their functions look things up in a cache's newest
/// catalog.
pub(crate) fn catalogs(cache: &CatalogCache) -> SystemCatalogs {
    SystemCatalogs {
        relations: pg_catalog::names(),
        functions: constants::functions().into_iter().chain(pg_catalog::functions(cache)).collect(),
        table_functions: pg_catalog::table_functions(),
    }
}

/// Whether a query reads any table, so that it needs the newest catalog. It may not name it:
/// `'t'::regclass` is looked up. Jobs are shown also while there is no snapshot to be had.
pub(crate) fn reads_tables(query: &Statement) -> bool {
    tables(query).iter().any(|name| !weir_catalog::is_jobs(name)) || looks_up(query)
}

/// Whether a statement calls a function that looks a relation up.
fn looks_up(statement: &Statement) -> bool {
    const FUNCTIONS: [&str; 6] =
        ["regclass", "to_regclass", "regclassout", "pg_get_viewdef", "pg_get_indexdef", "pg_table_is_visible"];
    visit_expressions(statement, |expr| match expr {
        Expr::Function(function) => match identifiers(&function.name).as_deref() {
            Some([name]) if FUNCTIONS.contains(&fold(name).as_str()) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

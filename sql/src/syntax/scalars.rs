//! Functions of one value in FROM: `SELECT * FROM current_schema()`.
//!
//! DataFusion only looks for functions that return tables there. Every other call becomes a
//! sub-query of one row, whose column has the function's name, or the alias if one is given.

use std::ops::ControlFlow;

use sqlparser::ast::{Statement, TableAlias, TableFactor, VisitMut, VisitorMut};

use super::build::query;
use crate::parser::{fold, identifiers};

/// Replaces the calls of functions that do not return tables.
pub(super) fn as_queries(statement: &mut Statement, returns_table: impl Fn(&str) -> bool) {
    let _finished = VisitMut::visit(statement, &mut Calls(returns_table));
}

struct Calls<F>(F);

impl<F: Fn(&str) -> bool> VisitorMut for Calls<F> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args: Some(args), with_ordinality: false, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let Some(function) = identifiers(name).and_then(|parts| parts.last().map(|last| (*last).clone())) else {
            return ControlFlow::Continue(());
        };
        if (self.0)(&fold(&function)) {
            return ControlFlow::Continue(());
        }
        let column = alias.as_ref().map_or_else(|| function.clone(), |alias| alias.name.clone());
        let written: Vec<String> = args.args.iter().map(ToString::to_string).collect();
        if let Ok(subquery) = query(&format!("SELECT {name}({}) AS {column}", written.join(", "))) {
            let alias =
                alias.take().unwrap_or(TableAlias { explicit: true, name: column, columns: Vec::new(), at: None });
            *factor = TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None };
        }
        ControlFlow::Continue(())
    }
}

//! `ARRAY(SELECT …)`: the rows of a sub-query as an array, which is empty if there are none.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArguments, Query, SetExpr, Statement, TableFactor, visit_expressions_mut,
};

use super::build::query;
use crate::functions::ARRAY_OR_EMPTY;
use crate::parser::{fold, identifiers};

/// Rewrites arrays of sub-queries as aggregates.
pub(super) fn aggregated(statement: &mut Statement) {
    let _finished = visit_expressions_mut(statement, |expr| {
        if let Expr::Function(function) = expr
            && let Some(query) = rows_of(function)
            && let Some(aggregate) = aggregate(query)
        {
            // In parentheses, so that `= ANY (…)` reads a value and not the rows of a query.
            *expr = Expr::Nested(Box::new(Expr::Subquery(aggregate)));
        }
        ControlFlow::<()>::Continue(())
    });
}

fn rows_of(function: &Function) -> Option<&Query> {
    let name = identifiers(&function.name)?.last().map(|name| fold(name))?;
    match &function.args {
        FunctionArguments::Subquery(query) if name == "array" => Some(query),
        _ => None,
    }
}

fn aggregate(rows: &Query) -> Option<Box<Query>> {
    let sql = format!("SELECT {ARRAY_OR_EMPTY}(array_agg(element)) AS \"array\" FROM (SELECT 1) AS elements(element)");
    let mut query = query(&sql).ok()?;
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let TableFactor::Derived { subquery, .. } = &mut select.from.first_mut()?.relation else { return None };
    **subquery = rows.clone();
    Some(query)
}

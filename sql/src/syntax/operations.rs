//! Operators and functions of arrays, structs and sub-queries that DataFusion lacks or reads
//! differently.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Function, FunctionArguments, Ident, ObjectName, Query, SetExpr, TableFactor,
    Value,
};

use super::build::{self, call, number, taken};
use crate::functions::{ARRAY_TO_STRING, function_of};
use crate::parser::{fold, identifiers};

/// Replaces `op ANY` and `op ALL` of an array, and `(struct).field`, by calls of functions. Makes
/// the length of an empty array NULL.
pub(super) fn of_arrays(expr: &mut Expr) {
    let replaced = match &*expr {
        Expr::AnyOp { left, compare_op, right, .. } | Expr::AllOp { left, compare_op, right }
            if !matches!(right.as_ref(), Expr::Subquery(_)) =>
        {
            let any = matches!(expr, Expr::AnyOp { .. });
            function_of(compare_op, any).map(|function| call(function, vec![(**left).clone(), (**right).clone()]))
        }
        Expr::Function(function) if fold_name(function).as_deref() == Some("array_length") => {
            let two = matches!(&function.args, FunctionArguments::List(arguments) if arguments.args.len() == 2);
            two.then(|| call("nullif", vec![expr.clone(), number("0")]))
        }
        Expr::Function(function) if fold_name(function).as_deref() == Some("array_to_string") => {
            let mut own = function.clone();
            own.name = ObjectName::from(vec![Ident::new(ARRAY_TO_STRING)]);
            Some(Expr::Function(own))
        }
        // DataFusion's functions of these names only handle the first matching element.
        Expr::Function(function)
            if matches!(fold_name(function).as_deref(), Some("array_remove" | "array_replace")) =>
        {
            let mut all = function.clone();
            all.name = ObjectName::from(vec![Ident::new(format!("{}_all", fold_name(function).unwrap_or_default()))]);
            Some(Expr::Function(all))
        }
        Expr::CompoundFieldAccess { root, access_chain }
            if access_chain.iter().any(|access| matches!(access, AccessExpr::Dot(_))) =>
        {
            Some(access_chain.iter().fold((**root).clone(), part))
        }
        _ => None,
    };
    if let Some(replaced) = replaced {
        *expr = replaced;
    }
}

/// A field of a struct, or an element of an array.
fn part(whole: Expr, access: &AccessExpr) -> Expr {
    match access {
        AccessExpr::Dot(Expr::Identifier(field)) => {
            let field = Expr::Value(Value::SingleQuotedString(fold(field)).with_empty_span());
            call("get_field", vec![whole, field])
        }
        other => Expr::CompoundFieldAccess { root: Box::new(whole), access_chain: vec![other.clone()] },
    }
}

/// Replaces `= ANY` and `<> ALL` of a sub-query by IN and NOT IN. For other operators the sub-query
/// gets a unique name, because DataFusion would confuse its column with an outer one of the same
/// name.
pub(super) fn of_queries(expr: &mut Expr) {
    let any = matches!(expr, Expr::AnyOp { .. });
    let (Expr::AnyOp { left, compare_op, right, .. } | Expr::AllOp { left, compare_op, right }) = expr else {
        return;
    };
    let Expr::Subquery(subquery) = right.as_mut() else {
        return;
    };
    match (compare_op, any) {
        (BinaryOperator::Eq, true) | (BinaryOperator::NotEq, false) => {
            let left = Box::new(taken(left));
            *expr = Expr::InSubquery { expr: left, subquery: subquery.clone(), negated: !any };
        }
        _ => {
            if let Some(named) = named(subquery) {
                *subquery = named;
            }
        }
    }
}

fn named(query: &Query) -> Option<Box<Query>> {
    let mut outer = build::query("SELECT * FROM (SELECT 1) AS __compared").ok()?;
    let SetExpr::Select(select) = outer.body.as_mut() else { return None };
    let TableFactor::Derived { subquery, .. } = &mut select.from.first_mut()?.relation else { return None };
    **subquery = query.clone();
    Some(outer)
}

fn fold_name(function: &Function) -> Option<String> {
    identifiers(&function.name).and_then(|parts| parts.last().map(|last| fold(last)))
}

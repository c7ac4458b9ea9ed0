//! Comparisons of rows: `(a, b) = (1, 2)`, `(a, b) < (c, d)`, `(a, b) IN ((1, 2), (3, 4))`, `(a, b)
//! IN (SELECT …)`.
//!
//! DataFusion compares structs, in which a NULL equals a NULL. This module replaces each comparison
//! by PostgreSQL's definition in terms of the fields, so that NULLs make the result NULL unless the
//! fields before them decide.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, SetExpr,
    TableAliasColumnDef, TableFactor, Value, visit_expressions_mut,
};

use super::build::query;
use crate::error::{Error, sqlstate};
use crate::parser::{fold, identifiers};

/// Replaces a comparison of row constructors.
///
/// # Errors
/// `42601` if they have different numbers of fields.
pub(super) fn compared(expr: &mut Expr) -> Result<(), Error> {
    let replaced = match &*expr {
        Expr::BinaryOp { left, op, right } => match (fields(left), fields(right)) {
            (Some(left), Some(right)) => comparison(&left, op, &right)?,
            _ => None,
        },
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            match (fields(left), fields(right)) {
                (Some(left), Some(right)) => {
                    check(&left, &right)?;
                    let distinct = matches!(expr, Expr::IsDistinctFrom(..));
                    let pairs = left.into_iter().zip(right).map(|(one, other)| match distinct {
                        true => Expr::IsDistinctFrom(Box::new(one), Box::new(other)),
                        false => Expr::IsNotDistinctFrom(Box::new(one), Box::new(other)),
                    });
                    joined(pairs, if distinct { BinaryOperator::Or } else { BinaryOperator::And })
                }
                _ => None,
            }
        }
        Expr::InList { expr: row, list, negated } => match fields(row) {
            Some(row) => {
                let mut equal = Vec::with_capacity(list.len());
                for other in list {
                    let Some(other) = fields(other) else { return Ok(()) };
                    equal.extend(comparison(&row, &BinaryOperator::Eq, &other)?);
                }
                let any = joined(equal.into_iter(), BinaryOperator::Or);
                match any {
                    Some(any) if *negated => {
                        Some(Expr::UnaryOp { op: sqlparser::ast::UnaryOperator::Not, expr: Box::new(any) })
                    }
                    any => any,
                }
            }
            None => None,
        },
        Expr::InSubquery { expr: row, subquery, negated } => match fields(row) {
            Some(row) => match membership(&row, subquery)? {
                Some(member) if *negated => {
                    Some(Expr::UnaryOp { op: sqlparser::ast::UnaryOperator::Not, expr: Box::new(member) })
                }
                member => member,
            },
            None => None,
        },
        _ => None,
    };
    if let Some(replaced) = replaced {
        *expr = replaced;
    }
    Ok(())
}

/// Membership of a row in a sub-query's rows, in PostgreSQL's three-valued logic.
fn membership(row: &[Expr], subquery: &Query) -> Result<Option<Expr>, Error> {
    let names: Vec<Ident> =
        (0..row.len()).map(|index| Ident::with_quote('"', format!("\u{2063}field{index}"))).collect();
    let others: Vec<Expr> = names.iter().cloned().map(Expr::Identifier).collect();
    let Some(equal) = comparison(row, &BinaryOperator::Eq, &others)? else { return Ok(None) };
    let sql = "SELECT CASE WHEN bool_or(equal) THEN true WHEN bool_or(equal IS NULL) THEN NULL ELSE false END \
               FROM (SELECT 1) AS members";
    let mut query = query(sql)?;
    let _finished = visit_expressions_mut(&mut query, |expr| {
        if matches!(expr, Expr::Identifier(name) if name.value == "equal") {
            *expr = equal.clone();
        }
        ControlFlow::<()>::Continue(())
    });
    if let SetExpr::Select(select) = query.body.as_mut()
        && let Some(TableFactor::Derived { subquery: members, alias: Some(alias), .. }) =
            select.from.first_mut().map(|tables| &mut tables.relation)
    {
        **members = subquery.clone();
        alias.columns = names.into_iter().map(|name| TableAliasColumnDef { name, data_type: None }).collect();
    }
    Ok(Some(Expr::Subquery(query)))
}

/// The fields of a row constructor.
fn fields(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Nested(inner) => match fields(inner) {
            Some(fields) if matches!(inner.as_ref(), Expr::Function(_) | Expr::Tuple(_)) => Some(fields),
            _ => None,
        },
        Expr::Tuple(fields) => Some(fields.clone()),
        Expr::Function(Function { name, args: FunctionArguments::List(arguments), over: None, .. })
            if identifiers(name)?.last().map(|last| fold(last)).as_deref() == Some("row") =>
        {
            let field = |argument: &FunctionArg| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            };
            arguments.args.iter().map(field).collect()
        }
        _ => None,
    }
}

fn check(left: &[Expr], right: &[Expr]) -> Result<(), Error> {
    if left.len() == right.len() && !left.is_empty() {
        return Ok(());
    }
    Err(Error::user(sqlstate::SYNTAX_ERROR, "unequal number of entries in row expressions"))
}

fn comparison(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Result<Option<Expr>, Error> {
    let strict = match op {
        BinaryOperator::Eq | BinaryOperator::NotEq => op.clone(),
        BinaryOperator::Lt | BinaryOperator::LtEq => BinaryOperator::Lt,
        BinaryOperator::Gt | BinaryOperator::GtEq => BinaryOperator::Gt,
        _ => return Ok(None),
    };
    check(left, right)?;
    let pairs = left.iter().zip(right);
    Ok(match op {
        BinaryOperator::Eq => joined(pairs.map(|pair| binary(pair, &BinaryOperator::Eq)), BinaryOperator::And),
        BinaryOperator::NotEq => joined(pairs.map(|pair| binary(pair, &BinaryOperator::NotEq)), BinaryOperator::Or),
        _ => {
            // Built from the last field to the first: each field decides if those before it are
            // equal.
            let mut whole: Option<Expr> = None;
            for pair in pairs.rev() {
                whole = Some(match whole {
                    None => binary(pair, op),
                    Some(rest) => {
                        let equal = binary(pair, &BinaryOperator::Eq);
                        let both = nested(Expr::BinaryOp {
                            left: Box::new(equal),
                            op: BinaryOperator::And,
                            right: Box::new(rest),
                        });
                        nested(Expr::BinaryOp {
                            left: Box::new(binary(pair, &strict)),
                            op: BinaryOperator::Or,
                            right: Box::new(both),
                        })
                    }
                });
            }
            whole
        }
    })
}

fn binary((left, right): (&Expr, &Expr), op: &BinaryOperator) -> Expr {
    // Fields may be rows themselves.
    let mut expr = Expr::BinaryOp { left: Box::new(left.clone()), op: op.clone(), right: Box::new(right.clone()) };
    let _as_it_is = compared(&mut expr);
    nested(expr)
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn joined(parts: impl Iterator<Item = Expr>, op: BinaryOperator) -> Option<Expr> {
    let whole =
        parts.reduce(|left, right| Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) });
    Some(nested(whole.unwrap_or_else(|| Expr::Value(Value::Boolean(op == BinaryOperator::And).with_empty_span()))))
}

//! Corrects the precedence of `IS DISTINCT FROM`, which binds closer than NOT, AND and OR.
//! sqlparser reads everything after it as its right operand, and so extends a NOT or AND before it
//! too far.

use std::ops::ControlFlow;

use sqlparser::ast::{BinaryOperator, Expr, Statement, UnaryOperator, visit_expressions_mut};

use super::build::taken;

/// Regroups conditions as PostgreSQL reads them. Parentheses keep their contents together.
pub(super) fn corrected(statement: &mut Statement) {
    let _finished = visit_expressions_mut(statement, |expr| {
        correct(expr);
        ControlFlow::<()>::Continue(())
    });
}

fn is_one_of(expr: &Expr, operators: &[BinaryOperator]) -> bool {
    matches!(expr, Expr::BinaryOp { op, .. } if operators.contains(op))
}

fn correct(expr: &mut Expr) {
    use BinaryOperator::{And, Or};
    match expr {
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) if is_one_of(right, &[And, Or]) => {
            let whole = taken(right);
            let rest = std::mem::replace(expr, whole);
            first(expr, &[And, Or], |one| match rest {
                Expr::IsDistinctFrom(left, _) => Expr::IsDistinctFrom(left, Box::new(one)),
                Expr::IsNotDistinctFrom(left, _) => Expr::IsNotDistinctFrom(left, Box::new(one)),
                other => other,
            });
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr: operand } if is_one_of(operand, &[And, Or]) => {
            *expr = taken(operand);
            first(expr, &[And, Or], |one| Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(one) });
        }
        Expr::BinaryOp { left, op: And, right } if is_one_of(right, &[Or]) => {
            let left = taken(left);
            *expr = taken(right);
            first(expr, &[Or], |one| Expr::BinaryOp { left: Box::new(left), op: And, right: Box::new(one) });
        }
        _ => {}
    }
}

/// Changes the first operand of a chain of operators.
fn first(expr: &mut Expr, operators: &[BinaryOperator], change: impl FnOnce(Expr) -> Expr) {
    let mut one = expr;
    while is_one_of(one, operators) {
        let Expr::BinaryOp { left, .. } = one else { return };
        one = left.as_mut();
    }
    let changed = change(taken(one));
    *one = changed;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows a query with parentheses around every part.
    fn read(sql: &str) -> String {
        let crate::parser::Statement::Query(mut statement) = crate::parser::parse(sql).expect(sql).remove(0).statement
        else {
            panic!("{sql} is a query")
        };
        corrected(&mut statement);
        let _finished = visit_expressions_mut(&mut *statement, |expr| {
            *expr = Expr::Nested(Box::new(taken(expr)));
            ControlFlow::<()>::Continue(())
        });
        statement.to_string()
    }

    #[test]
    fn is_distinct_from_binds_closer_than_and_or_and_not() {
        for (sql, expected) in [
            ("a IS DISTINCT FROM b AND c", "(((a) IS DISTINCT FROM (b)) AND (c))"),
            ("a IS NOT DISTINCT FROM b OR c AND d", "(((a) IS NOT DISTINCT FROM (b)) OR ((c) AND (d)))"),
            ("x AND a IS DISTINCT FROM b OR c", "(((x) AND ((a) IS DISTINCT FROM (b))) OR (c))"),
            ("NOT a IS DISTINCT FROM b AND c", "((NOT ((a) IS DISTINCT FROM (b))) AND (c))"),
            ("a IS DISTINCT FROM (b AND c)", "((a) IS DISTINCT FROM ((((b) AND (c)))))"),
            (
                "a IS DISTINCT FROM b AND c IS DISTINCT FROM d AND e",
                "(((a) IS DISTINCT FROM (b)) AND (((c) IS DISTINCT FROM (d)) AND (e)))",
            ),
        ] {
            assert_eq!(read(&format!("SELECT {sql}")), format!("SELECT {expected}"));
        }
    }
}

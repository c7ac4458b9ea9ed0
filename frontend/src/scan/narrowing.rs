//! Derives bounds on subjects and sequences from a WHERE, so that less is requested from NATS. It
//! does no IO.
//!
//! Invariant: every message for which the condition is true is read. A condition that is not
//! understood narrows nothing.
//!
//! A literal is compared as it is: one with a wildcard means itself. Some texts, such as one with
//! an empty token, cannot be the subject of any message; NATS is not asked for them.

use std::collections::BTreeSet;
use std::fmt;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, Operator};
use weir_common::catalog::{Column, Origin};
use weir_connector_nats::subject;

/// Conditions with more subjects than this narrow nothing, because many filters cost the server
/// more than they save.
const SUBJECTS_MAX: usize = 64;
/// Conditions with a longer subject narrow nothing: a request contains the filter, and a server
/// closes connections over lines of 4,096 bytes.
const SUBJECT_BYTES_MAX: usize = 2048;

/// The bounds that all messages share for which the conditions are true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Narrowing {
    /// The possible subjects, if they are bounded. An empty set means that no message matches.
    subjects: Option<BTreeSet<String>>,
    from: Option<u64>,
    to: Option<u64>,
}

impl Narrowing {
    /// Adds a condition; returns true if it narrows anything.
    pub(super) fn add(&mut self, condition: &Expr, columns: &[Column]) -> bool {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                let (left, right) = (self.add(left, columns), self.add(right, columns));
                left || right
            }
            // DataFusion rewrites short lists to this form.
            Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) | Expr::InList(_) => {
                subjects_of(condition, columns).is_some_and(|subjects| self.only(subjects))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let swapped = op.swap();
                self.compare(left, *op, right, columns)
                    || swapped.is_some_and(|op| self.compare(right, op, left, columns))
            }
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let low = self.compare(expr, Operator::GtEq, low, columns);
                let high = self.compare(expr, Operator::LtEq, high, columns);
                low || high
            }
            _ => false,
        }
    }

    fn compare(&mut self, column: &Expr, op: Operator, value: &Expr, columns: &[Column]) -> bool {
        if is(column, columns, &Origin::Subject) {
            return match (op, text(value)) {
                (Operator::Eq, Some(subject)) => self.only(BTreeSet::from([subject])),
                _ => false,
            };
        }
        // The sequence is a text, which does not have the order of numbers, so comparisons require
        // a cast.
        let (is_sequence, bound) = match column {
            Expr::Cast(Cast { expr, .. }) => (is(expr, columns, &Origin::Offset), number(value)),
            Expr::ScalarFunction(call) if call.name() == "cast" => {
                (call.args.first().is_some_and(|operand| is(operand, columns, &Origin::Offset)), number(value))
            }
            column if op == Operator::Eq => {
                (is(column, columns, &Origin::Offset), text(value).and_then(|text| text.parse().ok()))
            }
            _ => (false, None),
        };
        let (true, Some(bound)) = (is_sequence, bound) else { return false };
        let (from, to) = match op {
            Operator::Eq => (Some(bound), Some(bound)),
            Operator::GtEq => (Some(bound), None),
            Operator::Gt => (bound.checked_add(1), None),
            Operator::LtEq => (None, Some(bound)),
            Operator::Lt => (None, bound.checked_sub(1)),
            _ => return false,
        };
        self.from = self.from.max(from);
        self.to = self.to.into_iter().chain(to).min();
        from.is_some() || to.is_some()
    }

    /// Keeps only the given subjects.
    fn only(&mut self, mut subjects: BTreeSet<String>) -> bool {
        subjects.retain(|subject| is_possible(subject));
        if subjects.len() > SUBJECTS_MAX || !subjects.iter().all(|subject| is_askable(subject)) {
            return false;
        }
        let kept = match self.subjects.take() {
            None => subjects,
            Some(before) => before.intersection(&subjects).cloned().collect(),
        };
        self.subjects = Some(kept);
        true
    }

    /// Returns true if no message can match.
    pub(super) fn is_nothing(&self) -> bool {
        self.subjects.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Returns the subjects to request; an empty list means all subjects.
    pub(super) fn subjects(&self) -> Vec<String> {
        self.subjects.iter().flatten().cloned().collect()
    }

    /// Returns the first sequence that can match.
    pub(super) fn from(&self) -> Option<u64> {
        self.from
    }

    /// Returns the last sequence that can match.
    pub(super) fn to(&self) -> Option<u64> {
        self.to
    }
}

impl Narrowing {
    /// Returns the bounds on sequences alone.
    pub(super) fn of_sequences(self) -> Narrowing {
        Narrowing { subjects: None, ..self }
    }
}

impl fmt::Display for Narrowing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(subjects) = &self.subjects {
            write!(f, ", subjects=[{}]", subjects.iter().map(String::as_str).collect::<Vec<_>>().join(", "))?;
        }
        match (self.from, self.to) {
            (None, None) => Ok(()),
            (from, to) => {
                let bound = |bound: Option<u64>| bound.map(|bound| bound.to_string()).unwrap_or_default();
                write!(f, ", sequences={}..={}", bound(from), bound(to))
            }
        }
    }
}

/// Returns true if a message can have this subject. Servers accept more than clients do: wildcards
/// and control characters, for example.
fn is_possible(subject: &str) -> bool {
    subject.split('.').all(|token| !token.is_empty()) && !subject.contains([' ', '\t', '\r', '\n'])
}

/// Returns true if NATS can be asked for exactly the messages with this subject.
fn is_askable(subject: &str) -> bool {
    subject::is_valid(subject) && !subject.contains(['*', '>']) && subject.len() <= SUBJECT_BYTES_MAX
}

/// Returns the subjects that fulfil a condition, if it lists them.
fn subjects_of(condition: &Expr, columns: &[Column]) -> Option<BTreeSet<String>> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (mut left, right) = (subjects_of(left, columns)?, subjects_of(right, columns)?);
            left.extend(right);
            Some(left)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) if is(left, columns, &Origin::Subject) => {
            Some(BTreeSet::from([text(right)?]))
        }
        Expr::InList(InList { expr, list, negated: false }) if is(expr, columns, &Origin::Subject) => {
            list.iter().map(text).collect()
        }
        _ => None,
    }
}

/// Returns true if an expression is the column that is filled from `origin`.
fn is(expr: &Expr, columns: &[Column], origin: &Origin) -> bool {
    let Expr::Column(named) = expr else { return false };
    columns.iter().any(|column| column.origin == *origin && column.name == named.name)
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    }
}

fn number(expr: &Expr) -> Option<u64> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::Int16(Some(number)) => u64::try_from(*number).ok(),
        ScalarValue::Int32(Some(number)) => u64::try_from(*number).ok(),
        ScalarValue::Int64(Some(number)) => u64::try_from(*number).ok(),
        ScalarValue::UInt64(Some(number)) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::DataType;
    use datafusion::logical_expr::{cast, col, lit};
    use weir_common::types::SqlType;

    use super::*;

    fn narrowed(condition: Expr) -> String {
        let column = |name: &str, origin| Column { name: name.to_owned(), ty: SqlType::Varchar, origin };
        let columns = [column("s", Origin::Subject), column("o", Origin::Offset), column("a", Origin::Payload)];
        let mut narrowing = Narrowing::default();
        let said = narrowing.add(&condition, &columns);
        assert_eq!(said, narrowing != Narrowing::default(), "{condition}");
        narrowing.to_string()
    }

    fn sequence() -> Expr {
        cast(col("o"), DataType::Int64)
    }

    #[test]
    fn subjects_and_sequences_narrow_what_is_read() {
        for (condition, expected) in [
            (col("s").eq(lit("a.b")), ", subjects=[a.b]"),
            (lit("a.b").eq(col("s")), ", subjects=[a.b]"),
            (col("s").in_list(vec![lit("b"), lit("a")], false), ", subjects=[a, b]"),
            (col("s").in_list(vec![lit("b"), lit("a")], false).and(col("s").eq(lit("b"))), ", subjects=[b]"),
            (col("s").eq(lit("b")).or(col("s").eq(lit("a"))), ", subjects=[a, b]"),
            (col("o").eq(lit("7")), ", sequences=7..=7"),
            (sequence().gt(lit(7_i64)), ", sequences=8..="),
            (lit(7_i64).gt(sequence()), ", sequences=..=6"),
            (sequence().between(lit(3_i32), lit(5_i32)), ", sequences=3..=5"),
            (
                sequence().gt_eq(lit(3_i64)).and(sequence().lt(lit(9_i64))).and(col("a").eq(lit("x"))),
                ", sequences=3..=8",
            ),
        ] {
            assert_eq!(narrowed(condition.clone()), expected, "{condition}");
        }
    }

    #[test]
    fn what_says_nothing_of_messages_narrows_nothing() {
        for condition in [
            col("a").eq(lit("x")),
            col("s").not_eq(lit("x")),
            col("s").eq(lit("a.*")),
            col("s").eq(lit("a.>")),
            col("s").eq(lit("a*b")),
            col("s").eq(lit("a.\u{1}")),
            col("s").eq(lit("a.\u{a0}b")),
            col("s").eq(lit("x".repeat(3000))),
            col("s").in_list(vec![lit("b"), lit("a.*")], false),
            col("s").eq(lit("x.")).or(col("a").eq(lit("y"))),
            col("s").in_list(vec![lit("b")], true),
            col("s").eq(lit("x")).or(col("a").eq(lit("y"))),
            col("o").gt(lit("7")),
            sequence().eq(lit(-1_i64)),
            sequence().not_between(lit(3_i32), lit(5_i32)),
            col("s").like(lit("a%")),
        ] {
            assert_eq!(narrowed(condition.clone()), "", "{condition}");
        }
    }

    #[test]
    fn what_no_message_can_have_as_its_subject_is_fulfilled_by_none() {
        for impossible in ["", "x.", ".x", "a..b", "a b", " ", "a\tb", "a\n", "x. "] {
            assert_eq!(narrowed(col("s").eq(lit(impossible))), ", subjects=[]", "{impossible:?}");
            let list = vec![lit(impossible), lit("b")];
            assert_eq!(narrowed(col("s").in_list(list, false)), ", subjects=[b]", "{impossible:?}");
            let either = col("s").eq(lit(impossible)).or(col("s").eq(lit("b")));
            assert_eq!(narrowed(either), ", subjects=[b]", "{impossible:?}");
        }
        for never in [
            col("s").eq(lit("a")).and(col("s").eq(lit("b"))),
            col("s").in_list(vec![lit("x."), lit("")], false),
            col("s").eq(lit("b")).and(col("s").eq(lit("x."))),
            col("s").eq(lit("x.")).and(col("s").eq(lit("b"))),
        ] {
            assert_eq!(narrowed(never.clone()), ", subjects=[]", "{never}");
        }
    }
}

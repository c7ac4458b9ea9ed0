//! Questions that drivers ask of the system catalogs and that DataFusion cannot plan, put so that
//! it can.
//!
//! * asyncpg follows the parts of types with a recursive query; Weir's arrays have parts that are
//!   whole.
//! * A look-up in a sub-query yields one row, which DataFusion cannot know.
//! * A sub-query of a catalog without rows is NULL, as is one of the collation of a column: they
//!   have no other than their type's.
//! * `array(SELECT …)` is NULL: it lists privileges and the like, of which Weir has none.

use std::ops::ControlFlow;

use pgwire::api::Type;
use sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, FunctionArguments, GroupByExpr, Query, SelectItem,
    SetExpr, Statement, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use super::rewrite::call;
use crate::parser::{fold, identifiers, parse};

/// The name by which asyncpg's query calls itself.
const ASYNCPG: &str = "typeinfo_tree";

/// What it asks, of types whose parts have no parts. Its arrays are null, and are texts here:
/// asyncpg has to know the types of the answer without asking.
const TYPES: &str = "SELECT t.oid AS oid, ns.nspname AS ns, t.typname AS name, t.typtype AS kind, NULL::oid AS basetype, \
     t.typelem AS elemtype, e.typdelim AS elemdelim, NULL::oid AS range_subtype, NULL::text AS attrtypoids, \
     NULL::text AS attrnames, 0 AS depth, NULL::text AS basetype_name, e.typname AS elemtype_name, \
     NULL::text AS range_subtype_name \
     FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace ns ON ns.oid = t.typnamespace \
     LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typlen = -1 \
     WHERE t.oid = ANY($1)";

/// The types of the parameters of such a question, where it is one whose text does not tell.
pub(super) fn parameter_types(statement: &Statement) -> Option<Vec<Option<Type>>> {
    is_asyncpg(statement).then(|| vec![Some(Type::OID_ARRAY)])
}

/// The question as it can be planned. Others stay as they are.
pub(super) fn plannable(mut statement: Statement, is_aggregate: &dyn Fn(&str) -> bool) -> Statement {
    if is_asyncpg(&statement) {
        return query(TYPES).unwrap_or(statement);
    }
    let _finished = VisitMut::visit(&mut statement, &mut Adjust { is_aggregate });
    statement
}

fn query(sql: &str) -> Option<Statement> {
    match parse(sql).ok()?.pop()?.statement {
        crate::parser::Statement::Query(statement) => Some(*statement),
        _ => None,
    }
}

fn is_asyncpg(statement: &Statement) -> bool {
    match statement {
        Statement::Query(query) => {
            query.with.iter().flat_map(|with| &with.cte_tables).any(|table| fold(&table.alias.name) == ASYNCPG)
        }
        _ => false,
    }
}

struct Adjust<'a> {
    is_aggregate: &'a dyn Fn(&str) -> bool,
}

impl VisitorMut for Adjust<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Subquery(query) if finds_nothing(query, self.is_aggregate) => *expr = null(DataType::Text),
            Expr::Subquery(query) => as_one_row(query, self.is_aggregate),
            Expr::Function(function) if matches!(function.args, FunctionArguments::Subquery(_)) => *expr = no_texts(),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// A NULL in the place of an array of texts.
fn no_texts() -> Expr {
    null(DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None)))
}

fn null(data_type: DataType) -> Expr {
    let null = Box::new(Expr::Value(Value::Null.with_empty_span()));
    Expr::Cast { kind: CastKind::Cast, expr: null, data_type, array: false, format: None }
}

/// Whether a sub-query of one value, not aggregated, begins from a catalog without rows, or looks
/// for a collation that is not the one of a column's type.
fn finds_nothing(query: &Query, is_aggregate: &dyn Fn(&str) -> bool) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] = select.projection.as_slice()
    else {
        return false;
    };
    let first = select.from.first().and_then(|from| match &from.relation {
        TableFactor::Table { name, args: None, .. } => identifiers(name)?.last().map(|name| fold(name)),
        _ => None,
    });
    let tells_nothing = match first.as_deref() {
        Some("pg_attrdef" | "pg_description" | "pg_sequence") => true,
        Some("pg_collation") => {
            select.selection.as_ref().is_some_and(compares_unequal)
                || function_name(item).is_some_and(|name| name == "json_build_object")
        }
        _ => false,
    };
    tells_nothing && !aggregates(item, is_aggregate)
}

fn compares_unequal(condition: &Expr) -> bool {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => compares_unequal(left) || compares_unequal(right),
        Expr::BinaryOp { op: BinaryOperator::NotEq, .. } => true,
        Expr::Nested(inner) => compares_unequal(inner),
        _ => false,
    }
}

/// A look-up yields one row, which an aggregate says to DataFusion.
fn as_one_row(query: &mut Query, is_aggregate: &dyn Fn(&str) -> bool) {
    let plain = query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none();
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    let looks_up = !select.from.is_empty() && select.selection.is_some();
    if !plain || !ungrouped || !looks_up || select.distinct.is_some() || select.having.is_some() {
        return;
    }
    if let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_mut_slice()
        && !aggregates(item, is_aggregate)
    {
        let operand = std::mem::replace(item, Expr::Value(Value::Null.with_empty_span()));
        *item = call("first_value", vec![operand]);
    }
}

/// Whether an expression has an aggregate in it, or gives rows.
fn aggregates(expr: &Expr, is_aggregate: &dyn Fn(&str) -> bool) -> bool {
    struct Aggregates<'a>(&'a dyn Fn(&str) -> bool);
    impl Visitor for Aggregates<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match function_name(expr) {
                Some(name) if (self.0)(&name) || name == "unnest" || name == "generate_subscripts" => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(expr, &mut Aggregates(is_aggregate)).is_break()
}

fn function_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Function(function) => identifiers(&function.name)?.last().map(|name| fold(name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> String {
        plannable(query(sql).expect(sql), &|name| name == "max").to_string()
    }

    #[test]
    fn a_look_up_is_one_row() {
        assert_eq!(
            read("SELECT (SELECT c.relkind = 'c' FROM pg_class c WHERE c.oid = t.typrelid) FROM pg_type t"),
            "SELECT (SELECT first_value(c.relkind = 'c') FROM pg_class c WHERE c.oid = t.typrelid) FROM pg_type t"
        );
        for same in [
            "SELECT (SELECT max(c.x) FROM pg_class c WHERE c.oid = t.a) FROM pg_type t",
            "SELECT (SELECT oid FROM pg_class LIMIT 1)",
        ] {
            assert_eq!(read(same), same);
        }
    }

    #[test]
    fn what_is_not_there_is_null() {
        assert_eq!(
            read(
                "SELECT (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = a.attrelid) FROM pg_attribute a"
            ),
            "SELECT CAST(NULL AS TEXT) FROM pg_attribute a"
        );
    }
}

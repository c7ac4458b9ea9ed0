//! Questions that drivers ask of the system catalogs and that DataFusion cannot plan, put so that it can.
//!
//! * asyncpg follows the parts of types with a recursive query; Weir's arrays have parts that are whole.
//! * pgjdbc takes the keys of indexes apart with a function that returns rows of a composite type; there are no indexes.
//! * Both look up one row by its oid in a sub-query, of which DataFusion cannot know that it is one row.
//! * pgjdbc compares the names of functions with a `regproc`.

use std::collections::HashSet;
use std::ops::ControlFlow;

use pgwire::api::Type;
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, FunctionArguments, GroupByExpr, Ident, ObjectName, Query, SelectItem, SetExpr,
    Statement, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use super::rewrite::{call, with_names};
use super::schema::PG_CATALOG;
use super::views::{TIME_ZONES, is_view};
use crate::parser::{fold, identifiers, parse};

/// The name by which asyncpg's query calls itself.
const ASYNCPG: &str = "typeinfo_tree";

/// What it asks, of types whose parts have no parts. Its arrays are null, and are texts here: asyncpg has to know the types of
/// the answer without asking.
const TYPES: &str = "SELECT t.oid AS oid, ns.nspname AS ns, t.typname AS name, t.typtype AS kind, NULL::int AS basetype, \
     t.typelem AS elemtype, e.typdelim AS elemdelim, NULL::int AS range_subtype, NULL::text AS attrtypoids, \
     NULL::text AS attrnames, 0 AS depth, NULL::text AS basetype_name, e.typname AS elemtype_name, \
     NULL::text AS range_subtype_name \
     FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace ns ON ns.oid = t.typnamespace \
     LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typlen = -1 \
     WHERE t.oid = ANY($1)";

/// The function by which pgjdbc takes keys apart.
const KEYS: &str = "_pg_expandarray";

/// Columns that name a function.
const FUNCTION_NAMES: [&str; 4] = ["typinput", "typoutput", "typreceive", "typsend"];

/// The types of the parameters of such a question, where it is one whose text does not tell.
pub(super) fn parameter_types(statement: &Statement) -> Option<Vec<Option<Type>>> {
    is_asyncpg(statement).then(|| vec![Some(Type::OID_ARRAY)])
}

/// The question as it can be planned. Others stay as they are.
pub(super) fn plannable(mut statement: Statement) -> Statement {
    if is_asyncpg(&statement) {
        return query(TYPES).unwrap_or(statement);
    }
    if let Some(columns) = columns_of_keys(&statement) {
        let nulls: Vec<String> = (0..columns).map(|index| format!("NULL::text AS c{index}")).collect();
        return query(&format!("SELECT {} WHERE false", nulls.join(", "))).unwrap_or(statement);
    }
    let _finished = VisitMut::visit(&mut statement, &mut Adjust);
    with_schemas(statement)
}

/// Views that `datafusion-pg-catalog` does not know get the name of their schema, unless the query calls something of its
/// own the same.
pub(super) fn with_schemas(mut statement: Statement) -> Statement {
    let mut unqualified = Unqualified { hidden: with_names(&statement) };
    let _finished = VisitMut::visit(&mut statement, &mut unqualified);
    statement
}

struct Unqualified {
    hidden: HashSet<String>,
}

impl VisitorMut for Unqualified {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, args, .. } = factor else { return ControlFlow::Continue(()) };
        let (view, is_qualified) = match identifiers(name).as_deref() {
            Some([view]) => ((*view).clone(), false),
            Some([schema, view]) => ((*view).clone(), fold(schema) == PG_CATALOG),
            _ => return ControlFlow::Continue(()),
        };
        let folded = fold(&view);
        // What PostgreSQL has as a view it has as a function too, which psql calls.
        if folded == TIME_ZONES && args.as_ref().is_some_and(|args| args.args.is_empty()) {
            *args = None;
        }
        if args.is_none() && !is_qualified && is_view(&folded) && !self.hidden.contains(&folded) {
            *name = ObjectName::from(vec![Ident::new(PG_CATALOG), view]);
        }
        ControlFlow::Continue(())
    }
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

/// How many columns a query has that asks for the keys of indexes; `None` if it asks for something else.
fn columns_of_keys(statement: &Statement) -> Option<usize> {
    struct Keys;
    impl Visitor for Keys {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                expr if function_name(expr).as_deref() == Some(KEYS) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let Statement::Query(query) = statement else {
        return None;
    };
    let SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    let is_plain = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    let plain = select.projection.iter().all(is_plain);
    (plain && Visit::visit(statement, &mut Keys).is_break()).then_some(select.projection.len())
}

fn function_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Function(function) => identifiers(&function.name)?.last().map(|name| fold(name)),
        _ => None,
    }
}

struct Adjust;

impl VisitorMut for Adjust {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::BinaryOp { left, op: BinaryOperator::Eq | BinaryOperator::NotEq, right } => {
                if names_a_function(left) {
                    as_name(right);
                } else if names_a_function(right) {
                    as_name(left);
                }
            }
            Expr::Subquery(query) => as_one_row(query),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn names_a_function(expr: &Expr) -> bool {
    let name = match expr {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    };
    name.is_some_and(|name| FUNCTION_NAMES.contains(&fold(name).as_str()))
}

/// `'pg_catalog.array_in'::regproc` becomes `'array_in'`.
fn as_name(expr: &mut Expr) {
    if let Expr::Cast { expr: operand, data_type: DataType::Custom(name, _), .. } = expr
        && name.to_string().eq_ignore_ascii_case("regproc")
        && let Expr::Value(value) = operand.as_ref()
        && let Value::SingleQuotedString(text) = &value.value
    {
        let last = text.rsplit('.').next().unwrap_or_default().to_owned();
        *expr = Expr::Value(Value::SingleQuotedString(last).with_empty_span());
    }
}

/// A look-up by oid (`… WHERE x.oid = y`) yields one row, which an aggregate says to DataFusion.
fn as_one_row(query: &mut Query) {
    let plain = query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none();
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    let looks_up = select.selection.as_ref().is_some_and(compares_an_oid);
    if !plain || !ungrouped || !looks_up || select.distinct.is_some() || select.having.is_some() {
        return;
    }
    if let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_mut_slice()
        && !has_call(item)
    {
        let operand = std::mem::replace(item, Expr::Value(Value::Null.with_empty_span()));
        *item = call("first_value", vec![operand]);
    }
}

fn compares_an_oid(condition: &Expr) -> bool {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => compares_an_oid(left) || compares_an_oid(right),
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => [left, right].iter().any(|side| {
            matches!(side.as_ref(), Expr::CompoundIdentifier(parts) if parts.last().is_some_and(|name| fold(name) == "oid"))
        }),
        Expr::Nested(inner) => compares_an_oid(inner),
        _ => false,
    }
}

/// Whether an expression calls a function: it might be an aggregate already.
fn has_call(expr: &Expr) -> bool {
    struct Calls;
    impl Visitor for Calls {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(function) if !matches!(function.args, FunctionArguments::None) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(expr, &mut Calls).is_break()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> String {
        plannable(query(sql).expect(sql)).to_string()
    }

    #[test]
    fn a_look_up_by_oid_is_one_row() {
        assert_eq!(
            read("SELECT (SELECT c.relkind = 'c' FROM pg_class c WHERE c.oid = t.typrelid) FROM pg_type t"),
            "SELECT (SELECT first_value(c.relkind = 'c') FROM pg_class c WHERE c.oid = t.typrelid) FROM pg_type t"
        );
        for same in [
            "SELECT (SELECT max(c.x) FROM pg_class c WHERE c.oid = t.a) FROM pg_type t",
            "SELECT (SELECT id FROM events WHERE id = 1)",
        ] {
            assert_eq!(read(same), same);
        }
    }

    #[test]
    fn functions_are_compared_by_their_names() {
        assert_eq!(
            read("SELECT typinput = 'pg_catalog.array_in'::regproc FROM pg_type"),
            "SELECT typinput = 'array_in' FROM pg_type"
        );
    }

    #[test]
    fn there_are_no_keys() {
        let sql = "SELECT (information_schema._pg_expandarray(i.indkey)).n AS a, b FROM pg_index i";
        assert_eq!(read(sql), "SELECT NULL::TEXT AS c0, NULL::TEXT AS c1 WHERE false");
    }
}

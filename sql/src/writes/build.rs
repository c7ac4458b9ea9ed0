//! Pieces of queries.

use sqlparser::ast::{
    BinaryOperator, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, SelectItem, SetExpr, TableAlias,
    TableAliasColumnDef, TableFactor, TableWithJoins, UnaryOperator, Value,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};
use weir_common::catalog::{Column, RelationName};
use weir_common::types::SqlType;

use crate::error::Error;
use crate::functions::ASSIGN;
pub(super) use crate::syntax::build::null;
use crate::syntax::build::{call, cast, query};

/// The schema whose tables have their hidden columns too. It has those of all schemas, under names
/// that tell them apart.
pub const STORED: &str = "weir_stored";

/// A quoted name.
fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

pub(super) fn name(name: &str) -> Expr {
    Expr::Identifier(quoted(name))
}

pub(super) fn column(alias: &Ident, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![alias.clone(), quoted(name)])
}

pub(super) fn item(expr: Expr, alias: &str) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: quoted(alias) }
}

/// A SELECT.
pub(super) fn select(
    items: Vec<SelectItem>,
    from: Vec<TableWithJoins>,
    selection: Option<Expr>,
) -> Result<Box<Query>, Error> {
    let mut made = query("SELECT 1")?;
    let SetExpr::Select(select) = made.body.as_mut() else { return Err(not_a_query()) };
    (select.projection, select.from, select.selection) = (items, from, selection);
    Ok(made)
}

/// VALUES.
pub(super) fn values() -> Result<Box<Query>, Error> {
    query("VALUES (1)")
}

/// A query in FROM, under an alias.
pub(super) fn derived(inner: Box<Query>, alias: &Ident) -> Result<TableWithJoins, Error> {
    let mut from = from(&*query("SELECT 1 FROM (SELECT 1) AS t")?)?;
    let TableFactor::Derived { subquery, alias: Some(known), .. } = &mut from.relation else {
        return Err(not_a_query());
    };
    *subquery = inner;
    known.name = alias.clone();
    Ok(from)
}

/// Names the columns of a query in FROM.
pub(super) fn rename(from: &mut TableWithJoins, names: impl Iterator<Item = String>) {
    if let TableFactor::Derived { alias: Some(TableAlias { columns, .. }), .. } = &mut from.relation {
        *columns = names.map(|name| TableAliasColumnDef { name: quoted(&name), data_type: None }).collect();
    }
}

/// A table with its hidden columns, under an alias.
pub(super) fn stored(table: &RelationName, alias: &Ident) -> Result<TableWithJoins, Error> {
    let mut from = from(&*query("SELECT 1 FROM s.n AS t")?)?;
    let TableFactor::Table { name, alias: Some(known), .. } = &mut from.relation else { return Err(not_a_query()) };
    *name = ObjectName::from(vec![quoted(STORED), quoted(&table.to_string())]);
    known.name = alias.clone();
    Ok(from)
}

/// The rows of a query under an alias, each with the row of a table that a condition finds, or
/// with NULLs.
pub(super) fn left_join(
    inner: Box<Query>,
    alias: &Ident,
    (table, table_alias): (&RelationName, &Ident),
    condition: Expr,
) -> Result<TableWithJoins, Error> {
    let mut from = from(&*query("SELECT 1 FROM t LEFT JOIN t AS u ON true")?)?;
    from.relation = derived(inner, alias)?.relation;
    let [join] = from.joins.as_mut_slice() else { return Err(not_a_query()) };
    let JoinOperator::Left(JoinConstraint::On(on)) = &mut join.join_operator else { return Err(not_a_query()) };
    *on = condition;
    join.relation = stored(table, table_alias)?.relation;
    Ok(from)
}

/// `CASE WHEN condition THEN one ELSE other END`.
pub(super) fn choose(condition: Expr, one: Expr, other: Expr) -> Result<Expr, Error> {
    let mut made = expression("CASE WHEN true THEN 1 ELSE 2 END")?;
    let Expr::Nested(case) = &mut made else { return Err(not_a_query()) };
    let Expr::Case { conditions, else_result: Some(otherwise), .. } = case.as_mut() else { return Err(not_a_query()) };
    let [branch] = conditions.as_mut_slice() else { return Err(not_a_query()) };
    (branch.condition, branch.result, **otherwise) = (condition, one, other);
    Ok(made)
}

pub(super) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn from(query: &Query) -> Result<TableWithJoins, Error> {
    match query.body.as_ref() {
        SetExpr::Select(select) => select.from.first().cloned().ok_or_else(not_a_query),
        _ => Err(not_a_query()),
    }
}

fn not_a_query() -> Error {
    Error::internal("a template is not a query")
}

/// An expression of the catalog. It has no locations: it is not in the client's text.
pub(super) fn expression(text: &str) -> Result<Expr, Error> {
    let unreadable = || Error::internal(format!("the stored expression {text} cannot be read"));
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().map_err(|_| unreadable())?;
    let mut parser = Parser::new(&PostgreSqlDialect {}).with_tokens(tokens);
    let expr = parser.parse_expr().map_err(|_| unreadable())?;
    if parser.peek_token_ref().token == Token::EOF { Ok(Expr::Nested(Box::new(expr))) } else { Err(unreadable()) }
}

/// A value as one of a column's type. A literal is read as that type; other values are converted as
/// PostgreSQL's assignments convert them.
pub(super) fn assign(value: Expr, column: &Column) -> Result<Expr, Error> {
    if is_open(&value)
        && let Some(data_type) = data_type(&column.ty)?
    {
        return Ok(cast(value, data_type));
    }
    Ok(call(ASSIGN, vec![value, text(&column.ty.to_string()), text(&column.name)]))
}

/// Returns true if an expression has no type of its own: a text, NULL or a parameter.
pub(super) fn is_open(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_open(inner),
        Expr::Value(value) => matches!(
            value.value,
            Value::SingleQuotedString(_)
                | Value::EscapedStringLiteral(_)
                | Value::DollarQuotedString(_)
                | Value::Null
                | Value::Placeholder(_)
        ),
        _ => false,
    }
}

/// Returns the literal below parentheses and a minus sign, which the flag tells.
pub(super) fn literal(expr: &Expr) -> Option<(bool, &Value)> {
    match expr {
        Expr::Nested(inner) => literal(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match literal(expr)? {
            (negative, value @ Value::Number(..)) => Some((!negative, value)),
            _ => None,
        },
        Expr::Value(value) => Some((false, &value.value)),
        _ => None,
    }
}

/// A type as a cast names it; `None` for a struct, which casts cannot name.
fn data_type(ty: &SqlType) -> Result<Option<sqlparser::ast::DataType>, Error> {
    let has_struct = |ty: &SqlType| {
        let mut ty = ty;
        while let SqlType::Array(element) = ty {
            ty = element;
        }
        matches!(ty, SqlType::Struct(_))
    };
    if has_struct(ty) {
        return Ok(None);
    }
    let name = ty.to_string();
    let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(&name).and_then(|mut parser| parser.parse_data_type());
    parsed.map(Some).map_err(|_| Error::internal(format!("a column has the type {name}")))
}

fn text(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.to_owned()).with_empty_span())
}

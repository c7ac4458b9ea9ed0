//! Queries of the system catalogs, as psql and drivers ask them.
//!
//! They use more of PostgreSQL than DataFusion can plan, and ask for what Weir has not: privileges, policies,
//! publications. Owns what is made of them. Invariant: a query that names any table of the user's is not touched.

use std::ops::ControlFlow;

use datafusion_pg_catalog::pg_catalog::PG_CATALOG_TABLES;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use pgwire::api::Type;
use sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, GroupByExpr, Ident, JoinOperator, Query, Select, SelectItem, SetExpr, Statement, TableFactor,
    Value, Visit, Visitor, visit_expressions_mut,
};

use super::introspection;
use super::rewrite::{call, tables, with_names};
use super::schema::{INFORMATION_SCHEMA, PG_CATALOG};
use super::views::is_view;
use crate::parser::{DATABASE, fold, identifiers};

/// System catalogs that never have a row. psql asks each of them for every table, in ways that DataFusion cannot plan.
const EMPTY_CATALOGS: [&str; 5] =
    ["pg_policy", "pg_statistic_ext", "pg_publication", "pg_publication_namespace", "pg_publication_rel"];

/// Columns of system catalogs that `datafusion-pg-catalog` lacks: privileges and options, of which Weir has none.
const EMPTY_COLUMNS: [&str; 3] = ["relacl", "attacl", "reloptions"];

/// Reads queries of system catalogs.
pub(super) struct Tools(PostgresCompatibilityParser);

impl Tools {
    pub(super) fn new() -> Tools {
        Tools(PostgresCompatibilityParser::new())
    }

    /// The types of the parameters of such a query, where it is one whose text does not tell.
    pub(super) fn parameter_types(written: &Statement) -> Option<Vec<Option<Type>>> {
        introspection::parameter_types(written).filter(|_| asks_the_catalog(written))
    }

    /// A query of nothing but system catalogs as DataFusion can read it; `None` if it is another one. Which functions
    /// are aggregates is for DataFusion to say.
    pub(super) fn read(&self, written: &Statement, is_aggregate: impl Fn(&str) -> bool) -> Option<Statement> {
        if !asks_the_catalog(written) {
            return None;
        }
        if let Some(nothing) = without_rows(written, &is_aggregate) {
            return Some(nothing);
        }
        let statement = without_what_is_missing(introspection::plannable(written.clone()));
        let text = statement.to_string();
        let read = self.0.rewrite(statement);
        // Some queries it knows as a whole, by their text. The others keep the places of their names in what was written.
        match self.0.parse(&text).as_deref() {
            Ok([known]) if *known != read => Some(known.clone()),
            _ => Some(read),
        }
    }
}

/// Whether a query reads tables, and all of them are system catalogs.
fn asks_the_catalog(statement: &Statement) -> bool {
    let with = with_names(statement);
    let mut names = tables(statement);
    names.retain(|parts| !matches!(parts.as_slice(), [name] if with.contains(&fold(name))));
    !names.is_empty() && names.iter().all(|parts| is_system_catalog(parts))
}

fn is_system_catalog(parts: &[Ident]) -> bool {
    let folded: Vec<String> = parts.iter().map(fold).collect();
    let is_system = |schema: &String| schema == PG_CATALOG || schema == INFORMATION_SCHEMA;
    match folded.as_slice() {
        [name] => PG_CATALOG_TABLES.contains(&name.as_str()) || is_view(name),
        [schema, _] => is_system(schema),
        [database, schema, _] => database == DATABASE && is_system(schema),
        _ => false,
    }
}

/// A query that only reads system catalogs without rows, answered without them: the same columns, no row.
fn without_rows(statement: &Statement, is_aggregate: &dyn Fn(&str) -> bool) -> Option<Statement> {
    let Statement::Query(query) = statement else {
        return None;
    };
    let columns = columns_of_nothing(&query.body, is_aggregate)?;
    let nulls: Vec<String> = (0..columns).map(|index| format!("NULL::text AS c{index}")).collect();
    let mut statements = crate::parser::parse(&format!("SELECT {} WHERE false", nulls.join(", "))).ok()?;
    match statements.pop()?.statement {
        crate::parser::Statement::Query(statement) => Some(*statement),
        _ => None,
    }
}

/// How many columns a query has that begins from a catalog without rows; `None` if it may have rows.
fn columns_of_nothing(body: &SetExpr, is_aggregate: &dyn Fn(&str) -> bool) -> Option<usize> {
    match body {
        SetExpr::Select(select) => {
            let plain = select
                .projection
                .iter()
                .all(|item| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }));
            let from = select.from.first()?;
            let first = match &from.relation {
                TableFactor::Table { name, args: None, .. } => fold(identifiers(name)?.last()?),
                _ => return None,
            };
            let adds_rows = |join: &JoinOperator| {
                matches!(
                    join,
                    JoinOperator::Right(_)
                        | JoinOperator::RightOuter(_)
                        | JoinOperator::FullOuter(_)
                        | JoinOperator::RightSemi(_)
                        | JoinOperator::RightAnti(_)
                )
            };
            let is_empty = EMPTY_CATALOGS.contains(&first.as_str())
                && !from.joins.iter().any(|join| adds_rows(&join.join_operator))
                && !always_has_a_row(select, is_aggregate);
            (plain && is_empty).then_some(select.projection.len())
        }
        SetExpr::SetOperation { left, right, .. } => {
            columns_of_nothing(right, is_aggregate)?;
            columns_of_nothing(left, is_aggregate)
        }
        _ => None,
    }
}

/// Whether it aggregates all its rows, of which one comes out even if none goes in.
fn always_has_a_row(select: &Select, is_aggregate: &dyn Fn(&str) -> bool) -> bool {
    struct Aggregates<'a> {
        is_aggregate: &'a dyn Fn(&str) -> bool,
        queries: usize,
    }
    impl Visitor for Aggregates<'_> {
        type Break = ();

        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            self.queries += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            self.queries -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(function) = expr else {
                return ControlFlow::Continue(());
            };
            let name = identifiers(&function.name).and_then(|parts| parts.last().map(|last| fold(last)));
            let aggregates = function.over.is_none() && name.is_some_and(|name| (self.is_aggregate)(&name));
            if aggregates && self.queries == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let is_grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(keys, _) => !keys.is_empty(),
    };
    let mut aggregates = Aggregates { is_aggregate, queries: 0 };
    !is_grouped && (select.having.is_some() || select.projection.visit(&mut aggregates).is_break())
}

/// What psql asks and DataFusion cannot plan.
///
/// * `array(SELECT …)`, the columns that are missing, and `array_to_string(…)` are NULL: they list what Weir has not.
/// * A sub-query that compares something of the one row with an oid becomes an aggregate, since DataFusion cannot know
///   that it is one.
fn without_what_is_missing(mut statement: Statement) -> Statement {
    let _finished = visit_expressions_mut(&mut statement, |expr| {
        match expr {
            Expr::Function(function) if matches!(function.args, FunctionArguments::Subquery(_)) => *expr = no_texts(),
            Expr::Function(function) if joins_texts(function) => *expr = no_text(),
            Expr::CompoundIdentifier(parts)
                if parts.last().is_some_and(|name| EMPTY_COLUMNS.contains(&name.value.as_str())) =>
            {
                *expr = no_texts();
            }
            Expr::Subquery(query) => aggregate_comparison(query),
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    statement
}

/// `array_to_string`, unless of an array that is written out.
fn joins_texts(function: &Function) -> bool {
    let name = identifiers(&function.name).and_then(|parts| parts.last().map(|last| fold(last)));
    let first = match &function.args {
        FunctionArguments::List(list) => list.args.first(),
        _ => None,
    };
    let is_written = matches!(first, Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Array(_)))));
    name.as_deref() == Some("array_to_string") && !is_written
}

/// A NULL in the place of a text.
fn no_text() -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(null()), data_type: DataType::Text, array: false, format: None }
}

/// A NULL in the place of an array of texts.
fn no_texts() -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(null()),
        data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None)),
        array: false,
        format: None,
    }
}

fn null() -> Expr {
    Expr::Value(Value::Null.with_empty_span())
}

fn aggregate_comparison(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    if select.from.is_empty() {
        return;
    }
    if let [SelectItem::UnnamedExpr(compared @ Expr::BinaryOp { op: BinaryOperator::Eq, .. })] =
        select.projection.as_mut_slice()
    {
        let operand = std::mem::replace(compared, null());
        *compared = call("bool_or", vec![operand]);
    }
}

//! Rewrites the queries of the system catalogs that psql and drivers send.
//!
//! These queries use more of PostgreSQL than DataFusion can plan, and ask for objects that Weir
//! does not have: privileges, policies, publications. Invariant: a query that names any table of
//! the user's is not changed.

use std::ops::ControlFlow;

use pgwire::api::Type;
use sqlparser::ast::{
    Expr, GroupByExpr, Ident, JoinOperator, Query, Select, SelectItem, SetExpr, Statement, TableFactor, Visit, Visitor,
};
use weir_sql::parser::{DATABASE, PG_CATALOG, fold, identifiers};
use weir_sql::syntax::{tables, with_names};

use super::introspection;
use super::pg_catalog::is_in_pg_catalog;
use super::{INFORMATION_SCHEMA, RW_CATALOG};

/// System catalogs that never have a row. psql queries each of them for every table, in ways that
/// DataFusion cannot plan.
const EMPTY_CATALOGS: [&str; 5] =
    ["pg_policy", "pg_statistic_ext", "pg_publication", "pg_publication_namespace", "pg_publication_rel"];

/// Returns the types of the parameters of a known query of system catalogs whose text does not
/// determine them.
pub(crate) fn parameter_types(written: &Statement) -> Option<Vec<Option<Type>>> {
    introspection::parameter_types(written).filter(|_| asks_the_catalog(written))
}

/// Rewrites a query that reads only system catalogs, so that it can be planned; other queries stay
/// as they are. `is_aggregate` tells which functions are aggregates, because DataFusion defines
/// them.
pub(crate) fn plannable(written: &Statement, is_aggregate: impl Fn(&str) -> bool) -> Statement {
    if !asks_the_catalog(written) {
        return written.clone();
    }
    without_rows(written, &is_aggregate).unwrap_or_else(|| introspection::plannable(written.clone()))
}

/// Returns true if a query reads tables, and all of them are system catalogs.
pub(crate) fn asks_the_catalog(statement: &Statement) -> bool {
    let with = with_names(statement);
    let mut names = tables(statement);
    names.retain(|parts| !matches!(parts.as_slice(), [name] if with.contains(&fold(name))));
    !names.is_empty() && names.iter().all(|parts| is_system_catalog(parts))
}

fn is_system_catalog(parts: &[Ident]) -> bool {
    let folded: Vec<String> = parts.iter().map(fold).collect();
    let is_system = |schema: &String| [PG_CATALOG, INFORMATION_SCHEMA, RW_CATALOG].contains(&schema.as_str());
    match folded.as_slice() {
        [name] => is_in_pg_catalog(name),
        [schema, _] => is_system(schema),
        [database, schema, _] => database == DATABASE && is_system(schema),
        _ => false,
    }
}

/// Replaces a query that reads only system catalogs without rows by one that reads none: it has the
/// same number of columns, and no row.
fn without_rows(statement: &Statement, is_aggregate: &dyn Fn(&str) -> bool) -> Option<Statement> {
    let Statement::Query(query) = statement else {
        return None;
    };
    let columns = columns_of_nothing(&query.body, is_aggregate)?;
    let nulls: Vec<String> = (0..columns).map(|index| format!("NULL::text AS c{index}")).collect();
    let mut statements = weir_sql::parser::parse(&format!("SELECT {} WHERE false", nulls.join(", "))).ok()?;
    match statements.pop()?.statement {
        weir_sql::parser::Statement::Query(statement) => Some(*statement),
        _ => None,
    }
}

/// Returns the number of columns of a query whose first catalog has no rows; `None` if the query
/// may have rows.
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

/// Returns true if a query aggregates all its rows into one. It then has a row even if its input
/// has none.
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

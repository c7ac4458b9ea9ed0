//! Gives columns of the same name distinct names. A result in PostgreSQL may have several columns
//! of one name; DataFusion requires distinct names.
//!
//! Only the part of such a name before [`MARK`] is shown. An unnamed column gets PostgreSQL's name
//! where a query around it can refer to it: `SELECT count FROM (SELECT count(*) FROM t) AS n`.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement,
    TableFactor, Value, VisitMut, VisitorMut, visit_expressions_mut,
};

use super::build::taken;
use super::names::item_name;
use crate::parser::{fold, identifiers};

/// Separates a column's name from the part that makes it distinct. It is invisible, so plans stay
/// readable, and users do not type it.
const MARK: char = '\u{2063}';

/// The visible part of a column's name.
pub(super) fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or_default()
}

/// Makes the column names distinct in a statement, and in the queries that it reads from.
pub(super) fn set_apart(statement: &mut Statement) {
    let _finished = statement.visit(&mut ReadFrom);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The outermost query, or a sub-query in an expression. Only ORDER BY refers to its columns.
    Outermost,
    /// A query in FROM or WITH. The query around it refers to its columns by their names.
    Inside,
}

struct ReadFrom;

impl VisitorMut for ReadFrom {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        in_query(query, Place::Outermost);
        for table in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            in_query(&mut table.query, Place::Inside);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Derived { subquery, .. } = factor {
            in_query(subquery, Place::Inside);
        }
        ControlFlow::Continue(())
    }
}

fn in_query(query: &mut Query, place: Place) {
    let renamed = in_body(&mut query.body, place);
    let sorts = match query.order_by.as_mut().map(|order| &mut order.kind) {
        Some(OrderByKind::Expressions(sorts)) => sorts.as_mut_slice(),
        _ => &mut [],
    };
    for sort in sorts {
        // DISTINCT requires that sort keys are columns of the result, whose names have changed.
        if let Some((_, position)) = renamed.iter().find(|(expr, _)| *expr == sort.expr) {
            sort.expr = Expr::Value(Value::Number(position.to_string(), false).with_empty_span());
        }
    }
}

/// Returns the renamed expressions, with their positions in the result where these are known.
fn in_body(body: &mut SetExpr, place: Place) -> Vec<(Expr, usize)> {
    match body {
        SetExpr::Select(select) => in_select(select, place),
        SetExpr::Query(query) => {
            in_query(query, place);
            Vec::new()
        }
        SetExpr::SetOperation { left, right, .. } => {
            in_body(left, place);
            in_body(right, place);
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn in_select(select: &mut Select, place: Place) -> Vec<(Expr, usize)> {
    let is_wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let wildcard = select.projection.iter().position(is_wildcard);
    let wildcards = Wildcards::of(select);
    let mut times: HashMap<String, usize> = HashMap::new();
    for item in select.projection.iter().filter(|item| !is_wildcard(item)) {
        *times.entry(item_name(item)).or_default() += 1;
    }
    let mut before: HashMap<String, usize> = HashMap::new();
    let (mut renamed, mut written) = (Vec::new(), HashSet::new());
    for (index, item) in select.projection.iter_mut().enumerate() {
        let name = if is_wildcard(item) { continue } else { item_name(item) };
        let seen = before.entry(name.clone()).or_default();
        let is_repeated = if place == Place::Inside { times[&name] > 1 } else { *seen > 0 };
        *seen += 1;
        let is_repeated = match &*item {
            // DataFusion gives it the name of a column that ORDER BY may refer to.
            SelectItem::UnnamedExpr(Expr::Subquery(_)) if place == Place::Outermost => true,
            SelectItem::UnnamedExpr(expr) => !written.insert(without_casts(expr)) || is_repeated,
            _ => is_repeated,
        };
        let (expr, is_named) = match &*item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), is_column(expr)),
            SelectItem::ExprWithAlias { expr, .. } => (expr.clone(), true),
            _ => continue,
        };
        let is_in_wildcard =
            matches!(item, SelectItem::UnnamedExpr(_)) && is_column(&expr) && wildcards.may_have(&expr);
        let alias = if is_repeated || is_in_wildcard {
            if wildcard.is_none_or(|wildcard| index < wildcard) {
                renamed.push((expr.clone(), index + 1));
            }
            format!("{name}{MARK}{index}")
        } else if place == Place::Inside && !is_named {
            name
        } else {
            continue;
        };
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', alias) };
    }
    renamed
}

/// The tables whose columns are all selected.
struct Wildcards {
    of_all: bool,
    qualifiers: Vec<String>,
}

impl Wildcards {
    fn of(select: &Select) -> Wildcards {
        let mut wildcards = Wildcards { of_all: false, qualifiers: Vec::new() };
        for item in &select.projection {
            match item {
                SelectItem::Wildcard(_) => wildcards.of_all = true,
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    let last = identifiers(name).and_then(|parts| parts.last().map(|last| fold(last)));
                    wildcards.qualifiers.extend(last);
                }
                _ => {}
            }
        }
        wildcards
    }

    /// True if the wildcards may include a column. A column of another table is recognised by its
    /// qualifier.
    fn may_have(&self, column: &Expr) -> bool {
        match column {
            _ if self.of_all => true,
            Expr::Identifier(_) => !self.qualifiers.is_empty(),
            Expr::CompoundIdentifier(parts) => {
                let qualifier = parts.len().checked_sub(2).and_then(|place| parts.get(place)).map(fold);
                qualifier.is_some_and(|qualifier| self.qualifiers.contains(&qualifier))
            }
            Expr::Nested(inner) => self.may_have(inner),
            _ => false,
        }
    }
}

/// The text of an expression without its casts, which DataFusion leaves out of names.
fn without_casts(expr: &Expr) -> String {
    let mut expr = expr.clone();
    let _finished = visit_expressions_mut(&mut expr, |expr| {
        if let Expr::Cast { expr: operand, .. } | Expr::Nested(operand) = expr {
            let operand = taken(operand);
            *expr = operand;
        }
        ControlFlow::<()>::Continue(())
    });
    expr.to_string()
}

fn is_column(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::Nested(inner) => is_column(inner),
        _ => false,
    }
}

//! The origins of a result's columns: the table and column that PostgreSQL names in its
//! description, and the modifier of their type.
//!
//! A column keeps its origin through joins, groups, sub-queries in FROM and all other nodes that
//! only pass it on. An expression has no origin, but it has a modifier if it is a cast to a type
//! with one.

use std::sync::Arc;

use datafusion::common::{Column, JoinType};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use weir_sql::relation::NamedRelation;
use weir_sql::types::modifier;

use super::pg_catalog;
use crate::catalog::Catalog;
use crate::encode::Origin;

/// Returns the origins of a plan's columns. The plan must be the one before any rules changed it.
pub(crate) fn origins(plan: &LogicalPlan, catalog: &Arc<Catalog>) -> Vec<Origin> {
    (0..plan.schema().fields().len()).map(|place| origin(plan, place, catalog).unwrap_or_default()).collect()
}

fn origin(plan: &LogicalPlan, place: usize, catalog: &Arc<Catalog>) -> Option<Origin> {
    match plan {
        LogicalPlan::Projection(projection) => of_expression(projection.expr.get(place)?, &projection.input, catalog),
        LogicalPlan::Aggregate(aggregate) => of_expression(aggregate.group_expr.get(place)?, &aggregate.input, catalog),
        LogicalPlan::Distinct(Distinct::On(distinct)) => {
            of_expression(distinct.select_expr.get(place)?, &distinct.input, catalog)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => origin(input, place, catalog),
        LogicalPlan::Filter(filter) => origin(&filter.input, place, catalog),
        LogicalPlan::Sort(sort) => origin(&sort.input, place, catalog),
        LogicalPlan::Limit(limit) => origin(&limit.input, place, catalog),
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, place, catalog),
        LogicalPlan::Subquery(subquery) => origin(&subquery.subquery, place, catalog),
        LogicalPlan::Window(window) if place < window.input.schema().fields().len() => {
            origin(&window.input, place, catalog)
        }
        LogicalPlan::Join(join) => {
            let width = join.left.schema().fields().len();
            match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti => origin(&join.right, place, catalog),
                _ if place < width => origin(&join.left, place, catalog),
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                    origin(&join.right, place - width, catalog)
                }
                _ => None,
            }
        }
        LogicalPlan::TableScan(scan) => {
            let place = scan.projection.as_ref().map_or(Some(place), |columns| columns.get(place).copied())?;
            match NamedRelation::of(scan).ok().flatten() {
                Some(relation) => pg_catalog::origin_in(&relation, NamedRelation::reads_letters(scan).ok()?, place),
                None => pg_catalog::origin(catalog, &scan.table_name, place),
            }
        }
        _ => None,
    }
}

fn of_expression(expr: &Expr, input: &LogicalPlan, catalog: &Arc<Catalog>) -> Option<Origin> {
    match expr {
        Expr::Alias(alias) => of_expression(&alias.expr, input, catalog),
        Expr::Column(column) => origin(input, place_of(column, input)?, catalog),
        Expr::Cast(cast) => Some(Origin { modifier: modifier(&cast.field), ..Origin::default() }),
        _ => None,
    }
}

fn place_of(column: &Column, input: &LogicalPlan) -> Option<usize> {
    input.schema().maybe_index_of_column(column)
}

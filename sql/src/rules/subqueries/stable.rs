//! Checks rows that are read twice, once for the values of some of their columns.
//!
//! The first read may return more values than the rows have, but none may be missing. Limits and
//! sorts are therefore left out, and plans that may return other rows the second time are refused.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, Filter, Join, LogicalPlan, Projection, SubqueryAlias};
use weir_common::catalog::RelationKind;

use super::apply::is_hidden;
use crate::error::Error;
use crate::relation::NamedRelation;

/// Aggregates whose result depends on the order of their rows.
const ORDERED: [&str; 6] = ["array_agg", "string_agg", "first_value", "last_value", "nth_value", "any_value"];

/// A plan in which the columns `needed` have at least the values that they have in `plan`.
///
/// # Errors
/// `0A000`, if that cannot be guaranteed.
pub(super) fn values(plan: &LogicalPlan, needed: &[Column]) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Limit(limit) => values(&limit.input, needed)?,
        LogicalPlan::Sort(sort) => values(&sort.input, needed)?,
        LogicalPlan::Projection(projection) => projected(projection, needed)?,
        LogicalPlan::Filter(filter) => {
            let used: Vec<&Column> = filter.predicate.column_refs().into_iter().collect();
            if filter.predicate.is_volatile() || used.iter().any(|column| is_hidden(column)) {
                return values(&filter.input, needed);
            }
            let used: Vec<Column> = needed.iter().chain(used).cloned().collect();
            let input = values(&filter.input, &used)?;
            LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::new(input))?)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let places = needed.iter().map(|column| alias.schema.index_of_column(column));
            let inner = places.map(|place| Ok(Column::from(alias.input.schema().qualified_field(place?))));
            let input = values(&alias.input, &inner.collect::<Result<Vec<Column>>>()?)?;
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => values(input, needed)?,
        LogicalPlan::Join(join) if join.join_type == JoinType::Left && is_attached(join, needed) => {
            values(&join.left, needed)?
        }
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => joined(join, needed)?,
        plan => {
            check(plan)?;
            plan.clone()
        }
    })
}

fn projected(projection: &Projection, needed: &[Column]) -> Result<LogicalPlan> {
    let schema = &projection.schema;
    let places = needed.iter().map(|column| schema.index_of_column(column)).collect::<Result<Vec<usize>>>()?;
    let exprs: Vec<Expr> = projection
        .expr
        .iter()
        .enumerate()
        .filter(|(place, _)| places.contains(place))
        .map(|(_, expr)| expr.clone())
        .collect();
    if exprs.iter().any(Expr::is_volatile) {
        return Err(unstable("a function that is different each time"));
    }
    let used: Vec<Column> = exprs.iter().flat_map(|expr| expr.column_refs().into_iter().cloned()).collect();
    let input = values(&projection.input, &used)?;
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
}

fn joined(join: &Join, needed: &[Column]) -> Result<LogicalPlan> {
    let conditions = join.on.iter().flat_map(|(one, other)| [one, other]).chain(&join.filter);
    let used: Vec<Column> = conditions.flat_map(|expr| expr.column_refs().into_iter().cloned()).collect();
    if join.filter.as_ref().is_some_and(Expr::is_volatile) {
        return Err(unstable("a function that is different each time"));
    }
    let side = |plan: &LogicalPlan| {
        let own = needed.iter().chain(&used).filter(|column| plan.schema().has_column(column));
        values(plan, &own.cloned().collect::<Vec<_>>()).map(Arc::new)
    };
    let (left, right, on, filter) = (side(&join.left)?, side(&join.right)?, join.on.clone(), join.filter.clone());
    let (constraint, equality) = (join.join_constraint, join.null_equality);
    Ok(LogicalPlan::Join(Join::try_new(left, right, on, filter, join.join_type, constraint, equality, false)?))
}

/// True if a join only adds a sub-query's value, which is not needed here, to the rows.
fn is_attached(join: &Join, needed: &[Column]) -> bool {
    let own = join.right.schema().columns();
    own.iter().all(is_hidden) && !needed.iter().any(|column| own.contains(column))
}

/// # Errors
/// `0A000`, if a plan may have other rows the second time.
fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|plan| {
        match plan {
            LogicalPlan::Limit(_) | LogicalPlan::Distinct(Distinct::On(_)) => {
                return Err(unstable("a LIMIT or DISTINCT ON"));
            }
            LogicalPlan::Window(_) => return Err(unstable("window functions")),
            LogicalPlan::Extension(_) | LogicalPlan::RecursiveQuery(_) => return Err(unstable("WITH RECURSIVE")),
            LogicalPlan::Aggregate(aggregate) if !is_exact(aggregate) => {
                return Err(unstable("aggregates that depend on the order of rows"));
            }
            // A source is read anew each time, so the second read may return more rows.
            LogicalPlan::TableScan(scan)
                if NamedRelation::of(scan)?.is_some_and(|relation| relation.kind == RelationKind::Source) =>
            {
                return Err(unstable("a source"));
            }
            _ => {}
        }
        plan.apply_expressions(|expr| match expr.is_volatile() {
            true => Err(unstable("a function that is different each time")),
            false => Ok(TreeNodeRecursion::Continue),
        })
    })?;
    Ok(())
}

/// True if an aggregate does not depend on the order of its rows. Sums of floating-point numbers
/// do.
fn is_exact(aggregate: &Aggregate) -> bool {
    let results = aggregate.schema.fields().iter().skip(aggregate.group_expr.len());
    let is_ordered = |expr: &Expr| match expr.clone().unalias() {
        Expr::AggregateFunction(call) => ORDERED.contains(&call.func.name()),
        _ => false,
    };
    !results.into_iter().any(|field| field.data_type().is_floating()) && !aggregate.aggr_expr.iter().any(is_ordered)
}

fn unstable(of: &str) -> datafusion::error::DataFusionError {
    Error::unsupported(format!("a sub-query that refers to rows made by {of} is not supported yet"))
        .with_hint("create a view or a table of these rows, or join them with the sub-query's tables")
        .into()
}

//! Aggregates over a sorted sub-query: `array_agg(x) FROM (SELECT … ORDER BY y)`.
//!
//! PostgreSQL passes rows to an aggregate in the order of the sub-query, DataFusion in any order.
//! Where an aggregate depends on the order and has no ORDER BY itself, this rule numbers the
//! sub-query's rows in their order and sorts the aggregate by the numbers. The number passes
//! through the projections, filters, limits and names in between.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, TableReference};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::functions_window::row_number::row_number;
use datafusion::logical_expr::expr::{AggregateFunction, Alias, Sort as SortExpr};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprFunctionExt, Filter, Limit, LogicalPlan, LogicalPlanBuilder, Projection,
    SubqueryAlias,
};
use datafusion::optimizer::AnalyzerRule;

/// The column of the numbers. A user cannot write this name.
const NUMBER: &str = "\u{2063}order";

/// Aggregates whose result depends on the order of their rows.
const DEPENDENT: [&str; 6] = ["array_agg", "string_agg", "first_value", "last_value", "nth_value", "any_value"];

/// See the module.
#[derive(Debug)]
pub(crate) struct Ordered;

impl AnalyzerRule for Ordered {
    fn name(&self) -> &str {
        "ordered"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan
            .transform_up_with_subqueries(|plan| match plan {
                LogicalPlan::Aggregate(mut aggregate) => {
                    let sorts = aggregate.aggr_expr.iter().any(is_unordered_distinct);
                    aggregate.aggr_expr = aggregate.aggr_expr.into_iter().map(sorted_distinct).collect();
                    match aggregate.aggr_expr.iter().any(depends) {
                        true => in_order(aggregate),
                        false if sorts => {
                            // DataFusion would take a sort below for the requested order, even if
                            // it sorts the other way round.
                            aggregate.input = Arc::new(unsorted(Arc::unwrap_or_clone(aggregate.input))?);
                            Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
                        }
                        false => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
                    }
                }
                plan => Ok(Transformed::no(plan)),
            })?
            .data)
    }
}

fn call(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::Alias(Alias { expr, .. }) => call(expr),
        Expr::AggregateFunction(call) => Some(call),
        _ => None,
    }
}

/// True if an aggregate's result depends on the order of its input. DISTINCT sorts by itself.
fn depends(expr: &Expr) -> bool {
    call(expr).is_some_and(|call| {
        DEPENDENT.contains(&call.func.name()) && call.params.order_by.is_empty() && !call.params.distinct
    })
}

/// PostgreSQL sorts the values that DISTINCT leaves.
fn is_unordered_distinct(expr: &Expr) -> bool {
    call(expr).is_some_and(|call| {
        matches!(call.func.name(), "array_agg" | "string_agg")
            && call.params.distinct
            && call.params.order_by.is_empty()
    })
}

fn sorted_distinct(expr: Expr) -> Expr {
    if !is_unordered_distinct(&expr) {
        return expr;
    }
    let (relation, name) = expr.qualified_name();
    match expr.unalias() {
        Expr::AggregateFunction(mut call) => {
            call.params.order_by =
                call.params.args.first().map(|first| SortExpr::new(first.clone(), true, false)).into_iter().collect();
            Expr::AggregateFunction(call).alias_qualified(relation, name)
        }
        expr => expr,
    }
}

/// Removes the sort of a plan, if nothing in between needs it.
fn unsorted(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => unsorted(Arc::unwrap_or_clone(sort.input)),
        plan @ (LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_)) => {
            Ok(plan.map_children(|input| Ok(Transformed::yes(unsorted(input)?)))?.data)
        }
        plan => Ok(plan),
    }
}

fn in_order(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let Some((input, number)) = numbered(&aggregate.input)? else {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    };
    let order = SortExpr::new(Expr::Column(number), true, false);
    let names: Vec<(Option<TableReference>, String)> = aggregate.aggr_expr.iter().map(Expr::qualified_name).collect();
    let ordered = aggregate.aggr_expr.into_iter().zip(names).map(|(expr, (relation, name))| {
        if !depends(&expr) {
            return expr;
        }
        let expr = match expr {
            Expr::Alias(alias) => *alias.expr,
            expr => expr,
        };
        match expr {
            Expr::AggregateFunction(mut call) => {
                call.params.order_by = vec![order.clone()];
                Expr::AggregateFunction(call).alias_qualified(relation, name)
            }
            expr => expr,
        }
    });
    let aggr_expr = ordered.collect();
    Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), aggregate.group_expr, aggr_expr)?)))
}

/// Numbers a plan's rows in their order, and returns the column of the numbers; `None` if the plan
/// has no order.
fn numbered(plan: &LogicalPlan) -> Result<Option<(LogicalPlan, Column)>> {
    Ok(match plan {
        LogicalPlan::Sort(sort) => Some(with_number(plan, sort.expr.clone())?),
        LogicalPlan::Distinct(Distinct::On(distinct)) => {
            // Only selected keys can still be sorted by.
            let keys = distinct.sort_expr.iter().flatten().take(distinct.on_expr.len());
            let keys: Option<Vec<SortExpr>> = keys
                .map(|key| Some(SortExpr { expr: selected(&key.expr, &distinct.select_expr, plan)?, ..key.clone() }))
                .collect();
            match keys {
                Some(keys) if !keys.is_empty() => Some(with_number(plan, keys)?),
                _ => None,
            }
        }
        LogicalPlan::Projection(projection) => match numbered(&projection.input)? {
            Some((input, number)) => {
                let mut columns = projection.expr.clone();
                columns.push(Expr::Column(number.clone()));
                let projection = Projection::try_new(columns, Arc::new(input))?;
                Some((LogicalPlan::Projection(projection), number))
            }
            None => None,
        },
        LogicalPlan::Filter(filter) => match numbered(&filter.input)? {
            Some((input, number)) => {
                let filter = Filter::try_new(filter.predicate.clone(), Arc::new(input))?;
                Some((LogicalPlan::Filter(filter), number))
            }
            None => None,
        },
        LogicalPlan::Limit(limit) => match numbered_below(&limit.input)? {
            Some(keys) => Some(with_number(plan, keys)?),
            None => match numbered(&limit.input)? {
                Some((input, number)) => {
                    let (skip, fetch) = (limit.skip.clone(), limit.fetch.clone());
                    Some((LogicalPlan::Limit(Limit { skip, fetch, input: Arc::new(input) }), number))
                }
                None => None,
            },
        },
        LogicalPlan::SubqueryAlias(alias) => match numbered(&alias.input)? {
            Some((input, _)) => {
                let named = SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?;
                Some((LogicalPlan::SubqueryAlias(named), Column::new(Some(alias.alias.clone()), NUMBER)))
            }
            None => None,
        },
        _ => None,
    })
}

/// The keys of a sort just below a limit. The rows are numbered after the limit, so that the sort
/// still ends early.
fn numbered_below(plan: &LogicalPlan) -> Result<Option<Vec<SortExpr>>> {
    match plan {
        LogicalPlan::Sort(sort) => Ok(Some(sort.expr.clone())),
        _ => Ok(None),
    }
}

/// The column of a result that holds an expression.
fn selected(expr: &Expr, select: &[Expr], plan: &LogicalPlan) -> Option<Expr> {
    let place = select.iter().position(|item| match item {
        Expr::Alias(alias) => *alias.expr == *expr,
        item => item == expr,
    })?;
    plan.schema().iter().nth(place).map(|field| Expr::Column(Column::from(field)))
}

fn with_number(plan: &LogicalPlan, keys: Vec<SortExpr>) -> Result<(LogicalPlan, Column)> {
    let number = row_number().order_by(keys).build()?;
    let numbered = LogicalPlanBuilder::from(plan.clone()).window(vec![number])?.build()?;
    let mut columns: Vec<Expr> = numbered.schema().iter().map(|field| Expr::Column(Column::from(field))).collect();
    if let Some(last) = columns.pop() {
        columns.push(last.alias(NUMBER));
    }
    let numbered = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(numbered))?);
    Ok((numbered, Column::from_name(NUMBER)))
}

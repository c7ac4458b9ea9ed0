//! Groups of equal values. Each group shows one of its values unchanged.
//!
//! Rows are grouped by comparable values ([`crate::functions::comparable`]), and the first value of
//! each group is kept beside them. DISTINCT is a grouping by all columns.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::{Aggregate, Case, Distinct, DistinctOn, Expr, ExprSchemable, LogicalPlan, Projection};
use datafusion::scalar::ScalarValue;

use super::equality::{comparable_if_needed, needs_comparable};
use crate::functions::{comparable, has_equals, kept_jsonb};
use crate::types::is_jsonb;

/// The name of a hidden column, which a user cannot write.
fn hidden(kind: &str, index: usize) -> String {
    format!("\u{2063}{kind}{index}")
}

/// Handles DISTINCT and DISTINCT ON.
pub(super) fn distinct(distinct: Distinct) -> Result<Transformed<LogicalPlan>> {
    match distinct {
        Distinct::All(input) if input.schema().fields().iter().any(|field| has_equals(field)) => {
            let columns = input.schema().iter().map(|field| Expr::Column(Column::from(field))).collect();
            groups(Aggregate::try_new(input, columns, Vec::new())?)
        }
        Distinct::On(DistinctOn { on_expr, select_expr, sort_expr, input, schema }) => {
            let own = Arc::clone(input.schema());
            let on_expr = on_expr.into_iter().map(|expr| comparable_if_needed(expr, &own)).collect();
            let sort_expr = sort_expr.map(|keys| {
                let key = |mut key: datafusion::logical_expr::SortExpr| {
                    key.expr = comparable_if_needed(key.expr, &own);
                    key
                };
                keys.into_iter().map(key).collect()
            });
            let distinct = Distinct::On(DistinctOn { on_expr, select_expr, sort_expr, input, schema });
            Ok(Transformed::yes(LogicalPlan::Distinct(distinct)))
        }
        distinct => Ok(Transformed::no(LogicalPlan::Distinct(distinct))),
    }
}

/// Groups by comparable values. The columns keep the names by which other operators refer to them.
pub(super) fn groups(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    if let [Expr::GroupingSet(_)] = aggregate.group_expr.as_slice() {
        return grouping_sets(aggregate);
    }
    let input = Arc::clone(aggregate.input.schema());
    if !aggregate.group_expr.iter().any(|expr| needs_comparable(expr, &input)) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let Aggregate { input: plan, group_expr, mut aggr_expr, schema, .. } = aggregate;
    let mut shown: Vec<Expr> = schema.iter().map(|field| Expr::Column(Column::from(field))).collect();
    let mut keys = Vec::with_capacity(group_expr.len());
    for (index, expr) in group_expr.into_iter().enumerate() {
        if !needs_comparable(&expr, &input) {
            keys.push(expr);
            continue;
        }
        let first = hidden("first", index);
        aggr_expr.push(first_value_udaf().call(vec![expr.clone().unalias()]).alias(&first));
        shown[index] = of_group(Expr::Column(Column::from_name(first)), &schema, index);
        keys.push(comparable(expr.unalias()).alias(hidden("key", index)));
    }
    let aggregate = LogicalPlan::Aggregate(Aggregate::try_new(plan, keys, aggr_expr)?);
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(shown, Arc::new(aggregate))?)))
}

/// The value that a group shows, under the name of the column that it replaces.
fn of_group(first: Expr, schema: &DFSchema, index: usize) -> Expr {
    let (relation, field) = schema.qualified_field(index);
    let first = if is_jsonb(field) { kept_jsonb(first) } else { first };
    first.alias_qualified(relation.cloned(), field.name())
}

/// Handles GROUPING SETS, ROLLUP and CUBE. The keys become columns of the input first; a set that
/// leaves a key out has NULL for it.
fn grouping_sets(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let input = Arc::clone(aggregate.input.schema());
    let [Expr::GroupingSet(set)] = aggregate.group_expr.as_slice() else {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    };
    let parts: Vec<Expr> = set.distinct_expr().into_iter().cloned().collect();
    if !parts.iter().any(|expr| needs_comparable(expr, &input)) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let mut columns: Vec<Expr> = input.iter().map(|field| Expr::Column(Column::from(field))).collect();
    let mut aggr_expr = aggregate.aggr_expr.clone();
    let mut shown: Vec<Expr> = aggregate.schema.iter().map(|field| Expr::Column(Column::from(field))).collect();
    let mut replaced = Vec::with_capacity(parts.len());
    for (index, expr) in parts.iter().enumerate() {
        if !needs_comparable(expr, &input) {
            replaced.push(expr.clone());
            continue;
        }
        let (key, first) = (hidden("key", index), hidden("first", index));
        columns.push(comparable(expr.clone().unalias()).alias(&key));
        aggr_expr.push(first_value_udaf().call(vec![expr.clone().unalias()]).alias(&first));
        let key = Expr::Column(Column::from_name(key));
        let null = Expr::Literal(ScalarValue::try_from(expr.get_type(&input)?)?, None);
        let case = vec![(Box::new(key.clone().is_null()), Box::new(null))];
        let case = Case::new(None, case, Some(Box::new(Expr::Column(Column::from_name(first)))));
        shown[index] = of_group(Expr::Case(case), &aggregate.schema, index);
        replaced.push(key);
    }
    let in_set = |exprs: &Vec<Expr>| -> Vec<Expr> {
        let replace = |expr: &Expr| match parts.iter().position(|part| part == expr) {
            Some(index) => replaced[index].clone(),
            None => expr.clone(),
        };
        exprs.iter().map(replace).collect()
    };
    let set = match set {
        GroupingSet::Rollup(exprs) => GroupingSet::Rollup(in_set(exprs)),
        GroupingSet::Cube(exprs) => GroupingSet::Cube(in_set(exprs)),
        GroupingSet::GroupingSets(sets) => GroupingSet::GroupingSets(sets.iter().map(in_set).collect()),
    };
    let keyed = LogicalPlan::Projection(Projection::try_new(columns, Arc::clone(&aggregate.input))?);
    let grouped = Aggregate::try_new(Arc::new(keyed), vec![Expr::GroupingSet(set)], aggr_expr)?;
    let grouped = Arc::new(LogicalPlan::Aggregate(grouped));
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(shown, grouped)?)))
}

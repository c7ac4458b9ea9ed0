//! Floating-point numbers compare as PostgreSQL's do: −0 is 0, and every NaN is the same and above all others.
//!
//! Arrow orders them by their bits instead, in comparisons, sorts, groups and joins. So whatever decides there by a
//! number gets its [`FloatKey`] in its place, and what is shown stays the number itself. Runs once types are known.
//! Caveat: keys in GROUPING SETS, and what functions compare inside, such as `greatest`, are left as they are.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinConstraint};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::logical_expr::expr::{InSubquery, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, Case, Distinct, Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator, Projection,
    SortExpr,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use crate::functions::float_key;

/// See the module.
#[derive(Debug)]
pub(super) struct Floats;

impl AnalyzerRule for Floats {
    fn name(&self) -> &str {
        "floats"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(in_plan)?.data)
    }
}

fn in_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let plan = expressions_of(plan)?;
    match plan {
        LogicalPlan::Aggregate(aggregate) => grouped(aggregate),
        LogicalPlan::Distinct(Distinct::All(ref input)) if has_floats(input.schema()) => {
            let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
            grouped(Aggregate::try_new(Arc::clone(input), columns, Vec::new())?)
        }
        LogicalPlan::Join(join) => joined(join),
        plan => Ok(Transformed::yes(plan)),
    }
}

/// What a node computes row by row, and what it sorts by.
fn expressions_of(plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let changed = expr.transform_up(|expr| in_expression(expr, &schema))?;
        Ok(changed.update_data(|expr| name.restore(expr)))
    })?;
    Ok(match plan.data {
        LogicalPlan::Sort(mut sort) => {
            sort.expr = keys_of_sort(sort.expr, &schema);
            LogicalPlan::Sort(sort)
        }
        plan => plan,
    })
}

fn in_expression(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_float = |expr: &Expr| is_float(expr, schema);
    Ok(Transformed::yes(match expr {
        Expr::BinaryExpr(mut binary) if compares(binary.op) && is_float(&binary.left) => {
            binary.left = Box::new(key(*binary.left, schema));
            binary.right = Box::new(key(*binary.right, schema));
            Expr::BinaryExpr(binary)
        }
        Expr::Between(mut between) if is_float(&between.expr) => {
            between.expr = Box::new(key(*between.expr, schema));
            between.low = Box::new(key(*between.low, schema));
            between.high = Box::new(key(*between.high, schema));
            Expr::Between(between)
        }
        Expr::InList(mut list) if is_float(&list.expr) => {
            list.expr = Box::new(key(*list.expr, schema));
            list.list = list.list.into_iter().map(|item| key(item, schema)).collect();
            Expr::InList(list)
        }
        Expr::InSubquery(mut within) if is_float(&within.expr) => {
            within.expr = Box::new(key(*within.expr, schema));
            Expr::InSubquery(with_keys(within)?)
        }
        Expr::Case(mut case) if case.expr.as_ref().is_some_and(|expr| is_float(expr)) => {
            case.expr = case.expr.map(|expr| Box::new(key(*expr, schema)));
            for (when, _) in &mut case.when_then_expr {
                *when = Box::new(key(std::mem::take(when), schema));
            }
            Expr::Case(case)
        }
        Expr::ScalarFunction(call) if call.name() == "nullif" && call.args.first().is_some_and(is_float) => {
            null_if(call, schema)?
        }
        Expr::AggregateFunction(mut call) => {
            if call.params.distinct {
                call.params.args = keys(call.params.args, schema);
            }
            call.params.order_by = keys_of_sort(call.params.order_by, schema);
            Expr::AggregateFunction(call)
        }
        Expr::WindowFunction(mut call) => {
            call.params.partition_by = keys(call.params.partition_by, schema);
            call.params.order_by = keys_of_sort(call.params.order_by, schema);
            Expr::WindowFunction(call)
        }
        expr => return Ok(Transformed::no(expr)),
    }))
}

fn compares(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// `nullif` compares inside.
fn null_if(mut call: ScalarFunction, schema: &DFSchema) -> Result<Expr> {
    let [value, other] = call.args.as_mut_slice() else {
        return Ok(Expr::ScalarFunction(call));
    };
    let (value, other) = (std::mem::take(value), std::mem::take(other));
    let equal = key(value.clone(), schema).eq(key(other, schema));
    let null = Expr::Literal(ScalarValue::try_from(value.get_type(schema)?)?, None);
    Ok(Expr::Case(Case::new(None, vec![(Box::new(equal), Box::new(null))], Some(Box::new(value)))))
}

fn with_keys(mut within: InSubquery) -> Result<InSubquery> {
    let plan = within.subquery.subquery.as_ref().clone();
    let schema = Arc::clone(plan.schema());
    let columns = schema.columns().into_iter().map(|column| {
        let name = column.name.clone();
        key(Expr::Column(column), &schema).alias(name)
    });
    let columns: Vec<Expr> = columns.collect();
    within.subquery.subquery = Arc::new(LogicalPlanBuilder::from(plan).project(columns)?.build()?);
    Ok(within)
}

/// Groups by keys. What is shown of a group of floats is the least of them, which is any of them.
fn grouped(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let input = Arc::clone(aggregate.input.schema());
    let is_plain = !aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
    if !is_plain || !aggregate.group_expr.iter().any(|expr| is_float(expr, &input)) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let (mut groups, mut shown) = (Vec::new(), Vec::new());
    for (index, group) in aggregate.group_expr.into_iter().enumerate() {
        if is_float(&group, &input) {
            shown.push((index, min_udaf().call(vec![group.clone()]).alias(format!("__shown_{index}"))));
            groups.push(key(group, &input).alias(format!("__key_{index}")));
        } else {
            groups.push(group);
        }
    }
    let fields = aggregate.schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
    let fields: Vec<_> = fields.collect();
    let mut aggregates = aggregate.aggr_expr;
    let first_shown = groups.len() + aggregates.len();
    let places: Vec<usize> = shown.iter().map(|(index, _)| *index).collect();
    aggregates.extend(shown.into_iter().map(|(_, expr)| expr));
    let inner = Aggregate::try_new(aggregate.input, groups, aggregates)?;
    let columns = fields.into_iter().enumerate().map(|(index, (qualifier, field))| {
        let place = places.iter().position(|place| *place == index).map_or(index, |shown| first_shown + shown);
        let column = Expr::Column(Column::from(inner.schema.qualified_field(place)));
        if place == index { column } else { column.alias_qualified(qualifier, field.name().clone()) }
    });
    let columns: Vec<Expr> = columns.collect();
    let plan = Projection::try_new(columns, Arc::new(LogicalPlan::Aggregate(inner)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(plan)))
}

fn joined(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let (left, right) = (Arc::clone(join.left.schema()), Arc::clone(join.right.schema()));
    if !join.on.iter().any(|(expr, _)| is_float(expr, &left)) {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    join.on = join.on.into_iter().map(|(a, b)| (key(a, &left), key(b, &right))).collect();
    // The columns of a USING clause are merged already.
    join.join_constraint = JoinConstraint::On;
    Ok(Transformed::yes(LogicalPlan::Join(join)))
}

/// What stands for a number where numbers are compared; other values stand for themselves.
fn key(expr: Expr, schema: &DFSchema) -> Expr {
    if is_float(&expr, schema) { float_key(expr) } else { expr }
}

fn keys(exprs: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    exprs.into_iter().map(|expr| key(expr, schema)).collect()
}

fn keys_of_sort(sorts: Vec<SortExpr>, schema: &DFSchema) -> Vec<SortExpr> {
    let sorts = sorts.into_iter().map(|sort| SortExpr { expr: key(sort.expr, schema), ..sort });
    sorts.collect()
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    // What has no type is an error that others report better.
    expr.get_type(schema).is_ok_and(|ty| matches!(ty, DataType::Float32 | DataType::Float64))
}

fn has_floats(schema: &DFSchema) -> bool {
    schema.fields().iter().any(|field| matches!(field.data_type(), DataType::Float32 | DataType::Float64))
}

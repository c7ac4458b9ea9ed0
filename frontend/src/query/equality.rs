//! Where DataFusion compares, groups, joins and sorts, it does so by PostgreSQL's equality: values of the types that have
//! equal values with different bits are made comparable first (see [`crate::functions::comparable`]).
//!
//! Runs when types are known. Plans are only added to: no column changes its name or its type. A group shows the value
//! that stands for all that are equal.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, JoinConstraint};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{
    AggregateFunction, InSubquery, ScalarFunction, SetComparison, Sort as SortExpr, WindowFunction,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Case, Distinct, Expr, ExprSchemable, Join, LogicalPlan, Operator, Projection, Subquery,
    WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use crate::functions::{comparable, has_equals, is_comparable};

/// See the module.
#[derive(Debug)]
pub(super) struct Equality;

impl AnalyzerRule for Equality {
    fn name(&self) -> &str {
        "equality"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(in_plan)?.data)
    }
}

fn in_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let changed = expr.transform_up(|expr| in_expression(expr, &schema))?;
        Ok(changed.update_data(|expr| name.restore(expr)))
    })?;
    plan.transform_data(|plan| {
        Ok(match plan {
            LogicalPlan::Aggregate(aggregate) => groups(aggregate)?,
            LogicalPlan::Distinct(Distinct::All(input)) => Transformed::yes(LogicalPlan::Distinct(Distinct::All(
                Arc::new(all_comparable(Arc::unwrap_or_clone(input))?),
            ))),
            LogicalPlan::Sort(mut sort) => {
                sort.expr = sort.expr.into_iter().map(|key| sorted(key, sort.input.schema())).collect();
                Transformed::yes(LogicalPlan::Sort(sort))
            }
            LogicalPlan::Join(join) => Transformed::yes(LogicalPlan::Join(joined(join))),
            plan => Transformed::no(plan),
        })
    })
}

/// Comparisons, and what sorts and tells apart by itself.
fn in_expression(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (left, right) = (comparable_if_needed(*left, schema), comparable_if_needed(*right, schema));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) }))
        }
        Expr::Between(mut between) => {
            for operand in [&mut between.expr, &mut between.low, &mut between.high] {
                make_comparable(operand, schema);
            }
            Transformed::yes(Expr::Between(between))
        }
        Expr::InList(mut list) => {
            make_comparable(&mut list.expr, schema);
            list.list = list.list.into_iter().map(|value| comparable_if_needed(value, schema)).collect();
            Transformed::yes(Expr::InList(list))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let (expr, subquery) = with_subquery(expr, subquery, schema)?;
            Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated }))
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
            let (expr, subquery) = with_subquery(expr, subquery, schema)?;
            Transformed::yes(Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }))
        }
        Expr::Case(Case { expr: Some(mut operand), mut when_then_expr, else_expr }) => {
            make_comparable(&mut operand, schema);
            for (when, _) in &mut when_then_expr {
                make_comparable(when, schema);
            }
            Transformed::yes(Expr::Case(Case { expr: Some(operand), when_then_expr, else_expr }))
        }
        Expr::ScalarFunction(call) if call.name() == "nullif" => null_if(call, schema)?,
        Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
            if params.distinct || matches!(func.name(), "min" | "max") {
                params.args = params.args.into_iter().map(|argument| comparable_if_needed(argument, schema)).collect();
            }
            params.order_by = params.order_by.into_iter().map(|key| sorted(key, schema)).collect();
            Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params }))
        }
        Expr::WindowFunction(mut call) => {
            let WindowFunction { fun, params } = call.as_mut();
            let extreme =
                matches!(&*fun, WindowFunctionDefinition::AggregateUDF(f) if matches!(f.name(), "min" | "max"));
            for argument in params.args.iter_mut().filter(|_| extreme) {
                make_comparable(argument, schema);
            }
            for key in &mut params.partition_by {
                make_comparable(key, schema);
            }
            let keys = std::mem::take(&mut params.order_by);
            params.order_by = keys.into_iter().map(|key| sorted(key, schema)).collect();
            Transformed::yes(Expr::WindowFunction(call))
        }
        expr => Transformed::no(expr),
    })
}

pub(super) fn compares(op: Operator) -> bool {
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

/// A value that is looked for in a sub-query, and that sub-query.
fn with_subquery(mut expr: Box<Expr>, subquery: Subquery, schema: &DFSchema) -> Result<(Box<Expr>, Subquery)> {
    make_comparable(&mut expr, schema);
    let plan = all_comparable(Arc::unwrap_or_clone(Arc::clone(&subquery.subquery)))?;
    Ok((expr, subquery.with_plan(Arc::new(plan))))
}

/// `nullif` compares inside, so it becomes what it stands for.
fn null_if(mut call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let [value, other] = call.args.as_mut_slice() else {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    };
    if !needs_comparable(value, schema) {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    }
    let (value, other) = (std::mem::take(value), std::mem::take(other));
    let equal = comparable_if_needed(value.clone(), schema).eq(comparable_if_needed(other, schema));
    let null = Expr::Literal(ScalarValue::try_from(value.get_type(schema)?)?, None);
    let case = Case::new(None, vec![(Box::new(equal), Box::new(null))], Some(Box::new(value)));
    Ok(Transformed::yes(Expr::Case(case)))
}

fn joined(mut join: Join) -> Join {
    if !join.on.iter().any(|(left, _)| needs_comparable(left, join.left.schema())) {
        return join;
    }
    let side = |key: Expr, input: &LogicalPlan| comparable_if_needed(key, input.schema());
    let pairs = std::mem::take(&mut join.on).into_iter();
    join.on = pairs.map(|(left, right)| (side(left, &join.left), side(right, &join.right))).collect();
    // Of USING only columns can be keys; that each is shown once has been seen to.
    join.join_constraint = JoinConstraint::On;
    join
}

fn sorted(mut key: SortExpr, schema: &DFSchema) -> SortExpr {
    make_comparable(&mut key.expr, schema);
    key
}

fn make_comparable(expr: &mut Expr, schema: &DFSchema) {
    let taken = std::mem::take(expr);
    *expr = comparable_if_needed(taken, schema);
}

fn comparable_if_needed(expr: Expr, schema: &DFSchema) -> Expr {
    if !is_comparable(&expr) && needs_comparable(&expr, schema) { comparable(expr) } else { expr }
}

fn needs_comparable(expr: &Expr, schema: &DFSchema) -> bool {
    // What has no type is an error that others report better.
    expr.to_field(schema).is_ok_and(|(_, field)| has_equals(&field))
}

/// Groups by comparable values, under the names that others know the columns by.
fn groups(mut aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let input = Arc::clone(aggregate.input.schema());
    let needed = |expr: &Expr| needs_comparable(expr, &input);
    if !aggregate.group_expr.iter().any(|expr| !matches!(expr, Expr::GroupingSet(_)) && needed(expr)) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let keys = std::mem::take(&mut aggregate.group_expr).into_iter().map(|expr| match expr {
        expr @ Expr::GroupingSet(_) => expr,
        expr if needed(&expr) => {
            let (relation, name) = expr.qualified_name();
            comparable(expr.unalias()).alias_qualified(relation, name)
        }
        expr => expr,
    });
    let aggregate = Aggregate::try_new(aggregate.input, keys.collect(), aggregate.aggr_expr)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

/// A projection that makes every column comparable.
fn all_comparable(input: LogicalPlan) -> Result<LogicalPlan> {
    let schema = Arc::clone(input.schema());
    if !schema.fields().iter().any(|field| has_equals(field)) {
        return Ok(input);
    }
    let columns = schema.iter().map(|(relation, field)| {
        let column = Expr::Column(datafusion::common::Column::from((relation, field)));
        if has_equals(field) { comparable(column).alias_qualified(relation.cloned(), field.name()) } else { column }
    });
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(input))?))
}

//! Makes DataFusion compare, group, join and sort by PostgreSQL's equality. Where a type has equal
//! values with different bits, its values are made comparable first (see
//! [`crate::functions::comparable`]).
//!
//! Runs when types are known. The rule only adds to plans: no column changes its name or its type
//! ([`super::shown`]).

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinConstraint};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{
    AggregateFunction, InSubquery, ScalarFunction, SetComparison, Sort as SortExpr, WindowFunction,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, BinaryExpr, Case, Expr, ExprSchemable, Join, LogicalPlan, Operator, Projection, Subquery,
    WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use super::shown;
use crate::error::{Error, sqlstate};
use crate::functions::{
    beside_jsonb, comparable, extreme_aggregate, extreme_function, has_equals, is_comparable, kept_jsonb, yields_jsonb,
};
use crate::types::is_jsonb;

/// See the module.
#[derive(Debug)]
pub(crate) struct Equality;

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
            LogicalPlan::Aggregate(aggregate) => shown::groups(aggregate)?,
            LogicalPlan::Distinct(distinct) => shown::distinct(distinct)?,
            LogicalPlan::Sort(mut sort) => {
                sort.expr = sort.expr.into_iter().map(|key| sorted(key, sort.input.schema())).collect();
                Transformed::yes(LogicalPlan::Sort(sort))
            }
            LogicalPlan::Join(join) => Transformed::yes(LogicalPlan::Join(joined(join))),
            LogicalPlan::Unnest(unnest) => {
                check_unnest(unnest.input.schema(), &unnest.exec_columns)?;
                Transformed::no(LogicalPlan::Unnest(unnest))
            }
            plan => Transformed::no(plan),
        })
    })
}

/// Handles comparisons, and expressions that sort or remove duplicates themselves.
fn in_expression(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { mut left, op, mut right }) if compares(op) => {
            all_jsonb([left.as_mut(), right.as_mut()], schema);
            check_jsonb(op, &left, &right, schema)?;
            let (left, right) = (comparable_if_needed(*left, schema), comparable_if_needed(*right, schema));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) }))
        }
        Expr::Between(mut between) => {
            all_jsonb([between.expr.as_mut(), between.low.as_mut(), between.high.as_mut()], schema);
            for operand in [&mut between.expr, &mut between.low, &mut between.high] {
                make_comparable(operand, schema);
            }
            Transformed::yes(Expr::Between(between))
        }
        Expr::InList(mut list) => {
            all_jsonb(std::iter::once(list.expr.as_mut()).chain(&mut list.list), schema);
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
            let compared = when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
            all_jsonb(std::iter::once(operand.as_mut()).chain(compared), schema);
            make_comparable(&mut operand, schema);
            for (when, _) in &mut when_then_expr {
                make_comparable(when, schema);
            }
            Transformed::yes(Expr::Case(Case { expr: Some(operand), when_then_expr, else_expr }))
        }
        Expr::Case(Case { expr: None, mut when_then_expr, mut else_expr }) => {
            let results = when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            all_jsonb(results.chain(else_expr.as_deref_mut()), schema);
            Transformed::yes(Expr::Case(Case { expr: None, when_then_expr, else_expr }))
        }
        Expr::ScalarFunction(mut call) if call.name() == "coalesce" => {
            all_jsonb(&mut call.args, schema);
            Transformed::yes(Expr::ScalarFunction(call))
        }
        Expr::ScalarFunction(call) if call.name() == "nullif" => null_if(call, schema)?,
        Expr::ScalarFunction(mut call) if matches!(call.name(), "greatest" | "least") => {
            all_jsonb(&mut call.args, schema);
            if let Some(own) = extreme_function(call.name())
                && call.args.iter().any(|argument| needs_comparable(argument, schema))
            {
                call.func = own;
            }
            Transformed::yes(Expr::ScalarFunction(call))
        }
        Expr::AggregateFunction(AggregateFunction { mut func, mut params }) => {
            if let Some(own) = extreme(func.name(), &params.args, schema)? {
                func = own;
            } else if params.distinct {
                check_distinct(func.name(), &params.args, schema)?;
                params.args = params.args.into_iter().map(|argument| comparable_if_needed(argument, schema)).collect();
            }
            params.order_by = params.order_by.into_iter().map(|key| sorted(key, schema)).collect();
            Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params }))
        }
        Expr::WindowFunction(mut call) => {
            let WindowFunction { fun, params } = call.as_mut();
            if let WindowFunctionDefinition::AggregateUDF(aggregate) = fun
                && let Some(own) = extreme(aggregate.name(), &params.args, schema)?
            {
                *aggregate = own;
            }
            check_kept(fun.name(), &params.args, schema)?;
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

pub(crate) fn compares(op: Operator) -> bool {
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

/// Makes a value comparable, and the sub-query that it is looked up in.
fn with_subquery(mut expr: Box<Expr>, subquery: Subquery, schema: &DFSchema) -> Result<(Box<Expr>, Subquery)> {
    make_comparable(&mut expr, schema);
    let plan = all_comparable(Arc::unwrap_or_clone(Arc::clone(&subquery.subquery)))?;
    Ok((expr, subquery.with_plan(Arc::new(plan))))
}

/// Expands `nullif`, which compares inside the function, into the CASE that defines it.
fn null_if(mut call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let [value, other] = call.args.as_mut_slice() else {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    };
    all_jsonb([&mut *value, &mut *other], schema);
    if !needs_comparable(value, schema) {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    }
    let (value, other) = (std::mem::take(value), std::mem::take(other));
    let equal = comparable_if_needed(value.clone(), schema).eq(comparable_if_needed(other, schema));
    let null = Expr::Literal(ScalarValue::try_from(value.get_type(schema)?)?, None);
    let case = Case::new(None, vec![(Box::new(equal), Box::new(null))], Some(Box::new(value)));
    Ok(Transformed::yes(Expr::Case(case)))
}

/// The aggregate that replaces `min` or `max` where DataFusion's would compare values by their
/// bits.
fn extreme(name: &str, arguments: &[Expr], schema: &DFSchema) -> Result<Option<Arc<AggregateUDF>>> {
    let (Some(own), Some(argument)) = (extreme_aggregate(name), arguments.first()) else { return Ok(None) };
    if yields_jsonb(argument, schema) {
        let message = format!("function {name}(jsonb) does not exist");
        return Err(Error::user(sqlstate::UNDEFINED_FUNCTION, message).with_hint("cast a part of it to a type").into());
    }
    let is_list = argument.get_type(schema).is_ok_and(|ty| matches!(ty, DataType::List(_)));
    Ok((is_list || needs_comparable(argument, schema)).then_some(own))
}

/// Refuses DISTINCT where comparable arguments would change the aggregate's result.
fn check_distinct(name: &str, arguments: &[Expr], schema: &DFSchema) -> Result<()> {
    let changes = |argument: &Expr| {
        let ty = argument.get_type(schema).unwrap_or(DataType::Null);
        needs_comparable(argument, schema) && !ty.is_floating()
    };
    if name == "count" || !arguments.iter().any(changes) {
        return Ok(());
    }
    Err(Error::unsupported(format!("{name}(DISTINCT …) of such values is not supported yet"))
        .with_hint("remove the duplicates in a sub-query")
        .into())
}

/// Refuses these window functions of jsonb, because DataFusion forgets that their results are
/// jsonb.
fn check_kept(name: &str, arguments: &[Expr], schema: &DFSchema) -> Result<()> {
    let forgets = matches!(name, "first_value" | "last_value" | "nth_value");
    if forgets && arguments.first().is_some_and(|argument| yields_jsonb(argument, schema)) {
        let message = format!("{name} of a jsonb is not supported yet");
        return Err(Error::unsupported(message).with_hint("cast it to text").into());
    }
    Ok(())
}

/// Refuses unnest of jsonb elements, which DataFusion forgets are jsonb, and of nested arrays.
fn check_unnest(schema: &DFSchema, columns: &[Column]) -> Result<()> {
    let field_of = |column: &Column| schema.qualified_field_from_column(column);
    let is_deep = |column: &Column| {
        field_of(column).is_ok_and(|(_, field)| {
            matches!(field.data_type(), DataType::List(element) if matches!(element.data_type(), DataType::List(_)))
        })
    };
    if columns.iter().any(is_deep) {
        let message = "unnest of an array of several dimensions is not supported yet";
        return Err(Error::unsupported(message).with_hint("unnest the elements of a sub-query's rows").into());
    }
    let holds_jsonb = |column: &Column| {
        let field = field_of(column);
        field.is_ok_and(|(_, field)| matches!(field.data_type(), DataType::List(element) if is_jsonb(element)))
    };
    if columns.iter().any(holds_jsonb) {
        return Err(Error::unsupported("unnest of jsonb[] is not supported yet").with_hint("cast it to text[]").into());
    }
    Ok(())
}

/// Refuses comparisons of a jsonb with another type.
fn check_jsonb(op: Operator, left: &Expr, right: &Expr, schema: &DFSchema) -> Result<()> {
    let is_other = |expr: &Expr| {
        !yields_jsonb(expr, schema) && expr.get_type(schema).is_ok_and(|ty| !ty.is_null()) && !is_null_literal(expr)
    };
    let (one, other) = (yields_jsonb(left, schema), yields_jsonb(right, schema));
    if (one && is_other(right)) || (other && is_other(left)) {
        let message = format!("operator does not exist: jsonb {op} with another type");
        return Err(Error::user(sqlstate::UNDEFINED_FUNCTION, message)
            .with_hint("take the value out by ->>, or cast the other side to jsonb")
            .into());
    }
    Ok(())
}

fn is_null_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null(),
        Expr::Cast(cast) => is_null_literal(&cast.expr),
        _ => false,
    }
}

fn joined(mut join: Join) -> Join {
    if !join.on.iter().any(|(left, _)| needs_comparable(left, join.left.schema())) {
        return join;
    }
    let side = |key: Expr, input: &LogicalPlan| comparable_if_needed(key, input.schema());
    let pairs = std::mem::take(&mut join.on).into_iter();
    join.on = pairs.map(|(left, right)| (side(left, &join.left), side(right, &join.right))).collect();
    // USING allows only columns as keys. Its effect on the shown columns is already in the plan.
    join.join_constraint = JoinConstraint::On;
    join
}

fn sorted(mut key: SortExpr, schema: &DFSchema) -> SortExpr {
    make_comparable(&mut key.expr, schema);
    key
}

/// Converts each literal that is compared with a jsonb to jsonb. DataFusion would compare the
/// literal's text as it was written.
fn all_jsonb<'a>(operands: impl IntoIterator<Item = &'a mut Expr>, schema: &DFSchema) {
    let mut operands: Vec<&mut Expr> = operands.into_iter().collect();
    if operands.iter().any(|operand| yields_jsonb(operand, schema)) {
        for operand in &mut operands {
            let taken = std::mem::take(*operand);
            **operand = beside_jsonb(taken);
        }
    }
}

fn make_comparable(expr: &mut Expr, schema: &DFSchema) {
    let taken = std::mem::take(expr);
    *expr = comparable_if_needed(taken, schema);
}

pub(super) fn comparable_if_needed(expr: Expr, schema: &DFSchema) -> Expr {
    if is_comparable(&expr) || !needs_comparable(&expr, schema) {
        return expr;
    }
    let is_told = expr.to_field(schema).is_ok_and(|(_, field)| has_equals(&field));
    comparable(if is_told { expr } else { kept_jsonb(expr) })
}

pub(super) fn needs_comparable(expr: &Expr, schema: &DFSchema) -> bool {
    // An expression without a type is an error that others report better.
    yields_jsonb(expr, schema) || expr.to_field(schema).is_ok_and(|(_, field)| has_equals(&field))
}

/// Adds a projection that makes every column comparable.
fn all_comparable(input: LogicalPlan) -> Result<LogicalPlan> {
    let schema = Arc::clone(input.schema());
    if !schema.fields().iter().any(|field| has_equals(field)) {
        return Ok(input);
    }
    let columns = schema.iter().map(|(relation, field)| {
        let column = Expr::Column(Column::from((relation, field)));
        if has_equals(field) { comparable(column).alias_qualified(relation.cloned(), field.name()) } else { column }
    });
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(input))?))
}

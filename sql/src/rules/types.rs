//! Gives numbers and times the types that they have in PostgreSQL, where DataFusion's differ.
//!
//! * A whole literal that fits is an `integer`; DataFusion's are all `bigint`.
//! * `sum` of a `bigint` is `numeric`, so that it cannot overflow; DataFusion's is a `bigint` that
//!   wraps around. `sum` of a `numeric` has room for ten more digits.
//! * `avg` of whole numbers and of `numeric` is `numeric`: the quotient of their sum and their
//!   count.
//! * Arithmetic of `numeric` is that of [`crate::functions`]. Beside a floating-point number a
//!   `numeric` becomes one, in arithmetic and in comparisons.
//! * `sum` of a `real` is a `real`; DataFusion's is double precision. `round` of either rounds
//!   halves to even.
//! * A date plus an interval is a timestamp; DataFusion's is a date.
//! * A row is NULL if all its fields are, and is not NULL if none of them is.
//! * Times have microseconds, as do literals beside them; DataFusion's have nanoseconds.
//!
//! Runs before types are coerced; the coercion also updates the schemas of the plan. VALUES and
//! recursive plans fix their types when they are made, so they keep DataFusion's.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, Alias, ScalarFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, Between, BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, Projection, Window,
    WindowFunctionDefinition, binary_expr,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use super::equality::compares;
use crate::functions::{all_fields, comparable, decimal_operation, exact_sum, quotient, round_to_even};

/// The type in which a `bigint` is summed: 20 digits hold it, and a sum has ten more.
const SUMMED: DataType = DataType::Decimal128(20, 0);
/// A numeric with more digits than this is summed in 256 bits.
const SUMMED_DIGITS_MAX: u8 = DECIMAL128_MAX_PRECISION - 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Types;

impl AnalyzerRule for Types {
    fn name(&self) -> &str {
        "types"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        if plan.exists(|node| Ok(matches!(node, LogicalPlan::RecursiveQuery(_))))? {
            return Ok(plan);
        }
        Ok(plan.transform_up_with_subqueries(in_plan)?.data)
    }
}

/// Replaces averages of floating-point numbers by the quotient of a sum and a count. The sum is
/// exact ([`ExactSums`]), and in a plan that keeps an answer up to date both can be updated. Runs
/// after [`Types`].
#[derive(Debug)]
pub(crate) struct Averages;

impl AnalyzerRule for Averages {
    fn name(&self) -> &str {
        "averages"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        if plan.exists(|node| Ok(matches!(node, LogicalPlan::RecursiveQuery(_))))? {
            return Ok(plan);
        }
        let changed = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Aggregate(aggregate) => averages(aggregate, Averaged::Floating),
            plan => Ok(Transformed::no(plan)),
        });
        Ok(changed?.data)
    }
}

/// Sums floating-point numbers exactly, so that the order of rows does not matter. Runs once types
/// are coerced.
#[derive(Debug)]
pub(crate) struct ExactSums;

impl AnalyzerRule for ExactSums {
    fn name(&self) -> &str {
        "exact_sums"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let is_float = |arguments: &[Expr], schema: &DFSchema| match arguments {
            [argument] => argument.get_type(schema).is_ok_and(|ty| ty == DataType::Float64),
            _ => false,
        };
        let changed = plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            plan.map_expressions(|expr| {
                expr.transform_up(|expr| match expr {
                    Expr::AggregateFunction(mut call)
                        if call.func.name() == "sum" && is_float(&call.params.args, &schema) =>
                    {
                        call.func = exact_sum();
                        Ok(Transformed::yes(Expr::AggregateFunction(call)))
                    }
                    Expr::WindowFunction(mut call)
                        if call.fun.name() == "sum" && is_float(&call.params.args, &schema) =>
                    {
                        call.fun = WindowFunctionDefinition::AggregateUDF(exact_sum());
                        Ok(Transformed::yes(Expr::WindowFunction(call)))
                    }
                    expr => Ok(Transformed::no(expr)),
                })
            })
        });
        Ok(changed?.data)
    }
}

/// The numbers whose averages are replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Averaged {
    Exact,
    Floating,
}

fn in_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if matches!(plan, LogicalPlan::Values(_) | LogicalPlan::Limit(_)) {
        return Ok(Transformed::no(plan));
    }
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let changed = plan.map_expressions(|expr| {
        // Operators above refer to a grouping set by the names of its parts, which would change.
        if matches!(expr, Expr::GroupingSet(_)) {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let changed = expr.transform_up(|expr| in_expression(expr, &schema))?;
        Ok(changed.update_data(|expr| name.restore(expr)))
    })?;
    // Operators above look up the types of this operator's columns.
    let changed = changed.map_data(LogicalPlan::recompute_schema)?;
    changed.transform_data(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) => averages(aggregate, Averaged::Exact),
        LogicalPlan::Window(window) => real_sums(window),
        plan => Ok(Transformed::no(plan)),
    })
}

fn in_expression(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => match i32::try_from(value) {
            Ok(value) => Transformed::yes(Expr::Literal(ScalarValue::Int32(Some(value)), metadata)),
            Err(_) => Transformed::no(Expr::Literal(ScalarValue::Int64(Some(value)), metadata)),
        },
        Expr::Cast(Cast { expr, field }) if *field.data_type() == DataType::Time64(TimeUnit::Nanosecond) => {
            Transformed::yes(Expr::Cast(Cast::new(expr, DataType::Time64(TimeUnit::Microsecond))))
        }
        Expr::BinaryExpr(binary) => in_binary(binary, schema),
        Expr::IsNull(operand) if is_row(&operand, schema) => Transformed::yes(all_fields(*operand, true)),
        Expr::IsNotNull(operand) if is_row(&operand, schema) => Transformed::yes(all_fields(*operand, false)),
        Expr::Between(Between { expr, negated, low, high }) => {
            let floats = [&expr, &low, &high].iter().any(|operand| is_float(operand, schema));
            let time = [&expr, &low, &high].into_iter().find_map(|operand| timestamp_of(operand, schema));
            let [expr, low, high] = [expr, low, high]
                .map(|operand| as_float_beside(floats, operand, schema))
                .map(|operand| as_time_beside(time.as_ref(), operand));
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::InList(mut list) => {
            let floats = is_float(&list.expr, schema) || list.list.iter().any(|value| is_float(value, schema));
            let time = timestamp_of(&list.expr, schema);
            list.expr = as_float_beside(floats, list.expr, schema);
            let beside = |value| *as_time_beside(time.as_ref(), as_float_beside(floats, Box::new(value), schema));
            list.list = list.list.into_iter().map(beside).collect();
            Transformed::yes(Expr::InList(list))
        }
        Expr::AggregateFunction(mut call) if call.func.name() == "sum" => {
            call.params.args = summed(call.params.args, schema);
            Transformed::yes(Expr::AggregateFunction(call))
        }
        Expr::WindowFunction(mut call) if matches!(&call.fun, WindowFunctionDefinition::AggregateUDF(sum) if sum.name() == "sum") =>
        {
            call.params.args = summed(call.params.args, schema);
            Transformed::yes(Expr::WindowFunction(sorted_by_length(call, schema)))
        }
        Expr::WindowFunction(call) => Transformed::yes(Expr::WindowFunction(sorted_by_length(call, schema))),
        Expr::ScalarFunction(mut call) if call.name() == "round" && call.args.len() == 1 => match call.args.pop() {
            Some(number) if is_float(&number, schema) => Transformed::yes(round_to_even(number)),
            number => {
                call.args.extend(number);
                Transformed::no(Expr::ScalarFunction(call))
            }
        },
        expr => Transformed::no(expr),
    })
}

/// Sorts a window over intervals by their lengths, because DataFusion has no ranges of intervals.
fn sorted_by_length(mut call: Box<WindowFunction>, schema: &DFSchema) -> Box<WindowFunction> {
    for key in &mut call.params.order_by {
        if key.expr.get_type(schema).is_ok_and(|ty| matches!(ty, DataType::Interval(_))) {
            let interval = std::mem::take(&mut key.expr);
            key.expr = comparable(interval);
        }
    }
    call
}

fn in_binary(BinaryExpr { left, op, right }: BinaryExpr, schema: &DFSchema) -> Transformed<Expr> {
    // An expression without a type is an error that others report better.
    let types = left.get_type(schema).ok().zip(right.get_type(schema).ok());
    if let Some(operation) = types.and_then(|(left, right)| decimal_operation(op, &left, &right)) {
        let call = ScalarFunction::new_udf(Arc::new(operation), vec![*left, *right]);
        return Transformed::yes(Expr::ScalarFunction(call));
    }
    let types = [&left, &right].map(|operand| operand.get_type(schema).unwrap_or(DataType::Null));
    let floats = types.iter().any(DataType::is_floating);
    let [left, right] = [left, right].map(|operand| as_float_beside(floats, operand, schema));
    // PostgreSQL converts both a `real` and a whole number beside it to double precision.
    let real = types.contains(&DataType::Float32);
    let [left, right] = [left, right].map(|operand| match operand.get_type(schema) {
        Ok(ty) if real && ty.is_integer() => Box::new(Expr::Cast(Cast::new(operand, DataType::Float64))),
        _ => operand,
    });
    let (left, right) = (beside(left, &types[0], &types[1]), beside(right, &types[1], &types[0]));
    let time = [&left, &right].into_iter().find_map(|operand| timestamp_of(operand, schema));
    let time = time.filter(|_| compares(op));
    let [left, right] = [left, right].map(|operand| as_time_beside(time.as_ref(), operand));
    Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
}

/// Casts a date beside an interval to a timestamp.
fn beside(operand: Box<Expr>, ty: &DataType, other: &DataType) -> Box<Expr> {
    match (ty, other) {
        (DataType::Date32, DataType::Interval(_)) => {
            Box::new(Expr::Cast(Cast::new(operand, DataType::Timestamp(TimeUnit::Microsecond, None))))
        }
        _ => operand,
    }
}

fn timestamp_of(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    expr.get_type(schema).ok().filter(|ty| matches!(ty, DataType::Timestamp(..)))
}

/// Casts a literal beside a timestamp to the timestamp's type. DataFusion's type has nanoseconds,
/// and ends in the year 2262.
fn as_time_beside(time: Option<&DataType>, expr: Box<Expr>) -> Box<Expr> {
    match (time, expr.as_ref()) {
        (Some(time), Expr::Literal(ScalarValue::Utf8(Some(_)), _)) => {
            Box::new(Expr::Cast(Cast::new(expr, time.clone())))
        }
        _ => expr,
    }
}

fn is_row(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|ty| matches!(ty, DataType::Struct(_)))
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|ty| ty.is_floating())
}

/// Casts a numeric beside a floating-point number to double precision.
fn as_float_beside(floats: bool, expr: Box<Expr>, schema: &DFSchema) -> Box<Expr> {
    let becomes = floats && expr.get_type(schema).is_ok_and(|ty| ty.is_decimal());
    if becomes { Box::new(Expr::Cast(Cast::new(expr, DataType::Float64))) } else { expr }
}

/// Casts the argument of a sum to a type that has room for the sum.
fn summed(arguments: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let room = match arguments.as_slice() {
        [argument] => match argument.get_type(schema) {
            Ok(DataType::Int64 | DataType::UInt64) => Some(SUMMED),
            Ok(DataType::Decimal128(precision, scale)) if precision > SUMMED_DIGITS_MAX => {
                Some(DataType::Decimal256(precision, scale))
            }
            _ => None,
        },
        _ => None,
    };
    match room {
        Some(ty) => {
            arguments.into_iter().map(|argument| Expr::Cast(Cast::new(Box::new(argument), ty.clone()))).collect()
        }
        None => arguments,
    }
}

/// Replaces each average of such numbers by the quotient of a sum and a count, under the average's
/// name. With those of exact numbers, casts each sum of `real` to `real`.
fn averages(mut aggregate: Aggregate, averaged: Averaged) -> Result<Transformed<LogicalPlan>> {
    let input = Arc::clone(aggregate.input.schema());
    let is_narrowed = |expr: &Expr| averaged == Averaged::Exact && is_real_sum(expr, &input);
    if !aggregate.aggr_expr.iter().any(|expr| average(expr, averaged, &input).is_some() || is_narrowed(expr)) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let schema = Arc::clone(&aggregate.schema);
    let first = schema.fields().len() - aggregate.aggr_expr.len();
    let column = |index: usize| Expr::Column(Column::from(schema.qualified_field(index)));
    let mut results: Vec<Expr> = (0..first).map(column).collect();
    let mut computed: Vec<Expr> = Vec::new();
    let place = |expr: Expr, computed: &mut Vec<Expr>| {
        let column = Expr::Column(Column::new_unqualified(expr.schema_name().to_string()));
        if !computed.contains(&expr) {
            computed.push(expr);
        }
        column
    };
    for (index, expr) in std::mem::take(&mut aggregate.aggr_expr).into_iter().enumerate() {
        let Some(call) = average(&expr, averaged, &input).cloned() else {
            let result = column(first + index);
            results.push(if is_narrowed(&expr) { as_real(result) } else { result });
            computed.push(expr);
            continue;
        };
        let mut sum = call.clone();
        sum.func = sum_udaf();
        sum.params.args = match averaged {
            Averaged::Exact => summed(whole_summed(sum.params.args, &input), &input),
            Averaged::Floating => {
                let is_double = |argument: &Expr| argument.get_type(&input).is_ok_and(|ty| ty == DataType::Float64);
                let double = |argument| if is_double(&argument) { argument } else { as_double(argument) };
                sum.params.args.into_iter().map(double).collect()
            }
        };
        let mut count = call;
        count.func = count_udaf();
        let name = column(first + index);
        let sum = place(Expr::AggregateFunction(sum).alias(format!("{name}.sum")), &mut computed);
        let count = place(Expr::AggregateFunction(count).alias(format!("{name}.count")), &mut computed);
        let (relation, name) = name.qualified_name();
        let average = match averaged {
            Averaged::Exact => quotient(sum, count),
            Averaged::Floating => binary_expr(sum, Operator::Divide, as_double(count)),
        };
        results.push(average.alias_qualified(relation, name));
    }
    let aggregate = Aggregate::try_new(aggregate.input, aggregate.group_expr, computed)?;
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(
        results,
        Arc::new(LogicalPlan::Aggregate(aggregate)),
    )?)))
}

/// Adds a projection over a window that casts sums of `real` to `real`.
fn real_sums(window: Window) -> Result<Transformed<LogicalPlan>> {
    let input = Arc::clone(window.input.schema());
    let sums: Vec<bool> = window.window_expr.iter().map(|expr| is_real_sum(expr, &input)).collect();
    if !sums.contains(&true) {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let first = input.fields().len();
    let results = window.schema.iter().enumerate().map(|(index, field)| {
        let column = Expr::Column(Column::from(field));
        let is_sum = index.checked_sub(first).and_then(|index| sums.get(index)).is_some_and(|sum| *sum);
        if is_sum { as_real(column) } else { column }
    });
    let results = results.collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(results, Arc::new(LogicalPlan::Window(window)))?)))
}

fn is_real_sum(expr: &Expr, schema: &DFSchema) -> bool {
    let (name, arguments) = match expr {
        Expr::Alias(Alias { expr, .. }) => return is_real_sum(expr, schema),
        Expr::AggregateFunction(call) => (call.func.name(), &call.params.args),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => (function.name(), &call.params.args),
            WindowFunctionDefinition::WindowUDF(_) => return false,
        },
        _ => return false,
    };
    let is_real = |argument: &Expr| argument.get_type(schema).is_ok_and(|ty| ty == DataType::Float32);
    name == "sum" && arguments.first().is_some_and(is_real)
}

fn as_double(expr: Expr) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), DataType::Float64))
}

/// Casts a column to `real` and keeps its name.
fn as_real(column: Expr) -> Expr {
    let (relation, name) = column.qualified_name();
    Expr::Cast(Cast::new(Box::new(column), DataType::Float32)).alias_qualified(relation, name)
}

/// Casts integers to the type in which a `bigint` is summed, so that their sums are exact too.
fn whole_summed(arguments: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let widened = |argument: Expr| match argument.get_type(schema) {
        Ok(ty) if ty.is_integer() => Expr::Cast(Cast::new(Box::new(argument), SUMMED)),
        _ => argument,
    };
    arguments.into_iter().map(widened).collect()
}

/// The call, if it is an average of such numbers.
fn average<'a>(expr: &'a Expr, averaged: Averaged, schema: &DFSchema) -> Option<&'a AggregateFunction> {
    match expr {
        Expr::Alias(Alias { expr, .. }) => average(expr, averaged, schema),
        Expr::AggregateFunction(call) if call.func.name() == "avg" => {
            let [argument] = call.params.args.as_slice() else { return None };
            let ty = argument.get_type(schema).ok()?;
            let is_averaged = match averaged {
                Averaged::Exact => ty.is_integer() || ty.is_decimal(),
                Averaged::Floating => ty.is_floating(),
            };
            is_averaged.then_some(call)
        }
        _ => None,
    }
}

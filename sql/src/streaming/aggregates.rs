//! Aggregates of plans: which are kept up to date, and the order in which they take rows.

use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, SortExpr};
use weir_common::plan::{AggregateCall, SortKey};
use weir_common::types::SqlType;

use super::refused;
use crate::error::Error;
use crate::functions::key;
use crate::types::stored_type;

/// An aggregate over columns; `place` gives the place of an expression among them.
pub(super) fn call(
    expr: &Expr,
    input: &DFSchema,
    place: &mut dyn FnMut(&Expr) -> Result<usize, Error>,
) -> Result<AggregateCall, Error> {
    let (_, field) = expr.to_field(input)?;
    let ty = stored_type(&field).ok_or_else(|| refused(&format!("a value of the type {}", field.data_type())))?;
    let expr = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        expr => expr,
    };
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else {
        return Err(refused(&format!("the aggregate {expr}")));
    };
    let name = func.name();
    if params.null_treatment.is_some() {
        return Err(refused("IGNORE NULLS or RESPECT NULLS"));
    }
    let argument = check_argument(name, &params.args, input)?;
    // count(*) counts a constant.
    let counted = |expr: &&Expr| !(name == "count" && matches!(expr, Expr::Literal(value, _) if !value.is_null()));
    // Equal values that are not the same count once.
    let by_key = name == "count" && params.distinct && argument.as_ref().is_some_and(|ty| !ty.can_be_key());
    let placed = |expr: &Expr| if by_key { place(&key(expr.clone())) } else { place(expr) };
    let arguments: Vec<usize> = params.args.iter().filter(counted).map(placed).collect::<Result<_, _>>()?;
    let filter = params.filter.as_deref().map(&mut *place).transpose()?;
    let mut order = Vec::new();
    if is_ordered(name) {
        for key in &params.order_by {
            order.push(sort_key(key, input, place)?);
        }
    }
    let mut call = AggregateCall {
        function: name.to_owned(),
        revision: 1,
        arguments,
        distinct: params.distinct,
        filter,
        order,
        values: None,
        ty,
    };
    if matches!(name, "min" | "max") && !argument.is_some_and(|ty| ty.can_be_key()) {
        // The value cannot be told from its key, so it is kept beside it.
        let descending = name == "max";
        call.order = vec![SortKey { column: call.arguments[0], descending, nulls_first: false }];
        "first_value".clone_into(&mut call.function);
    }
    Ok(call)
}

fn is_ordered(name: &str) -> bool {
    matches!(name, "array_agg" | "string_agg" | "first_value" | "last_value")
}

/// Completes the order of an aggregate, so that no two rows are equal in it unless it makes no
/// difference which comes first. `key`: the columns that identify a row.
pub(super) fn complete(call: &mut AggregateCall, key: impl FnOnce() -> Vec<usize>) {
    if !is_ordered(&call.function) {
        return;
    }
    let is_sorted_by = |column: usize| call.order.iter().any(|key| key.column == column);
    if !call.distinct && !call.arguments.iter().all(|argument| is_sorted_by(*argument)) {
        let key: Vec<usize> = key().into_iter().filter(|column| !is_sorted_by(*column)).collect();
        call.order.extend(key.into_iter().map(SortKey::ascending));
    }
    if call.function == "last_value" {
        call.order.iter_mut().for_each(|key| *key = key.reversed());
        "first_value".clone_into(&mut call.function);
    }
}

fn sort_key(
    key: &SortExpr,
    input: &DFSchema,
    place: &mut dyn FnMut(&Expr) -> Result<usize, Error>,
) -> Result<SortKey, Error> {
    let (_, field) = key.expr.to_field(input)?;
    if !stored_type(&field).is_some_and(|ty| ty.can_be_grouped()) {
        return Err(refused(&format!("ORDER BY of the type {}", field.data_type())));
    }
    Ok(SortKey { column: place(&key.expr)?, descending: !key.asc, nulls_first: key.nulls_first })
}

/// Checks that an aggregate is kept up to date over values of this type, which it returns.
fn check_argument(name: &str, arguments: &[Expr], input: &DFSchema) -> Result<Option<SqlType>, Error> {
    let argument = match (name, arguments) {
        (_, [argument]) | ("string_agg", [argument, _]) => argument,
        _ => return Err(refused(&format!("the aggregate {name} of several values"))),
    };
    let (_, field) = argument.to_field(input)?;
    let ty = stored_type(&field);
    let is_kept = match name {
        "count" => ty.as_ref().is_none_or(SqlType::can_be_grouped),
        "sum" | "var_pop" | "var_samp" | "stddev_pop" | "stddev_samp" => field.data_type().is_numeric(),
        "bit_and" | "bit_or" | "bit_xor" => field.data_type().is_integer(),
        "min" | "max" => ty.as_ref().is_some_and(|ty| ty.can_be_grouped() && *ty != SqlType::Jsonb),
        "bool_and" | "bool_or" => ty == Some(SqlType::Boolean),
        "string_agg" => matches!(ty, Some(SqlType::Varchar | SqlType::Bytea)),
        // The result does not say that it is jsonb.
        "array_agg" | "first_value" | "last_value" => ty.as_ref().is_some_and(|ty| *ty != SqlType::Jsonb),
        _ => return Err(refused(&format!("the aggregate {name}"))),
    };
    let shown = ty.as_ref().map_or_else(|| field.data_type().to_string(), SqlType::to_string);
    if is_kept { Ok(ty) } else { Err(refused(&format!("the aggregate {name} of the type {shown}"))) }
}

//! Aggregates of plans: which are kept up to date, and the state that each needs.

use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, ExprSchemable};
use weir_common::plan::AggregateCall;
use weir_common::types::SqlType;

use super::refused;
use crate::error::Error;
use crate::types::stored_type;

/// Aggregates whose partial results add up, deletes counted as negative.
const LINEAR: [&str; 2] = ["count", "sum"];
/// Aggregates that need all values of a group once something is deleted.
const EXTREMES: [&str; 2] = ["min", "max"];
/// Aggregates whose partial results can be put together as long as nothing is deleted.
const DECOMPOSABLE: [&str; 4] = ["min", "max", "bool_and", "bool_or"];

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
    if !params.order_by.is_empty() || params.null_treatment.is_some() {
        return Err(refused("an ordered aggregate"));
    }
    check_argument(name, &params.args, input)?;
    // count(*) counts a constant.
    let counted = |expr: &&Expr| !(name == "count" && matches!(expr, Expr::Literal(value, _) if !value.is_null()));
    let arguments = params.args.iter().filter(counted).map(&mut *place).collect::<Result<_, _>>()?;
    let filter = params.filter.as_deref().map(place).transpose()?;
    Ok(AggregateCall {
        function: name.to_owned(),
        revision: 1,
        arguments,
        distinct: params.distinct,
        filter,
        values: None,
        ty,
    })
}

/// Checks that an aggregate is kept up to date over values of this type.
fn check_argument(name: &str, arguments: &[Expr], input: &DFSchema) -> Result<(), Error> {
    if !LINEAR.contains(&name) && !DECOMPOSABLE.contains(&name) {
        return Err(refused(&format!("the aggregate {name}")));
    }
    let [argument] = arguments else { return Err(refused(&format!("the aggregate {name} of several values"))) };
    let (_, field) = argument.to_field(input)?;
    let ty = stored_type(&field);
    let is_kept = match name {
        "sum" => field.data_type().is_numeric(),
        "min" | "max" => ty.as_ref().is_some_and(SqlType::can_be_key),
        "bool_and" | "bool_or" => ty == Some(SqlType::Boolean),
        _ => true,
    };
    let shown = ty.map_or_else(|| field.data_type().to_string(), |ty| ty.to_string());
    if is_kept { Ok(()) } else { Err(refused(&format!("the aggregate {name} of the type {shown}"))) }
}

/// True if partial results of the aggregate can be put together. `append_only`: nothing is ever
/// deleted.
pub(super) fn adds_up(call: &AggregateCall, append_only: bool) -> bool {
    let name = call.function.as_str();
    !call.distinct && (LINEAR.contains(&name) || (append_only && DECOMPOSABLE.contains(&name)))
}

/// True if the aggregate needs to know how often each value occurs in a group.
pub(super) fn needs_values(call: &AggregateCall, append_only: bool) -> bool {
    call.distinct || (!append_only && EXTREMES.contains(&call.function.as_str()))
}

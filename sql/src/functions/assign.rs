//! Values that are assigned to columns of a table.
//!
//! A statement that writes calls `weir_assign(value, type, column)` for each value. PostgreSQL
//! converts the value to the column's type only where it has an assignment cast between the types:
//! fewer than CAST has. Once types are known the call becomes a cast ([`Assigned`]).

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::scalar::ScalarValue;
use weir_common::types::SqlType;

use crate::error::{Error, sqlstate};
use crate::parser::named_type;
use crate::types::stored_type;

/// The function's name.
pub(crate) const ASSIGN: &str = "weir_assign";

/// The function.
pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(Assign { signature: Signature::any(3, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Assign {
    signature: Signature,
}

impl ScalarUDFImpl for Assign {
    fn name(&self) -> &str {
        ASSIGN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Err(Error::internal("the type of an assigned value depends on the column").into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let text = |place: usize| match args.scalar_arguments.get(place) {
            Some(Some(ScalarValue::Utf8(Some(text)))) => Ok(text.as_str()),
            _ => Err(Error::internal("a value is assigned to an unknown column")),
        };
        let (ty, column) = (column_type(text(1)?)?, text(2)?);
        let given = args.arg_fields.first().ok_or_else(|| Error::internal("no value is assigned"))?;
        check(given, &ty, column)?;
        Ok(Arc::new(ty.field(column)))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(Error::internal("an assignment was not replaced by a cast").into())
    }
}

fn column_type(name: &str) -> Result<SqlType, Error> {
    named_type(name).ok_or_else(|| Error::internal(format!("a column has the type {name}")))
}

/// Checks that PostgreSQL has an assignment cast.
fn check(given: &Field, ty: &SqlType, column: &str) -> Result<(), Error> {
    if *given.data_type() == DataType::Null {
        return Ok(());
    }
    let is = stored_type(given);
    if is.as_ref().is_some_and(|is| is_assignable(is, ty)) {
        return Ok(());
    }
    let is = is.map_or_else(|| given.data_type().to_string(), |is| is.to_string());
    let message = format!("column \"{column}\" is of type {ty} but expression is of type {is}");
    Err(Error::user(sqlstate::DATATYPE_MISMATCH, message).with_hint("you will need to rewrite or cast the expression"))
}

fn is_assignable(from: &SqlType, to: &SqlType) -> bool {
    match (from, to) {
        (from, to) if from == to => true,
        (_, SqlType::Varchar)
        | (SqlType::Date, SqlType::Timestamp | SqlType::Timestamptz)
        | (SqlType::Timestamp, SqlType::Date | SqlType::Time | SqlType::Timestamptz)
        | (SqlType::Timestamptz, SqlType::Date | SqlType::Time | SqlType::Timestamp) => true,
        (SqlType::Array(from), SqlType::Array(to)) => is_assignable(from, to),
        (SqlType::Struct(from), SqlType::Struct(to)) => {
            from.len() == to.len() && from.iter().zip(to).all(|(from, to)| is_assignable(&from.ty, &to.ty))
        }
        (from, to) => is_number(from) && is_number(to),
    }
}

fn is_number(ty: &SqlType) -> bool {
    matches!(
        ty,
        SqlType::SmallInt
            | SqlType::Integer
            | SqlType::BigInt
            | SqlType::Real
            | SqlType::Double
            | SqlType::Numeric
            | SqlType::Decimal { .. }
    )
}

/// Replaces assignments by casts. Applied after types are coerced, ahead of the casts' own rewrite.
#[derive(Debug)]
pub(crate) struct Assigned;

impl FunctionRewrite for Assigned {
    fn name(&self) -> &str {
        "assignments"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _config: &ConfigOptions) -> Result<Transformed<Expr>> {
        if !matches!(&expr, Expr::ScalarFunction(call) if call.name() == ASSIGN) {
            return Ok(Transformed::no(expr));
        }
        let field = expr.to_field(schema)?.1;
        let Expr::ScalarFunction(ScalarFunction { mut args, .. }) = expr else {
            return Err(Error::internal("an assignment is a call").into());
        };
        let value = args.swap_remove(0);
        if value.get_type(schema)? == *field.data_type() {
            return Ok(Transformed::yes(value));
        }
        Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(value), field })))
    }
}

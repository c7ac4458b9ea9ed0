//! Functions of floating-point numbers that take the place of what DataFusion does with them: [`float_key`] stands for
//! a number where numbers are compared, and [`rounded`] is what a cast to a whole number begins with.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use crate::error::Error;

/// A number such that PostgreSQL's order is Arrow's: 0 for −0, one NaN for all.
pub(crate) fn float_key(operand: Expr) -> Expr {
    Function::Key.call(operand)
}

/// The operand of a cast to a whole number, as PostgreSQL rounds it where DataFusion cuts off: a floating-point number
/// half to even, a numeric half away from zero. A number in the text of a query is a numeric.
pub(super) fn rounded(operand: Expr, schema: &DFSchema) -> Expr {
    let is_written = match &operand {
        Expr::Negative(operand) => matches!(operand.as_ref(), Expr::Literal(..)),
        operand => matches!(operand, Expr::Literal(..)),
    };
    match operand.get_type(schema) {
        Ok(DataType::Float32 | DataType::Float64) if is_written => Function::RoundAwayFromZero.call(operand),
        Ok(DataType::Float32 | DataType::Float64) => Function::RoundToEven.call(operand),
        Ok(DataType::Decimal128(precision, scale)) if scale > 0 => {
            Expr::Cast(Cast::new(Box::new(operand), DataType::Decimal128(precision, 0)))
        }
        Ok(DataType::Decimal256(precision, scale)) if scale > 0 => {
            Expr::Cast(Cast::new(Box::new(operand), DataType::Decimal256(precision, 0)))
        }
        _ => operand,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Function {
    Key,
    RoundToEven,
    RoundAwayFromZero,
}

impl Function {
    fn call(self, operand: Expr) -> Expr {
        let signature = Signature::any(1, Volatility::Immutable);
        let function = ScalarUDF::from(OfFloat { function: self, signature });
        Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![operand]))
    }

    fn apply(self, operand: &ArrayRef) -> Result<ArrayRef> {
        Ok(match operand.data_type() {
            DataType::Float32 => {
                let of = |value: f32| match self {
                    Function::Key if value.is_nan() => f32::NAN,
                    Function::Key => value + 0.0,
                    Function::RoundToEven => value.round_ties_even(),
                    Function::RoundAwayFromZero => value.round(),
                };
                Arc::new(operand.as_primitive::<Float32Type>().unary::<_, Float32Type>(of))
            }
            DataType::Float64 => {
                let of = |value: f64| match self {
                    Function::Key if value.is_nan() => f64::NAN,
                    Function::Key => value + 0.0,
                    Function::RoundToEven => value.round_ties_even(),
                    Function::RoundAwayFromZero => value.round(),
                };
                Arc::new(operand.as_primitive::<Float64Type>().unary::<_, Float64Type>(of))
            }
            _ => return Err(Error::internal("a function of floating-point numbers has another operand").into()),
        })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfFloat {
    function: Function,
    signature: Signature,
}

impl ScalarUDFImpl for OfFloat {
    fn name(&self) -> &str {
        match self.function {
            Function::Key => "float_key",
            Function::RoundToEven | Function::RoundAwayFromZero => "rounded",
        }
    }

    /// Other parts of a plan refer to a cast by the name of its operand, which was made before this took its place. A key
    /// may stand beside the number itself.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let operand: String = args.iter().map(|operand| operand.schema_name().to_string()).collect();
        Ok(match self.function {
            Function::Key => format!("{}({operand})", self.name()),
            Function::RoundToEven | Function::RoundAwayFromZero => operand,
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        arguments.first().cloned().ok_or_else(|| Error::internal("a function has no operand").into())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            Some(ColumnarValue::Array(operand)) => Ok(ColumnarValue::Array(self.function.apply(operand)?)),
            Some(ColumnarValue::Scalar(operand)) => {
                let result = self.function.apply(&operand.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
            }
            None => Err(Error::internal("a function has no operand").into()),
        }
    }
}

//! `round` of a double precision, where halves go to the even neighbour, as in PostgreSQL.
//! DataFusion rounds them away from zero.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, Float64Array};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;

use crate::error::Error;

/// `round(number)` of a floating-point number; the result is double precision.
pub(crate) fn round_to_even(number: Expr) -> Expr {
    let signature = Signature::new(TypeSignature::Exact(vec![DataType::Float64]), Volatility::Immutable);
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(Round(signature))), vec![number]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Round(Signature);

impl ScalarUDFImpl for Round {
    fn name(&self) -> &str {
        "round"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            Some(ColumnarValue::Scalar(ScalarValue::Float64(number))) => {
                Ok(ColumnarValue::Scalar(ScalarValue::Float64(number.map(f64::round_ties_even))))
            }
            Some(ColumnarValue::Array(numbers)) if *numbers.data_type() == DataType::Float64 => {
                let rounded: Float64Array = numbers.as_primitive::<Float64Type>().unary(f64::round_ties_even);
                Ok(ColumnarValue::Array(Arc::new(rounded)))
            }
            _ => Err(Error::internal("round has another operand than a double precision").into()),
        }
    }
}

//! Values as they are compared: of those that PostgreSQL takes for equal, one.
//!
//! Arrow compares bits. Of floating-point numbers there are two zeros and many NaNs, a month is as long as 30 days, and
//! in a jsonb `1.0` equals `1`: here each becomes the one that stands for all. What is made is only ever compared.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, StringArray};
use datafusion::arrow::datatypes::{
    DataType, Field, FieldRef, Float32Type, Float64Type, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use weir_common::interval::Interval;

use crate::encode::is_jsonb;
use crate::error::Error;

/// Whether equal values of the type may have different bits.
pub(crate) fn has_equals(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Float32 | DataType::Float64 | DataType::Interval(IntervalUnit::MonthDayNano))
        || (*field.data_type() == DataType::Utf8 && is_jsonb(field))
}

/// The call that makes an expression's values comparable.
pub(crate) fn comparable(expr: Expr) -> Expr {
    let function = ScalarUDF::from(Comparable { signature: Signature::any(1, Volatility::Immutable) });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![expr]))
}

/// Whether it is such a call.
pub(crate) fn is_comparable(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == NAME)
}

const NAME: &str = "comparable";

#[derive(Debug, PartialEq, Eq, Hash)]
struct Comparable {
    signature: Signature,
}

impl ScalarUDFImpl for Comparable {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        arguments.first().cloned().ok_or_else(|| Error::internal("a value to compare is missing").into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let operand = args.arg_fields.first().ok_or_else(|| Error::internal("a value to compare is missing"))?;
        Ok(Arc::new(operand.as_ref().clone().with_name(NAME)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (Some(operand), Some(field)) = (args.args.first(), args.arg_fields.first()) else {
            return Err(Error::internal("a value to compare is missing").into());
        };
        Ok(match operand {
            ColumnarValue::Array(array) => ColumnarValue::Array(values(array, field)),
            ColumnarValue::Scalar(scalar) => {
                let one = values(&scalar.to_array()?, field);
                ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?)
            }
        })
    }
}

/// Values to compare in the place of a column's.
pub(super) fn values(array: &ArrayRef, field: &Field) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            let numbers: &PrimitiveArray<Float32Type> = array.as_primitive();
            Arc::new(numbers.unary::<_, Float32Type>(|number| if number.is_nan() { f32::NAN } else { number + 0.0 }))
        }
        DataType::Float64 => {
            let numbers: &PrimitiveArray<Float64Type> = array.as_primitive();
            // The negative zero and zero are zero.
            Arc::new(numbers.unary::<_, Float64Type>(|number| if number.is_nan() { f64::NAN } else { number + 0.0 }))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals: &PrimitiveArray<IntervalMonthDayNanoType> = array.as_primitive();
            Arc::new(intervals.unary::<_, IntervalMonthDayNanoType>(|stored| {
                // A time below a day has as many nanoseconds as fit.
                Interval::from_arrow(stored).normal().to_arrow().unwrap_or(stored)
            }))
        }
        DataType::Utf8 if is_jsonb(field) => {
            let documents = array.as_string::<i32>();
            Arc::new(documents.iter().map(|document| document.map(without_zeros)).collect::<StringArray>())
        }
        _ => Arc::clone(array),
    }
}

/// A jsonb in normal form without the zeros that end its numbers' fractions.
fn without_zeros(document: &str) -> String {
    let bytes = document.as_bytes();
    let mut result = String::with_capacity(document.len());
    let (mut at, mut copied) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'0'..=b'9' => {
                let length = bytes[at..].iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'.')).count();
                let number = &document[at..at + length];
                at += length;
                if number.contains('.') {
                    let shortened = number.trim_end_matches('0').trim_end_matches('.');
                    result.push_str(&document[copied..at - length]);
                    result.push_str(shortened);
                    copied = at;
                }
            }
            _ => at += 1,
        }
    }
    result.push_str(&document[copied..]);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_jsonb_lose_trailing_zeros() {
        for (document, expected) in [
            ("1.0", "1"),
            ("1", "1"),
            ("100", "100"),
            ("-1.500", "-1.5"),
            ("0.00", "0"),
            (r#"{"1.0": "2.0", "b\"1.0": [1.0, 2.50, 10]}"#, r#"{"1.0": "2.0", "b\"1.0": [1, 2.5, 10]}"#),
            (r#""\\""#, r#""\\""#),
            (r#"["é1.0", null, true]"#, r#"["é1.0", null, true]"#),
        ] {
            assert_eq!(without_zeros(document), expected);
        }
    }
}

//! Maps values to a comparable form, which is the same for all values that PostgreSQL considers
//! equal.
//!
//! Arrow compares bits. Floating-point numbers have two zeros and many NaNs, a month is as long as
//! 30 days, and in a jsonb `1.0` equals `1`: each of these is replaced by one representative, and a
//! jsonb by bytes in the order of its values. The results are only compared, never shown.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, ListArray, PrimitiveArray, RecordBatch};
use datafusion::arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, IntervalMonthDayNanoType, IntervalUnit, Schema,
};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use weir_common::interval::Interval;
use weir_common::key::{Keys, jsonb_key};

use crate::error::Error;
use crate::types::is_jsonb;

/// True if equal values of the type may have different bits, or if their order differs from that of
/// their bits.
pub fn has_equals(field: &Field) -> bool {
    match field.data_type() {
        DataType::Float32 | DataType::Float64 | DataType::Interval(IntervalUnit::MonthDayNano) => true,
        DataType::Utf8 => is_jsonb(field),
        DataType::List(element) => has_equals(element),
        _ => false,
    }
}

/// The type of the comparable form of a column's values.
fn compared(field: &Field) -> DataType {
    match field.data_type() {
        DataType::Utf8 if is_jsonb(field) => DataType::Binary,
        // The interval's length in microseconds.
        DataType::Interval(IntervalUnit::MonthDayNano) => LENGTH,
        DataType::List(element) => {
            DataType::List(Arc::new(Field::new(element.name(), compared(element), element.is_nullable())))
        }
        other => other.clone(),
    }
}

/// Wraps an expression in the call that makes its values comparable.
pub fn comparable(expr: Expr) -> Expr {
    let function = ScalarUDF::from(Comparable { signature: Signature::any(1, Volatility::Immutable) });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![expr]))
}

/// True for a call that makes values comparable.
pub(crate) fn is_comparable(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == NAME)
}

const NAME: &str = "comparable";

/// The type of an interval's length.
const LENGTH: DataType = DataType::Decimal128(38, 0);

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
        Ok(Arc::new(Field::new(NAME, compared(operand), operand.is_nullable())))
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

/// The function that returns the key of a value.
pub(crate) const KEY: &str = "key";

/// The key of a value, by which materialized views group: bytes that are equal where the values
/// are.
pub(crate) fn key(expr: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(key_function()), vec![expr]))
}

pub(super) fn key_function() -> ScalarUDF {
    ScalarUDF::from(Key { signature: Signature::any(1, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    signature: Signature,
}

impl ScalarUDFImpl for Key {
    fn name(&self) -> &str {
        KEY
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (Some(operand), Some(field)) = (args.args.first(), args.arg_fields.first()) else {
            return Err(Error::internal("a value to group by is missing").into());
        };
        let values = operand.to_array(args.number_rows)?;
        let schema = Arc::new(Schema::new(vec![field.as_ref().clone().with_nullable(true)]));
        let rows = RecordBatch::try_new(schema, vec![Arc::clone(&values)])?;
        let keys = Keys::new(&rows, &[0]);
        let key = |row: usize| {
            let mut key = Vec::new();
            keys.write(row, &mut key);
            values.is_valid(row).then_some(key)
        };
        Ok(ColumnarValue::Array(Arc::new((0..values.len()).map(key).collect::<BinaryArray>())))
    }
}

/// The comparable form of a column's values.
pub(super) fn values(array: &ArrayRef, field: &Field) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            let numbers: &PrimitiveArray<Float32Type> = array.as_primitive();
            Arc::new(numbers.unary::<_, Float32Type>(|number| if number.is_nan() { f32::NAN } else { number + 0.0 }))
        }
        DataType::Float64 => {
            let numbers: &PrimitiveArray<Float64Type> = array.as_primitive();
            // Adding 0.0 turns the negative zero into zero.
            Arc::new(numbers.unary::<_, Float64Type>(|number| if number.is_nan() { f64::NAN } else { number + 0.0 }))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals: &PrimitiveArray<IntervalMonthDayNanoType> = array.as_primitive();
            let lengths = intervals.unary::<_, Decimal128Type>(|stored| Interval::from_arrow(stored).length());
            Arc::new(lengths.with_data_type(LENGTH))
        }
        DataType::Utf8 if is_jsonb(field) => {
            let documents = array.as_string::<i32>();
            Arc::new(documents.iter().map(|document| document.map(jsonb_key)).collect::<BinaryArray>())
        }
        DataType::List(element) if has_equals(element) => {
            let lists = array.as_list::<i32>();
            let elements = values(lists.values(), element);
            let element = Field::new(element.name(), elements.data_type().clone(), element.is_nullable());
            let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
            match ListArray::try_new(Arc::new(element), offsets, elements, nulls) {
                Ok(lists) => Arc::new(lists),
                Err(_) => Arc::clone(array),
            }
        }
        _ => Arc::clone(array),
    }
}

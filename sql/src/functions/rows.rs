//! IS NULL of rows, and times with a precision.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, PrimitiveArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::{Error, sqlstate};

/// `timestamp(n)` and `time(n)`, as a function of a time and the number of digits that its seconds
/// keep.
pub(crate) const AT_PRECISION: &str = "__at_precision";

const DIGITS_MAX: i64 = 6;

pub(super) fn functions() -> Vec<ScalarUDF> {
    vec![ScalarUDF::from(AtPrecision(Signature::user_defined(Volatility::Immutable)))]
}

/// `IS NULL` and `IS NOT NULL` of a row, which no client can call by name.
pub(super) fn of_operators() -> Vec<ScalarUDF> {
    [true, false].map(every_field).into()
}

fn every_field(are_null: bool) -> ScalarUDF {
    ScalarUDF::from(AllFields { are_null, signature: Signature::any(1, Volatility::Immutable) })
}

/// `IS NULL` of a row, true if all its fields are NULL; or `IS NOT NULL`, true if none of them is.
pub(crate) fn all_fields(row: Expr, are_null: bool) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(every_field(are_null)), vec![row]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AllFields {
    are_null: bool,
    signature: Signature,
}

impl ScalarUDFImpl for AllFields {
    fn name(&self) -> &str {
        if self.are_null { "row_is_null" } else { "row_is_not_null" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.args.first().ok_or_else(|| Error::internal("a row is missing"))?.to_array(args.number_rows)?;
        let fields = rows.as_struct_opt().ok_or_else(|| Error::internal("a row is not a struct"))?;
        let is_null = |column: &ArrayRef, row: usize| column.data_type().is_null() || column.is_null(row);
        let answers = (0..rows.len()).map(|row| {
            let mut nulls = fields.columns().iter().map(|column| rows.is_null(row) || is_null(column, row));
            Some(nulls.all(|null| null == self.are_null))
        });
        Ok(ColumnarValue::Array(Arc::new(answers.collect::<BooleanArray>())))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AtPrecision(Signature);

impl ScalarUDFImpl for AtPrecision {
    fn name(&self) -> &str {
        AT_PRECISION
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        match given {
            [DataType::Timestamp(_, zone), _] => {
                Ok(vec![DataType::Timestamp(TimeUnit::Microsecond, zone.clone()), DataType::Int64])
            }
            [DataType::Time64(_), _] => Ok(vec![DataType::Time64(TimeUnit::Microsecond), DataType::Int64]),
            _ => Err(Error::user(sqlstate::DATATYPE_MISMATCH, "only times have a precision").into()),
        }
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        given.first().cloned().ok_or_else(|| Error::internal("a time is missing").into())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [times, digits] = args.args.as_slice() else {
            return Err(Error::internal("a precision is missing").into());
        };
        let times = times.to_array(args.number_rows)?;
        let digits = cast(&digits.to_array(1)?, &DataType::Int64)?;
        let digits: &Int64Array = digits.as_primitive::<Int64Type>();
        let digits = digits.iter().next().flatten().unwrap_or(DIGITS_MAX).clamp(0, DIGITS_MAX);
        let unit = 10_i64.pow(u32::try_from(DIGITS_MAX - digits).unwrap_or_default());
        // Halves are rounded away from PostgreSQL's epoch.
        let rounded = |micros: i64| {
            let from = micros - EPOCH;
            let away = if from < 0 { from - unit / 2 } else { from + unit / 2 };
            away / unit * unit + EPOCH
        };
        let result: ArrayRef = match times.data_type() {
            DataType::Time64(_) => {
                let times: &PrimitiveArray<Time64MicrosecondType> = times.as_primitive();
                Arc::new(times.unary::<_, Time64MicrosecondType>(|micros| (micros + unit / 2) / unit * unit))
            }
            DataType::Timestamp(_, zone) => {
                let times: &PrimitiveArray<TimestampMicrosecondType> = times.as_primitive();
                let rounded = times.unary::<_, TimestampMicrosecondType>(rounded);
                Arc::new(rounded.with_timezone_opt(zone.clone()))
            }
            _ => return Err(Error::internal("only times have a precision").into()),
        };
        Ok(ColumnarValue::Array(result))
    }
}

/// PostgreSQL's epoch, 2000-01-01.
const EPOCH: i64 = 946_684_800_000_000;

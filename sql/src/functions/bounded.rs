//! Functions whose results may be much larger than their arguments (`repeat`, `lpad`,
//! `array_repeat`, …), with a limit.
//!
//! Operators reserve memory in the pool, but expressions do not: `repeat('x', 1000000000)` for each
//! of a thousand rows would get the process killed. The size of a result is therefore estimated
//! from the arguments before it is computed.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use datafusion::error::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::sets::SERIES;
use crate::error::{Error, sqlstate};

/// The maximal size of one call's results for the rows of a batch.
const RESULT_BYTES_MAX: u64 = 256 << 20;

/// The maximal size of a character in UTF-8.
const CHARACTER_BYTES_MAX: u64 = 4;

/// The functions, with estimates of their results' sizes.
const BOUNDED: &[(&str, Estimate)] = &[
    ("repeat", |args| args.sum(|row| args.bytes(0, row).saturating_mul(args.count(1, row)))),
    ("lpad", |args| args.sum(|row| args.padded(row))),
    ("rpad", |args| args.sum(|row| args.padded(row))),
    ("replace", |args| {
        args.sum(|row| args.bytes(0, row).div_ceil(args.bytes(1, row).max(1)).saturating_mul(args.bytes(2, row)))
    }),
    // A pattern of one letter prints at most seven digits.
    ("to_char", |args| args.sum(|row| args.bytes(1, row).saturating_mul(8))),
    ("range", |args| args.sum(|row| args.steps(row))),
    (SERIES, |args| args.sum(|row| args.steps(row))),
    ("array_repeat", |args| args.sum(|row| args.bytes(0, row).max(8).saturating_mul(args.count(1, row)))),
    ("array_resize", |args| args.sum(|row| args.count(1, row).saturating_mul(8))),
];

type Estimate = fn(&Arguments) -> u64;

/// DataFusion's functions that need a limit, with the limit. `find` returns DataFusion's function
/// of a name.
pub(crate) fn bounded(find: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<ScalarUDF> {
    let bounded = BOUNDED.iter().filter_map(|(name, estimate)| {
        let inner = find(name)?;
        Some(ScalarUDF::from(Bounded { inner, estimate: *estimate }))
    });
    bounded.collect()
}

/// A function with a limit for its results.
#[derive(Debug)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    estimate: Estimate,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Bounded) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.inner().return_field_from_args(args)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arguments)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.inner().simplify(args, info)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = (self.estimate)(&Arguments::of(&args)?);
        if bytes > RESULT_BYTES_MAX {
            let message = format!("the result of {} would take {bytes} bytes", self.inner.name());
            return Err(Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, message)
                .with_hint(format!("a function may make at most {RESULT_BYTES_MAX} bytes for up to 8192 rows at once"))
                .into());
        }
        self.inner.invoke_with_args(args)
    }
}

/// The arguments of a call. A constant argument is stored once for all rows.
struct Arguments {
    columns: Vec<ArrayRef>,
    rows: usize,
}

impl Arguments {
    fn of(args: &ScalarFunctionArgs) -> Result<Arguments> {
        let columns = args.args.iter().map(|argument| match argument {
            ColumnarValue::Array(array) => Ok(Arc::clone(array)),
            ColumnarValue::Scalar(scalar) => scalar.to_array(),
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        let rows = columns.iter().map(|column| column.len()).max().unwrap_or(0);
        Ok(Arguments { columns, rows })
    }

    fn sum(&self, estimate: impl Fn(usize) -> u64) -> u64 {
        (0..self.rows).map(estimate).fold(0, u64::saturating_add)
    }

    /// The column of an argument, and the index of a row's value in it; `None` for NULL.
    fn cell(&self, argument: usize, row: usize) -> Option<(&ArrayRef, usize)> {
        let column = self.columns.get(argument)?;
        let row = if column.len() == 1 { 0 } else { row };
        column.is_valid(row).then_some((column, row))
    }

    /// The size of a value in bytes.
    fn bytes(&self, argument: usize, row: usize) -> u64 {
        let length = self.cell(argument, row).map_or(0, |(column, row)| match text(column, row) {
            Some(text) => text.len(),
            None => {
                column.slice(row, 1).get_array_memory_size().min(column.get_array_memory_size() / column.len().max(1))
            }
        });
        length as u64
    }

    /// The size of a text that is padded to a number of characters.
    fn padded(&self, row: usize) -> u64 {
        let is_ascii = |argument| {
            let text = self.cell(argument, row).and_then(|(column, row)| text(column, row));
            text.is_none_or(str::is_ascii)
        };
        let width = if is_ascii(0) && is_ascii(2) { 1 } else { CHARACTER_BYTES_MAX };
        self.count(1, row).saturating_mul(width)
    }

    fn integer(&self, argument: usize, row: usize) -> Option<i64> {
        self.primitive::<Int64Type>(argument, row, &DataType::Int64)
    }

    /// A value, cast to a primitive type.
    fn primitive<T: ArrowPrimitiveType>(&self, argument: usize, row: usize, ty: &DataType) -> Option<T::Native> {
        let (column, row) = self.cell(argument, row)?;
        let value = cast(&column.slice(row, 1), ty).ok()?;
        let value = value.as_primitive_opt::<T>()?;
        value.is_valid(0).then(|| value.value(0))
    }

    /// A repeat count; 0 if it is negative or NULL.
    fn count(&self, argument: usize, row: usize) -> u64 {
        self.integer(argument, row).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }

    /// The size of a series from one number or time to another.
    fn steps(&self, row: usize) -> u64 {
        let (from, to) = match self.columns.len() {
            1 => (Some(0), self.place(0, row)),
            _ => (self.place(0, row), self.place(1, row)),
        };
        let step = if self.columns.len() < 3 { Some(1) } else { self.place(2, row) };
        match (from, to, step) {
            (Some(from), Some(to), Some(step)) if step != 0 => {
                u64::try_from(from.abs_diff(to) / step.unsigned_abs()).unwrap_or(u64::MAX).saturating_mul(8)
            }
            _ => 0,
        }
    }

    /// A number. For a time or an interval, approximately its microseconds.
    fn place(&self, argument: usize, row: usize) -> Option<i128> {
        const DAY_MICROS: i128 = 86_400_000_000;
        match self.columns.get(argument)?.data_type() {
            DataType::Interval(_) => {
                let unit = DataType::Interval(IntervalUnit::MonthDayNano);
                let interval = self.primitive::<IntervalMonthDayNanoType>(argument, row, &unit)?;
                let days = 28 * i128::from(interval.months) + i128::from(interval.days);
                Some(days * DAY_MICROS + i128::from(interval.nanoseconds) / 1_000)
            }
            ty if ty.is_temporal() => {
                let unit = DataType::Timestamp(TimeUnit::Microsecond, None);
                self.primitive::<TimestampMicrosecondType>(argument, row, &unit).map(i128::from)
            }
            _ => self.integer(argument, row).map(i128::from),
        }
    }
}

/// A value of a text column; `None` for other types.
fn text(column: &ArrayRef, row: usize) -> Option<&str> {
    match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(column.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(column.as_string_view().value(row)),
        _ => None,
    }
}

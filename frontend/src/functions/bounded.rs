//! Functions that make much of little (`repeat`, `lpad`, `array_repeat`, …), within bounds.
//!
//! The pool of memory is asked by operators, not by expressions: `repeat('x', 1000000000)` for each of a thousand rows
//! would have the process killed. So what a call makes is estimated from its arguments before it is made.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::error::{Error, sqlstate};

/// What one call may make for the rows of a batch.
const RESULT_BYTES_MAX: u64 = 256 << 20;

/// The functions, and how much they make.
const BOUNDED: &[(&str, Estimate)] = &[
    ("repeat", |args| args.sum(|row| args.bytes(0, row).saturating_mul(args.count(1, row)))),
    ("lpad", |args| args.sum(|row| args.count(1, row))),
    ("rpad", |args| args.sum(|row| args.count(1, row))),
    ("replace", |args| {
        args.sum(|row| args.bytes(0, row).div_ceil(args.bytes(1, row).max(1)).saturating_mul(args.bytes(2, row)))
    }),
    ("range", |args| args.sum(|row| args.steps(row))),
    ("generate_series", |args| args.sum(|row| args.steps(row))),
    ("array_repeat", |args| args.sum(|row| args.bytes(0, row).max(8).saturating_mul(args.count(1, row)))),
    ("array_resize", |args| args.sum(|row| args.count(1, row).saturating_mul(8))),
];

type Estimate = fn(&Arguments) -> u64;

/// Those of DataFusion's that make much, with a bound. `find` knows DataFusion's own.
pub(crate) fn bounded(find: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<ScalarUDF> {
    let bounded = BOUNDED.iter().filter_map(|(name, estimate)| {
        let inner = find(name)?;
        Some(ScalarUDF::from(Bounded { inner, estimate: *estimate }))
    });
    bounded.collect()
}

/// A function whose results are bounded.
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

/// The arguments of a call, those that are the same for all rows only once.
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

    /// The column of an argument, and the row of it that counts; `None` if that is NULL.
    fn cell(&self, argument: usize, row: usize) -> Option<(&ArrayRef, usize)> {
        let column = self.columns.get(argument)?;
        let row = if column.len() == 1 { 0 } else { row };
        column.is_valid(row).then_some((column, row))
    }

    /// How long a value is.
    fn bytes(&self, argument: usize, row: usize) -> u64 {
        let length = self.cell(argument, row).map_or(0, |(column, row)| match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().value(row).len(),
            DataType::LargeUtf8 => column.as_string::<i64>().value(row).len(),
            DataType::Utf8View => column.as_string_view().value(row).len(),
            _ => column.slice(row, 1).get_array_memory_size().min(column.get_array_memory_size() / column.len().max(1)),
        });
        length as u64
    }

    fn integer(&self, argument: usize, row: usize) -> Option<i64> {
        let (column, row) = self.cell(argument, row)?;
        let number = cast(&column.slice(row, 1), &DataType::Int64).ok()?;
        let number = number.as_primitive_opt::<Int64Type>()?;
        number.is_valid(0).then(|| number.value(0))
    }

    /// A number of times.
    fn count(&self, argument: usize, row: usize) -> u64 {
        self.integer(argument, row).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }

    /// What the numbers from one to another take. Those of dates and times have steps of their own.
    fn steps(&self, row: usize) -> u64 {
        let is_number =
            |argument: usize| self.columns.get(argument).is_none_or(|column| column.data_type().is_integer());
        if !(0..3).all(is_number) {
            return 0;
        }
        let (from, to) = match self.columns.len() {
            1 => (Some(0), self.integer(0, row)),
            _ => (self.integer(0, row), self.integer(1, row)),
        };
        let step = if self.columns.len() < 3 { Some(1) } else { self.integer(2, row) };
        match (from, to, step) {
            (Some(from), Some(to), Some(step)) if step != 0 => from.abs_diff(to) / step.unsigned_abs() * 8,
            _ => 0,
        }
    }
}

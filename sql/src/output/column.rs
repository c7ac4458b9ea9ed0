//! A column of a batch, prepared once, whose values are then written one by one in text or binary.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
    DurationMicrosecondArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, StringArray, StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    UInt32Array, UInt64Array,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Date32Type, Decimal128Type, Decimal256Type, DurationMicrosecondType, Field,
    Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, UInt32Type, UInt64Type,
};
use weir_common::interval::Interval;

use super::nested::{Lists, Records};
use super::numeric::{Number, Scale};
use super::{Form, datetime, float};
use crate::error::{Error, sqlstate};
use crate::types::{is_jsonb, mark_of, no_type};

/// The first byte of a jsonb value in binary: the version of its format.
const JSONB_VERSION: u8 = 1;

/// A column of a batch, downcast to its type.
pub(super) enum Column {
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Uint8(UInt64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Numeric(Decimal128Array, Scale),
    WideNumeric(Decimal256Array, Scale),
    Text(StringArray),
    TextView(StringViewArray),
    Jsonb(StringArray),
    Bytea(BinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp {
        micros: TimestampMicrosecondArray,
        zoned: bool,
    },
    Interval(IntervalMonthDayNanoArray),
    Duration(DurationMicrosecondArray),
    List(Box<Lists>),
    Record(Box<Records>),
    /// All values are NULL.
    Null,
    Oid(UInt32Array),
    /// Oids that are printed as names.
    Named(UInt32Array, StringArray),
}

impl Column {
    /// Prepares a column of any type.
    ///
    /// # Errors
    /// `0A000` for a type that has no counterpart, `22003` for a timestamp that does not fit its
    /// type.
    pub(super) fn new(array: &ArrayRef, field: &Arc<Field>) -> Result<Column, Error> {
        Ok(match array.data_type() {
            DataType::Null => Column::Null,
            DataType::Boolean => Column::Bool(array.as_boolean().clone()),
            DataType::Int16 => Column::Int2(array.as_primitive::<Int16Type>().clone()),
            DataType::Int32 => Column::Int4(array.as_primitive::<Int32Type>().clone()),
            DataType::Int64 => Column::Int8(array.as_primitive::<Int64Type>().clone()),
            DataType::UInt32 => Column::Oid(array.as_primitive::<UInt32Type>().clone()),
            DataType::UInt64 => Column::Uint8(array.as_primitive::<UInt64Type>().clone()),
            DataType::Float32 => Column::Float4(array.as_primitive::<Float32Type>().clone()),
            DataType::Float64 => Column::Float8(array.as_primitive::<Float64Type>().clone()),
            DataType::Decimal128(precision, scale) => {
                let numbers = array.as_primitive::<Decimal128Type>().clone();
                Column::Numeric(numbers, Scale::of(*precision, *scale)?)
            }
            DataType::Decimal256(precision, scale) => {
                let numbers = array.as_primitive::<Decimal256Type>().clone();
                Column::WideNumeric(numbers, Scale::of(*precision, *scale)?)
            }
            DataType::Utf8 if is_jsonb(field) => Column::Jsonb(array.as_string::<i32>().clone()),
            DataType::Utf8 => Column::Text(array.as_string::<i32>().clone()),
            DataType::Utf8View => Column::TextView(array.as_string_view().clone()),
            DataType::Binary => Column::Bytea(array.as_binary::<i32>().clone()),
            DataType::Date32 => Column::Date(array.as_primitive::<Date32Type>().clone()),
            DataType::Time64(TimeUnit::Microsecond) => {
                Column::Time(array.as_primitive::<Time64MicrosecondType>().clone())
            }
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Column::Timestamp {
                micros: array.as_primitive::<TimestampMicrosecondType>().clone(),
                zoned: zone.is_some(),
            },
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                Column::Interval(array.as_primitive::<IntervalMonthDayNanoType>().clone())
            }
            DataType::Duration(TimeUnit::Microsecond) => {
                Column::Duration(array.as_primitive::<DurationMicrosecondType>().clone())
            }
            DataType::List(element) => {
                Column::List(Box::new(Lists::new(array.as_list::<i32>().clone(), element, mark_of(field).as_ref())?))
            }
            DataType::LargeList(element) => {
                let array = cast_with_options(array, &DataType::List(Arc::clone(element)), &CastOptions::default());
                let array = array.map_err(|error| Error::internal(error.to_string()))?;
                Column::List(Box::new(Lists::vectors(array.as_list::<i32>().clone(), element)?))
            }
            DataType::Struct(_) if mark_of(field).is_some() => {
                let (oids, names) = (array.as_struct().column(0), array.as_struct().column(1));
                Column::Named(oids.as_primitive::<UInt32Type>().clone(), names.as_string::<i32>().clone())
            }
            DataType::Struct(_) => Column::Record(Box::new(Records::new(array.as_struct().clone())?)),
            other => {
                let ours = counterpart(other).ok_or_else(|| no_type(field))?;
                let options = CastOptions { safe: false, ..CastOptions::default() };
                let cast = cast_with_options(array, &ours, &options).map_err(|error| {
                    Error::out_of_range(format!("a value of column \"{}\" is out of range: {error}", field.name()))
                })?;
                Column::new(&cast, field)?
            }
        })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Bool(array) => array.is_null(row),
            Column::Int2(array) => array.is_null(row),
            Column::Int4(array) => array.is_null(row),
            Column::Int8(array) => array.is_null(row),
            Column::Uint8(array) => array.is_null(row),
            Column::Float4(array) => array.is_null(row),
            Column::Float8(array) => array.is_null(row),
            Column::Numeric(array, _) => array.is_null(row),
            Column::WideNumeric(array, _) => array.is_null(row),
            Column::Text(array) | Column::Jsonb(array) => array.is_null(row),
            Column::TextView(array) => array.is_null(row),
            Column::Bytea(array) => array.is_null(row),
            Column::Date(array) => array.is_null(row),
            Column::Time(array) => array.is_null(row),
            Column::Timestamp { micros, .. } => micros.is_null(row),
            Column::Interval(array) => array.is_null(row),
            Column::Duration(array) => array.is_null(row),
            Column::List(lists) => lists.is_null(row),
            Column::Record(records) => records.is_null(row),
            Column::Null => true,
            Column::Oid(array) | Column::Named(array, _) => array.is_null(row),
        }
    }

    /// Appends a value; false for NULL.
    pub(super) fn write(&self, row: usize, form: Form, out: &mut BytesMut) -> Result<bool, Error> {
        if self.is_null(row) {
            return Ok(false);
        }
        match form {
            Form::Text => self.write_text(row, out)?,
            Form::Binary => self.write_binary(row, out)?,
        }
        Ok(true)
    }

    /// Appends a value after its length, which for NULL is -1; false for NULL.
    pub(super) fn write_sized(&self, row: usize, form: Form, out: &mut BytesMut) -> Result<bool, Error> {
        sized(out, |out| self.write(row, form, out))
    }

    pub(super) fn write_text(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        match self {
            Column::Bool(array) => out.put_u8(if array.value(row) { b't' } else { b'f' }),
            Column::Int2(array) => display(array.value(row), out),
            Column::Int4(array) => display(array.value(row), out),
            Column::Int8(array) => display(array.value(row), out),
            Column::Uint8(array) => display(array.value(row), out),
            Column::Float4(array) => float::write_f32(array.value(row), out),
            Column::Float8(array) => float::write_f64(array.value(row), out),
            Column::Numeric(array, scale) => Number::new(array.value(row), *scale).write_text(out),
            Column::WideNumeric(array, scale) => Number::wide(array.value(row), *scale).write_text(out),
            Column::Text(array) | Column::Jsonb(array) => out.put_slice(array.value(row).as_bytes()),
            Column::TextView(array) => out.put_slice(array.value(row).as_bytes()),
            Column::Bytea(array) => hex(array.value(row), out),
            Column::Date(array) => datetime::write_date(array.value(row), out),
            Column::Time(array) => datetime::write_time(array.value(row), out),
            Column::Timestamp { micros, zoned } => datetime::write_timestamp(micros.value(row), *zoned, out),
            Column::Interval(array) => datetime::write_interval(Interval::from_arrow(array.value(row)), out),
            Column::Duration(array) => datetime::write_interval(datetime::justified(array.value(row))?, out),
            Column::List(lists) => lists.write_text(row, out)?,
            Column::Record(records) => records.write_text(row, out)?,
            Column::Null => {}
            Column::Oid(array) => display(array.value(row), out),
            Column::Named(_, names) => out.put_slice(names.value(row).as_bytes()),
        }
        Ok(())
    }

    fn write_binary(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        match self {
            Column::Bool(array) => out.put_u8(u8::from(array.value(row))),
            Column::Int2(array) => out.put_i16(array.value(row)),
            Column::Int4(array) => out.put_i32(array.value(row)),
            Column::Int8(array) => out.put_i64(array.value(row)),
            Column::Uint8(array) => out.put_i64(
                i64::try_from(array.value(row))
                    .map_err(|_| Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range"))?,
            ),
            Column::Float4(array) => out.put_f32(array.value(row)),
            Column::Float8(array) => out.put_f64(array.value(row)),
            Column::Numeric(array, scale) => Number::new(array.value(row), *scale).write_binary(out),
            Column::WideNumeric(array, scale) => Number::wide(array.value(row), *scale).write_binary(out),
            Column::Text(array) => out.put_slice(array.value(row).as_bytes()),
            Column::TextView(array) => out.put_slice(array.value(row).as_bytes()),
            Column::Jsonb(array) => {
                out.put_u8(JSONB_VERSION);
                out.put_slice(array.value(row).as_bytes());
            }
            Column::Bytea(array) => out.put_slice(array.value(row)),
            Column::Date(array) => out.put_i32(datetime::date_to_wire(array.value(row))?),
            Column::Time(array) => out.put_i64(array.value(row)),
            Column::Timestamp { micros, .. } => out.put_i64(datetime::timestamp_to_wire(micros.value(row))?),
            Column::Interval(array) => datetime::put_interval(Interval::from_arrow(array.value(row)), out),
            Column::Duration(array) => datetime::put_interval(datetime::justified(array.value(row))?, out),
            Column::List(lists) => lists.write_binary(row, out)?,
            Column::Record(records) => records.write_binary(row, out)?,
            Column::Null => {}
            Column::Oid(array) | Column::Named(array, _) => out.put_u32(array.value(row)),
        }
        Ok(())
    }
}

/// Appends the output of `write` after its length, or -1 for NULL. Returns false for NULL.
fn sized(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Result<bool, Error>) -> Result<bool, Error> {
    let length_at = out.len();
    out.put_i32(-1);
    let written = write(out)?;
    if written {
        let length = i32::try_from(out.len() - length_at - size_of::<i32>())
            .map_err(|_| Error::user(sqlstate::OUT_OF_MEMORY, "a value is larger than 2 GiB"))?;
        out[length_at..length_at + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
    }
    Ok(written)
}

/// The type of a table's column that represents a type of DataFusion's. [`Column::new`] knows it.
fn counterpart(ty: &DataType) -> Option<DataType> {
    Some(match ty {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => {
            DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale)
        }
        DataType::LargeUtf8 => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Duration(_) => DataType::Duration(TimeUnit::Microsecond),
        DataType::FixedSizeList(element, _) | DataType::ListView(element) => DataType::List(Arc::clone(element)),
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        _ => return None,
    })
}

fn display(value: impl std::fmt::Display, out: &mut BytesMut) {
    write!(out, "{value}").expect("the buffer grows");
}

/// Writes `\x` and two digits for each byte.
pub(super) fn hex(bytes: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + 2 * bytes.len());
    out.put_slice(b"\\x");
    for byte in bytes {
        out.put_u8(DIGITS[usize::from(byte >> 4)]);
        out.put_u8(DIGITS[usize::from(byte & 0xf)]);
    }
}

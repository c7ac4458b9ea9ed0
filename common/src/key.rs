//! The key of a row or of a group, as bytes that sort as PostgreSQL sorts the values, and are equal
//! where it finds them equal.
//!
//! Each column begins with a byte, 1 for a value and 2 for NULL, so that NULL comes last.
//!
//! | type | bytes |
//! | --- | --- |
//! | boolean | 0 or 1 |
//! | whole numbers, date, time, timestamps, decimals | big-endian with the sign bit flipped |
//! | real, double precision | the bits: all flipped if negative, else only the sign; see below |
//! | text, bytes | the bytes, each 0 followed by 255, and 0 0 at the end |
//! | interval | its length in microseconds in 16 bytes, as a whole number |
//! | jsonb | see [`jsonb_key`] |
//! | array | its elements as if they were columns, and 0 at the end |
//! | struct | its fields as if they were columns |
//!
//! A float of −0 is stored as 0, and every NaN as the greatest value. No key is a prefix of another
//! one of the same types. The first four rows can be read back ([`Reader`]). In the others values
//! are equal that are not the same: 24 hours and a day, or the numbers 1 and 1.0 in a jsonb.
//!
//! Both the layout and the vnode are stored state: they never change. Compute nodes write keys by
//! it, and frontends name the keys that a query asks for.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, ListArray, PrimitiveArray, RecordBatch, StringArray,
    StructArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Field, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, i256,
};

use crate::ids::VNODES;
use crate::interval::Interval;
use crate::types::is_jsonb;

mod division;
mod jsonb;
mod reader;

pub use division::Division;
pub use jsonb::jsonb_key;
pub use reader::Reader;

/// The longest key that the row of a keyed table may have, in bytes. Nothing limits the keys of
/// groups; the database also stores keys that are several times as long.
pub const KEY_BYTES_MAX: usize = 32 << 10;

/// The first byte of every value.
pub const VALUE: u8 = 1;
/// The first byte of NULL, which is greater than every value.
pub const NULL: u8 = 2;
/// The end of an array, which is less than any further element.
const END: u8 = 0;

/// Returns the vnode of a primary key: the lowest byte of the CRC-32 (IEEE) of its bytes.
pub fn vnode_of(key: &[u8]) -> u16 {
    const { assert!(VNODES == 256) };
    u16::from(crc32fast::hash(key).to_le_bytes()[0])
}

/// Returns the least bytes that are greater than all bytes with this prefix; `None` if there are
/// none.
pub fn successor(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            return Some(bytes);
        }
    }
    None
}

/// Writes the keys of one batch.
pub struct Keys {
    columns: Vec<Column>,
}

enum Column {
    Boolean(BooleanArray),
    Int16(PrimitiveArray<Int16Type>),
    Int32(PrimitiveArray<Int32Type>),
    Int64(PrimitiveArray<Int64Type>),
    Decimal128(PrimitiveArray<Decimal128Type>),
    Decimal256(PrimitiveArray<Decimal256Type>),
    Float32(PrimitiveArray<Float32Type>),
    Float64(PrimitiveArray<Float64Type>),
    Text(StringArray),
    Bytes(BinaryArray),
    Interval(PrimitiveArray<IntervalMonthDayNanoType>),
    Jsonb(StringArray),
    List(ListArray, Box<Column>),
    Struct(StructArray, Vec<Column>),
}

impl Keys {
    /// Makes keys from the columns at these places of a batch. The fields of its schema tell which
    /// columns are jsonb.
    ///
    /// # Panics
    /// If a column has none of the types of [`crate::types::SqlType`].
    pub fn new(batch: &RecordBatch, columns: &[usize]) -> Keys {
        let schema = batch.schema_ref();
        Keys { columns: columns.iter().map(|&place| Column::new(batch.column(place), schema.field(place))).collect() }
    }

    /// Appends the key of a row.
    #[inline]
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        self.columns.iter().for_each(|column| column.write(row, out));
    }
}

impl Column {
    fn new(array: &ArrayRef, field: &Field) -> Column {
        match array.data_type() {
            DataType::Boolean => Column::Boolean(array.as_boolean().clone()),
            DataType::Int16 => Column::Int16(array.as_primitive().clone()),
            DataType::Int32 => Column::Int32(array.as_primitive().clone()),
            DataType::Date32 => Column::Int32(array.as_primitive::<Date32Type>().reinterpret_cast()),
            DataType::Int64 => Column::Int64(array.as_primitive().clone()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Column::Int64(array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast())
            }
            DataType::Time64(TimeUnit::Microsecond) => {
                Column::Int64(array.as_primitive::<Time64MicrosecondType>().reinterpret_cast())
            }
            DataType::Decimal128(..) => Column::Decimal128(array.as_primitive().clone()),
            DataType::Decimal256(..) => Column::Decimal256(array.as_primitive().clone()),
            DataType::Float32 => Column::Float32(array.as_primitive().clone()),
            DataType::Float64 => Column::Float64(array.as_primitive().clone()),
            DataType::Utf8 if is_jsonb(field) => Column::Jsonb(array.as_string().clone()),
            DataType::Utf8 => Column::Text(array.as_string().clone()),
            DataType::Binary => Column::Bytes(array.as_binary().clone()),
            DataType::Interval(IntervalUnit::MonthDayNano) => Column::Interval(array.as_primitive().clone()),
            DataType::List(field) => {
                let list: &ListArray = array.as_list();
                Column::List(list.clone(), Box::new(Column::new(list.values(), field)))
            }
            DataType::Struct(fields) => {
                let values = array.as_struct();
                let fields = values.columns().iter().zip(fields).map(|(column, field)| Column::new(column, field));
                Column::Struct(values.clone(), fields.collect())
            }
            other => panic!("a column of type {other} cannot be part of a key"),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Boolean(array) => array.is_null(row),
            Column::Int16(array) => array.is_null(row),
            Column::Int32(array) => array.is_null(row),
            Column::Int64(array) => array.is_null(row),
            Column::Decimal128(array) => array.is_null(row),
            Column::Decimal256(array) => array.is_null(row),
            Column::Float32(array) => array.is_null(row),
            Column::Float64(array) => array.is_null(row),
            Column::Text(array) => array.is_null(row),
            Column::Bytes(array) => array.is_null(row),
            Column::Interval(array) => array.is_null(row),
            Column::Jsonb(array) => array.is_null(row),
            Column::List(array, _) => array.is_null(row),
            Column::Struct(array, _) => array.is_null(row),
        }
    }

    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.push(NULL);
            return;
        }
        out.push(VALUE);
        match self {
            Column::Boolean(array) => out.push(u8::from(array.value(row))),
            Column::Int16(array) => out.extend_from_slice(&(array.value(row) ^ i16::MIN).to_be_bytes()),
            Column::Int32(array) => out.extend_from_slice(&(array.value(row) ^ i32::MIN).to_be_bytes()),
            Column::Int64(array) => out.extend_from_slice(&(array.value(row) ^ i64::MIN).to_be_bytes()),
            Column::Decimal128(array) => out.extend_from_slice(&(array.value(row) ^ i128::MIN).to_be_bytes()),
            Column::Decimal256(array) => out.extend_from_slice(&(array.value(row) ^ i256::MIN).to_be_bytes()),
            Column::Float32(array) => out.extend_from_slice(&float32(array.value(row)).to_be_bytes()),
            Column::Float64(array) => out.extend_from_slice(&float64(array.value(row)).to_be_bytes()),
            Column::Text(array) => escape(array.value(row).as_bytes(), out),
            Column::Bytes(array) => escape(array.value(row), out),
            Column::Interval(array) => {
                let length = Interval::from_arrow(array.value(row)).length();
                out.extend_from_slice(&(length ^ i128::MIN).to_be_bytes());
            }
            Column::Jsonb(array) => jsonb::write(array.value(row), out),
            Column::List(array, elements) => {
                let offsets = array.value_offsets();
                for element in offsets[row]..offsets[row + 1] {
                    elements.write(usize::try_from(element).expect("offsets are not negative"), out);
                }
                out.push(END);
            }
            Column::Struct(_, fields) => fields.iter().for_each(|field| field.write(row, out)),
        }
    }
}

fn float32(value: f32) -> u32 {
    if value.is_nan() {
        return u32::MAX;
    }
    // Adding zero turns −0 into 0.
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn float64(value: f64) -> u64 {
    if value.is_nan() {
        return u64::MAX;
    }
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        out.extend_from_slice(&rest[..=zero]);
        out.push(u8::MAX);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests;

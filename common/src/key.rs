//! The primary key of a row as bytes that sort as PostgreSQL sorts the values, and are equal where
//! it finds them equal.
//!
//! Each column begins with a byte, 1 for a value and 2 for NULL, so that NULL comes last.
//!
//! | type | bytes |
//! | --- | --- |
//! | boolean | 0 or 1 |
//! | whole numbers, date, time, timestamps, decimals | big-endian with the sign bit flipped |
//! | real, double precision | the bits: all flipped if negative, else only the sign; see below |
//! | text, bytes | the bytes, each 0 followed by 255, and 0 0 at the end |
//!
//! A float of −0 is stored as 0, and every NaN as the greatest value.
//!
//! Both the layout and the vnode are stored state: they never change. Compute nodes write keys by
//! it, and frontends name the keys that a query asks for.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, i256,
};

use crate::ids::VNODES;

mod reader;

pub use reader::Reader;

/// The first byte of every value.
pub const VALUE: u8 = 1;
/// The first byte of NULL, which is greater than every value.
pub const NULL: u8 = 2;

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
}

impl Keys {
    /// Makes keys from the columns at these places of a batch.
    ///
    /// # Panics
    /// If a column's type cannot be part of a key, see [`crate::types::SqlType::can_be_key`].
    pub fn new(batch: &RecordBatch, columns: &[usize]) -> Keys {
        Keys { columns: columns.iter().map(|&place| Column::new(batch.column(place))).collect() }
    }

    /// Appends the key of a row.
    #[inline]
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        self.columns.iter().for_each(|column| column.write(row, out));
    }
}

impl Column {
    fn new(array: &ArrayRef) -> Column {
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
            DataType::Utf8 => Column::Text(array.as_string().clone()),
            DataType::Binary => Column::Bytes(array.as_binary().clone()),
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
mod tests {
    use std::cmp::Ordering;
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array};
    use proptest::prelude::*;

    use super::*;

    fn keys(columns: Vec<ArrayRef>) -> Vec<Vec<u8>> {
        let names = (0..columns.len()).map(|number| number.to_string());
        let batch = RecordBatch::try_from_iter(names.zip(columns)).expect("columns of one length");
        let places: Vec<usize> = (0..batch.num_columns()).collect();
        let keys = Keys::new(&batch, &places);
        let key = |row| {
            let mut out = Vec::new();
            keys.write(row, &mut out);
            out
        };
        (0..batch.num_rows()).map(key).collect()
    }

    #[test]
    fn the_layout_does_not_change() {
        let text = StringArray::from(vec![Some("a\0b")]);
        let number = Int64Array::from(vec![-2]);
        let nothing = BooleanArray::from(vec![None]);
        let keys = keys(vec![Arc::new(text), Arc::new(number), Arc::new(nothing)]);
        assert_eq!(keys[0], b"\x01a\0\xffb\0\0\x01\x7f\xff\xff\xff\xff\xff\xff\xfe\x02");
    }

    #[test]
    fn the_vnode_of_a_key_does_not_change() {
        assert_eq!([b"".as_slice(), b"a", b"123456789"].map(vnode_of), [0x00, 0x43, 0x26]);
    }

    #[test]
    fn the_successor_is_above_everything_with_the_prefix() {
        assert_eq!(successor(vec![1, 2]), Some(vec![1, 3]));
        assert_eq!(successor(vec![1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(successor(vec![0xff]), None);
    }

    #[test]
    fn floats_are_equal_and_in_order_as_in_postgresql() {
        let order = [f64::NEG_INFINITY, -1.5, -f64::MIN_POSITIVE, 0.0, f64::MIN_POSITIVE, 2.0, f64::INFINITY, f64::NAN];
        let found = keys(vec![Arc::new(Float64Array::from(order.to_vec()))]);
        assert!(found.is_sorted_by(|a, b| a < b));
        let same = keys(vec![Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]))]);
        assert_eq!(same[0], same[1]);
        assert_eq!(same[2], same[3]);
    }

    #[test]
    fn decimals_of_both_widths_are_in_order() {
        let values = [i128::MIN, -1_000, -1, 0, 1, 1_000, i128::MAX];
        let narrow = PrimitiveArray::<Decimal128Type>::from_iter_values(values);
        assert!(keys(vec![Arc::new(narrow)]).is_sorted_by(|a, b| a < b));
        let wide = values.map(i256::from_i128).into_iter();
        let wide = std::iter::once(i256::MIN).chain(wide).chain(std::iter::once(i256::MAX));
        let wide = PrimitiveArray::<Decimal256Type>::from_iter_values(wide);
        assert!(keys(vec![Arc::new(wide)]).is_sorted_by(|a, b| a < b));
    }

    /// NULL comes last.
    fn compare<T: Ord>(a: &Option<T>, b: &Option<T>) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }

    type Row = (Option<bool>, Option<i16>, Option<i32>, Option<i64>, Option<String>, Option<Vec<u8>>);

    proptest! {
        #[test]
        fn bytes_sort_as_the_values(rows in prop::collection::vec(any::<Row>(), 2), same in 0_usize..7) {
            let (a, mut b) = (rows[0].clone(), rows[1].clone());
            // The rows share their first columns, so that the later ones decide.
            if same > 0 { b.0 = a.0; }
            if same > 1 { b.1 = a.1; }
            if same > 2 { b.2 = a.2; }
            if same > 3 { b.3 = a.3; }
            if same > 4 { b.4 = a.4.clone(); }
            if same > 5 { b.5 = a.5.clone(); }
            let rows = [a.clone(), b.clone()];
            let columns: Vec<ArrayRef> = vec![
                Arc::new(rows.iter().map(|row| row.0).collect::<BooleanArray>()),
                Arc::new(rows.iter().map(|row| row.1).collect::<PrimitiveArray<Int16Type>>()),
                Arc::new(rows.iter().map(|row| row.2).collect::<PrimitiveArray<Int32Type>>()),
                Arc::new(rows.iter().map(|row| row.3).collect::<PrimitiveArray<Int64Type>>()),
                Arc::new(rows.iter().map(|row| row.4.clone()).collect::<StringArray>()),
                Arc::new(rows.iter().map(|row| row.5.clone()).collect::<BinaryArray>()),
            ];
            let found = keys(columns);
            let expected = compare(&a.0, &b.0)
                .then(compare(&a.1, &b.1))
                .then(compare(&a.2, &b.2))
                .then(compare(&a.3, &b.3))
                .then(compare(&a.4, &b.4))
                .then(compare(&a.5, &b.5));
            prop_assert_eq!(found[0].cmp(&found[1]), expected);
            // No key is a prefix of another, so the keys of one table never run into each other.
            prop_assert!(expected == Ordering::Equal || !found[0].starts_with(&found[1]) && !found[1].starts_with(&found[0]));
        }
    }
}

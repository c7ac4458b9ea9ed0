//! Reads the values of keys back into columns.
//!
//! A float of −0 comes back as 0, and every NaN as the same one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryBuilder, BooleanBuilder, PrimitiveBuilder, StringBuilder, make_array};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, i256,
};

use super::{NULL, VALUE};
use crate::types::SqlType;

/// Builds columns from keys.
#[derive(Debug)]
pub struct Reader {
    columns: Vec<Column>,
    /// A text without its escapes.
    text: Vec<u8>,
}

#[derive(Debug)]
struct Column {
    ty: DataType,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanBuilder),
    Int16(PrimitiveBuilder<Int16Type>),
    Int32(PrimitiveBuilder<Int32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    Decimal128(PrimitiveBuilder<Decimal128Type>),
    Decimal256(PrimitiveBuilder<Decimal256Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
}

impl Reader {
    /// A reader of keys of these types.
    ///
    /// # Panics
    /// If one of them cannot be part of a key, see [`SqlType::can_be_key`].
    pub fn new<'a>(types: impl IntoIterator<Item = &'a SqlType>) -> Reader {
        Reader { columns: types.into_iter().map(Column::new).collect(), text: Vec::new() }
    }

    /// Adds a row: the columns of a key. Returns the bytes behind them, and `None` if the key is
    /// damaged; the reader is of no use then.
    #[must_use]
    pub fn push<'a>(&mut self, mut key: &'a [u8]) -> Option<&'a [u8]> {
        for column in &mut self.columns {
            key = column.values.push(key, &mut self.text)?;
        }
        Some(key)
    }

    /// The columns of the rows so far. The reader is empty afterwards.
    pub fn finish(&mut self) -> Vec<ArrayRef> {
        self.columns.iter_mut().map(Column::finish).collect()
    }
}

impl Column {
    fn new(ty: &SqlType) -> Column {
        let values = match ty {
            SqlType::Boolean => Values::Boolean(BooleanBuilder::new()),
            SqlType::SmallInt => Values::Int16(PrimitiveBuilder::new()),
            SqlType::Integer | SqlType::Date => Values::Int32(PrimitiveBuilder::new()),
            SqlType::BigInt | SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz => {
                Values::Int64(PrimitiveBuilder::new())
            }
            SqlType::Numeric | SqlType::Decimal { .. } => match ty.arrow() {
                DataType::Decimal128(..) => Values::Decimal128(PrimitiveBuilder::new()),
                _ => Values::Decimal256(PrimitiveBuilder::new()),
            },
            SqlType::Real => Values::Float32(PrimitiveBuilder::new()),
            SqlType::Double => Values::Float64(PrimitiveBuilder::new()),
            SqlType::Varchar => Values::Text(StringBuilder::new()),
            SqlType::Bytea => Values::Bytes(BinaryBuilder::new()),
            SqlType::Interval | SqlType::Jsonb | SqlType::Array(_) | SqlType::Struct(_) => {
                panic!("a column of type {ty} cannot be part of a key")
            }
        };
        Column { ty: ty.arrow(), values }
    }

    fn finish(&mut self) -> ArrayRef {
        let array: ArrayRef = match &mut self.values {
            Values::Boolean(values) => Arc::new(values.finish()),
            Values::Int16(values) => Arc::new(values.finish()),
            Values::Int32(values) => Arc::new(values.finish()),
            Values::Int64(values) => Arc::new(values.finish()),
            Values::Decimal128(values) => Arc::new(values.finish()),
            Values::Decimal256(values) => Arc::new(values.finish()),
            Values::Float32(values) => Arc::new(values.finish()),
            Values::Float64(values) => Arc::new(values.finish()),
            Values::Text(values) => Arc::new(values.finish()),
            Values::Bytes(values) => Arc::new(values.finish()),
        };
        if *array.data_type() == self.ty {
            return array;
        }
        let data = array.to_data().into_builder().data_type(self.ty.clone()).build();
        make_array(data.expect("the types have one layout"))
    }
}

impl Values {
    fn push<'a>(&mut self, key: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
        let (first, rest) = key.split_first()?;
        match *first {
            NULL => self.push_null(),
            VALUE => return self.push_value(rest, text),
            _ => return None,
        }
        Some(rest)
    }

    fn push_null(&mut self) {
        match self {
            Values::Boolean(values) => values.append_null(),
            Values::Int16(values) => values.append_null(),
            Values::Int32(values) => values.append_null(),
            Values::Int64(values) => values.append_null(),
            Values::Decimal128(values) => values.append_null(),
            Values::Decimal256(values) => values.append_null(),
            Values::Float32(values) => values.append_null(),
            Values::Float64(values) => values.append_null(),
            Values::Text(values) => values.append_null(),
            Values::Bytes(values) => values.append_null(),
        }
    }

    fn push_value<'a>(&mut self, key: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
        match self {
            Values::Boolean(values) => {
                let ([byte], rest) = key.split_first_chunk()?;
                values.append_value(*byte == 1);
                Some(rest)
            }
            Values::Int16(values) => number(values, key, |bytes| i16::from_be_bytes(bytes) ^ i16::MIN),
            Values::Int32(values) => number(values, key, |bytes| i32::from_be_bytes(bytes) ^ i32::MIN),
            Values::Int64(values) => number(values, key, |bytes| i64::from_be_bytes(bytes) ^ i64::MIN),
            Values::Decimal128(values) => number(values, key, |bytes| i128::from_be_bytes(bytes) ^ i128::MIN),
            Values::Decimal256(values) => number(values, key, |bytes| i256::from_be_bytes(bytes) ^ i256::MIN),
            Values::Float32(values) => number(values, key, |bytes| float32(u32::from_be_bytes(bytes))),
            Values::Float64(values) => number(values, key, |bytes| float64(u64::from_be_bytes(bytes))),
            Values::Text(values) => {
                let rest = unescape(key, text)?;
                values.append_value(std::str::from_utf8(text).ok()?);
                Some(rest)
            }
            Values::Bytes(values) => {
                let rest = unescape(key, text)?;
                values.append_value(&text);
                Some(rest)
            }
        }
    }
}

fn number<'a, T: ArrowPrimitiveType, const N: usize>(
    values: &mut PrimitiveBuilder<T>,
    key: &'a [u8],
    value: impl Fn([u8; N]) -> T::Native,
) -> Option<&'a [u8]> {
    let (bytes, rest) = key.split_first_chunk::<N>()?;
    values.append_value(value(*bytes));
    Some(rest)
}

fn float32(bits: u32) -> f32 {
    match bits {
        u32::MAX => f32::NAN,
        _ if bits >> 31 == 1 => f32::from_bits(bits ^ 1 << 31),
        _ => f32::from_bits(!bits),
    }
}

fn float64(bits: u64) -> f64 {
    match bits {
        u64::MAX => f64::NAN,
        _ if bits >> 63 == 1 => f64::from_bits(bits ^ 1 << 63),
        _ => f64::from_bits(!bits),
    }
}

fn unescape<'a>(mut key: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
    text.clear();
    loop {
        let zero = key.iter().position(|byte| *byte == 0)?;
        text.extend_from_slice(&key[..zero]);
        let after = *key.get(zero + 1)?;
        key = &key[zero + 2..];
        match after {
            0 => return Some(key),
            u8::MAX => text.push(0),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float32Array, Float64Array,
        Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, Time64MicrosecondArray,
        TimestampMicrosecondArray,
    };

    use super::*;
    use crate::key::Keys;

    #[test]
    fn values_come_back_as_they_were() {
        let price = SqlType::Decimal { precision: 10, scale: 2 };
        let decimals = Decimal128Array::from(vec![Some(-5), None, Some(i128::MAX)]).with_data_type(price.arrow());
        let numerics = Decimal256Array::from(vec![Some(i256::MIN), None, Some(i256::ONE)]);
        let zoned = TimestampMicrosecondArray::from(vec![Some(i64::MIN), None, Some(1)]).with_timezone("UTC");
        let columns: Vec<(SqlType, ArrayRef)> = vec![
            (SqlType::Boolean, Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
            (SqlType::SmallInt, Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(7)]))),
            (SqlType::Integer, Arc::new(Int32Array::from(vec![Some(-1), None, Some(i32::MAX)]))),
            (SqlType::BigInt, Arc::new(Int64Array::from(vec![Some(-1), None, Some(i64::MAX)]))),
            (SqlType::Real, Arc::new(Float32Array::from(vec![Some(-1.5), None, Some(f32::INFINITY)]))),
            (SqlType::Double, Arc::new(Float64Array::from(vec![Some(f64::MIN), None, Some(0.1)]))),
            (price, Arc::new(decimals)),
            (SqlType::Numeric, Arc::new(numerics.with_data_type(SqlType::Numeric.arrow()))),
            (SqlType::Varchar, Arc::new(StringArray::from(vec![Some("a\0b\0\0"), None, Some("")]))),
            (SqlType::Bytea, Arc::new(BinaryArray::from(vec![Some(&b"\0\xff\0"[..]), None, Some(b"x")]))),
            (SqlType::Date, Arc::new(Date32Array::from(vec![Some(-1), None, Some(2)]))),
            (SqlType::Time, Arc::new(Time64MicrosecondArray::from(vec![Some(0), None, Some(2)]))),
            (SqlType::Timestamp, Arc::new(TimestampMicrosecondArray::from(vec![Some(-3), None, Some(2)]))),
            (SqlType::Timestamptz, Arc::new(zoned)),
        ];
        let named = columns.iter().map(|(ty, column)| (ty.to_string(), Arc::clone(column)));
        let batch = RecordBatch::try_from_iter_with_nullable(named.map(|(name, column)| (name, column, true)));
        let batch = batch.expect("columns of one length");
        let keys = Keys::new(&batch, &(0..columns.len()).collect::<Vec<_>>());
        let mut reader = Reader::new(columns.iter().map(|(ty, _)| ty));
        for row in 0..batch.num_rows() {
            let mut key = Vec::new();
            keys.write(row, &mut key);
            key.push(9);
            assert_eq!(reader.push(&key), Some(&[9][..]));
            assert_eq!(Reader::new(columns.iter().map(|(ty, _)| ty)).push(&key[..key.len() - 2]), None);
        }
        assert_eq!(reader.finish(), batch.columns());
    }

    #[test]
    fn floats_that_are_equal_come_back_as_one() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, -f64::NAN]));
        let batch = RecordBatch::try_from_iter([("value", values)]).expect("a batch");
        let keys = Keys::new(&batch, &[0]);
        let mut reader = Reader::new([&SqlType::Double]);
        for row in 0..2 {
            let mut key = Vec::new();
            keys.write(row, &mut key);
            assert_eq!(reader.push(&key), Some(&[][..]));
        }
        let found: ArrayRef = Arc::new(Float64Array::from(vec![0.0, f64::NAN]));
        assert_eq!(reader.finish(), [found]);
    }
}

//! Values of any type as bytes that can be read back, part of stored state. They do not sort.
//!
//! | value | bytes |
//! | --- | --- |
//! | NULL | 0 |
//! | any other | 1, and then: |
//! | boolean | 0 or 1 |
//! | fixed width | the value as Arrow has it in memory, lowest byte first |
//! | text, bytes, jsonb | as bytes in [`cell`](super::cell) |
//! | array | the number of elements as a length, the elements |
//! | struct | the fields |

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BooleanArray, BooleanBuilder, ListArray, StructArray, make_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields};
use weir_common::types::SqlType;
use weir_common::view::Error;

use super::Failure;
use super::cell::{damaged, put_bytes, put_length, take_byte, take_bytes, take_length};

/// Writes values of a column.
pub(super) enum Writer {
    Boolean(BooleanArray),
    Fixed { data: ArrayData, width: usize },
    Bytes(ArrayRef),
    List(ListArray, Box<Writer>),
    Struct(StructArray, Vec<Writer>),
}

impl Writer {
    /// # Errors
    /// For a type that no column has.
    pub(super) fn new(column: &ArrayRef) -> Result<Writer, Failure> {
        Ok(match column.data_type() {
            DataType::Boolean => Writer::Boolean(column.as_boolean().clone()),
            DataType::Utf8 | DataType::Binary => Writer::Bytes(Arc::clone(column)),
            DataType::List(_) => {
                let list: &ListArray = column.as_list();
                Writer::List(list.clone(), Box::new(Writer::new(list.values())?))
            }
            DataType::Struct(_) => {
                let fields = column.as_struct();
                Writer::Struct(fields.clone(), fields.columns().iter().map(Writer::new).collect::<Result<_, _>>()?)
            }
            other => {
                let width = other.primitive_width();
                let width = width.ok_or_else(|| Failure::Broken(format!("a value of type {other} is not kept")))?;
                Writer::Fixed { data: column.to_data(), width }
            }
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Writer::Boolean(array) => array.is_null(row),
            Writer::Fixed { data, .. } => data.is_null(row),
            Writer::Bytes(array) => array.is_null(row),
            Writer::List(array, _) => array.is_null(row),
            Writer::Struct(array, _) => array.is_null(row),
        }
    }

    /// Appends a value.
    pub(super) fn write(&self, row: usize, out: &mut Vec<u8>) {
        out.push(u8::from(!self.is_null(row)));
        if self.is_null(row) {
            return;
        }
        match self {
            Writer::Boolean(array) => out.push(array.value(row).into()),
            Writer::Fixed { data, width } => {
                let first = (data.offset() + row) * width;
                out.extend_from_slice(&data.buffers()[0].as_slice()[first..first + width]);
            }
            Writer::Bytes(array) => match array.as_string_opt::<i32>() {
                Some(texts) => put_bytes(texts.value(row).as_bytes(), out),
                None => put_bytes(array.as_binary::<i32>().value(row), out),
            },
            Writer::List(array, elements) => {
                let offsets = array.value_offsets();
                let (first, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                put_length((end - first) as u64, out);
                (first..end).for_each(|element| elements.write(element, out));
            }
            Writer::Struct(_, fields) => fields.iter().for_each(|field| field.write(row, out)),
        }
    }
}

/// Reads values into a column.
pub(super) enum Reader {
    Boolean(BooleanBuilder),
    Fixed { ty: DataType, width: usize, bytes: Vec<u8>, valid: Vec<bool> },
    Bytes { ty: DataType, offsets: Vec<usize>, bytes: Vec<u8>, valid: Vec<bool> },
    List { field: FieldRef, offsets: Vec<usize>, elements: Box<Reader>, valid: Vec<bool> },
    Struct { types: Fields, fields: Vec<Reader>, valid: Vec<bool> },
}

impl Reader {
    pub(super) fn new(ty: &SqlType) -> Reader {
        Reader::of(&ty.arrow())
    }

    fn of(ty: &DataType) -> Reader {
        let (ty, valid) = (ty.clone(), Vec::new());
        match ty {
            DataType::Boolean => Reader::Boolean(BooleanBuilder::new()),
            DataType::Utf8 | DataType::Binary => Reader::Bytes { ty, offsets: vec![0], bytes: Vec::new(), valid },
            DataType::List(field) => {
                let elements = Box::new(Reader::of(field.data_type()));
                Reader::List { field, offsets: vec![0], elements, valid }
            }
            DataType::Struct(types) => {
                let fields = types.iter().map(|field| Reader::of(field.data_type())).collect();
                Reader::Struct { types, fields, valid }
            }
            _ => {
                let width = ty.primitive_width().expect("every other type has a fixed width");
                Reader::Fixed { ty, width, bytes: Vec::new(), valid }
            }
        }
    }

    pub(super) fn push_null(&mut self) {
        match self {
            Reader::Boolean(values) => values.append_null(),
            Reader::Fixed { width, bytes, valid, .. } => {
                bytes.resize(bytes.len() + *width, 0);
                valid.push(false);
            }
            Reader::Bytes { offsets, bytes, valid, .. } => {
                offsets.push(bytes.len());
                valid.push(false);
            }
            Reader::List { offsets, elements, valid, .. } => {
                offsets.push(elements.len());
                valid.push(false);
            }
            Reader::Struct { fields, valid, .. } => {
                fields.iter_mut().for_each(Reader::push_null);
                valid.push(false);
            }
        }
    }

    /// The number of values.
    pub(super) fn len(&self) -> usize {
        match self {
            Reader::Boolean(values) => arrow::array::ArrayBuilder::len(values),
            Reader::Fixed { valid, .. }
            | Reader::Bytes { valid, .. }
            | Reader::List { valid, .. }
            | Reader::Struct { valid, .. } => valid.len(),
        }
    }

    /// Adds a value.
    pub(super) fn push(&mut self, input: &mut &[u8]) -> Result<(), Failure> {
        match take_byte(input)? {
            0 => {
                self.push_null();
                return Ok(());
            }
            1 => {}
            _ => return Err(damaged()),
        }
        match self {
            Reader::Boolean(values) => values.append_value(take_byte(input)? == 1),
            Reader::Fixed { width, bytes, valid, .. } => {
                let (value, rest) = input.split_at_checked(*width).ok_or_else(damaged)?;
                *input = rest;
                bytes.extend_from_slice(value);
                valid.push(true);
            }
            Reader::Bytes { ty, offsets, bytes, valid } => {
                let value = take_bytes(input)?;
                if *ty == DataType::Utf8 && std::str::from_utf8(value).is_err() {
                    return Err(damaged());
                }
                bytes.extend_from_slice(value);
                offsets.push(bytes.len());
                valid.push(true);
            }
            Reader::List { offsets, elements, valid, .. } => {
                for _ in 0..take_length(input)? {
                    elements.push(input)?;
                }
                offsets.push(elements.len());
                valid.push(true);
            }
            Reader::Struct { fields, valid, .. } => {
                fields.iter_mut().try_for_each(|field| field.push(input))?;
                valid.push(true);
            }
        }
        Ok(())
    }

    /// The column.
    pub(super) fn finish(self) -> Result<ArrayRef, Failure> {
        let broken = |error: arrow::error::ArrowError| Failure::Broken(error.to_string());
        Ok(match self {
            Reader::Boolean(mut values) => Arc::new(values.finish()),
            Reader::Fixed { ty, bytes, valid, .. } => {
                let data = ArrayData::builder(ty).len(valid.len()).add_buffer(Buffer::from_vec(bytes));
                make_array(data.nulls(nulls(valid)).align_buffers(true).build().map_err(broken)?)
            }
            Reader::Bytes { ty, offsets, bytes, valid } => {
                let data =
                    ArrayData::builder(ty).len(valid.len()).add_buffer(offsets_of(offsets)?.into_inner().into_inner());
                let data = data.add_buffer(Buffer::from_vec(bytes)).nulls(nulls(valid));
                make_array(data.build().map_err(broken)?)
            }
            Reader::List { field, offsets, elements, valid } => list(field, offsets, *elements, valid)?,
            Reader::Struct { types, fields, valid } => {
                let length = valid.len();
                let fields = fields.into_iter().map(Reader::finish).collect::<Result<Vec<_>, _>>()?;
                let rows = StructArray::try_new_with_length(types, fields, nulls(valid), length);
                Arc::new(rows.map_err(broken)?)
            }
        })
    }
}

/// Arrays, given where the elements of each of them end.
pub(super) fn list(
    field: FieldRef,
    offsets: Vec<usize>,
    elements: Reader,
    valid: Vec<bool>,
) -> Result<ArrayRef, Failure> {
    let list = ListArray::try_new(field, offsets_of(offsets)?, elements.finish()?, nulls(valid));
    Ok(Arc::new(list.map_err(|error| Failure::Broken(error.to_string()))?))
}

fn nulls(valid: Vec<bool>) -> Option<NullBuffer> {
    valid.contains(&false).then(|| NullBuffer::from(valid))
}

fn offsets_of(offsets: Vec<usize>) -> Result<OffsetBuffer<i32>, Failure> {
    let too_long = |_| Failure::from(Error::out_of_range("a result is too long"));
    let offset = |offset: usize| i32::try_from(offset).map_err(too_long);
    Ok(OffsetBuffer::new(offsets.into_iter().map(offset).collect::<Result<Vec<i32>, _>>()?.into()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, StringArray};
    use arrow::datatypes::IntervalMonthDayNano;
    use weir_common::types::StructField;

    use super::*;

    #[test]
    fn values_come_back() {
        let price = SqlType::Decimal { precision: 10, scale: 2 };
        let element = Arc::new(SqlType::Integer.field("item"));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
        let lists = ListArray::new(
            element,
            OffsetBuffer::new(vec![0, 2, 2, 3].into()),
            numbers,
            nulls(vec![true, false, true]),
        );
        let fields = vec![StructField { name: "a".to_owned(), ty: SqlType::Varchar }];
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None, Some("")]));
        let rows =
            StructArray::new(StructField::arrow(&fields), vec![Arc::clone(&text)], nulls(vec![true, true, false]));
        let days = IntervalMonthDayNano::new(1, -2, 3_000);
        let columns: Vec<(SqlType, ArrayRef)> = vec![
            (SqlType::Boolean, Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
            (SqlType::BigInt, Arc::new(Int64Array::from(vec![Some(-1), None, Some(i64::MAX)]))),
            (
                price.clone(),
                Arc::new(Decimal128Array::from(vec![Some(-5), None, Some(7)]).with_data_type(price.arrow())),
            ),
            (SqlType::Interval, Arc::new(IntervalMonthDayNanoArray::from(vec![Some(days), None, Some(days)]))),
            (SqlType::Varchar, text),
            (SqlType::Array(Box::new(SqlType::Integer)), Arc::new(lists)),
            (SqlType::Struct(fields), Arc::new(rows)),
        ];
        for (ty, column) in columns {
            let (writer, mut reader) = (Writer::new(&column).expect("a type"), Reader::new(&ty));
            for row in 0..column.len() {
                let mut bytes = Vec::new();
                writer.write(row, &mut bytes);
                let mut input = bytes.as_slice();
                reader.push(&mut input).expect("a value");
                assert!(input.is_empty());
                assert!(Reader::new(&ty).push(&mut &bytes[..bytes.len() - 1]).is_err());
            }
            assert_eq!(&reader.finish().expect("a column"), &column, "{ty}");
        }
    }
}

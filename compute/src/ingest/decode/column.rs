//! A column under construction: an Arrow builder by SQL type.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Decimal256Builder, Float32Builder, Float64Builder, GenericByteBuilder, Int16Builder, Int32Builder, Int64Builder,
    IntervalMonthDayNanoBuilder, ListArray, NullBufferBuilder, PrimitiveBuilder, StringBuilder, StructArray,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ByteArrayType, DataType, FieldRef, Fields, IntervalMonthDayNano, i256};
use weir_common::types::{SqlType, StructField};

use super::cell::{Cell, Scratch};
use super::span::Span;

/// The bytes of an offset in a column of variable width.
const OFFSET: usize = size_of::<i32>();

pub(super) enum Builder {
    Boolean(BooleanBuilder),
    SmallInt(Int16Builder),
    Integer(Int32Builder),
    BigInt(Int64Builder),
    Real(Float32Builder),
    Double(Float64Builder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Text(StringBuilder),
    Bytea(BinaryBuilder),
    Decimal(Decimal128Builder),
    WideDecimal(Decimal256Builder),
    Time(Time64MicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    Lists(Box<Lists>),
    Structs(Box<Structs>),
}

/// Arrays under construction.
pub(super) struct Lists {
    field: FieldRef,
    elements: Builder,
    /// The end of each array in the row of all elements, after a 0.
    offsets: Vec<i32>,
    validity: NullBufferBuilder,
}

/// Structs under construction.
pub(super) struct Structs {
    fields: Fields,
    columns: Vec<Builder>,
    validity: NullBufferBuilder,
}

/// The initial length. Room is reserved only once there is a NULL.
const VALIDITY_ROWS: usize = 1024;

impl Builder {
    pub(super) fn new(ty: &SqlType) -> Builder {
        match ty {
            SqlType::Boolean => Builder::Boolean(BooleanBuilder::new()),
            SqlType::SmallInt => Builder::SmallInt(Int16Builder::new()),
            SqlType::Integer => Builder::Integer(Int32Builder::new()),
            SqlType::BigInt => Builder::BigInt(Int64Builder::new()),
            SqlType::Real => Builder::Real(Float32Builder::new()),
            SqlType::Double => Builder::Double(Float64Builder::new()),
            SqlType::Date => Builder::Date(Date32Builder::new()),
            SqlType::Timestamp | SqlType::Timestamptz => {
                Builder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(ty.arrow()))
            }
            SqlType::Varchar | SqlType::Jsonb => Builder::Text(StringBuilder::new()),
            SqlType::Bytea => Builder::Bytea(BinaryBuilder::new()),
            SqlType::Numeric | SqlType::Decimal { .. } => match ty.arrow() {
                narrow @ DataType::Decimal128(..) => Builder::Decimal(Decimal128Builder::new().with_data_type(narrow)),
                wide => Builder::WideDecimal(Decimal256Builder::new().with_data_type(wide)),
            },
            SqlType::Time => Builder::Time(Time64MicrosecondBuilder::new()),
            SqlType::Interval => Builder::Interval(IntervalMonthDayNanoBuilder::new()),
            SqlType::Array(element) => Builder::Lists(Box::new(Lists::new(ty, element))),
            SqlType::Struct(fields) => Builder::Structs(Box::new(Structs::new(fields))),
        }
    }

    /// Appends a cell that was made for the column's type. Returns its size in bytes.
    #[inline]
    pub(super) fn append(&mut self, cell: Cell, payload: &str, scratch: &Scratch) -> usize {
        match (self, cell) {
            (builder, Cell::Null) => builder.append_null(),
            (Builder::Boolean(builder), Cell::Boolean(value)) => {
                builder.append_value(value);
                1
            }
            (Builder::SmallInt(builder), Cell::Integer(value)) => {
                builder.append_value(i16::try_from(value).expect("checked when the cell was made"));
                size_of::<i16>()
            }
            (Builder::Integer(builder), Cell::Integer(value)) => {
                builder.append_value(i32::try_from(value).expect("checked when the cell was made"));
                size_of::<i32>()
            }
            (Builder::Date(builder), Cell::Integer(value)) => {
                builder.append_value(i32::try_from(value).expect("checked when the cell was made"));
                size_of::<i32>()
            }
            (Builder::BigInt(builder), Cell::Integer(value)) => {
                builder.append_value(value);
                size_of::<i64>()
            }
            (Builder::Timestamp(builder), Cell::Integer(value)) => {
                builder.append_value(value);
                size_of::<i64>()
            }
            (Builder::Real(builder), Cell::Float(value)) => {
                #[expect(clippy::cast_possible_truncation, reason = "the cell was made from an f32")]
                builder.append_value(value as f32);
                size_of::<f32>()
            }
            (Builder::Double(builder), Cell::Float(value)) => {
                builder.append_value(value);
                size_of::<f64>()
            }
            (builder @ Builder::Text(_), Cell::Payload(span)) => builder.append_text(span.of(payload)),
            (builder @ Builder::Text(_), Cell::Text(span)) => builder.append_text(span.of(&scratch.arena.text)),
            (Builder::Bytea(builder), Cell::Bytes(span)) => {
                builder.append_value(span.bytes(&scratch.arena.bytes));
                OFFSET + span.len()
            }
            (Builder::Decimal(builder), Cell::Decimal(at)) => {
                let value = scratch.arena.decimals[at as usize].to_i128();
                builder.append_value(value.expect("checked when the cell was made"));
                size_of::<i128>()
            }
            (Builder::WideDecimal(builder), Cell::Decimal(at)) => {
                builder.append_value(scratch.arena.decimals[at as usize]);
                size_of::<i256>()
            }
            (Builder::Time(builder), Cell::Integer(value)) => {
                builder.append_value(value);
                size_of::<i64>()
            }
            (Builder::Interval(builder), Cell::Interval(at)) => {
                builder.append_value(scratch.arena.intervals[at as usize]);
                size_of::<IntervalMonthDayNano>()
            }
            (Builder::Lists(lists), Cell::List(elements)) => lists.append(elements, payload, scratch),
            (Builder::Structs(structs), Cell::Struct(fields)) => structs.append(fields, payload, scratch),
            (_, cell) => unreachable!("a column is never given a cell of another type: {cell:?}"),
        }
    }

    /// Appends to a varchar.
    #[inline]
    pub(super) fn append_text(&mut self, text: &str) -> usize {
        let Builder::Text(builder) = self else { unreachable!("only varchar columns are given text") };
        builder.append_value(text);
        OFFSET + text.len()
    }

    fn append_null(&mut self) -> usize {
        match self {
            Builder::Boolean(builder) => builder.append_null(),
            Builder::SmallInt(builder) => builder.append_null(),
            Builder::Integer(builder) => builder.append_null(),
            Builder::BigInt(builder) => builder.append_null(),
            Builder::Real(builder) => builder.append_null(),
            Builder::Double(builder) => builder.append_null(),
            Builder::Date(builder) => builder.append_null(),
            Builder::Timestamp(builder) => builder.append_null(),
            Builder::Text(builder) => builder.append_null(),
            Builder::Bytea(builder) => builder.append_null(),
            Builder::Decimal(builder) => builder.append_null(),
            Builder::WideDecimal(builder) => builder.append_null(),
            Builder::Time(builder) => builder.append_null(),
            Builder::Interval(builder) => builder.append_null(),
            Builder::Lists(lists) => lists.append_null(),
            Builder::Structs(structs) => return structs.append_null(),
        }
        OFFSET
    }

    /// Returns the values since the last call. Keeps room for as many again, since the next batch
    /// is likely to be as long.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Boolean(builder) => Arc::new(builder.finish()),
            Builder::SmallInt(builder) => finish_primitive(builder),
            Builder::Integer(builder) => finish_primitive(builder),
            Builder::BigInt(builder) => finish_primitive(builder),
            Builder::Real(builder) => finish_primitive(builder),
            Builder::Double(builder) => finish_primitive(builder),
            Builder::Date(builder) => finish_primitive(builder),
            Builder::Timestamp(builder) => finish_primitive(builder),
            Builder::Text(builder) => finish_bytes(builder),
            Builder::Bytea(builder) => finish_bytes(builder),
            Builder::Decimal(builder) => finish_primitive(builder),
            Builder::WideDecimal(builder) => finish_primitive(builder),
            Builder::Time(builder) => finish_primitive(builder),
            Builder::Interval(builder) => finish_primitive(builder),
            Builder::Lists(lists) => Arc::new(lists.finish()),
            Builder::Structs(structs) => Arc::new(structs.finish()),
        }
    }
}

fn finish_primitive<T: ArrowPrimitiveType>(builder: &mut PrimitiveBuilder<T>) -> ArrayRef {
    let array = builder.finish();
    *builder = PrimitiveBuilder::with_capacity(array.len()).with_data_type(array.data_type().clone());
    Arc::new(array)
}

fn finish_bytes<T: ByteArrayType>(builder: &mut GenericByteBuilder<T>) -> ArrayRef {
    let array = builder.finish();
    *builder = GenericByteBuilder::with_capacity(array.len(), array.value_data().len());
    Arc::new(array)
}

impl Lists {
    fn new(ty: &SqlType, element: &SqlType) -> Lists {
        let DataType::List(field) = ty.arrow() else { unreachable!("arrays are stored as lists") };
        let elements = Builder::new(element);
        Lists { field, elements, offsets: vec![0], validity: NullBufferBuilder::new(VALIDITY_ROWS) }
    }

    fn append(&mut self, elements: Span, payload: &str, scratch: &Scratch) -> usize {
        let mut bytes = OFFSET;
        for cell in elements.cells(&scratch.arena.nested) {
            bytes += self.elements.append(*cell, payload, scratch);
        }
        let last = self.offsets.last().copied().unwrap_or_default();
        let end = i32::try_from(elements.len()).ok().and_then(|length| last.checked_add(length));
        self.offsets.push(end.expect("a batch is smaller than 2 GiB"));
        self.validity.append_non_null();
        bytes
    }

    fn append_null(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or_default());
        self.validity.append_null();
    }

    fn finish(&mut self) -> ListArray {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        ListArray::new(Arc::clone(&self.field), offsets, self.elements.finish(), self.validity.finish())
    }
}

impl Structs {
    fn new(fields: &[StructField]) -> Structs {
        let columns = fields.iter().map(|field| Builder::new(&field.ty)).collect();
        Structs { fields: StructField::arrow(fields), columns, validity: NullBufferBuilder::new(VALIDITY_ROWS) }
    }

    fn append(&mut self, fields: Span, payload: &str, scratch: &Scratch) -> usize {
        let cells = fields.cells(&scratch.arena.nested);
        let bytes =
            self.columns.iter_mut().zip(cells).map(|(column, cell)| column.append(*cell, payload, scratch)).sum();
        self.validity.append_non_null();
        bytes
    }

    fn append_null(&mut self) -> usize {
        self.validity.append_null();
        self.columns.iter_mut().map(Builder::append_null).sum()
    }

    fn finish(&mut self) -> StructArray {
        let columns = self.columns.iter_mut().map(Builder::finish).collect();
        StructArray::new(self.fields.clone(), columns, self.validity.finish())
    }
}

//! A column under construction: an Arrow builder by SQL type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use weir_common::types::SqlType;

use super::cell::{Cell, Scratch};

/// Bytes of an offset in a column of variable width.
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
}

impl Builder {
    pub(super) fn new(ty: SqlType) -> Builder {
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
        }
    }

    /// Appends a cell, which was made for the column's type, and says how many bytes it takes.
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
        }
        OFFSET
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Boolean(builder) => Arc::new(builder.finish()),
            Builder::SmallInt(builder) => Arc::new(builder.finish()),
            Builder::Integer(builder) => Arc::new(builder.finish()),
            Builder::BigInt(builder) => Arc::new(builder.finish()),
            Builder::Real(builder) => Arc::new(builder.finish()),
            Builder::Double(builder) => Arc::new(builder.finish()),
            Builder::Date(builder) => Arc::new(builder.finish()),
            Builder::Timestamp(builder) => Arc::new(builder.finish()),
            Builder::Text(builder) => Arc::new(builder.finish()),
            Builder::Bytea(builder) => Arc::new(builder.finish()),
        }
    }
}

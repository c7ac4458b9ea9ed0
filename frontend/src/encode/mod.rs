//! Record batches → rows as PostgreSQL sends them, in text or binary.
//!
//! Owns which PostgreSQL type a column is reported as, and the output of every type a table can have. Types that only
//! expressions yield (lists, intervals, …) are left to `arrow-pg`. Columns are cast once a batch, so that a row costs a
//! match a column and no allocation of its own.

mod copy;
mod datetime;
mod float;
mod numeric;

use std::fmt::Write as _;
use std::sync::Arc;

use arrow_pg::datatypes::{PG_CHAR_KEY, PG_OID_ALIAS_KEY, field_into_pg_type};
use arrow_pg::encoder::{Encoder, encode_value};
use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray,
    UInt64Array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DecimalType, Field, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldFormat, FieldInfo};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::data::DataRow;
use pgwire::types::ToSqlText;
use postgres_types::{IsNull, ToSql};
use weir_common::types::JSONB_EXTENSION;

pub(crate) use copy::CopyRows;

use crate::error::{Error, sqlstate};

/// Arrow's key for the name of an extension type.
const EXTENSION_NAME: &str = "ARROW:extension:name";
/// The first byte of a jsonb value in binary: the version of its format.
const JSONB_VERSION: u8 = 1;
/// What a batch's rows are expected to need, to begin with.
const ROW_BYTES: usize = 64;

/// The PostgreSQL type that a column is reported as.
///
/// # Errors
/// `0A000` for a type that has no counterpart.
pub(crate) fn pg_type(field: &Arc<Field>) -> Result<Type, Error> {
    if is_jsonb(field) {
        return Ok(Type::JSONB);
    }
    if field.metadata().contains_key(PG_OID_ALIAS_KEY) || field.metadata().contains_key(PG_CHAR_KEY) {
        return field_into_pg_type(field).map_err(|_| no_type(field));
    }
    match field.data_type() {
        // There is one type of text, and it is called as in RisingWave.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(Type::VARCHAR),
        // A NULL that nothing gave a type.
        DataType::Null => Ok(Type::TEXT),
        // What DataFusion counts with, where PostgreSQL has a bigint.
        DataType::UInt64 => Ok(Type::INT8),
        _ => field_into_pg_type(field).map_err(|_| no_type(field)),
    }
}

/// Whether a column of text is one of jsonb.
pub(crate) fn is_jsonb(field: &Field) -> bool {
    field.metadata().get(EXTENSION_NAME).is_some_and(|name| name == JSONB_EXTENSION)
}

fn no_type(field: &Field) -> Error {
    Error::unsupported(format!("column \"{}\" has the type {}, which cannot be sent", field.name(), field.data_type()))
        .with_hint("cast it to a type of PostgreSQL's")
}

/// How a result's columns are described to the client. `names` stand for DataFusion's own.
pub(crate) fn describe(schema: &SchemaRef, names: &[String], format: &Format) -> Result<Vec<FieldInfo>, Error> {
    let described = schema.fields().iter().enumerate().map(|(index, field)| {
        let name = names.get(index).unwrap_or(field.name()).clone();
        let ty = pg_type(field)?;
        let size = type_size(&ty);
        Ok(FieldInfo::new(name, None, None, ty, format_of(format, index)).with_type_size(size))
    });
    described.collect()
}

/// A client may send fewer formats than there are columns; those are text.
fn format_of(format: &Format, index: usize) -> FieldFormat {
    match format {
        Format::Individual(codes) if index >= codes.len() => FieldFormat::Text,
        format => format.format_for(index),
    }
}

/// `pg_type.typlen`.
fn type_size(ty: &Type) -> i16 {
    match *ty {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME => 8,
        Type::INTERVAL => 16,
        _ => -1,
    }
}

/// The rows of a batch, one after the other.
pub(crate) struct Rows {
    columns: Vec<Column>,
    formats: Vec<FieldFormat>,
    buffer: BytesMut,
    next: usize,
    count: usize,
}

impl Rows {
    /// # Errors
    /// `XX000` if the batch has other columns than were described.
    pub(crate) fn new(batch: &RecordBatch, described: &[FieldInfo]) -> Result<Rows, Error> {
        if batch.num_columns() != described.len() {
            return Err(Error::internal("a result has other columns than were described"));
        }
        let schema = batch.schema();
        let columns = batch
            .columns()
            .iter()
            .zip(schema.fields())
            .zip(described)
            .map(|((array, field), info)| Column::new(array, field, info))
            .collect::<Result<_, Error>>()?;
        let formats = described.iter().map(FieldInfo::format).collect();
        let buffer = BytesMut::with_capacity(batch.num_rows() * ROW_BYTES);
        Ok(Rows { columns, formats, buffer, next: 0, count: batch.num_rows() })
    }

    fn row(&mut self) -> PgWireResult<DataRow> {
        for (column, format) in self.columns.iter().zip(&self.formats) {
            let length_at = self.buffer.len();
            self.buffer.put_i32(-1);
            if column.write(self.next, *format, &mut self.buffer)? {
                let length = i32::try_from(self.buffer.len() - length_at - size_of::<i32>())
                    .map_err(|_| Error::user(sqlstate::OUT_OF_MEMORY, "a value is larger than 2 GiB"))?;
                self.buffer[length_at..length_at + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
            }
        }
        let count = i16::try_from(self.columns.len()).map_err(|_| Error::unsupported("more than 32767 columns"))?;
        Ok(DataRow::new(self.buffer.split(), count))
    }
}

impl Iterator for Rows {
    type Item = PgWireResult<DataRow>;

    fn next(&mut self) -> Option<PgWireResult<DataRow>> {
        (self.next < self.count).then(|| {
            let row = self.row();
            self.next += 1;
            row
        })
    }
}

/// A column of a batch, cast to what it is.
enum Column {
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Uint8(UInt64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Text(StringArray),
    TextView(StringViewArray),
    Jsonb(StringArray),
    Bytea(BinaryArray),
    Date(Date32Array),
    Timestamp { micros: TimestampMicrosecondArray, zoned: bool },
    Numeric(Decimal128Array),
    Other { array: ArrayRef, field: Arc<Field>, info: Box<FieldInfo> },
}

impl Column {
    fn new(array: &ArrayRef, field: &Arc<Field>, info: &FieldInfo) -> Result<Column, Error> {
        let jsonb = *info.datatype() == Type::JSONB;
        let other =
            || Column::Other { array: Arc::clone(array), field: Arc::clone(field), info: Box::new(info.clone()) };
        if matches!(*info.datatype(), Type::CHAR | Type::OID) || field.metadata().contains_key(PG_OID_ALIAS_KEY) {
            return Ok(other());
        }
        Ok(match array.data_type() {
            DataType::Boolean => Column::Bool(array.as_boolean().clone()),
            DataType::Int16 => Column::Int2(array.as_primitive::<Int16Type>().clone()),
            DataType::Int32 => Column::Int4(array.as_primitive::<Int32Type>().clone()),
            DataType::Int64 => Column::Int8(array.as_primitive::<Int64Type>().clone()),
            DataType::UInt64 => Column::Uint8(array.as_primitive::<UInt64Type>().clone()),
            DataType::Float32 => Column::Float4(array.as_primitive::<Float32Type>().clone()),
            DataType::Float64 => Column::Float8(array.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 if jsonb => Column::Jsonb(array.as_string::<i32>().clone()),
            DataType::Utf8 => Column::Text(array.as_string::<i32>().clone()),
            DataType::Utf8View => Column::TextView(array.as_string_view().clone()),
            DataType::Binary => Column::Bytea(array.as_binary::<i32>().clone()),
            DataType::Date32 => Column::Date(array.as_primitive::<Date32Type>().clone()),
            DataType::Timestamp(_, zone) => {
                let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                let cast = cast(array, &micros).map_err(|error| {
                    Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, format!("timestamp out of range: {error}"))
                })?;
                Column::Timestamp {
                    micros: cast.as_primitive::<TimestampMicrosecondType>().clone(),
                    zoned: zone.is_some(),
                }
            }
            DataType::Decimal128(_, _) => Column::Numeric(array.as_primitive::<Decimal128Type>().clone()),
            _ => other(),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Bool(array) => array.is_null(row),
            Column::Int2(array) => array.is_null(row),
            Column::Int4(array) => array.is_null(row),
            Column::Int8(array) => array.is_null(row),
            Column::Uint8(array) => array.is_null(row),
            Column::Float4(array) => array.is_null(row),
            Column::Float8(array) => array.is_null(row),
            Column::Text(array) | Column::Jsonb(array) => array.is_null(row),
            Column::TextView(array) => array.is_null(row),
            Column::Bytea(array) => array.is_null(row),
            Column::Date(array) => array.is_null(row),
            Column::Timestamp { micros, .. } => micros.is_null(row),
            Column::Numeric(array) => array.is_null(row),
            Column::Other { array, .. } => array.is_null(row) || *array.data_type() == DataType::Null,
        }
    }

    /// Appends a value; false for NULL.
    fn write(&self, row: usize, format: FieldFormat, out: &mut BytesMut) -> PgWireResult<bool> {
        if self.is_null(row) {
            return Ok(false);
        }
        match format {
            FieldFormat::Text => self.write_text(row, out)?,
            FieldFormat::Binary => self.write_binary(row, out)?,
        }
        Ok(true)
    }

    fn write_text(&self, row: usize, out: &mut BytesMut) -> PgWireResult<()> {
        match self {
            Column::Bool(array) => out.put_u8(if array.value(row) { b't' } else { b'f' }),
            Column::Int2(array) => display(array.value(row), out),
            Column::Int4(array) => display(array.value(row), out),
            Column::Int8(array) => display(array.value(row), out),
            Column::Uint8(array) => display(array.value(row), out),
            Column::Float4(array) => float::write_f32(array.value(row), out),
            Column::Float8(array) => float::write_f64(array.value(row), out),
            Column::Text(array) | Column::Jsonb(array) => out.put_slice(array.value(row).as_bytes()),
            Column::TextView(array) => out.put_slice(array.value(row).as_bytes()),
            Column::Bytea(array) => hex(array.value(row), out),
            Column::Date(array) => datetime::write_date(array.value(row), out),
            Column::Timestamp { micros, zoned } => datetime::write_timestamp(micros.value(row), *zoned, out),
            Column::Numeric(array) => {
                let text = Decimal128Type::format_decimal(array.value(row), array.precision(), array.scale());
                out.put_slice(text.as_bytes());
            }
            Column::Other { array, field, info } => other(array, row, field, info, out)?,
        }
        Ok(())
    }

    fn write_binary(&self, row: usize, out: &mut BytesMut) -> PgWireResult<()> {
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
            Column::Text(array) => out.put_slice(array.value(row).as_bytes()),
            Column::TextView(array) => out.put_slice(array.value(row).as_bytes()),
            Column::Jsonb(array) => {
                out.put_u8(JSONB_VERSION);
                out.put_slice(array.value(row).as_bytes());
            }
            Column::Bytea(array) => out.put_slice(array.value(row)),
            Column::Date(array) => out.put_i32(datetime::date_to_wire(array.value(row))?),
            Column::Timestamp { micros, .. } => out.put_i64(datetime::timestamp_to_wire(micros.value(row))?),
            Column::Numeric(array) => numeric::write_binary(array.value(row), array.scale(), out),
            Column::Other { array, field, info } => other(array, row, field, info, out)?,
        }
        Ok(())
    }
}

impl From<Error> for PgWireError {
    fn from(error: Error) -> PgWireError {
        crate::server::wire_error(error)
    }
}

fn display(value: impl std::fmt::Display, out: &mut BytesMut) {
    write!(out, "{value}").expect("the buffer grows");
}

/// `\x` and two digits a byte.
fn hex(bytes: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + 2 * bytes.len());
    out.put_slice(b"\\x");
    for byte in bytes {
        out.put_u8(DIGITS[usize::from(byte >> 4)]);
        out.put_u8(DIGITS[usize::from(byte & 0xf)]);
    }
}

/// What tables cannot hold, by way of `arrow-pg`.
fn other(array: &ArrayRef, row: usize, field: &Field, info: &FieldInfo, out: &mut BytesMut) -> PgWireResult<()> {
    encode_value(&mut Value { out, null: false }, array, row, field, info)
}

/// Takes one value without its length.
struct Value<'a> {
    out: &'a mut BytesMut,
    null: bool,
}

impl Encoder for Value<'_> {
    type Item = bool;

    fn encode_field<T>(&mut self, value: &T, field: &FieldInfo) -> PgWireResult<()>
    where
        T: ToSql + ToSqlText + Sized,
    {
        let outcome = match field.format() {
            FieldFormat::Text => value.to_sql_text(field.datatype(), self.out, field.format_options().as_ref()),
            FieldFormat::Binary => value.to_sql(field.datatype(), self.out),
        };
        self.null = matches!(outcome?, IsNull::Yes);
        Ok(())
    }

    fn take_row(&mut self) -> bool {
        self.null
    }
}

#[cfg(test)]
mod tests;

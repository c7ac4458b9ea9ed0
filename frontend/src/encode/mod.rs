//! Record batches → rows as PostgreSQL sends them, in text or binary.
//!
//! Owns which PostgreSQL type a column is reported as, and the output of every type a table can have or an expression
//! can yield. Columns are cast once a batch, so that a row costs a match a column and no allocation of its own.

mod column;
mod copy;
mod datetime;
mod float;
mod nested;
mod numeric;

use std::sync::Arc;

use arrow_pg::datatypes::{PG_CHAR_KEY, PG_OID_ALIAS_KEY, field_into_pg_type};
use bytes::BytesMut;
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldFormat, FieldInfo};
use pgwire::error::PgWireResult;
use pgwire::messages::data::DataRow;
use weir_common::types::JSONB_EXTENSION;

use column::Column;
pub(crate) use copy::CopyRows;

use crate::error::Error;

/// Arrow's key for the name of an extension type.
const EXTENSION_NAME: &str = "ARROW:extension:name";
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
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            Ok(Type::NUMERIC)
        }
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::FixedSizeList(element, _)
        | DataType::ListView(element) => nested::array_of(&pg_type(element)?).ok_or_else(|| no_type(field)),
        // A struct has no name, and so no type of its own.
        DataType::Struct(_) => Ok(Type::RECORD),
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
            .map(|((array, field), info)| Column::described(array, field, info))
            .collect::<Result<_, Error>>()?;
        let formats = described.iter().map(FieldInfo::format).collect();
        let buffer = BytesMut::with_capacity(batch.num_rows() * ROW_BYTES);
        Ok(Rows { columns, formats, buffer, next: 0, count: batch.num_rows() })
    }

    fn row(&mut self) -> PgWireResult<DataRow> {
        for (column, format) in self.columns.iter().zip(&self.formats) {
            column::sized(&mut self.buffer, |out| column.write(self.next, *format, out))?;
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

/// Each value of a column as the text that a cast to text gives: what is printed, but for booleans, which are words.
///
/// # Errors
/// As [`Column::new`].
pub(crate) fn texts(array: &ArrayRef, field: &Arc<Field>) -> Result<ArrayRef, Error> {
    let column = Column::new(array, field)?;
    let mut texts = StringBuilder::with_capacity(array.len(), 0);
    let mut buffer = BytesMut::new();
    for row in 0..array.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        if let Column::Bool(values) = &column {
            texts.append_value(if values.value(row) { "true" } else { "false" });
            continue;
        }
        buffer.clear();
        column.write_text(row, &mut buffer).map_err(|error| Error::internal(error.to_string()))?;
        let text = std::str::from_utf8(&buffer).map_err(|_| Error::internal("a value is printed as no text"))?;
        texts.append_value(text);
    }
    Ok(Arc::new(texts.finish()))
}

#[cfg(test)]
mod tests;

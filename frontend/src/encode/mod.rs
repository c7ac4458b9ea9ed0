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

use bytes::BytesMut;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, SchemaRef, TimeUnit};
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldFormat, FieldInfo};
use pgwire::error::PgWireResult;
use pgwire::messages::data::DataRow;
use postgres_types::Kind;
use weir_common::types::{JSONB_EXTENSION, NUMERIC_PRECISION, SqlType};

use column::Column;
pub(crate) use copy::CopyRows;
pub(crate) use nested::array_of;

use crate::error::Error;

/// Arrow's key for the name of an extension type.
const EXTENSION_NAME: &str = "ARROW:extension:name";
/// What a batch's rows are expected to need, to begin with.
const ROW_BYTES: usize = 64;

/// The key of a field's metadata that names its type by the oid, where Arrow has one type for several of PostgreSQL's.
const MARK: &str = "pg.type";

/// A field that is reported as a type. Without a mark if it would be anyway.
pub(crate) fn marked(field: Field, ty: &Type) -> Field {
    let known = unmarked_type(&Arc::new(field.clone())).is_ok_and(|unmarked| unmarked == *ty);
    if known { field } else { field.with_metadata([(MARK.to_owned(), ty.oid().to_string())].into()) }
}

/// The type that a field was marked with, if its values are still kept as such.
pub(crate) fn mark_of(field: &Field) -> Option<Type> {
    let ty = Type::from_oid(field.metadata().get(MARK)?.parse().ok()?)?;
    let is_sent_with_name = matches!(field.data_type(), DataType::Struct(_)) && arrow_type(&ty) == DataType::UInt32;
    // A cast keeps the mark of its operand.
    (is_sent_with_name || arrow_type(&ty) == *field.data_type()).then_some(ty)
}

/// The PostgreSQL type that a column is reported as.
///
/// # Errors
/// `0A000` for a type that has no counterpart.
pub(crate) fn pg_type(field: &Arc<Field>) -> Result<Type, Error> {
    mark_of(field).map_or_else(|| unmarked_type(field), Ok)
}

fn unmarked_type(field: &Arc<Field>) -> Result<Type, Error> {
    if is_jsonb(field) {
        return Ok(Type::JSONB);
    }
    Ok(match field.data_type() {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        // UInt64: what DataFusion counts with, where PostgreSQL has a bigint.
        DataType::Int64 | DataType::UInt64 => Type::INT8,
        DataType::UInt32 => Type::OID,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            Type::NUMERIC
        }
        // There is one type of text, and it is called as in RisingWave.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Type::VARCHAR,
        // A NULL that nothing gave a type.
        DataType::Null => Type::TEXT,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        DataType::LargeList(element) if *element.data_type() == DataType::Int16 => Type::INT2_VECTOR,
        DataType::LargeList(element) if *element.data_type() == DataType::UInt32 => Type::OID_VECTOR,
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::FixedSizeList(element, _)
        | DataType::ListView(element) => nested::array_of(&pg_type(element)?).ok_or_else(|| no_type(field))?,
        // A struct has no name, and so no type of its own.
        DataType::Struct(_) => Type::RECORD,
        DataType::Dictionary(_, value) => pg_type(&Arc::new(Field::new(field.name(), value.as_ref().clone(), true)))?,
        _ => return Err(no_type(field)),
    })
}

/// How the values of a type of PostgreSQL's catalogs are kept. An oid is the only `UInt32`, and vectors are the only
/// `LargeList`s, so that both are known where a plan loses the marks of columns.
pub(crate) fn arrow_type(ty: &Type) -> DataType {
    let list_of = |element: DataType| Arc::new(Field::new_list_field(element, true));
    match *ty {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        Type::NUMERIC => SqlType::Numeric.arrow(),
        Type::OID
        | Type::XID
        | Type::CID
        | Type::REGPROC
        | Type::REGPROCEDURE
        | Type::REGOPER
        | Type::REGOPERATOR
        | Type::REGCLASS
        | Type::REGTYPE
        | Type::REGNAMESPACE
        | Type::REGROLE
        | Type::REGCOLLATION => DataType::UInt32,
        Type::INT2_VECTOR => DataType::LargeList(list_of(DataType::Int16)),
        Type::OID_VECTOR => DataType::LargeList(list_of(DataType::UInt32)),
        ref ty => match ty.kind() {
            Kind::Array(element) => DataType::List(list_of(arrow_type(element))),
            _ => DataType::Utf8,
        },
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

/// Where a column of a result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// `pg_class.oid` of the table and `pg_attribute.attnum`, if it is a table's column.
    pub(crate) column: Option<(u32, i16)>,
    /// `pg_attribute.atttypmod`, or -1.
    pub(crate) modifier: i32,
}

impl Default for Origin {
    fn default() -> Origin {
        Origin { column: None, modifier: -1 }
    }
}

/// The precision and scale that a type was declared with, as PostgreSQL keeps them; -1 for none.
pub(crate) fn modifier(field: &Field) -> i32 {
    match field.data_type() {
        DataType::Decimal256(NUMERIC_PRECISION, _) => -1,
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            (i32::from(*precision) << 16 | i32::from(*scale)) + 4
        }
        DataType::List(element) => modifier(element),
        _ => -1,
    }
}

/// How a result's columns are described to the client. `names` stand for DataFusion's own.
pub(crate) fn describe(
    schema: &SchemaRef,
    names: &[String],
    origins: &[Origin],
    format: &Format,
) -> Result<Vec<FieldInfo>, Error> {
    let described = schema.fields().iter().enumerate().map(|(index, field)| {
        let name = names.get(index).unwrap_or(field.name()).clone();
        let ty = pg_type(field)?;
        let size = type_size(&ty);
        let origin = origins.get(index).copied().unwrap_or_default();
        // The protocol's number has no sign, the crate's has.
        let table = origin.column.map(|(table, _)| table.cast_signed());
        let column = origin.column.map(|(_, column)| column);
        Ok(FieldInfo::new(name, table, column, ty, format_of(format, index))
            .with_type_size(size)
            .with_type_modifier(origin.modifier))
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
        Type::INT4 | Type::FLOAT4 | Type::DATE => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME => 8,
        Type::INTERVAL => 16,
        Type::NAME => 64,
        // Oids of all kinds.
        ref ty if arrow_type(ty) == DataType::UInt32 => 4,
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
            .map(|(array, field)| Column::new(array, field))
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
    if *array.data_type() == DataType::Boolean {
        let words = array.as_boolean().iter().map(|value| value.map(|value| if value { "true" } else { "false" }));
        return Ok(Arc::new(words.collect::<StringArray>()));
    }
    printed(array, field)
}

/// Each value of a column as it is printed.
///
/// # Errors
/// As [`Column::new`].
pub(crate) fn printed(array: &ArrayRef, field: &Arc<Field>) -> Result<ArrayRef, Error> {
    let column = Column::new(array, field)?;
    let mut texts = StringBuilder::with_capacity(array.len(), 0);
    let mut buffer = BytesMut::new();
    for row in 0..array.len() {
        if column.is_null(row) {
            texts.append_null();
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

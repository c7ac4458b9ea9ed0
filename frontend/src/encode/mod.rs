//! Record batches → rows in the form in which PostgreSQL sends them, in text or binary; and the
//! description of their columns.

mod copy;

use bytes::BytesMut;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldFormat, FieldInfo};
use pgwire::messages::data::DataRow;
use weir_sql::error::Error;
use weir_sql::output::{Form, Output};
use weir_sql::types::{arrow_type, pg_type};

pub(crate) use copy::{CopyRows, field_format, forced, head, tail};

/// The expected size of a row, for the first allocation.
const ROW_BYTES: usize = 64;

/// The origin of a result's column.
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

/// Describes a result's columns to the client. `names` replace DataFusion's own names.
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
        // The protocol's number is unsigned, the crate's is signed.
        let table = origin.column.map(|(table, _)| table.cast_signed());
        let column = origin.column.map(|(_, column)| column);
        Ok(FieldInfo::new(name, table, column, ty, format_of(format, index))
            .with_type_size(size)
            .with_type_modifier(origin.modifier))
    });
    described.collect()
}

/// Returns a column's format. A client may send fewer formats than there are columns; the rest is
/// text.
fn format_of(format: &Format, index: usize) -> FieldFormat {
    match format {
        Format::Individual(codes) if index >= codes.len() => FieldFormat::Text,
        format => format.format_for(index),
    }
}

/// Returns `pg_type.typlen`.
fn type_size(ty: &Type) -> i16 {
    match *ty {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME => 8,
        Type::INTERVAL => 16,
        Type::NAME => 64,
        // The types that are represented as oids.
        ref ty if arrow_type(ty) == DataType::UInt32 => 4,
        _ => -1,
    }
}

/// The rows of a batch, one after the other.
pub(crate) struct Rows {
    columns: Vec<Output>,
    forms: Vec<Form>,
    buffer: BytesMut,
    next: usize,
    count: usize,
}

impl Rows {
    /// # Errors
    /// `XX000` if the columns of the batch are not the described ones.
    pub(crate) fn new(batch: &RecordBatch, described: &[FieldInfo]) -> Result<Rows, Error> {
        if batch.num_columns() != described.len() {
            return Err(Error::internal("a result has other columns than were described"));
        }
        let schema = batch.schema();
        let columns = batch
            .columns()
            .iter()
            .zip(schema.fields())
            .map(|(array, field)| Output::new(array, field))
            .collect::<Result<_, Error>>()?;
        let forms = described.iter().map(|field| match field.format() {
            FieldFormat::Text => Form::Text,
            FieldFormat::Binary => Form::Binary,
        });
        let forms = forms.collect();
        let buffer = BytesMut::with_capacity(batch.num_rows() * ROW_BYTES);
        Ok(Rows { columns, forms, buffer, next: 0, count: batch.num_rows() })
    }

    fn row(&mut self) -> Result<DataRow, Error> {
        for (column, form) in self.columns.iter().zip(&self.forms) {
            column.write_sized(self.next, *form, &mut self.buffer)?;
        }
        let count = i16::try_from(self.columns.len()).map_err(|_| Error::unsupported("more than 32767 columns"))?;
        Ok(DataRow::new(self.buffer.split(), count))
    }
}

impl Iterator for Rows {
    type Item = Result<DataRow, Error>;

    fn next(&mut self) -> Option<Result<DataRow, Error>> {
        (self.next < self.count).then(|| {
            let row = self.row();
            self.next += 1;
            row
        })
    }
}

//! Rows of keyed tables as stored entries: a key whose bytes sort as PostgreSQL sorts the values,
//! and the row itself.
//!
//! Both formats are stored state. The key's never changes; the row's has a version.
//!
//! * [`weir_common::key`]: the primary key, order-preserving;
//! * [`cell`]: one value of a row, by the physical layout of its Arrow type;
//! * [`Writer`] and [`Reader`]: whole rows, from and to record batches.
//!
//! | bytes of a row | content |
//! | --- | --- |
//! | 0 | the format's version, 2 |
//! | 1… | the number of the table's layout, and the sequence of the row's message, as varints |
//! | … | a bit for each column, lowest first, rounded up to bytes: 1 if the column is NULL |
//! | … | the columns that are not NULL, in order, as [`cell`] writes them |
//!
//! The columns are those of the layout, then the hidden ones of a view.
//!
//! Version 1 has no sequence and no layout, which was 0.

pub mod cell;

mod error;

pub use weir_common::key;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use prost::encoding::{decode_varint, encode_varint};

use cell::{Builder, Cells, Input};
pub use error::Error;
use error::{VERSION, VERSION_WITHOUT_SEQUENCE};

const BITS: usize = 8;

/// A stored row whose columns are not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The number of the table's layout in which it was written.
    pub layout: u16,
    /// The sequence of its message, if that was stored with the row.
    pub sequence: Option<u64>,
    /// The columns.
    columns: &'a [u8],
}

impl<'a> Stored<'a> {
    /// # Errors
    /// If the bytes are not a row of a known version.
    pub fn parse(row: &'a [u8]) -> Result<Stored<'a>, Error> {
        let (version, mut rest) = row.split_first().ok_or(Error::Damaged { reason: "it is empty" })?;
        match *version {
            VERSION_WITHOUT_SEQUENCE => Ok(Stored { layout: 0, sequence: None, columns: rest }),
            VERSION => {
                let mut number = || decode_varint(&mut rest).map_err(|_| Error::Damaged { reason: "cut short" });
                let (layout, sequence) = (number()?, number()?);
                let layout = u16::try_from(layout).map_err(|_| Error::Damaged { reason: "no such layout" })?;
                Ok(Stored { layout, sequence: Some(sequence), columns: rest })
            }
            version => Err(Error::Version { version }),
        }
    }

    /// Returns true if both are of one layout and have equal values.
    pub fn has_columns_of(&self, other: &Stored<'_>) -> bool {
        (self.layout, self.columns) == (other.layout, other.columns)
    }
}

/// Writes the rows of one batch.
pub struct Writer {
    columns: Vec<Cells>,
    layout: u16,
}

impl Writer {
    /// Creates a writer of the first `columns` columns of a batch, which are those of a table's
    /// layout, or all that a view stores.
    ///
    /// # Panics
    /// If a column has a type that is not stored.
    pub fn new(batch: &RecordBatch, columns: usize, layout: u16) -> Writer {
        Writer { columns: batch.columns()[..columns].iter().map(Cells::new).collect(), layout }
    }

    /// Appends a row of the message with this sequence.
    pub fn write(&self, row: usize, sequence: u64, out: &mut Vec<u8>) {
        out.push(VERSION);
        encode_varint(u64::from(self.layout), out);
        encode_varint(sequence, out);
        let nulls = out.len();
        out.resize(nulls + self.columns.len().div_ceil(BITS), 0);
        for (number, column) in self.columns.iter().enumerate() {
            if column.is_null(row) {
                out[nulls + number / BITS] |= 1 << (number % BITS);
            } else {
                column.write(row, out);
            }
        }
    }
}

/// Gathers stored rows of one layout into batches.
pub struct Reader {
    /// The wanted columns.
    schema: SchemaRef,
    /// Every stored column, in the order of storage.
    columns: Vec<Column>,
    /// The places of the wanted columns, in the order of the schema.
    projection: Vec<usize>,
    rows: usize,
    bytes: usize,
}

struct Column {
    builder: Builder,
    /// False if its values are passed over.
    wanted: bool,
}

impl Reader {
    /// Creates a reader of rows of `layout` that keeps the projected columns.
    ///
    /// # Errors
    /// If the projection names a column that the layout does not have.
    ///
    /// # Panics
    /// If a column has a type that is not stored, or is projected twice.
    pub fn new(layout: &SchemaRef, projection: &[usize]) -> Result<Reader, Error> {
        let schema = SchemaRef::new(layout.project(projection)?);
        let column = |(place, field): (usize, &arrow::datatypes::FieldRef)| Column {
            builder: Builder::new(field.data_type()),
            wanted: projection.contains(&place),
        };
        let columns = layout.fields().iter().enumerate().map(column).collect();
        assert!((1..projection.len()).all(|place| !projection[..place].contains(&projection[place])));
        Ok(Reader { schema, columns, projection: projection.to_vec(), rows: 0, bytes: 0 })
    }

    /// Appends a stored row of the reader's layout.
    ///
    /// # Errors
    /// If it is not such a row. The reader is of no use then.
    pub fn append(&mut self, row: &Stored) -> Result<(), Error> {
        let nulls = self.columns.len().div_ceil(BITS);
        let (nulls, cells) = row.columns.split_at_checked(nulls).ok_or(Error::Damaged { reason: "cut short" })?;
        let mut input = Input::new(cells);
        for (number, column) in self.columns.iter_mut().enumerate() {
            let null = nulls[number / BITS] & (1 << (number % BITS)) != 0;
            match (null, column.wanted) {
                (true, true) => column.builder.append_null(),
                (true, false) => {}
                (false, true) => column.builder.append(&mut input)?,
                (false, false) => column.builder.pass(&mut input)?,
            }
        }
        input.finish()?;
        self.rows += 1;
        self.bytes += row.columns.len();
        Ok(())
    }

    /// Rows since the last [`Reader::finish`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The stored size of these rows in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the projected columns of the rows since the last call.
    ///
    /// # Errors
    /// If a stored value is not of its column's type, for example text that is not UTF-8.
    pub fn finish(&mut self) -> Result<RecordBatch, Error> {
        let rows = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        self.bytes = 0;
        let columns = self.projection.iter().map(|&place| self.columns[place].builder.finish());
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &rows)?)
    }
}

#[cfg(test)]
mod tests;

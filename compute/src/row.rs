//! Rows of keyed tables as stored entries: a key whose bytes sort as PostgreSQL sorts the values, and the row itself.
//!
//! Both layouts are stored state: the key's never changes, the row's bears a version.
//!
//! * [`key`]: the primary key, order-preserving;
//! * [`cell`]: one value of a row, by the physical layout of its Arrow type;
//! * [`Writer`] and [`Reader`]: whole rows, from and to record batches.
//!
//! | bytes of a row | content |
//! | --- | --- |
//! | 0 | the layout's version, 1 |
//! | 1… | a bit a column, rounded up to bytes, the lowest bit first: 1 if the column is NULL |
//! | … | the columns that are not NULL, in order, as [`cell`] writes them |

pub mod cell;
pub mod key;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use weir_common::error::Kind;

use cell::{Builder, Cells, Input};

const VERSION: u8 = 1;
const BITS: usize = 8;

/// Why bytes are no row of the schema.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The layout is one that this version does not know.
    #[error("row has layout version {version}, known is {VERSION}")]
    Version {
        /// The first byte.
        version: u8,
    },
    /// Bytes are missing or left over.
    #[error("row is damaged: {reason}")]
    Damaged {
        /// How it shows.
        reason: &'static str,
    },
    /// The values are none of the columns' types.
    #[error("row does not fit its schema")]
    Schema(#[from] ArrowError),
}

impl Error {
    /// Always [`Kind::Corrupt`].
    pub fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

/// Writes the rows of one batch.
pub struct Writer {
    columns: Vec<Cells>,
}

impl Writer {
    /// A writer of the first `columns` columns of a batch.
    ///
    /// # Panics
    /// If a column is of a type that is not stored.
    pub fn new(batch: &RecordBatch, columns: usize) -> Writer {
        Writer { columns: batch.columns()[..columns].iter().map(Cells::new).collect() }
    }

    /// Appends a row.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        out.push(VERSION);
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

/// Gathers stored rows into batches.
pub struct Reader {
    /// The columns that are wanted.
    schema: SchemaRef,
    /// Every column of the table, in the order of storage.
    columns: Vec<Column>,
    /// The places of the wanted columns, in the order of the schema.
    projection: Vec<usize>,
    rows: usize,
    bytes: usize,
}

struct Column {
    builder: Builder,
    /// Whether it is wanted; else its values are passed over.
    wanted: bool,
}

impl Reader {
    /// A reader of rows of a table whose columns are those of `table`, of which it keeps the projected ones.
    ///
    /// # Errors
    /// If the projection names a column that the table has not.
    ///
    /// # Panics
    /// If a column is of a type that is not stored, or is projected twice.
    pub fn new(table: &SchemaRef, projection: &[usize]) -> Result<Reader, Error> {
        let schema = SchemaRef::new(table.project(projection)?);
        let column = |(place, field): (usize, &arrow::datatypes::FieldRef)| Column {
            builder: Builder::new(field.data_type()),
            wanted: projection.contains(&place),
        };
        let columns = table.fields().iter().enumerate().map(column).collect();
        assert!((1..projection.len()).all(|place| !projection[..place].contains(&projection[place])));
        Ok(Reader { schema, columns, projection: projection.to_vec(), rows: 0, bytes: 0 })
    }

    /// Appends a stored row.
    ///
    /// # Errors
    /// If it is none; the reader is of no use then.
    pub fn append(&mut self, row: &[u8]) -> Result<(), Error> {
        let (version, rest) = row.split_first().ok_or(Error::Damaged { reason: "it is empty" })?;
        if *version != VERSION {
            return Err(Error::Version { version: *version });
        }
        let nulls = self.columns.len().div_ceil(BITS);
        let (nulls, cells) = rest.split_at_checked(nulls).ok_or(Error::Damaged { reason: "cut short" })?;
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
        self.bytes += row.len();
        Ok(())
    }

    /// Rows since the last [`Reader::finish`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many bytes these rows took.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The projected columns of the rows since the last call.
    ///
    /// # Errors
    /// If what was stored is no value of a column's type, text that is not UTF-8 for example.
    pub fn finish(&mut self) -> Result<RecordBatch, Error> {
        self.rows = 0;
        self.bytes = 0;
        let columns = self.projection.iter().map(|&place| self.columns[place].builder.finish());
        Ok(RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_, _>>()?)?)
    }
}

#[cfg(test)]
mod tests;

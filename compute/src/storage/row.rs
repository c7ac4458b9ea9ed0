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
//!
//! A row of a view that aggregates may be stored as one with the entry of its group:
//!
//! | bytes | content |
//! | --- | --- |
//! | 0 | the format's version, 3 |
//! | 1… | the number of bytes of the group's entry, as a varint |
//! | … | the group's entry, as its operator writes it |
//! | … | the row in version 2; nothing if the group has none, because it fails |

pub mod cell;

mod error;

pub use weir_common::key;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};

use cell::{Builder, Cells, Input};
pub use error::Error;
use error::{VERSION, VERSION_WITH_GROUP, VERSION_WITHOUT_SEQUENCE};

const BITS: usize = 8;
const EMPTY: &str = "it is empty";
const CUT_SHORT: &str = "cut short";

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

/// Returns true if a stored entry holds a row, and not only a group that has none.
///
/// # Errors
/// If the bytes are no entry of a known version.
pub fn has_row(entry: &[u8]) -> Result<bool, Error> {
    Ok(Stored::parse(entry)?.is_some())
}

/// The entry of the group that is stored with a row.
///
/// # Errors
/// If the bytes are not a row that is stored with its group.
pub fn group_of(entry: &Bytes) -> Result<Bytes, Error> {
    let (group, _) = split_group(entry)?;
    Ok(entry.slice_ref(group))
}

/// Writes a group's entry and its row, in version 2, as one.
pub fn write_with_group(group: &[u8], row: Option<&[u8]>, out: &mut Vec<u8>) {
    out.push(VERSION_WITH_GROUP);
    encode_varint(group.len() as u64, out);
    out.extend_from_slice(group);
    out.extend_from_slice(row.unwrap_or_default());
}

/// The group's entry and the row of an entry that holds both.
fn split_group(entry: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let (version, mut rest) = entry.split_first().ok_or(Error::Damaged { reason: EMPTY })?;
    if *version != VERSION_WITH_GROUP {
        return Err(Error::Version { version: *version });
    }
    let length = decode_varint(&mut rest).map_err(|_| Error::Damaged { reason: CUT_SHORT })?;
    let length = usize::try_from(length).map_err(|_| Error::Damaged { reason: CUT_SHORT })?;
    rest.split_at_checked(length).ok_or(Error::Damaged { reason: CUT_SHORT })
}

impl<'a> Stored<'a> {
    /// Parses a stored entry; `None`: it holds a group that has no row.
    ///
    /// # Errors
    /// If the bytes are not a row of a known version.
    pub fn parse(entry: &'a [u8]) -> Result<Option<Stored<'a>>, Error> {
        let (version, mut rest) = entry.split_first().ok_or(Error::Damaged { reason: EMPTY })?;
        match *version {
            VERSION_WITHOUT_SEQUENCE => Ok(Some(Stored { layout: 0, sequence: None, columns: rest })),
            VERSION => {
                let mut number = || decode_varint(&mut rest).map_err(|_| Error::Damaged { reason: CUT_SHORT });
                let (layout, sequence) = (number()?, number()?);
                let layout = u16::try_from(layout).map_err(|_| Error::Damaged { reason: "no such layout" })?;
                Ok(Some(Stored { layout, sequence: Some(sequence), columns: rest }))
            }
            VERSION_WITH_GROUP => match split_group(entry)? {
                (_, []) => Ok(None),
                // A group's row has no group within it.
                (_, [VERSION_WITH_GROUP, ..]) => Err(Error::Damaged { reason: "a group within a group" }),
                (_, row) => Stored::parse(row),
            },
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
        let (nulls, cells) = row.columns.split_at_checked(nulls).ok_or(Error::Damaged { reason: CUT_SHORT })?;
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

//! Decodes payloads into Arrow columns, without an allocation for each record.
//!
//! A payload is a JSON object, a JSON document that is kept whole, plain bytes, or a Protobuf
//! message. The module `protobuf` describes the latter; the rest of this page is about JSON.
//!
//! A record is decoded in two steps. First every field becomes a cell of a scratch row, which is
//! reused from record to record. Once the whole payload has turned out to be good, the cells go
//! into the columns, so a bad record leaves no trace. A payload of several objects, in an array or
//! one after the other, makes as many rows, or none if one of them is bad. The decoder guesses the
//! column of the next key from the keys of earlier records, so in a stream of uniform objects a key
//! costs one comparison and no hash.
//!
//! # Which values fit a column
//!
//! A field that is missing or null is NULL; fields without a column are skipped. Keys match column
//! names exactly, or else regardless of the case of ASCII letters (SQL folds unquoted names to
//! lower case). If several fields match one column the last wins, but an exact match goes before
//! any other. The rules of types are those of RisingWave, also where it is stricter or more lenient
//! than PostgreSQL's casts:
//!
//! | column | JSON |
//! | --- | --- |
//! | boolean | `true`, `false` |
//! | smallint, integer, bigint | a number in range without point or exponent; a string with one |
//! | real, double precision | a number in range; a string with one, `NaN`, `[-]Infinity` or `inf` |
//! | numeric | a number of at most 48 digits before and 28 after the point; a string with one |
//! | numeric(p,s) | the same, rounded to s digits after the point if p digits are enough |
//! | varchar | a string; a number or boolean as it is written |
//! | bytea | a string in PostgreSQL's hex format (`\x…`) or else its escape format |
//! | date | a string `YYYY-MM-DD`; an integer: days since 1970-01-01 |
//! | time | a string `HH:MM[:SS[.ffffff]]`; an integer: microseconds since midnight |
//! | timestamp | a string `YYYY-MM-DD[(T or space)HH:MM[:SS[.ffffff]][offset]]`; an integer |
//! | timestamptz | the same |
//! | interval | a string as PostgreSQL takes it, or in ISO 8601; its time below 292 years |
//! | jsonb | anything but null, normalised as PostgreSQL prints it |
//! | T[] | an array whose elements are null or fit T |
//! | struct | an object, whose members match fields as those of the payload match columns |
//!
//! A timestamp ignores the offset; a timestamptz without one is in UTC. Integers for timestamps
//! count from 1970 in the unit that their magnitude suggests: below 10¹¹ seconds, below 10¹⁴
//! milliseconds, below 10¹⁷ microseconds, else nanoseconds. Digits beyond the microsecond are
//! rounded; a numeric(p,s) rounds a half away from zero.
//!
//! Some things differ from RisingWave on purpose. A wrong type makes the record bad instead of the
//! field NULL, also inside an array or struct. A number in a varchar or numeric keeps the digits
//! that it was written with. A numeric is never NaN or infinite. A struct is not read from a
//! string. Numbers in jsonb whose exponent is beyond ±400 are refused, since writing them out as
//! PostgreSQL does would let a few bytes grow without bound.

mod bad_record;
mod cell;
mod column;
mod convert;
mod fields;
mod included;
mod json;
mod jsonb;
mod objects;
mod protobuf;
mod reason;
mod span;
mod time;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::SchemaRef;
use weir_common::catalog::{Column, Encode, Origin, Relation, Source};
use weir_common::ids::Sequence;
use weir_common::types::SqlType;
use weir_connector_nats::Message;

pub use bad_record::BadRecord;
use bad_record::{KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX};
use cell::{Cell, Scratch};
use column::Builder;
use fields::{Fields, Objects};
pub(crate) use included::HeadersColumn;
use json::Scanner;
use objects::Several;
use span::Span;

use crate::storage::block;

/// The size of a row of several beside its cells: its sequence, and the key and lengths of its
/// entry if it is keyed.
const ROW_OVERHEAD: usize = 64;
/// Room for this many cells of rows is kept from one payload of several objects to the next.
const ROW_CELLS_KEPT: usize = 1 << 16;
/// Collects the records of one split of one table into batches.
pub struct Decoder {
    schema: SchemaRef,
    partition: String,
    reader: Reader,
    columns: Vec<ColumnState>,
    /// The columns of INCLUDE that become cells.
    included: Vec<Included>,
    /// A column of subjects.
    subject_column: Option<String>,
    /// The places of the primary key's columns.
    primary_key: Vec<usize>,
    sequences: Vec<u64>,
    scratch: Scratch,
    /// The cells of a payload's rows, until all of them are known to be good.
    rows: Vec<Cell>,
    bytes: usize,
}

/// The way in which a payload is read into the scratch row.
enum Reader {
    Json(Fields),
    /// Reads any JSON into one jsonb.
    Document,
    /// Reads anything into one bytea.
    Bytes,
    Protobuf(protobuf::Reader),
    /// There is no payload.
    Nothing,
}

struct ColumnState {
    name: String,
    filled: Filled,
    /// The size of a NULL.
    null_bytes: usize,
    builder: Builder,
}

/// The origin of a column's values, once a record is known to be good.
#[derive(Clone, Copy)]
enum Filled {
    /// A cell of the scratch row. The cells of columns that are filled from fields of the payload
    /// come first there.
    Cell(usize),
    Offset,
    Subject,
    Partition,
}

/// A column whose cell comes from something other than fields of the payload.
struct Included {
    cell: usize,
    column: String,
    origin: Origin,
    ty: SqlType,
}

impl Decoder {
    /// Creates a decoder of JSON objects from the split `partition`.
    ///
    /// # Panics
    /// If a column that is not filled from the payload has another type than its origin's.
    pub fn new(columns: &[Column], partition: &str) -> Decoder {
        let fields: Vec<&Column> = columns.iter().filter(|column| column.origin == Origin::Payload).collect();
        let (mut field, mut included) = (0, Vec::new());
        let states = columns.iter().map(|column| {
            assert!(included::fits(column), "column \"{}\" cannot be of type {}", column.name, column.ty);
            let filled = match &column.origin {
                Origin::Offset => Filled::Offset,
                Origin::Subject => Filled::Subject,
                Origin::Partition => Filled::Partition,
                Origin::Payload => {
                    field += 1;
                    Filled::Cell(field - 1)
                }
                _ => {
                    let cell = fields.len() + included.len();
                    let column = column.clone();
                    included.push(Included { cell, column: column.name, origin: column.origin, ty: column.ty });
                    Filled::Cell(cell)
                }
            };
            let (null_bytes, builder) = (convert::absent(&column.ty), Builder::new(&column.ty));
            ColumnState { name: column.name.clone(), filled, null_bytes, builder }
        });
        let states: Vec<ColumnState> = states.collect();
        Decoder {
            schema: block::schema(columns),
            partition: partition.to_owned(),
            columns: states,
            included,
            subject_column: columns
                .iter()
                .find(|column| column.origin == Origin::Subject)
                .map(|column| column.name.clone()),
            primary_key: Vec::new(),
            scratch: Scratch::new(columns.len()),
            reader: Reader::Json(Fields::new(fields)),
            sequences: Vec::new(),
            rows: Vec::new(),
            bytes: 0,
        }
    }

    /// Creates a decoder of messages of `source` into rows of `relation`. `partition` is the split
    /// that they come from.
    ///
    /// # Errors
    /// As [`Decoder::with_encode`].
    pub fn of(relation: &Relation, source: &Source, partition: &str) -> Result<Decoder, weir_common::protobuf::Error> {
        let Relation { columns, primary_key, .. } = relation;
        let decoder = Decoder::new(columns, partition).with_encode(&source.encode, columns)?;
        Ok(decoder.with_primary_key(primary_key))
    }

    /// Sets the columns of the table's primary key. A record in which one of them is NULL is bad.
    pub fn with_primary_key(self, columns: &[usize]) -> Decoder {
        Decoder { primary_key: columns.to_vec(), ..self }
    }

    /// Sets the encoding of payloads.
    ///
    /// # Errors
    /// If the table's schema of messages does not fit its columns, which was checked when the table
    /// was created.
    ///
    /// # Panics
    /// If not exactly one column is filled from a payload that is not divided into fields.
    pub fn with_encode(self, encode: &Encode, columns: &[Column]) -> Result<Decoder, weir_common::protobuf::Error> {
        let of_payload = || columns.iter().filter(|column| column.origin == Origin::Payload);
        let whole = |reader| {
            assert_eq!(of_payload().count(), 1, "a payload that is not divided fills one column");
            reader
        };
        let reader = match encode {
            Encode::Json => return Ok(self),
            Encode::JsonDocument => whole(Reader::Document),
            Encode::Bytes => whole(Reader::Bytes),
            Encode::HeadersOnly => Reader::Nothing,
            Encode::Protobuf(schema) => {
                let fields: Vec<_> = of_payload().map(|column| (column.name.as_str(), &column.ty)).collect();
                let (reader, scratch) = protobuf::Reader::new(schema, &fields, columns.len())?;
                return Ok(Decoder { reader: Reader::Protobuf(reader), scratch, ..self });
            }
        };
        Ok(Decoder { reader, ..self })
    }

    /// Appends one message as a row, or as several. If the message is bad, nothing is appended.
    ///
    /// # Errors
    /// [`BadRecord`], with the reason.
    ///
    /// # Panics
    /// If a batch grows beyond 2 GiB. Finish it when [`Decoder::bytes`] says so.
    pub fn append(&mut self, message: &Message) -> Result<(), BadRecord> {
        let payload = &message.payload;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(BadRecord::TooLarge);
        }
        self.scratch.clear();
        // Cells point into the payload only if it is text.
        let (text, objects) = self.reader.read(payload, &mut self.scratch)?;
        if objects == Objects::Several {
            return self.append_several(message, text);
        }
        self.include(message, text)?;
        if payload.len() + self.scratch.bytes() > RECORD_BYTES_MAX {
            return Err(BadRecord::TooLarge);
        }
        self.check_key(message.subject.as_str())?;
        self.append_row(message, text);
        Ok(())
    }

    /// Appends a payload of several objects, all of them or none.
    #[cold]
    fn append_several(&mut self, message: &Message, text: &str) -> Result<(), BadRecord> {
        self.scratch.clear();
        self.rows.clear();
        let (mut several, mut object, row_bytes) = (Several::new(text), 0, self.row_bytes(message));
        loop {
            object += 1;
            let in_object = |bad| BadRecord::Object { object, bad: Box::new(bad) };
            let Some(scanner) = several.next().map_err(in_object)? else { break };
            let start = scanner.at();
            self.scratch.clear_cells();
            let Reader::Json(fields) = &mut self.reader else { unreachable!("only JSON has objects") };
            fields.read_one(scanner, text, &mut self.scratch).map_err(in_object)?;
            let own = start..scanner.at();
            self.include(message, &text[own]).map_err(in_object)?;
            self.check_key(message.subject.as_str()).map_err(in_object)?;
            self.rows.extend_from_slice(&self.scratch.cells);
            if text.len() + self.scratch.bytes() + object * row_bytes > RECORD_BYTES_MAX {
                return Err(BadRecord::TooLarge);
            }
        }
        let rows = std::mem::take(&mut self.rows);
        let cells = self.scratch.cells.len();
        for row in 0..object - 1 {
            self.scratch.cells.copy_from_slice(&rows[row * cells..(row + 1) * cells]);
            self.append_row(message, text);
        }
        self.rows = rows;
        self.rows.shrink_to(ROW_CELLS_KEPT);
        Ok(())
    }

    /// The size of a row of several besides the values of its cells.
    fn row_bytes(&self, message: &Message) -> usize {
        let columns = self.columns.iter().map(|column| match column.filled {
            Filled::Cell(_) => column.null_bytes,
            Filled::Offset => 20,
            Filled::Subject => message.subject.len(),
            Filled::Partition => self.partition.len(),
        });
        ROW_OVERHEAD + columns.sum::<usize>()
    }

    /// Fills the cells of a row's INCLUDE columns. `text` is the row's own text, if it is JSON.
    #[inline]
    fn include(&mut self, message: &Message, text: &str) -> Result<(), BadRecord> {
        let no_text = |column: &String| BadRecord::Included { column: column.clone(), reason: included::NO_TEXT };
        if let Some(column) = &self.subject_column
            && message.subject.as_bytes().contains(&0)
        {
            return Err(no_text(column));
        }
        for Included { cell, column, origin, ty } in &self.included {
            let filled = included::cell(origin, ty, message, text, &mut self.scratch.arena)?;
            self.scratch.cells[*cell] = filled.ok_or_else(|| no_text(column))?;
        }
        Ok(())
    }

    /// Appends the scratch row, which is good. Its cells point into `text`.
    #[inline]
    fn append_row(&mut self, message: &Message, text: &str) {
        let (sequence, subject) = (message.sequence, message.subject.as_str());
        let mut digits = [0; 20];
        for column in &mut self.columns {
            self.bytes += match column.filled {
                Filled::Cell(cell) => column.builder.append(self.scratch.cells[cell], text, &self.scratch),
                Filled::Offset => column.builder.append_text(decimal(Sequence(sequence).in_stream(), &mut digits)),
                Filled::Subject => column.builder.append_text(subject),
                Filled::Partition => column.builder.append_text(&self.partition),
            };
        }
        self.sequences.push(sequence);
        self.bytes += size_of::<u64>();
    }

    /// Checks that the record in the scratch row has a primary key, if the table has one.
    #[inline]
    fn check_key(&self, subject: &str) -> Result<(), BadRecord> {
        let mut bytes = 0;
        for &place in &self.primary_key {
            let column = &self.columns[place];
            bytes += match column.filled {
                Filled::Subject => subject.len(),
                Filled::Offset | Filled::Partition => 0,
                Filled::Cell(cell) => match self.scratch.cells[cell] {
                    Cell::Null => return Err(BadRecord::NullKey { column: column.name.clone() }),
                    cell => cell.len(),
                },
            };
        }
        if bytes > KEY_BYTES_MAX { Err(BadRecord::LargeKey) } else { Ok(()) }
    }

    /// Rows since the last [`Decoder::finish`].
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// The approximate size of these rows in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows since the last call, with the schema of [`block::schema`].
    pub fn finish(&mut self) -> RecordBatch {
        self.bytes = 0;
        let rows = self.sequences.len();
        let mut arrays: Vec<ArrayRef> = self.columns.iter_mut().map(|column| column.builder.finish()).collect();
        // The next batch is likely to be as long as this one.
        let sequences = std::mem::replace(&mut self.sequences, Vec::with_capacity(rows));
        arrays.push(Arc::new(UInt64Array::from(sequences)));
        RecordBatch::try_new(self.schema.clone(), arrays).expect("columns of one length and the schema's types")
    }
}

impl Reader {
    /// Reads a payload into the scratch row, unless it has several objects. Returns the payload if
    /// it is text.
    #[inline]
    fn read<'a>(&mut self, payload: &'a [u8], scratch: &mut Scratch) -> Result<(&'a str, Objects), BadRecord> {
        let text = || {
            let invalid =
                |error: std::str::Utf8Error| BadRecord::Syntax { reason: "invalid UTF-8", at: error.valid_up_to() };
            str::from_utf8(payload).map_err(invalid)
        };
        match self {
            Reader::Json(fields) => {
                let text = text()?;
                let objects = fields.read(text, scratch)?;
                Ok((text, objects))
            }
            Reader::Document => {
                let text = text()?;
                scratch.cells[0] = document(text, scratch)?;
                Ok((text, Objects::One))
            }
            Reader::Bytes => {
                scratch.arena.bytes.extend_from_slice(payload);
                scratch.cells[0] = Cell::Bytes(Span::new(0, payload.len()));
                Ok(("", Objects::One))
            }
            Reader::Protobuf(reader) => {
                reader.read(payload, scratch)?;
                Ok(("", Objects::One))
            }
            Reader::Nothing => Ok(("", Objects::One)),
        }
    }
}

/// The jsonb of a whole payload. JSON's null is NULL, as it is in a field.
fn document(text: &str, scratch: &mut Scratch) -> Result<Cell, BadRecord> {
    let mut scanner = Scanner::new(text);
    scanner.skip_whitespace();
    scanner.value(0)?;
    scanner.skip_whitespace();
    if scanner.peek().is_some() {
        return Err(scanner.error("trailing characters").into());
    }
    included::whole(text, &mut scratch.arena)
}

/// A number in decimal, written into `digits`.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &str {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
        if number == 0 {
            return str::from_utf8(&digits[start..]).expect("digits are ASCII");
        }
    }
}

#[cfg(test)]
mod tests;

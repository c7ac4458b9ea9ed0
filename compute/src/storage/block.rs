//! Rows as a stored value: an Arrow record batch in the IPC format, without its schema, which the
//! catalog knows.
//!
//! | bytes | content |
//! | --- | --- |
//! | 0 | the format's version, 2 |
//! | 1…2 | the number of the table's layout, u16 in little-endian |
//! | 3 | the number of columns whose range is known |
//! | 4…7 | the number of rows, u32 in little-endian |
//! | 8…11 | the CRC-32 (IEEE) of all other bytes |
//! | 12…15 | the length of the IPC message's metadata, u32 in little-endian, a multiple of 8 |
//! | 16… | of each of these columns its place, minimum and maximum: u64 and i64, little-endian |
//! | … | the encapsulated message: metadata with its prefix, then the body |
//!
//! A range is known of every column of whole numbers, dates or times that has a value in the block,
//! the sequence of messages among them. It is kept as Arrow stores the values. Scans use ranges to
//! skip blocks that have no row for them. Version 1 has no ranges.
//!
//! Buffers begin at multiples of eight bytes of the block. If the block itself is aligned in
//! memory, columns are read in place; otherwise the wanted ones are copied. Blocks are not
//! compressed: a block is written once and merged a few times, and a compressor costs more time
//! than decoding the JSON did.
//!
//! Arrow's reader trusts lengths and offsets. The checksum makes damaged bytes an error of kind
//! Corrupt, never a panic. The format is stored state: a new format gets a new version, and this
//! one stays readable.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowNumericType, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute;
use arrow::datatypes::{
    DataType, Date32Type, Field, Int16Type, Int32Type, Int64Type, Schema, SchemaRef, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, UInt64Type,
};
use arrow::error::ArrowError;
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::writer::{
    DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteOptions, StreamEncoder, write_message,
};
use arrow_ipc::{MessageHeader, MetadataVersion, root_as_message};
use bytes::Bytes;
use weir_common::catalog::Column;
use weir_common::error::Kind;

/// A block is closed at this many rows or bytes, whichever comes first.
pub(crate) const ROWS_MAX: usize = 8192;
/// See [`ROWS_MAX`].
pub(crate) const BYTES_MAX: usize = 1 << 20;

/// The hidden column behind a table's own: the stream sequence of each row, UInt64 and never null.
pub const SEQUENCE_COLUMN: &str = "_weir_sequence";

const VERSION: u8 = 2;
/// Still read, but no longer written: byte 3 is 0, and there are no ranges.
const VERSION_WITHOUT_RANGES: u8 = 1;
const HEADER: usize = 16;
/// A column's place, minimum and maximum.
const RANGE: usize = 24;
/// As many ranges as a byte can count.
const RANGES_MAX: usize = 255;
/// An encapsulated message's metadata has this prefix: a marker and the metadata's length.
const PREFIX: usize = 8;
const ALIGNMENT: usize = 8;

/// The schema of a table's blocks: its columns, then [`SEQUENCE_COLUMN`].
pub fn schema(columns: &[Column]) -> SchemaRef {
    let mut fields: Vec<Field> = columns.iter().map(|column| column.ty.field(&column.name)).collect();
    fields.push(Field::new(SEQUENCE_COLUMN, DataType::UInt64, false));
    Arc::new(Schema::new(fields))
}

/// The reason why bytes are not a block of the schema.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This version does not know the format.
    #[error("block has format version {version}, known are {VERSION_WITHOUT_RANGES} and {VERSION}")]
    Version {
        /// The first byte.
        version: u8,
    },
    /// Bytes are missing or were changed.
    #[error("block is damaged: {reason}")]
    Damaged {
        /// The evidence.
        reason: &'static str,
    },
    /// The bytes are undamaged, but do not fit the schema.
    #[error("block does not fit its schema")]
    Schema(#[source] ArrowError),
}

impl Error {
    /// Always [`Kind::Corrupt`].
    pub fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

/// The range of a column's values in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    /// The column's place among those of the block.
    pub column: usize,
    /// The minimum.
    pub min: i64,
    /// The maximum.
    pub max: i64,
}

/// Encodes a batch of a table's layout. Its columns must be of the types of
/// [`weir_common::types::SqlType`], or UInt64.
///
/// # Panics
/// If there are more than 2³²−1 rows, or a column has a type that is not stored.
pub fn encode(batch: &RecordBatch, layout: u16) -> Bytes {
    let rows = u32::try_from(batch.num_rows()).expect("a block has fewer than 2³² rows");
    let encoder = StreamEncoder::try_new_with_options(&batch.schema(), options());
    let parts =
        encoder.and_then(|mut encoder| encoder.encode(batch)).expect("columns of the stored types can be encoded");
    // The first message is the schema, which is not stored; it has no body.
    let schema = message_header(&parts[0]);
    let message = behind(&parts, schema);
    let metadata = message.clone().next().map_or(0, message_header);
    let ranges = ranges_of(batch);
    let start = HEADER + ranges.len() * RANGE;
    let mut block = Vec::with_capacity(start + message.clone().map(<[u8]>::len).sum::<usize>());
    block.resize(HEADER, 0);
    for Values { column, min, max } in &ranges {
        block.extend_from_slice(&(*column as u64).to_le_bytes());
        block.extend_from_slice(&min.to_le_bytes());
        block.extend_from_slice(&max.to_le_bytes());
    }
    message.for_each(|part| block.extend_from_slice(part));
    let metadata = u32::try_from(metadata).expect("metadata is a few bytes a column");
    block[0] = VERSION;
    block[1..3].copy_from_slice(&layout.to_le_bytes());
    block[3] = u8::try_from(ranges.len()).expect("as many as a byte counts");
    block[4..8].copy_from_slice(&rows.to_le_bytes());
    block[12..16].copy_from_slice(&metadata.to_le_bytes());
    let checksum = checksum(&block);
    block[8..12].copy_from_slice(&checksum.to_le_bytes());
    block.into()
}

/// The length of an encapsulated message's metadata with its prefix, by the prefix.
fn message_header(prefix: &[u8]) -> usize {
    PREFIX + field(prefix, 4) as usize
}

/// The parts after the first `bytes` bytes.
fn behind(parts: &[Buffer], mut bytes: usize) -> impl Iterator<Item = &[u8]> + Clone {
    parts.iter().map(Buffer::as_slice).filter_map(move |part| {
        let skipped = bytes.min(part.len());
        bytes -= skipped;
        (skipped < part.len()).then(|| &part[skipped..])
    })
}

/// Reads the number of rows of a block without decoding it.
///
/// # Errors
/// If the bytes cannot be a block. Damage outside the header is not noticed.
pub fn rows(bytes: &[u8]) -> Result<u32, Error> {
    header(bytes).map(|header| header.rows)
}

/// Reads the known ranges of a block's columns without decoding it.
///
/// # Errors
/// As [`rows`].
pub fn ranges(bytes: &[u8]) -> Result<impl Iterator<Item = Values>, Error> {
    let Header { start, .. } = header(bytes)?;
    let ranges = bytes[HEADER..start].chunks_exact(RANGE).map(|range| {
        let field = |at: usize| range[at..at + 8].try_into().expect("eight bytes");
        let column = usize::try_from(u64::from_le_bytes(field(0))).unwrap_or(usize::MAX);
        Values { column, min: i64::from_le_bytes(field(8)), max: i64::from_le_bytes(field(16)) }
    });
    Ok(ranges)
}

fn ranges_of(batch: &RecordBatch) -> Vec<Values> {
    let of_column = |(column, values): (usize, &ArrayRef)| {
        let (min, max) = range_of(values)?;
        Some(Values { column, min, max })
    };
    // The sequence comes last.
    batch.columns().iter().enumerate().rev().filter_map(of_column).take(RANGES_MAX).collect()
}

/// The minimum and the maximum of a column's values.
fn range_of(values: &ArrayRef) -> Option<(i64, i64)> {
    fn of<T: ArrowNumericType>(values: &ArrayRef) -> Option<(T::Native, T::Native)> {
        let values = values.as_primitive::<T>();
        Some((compute::min(values)?, compute::max(values)?))
    }
    let widened = |(min, max): (i32, i32)| (i64::from(min), i64::from(max));
    match values.data_type() {
        DataType::Int16 => of::<Int16Type>(values).map(|(min, max)| (i64::from(min), i64::from(max))),
        DataType::Int32 => of::<Int32Type>(values).map(widened),
        DataType::Date32 => of::<Date32Type>(values).map(widened),
        DataType::Int64 => of::<Int64Type>(values),
        DataType::Time64(TimeUnit::Microsecond) => of::<Time64MicrosecondType>(values),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of::<TimestampMicrosecondType>(values),
        DataType::UInt64 => {
            let (min, max) = of::<UInt64Type>(values)?;
            Some((i64::try_from(min).ok()?, i64::try_from(max).ok()?))
        }
        _ => None,
    }
}

/// Reads the number of the table's layout in which a block was written.
///
/// # Errors
/// As [`rows`].
pub fn layout(bytes: &[u8]) -> Result<u16, Error> {
    header(bytes).map(|_| u16::from_le_bytes([bytes[1], bytes[2]]))
}

/// Decodes a block of the schema: all columns, or those of `projection` in that order.
///
/// # Errors
/// [`Error`] if the bytes were not written by [`encode`] from a batch of that schema.
///
/// # Panics
/// If the projection names a column that the schema does not have.
pub fn decode(bytes: &Bytes, schema: &SchemaRef, projection: Option<&[usize]>) -> Result<RecordBatch, Error> {
    let Header { rows, start, metadata } = header(bytes)?;
    if checksum(bytes) != field(bytes, 8) {
        return Err(Error::Damaged { reason: "checksum does not match" });
    }
    let body = start + metadata;
    let message = bytes.get(start + PREFIX..body).and_then(|message| root_as_message(message).ok());
    let message = message.filter(|message| message.header_type() == MessageHeader::RecordBatch);
    let header = message.and_then(|message| message.header_as_record_batch());
    let header = header.ok_or(Error::Damaged { reason: "no record batch" })?;
    let expected: usize = schema.fields().iter().map(|field| nodes(field.data_type())).sum();
    let fits = header.nodes().map_or(0, |nodes| nodes.len()) == expected;
    if !fits || header.length() != i64::from(rows) {
        return Err(Error::Damaged { reason: "another number of columns or rows" });
    }
    let body = Buffer::from(bytes.slice(body..));
    let dictionaries = HashMap::new();
    RecordBatchDecoder::try_new(&body, header, schema.clone(), &dictionaries, &MetadataVersion::V5)
        .and_then(|decoder| decoder.with_projection(projection).with_require_alignment(false).read_record_batch())
        .map_err(Error::Schema)
}

/// The number of nodes that an IPC message has for a column: one for each array in it, however
/// deep.
fn nodes(ty: &DataType) -> usize {
    match ty {
        DataType::List(element) => 1 + nodes(element.data_type()),
        DataType::Struct(fields) => 1 + fields.iter().map(|field| nodes(field.data_type())).sum::<usize>(),
        _ => 1,
    }
}

/// Splits a batch into two parts for the wire: the IPC message's metadata, encapsulated, and its
/// body.
///
/// # Panics
/// If a column has a type that is not stored.
pub fn wire_parts(batch: &RecordBatch) -> (Bytes, Bytes) {
    let EncodedData { ipc_message, arrow_data } = message(batch);
    let mut header = Vec::with_capacity(PREFIX + ipc_message.len() + ALIGNMENT);
    let metadata = EncodedData { ipc_message, arrow_data: Vec::new() };
    write_message(&mut header, metadata, &options()).expect("writing to memory does not fail");
    (header.into(), arrow_data.into())
}

fn options() -> IpcWriteOptions {
    IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5).expect("8 is an alignment that IPC knows")
}

fn message(batch: &RecordBatch) -> EncodedData {
    let mut dictionaries = DictionaryTracker::new(true);
    let encoded = IpcDataGenerator::default().encode(batch, &mut dictionaries, &options(), &mut Default::default());
    let (dictionaries, message) = encoded.expect("columns of the stored types can be encoded");
    assert!(dictionaries.is_empty(), "stored types have no dictionaries");
    message
}

struct Header {
    rows: u32,
    /// The start of the message.
    start: usize,
    /// The length of its metadata.
    metadata: usize,
}

fn header(bytes: &[u8]) -> Result<Header, Error> {
    match bytes {
        [VERSION, _, _, ranges, ..] | [VERSION_WITHOUT_RANGES, _, _, ranges @ 0, ..]
            if bytes.len() >= HEADER + PREFIX =>
        {
            let start = HEADER + usize::from(*ranges) * RANGE;
            let metadata = field(bytes, 12) as usize;
            let fits = metadata >= PREFIX && start + metadata <= bytes.len();
            if fits {
                Ok(Header { rows: field(bytes, 4), start, metadata })
            } else {
                Err(Error::Damaged { reason: "cut short" })
            }
        }
        [VERSION | VERSION_WITHOUT_RANGES, ..] | [] => Err(Error::Damaged { reason: "no header" }),
        [version, ..] => Err(Error::Version { version: *version }),
    }
}

/// A field of a header whose length was checked.
fn field(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk).expect("the header's length was checked");
    u32::from_le_bytes(*field)
}

/// Covers everything but the checksum itself.
fn checksum(block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[..8]);
    hasher.update(&block[12..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_common::catalog::Origin;
    use weir_common::types::{SqlType, StructField};
    use weir_connector_nats::Message;

    use super::*;
    use crate::ingest::decode::Decoder;

    fn columns() -> Vec<Column> {
        [
            ("a", SqlType::BigInt),
            ("b", SqlType::Varchar),
            ("c", SqlType::Boolean),
            ("d", SqlType::SmallInt),
            ("e", SqlType::Timestamptz),
            ("f", SqlType::Jsonb),
            ("g", SqlType::Bytea),
            ("h", SqlType::Array(Box::new(SqlType::Array(Box::new(SqlType::Varchar))))),
            (
                "i",
                SqlType::Struct(vec![part("x", SqlType::Numeric), part("y", SqlType::Array(Box::new(SqlType::Date)))]),
            ),
        ]
        .map(|(name, ty)| Column { name: name.to_owned(), ty, origin: Origin::Payload })
        .to_vec()
    }

    fn part(name: &str, ty: SqlType) -> StructField {
        StructField { name: name.to_owned(), ty }
    }

    fn batch(rows: &[(Option<i64>, String)]) -> RecordBatch {
        let mut decoder = Decoder::new(&columns(), "split");
        for (sequence, (number, text)) in (1..).zip(rows) {
            let text = serde_json::Value::from(text.as_str());
            let number = serde_json::Value::from(*number);
            let record = format!(
                "{{\"a\":{number},\"b\":{text},\"c\":true,\"d\":7,\"f\":[{text}],\"g\":\"\\\\x00\",\
                 \"h\":[[{text},null],null,[]],\"i\":{{\"x\":{number},\"y\":[1,null]}}}}"
            );
            decoder.append(&Message::new(sequence, "subject", record)).expect("a good record");
        }
        decoder.finish()
    }

    /// The same bytes at another place relative to a multiple of 64.
    fn shifted(block: &Bytes, by: usize) -> Bytes {
        let mut moved = vec![0; block.len() + 128];
        let start = moved.as_ptr().align_offset(64) + by;
        moved[start..start + block.len()].copy_from_slice(block);
        Bytes::from(moved).slice(start..start + block.len())
    }

    #[test]
    fn aligned_columns_are_read_in_place() {
        let block = shifted(&encode(&batch(&[(Some(1), "x".to_owned()), (None, "y".to_owned())]), 0), 8);
        let decoded = decode(&block, &super::schema(&columns()), Some(&[0])).expect("a block");
        let values = decoded.column(0).as_primitive::<Int64Type>().values().inner().as_ptr().addr();
        assert!(block.as_ptr_range().contains(&(values as *const u8)), "values were copied");
    }

    #[test]
    fn a_projection_may_be_empty_or_repeat() {
        let block = encode(&batch(&[(Some(1), "x".to_owned()), (None, "y".to_owned())]), 0);
        let schema = super::schema(&columns());
        let none = decode(&block, &schema, Some(&[])).expect("a block");
        assert_eq!((none.num_rows(), none.num_columns()), (2, 0));
        let twice = decode(&block, &schema, Some(&[9, 1, 9, 8, 7])).expect("a block");
        assert_eq!(twice.schema().fields()[1].name(), "b");
        assert_eq!(twice.column(0), twice.column(2));
    }

    #[test]
    fn a_block_knows_the_ranges_of_its_columns() {
        let block = encode(&batch(&[(Some(-5), "x".to_owned()), (None, "y".to_owned()), (Some(9), String::new())]), 0);
        let ranges: Vec<Values> = ranges(&block).expect("a block").collect();
        // The sequences, d, and a; e has no value.
        let expected = [(9, 1, 3), (3, 7, 7), (0, -5, 9)].map(|(column, min, max)| Values { column, min, max });
        assert_eq!(ranges, expected);
    }

    #[test]
    fn blocks_of_the_version_before_are_read() {
        let rows = batch(&[(Some(1), "x".to_owned()), (None, "y".to_owned())]);
        let block = encode(&rows, 0);
        let Header { start, .. } = header(&block).expect("a header");
        let mut old = [&block[..HEADER], &block[start..]].concat();
        (old[0], old[3]) = (VERSION_WITHOUT_RANGES, 0);
        let checksum = checksum(&old);
        old[8..12].copy_from_slice(&checksum.to_le_bytes());
        let old = Bytes::from(old);
        assert_eq!(decode(&old, &rows.schema(), None).expect("a block"), rows);
        assert_eq!(ranges(&old).expect("a block").count(), 0);
    }

    #[test]
    fn other_layouts_are_told_apart() {
        let mut block = encode(&batch(&[]), 0).to_vec();
        block[0] = 3;
        let error = decode(&block.into(), &super::schema(&columns()), None).expect_err("another version");
        assert!(matches!(error, Error::Version { version: 3 }));
        assert_eq!(error.kind(), Kind::Corrupt);
    }

    #[test]
    fn a_block_of_another_schema_is_refused() {
        let block = encode(&batch(&[(Some(1), "x".to_owned())]), 0);
        let other = super::schema(&columns()[..2]);
        assert!(matches!(decode(&block, &other, None), Err(Error::Damaged { .. })));
    }

    proptest! {
        #[test]
        fn a_block_survives(
            rows in prop::collection::vec((any::<Option<i64>>(), "[^\0]{0,20}"), 0..50),
            by in 0_usize..64,
            layout: u16,
            projection in prop::option::of(prop::collection::vec(0_usize..10, 0..10)),
        ) {
            let batch = batch(&rows);
            let block = shifted(&encode(&batch, layout), by);
            prop_assert_eq!(super::layout(&block).expect("a block"), layout);
            prop_assert_eq!(super::rows(&block).expect("a block") as usize, rows.len());
            let decoded = decode(&block, &batch.schema(), projection.as_deref()).expect("a block");
            let expected = projection.map_or(batch.clone(), |columns| batch.project(&columns).expect("columns"));
            prop_assert_eq!(&decoded, &expected);
            // Part of a block's rows can be cut out and sent.
            let half = decoded.slice(0, decoded.num_rows() / 2);
            let (header, body) = wire_parts(&half);
            let message = root_as_message(&header[PREFIX..]).expect("a message");
            let read = arrow_ipc::reader::read_record_batch(
                &Buffer::from(body),
                message.header_as_record_batch().expect("a record batch"),
                half.schema(),
                &HashMap::new(),
                None,
                &message.version(),
            );
            prop_assert_eq!(read.expect("a batch"), half);
        }

        #[test]
        fn damage_is_found(
            rows in prop::collection::vec((any::<Option<i64>>(), "[^\0]{0,20}"), 0..20),
            at: prop::sample::Index, bits in 1_u8.., cut: bool,
        ) {
            let batch = batch(&rows);
            let mut block = encode(&batch, 0).to_vec();
            let at = at.index(block.len());
            if cut { block.truncate(at) } else { block[at] ^= bits }
            let error = decode(&block.into(), &batch.schema(), None).expect_err("damage");
            prop_assert_eq!(error.kind(), Kind::Corrupt);
        }

        #[test]
        fn nonsense_is_no_block(mut bytes in prop::collection::vec(any::<u8>(), 0..200), sealed: bool) {
            // With a valid version and checksum, so that the checks behind them are reached.
            if sealed && bytes.len() >= HEADER + PREFIX {
                bytes[..4].copy_from_slice(&[VERSION, 0, 0, 0]);
                bytes[12..16].copy_from_slice(&[8, 0, 0, 0]);
                let checksum = checksum(&bytes);
                bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
            }
            prop_assert!(decode(&bytes.into(), &super::schema(&columns()), None).is_err());
        }
    }
}

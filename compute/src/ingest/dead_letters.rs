//! Dead letters: messages that cannot be decoded into a row of their table, as rows of
//! [`dead_letter_columns`].
//!
//! A table's dead letters are stored in blocks, like rows of a table without a key, even if the
//! table has one. A source's are made when a statement reads them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, BinaryBuilder, Int64Builder, RecordBatch, StringBuilder, StructArray,
    TimestampMicrosecondBuilder, UInt64Builder,
};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType, UInt64Type};
use bytes::Bytes;
use weir_common::catalog::{Job, dead_letter_columns};
use weir_common::ids::{Sequence, SplitId, TableId};
use weir_common::rounding::micros_of_nanos;
use weir_common::types::SqlType;
use weir_connector_nats::Message;
use weir_connector_nats::options::stream_of;
use weir_connector_nats::reader::HeaderMap;

use super::decode::{BadRecord, HeadersColumn};
use crate::storage::block;
use crate::storage::state::keys::BlockKey;
use crate::storage::tail::Tail;

/// Gathers dead letters of one split into a batch.
pub(crate) struct Letters {
    stream: String,
    schema: SchemaRef,
    bytes: usize,
    streams: StringBuilder,
    sequences: Int64Builder,
    subjects: StringBuilder,
    headers: HeadersColumn,
    payloads: BinaryBuilder,
    errors: StringBuilder,
    columns: StringBuilder,
    times: TimestampMicrosecondBuilder,
    /// The hidden column of all blocks.
    hidden: UInt64Builder,
}

impl Letters {
    /// Creates an empty batch for messages of a split.
    pub(crate) fn new(split: &SplitId) -> Letters {
        Letters {
            stream: stream_of(split).to_owned(),
            schema: block::schema(&dead_letter_columns()),
            bytes: 0,
            streams: StringBuilder::new(),
            sequences: Int64Builder::new(),
            subjects: StringBuilder::new(),
            headers: HeadersColumn::new(),
            payloads: BinaryBuilder::new(),
            errors: StringBuilder::new(),
            columns: StringBuilder::new(),
            times: TimestampMicrosecondBuilder::new().with_data_type(SqlType::Timestamptz.arrow()),
            hidden: UInt64Builder::new(),
        }
    }

    /// Adds a message and its error. Finish the batch when [`Letters::bytes`] says so.
    ///
    /// # Panics
    /// If the message's time is beyond 63 bits.
    pub(crate) fn append(&mut self, message: &Message, bad: &BadRecord) {
        let error = bad.to_string();
        self.bytes += message.payload.len() + message.subject.len() + error.len() + self.stream.len();
        self.streams.append_value(&self.stream);
        self.sequences.append_value(in_stream(message));
        // A subject with a U+0000 is not text.
        let subject = Some(message.subject.as_str()).filter(|subject| !subject.contains('\0'));
        self.subjects.append_option(subject);
        self.bytes += self.headers.append(message.headers.as_deref());
        self.payloads.append_value(&message.payload);
        self.errors.append_value(error);
        self.columns.append_option(bad.column());
        let stored_ns = i64::try_from(message.stored_ns).expect("a time fits into 63 bits");
        self.times.append_value(micros_of_nanos(stored_ns));
        self.hidden.append_value(message.sequence);
    }

    /// The number of letters.
    pub(crate) fn len(&self) -> usize {
        self.hidden.len()
    }

    /// Their approximate size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All letters, with the hidden column of every block behind their own.
    pub(crate) fn finish(&mut self) -> RecordBatch {
        self.bytes = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.streams.finish()),
            Arc::new(self.sequences.finish()),
            Arc::new(self.subjects.finish()),
            self.headers.finish(),
            Arc::new(self.payloads.finish()),
            Arc::new(self.errors.finish()),
            Arc::new(self.columns.finish()),
            Arc::new(self.times.finish()),
            Arc::new(self.hidden.finish()),
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("the columns of the schema")
    }
}

/// The messages of dead letters, in order. Times have lost their nanoseconds, and headers their
/// order; no row has either.
///
/// # Panics
/// If the batch was not made by [`Letters`].
pub(crate) fn messages(letters: &RecordBatch) -> impl Iterator<Item = Message> {
    // The hidden column gives the incarnation of a message.
    let sequences = letters.column(letters.num_columns() - 1).as_primitive::<UInt64Type>().values();
    let subjects = letters.column(2).as_string::<i32>();
    let headers = letters.column(3).as_list::<i32>();
    let payloads = letters.column(4).as_binary::<i32>();
    let times = letters.column(7).as_primitive::<TimestampMicrosecondType>().values();
    (0..letters.num_rows()).map(move |row| Message {
        sequence: sequences[row],
        // A subject that is not text becomes such a subject again.
        subject: if subjects.is_null(row) { "\0" } else { subjects.value(row) }.into(),
        stored_ns: times[row].cast_unsigned() * 1000,
        headers: headers.is_valid(row).then(|| Box::new(header_map(headers.value(row).as_struct()))),
        payload: Bytes::copy_from_slice(payloads.value(row)),
    })
}

/// The place of a message as users see it.
fn in_stream(message: &Message) -> i64 {
    i64::try_from(Sequence(message.sequence).in_stream()).expect("a place in a stream fits into 52 bits")
}

fn header_map(headers: &StructArray) -> HeaderMap {
    let (names, values) = (headers.column(0).as_string::<i32>(), headers.column(1).as_binary::<i32>());
    let mut map = HeaderMap::new();
    for header in 0..headers.len() {
        let value = str::from_utf8(values.value(header)).expect("a header that was read is text");
        map.append(names.value(header), value);
    }
    map
}

/// The unwritten dead letters of one split of a table.
pub(crate) struct DeadLetters {
    table: TableId,
    split: SplitId,
    letters: Letters,
    /// The sequence of the first letter.
    first: Option<Sequence>,
    tail: Tail,
}

impl DeadLetters {
    /// Creates an empty batch for a split, if the job keeps dead letters.
    pub(crate) fn new(job: &Job, split: &SplitId) -> Option<DeadLetters> {
        let letters = Letters::new(split);
        Some(DeadLetters { table: job.dead_letters?, split: split.clone(), letters, first: None, tail: Tail::new(0) })
    }

    /// Adds a message and its error. Close the batch when [`DeadLetters::bytes`] says so.
    ///
    /// # Panics
    /// As [`Letters::append`].
    pub(crate) fn append(&mut self, message: &Message, bad: &BadRecord) {
        self.first.get_or_insert(Sequence(message.sequence));
        self.letters.append(message, bad);
    }

    /// Their approximate size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.letters.bytes()
    }

    /// The entry that stores the letters, if there are any.
    pub(crate) fn close(&mut self, vnode: u16) -> Option<(Bytes, Bytes)> {
        let sequence = self.first.take()?;
        let key = || BlockKey { table: self.table, vnode, split: self.split.clone(), sequence }.encode();
        Some(self.tail.close(key, self.letters.finish()))
    }
}

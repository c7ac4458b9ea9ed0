//! Dead letters: messages that are no row of their table, on their way to becoming rows of its dead-letter table.
//!
//! They are stored in blocks, as the rows of a table without a key are, whatever kind of table it is.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder, UInt64Builder,
};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use weir_common::catalog::Table;
use weir_common::ids::{Sequence, SplitId, TableId};
use weir_common::types::SqlType;
use weir_connector_nats::Message;
use weir_connector_nats::options::stream_of;

use crate::decode::{BadRecord, HeadersColumn, block_schema};
use crate::state::keys::BlockKey;
use crate::tail::Tail;

/// The dead letters of one split that are not written yet.
pub(crate) struct DeadLetters {
    table: TableId,
    split: SplitId,
    schema: SchemaRef,
    tail: Tail,
    /// The sequence of the first of them.
    first: Option<Sequence>,
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

impl DeadLetters {
    /// None, of a split of a table that keeps them.
    pub(crate) fn new(table: &Table, split: &SplitId) -> Option<DeadLetters> {
        let table = table.dead_letter_table()?;
        Some(DeadLetters {
            table: table.id,
            split: split.clone(),
            schema: block_schema(&table.declared.columns),
            tail: Tail::default(),
            first: None,
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
        })
    }

    /// Takes a message, and what is wrong with it. Close them when [`DeadLetters::bytes`] says so.
    ///
    /// # Panics
    /// If the message's sequence or time is beyond 63 bits.
    pub(crate) fn append(&mut self, message: &Message, bad: &BadRecord) {
        let error = bad.to_string();
        self.first.get_or_insert(Sequence(message.sequence));
        self.bytes += message.payload.len() + message.subject.len() + error.len() + stream_of(&self.split).len();
        self.streams.append_value(stream_of(&self.split));
        self.sequences.append_value(i64::try_from(message.sequence).expect("a sequence fits into 63 bits"));
        self.subjects.append_value(message.subject.as_str());
        self.bytes += self.headers.append(message.headers.as_deref());
        self.payloads.append_value(&message.payload);
        self.errors.append_value(error);
        self.columns.append_option(bad.column());
        self.times.append_value(i64::try_from(message.stored_ns / 1000).expect("a time fits into 63 bits"));
        self.hidden.append_value(message.sequence);
    }

    /// About how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entry by which they are stored, if there are any.
    pub(crate) fn close(&mut self, vnode: u16) -> Option<(Bytes, Bytes)> {
        let sequence = self.first.take()?;
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
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("the columns of the schema");
        let key = || BlockKey { table: self.table, vnode, split: self.split.clone(), sequence }.encode();
        Some(self.tail.close(key, rows))
    }
}

//! The rows of one statement, on their way to the slots that own their keys.
//!
//! Each slot holds its part until a barrier names the statement. Rows are sent as they come, so a
//! large statement needs little memory here. Invariant: a statement that is dropped before anybody
//! was asked to commit it is abandoned in every slot that may hold rows of it.

use std::mem;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow_ipc::writer::StreamWriter;
use datafusion::arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, UInt32Array, new_null_array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use futures::stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;
use weir_common::catalog::Relation;
use weir_common::key::{Division, KEY_BYTES_MAX, Keys};
use weir_common::rpc;
use weir_proto as proto;
use weir_sql::error::{Error, sqlstate};

use crate::scan::ComputeNodes;
use crate::snapshot::Placement;

/// Messages that wait for a slot that takes them slowly.
const AHEAD: usize = 2;
/// Rows of a message.
const ROWS_MAX: usize = 8_192;
/// Bytes of a message, unless one row has more.
const BYTES_MAX: usize = 1 << 20;

/// A statement whose rows are being sent.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) placement: Arc<Placement>,
    pub(crate) relation: Arc<Relation>,
    nodes: Arc<ComputeNodes>,
    /// The statement's number; random.
    id: u64,
    division: Division,
    /// The ways to the slots, in the order of `placement.slots`.
    ways: Vec<Way>,
    row_ids: RowIds,
    /// True once somebody was asked to commit it.
    is_named: bool,
}

/// The way to a slot.
#[derive(Debug)]
enum Way {
    /// No row was sent.
    Closed,
    Open {
        rows: mpsc::Sender<proto::HeldRows>,
        answer: AbortOnDropHandle<Result<(), rpc::Error>>,
    },
    /// The slot has all rows, or refused them.
    Answered,
}

/// Numbers the rows of a statement: a UUID that later statements' are greater than, and an ordinal.
#[derive(Debug)]
struct RowIds {
    statement: [u8; 16],
    next: u32,
}

impl RowIds {
    fn new() -> RowIds {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let [random @ .., _, _, _, _, _, _] = Uuid::new_v4().into_bytes();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let statement = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().into_bytes();
        RowIds { statement, next: 0 }
    }

    fn take(&mut self, rows: usize) -> Result<ArrayRef, Error> {
        let mut ids = BinaryBuilder::with_capacity(rows, rows * 20);
        let mut id = [0; 20];
        id[..16].copy_from_slice(&self.statement);
        for _ in 0..rows {
            id[16..].copy_from_slice(&self.next.to_be_bytes());
            ids.append_value(id);
            self.next = self.next.checked_add(1).ok_or_else(|| {
                Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, "a statement writes too many rows")
                    .with_hint("write them with several statements")
            })?;
        }
        Ok(Arc::new(ids.finish()))
    }
}

impl Holding {
    pub(crate) fn new(placement: Arc<Placement>, relation: Arc<Relation>, nodes: Arc<ComputeNodes>) -> Holding {
        let slots = placement.slots.len();
        let division = Division::new(relation.primary_key.clone(), placement.slots.iter().map(|slot| slot.vnodes));
        let (random, _) = Uuid::new_v4().as_u64_pair();
        Holding {
            placement,
            relation,
            nodes,
            id: random,
            division,
            ways: (0..slots).map(|_| Way::Closed).collect(),
            row_ids: RowIds::new(),
            is_named: false,
        }
    }

    /// Sends rows to insert: the columns that users see. Hidden columns number them.
    ///
    /// # Errors
    /// The user's for rows that the table cannot have; the errors of the slots.
    pub(crate) async fn insert(&mut self, rows: &RecordBatch) -> Result<(), Error> {
        let hidden = self.relation.hidden.iter().map(|_| self.row_ids.take(rows.num_rows()));
        let hidden = hidden.collect::<Result<Vec<_>, Error>>()?;
        self.send(rows.columns().iter().cloned().chain(hidden).collect(), rows.num_rows(), false).await
    }

    /// Sends rows to insert, with all stored columns.
    ///
    /// # Errors
    /// As [`Holding::insert`].
    pub(crate) async fn insert_stored(&mut self, columns: Vec<ArrayRef>, rows: usize) -> Result<(), Error> {
        self.send(columns, rows, false).await
    }

    /// Sends rows to delete: the columns of their stored keys.
    ///
    /// # Errors
    /// The errors of the slots.
    pub(crate) async fn delete(&mut self, keys: &[ArrayRef], rows: usize) -> Result<(), Error> {
        let schema = self.relation.stored_schema();
        let column = |(place, field): (usize, &Arc<_>)| {
            let at = self.relation.primary_key.iter().position(|part| *part == place);
            let field: &datafusion::arrow::datatypes::Field = field;
            at.map_or_else(|| new_null_array(field.data_type(), rows), |at| Arc::clone(&keys[at]))
        };
        let columns = schema.fields().iter().enumerate().map(column).collect();
        self.send(columns, rows, true).await
    }

    async fn send(&mut self, columns: Vec<ArrayRef>, rows: usize, deletes: bool) -> Result<(), Error> {
        if rows == 0 {
            return Ok(());
        }
        let batch = RecordBatch::try_new(self.relation.stored_schema(), columns).map_err(DataFusionError::from)?;
        let bytes = batch.get_array_memory_size() / rows;
        let step = (BYTES_MAX / bytes.max(1)).clamp(1, ROWS_MAX);
        for start in (0..rows).step_by(step) {
            self.send_some(&batch.slice(start, step.min(rows - start)), deletes).await?;
        }
        Ok(())
    }

    async fn send_some(&mut self, batch: &RecordBatch, deletes: bool) -> Result<(), Error> {
        self.check_keys(batch)?;
        for (place, rows) in self.division.rows(batch).into_iter().enumerate() {
            if rows.is_empty() {
                continue;
            }
            let count = rows.len();
            let part = if count == batch.num_rows() {
                encode(batch)
            } else {
                take_record_batch(batch, &UInt32Array::from(rows)).and_then(|part| encode(&part))
            };
            let rows = part.map_err(DataFusionError::from)?.into();
            let deletes = if deletes { bits(count) } else { Vec::new() };
            self.send_to(place, rows, deletes.into()).await?;
        }
        Ok(())
    }

    /// Checks that keys are not too long. Only texts and bytes make them long.
    fn check_keys(&self, batch: &RecordBatch) -> Result<(), Error> {
        let columns = &self.relation.primary_key;
        let is_long = |place: &usize| matches!(batch.column(*place).data_type(), DataType::Utf8 | DataType::Binary);
        if !columns.iter().any(is_long) {
            return Ok(());
        }
        let (keys, mut key) = (Keys::new(batch, columns), Vec::new());
        for row in 0..batch.num_rows() {
            key.clear();
            keys.write(row, &mut key);
            if key.len() > KEY_BYTES_MAX {
                let message = format!("a key of {} bytes is longer than the limit of {KEY_BYTES_MAX}", key.len());
                return Err(Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, message));
            }
        }
        Ok(())
    }

    async fn send_to(&mut self, place: usize, rows: bytes::Bytes, deletes: bytes::Bytes) -> Result<(), Error> {
        let mut message = proto::HeldRows { statement: None, rows, deletes };
        if let Way::Closed = self.ways[place] {
            message.statement = Some(self.statement(place));
            self.ways[place] = self.open(place)?;
        }
        let Way::Open { rows, .. } = &self.ways[place] else {
            return Err(Error::internal("rows are sent behind their end"));
        };
        if rows.send(message).await.is_err() {
            self.answer(place).await?;
            return Err(Error::internal("a slot held rows before their end"));
        }
        Ok(())
    }

    /// Ends the rows of a slot, and returns its answer.
    async fn answer(&mut self, place: usize) -> Result<(), Error> {
        let Way::Open { rows, answer } = mem::replace(&mut self.ways[place], Way::Answered) else { return Ok(()) };
        drop(rows);
        let answer = answer.await.map_err(|error| Error::internal(format!("the sender of rows ended: {error}")))?;
        Ok(answer?)
    }

    fn open(&self, place: usize) -> Result<Way, Error> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let mut client = self.nodes.dml(&self.placement.slots[place].address, &self.placement.slots)?;
        let rows = stream::unfold(receiver, |mut receiver: mpsc::Receiver<proto::HeldRows>| async move {
            receiver.recv().await.map(|message| (message, receiver))
        });
        let hold = async move { client.hold(rows).await.map(|_| ()).map_err(rpc::Error::from) };
        Ok(Way::Open { rows: sender, answer: AbortOnDropHandle::new(tokio::spawn(hold)) })
    }

    fn statement(&self, place: usize) -> proto::HeldStatement {
        proto::HeldStatement {
            term: Some(self.placement.term.into()),
            id: self.id,
            table: self.relation.id.0,
            slot: self.placement.slots[place].slot.0,
            layout: self.relation.layout().into(),
        }
    }

    /// Waits until all rows are held. Returns the statement to commit; `None` if it has no rows.
    /// From now on nobody abandons it here.
    ///
    /// # Errors
    /// The errors of the slots; the statement is abandoned then.
    pub(crate) async fn held(&mut self) -> Result<Option<proto::NamedStatement>, Error> {
        let mut slots = Vec::new();
        for place in 0..self.ways.len() {
            if let Way::Open { .. } = self.ways[place] {
                self.answer(place).await?;
                slots.push(self.placement.slots[place].slot.0);
            }
        }
        if slots.is_empty() {
            return Ok(None);
        }
        self.is_named = true;
        Ok(Some(proto::NamedStatement { id: self.id, table: self.relation.id.0, slots }))
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if self.is_named {
            return;
        }
        for place in 0..self.ways.len() {
            if let Way::Closed = self.ways[place] {
                continue;
            }
            let request = proto::AbandonRequest { statement: Some(self.statement(place)) };
            let client = self.nodes.dml(&self.placement.slots[place].address, &self.placement.slots);
            if let (Ok(mut client), Ok(runtime)) = (client, tokio::runtime::Handle::try_current()) {
                // Slots forget what nobody names, so a lost request costs memory for a while.
                runtime.spawn(async move { drop(client.abandon(request).await) });
            }
        }
    }
}

fn encode(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
    writer.write(batch)?;
    writer.into_inner()
}

/// A bit for each of so many rows.
fn bits(rows: usize) -> Vec<u8> {
    let mut bits = vec![u8::MAX; rows.div_ceil(8)];
    if let (Some(last), rest @ 1..) = (bits.last_mut(), rows % 8) {
        *last = (1 << rest) - 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_rows_follow_each_other() {
        let mut ids = RowIds::new();
        let first = ids.take(2).expect("ids");
        let second = ids.take(1).expect("ids");
        let values: Vec<Vec<u8>> = [&first, &second]
            .into_iter()
            .flat_map(|array| {
                let array = datafusion::arrow::array::AsArray::as_binary::<i32>(array.as_ref());
                array.iter().map(|id| id.expect("no NULL").to_vec()).collect::<Vec<_>>()
            })
            .collect();
        assert!(values.is_sorted());
        assert_eq!(values[2].len(), 20);
        assert_eq!(values[2][16..], [0, 0, 0, 2]);
        assert_eq!(values[0][6] >> 4, 7);
    }

    #[test]
    fn a_bit_for_each_row() {
        assert_eq!(bits(3), [0b111]);
        assert_eq!(bits(8), [255]);
        assert_eq!(bits(9), [255, 1]);
    }
}

//! A leaf of a job: the fragment that takes the rows of a split, inside the reader of the split.
//!
//! It keeps no state, and so needs no slot: the operators turn batches of rows into changes, which
//! leave over edges as far as credits reach. The reader waits meanwhile, and reads nothing more.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{Field, Schema, SchemaRef, UInt64Type};
use tokio::sync::mpsc;
use weir_common::catalog::{Reads, Relation};
use weir_common::ids::{ActorId, EdgeId, Epoch, SplitId};
use weir_common::plan::{Stream, StreamColumn};
use weir_common::types::SqlType;
use weir_common::view;
use weir_stream::chunk::Chunk;
use weir_stream::edge::Sender;
use weir_stream::pipeline::{Failure, Next, Outcome, Pipeline, Place};

use super::divide::Divide;
use super::edge::Closed;
use super::failed::FailedRows;
use super::fragment::{Shared, outputs};
use super::query::places;
use super::router::Message;
use crate::control::placement::Placement;
use crate::control::plan::Route;

/// The leaf of one split.
pub(crate) struct Leaf {
    shared: Shared,
    /// The places of the columns that it reads among the source's, and last that of the sequences.
    columns: Vec<usize>,
    origin: Origin,
    pipeline: Pipeline,
    failed: FailedRows,
    outputs: Vec<Divide>,
    senders: BTreeMap<EdgeId, Sender<Chunk>>,
    /// Credits of the edges.
    inbox: mpsc::UnboundedReceiver<Message>,
}

/// The reason why a leaf takes no more rows.
pub(crate) enum Stopped {
    /// The term has ended, or is about to.
    Closed,
    /// An expression fails for one of the rows.
    Failed(Failure),
}

impl From<Closed> for Stopped {
    fn from(_: Closed) -> Stopped {
        Stopped::Closed
    }
}

impl Leaf {
    /// Begins to take rows of `source` for a job, from `split`. Its first barrier is the one after
    /// `after`.
    ///
    /// # Errors
    /// If the source lacks a column, or this version a function.
    pub(crate) fn new(
        shared: Shared,
        (placement, actor): (&Placement<'_>, ActorId),
        (source, split): (&Relation, &SplitId),
        after: Epoch,
        routes: &[Route],
    ) -> Result<Leaf, view::Error> {
        let query = placement.query();
        let reads = query.reads.iter().find(|reads| reads.relation == source.id);
        let reads = reads.ok_or_else(|| view::Error(format!("the plan does not read \"{}\"", source.name)))?;
        let mut columns = places(reads, source)?;
        columns.push(source.columns.len());
        let place = Place { single: None, is_fresh: true };
        let fragment = usize::from(actor.fragment.index);
        let read = Stream { columns: Origin::behind(reads), key: Vec::new(), append_only: true };
        let pipeline = Pipeline::new(&query.plan, fragment, Some(&read), shared.functions.as_ref(), place)?;
        let inbox = shared.router.register(actor);
        let outputs = outputs(placement, actor, routes);
        let edges = outputs.iter().flat_map(|output| output.edges().iter().copied());
        let senders = edges.map(|edge| (edge, Sender::new(after.next()))).collect();
        let origin = Origin::new(reads, split);
        let failed = FailedRows::new(&shared.metrics, placement.name());
        Ok(Leaf { shared, columns, origin, pipeline, failed, outputs, senders, inbox })
    }

    /// Takes rows of the source, with the column of sequences behind its own columns.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<(), Stopped> {
        let rows = self.origin.add(&rows.project(&self.columns).expect("columns of the source"));
        let outcome = self.pipeline.apply(0, Chunk::inserts(rows));
        self.send(outcome).await
    }

    /// Ends an epoch.
    pub(crate) async fn barrier(&mut self, epoch: Epoch) -> Result<(), Stopped> {
        let outcome = self.pipeline.flush();
        self.send(outcome).await?;
        self.senders.values_mut().for_each(|sender| sender.barrier(epoch));
        self.drain().await?;
        Ok(())
    }

    async fn send(&mut self, mut outcome: Result<Outcome, Failure>) -> Result<(), Stopped> {
        loop {
            let Outcome { emitted, failed, next } = outcome.map_err(Stopped::Failed)?;
            self.failed.note(&failed);
            for chunk in emitted {
                for output in &self.outputs {
                    for (edge, part) in output.divide(&chunk) {
                        self.senders.get_mut(&edge).expect("an edge of the leaf").chunk(part);
                    }
                }
            }
            self.drain().await?;
            match next {
                Next::Done => return Ok(()),
                Next::More => outcome = self.pipeline.resume(),
                _ => unreachable!("operators of a leaf keep no state"),
            }
        }
    }

    /// Sends frames until none is left. Waits for credits meanwhile.
    async fn drain(&mut self) -> Result<(), Closed> {
        loop {
            while let Ok(message) = self.inbox.try_recv() {
                self.take(message);
            }
            for (edge, sender) in &mut self.senders {
                while let Some(frame) = sender.poll() {
                    self.shared.router.send(edge.to, Message::Frame(*edge, frame));
                }
            }
            if self.senders.values().all(Sender::is_empty) {
                return Ok(());
            }
            let message = self.inbox.recv().await.ok_or(Closed)?;
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        let Message::Credit(edge, credit) = message else { unreachable!("a leaf has no inputs") };
        self.senders.get_mut(&edge).expect("an edge of the leaf").credit(credit);
    }
}

/// The sequences of rows as a column of changes: whole numbers with a sign, as in all columns that
/// SQL knows. The bits stay.
pub(crate) fn as_column(sequences: &ArrayRef) -> Int64Array {
    let bits = sequences.as_primitive::<UInt64Type>().values().inner().clone();
    Int64Array::new(ScalarBuffer::new(bits, 0, sequences.len()), None)
}

/// The columns that identify a row of a split.
struct Origin {
    /// The columns that are read, then split, sequence and ordinal.
    schema: SchemaRef,
    split: String,
    /// The split's name and the ordinal, for as many rows as a batch has had.
    splits: ArrayRef,
    ordinals: ArrayRef,
}

impl Origin {
    /// The columns that are read, then split, sequence and ordinal.
    fn behind(reads: &Reads) -> Vec<StreamColumn> {
        let read = reads.columns.iter().map(|column| (column.name.as_str(), column.ty.clone()));
        let origin = [("_split", SqlType::Varchar), ("_sequence", SqlType::BigInt), ("_ordinal", SqlType::Integer)];
        read.chain(origin).map(|(name, ty)| StreamColumn { name: name.to_owned(), ty }).collect()
    }

    fn new(reads: &Reads, split: &SplitId) -> Origin {
        let fields: Vec<Field> = Origin::behind(reads).iter().map(|column| column.ty.field(&column.name)).collect();
        let none = (Arc::new(StringArray::from_iter_values::<&str, _>([])), Arc::new(Int32Array::from_iter_values([])));
        Origin { schema: Arc::new(Schema::new(fields)), split: split.0.clone(), splits: none.0, ordinals: none.1 }
    }

    /// Puts the origin in the place of the sequences, the last column.
    fn add(&mut self, rows: &RecordBatch) -> RecordBatch {
        let count = rows.num_rows();
        if self.splits.len() < count {
            self.splits = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.split, count)));
            // A message makes one row.
            self.ordinals = Arc::new(Int32Array::from_iter_values(std::iter::repeat_n(0, count)));
        }
        let (sequences, read) = rows.columns().split_last().expect("the column of sequences");
        let sequences = Arc::new(as_column(sequences));
        let origin: [ArrayRef; 3] = [self.splits.slice(0, count), sequences, self.ordinals.slice(0, count)];
        let columns = read.iter().cloned().chain(origin).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("columns of one length, of their types")
    }
}

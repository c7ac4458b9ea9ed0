//! A leaf of a job: the fragment that takes the rows of a split, inside the reader of the split.
//!
//! It keeps no state, and so needs no slot: the operators turn batches of rows into changes, which
//! leave over edges as far as credits reach. The reader waits meanwhile, and reads nothing more.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{Field, Schema, SchemaRef, UInt64Type};
use tokio::sync::mpsc;
use weir_common::catalog::{Entry, OnError, Reads, Relation};
use weir_common::ids::{ActorId, EdgeId, Epoch, Sequence, SplitId, TableId, VnodeRange};
use weir_common::plan::Stream;
use weir_common::view;
use weir_stream::chunk::Chunk;
use weir_stream::edge::Sender;
use weir_stream::pipeline::{Failure, Next, Outcome, Pipeline, Place};

use super::divide::Divide;
use super::edge::Closed;
use super::failed::FailedRows;
use super::fragment::{Shared, outputs};
use super::letters::{self, RowLetters};
use super::router::Message;
use super::usage::Clocks;
use crate::control::event::Event;
use crate::control::placement::Placement;
use crate::control::plan::Route;
use crate::storage::entries::Entries;

/// The leaf of one split.
pub(crate) struct Leaf {
    shared: Shared,
    /// The places of the columns that it reads among the source's, and last that of the sequences.
    columns: Vec<usize>,
    origin: Origin,
    /// Absent if it forwards rows as they are.
    pipeline: Option<Pipeline>,
    failed: FailedRows,
    clocks: Clocks,
    outputs: Vec<Divide>,
    senders: BTreeMap<EdgeId, Sender<Chunk>>,
    job: TableId,
    /// True once the job has stopped: it throws rows away, and passes barriers.
    discards: bool,
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
    /// Begins to take rows of `source` for a job, from `split`, whose slot has these vnodes. Its
    /// first barrier is the one after `after`.
    ///
    /// # Errors
    /// If the source lacks a column, or this version a function.
    pub(crate) fn new(
        shared: Shared,
        (entry, placement, actor): (&Entry, &Placement<'_>, ActorId),
        (source, split, vnodes): (&Relation, &SplitId, VnodeRange),
        after: Epoch,
        routes: &[Route],
    ) -> Result<Leaf, view::Error> {
        let (plan, reads) = (&placement.query().plan, reads(placement, source)?);
        let place = Place { single: None, is_fresh: true };
        let fragment = usize::from(actor.fragment.index);
        let read = Stream { columns: reads.with_origin(), key: Vec::new(), append_only: true };
        let pipeline = Pipeline::new(plan, fragment, Some(&read), shared.functions.as_ref(), place)?;
        let letters = RowLetters::new(entry, actor.fragment.index, letters::Place::Slot(vnodes), &shared.functions);
        let job = (actor.fragment.job, placement.name());
        let failed = FailedRows::new(&shared.usage, job, (entry.job.on_error, letters));
        let operators = (Some(pipeline), failed);
        let outputs = outputs(placement, actor, routes);
        Leaf::with(shared, (placement, actor), (source, split), after, (operators, outputs))
    }

    /// Begins to forward the rows of `relation`, which the reader of `split` stores in blocks, to
    /// the actors that follow it. Its first barrier is the one after `after`.
    ///
    /// # Errors
    /// If the relation lacks a column.
    pub(crate) fn forward(
        shared: Shared,
        (placement, actor): (&Placement<'_>, ActorId),
        (relation, split): (&Relation, &SplitId),
        after: Epoch,
    ) -> Result<Leaf, view::Error> {
        let outputs = vec![Divide::beside(placement.forwarded(actor))];
        let job = (actor.fragment.job, placement.name());
        let operators = (None, FailedRows::new(&shared.usage, job, (OnError::default(), None)));
        Leaf::with(shared, (placement, actor), (relation, split), after, (operators, outputs))
    }

    fn with(
        shared: Shared,
        (placement, actor): (&Placement<'_>, ActorId),
        (source, split): (&Relation, &SplitId),
        after: Epoch,
        ((pipeline, failed), outputs): ((Option<Pipeline>, FailedRows), Vec<Divide>),
    ) -> Result<Leaf, view::Error> {
        let reads = reads(placement, source)?;
        let mut columns = reads.places(source)?;
        columns.push(source.columns.len());
        let inbox = shared.router.register(actor);
        let edges = outputs.iter().flat_map(|output| output.edges().iter().copied());
        let senders = edges.map(|edge| (edge, Sender::new(after.next()))).collect();
        let origin = Origin::new(reads, split);
        let job = (actor.fragment.job, placement.name());
        let clocks = shared.usage.clocks(job, (source.id, &source.name));
        let (job, discards) = (actor.fragment.job, false);
        Ok(Leaf { shared, columns, origin, pipeline, failed, clocks, outputs, senders, job, discards, inbox })
    }

    /// Takes rows of the source, with the column of sequences behind its own columns.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<(), Stopped> {
        if self.discards {
            return Ok(());
        }
        let outcome = self.clocks.measure(|| {
            let rows = Chunk::inserts(self.origin.add(&rows.project(&self.columns).expect("columns of the source")));
            match &mut self.pipeline {
                Some(pipeline) => pipeline.apply(0, rows),
                None => Ok(Outcome { emitted: vec![rows], kept: Vec::new(), failed: Vec::new(), next: Next::Done }),
            }
        });
        self.send(outcome).await
    }

    /// Tells the actors that get rows of the split forwarded that the first one is at `position`,
    /// or above it.
    pub(crate) async fn begin(&mut self, position: Sequence) -> Result<(), Closed> {
        if self.pipeline.is_none() {
            let start = Chunk::inserts(self.origin.start(position));
            self.senders.values_mut().for_each(|sender| sender.chunk(start.clone()));
            self.drain().await?;
        }
        Ok(())
    }

    /// Ends an epoch.
    pub(crate) async fn barrier(&mut self, epoch: Epoch) -> Result<(), Stopped> {
        if let Some(pipeline) = self.pipeline.as_mut().filter(|_| !self.discards) {
            let outcome = pipeline.flush();
            self.send(outcome).await?;
        }
        self.senders.values_mut().for_each(|sender| sender.barrier(epoch));
        self.drain().await?;
        Ok(())
    }

    /// The changes of the job's dead letters since the last call.
    pub(crate) fn take_letters(&mut self) -> Entries {
        self.failed.take()
    }

    async fn send(&mut self, mut outcome: Result<Outcome, Failure>) -> Result<(), Stopped> {
        loop {
            // No leaf stores groups.
            let Outcome { emitted, failed, next, .. } = outcome.map_err(Stopped::Failed)?;
            let pipeline = self.pipeline.as_ref();
            let noted = self.failed.note(&failed, |operator| pipeline.expect("it has operators").failing(operator));
            if let Err(reason) = noted {
                self.shared.node.send(Event::JobStopped(self.shared.term, self.job, reason)).await;
                self.discards = true;
                return Ok(());
            }
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
                Next::More => outcome = self.pipeline.as_mut().expect("it has more").resume(),
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

/// The columns of a relation that the job reads.
fn reads<'a>(placement: &'a Placement<'_>, relation: &Relation) -> Result<&'a Reads, view::Error> {
    let reads = placement.query().reads.iter().find(|reads| reads.relation == relation.id);
    reads.ok_or_else(|| view::Error::new(format!("the plan does not read \"{}\"", relation.name)))
}

/// The sequences of rows as a column of changes: whole numbers with a sign, as in all columns that
/// SQL knows. The bits stay.
pub(crate) fn as_column(sequences: &ArrayRef) -> Int64Array {
    let bits = sequences.as_primitive::<UInt64Type>().values().inner().clone();
    Int64Array::new(ScalarBuffer::new(bits, 0, sequences.len()), None)
}

/// The ordinal of no row: the sequence beside it is the position at which a reader begins.
pub(super) const START: i32 = -1;

/// The columns that identify a row of a split.
pub(crate) struct Origin {
    /// The columns that are read, then split, sequence and ordinal.
    schema: SchemaRef,
    split: String,
    /// The split's name and the ordinal, for as many rows as a batch has had.
    splits: ArrayRef,
    ordinals: ArrayRef,
}

impl Origin {
    /// The origin of rows of a split.
    pub(super) fn new(reads: &Reads, split: &SplitId) -> Origin {
        let fields: Vec<Field> = reads.with_origin().iter().map(|column| column.ty.field(&column.name)).collect();
        let none = (Arc::new(StringArray::from_iter_values::<&str, _>([])), Arc::new(Int32Array::from_iter_values([])));
        Origin { schema: Arc::new(Schema::new(fields)), split: split.0.clone(), splits: none.0, ordinals: none.1 }
    }

    /// A row that says where a reader of the split begins.
    fn start(&self, position: Sequence) -> RecordBatch {
        let origin: [ArrayRef; 3] = [
            Arc::new(StringArray::from_iter_values([&self.split])),
            Arc::new(Int64Array::from_iter_values([position.0.cast_signed()])),
            Arc::new(Int32Array::from_iter_values([START])),
        ];
        let read = &self.schema.fields()[..self.schema.fields().len() - origin.len()];
        let columns = read.iter().map(|field| new_null_array(field.data_type(), 1)).chain(origin).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("columns of one length, of their types")
    }

    /// Puts the origin in the place of the sequences, the last column.
    pub(super) fn add(&mut self, rows: &RecordBatch) -> RecordBatch {
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

//! An output: sends the rows of one relation to the slots that store them. A table's rows are those
//! of the messages; a view's query computes its rows from them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use weir_common::catalog::{Entry, Plan, Relation, RelationName};
use weir_common::error::chain;
use weir_common::ids::{Epoch, JobSplit, Sequence, TableId, TermId, VnodeRange};
use weir_common::position::Position;
use weir_common::view::{self, Functions};

use super::shared::Config;
use crate::control::event::{Event, Inputs};
use crate::control::plan::Writer;
use crate::dataflow::edge::{Closed, Edge};
use crate::dataflow::failed::FailedRows;
use crate::dataflow::leaf::{self, Leaf, Origin};
use crate::dataflow::letters::{self, RowLetters};
use crate::dataflow::query::{Evaluated, Query};
use crate::dataflow::usage::Clocks;
use crate::storage::state::keys::BlockKey;
use crate::storage::tail::Tail;

/// A relation that an actor has to store.
pub(crate) struct Attachment {
    /// A table, or a view over the source that the actor reads.
    pub(crate) entry: Entry,
    /// The split that it is fed from, as a split of its job.
    pub(crate) split: JobSplit,
    /// The next sequence that it lacks.
    pub(crate) position: Position,
    /// The edge to the actor's own slot.
    pub(crate) own: Edge,
    /// The leaves of the job's fragments that take the split's rows, if it has fragments.
    pub(crate) leaves: Vec<Leaf>,
}

/// Leaves that forward the rows of a relation, which the actor stores in blocks, to a job.
pub(crate) struct Forward {
    /// The relation.
    pub(crate) below: TableId,
    /// The job.
    pub(crate) job: TableId,
    pub(crate) leaves: Vec<Leaf>,
}

/// A relation that an actor stores.
pub(super) struct Output {
    relation: Arc<Relation>,
    split: JobSplit,
    /// The name under which slots know it.
    writer: Writer,
    own: Edge,
    rows: Rows,
    /// Stores the rows as blocks in the actor's own slot. Absent if fragments of the job do.
    tail: Option<Tail>,
    /// The leaves that take the rows, each with its job.
    leaves: Vec<(TableId, Leaf)>,
}

/// The rows of a relation.
enum Rows {
    /// The rows that were read.
    Read,
    /// The rows that a query computes from them, each alone.
    Query(Box<Computing>),
    /// None: a row of the query has failed, and the job stops.
    Discarded,
}

/// The query of a view, with those who watch it.
struct Computing {
    query: Query,
    origin: Origin,
    failed: FailedRows,
    clocks: Clocks,
    node: Inputs,
    term: TermId,
}

/// The reason why no more can be stored.
pub(super) enum Stopped {
    /// The term has ended, or is about to.
    Closed,
    /// An operator failed.
    Failed(view::Error),
}

impl From<Closed> for Stopped {
    fn from(_: Closed) -> Stopped {
        Stopped::Closed
    }
}

impl From<leaf::Stopped> for Stopped {
    fn from(stopped: leaf::Stopped) -> Stopped {
        match stopped {
            leaf::Stopped::Closed => Stopped::Closed,
            leaf::Stopped::Failed(error) => Stopped::Failed(view::Error::new(chain(&error))),
        }
    }
}

impl Output {
    /// Begins to store a relation whose rows come from those that the actor reads.
    ///
    /// # Errors
    /// If the statement of a view cannot be compiled, although it could when the view was created.
    pub(super) async fn new(attachment: Attachment, config: &Config) -> Result<Output, view::Error> {
        let Config { compiler, usage, term, node, .. } = config;
        let source = &*config.source.relation;
        let Attachment { entry, split, own, leaves, .. } = attachment;
        let rows = match &entry.job.plan {
            Plan::Stream(_) | Plan::Query(_) | Plan::Definition(_) => Rows::Read,
            Plan::Unknown(unknown) => return Err(view::Error::new(unknown.reason.clone())),
            Plan::View(reads) => {
                let job = (entry.id(), entry.name());
                let functions: Arc<dyn Functions> = Arc::clone(compiler) as _;
                let letters = RowLetters::new(&entry, 0, letters::Place::Slot(own.vnodes), &functions);
                let failed = FailedRows::new(usage, job, (entry.job.on_error, letters));
                let clocks = usage.clocks(job, (source.id, &source.name));
                let query = Query::of(&entry, reads, source, compiler.as_ref()).await?;
                let origin = query.origin(&split.split);
                Rows::Query(Box::new(Computing { query, origin, failed, clocks, node: node.clone(), term: *term }))
            }
        };
        let Entry { relation, job, .. } = entry;
        let tail = leaves.is_empty().then(|| Tail::new(relation.layout()));
        let leaves = leaves.into_iter().map(|leaf| (job.id, leaf)).collect();
        Ok(Output { relation, writer: split.clone().into(), split, own, rows, tail, leaves })
    }

    /// The relation.
    pub(super) fn relation(&self) -> &Relation {
        &self.relation
    }

    /// Its id.
    pub(super) fn id(&self) -> TableId {
        self.relation.id
    }

    /// Its name.
    pub(super) fn name(&self) -> &RelationName {
        &self.relation.name
    }

    /// The split that it is fed from, as a split of its job.
    pub(super) fn split(&self) -> &JobSplit {
        &self.split
    }

    /// Begins to forward its rows. The first one is at `position`, or above it.
    pub(super) async fn forward(&mut self, to: Forward, position: Sequence) -> Result<(), Closed> {
        for mut leaf in to.leaves {
            leaf.begin(position).await?;
            self.leaves.push((to.job, leaf));
        }
        Ok(())
    }

    /// Forwards its rows to a job no longer.
    pub(super) fn stop_forwarding(&mut self, job: TableId) {
        self.leaves.retain(|(of, _)| *of != job);
    }

    /// Sends rows. `first` is the sequence of the first message.
    pub(super) async fn write(&mut self, rows: &RecordBatch, first: Sequence, epoch: Epoch) -> Result<(), Stopped> {
        let rows = match &mut self.rows {
            Rows::Discarded => return Ok(()),
            Rows::Read => Some(rows.clone()),
            Rows::Query(computing) => {
                let Computing { query, origin, failed: failed_rows, clocks, node, term } = computing.as_mut();
                let Evaluated { rows, failed } = clocks.measure(|| query.evaluate(rows, origin));
                if let Err(reason) = failed_rows.note(&failed, |_| query.failing()) {
                    node.send(Event::JobStopped(*term, self.relation.id, reason)).await;
                    self.rows = Rows::Discarded;
                    return Ok(());
                }
                let letters = failed_rows.take();
                if !letters.is_empty() {
                    self.own.write(&self.writer, letters).await?;
                }
                rows
            }
        };
        let Some(rows) = rows.filter(|rows| rows.num_rows() > 0) else { return Ok(()) };
        for (_, leaf) in &mut self.leaves {
            leaf.write(&rows).await?;
            let letters = leaf.take_letters();
            if !letters.is_empty() {
                self.own.write(&self.writer, letters).await?;
            }
        }
        if let Some(tail) = &mut self.tail {
            let (vnode, JobSplit { job, split }) = (vnode(self.own.vnodes, epoch), self.split.clone());
            let (key, value) = tail.close(|| BlockKey { table: job, vnode, split, sequence: first }.encode(), rows);
            self.own.write_entry(&self.writer, key, value).await?;
        }
        Ok(())
    }

    /// Sends a dead letter's entry to the actor's slot.
    pub(super) async fn write_beside(
        &self,
        entry: impl FnOnce(u16) -> Option<(Bytes, Bytes)>,
        epoch: Epoch,
    ) -> Result<(), Closed> {
        match entry(vnode(self.own.vnodes, epoch)) {
            Some((key, value)) => self.own.write_entry(&self.writer, key, value).await,
            None => Ok(()),
        }
    }

    /// Sends a barrier to the fragments that it feeds, and to the actor's slot.
    pub(super) async fn barrier(&mut self, epoch: Epoch, position: Position) -> Result<(), Stopped> {
        for (_, leaf) in &mut self.leaves {
            leaf.barrier(epoch).await?;
            let letters = leaf.take_letters();
            if !letters.is_empty() {
                self.own.write(&self.writer, letters).await?;
            }
        }
        Ok(self.own.barrier(&self.writer, epoch, Some(position)).await?)
    }
}

/// The vnode of blocks that begin in an epoch. The slot's vnodes take turns, so that each new slot
/// gets an even share when slots are divided anew.
fn vnode(slot: VnodeRange, epoch: Epoch) -> u16 {
    let offset = epoch.0 % u64::from(slot.end - slot.start);
    slot.start + u16::try_from(offset).expect("less than 256")
}

//! Follows a relation whose rows are stored in blocks: the rows that it has already, and those that
//! its readers forward.
//!
//! Nothing is ever deleted from such a relation, and a position of a split divides its rows. When
//! a reader begins to forward, it says at which position. The actor keeps the first such position
//! of each split, the *start*: it takes the rows below it from blocks, and the others from the
//! reader. A reader that begins closes its open block, so the rows below the start are in the
//! snapshot of the epoch in which it begins, and in every later one.
//!
//! The cursors are a state table: the key is the vnode. The value is a version and a cursor as
//! JSON: the starts and the key of the last block that was read, or that all were.
//!
//! Invariant: at every barrier the view has consumed the rows of the blocks up to the cursors that
//! lie below the starts, and all rows at or above them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type, UInt64Type};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use weir_common::catalog::{Reads, Relation};
use weir_common::ids::{ActorId, Epoch, Sequence, SplitId};
use weir_common::plan::Stream;
use weir_common::view;
use weir_stream::chunk::Chunk;
use weir_stream::pipeline::{StateKey, StateWrite};

use super::follow::{Error, Followed, Following, Throttle};
use super::leaf::{Origin, START};
use crate::storage::block;
use crate::storage::layout::{self, Wanted};
use crate::storage::slot::Snapshots;
use crate::storage::state::{self, Entries, keys::BlockKey};

/// Rows of one page, at least.
const PAGE_ROWS: usize = 64 << 10;
/// The version of a stored cursor.
const VERSION: u8 = 1;

/// How far the actor has read a vnode, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    /// By the names of splits: the sequences below which rows of blocks are taken. They are as many
    /// as the readers, and not known before the readers have said them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    starts: BTreeMap<String, u64>,
    /// The key of the last block that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Vec<u8>>,
    /// True once all blocks were read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_end: bool,
}

/// An actor's way through the blocks of its slot.
pub(crate) struct History {
    actor: ActorId,
    relation: Arc<Relation>,
    wanted: Wanted,
    reads: Reads,
    /// The columns that the fragment reads among those of the job.
    columns: Vec<usize>,
    /// The state table of cursors.
    table: u16,
    /// The readers that forward.
    readers: usize,
    /// Where they began, those of which it is known.
    starts: BTreeMap<String, u64>,
    cursors: BTreeMap<u16, Cursor>,
    /// The first epoch whose snapshot has all rows below the starts.
    ready: Epoch,
    /// The vnode that it reads in this epoch.
    open: Option<(u16, Entries)>,
    snapshots: watch::Receiver<Snapshots>,
    following: Following,
    epoch: Epoch,
    left: usize,
    /// Cursors that moved since the last flush.
    moved: Vec<u16>,
    /// Bounds the pages, if the job has a rate.
    throttle: Option<Throttle>,
}

impl History {
    /// Follows `relation` in the vnodes of a slot, from the epoch behind `after` on. Unless the job
    /// is fresh the cursors are not known before [`History::restore`].
    ///
    /// # Errors
    /// If the relation lacks a column.
    pub(crate) fn new(
        actor: ActorId,
        (relation, reads): (&Arc<Relation>, &Reads),
        (columns, table): (&[usize], u16),
        (vnodes, readers): (Vec<u16>, usize),
        (after, is_fresh): (Epoch, bool),
        (snapshots, following): (watch::Receiver<Snapshots>, Following),
    ) -> Result<History, view::Error> {
        following.set(actor, Followed { through: None, vnodes: (0, vnodes.len()), is_known: is_fresh });
        following.begin_blocks(actor.fragment.job, relation.id);
        Ok(History {
            actor,
            wanted: Wanted::new(Arc::clone(relation), &reads.places(relation)?),
            relation: Arc::clone(relation),
            reads: reads.clone(),
            columns: columns.to_vec(),
            table,
            readers,
            starts: BTreeMap::new(),
            cursors: vnodes.into_iter().map(|vnode| (vnode, Cursor::default())).collect(),
            // The readers of a job that is fresh have read beyond `after` when they begin. In a new
            // term they begin at committed positions.
            ready: if is_fresh { after.next() } else { after },
            open: None,
            snapshots,
            following,
            epoch: after.next(),
            left: 0,
            moved: Vec::new(),
            throttle: None,
        })
    }

    /// Reads so many rows a second at most of those that are there already.
    pub(crate) fn at_rate(self, rows_per_second: Option<f64>) -> History {
        History { throttle: rows_per_second.map(Throttle::new), ..self }
    }

    /// The stream that it brings: columns of the relation, then those that identify a row.
    pub(crate) fn stream(&self) -> Stream {
        let all = self.reads.with_origin();
        let (read, origin) = all.split_at(self.reads.columns.len());
        let columns = self.columns.iter().map(|column| &read[*column]).chain(origin).cloned().collect();
        Stream { columns, key: Vec::new(), append_only: true }
    }

    /// The keys of the stored cursors.
    pub(crate) fn cursor_keys(&self) -> Vec<StateKey> {
        self.cursors.keys().map(|vnode| self.state_key(*vnode)).collect()
    }

    /// Takes up the stored cursors, as the committed `epoch` has them.
    ///
    /// # Errors
    /// If one is damaged.
    pub(crate) fn restore(&mut self, found: &[Option<Bytes>], epoch: Epoch) -> Result<(), Error> {
        for (cursor, stored) in self.cursors.values_mut().zip(found) {
            *cursor = match stored.as_deref() {
                None => Cursor::default(),
                Some([VERSION, stored @ ..]) => serde_json::from_slice(stored).map_err(|_| Error::Cursor)?,
                Some(_) => return Err(Error::Cursor),
            };
        }
        self.tell(epoch);
        Ok(())
    }

    /// An epoch begins.
    pub(crate) fn begin(&mut self, epoch: Epoch) {
        let rows = self.throttle.as_mut().map_or(PAGE_ROWS, Throttle::page);
        (self.epoch, self.left, self.open) = (epoch, rows, None);
    }

    /// The next part of the page of this epoch; `None` once it is complete.
    ///
    /// # Errors
    /// If the blocks cannot be read.
    pub(crate) async fn page(&mut self) -> Result<Option<Chunk>, Error> {
        while self.left > 0 {
            let Some((vnode, mut blocks)) = self.open()? else { return Ok(None) };
            let found = blocks.next().await.map_err(|source| self.unreadable(source))?;
            self.moved.push(vnode);
            let cursor = self.cursors.get_mut(&vnode).expect("a vnode of the slot");
            let Some((key, block)) = found else {
                *cursor = Cursor { is_end: true, ..Cursor::default() };
                continue;
            };
            cursor.last = Some(key.to_vec());
            self.open = Some((vnode, blocks));
            let rows = self.read(vnode, &key, &block)?;
            self.left = self.left.saturating_sub(rows.as_ref().map_or(1, RecordBatch::num_rows));
            if let Some(rows) = rows {
                self.throttle.iter_mut().for_each(|throttle| throttle.read(rows.num_rows()));
                return Ok(Some(self.project(&Chunk::inserts(rows))));
            }
        }
        Ok(None)
    }

    /// The vnode that comes next, and its blocks behind the cursor; `None` if none can be read yet,
    /// or all were.
    fn open(&mut self) -> Result<Option<(u16, Entries)>, Error> {
        if self.open.is_some() {
            return Ok(self.open.take());
        }
        let Some((vnode, cursor)) = self.cursors.iter().find(|(_, cursor)| !cursor.is_end) else { return Ok(None) };
        let newest = self.snapshots.borrow().last_key_value().map(|(epoch, snapshot)| (*epoch, snapshot.clone()));
        let (sealed, snapshot) = newest.ok_or(Error::Ended)?;
        if sealed < self.ready || cursor.starts.len() < self.readers {
            return Ok(None);
        }
        let last = cursor.last.clone().map(Bytes::from);
        Ok(Some((*vnode, snapshot.entries_after(self.relation.id, *vnode, last))))
    }

    /// The rows of a block below the start of its split, with the columns that identify them;
    /// `None` if there are none.
    fn read(&mut self, vnode: u16, key: &Bytes, block: &Bytes) -> Result<Option<RecordBatch>, Error> {
        let key = BlockKey::decode(key).map_err(|source| self.unreadable(source))?;
        // The rows of a split that no reader forwards are all in blocks.
        let start = self.cursors[&vnode].starts.get(&key.split.0).copied().unwrap_or(u64::MAX);
        if key.sequence.0 >= start {
            return Ok(None);
        }
        let failed = |source| Error::Rows { relation: self.relation.name.clone(), source };
        let layout = block::layout(block).map_err(layout::Error::from).map_err(failed)?;
        let layout = self.wanted.of(layout).map_err(failed)?;
        let rows = layout.read_block_with_sequences(block).map_err(failed)?;
        let sequences = rows.column(rows.num_columns() - 1).as_primitive::<UInt64Type>();
        let below = sequences.values().iter().map(|sequence| Some(*sequence < start)).collect::<BooleanArray>();
        let rows = filter_record_batch(&rows, &below).expect("a bit for each row");
        Ok((rows.num_rows() > 0).then(|| Origin::new(&self.reads, &key.split).add(&rows)))
    }

    fn unreadable(&self, source: state::Error) -> Error {
        Error::State { relation: self.relation.name.clone(), source: Box::new(source) }
    }

    /// The rows that a reader forwards, with the columns that the fragment reads.
    pub(crate) fn pass(&mut self, chunk: &Chunk) -> Chunk {
        if let Some((split, start)) = start(chunk.rows()) {
            self.starts.insert(split.0, start.0);
            if self.starts.len() == self.readers {
                // They come before the first barrier. In later terms the stored ones count.
                let unknown = |(_, cursor): &(&u16, &mut Cursor)| cursor.starts.is_empty() && !cursor.is_end;
                for (vnode, cursor) in self.cursors.iter_mut().filter(unknown) {
                    cursor.starts.clone_from(&self.starts);
                    self.moved.push(*vnode);
                }
            }
            return Chunk::inserts(chunk.rows().slice(0, 0).project(&self.projection(chunk)).expect("its columns"));
        }
        self.project(chunk)
    }

    fn project(&self, chunk: &Chunk) -> Chunk {
        chunk.with_rows(chunk.rows().project(&self.projection(chunk)).expect("columns of the relation"))
    }

    fn projection(&self, chunk: &Chunk) -> Vec<usize> {
        self.columns.iter().copied().chain(self.reads.columns.len()..chunk.rows().num_columns()).collect()
    }

    /// The cursors that moved in the epoch, as state.
    pub(crate) fn take_writes(&mut self) -> Vec<StateWrite> {
        let mut moved = std::mem::take(&mut self.moved);
        moved.sort_unstable();
        moved.dedup();
        let write = |vnode: u16| {
            let mut value = vec![VERSION];
            serde_json::to_writer(&mut value, &self.cursors[&vnode]).expect("a cursor serialises");
            StateWrite { key: self.state_key(vnode), value: Some(value.into()) }
        };
        let writes: Vec<StateWrite> = moved.into_iter().map(write).collect();
        self.tell(self.epoch);
        writes
    }

    /// Tells the node how far the actor has got at the end of an epoch.
    fn tell(&self, epoch: Epoch) {
        let read = self.cursors.values().filter(|cursor| cursor.is_end).count();
        let all = self.cursors.len();
        let before = self.following.of(self.actor).and_then(|followed| followed.through);
        let through = before.or((read == all).then_some(epoch));
        self.following.set(self.actor, Followed { through, vnodes: (read, all), is_known: true });
    }

    fn state_key(&self, vnode: u16) -> StateKey {
        let key = Bytes::copy_from_slice(&vnode.to_be_bytes());
        StateKey { table: self.table, vnode, prefix: key.len(), key }
    }
}

/// The split and the position at which a reader says that it begins, if the rows say that.
fn start(rows: &RecordBatch) -> Option<(SplitId, Sequence)> {
    let [.., split, sequence, ordinal] = rows.columns() else { return None };
    let is_start = rows.num_rows() == 1 && ordinal.as_primitive::<Int32Type>().value(0) == START;
    is_start.then(|| {
        let sequence = sequence.as_primitive::<Int64Type>().value(0).cast_unsigned();
        (SplitId(split.as_string::<i32>().value(0).to_owned()), Sequence(sequence))
    })
}

//! Follows a stored relation: first the rows that it has already, then its changes.
//!
//! This is the driver of [`weir_stream::late`]. At the beginning of an epoch it reads a bounded
//! page of the epoch before out of the slot's snapshot, and moves the cursors of the vnodes that it
//! read. Changes of rows above a cursor are dropped, since a later page brings those rows.
//!
//! The cursors are a state table: the key is the vnode, the value a version, then 1 and the stream
//! key of the last row that was read, or 2 once all were.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use weir_common::catalog::{Column, Relation, RelationName};
use weir_common::ids::{ActorId, Epoch, TableId};
use weir_common::key::{Keys, vnode_of};
use weir_common::plan::{Stream, StreamColumn};
use weir_stream::chunk::Chunk;
use weir_stream::late::{Beginning, Cursor, Late};
use weir_stream::pipeline::{StateKey, StateWrite};

use crate::storage::layout::{self, Wanted};
use crate::storage::row;
use crate::storage::slot::Snapshots;
use crate::storage::state::{self, Part, Snapshot, keys};

/// Rows of one page, at least.
const PAGE_ROWS: usize = 64 << 10;
/// The version of a stored cursor.
const VERSION: u8 = 1;
/// A cursor behind the key that follows, and one behind all rows.
const AT: u8 = 1;
const END: u8 = 2;

/// How far the jobs of a node are that have fragments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Following(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// By the actors that follow relations.
    followed: HashMap<ActorId, Followed>,
    /// The barriers at which jobs of this term began. Their rows are those of a later epoch.
    began: HashMap<TableId, Epoch>,
    /// Jobs that follow relations which are stored in blocks: the relation, then the job.
    blocks: HashSet<(TableId, TableId)>,
}

/// How far one actor has got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Followed {
    /// The first epoch at whose end it has read all rows.
    pub(crate) through: Option<Epoch>,
    /// The vnodes that it has read, and all that it reads.
    pub(crate) vnodes: (usize, usize),
    /// True once it knows how far it was when the term began.
    pub(crate) is_known: bool,
}

impl Following {
    /// How far an actor has got, if it follows a relation on this node.
    pub(crate) fn of(&self, actor: ActorId) -> Option<Followed> {
        self.known().followed.get(&actor).copied()
    }

    /// How many parts of their inputs the jobs of this node have read, and how many there are, as
    /// far as that is known.
    pub(crate) fn parts(&self) -> BTreeMap<TableId, (usize, usize)> {
        let mut parts = BTreeMap::<TableId, (usize, usize)>::new();
        // Until an actor knows its cursors it would seem to have read nothing.
        for (actor, followed) in self.known().followed.iter().filter(|(_, followed)| followed.is_known) {
            let (read, all) = followed.vnodes;
            let sum = parts.entry(actor.fragment.job).or_default();
            *sum = (sum.0 + read, sum.1 + all);
        }
        parts
    }

    /// A job begins at the barrier of an epoch.
    pub(crate) fn begin(&self, job: TableId, epoch: Epoch) {
        self.known().began.insert(job, epoch);
    }

    /// Returns true if a job has worked in an epoch.
    pub(crate) fn has_begun(&self, job: TableId, epoch: Epoch) -> bool {
        self.known().began.get(&job).is_none_or(|began| *began < epoch)
    }

    /// A job begins to follow a relation that is stored in blocks.
    pub(super) fn begin_blocks(&self, job: TableId, relation: TableId) {
        self.known().blocks.insert((relation, job));
    }

    /// A job that was dropped follows nothing any more.
    pub(crate) fn end(&self, job: TableId) {
        self.known().blocks.retain(|(_, follower)| *follower != job);
    }

    /// Returns true if a job follows a relation that is stored in blocks.
    pub(crate) fn is_followed(&self, relation: TableId) -> bool {
        self.known().blocks.iter().any(|(followed, _)| *followed == relation)
    }

    pub(super) fn set(&self, actor: ActorId, followed: Followed) {
        self.known().followed.insert(actor, followed);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason why rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database cannot be read.
    #[error("cannot read the rows of \"{relation}\"")]
    State { relation: RelationName, source: Box<state::Error> },
    /// Stored rows are damaged.
    #[error("cannot understand the rows of \"{relation}\"")]
    Rows { relation: RelationName, source: layout::Error },
    /// A stored cursor is damaged.
    #[error("a stored cursor is damaged")]
    Cursor,
    /// The slot has ended.
    #[error("the slot has ended")]
    Ended,
}

/// An actor's way through a relation.
pub(crate) struct Follow {
    actor: ActorId,
    relation: Arc<Relation>,
    /// The columns that the job reads, by their places among all stored ones.
    columns: Vec<usize>,
    /// Reads all stored columns.
    wanted: Wanted,
    /// The state table of cursors.
    table: u16,
    /// The vnode of all rows, if one actor stores them; else each row has that of its key.
    single: Option<u16>,
    vnodes: Vec<u16>,
    late: Late<Vec<u8>>,
    snapshots: watch::Receiver<Snapshots>,
    following: Following,
    /// The epoch in which the actor works.
    epoch: Epoch,
    /// Rows that the page of this epoch may still have.
    left: usize,
    /// Cursors that moved since the last flush.
    moved: Vec<u16>,
    /// Bounds the pages, if the job has a rate.
    throttle: Option<Throttle>,
}

/// Bounds the rows of pages: so many a second in the long run.
pub(super) struct Throttle {
    rows_per_second: f64,
    /// The rows that may be read now; negative after a page that had more.
    allowed: f64,
    at: Instant,
}

impl Throttle {
    pub(super) fn new(rows_per_second: f64) -> Throttle {
        Throttle { rows_per_second, allowed: 0.0, at: Instant::now() }
    }

    /// Returns the rows that the next page may have.
    pub(super) fn page(&mut self) -> usize {
        let now = Instant::now();
        self.allowed += now.duration_since(self.at).as_secs_f64() * self.rows_per_second;
        // At most one second's rows are saved up.
        self.allowed = self.allowed.min(self.rows_per_second.max(1.0));
        self.at = now;
        let most = u32::try_from(PAGE_ROWS).expect("a page is small");
        // The conversion cuts off fractions of rows.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds of a page")]
        let rows = self.allowed.clamp(0.0, f64::from(most)) as usize;
        rows
    }

    /// A page had rows.
    pub(super) fn read(&mut self, rows: usize) {
        self.allowed -= f64::from(u32::try_from(rows).unwrap_or(u32::MAX));
    }
}

impl Follow {
    /// Follows `relation` in the vnodes of a slot. Unless it is fresh, the cursors are not known
    /// before [`Follow::restore`].
    pub(crate) fn new(
        actor: ActorId,
        relation: Arc<Relation>,
        (columns, table): (Vec<usize>, u16),
        (single, vnodes, is_fresh): (Option<u16>, Vec<u16>, bool),
        (snapshots, following): (watch::Receiver<Snapshots>, Following),
    ) -> Follow {
        let late = Late::new(vnodes.iter().map(|vnode| (*vnode, Cursor::Start)));
        following.set(actor, Followed { through: None, vnodes: (0, vnodes.len()), is_known: is_fresh });
        let (epoch, left, moved, throttle) = (Epoch(0), 0, Vec::new(), None);
        let all: Vec<usize> = (0..relation.columns.len() + relation.hidden.len()).collect();
        let wanted = Wanted::new(Arc::clone(&relation), &all);
        Follow {
            actor,
            relation,
            wanted,
            columns,
            table,
            single,
            vnodes,
            late,
            snapshots,
            following,
            epoch,
            left,
            moved,
            throttle,
        }
    }

    /// Reads so many rows a second at most of those that are there already.
    pub(crate) fn at_rate(self, rows_per_second: Option<f64>) -> Follow {
        Follow { throttle: rows_per_second.map(Throttle::new), ..self }
    }

    /// The stream that it brings. The columns of its key say where rows are.
    ///
    /// # Panics
    /// If the job does not read the relation's key.
    pub(crate) fn stream(&self) -> Stream {
        let column = |place: &usize| {
            let Column { name, ty, .. } = self.relation.column(*place);
            StreamColumn { name: name.clone(), ty: ty.clone() }
        };
        let place = |key: &usize| self.columns.iter().position(|column| column == key).expect("plans read the key");
        let key = self.relation.primary_key.iter().map(place).collect();
        Stream { columns: self.columns.iter().map(column).collect(), key, append_only: false }
    }

    /// The keys of the stored cursors.
    pub(crate) fn cursor_keys(&self) -> Vec<StateKey> {
        self.vnodes.iter().map(|vnode| self.state_key(*vnode)).collect()
    }

    /// Takes up the stored cursors, as the committed `epoch` has them.
    ///
    /// # Errors
    /// If one is damaged.
    pub(crate) fn restore(&mut self, found: &[Option<Bytes>], epoch: Epoch) -> Result<(), Error> {
        for (vnode, stored) in self.vnodes.iter().zip(found) {
            let cursor = match stored.as_deref() {
                None => Cursor::Start,
                Some([VERSION, AT, key @ ..]) => Cursor::At(key.to_vec()),
                Some([VERSION, END]) => Cursor::End,
                Some(_) => return Err(Error::Cursor),
            };
            self.late.moved(*vnode, cursor);
        }
        self.tell(epoch);
        Ok(())
    }

    /// An epoch begins.
    pub(crate) fn begin(&mut self, epoch: Epoch) {
        (self.epoch, self.left) = (epoch, self.throttle.as_mut().map_or(PAGE_ROWS, Throttle::page));
    }

    /// The next part of the page of this epoch; `None` once it is complete.
    ///
    /// # Errors
    /// If the rows cannot be read.
    pub(crate) async fn page(&mut self) -> Result<Option<Chunk>, Error> {
        while self.left > 0 {
            let sealed = self.snapshots.borrow().last_key_value().map(|(epoch, _)| *epoch).ok_or(Error::Ended)?;
            match self.late.begin(self.epoch, sealed) {
                Beginning::Through | Beginning::Skip => return Ok(None),
                Beginning::Wait => self.snapshots.changed().await.map_err(|_| Error::Ended)?,
                Beginning::Page(vnode, cursor) => {
                    let before = Epoch(self.epoch.0 - 1);
                    let snapshot = self.snapshots.borrow().get(&before).cloned().ok_or(Error::Ended)?;
                    let rows = self.read(&snapshot, vnode, &cursor).await?;
                    self.moved.push(vnode);
                    self.left = self.left.saturating_sub(rows.num_rows().max(1));
                    if let Some(throttle) = &mut self.throttle {
                        throttle.read(rows.num_rows());
                    }
                    if rows.num_rows() > 0 {
                        return Ok(Some(self.project(&Chunk::inserts(rows))));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Reads rows of a vnode behind the cursor, and moves it.
    async fn read(&mut self, snapshot: &Snapshot, vnode: u16, cursor: &Cursor<Vec<u8>>) -> Result<RecordBatch, Error> {
        let table = self.relation.id;
        let from = match cursor {
            // The least key above it.
            Cursor::At(key) => [key.as_slice(), &[0]].concat(),
            Cursor::Start | Cursor::End => Vec::new(),
        };
        let part = Part::Range(keys::row_range(table, vnode, &from, None));
        let mut values = snapshot.values_in(table, vec![part]);
        let (mut found, mut is_end) = (Vec::new(), false);
        while found.len() < self.left {
            let more = values.next().await;
            let more =
                more.map_err(|error| Error::State { relation: self.relation.name.clone(), source: Box::new(error) })?;
            match more {
                // The rows that are damaged are found below.
                Some(more) => found.extend(more.into_iter().filter(|entry| row::has_row(entry).unwrap_or(true))),
                None => {
                    is_end = true;
                    break;
                }
            }
        }
        let rows = self.wanted.read_rows(&found);
        let rows = rows.map_err(|source| Error::Rows { relation: self.relation.name.clone(), source })?;
        let next = match rows.num_rows().checked_sub(1) {
            _ if is_end => Cursor::End,
            Some(last) => {
                let mut key = Vec::new();
                Keys::new(&rows, &self.relation.primary_key).write(last, &mut key);
                Cursor::At(key)
            }
            None => cursor.clone(),
        };
        self.late.moved(vnode, next);
        Ok(rows)
    }

    /// The changes that pass, with the columns that the job reads.
    pub(crate) fn pass(&self, chunk: &Chunk) -> Chunk {
        if self.late.is_through() {
            return self.project(chunk);
        }
        let keys = Keys::new(chunk.rows(), &self.relation.primary_key);
        let mut key = Vec::new();
        let mut passes = |row| {
            key.clear();
            keys.write(row, &mut key);
            self.late.passes(self.single.unwrap_or_else(|| vnode_of(&key)), &key)
        };
        let passing: BooleanBuffer = (0..chunk.rows().num_rows()).map(&mut passes).collect();
        let rows = filter_record_batch(chunk.rows(), &passing.clone().into()).expect("a bit for each row");
        let chunk = match chunk.deletes() {
            Some(deletes) => {
                let kept = passing.iter().zip(deletes).filter(|(passes, _)| *passes);
                Chunk::new(rows, kept.map(|(_, deletes)| deletes).collect())
            }
            None => Chunk::inserts(rows),
        };
        self.project(&chunk)
    }

    fn project(&self, chunk: &Chunk) -> Chunk {
        chunk.with_rows(chunk.rows().project(&self.columns).expect("columns of the relation"))
    }

    /// The cursors that moved in the epoch, as state.
    pub(crate) fn take_writes(&mut self) -> Vec<StateWrite> {
        let mut moved = std::mem::take(&mut self.moved);
        moved.sort_unstable();
        moved.dedup();
        let write = |vnode: u16| {
            let value = match self.late.cursor(vnode) {
                Cursor::Start => None,
                Cursor::At(key) => Some([&[VERSION, AT], key.as_slice()].concat().into()),
                Cursor::End => Some(Bytes::from_static(&[VERSION, END])),
            };
            StateWrite { key: self.state_key(vnode), value }
        };
        let writes = moved.into_iter().map(write).collect();
        self.tell(self.epoch);
        writes
    }

    /// Tells observers how far it is at the end of an epoch.
    fn tell(&self, epoch: Epoch) {
        let before = self.following.of(self.actor).unwrap_or_default();
        let read = self.vnodes.iter().filter(|vnode| *self.late.cursor(**vnode) == Cursor::End).count();
        let through = before.through.or(self.late.is_through().then_some(epoch));
        self.following.set(self.actor, Followed { through, vnodes: (read, self.vnodes.len()), is_known: true });
    }

    fn state_key(&self, vnode: u16) -> StateKey {
        let key = Bytes::copy_from_slice(&vnode.to_be_bytes());
        StateKey { table: self.table, vnode, prefix: key.len(), key }
    }
}

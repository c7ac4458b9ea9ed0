//! Stores the rows of a relation by their stream keys, as changes of its slot's database.
//!
//! Changes of a query delete a row before they insert another one under its key, so they are
//! written as they come. Where the view's groups are stored with their rows, a group and its row
//! become one entry at the end of the epoch.
//!
//! Rows of a table are not written blindly: its rule says what becomes of a row whose key is there
//! ([`Conflict`]). The rows that replace others are written as they come too, as long as nobody
//! follows the table. Otherwise the stored rows are read first, and the changes that the new rows
//! make go to those who follow: a delete of the stored row, an insert of the other one, nothing if
//! they are equal.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat_batches, filter_record_batch, interleave, take_record_batch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};
use weir_common::catalog::Relation;
use weir_common::error::{Kind, chain};
use weir_common::key::{Keys, vnode_of};
use weir_common::plan::Conflict;
use weir_common::rpc;
use weir_stream::chunk::Chunk;
use weir_stream::slices::Slices;

use crate::storage::entries::Entries;
use crate::storage::layout::{Error, Wanted};
use crate::storage::row::{Stored, Writer, write_with_group};
use crate::storage::state::keys;

/// The sequence of a row that comes from no message: no replay of a dead letter replaces it.
const NO_MESSAGE: u64 = u64::MAX;
/// An entry that is known takes about this much memory beside its bytes.
const KNOWN_BYTES: usize = 96;

/// Turns changes of a relation's rows into changes of stored entries.
pub(crate) struct Materialize {
    relation: Arc<Relation>,
    conflict: Conflict,
    /// The number of stored columns. A row of a stream has its sequence behind them.
    columns: usize,
    /// The vnode of all rows, if one actor stores them; else each row has that of its key.
    single: Option<u16>,
    /// The changes since the last [`Materialize::take`], in order.
    changes: Entries,
    bytes: usize,
    /// Entries as they are with all changes, by their keys: those that were read or written lately.
    known: HashMap<Bytes, Option<Bytes>>,
    known_bytes: usize,
    /// True as long as all stored rows are known: every other key has none.
    knows_all: bool,
    wanted: Wanted,
}

/// A key that a chunk changes.
struct Touched<'a> {
    key: &'a Bytes,
    /// The place of the stored row among those that were read.
    old: Option<u32>,
    /// The rows that make the new one, the newest last; empty: there is none.
    rows: SmallVec<[Source; 2]>,
    is_changed: bool,
}

/// The origin of values: the stored rows are batch 0, the chunk's rows batch 1.
type Source = (usize, usize);

impl Materialize {
    /// Stores the rows of `relation`, whose columns the changes have. `is_fresh`: there are none
    /// yet.
    pub(crate) fn new(
        relation: &Arc<Relation>,
        conflict: Conflict,
        (single, is_fresh): (Option<u16>, bool),
    ) -> Materialize {
        let columns = relation.columns.len() + relation.hidden.len();
        let wanted = Wanted::new(Arc::clone(relation), &(0..columns).collect::<Vec<_>>());
        Materialize {
            relation: Arc::clone(relation),
            conflict,
            columns,
            single,
            changes: Entries::new(),
            bytes: 0,
            known: HashMap::new(),
            known_bytes: 0,
            knows_all: is_fresh,
            wanted,
        }
    }

    /// Returns true if stored rows decide what becomes of new ones.
    pub(crate) fn reads(&self, is_followed: bool) -> bool {
        match self.conflict {
            Conflict::None => false,
            Conflict::Overwrite => is_followed,
            Conflict::DoNothing | Conflict::UpdateIfNotNull => true,
        }
    }

    /// Takes in changes, whatever is stored.
    pub(crate) fn apply(&mut self, chunk: &Chunk) {
        self.forget();
        let rows = Writer::new(chunk.rows(), self.columns, self.relation.layout());
        let mut values = Slices::default();
        for row in 0..chunk.rows().num_rows() {
            values.push(|out| {
                if !chunk.is_delete(row) {
                    rows.write(row, self.sequence(chunk, row), out);
                }
            });
        }
        for (key, value) in self.keys(chunk).into_iter().zip(values.finish()) {
            // A stored row has at least a version.
            self.change(key, (!value.is_empty()).then_some(value));
        }
    }

    /// The keys of the entries of rows.
    pub(crate) fn keys(&self, chunk: &Chunk) -> Vec<Bytes> {
        let keys = Keys::new(chunk.rows(), &self.relation.primary_key);
        let (mut key, mut stored) = (Vec::new(), Slices::default());
        for row in 0..chunk.rows().num_rows() {
            key.clear();
            keys.write(row, &mut key);
            let vnode = self.single.unwrap_or_else(|| vnode_of(&key));
            stored.push(|out| keys::write_row_key(self.relation.id, vnode, &key, out));
        }
        stored.finish().collect()
    }

    /// The keys whose entries have to be read, once each.
    pub(crate) fn unknown(&self, keys: &[Bytes]) -> Vec<Bytes> {
        if self.knows_all {
            return Vec::new();
        }
        let mut unknown: Vec<Bytes> = keys.iter().filter(|key| !self.known.contains_key(*key)).cloned().collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    /// Takes in entries that were read.
    pub(crate) fn learn(&mut self, keys: &[Bytes], found: &[Option<Bytes>]) {
        for (key, value) in keys.iter().zip(found) {
            self.know(key, value.as_ref());
        }
    }

    /// Takes in rows by the table's rule, and returns the changes that they make. All entries under
    /// their `keys` are known.
    ///
    /// # Errors
    /// If stored rows are damaged.
    ///
    /// # Panics
    /// If an entry is not known.
    pub(crate) fn resolve(&mut self, keys: &[Bytes], chunk: &Chunk) -> Result<Chunk, Error> {
        let (touched, old) = self.touched(keys, chunk);
        let old_rows = self.wanted.read_rows(&old)?;
        let made: Vec<&[Source]> =
            touched.iter().map(|touched| touched.rows.as_slice()).filter(|rows| !rows.is_empty()).collect();
        let new_rows = self.make(&old_rows, chunk.rows(), &made);
        let writer = Writer::new(&new_rows, self.columns, self.relation.layout());
        let mut values = Slices::default();
        for (row, sources) in made.iter().enumerate() {
            let sequence = match sources.last() {
                Some((1, row)) => self.sequence(chunk, *row),
                _ => NO_MESSAGE,
            };
            values.push(|out| writer.write(row, sequence, out));
        }
        let (mut values, mut new) = (values.finish(), 0..);
        let (mut deleted, mut inserted) = (Vec::new(), Vec::new());
        for Touched { key, old: before, rows, .. } in touched {
            let value = (!rows.is_empty()).then(|| values.next().expect("a value for each new row"));
            let place = value.as_ref().and_then(|_| new.next());
            let is_equal = match (before, &value) {
                (Some(before), Some(value)) => {
                    let rows = Stored::parse(&old[before as usize])?.zip(Stored::parse(value)?);
                    rows.is_some_and(|(before, after)| before.has_columns_of(&after))
                }
                (None, None) => true,
                _ => false,
            };
            if !is_equal {
                deleted.extend(before);
                inserted.extend(place);
            }
            self.know(key, value.as_ref());
            self.change(key.clone(), value);
        }
        Ok(changes(&old_rows, deleted, &new_rows, inserted))
    }

    /// Returns the replayed rows that are no older than the stored ones. All entries under their
    /// `keys` are known.
    ///
    /// # Errors
    /// If a stored row is damaged, or has no sequence to compare with.
    pub(crate) fn newer(&self, keys: &[Bytes], rows: &Chunk) -> Result<Chunk, rpc::Error> {
        let is_newer =
            |(row, key): (usize, &Bytes)| is_newer(self.sequence(rows, row), self.stored(key).map(|stored| &**stored));
        let newer = keys.iter().enumerate().map(is_newer).collect::<Result<BooleanArray, _>>()?;
        let rows = filter_record_batch(rows.rows(), &newer).expect("a bit for each row");
        Ok(Chunk::inserts(rows))
    }

    /// The keys that a chunk changes, and the stored rows under them.
    fn touched<'a>(&self, keys: &'a [Bytes], chunk: &Chunk) -> (Vec<Touched<'a>>, Vec<Bytes>) {
        let (mut touched, mut old) = (Vec::<Touched<'a>>::new(), Vec::new());
        let mut places: HashMap<&Bytes, usize> = HashMap::new();
        for (row, key) in keys.iter().enumerate() {
            let place = *places.entry(key).or_insert_with(|| {
                let stored = self.stored(key);
                let place = stored.map(|_| u32::try_from(old.len()).expect("a chunk has fewer rows"));
                let rows = stored.iter().map(|_| (0, old.len())).collect();
                old.extend(stored.cloned());
                touched.push(Touched { key, old: place, rows, is_changed: false });
                touched.len() - 1
            });
            let Touched { rows, is_changed, .. } = &mut touched[place];
            match self.conflict {
                _ if chunk.is_delete(row) => rows.clear(),
                Conflict::DoNothing if !rows.is_empty() => continue,
                Conflict::UpdateIfNotNull => rows.push((1, row)),
                _ => *rows = smallvec![(1, row)],
            }
            *is_changed = true;
        }
        touched.retain(|touched| touched.is_changed);
        (touched, old)
    }

    /// The rows that are made of others: of each column the newest value that is not NULL.
    fn make(&self, old: &RecordBatch, new: &RecordBatch, made: &[&[Source]]) -> RecordBatch {
        let column = |place: usize| -> ArrayRef {
            let columns: [&dyn Array; 2] = [old.column(place), new.column(place)];
            let newest = |sources: &&[Source]| {
                let is_there = |(batch, row): &&Source| !columns[*batch].is_null(*row);
                *sources.iter().rev().find(is_there).or(sources.last()).expect("a row is made of others")
            };
            let sources: Vec<Source> = made.iter().map(newest).collect();
            interleave(&columns, &sources).expect("both have the relation's columns")
        };
        let columns = (0..self.columns).map(column).collect();
        RecordBatch::try_new(old.schema(), columns).expect("the relation's columns")
    }

    fn sequence(&self, chunk: &Chunk, row: usize) -> u64 {
        match (self.conflict, chunk.rows().columns().get(self.columns)) {
            (_, Some(sequences)) => sequences.as_primitive::<Int64Type>().value(row).cast_unsigned(),
            // A row of a view comes from no single message, and no replay asks for it.
            (Conflict::None, None) => 0,
            (_, None) => NO_MESSAGE,
        }
    }

    fn change(&mut self, key: Bytes, value: Option<Bytes>) {
        self.bytes += weight(&key, value.as_ref());
        self.changes.push((key, value));
    }

    /// The entry under a key.
    fn stored(&self, key: &Bytes) -> Option<&Bytes> {
        match self.known.get(key) {
            Some(stored) => stored.as_ref(),
            None if self.knows_all => None,
            None => unreachable!("entries are read before they change"),
        }
    }

    /// Copies the entry, since the keys and values of a chunk share one buffer.
    fn know(&mut self, key: &Bytes, value: Option<&Bytes>) {
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        self.known_bytes += value.map_or(0, Bytes::len);
        match self.known.get_mut(key) {
            Some(known) => {
                self.known_bytes -= known.as_ref().map_or(0, Bytes::len);
                *known = value.map(copy);
            }
            None => {
                self.known_bytes += key.len() + KNOWN_BYTES;
                self.known.insert(copy(key), value.map(copy));
            }
        }
    }

    /// Forgets the entries that it knows.
    pub(crate) fn forget(&mut self) {
        self.known = HashMap::new();
        self.known_bytes = 0;
        self.knows_all = false;
    }

    /// Bytes of the entries that it knows.
    pub(crate) fn known_bytes(&self) -> usize {
        self.known_bytes
    }

    /// Bytes of the changes that were taken in since the last [`Materialize::take`].
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest change of each key, in the order of the keys. `groups`: the changed groups that
    /// are stored with their rows, in the same order; each changed or kept row is of one of them.
    pub(crate) fn take_with(&mut self, groups: Entries) -> Entries {
        let rows = self.take();
        let mut rows = rows.iter().peekable();
        let (mut keys, mut values) = (Vec::with_capacity(groups.len()), Slices::default());
        for (key, group) in groups {
            let row = rows.next_if(|(of, _)| *of == key).and_then(|(_, row)| row.as_deref());
            values.push(|out| {
                if let Some(group) = group {
                    write_with_group(&group, row, out);
                }
            });
            keys.push(key);
        }
        assert!(rows.next().is_none(), "a row that changed is of a group that changed");
        // An entry has at least a version.
        keys.into_iter().zip(values.finish().map(|value| (!value.is_empty()).then_some(value))).collect()
    }

    /// The newest change of each key, in the order of the keys.
    pub(crate) fn take(&mut self) -> Entries {
        self.bytes = 0;
        let mut changes = std::mem::take(&mut self.changes);
        changes.sort_by(|(a, _), (b, _)| a.cmp(b));
        changes.dedup_by(|(later, value), (key, kept)| {
            let is_same = later == key;
            if is_same {
                std::mem::swap(value, kept);
            }
            is_same
        });
        changes
    }
}

/// Returns true if a replayed row replaces the stored one: unless the stored one comes from a later
/// message.
pub(crate) fn is_newer(new: u64, stored: Option<&[u8]>) -> Result<bool, rpc::Error> {
    match stored.map(Stored::parse) {
        None | Some(Ok(None)) => Ok(true),
        Some(Ok(Some(Stored { sequence: Some(stored), .. }))) => Ok(new >= stored),
        Some(Ok(Some(_))) => {
            Err(rpc::Error::new(Kind::User, "rows that an earlier version stored do not say how old they are")
                .with_sqlstate("55000")
                .with_hint("create the table anew: then all of it is read with its columns of now"))
        }
        Some(Err(error)) => Err(rpc::Error::new(error.kind(), chain(&error))),
    }
}

fn weight(key: &Bytes, value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, Bytes::len)
}

/// Deletes of some rows, then inserts of others.
fn changes(old: &RecordBatch, deleted: Vec<u32>, new: &RecordBatch, inserted: Vec<u32>) -> Chunk {
    let deletes = BooleanBuffer::from_iter((0..deleted.len() + inserted.len()).map(|row| row < deleted.len()));
    let part = |rows: &RecordBatch, places| take_record_batch(rows, &UInt32Array::from(places)).expect("rows of it");
    let parts = [part(old, deleted), part(new, inserted)];
    Chunk::new(concat_batches(&old.schema(), &parts).expect("both have the relation's columns"), deletes)
}

#[cfg(test)]
mod tests;

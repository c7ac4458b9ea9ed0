//! Stores the rows of a relation by their stream keys, as changes of its slot's database.

use weir_common::catalog::Relation;
use weir_common::ids::TableId;
use weir_common::key::{Keys, vnode_of};
use weir_stream::chunk::Chunk;
use weir_stream::slices::Slices;

use crate::storage::entries::Entries;
use crate::storage::row::Writer;
use crate::storage::state::keys;

/// Turns changes of a view's rows into changes of stored entries.
#[derive(Debug)]
pub(crate) struct Materialize {
    table: TableId,
    /// The number of the relation's layout.
    layout: u16,
    /// The places of the stream key among the columns.
    key: Vec<usize>,
    columns: usize,
    /// The vnode of all rows, if one actor stores them; else each row has that of its key.
    single: Option<u16>,
    /// The changes since the last [`Materialize::take`], in order.
    changes: Entries,
    bytes: usize,
}

impl Materialize {
    /// Stores the rows of `relation`, whose columns the changes have.
    pub(crate) fn new(relation: &Relation, single: Option<u16>) -> Materialize {
        Materialize {
            table: relation.id,
            layout: relation.layout(),
            key: relation.primary_key.clone(),
            columns: relation.columns.len() + relation.hidden.len(),
            single,
            changes: Entries::new(),
            bytes: 0,
        }
    }

    /// Takes in changes.
    pub(crate) fn apply(&mut self, chunk: &Chunk) {
        let keys = Keys::new(chunk.rows(), &self.key);
        let rows = Writer::new(chunk.rows(), self.columns, self.layout);
        let (mut key, mut stored, mut values) = (Vec::new(), Slices::default(), Slices::default());
        for row in 0..chunk.rows().num_rows() {
            key.clear();
            keys.write(row, &mut key);
            let vnode = self.single.unwrap_or_else(|| vnode_of(&key));
            stored.push(|out| keys::write_row_key(self.table, vnode, &key, out));
            values.push(|out| {
                if !chunk.is_delete(row) {
                    // A row of a view comes from no single message.
                    rows.write(row, 0, out);
                }
            });
        }
        for (key, value) in stored.finish().zip(values.finish()) {
            self.bytes += key.len() + value.len();
            // A stored row has at least a version.
            self.changes.push((key, (!value.is_empty()).then_some(value)));
        }
    }

    /// Bytes of the changes that were taken in since the last [`Materialize::take`].
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
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

//! Stores the rows of a relation by their stream keys, as changes of its slot's database.

use std::collections::HashMap;

use bytes::Bytes;
use weir_common::catalog::Relation;
use weir_common::ids::TableId;
use weir_common::key::{Keys, vnode_of};
use weir_stream::chunk::Chunk;

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
    /// The newest change of each key since the last [`Materialize::take`].
    changes: HashMap<Bytes, Option<Bytes>>,
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
            changes: HashMap::new(),
            bytes: 0,
        }
    }

    /// Takes in changes.
    pub(crate) fn apply(&mut self, chunk: &Chunk) {
        let keys = Keys::new(chunk.rows(), &self.key);
        let rows = Writer::new(chunk.rows(), self.columns, self.layout);
        let (mut key, mut stored) = (Vec::new(), Vec::new());
        for row in 0..chunk.rows().num_rows() {
            key.clear();
            keys.write(row, &mut key);
            stored.clear();
            let vnode = self.single.unwrap_or_else(|| vnode_of(&key));
            keys::write_row_key(self.table, vnode, &key, &mut stored);
            let value = (!chunk.is_delete(row)).then(|| {
                let mut value = Vec::new();
                // A row of a view comes from no single message.
                rows.write(row, 0, &mut value);
                Bytes::from(value)
            });
            self.bytes += stored.len() + value.as_ref().map_or(0, Bytes::len);
            self.changes.insert(Bytes::copy_from_slice(&stored), value);
        }
    }

    /// Bytes of the changes that were taken in since the last [`Materialize::take`].
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes, one a key, in the order of the keys.
    pub(crate) fn take(&mut self) -> Entries {
        self.bytes = 0;
        let mut changes: Entries = self.changes.drain().collect();
        changes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        changes
    }
}

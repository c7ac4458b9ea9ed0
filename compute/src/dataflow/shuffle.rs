//! The shuffle: sends each row of a keyed table to the slot that owns its key's vnode, as an entry
//! of that slot's database.
//!
//! Entries are framed ([`crate::storage::entries`]) and in the order of their keys. If several rows
//! of a batch have one key, only the last is sent, since it replaces the others. Batches keep their
//! order.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use bytes::Bytes;
use weir_common::catalog::Relation;
use weir_common::ids::{TableId, VNODES, VnodeRange};
use weir_common::key::Keys;

use crate::storage::entries;
use crate::storage::row::Writer;
use crate::storage::state::keys;

/// Divides the rows of one table.
pub(crate) struct Shuffle {
    table: TableId,
    /// The number of the table's layout.
    layout: u16,
    /// The places of the primary key's columns.
    primary_key: Vec<usize>,
    columns: usize,
    /// The part that each vnode belongs to.
    parts: [u16; VNODES as usize],
    /// The framed entries that each part has so far.
    open: Vec<Vec<u8>>,
    /// Kept from batch to batch for its memory.
    sorted: Sorted,
}

impl Shuffle {
    /// Creates a shuffle of a relation's rows into one part for each slot. Slots are given by their
    /// vnodes, and together own every vnode.
    pub(crate) fn new(relation: &Relation, slots: impl Iterator<Item = VnodeRange>) -> Shuffle {
        let mut parts = [u16::MAX; VNODES as usize];
        let mut open = Vec::new();
        for (part, vnodes) in (0..).zip(slots) {
            parts[usize::from(vnodes.start)..usize::from(vnodes.end)].fill(part);
            open.push(Vec::new());
        }
        assert!(!parts.contains(&u16::MAX), "every vnode has a slot");
        Shuffle {
            table: relation.id,
            layout: relation.layout(),
            primary_key: relation.primary_key.clone(),
            columns: relation.columns.len(),
            parts,
            open,
            sorted: Sorted::default(),
        }
    }

    /// Divides a batch. Its columns are those of the table, followed by the sequences of the
    /// messages. Returns the number of each part that gets rows, and its framed entries in the
    /// order of their keys.
    pub(crate) fn divide(&mut self, batch: &RecordBatch) -> Vec<(usize, Bytes)> {
        self.sort(batch);
        let rows = Writer::new(batch, self.columns, self.layout);
        let sequences = batch.column(self.columns).as_primitive::<UInt64Type>().values();
        for (place, &row) in self.sorted.order.iter().enumerate() {
            let key = self.sorted.key(row);
            let next = self.sorted.order.get(place + 1);
            if next.is_some_and(|next| self.sorted.key(*next) == key) {
                // The later row replaces this one.
                continue;
            }
            let vnode = self.sorted.vnodes[row as usize];
            let out = &mut self.open[usize::from(self.parts[usize::from(vnode)])];
            entries::frame(
                out,
                |out| keys::write_row_key(self.table, vnode.into(), key, out),
                |out| rows.write(row as usize, sequences[row as usize], out),
            );
        }
        let parts = self.open.iter_mut().enumerate().filter(|(_, out)| !out.is_empty());
        let full = |out: &mut Vec<u8>| {
            // The next batch is likely to be as large.
            let capacity = out.len();
            std::mem::replace(out, Vec::with_capacity(capacity)).into()
        };
        parts.map(|(part, out)| (part, full(out))).collect()
    }

    /// Sorts the rows of a batch by key, and rows of one key by their order in the batch. A slot's
    /// database takes sorted entries with far fewer comparisons and moves.
    fn sort(&mut self, batch: &RecordBatch) {
        let keys = Keys::new(batch, &self.primary_key);
        let rows = batch.num_rows();
        let Sorted { bytes, ends, vnodes, order } = &mut self.sorted;
        bytes.clear();
        ends.clear();
        vnodes.clear();
        let mut starts = [0_u32; VNODES as usize + 1];
        for row in 0..rows {
            let start = bytes.len();
            keys.write(row, bytes);
            let vnode = keys::vnode_of(&bytes[start..]);
            ends.push(bytes.len());
            vnodes.push(u8::try_from(vnode).expect("there are 256 vnodes"));
            starts[usize::from(vnode) + 1] += 1;
        }
        // First by vnode, which takes no comparisons, then each vnode's rows by key.
        for vnode in 1..starts.len() {
            starts[vnode] += starts[vnode - 1];
        }
        let mut next = starts;
        order.clear();
        order.resize(rows, 0);
        for (row, vnode) in (0..).zip(&*vnodes) {
            let place = &mut next[usize::from(*vnode)];
            order[*place as usize] = row;
            *place += 1;
        }
        for vnode in starts.windows(2) {
            order[vnode[0] as usize..vnode[1] as usize]
                .sort_by(|a, b| key_of(bytes, ends, *a).cmp(key_of(bytes, ends, *b)));
        }
    }
}

/// The rows of a batch, sorted by key.
#[derive(Default)]
struct Sorted {
    /// The keys, one behind the other, in the order of the batch.
    bytes: Vec<u8>,
    /// The end of each key.
    ends: Vec<usize>,
    /// The vnode of each key.
    vnodes: Vec<u8>,
    /// The rows in order.
    order: Vec<u32>,
}

impl Sorted {
    fn key(&self, row: u32) -> &[u8] {
        key_of(&self.bytes, &self.ends, row)
    }
}

fn key_of<'a>(bytes: &'a [u8], ends: &[usize], row: u32) -> &'a [u8] {
    let row = row as usize;
    let start = if row == 0 { 0 } else { ends[row - 1] };
    &bytes[start..ends[row]]
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, UInt64Array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use weir_common::catalog::{Column, Origin, RelationKind};
    use weir_common::types::SqlType;

    use super::*;
    use crate::storage::row::{Reader, Stored};

    fn table() -> Relation {
        let column = |name: &str, ty| Column { name: name.to_owned(), ty, origin: Origin::Payload };
        Relation {
            id: TableId(7),
            kind: RelationKind::Table,
            name: "t".to_owned(),
            columns: vec![column("value", SqlType::Varchar), column("id", SqlType::BigInt)],
            hidden: Vec::new(),
            primary_key: vec![1],
            layouts: vec![Vec::new(); 2],
            sql: String::new(),
        }
    }

    fn batch(rows: &[(i64, String)]) -> RecordBatch {
        let columns: [(&str, ArrayRef); 3] = [
            ("value", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.1)))),
            ("id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)))),
            ("_sequence", Arc::new(UInt64Array::from_iter_values(0..rows.len() as u64))),
        ];
        RecordBatch::try_from_iter(columns).expect("columns of one length")
    }

    #[test]
    fn a_damaged_part_is_refused() {
        let slots = VnodeRange::divide(1).into_iter();
        let (_, part) = Shuffle::new(&table(), slots).divide(&batch(&[(1, "a".to_owned())])).remove(0);
        assert!(entries::unframe(part.clone()).is_some());
        for cut in 1..part.len() {
            assert!(entries::unframe(part.slice(..cut)).is_none(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn the_last_row_of_each_key_goes_to_the_owner_of_its_vnode(
            batches in prop::collection::vec(prop::collection::vec((0_i64..50, "[a-z]{0,9}"), 0..40), 1..4),
            parts in 1_usize..9,
        ) {
            let ranges = VnodeRange::divide(parts);
            let mut shuffle = Shuffle::new(&table(), ranges.iter().copied());
            let mut found: Vec<(i64, String)> = Vec::new();
            for rows in &batches {
                let (batch, mut sequences) = (batch(rows), Vec::new());
                for (part, content) in shuffle.divide(&batch) {
                    let mut before = Bytes::new();
                    let mut reader = Reader::new(&batch.project(&[0, 1]).expect("columns").schema(), &[0, 1])?;
                    for (key, row) in entries::unframe(content).expect("framed") {
                        prop_assert_eq!(&key[..4], TableId(7).0.to_be_bytes());
                        prop_assert!(before < key, "entries are sorted");
                        before = key.clone();
                        let vnode = u16::from_be_bytes([key[4], key[5]]);
                        prop_assert_eq!(vnode, keys::vnode_of(&key[6..]));
                        prop_assert!((ranges[part].start..ranges[part].end).contains(&vnode));
                        let row = row.expect("frames carry no delete");
                        let row = Stored::parse(&row)?;
                        prop_assert_eq!(row.layout, 2);
                        sequences.push(row.sequence.expect("it has one"));
                        reader.append(&row)?;
                    }
                    let batch = reader.finish()?;
                    let ids = batch.column(1).as_primitive::<Int64Type>().values();
                    let values = batch.column(0).as_string::<i32>().iter().map(|value| value.expect("no NULL").to_owned());
                    found.extend(ids.iter().copied().zip(values));
                }
                sequences.sort_unstable();
                let last: BTreeMap<i64, u64> = rows.iter().map(|row| row.0).zip(0..).collect();
                let expected: BTreeSet<u64> = last.into_values().collect();
                prop_assert!(sequences.into_iter().eq(expected));
            }
            for id in 0..50 {
                let last = |rows: &Vec<(i64, String)>| rows.iter().rfind(|row| row.0 == id).cloned();
                let expected = batches.iter().filter_map(last);
                prop_assert!(expected.eq(found.iter().filter(|row| row.0 == id).cloned()));
            }
        }
    }
}

//! The division of rows over the slots that own the vnodes of their keys.

use std::fmt;

use arrow::array::RecordBatch;

use super::{Keys, vnode_of};
use crate::ids::{VNODES, VnodeRange};

/// Divides rows over parts, each of which owns some vnodes.
pub struct Division {
    columns: Vec<usize>,
    /// The part that each vnode belongs to.
    owners: Box<[u16; VNODES as usize]>,
    parts: usize,
}

impl Division {
    /// A division by the key in these columns. Parts are given by their vnodes, and together own
    /// every vnode.
    ///
    /// # Panics
    /// If a vnode has no owner.
    pub fn new(columns: Vec<usize>, parts: impl Iterator<Item = VnodeRange>) -> Division {
        let mut owners = Box::new([u16::MAX; VNODES as usize]);
        let mut count = 0;
        for vnodes in parts {
            let part = u16::try_from(count).expect("there are fewer slots");
            owners[usize::from(vnodes.start)..usize::from(vnodes.end)].fill(part);
            count += 1;
        }
        assert!(!owners.contains(&u16::MAX), "every vnode has an owner");
        Division { columns, owners, parts: count }
    }

    /// The rows of each part, in order, by the number of the part. Some may have none.
    pub fn rows(&self, batch: &RecordBatch) -> Vec<Vec<u32>> {
        let mut rows = vec![Vec::new(); self.parts];
        if self.parts == 1 {
            rows[0] = (0..count(batch)).collect();
            return rows;
        }
        let keys = Keys::new(batch, &self.columns);
        let mut key = Vec::new();
        for row in 0..count(batch) {
            key.clear();
            keys.write(row as usize, &mut key);
            rows[usize::from(self.owners[usize::from(vnode_of(&key))])].push(row);
        }
        rows
    }
}

fn count(batch: &RecordBatch) -> u32 {
    u32::try_from(batch.num_rows()).expect("a batch has fewer rows")
}

impl fmt::Debug for Division {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Division").field("columns", &self.columns).field("parts", &self.parts).finish_non_exhaustive()
    }
}

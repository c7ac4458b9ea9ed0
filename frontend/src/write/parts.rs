//! The division of rows over those who own their keys' vnodes.

use datafusion::arrow::array::RecordBatch;
use weir_common::ids::{VNODES, VnodeRange};
use weir_common::key::{Keys, vnode_of};

/// A division of all vnodes into parts.
#[derive(Clone, Debug)]
pub(super) struct Parts(Box<[u16; VNODES as usize]>);

impl Parts {
    /// Parts with these vnodes, in this order.
    ///
    /// # Panics
    /// If there are more parts than vnodes.
    pub(super) fn new(ranges: impl IntoIterator<Item = VnodeRange>) -> Parts {
        let mut parts = Box::new([0; VNODES as usize]);
        for (part, vnodes) in ranges.into_iter().enumerate() {
            let part = u16::try_from(part).expect("a part has a vnode");
            parts[usize::from(vnodes.start)..usize::from(vnodes.end)].fill(part);
        }
        Parts(parts)
    }

    /// Appends each row of a batch to the rows of the part that owns the vnode of its key, which
    /// are these columns. Returns the length of the longest key.
    ///
    /// # Panics
    /// If `rows` has fewer lists than there are parts.
    pub(super) fn divide(&self, batch: &RecordBatch, columns: &[usize], rows: &mut [Vec<u32>]) -> usize {
        let keys = Keys::new(batch, columns);
        let (mut key, mut longest) = (Vec::new(), 0);
        for row in 0..u32::try_from(batch.num_rows()).expect("a batch has fewer rows") {
            key.clear();
            keys.write(row as usize, &mut key);
            longest = longest.max(key.len());
            rows[usize::from(self.0[usize::from(vnode_of(&key))])].push(row);
        }
        longest
    }
}

//! Skips blocks that hold no row of a scan.
//!
//! Invariant: a block is skipped only if its own ranges prove that none of its rows is wanted.

use std::sync::Arc;

use weir_common::catalog::{Column, Relation};
use weir_proto::{ScanRequest, ValueBox, ValueRange};

use crate::storage::block::{self, Values};
use crate::storage::layout;

/// The conditions of a scan on the blocks that it reads.
pub(crate) struct Pruning {
    relation: Arc<Relation>,
    boxes: Vec<ValueBox>,
    /// The first and the last sequence of messages, both included.
    from: i64,
    to: i64,
}

impl Pruning {
    pub(crate) fn new(relation: &Arc<Relation>, request: &ScanRequest) -> Pruning {
        let bound = |sequence: u64| i64::try_from(sequence).unwrap_or(i64::MAX);
        Pruning {
            relation: Arc::clone(relation),
            boxes: request.boxes.clone(),
            from: request.from_sequence.map_or(i64::MIN, bound),
            to: request.to_sequence.map_or(i64::MAX, bound),
        }
    }

    /// Returns false if no row of the block can match.
    ///
    /// # Errors
    /// If the bytes are not a block of the table.
    pub(crate) fn wants(&self, block: &[u8]) -> Result<bool, layout::Error> {
        if self.boxes.is_empty() && (self.from, self.to) == (i64::MIN, i64::MAX) {
            return Ok(true);
        }
        let layout = block::layout(block)?;
        let stored = self.relation.columns_of(layout).ok_or(layout::Error::Unknown { layout })?;
        let ranges: Vec<Values> = block::ranges(block)?.collect();
        // The sequence is the column behind the declared ones.
        let sequences = ranges.iter().find(|range| range.column == stored.len());
        if sequences.is_some_and(|range| range.max < self.from || range.min > self.to) {
            return Ok(false);
        }
        let may_be_in = |found: &ValueBox| found.ranges.iter().all(|range| self.may_have(range, stored, &ranges));
        Ok(self.boxes.is_empty() || self.boxes.iter().any(may_be_in))
    }

    fn may_have(&self, wanted: &ValueRange, stored: &[Column], ranges: &[Values]) -> bool {
        let column = usize::try_from(wanted.column).ok().and_then(|place| self.relation.columns.get(place));
        let Some(column) = column else { return true };
        // A column that was added later is NULL in this block.
        let Some(place) = stored.iter().position(|stored| stored.name == column.name) else { return false };
        let range = ranges.iter().find(|range| range.column == place);
        range.is_none_or(|range| range.min <= wanted.max && wanted.min <= range.max)
    }
}

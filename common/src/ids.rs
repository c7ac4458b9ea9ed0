//! Identifiers: a newtype for each, so that an epoch is never passed for a term.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The interval between two barriers; strictly increasing within a cluster's committed history.
    Epoch(u64)
);
number!(
    /// One reign of one leader over one placement.
    Term(u64)
);
number!(
    /// A table, and the job that fills it. Never reused.
    TableId(u32)
);
number!(
    /// One of a term's parallel places, numbered over the whole cluster from 0.
    SlotId(u32)
);
number!(
    /// A position in a JetStream stream; the first message has 1.
    Sequence(u64)
);

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

/// A term together with the nonce of the attempt that claimed it: what every RPC carries and every path bears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TermId {
    /// The reign.
    pub term: Term,
    /// Random; tells attempts at the same number apart.
    pub nonce: u64,
}

impl fmt::Display for TermId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.term, self.nonce)
    }
}

/// A compute node, from the opening of its control stream to its end; one that reconnects is a new one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub String);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One independently readable part of a source; unique within its table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SplitId(pub String);

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A split of a table: the unit that has a position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableSplit {
    /// The table.
    pub table: TableId,
    /// Which of its splits.
    pub split: SplitId,
}

impl fmt::Display for TableSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.table, self.split)
    }
}

/// How many vnodes there are; fixed for ever, since stored keys contain them.
pub const VNODES: u16 = 256;

/// The vnodes in `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VnodeRange {
    /// The first vnode.
    pub start: u16,
    /// The one after the last.
    pub end: u16,
}

impl VnodeRange {
    /// All vnodes.
    pub const ALL: VnodeRange = VnodeRange { start: 0, end: VNODES };

    /// The vnodes that both ranges hold, if any.
    pub fn intersect(self, other: VnodeRange) -> Option<VnodeRange> {
        let range = VnodeRange { start: self.start.max(other.start), end: self.end.min(other.end) };
        (range.start < range.end).then_some(range)
    }

    /// Cuts all vnodes into `parts` contiguous ranges whose sizes differ by at most one.
    ///
    /// # Panics
    /// If `parts` is 0 or more than there are vnodes.
    pub fn divide(parts: usize) -> Vec<VnodeRange> {
        assert!((1..=usize::from(VNODES)).contains(&parts), "cannot divide 256 vnodes into {parts} ranges");
        let bound = |i: usize| u16::try_from(i * usize::from(VNODES) / parts).expect("at most 256");
        (0..parts).map(|i| VnodeRange { start: bound(i), end: bound(i + 1) }).collect()
    }
}

impl fmt::Display for VnodeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_covers_every_vnode_once() {
        for parts in 1..=256 {
            let ranges = VnodeRange::divide(parts);
            assert_eq!(ranges.len(), parts);
            assert_eq!(ranges[0].start, 0);
            assert_eq!(ranges[parts - 1].end, VNODES);
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(ranges.iter().all(|range| range.start < range.end));
        }
    }

    #[test]
    fn ranges_that_only_touch_do_not_intersect() {
        let low = VnodeRange { start: 0, end: 128 };
        let high = VnodeRange { start: 128, end: 256 };
        assert_eq!(low.intersect(high), None);
        assert_eq!(low.intersect(VnodeRange::ALL), Some(low));
    }
}

//! Identifiers: a newtype for each, so that an epoch is never passed as a term.

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
    /// A relation, the job that fills it, and its stored rows. Dead letters are stored under an id
    /// of their own. Never reused.
    ///
    /// One type for all, because a job fills one relation, and both are created and dropped
    /// together. Keys, positions and catalog entries contain the same number, so two types would
    /// only be converted into each other wherever they meet.
    TableId(u32)
);
number!(
    /// A schema. Its number comes from the counter of [`TableId`]s; `public` is 0. Never reused.
    SchemaId(u32)
);
number!(
    /// One of a term's parallel places, numbered over the whole cluster from 0.
    SlotId(u32)
);
number!(
    /// A running `INSERT`, `UPDATE`, `DELETE` or `COPY`. Never reused.
    StatementId(u64)
);
number!(
    /// The number of a stream among those that a split has read under the same name, counted from
    /// 0. The user decides when the split moves to the next one.
    Incarnation(u16)
);

impl SchemaId {
    /// The schema `public`.
    pub const PUBLIC: SchemaId = SchemaId(0);

    /// True for the schema `public`.
    pub fn is_public(&self) -> bool {
        *self == SchemaId::PUBLIC
    }
}

/// A place in a split. The upper 12 bits are the incarnation of its stream; the lower 52 bits are
/// the place in that stream, counted from 1.
///
/// As one number it orders everything that is read from a split: all messages of an earlier
/// incarnation precede those of a later one. Keys of blocks, ages of rows and positions contain it.
/// Data that was stored before there were incarnations belongs to the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// The number of bits in a [`Sequence`] for the place in the stream.
const IN_STREAM_BITS: u32 = 52;

impl Sequence {
    /// The last place in a stream that can be read. At a million messages a second, it is reached
    /// after 142 years.
    pub const IN_STREAM_MAX: u64 = (1 << IN_STREAM_BITS) - 1;

    /// Creates the sequence of a place in a stream.
    ///
    /// # Panics
    /// If the place or the incarnation is too large.
    pub fn new(incarnation: Incarnation, in_stream: u64) -> Sequence {
        assert!(in_stream <= Sequence::IN_STREAM_MAX, "{in_stream} does not fit into {IN_STREAM_BITS} bits");
        assert!(incarnation <= Incarnation::MAX, "there are no more than {} incarnations", Incarnation::MAX);
        Sequence((u64::from(incarnation.0) << IN_STREAM_BITS) | in_stream)
    }

    /// Returns the incarnation of the stream.
    pub fn incarnation(self) -> Incarnation {
        Incarnation(u16::try_from(self.0 >> IN_STREAM_BITS).expect("12 bits are left"))
    }

    /// Returns the place in that stream.
    pub fn in_stream(self) -> u64 {
        self.0 & Sequence::IN_STREAM_MAX
    }
}

/// The place in the stream, with the incarnation in front of it unless that is the first one.
impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.incarnation() {
            Incarnation(0) => self.in_stream().fmt(f),
            incarnation => write!(f, "{incarnation}:{}", self.in_stream()),
        }
    }
}

impl Incarnation {
    /// The largest incarnation.
    pub const MAX: Incarnation = Incarnation((1 << (u64::BITS - IN_STREAM_BITS)) - 1);
}

impl Epoch {
    /// Returns the epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

/// A term together with the nonce of the attempt that claimed it. Every RPC and every path contains
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TermId {
    /// The reign.
    pub term: Term,
    /// A random number that distinguishes attempts to claim the same term.
    pub nonce: u64,
}

impl fmt::Display for TermId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.term, self.nonce)
    }
}

/// A compute node, from the opening of its control stream to its end. A node that reconnects gets a
/// new id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub String);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One independently readable part of a source; unique within its job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SplitId(pub String);

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A split that a job reads: the unit that has a position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobSplit {
    /// The job.
    pub job: TableId,
    /// The split of that job.
    pub split: SplitId,
}

impl fmt::Display for JobSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.split)
    }
}

/// A piece of a job's plan between two shuffles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FragmentId {
    /// The job.
    pub job: TableId,
    /// Its place in the plan.
    pub index: u16,
}

impl fmt::Display for FragmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.index)
    }
}

/// One parallel instance of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorId {
    /// The fragment.
    pub fragment: FragmentId,
    /// The slot in which it runs, or the number of the split that it reads.
    pub instance: u32,
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.fragment, self.instance)
    }
}

/// The way of changes from one actor to an input of another. Two inputs of one actor may come from
/// the same actor, as in a self join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EdgeId {
    /// The sending actor.
    pub from: ActorId,
    /// The receiving actor.
    pub to: ActorId,
    /// The number of the receiver's input.
    pub input: u16,
}

impl fmt::Display for EdgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}:{}", self.from, self.to, self.input)
    }
}

/// The number of vnodes. It is fixed for ever, because stored keys contain vnodes.
pub const VNODES: u16 = 256;

/// The vnodes in `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VnodeRange {
    /// The first vnode.
    pub start: u16,
    /// The vnode after the last one.
    pub end: u16,
}

impl VnodeRange {
    /// All vnodes.
    pub const ALL: VnodeRange = VnodeRange { start: 0, end: VNODES };

    /// Returns the vnodes that are in both ranges, if any.
    pub fn intersect(self, other: VnodeRange) -> Option<VnodeRange> {
        let range = VnodeRange { start: self.start.max(other.start), end: self.end.min(other.end) };
        (range.start < range.end).then_some(range)
    }

    /// Divides all vnodes into `parts` contiguous ranges whose sizes differ by at most one.
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
    fn a_later_incarnation_comes_after_everything_of_an_earlier_one() {
        let (last, next) = (Sequence(Sequence::IN_STREAM_MAX), Sequence::new(Incarnation(1), 1));
        assert!(last < next);
        assert_eq!((last.incarnation(), last.in_stream()), (Incarnation(0), Sequence::IN_STREAM_MAX));
        assert_eq!((next.incarnation(), next.in_stream()), (Incarnation(1), 1));
        assert_eq!((Sequence(7).to_string(), next.to_string()), ("7".to_owned(), "1:1".to_owned()));
        assert_eq!(Sequence::new(Incarnation::MAX, Sequence::IN_STREAM_MAX), Sequence(u64::MAX));
    }

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

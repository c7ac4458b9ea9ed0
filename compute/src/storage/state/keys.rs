//! Keys of stored entries, with integers in big-endian. A table is one contiguous range of keys,
//! and each of its vnodes a range within it.
//!
//! * A block: `table id (u32) ‖ vnode (u16) ‖ split's length (u16) ‖ split ‖ sequence (u64)`.
//!   Within a split, keys are in the order of the stream. The split's length comes first so that no
//!   split's keys lie between those of another.
//! * A row of a keyed table: `table id (u32) ‖ vnode (u16) ‖ primary key`, as [`weir_common::key`]
//!   writes it. The vnode is that of the key, [`vnode_of`].
//! * State of an operator: `group (u32) ‖ vnode (u16) ‖ job (u32) ‖ table (u16) ‖ hash of the
//!   lookup prefix (u64) ‖ key`. The group is [`STATE`], the same for all jobs. The table is the
//!   place of the operator's table in the job's plan, and the lookup prefix is a prefix of the key.
//!   The first 20 bytes have a filter of their own, so that a lookup skips files without its
//!   prefix. The hash is SipHash-1-3 with a key of zeros.
//!
//! This layout is stored state and never changes. The first four bytes are the SlateDB segment.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use siphasher::sip::SipHasher13;
use slatedb::{PrefixExtractor, PrefixTarget};
use weir_common::ids::{Sequence, SplitId, TableId, VNODES, VnodeRange};
use weir_common::key::successor;
pub use weir_common::key::vnode_of;

use super::Error;

/// The group of the state of all operators. No table has this id.
pub const STATE: TableId = TableId(u32::MAX);
/// The bytes of a state key in front of the operator's key.
pub const STATE_PREFIX: usize = TABLE + VNODE + JOB + PLACE + HASH;

const TABLE: usize = size_of::<u32>();
const VNODE: usize = size_of::<u16>();
const LENGTH: usize = size_of::<u16>();
const SEQUENCE: usize = size_of::<u64>();
const JOB: usize = size_of::<u32>();
const PLACE: usize = size_of::<u16>();
const HASH: usize = size_of::<u64>();

/// The place of a block, which says which rows it holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey {
    /// The table that the rows belong to.
    pub table: TableId,
    /// The vnode of the actor that wrote them; below 256.
    pub vnode: u16,
    /// The split that they were read from.
    pub split: SplitId,
    /// The sequence of the first row.
    pub sequence: Sequence,
}

impl BlockKey {
    /// The stored form.
    ///
    /// # Panics
    /// If the vnode does not exist or the split's name is longer than 65,535 bytes.
    pub fn encode(&self) -> Bytes {
        assert!(self.vnode < VNODES, "there is no vnode {}", self.vnode);
        let split = self.split.0.as_bytes();
        let length = u16::try_from(split.len()).expect("a split's name fits into 65,535 bytes");
        let mut key = BytesMut::with_capacity(TABLE + VNODE + LENGTH + split.len() + SEQUENCE);
        key.put_u32(self.table.0);
        key.put_u16(self.vnode);
        key.put_u16(length);
        key.put_slice(split);
        key.put_u64(self.sequence.0);
        key.freeze()
    }

    /// The reverse of [`BlockKey::encode`].
    ///
    /// # Errors
    /// [`Error::Key`] if the bytes are not a block's key.
    pub fn decode(key: &[u8]) -> Result<BlockKey, Error> {
        Self::parse(key).ok_or_else(|| Error::Key { key: key.iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    fn parse(key: &[u8]) -> Option<BlockKey> {
        let (table, rest) = key.split_first_chunk::<TABLE>()?;
        let (vnode, rest) = rest.split_first_chunk::<VNODE>()?;
        let (length, rest) = rest.split_first_chunk::<LENGTH>()?;
        let (split, sequence) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let vnode = u16::from_be_bytes(*vnode);
        (vnode < VNODES).then_some(())?;
        Some(BlockKey {
            table: TableId(u32::from_be_bytes(*table)),
            vnode,
            split: SplitId(str::from_utf8(split).ok()?.to_owned()),
            sequence: Sequence(u64::from_be_bytes(sequence.try_into().ok()?)),
        })
    }
}

/// Appends the key of a row whose primary key has this vnode.
pub fn write_row_key(table: TableId, vnode: u16, primary_key: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&table.0.to_be_bytes());
    out.extend_from_slice(&vnode.to_be_bytes());
    out.extend_from_slice(primary_key);
}

/// Appends the key of an entry of an operator's state. `table` is the place of its table in the
/// job's plan; `key` begins with the lookup prefix.
pub fn write_state_key(job: TableId, table: u16, vnode: u16, prefix: &[u8], key: &[u8], out: &mut Vec<u8>) {
    debug_assert!(key.starts_with(prefix), "a key begins with its lookup prefix");
    out.reserve(STATE_PREFIX + key.len());
    out.extend_from_slice(&STATE.0.to_be_bytes());
    out.extend_from_slice(&vnode.to_be_bytes());
    out.extend_from_slice(&job.0.to_be_bytes());
    out.extend_from_slice(&table.to_be_bytes());
    out.extend_from_slice(&SipHasher13::new().hash(prefix).to_be_bytes());
    out.extend_from_slice(key);
}

/// The job that an entry is state of; `None` for entries of tables.
#[inline]
pub(super) fn state_job(key: &[u8]) -> Option<TableId> {
    let (group, rest) = key.split_first_chunk::<TABLE>()?;
    if u32::from_be_bytes(*group) != STATE.0 {
        return None;
    }
    rest.get(VNODE..)?.first_chunk::<JOB>().map(|job| TableId(u32::from_be_bytes(*job)))
}

/// The job that an entry is state of, and the table in its plan; `None` for entries of tables.
pub(super) fn state_table(key: &[u8]) -> Option<(TableId, u16)> {
    let job = state_job(key)?;
    let table = key.get(TABLE + VNODE + JOB..)?.first_chunk::<PLACE>()?;
    Some((job, u16::from_be_bytes(*table)))
}

/// The table that an entry belongs to; [`STATE`] for entries of state.
pub(super) fn entry_table(key: &[u8]) -> Option<TableId> {
    key.first_chunk::<TABLE>().map(|table| TableId(u32::from_be_bytes(*table)))
}

/// The keys of all entries of an operator's state that have a lookup prefix.
///
/// # Panics
/// If the vnode does not exist.
pub fn state_range(job: TableId, table: u16, vnode: u16, prefix: &[u8]) -> Range<Bytes> {
    assert!(vnode < VNODES, "there is no vnode {vnode}");
    let mut start = Vec::new();
    write_state_key(job, table, vnode, prefix, prefix, &mut start);
    let end = successor(start.clone()).expect("no vnode is so high that nothing comes behind it");
    Bytes::from(start)..Bytes::from(end)
}

/// The keys of a table's entries of some vnodes.
pub fn range(table: TableId, vnodes: VnodeRange) -> Range<Bytes> {
    segment_range(&segment(table), vnodes)
}

/// The keys of a table's rows of one vnode whose primary keys are in a range. Without an end, the
/// range is open.
pub fn row_range(table: TableId, vnode: u16, from: &[u8], to: Option<&[u8]>) -> Range<Bytes> {
    let bound = |primary_key: &[u8]| {
        let mut key = Vec::with_capacity(TABLE + VNODE + primary_key.len());
        write_row_key(table, vnode, primary_key, &mut key);
        Bytes::from(key)
    };
    let end = match to {
        Some(to) => bound(to),
        None => range(table, VnodeRange { start: vnode, end: vnode + 1 }).end,
    };
    bound(from)..end
}

/// The segment that holds a table's entries: the first bytes of all their keys.
pub(super) fn segment(table: TableId) -> [u8; TABLE] {
    table.0.to_be_bytes()
}

/// The table whose entries a segment holds; `None` if the segment is not a table's.
pub(super) fn segment_table(prefix: &[u8]) -> Option<TableId> {
    prefix.try_into().ok().map(|bytes| TableId(u32::from_be_bytes(bytes)))
}

/// The keys of a segment that belong to some vnodes.
pub(super) fn segment_range(prefix: &[u8], vnodes: VnodeRange) -> Range<Bytes> {
    let bound = |vnode: u16| {
        let mut key = BytesMut::with_capacity(prefix.len() + VNODE);
        key.put_slice(prefix);
        key.put_u16(vnode);
        key.freeze()
    };
    bound(vnodes.start)..bound(vnodes.end)
}

/// Tells SlateDB that a key's segment is its table id. The name is stored in every database.
pub(super) struct TableSegment;

impl PrefixExtractor for TableSegment {
    fn name(&self) -> &str {
        "weir-table"
    }

    fn prefix_len(&self, target: &PrefixTarget) -> Option<usize> {
        let (PrefixTarget::Point(bytes) | PrefixTarget::Prefix(bytes)) = target;
        (bytes.len() >= TABLE).then_some(TABLE)
    }
}

/// Tells SlateDB by which bytes entries are looked up: state by its first 20 bytes, which hold the
/// hash of the lookup prefix, all others by the whole key. The name is stored with filters.
pub(super) struct Lookup;

impl PrefixExtractor for Lookup {
    fn name(&self) -> &str {
        "weir-lookup"
    }

    fn prefix_len(&self, target: &PrefixTarget) -> Option<usize> {
        let (PrefixTarget::Point(bytes) | PrefixTarget::Prefix(bytes)) = target;
        match (state_job(bytes), target) {
            (Some(_), _) => (bytes.len() >= STATE_PREFIX).then_some(STATE_PREFIX),
            (None, PrefixTarget::Point(key)) => Some(key.len()),
            // Longer keys begin with it, too.
            (None, PrefixTarget::Prefix(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(table: u32, vnode: u16, split: &str, sequence: u64) -> BlockKey {
        BlockKey { table: TableId(table), vnode, split: SplitId(split.to_owned()), sequence: Sequence(sequence) }
    }

    fn any_key() -> impl Strategy<Value = BlockKey> {
        (any::<u32>(), 0..VNODES, ".{0,12}", any::<u64>())
            .prop_map(|(table, vnode, split, sequence)| key(table, vnode, &split, sequence))
    }

    #[test]
    fn the_layout_does_not_change() {
        let bytes = key(1, 2, "ab", 3).encode();
        assert_eq!(&bytes[..], b"\0\0\0\x01\0\x02\0\x02ab\0\0\0\0\0\0\0\x03");
    }

    #[test]
    fn the_key_of_a_row_does_not_change() {
        let mut key = Vec::new();
        write_row_key(TableId(1), 2, b"k", &mut key);
        assert_eq!(key, b"\0\0\0\x01\0\x02k");
        assert!(range(TableId(1), VnodeRange { start: 2, end: 3 }).contains(&Bytes::from(key)));
    }

    #[test]
    fn the_key_of_state_does_not_change() {
        let mut key = Vec::new();
        write_state_key(TableId(1), 2, 3, b"ab", b"abc", &mut key);
        assert_eq!(key, b"\xff\xff\xff\xff\0\x03\0\0\0\x01\0\x02\x55\x55\x08\xcb\xc6\xad\xd4\x39abc");
        assert_eq!(segment_table(&key[..4]), Some(STATE));
        assert_eq!((state_job(&key), state_table(&key)), (Some(TableId(1)), Some((TableId(1), 2))));
        assert_eq!((entry_table(&key), state_table(&key[..10])), (Some(STATE), None));
        assert_eq!(state_job(&key[..9]), None);
        assert_eq!(state_job(&key[4..]), None);
    }

    #[test]
    fn a_range_of_state_holds_the_keys_of_its_lookup_prefix() {
        for (prefix, key) in [(&b"ab"[..], &b"abc"[..]), (b"", b""), (b"", b"\xff"), (b"\xff\xff", b"\xff\xff\xff")] {
            let stored = |table, vnode, prefix: &[u8], key: &[u8]| {
                let mut stored = Vec::new();
                write_state_key(TableId(9), table, vnode, prefix, key, &mut stored);
                stored
            };
            let range = state_range(TableId(9), 2, 255, prefix);
            let holds = |key: Vec<u8>| range.contains(&Bytes::from(key));
            assert!(holds(stored(2, 255, prefix, key)));
            assert!(!holds(stored(3, 255, prefix, key)));
            assert!(!holds(stored(2, 254, prefix, key)));
            assert!(!holds(stored(2, 255, b"b", b"bc")));
        }
    }

    #[test]
    fn what_is_no_block_key_is_refused() {
        let good = key(1, 2, "ab", 3).encode();
        for bad in [&good[..0], &good[..7], &good[..good.len() - 1], b"\0\0\0\x01\x01\0\0\0\0\0\0\0\0\0\0\x03"] {
            assert!(matches!(BlockKey::decode(bad), Err(Error::Key { .. })), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_key_survives(key in any_key()) {
            prop_assert_eq!(BlockKey::decode(&key.encode()).expect("a key"), key);
        }

        #[test]
        fn keys_of_a_split_are_in_the_order_of_the_stream(a in any_key(), sequence: u64) {
            let b = BlockKey { sequence: Sequence(sequence), ..a.clone() };
            prop_assert_eq!(a.encode().cmp(&b.encode()), a.sequence.cmp(&b.sequence));
        }

        #[test]
        fn ranges_hold_exactly_the_keys_of_their_vnodes(
            key in any_key(), table: u32, same in any::<bool>(), start in 0..VNODES, width in 1..VNODES,
        ) {
            let table = if same { key.table } else { TableId(table) };
            let vnodes = VnodeRange { start, end: (start + width).min(VNODES) };
            let inside = key.table == table && (vnodes.start..vnodes.end).contains(&key.vnode);
            prop_assert_eq!(range(table, vnodes).contains(&key.encode()), inside);
        }

        #[test]
        fn splits_never_interleave(table: u32, vnode in 0..VNODES, a in ".{0,4}", b in ".{0,4}", n: [u64; 3]) {
            prop_assume!(a != b);
            let (first, last) = (n[0].min(n[1]), n[0].max(n[1]));
            let between = key(table, vnode, &a, first).encode()..=key(table, vnode, &a, last).encode();
            prop_assert!(!between.contains(&key(table, vnode, &b, n[2]).encode()));
        }
    }
}

//! The place where the reading of a split continues, and the mark that identifies its stream.
//!
//! A position is valid only in the stream that it was read from. Another stream may have the same
//! name and even the same creation time (a store that was restored from a backup, or that lost its
//! end), so each position is committed together with an [`Anchor`]. The connector compares anchors;
//! all other code treats them as opaque.

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use serde::{Deserialize, Serialize};
use weir_proto as proto;

use crate::ids::Sequence;

/// A position of a split, and the anchor of the stream that it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The next sequence to read.
    pub next: Sequence,
    /// The anchor of the stream.
    pub anchor: Anchor,
}

/// The mark that distinguishes a stream from others with its name: its creation time, and one
/// message below the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredAnchor", into = "StoredAnchor")]
pub struct Anchor {
    /// The stream's creation time, in nanoseconds since 1970; 0 if it is not known.
    pub created_ns: u64,
    /// The place in the stream of the last message that was read or, at first, of the last message
    /// below the position at which reading began; 0 if there is none.
    pub sequence: u64,
    /// The time at which the server stored that message, in nanoseconds since 1970.
    pub stored_ns: u64,
    /// The latest storage time of all messages that were read; [`u64::MAX`] if it is not known, so
    /// that the anchor must still be found.
    pub newest_ns: u64,
    /// True once the stream of that name was found to be another one. The verdict outlives its
    /// evidence.
    pub parted: bool,
}

/// `created, sequence, stored, newest, parted`: as short as JSON allows, because there is one per
/// split.
type StoredAnchor = (u64, u64, u64, u64, bool);

impl From<StoredAnchor> for Anchor {
    fn from((created_ns, sequence, stored_ns, newest_ns, parted): StoredAnchor) -> Anchor {
        Anchor { created_ns, sequence, stored_ns, newest_ns, parted }
    }
}

impl From<Anchor> for StoredAnchor {
    fn from(Anchor { created_ns, sequence, stored_ns, newest_ns, parted }: Anchor) -> StoredAnchor {
        (created_ns, sequence, stored_ns, newest_ns, parted)
    }
}

impl Default for Anchor {
    fn default() -> Anchor {
        Anchor { created_ns: 0, sequence: 0, stored_ns: 0, newest_ns: u64::MAX, parted: false }
    }
}

impl Anchor {
    /// Creates the anchor of a stream when only its creation time is known, in the server's
    /// notation.
    pub fn created(at: Option<&str>) -> Anchor {
        Anchor { created_ns: at.map_or(0, created_ns), ..Anchor::default() }
    }

    /// Returns true once the message that marks the stream is known, or it is known that there is
    /// none.
    pub fn is_found(&self) -> bool {
        self.newest_ns != u64::MAX
    }

    /// Records that a message was read.
    pub fn read(&mut self, sequence: u64, stored_ns: u64) {
        self.newest_ns = if self.is_found() { self.newest_ns.max(stored_ns) } else { stored_ns };
        (self.sequence, self.stored_ns) = (sequence, stored_ns);
    }
}

impl From<Sequence> for Position {
    fn from(next: Sequence) -> Position {
        Position { next, anchor: Anchor::default() }
    }
}

impl From<Anchor> for proto::Anchor {
    fn from(Anchor { created_ns, sequence, stored_ns, newest_ns, parted }: Anchor) -> proto::Anchor {
        proto::Anchor { created_ns, sequence, stored_ns, newest_ns, parted }
    }
}

impl From<Option<proto::Anchor>> for Anchor {
    fn from(anchor: Option<proto::Anchor>) -> Anchor {
        match anchor {
            Some(proto::Anchor { created_ns, sequence, stored_ns, newest_ns, parted }) => {
                Anchor { created_ns, sequence, stored_ns, newest_ns, parted }
            }
            None => Anchor::default(),
        }
    }
}

/// Parses a stream's creation time into nanoseconds since 1970; 0 if the server's notation is
/// unknown.
pub fn created_ns(notation: &str) -> u64 {
    string_to_timestamp_nanos(notation).ok().and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_time_stays_when_a_clock_is_set_back() {
        let mut anchor = Anchor::created(Some("2026-01-02T03:04:05.123456789Z"));
        assert_eq!(anchor.created_ns, 1_767_323_045_123_456_789);
        assert!(!anchor.is_found());
        anchor.read(4, 1_000);
        anchor.read(5, 900);
        assert_eq!((anchor.sequence, anchor.stored_ns, anchor.newest_ns), (5, 900, 1_000));
        assert!(anchor.is_found());
    }

    #[test]
    fn the_stored_form_does_not_change() {
        let anchor = Anchor { created_ns: 1, sequence: 2, stored_ns: 3, newest_ns: 4, parted: true };
        let stored = serde_json::to_string(&anchor).expect("numbers");
        assert_eq!(stored, "[1,2,3,4,true]");
        assert_eq!(serde_json::from_str::<Anchor>(&stored).expect("just written"), anchor);
    }
}

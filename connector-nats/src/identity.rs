//! Whether a stream is the one that was read before. Pure.
//!
//! Positions mean nothing in another stream of the same name, and reading one by them loses messages: those below the position
//! are passed over, and where acknowledgements delete messages they are acknowledged without having been read. The time of a
//! stream's creation does not tell all of them apart: a store that is restored from a backup, one that lost its end, and a memory
//! stream whose node restarts keep it.
//!
//! Times decide instead. JetStream gives every message the time at which it was stored, in nanoseconds. A message with the sequence and
//! the time of one that was read is that message, so the stream up to there is the one that was read. And everything of the table
//! below the position was read, so a message there that is newer than all that was read was not: it belongs to another stream.
//!
//! Known caveats: on a stream whose clock was set back, new messages can be older than the newest that was read. Where no message below the
//! position is left, a stream counts as the same one; none of its messages is passed over then.

use chrono::{DateTime, SecondsFormat};
use weir_common::ids::Sequence;
use weir_common::position::Anchor;

/// What the server says of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When it was created, in nanoseconds since 1970; 0: not known.
    pub created_ns: u64,
    /// The last sequence that was given.
    pub last_seq: u64,
    /// When the message was stored that has the anchor's sequence, if it is there.
    pub at_anchor: Option<u64>,
    /// The highest of the table's messages below the position, and when it was stored. Looked for only if nothing is at the
    /// anchor.
    pub below: Option<(u64, u64)>,
}

/// A stream is another one than was read before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Another {
    /// How that shows.
    pub why: String,
    /// Whether that is certain at once. An end below the position is not: a leader that was elected just now may not have caught up.
    pub certain: bool,
}

/// Judges whether a stream is the one that was read up to `position`. If it is: its anchor, found now if it was not known.
///
/// # Errors
/// [`Another`] says how it shows that it is not.
pub fn judge(anchor: Anchor, position: Sequence, seen: &Seen) -> Result<Anchor, Another> {
    let another = |why: String| Err(Another { why, certain: true });
    if anchor.created_ns != 0 && seen.created_ns != 0 && anchor.created_ns != seen.created_ns {
        return another(format!("it was created at {}, not at {}", time(seen.created_ns), time(anchor.created_ns)));
    }
    if seen.last_seq + 1 < position.0 {
        let why = format!("it ends at {}, before position {position}", seen.last_seq);
        return Err(Another { why, certain: false });
    }
    let created_ns = if seen.created_ns == 0 { anchor.created_ns } else { seen.created_ns };
    let mut found = Anchor { created_ns, parted: false, ..anchor };
    if !anchor.is_found() {
        let (sequence, stored_ns) = seen.below.unwrap_or_default();
        found = Anchor { sequence, stored_ns, newest_ns: stored_ns, ..found };
    }
    match (seen.at_anchor, seen.below) {
        _ if !anchor.is_found() => {}
        (Some(stored_ns), _) if stored_ns == anchor.stored_ns => return Ok(found),
        (Some(stored_ns), _) => {
            let (now, then) = (time(stored_ns), time(anchor.stored_ns));
            return another(format!(
                "its message {} is of {now}, the one that was read was of {then}",
                anchor.sequence
            ));
        }
        (None, Some((sequence, stored_ns))) if stored_ns > anchor.newest_ns => {
            let (now, then) = (time(stored_ns), time(anchor.newest_ns));
            let why = format!(
                "its message {sequence}, below position {position}, is of {now}, newer than {then}, the newest read"
            );
            return another(why);
        }
        (None, _) => {}
    }
    if anchor.parted {
        return another("it was found to be another one before".to_owned());
    }
    Ok(found)
}

/// Whether a message that lies below the position was not read: everything that was read is as old as the newest, or older.
pub fn is_unread(anchor: &Anchor, stored_ns: u64) -> bool {
    stored_ns > anchor.newest_ns
}

/// As users read it.
fn time(nanos: u64) -> String {
    let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
    DateTime::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of which 1 to 10 were read; message n was stored at 100 n.
    const READ: Anchor = Anchor { created_ns: 5, sequence: 10, stored_ns: 1_000, newest_ns: 1_000, parted: false };
    const PARTED: Anchor = Anchor { parted: true, ..READ };
    /// A clock was set back before 10 was stored.
    const SET_BACK: Anchor = Anchor { stored_ns: 700, ..READ };

    fn seen(created_ns: u64, last_seq: u64, at_anchor: Option<u64>, below: Option<(u64, u64)>) -> Seen {
        Seen { created_ns, last_seq, at_anchor, below }
    }

    #[test]
    fn a_stream_is_known_again_by_a_message_or_by_what_cannot_have_been_read() {
        for (why, anchor, seen, same) in [
            ("it went on", READ, seen(5, 12, Some(1_000), None), true),
            ("nothing was published since", READ, seen(5, 10, Some(1_000), None), true),
            ("created anew", READ, seen(6, 12, Some(1_000), None), false),
            ("its creation is not known", READ, seen(0, 12, Some(1_000), None), true),
            ("the end went back", READ, seen(5, 9, None, None), false),
            ("the end went back and has overtaken", READ, seen(5, 12, Some(2_000), None), false),
            ("so exactly that the ends meet", READ, seen(5, 10, Some(2_000), None), false),
            ("overtaken by older messages", READ, seen(5, 12, Some(900), None), false),
            ("what was read is acknowledged", READ, seen(5, 12, None, None), true),
            ("but for one message", READ, seen(5, 12, None, Some((4, 400))), true),
            ("acknowledged, went back, has overtaken", READ, seen(5, 12, None, Some((8, 1_001))), false),
            ("a clock was set back", SET_BACK, seen(5, 12, Some(700), None), true),
            ("a clock was set back, read messages are left", SET_BACK, seen(5, 12, None, Some((9, 1_000))), true),
            ("the verdict stays", PARTED, seen(5, 12, None, None), false),
            ("the stream is back", PARTED, seen(5, 12, Some(1_000), None), true),
        ] {
            let judged = judge(anchor, Sequence(11), &seen);
            let expected = Anchor { parted: false, ..anchor };
            assert_eq!(judged.clone().ok(), same.then_some(expected), "{why}: {judged:?}");
        }
    }

    #[test]
    fn an_anchor_that_is_not_known_is_found_below_the_position() {
        let unknown = Anchor::default();
        let found = judge(unknown, Sequence(11), &seen(5, 12, None, Some((9, 900)))).expect("it is taken as it is");
        assert_eq!(found, Anchor { created_ns: 5, sequence: 9, stored_ns: 900, newest_ns: 900, parted: false });
        let found = judge(unknown, Sequence(11), &seen(5, 12, None, None)).expect("it is taken as it is");
        assert_eq!(found, Anchor { created_ns: 5, sequence: 0, stored_ns: 0, newest_ns: 0, parted: false });
        assert!(is_unread(&found, 1), "nothing lay below the position");
        assert!(!is_unread(&unknown, 1), "nothing is known");
    }
}

//! Reasons why a Protobuf message cannot be read.

use arrow::datatypes::i256;

use super::super::bad_record::{BadRecord, RECORD_BYTES_MAX};
use super::super::cell::{Arena, Cell, Node};
use super::wire::Malformed;

/// The reason why a message cannot be read.
pub(super) enum Fault {
    Malformed(Malformed),
    /// A field is not UTF-8, or has another wire type.
    Field {
        name: String,
        reason: &'static str,
        at: usize,
    },
    /// A value does not fit its column. The path has the names of the fields that lead to it,
    /// innermost first.
    Value {
        path: Vec<String>,
        reason: String,
    },
    TooLarge,
}

impl Fault {
    /// The same fault, met inside a field.
    pub(super) fn within(self, field: &str) -> Fault {
        match self {
            Fault::Value { mut path, reason } => {
                path.push(field.to_owned());
                Fault::Value { path, reason }
            }
            other => other,
        }
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Fault {
        Fault::Malformed(malformed)
    }
}

impl From<Fault> for BadRecord {
    fn from(fault: Fault) -> BadRecord {
        match fault {
            Fault::Malformed(Malformed { reason, at }) => BadRecord::Wire { reason: reason.to_owned(), at },
            Fault::Field { name, reason, at } => BadRecord::Wire { reason: format!("field \"{name}\": {reason}"), at },
            Fault::Value { mut path, reason } => {
                path.reverse();
                BadRecord::Field { path: path.join("."), reason }
            }
            Fault::TooLarge => BadRecord::TooLarge,
        }
    }
}

/// Checks that there is room for this many cells beside the other data.
#[inline]
pub(super) fn check_room(cells: usize, arena: &Arena) -> Result<(), Fault> {
    // A decimal beside its cell is the most that a few bytes of payload can grow to.
    const CELL: usize = size_of::<Cell>() + size_of::<i256>();
    let nodes = arena.nodes.len().saturating_mul(size_of::<Node>() + CELL);
    let bytes = cells.saturating_mul(CELL).saturating_add(nodes).saturating_add(arena.text.len());
    if bytes > RECORD_BYTES_MAX { Err(Fault::TooLarge) } else { Ok(()) }
}

//! The head: the one record whose replacement commits an epoch. All durable state is reachable from
//! it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Epoch, SlotId, TermId, VnodeRange};

/// The committed state. It has one key in the metadata store and changes only by compare-and-swap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The newest claim. It may be newer than the term that committed `epoch`.
    pub term: TermId,
    /// The newest committed epoch; 0 before the first commit.
    pub epoch: Epoch,
    /// The committed state of all slots. Together they cover every vnode once, or there is no slot
    /// yet.
    pub slots: Vec<SlotState>,
    /// Keys of the pages that together hold every committed position.
    pub positions: Vec<String>,
}

/// The committed state of a range of vnodes: a checkpoint of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotState {
    /// The slot that wrote it, in the term that wrote it.
    pub slot: SlotId,
    /// The vnodes it holds.
    pub vnodes: VnodeRange,
    /// The database, relative to the state URL.
    pub path: String,
    /// The checkpoint of that database.
    pub checkpoint: Uuid,
}

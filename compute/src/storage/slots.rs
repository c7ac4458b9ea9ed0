//! The slots that a node runs in a term.

use std::collections::BTreeMap;

use weir_common::error::Kind;
use weir_common::ids::{SlotId, TermId};
use weir_common::rpc;

use super::slot::Handle;

/// The slots of this node in the running term.
pub(crate) struct Slots {
    pub(crate) term: TermId,
    pub(crate) handles: BTreeMap<SlotId, Handle>,
}

impl Slots {
    /// A slot of this node.
    ///
    /// # Errors
    /// If the slot runs on another node.
    pub(crate) fn get(&self, id: SlotId) -> Result<&Handle, rpc::Error> {
        self.handles.get(&id).ok_or_else(|| rpc::Error::new(Kind::Fenced, format!("no slot {id} here")))
    }
}

/// Refuses a request of a term that does not run on this node.
pub(crate) fn not_running(term: TermId) -> rpc::Error {
    rpc::Error::new(Kind::Fenced, format!("term {term} does not run on this node"))
}

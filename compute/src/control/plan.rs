//! What a node is told to run in a term.

use std::sync::Arc;

use uuid::Uuid;
use weir_common::catalog::Table;
use weir_common::ids::{Epoch, SlotId, TableId, TableSplit, TermId, VnodeRange};
use weir_common::position::Position;
use weir_common::telemetry::trace::TraceParent;

/// A node's part of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The term.
    pub term: TermId,
    /// The committed epoch it starts from.
    pub epoch: Epoch,
    /// The node's slots.
    pub slots: Vec<SlotPlan>,
    /// Every table of the catalog.
    pub tables: Vec<Arc<Table>>,
    /// The splits of every running table. The node reads those whose slot is its own.
    pub splits: Vec<SplitPlan>,
    /// Every slot of the term, in the order of their vnodes, and where it runs.
    pub routes: Vec<Route>,
}

/// Where a slot is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The slot.
    pub slot: SlotId,
    /// Its vnodes.
    pub vnodes: VnodeRange,
    /// Its node, as host:port.
    pub address: String,
}

/// A slot to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotPlan {
    /// Its number.
    pub slot: SlotId,
    /// Its vnodes.
    pub vnodes: VnodeRange,
    /// Where its new database lives.
    pub path: String,
    /// What that is a clone of; empty: new.
    pub sources: Vec<SourcePlan>,
}

/// A committed checkpoint, or the part of it that a slot takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// The database.
    pub path: String,
    /// Its checkpoint.
    pub checkpoint: Uuid,
    /// The vnodes to take.
    pub vnodes: VnodeRange,
}

/// A split, the slot whose node reads it, and where reading begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitPlan {
    /// The split.
    pub split: TableSplit,
    /// The slot that its actor runs beside. It takes all rows, unless the table is keyed: then each slot takes those of
    /// its vnodes.
    pub slot: SlotId,
    /// Where reading begins.
    pub position: Position,
}

impl SplitPlan {
    /// What is read for it: the split of its table, or of the source of its view.
    pub fn read(&self, table: &Table) -> TableSplit {
        TableSplit { table: table.read(), split: self.split.split.clone() }
    }

    /// Whether its actor writes to a slot, so that the slot's epochs end with the actor's barriers.
    pub fn writes_to(&self, slot: SlotId, table: &Table) -> bool {
        table.declared.is_keyed() || self.slot == slot
    }
}

/// A change of what runs, carried by a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The job of a table starts; with all its splits.
    Add(Arc<Table>, Vec<SplitPlan>),
    /// The job of a table stops and its state is forgotten.
    Drop(TableId),
}

/// A barrier as it arrives at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The term.
    pub term: TermId,
    /// The epoch it ends.
    pub epoch: Epoch,
    /// Snapshots of sealed epochs below this one may be dropped.
    pub lowest_pinned: Epoch,
    /// What changes.
    pub mutation: Option<Mutation>,
    /// The span of meta's that it is part of.
    pub trace: TraceParent,
}

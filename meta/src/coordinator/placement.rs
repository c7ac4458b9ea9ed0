//! Placement: divides slots, vnodes, clone sources and splits over the nodes. Pure and
//! deterministic, so that a leader and its successor, given the same nodes, decide alike.
//!
//! Invariant: the slots of a placement cover every vnode exactly once, in order, and every split has
//! one slot. A source's split has the same slot for all views over it, since they share its reader.

use std::collections::BTreeMap;

use weir_common::catalog::{Entry, Graph, SplitStart};
use weir_common::head::Head;
use weir_common::ids::{JobSplit, NodeId, SlotId, TableId, TermId, VnodeRange};
use weir_common::position::Position;

use super::Positions;

/// A slot of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number within the term.
    pub id: SlotId,
    /// The node that runs it.
    pub node: NodeId,
    /// Its vnodes.
    pub vnodes: VnodeRange,
    /// Its database, relative to the state URL; bears the term, so it was never used before.
    pub path: String,
    /// What the database is cloned from; empty: a new database.
    pub sources: Vec<CloneSource>,
}

/// A committed checkpoint, or the part of it that a slot takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneSource {
    /// The database.
    pub path: String,
    /// Its checkpoint.
    pub checkpoint: uuid::Uuid,
    /// The vnodes to take.
    pub vnodes: VnodeRange,
}

/// A split, the slot that reads it, and where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedSplit {
    /// The split.
    pub split: JobSplit,
    /// The slot whose actor reads it.
    pub slot: SlotId,
    /// Where reading begins.
    pub position: Position,
}

/// Everything a term runs, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// In the order of their vnodes.
    pub slots: Vec<Slot>,
    /// Every split of every running job.
    pub splits: Vec<AssignedSplit>,
}

impl Placement {
    /// Places all state and all splits on `nodes` (node and number of slots), which must not be empty.
    ///
    /// Slots are numbered through the nodes in turn, so that a few splits spread over nodes before they share one.
    pub fn new(
        term: TermId,
        prefix: &str,
        nodes: &BTreeMap<NodeId, usize>,
        head: &Head,
        catalog: &Graph,
        positions: &Positions,
    ) -> Placement {
        let owners = interleave(nodes);
        let ranges = VnodeRange::divide(owners.len());
        let slots = owners
            .into_iter()
            .zip(ranges)
            .zip(0..)
            .map(|((node, vnodes), number)| Slot {
                id: SlotId(number),
                node,
                vnodes,
                path: format!("{prefix}/{term}/{number}"),
                sources: sources(head, vnodes),
            })
            .collect();
        let mut placement = Placement { slots, splits: Vec::new() };
        for entry in catalog.entries() {
            placement.add(entry, catalog, positions);
        }
        placement
    }

    /// Adds the splits of a job if it runs, and returns them. A split goes to the slot that already
    /// reads it for another job, else to the slot that reads the fewest.
    pub fn add(&mut self, entry: &Entry, catalog: &Graph, positions: &Positions) -> Vec<AssignedSplit> {
        let job = &entry.job;
        let mut added = Vec::new();
        let splits = if catalog.runs(entry) { job.splits.as_slice() } else { &[] };
        for start in splits {
            let split = JobSplit { job: job.id, split: start.split.clone() };
            let position = begins(start, positions.get(&split));
            let read = job.read(&start.split);
            let shares = |other: &&AssignedSplit| {
                catalog.get(other.split.job).is_some_and(|entry| entry.job.read(&other.split.split) == read)
            };
            let slot = self.splits.iter().find(shares).map_or_else(|| self.idlest(), |other| other.slot);
            let assigned = AssignedSplit { split, slot, position };
            self.splits.push(assigned.clone());
            added.push(assigned);
        }
        added
    }

    /// Forgets the splits of a job.
    pub fn remove(&mut self, job: TableId) {
        self.splits.retain(|assigned| assigned.split.job != job);
    }

    /// The slots of a node.
    pub fn slots_of<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a Slot> {
        self.slots.iter().filter(move |slot| slot.node == *node)
    }

    /// The splits that a node reads.
    pub fn splits_of<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a AssignedSplit> {
        self.splits.iter().filter(move |assigned| self.node_of(assigned.slot) == node)
    }

    /// The node that runs a slot.
    pub fn node_of(&self, slot: SlotId) -> &NodeId {
        &self
            .slots
            .iter()
            .find(|candidate| candidate.id == slot)
            .expect("a split is assigned to a slot that exists")
            .node
    }

    fn idlest(&self) -> SlotId {
        let load = |slot: &Slot| self.splits.iter().filter(|assigned| assigned.slot == slot.id).count();
        self.slots.iter().min_by_key(|slot| (load(slot), slot.id)).expect("a placement has slots").id
    }
}

/// Where reading of a split begins: at what is committed, of the stream that it was created of if no anchor was committed with it.
fn begins(start: &SplitStart, committed: Option<Position>) -> Position {
    let Some(mut position) = committed else { return start.position() };
    if position.anchor.created_ns == 0 {
        position.anchor.created_ns = start.position().anchor.created_ns;
    }
    position
}

/// The owners of slots 0, 1, 2, …: a slot of each node in turn while it has any left.
fn interleave(nodes: &BTreeMap<NodeId, usize>) -> Vec<NodeId> {
    let rounds = nodes.values().copied().max().unwrap_or(0);
    let owners: Vec<NodeId> = (0..rounds)
        .flat_map(|round| nodes.iter().filter(move |(_, slots)| **slots > round).map(|(node, _)| node.clone()))
        .collect();
    assert!(!owners.is_empty(), "a placement needs a node");
    owners.into_iter().take(usize::from(weir_common::ids::VNODES)).collect()
}

fn sources(head: &Head, vnodes: VnodeRange) -> Vec<CloneSource> {
    let overlap = |state: &weir_common::head::SlotState| {
        let vnodes = state.vnodes.intersect(vnodes)?;
        Some(CloneSource { path: state.path.clone(), checkpoint: state.checkpoint, vnodes })
    };
    head.slots.iter().filter_map(overlap).collect()
}

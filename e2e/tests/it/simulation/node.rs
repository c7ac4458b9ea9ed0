//! A compute node of the simulation: the real node core and the real sealers, over models of databases and readers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;
use weir_common::ids::{Epoch, NodeId, SlotId, TableSplit, TermId, VnodeRange};
use weir_compute::node::plan::{Barrier, Mutation, Plan, SplitPlan};
use weir_compute::node::state::{Action, Event, Message, Node, SlotEpoch};
use weir_compute::seal::{Change, Sealer};

use super::model::{Databases, Row, Stream};

/// A process, from start to crash.
pub(super) struct Process {
    pub(super) id: NodeId,
    core: Node,
    /// The index of the leader that its control stream leads to.
    pub(super) leader: Option<usize>,
    /// What meta sent and was not delivered yet.
    pub(super) inbox: VecDeque<Event>,
    /// What it sent and was not delivered yet.
    pub(super) outbox: VecDeque<Message>,
    opening: Option<Plan>,
    term: Option<Term>,
    /// Checkpoints that are not durable yet.
    uploads: Vec<Upload>,
}

struct Upload {
    term: TermId,
    path: String,
    rows: BTreeSet<Row>,
    epoch: SlotEpoch,
}

struct Term {
    id: TermId,
    slots: BTreeMap<SlotId, Slot>,
    actors: BTreeMap<TableSplit, Actor>,
}

struct Slot {
    vnodes: VnodeRange,
    path: String,
    rows: BTreeSet<Row>,
    sealer: Sealer<Row>,
    snapshots: BTreeMap<Epoch, BTreeSet<Row>>,
    checkpoints: Vec<(Epoch, Uuid)>,
}

struct Actor {
    slot: SlotId,
    position: u64,
    epoch: Epoch,
    /// Barriers that it has not come to yet; the flag: it is the last.
    barriers: VecDeque<(Epoch, bool)>,
    /// Positions at barriers that are not committed yet.
    delivered: VecDeque<(Epoch, u64)>,
}

impl Process {
    pub(super) fn new(id: NodeId) -> Process {
        Process {
            id,
            core: Node::default(),
            leader: None,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            opening: None,
            term: None,
            uploads: Vec::new(),
        }
    }

    /// Delivers one message of meta. Returns positions that are acknowledged.
    pub(super) fn deliver(&mut self, databases: &mut Databases) -> Vec<(TableSplit, u64)> {
        match self.inbox.pop_front() {
            Some(event) => self.apply(event, databases),
            None => Vec::new(),
        }
    }

    pub(super) fn disconnect(&mut self, databases: &mut Databases) {
        self.leader = None;
        self.inbox.clear();
        self.outbox.clear();
        self.apply(Event::Disconnected, databases);
    }

    fn apply(&mut self, event: Event, databases: &mut Databases) -> Vec<(TableSplit, u64)> {
        let mut acknowledged = Vec::new();
        for action in self.core.apply(event) {
            match action {
                Action::Open(plan) => self.opening = Some(plan),
                Action::Close(id) => {
                    self.opening.take_if(|plan| plan.term == id);
                    self.term.take_if(|term| term.id == id);
                }
                Action::Inject(barrier) => self.term.as_mut().expect("a term that is open").inject(&barrier),
                Action::Acknowledge(epoch) => {
                    acknowledged = self.term.as_mut().expect("a term that is open").committed(epoch, databases);
                }
                Action::Send(message) => self.outbox.push_back(message),
            }
        }
        acknowledged
    }

    /// Finishes opening a term. `current`: the term of the head, whose sources must exist.
    pub(super) fn open(&mut self, databases: &mut Databases, current: TermId) {
        let Some(plan) = self.opening.take() else { return };
        let id = plan.term;
        let mut slots = BTreeMap::new();
        for slot in &plan.slots {
            let sources = slot.sources.iter();
            let sources: Vec<_> =
                sources.map(|source| (source.path.clone(), source.checkpoint, source.vnodes)).collect();
            let Some(rows) = databases.open(&slot.path, &sources) else {
                assert_ne!(id, current, "a checkpoint that the present term is made of is gone");
                self.apply(Event::Opened(id, Err("no such checkpoint".to_owned())), databases);
                return;
            };
            let actors = plan.splits.iter().filter(|split| split.slot == slot.slot).map(|split| split.split.clone());
            slots.insert(
                slot.slot,
                Slot {
                    vnodes: slot.vnodes,
                    path: slot.path.clone(),
                    snapshots: BTreeMap::from([(plan.epoch, rows.clone())]),
                    rows,
                    sealer: Sealer::new(plan.epoch, actors),
                    checkpoints: Vec::new(),
                },
            );
        }
        let mut term = Term { id, slots, actors: BTreeMap::new() };
        for split in &plan.splits {
            term.start_actor(split, plan.epoch);
        }
        self.term = Some(term);
        self.apply(Event::Opened(id, Ok(())), databases);
    }

    /// Lets some actor of the node go on: by a barrier that waits for it, or by reading one message.
    pub(super) fn step(&mut self, choice: usize, prefer_barrier: bool, streams: &BTreeMap<TableSplit, Stream>) {
        let Some(term) = &mut self.term else { return };
        let count = term.actors.len().max(1);
        let Some((split, actor)) = term.actors.iter_mut().nth(choice % count) else { return };
        let split = split.clone();
        let slot = term.slots.get_mut(&actor.slot).expect("an actor's slot");
        if (prefer_barrier || actor.position > streams[&split].last)
            && let Some((epoch, last)) = actor.barriers.pop_front()
        {
            slot.sealer.barrier(&split, epoch, weir_common::ids::Sequence(actor.position));
            actor.delivered.push_back((epoch, actor.position));
            actor.epoch = epoch.next();
            if last {
                term.actors.remove(&split);
            }
        } else if actor.position <= streams[&split].last {
            let width = u64::from(slot.vnodes.end - slot.vnodes.start);
            let vnode = slot.vnodes.start + u16::try_from(actor.epoch.0 % width).expect("less than 256");
            let row = Row { vnode, split: split.clone(), sequence: actor.position };
            actor.position += 1;
            if let Some(row) = slot.sealer.write(&split, row) {
                assert!(slot.rows.insert(row), "a row is written once");
            }
        }
        self.seal();
    }

    /// Seals what can be sealed; the checkpoints are not durable yet.
    pub(super) fn seal(&mut self) {
        let Some(term) = &mut self.term else { return };
        for (id, slot) in &mut term.slots {
            while let Some(seal) = slot.sealer.seal() {
                slot.snapshots.insert(seal.epoch, slot.rows.clone());
                let checkpoint = Uuid::from_u128(
                    (u128::from(term.id.nonce) << 64) | u128::from(seal.epoch.0 << 8 | u64::from(id.0)),
                );
                slot.checkpoints.push((seal.epoch, checkpoint));
                self.uploads.push(Upload {
                    term: term.id,
                    path: slot.path.clone(),
                    rows: slot.rows.clone(),
                    epoch: SlotEpoch { slot: *id, epoch: seal.epoch, checkpoint, positions: seal.positions },
                });
                for row in slot.sealer.sealed() {
                    assert!(slot.rows.insert(row), "a row is written once");
                }
            }
        }
    }

    /// One of the checkpoints under way becomes durable.
    pub(super) fn upload(&mut self, choice: usize, databases: &mut Databases) {
        if self.uploads.is_empty() {
            return;
        }
        let upload = self.uploads.swap_remove(choice % self.uploads.len());
        databases.add(&upload.path, upload.epoch.checkpoint, upload.rows);
        self.apply(Event::SlotDurable(upload.term, upload.epoch), databases);
    }

    /// What a scan of a slot at an epoch of a term finds; none: refused.
    pub(super) fn scan(&self, term: TermId, slot: SlotId, epoch: Epoch) -> Option<&BTreeSet<Row>> {
        self.term.as_ref().filter(|open| open.id == term)?.slots.get(&slot)?.snapshots.get(&epoch)
    }
}

impl Term {
    fn start_actor(&mut self, split: &SplitPlan, epoch: Epoch) {
        let actor = Actor {
            slot: split.slot,
            position: split.sequence.0,
            epoch: epoch.next(),
            barriers: VecDeque::new(),
            delivered: VecDeque::new(),
        };
        self.actors.insert(split.split.clone(), actor);
    }

    fn inject(&mut self, barrier: &Barrier) {
        let dropped = match &barrier.mutation {
            Some(Mutation::Drop(table)) => Some(*table),
            _ => None,
        };
        let added: &[SplitPlan] = match &barrier.mutation {
            Some(Mutation::Add(_, splits)) => splits,
            _ => &[],
        };
        for (id, slot) in &mut self.slots {
            let mine = self.actors.iter().filter(|(split, actor)| actor.slot == *id && Some(split.table) == dropped);
            let change = Change {
                add: added.iter().filter(|split| split.slot == *id).map(|split| split.split.clone()).collect(),
                remove: mine.map(|(split, _)| split.clone()).collect(),
            };
            slot.sealer.inject(barrier.epoch, change);
            slot.snapshots.retain(|epoch, _| *epoch >= barrier.lowest_pinned);
        }
        for (split, actor) in &mut self.actors {
            actor.barriers.push_back((barrier.epoch, Some(split.table) == dropped));
        }
        for split in added {
            self.start_actor(split, barrier.epoch);
        }
    }

    /// Acknowledges, and deletes the checkpoints that only older epochs needed.
    fn committed(&mut self, epoch: Epoch, databases: &mut Databases) -> Vec<(TableSplit, u64)> {
        let mut acknowledged = Vec::new();
        for (split, actor) in &mut self.actors {
            while let Some((_, position)) = actor.delivered.pop_front_if(|(delivered, _)| *delivered <= epoch) {
                acknowledged.push((split.clone(), position));
            }
        }
        for slot in self.slots.values_mut() {
            let (stale, kept) = slot.checkpoints.iter().partition(|(sealed, _)| *sealed < epoch);
            slot.checkpoints = kept;
            let stale: Vec<(Epoch, Uuid)> = stale;
            for (_, checkpoint) in stale {
                databases.remove(&slot.path, checkpoint);
            }
        }
        acknowledged
    }
}

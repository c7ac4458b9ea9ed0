//! A compute node of the simulation: the real node core and the real sealers, over models of databases, readers and
//! the exchange.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;
use weir_common::catalog::{Entry, OnError};
use weir_common::ids::{
    ActorId, Epoch, FragmentId, JobSplit, NodeId, Sequence, SlotId, StatementId, TableId, TermId, VnodeRange,
};
use weir_common::position::Position;
use weir_compute::control::event::{Action, Event, Message, SlotEpoch};
use weir_compute::control::plan::{Barrier, Mutation, Plan, Route, SplitPlan, Writer};
use weir_compute::control::state::Node;
use weir_compute::storage::seal::{Change, Sealer};
use weir_meta::coordinator::event::Time;

use super::model::{Databases, Key, Rows, Stream, key_of, row_of, vnode_of};

/// A process, from start to crash.
pub(super) struct Process {
    /// Of its present control stream.
    pub(super) id: NodeId,
    pub(super) address: String,
    /// It does nothing until then, like a process that is stopped.
    pub(super) stopped_until: Time,
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
    rows: Rows,
    epoch: SlotEpoch,
}

/// The rows and barriers of keyed tables on their way from readers to slots of other nodes: in
/// order from each reader to each slot, and however late.
pub(super) type Exchange = BTreeMap<(TermId, SlotId, JobSplit), VecDeque<Item>>;

/// A message of the reader of a keyed table's split to a slot.
pub(super) enum Item {
    Write(Write),
    Barrier(Epoch),
}

/// A row, and the message that it was read from.
type Write = (Key, u64);

struct Term {
    id: TermId,
    slots: BTreeMap<SlotId, Slot>,
    routes: Vec<Route>,
    actors: BTreeMap<JobSplit, Actor>,
}

struct Slot {
    vnodes: VnodeRange,
    path: String,
    rows: Rows,
    sealer: Sealer<Write>,
    /// The actors that store the rows of keyed tables, with what each reader has sent.
    fragments: BTreeMap<TableId, BTreeMap<JobSplit, VecDeque<Item>>>,
    /// Sent for actors that are not there yet.
    early: BTreeMap<JobSplit, VecDeque<Item>>,
    /// Rows of statements, by their vnodes.
    held: BTreeMap<StatementId, (TableId, Vec<u16>)>,
    /// The statements that barriers name, of the tables that have rows of them here.
    named: BTreeMap<(TableId, Epoch), Vec<StatementId>>,
    /// A barrier named what is not held.
    is_broken: bool,
    /// The newest barrier that the node has got from meta. Actors pass none before.
    announced: Epoch,
    snapshots: BTreeMap<Epoch, Rows>,
    checkpoints: Vec<(Epoch, Uuid)>,
}

struct Actor {
    slot: SlotId,
    entry: Entry,
    position: u64,
    epoch: Epoch,
    /// Barriers that it has not come to yet; the flag: it is the last.
    barriers: VecDeque<(Epoch, bool)>,
    /// Positions at barriers that are not committed yet.
    delivered: VecDeque<(Epoch, u64)>,
    /// Its job has stopped: it throws rows away.
    discards: bool,
}

impl Process {
    pub(super) fn new(address: String) -> Process {
        Process {
            id: NodeId(String::new()),
            address,
            stopped_until: Time::ZERO,
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
    pub(super) fn deliver(&mut self, databases: &mut Databases) -> Vec<(JobSplit, u64)> {
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

    /// Something of its term breaks.
    pub(super) fn break_term(&mut self, databases: &mut Databases) {
        if let Some(term) = self.core.term() {
            self.apply(Event::Broken(term, "broken".to_owned()), databases);
        }
    }

    /// One of its jobs cannot go on.
    pub(super) fn fail_job(&mut self, choice: usize, databases: &mut Databases) {
        let Some(term) = &self.term else { return };
        let count = term.actors.len().max(1);
        if let Some(split) = term.actors.keys().nth(choice % count) {
            let failed = Event::JobFailed(term.id, split.job, "its own fault".to_owned());
            self.apply(failed, databases);
        }
    }

    /// A row fails in one of the jobs that stop then.
    pub(super) fn stop_job(&mut self, choice: usize, databases: &mut Databases) {
        let Some(term) = &mut self.term else { return };
        let stops = |(_, actor): &(&JobSplit, &mut Actor)| actor.entry.job.on_error == OnError::Fail && !actor.discards;
        let mut stopping: Vec<_> = term.actors.iter_mut().filter(stops).collect();
        let count = stopping.len().max(1);
        if let Some((split, actor)) = stopping.get_mut(choice % count) {
            actor.discards = true;
            let stopped = Event::JobStopped(term.id, split.job, "a division by zero".to_owned());
            self.apply(stopped, databases);
        }
    }

    fn apply(&mut self, event: Event, databases: &mut Databases) -> Vec<(JobSplit, u64)> {
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
        let entry = |split: &SplitPlan| {
            plan.catalog.iter().find(|entry| entry.id() == split.split.job).expect("the jobs of all splits")
        };
        let fragments = fragments(plan.splits.iter().map(|split| (entry(split), split)));
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
            let readers = plan.splits.iter().filter(|split| split.slot == slot.slot);
            let readers = readers.map(|split| Writer::from(split.split.clone()));
            let actors = readers.chain(fragments.keys().map(|table| fragment(*table, slot.slot)));
            slots.insert(
                slot.slot,
                Slot {
                    vnodes: slot.vnodes,
                    path: slot.path.clone(),
                    snapshots: BTreeMap::from([(plan.epoch, rows.clone())]),
                    rows,
                    sealer: Sealer::new(plan.epoch, actors),
                    fragments: empty(&fragments),
                    early: BTreeMap::new(),
                    held: BTreeMap::new(),
                    named: BTreeMap::new(),
                    is_broken: false,
                    announced: plan.epoch,
                    checkpoints: Vec::new(),
                },
            );
        }
        let mut term = Term { id, slots, routes: plan.routes.clone(), actors: BTreeMap::new() };
        for split in &plan.splits {
            term.start_actor(entry(split), split, plan.epoch);
        }
        self.term = Some(term);
        self.apply(Event::Opened(id, Ok(())), databases);
    }

    /// Lets some actor of the node go on: by a barrier that waits for it, or by reading one message.
    pub(super) fn step(
        &mut self,
        choice: usize,
        prefer_barrier: bool,
        streams: &BTreeMap<JobSplit, Stream>,
        exchange: &mut Exchange,
    ) {
        let Some(term) = &mut self.term else { return };
        let count = term.actors.len().max(1);
        let Some((split, actor)) = term.actors.iter_mut().nth(choice % count) else { return };
        let (split, keyed, own) = (split.clone(), actor.entry.relation.is_keyed(), actor.slot);
        if (prefer_barrier || actor.position > streams[&split].last)
            && let Some((epoch, last)) = actor.barriers.pop_front()
        {
            let position = Position::from(Sequence(actor.position));
            actor.delivered.push_back((epoch, actor.position));
            actor.epoch = epoch.next();
            if last {
                term.actors.remove(&split);
            }
            let slots: Vec<SlotId> = term.routes.iter().filter(|_| keyed).map(|route| route.slot).collect();
            for slot in slots {
                term.send(slot, &split, Item::Barrier(epoch), exchange);
            }
            let slot = term.slots.get_mut(&own).expect("a reader runs beside its slot");
            slot.sealer.barrier(&split.into(), epoch, Some(position));
        } else if actor.position <= streams[&split].last {
            let (epoch, sequence) = (actor.epoch, actor.position);
            actor.position += 1;
            if actor.discards {
                return;
            }
            let (to, vnode, key) = if keyed {
                let (key, vnode) = (key_of(sequence), vnode_of(key_of(sequence)));
                let owns = |route: &&Route| (route.vnodes.start..route.vnodes.end).contains(&vnode);
                (term.routes.iter().find(owns).expect("every vnode has a slot").slot, vnode, key)
            } else {
                let vnodes = term.slots[&own].vnodes;
                let width = u64::from(vnodes.end - vnodes.start);
                (own, vnodes.start + u16::try_from(epoch.0 % width).expect("less than 256"), sequence)
            };
            let key = Key { vnode, split: split.clone(), key };
            match keyed {
                true => term.send(to, &split, Item::Write((key, sequence)), exchange),
                false => term.slots.get_mut(&own).expect("it runs beside it").write(&split.into(), (key, sequence)),
            }
        }
        self.seal();
    }

    /// Delivers the first of what is under way to a slot of this node; false if that slot's term does not run here.
    pub(super) fn receive(&mut self, term: TermId, slot: SlotId, actor: &JobSplit, items: &mut VecDeque<Item>) -> bool {
        let running = self.term.as_mut().filter(|running| running.id == term);
        let id = slot;
        let Some(slot) = running.and_then(|running| running.slots.get_mut(&id)) else { return false };
        if let Some(item) = items.pop_front() {
            slot.take(id, actor, item);
        }
        self.seal();
        true
    }

    /// Holds rows of a statement, if the slot runs here in the term and stores rows of the table.
    pub(super) fn hold(
        &mut self,
        term: TermId,
        slot: SlotId,
        table: TableId,
        (id, vnodes): (StatementId, &[u16]),
    ) -> bool {
        let running = self.term.as_mut().filter(|running| running.id == term);
        let slot = running.and_then(|running| running.slots.get_mut(&slot));
        let Some(slot) = slot.filter(|slot| slot.fragments.contains_key(&table)) else { return false };
        slot.held.insert(id, (table, vnodes.to_vec()));
        true
    }

    /// Whether the node takes part in a term, or is about to.
    pub(super) fn takes_part(&self, term: TermId) -> bool {
        self.core.term() == Some(term)
    }

    /// Seals what can be sealed; the checkpoints are not durable yet.
    pub(super) fn seal(&mut self) {
        let Some(term) = &mut self.term else { return };
        assert!(term.slots.values().all(|slot| !slot.is_broken), "what a leader names is held");
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
                for write in slot.sealer.sealed() {
                    slot.apply(write);
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
    pub(super) fn scan(&self, term: TermId, slot: SlotId, epoch: Epoch) -> Option<&Rows> {
        self.term.as_ref().filter(|open| open.id == term)?.slots.get(&slot)?.snapshots.get(&epoch)
    }
}

/// The actor that stores the rows of a keyed table in a slot.
fn fragment(table: TableId, slot: SlotId) -> Writer {
    ActorId { fragment: FragmentId { job: table, index: 1 }, instance: slot.0 }.into()
}

/// The readers that send rows to the actors of each keyed table.
fn fragments<'a>(splits: impl Iterator<Item = (&'a Entry, &'a SplitPlan)>) -> BTreeMap<TableId, Vec<JobSplit>> {
    let mut fragments = BTreeMap::<TableId, Vec<JobSplit>>::new();
    for (entry, split) in splits.filter(|(entry, _)| entry.relation.is_keyed()) {
        fragments.entry(entry.id()).or_default().push(split.split.clone());
    }
    fragments
}

fn empty(fragments: &BTreeMap<TableId, Vec<JobSplit>>) -> BTreeMap<TableId, BTreeMap<JobSplit, VecDeque<Item>>> {
    let inputs = |readers: &Vec<JobSplit>| readers.iter().map(|reader| (reader.clone(), VecDeque::new())).collect();
    fragments.iter().map(|(table, readers)| (*table, inputs(readers))).collect()
}

impl Slot {
    /// An actor of a keyed table takes what a reader has sent. Rows behind a barrier wait until all
    /// readers have delivered it.
    fn take(&mut self, id: SlotId, reader: &JobSplit, item: Item) {
        match self.fragments.get_mut(&reader.job) {
            Some(inputs) => inputs.get_mut(reader).expect("it is one of the table's").push_back(item),
            // The barrier that adds the table has not come to this node.
            None => self.early.entry(reader.clone()).or_default().push_back(item),
        }
        self.work(id, reader.job);
    }

    fn work(&mut self, id: SlotId, table: TableId) {
        let actor = fragment(table, id);
        while let Some(inputs) = self.fragments.get_mut(&table) {
            let rows = inputs.values_mut().flat_map(|items| {
                std::iter::from_fn(|| match items.pop_front_if(|item| matches!(item, Item::Write(_))) {
                    Some(Item::Write(write)) => Some(write),
                    _ => None,
                })
            });
            let rows: Vec<Write> = rows.collect();
            let announced = self.announced;
            let barriers: Option<Vec<Epoch>> = inputs
                .values()
                .map(|items| match items.front() {
                    Some(Item::Barrier(epoch)) if *epoch <= announced => Some(*epoch),
                    _ => None,
                })
                .collect();
            if barriers.is_some() {
                inputs.values_mut().for_each(|items| drop(items.pop_front()));
            }
            for write in rows {
                self.write(&actor, write);
            }
            let Some(barriers) = barriers else { return };
            let epoch = barriers[0];
            assert!(barriers.iter().all(|other| *other == epoch), "barriers come in order");
            for id in self.named.remove(&(table, epoch)).unwrap_or_default() {
                match self.held.remove(&id) {
                    Some((_, vnodes)) => vnodes.into_iter().for_each(|vnode| {
                        self.write(&actor, (row_of(table, vnode, id), epoch.0));
                    }),
                    None => self.is_broken = true,
                }
            }
            if self.is_broken {
                return;
            }
            self.sealer.barrier(&actor, epoch, None);
        }
    }

    fn write(&mut self, actor: &Writer, write: Write) {
        if let Some(write) = self.sealer.write(actor, write) {
            self.apply(write);
        }
    }

    fn apply(&mut self, (key, sequence): Write) {
        let before = self.rows.insert(key, sequence);
        assert!(before.is_none_or(|before| before < sequence), "messages are written in order, each once");
    }
}

impl Term {
    /// Starts the actor of a split, if the split's slot is on this node.
    fn start_actor(&mut self, entry: &Entry, split: &SplitPlan, epoch: Epoch) {
        if !self.slots.contains_key(&split.slot) {
            return;
        }
        let actor = Actor {
            slot: split.slot,
            entry: entry.clone(),
            position: split.position.next.0,
            epoch: epoch.next(),
            barriers: VecDeque::new(),
            delivered: VecDeque::new(),
            discards: false,
        };
        self.actors.insert(split.split.clone(), actor);
    }

    /// To a slot of this node at once, to one of another by the exchange.
    fn send(&mut self, to: SlotId, actor: &JobSplit, item: Item, exchange: &mut Exchange) {
        match self.slots.get_mut(&to) {
            Some(slot) => slot.take(to, actor, item),
            None => exchange.entry((self.id, to, actor.clone())).or_default().push_back(item),
        }
    }

    fn inject(&mut self, barrier: &Barrier) {
        let stopped = Mutation::stopped(barrier.mutation.as_ref());
        for (id, slot) in &mut self.slots {
            let add = match &barrier.mutation {
                Some(Mutation::Add(entry, splits)) => {
                    let added = fragments(splits.iter().map(|split| (entry, split)));
                    for (table, mut inputs) in empty(&added) {
                        for (reader, items) in &mut inputs {
                            items.append(&mut slot.early.remove(reader).unwrap_or_default());
                        }
                        slot.fragments.insert(table, inputs);
                    }
                    let readers = splits.iter().filter(|split| split.slot == *id);
                    let readers = readers.map(|split| Writer::from(split.split.clone()));
                    readers.chain(added.keys().map(|table| fragment(*table, *id))).collect()
                }
                _ => Vec::new(),
            };
            for statement in barrier.statements.iter().filter(|statement| statement.slots.contains(id)) {
                slot.named.entry((statement.table, barrier.epoch)).or_default().push(statement.id);
            }
            slot.announced = barrier.epoch;
            slot.sealer.inject(barrier.epoch, Change { add, remove: stopped.to_vec() });
            let tables: Vec<TableId> = slot.fragments.keys().copied().collect();
            tables.into_iter().for_each(|table| slot.work(*id, table));
            slot.snapshots.retain(|epoch, _| *epoch >= barrier.lowest_pinned);
        }
        for (split, actor) in &mut self.actors {
            actor.barriers.push_back((barrier.epoch, stopped.contains(&split.job)));
        }
        if let Some(Mutation::Add(entry, splits)) = &barrier.mutation {
            for split in splits {
                self.start_actor(entry, split, barrier.epoch);
            }
        }
    }

    /// Acknowledges, and deletes the checkpoints that only older epochs needed.
    fn committed(&mut self, epoch: Epoch, databases: &mut Databases) -> Vec<(JobSplit, u64)> {
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

//! The coordinator's core: a pure state machine of terms, barriers and commits. No clock, no IO, no
//! task: events and the time go in, actions come out, and the same seed and events give the same
//! actions.
//!
//! It decides when a term ends and the next is claimed, which barriers are in flight, when an epoch
//! is complete, what is written to commit it, and who is told. It does not know how any of that is
//! carried out.
//!
//! Invariants, asserted here and tested by simulation:
//! * a commit names the state of every slot and the positions of the same epoch, or it is not made;
//! * epochs commit in order, and `Announce` of an epoch follows the success of its own commit;
//! * an epoch in which a job stopped is committed after the catalog says that the job has failed;
//! * every compare-and-swap expects the head revision that this coordinator last read or wrote, so
//!   that what an older term or leader still has under way is refused.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;
use weir_common::catalog::{Entry, Graph, JobState};
use weir_common::head::{Head, SlotState};
use weir_common::ids::{Epoch, NodeId, SchemaId, SlotId, TableId, Term, TermId, VNODES};

use super::config::Config;
use super::event::{Action, Durable, Event, Mutation, Outcome, Report, Serving, Time, Waiter};
use super::failures::Failures;
use super::pins::Pins;
use super::placement::Placement;
use super::positions::Positions;
use super::statements::{Pending, Statement, Statements};

/// The most barriers in flight.
pub const IN_FLIGHT_MAX: usize = 4;
#[derive(Clone, Debug)]
struct Node {
    address: String,
    parallelism: usize,
    leaving: bool,
}

#[derive(Debug)]
enum Phase {
    /// A read of the durable state is under way.
    Loading,
    /// Waiting for nodes, at least until `not_before`, for those expected at most until
    /// `grace_until`.
    Gathering { not_before: Time, grace_until: Time },
    /// The claim of a term is under way: the nodes it will run on, the entries whose jobs it marks.
    Claiming { term: TermId, nodes: BTreeMap<NodeId, usize>, marked: Vec<Entry> },
    /// The nodes open their slots.
    Starting { active: Active, waiting: BTreeSet<NodeId>, since: Time },
    /// Barriers flow.
    Running(Running),
    /// Another process leads.
    Deposed,
}

/// A claimed term.
#[derive(Debug, Default)]
struct Active {
    id: TermId,
    placement: Placement,
    nodes: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Running {
    active: Active,
    last_epoch: Epoch,
    in_flight: VecDeque<InFlight>,
    /// The newest checkpoint of each slot, by complete epochs.
    checkpoints: BTreeMap<SlotId, Uuid>,
    /// The commit under way.
    committing: Option<Box<Committing>>,
    last_injected: Time,
    wanted: bool,
    /// A planned change waits for the barriers in flight, and no other is injected.
    closing: bool,
}

#[derive(Debug)]
struct InFlight {
    epoch: Epoch,
    injected: Time,
    reports: BTreeMap<NodeId, Report>,
    waiters: Vec<Waiter>,
    statements: Vec<Pending>,
}

#[derive(Debug)]
struct Committing {
    epoch: Epoch,
    head: Head,
    positions: Positions,
    waiters: Vec<Waiter>,
    statements: Vec<Pending>,
}

/// The coordinator of one leader's reign.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    random: SmallRng,
    nodes: BTreeMap<NodeId, Node>,
    /// Addresses of nodes that the predecessor knew and that have not come back yet, each as a new
    /// node.
    expected: BTreeSet<String>,
    catalog: Graph,
    durable: Durable,
    phase: Phase,
    last_term: Term,
    /// Claims since the last commit; the wait before the next grows with them.
    attempts: u32,
    /// When the set of nodes last changed, if no term was claimed since.
    changed: Option<Time>,
    /// Mutations not yet carried by a barrier, and those who wait for any barrier.
    mutations: VecDeque<(Mutation, Option<Waiter>)>,
    waiters: Vec<Waiter>,
    /// Waiters for a term that is placed after they came: while one runs, that is a planned
    /// change.
    altered: Vec<Waiter>,
    failures: Failures,
    statements: Statements,
    pins: Pins,
    actions: Vec<Action>,
}

impl Coordinator {
    /// A coordinator that starts by loading. `expected`: the addresses of the nodes that the
    /// predecessor knew; `seed`: for nonces.
    pub fn new(config: Config, catalog: Graph, expected: BTreeSet<String>, seed: u64) -> Coordinator {
        Coordinator {
            config,
            random: SmallRng::seed_from_u64(seed),
            nodes: BTreeMap::new(),
            expected,
            catalog,
            durable: Durable::default(),
            phase: Phase::Loading,
            last_term: Term(0),
            attempts: 0,
            changed: None,
            mutations: VecDeque::new(),
            waiters: Vec::new(),
            altered: Vec::new(),
            failures: Failures::default(),
            statements: Statements::default(),
            pins: Pins::default(),
            actions: vec![Action::Load],
        }
    }

    /// Takes in an event and returns what is to be done, in order.
    pub fn apply(&mut self, event: Event, now: Time) -> Vec<Action> {
        match event {
            Event::Loaded { leading, durable } => self.loaded(leading, durable, now),
            Event::NodeJoined { node, address, parallelism } => self.joined(node, address, parallelism, now),
            Event::NodeLost(node) => self.lost(&node, now),
            Event::NodeLeaving(node) => self.leaving(&node, now),
            Event::TermReady(node, term) => self.ready(&node, term, now),
            Event::TermFailed(_, term, _) => {
                if self.active().is_some_and(|active| active.id == term) {
                    self.end_term(now);
                }
            }
            Event::EpochReported(node, report) => self.reported(node, report, now),
            Event::JobFailed { term, job, error, waits } => self.job_failed(term, (job, error), waits, now),
            Event::Marked(entry) => self.marked(entry),
            Event::BarrierWanted => self.want_barrier(),
            Event::Flush(waiter) => {
                self.waiters.push(waiter);
                self.want_barrier();
            }
            Event::Created(entry, waiter) => self.created(entry, waiter),
            Event::Dropped(ids, schemas, waiter) => self.dropped(&ids, &schemas, waiter),
            Event::Changed(changed) => self.catalog.apply(changed),
            Event::Altered(entry, waiter) => self.altered(entry, waiter),
            Event::Claimed(term, outcome) => self.claimed(term, outcome, now),
            Event::Committed(term, epoch, outcome) => self.committed(term, epoch, outcome, now),
            Event::Statement(term, statement, waiter) => self.statement(term, statement, waiter),
            Event::Tick => {}
        }
        self.advance(now);
        std::mem::take(&mut self.actions)
    }

    /// The catalog.
    pub fn catalog(&self) -> &Graph {
        &self.catalog
    }

    /// Returns true if a job is to be marked.
    pub fn is_marked(&self, job: TableId) -> bool {
        let marks = || self.failures.marks(&self.catalog, None).into_iter();
        self.failures.contains(job) || marks().any(|marked| marked.id() == job)
    }

    /// The durable state as last read or written.
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Where statements can read, while a term runs.
    pub fn serving(&self) -> Option<Serving> {
        let Phase::Running(running) = &self.phase else { return None };
        let slots = running.active.placement.slots.iter();
        let address = |node: &NodeId| self.nodes.get(node).map(|node| node.address.clone()).unwrap_or_default();
        Some(Serving {
            term: running.active.id,
            epoch: self.durable.head.epoch,
            slots: slots.map(|slot| (slot.id, slot.vnodes, address(&slot.node))).collect(),
            places: self.durable.positions.places(),
            positions: self.durable.positions.all(),
        })
    }

    /// Pins the epoch of a head that a linearizable read returned, if its term runs here.
    pub fn pin(&mut self, head: &Head, now: Time) -> Option<(u64, Serving)> {
        let serving = self.serving().filter(|serving| serving.term == head.term)?;
        let epoch = head.epoch.max(serving.epoch);
        Some((self.pins.take(epoch, now), Serving { epoch, ..serving }))
    }

    /// Extends pins.
    pub fn renew_pins(&mut self, pins: &[u64], now: Time) {
        self.pins.renew(pins, now);
    }

    /// Gives pins up.
    pub fn release_pins(&mut self, pins: &[u64]) {
        self.pins.release(pins);
    }

    /// Every node with its address, its slots and whether it runs, starts, waits or leaves.
    pub fn cluster(&self) -> Vec<(NodeId, String, &'static str, Vec<SlotId>)> {
        let slots = |id: &NodeId| match self.active() {
            Some(active) => active.placement.slots_of(id).map(|slot| slot.id).collect(),
            None => Vec::new(),
        };
        let state = |id: &NodeId, node: &Node| match &self.phase {
            _ if node.leaving => "leaving",
            Phase::Running(running) if running.active.nodes.contains(id) => "running",
            _ => "starting",
        };
        self.nodes.iter().map(|(id, node)| (id.clone(), node.address.clone(), state(id, node), slots(id))).collect()
    }

    /// The databases of the running term, once it has committed: from then on, what neither they
    /// nor the head reach is garbage.
    pub fn live_databases(&self) -> Option<Vec<String>> {
        let Phase::Running(running) = &self.phase else { return None };
        let paths: Vec<String> = running.active.placement.slots.iter().map(|slot| slot.path.clone()).collect();
        let moved = self.durable.head.slots.first().is_some_and(|state| paths.contains(&state.path));
        moved.then_some(paths)
    }

    /// Where the cluster's databases lie, relative to the state URL.
    pub fn state_prefix(&self) -> &str {
        &self.config.state_prefix
    }

    /// The newest term claimed and the committed epoch.
    pub fn progress(&self) -> (TermId, Epoch) {
        (self.durable.head.term, self.durable.head.epoch)
    }

    // ---------------------------------------------------------------------------------- membership

    fn joined(&mut self, node: NodeId, address: String, parallelism: usize, now: Time) {
        self.expected.remove(&address);
        // More slots than vnodes could not have one each.
        let parallelism = parallelism.clamp(1, usize::from(VNODES));
        self.nodes.insert(node, Node { address, parallelism, leaving: false });
        self.changed = Some(now);
    }

    fn lost(&mut self, node: &NodeId, now: Time) {
        if self.nodes.remove(node).is_none() {
            return;
        }
        if self.participates(node) {
            self.end_term(now);
        } else if self.active().is_some_and(|active| self.staying().eq(&active.nodes)) {
            // It came and went: what runs is what should run.
            self.changed = None;
        }
    }

    fn leaving(&mut self, node: &NodeId, now: Time) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        known.leaving = true;
        if self.participates(node) {
            // The change is settled already: the node waits for it.
            self.changed = Some(now.saturating_sub(self.config.settle));
        } else {
            self.actions.push(Action::Release(node.clone()));
        }
    }

    /// The nodes that a term made now would run on, in order.
    fn staying(&self) -> impl Iterator<Item = &NodeId> {
        self.nodes.iter().filter(|(_, node)| !node.leaving).map(|(id, _)| id)
    }

    fn participates(&self, node: &NodeId) -> bool {
        match &self.phase {
            Phase::Claiming { nodes, .. } => nodes.contains_key(node),
            _ => self.active().is_some_and(|active| active.nodes.contains(node)),
        }
    }

    fn active(&self) -> Option<&Active> {
        match &self.phase {
            Phase::Starting { active, .. } => Some(active),
            Phase::Running(running) => Some(&running.active),
            _ => None,
        }
    }

    // --------------------------------------------------------------------------------------- terms

    fn loaded(&mut self, leading: bool, durable: Durable, now: Time) {
        if !matches!(self.phase, Phase::Loading) {
            return;
        }
        if !leading {
            self.phase = Phase::Deposed;
            self.actions.push(Action::StepDown);
            return;
        }
        self.last_term = self.last_term.max(durable.head.term.term);
        assert!(durable.head.epoch >= self.durable.head.epoch, "the committed epoch never goes back");
        self.durable = durable;
        self.gather(now);
    }

    /// Ends whatever term is starting or running; the next is claimed as soon as nodes and back-off
    /// allow.
    fn end_term(&mut self, now: Time) {
        if let Some(active) = self.active() {
            let id = active.id;
            let nodes: Vec<_> = active.nodes.iter().filter(|node| self.nodes.contains_key(node)).cloned().collect();
            self.actions.extend(nodes.into_iter().map(|node| Action::StopTerm(node, id)));
        }
        if let Phase::Running(running) = &mut self.phase {
            // Those who wait for an epoch of this term wait for the first one of the next instead.
            let mut under_way = Vec::new();
            for InFlight { waiters, statements, .. } in running.in_flight.drain(..) {
                self.waiters.extend(waiters);
                under_way.extend(statements);
            }
            if let Some(committing) = running.committing.take() {
                self.waiters.extend(committing.waiters);
                under_way.extend(committing.statements);
            }
            self.statements.end(under_way.into_iter());
        }
        self.pins.clear();
        self.gather(now);
    }

    fn gather(&mut self, now: Time) {
        let wait = match self.attempts {
            0 | 1 => Duration::ZERO,
            attempts => Duration::from_millis(100) * 2u32.pow(attempts.min(7) - 2),
        };
        let grace = if self.expected.is_empty() { Duration::ZERO } else { self.config.grace };
        self.phase = Phase::Gathering { not_before: now + wait, grace_until: now + grace };
    }

    fn claim(&mut self, now: Time) {
        let staying = self.nodes.iter().filter(|(_, node)| !node.leaving);
        let nodes: BTreeMap<NodeId, usize> = staying.map(|(id, node)| (id.clone(), node.parallelism)).collect();
        let term = TermId { term: Term(self.last_term.0 + 1), nonce: self.random.random() };
        self.last_term = term.term;
        self.attempts += 1;
        self.changed = None;
        self.expected.clear();
        let marked = self.failures.marks(&self.catalog, self.wall_ms(now));
        let head = Head { term, ..self.durable.head.clone() };
        self.actions.push(Action::Claim { expected: self.durable.revision, head, marked: marked.clone() });
        self.phase = Phase::Claiming { term, nodes, marked };
    }

    /// The wall clock, in milliseconds since 1970.
    fn wall_ms(&self, now: Time) -> Option<u64> {
        let since = (self.config.began + now).duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    }

    fn claimed(&mut self, term: TermId, outcome: Outcome, now: Time) {
        let Phase::Claiming { term: claiming, nodes, marked } = &self.phase else { return };
        if *claiming != term {
            return;
        }
        let Outcome::Applied(revision) = outcome else {
            self.load();
            return;
        };
        let nodes = nodes.clone();
        self.durable.revision = revision;
        self.durable.head.term = term;
        for entry in marked {
            self.failures.settle(entry.id());
            // It may have been dropped meanwhile, or have got another name.
            if let Some(now) = self.catalog.get(entry.id()) {
                self.catalog.insert(now.with_state(entry.job.state.clone()));
            }
        }
        if !self.failures.marks(&self.catalog, None).is_empty() {
            // They are more than one claim marks.
            self.gather(now);
            return;
        }
        // Created and dropped tables are part of the placement now: no barrier has to carry them.
        self.waiters.extend(self.mutations.drain(..).filter_map(|(_, waiter)| waiter));
        self.waiters.append(&mut self.altered);
        self.actions.extend(self.statements.take_ended().into_iter().map(Action::Recall));
        let Durable { head, positions, .. } = &self.durable;
        let placement = Placement::new(term, &self.config.state_prefix, &nodes, head, &self.catalog, positions);
        let shared = Arc::new(placement.clone());
        let address = |id: &NodeId| Some((id.clone(), self.nodes.get(id)?.address.clone()));
        let addresses: Arc<BTreeMap<_, _>> = Arc::new(nodes.keys().filter_map(address).collect());
        let catalog: Vec<_> = self.catalog.entries().filter(|entry| entry.has_job()).cloned().collect();
        for node in nodes.keys().filter(|node| self.nodes.contains_key(node)) {
            self.actions.push(Action::StartTerm {
                node: node.clone(),
                term,
                epoch: head.epoch,
                placement: Arc::clone(&shared),
                addresses: Arc::clone(&addresses),
                catalog: catalog.clone(),
            });
        }
        let waiting: BTreeSet<_> = nodes.into_keys().collect();
        let active = Active { id: term, placement, nodes: waiting.clone() };
        self.phase = Phase::Starting { active, waiting, since: now };
    }

    fn load(&mut self) {
        self.phase = Phase::Loading;
        self.actions.push(Action::Load);
    }

    fn ready(&mut self, node: &NodeId, term: TermId, now: Time) {
        let Phase::Starting { active, waiting, .. } = &mut self.phase else { return };
        if active.id != term || !waiting.remove(node) || !waiting.is_empty() {
            return;
        }
        let active = std::mem::take(active);
        self.phase = Phase::Running(Running {
            active,
            last_epoch: self.durable.head.epoch,
            in_flight: VecDeque::new(),
            checkpoints: BTreeMap::new(),
            committing: None,
            last_injected: now,
            // The first commit moves the head to this term's databases: nothing older is needed
            // from then on.
            wanted: true,
            closing: false,
        });
    }

    fn job_failed(&mut self, term: TermId, (job, error): (TableId, String), waits: bool, now: Time) {
        let Some(entry) = self.catalog.get(job) else { return };
        if self.active().is_none_or(|active| active.id != term) {
            return;
        }
        // A job that has stopped alone keeps its mark, which says that its rows are torn.
        let is_marked = matches!(entry.job.state, JobState::Failed { .. });
        let since_ms = self.wall_ms(now);
        match waits {
            _ if is_marked => {}
            true => self.failures.wait(job, error, since_ms),
            false => self.failures.fail(job, error, since_ms),
        }
        self.end_term(now);
    }

    /// The catalog says that a job has failed. The next barrier takes it away, with those above it.
    /// No job that reads it is added before that.
    fn marked(&mut self, entry: Entry) {
        self.failures.settle(entry.id());
        // It may have been dropped meanwhile, or have got another name.
        let Some(now) = self.catalog.get(entry.id()) else { return };
        let entry = now.with_state(entry.job.state.clone());
        let stopped = self.catalog.stopped_by(entry.id());
        self.catalog.insert(entry.clone());
        if !stopped.is_empty() {
            self.mutations.push_front((Mutation::Stop(entry, stopped), None));
        }
    }

    // ----------------------------------------------------------------------------------- mutations

    fn created(&mut self, entry: Entry, waiter: Waiter) {
        self.catalog.insert(entry.clone());
        self.mutations.push_back((Mutation::Add(entry, Vec::new()), Some(waiter)));
    }

    /// Entries without jobs leave no barrier anything to do, but whoever waits gets one all the
    /// same.
    fn dropped(&mut self, ids: &[TableId], schemas: &[SchemaId], waiter: Waiter) {
        for schema in schemas {
            self.catalog.remove_schema(*schema);
        }
        let dropped: Vec<Entry> = ids.iter().filter_map(|id| self.catalog.remove(*id)).collect();
        let jobs: Vec<TableId> = dropped.iter().filter(|entry| entry.has_job()).map(Entry::id).collect();
        for id in &jobs {
            self.failures.forget(*id);
        }
        match jobs.is_empty() {
            true => self.waiters.push(waiter),
            false => self.mutations.push_back((Mutation::Drop(jobs), Some(waiter))),
        }
    }

    /// The running job goes on until it has made one more checkpoint. The next term reads from
    /// there, with the entry as it is now.
    fn altered(&mut self, entry: Entry, waiter: Waiter) {
        self.failures.forget(entry.id());
        self.catalog.insert(entry);
        if let Phase::Claiming { marked, .. } = &mut self.phase {
            let now = self.failures.marks(&self.catalog, None);
            marked.retain(|marked| now.iter().any(|now| now.id() == marked.id()));
        }
        self.altered.push(waiter);
    }

    /// A statement is to be committed. It may have been asked for before.
    fn statement(&mut self, term: TermId, statement: Statement, waiter: Waiter) {
        let id = statement.id;
        if let Some(epoch) = self.statements.committed(id) {
            self.actions.push(Action::Resolve(waiter, epoch));
            return;
        }
        let active = self.active().map(|active| active.id);
        if active != Some(term) {
            match active {
                // The statement's term has ended.
                Some(_) => self.actions.push(Action::Recall(waiter)),
                None => self.statements.end_one(waiter),
            }
            return;
        }
        let under_way = match &mut self.phase {
            Phase::Running(Running { in_flight, committing, .. }) => {
                let named = in_flight.iter_mut().map(|in_flight| &mut in_flight.statements);
                let mut named = named.chain(committing.iter_mut().map(|committing| &mut committing.statements));
                named.find_map(|named| named.iter_mut().find(|pending| pending.statement.id == id))
            }
            _ => None,
        };
        match under_way.or(self.statements.queued(id)) {
            Some(pending) => pending.waiters.push(waiter),
            None => self.statements.queue(statement, waiter),
        }
    }

    fn want_barrier(&mut self) {
        if let Phase::Running(running) = &mut self.phase
            && !running.closing
        {
            running.wanted = true;
        }
    }

    // ------------------------------------------------------------------------ barriers and commits

    /// Does whatever the time and the state now allow.
    fn advance(&mut self, now: Time) {
        self.drop_silent_nodes(now);
        match &self.phase {
            Phase::Gathering { not_before, grace_until } => {
                let settled = self.changed.is_none_or(|changed| changed + self.config.settle <= now);
                let complete = self.expected.is_empty() || *grace_until <= now;
                if *not_before <= now && settled && complete && self.nodes.values().any(|node| !node.leaving) {
                    self.claim(now);
                } else {
                    self.release_leaving();
                }
            }
            Phase::Running(_) => {
                self.close_for_planned_change(now);
                self.inject(now);
                self.commit();
                self.end_closed_term(now);
            }
            Phase::Loading | Phase::Claiming { .. } | Phase::Starting { .. } | Phase::Deposed => {}
        }
    }

    fn drop_silent_nodes(&mut self, now: Time) {
        let limit = self.config.node_timeout;
        let silent: Vec<NodeId> = match &self.phase {
            Phase::Starting { waiting, since, .. } if *since + limit <= now => waiting.iter().cloned().collect(),
            Phase::Running(running) => {
                let late = running.in_flight.front().filter(|oldest| oldest.injected + limit <= now);
                let missing = |oldest: &InFlight| {
                    let nodes = running.active.nodes.iter();
                    nodes.filter(|node| !oldest.reports.contains_key(*node)).cloned().collect()
                };
                late.map(missing).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        for node in silent {
            let reason = format!("node \"{node}\" did not answer within {} s", limit.as_secs());
            self.actions.push(Action::Disconnect(node.clone(), reason));
            self.lost(&node, now);
        }
    }

    fn close_for_planned_change(&mut self, now: Time) {
        let settled = self.changed.is_some_and(|changed| changed + self.config.settle <= now);
        if let Phase::Running(running) = &mut self.phase
            && (settled || !self.altered.is_empty())
            && !running.closing
        {
            // One more checkpoint, so that little is read again by the next term.
            running.closing = true;
            running.wanted = true;
        }
    }

    fn inject(&mut self, now: Time) {
        let lowest_pin = self.pins.lowest(now);
        let Phase::Running(running) = &mut self.phase else { return };
        let due = running.last_injected + self.config.barrier_interval <= now && !running.closing;
        // Statements that come while a barrier is under way share the next one.
        let is_idle = running.in_flight.is_empty() && running.committing.is_none();
        let statements = is_idle && self.statements.is_waiting();
        let waits = !self.mutations.is_empty() || !self.waiters.is_empty() || statements;
        let asked = running.wanted || (waits && !running.closing);
        if running.in_flight.len() >= IN_FLIGHT_MAX || !(due || asked) {
            return;
        }
        let epoch = running.last_epoch.next();
        let mut waiters = std::mem::take(&mut self.waiters);
        let mutation = self.mutations.pop_front().map(|(mutation, waiter)| {
            waiters.extend(waiter);
            match mutation {
                Mutation::Add(entry, _) => {
                    let splits = running.active.placement.add(&entry, &self.catalog, &self.durable.positions);
                    Mutation::Add(entry, splits)
                }
                Mutation::Drop(jobs) => {
                    jobs.iter().for_each(|job| running.active.placement.remove(*job));
                    Mutation::Drop(jobs)
                }
                Mutation::Stop(failed, jobs) => {
                    jobs.iter().for_each(|job| running.active.placement.remove(*job));
                    Mutation::Stop(failed, jobs)
                }
            }
        });
        running.last_epoch = epoch;
        running.last_injected = now;
        running.wanted = false;
        let pending = self.statements.name();
        let statements = pending.iter().map(|pending| pending.statement.clone()).collect();
        let reports = BTreeMap::new();
        running.in_flight.push_back(InFlight { epoch, injected: now, reports, waiters, statements: pending });
        let committed = self.durable.head.epoch;
        self.actions.push(Action::Inject {
            term: running.active.id,
            epoch,
            lowest_pinned: lowest_pin.map_or(committed, |pin| pin.min(committed)),
            mutation,
            statements,
            nodes: running.active.nodes.iter().cloned().collect(),
        });
    }

    fn reported(&mut self, node: NodeId, mut report: Report, now: Time) {
        let since_ms = self.wall_ms(now);
        let Phase::Running(running) = &mut self.phase else { return };
        if running.active.id != report.term {
            return;
        }
        for (job, error) in std::mem::take(&mut report.stopped) {
            let failed = self.failures.stop(job, error, since_ms, &self.catalog);
            self.actions.extend(failed.map(Action::Fail));
        }
        if let Some(in_flight) = running.in_flight.iter_mut().find(|in_flight| in_flight.epoch == report.epoch) {
            in_flight.reports.insert(node, report);
        }
    }

    /// Commits the newest epoch up to which everything is reported, one commit at a time.
    fn commit(&mut self) {
        let Phase::Running(running) = &mut self.phase else { return };
        let nodes = running.active.nodes.len();
        let complete = running.in_flight.iter().take_while(|in_flight| in_flight.reports.len() == nodes).count();
        if running.committing.is_some() || complete == 0 || self.failures.holds_commits() {
            return;
        }
        let mut moved = BTreeMap::new();
        let (mut waiters, mut statements) = (Vec::new(), Vec::new());
        let mut epoch = self.durable.head.epoch;
        for in_flight in running.in_flight.drain(..complete) {
            assert!(epoch < in_flight.epoch, "epochs commit in order");
            epoch = in_flight.epoch;
            waiters.extend(in_flight.waiters);
            statements.extend(in_flight.statements);
            for report in in_flight.reports.into_values() {
                running.checkpoints.extend(report.checkpoints);
                moved.extend(report.positions);
            }
        }
        let slots = running.active.placement.slots.iter();
        let state = |slot: &super::placement::Slot| SlotState {
            slot: slot.id,
            vnodes: slot.vnodes,
            path: slot.path.clone(),
            checkpoint: *running.checkpoints.get(&slot.id).expect("a complete epoch has a checkpoint of every slot"),
        };
        let catalog = &self.catalog;
        let positions =
            self.durable.positions.advance(running.active.id, epoch, moved, |split| catalog.get(split.job).is_some());
        let head = Head {
            term: running.active.id,
            epoch,
            slots: slots.map(state).collect(),
            positions: positions.page_keys(),
        };
        let pages = positions.pages_missing_in(&self.durable.positions);
        let named = statements.iter().map(|pending| pending.statement.id).collect();
        let expected = self.durable.revision;
        self.actions.push(Action::Commit { expected, head: head.clone(), pages, statements: named });
        running.committing = Some(Box::new(Committing { epoch, head, positions, waiters, statements }));
    }

    fn committed(&mut self, term: TermId, epoch: Epoch, outcome: Outcome, now: Time) {
        let Phase::Running(running) = &mut self.phase else { return };
        if running.active.id != term || running.committing.as_ref().is_none_or(|committing| committing.epoch != epoch) {
            return;
        }
        let Outcome::Applied(revision) = outcome else {
            self.end_term(now);
            self.load();
            return;
        };
        let done = running.committing.take().expect("just seen");
        let stored = self.durable.positions.page_keys();
        let kept = done.positions.page_keys();
        let forgotten: Vec<String> = stored.into_iter().filter(|key| !kept.contains(key)).collect();
        self.durable = Durable { head: done.head, revision, positions: done.positions };
        self.attempts = 0;
        let nodes = running.active.nodes.iter().cloned().collect();
        self.actions.push(Action::Announce { term, epoch, nodes });
        self.statements.commit(done.statements.iter().map(|pending| pending.statement.id), epoch, now);
        let waiters = done.waiters.into_iter().chain(done.statements.into_iter().flat_map(|pending| pending.waiters));
        self.actions.extend(waiters.map(|waiter| Action::Resolve(waiter, epoch)));
        if !forgotten.is_empty() {
            self.actions.push(Action::Forget(forgotten));
        }
        self.release_leaving();
    }

    /// A planned change whose last checkpoint is committed.
    fn end_closed_term(&mut self, now: Time) {
        if let Phase::Running(running) = &self.phase
            && running.closing
            && running.in_flight.is_empty()
            && running.committing.is_none()
            && !running.wanted
        {
            self.end_term(now);
            self.advance(now);
        }
    }

    /// Nodes that want to leave and have no part in what runs.
    fn release_leaving(&mut self) {
        let leaving = self.nodes.iter().filter(|(id, node)| node.leaving && !self.participates(id));
        let released: Vec<NodeId> = leaving.map(|(id, _)| id.clone()).collect();
        for node in released {
            self.nodes.remove(&node);
            self.actions.push(Action::Release(node));
        }
    }
}

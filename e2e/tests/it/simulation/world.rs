//! The scheduler: what can happen, what happens next, and what must hold afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use weir_common::catalog::{
    Declaration, Encode, Entry, JobState, OnError, Plan, RelationKind, RelationName, Source, SplitStart,
};
use weir_common::head::Head;
use weir_common::ids::{JobSplit, NodeId, Sequence, SplitId, StatementId, TableId, TermId};
use weir_common::telemetry::trace::TraceParent;
use weir_compute::control::event::{Event as NodeEvent, Message};
use weir_compute::control::plan as compute;
use weir_meta::coordinator::config::Config;
use weir_meta::coordinator::event::{Action, Event, Mutation, Outcome, Report, Time, Waiter};
use weir_meta::coordinator::placement::AssignedSplit;
use weir_meta::coordinator::positions::Positions;
use weir_meta::coordinator::state::Coordinator;
use weir_meta::coordinator::statements::Statement;

use super::model::{Client, Databases, MetaStore, Rows, Stream, key_of};
use super::node::{Exchange, Process};

const CONFIG_INTERVAL: Duration = Duration::from_millis(100);
/// How many steps are chaotic, and how many more a calm cluster may take until everything is committed.
const CHAOTIC_STEPS: usize = 400;
const CALM_STEPS: usize = 20_000;

/// What happened, over all schedules.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Statistics {
    pub(super) commits: u64,
    pub(super) claims: u64,
    pub(super) refused: u64,
    pub(super) late: u64,
    pub(super) crashes: u64,
    pub(super) depositions: u64,
    pub(super) reads: u64,
    pub(super) exchanged: u64,
    pub(super) released: u64,
    pub(super) failed_jobs: u64,
    pub(super) stopped_jobs: u64,
    pub(super) timed_out: u64,
    pub(super) altered: u64,
    pub(super) statements: u64,
    pub(super) statements_refused: u64,
}

impl Statistics {
    pub(super) fn add(&mut self, other: &Statistics) {
        self.commits += other.commits;
        self.claims += other.claims;
        self.refused += other.refused;
        self.late += other.late;
        self.crashes += other.crashes;
        self.depositions += other.depositions;
        self.reads += other.reads;
        self.exchanged += other.exchanged;
        self.released += other.released;
        self.failed_jobs += other.failed_jobs;
        self.stopped_jobs += other.stopped_jobs;
        self.timed_out += other.timed_out;
        self.altered += other.altered;
        self.statements += other.statements;
        self.statements_refused += other.statements_refused;
    }
}

mod statements;

use statements::Frontends;

/// A meta process that leads, or believes that it does.
struct Leader {
    core: Coordinator,
    fence: u64,
    alive: bool,
    /// Answers of the store that were not delivered yet.
    answers: Vec<Event>,
    resolved: BTreeSet<Waiter>,
}

/// A call to the metadata store that was not carried out yet. `abandoned`: its leader was told that its outcome is
/// unknown.
struct Call {
    leader: usize,
    action: Action,
    abandoned: bool,
}

/// One schedule.
pub(super) struct World {
    random: SmallRng,
    now: Time,
    store: MetaStore,
    databases: Databases,
    streams: BTreeMap<JobSplit, Stream>,
    tables: BTreeMap<TableId, Entry>,
    leaders: Vec<Leader>,
    nodes: Vec<Process>,
    calls: Vec<Call>,
    /// Control streams that broke, which their leaders have not noticed yet.
    broken: Vec<(usize, NodeId)>,
    exchange: Exchange,
    next_node: u64,
    next_address: u64,
    next_waiter: u64,
    next_table: u32,
    /// Who waits for which table to be as it is then; what every term began with.
    altering: BTreeMap<Waiter, Entry>,
    began: BTreeMap<TermId, Vec<Entry>>,
    client: Client,
    frontends: Frontends,
    statistics: Statistics,
}

fn table(id: u32, (keyed, on_error): (bool, OnError), splits: &[(SplitId, u64)]) -> Entry {
    let declared = Declaration {
        kind: RelationKind::Table,
        name: RelationName::public(format!("t{id}")),
        columns: Vec::new(),
        // Which column it is does not matter here.
        hidden: Vec::new(),
        primary_key: if keyed { vec![0] } else { Vec::new() },
        plan: Plan::Stream(Source { options: BTreeMap::new(), encode: Encode::Json }),
        on_error,
        sql: String::new(),
    };
    let start = |(split, first): &(SplitId, u64)| SplitStart {
        split: split.clone(),
        sequence: Sequence(*first),
        stream_created: None,
        reads: None,
    };
    let splits = splits.iter().map(start).collect();
    Entry::new(TableId(id), declared, splits, None)
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut world = World {
            random: SmallRng::seed_from_u64(seed),
            now: Time::ZERO,
            store: MetaStore::default(),
            databases: Databases::default(),
            streams: BTreeMap::new(),
            tables: BTreeMap::new(),
            leaders: Vec::new(),
            nodes: Vec::new(),
            calls: Vec::new(),
            broken: Vec::new(),
            exchange: Exchange::new(),
            next_node: 0,
            next_address: 0,
            next_waiter: 0,
            next_table: 1,
            altering: BTreeMap::new(),
            began: BTreeMap::new(),
            client: Client::default(),
            frontends: Frontends::default(),
            statistics: Statistics::default(),
        };
        world.elect();
        for _ in 0..world.random.random_range(1..=3) {
            world.start_node();
        }
        for _ in 0..world.random.random_range(1..=2) {
            world.create_table();
        }
        world
    }

    /// Runs the schedule to its end: chaos, then calm, then everything must be committed.
    pub(super) fn run(mut self) -> Statistics {
        for _ in 0..CHAOTIC_STEPS {
            self.step(true);
        }
        while self.nodes.is_empty() {
            self.start_node();
        }
        for _ in 0..CALM_STEPS {
            self.step(false);
            if self.done() {
                return self.statistics;
            }
        }
        let reigning = self.reigning().map(|leader| &self.leaders[leader].core);
        panic!("a calm cluster did not commit everything: {:?}, {reigning:#?}", self.store.head());
    }

    fn done(&self) -> bool {
        let durable = self.store.load();
        if !self.all_answered() {
            return false;
        }
        let runs =
            |split: &JobSplit| self.tables.get(&split.job).is_some_and(|table| table.job.state == JobState::Running);
        self.streams.iter().filter(|(split, _)| runs(split)).all(|(split, stream)| {
            let committed = next(&durable.positions, split, stream);
            committed.0 == stream.last + 1 && stream.acknowledged == committed
        })
    }

    // ------------------------------------------------------------------------------------------------ what can happen

    fn step(&mut self, chaos: bool) {
        if chaos && self.random.random_bool(0.04) {
            self.misfortune();
        }
        match self.random.random_range(0..100) {
            0..22 => self.with_node(|process, random, world| {
                process.step(random.random_range(0..64), random.random_bool(0.5), world.streams, world.exchange);
            }),
            22..30 => self.exchange(),
            30..45 => self.deliver_to_node(),
            45..60 => self.deliver_to_leader(),
            60..72 => self.call(chaos),
            72..82 => self.with_node(|process, random, world| {
                process.upload(random.random_range(0..64), world.databases);
            }),
            82..86 => {
                let current = self.store.head().term;
                self.with_node(|process, _, world| process.open(world.databases, current));
            }
            86..88 => self.connect(),
            88..90 => self.notice(),
            90..93 => self.read(),
            93 => self.statement(),
            _ => self.tick(),
        }
    }

    fn misfortune(&mut self) {
        match self.random.random_range(0..20) {
            0..3 if !self.nodes.is_empty() => {
                let index = self.random.random_range(0..self.nodes.len());
                self.crash(index);
            }
            3..5 if self.nodes.len() < 4 => self.start_node(),
            5 => self.elect(),
            6 => {
                let index = self.random.random_range(0..self.leaders.len());
                self.leaders[index].alive = false;
                self.calls.retain(|call| call.leader != index || call.abandoned);
                self.elect();
            }
            7 if !self.nodes.is_empty() => {
                let index = self.random.random_range(0..self.nodes.len());
                self.disconnect(index);
            }
            8 if self.tables.len() < 3 => self.create_table(),
            9 if self.tables.len() > 1 => self.drop_table(),
            10 => self.leave(),
            11 => self.with_node(|process, _, world| process.break_term(world.databases)),
            12 if self.random.random_bool(0.5) => self.with_node(|process, random, world| {
                process.fail_job(random.random_range(0..64), world.databases);
            }),
            13 => match self.random.random_bool(0.5) {
                true => self.flush(),
                false => self.ask_again(),
            },
            14 if !self.nodes.is_empty() => {
                let index = self.random.random_range(0..self.nodes.len());
                let pause = Duration::from_millis(self.random.random_range(500..4_000));
                self.nodes[index].stopped_until = self.now + pause;
            }
            15 => self.alter_table(),
            16.. => self.with_node(|process, random, world| {
                process.stop_job(random.random_range(0..64), world.databases);
            }),
            _ => {}
        }
    }

    fn start_node(&mut self) {
        self.next_address += 1;
        self.nodes.push(Process::new(format!("a{}", self.next_address)));
    }

    /// A node wants to be relieved.
    fn leave(&mut self) {
        let Some(leader) = self.reigning() else { return };
        let connected: Vec<NodeId> =
            self.nodes.iter().filter(|node| node.leader == Some(leader)).map(|node| node.id.clone()).collect();
        if !connected.is_empty() {
            let node = connected[self.random.random_range(0..connected.len())].clone();
            self.tell_leader(leader, Event::NodeLeaving(node));
        }
    }

    /// Someone waits for a checkpoint.
    fn flush(&mut self) {
        let Some(leader) = self.reigning() else { return };
        self.next_waiter += 1;
        let waiter = Waiter(1_000_000 + self.next_waiter);
        self.tell_leader(leader, Event::Flush(waiter));
    }

    fn crash(&mut self, index: usize) {
        self.statistics.crashes += 1;
        let mut process = self.nodes.remove(index);
        // What was under way may still have reached the object store, but nobody hears of it.
        while self.random.random_bool(0.5) {
            process.upload(0, &mut self.databases);
        }
        self.broken.extend(process.leader.map(|leader| (leader, process.id)));
    }

    fn disconnect(&mut self, index: usize) {
        let process = &mut self.nodes[index];
        self.broken.extend(process.leader.map(|leader| (leader, process.id.clone())));
        process.disconnect(&mut self.databases);
    }

    /// A leader notices that a control stream broke.
    fn notice(&mut self) {
        if !self.broken.is_empty() {
            let index = self.random.random_range(0..self.broken.len());
            let (leader, node) = self.broken.swap_remove(index);
            self.tell_leader(leader, Event::NodeLost(node));
        }
    }

    /// The leader key passes to a new process. Its predecessor lives on until it notices.
    fn elect(&mut self) {
        self.statistics.depositions += u64::from(!self.leaders.is_empty());
        let config = Config {
            state_prefix: "state".to_owned(),
            began: UNIX_EPOCH,
            barrier_interval: CONFIG_INTERVAL,
            settle: Duration::from_millis(20),
            grace: Duration::from_millis(50),
            node_timeout: Duration::from_secs(2),
        };
        // What its predecessor knew: some of the nodes, and some that are gone.
        let known = self.nodes.iter().map(|node| node.address.clone()).chain(["gone".to_owned()]);
        let expected: BTreeSet<String> = known.filter(|_| self.random.random_bool(0.5)).collect();
        let core = Coordinator::new(config, self.tables.values().cloned().collect(), expected, self.random.random());
        let fence = self.store.elect();
        self.leaders.push(Leader { core, fence, alive: true, answers: Vec::new(), resolved: BTreeSet::new() });
        let leader = self.leaders.len() - 1;
        self.tell_leader(leader, Event::Tick);
    }

    /// The process that holds the leader key, if it still runs.
    fn reigning(&self) -> Option<usize> {
        self.leaders.iter().rposition(|leader| leader.alive && self.store.leads(leader.fence))
    }

    fn create_table(&mut self) {
        let Some(leader) = self.reigning() else { return };
        let id = self.next_table;
        self.next_table += 1;
        let splits: Vec<_> = (0..self.random.random_range(1..=3))
            .map(|number| (SplitId(format!("s{number}")), self.random.random_range(1..5)))
            .collect();
        for (split, first) in &splits {
            let last = first + self.random.random_range(0..60);
            let stream = Stream { first: *first, last, acknowledged: Sequence(*first) };
            self.streams.insert(JobSplit { job: TableId(id), split: split.clone() }, stream);
        }
        let kind = match self.random.random_range(0..6) {
            0..3 => (true, OnError::default()),
            3 => (false, OnError::default()),
            _ => (false, OnError::Fail),
        };
        let table = table(id, kind, &splits);
        self.tables.insert(TableId(id), table.clone());
        self.tell_leader(leader, Event::Created(table, Waiter(u64::from(id))));
    }

    /// A table is changed, and its job runs again if it had failed. As long as a claim that marks jobs failed is under way, or
    /// is not known to be over, the leader's task changes no table.
    fn alter_table(&mut self) {
        let Some(leader) = self.reigning() else { return };
        let marks = |call: &Call| matches!(&call.action, Action::Claim { marked, .. } if !marked.is_empty());
        let claimed = |answer: &Event| matches!(answer, Event::Claimed(..));
        if self.calls.iter().any(|call| call.leader == leader && marks(call))
            || self.leaders[leader].answers.iter().any(claimed)
        {
            return;
        }
        // A view, whose rows may be torn, cannot be altered.
        let mut tables = self.tables.values().filter(|table| table.job.on_error != OnError::Fail);
        let Some(table) = tables.nth(self.random.random_range(0..3)) else { return };
        self.next_waiter += 1;
        let table = table.altered(Declaration { sql: self.next_waiter.to_string(), ..table.declaration() });
        let waiter = Waiter(2_000_000 + self.next_waiter);
        self.tables.insert(table.id(), table.clone());
        self.altering.insert(waiter, table.clone());
        self.tell_leader(leader, Event::Altered(table, waiter));
    }

    fn drop_table(&mut self) {
        let Some(leader) = self.reigning() else { return };
        let (&id, _) = self.tables.iter().next().expect("more than one");
        self.tables.remove(&id);
        self.tell_leader(leader, Event::Dropped(vec![id], Vec::new(), Waiter(1000 + u64::from(id.0))));
    }

    fn connect(&mut self) {
        let Some(leader) = self.reigning() else { return };
        let waiting: Vec<usize> =
            (0..self.nodes.len()).filter(|&index| self.nodes[index].leader != Some(leader)).collect();
        if waiting.is_empty() {
            return;
        }
        let index = waiting[self.random.random_range(0..waiting.len())];
        self.disconnect(index);
        // Every control stream is a node of its own.
        self.next_node += 1;
        let node = NodeId(format!("n{}", self.next_node));
        self.nodes[index].id = node.clone();
        self.nodes[index].leader = Some(leader);
        let parallelism = self.random.random_range(1..=2);
        let address = self.nodes[index].address.clone();
        self.tell_leader(leader, Event::NodeJoined { node, address, parallelism });
    }

    fn tick(&mut self) {
        self.now += Duration::from_millis(self.random.random_range(1..40));
        for leader in 0..self.leaders.len() {
            self.tell_leader(leader, Event::Tick);
        }
    }

    fn with_node(&mut self, act: impl FnOnce(&mut Process, &mut SmallRng, Surroundings<'_>)) {
        if self.nodes.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.nodes.len());
        if self.nodes[index].stopped_until > self.now {
            return;
        }
        let surroundings =
            Surroundings { databases: &mut self.databases, streams: &self.streams, exchange: &mut self.exchange };
        act(&mut self.nodes[index], &mut self.random, surroundings);
    }

    /// Delivers some of what is under way between nodes. What belongs to a term that nobody takes part in any more is
    /// lost with its connection.
    fn exchange(&mut self) {
        let nodes = &self.nodes;
        self.exchange
            .retain(|(term, ..), items| !items.is_empty() && nodes.iter().any(|process| process.takes_part(*term)));
        for _ in 0..self.random.random_range(1..8) {
            if self.exchange.is_empty() {
                return;
            }
            let choice = self.random.random_range(0..self.exchange.len());
            let ((term, slot, actor), items) = self.exchange.iter_mut().nth(choice).expect("one of them");
            for process in self.nodes.iter_mut().filter(|process| process.stopped_until <= self.now) {
                if process.receive(*term, *slot, actor, items) {
                    self.statistics.exchanged += 1;
                    break;
                }
            }
        }
    }

    fn deliver_to_node(&mut self) {
        if self.nodes.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.nodes.len());
        if self.nodes[index].stopped_until > self.now {
            return;
        }
        let acknowledged = self.nodes[index].deliver(&mut self.databases);
        self.nodes[index].seal();
        let committed = self.store.load().positions;
        for (split, position) in acknowledged {
            if self.tables.contains_key(&split.job) {
                let stream = self.streams.get_mut(&split).expect("a stream");
                let bound = next(&committed, &split, stream);
                assert!(position <= bound.0, "{split} acknowledged below {position}, committed is {bound}");
                stream.acknowledged = stream.acknowledged.max(Sequence(position));
            }
        }
    }

    fn deliver_to_leader(&mut self) {
        if self.nodes.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.nodes.len());
        if self.nodes[index].stopped_until > self.now {
            return;
        }
        let process = &mut self.nodes[index];
        let Some(leader) = process.leader else { return };
        let Some(message) = process.outbox.pop_front() else { return };
        let node = process.id.clone();
        let event = match message {
            Message::Ready(term) => Event::TermReady(node, term),
            Message::Failed(term, error) => Event::TermFailed(node, term, error),
            Message::Report { term, epoch, checkpoints, positions, stopped } => {
                Event::EpochReported(node, Report { term, epoch, checkpoints, positions, stopped })
            }
            Message::WantBarrier(_) => Event::BarrierWanted,
            Message::JobFailed(term, job, error) => Event::JobFailed { term, job, error, waits: false },
            Message::JobWaits(term, job, error) => Event::JobFailed { term, job, error, waits: true },
        };
        self.tell_leader(leader, event);
    }

    // -------------------------------------------------------------------------------------------------------- leaders

    fn tell_leader(&mut self, index: usize, event: Event) {
        if !self.leaders[index].alive {
            return;
        }
        for action in self.leaders[index].core.apply(event, self.now) {
            self.perform(index, action);
        }
    }

    fn perform(&mut self, leader: usize, action: Action) {
        match action {
            Action::Load | Action::Claim { .. } | Action::Commit { .. } | Action::Fail(_) | Action::Forget(_) => {
                self.calls.push(Call { leader, action, abandoned: false });
            }
            Action::StartTerm { node, term, epoch, placement, addresses: _, catalog } => {
                self.began.insert(term, catalog.clone());
                let plan = plan(&node, term, epoch, &placement, &catalog);
                self.send(leader, &node, NodeEvent::Start(plan));
            }
            Action::StopTerm(node, term) => self.send(leader, &node, NodeEvent::Stop(term)),
            Action::Inject { term, epoch, lowest_pinned, mutation, statements, nodes } => {
                let named = |statement: &Statement| compute::Statement {
                    id: statement.id,
                    table: statement.table,
                    slots: statement.slots.clone(),
                };
                for node in nodes {
                    let mutation = mutation.as_ref().map(|mutation| match mutation {
                        Mutation::Add(entry, splits) => {
                            compute::Mutation::Add(entry.clone(), splits.iter().map(split_plan).collect())
                        }
                        Mutation::Drop(jobs) => compute::Mutation::Drop(jobs.clone()),
                        Mutation::Stop(entry, jobs) => compute::Mutation::Stop(entry.clone(), jobs.clone()),
                    });
                    let barrier = compute::Barrier {
                        term,
                        epoch,
                        lowest_pinned,
                        mutation,
                        trace: TraceParent::default(),
                        statements: statements.iter().map(named).collect(),
                    };
                    self.send(leader, &node, NodeEvent::Barrier(barrier));
                }
            }
            Action::Announce { term, epoch, nodes } => {
                for node in nodes {
                    self.send(leader, &node, NodeEvent::Committed(term, epoch));
                }
            }
            Action::Resolve(waiter, _) => {
                assert!(self.leaders[leader].resolved.insert(waiter), "a waiter is resolved once");
                if let Some(altered) = self.altering.remove(&waiter) {
                    self.check_altered(leader, &altered);
                }
                self.committed(waiter);
            }
            Action::Recall(waiter) => self.recall(waiter),
            Action::Disconnect(node, _) => {
                self.statistics.timed_out += 1;
                if let Some(process) = self.nodes.iter_mut().find(|process| process.id == node) {
                    process.disconnect(&mut self.databases);
                }
            }
            Action::Release(node) => {
                self.statistics.released += 1;
                self.nodes.retain(|process| process.id != node || process.leader != Some(leader));
                if self.nodes.is_empty() {
                    self.start_node();
                }
            }
            Action::StepDown => self.leaders[leader].alive = false,
        }
    }

    fn send(&mut self, leader: usize, node: &NodeId, event: NodeEvent) {
        let connected = |process: &&mut Process| process.id == *node && process.leader == Some(leader);
        if let Some(process) = self.nodes.iter_mut().find(connected) {
            process.inbox.push_back(event);
        }
    }

    /// Carries out one call to the store, or delivers one answer, or gives one up whose outcome is then unknown.
    fn call(&mut self, chaos: bool) {
        let leader = self.random.random_range(0..self.leaders.len());
        if let Some(answer) = self.leaders[leader].answers.pop() {
            self.tell_leader(leader, answer);
            return;
        }
        if self.calls.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.calls.len());
        if chaos && !self.calls[index].abandoned && self.random.random_bool(0.05) {
            let call = &mut self.calls[index];
            let unknown = match &call.action {
                Action::Claim { head, .. } => Event::Claimed(head.term, Outcome::Unknown),
                Action::Commit { head, .. } => Event::Committed(head.term, head.epoch, Outcome::Unknown),
                _ => return,
            };
            call.abandoned = true;
            let leader = call.leader;
            self.leaders[leader].answers.push(unknown);
            return;
        }
        let call = self.calls.swap_remove(index);
        let fence = self.leaders[call.leader].fence;
        let answer = match &call.action {
            Action::Load => Event::Loaded { leading: self.store.leads(fence), durable: self.store.load() },
            Action::Claim { expected, head, marked } => {
                let outcome = self.put_head(fence, *expected, head, (call.abandoned, &[]));
                if let Outcome::Applied(_) = outcome {
                    self.statistics.claims += 1;
                    self.statistics.failed_jobs += marked.len() as u64;
                    for table in marked {
                        // The task leaves out tables that were dropped meanwhile.
                        self.tables.entry(table.id()).and_modify(|known| *known = table.clone());
                    }
                }
                Event::Claimed(head.term, outcome)
            }
            Action::Commit { expected, head, pages, statements } => {
                self.store.put_pages(fence, pages);
                let outcome = self.put_head(fence, *expected, head, (call.abandoned, statements));
                self.statistics.commits += u64::from(matches!(outcome, Outcome::Applied(_)));
                Event::Committed(head.term, head.epoch, outcome)
            }
            Action::Fail(entry) => {
                let leader = &mut self.leaders[call.leader];
                leader.alive &= self.store.leads(fence);
                // The task leaves it out if a claim has marked it, or if it was dropped.
                if !leader.alive || !leader.core.is_marked(entry.id()) {
                    return;
                }
                self.statistics.stopped_jobs += 1;
                self.tables.insert(entry.id(), entry.clone());
                Event::Marked(entry.clone())
            }
            Action::Forget(pages) => {
                self.store.forget(fence, pages);
                return;
            }
            other => unreachable!("{other:?} is no call to the store"),
        };
        if !call.abandoned {
            self.leaders[call.leader].answers.push(answer);
        }
    }

    fn put_head(
        &mut self,
        fence: u64,
        expected: u64,
        head: &Head,
        (abandoned, statements): (bool, &[StatementId]),
    ) -> Outcome {
        let before = self.store.head();
        let outcome = self.store.put_head(fence, expected, head);
        match outcome {
            Outcome::Applied(_) => {
                self.statistics.late += u64::from(abandoned);
                self.store.record(statements);
                assert!(before.term <= head.term && before.epoch <= head.epoch, "the head never goes back");
                self.check_committed();
            }
            _ => self.statistics.refused += 1,
        }
        outcome
    }

    // --------------------------------------------------------------------------------------------------- what must hold

    /// A position is never committed without the state it produced, nor state without its position,
    /// unless the catalog says that the rows are torn.
    fn check_committed(&self) {
        let durable = self.store.load();
        let rows = self.databases.content(&durable.head);
        self.check_rows(&rows, |split, stream| next(&durable.positions, split, stream).0);
        self.check_statements(&rows);
    }

    /// Whoever waited for a change of a table is told when a term that knows it has committed.
    fn check_altered(&mut self, leader: usize, altered: &Entry) {
        self.statistics.altered += 1;
        let term = self.leaders[leader].core.durable().head.term;
        let version = |table: &Entry| table.relation.sql.parse::<u64>().unwrap_or_default();
        let began = self.began[&term].iter().find(|table| table.id() == altered.id());
        // It may have been dropped since.
        assert!(began.is_none_or(|began| version(began) >= version(altered)), "{altered:?} is not in force");
    }

    fn check_rows(&self, rows: &Rows, position: impl Fn(&JobSplit, &Stream) -> u64) {
        for (split, stream) in &self.streams {
            let whole = |table: &&Entry| !matches!(table.job.state, JobState::Failed { torn: true, .. });
            let Some(table) = self.tables.get(&split.job).filter(whole) else { continue };
            let found: BTreeMap<u64, u64> = rows
                .iter()
                .filter(|(key, _)| key.split == *split)
                .map(|(key, sequence)| (key.key, *sequence))
                .collect();
            let count = rows.keys().filter(|key| key.split == *split).count();
            assert_eq!(found.len(), count, "{split} has a key twice, under two vnodes");
            let messages = stream.first..position(split, stream);
            // Of a keyed table's messages with one key the last one counts.
            let expected: BTreeMap<u64, u64> = match table.relation.is_keyed() {
                true => messages.map(|sequence| (key_of(sequence), sequence)).collect(),
                false => messages.map(|sequence| (sequence, sequence)).collect(),
            };
            assert_eq!(found, expected, "rows of {split}");
        }
    }

    /// A statement: pins by any process that believes to lead, and scans. What it gets must be exact and not older than
    /// what any statement got before.
    fn read(&mut self) {
        let leader = self.random.random_range(0..self.leaders.len());
        let head = self.store.head();
        if !self.leaders[leader].alive {
            return;
        }
        let Some((pin, serving)) = self.leaders[leader].core.pin(&head, self.now) else { return };
        assert!(serving.epoch >= self.client.newest, "the readable epoch went back");
        let mut rows = Rows::new();
        for (slot, _, _) in &serving.slots {
            let scan = self.nodes.iter().find_map(|process| process.scan(serving.term, *slot, serving.epoch));
            // A node that is gone, or was left behind: the statement is retried with a new pin.
            let Some(scan) = scan else { return };
            rows.extend(scan.clone());
        }
        self.leaders[leader].core.release_pins(&[pin]);
        self.client.newest = serving.epoch;
        self.statistics.reads += 1;
        let durable = self.store.load();
        assert_eq!(durable.head.epoch, serving.epoch, "a statement reads the newest committed epoch");
        self.check_rows(&rows, |split, stream| next(&durable.positions, split, stream).0);
    }
}

struct Surroundings<'a> {
    databases: &'a mut Databases,
    streams: &'a BTreeMap<JobSplit, Stream>,
    exchange: &'a mut Exchange,
}

fn split_plan(assigned: &AssignedSplit) -> compute::SplitPlan {
    compute::SplitPlan { split: assigned.split.clone(), slot: assigned.slot, position: assigned.position }
}

fn plan(
    node: &NodeId,
    term: weir_common::ids::TermId,
    epoch: weir_common::ids::Epoch,
    placement: &weir_meta::coordinator::placement::Placement,
    catalog: &[Entry],
) -> compute::Plan {
    let source = |source: &weir_meta::coordinator::placement::CloneSource| compute::SourcePlan {
        path: source.path.clone(),
        checkpoint: source.checkpoint,
        vnodes: source.vnodes,
    };
    let slot = |slot: &weir_meta::coordinator::placement::Slot| compute::SlotPlan {
        slot: slot.id,
        vnodes: slot.vnodes,
        path: slot.path.clone(),
        sources: slot.sources.iter().map(source).collect(),
    };
    let route = |slot: &weir_meta::coordinator::placement::Slot| compute::Route {
        slot: slot.id,
        vnodes: slot.vnodes,
        address: String::new(),
    };
    compute::Plan {
        term,
        epoch,
        slots: placement.slots_of(node).map(slot).collect(),
        catalog: catalog.to_vec(),
        splits: placement.splits.iter().map(split_plan).collect(),
        routes: placement.slots.iter().map(route).collect(),
    }
}

/// The next sequence to read of a split.
fn next(positions: &Positions, split: &JobSplit, stream: &Stream) -> Sequence {
    positions.get(split).map_or(Sequence(stream.first), |position| position.next)
}

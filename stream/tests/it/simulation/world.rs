//! The scheduler: what can happen, what happens next, and what must hold after every commit.

mod statements;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use weir_common::ids::{ActorId, EdgeId, Epoch, StatementId};
use weir_stream::actor::{Actor, Announced, Step};
use weir_stream::edge::{Credit, Frame, Pool};
use weir_stream::late::Beginning;

use super::jobs::{
    Change, Chunk, Job, Jobs, Kind, Part, Rows, State, Statement, VNODES, cursor, message, owner, rows, vnode,
};
use super::logic::{Logic, Place, Write};
use super::slot::Slot;

/// Steps of chaos, and steps that a calm cluster may take until everything is committed.
const CHAOTIC_STEPS: usize = 1_500;
const CALM_STEPS: usize = 500_000;
/// Choices without effect after which nothing can move any more.
const ATTEMPTS: usize = 20_000;
/// Barriers in flight at most.
const IN_FLIGHT_MAX: u64 = 4;
/// The jobs that run at once at most.
const JOBS_MAX: usize = 6;

/// Counts of events, over all schedules.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Statistics {
    pub(super) commits: u64,
    pub(super) kills: u64,
    pub(super) created: u64,
    pub(super) dropped: u64,
    pub(super) stuck: u64,
    pub(super) pages: u64,
    pub(super) skipped: u64,
    pub(super) waited: u64,
    pub(super) loans: u64,
    pub(super) named: u64,
    pub(super) refused: u64,
    pub(super) orphaned: u64,
    pub(super) held_flushes: u64,
    pub(super) early: u64,
}

impl Statistics {
    pub(super) fn add(&mut self, other: &Statistics) {
        self.commits += other.commits;
        self.kills += other.kills;
        self.created += other.created;
        self.dropped += other.dropped;
        self.stuck += other.stuck;
        self.pages += other.pages;
        self.skipped += other.skipped;
        self.waited += other.waited;
        self.loans += other.loans;
        self.named += other.named;
        self.refused += other.refused;
        self.orphaned += other.orphaned;
        self.held_flushes += other.held_flushes;
        self.early += other.early;
    }
}

/// An actor with its operators.
struct Runner {
    core: Actor<Chunk>,
    logic: Logic,
    slot: u32,
    job: u32,
    task: Option<Task>,
    /// The changes of its barriers, until it has passed them.
    announced: BTreeMap<Epoch, Announced>,
    /// An operator that never returns.
    stuck: bool,
}

/// Work that the operators of an actor are asked for.
enum Task {
    Begin(Epoch),
    Apply(EdgeId, Chunk),
    Resume,
    Flush(Epoch),
    /// The writes of a flush that the slot has not taken yet.
    Write(VecDeque<Write>),
    Read,
}

/// A barrier as meta sends it to every node.
#[derive(Clone, Debug)]
struct Barrier {
    epoch: Epoch,
    /// The job that begins behind it, with the actors' slots and the edges, and all jobs that run
    /// then.
    created: Option<Job>,
    dropped: Vec<Job>,
    jobs_before: Jobs,
    jobs_after: Jobs,
    statements: Vec<StatementId>,
}

/// A message of meta to a node; they arrive in order.
#[derive(Clone, Debug)]
enum Control {
    Barrier(Barrier),
    Discard(BTreeSet<u32>),
}

/// A job that runs as of the committed epoch.
#[derive(Clone, Copy, Debug)]
struct Committed {
    job: Job,
    /// The barrier behind which it started.
    after: Epoch,
}

/// One schedule.
pub(super) struct World {
    random: SmallRng,
    // Durable state.
    epoch: Epoch,
    state: State,
    committed_jobs: BTreeMap<u32, Committed>,
    /// The rows of written tables, by the statements that took effect.
    written: BTreeMap<u32, Rows>,
    published: BTreeMap<(u32, u32), u64>,
    /// The catalog: jobs that exist.
    catalog: BTreeMap<u32, Job>,
    next_job: u32,
    next_statement: u64,
    // State of a term.
    jobs: Jobs,
    injected: Epoch,
    barriers: BTreeMap<Epoch, Barrier>,
    to_create: Option<Job>,
    to_drop: Vec<Job>,
    discarded: BTreeSet<u32>,
    controls: Vec<VecDeque<Control>>,
    pools: Vec<Pool>,
    slots: Vec<Slot>,
    runners: BTreeMap<ActorId, Runner>,
    gone: BTreeSet<ActorId>,
    frames: BTreeMap<EdgeId, VecDeque<Frame<Chunk>>>,
    credits: BTreeMap<EdgeId, VecDeque<Credit>>,
    statements: BTreeMap<StatementId, Statement>,
    /// Statements whose frontend has told meta that they are whole, on the way.
    finishing: Vec<StatementId>,
    to_name: Vec<StatementId>,
    named: BTreeSet<StatementId>,
    orphans: Vec<StatementId>,
    refused: BTreeSet<StatementId>,
    floor: u64,
    statistics: Statistics,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut random = SmallRng::seed_from_u64(seed);
        let floor = random.random_range(1..=4);
        let mut world = World {
            random,
            epoch: Epoch(0),
            state: State::new(),
            committed_jobs: BTreeMap::new(),
            written: BTreeMap::new(),
            published: BTreeMap::new(),
            catalog: BTreeMap::new(),
            next_job: 1,
            next_statement: 1,
            jobs: Jobs::default(),
            injected: Epoch(0),
            barriers: BTreeMap::new(),
            to_create: None,
            to_drop: Vec::new(),
            discarded: BTreeSet::new(),
            controls: Vec::new(),
            pools: Vec::new(),
            slots: Vec::new(),
            runners: BTreeMap::new(),
            gone: BTreeSet::new(),
            frames: BTreeMap::new(),
            credits: BTreeMap::new(),
            statements: BTreeMap::new(),
            finishing: Vec::new(),
            to_name: Vec::new(),
            named: BTreeSet::new(),
            orphans: Vec::new(),
            refused: BTreeSet::new(),
            floor,
            statistics: Statistics::default(),
        };
        world.begin_term();
        world
    }

    /// Runs the schedule to its end: chaos, then calm, then everything must be committed.
    pub(super) fn run(mut self) -> Statistics {
        for _ in 0..CHAOTIC_STEPS {
            if self.random.random_bool(0.03) {
                self.misfortune();
            }
            self.step();
        }
        self.relieve();
        for _ in 0..CALM_STEPS {
            if self.is_done() {
                return self.statistics;
            }
            let moved = (0..ATTEMPTS).any(|_| self.step());
            assert!(moved || self.is_done(), "nothing moves any more: {}", self.stand());
        }
        panic!("a calm cluster did not commit everything: {}", self.stand());
    }

    /// The end of the chaos: stuck jobs are dropped by their users.
    fn relieve(&mut self) {
        while let Some(job) = self.runners.values().find(|runner| runner.stuck && !self.discarded.contains(&runner.job))
        {
            let job = job.job;
            self.drop_job(job);
        }
    }

    fn stand(&self) -> String {
        let runners =
            self.runners.iter().map(|(id, runner)| format!("{id}: {:?} task {}", runner.core, runner.task.is_some()));
        let slots = self.slots.iter().map(|slot| format!("open {}", slot.open));
        format!(
            "positions {:?} to drop {} create {}, committed {} injected {}, {} statements, {:?} of {:?}, published {:?}\n{}\n{}",
            self.published.keys().map(|key| position(&self.state, key.0, key.1)).collect::<Vec<_>>(),
            self.to_drop.len(),
            self.to_create.is_some(),
            self.epoch,
            self.injected,
            self.statements.len(),
            self.committed_jobs,
            self.catalog.keys(),
            self.published,
            slots.collect::<Vec<_>>().join(", "),
            runners.collect::<Vec<_>>().join("\n")
        )
    }

    fn is_done(&self) -> bool {
        let read = |(key, published): (&(u32, u32), &u64)| {
            !self.jobs.running.contains_key(&key.0) || position(&self.state, key.0, key.1) == *published
        };
        let through = |committed: &Committed| {
            let inputs = (0u16..).zip(committed.job.inputs());
            inputs.into_iter().all(|(number, input)| {
                seen(&self.state, committed.job.id, number, input).len() == rows(&self.state, input).len()
            })
        };
        self.to_create.is_none()
            && self.to_drop.is_empty()
            && self.statements.is_empty()
            && self.committed_jobs.len() == self.catalog.len()
            && self.published.iter().all(read)
            && self.committed_jobs.values().all(through)
    }

    // ------------------------------------------------------------------------------------ what can
    // happen

    fn step(&mut self) -> bool {
        match self.random.random_range(0..100) {
            0..18 => self.deliver_frame(),
            18..28 => self.deliver_credit(),
            28..50 => self.advance_actor(),
            50..66 => self.perform(),
            66..74 => self.apply(),
            74..80 => self.seal(),
            80..86 => self.control(),
            86 => self.inject(),
            87..90 => self.commit(),
            90..95 => self.read(),
            95..98 => self.send_statement(),
            98 => self.finish_statement(),
            _ => self.inquire(),
        }
    }

    fn misfortune(&mut self) {
        match self.random.random_range(0..20) {
            0 if self.random.random_bool(0.6) => {
                self.statistics.kills += 1;
                self.begin_term();
            }
            1..6 => self.create_job(),
            6 => {
                if let Some(job) = self.any_job() {
                    self.drop_job(job);
                }
            }
            9 => {
                if let Some(actor) = self.pick(&self.runners.keys().copied().collect::<Vec<_>>()) {
                    self.statistics.stuck += 1;
                    self.runners.get_mut(&actor).expect("picked").stuck = true;
                }
            }
            10 => self.orphan(),
            11..15 => self.begin_statement(),
            _ => {
                if let Some(split) = self.pick(&self.published.keys().copied().collect::<Vec<_>>()) {
                    *self.published.get_mut(&split).expect("picked") += self.random.random_range(1..20);
                }
            }
        }
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.random.random_range(0..of.len())].clone())
    }

    fn any_job(&mut self) -> Option<u32> {
        let jobs: Vec<u32> = self.jobs.running.keys().copied().filter(|job| !self.discarded.contains(job)).collect();
        self.pick(&jobs)
    }

    /// A new term: all that was not committed is gone; the slots divide the committed state.
    fn begin_term(&mut self) {
        let slots = self.random.random_range(1..=4);
        let nodes = self.random.random_range(1..=slots.min(3)) as usize;
        self.jobs = Jobs { running: self.catalog.clone(), slots };
        self.injected = self.epoch;
        self.barriers.clear();
        self.to_create = None;
        self.to_drop.clear();
        self.discarded.clear();
        self.controls = vec![VecDeque::new(); nodes];
        let pool = self.random.random_range(0..16);
        self.pools = (0..nodes).map(|_| Pool::new(pool, self.epoch.next())).collect();
        self.state.retain(|(job, ..), _| self.catalog.contains_key(job));
        let state = self.state.clone();
        self.slots = (0..slots)
            .map(|slot| {
                let own = state.iter().filter(|((_, _, vnode, _), _)| owner(*vnode, slots) == slot);
                Slot::new(slot as usize % nodes, self.epoch, own.map(|(key, value)| (*key, *value)).collect())
            })
            .collect();
        self.runners.clear();
        self.gone.clear();
        self.frames.clear();
        self.credits.clear();
        self.statements.clear();
        self.finishing.clear();
        self.to_name.clear();
        self.named.clear();
        self.orphans.clear();
        self.refused.clear();
        let epoch = self.epoch;
        self.committed_jobs.retain(|id, _| self.catalog.contains_key(id));
        for job in self.catalog.clone().into_values() {
            self.committed_jobs.entry(job.id).or_insert(Committed { job, after: epoch });
            let jobs = self.jobs.clone();
            for node in 0..nodes {
                self.start(node, &job, &jobs, epoch);
            }
        }
    }

    /// Starts those actors of a job that a node runs.
    fn start(&mut self, node: usize, job: &Job, jobs: &Jobs, after: Epoch) {
        let all: Vec<EdgeId> = jobs.running.values().flat_map(|job| jobs.edges(job)).collect();
        for (id, slot) in jobs.actors(job) {
            if self.slots[slot as usize].node != node {
                continue;
            }
            let inputs: Vec<EdgeId> = all.iter().filter(|edge| edge.to == id).copied().collect();
            let outputs: Vec<EdgeId> = all.iter().filter(|edge| edge.from == id).copied().collect();
            let own = |edge: &&EdgeId| edge.to.fragment == job.back() && job.front() != job.back();
            let shuffle =
                outputs.iter().filter(own).map(|edge| (self.shuffled(job, edge, jobs.slots), *edge)).collect();
            let listeners = outputs.iter().filter(|edge| !own(edge)).copied().collect();
            let is_front = id.fragment == job.front();
            let range = vnodes(slot, jobs.slots);
            let place = Place { instance: id.instance, vnodes: range, state: &self.state };
            let logic = Logic::new(*job, is_front, &place, shuffle, listeners);
            let pool = &mut self.pools[node];
            let core = Actor::new(after, (inputs, outputs), logic.is_late(), self.floor, pool);
            self.slots[slot as usize].start(id, after);
            let runner =
                Runner { core, logic, slot, job: job.id, task: None, announced: BTreeMap::new(), stuck: false };
            self.runners.insert(id, runner);
        }
    }

    /// The vnodes whose rows go over an edge of a shuffle.
    fn shuffled(&self, job: &Job, edge: &EdgeId, slots: u32) -> Range<u16> {
        match job.kind {
            Kind::Total(_) => 0..VNODES,
            _ => vnodes(edge.to.instance, slots),
        }
    }

    fn create_job(&mut self) {
        if self.to_create.is_some() || self.catalog.len() >= JOBS_MAX {
            return;
        }
        let id = self.next_job;
        let inputs: Vec<u32> = self.jobs.running.keys().copied().filter(|job| !self.discarded.contains(job)).collect();
        let kind = match (self.random.random_range(0..10), self.pick(&inputs)) {
            (0..2, _) => Kind::Written,
            (2, _) | (_, None) => Kind::Table { splits: self.random.random_range(1..=3) },
            (3 | 4, Some(input)) => Kind::Map(input),
            (5 | 6, Some(input)) => Kind::Group(input),
            (7, Some(input)) => Kind::Total(input),
            (_, Some(left)) => Kind::Union(left, self.pick(&inputs).expect("there is one")),
        };
        self.next_job += 1;
        if let Kind::Table { splits } = kind {
            self.published.extend((0..splits).map(|split| ((id, split), 0)));
        }
        let job = Job { id, kind };
        self.catalog.insert(id, job);
        self.to_create = Some(job);
        self.statistics.created += 1;
    }

    /// The catalog entry goes first, with those of all jobs above; then nodes discard what the jobs
    /// still do, whatever it is; the next barrier takes their actors away.
    fn drop_job(&mut self, job: u32) {
        let mut all = BTreeSet::from([job]);
        for job in self.jobs.running.values() {
            if job.inputs().iter().any(|input| all.contains(input)) {
                all.insert(job.id);
            }
        }
        if let Some(job) = self.to_create.filter(|job| job.inputs().iter().any(|input| all.contains(input))) {
            self.catalog.remove(&job.id);
            self.to_create = None;
        }
        for job in &all {
            self.catalog.remove(job);
            if self.discarded.insert(*job) {
                self.to_drop.push(self.jobs.running[job]);
                self.statistics.dropped += 1;
            }
        }
        self.controls.iter_mut().for_each(|control| control.push_back(Control::Discard(all.clone())));
        let lost: Vec<StatementId> = self
            .statements
            .values()
            .filter(|statement| all.contains(&statement.job))
            .map(|statement| statement.id)
            .collect();
        lost.into_iter().for_each(|id| self.abandon(id));
    }

    // ---------------------------------------------------------------------------------------- meta

    fn inject(&mut self) -> bool {
        if self.injected.0 - self.epoch.0 >= IN_FLIGHT_MAX {
            return false;
        }
        let epoch = self.injected.next();
        let jobs_before = self.jobs.clone();
        let created = self.to_create.take();
        let dropped = std::mem::take(&mut self.to_drop);
        self.jobs.running.extend(created.map(|job| (job.id, job)));
        self.jobs.running.retain(|id, _| !dropped.iter().any(|job| job.id == *id));
        let statements = std::mem::take(&mut self.to_name);
        self.named.extend(&statements);
        self.statistics.named += statements.len() as u64;
        let barrier = Barrier { epoch, created, dropped, jobs_before, jobs_after: self.jobs.clone(), statements };
        self.injected = epoch;
        self.barriers.insert(epoch, barrier.clone());
        self.controls.iter_mut().for_each(|control| control.push_back(Control::Barrier(barrier.clone())));
        true
    }

    fn commit(&mut self) -> bool {
        let epoch = self.epoch.next();
        if epoch > self.injected || self.slots.iter().any(|slot| slot.open <= epoch) {
            return false;
        }
        self.epoch = epoch;
        self.state.clear();
        for slot in &mut self.slots {
            self.state.extend(slot.snapshots[&epoch].iter().map(|(key, value)| (*key, *value)));
            slot.snapshots.retain(|sealed, _| *sealed >= epoch);
        }
        let barrier = self.barriers.remove(&epoch).expect("it was injected");
        for id in barrier.statements {
            self.named.remove(&id);
            if let Some(statement) = self.statements.remove(&id) {
                let table = self.written.entry(statement.job).or_default();
                for Change { key, value, insert } in statement.rows {
                    match insert {
                        true => table.insert(key, value),
                        false => table.remove(&key),
                    };
                }
            }
        }
        if let Some(job) = barrier.created.filter(|job| self.catalog.contains_key(&job.id)) {
            self.committed_jobs.insert(job.id, Committed { job, after: epoch });
        }
        for job in barrier.dropped {
            self.committed_jobs.remove(&job.id);
            self.state.retain(|(of, ..), _| *of != job.id);
            for slot in &mut self.slots {
                slot.forget(job.id);
            }
        }
        self.statistics.commits += 1;
        self.check();
        true
    }

    /// The rows of each job are those of its query over the rows of its inputs.
    fn check(&self) {
        for Committed { job, after } in self.committed_jobs.values() {
            if self.discarded.contains(&job.id) {
                continue;
            }
            let expected = match job.kind {
                Kind::Table { splits } => {
                    let mut expected = Rows::new();
                    for split in 0..splits {
                        for change in (0..position(&self.state, job.id, split)).map(|position| message(split, position))
                        {
                            match change.insert {
                                true => expected.insert(change.key, change.value),
                                false => expected.remove(&change.key),
                            };
                        }
                    }
                    expected
                }
                Kind::Written => self.written.get(&job.id).cloned().unwrap_or_default(),
                Kind::Total(_) if *after == self.epoch => Rows::new(),
                _ => {
                    let inputs = (0u16..).zip(job.inputs());
                    let inputs: Vec<Rows> =
                        inputs.map(|(number, input)| seen(&self.state, job.id, number, input)).collect();
                    job.query(&inputs)
                }
            };
            assert_eq!(rows(&self.state, job.id), expected, "the rows of {job:?} at epoch {}", self.epoch);
        }
    }

    // --------------------------------------------------------------------------------------- nodes

    fn control(&mut self) -> bool {
        let node = self.random.random_range(0..self.controls.len());
        match self.controls[node].pop_front() {
            None => false,
            Some(Control::Discard(jobs)) => {
                for runner in self.runners.values_mut() {
                    if jobs.contains(&runner.job) && self.slots[runner.slot as usize].node == node {
                        runner.core.discard();
                        runner.task = None;
                        runner.stuck = false;
                    }
                }
                true
            }
            Some(Control::Barrier(barrier)) => {
                self.announce(node, &barrier);
                true
            }
        }
    }

    fn announce(&mut self, node: usize, barrier: &Barrier) {
        let epoch = barrier.epoch;
        let opened: Vec<EdgeId> = barrier.created.iter().flat_map(|job| barrier.jobs_after.edges(job)).collect();
        let closed: Vec<EdgeId> = barrier.dropped.iter().flat_map(|job| barrier.jobs_before.edges(job)).collect();
        let stopped: BTreeSet<ActorId> =
            barrier.dropped.iter().flat_map(|job| barrier.jobs_before.actors(job).into_keys()).collect();
        for slot in self.slots.iter_mut().filter(|slot| slot.node == node) {
            slot.inject(epoch, stopped.clone());
        }
        for (id, runner) in &mut self.runners {
            if self.slots[runner.slot as usize].node == node {
                let from = |edges: &[EdgeId]| edges.iter().filter(|edge| edge.from == *id).copied().collect();
                let announced = Announced {
                    epoch,
                    opened_inputs: Vec::new(),
                    closed_inputs: Vec::new(),
                    opened_outputs: from(&opened),
                    closed_outputs: from(&closed),
                    stops: stopped.contains(id),
                    statements: Vec::new(),
                };
                runner.announced.insert(epoch, announced.clone());
                runner.core.announce(announced);
            }
        }
        if let Some(job) = &barrier.created {
            self.start(node, job, &barrier.jobs_after, epoch);
        }
    }

    fn deliver_frame(&mut self) -> bool {
        let Some(edge) = self.pick(&self.frames.keys().copied().collect::<Vec<_>>()) else { return false };
        if self.gone.contains(&edge.to) {
            self.frames.remove(&edge);
            return true;
        }
        let Some(runner) = self.runners.get_mut(&edge.to) else {
            self.statistics.early += 1;
            return false;
        };
        let frame = pop(&mut self.frames, edge);
        runner.core.frame(edge, frame, &mut self.pools[self.slots[runner.slot as usize].node]);
        true
    }

    fn deliver_credit(&mut self) -> bool {
        let Some(edge) = self.pick(&self.credits.keys().copied().collect::<Vec<_>>()) else { return false };
        if self.gone.contains(&edge.from) {
            self.credits.remove(&edge);
            return true;
        }
        let Some(runner) = self.runners.get_mut(&edge.from) else {
            self.statistics.early += 1;
            return false;
        };
        let credit = pop(&mut self.credits, edge);
        runner.core.credit(edge, credit);
        true
    }

    fn advance_actor(&mut self) -> bool {
        let Some(id) = self.pick(&self.runners.keys().copied().collect::<Vec<_>>()) else { return false };
        let runner = self.runners.get_mut(&id).expect("picked");
        let slot = &mut self.slots[runner.slot as usize];
        let step = runner.core.step(&mut self.pools[slot.node]);
        let task = match step {
            Step::Wait => return false,
            Step::Grant(edge, credit) => {
                self.statistics.loans += u64::from(credit.loan.is_some());
                self.credits.entry(edge).or_default().push_back(credit);
                return true;
            }
            Step::Send(edge, frame) => {
                self.frames.entry(edge).or_default().push_back(frame);
                return true;
            }
            Step::Deliver(epoch) => {
                slot.barrier(id, epoch);
                let Announced { opened_outputs, closed_outputs, .. } =
                    runner.announced.remove(&epoch).expect("it was announced");
                runner.logic.listen(&opened_outputs, &closed_outputs);
                return true;
            }
            Step::Stop => {
                self.runners.remove(&id);
                self.gone.insert(id);
                return true;
            }
            Step::Begin(epoch) => Task::Begin(epoch),
            Step::Apply(edge, chunk) => Task::Apply(edge, chunk),
            Step::Resume => Task::Resume,
            Step::Flush(epoch) => Task::Flush(epoch),
        };
        runner.task = Some(task);
        true
    }

    /// The operators of an actor do what they are asked for.
    fn perform(&mut self) -> bool {
        let busy = |(id, runner): (&ActorId, &Runner)| (runner.task.is_some() && !runner.stuck).then_some(*id);
        let busy: Vec<ActorId> = self.runners.iter().filter_map(busy).collect();
        let Some(id) = self.pick(&busy) else { return false };
        let runner = self.runners.get_mut(&id).expect("picked");
        let slot = &mut self.slots[runner.slot as usize];
        let mut writes = VecDeque::new();
        match runner.task.take().expect("it is busy") {
            Task::Begin(epoch) => {
                let sealed = Epoch(slot.open.0 - 1);
                let snapshot = slot.snapshots.get(&Epoch(epoch.0 - 1));
                let Some(began) = runner.logic.begin(epoch, sealed, snapshot) else {
                    self.statistics.waited += 1;
                    runner.task = Some(Task::Begin(epoch));
                    return false;
                };
                let count = |kind: fn(&Beginning<i64>) -> bool| began.iter().filter(|began| kind(began)).count() as u64;
                self.statistics.pages += count(|began| matches!(began, Beginning::Page(..)));
                self.statistics.skipped += count(|began| matches!(began, Beginning::Skip));
            }
            Task::Apply(edge, chunk) => runner.logic.apply(edge, chunk),
            Task::Resume => {}
            Task::Flush(epoch) => writes = runner.logic.flush(&self.barriers[&epoch].statements).into(),
            Task::Write(left) => writes = left,
            Task::Read => {
                let (split, position) = runner.logic.reads().expect("a reader");
                let published = self.published[&(runner.job, split)];
                runner.logic.read(self.random.random_range(1..=3).min(published - position));
            }
        }
        while let Some((key, value)) = writes.front().copied() {
            if !slot.write(id, key, value) {
                self.statistics.held_flushes += u64::from(slot.is_ahead(id));
                runner.task = Some(Task::Write(writes));
                return true;
            }
            writes.pop_front();
        }
        runner.logic.emit().into_iter().for_each(|(edge, chunk)| runner.core.emit(edge, chunk));
        runner.core.finish(runner.logic.progress());
        true
    }

    fn apply(&mut self) -> bool {
        let slot = self.random.random_range(0..self.slots.len());
        let choice = self.random.random_range(0..64);
        self.slots[slot].apply(choice)
    }

    fn seal(&mut self) -> bool {
        let slot = self.random.random_range(0..self.slots.len());
        if self.slots[slot].seal().is_none() {
            return false;
        }
        let node = self.slots[slot].node;
        let oldest = self.slots.iter().filter(|slot| slot.node == node).map(|slot| slot.open).min();
        self.pools[node].advance(oldest.expect("a node has slots"));
        true
    }

    fn read(&mut self) -> bool {
        let Some(id) = self.pick(&self.runners.keys().copied().collect::<Vec<_>>()) else { return false };
        let runner = self.runners.get_mut(&id).expect("picked");
        let Some((split, position)) = runner.logic.reads() else { return false };
        if position >= self.published[&(runner.job, split)] || !runner.core.begin_own() {
            return false;
        }
        runner.task = Some(Task::Read);
        true
    }
}

/// The vnodes of a slot.
fn vnodes(slot: u32, slots: u32) -> Range<u16> {
    let own = |vnode: &u16| owner(*vnode, slots) == slot;
    let first = (0..VNODES).find(own).expect("a slot has vnodes");
    first..first + (0..VNODES).filter(own).count() as u16
}

fn position(state: &State, job: u32, split: u32) -> u64 {
    let split = i64::from(split);
    state.get(&(job, Part::Position, vnode(split), split)).map_or(0, |position| position[0] as u64)
}

/// The rows of an input that a job has read.
fn seen(state: &State, job: u32, number: u16, input: u32) -> Rows {
    use weir_stream::late::Cursor;
    let mut seen = rows(state, input);
    seen.retain(|key, _| match cursor(state, job, number, vnode(*key)) {
        Cursor::Start => false,
        Cursor::At(read) => *key <= read,
        Cursor::End => true,
    });
    seen
}

fn pop<T>(queues: &mut BTreeMap<EdgeId, VecDeque<T>>, edge: EdgeId) -> T {
    let queue = queues.get_mut(&edge).expect("a queue that is not empty");
    let item = queue.pop_front().expect("a queue that is not empty");
    if queue.is_empty() {
        queues.remove(&edge);
    }
    item
}

//! A job that runs: its actors, the ways between them, and its state.
//!
//! Chunks that are on their way over different edges overtake each other, as a random generator
//! decides.

use std::collections::{BTreeMap, VecDeque};

use arrow::array::{BooleanArray, RecordBatch, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take_record_batch;
use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use weir_common::key::{Keys, vnode_of};
use weir_common::plan::{Dispatch, Distribution, JobPlan, Operator, Stream};
use weir_stream::chunk::Chunk;
use weir_stream::pipeline::{FailedRow, Failure, Next, Outcome, Pipeline, Place, StateKey, StateRange, StateWrite};

use super::functions::Few;

/// The vnode of fragments that have one actor.
const SINGLE: u16 = 7;

/// See the module.
pub(super) struct Job {
    plan: JobPlan,
    leaf: Stream,
    parallel: usize,
    /// For each fragment its actors.
    actors: Vec<Vec<Pipeline>>,
    pub(super) state: BTreeMap<StateKey, Bytes>,
    /// Chunks by edge, sender and receiver.
    ways: BTreeMap<(usize, usize, usize), VecDeque<Chunk>>,
    /// The changes that left the job.
    pub(super) emitted: Vec<Chunk>,
    /// The rows that are as they were, although their groups changed.
    pub(super) kept: Vec<RecordBatch>,
    /// The rows that were left out.
    pub(super) failed: Vec<FailedRow>,
    /// The rows that fail now, by fragment, operator and key, with the reason.
    pub(super) letters: BTreeMap<(usize, u16, Vec<u8>), String>,
    /// Epochs whose writes the actors were not told of as applied.
    unapplied: usize,
    /// Entries and ranges that were read.
    pub(super) reads: usize,
    pub(super) ranges: usize,
}

impl Job {
    /// A new job whose fragments have so many actors, unless they are single.
    pub(super) fn new(plan: JobPlan, leaf: Stream, parallel: usize) -> Job {
        plan.check();
        let mut job = Job {
            plan,
            leaf,
            parallel,
            actors: Vec::new(),
            state: BTreeMap::new(),
            ways: BTreeMap::new(),
            emitted: Vec::new(),
            kept: Vec::new(),
            failed: Vec::new(),
            letters: BTreeMap::new(),
            unapplied: 0,
            reads: 0,
            ranges: 0,
        };
        job.build(true);
        job
    }

    /// Builds the actors anew from the state.
    pub(super) fn restart(&mut self) {
        assert!(self.ways.values().all(VecDeque::is_empty), "an epoch has ended");
        self.build(false);
    }

    fn build(&mut self, is_fresh: bool) {
        let fragment = |number: usize| {
            let fragment = &self.plan.fragments[number];
            let single = (fragment.distribution == Distribution::Single).then_some(SINGLE);
            let count = if single.is_some() { 1 } else { self.parallel };
            let leaf = matches!(fragment.operators[0], Operator::Read { .. }).then_some(&self.leaf);
            let actor = |_| Pipeline::new(&self.plan, number, leaf, &Few, Place { single, is_fresh });
            (0..count).map(actor).collect::<Result<_, _>>().expect("operators")
        };
        self.actors = (0..self.plan.fragments.len()).map(fragment).collect();
        self.unapplied = 0;
    }

    /// Passes a chunk to an actor of the first fragment.
    pub(super) fn apply(&mut self, actor: usize, chunk: Chunk) -> Result<(), Failure> {
        let outcome = self.actors[0][actor].apply(0, chunk)?;
        self.settle((0, actor), outcome)
    }

    /// Ends an epoch, and returns the changes of the state.
    pub(super) fn flush(&mut self, rng: &mut StdRng) -> Result<Vec<StateWrite>, Failure> {
        let mut writes = Vec::new();
        for fragment in 0..self.actors.len() {
            while self.deliver(fragment, rng)? {}
            for actor in 0..self.actors[fragment].len() {
                let outcome = self.actors[fragment][actor].flush()?;
                self.settle((fragment, actor), outcome)?;
                writes.extend(self.actors[fragment][actor].take_writes());
            }
        }
        self.write(&writes);
        self.unapplied += 1;
        Ok(writes)
    }

    pub(super) fn fragments(&self) -> usize {
        self.actors.len()
    }

    pub(super) fn actors_of(&self, fragment: usize) -> usize {
        self.actors[fragment].len()
    }

    /// Lets an actor flush in the middle of an epoch, if it can. Returns the changes of the state,
    /// which are applied at once.
    pub(super) fn flush_early(&mut self, fragment: usize, actor: usize) -> Result<Vec<StateWrite>, Failure> {
        if !self.actors[fragment][actor].can_flush() {
            return Ok(Vec::new());
        }
        let outcome = self.actors[fragment][actor].flush()?;
        self.settle((fragment, actor), outcome)?;
        let writes = self.actors[fragment][actor].take_writes();
        self.write(&writes);
        self.actors[fragment][actor].applied();
        Ok(writes)
    }

    fn write(&mut self, writes: &[StateWrite]) {
        for write in writes {
            match &write.value {
                Some(value) => self.state.insert(write.key.clone(), value.clone()),
                None => Some(self.state.remove(&write.key).expect("only an entry that is there is deleted")),
            };
        }
    }

    /// Tells the actors that the writes of the oldest epoch are applied.
    pub(super) fn applied(&mut self) {
        if self.unapplied > 0 {
            self.unapplied -= 1;
            self.actors.iter_mut().flatten().for_each(Pipeline::applied);
        }
    }

    /// Lets the actors forget what they have beyond a share of it.
    pub(super) fn evict(&mut self, share: f64) {
        for actor in self.actors.iter_mut().flatten() {
            let target = (actor.bytes() as f64 * share) as usize;
            actor.evict(target);
        }
    }

    /// Delivers one chunk to a fragment.
    pub(super) fn deliver(&mut self, fragment: usize, rng: &mut StdRng) -> Result<bool, Failure> {
        let leads_there = |edge: usize| usize::from(self.plan.edges[edge].to) == fragment;
        let ways = self.ways.iter_mut().filter(|((edge, ..), chunks)| leads_there(*edge) && !chunks.is_empty());
        let mut ways: Vec<_> = ways.collect();
        if ways.is_empty() {
            return Ok(false);
        }
        let ((edge, _, actor), chunks) = ways.swap_remove(rng.random_range(0..ways.len()));
        let (input, actor) = (self.plan.edges[*edge].input, *actor);
        let chunk = chunks.pop_front().expect("a chunk");
        let outcome = self.actors[fragment][actor].apply(input, chunk)?;
        self.settle((fragment, actor), outcome)?;
        Ok(true)
    }

    /// Answers an actor until it is done, and sends its changes on.
    fn settle(&mut self, (fragment, actor): (usize, usize), mut outcome: Outcome) -> Result<(), Failure> {
        loop {
            for chunk in outcome.emitted {
                self.send((fragment, actor), chunk);
            }
            self.kept.append(&mut outcome.kept);
            outcome.failed.iter().for_each(|failed| self.note((fragment, actor), failed));
            self.failed.append(&mut outcome.failed);
            outcome = match outcome.next {
                Next::Done => return Ok(()),
                Next::More => self.actors[fragment][actor].resume()?,
                Next::Need(keys) => {
                    self.reads += keys.len();
                    let found = keys.iter().map(|key| self.state.get(key).cloned()).collect();
                    self.actors[fragment][actor].supply(found)?
                }
                Next::Ranges(ranges) => {
                    self.ranges += ranges.len();
                    let found = ranges.iter().map(|range| self.range(range)).collect();
                    self.actors[fragment][actor].supply_ranges(found)?
                }
            };
        }
    }

    /// Keeps a letter of a row that fails, and removes it once the row does not.
    fn note(&mut self, (fragment, actor): (usize, usize), failed: &FailedRow) {
        let failing = self.actors[fragment][actor].failing(failed.operator);
        assert_eq!(failed.row.num_columns(), failing.columns.len(), "rows have the columns that were told");
        let of = |columns: &[usize]| {
            let mut key = Vec::new();
            Keys::new(&failed.row, columns).write(0, &mut key);
            key
        };
        let actors = self.actors[fragment].len();
        // Tests pass rows to whichever actor of the first fragment they like.
        if let (Some(divided), true) = (&failing.divided, fragment > 0 && actors > 1) {
            let owner = usize::from(vnode_of(&of(divided))) % actors;
            assert_eq!(owner, actor, "the actor owns the vnode of the letter");
        }
        let letter = (fragment, failed.operator, of(&failing.key));
        match failed.is_delete {
            true => assert!(self.letters.remove(&letter).is_some(), "a row that fails has a letter"),
            false => drop(self.letters.insert(letter, failed.error.message.clone())),
        }
    }

    fn range(&self, range: &StateRange) -> Vec<(Bytes, Bytes)> {
        let StateRange { table, vnode, prefix, after, limit } = range.clone();
        let from = StateKey { table, vnode, key: prefix.clone(), prefix: 0 };
        let entries = self
            .state
            .range(from..)
            .take_while(|(key, _)| key.table == table && key.vnode == vnode && key.key.starts_with(&prefix));
        let entries = entries.filter(|(key, _)| after.as_ref().is_none_or(|after| key.key > after));
        entries.map(|(key, value)| (key.key.clone(), value.clone())).take(limit).collect()
    }

    fn send(&mut self, (fragment, actor): (usize, usize), chunk: Chunk) {
        let edges = self.plan.edges.iter().enumerate().filter(|(_, edge)| usize::from(edge.from) == fragment);
        let mut is_last = true;
        for (number, edge) in edges {
            is_last = false;
            let receivers = self.actors[usize::from(edge.to)].len();
            let parts = match &edge.dispatch {
                Dispatch::Forward => vec![(actor, chunk.clone())],
                Dispatch::Single => vec![(0, chunk.clone())],
                Dispatch::Hash(columns) => divide(&chunk, columns, receivers),
            };
            for (receiver, part) in parts {
                self.ways.entry((number, actor, receiver)).or_default().push_back(part);
            }
        }
        if is_last {
            self.emitted.push(chunk);
        }
    }
}

/// The part of a chunk for each receiver.
pub(super) fn divide(chunk: &Chunk, columns: &[usize], receivers: usize) -> Vec<(usize, Chunk)> {
    let keys = Keys::new(chunk.rows(), columns);
    let receiver = |row| {
        let mut key = Vec::new();
        keys.write(row, &mut key);
        usize::from(vnode_of(&key)) % receivers
    };
    let owners: Vec<usize> = (0..chunk.rows().num_rows()).map(receiver).collect();
    let part = |receiver| {
        let rows: Vec<u64> = (0..).zip(&owners).filter(|(_, owner)| **owner == receiver).map(|(row, _)| row).collect();
        (receiver, pick(chunk, &rows))
    };
    (0..receivers).map(part).filter(|(_, part)| part.rows().num_rows() > 0).collect()
}

/// Some rows of a chunk.
pub(super) fn pick(chunk: &Chunk, rows: &[u64]) -> Chunk {
    let deletes: BooleanArray = rows.iter().map(|row| Some(chunk.is_delete(*row as usize))).collect();
    let rows = take_record_batch(chunk.rows(), &UInt64Array::from(rows.to_vec())).expect("rows of the chunk");
    Chunk::new(rows, BooleanBuffer::clone(deletes.values()))
}

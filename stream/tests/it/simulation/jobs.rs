//! Jobs: what they compute, and which actors and edges they consist of.

use std::collections::BTreeMap;

use weir_common::ids::{ActorId, EdgeId, FragmentId, StatementId, TableId};
use weir_stream::edge::Weight;
use weir_stream::late::Cursor;

/// How many vnodes there are here.
pub(super) const VNODES: u16 = 8;

/// The vnode of a key.
pub(super) fn vnode(key: i64) -> u16 {
    (mix(key.unsigned_abs()) % u64::from(VNODES)) as u16
}

/// A number that looks random.
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

/// A change of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: i64,
    pub(super) value: i64,
    pub(super) insert: bool,
}

/// Changes that travel together. A change weighs a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk(pub(super) Vec<Change>);

impl Weight for Chunk {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }
}

/// The rows of a relation: each key has one.
pub(super) type Rows = BTreeMap<i64, i64>;

/// The computation of a job.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The last message of each key, read from splits.
    Table { splits: u32 },
    /// The rows that statements write.
    Written,
    /// Some rows of another job, each changed.
    Map(u32),
    /// Count and sum of another job's rows by their value: its groups change when its rows do.
    Group(u32),
    /// Count and sum of all rows of another job.
    Total(u32),
    /// The rows of two jobs, which may be one.
    Union(u32, u32),
}

/// A job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) id: u32,
    pub(super) kind: Kind,
}

/// The message of a split at a position.
pub(super) fn message(split: u32, position: u64) -> Change {
    let random = mix(u64::from(split) << 32 | position);
    let key = i64::from(split) * 100 + (random % 5) as i64;
    Change { key, value: (random >> 8) as i64 % 20, insert: !(random >> 20).is_multiple_of(4) }
}

/// The row that a map makes of a row.
pub(super) fn map(value: i64) -> Option<i64> {
    (value % 3 != 0).then_some(value * 3 + 1)
}

/// The group of a row.
pub(super) fn group(value: i64) -> i64 {
    value % 4
}

/// The value of a group's row.
pub(super) fn aggregate(count: i64, sum: i64) -> i64 {
    1_000 * count + sum
}

/// The key of a union's row.
pub(super) fn branch(input: u16, key: i64) -> i64 {
    2 * key + i64::from(input)
}

impl Job {
    /// The jobs that it reads.
    pub(super) fn inputs(&self) -> Vec<u32> {
        match self.kind {
            Kind::Table { .. } | Kind::Written => Vec::new(),
            Kind::Map(input) | Kind::Group(input) | Kind::Total(input) => vec![input],
            Kind::Union(left, right) => vec![left, right],
        }
    }

    /// The fragment that takes rows in.
    pub(super) fn front(&self) -> FragmentId {
        FragmentId { job: TableId(self.id), index: 0 }
    }

    /// The fragment that stores the job's rows.
    pub(super) fn back(&self) -> FragmentId {
        match self.kind {
            Kind::Map(_) => self.front(),
            _ => FragmentId { job: TableId(self.id), index: 1 },
        }
    }

    /// The query over the rows of its inputs, as far as it has read them.
    pub(super) fn query(&self, inputs: &[Rows]) -> Rows {
        match self.kind {
            Kind::Table { .. } | Kind::Written => unreachable!("no query"),
            Kind::Map(_) => inputs[0].iter().filter_map(|(key, value)| Some((*key, map(*value)?))).collect(),
            Kind::Group(_) => {
                let mut groups: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
                for (key, value) in &inputs[0] {
                    let (count, sum) = groups.entry(group(*value)).or_default();
                    (*count, *sum) = (*count + 1, *sum + key);
                }
                groups.into_iter().map(|(group, (count, sum))| (group, aggregate(count, sum))).collect()
            }
            Kind::Total(_) => {
                let (count, sum) = (inputs[0].len() as i64, inputs[0].keys().sum());
                Rows::from([(0, aggregate(count, sum))])
            }
            Kind::Union(..) => {
                let keyed = |input: u16| {
                    let rows = inputs[usize::from(input)].iter();
                    rows.map(move |(key, value)| (branch(input, *key), *value))
                };
                keyed(0).chain(keyed(1)).collect()
            }
        }
    }
}

/// All jobs that run, over a number of slots.
#[derive(Clone, Debug, Default)]
pub(super) struct Jobs {
    pub(super) running: BTreeMap<u32, Job>,
    pub(super) slots: u32,
}

/// The slot that owns a vnode.
pub(super) fn owner(vnode: u16, slots: u32) -> u32 {
    u32::from(vnode) * slots / u32::from(VNODES)
}

impl Jobs {
    fn all_slots(&self) -> Vec<u32> {
        (0..self.slots).collect()
    }

    /// The slots in which a job's rows are.
    fn back_slots(&self, job: &Job) -> Vec<u32> {
        match job.kind {
            Kind::Total(_) => vec![owner(vnode(0), self.slots)],
            Kind::Map(_) => self.front_instances(job),
            _ => self.all_slots(),
        }
    }

    /// The instances of the fragment that takes rows in.
    fn front_instances(&self, job: &Job) -> Vec<u32> {
        match job.kind {
            Kind::Table { splits } => (0..splits).collect(),
            Kind::Written => self.all_slots(),
            Kind::Map(_) | Kind::Group(_) | Kind::Total(_) | Kind::Union(..) => {
                let mut slots: Vec<u32> =
                    job.inputs().iter().flat_map(|input| self.back_slots(&self.running[input])).collect();
                slots.sort_unstable();
                slots.dedup();
                slots
            }
        }
    }

    /// The actors of a job, each with its slot.
    pub(super) fn actors(&self, job: &Job) -> BTreeMap<ActorId, u32> {
        let place = |instance| match job.kind {
            Kind::Table { .. } => owner(vnode(i64::from(instance)), self.slots),
            _ => instance,
        };
        let fronts = self.front_instances(job).into_iter();
        let fronts = fronts.map(|instance| (ActorId { fragment: job.front(), instance }, place(instance)));
        let backs =
            self.back_slots(job).into_iter().map(|slot| (ActorId { fragment: job.back(), instance: slot }, slot));
        fronts.chain(backs).collect()
    }

    /// The edges into a job's actors and between them.
    pub(super) fn edges(&self, job: &Job) -> Vec<EdgeId> {
        let mut edges = Vec::new();
        for (input, upstream) in (0u16..).zip(job.inputs()) {
            let upstream = &self.running[&upstream];
            for instance in self.back_slots(upstream) {
                let from = ActorId { fragment: upstream.back(), instance };
                edges.push(EdgeId { from, to: ActorId { fragment: job.front(), instance }, input });
            }
        }
        if job.front() != job.back() {
            for front in self.front_instances(job) {
                for back in self.back_slots(job) {
                    let forward = matches!(job.kind, Kind::Written);
                    if !forward || front == back {
                        let from = ActorId { fragment: job.front(), instance: front };
                        edges.push(EdgeId { from, to: ActorId { fragment: job.back(), instance: back }, input: 0 });
                    }
                }
            }
        }
        edges
    }
}

/// Which of a job's state tables a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Its rows.
    Output,
    /// Count and sum of a group.
    Groups,
    /// How far an input has been read: the key is the vnode.
    Cursor(u16),
    /// The next position of a split: the key is the split.
    Position,
}

/// A key of state: the job, the table, the vnode, the key.
pub(super) type StateKey = (u32, Part, u16, i64);

/// The state of a slot, or of all.
pub(super) type State = BTreeMap<StateKey, [i64; 2]>;

/// The rows of a job in a state.
pub(super) fn rows(state: &State, job: u32) -> Rows {
    let first = (job, Part::Output, 0, i64::MIN);
    let last = (job, Part::Output, u16::MAX, i64::MAX);
    state.range(first..=last).map(|((_, _, _, key), value)| (*key, value[0])).collect()
}

/// A cursor as it is stored.
pub(super) fn stored_cursor(cursor: &Cursor<i64>) -> Option<[i64; 2]> {
    match cursor {
        Cursor::Start => None,
        Cursor::At(key) => Some([0, *key]),
        Cursor::End => Some([1, 0]),
    }
}

/// How far a job has read a vnode of an input.
pub(super) fn cursor(state: &State, job: u32, input: u16, vnode: u16) -> Cursor<i64> {
    match state.get(&(job, Part::Cursor(input), vnode, i64::from(vnode))) {
        None => Cursor::Start,
        Some([0, key]) => Cursor::At(*key),
        Some(_) => Cursor::End,
    }
}

/// A statement that writes, as its frontend sees it.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) id: StatementId,
    pub(super) job: u32,
    pub(super) rows: Vec<Change>,
    /// Chunks that were not sent yet, each with its actor and whether it is the actor's last.
    pub(super) unsent: Vec<(ActorId, Chunk, bool)>,
    /// Actors that have not confirmed yet.
    pub(super) unconfirmed: Vec<ActorId>,
}

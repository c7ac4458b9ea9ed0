//! The operators of an actor: small models that hold all their rows in memory, and write what an
//! epoch changed to the slot when it ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weir_common::ids::{EdgeId, Epoch};
use weir_stream::actor::Progress;
use weir_stream::late::{Beginning, Cursor, Late};
use weir_stream::statements::Statements;

use super::jobs::{
    Change, Chunk, Job, Kind, Part, Rows, State, StateKey, aggregate, branch, cursor, group, map, message,
    stored_cursor, vnode,
};

/// Rows of a page, and of a chunk at most.
const PAGE: usize = 2;
const CHUNK_MAX: usize = 3;
/// Rows of statements that an actor holds at most.
const HELD_MAX: u64 = 5;

/// A write to the slot.
pub(super) type Write = (StateKey, Option<[i64; 2]>);

/// The operators of an actor.
#[derive(Debug)]
pub(super) struct Logic {
    job: Job,
    role: Role,
    /// Edges to the job's own back, each with the vnodes of its slot; empty: the actor is the back.
    shuffle: Vec<(std::ops::Range<u16>, EdgeId)>,
    /// Edges to views over the job.
    listeners: BTreeSet<EdgeId>,
    /// Changes for listeners, and rows for the shuffle, that were not emitted yet.
    pending: VecDeque<(EdgeId, Change)>,
}

#[derive(Debug)]
enum Role {
    Reader { split: u32, position: u64, moved: bool },
    Writer(Statements<Chunk>),
    Front { inputs: Vec<(u32, Late<i64>)>, moved: BTreeSet<(u16, u16)>, output: Option<Output> },
    Back(Output),
    Groups { groups: BTreeMap<i64, (i64, i64)>, changed: BTreeSet<i64>, output: Output },
}

/// The stored rows of a job: those of one slot.
#[derive(Debug, Default)]
struct Output {
    rows: Rows,
    changed: BTreeSet<i64>,
}

impl Output {
    /// Sets a row. Returns what changes.
    fn set(&mut self, key: i64, value: Option<i64>) -> Vec<Change> {
        let old = match value {
            Some(value) => self.rows.insert(key, value),
            None => self.rows.remove(&key),
        };
        if old == value {
            return Vec::new();
        }
        self.changed.insert(key);
        let old = old.map(|value| Change { key, value, insert: false });
        old.into_iter().chain(value.map(|value| Change { key, value, insert: true })).collect()
    }

    /// Applies a change of a stream whose rows are known: a delete names the row that is there.
    fn apply(&mut self, change: Change) -> Vec<Change> {
        let there = self.rows.get(&change.key).copied();
        let expected = if change.insert { None } else { Some(change.value) };
        assert_eq!(there, expected, "{change:?} meets the row that it was made for");
        self.set(change.key, change.insert.then_some(change.value))
    }

    fn writes(&mut self, job: u32) -> Vec<Write> {
        let changed = std::mem::take(&mut self.changed);
        let write = |key: i64| ((job, Part::Output, vnode(key), key), self.rows.get(&key).map(|value| [*value, 0]));
        changed.into_iter().map(write).collect()
    }
}

/// Where an actor stands.
pub(super) struct Place<'a> {
    /// Its number within its fragment.
    pub(super) instance: u32,
    /// The vnodes of its slot.
    pub(super) vnodes: std::ops::Range<u16>,
    /// The committed state of its slot.
    pub(super) state: &'a State,
}

impl Logic {
    pub(super) fn new(
        job: Job,
        is_front: bool,
        place: &Place,
        shuffle: Vec<(std::ops::Range<u16>, EdgeId)>,
        listeners: BTreeSet<EdgeId>,
    ) -> Logic {
        let output = || {
            let rows = place.state.iter().filter_map(|((of, part, vnode, key), value)| {
                let own = *of == job.id && *part == Part::Output && place.vnodes.contains(vnode);
                own.then_some((*key, value[0]))
            });
            Output { rows: rows.collect(), changed: BTreeSet::new() }
        };
        let role = match job.kind {
            Kind::Table { .. } if is_front => {
                let split = i64::from(place.instance);
                let stored = place.state.get(&(job.id, Part::Position, vnode(split), split));
                Role::Reader {
                    split: place.instance,
                    position: stored.map_or(0, |position| position[0] as u64),
                    moved: false,
                }
            }
            Kind::Written if is_front => Role::Writer(Statements::new(HELD_MAX)),
            _ if is_front => {
                let late = |(number, input): (u16, u32)| {
                    let cursors = place.vnodes.clone().map(|vnode| (vnode, cursor(place.state, job.id, number, vnode)));
                    (input, Late::new(cursors))
                };
                let inputs = (0u16..).zip(job.inputs()).map(late).collect();
                let output = matches!(job.kind, Kind::Map(_)).then(output);
                Role::Front { inputs, moved: BTreeSet::new(), output }
            }
            Kind::Group(_) | Kind::Total(_) => {
                let groups = place.state.iter().filter_map(|((of, part, vnode, key), value)| {
                    let own = *of == job.id && *part == Part::Groups && place.vnodes.contains(vnode);
                    own.then_some((*key, (value[0], value[1])))
                });
                Role::Groups { groups: groups.collect(), changed: BTreeSet::new(), output: output() }
            }
            _ => Role::Back(output()),
        };
        Logic { job, role, shuffle, listeners, pending: VecDeque::new() }
    }

    pub(super) fn listen(&mut self, opened: &[EdgeId], closed: &[EdgeId]) {
        self.listeners.extend(opened);
        closed.iter().for_each(|edge| {
            self.listeners.remove(edge);
        });
    }

    pub(super) fn statements(&mut self) -> Option<&mut Statements<Chunk>> {
        match &mut self.role {
            Role::Writer(statements) => Some(statements),
            _ => None,
        }
    }

    /// The split that it reads and its position.
    pub(super) fn reads(&self) -> Option<(u32, u64)> {
        match &self.role {
            Role::Reader { split, position, .. } => Some((*split, *position)),
            _ => None,
        }
    }

    pub(super) fn is_late(&self) -> bool {
        matches!(self.role, Role::Front { .. })
    }

    /// Reads some messages.
    pub(super) fn read(&mut self, count: u64) {
        let Role::Reader { split, position, moved } = &mut self.role else { panic!("a reader reads") };
        let messages: Vec<Change> = (*position..*position + count).map(|position| message(*split, position)).collect();
        (*position, *moved) = (*position + count, count > 0);
        messages.into_iter().for_each(|change| self.send(change.key, change));
    }

    /// The next chunks to emit, a few at a time.
    pub(super) fn emit(&mut self) -> Vec<(EdgeId, Chunk)> {
        let mut chunks = Vec::new();
        while chunks.len() < 2
            && let Some((edge, change)) = self.pending.pop_front()
        {
            let mut chunk = vec![change];
            let is_next = |next: &(EdgeId, Change), chunk: &[Change]| next.0 == edge && chunk.len() < CHUNK_MAX;
            while let Some((_, change)) = self.pending.pop_front_if(|next| is_next(next, &chunk)) {
                chunk.push(change);
            }
            chunks.push((edge, Chunk(chunk)));
        }
        chunks
    }

    /// Says if there is more to emit.
    pub(super) fn progress(&self) -> Progress {
        if self.pending.is_empty() { Progress::Done } else { Progress::More }
    }

    /// Sends a change to the actor that owns a key.
    fn send(&mut self, key: i64, change: Change) {
        let vnode = vnode(key);
        let edge = self.shuffle.iter().find(|(vnodes, _)| vnodes.contains(&vnode)).map(|(_, edge)| *edge);
        self.pending.push_back((edge.expect("every vnode is owned"), change));
    }

    fn publish(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.pending.extend(self.listeners.iter().map(|edge| (*edge, change)));
        }
    }

    /// The beginning of an epoch: pages, one an input. `sealed`: the newest sealed epoch of the
    /// slot; `snapshot`: of the epoch before. Returns how each input began, or nothing if the actor
    /// has to wait.
    pub(super) fn begin(
        &mut self,
        epoch: Epoch,
        sealed: Epoch,
        snapshot: Option<&State>,
    ) -> Option<Vec<Beginning<i64>>> {
        let Role::Front { inputs, moved, .. } = &mut self.role else { return Some(Vec::new()) };
        let mut began = Vec::new();
        let mut rows = Vec::new();
        for (number, (input, late)) in (0u16..).zip(inputs) {
            let beginning = late.begin(epoch, sealed);
            if let Beginning::Page(vnode, from) = &beginning {
                let snapshot = snapshot.expect("a sealed epoch has a snapshot");
                let after = match from {
                    Cursor::At(key) => *key,
                    _ => i64::MIN,
                };
                let first = (*input, Part::Output, *vnode, after.saturating_add(1));
                let last = (*input, Part::Output, *vnode, i64::MAX);
                let mut page: Vec<_> = snapshot.range(first..=last).take(PAGE + 1).collect();
                let is_end = page.len() <= PAGE;
                page.truncate(PAGE);
                let cursor = match page.last() {
                    Some(((_, _, _, key), _)) if !is_end => Cursor::At(*key),
                    _ => Cursor::End,
                };
                late.moved(*vnode, cursor);
                moved.insert((number, *vnode));
                rows.extend(page.into_iter().map(|((_, _, _, key), value)| (number, *key, value[0])));
            }
            began.push(beginning);
        }
        for (number, key, value) in rows {
            self.take(number, Change { key, value, insert: true });
        }
        match began.contains(&Beginning::Wait) {
            true => None,
            false => Some(began),
        }
    }

    /// A chunk of an input.
    pub(super) fn apply(&mut self, edge: EdgeId, chunk: Chunk) {
        for change in chunk.0 {
            match &mut self.role {
                Role::Front { inputs, .. } => {
                    let (_, late) = &inputs[usize::from(edge.input)];
                    if late.passes(vnode(change.key), &change.key) {
                        self.take(edge.input, change);
                    }
                }
                Role::Back(output) => {
                    let changes = match self.job.kind {
                        // The rows of readers and statements replace one another.
                        Kind::Table { .. } | Kind::Written => {
                            output.set(change.key, change.insert.then_some(change.value))
                        }
                        _ => output.apply(change),
                    };
                    self.publish(changes);
                }
                Role::Groups { groups, changed, .. } => {
                    let group = if matches!(self.job.kind, Kind::Total(_)) { 0 } else { group(change.value) };
                    let (count, sum) = groups.entry(group).or_default();
                    let sign = if change.insert { 1 } else { -1 };
                    (*count, *sum) = (*count + sign, *sum + sign * change.key);
                    changed.insert(group);
                }
                Role::Reader { .. } | Role::Writer(_) => unreachable!("leaves have no inputs"),
            }
        }
    }

    /// A row that the job takes in.
    fn take(&mut self, input: u16, change: Change) {
        match self.job.kind {
            Kind::Map(_) => {
                let Role::Front { output: Some(output), .. } = &mut self.role else {
                    unreachable!("a map is one fragment")
                };
                if let Some(value) = map(change.value) {
                    let changes = output.apply(Change { value, ..change });
                    self.publish(changes);
                }
            }
            Kind::Group(_) => self.send(group(change.value), change),
            Kind::Total(_) => self.send(0, change),
            Kind::Union(..) => {
                let key = branch(input, change.key);
                self.send(key, Change { key, ..change });
            }
            Kind::Table { .. } | Kind::Written => unreachable!("they have no inputs"),
        }
    }

    /// The end of an epoch. `named`: the statements that take effect.
    pub(super) fn flush(&mut self, named: &[weir_common::ids::StatementId]) -> Vec<Write> {
        let job = self.job.id;
        match &mut self.role {
            Role::Reader { split, position, moved } => {
                let split = i64::from(*split);
                let write = ((job, Part::Position, vnode(split), split), Some([*position as i64, 0]));
                std::mem::take(moved).then_some(write).into_iter().collect()
            }
            Role::Writer(statements) => {
                for change in statements.name(named).into_iter().flat_map(|chunk| chunk.0) {
                    self.send(change.key, change);
                }
                Vec::new()
            }
            Role::Front { inputs, moved, output } => {
                let cursors = std::mem::take(moved).into_iter().map(|(input, vnode)| {
                    let key = (job, Part::Cursor(input), vnode, i64::from(vnode));
                    let cursor = inputs[usize::from(input)].1.cursor(vnode);
                    (key, stored_cursor(cursor))
                });
                let mut writes: Vec<Write> = cursors.collect();
                writes.extend(output.iter_mut().flat_map(|output| output.writes(job)));
                writes
            }
            Role::Back(output) => output.writes(job),
            Role::Groups { groups, changed, output } => {
                let is_total = matches!(self.job.kind, Kind::Total(_));
                if is_total && output.rows.is_empty() {
                    groups.entry(0).or_default();
                    changed.insert(0);
                }
                let mut writes = Vec::new();
                let mut changes = Vec::new();
                for group in std::mem::take(changed) {
                    let (count, sum) = groups[&group];
                    assert!(count >= 0, "group {group} of job {job} has {count} rows at a barrier");
                    let lives = count > 0 || is_total;
                    changes.extend(output.set(group, lives.then_some(aggregate(count, sum))));
                    if !lives {
                        groups.remove(&group);
                    }
                    writes.push(((job, Part::Groups, vnode(group), group), lives.then_some([count, sum])));
                }
                writes.extend(output.writes(job));
                self.publish(changes);
                writes
            }
        }
    }
}

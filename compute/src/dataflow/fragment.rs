//! Runs a fragment in a slot: the task around [`weir_stream::actor`] and the fragment's operators.
//!
//! The core says what comes next. The task lets the operators work, reads the state that they ask
//! for from the slot's database, writes what they changed at each flush, and sends frames over the
//! router. It delivers barriers to its slot, which seals an epoch once all of its writers have.
//!
//! An operator that fails ends the task before it delivers the barrier, so nothing of the epoch is
//! committed. The node hears why. A row that fails in a job which is to stop then ends nothing: the
//! node hears why, and the actor discards what comes until a barrier takes it away.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use weir_common::catalog::{Entry, OnError};
use weir_common::error::chain;
use weir_common::ids::{ActorId, EdgeId, Epoch, SlotId, TermId};
use weir_common::plan::{Conflict, Operator};
use weir_common::task::{Group, OnFailure};
use weir_common::view::{self, Functions};
use weir_stream::actor::{Actor, Announced, Progress, Step};
use weir_stream::chunk::Chunk;
use weir_stream::edge::{Pool, Weight};
use weir_stream::pipeline::{Failure, Next, Outcome, Pipeline, Place, StateKey, StateRange, StateWrite};
use weir_stream::slices::Slices;

use super::divide::Divide;
use super::edge::{Closed, Edge};
use super::failed::FailedRows;
use super::follow::{self, Follow, Following};
use super::history::History;
use super::letters::{self, RowLetters};
use super::materialize::Materialize;
use super::router::{Merge, Message, Router};
use super::table::Table;
use super::upstream::Upstream;
use super::usage::Usage;
use crate::control::event::{Event, Inputs};
use crate::control::placement::Placement;
use crate::control::plan::{Route, Writer};
use crate::storage::entries::Entries;
use crate::storage::row;
use crate::storage::slot;
use crate::storage::state::{self, keys};

/// The credit of each edge, in bytes.
pub(crate) const FLOOR: u64 = 256 << 10;
/// Changes go to the slot in parts of about this size.
const WRITE_BYTES: usize = 1 << 20;
/// An actor whose operators take this many times its share of memory writes before the epoch ends.
const RELIEF: usize = 2;
/// The memory of operators is found out each time that this part of their limit has come.
const WEIGHINGS: usize = 16;
/// Ranges of state that are read at the same time.
const RANGES_MAX: usize = 32;

/// Everything that the fragments of a term share on a node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) term: TermId,
    pub(crate) node: Inputs,
    pub(crate) group: Group,
    pub(crate) router: Router,
    /// Memory that the receivers of this node may lend.
    pub(crate) pool: Arc<Mutex<Pool>>,
    pub(crate) functions: Arc<dyn Functions>,
    pub(crate) following: Following,
    pub(crate) memory: Memory,
    pub(crate) usage: Usage,
}

/// The memory of a node for what its actors know of their state. Each has an equal share.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    bytes: usize,
    /// Held by each actor.
    actors: Arc<()>,
}

impl Memory {
    /// A memory of some bytes.
    pub(crate) fn new(bytes: usize) -> Memory {
        Memory { bytes, actors: Arc::default() }
    }

    fn share(&self) -> usize {
        // Beside the actors, those who start them hold it.
        self.bytes / Arc::strong_count(&self.actors)
    }
}

impl Shared {
    pub(crate) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An actor of a fragment.
struct Fragment {
    shared: Shared,
    id: ActorId,
    core: Actor<Chunk>,
    inbox: mpsc::UnboundedReceiver<Message>,
    pipeline: Pipeline,
    materialize: Option<Materialize>,
    /// The state table of the groups that are stored with their rows.
    groups: Option<u16>,
    /// Set if it stores the rows of a table.
    table: Option<Table>,
    /// Set if it follows a stored relation.
    follow: Option<Upstream>,
    outputs: Vec<Divide>,
    /// Edges to jobs that follow the rows that it stores.
    listeners: BTreeSet<EdgeId>,
    /// Barriers that were announced and change the listeners.
    changes: VecDeque<Announced>,
    slot: Edge,
    db: state::SlotDb,
    failed: FailedRows,
    on_error: OnError,
    /// The work that the operators were asked for last.
    work: Work,
    /// True if the operators have more of it.
    has_more: bool,
    /// The weight of the chunks that the operators were given since their memory was found out.
    taken: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Apply,
    /// A page of the relation that is followed.
    Page,
    /// A flush in the middle of an epoch, to get memory back.
    Relief,
    Flush,
}

/// The reason why an actor ends early.
enum Ended {
    /// The term has ended, or is about to.
    Closed,
    /// An operator failed, or the state could not be read.
    Failed(String),
    /// The epoch cannot be completed, whoever tries. The next term can.
    Broken(String),
    /// It has passed its last barrier.
    Stopped,
}

impl From<follow::Error> for Ended {
    fn from(error: follow::Error) -> Ended {
        match error {
            follow::Error::Ended => Ended::Closed,
            error => Ended::Failed(chain(&error)),
        }
    }
}

impl From<Closed> for Ended {
    fn from(_: Closed) -> Ended {
        Ended::Closed
    }
}

/// Starts an actor beside its slot. Its first barrier is the one after `after`. `is_fresh`: the job
/// begins there too, so the actor has no state.
pub(crate) fn spawn(
    shared: &Shared,
    (entry, placement, id): (&Entry, &Placement<'_>, ActorId),
    slot: &slot::Handle,
    (after, is_fresh): (Epoch, bool),
    (routes, listeners): (&[Route], BTreeSet<EdgeId>),
) {
    let inbox = shared.router.register(id);
    let plan = &placement.query().plan;
    let fragment = &plan.fragments[usize::from(id.fragment.index)];
    let single = placement.single(id.fragment.index);
    let place = Place { single, is_fresh };
    let rate = entry.job.backfill_rate.map(|rate| {
        let actors = placement.actors(id.fragment.index).len();
        f64::from(rate) / f64::from(u32::try_from(actors).unwrap_or(u32::MAX)).max(1.0)
    });
    let built = follow(shared, placement, id, slot, (after, is_fresh)).and_then(|follow| {
        let follow = follow.map(|follow| follow.at_rate(rate));
        let (leaf, functions) = (follow.as_ref().map(Upstream::stream), shared.functions.as_ref());
        let pipeline = Pipeline::new(plan, usize::from(id.fragment.index), leaf.as_ref(), functions, place)?;
        Ok((pipeline, follow))
    });
    let (pipeline, follow) = match built {
        Ok(built) => built,
        Err(error) => {
            let (waits, node) = (Event::JobWaits(shared.term, entry.id(), chain(&error)), shared.node.clone());
            tokio::spawn(async move { node.send(waits).await });
            return;
        }
    };
    let (conflict, groups) = match fragment.operators.last() {
        Some(Operator::Materialize { conflict, groups, .. }) => (Some(*conflict), *groups),
        _ => (None, None),
    };
    let writable = conflict.is_some_and(|conflict| conflict != Conflict::None);
    if writable {
        shared.router.register_table(entry.id(), SlotId(id.instance), id);
    }
    let outputs: Vec<Divide> = outputs(placement, id, routes);
    let edges = outputs.iter().flat_map(|output| output.edges().iter().copied()).chain(listeners.iter().copied());
    let core = Actor::new(after, (placement.inputs(id), edges), follow.is_some(), FLOOR, &mut shared.pool());
    let actor = Fragment {
        id,
        core,
        inbox,
        pipeline,
        table: writable.then(|| Table::new(&entry.relation)),
        materialize: conflict.map(|conflict| Materialize::new(&entry.relation, conflict, (single, is_fresh))),
        groups,
        follow,
        outputs,
        listeners,
        changes: VecDeque::new(),
        slot: Edge::new(slot),
        db: slot.db.clone(),
        failed: FailedRows::new(
            &shared.usage,
            (entry.id(), entry.name()),
            (
                entry.job.on_error,
                RowLetters::new(
                    entry,
                    id.fragment.index,
                    single.map_or(letters::Place::Slot(slot.vnodes), letters::Place::Single),
                    &shared.functions,
                ),
            ),
        ),
        on_error: entry.job.on_error,
        work: Work::Apply,
        has_more: false,
        taken: 0,
        shared: shared.clone(),
    };
    let cancel = shared.group.token().clone();
    let clock = shared.usage.clock(entry.id(), entry.name());
    let task = clock.measure(actor.run((!is_fresh).then_some(after), cancel));
    shared.group.spawn("fragment", OnFailure::Log, task);
}

/// The relation that an actor follows, if its fragment begins with that.
fn follow(
    shared: &Shared,
    placement: &Placement<'_>,
    id: ActorId,
    slot: &slot::Handle,
    (after, is_fresh): (Epoch, bool),
) -> Result<Option<Upstream>, view::Error> {
    let query = placement.query();
    let fragment = &query.plan.fragments[usize::from(id.fragment.index)];
    let Some(Operator::Follow { relation, columns, cursors }) = fragment.operators.first() else { return Ok(None) };
    let reads = query.reads.iter().find(|reads| reads.relation == *relation);
    let entry = placement.catalog().get(*relation);
    let (Some(reads), Some(entry)) = (reads, entry) else {
        return Err(view::Error::new(format!("relation {relation}, which the plan follows, is not there")));
    };
    let vnodes = || (slot.vnodes.start..slot.vnodes.end).collect();
    let around = (slot.snapshots.clone(), shared.following.clone());
    if placement.blocks(id.fragment.index).is_some() {
        let place = (vnodes(), placement.forwarding(id.fragment.index));
        let input = (&entry.relation, reads);
        let history = History::new(id, input, (columns, *cursors), place, (after, is_fresh), around)?;
        return Ok(Some(Upstream::Blocks(Box::new(history))));
    }
    let places = reads.places(&entry.relation)?;
    let columns = columns.iter().map(|column| places[*column]).collect();
    let single = placement.single(id.fragment.index);
    let place = (single, single.map_or_else(vnodes, |vnode| vec![vnode]), is_fresh);
    let follow = Follow::new(id, Arc::clone(&entry.relation), (columns, *cursors), place, around);
    Ok(Some(Upstream::Rows(Box::new(follow))))
}

/// The outputs of an actor.
pub(crate) fn outputs(placement: &Placement<'_>, actor: ActorId, routes: &[Route]) -> Vec<Divide> {
    let slots = || routes.iter().map(|route| route.vnodes);
    placement.outputs(actor).into_iter().map(|(dispatch, edges)| Divide::new(dispatch, edges, slots())).collect()
}

impl Fragment {
    /// `committed`: the epoch whose state it takes up, unless it is new.
    async fn run(mut self, committed: Option<Epoch>, cancel: CancellationToken) -> Result<(), Infallible> {
        match Box::pin(cancel.run_until_cancelled(self.serve(committed))).await {
            Some(Ended::Failed(error)) => {
                let failed = Event::JobFailed(self.shared.term, self.id.fragment.job, error);
                self.shared.node.send(failed).await;
            }
            Some(Ended::Broken(error)) => self.shared.node.send(Event::Broken(self.shared.term, error)).await,
            Some(Ended::Closed | Ended::Stopped) | None => {}
        }
        Ok(())
    }

    async fn serve(&mut self, committed: Option<Epoch>) -> Ended {
        if let Some(committed) = committed
            && let Err(ended) = self.restore(committed).await
        {
            return ended;
        }
        loop {
            if let Err(ended) = self.work().await {
                return ended;
            }
            let Some(message) = self.inbox.recv().await else { return Ended::Closed };
            self.take(message);
        }
    }

    /// Takes up the cursors of the relation that it follows.
    async fn restore(&mut self, committed: Epoch) -> Result<(), Ended> {
        let Some(keys) = self.follow.as_ref().map(Upstream::cursor_keys) else { return Ok(()) };
        let found = self.read(keys).await?;
        let follow = self.follow.as_mut().expect("it was just there");
        Ok(follow.restore(&found, committed)?)
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Frame(edge, frame) => self.core.frame(edge, frame, &mut self.shared.pool()),
            Message::Credit(edge, credit) => self.core.credit(edge, credit),
            Message::Barrier(barrier) => {
                self.table.iter_mut().for_each(|table| table.announce(&barrier));
                if !barrier.opened_outputs.is_empty() || !barrier.closed_outputs.is_empty() {
                    self.changes.push_back(barrier.clone());
                }
                self.core.announce(barrier);
            }
            Message::Hold(hold) => self.table.as_mut().expect("only tables are written to").hold(hold),
            Message::Abandon(id) => self.table.as_mut().expect("only tables are written to").abandon(id),
            Message::Merge(merge) => self.table.as_mut().expect("only tables have messages").merge(merge),
        }
    }

    /// It has passed the barrier of an epoch.
    fn passed(&mut self, epoch: Epoch) {
        while let Some(change) = self.changes.pop_front_if(|change| change.epoch <= epoch) {
            self.listeners.retain(|edge| !change.closed_outputs.contains(edge));
            self.listeners.extend(change.opened_outputs);
        }
    }

    /// Works until it has to wait for a message.
    async fn work(&mut self) -> Result<(), Ended> {
        loop {
            while let Ok(message) = self.inbox.try_recv() {
                self.take(message);
            }
            let step = self.core.step(&mut self.shared.pool());
            match step {
                Step::Grant(edge, credit) => self.shared.router.send(edge.from, Message::Credit(edge, credit)),
                Step::Send(edge, frame) => self.shared.router.send(edge.to, Message::Frame(edge, frame)),
                Step::Begin(epoch) => {
                    self.follow.as_mut().expect("only followers begin with something").begin(epoch);
                    self.page().await?;
                }
                Step::Apply(edge, chunk) => {
                    let chunk = match &mut self.follow {
                        Some(follow) => follow.pass(&chunk),
                        None => chunk,
                    };
                    self.taken += usize::try_from(chunk.bytes()).unwrap_or(usize::MAX);
                    let outcome = self.pipeline.apply(edge.input, chunk);
                    self.finish(Work::Apply, outcome).await?;
                }
                Step::Resume if !self.has_more => self.page().await?,
                Step::Resume => {
                    let outcome = self.pipeline.resume();
                    self.finish(self.work, outcome).await?;
                }
                Step::Flush(epoch) => {
                    self.end(epoch).await?;
                    let outcome = self.pipeline.flush();
                    self.finish(Work::Flush, outcome).await?;
                }
                Step::Deliver(epoch) => {
                    self.passed(epoch);
                    self.slot.barrier(&Writer::Fragment(self.id), epoch, None).await?;
                }
                Step::Stop => return Err(Ended::Stopped),
                Step::Wait => return Ok(()),
            }
        }
    }

    /// Stores what waited for the end of an epoch.
    async fn end(&mut self, epoch: Epoch) -> Result<(), Ended> {
        let Some(table) = &mut self.table else { return Ok(()) };
        let (named, merges) = (table.end(epoch), table.take_merges());
        for chunk in named.map_err(|error| Ended::Broken(chain(&error)))? {
            self.emit(chunk).await?;
        }
        for Merge { rows, merged } in merges {
            let rows = Chunk::inserts(rows);
            let keys = self.learn(&rows).await?;
            let newer = self.materialize.as_ref().expect("a table stores its rows").newer(&keys, &rows);
            let answer = match newer {
                Ok(newer) => {
                    self.emit(newer).await?;
                    Ok(epoch)
                }
                Err(error) => Err(error),
            };
            // A replay that has gone away runs again.
            let _ = merged.send(answer);
        }
        Ok(())
    }

    /// Lets the operators work on the next part of the page of the relation that it follows.
    async fn page(&mut self) -> Result<(), Ended> {
        match self.follow.as_mut().expect("only followers read pages").page().await? {
            Some(chunk) => {
                let outcome = self.pipeline.apply(0, chunk);
                self.finish(Work::Page, outcome).await
            }
            None => {
                self.core.finish(Progress::Done);
                Ok(())
            }
        }
    }

    /// Sends on what the operators emitted, and reads for them until they can go no further.
    async fn finish(&mut self, mut work: Work, mut outcome: Result<Outcome, Failure>) -> Result<(), Ended> {
        loop {
            let Outcome { emitted, kept, failed, next } = outcome.map_err(|error| Ended::Failed(chain(&error)))?;
            if let Err(reason) = self.failed.note(&failed, |operator| self.pipeline.failing(operator)) {
                self.stop(reason).await;
                return Ok(());
            }
            if self.failed.bytes() >= WRITE_BYTES {
                let letters = self.failed.take();
                self.write(letters).await?;
            }
            for chunk in emitted {
                self.emit(chunk).await?;
            }
            if let Some(materialize) = &mut self.materialize {
                kept.into_iter().for_each(|rows| materialize.apply(&Chunk::inserts(rows)));
            }
            self.has_more = false;
            let progress = match next {
                Next::Need(keys) => {
                    let found = self.read(keys).await?;
                    outcome = self.pipeline.supply(found);
                    continue;
                }
                Next::Ranges(ranges) => {
                    let found = self.read_ranges(ranges).await?;
                    outcome = self.pipeline.supply_ranges(found);
                    continue;
                }
                Next::More => {
                    (self.work, self.has_more) = (work, true);
                    Progress::More
                }
                // The rest of the page comes once this part has left.
                Next::Done if work == Work::Page => Progress::More,
                Next::Done => Progress::Done,
            };
            match (work, progress) {
                (Work::Apply, Progress::Done) if self.is_short_of_memory() => {
                    debug!(actor = ?self.id, bytes = self.pipeline.bytes(), "writing before the epoch ends");
                    (work, outcome) = (Work::Relief, self.pipeline.flush());
                    continue;
                }
                (Work::Relief | Work::Flush, Progress::Done) => self.write_all(work).await?,
                _ => {}
            }
            self.core.finish(progress);
            return Ok(());
        }
    }

    /// True if the operators are to write what changed before the epoch ends. A job that stops at a
    /// failing row waits for its end, since a group may fail in between.
    ///
    /// The operators look at all their groups to tell their memory, so they are asked only once so
    /// much has come that it matters.
    fn is_short_of_memory(&mut self) -> bool {
        let limit = RELIEF * self.shared.memory.share();
        if self.on_error == OnError::Fail || self.taken < limit / WEIGHINGS {
            return false;
        }
        self.taken = 0;
        self.pipeline.bytes() > limit && self.pipeline.can_flush()
    }

    /// Stops the job, as far as this actor goes: from here on it discards what comes.
    async fn stop(&mut self, reason: String) {
        // The node hears of it before the slot gets the barrier of the epoch.
        let stopped = Event::JobStopped(self.shared.term, self.id.fragment.job, reason);
        self.shared.node.send(stopped).await;
        self.core.discard();
    }

    async fn emit(&mut self, chunk: Chunk) -> Result<(), Ended> {
        let chunk = self.store(chunk).await?;
        if chunk.rows().num_rows() == 0 {
            return Ok(());
        }
        for output in &self.outputs {
            for (edge, part) in output.divide(&chunk) {
                self.core.emit(edge, part);
            }
        }
        self.listeners.iter().for_each(|edge| self.core.emit(*edge, chunk.clone()));
        Ok(())
    }

    /// Stores rows, if the fragment does. Returns the changes that they make.
    async fn store(&mut self, mut chunk: Chunk) -> Result<Chunk, Ended> {
        let Some(materialize) = &mut self.materialize else { return Ok(chunk) };
        if materialize.reads(!self.listeners.is_empty()) {
            let keys = self.learn(&chunk).await?;
            let materialize = self.materialize.as_mut().expect("it was just there");
            chunk = materialize.resolve(&keys, &chunk).map_err(|error| Ended::Failed(chain(&error)))?;
        } else {
            materialize.apply(&chunk);
        }
        let materialize = self.materialize.as_mut().expect("it was just there");
        // Rows that are stored with their groups wait for these.
        if materialize.bytes() >= WRITE_BYTES && self.groups.is_none() {
            let changes = materialize.take();
            self.write(changes).await?;
        }
        Ok(chunk)
    }

    /// Reads the stored rows under the keys of others, as far as they are not known. Returns the
    /// keys of their entries.
    async fn learn(&mut self, rows: &Chunk) -> Result<Vec<Bytes>, Ended> {
        let materialize = self.materialize.as_mut().expect("only tables read their rows");
        let keys = materialize.keys(rows);
        let unknown = materialize.unknown(&keys);
        if !unknown.is_empty() {
            // Rows that are read before they change are known as long as they wait to be written.
            if !materialize.reads(!self.listeners.is_empty()) {
                let changes = materialize.take();
                self.write(changes).await?;
            }
            self.slot.applied().await?;
            let found = self.db.get(unknown.clone()).await.map_err(|error| Ended::Failed(chain(&error)))?;
            let materialize = self.materialize.as_mut().expect("it was just there");
            materialize.learn(&unknown, &found);
        }
        Ok(keys)
    }

    /// Reads entries of the state, with everything that this actor has written.
    async fn read(&self, wanted: Vec<StateKey>) -> Result<Vec<Option<Bytes>>, Ended> {
        self.slot.applied().await?;
        let stored = self.stored(&wanted).collect();
        let mut found = self.db.get(stored).await.map_err(|error| Ended::Failed(chain(&error)))?;
        for (_, entry) in wanted.iter().zip(&mut found).filter(|(key, _)| self.groups == Some(key.table)) {
            let group = entry.as_ref().map(row::group_of).transpose();
            *entry = group.map_err(|error| Ended::Failed(chain(&error)))?;
        }
        Ok(found)
    }

    async fn read_ranges(&self, wanted: Vec<StateRange>) -> Result<Vec<Vec<(Bytes, Bytes)>>, Ended> {
        self.slot.applied().await?;
        let job = self.id.fragment.job;
        let scan = |StateRange { table, vnode, prefix, after, limit }: StateRange| async move {
            let mut range = keys::state_range(job, table, vnode, &prefix);
            if let Some(after) = after {
                let mut start = Vec::new();
                keys::write_state_key(job, table, vnode, &prefix, &after, &mut start);
                // The least key above it.
                start.push(0);
                range.start = start.into();
            }
            let entries = self.db.scan_prefix(range, limit).await?;
            Ok(entries.into_iter().map(|(key, value)| (key.slice(keys::STATE_PREFIX..), value)).collect())
        };
        let found = stream::iter(wanted).map(scan).buffered(RANGES_MAX).try_collect().await;
        found.map_err(|error: state::Error| Ended::Failed(chain(&error)))
    }

    /// Writes what changed since the last flush.
    async fn write_all(&mut self, work: Work) -> Result<(), Ended> {
        let mut writes = self.pipeline.take_writes();
        if work == Work::Flush {
            writes.extend(self.follow.iter_mut().flat_map(Upstream::take_writes));
        }
        let (groups, others) = writes.into_iter().partition(|write| self.groups == Some(write.key.table));
        // The database inserts neighbours faster.
        let sort = |entries: &mut Entries| entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut groups = self.stored_writes(groups);
        sort(&mut groups);
        let mut changes = self.stored_writes(others);
        changes.append(&mut self.failed.take());
        sort(&mut changes);
        if let Some(materialize) = &mut self.materialize {
            let rows = if self.groups.is_some() { materialize.take_with(groups) } else { materialize.take() };
            changes.extend(rows);
        }
        let has_changed = !changes.is_empty();
        let (mut part, mut bytes) = (Entries::new(), 0);
        for (key, value) in changes {
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            part.push((key, value));
            if bytes >= WRITE_BYTES {
                self.write(std::mem::take(&mut part)).await?;
                bytes = 0;
            }
        }
        self.write(part).await?;
        // Reads wait until the slot has applied what was written before.
        self.pipeline.applied();
        let share = self.shared.memory.share();
        if has_changed && self.pipeline.bytes() > share {
            self.pipeline.evict(share);
        }
        self.materialize.iter_mut().filter(|rows| rows.known_bytes() > share).for_each(Materialize::forget);
        Ok(())
    }

    async fn write(&self, changes: Entries) -> Result<(), Ended> {
        match changes.is_empty() {
            true => Ok(()),
            false => Ok(self.slot.write(&Writer::Fragment(self.id), changes).await?),
        }
    }

    /// The stored forms of keys of the state.
    fn stored(&self, keys: &[StateKey]) -> impl Iterator<Item = Bytes> + use<> {
        let mut stored = Slices::default();
        for StateKey { table, vnode, key, prefix } in keys {
            let job = self.id.fragment.job;
            stored.push(|out| match self.groups == Some(*table) {
                true => keys::write_row_key(job, *vnode, key, out),
                false => keys::write_state_key(job, *table, *vnode, &key[..*prefix], key, out),
            });
        }
        stored.finish()
    }

    /// The stored forms of changes of the state.
    fn stored_writes(&self, writes: Vec<StateWrite>) -> Entries {
        let (keys, values): (Vec<StateKey>, Vec<Option<Bytes>>) =
            writes.into_iter().map(|write| (write.key, write.value)).unzip();
        self.stored(&keys).zip(values).collect()
    }
}

//! A slot: one of the node's parallel places. Its task applies the writes of its actors to its
//! database, seals epochs when [`crate::storage::seal`] says so, and keeps a snapshot of every
//! sealed epoch that may still be read.
//!
//! Actors reach it through one bounded channel. An actor holds a credit for each write that is not
//! applied yet. An actor that is ahead of the seal therefore runs out of credits and stops reading,
//! while the other actors and all barriers still pass.
//!
//! Messages of meta come through a channel of their own, which stays free when the slot cannot
//! write. However long the object store keeps writes waiting, the node goes on answering meta, and
//! is slow instead of lost.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, info, info_span, warn};
use uuid::Uuid;
use weir_common::error::{Kind, chain};
use weir_common::ids::{Epoch, SlotId, TableId, TermId, VnodeRange};
use weir_common::position::Position;
use weir_common::rpc;
use weir_common::task::{Group, OnFailure};
use weir_common::telemetry::trace;

use super::entries::Entries;
use super::seal::{Change, Seal, Sealer};
use super::state::{SlotDb, Snapshot};
use crate::control::event::{Event, Inputs, SlotEpoch};
use crate::control::plan::Writer;
use crate::metrics::Metrics;

/// Messages of its actors waiting for the slot: of each actor at most its credits and its barriers.
const INBOX_MAX: usize = 64;
/// Barriers and commits waiting for the slot: at most 4 barriers are in flight, each with its
/// commit.
const CONTROL_MAX: usize = 16;
/// The slot warns at most once in this time that compaction does not keep up.
const COMPACTION_WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// This many stale checkpoints gather before they are deleted together, since each deletion
/// rewrites the database's manifest.
const STALE_CHECKPOINTS_MAX: usize = 8;
/// After this time fewer are deleted too. Otherwise an idle slot would keep for ever the data that
/// only they reach, such as databases of dead terms.
const STALE_CHECKPOINTS_AGE: Duration = Duration::from_secs(10);

/// A message of the node to a slot.
pub(crate) enum Control {
    /// A barrier is on its way to the actors.
    Inject { epoch: Epoch, change: Change, lowest_pinned: Epoch, dropped: Vec<TableId>, span: Span },
    /// The epoch is committed: older checkpoints are not needed any more.
    Committed(Epoch),
}

/// A message of an actor, or of a replay, to a slot.
pub(crate) enum Message {
    /// A block, rows of a keyed table, or state of operators. The credit is returned once they are
    /// applied.
    Write { actor: Writer, entries: Entries, credit: OwnedSemaphorePermit },
    /// A barrier, with the position of an actor that reads a split.
    Barrier { actor: Writer, epoch: Epoch, position: Option<Position> },
    /// The rows and remaining letters of a replayed block of dead letters, written together, in no
    /// epoch before `not_before`. Answered once written.
    Replace { table: TableId, entries: Entries, not_before: Epoch, done: oneshot::Sender<()> },
}

/// Sealed epochs that may be read.
pub(crate) type Snapshots = Arc<BTreeMap<Epoch, Snapshot>>;

/// Reaches a slot. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) vnodes: VnodeRange,
    /// Its database, for actors that read their state. Only the slot writes to it.
    pub(crate) db: SlotDb,
    pub(crate) control: mpsc::Sender<Control>,
    pub(crate) inbox: mpsc::Sender<Message>,
    pub(crate) snapshots: watch::Receiver<Snapshots>,
}

impl Handle {
    /// Has the slot write the rows and remaining letters of a replayed block, in no epoch before
    /// `not_before`.
    ///
    /// # Errors
    /// If the slot ends, or the table was dropped.
    pub(crate) async fn replace(&self, table: TableId, entries: Entries, not_before: Epoch) -> Result<(), rpc::Error> {
        let (done, written) = oneshot::channel();
        self.inbox.send(Message::Replace { table, entries, not_before, done }).await.map_err(|_| ended())?;
        written.await.map_err(|_| ended())
    }
}

/// The error of a slot that takes no more messages, or none of a table that was dropped.
pub(crate) fn ended() -> rpc::Error {
    rpc::Error::new(Kind::Unavailable, "the term ended, or the table was dropped, while its dead letters were replayed")
}

/// Entries that are written together.
struct Write {
    entries: Entries,
    told: Told,
}

/// The one that is told once they are written.
enum Told {
    /// An actor gets its credit back.
    Actor(#[expect(dead_code, reason = "held to be dropped")] OwnedSemaphorePermit),
    /// A replay of a table's dead letters goes on.
    Replay(TableId, oneshot::Sender<()>),
}

/// A slot's task.
pub(crate) struct Slot {
    term: TermId,
    id: SlotId,
    db: SlotDb,
    sealer: Sealer<Write>,
    /// The tables that were dropped in this term. Only their actors still write to them.
    dropped: HashSet<TableId>,
    control: mpsc::Receiver<Control>,
    inbox: mpsc::Receiver<Message>,
    snapshots: watch::Sender<Snapshots>,
    node: Inputs,
    group: Group,
    metrics: Metrics,
    /// True if anything was written since the newest checkpoint.
    dirty: bool,
    /// The newest durable or pending checkpoint. Epochs that wrote nothing after it share it.
    newest: Option<watch::Receiver<Option<Uuid>>>,
    /// Checkpoints by the first epoch that they hold, oldest first.
    checkpoints: VecDeque<(Epoch, watch::Receiver<Option<Uuid>>)>,
    /// The time at which stale checkpoints were last deleted.
    deleted: Instant,
    /// The earliest time for the next warning that compaction does not keep up.
    next_compaction_warning: Instant,
    /// The spans of barriers that are on their way. Each ends when its epoch is durable.
    spans: BTreeMap<Epoch, Span>,
}

impl Slot {
    /// Starts the slot over its open database, which holds the committed `epoch`.
    ///
    /// # Errors
    /// If the database is closed already.
    pub(crate) fn spawn(
        term: TermId,
        (id, vnodes): (SlotId, VnodeRange),
        epoch: Epoch,
        db: SlotDb,
        actors: Vec<Writer>,
        (node, group, metrics): (Inputs, &Group, Metrics),
    ) -> Result<Handle, crate::storage::state::Error> {
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        let (control_sender, control) = mpsc::channel(CONTROL_MAX);
        let committed = Arc::new(BTreeMap::from([(epoch, db.snapshot()?)]));
        let (snapshots, receiver) = watch::channel(committed);
        let handle = Handle { vnodes, db: db.clone(), control: control_sender, inbox: sender, snapshots: receiver };
        let slot = Slot {
            term,
            id,
            db,
            sealer: Sealer::new(epoch, actors),
            dropped: HashSet::new(),
            control,
            inbox,
            snapshots,
            node,
            group: group.clone(),
            metrics,
            dirty: false,
            newest: None,
            checkpoints: VecDeque::new(),
            deleted: Instant::now(),
            next_compaction_warning: Instant::now(),
            spans: BTreeMap::new(),
        };
        let reclaim = slot.db.clone().reclaim();
        group.spawn("reclaim", OnFailure::Log, async move {
            reclaim.await;
            Ok::<_, std::convert::Infallible>(())
        });
        group.spawn("slot", OnFailure::Log, slot.run(group.token().clone()));
        Ok(handle)
    }

    async fn run(mut self, cancel: CancellationToken) -> Result<(), std::convert::Infallible> {
        let ended = cancel.run_until_cancelled(self.serve()).await;
        if let Some(Err(error)) = ended {
            self.node.send(Event::Broken(self.term, chain(&error))).await;
        }
        // Readers of old snapshots keep their own handles. Nothing new is read from this term.
        self.snapshots.send_replace(Arc::default());
        self.db.close().await;
        Ok(())
    }

    async fn serve(&mut self) -> Result<(), crate::storage::state::Error> {
        let db = self.db.clone();
        let closed = db.closed();
        tokio::pin!(closed);
        loop {
            tokio::select! {
                biased;
                error = &mut closed => return Err(error),
                Some(control) = self.control.recv() => self.obey(control),
                Some(message) = self.inbox.recv() => {
                    // The node sends a barrier to the slot before it sends it to the actors, so the
                    // slot must take it before an actor's answer. It may have come since the select
                    // above looked.
                    while let Ok(control) = self.control.try_recv() {
                        self.obey(control);
                    }
                    self.take(message).await?;
                }
            }
            self.seal().await?;
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), crate::storage::state::Error> {
        match message {
            Message::Write { actor, entries, credit } => {
                if let Some(write) = self.sealer.write(&actor, Write { entries, told: Told::Actor(credit) }) {
                    self.apply(write).await?;
                }
            }
            Message::Barrier { actor, epoch, position } => {
                let span = self.spans.get(&epoch).and_then(Span::id);
                info!(target: trace::TARGET, parent: span, job = %actor.job(), %actor, "barrier delivered");
                self.sealer.barrier(&actor, epoch, position);
            }
            Message::Replace { table, entries, not_before, done } => {
                let write = Write { entries, told: Told::Replay(table, done) };
                if let Some(write) = self.sealer.write_no_earlier(not_before, write) {
                    self.apply(write).await?;
                }
            }
        }
        Ok(())
    }

    fn obey(&mut self, control: Control) {
        match control {
            Control::Inject { epoch, change, lowest_pinned, dropped, span } => {
                self.spans.insert(epoch, span);
                self.sealer.inject(epoch, change);
                self.snapshots.send_if_modified(|snapshots| {
                    let stale = snapshots.first_key_value().is_some_and(|(oldest, _)| *oldest < lowest_pinned);
                    if stale {
                        Arc::make_mut(snapshots).retain(|epoch, _| *epoch >= lowest_pinned);
                    }
                    stale
                });
                for table in dropped {
                    self.dropped.insert(table);
                    self.db.drop_table(table);
                }
            }
            Control::Committed(epoch) => self.forget_before(epoch),
        }
    }

    async fn apply(&mut self, write: Write) -> Result<(), crate::storage::state::Error> {
        if matches!(&write.told, Told::Replay(table, _) if self.dropped.contains(table)) {
            return Ok(());
        }
        self.dirty = true;
        self.db.write(write.entries).await?;
        if let Told::Replay(_, done) = write.told {
            // A replay that has gone away runs again.
            let _ = done.send(());
        }
        Ok(())
    }

    async fn seal(&mut self) -> Result<(), crate::storage::state::Error> {
        while let Some(seal) = self.sealer.seal() {
            let started = Instant::now();
            let snapshot = self.db.snapshot()?;
            self.snapshots.send_modify(|snapshots| {
                Arc::make_mut(snapshots).insert(seal.epoch, snapshot);
            });
            let span = self.spans.remove(&seal.epoch).unwrap_or_else(Span::none);
            self.checkpoint(seal, span).await?;
            let slot = KeyValue::new("slot", i64::from(self.id.0));
            self.metrics.seal_seconds.record(started.elapsed().as_secs_f64(), std::slice::from_ref(&slot));
            for write in self.sealer.sealed() {
                self.apply(write).await?;
            }
            self.record_gauges(slot);
        }
        Ok(())
    }

    /// Makes a checkpoint, or takes the newest one if nothing was written since, and reports it
    /// once it is durable. Nothing is written before this returns.
    async fn checkpoint(&mut self, seal: Seal, span: Span) -> Result<(), crate::storage::state::Error> {
        let (node, term, slot) = (self.node.clone(), self.term, self.id);
        let durable = info_span!(target: trace::TARGET, parent: &span, "durable");
        let report = move |checkpoint: Uuid| async move {
            let epoch = SlotEpoch { slot, epoch: seal.epoch, checkpoint, positions: seal.positions };
            node.send(Event::SlotDurable(term, epoch)).await;
            drop((durable, span));
        };
        if let Some(newest) = self.newest.clone().filter(|_| !self.dirty) {
            self.group.spawn("reuse checkpoint", OnFailure::Log, async move {
                let mut newest = newest;
                // The sender goes away without a value only if the checkpoint failed, which has
                // ended the term.
                if let Ok(checkpoint) = newest.wait_for(Option::is_some).await.map(|checkpoint| *checkpoint) {
                    report(checkpoint.expect("waited for")).await;
                }
                Ok::<_, std::convert::Infallible>(())
            });
            return Ok(());
        }
        let pending = self.db.begin_checkpoint().await?;
        self.dirty = false;
        let (durable, receiver) = watch::channel(None);
        self.newest = Some(receiver.clone());
        self.checkpoints.push_back((seal.epoch, receiver));
        let (node, histogram) = (self.node.clone(), self.metrics.durable_seconds.clone());
        let started = Instant::now();
        self.group.spawn("checkpoint", OnFailure::Log, async move {
            match pending.wait().await {
                Ok(checkpoint) => {
                    histogram.record(started.elapsed().as_secs_f64(), &[]);
                    durable.send_replace(Some(checkpoint));
                    report(checkpoint).await;
                }
                // The checkpoint may exist or not, so the term cannot go on.
                Err(error) => node.send(Event::Broken(term, chain(&error))).await,
            }
            Ok::<_, std::convert::Infallible>(())
        });
        Ok(())
    }

    /// Deletes the checkpoints that only epochs before `committed` needed, several at a time.
    fn forget_before(&mut self, committed: Epoch) {
        let needed = self.checkpoints.iter().rposition(|(epoch, _)| *epoch <= committed).unwrap_or(0);
        let due = needed >= STALE_CHECKPOINTS_MAX || self.deleted.elapsed() >= STALE_CHECKPOINTS_AGE;
        if needed == 0 || !due {
            return;
        }
        self.deleted = Instant::now();
        let stale: Vec<Uuid> =
            self.checkpoints.drain(..needed).filter_map(|(_, checkpoint)| *checkpoint.borrow()).collect();
        let db = self.db.clone();
        self.group.spawn("delete checkpoints", OnFailure::Log, async move {
            for checkpoint in stale {
                if let Err(error) = db.delete_checkpoint(checkpoint).await {
                    // It holds back files until the database itself is garbage.
                    debug!(%checkpoint, error = chain(&error), "cannot delete a checkpoint");
                }
            }
            Ok::<_, std::convert::Infallible>(())
        });
    }

    fn record_gauges(&mut self, slot: KeyValue) {
        let gauges = self.db.gauges();
        let labels = [slot];
        let count = |value: usize| value as u64;
        self.metrics.l0_ssts.record(count(gauges.l0_ssts), &labels);
        self.metrics.ancestors.record(count(gauges.ancestors), &labels);
        self.metrics.state_bytes.record(gauges.bytes, &labels);
        let now = Instant::now();
        if gauges.l0_ssts > L0_SSTS_NOTABLE && self.next_compaction_warning <= now {
            warn!(slot = %self.id, l0_ssts = gauges.l0_ssts, "compaction does not keep up");
            self.next_compaction_warning = now + COMPACTION_WARNING_INTERVAL;
        }
    }
}

/// Far above the number that checkpoints leave between two looks of the compactor, and well below
/// the number at which writes stall.
const L0_SSTS_NOTABLE: usize = 2048;

//! The coordinator's task: carries out what [`super::state`] decides. Owns the core, the outboxes
//! of the nodes and the calls to the metadata store that are under way; every call ends as an input
//! of the loop, so that the core is never waited for and never waits.
//!
//! The catalog is written by one call at a time: a DDL statement or the mark of a job that stopped,
//! of which the core is told afterwards, or a claim that marks jobs. So no mark brings back a
//! table that a statement drops meanwhile. `decide` decides on DDL statements.

mod decide;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, error, info, info_span, warn};
use weir_common::catalog::{Change, Changed, Declaration, Entry, Graph, JobState, SplitStart};
use weir_common::error::{Kind, chain};
use weir_common::head::Head;
use weir_common::ids::{Epoch, NodeId, SchemaId, SlotId, StatementId, TableId, TermId};
use weir_common::telemetry::trace::{self, TraceParent};
use weir_common::{rpc, running};
use weir_proto::ToNode;

use super::ddl::{Decided, Dropping};
use super::event::{Action, Event, Mutation, Outcome, Serving, Waiter};
use super::failures;
use super::state::Coordinator;
use super::statements::{REMEMBERED, Statement};
use super::storage::{CatalogTxn, Storage};
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::wire;

/// How often time is let pass in the core: the granularity of barrier intervals and timeouts.
const TICK: Duration = Duration::from_millis(10);
/// Old records of statements are deleted together, this often.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// Inputs waiting for the loop. The loop never waits for anything, so a full queue only means a
/// burst.
const INPUTS_MAX: usize = 1024;

/// What the loop takes in.
pub(crate) enum Input {
    /// Something that concerns the core alone.
    Event(Event),
    /// A node opened its control stream.
    Attach(Attachment),
    /// A statement wants to read.
    Pin(oneshot::Sender<Pinned>),
    /// Pins are still in use.
    RenewPins(Vec<u64>),
    /// Pins are not needed any more.
    ReleasePins(Vec<u64>),
    /// Someone waits for a checkpoint.
    Flush(oneshot::Sender<Epoch>),
    /// A statement whose rows a term holds is to be committed. Answered with the epoch.
    Statement(TermId, Statement, Committing),
    /// A DDL statement.
    Ddl(Ddl),
    /// Someone wants to see the catalog.
    Catalog(oneshot::Sender<(u64, Graph)>),
    /// Someone wants to see the cluster.
    Cluster(oneshot::Sender<ClusterView>),
    /// A node cannot do its work; an empty text: it can again.
    Trouble(NodeId, String),
    /// A read of the head for pins has ended.
    HeadRead(Option<Head>),
    /// A DDL transaction has ended.
    DdlStored(DdlStored),
    /// A node has made the survey of this number.
    Surveyed(NodeId, u64),
    /// The head as it was read after the node's survey.
    Reachable(NodeId, u64, Option<Head>),
}

/// The reply to those who commit a statement.
pub(crate) type Committing = oneshot::Sender<Result<Epoch, rpc::Error>>;

/// A node's control stream.
pub(crate) struct Attachment {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    pub(crate) parallelism: usize,
    /// What the node is told. Bounded: a node that does not read is disconnected.
    pub(crate) outbox: mpsc::Sender<ToNode>,
    /// Ends the stream.
    pub(crate) disconnect: CancellationToken,
}

/// A pinned epoch and where it is served.
pub(crate) struct Pinned {
    pub(crate) pin: u64,
    pub(crate) serving: Serving,
    pub(crate) catalog_version: u64,
}

/// The cluster as the coordinator sees it.
pub(crate) struct ClusterView {
    pub(crate) term: TermId,
    pub(crate) epoch: Epoch,
    pub(crate) nodes: Vec<(NodeId, String, &'static str, Vec<SlotId>)>,
    /// What is wrong with nodes.
    pub(crate) troubles: BTreeMap<NodeId, String>,
}

/// What was found out of a relation that is to be created.
#[derive(Debug, Default)]
pub(crate) struct Begin {
    /// Where it begins.
    pub(crate) splits: Vec<SplitStart>,
    /// Whether its stream loses what is acknowledged.
    pub(crate) consumes: bool,
    /// The rows a second that its job reads at most of those that its inputs have already.
    pub(crate) backfill_rate: Option<u32>,
    /// The name by which its consumers are known; `None`: its own.
    pub(crate) consumers: Option<String>,
}

/// A DDL statement and who waits for it.
pub(crate) enum Ddl {
    /// Create a relation whose stream was checked.
    Create {
        new: Box<Declaration>,
        begin: Begin,
        if_not_exists: bool,
        /// The relation's id, and whether this statement created it.
        reply: oneshot::Sender<Result<(TableId, bool), rpc::Error>>,
    },
    /// Change a relation whose new options were checked.
    Alter { declared: Box<Declaration>, reply: oneshot::Sender<Result<(), rpc::Error>> },
    /// Drop relations or schemas.
    Drop { dropping: Dropping, reply: DropReply },
    /// Change names, schemas, comments or a plain view.
    Change { change: Box<Change>, reply: oneshot::Sender<Result<(), rpc::Error>> },
    /// Mark the job of an entry failed.
    Fail(Box<Entry>),
}

/// A DDL transaction that has ended: the catalog's new version, or why there is none.
pub(crate) struct DdlStored {
    result: Result<u64, crate::store::Error>,
    change: DdlChange,
}

enum DdlChange {
    Created(Entry, oneshot::Sender<Result<(TableId, bool), rpc::Error>>),
    Altered(Entry, oneshot::Sender<Result<(), rpc::Error>>),
    Dropped(Dropped, DropReply),
    Changed(Changed, oneshot::Sender<Result<(), rpc::Error>>),
    Failed(Entry),
}

/// The entries and schemas that a DROP comes to.
pub(crate) struct Dropped {
    /// Each before those that it depended on.
    entries: Vec<Entry>,
    schemas: Vec<SchemaId>,
}

/// The reply to a DROP: all entries that were dropped, each before those that it depended on. `None`:
/// a schema has entries that whoever asked does not know of.
pub(crate) type DropReply = oneshot::Sender<Result<Option<Vec<Entry>>, rpc::Error>>;

/// The call under way that writes the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CatalogWrite {
    None,
    Ddl,
    /// A claim that marks jobs. If its outcome is unknown it lasts until another claim has
    /// succeeded: only then can it not happen late.
    Claim,
}

/// What a term is claimed with.
struct Claim {
    expected: u64,
    head: Head,
    marked: Vec<Entry>,
}

/// A barrier that is on its way, from its injection to the commit of its epoch.
struct Injected {
    at: Instant,
    span: Span,
}

/// Those who wait for a commit.
enum Waiting {
    Flush(oneshot::Sender<Epoch>),
    Created(TableId, oneshot::Sender<Result<(TableId, bool), rpc::Error>>),
    Altered(oneshot::Sender<Result<(), rpc::Error>>),
    Dropped(Vec<Entry>, DropReply),
    Statement(StatementId, Committing),
}

/// How others talk to the coordinator of the present reign. Cheap to clone; fails once the reign
/// has ended.
#[derive(Clone)]
pub(crate) struct Handle {
    inputs: mpsc::Sender<Input>,
}

impl Handle {
    /// Hands an input over.
    ///
    /// # Errors
    /// If the reign has ended.
    pub(crate) async fn send(&self, input: Input) -> Result<(), rpc::Error> {
        self.inputs.send(input).await.map_err(|_| not_leading())
    }

    /// Hands an input over and waits for its answer.
    ///
    /// # Errors
    /// If the reign ends first. If it ends after the input was handed over, it is not known whether
    /// it was carried out: a DDL statement may be in the catalog that the next leader reads.
    pub(crate) async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, rpc::Error> {
        let (reply, answer) = oneshot::channel();
        self.send(input(reply)).await?;
        answer.await.map_err(|_| not_leading().with_outcome_unknown())
    }
}

/// The answer of a meta node that does not lead.
pub(crate) fn not_leading() -> rpc::Error {
    rpc::Error::new(Kind::Unavailable, "this meta node is not the leader")
}

/// The task of one reign.
pub(crate) struct Task {
    core: Coordinator,
    storage: Arc<Storage>,
    metrics: Metrics,
    /// The core's time: what a node is given counts only while this process runs.
    clock: running::Clock,
    inputs: mpsc::Receiver<Input>,
    calls: JoinSet<Input>,
    outboxes: BTreeMap<NodeId, (mpsc::Sender<ToNode>, CancellationToken)>,
    waiting: BTreeMap<Waiter, Waiting>,
    last_waiter: u64,
    catalog_version: u64,
    next_id: TableId,
    ddl: VecDeque<Ddl>,
    catalog_write: CatalogWrite,
    /// A claim that marks jobs and waits for the DDL statement under way.
    held_claim: Option<Claim>,
    pin_waiters: Vec<oneshot::Sender<Pinned>>,
    /// Pin waiters that the read of the head under way began after: they may be served by it.
    pins_being_read: Vec<oneshot::Sender<Pinned>>,
    head_read_under_way: bool,
    injected: BTreeMap<Epoch, Injected>,
    /// Epochs with records of statements, the oldest first.
    named: VecDeque<(Instant, Epoch)>,
    /// What nodes say is wrong with them, for whoever looks at the cluster.
    troubles: BTreeMap<NodeId, String>,
    garbage_interval: Duration,
    garbage_due: Option<Instant>,
    last_survey: u64,
}

/// What a reign begins with, besides what the core loads itself.
pub(crate) struct Beginning {
    pub(crate) core: Coordinator,
    pub(crate) storage: Arc<Storage>,
    pub(crate) metrics: Metrics,
    pub(crate) catalog_version: u64,
    pub(crate) next_id: TableId,
    /// How often databases of dead terms are collected.
    pub(crate) garbage_interval: Duration,
}

impl Task {
    /// A task and the handle to it.
    pub(crate) fn new(beginning: Beginning) -> (Handle, Task) {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let task = Task {
            core: beginning.core,
            storage: beginning.storage,
            metrics: beginning.metrics,
            clock: running::Clock::start(),
            inputs,
            calls: JoinSet::new(),
            outboxes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_waiter: 0,
            catalog_version: beginning.catalog_version,
            next_id: beginning.next_id,
            ddl: VecDeque::new(),
            catalog_write: CatalogWrite::None,
            held_claim: None,
            pin_waiters: Vec::new(),
            pins_being_read: Vec::new(),
            head_read_under_way: false,
            injected: BTreeMap::new(),
            named: VecDeque::new(),
            troubles: BTreeMap::new(),
            garbage_interval: beginning.garbage_interval,
            garbage_due: None,
            last_survey: 0,
        };
        (Handle { inputs: sender }, task)
    }

    /// Runs until leadership is lost or given up.
    pub(crate) async fn run(mut self, lost: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                biased;
                () = lost.cancelled() => break,
                Some(call) = self.calls.join_next() => match call {
                    Ok(input) => input,
                    Err(panic) => {
                        error!(error = %panic, "call to the metadata store panicked, giving leadership up");
                        break;
                    }
                },
                Some(input) = self.inputs.recv() => input,
                _ = tick.tick() => Input::Event(Event::Tick),
            };
            if self.take(input).is_break() {
                break;
            }
            self.next_ddl();
            self.read_head_for_pins();
            self.survey();
        }
        for (_, disconnect) in self.outboxes.values() {
            disconnect.cancel();
        }
    }

    fn take(&mut self, input: Input) -> std::ops::ControlFlow<()> {
        match input {
            Input::Event(event) => return self.apply(event),
            Input::Attach(attachment) => return self.attach(attachment),
            Input::Pin(reply) => self.pin_waiters.push(reply),
            Input::RenewPins(pins) => self.core.renew_pins(&pins, self.clock.elapsed()),
            Input::ReleasePins(pins) => self.core.release_pins(&pins),
            Input::Flush(reply) => {
                let waiter = self.wait(Waiting::Flush(reply));
                return self.apply(Event::Flush(waiter));
            }
            Input::Statement(term, statement, reply) => {
                let waiter = self.wait(Waiting::Statement(statement.id, reply));
                return self.apply(Event::Statement(term, statement, waiter));
            }
            Input::Ddl(ddl) => self.ddl.push_back(ddl),
            Input::Catalog(reply) => {
                // A receiver that went away does not need the answer; so below.
                let _ = reply.send((self.catalog_version, self.core.catalog().clone()));
            }
            Input::Cluster(reply) => {
                let (term, epoch) = self.core.progress();
                let (nodes, troubles) = (self.core.cluster(), self.troubles.clone());
                let _ = reply.send(ClusterView { term, epoch, nodes, troubles });
            }
            Input::Trouble(node, trouble) if trouble.is_empty() => drop(self.troubles.remove(&node)),
            Input::Trouble(node, trouble) => drop(self.troubles.insert(node, trouble)),
            Input::HeadRead(head) => self.pin(head),
            Input::DdlStored(stored) => return self.ddl_stored(stored),
            Input::Surveyed(node, survey) => {
                let storage = Arc::clone(&self.storage);
                self.calls.spawn(async move { Input::Reachable(node, survey, storage.read_head().await) });
            }
            Input::Reachable(node, survey, head) => self.collect_garbage(&node, survey, head),
        }
        std::ops::ControlFlow::Continue(())
    }

    fn apply(&mut self, event: Event) -> std::ops::ControlFlow<()> {
        match &event {
            Event::TermFailed(node, term, error) => info!(%node, %term, error, "node cannot go on with the term"),
            Event::JobFailed { term, job, error, .. } => warn!(%term, table = %job, error, "job failed"),
            Event::NodeLost(node) => {
                self.outboxes.remove(node);
                self.troubles.remove(node);
                self.metrics.nodes.record(self.outboxes.len() as u64, &[]);
            }
            Event::Claimed(_, Outcome::Applied(revision)) if self.catalog_write == CatalogWrite::Claim => {
                self.catalog_version = *revision;
                self.catalog_write = CatalogWrite::None;
            }
            _ => {}
        }
        for action in self.core.apply(event, self.clock.elapsed()) {
            if matches!(action, Action::StepDown) {
                info!("another meta node leads");
                return std::ops::ControlFlow::Break(());
            }
            self.perform(action);
        }
        std::ops::ControlFlow::Continue(())
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Load => {
                let storage = Arc::clone(&self.storage);
                self.calls.spawn(async move { Input::Event(storage.load().await) });
            }
            Action::Claim { expected, head, marked } => {
                info!(term = %head.term, epoch = %head.epoch, "claiming a term");
                self.metrics.terms.add(1, &[]);
                self.injected.clear();
                self.claim(Claim { expected, head, marked });
            }
            Action::Commit { expected, head, pages, statements } => {
                self.named.extend((!statements.is_empty()).then(|| (Instant::now(), head.epoch)));
                let storage = Arc::clone(&self.storage);
                let barrier = self.injected.get(&head.epoch).map_or_else(Span::none, |injected| injected.span.clone());
                let span = info_span!(
                    target: trace::TARGET, parent: &barrier, "commit", term = %head.term, epoch = %head.epoch
                );
                let commit = async move {
                    let outcome = storage.commit(expected, &head, &pages, &statements).await;
                    Input::Event(Event::Committed(head.term, head.epoch, outcome))
                };
                self.calls.spawn(commit.instrument(span));
            }
            Action::Fail(entry) => {
                if let JobState::Failed { error, .. } = &entry.job.state {
                    warn!(table = %entry.id(), name = %entry.name(), error, "job failed, and stops alone");
                }
                self.ddl.push_front(Ddl::Fail(Box::new(entry)));
            }
            Action::Forget(pages) => self.forget(pages),
            Action::StartTerm { node, term, epoch, placement, addresses, catalog } => {
                let message = wire::start_term(&node, (term, epoch), &placement, &addresses, &catalog);
                self.tell(&node, message);
            }
            Action::StopTerm(node, term) => self.tell(&node, wire::stop_term(term)),
            Action::Inject { term, epoch, lowest_pinned, mutation, statements, nodes } => {
                self.inject((term, epoch), lowest_pinned, mutation.as_ref(), &statements, &nodes);
            }
            Action::Announce { term, epoch, nodes } => self.announce(term, epoch, &nodes),
            Action::Resolve(waiter, epoch) => self.resolve(waiter, epoch),
            Action::Recall(waiter) => self.recall(waiter),
            Action::Disconnect(node, reason) => {
                warn!(%node, reason, "disconnecting a compute node");
                if let Some((_, disconnect)) = self.outboxes.remove(&node) {
                    disconnect.cancel();
                }
            }
            Action::Release(node) => {
                info!(%node, "node holds nothing any more, releasing it");
                let released = weir_proto::to_node::Message::Released(weir_proto::Released {});
                self.tell(&node, wire::to_node(released));
            }
            Action::StepDown => unreachable!("handled by the caller"),
        }
    }

    fn claim(&mut self, claim: Claim) {
        if !claim.marked.is_empty() && self.catalog_write == CatalogWrite::Ddl {
            self.held_claim = Some(claim);
            return;
        }
        let Claim { expected, head, marked } = claim;
        let marked = self.still_marked(marked);
        failures::tell(&marked);
        let next = (!marked.is_empty()).then_some(self.next_id);
        if next.is_some() {
            self.catalog_write = CatalogWrite::Claim;
        }
        let storage = Arc::clone(&self.storage);
        self.calls.spawn(async move {
            let outcome = storage.claim(expected, &head, &marked, next).await;
            Input::Event(Event::Claimed(head.term, outcome))
        });
    }

    /// The entries that are still to be marked, as they are now. An entry that was dropped,
    /// or altered, while its mark waited is not to be written again; it may have got another name.
    fn still_marked(&self, marked: Vec<Entry>) -> Vec<Entry> {
        let marked = marked.into_iter().filter(|marked| self.core.is_marked(marked.id()));
        let now = |marked: Entry| Some(self.core.catalog().get(marked.id())?.with_state(marked.job.state.clone()));
        marked.filter_map(now).collect()
    }

    // --------------------------------------------------------------------------------------- nodes

    fn attach(&mut self, attachment: Attachment) -> std::ops::ControlFlow<()> {
        let Attachment { node, address, parallelism, outbox, disconnect } = attachment;
        info!(%node, address, parallelism, "compute node joined");
        // A node that is back before its old stream was found broken.
        let before = self.core.cluster().into_iter().filter(|(_, known, ..)| *known == address).map(|(node, ..)| node);
        for node in before.collect::<Vec<_>>() {
            if let Some((_, disconnect)) = self.outboxes.remove(&node) {
                disconnect.cancel();
            }
            if self.apply(Event::NodeLost(node)).is_break() {
                return std::ops::ControlFlow::Break(());
            }
        }
        self.outboxes.insert(node.clone(), (outbox, disconnect));
        self.metrics.nodes.record(self.outboxes.len() as u64, &[]);
        self.apply(Event::NodeJoined { node, address, parallelism })
    }

    fn tell(&mut self, node: &NodeId, message: ToNode) {
        let Some((outbox, disconnect)) = self.outboxes.get(node) else { return };
        if outbox.try_send(message).is_err() {
            // Its stream reader sees the cancellation and reports the loss.
            debug!(%node, "node does not read its control stream, disconnecting it");
            disconnect.cancel();
        }
    }

    fn inject(
        &mut self,
        (term, epoch): (TermId, Epoch),
        lowest_pinned: Epoch,
        mutation: Option<&Mutation>,
        statements: &[Statement],
        nodes: &[NodeId],
    ) {
        self.metrics.barriers.add(1, &[]);
        let span = info_span!(target: trace::TARGET, parent: None, "barrier", %term, %epoch);
        let message = wire::barrier((term, epoch), lowest_pinned, mutation, statements, TraceParent::of(&span));
        self.injected.insert(epoch, Injected { at: Instant::now(), span });
        for node in nodes {
            self.tell(node, message.clone());
        }
    }

    fn announce(&mut self, term: TermId, epoch: Epoch, nodes: &[NodeId]) {
        self.metrics.commits.add(1, &[]);
        self.metrics.committed_epoch.record(epoch.0, &[]);
        let later = self.injected.split_off(&epoch.next());
        for injected in std::mem::replace(&mut self.injected, later).into_values() {
            self.metrics.commit_latency_seconds.record(injected.at.elapsed().as_secs_f64(), &[]);
        }
        debug!(%term, %epoch, "committed");
        for node in nodes {
            self.tell(node, wire::committed(term, epoch));
        }
        self.garbage_due.get_or_insert_with(Instant::now);
        if self.named.front().is_some_and(|(at, _)| at.elapsed() > REMEMBERED + FORGET_INTERVAL) {
            let old = |(at, _): &mut (Instant, Epoch)| at.elapsed() > REMEMBERED;
            let old = std::iter::from_fn(|| self.named.pop_front_if(old));
            let old = old.map(|(_, epoch)| Keys::statements_of(epoch)).collect();
            self.forget(old);
        }
    }

    /// Deletes keys that nothing names any more.
    fn forget(&mut self, keys: Vec<String>) {
        let storage = Arc::clone(&self.storage);
        self.calls.spawn(async move {
            storage.forget(keys).await;
            Input::Event(Event::Tick)
        });
    }

    /// Asks one node, now and then, to list the databases that exist.
    fn survey(&mut self) {
        if self.garbage_due.is_some_and(|due| due <= Instant::now()) && self.core.live_databases().is_some() {
            self.garbage_due = Some(Instant::now() + self.garbage_interval);
            if let Some(node) = self.outboxes.keys().next().cloned() {
                self.last_survey += 1;
                self.tell(&node, wire::survey(self.last_survey, self.core.state_prefix()));
            }
        }
    }

    /// Tells the node what is reachable; the rest of its list is garbage. Only if the head, read
    /// after the list was made, is of the running term: then the list holds nothing that a newer
    /// term made.
    fn collect_garbage(&mut self, node: &NodeId, survey: u64, head: Option<Head>) {
        let (term, _) = self.core.progress();
        if let Some(live) = self.core.live_databases()
            && let Some(head) = head.filter(|head| head.term == term)
        {
            self.tell(node, wire::collect_garbage(survey, &head.slots, live));
        }
    }

    // ------------------------------------------------------------------------------------- waiters

    fn wait(&mut self, waiting: Waiting) -> Waiter {
        self.last_waiter += 1;
        let waiter = Waiter(self.last_waiter);
        self.waiting.insert(waiter, waiting);
        waiter
    }

    fn resolve(&mut self, waiter: Waiter, epoch: Epoch) {
        match self.waiting.remove(&waiter) {
            Some(Waiting::Flush(reply)) => drop(reply.send(epoch)),
            Some(Waiting::Created(id, reply)) => drop(reply.send(Ok((id, true)))),
            Some(Waiting::Altered(reply)) => drop(reply.send(Ok(()))),
            Some(Waiting::Dropped(entries, reply)) => drop(reply.send(Ok(Some(entries)))),
            Some(Waiting::Statement(_, reply)) => drop(reply.send(Ok(epoch))),
            None => {}
        }
    }

    /// Looks whether a statement of an ended term was committed.
    fn recall(&mut self, waiter: Waiter) {
        let Some(Waiting::Statement(id, reply)) = self.waiting.remove(&waiter) else { return };
        let storage = Arc::clone(&self.storage);
        self.calls.spawn(async move {
            // A frontend that has gone away may ask again.
            let _ = reply.send(storage.recall(id).await);
            Input::Event(Event::Tick)
        });
    }

    // ---------------------------------------------------------------------------------------- pins

    /// One linearizable read serves everybody who was waiting when it began.
    fn read_head_for_pins(&mut self) {
        self.pin_waiters.retain(|waiter| !waiter.is_closed());
        if self.head_read_under_way || self.pin_waiters.is_empty() || self.core.serving().is_none() {
            return;
        }
        self.head_read_under_way = true;
        self.pins_being_read = std::mem::take(&mut self.pin_waiters);
        let storage = Arc::clone(&self.storage);
        self.calls.spawn(async move { Input::HeadRead(storage.read_head().await) });
    }

    fn pin(&mut self, head: Option<Head>) {
        self.head_read_under_way = false;
        for waiter in std::mem::take(&mut self.pins_being_read) {
            let pinned = head.as_ref().and_then(|head| self.core.pin(head, self.clock.elapsed()));
            match pinned {
                Some((pin, serving)) => {
                    let pinned = Pinned { pin, serving, catalog_version: self.catalog_version };
                    if waiter.send(pinned).is_err() {
                        self.core.release_pins(&[pin]);
                    }
                }
                // The term has changed, or the store is out of reach: with the next term, or the
                // next read.
                None => self.pin_waiters.push(waiter),
            }
        }
    }

    // ----------------------------------------------------------------------------------------- DDL

    fn next_ddl(&mut self) {
        while self.catalog_write == CatalogWrite::None
            && let Some(ddl) = self.ddl.pop_front()
        {
            match ddl {
                Ddl::Create { new, begin, if_not_exists, reply } => {
                    let result = self.create(*new, begin, if_not_exists);
                    self.store_ddl(result, reply, DdlChange::Created);
                }
                Ddl::Alter { declared, reply } => {
                    let result = self.alter(*declared);
                    self.store_ddl(result, reply, DdlChange::Altered);
                }
                Ddl::Drop { dropping, reply } => {
                    let result = self.drop(&dropping);
                    self.store_ddl(result, reply, DdlChange::Dropped);
                }
                Ddl::Change { change, reply } => {
                    let result = self.change(&change);
                    self.store_ddl(result, reply, DdlChange::Changed);
                }
                Ddl::Fail(entry) => {
                    for failed in self.still_marked(vec![*entry]) {
                        let txn = self.storage.alter_txn(std::slice::from_ref(&failed), self.next_id);
                        self.store(txn.into(), DdlChange::Failed(failed));
                    }
                }
            }
        }
    }

    fn store_ddl<C, T: Send + 'static>(
        &mut self,
        decided: Result<Decided<C, T>, rpc::Error>,
        reply: oneshot::Sender<Result<T, rpc::Error>>,
        change: impl FnOnce(C, oneshot::Sender<Result<T, rpc::Error>>) -> DdlChange,
    ) {
        match decided {
            Err(error) => drop(reply.send(Err(error))),
            Ok(Decided::Nothing(answer)) => drop(reply.send(Ok(answer))),
            Ok(Decided::Store(what, txn)) => self.store(txn, change(what, reply)),
        }
    }

    fn store(&mut self, txn: CatalogTxn, change: DdlChange) {
        self.catalog_write = CatalogWrite::Ddl;
        let storage = Arc::clone(&self.storage);
        self.calls.spawn(async move { Input::DdlStored(DdlStored { result: storage.store_ddl(txn).await, change }) });
    }

    fn ddl_stored(&mut self, stored: DdlStored) -> std::ops::ControlFlow<()> {
        self.catalog_write = CatalogWrite::None;
        let version = match stored.result {
            Ok(version) => version,
            Err(failure) => {
                // The catalog may have changed or not: only a new reign, which reads it, can
                // tell.
                info!(error = chain(&failure), "catalog could not be changed, giving leadership up");
                return std::ops::ControlFlow::Break(());
            }
        };
        self.catalog_version = version;
        let event = match stored.change {
            DdlChange::Created(entry, reply) if !entry.has_job() => {
                info!(view = %entry.id(), name = %entry.name(), "view created");
                let _ = reply.send(Ok((entry.id(), true)));
                Event::Changed(Changed { entries: vec![entry], schema: None })
            }
            DdlChange::Created(entry, reply) => {
                info!(table = %entry.id(), name = %entry.name(), "table created");
                let waiter = self.wait(Waiting::Created(entry.id(), reply));
                Event::Created(entry, waiter)
            }
            DdlChange::Altered(entry, reply) => {
                info!(table = %entry.id(), name = %entry.name(), "table altered");
                let waiter = self.wait(Waiting::Altered(reply));
                Event::Altered(entry, waiter)
            }
            DdlChange::Dropped(Dropped { entries, schemas }, reply) => {
                let ids: Vec<TableId> = entries.iter().map(Entry::id).collect();
                info!(tables = ?ids, ?schemas, "tables dropped");
                let waiter = self.wait(Waiting::Dropped(entries, reply));
                Event::Dropped(ids, schemas, waiter)
            }
            DdlChange::Changed(changed, reply) => {
                let _ = reply.send(Ok(()));
                Event::Changed(changed)
            }
            DdlChange::Failed(entry) => Event::Marked(entry),
        };
        let flow = self.apply(event);
        if let Some(claim) = self.held_claim.take() {
            self.claim(claim);
        }
        flow
    }
}

//! A running term on a node: its slots, its actors, and its view for scans.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::info_span;
use weir_common::catalog::{Entry, Graph};
use weir_common::error::chain;
use weir_common::ids::{Epoch, JobSplit, Sequence, TableId, TermId};
use weir_common::task::Group;
use weir_common::telemetry::trace;
use weir_common::view::Compile;

use crate::control::event::{Event, Inputs};
use crate::control::plan::{Barrier, Mutation, Plan, Route, SlotPlan, SplitPlan};
use crate::dataflow::actor;
use crate::dataflow::actor::Attachment;
use crate::dataflow::edge::Edge;
use crate::dataflow::exchange::Peers;
use crate::metrics::Metrics;
use crate::serve::serving::{Relations, Serving};
use crate::storage::seal::Change;
use crate::storage::slot;
use crate::storage::slots::Slots;
use crate::storage::state::{self, CloneSource, SlotDb, Store};

/// The things that all terms of a node share.
#[derive(Clone)]
pub(crate) struct Environment {
    pub(crate) cluster: String,
    pub(crate) store: Store,
    pub(crate) inputs: Inputs,
    pub(crate) metrics: Metrics,
    pub(crate) compiler: Arc<dyn Compile>,
}

/// The open databases of a plan.
pub(crate) type Databases = Vec<(SlotPlan, SlotDb)>;

/// Opens the database of every slot of a plan, all at once.
///
/// # Errors
/// One of the failures; the databases that were opened are closed again.
pub(crate) async fn open(store: &Store, plan: &Plan) -> Result<Databases, state::Error> {
    let tables: HashSet<TableId> = plan.catalog.iter().flat_map(|entry| entry.job.stores()).collect();
    let open_slot = async |slot: &SlotPlan| {
        let source = |source: &crate::control::plan::SourcePlan| CloneSource {
            path: source.path.clone(),
            checkpoint: source.checkpoint,
            vnodes: source.vnodes,
        };
        let sources: Vec<_> = slot.sources.iter().map(source).collect();
        let db = Box::pin(SlotDb::open(store, &slot.path, slot.vnodes, &sources, &tables)).await?;
        Ok((slot.clone(), db))
    };
    let mut databases = Vec::new();
    let mut failure = None;
    for opened in join_all(plan.slots.iter().map(open_slot)).await {
        match opened {
            Ok(database) => databases.push(database),
            Err(error) => failure = Some(error),
        }
    }
    let Some(error) = failure else { return Ok(databases) };
    // A database that is only dropped goes on compacting.
    for (_, db) in databases {
        db.close().await;
    }
    Err(error)
}

/// The slots and actors of a term.
pub(crate) struct Term {
    id: TermId,
    group: Group,
    environment: Environment,
    slots: Arc<Slots>,
    /// Every slot of the term.
    routes: Vec<Route>,
    peers: Peers,
    /// By the relation and split that they read.
    actors: BTreeMap<JobSplit, actor::Handle>,
    /// Actors with nothing left to read for, until their last epoch is committed.
    ending: Vec<actor::Handle>,
    /// The positions at which the actors of the term began, on whichever node, by the split that
    /// they read.
    starts: HashMap<JobSplit, Sequence>,
}

impl Term {
    /// Starts every slot and actor of a plan over its open databases.
    ///
    /// # Errors
    /// If a database was closed meanwhile.
    pub(crate) fn start(
        plan: &Plan,
        databases: Databases,
        environment: Environment,
        cancel: &CancellationToken,
    ) -> Result<Term, state::Error> {
        let group = Group::child_of(cancel);
        let entries: HashMap<TableId, &Entry> = plan.catalog.iter().map(|entry| (entry.id(), entry)).collect();
        let entry = |split: &SplitPlan| *entries.get(&split.split.job).expect("meta sends the jobs of all splits");
        let mut handles = BTreeMap::new();
        for (slot, db) in databases {
            let actors = plan.splits.iter().filter(|split| split.writes_to(slot.slot, &entry(split).relation));
            let actors = actors.map(|split| split.split.clone()).collect();
            let surroundings = (environment.inputs.clone(), &group, environment.metrics.clone());
            let place = (slot.slot, slot.vnodes);
            let handle = slot::Slot::spawn(plan.term, place, plan.epoch, db, actors, surroundings)?;
            handles.insert(slot.slot, handle);
        }
        let slots = Arc::new(Slots { term: plan.term, handles });
        // A task that stops the group takes the term down with it. If the term is closed in order,
        // the core ignores this event.
        let (broken, inputs) = (group.token().clone(), environment.inputs.clone());
        let id = plan.term;
        tokio::spawn(async move {
            broken.cancelled().await;
            inputs.send(Event::Broken(id, "a task of the term failed".to_owned())).await;
        });
        let (routes, peers, actors) = (plan.routes.clone(), Peers::default(), BTreeMap::new());
        let mut starts = HashMap::new();
        for split in &plan.splits {
            let start = starts.entry(split.read(&entry(split).job)).or_insert(split.position.next);
            *start = split.position.next.max(*start);
        }
        let mut term = Term { id, group, environment, slots, routes, peers, actors, ending: Vec::new(), starts };
        let mut read: BTreeMap<JobSplit, Vec<Attachment>> = BTreeMap::new();
        for split in &plan.splits {
            if let Some(attachment) = term.attachment(entry(split), split) {
                read.entry(split.read(&entry(split).job)).or_default().push(attachment);
            }
        }
        for (read, outputs) in read {
            let source = entries.get(&read.job).expect("meta sends the sources of all views");
            term.start_actor(source, read, outputs, plan.epoch);
        }
        Ok(term)
    }

    /// The term's id.
    pub(crate) fn id(&self) -> TermId {
        self.id
    }

    /// The slots of this node.
    pub(crate) fn slots(&self) -> Arc<Slots> {
        Arc::clone(&self.slots)
    }

    /// The term as frontends may read it.
    pub(crate) fn serving(&self, relations: Relations) -> Serving {
        Serving {
            slots: self.slots(),
            relations,
            splits: self.actors.values().map(|actor| actor.observed.clone()).collect(),
            starts: self.starts.clone(),
            routes: self.routes.clone(),
            cluster: self.environment.cluster.clone(),
            compiler: Arc::clone(&self.environment.compiler),
            store: self.environment.store.clone(),
        }
    }

    /// The output that an actor of this node feeds from a split, if the split's slot is on this
    /// node.
    fn attachment(&mut self, entry: &Entry, split: &SplitPlan) -> Option<Attachment> {
        let own = self.slots.handles.get(&split.slot)?;
        let edges = match entry.relation.is_keyed() {
            true => self.edges(&split.split),
            false => vec![Edge::local(own)],
        };
        Some(Attachment { entry: entry.clone(), position: split.position, edges })
    }

    /// Starts an actor of this node, which reads a split of `source`, a source or a table.
    fn start_actor(&mut self, source: &Entry, read: JobSplit, outputs: Vec<Attachment>, epoch: Epoch) {
        let config = actor::Config {
            term: self.id,
            source: source.clone(),
            split: read.split.clone(),
            epoch,
            cluster: self.environment.cluster.clone(),
            node: self.environment.inputs.clone(),
            metrics: self.environment.metrics.clone(),
            compiler: Arc::clone(&self.environment.compiler),
        };
        match actor::spawn(config, outputs, &self.group) {
            Ok(actor) => {
                self.actors.insert(read, actor);
            }
            Err(error) => {
                let failed = Event::JobFailed(self.id, source.id(), chain(&error));
                let inputs = self.environment.inputs.clone();
                tokio::spawn(async move { inputs.send(failed).await });
            }
        }
    }

    /// The edges of an actor to every slot of the term, in the order of their vnodes.
    fn edges(&mut self, actor: &JobSplit) -> Vec<Edge> {
        let Term { id, group, environment, slots, routes, peers, .. } = self;
        let edge = |route: &Route| match slots.handles.get(&route.slot) {
            Some(slot) => Edge::local(slot),
            None => peers.edge(*id, actor, route, group, environment.inputs.clone()),
        };
        routes.iter().map(edge).collect()
    }

    /// Hands a barrier to every slot and actor, and carries out its mutation. `catalog` is the one
    /// before the mutation.
    pub(crate) async fn inject(&mut self, barrier: &Barrier, catalog: &Graph) {
        let epoch = barrier.epoch;
        let removed = match &barrier.mutation {
            Some(Mutation::Drop(id)) => Some(*id),
            _ => None,
        };
        let dropped: Vec<TableId> =
            removed.and_then(|id| catalog.get(id)).iter().flat_map(|entry| entry.job.stores()).collect();
        for (id, slot) in &self.slots.handles {
            let add = match &barrier.mutation {
                Some(Mutation::Add(entry, splits)) => {
                    let writers = splits.iter().filter(|split| split.writes_to(*id, &entry.relation));
                    writers.map(|split| split.split.clone()).collect()
                }
                _ => Vec::new(),
            };
            let (change, lowest_pinned) = (Change { add, remove: removed }, barrier.lowest_pinned);
            let dropped = dropped.clone();
            // A slot that is gone has told the node why.
            let span = info_span!(
                target: trace::TARGET, parent: None, "slot", otel.kind = "consumer", term = %self.id, slot = %id, %epoch
            );
            barrier.trace.adopt(&span);
            let _ = slot.control.send(slot::Control::Inject { epoch, change, lowest_pinned, dropped, span }).await;
        }
        for actor in self.actors.values_mut() {
            let message = match removed {
                Some(job) if actor.feeds.remove(&job) => actor::Message::Last(job, epoch),
                _ => actor::Message::Barrier(epoch),
            };
            let _ = actor.inbox.send(message).await;
        }
        for actor in &self.ending {
            let _ = actor.inbox.send(actor::Message::Barrier(epoch)).await;
        }
        let ended = self.actors.extract_if(.., |_, actor| actor.feeds.is_empty());
        self.ending.extend(ended.map(|(_, actor)| actor));
        if let Some(Mutation::Add(entry, splits)) = &barrier.mutation {
            self.add(entry, splits, epoch, catalog).await;
        }
    }

    /// Begins to feed a relation, by the actors that already read its source or by new ones.
    async fn add(&mut self, entry: &Entry, splits: &[SplitPlan], epoch: Epoch, catalog: &Graph) {
        for split in splits {
            let read = split.read(&entry.job);
            self.starts.entry(read.clone()).or_insert(split.position.next);
            let Some(attachment) = self.attachment(entry, split) else { continue };
            match self.actors.get_mut(&read) {
                Some(actor) => {
                    actor.feeds.insert(entry.id());
                    let _ = actor.inbox.send(actor::Message::Attach(Box::new(attachment))).await;
                }
                None => {
                    let source = if read.job == entry.id() { Some(entry) } else { catalog.get(read.job) };
                    let source = source.expect("a source is there before its views");
                    self.start_actor(source, read, vec![attachment], epoch);
                }
            }
        }
    }

    /// Tells every slot and actor that an epoch is committed.
    pub(crate) async fn committed(&mut self, epoch: Epoch) {
        for slot in self.slots.handles.values() {
            let _ = slot.control.send(slot::Control::Committed(epoch)).await;
        }
        for actor in self.actors.values().chain(&self.ending) {
            let _ = actor.inbox.send(actor::Message::Committed(epoch)).await;
        }
        self.ending.retain(|actor| !actor.inbox.is_closed());
    }

    /// Stops everything and waits until it has ended.
    pub(crate) async fn stop(self) {
        self.group.stop().await;
    }
}

//! A running term on a node: its slots, its actors, and its view for scans.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::info_span;
use weir_common::catalog::{self, Entry, Graph, JobState};
use weir_common::error::chain;
use weir_common::ids::{ActorId, EdgeId, Epoch, JobSplit, Sequence, SlotId, TableId, TermId};
use weir_common::task::Group;
use weir_common::telemetry::trace;
use weir_common::view::{Compile, Functions};
use weir_stream::actor::Announced;
use weir_stream::edge::Pool;

use crate::control::event::{Event, Inputs};
use crate::control::placement::Placement;
use crate::control::plan::{Barrier, Mutation, Plan, Route, SlotPlan, SplitPlan, Writer};
use crate::dataflow::actor;
use crate::dataflow::actor::{Attachment, Forward};
use crate::dataflow::edge::Edge;
use crate::dataflow::exchange::{Peers, Reachable};
use crate::dataflow::follow::Following;
use crate::dataflow::fragment::{self, Memory};
use crate::dataflow::leaf::Leaf;
use crate::dataflow::router::{self, Router, Way};
use crate::dataflow::usage::Usage;
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
    /// Memory for what jobs know of their state, in bytes.
    pub(crate) state_memory_bytes: usize,
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
    /// The splits of every running job.
    splits: Vec<SplitPlan>,
    peers: Peers,
    /// The things that fragments of jobs share.
    fragments: fragment::Shared,
    /// Where fragments of other nodes are reached.
    ways: HashMap<String, Way>,
    /// The actors of fragments that run on this node, by their jobs.
    running: BTreeMap<TableId, Vec<ActorId>>,
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
        let graph: Graph = plan.catalog.iter().cloned().collect();
        let placements: Vec<(&Entry, Placement<'_>)> = plan
            .catalog
            .iter()
            .filter_map(|entry| Some((entry, Placement::of(entry, &graph, &plan.splits, &plan.routes)?)))
            .collect();
        let mut handles = BTreeMap::new();
        for (slot, db) in databases {
            let readers = plan.splits.iter().filter(|split| split.slot == slot.slot);
            let readers = readers.map(|split| Writer::from(split.split.clone()));
            let fragments = placements.iter().flat_map(|(_, placement)| placement.in_slot(slot.slot));
            let actors = readers.chain(fragments.map(Writer::from)).collect();
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
        let fragments = fragment::Shared {
            term: id,
            node: environment.inputs.clone(),
            group: group.clone(),
            router: Router::default(),
            pool: Arc::new(Mutex::new(Pool::new(0, plan.epoch.next()))),
            functions: Arc::clone(&environment.compiler) as Arc<dyn Functions>,
            following: Following::default(),
            memory: Memory::new(environment.state_memory_bytes),
            usage: Usage::new(environment.metrics.clone()),
        };
        let mut term = Term {
            id,
            group,
            environment,
            slots,
            routes,
            splits: plan.splits.clone(),
            peers,
            fragments,
            ways: HashMap::new(),
            running: BTreeMap::new(),
            actors,
            ending: Vec::new(),
            starts,
        };
        plan.catalog.iter().for_each(|entry| term.tell_unknown(entry));
        let followed: Vec<EdgeId> = placements.iter().flat_map(|(_, placement)| placement.followed()).collect();
        for (entry, placement) in &placements {
            term.start_fragments(entry, placement, (plan.epoch, false), &followed);
        }
        let mut read: BTreeMap<JobSplit, (Vec<Attachment>, Vec<Forward>)> = BTreeMap::new();
        for split in &plan.splits {
            let reads = split.read(&entry(split).job);
            let source = entries.get(&reads.job).expect("meta sends the sources of all views");
            if let Some(attachment) = term.attachment((entry(split), source), split, (&graph, &plan.splits), plan.epoch)
            {
                read.entry(reads).or_default().0.push(attachment);
            }
        }
        for (entry, placement) in &placements {
            for (reader, forward) in term.forwards(entry, placement, plan.epoch) {
                read.entry(reader).or_default().1.push(forward);
            }
        }
        for (read, (outputs, forwards)) in read {
            let source = entries.get(&read.job).expect("meta sends the sources of all views");
            term.start_actor(source, read, (outputs, forwards), plan.epoch);
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

    /// The parts that other nodes reach.
    pub(crate) fn reachable(&self) -> Reachable {
        Reachable { slots: self.slots(), router: self.fragments.router.clone() }
    }

    /// The term as frontends may read it.
    pub(crate) fn serving(&self, relations: Relations) -> Serving {
        Serving {
            slots: self.slots(),
            relations,
            splits: self.actors.iter().map(|(read, actor)| (read.clone(), actor.observed.clone())).collect(),
            following: self.fragments.following.clone(),
            usage: self.fragments.usage.clone(),
            starts: self.starts.clone(),
            routes: self.routes.clone(),
            cluster: self.environment.cluster.clone(),
            compiler: Arc::clone(&self.environment.compiler),
            store: self.environment.store.clone(),
            router: self.fragments.router.clone(),
            node: self.environment.inputs.clone(),
        }
    }

    /// The output that an actor of this node feeds from a split, if the split's slot is on this
    /// node. `split` is the place among `splits`, which are all that are read for the job;
    /// `source` is the entry whose messages they are.
    fn attachment(
        &mut self,
        (entry, source): (&Entry, &Entry),
        split: &SplitPlan,
        (catalog, splits): (&Graph, &[SplitPlan]),
        after: Epoch,
    ) -> Option<Attachment> {
        let own = Edge::new(self.slots.handles.get(&split.slot)?);
        let (own_split, position) = (split.split.clone(), split.position);
        let attach = |own, leaves| Attachment { entry: entry.clone(), split: own_split, position, own, leaves };
        if let Some(placement) = Placement::of(entry, catalog, splits, &self.routes) {
            let read = split.read(&entry.job).split;
            let leaf = |actor| {
                let from = (&*source.relation, &read, own.vnodes);
                Leaf::new(self.fragments.clone(), (entry, &placement, actor), from, after, &self.routes)
            };
            return match placement.leaves(&split.split.split, source.id()).map(leaf).collect() {
                Ok(leaves) => Some(attach(own, leaves)),
                Err(error) => {
                    self.tell(Event::JobWaits(self.id, entry.id(), chain(&error)));
                    None
                }
            };
        }
        Some(attach(own, Vec::new()))
    }

    /// How actors of this node forward rows of relations in blocks that a job follows, each with
    /// the split that the actor reads.
    fn forwards(&self, entry: &Entry, placement: &Placement<'_>, after: Epoch) -> Vec<(JobSplit, Forward)> {
        let followed: BTreeSet<TableId> = placement.following().into_iter().map(|(relation, ..)| relation).collect();
        let below = followed.into_iter().filter_map(|relation| placement.catalog().get(relation));
        let mut forwards = Vec::new();
        for below in below.filter(|below| below.query().is_none()) {
            let stored = self.splits.iter().filter(|split| split.split.job == below.id());
            for split in stored.filter(|split| self.slots.handles.contains_key(&split.slot)) {
                let leaf = |actor| {
                    let from = (&*below.relation, &split.split.split);
                    Leaf::forward(self.fragments.clone(), (placement, actor), from, after)
                };
                match placement.forwards(&split.split.split, below.id()).into_iter().map(leaf).collect() {
                    Ok(leaves) => {
                        let forward = Forward { below: below.id(), job: entry.id(), leaves };
                        forwards.push((split.read(&below.job), forward));
                    }
                    Err(error) => self.tell(Event::JobWaits(self.id, entry.id(), chain(&error))),
                }
            }
        }
        forwards
    }

    /// Tells the node about a job that this version cannot build, because it does not know its
    /// plan.
    fn tell_unknown(&self, entry: &Entry) {
        if let (catalog::Plan::Unknown(unknown), JobState::Running) = (&entry.job.plan, &entry.job.state) {
            self.tell(Event::JobWaits(self.id, entry.id(), unknown.reason.clone()));
        }
    }

    /// Tells the node something, without waiting for it.
    fn tell(&self, event: Event) {
        let inputs = self.environment.inputs.clone();
        tokio::spawn(async move { inputs.send(event).await });
    }

    /// Starts the actors of a job's fragments that run on this node, and gets to know the others.
    /// `followed` are edges over which jobs follow it, among others.
    fn start_fragments(&mut self, entry: &Entry, placement: &Placement<'_>, begin: (Epoch, bool), followed: &[EdgeId]) {
        for (actor, slot) in placement.all() {
            if !self.slots.handles.contains_key(&slot) {
                let way = self.way(slot);
                self.fragments.router.register_remote(actor, way);
            }
        }
        for (slot, handle) in &self.slots.handles {
            for actor in placement.in_slot(*slot) {
                let listeners = followed.iter().filter(|edge| edge.from == actor).copied().collect();
                let around = (self.routes.as_slice(), listeners);
                fragment::spawn(&self.fragments, (entry, placement, actor), handle, begin, around);
                self.running.entry(entry.id()).or_default().push(actor);
            }
        }
    }

    /// The way to the fragments of a slot on another node.
    fn way(&mut self, slot: SlotId) -> Way {
        let Term { id, group, environment, routes, peers, ways, .. } = self;
        let route = routes.iter().find(|route| route.slot == slot).expect("every slot has a route");
        let connect = || peers.changes(*id, &route.address, group, environment.inputs.clone());
        ways.entry(route.address.clone()).or_insert_with(connect).clone()
    }

    /// Starts an actor of this node, which reads a split of `source`, a source or a table.
    fn start_actor(
        &mut self,
        source: &Entry,
        read: JobSplit,
        (outputs, forwards): (Vec<Attachment>, Vec<Forward>),
        epoch: Epoch,
    ) {
        let config = actor::Config {
            term: self.id,
            source: source.clone(),
            split: read.split.clone(),
            epoch,
            cluster: self.environment.cluster.clone(),
            node: self.environment.inputs.clone(),
            metrics: self.environment.metrics.clone(),
            usage: self.fragments.usage.clone(),
            compiler: Arc::clone(&self.environment.compiler),
        };
        match actor::spawn(config, outputs, forwards, &self.group) {
            Ok(actor) => {
                self.actors.insert(read, actor);
            }
            Err(error) => self.tell(Event::JobFailed(self.id, source.id(), chain(&error))),
        }
    }

    /// Hands a barrier to every slot and actor, and carries out its mutation. `catalog` is the one
    /// before the mutation.
    pub(crate) async fn inject(&mut self, barrier: &Barrier, catalog: &Graph) {
        let epoch = barrier.epoch;
        let stopped = Mutation::stopped(barrier.mutation.as_ref());
        let entries = Mutation::dropped(barrier.mutation.as_ref()).iter().filter_map(|job| catalog.get(*job));
        let dropped: Vec<TableId> = entries.flat_map(|entry| entry.job.stores()).collect();
        for (id, slot) in &self.slots.handles {
            let add = match &barrier.mutation {
                Some(Mutation::Add(entry, splits)) => {
                    let readers = splits.iter().filter(|split| split.slot == *id);
                    let readers = readers.map(|split| Writer::from(split.split.clone()));
                    let placement = Placement::of(entry, catalog, splits, &self.routes);
                    let fragments = placement.iter().flat_map(|placement| placement.in_slot(*id)).map(Writer::from);
                    readers.chain(fragments).collect()
                }
                _ => Vec::new(),
            };
            let (change, lowest_pinned) = (Change { add, remove: stopped.to_vec() }, barrier.lowest_pinned);
            let dropped = dropped.clone();
            // A slot that is gone has told the node why.
            let span = info_span!(
                target: trace::TARGET, parent: None, "slot", otel.kind = "consumer", term = %self.id, slot = %id, %epoch
            );
            barrier.trace.adopt(&span);
            let _ = slot.control.send(slot::Control::Inject { epoch, change, lowest_pinned, dropped, span }).await;
        }
        for actor in self.actors.values_mut() {
            let last: Vec<TableId> = stopped.iter().copied().filter(|job| actor.feeds.remove(job)).collect();
            let message = match last.is_empty() {
                true => actor::Message::Barrier(epoch),
                false => actor::Message::Last(last, epoch),
            };
            let _ = actor.inbox.send(message).await;
        }
        for actor in &self.ending {
            let _ = actor.inbox.send(actor::Message::Barrier(epoch)).await;
        }
        let ended = self.actors.extract_if(.., |_, actor| actor.feeds.is_empty());
        self.ending.extend(ended.map(|(_, actor)| actor));
        self.announce(barrier, catalog);
        if let Some(Mutation::Add(entry, splits)) = &barrier.mutation {
            self.add(entry, splits, epoch, catalog).await;
        }
    }

    /// Announces a barrier to the actors of fragments.
    fn announce(&mut self, barrier: &Barrier, catalog: &Graph) {
        let followed = |entry: &Entry, splits: &[SplitPlan]| {
            Placement::of(entry, catalog, splits, &self.routes).map(|placement| placement.followed())
        };
        let stopped = Mutation::stopped(barrier.mutation.as_ref());
        let opened = match &barrier.mutation {
            Some(Mutation::Add(entry, splits)) => followed(entry, splits).unwrap_or_default(),
            _ => Vec::new(),
        };
        let stopping = stopped.iter().filter_map(|job| catalog.get(*job));
        let closed: Vec<EdgeId> = stopping.filter_map(|entry| followed(entry, &[])).flatten().collect();
        let mut statements = barrier.statements_of_actors();
        for (job, actors) in &self.running {
            for actor in actors {
                let own = |edges: &[EdgeId]| edges.iter().filter(|edge| edge.from == *actor).copied().collect();
                let announced = Announced {
                    epoch: barrier.epoch,
                    opened_outputs: own(&opened),
                    closed_outputs: own(&closed),
                    stops: stopped.contains(job),
                    statements: statements.remove(&(*job, SlotId(actor.instance))).unwrap_or_default(),
                    ..Announced::default()
                };
                self.fragments.router.send(*actor, router::Message::Barrier(announced));
            }
        }
        stopped.iter().for_each(|job| self.fragments.following.end(*job));
        self.running.retain(|job, _| !stopped.contains(job));
        self.splits.retain(|split| !stopped.contains(&split.split.job));
    }

    /// Begins to feed a relation, by the actors that already read its source or by new ones.
    async fn add(&mut self, entry: &Entry, splits: &[SplitPlan], epoch: Epoch, catalog: &Graph) {
        self.tell_unknown(entry);
        self.splits.extend_from_slice(splits);
        let (routes, all) = (self.routes.clone(), self.splits.clone());
        let mut forwards = Vec::new();
        if let Some(placement) = Placement::of(entry, catalog, &all, &routes) {
            self.fragments.following.begin(entry.id(), epoch);
            self.start_fragments(entry, &placement, (epoch, true), &[]);
            forwards = self.forwards(entry, &placement, epoch);
        }
        for split in splits {
            let read = split.read(&entry.job);
            self.starts.entry(read.clone()).or_insert(split.position.next);
            let source = if read.job == entry.id() { Some(entry) } else { catalog.get(read.job) };
            let source = source.expect("a source is there before its views");
            let Some(attachment) = self.attachment((entry, source), split, (catalog, splits), epoch) else { continue };
            match self.actors.get_mut(&read) {
                Some(actor) => {
                    actor.feeds.insert(entry.id());
                    let _ = actor.inbox.send(actor::Message::Attach(Box::new(attachment))).await;
                }
                None => self.start_actor(source, read, (vec![attachment], Vec::new()), epoch),
            }
        }
        for (read, forward) in forwards {
            // An actor that could not be started has told the node why.
            let Some(actor) = self.actors.get_mut(&read) else { continue };
            actor.feeds.insert(entry.id());
            let _ = actor.inbox.send(actor::Message::Forward(forward)).await;
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

//! The compute node's task: drives the pure core of [`crate::control::state`], and owns the control
//! stream and the running term.
//!
//! A node that loses the control stream leaves the term at once, because its work could not be
//! committed any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::{debug, error, info, warn};
use uuid::Uuid;
use weir_common::error::{Kind, chain};
use weir_common::http::Readiness;
use weir_common::ids::TermId;
use weir_common::telemetry::{self, trace};
use weir_common::view::Compile;
use weir_common::{listen, rpc};
use weir_proto::compute_server::ComputeServer;
use weir_proto::dml_server::DmlServer;
use weir_proto::exchange_server::ExchangeServer;
use weir_proto::{FromNode, Heartbeat, Hello, Leave, Surveyed, ToNode, from_node, to_node};

use super::session::{self, Session};
use super::term::{self, Databases, Environment, Term};
use crate::control::event::{Action, Event, Inputs};
use crate::control::plan::{Mutation, Plan};
use crate::control::state::Node;
use crate::control::wire;
use crate::dataflow::exchange::{self, Exchange, Reachable};
use crate::error::Error;
use crate::metrics::{self, Metrics, Observed, ObservedStates};
use crate::serve::dml::Dml;
use crate::serve::service::Service;
use crate::serve::serving::{Relations, Serving};
use crate::serve::{splits, states};
use crate::storage::state;
use crate::storage::state::{Store, Survey};

/// Events waiting for the node: reports of slots and wishes of readers. They are few, but many
/// slots may report together.
const INPUTS_MAX: usize = 1024;
/// Results waiting for the node: of opening a term's databases, and of one survey at a time.
const DONE_MAX: usize = 16;
/// The interval of heartbeats to the leader.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A leader that is silent for longer counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// The pause after a failed attempt to find the leader.
const RECONNECT: Duration = Duration::from_millis(200);
/// The pause after an attempt that the object store did not answer.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The time a stopping node waits until others have taken over its share.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);
/// The time the next term waits for the tasks of the last one to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The configuration of a compute node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address at which frontends and other nodes reach this node.
    pub advertise: String,
    /// The meta nodes, in any order.
    pub meta_addrs: Vec<String>,
    /// The URL of the state store; the same on every node.
    pub state_url: String,
    /// The cluster's name.
    pub cluster: String,
    /// The number of slots that the node offers.
    pub parallelism: usize,
    /// The memory that jobs may use for the state of their operators, in bytes. The rest of the
    /// state is read from the store when it is needed.
    pub state_memory_bytes: usize,
    /// Compiles a view's statement into an evaluator.
    pub compiler: Arc<dyn Compile>,
}

/// Work in the background has ended.
enum Done {
    /// The databases of a plan are open, or could not be opened.
    Opened(Box<Plan>, Result<Databases, state::Error>),
    /// The existing databases are listed, for the survey of this number.
    Surveyed(u64, Survey),
}

/// A compute node that has not started yet.
pub struct Compute {
    config: Config,
    joined: Arc<AtomicBool>,
    /// Set once the store is open.
    store: Arc<OnceLock<Store>>,
}

impl Compute {
    /// Creates a node, which does nothing before it runs.
    pub fn new(config: Config) -> Compute {
        Compute { config, joined: Arc::new(AtomicBool::new(false)), store: Arc::new(OnceLock::new()) }
    }

    /// The node is ready if the leader knows it and the object store works.
    pub fn readiness(&self) -> Readiness {
        let (joined, store) = (Arc::clone(&self.joined), Arc::clone(&self.store));
        Arc::new(move || {
            if let Some(trouble) = store.get().and_then(Store::trouble) {
                return Err(trouble);
            }
            let joined = joined.load(Ordering::Relaxed);
            if joined { Ok(()) } else { Err("no leader among the meta nodes reached".to_owned()) }
        })
    }

    /// Serves until cancelled; then leaves the cluster in order.
    ///
    /// # Errors
    /// If the state store or the listener cannot be used, or meta refuses the node for good.
    pub async fn run(self, listener: TcpListener, cancel: CancellationToken) -> Result<(), Error> {
        let metrics = Metrics::new(&telemetry::meter());
        let observed = Arc::<Observed>::default();
        let observed_states = Arc::<ObservedStates>::default();
        metrics::observe_splits(&telemetry::meter(), &observed);
        metrics::observe_states(&telemetry::meter(), &observed_states);
        let store = Store::open(&self.config.state_url)?;
        let store = self.store.get_or_init(|| store).clone();
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let (done_sender, done) = mpsc::channel(DONE_MAX);
        let (running, of_exchange) = watch::channel(None);
        let (serving, receiver) = watch::channel(None);
        let stop = CancellationToken::new();
        let _stop_on_drop = stop.clone().drop_guard();
        let exchange = Exchange::new(of_exchange);
        let observing = splits::observe(observed, receiver.clone());
        let observing_states = states::observe(observed_states, receiver.clone());
        let (dml, service) = (Dml::new(receiver.clone()), Service::new(receiver, metrics.clone()));
        let server = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(5)))
            .trace_fn(trace::server_span)
            .initial_stream_window_size(exchange::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(exchange::CONNECTION_WINDOW_BYTES)
            .add_service(ComputeServer::new(service))
            .add_service(DmlServer::new(dml).max_decoding_message_size(exchange::MESSAGE_BYTES_MAX))
            .add_service(ExchangeServer::new(exchange).max_decoding_message_size(exchange::MESSAGE_BYTES_MAX))
            .serve_with_incoming_shutdown(listen::rpc(listener), stop.clone().cancelled_owned());
        let hello = Hello {
            node: String::new(),
            advertise: self.config.advertise.clone(),
            parallelism: u32::try_from(self.config.parallelism).unwrap_or(u32::MAX),
            cluster: self.config.cluster.clone(),
            state_url: self.config.state_url.clone(),
        };
        let environment = Environment {
            cluster: self.config.cluster.clone(),
            store,
            inputs: Inputs(sender),
            metrics,
            compiler: Arc::clone(&self.config.compiler),
            state_memory_bytes: self.config.state_memory_bytes,
        };
        let task = Task {
            core: Node::default(),
            config: self.config,
            hello,
            environment,
            inputs,
            done,
            done_sender,
            term: None,
            relations: Relations::default(),
            closing: None,
            collecting: None,
            surveyed: None,
            running,
            serving,
            joined: self.joined,
            stop,
        };
        tokio::select! {
            ended = server => ended.map_err(Error::from),
            ended = task.run(cancel) => ended,
            () = observing => unreachable!("it goes on for ever"),
            () = observing_states => unreachable!("it goes on for ever"),
        }
    }
}

struct Task {
    core: Node,
    config: Config,
    hello: Hello,
    environment: Environment,
    inputs: mpsc::Receiver<Event>,
    done: mpsc::Receiver<Done>,
    done_sender: mpsc::Sender<Done>,
    term: Option<Term>,
    relations: Relations,
    /// The task that ends the last term.
    closing: Option<JoinHandle<()>>,
    /// The running survey or collection of garbage.
    collecting: Option<JoinHandle<()>>,
    /// The survey that waits to be compared with the reachable databases, and its number.
    surveyed: Option<(u64, Survey)>,
    running: watch::Sender<Option<Reachable>>,
    serving: watch::Sender<Option<Arc<Serving>>>,
    joined: Arc<AtomicBool>,
    stop: CancellationToken,
}

/// The reason why a session ended.
enum Ended {
    /// The stream broke, or the leader fell silent: look for the leader again.
    Lost(String),
    /// The node was relieved, or need not be.
    Left,
}

impl Task {
    async fn run(mut self, cancel: CancellationToken) -> Result<(), Error> {
        info!(slots = self.hello.parallelism, "compute node started");
        while !cancel.is_cancelled() {
            // A fresh id, so that meta cannot mistake this stream for an earlier one.
            self.hello.node = Uuid::new_v4().to_string();
            let Some(session) = self.find_leader(&cancel).await? else { continue };
            self.joined.store(true, Ordering::Relaxed);
            info!(node = self.hello.node, "joined the cluster");
            let ended = self.serve(session, &cancel).await;
            self.joined.store(false, Ordering::Relaxed);
            self.apply(Event::Disconnected, None).await;
            self.surveyed = None;
            match ended {
                Ended::Lost(reason) => info!(reason, "lost the leader"),
                Ended::Left => break,
            }
        }
        if let Some(closing) = self.closing.take() {
            join(closing).await;
        }
        info!("compute node stopped");
        Ok(())
    }

    /// Makes one attempt, and takes events of the last term's tasks meanwhile, so that they can
    /// end. A node that cannot use the object store does not join: it could take no part in a term,
    /// and would keep the others from theirs.
    async fn find_leader(&mut self, cancel: &CancellationToken) -> Result<Option<Session>, Error> {
        let attempt = async {
            if let Err(error) = self.environment.store.probe().await {
                // The store itself reports lasting trouble.
                debug!(error = chain(&error), "not joining without an object store");
                tokio::time::sleep(PROBE_INTERVAL).await;
                return Ok(None);
            }
            let found = session::open(&self.config.meta_addrs, &self.hello).await;
            if matches!(found, Ok(None)) {
                tokio::time::sleep(RECONNECT).await;
            }
            found
        };
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(None),
                found = &mut attempt => return found.map_err(Error::Refused),
                // Without a leader there is no term, so no event can count.
                Some(_) = self.inputs.recv() => {}
                Some(done) = self.done.recv() => {
                    if let Done::Opened(_, Ok(databases)) = done {
                        discard(databases);
                    }
                }
            }
        }
    }

    async fn serve(&mut self, session: Session, cancel: &CancellationToken) -> Ended {
        let Session { mut inbox, outbox } = session;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Counts heartbeats of this node, so that time in which it did not run is not held against
        // the leader.
        let mut silent: u32 = 0;
        let mut leaving: Option<Instant> = None;
        loop {
            tokio::select! {
                message = inbox.message() => {
                    silent = 0;
                    match message {
                        Ok(Some(ToNode { message: Some(to_node::Message::Released(_)) })) => return Ended::Left,
                        Ok(Some(message)) => {
                            if let Err(error) = self.hear(message, &outbox).await {
                                return Ended::Lost(chain(&error));
                            }
                        }
                        Ok(None) => return Ended::Lost("the leader closed the control stream".to_owned()),
                        Err(status) => return Ended::Lost(status.message().to_owned()),
                    }
                }
                Some(event) = self.inputs.recv() => self.apply(event, Some(&outbox)).await,
                Some(done) = self.done.recv() => match done {
                    Done::Opened(plan, databases) => {
                        if let Err(reason) = self.opened(*plan, databases, &outbox).await {
                            return Ended::Lost(reason);
                        }
                    }
                    Done::Surveyed(number, survey) => {
                        self.surveyed = Some((number, survey));
                        say(&outbox, from_node::Message::Surveyed(Surveyed { survey: number }));
                    }
                },
                _ = heartbeat.tick() => {
                    silent += 1;
                    if silent * HEARTBEAT > SILENCE_MAX + HEARTBEAT {
                        return Ended::Lost(format!("the leader is silent for {} s", SILENCE_MAX.as_secs()));
                    }
                    if leaving.is_some_and(|since| since.elapsed() > LEAVE_TIMEOUT) {
                        warn!("nobody took this node's share over in time, stopping");
                        return Ended::Left;
                    }
                    let trouble = self.environment.store.trouble().unwrap_or_default();
                    say(&outbox, from_node::Message::Heartbeat(Heartbeat { trouble }));
                }
                () = cancel.cancelled(), if leaving.is_none() => {
                    info!("leaving the cluster");
                    leaving = Some(Instant::now());
                    say(&outbox, from_node::Message::Leave(Leave {}));
                }
            }
        }
    }

    async fn hear(&mut self, message: ToNode, outbox: &mpsc::Sender<FromNode>) -> Result<(), rpc::Error> {
        let event = match message.message {
            Some(to_node::Message::StartTerm(start)) => Event::Start(wire::plan(start)?),
            Some(to_node::Message::Barrier(barrier)) => Event::Barrier(wire::barrier(barrier)?),
            Some(to_node::Message::Committed(committed)) => {
                Event::Committed(wire::term(committed.term)?, weir_common::ids::Epoch(committed.epoch))
            }
            Some(to_node::Message::StopTerm(stop)) => Event::Stop(wire::term(stop.term)?),
            Some(to_node::Message::Survey(wanted)) => {
                self.survey(wanted.survey, wanted.prefix);
                return Ok(());
            }
            Some(to_node::Message::CollectGarbage(collect)) => {
                let survey = collect.survey;
                let (committed, live) = wire::reachable(collect)?;
                self.collect_garbage(survey, committed, live);
                return Ok(());
            }
            Some(to_node::Message::Heartbeat(_) | to_node::Message::Released(_)) | None => return Ok(()),
        };
        self.apply(event, Some(outbox)).await;
        Ok(())
    }

    async fn apply(&mut self, event: Event, outbox: Option<&mpsc::Sender<FromNode>>) {
        if let Event::Broken(term, error) = &event
            && self.core.term() == Some(*term)
        {
            // The next term mends it, but the cause deserves a look.
            warn!(%term, error, "this node cannot go on with the term");
        }
        if let Event::Separated(term, reason) = &event
            && self.core.term() == Some(*term)
        {
            info!(%term, reason, "this node's part in the term has ended");
        }
        for action in self.core.apply(event) {
            match action {
                Action::Open(plan) => self.open(plan),
                Action::Close(term) => self.close(term),
                Action::Inject(barrier) => {
                    if let Some(term) = &mut self.term {
                        term.inject(&barrier, self.relations.catalog()).await;
                    }
                    self.note_change(barrier.mutation.as_ref());
                }
                Action::Acknowledge(epoch) => {
                    if let Some(term) = &mut self.term {
                        term.committed(epoch).await;
                    }
                }
                Action::Send(message) => {
                    if let Some(outbox) = outbox {
                        send(outbox, wire::from_node(message));
                    }
                }
            }
        }
    }

    fn open(&mut self, plan: Plan) {
        info!(term = %plan.term, epoch = %plan.epoch, slots = plan.slots.len(), "starting a term");
        let (store, done) = (self.environment.store.clone(), self.done_sender.clone());
        let closing = self.closing.take();
        tokio::spawn(async move {
            if let Some(closing) = closing {
                join(closing).await;
            }
            let databases = term::open(&store, &plan).await;
            let _ = done.send(Done::Opened(Box::new(plan), databases)).await;
        });
    }

    /// Begins the term, or reports why it cannot. The error is a reason to stay away from the
    /// leader until it has passed.
    async fn opened(
        &mut self,
        plan: Plan,
        databases: Result<Databases, state::Error>,
        outbox: &mpsc::Sender<FromNode>,
    ) -> Result<(), String> {
        let id = plan.term;
        let started = match databases {
            Ok(databases) if self.core.term() != Some(id) => {
                discard(databases);
                return Ok(());
            }
            Ok(databases) => Term::start(&plan, databases, self.environment.clone(), &self.stop),
            Err(error) => Err(error),
        };
        let result = match started {
            Ok(term) => {
                self.relations.replace(&plan.catalog);
                self.running.send_replace(Some(term.reachable()));
                self.term = Some(term);
                self.publish();
                Ok(())
            }
            Err(error) => Err((error.kind(), chain(&error))),
        };
        let unavailable = matches!(&result, Err((Kind::Unavailable, _)));
        let result = result.map_err(|(_, error)| error);
        if let Err(error) = &result {
            warn!(term = %id, error, "cannot start the term");
        }
        self.apply(Event::Opened(id, result), Some(outbox)).await;
        if unavailable { Err("the object store is out of reach".to_owned()) } else { Ok(()) }
    }

    fn close(&mut self, id: TermId) {
        self.running.send_replace(None);
        self.serving.send_replace(None);
        if let Some(term) = self.term.take_if(|term| term.id() == id) {
            debug!(term = %id, "ending a term");
            self.closing = Some(tokio::spawn(term.stop()));
        }
    }

    fn note_change(&mut self, mutation: Option<&Mutation>) {
        match mutation {
            Some(Mutation::Add(entry, _)) => self.relations.insert(entry),
            Some(Mutation::Drop(jobs)) => jobs.iter().for_each(|job| self.relations.remove(*job)),
            Some(Mutation::Stop(failed, _)) => self.relations.insert(failed),
            None => return,
        }
        self.publish();
    }

    /// Lets scans read the running term.
    fn publish(&self) {
        if let Some(term) = &self.term {
            self.serving.send_replace(Some(Arc::new(term.serving(self.relations.clone()))));
        }
    }

    /// Lists the databases that exist, in the background.
    fn survey(&mut self, number: u64, prefix: String) {
        if self.collecting.as_ref().is_some_and(|collecting| !collecting.is_finished()) {
            return;
        }
        let (store, done) = (self.environment.store.clone(), self.done_sender.clone());
        self.collecting = Some(tokio::spawn(async move {
            match Survey::take(&store, &prefix).await {
                // If the node is gone, nothing compares the survey.
                Ok(survey) => drop(done.send(Done::Surveyed(number, survey)).await),
                Err(error) => info!(error = chain(&error), "cannot list databases of dead terms now"),
            }
        }));
    }

    /// Deletes the listed databases that nothing reaches, in the background. The reachable ones
    /// were read after the survey of this number, and must not be compared with any other survey.
    fn collect_garbage(&mut self, number: u64, committed: Vec<weir_common::head::SlotState>, live: Vec<String>) {
        let Some((_, survey)) = self.surveyed.take_if(|(surveyed, _)| *surveyed == number) else { return };
        self.collecting = Some(tokio::spawn(async move {
            match survey.collect(&committed, &live).await {
                Ok(collected) => debug!(?collected, "collected databases of dead terms"),
                Err(error) if error.kind() == Kind::Corrupt => error!(
                    error = chain(&error),
                    "the committed state is not complete: nothing is collected; restore it from a copy of the object store"
                ),
                Err(error) => info!(error = chain(&error), "cannot collect databases of dead terms now"),
            }
        }));
    }
}

/// Closes databases of a term that ended before it began.
fn discard(databases: Databases) {
    for (_, db) in databases {
        tokio::spawn(async move { db.close().await });
    }
}

/// Waits a while for the last term's tasks. They touch nothing that the next term uses.
async fn join(closing: JoinHandle<()>) {
    if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
        info!("tasks of the last term have not ended yet, going on");
    }
}

fn say(outbox: &mpsc::Sender<FromNode>, message: from_node::Message) {
    send(outbox, FromNode { message: Some(message) });
}

/// Sends a message. A stream that takes no more is about to end; the loss is noticed where the
/// stream is read.
fn send(outbox: &mpsc::Sender<FromNode>, message: FromNode) {
    if outbox.try_send(message).is_err() {
        debug!("the control stream takes nothing any more");
    }
}

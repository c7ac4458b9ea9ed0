//! The task of a reader: turns what happens on the connection into events of the machine, and the machine's actions into
//! requests.

mod building;
mod looking;
mod sending;

use std::collections::{HashMap, HashSet};
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weir_common::condition::SplitState;
use weir_common::error::{Kind, chain};
use weir_common::ids::{self, Sequence};
use weir_common::position::{Anchor, Position};
use weir_common::rpc;

use super::build::{Known, Live, Outcome, Standing};
use super::condition::{self, Condition, Trouble};
use super::fetch::see;
use super::floor::Floor;
use super::intake::{Arrival, understand};
use super::outage::{DENIAL_MS, Outage, Spacing};
use super::status::{Gauges, Status};
use super::throttle::Throttle;
use super::{Batch, Commit, Message, ReaderConfig, Server};
use crate::api::Api;
use crate::connect::{self, Connection, Link};
use crate::delivery::{Action, Delivery, Event, Incarnation, Millis, Pace, Reason, Token, Verdict};
use crate::error::Error;
use crate::identity::judge;
use crate::reply::Delivered;
use looking::Looked;

/// What one batch holds at most: enough to decode in columns, little enough to hand over soon.
const BATCH_MESSAGES: usize = 8192;
/// The messages of one batch; the last one may exceed it.
const BATCH_BYTES: usize = 4 << 20;
/// So long after the consumer was made and the guard was seen it is kept: a reader of an older term, whose end it has not heard
/// of, may delete the consumer once more. Meta takes a node for lost, and a node takes meta for lost, in a third of the time.
const GUARD_KEPT_MS: Millis = 10_000;
/// How often it is looked whether the stream that is read is still the same.
const IDENTIFY_MS: Millis = 5_000;
/// How often the task looks around when nothing happens.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Options that cannot be used are tried again this often.
const UNUSABLE_PAUSE: Duration = Duration::from_secs(1);
/// Silence is two heartbeats and a half. What waits for its acknowledgement takes 24 bytes a message, 24 MiB at most.
const PACE: Pace =
    Pace { silence_ms: 2_500, rebuild_ms_min: 50, rebuild_ms_max: 2_000, refused_ms: 500, unacked_max: 1 << 20 };

/// The task's ends of what it shares with the handle.
pub(super) struct Handles {
    pub(super) out: mpsc::Sender<Batch>,
    pub(super) commits: watch::Receiver<Commit>,
    pub(super) checkpoint: Arc<Notify>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) condition: watch::Sender<Condition>,
    /// Told once, if reading cannot go on for a reason that the user has to mend.
    pub(super) failure: watch::Sender<Option<String>>,
    pub(super) server: watch::Sender<Option<Server>>,
}

/// The end of an attempt to build the consumer: which it was, what is known now, what was built.
type Attempted = (Incarnation, Known, Result<Outcome, Error>);

pub(super) struct Task {
    config: ReaderConfig,
    handles: Handles,
    cancel: CancellationToken,
    started: Instant,
    api: Api,
    link: watch::Receiver<Link>,
    /// The link when last looked at.
    seen: Link,
    /// Which of the streams of the name is read. The machine knows places in that one only.
    stream_incarnation: ids::Incarnation,
    delivery: Delivery,
    known: Known,
    /// The anchor of the newest batch.
    told: Anchor,
    /// The consumer being read; present only while the machine reads.
    live: Option<Live>,
    attempting: Option<BoxFuture<'static, Attempted>>,
    /// A question which consumer bears the name, and what it was asked for.
    asking: Option<BoxFuture<'static, (Incarnation, Question, Standing)>>,
    /// A confirmation to ask for after that; a newer one stands for it.
    unconfirmed: Option<(Incarnation, u64)>,
    /// The removal of the consumer's guards, as far as it is time for it; brings those that are left.
    releasing: Option<BoxFuture<'static, Option<Vec<String>>>>,
    /// When each guard of the consumer being read was seen first.
    guards: HashMap<String, Millis>,
    /// A question how the consumer being read is doing.
    looking: Option<BoxFuture<'static, Looked>>,
    /// How far its acknowledgements arrived.
    floor: Floor,
    /// When a message came last.
    arrived_at: Millis,
    /// What is wrong with it, although it is being read.
    ailment: Option<Trouble>,
    /// A batch that waits for room in the queue; meanwhile nothing is read.
    pending: Option<Batch>,
    actions: Vec<Action>,
    acks: Vec<Token>,
    throttle: Throttle,
    outage: Outage,
    /// Why the newest attempt to build the consumer failed, while reading stands still.
    obstacle: Option<Trouble>,
    /// Since when the stream has ended before the position, as far as it was looked at.
    short_since: Option<Millis>,
    /// A look at the stream under way, and when the newest one began.
    identifying: Option<BoxFuture<'static, Identified>>,
    identified_at: Millis,
    denials: Spacing,
    /// Why the consumer was last built, retries aside.
    reason: Reason,
    status: Status,
}

/// Why the server is asked which consumer bears the name.
#[derive(Clone, Copy)]
enum Question {
    /// Nothing is heard of it.
    Silence,
    /// Requests for so many messages were sent.
    Requested(u64),
}

/// What a look at the stream showed: of which consumer, and whether the stream seems to be another one.
type Identified = (Incarnation, bool);

/// What woke the task.
enum Woken {
    Link,
    Commit,
    Attempted(Box<Attempted>),
    Answered(Incarnation, Question, Standing),
    Released(Option<Vec<String>>),
    Looked(Box<Looked>),
    Identified(Identified),
    Queued,
    Arrived(Option<async_nats::Message>),
    Acks,
    Tick,
    Stop,
}

impl Task {
    /// A task, as soon as the options can be used: until then the split's condition says why they cannot.
    pub(super) async fn start(config: ReaderConfig, handles: Handles, cancel: CancellationToken) -> Option<Task> {
        let connection = tokio::select! {
            connection = usable(&config, &handles) => connection,
            () = cancel.cancelled() => return None,
        };
        let api = Api::new(connection.clone());
        handles.server.send_replace(Some(Server { api: api.clone(), consumer: None }));
        Some(Task {
            started: Instant::now(),
            link: connection.link,
            api,
            seen: Link::default(),
            stream_incarnation: config.position.next.incarnation(),
            delivery: Delivery::new(in_stream(config.position), PACE),
            known: Known::default(),
            told: config.position.anchor,
            live: None,
            attempting: None,
            asking: None,
            unconfirmed: None,
            releasing: None,
            guards: HashMap::new(),
            looking: None,
            floor: Floor::default(),
            arrived_at: 0,
            ailment: None,
            pending: None,
            actions: Vec::new(),
            acks: Vec::new(),
            throttle: Throttle::new(config.options.consumer.rate_limit),
            outage: Outage::new(),
            obstacle: None,
            short_since: None,
            identifying: None,
            identified_at: 0,
            denials: Spacing::new(DENIAL_MS),
            reason: Reason::Start,
            status: Status::default(),
            config,
            handles,
            cancel,
        })
    }

    /// Reads until cancelled, or until the handle is gone.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        self.publish_condition();
        self.look_at_link().await;
        loop {
            self.identify();
            match self.wait().await {
                Woken::Stop => break,
                Woken::Link => self.look_at_link().await,
                Woken::Commit => {
                    let committed = self.handles.commits.borrow_and_update().position;
                    let position = self.committed_of(committed);
                    self.apply(Event::Committed { position }).await;
                    self.release_guards();
                }
                Woken::Attempted(attempted) => self.attempted(*attempted).await,
                Woken::Answered(incarnation, question, standing) => {
                    self.asking = None;
                    self.answered(incarnation, question, standing).await;
                }
                Woken::Released(left) => {
                    self.releasing = None;
                    self.note_guards(left);
                }
                Woken::Looked(looked) => {
                    self.looking = None;
                    self.looked(*looked);
                }
                Woken::Identified((incarnation, another)) => {
                    self.identifying = None;
                    if another {
                        self.apply(Event::Suspect { incarnation, reason: Reason::Parted }).await;
                    }
                }
                Woken::Queued => {}
                Woken::Arrived(first) => self.burst(first).await,
                Woken::Acks => self.send_acks().await,
                Woken::Tick => {
                    let listening = self.is_listening(self.now());
                    self.apply(Event::Tick { listening }).await;
                    self.tell_anchor();
                    self.warn_of_trouble();
                }
            }
            // Not left to ticks, which do not come while something happens every second.
            self.look();
        }
        self.farewell().await;
        Ok(())
    }

    async fn wait(&mut self) -> Woken {
        let now = self.now();
        let pause = self.throttle.pause(now);
        let deadline = self.delivery.deadline().map_or(IDLE_TICK, |at| Duration::from_millis(at.saturating_sub(now)));
        let wake_at = Instant::now() + deadline.min(IDLE_TICK).min(pause.unwrap_or(IDLE_TICK));
        let listening = self.is_listening(now);
        let acks_due = self.delivery.acks_due();
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Woken::Stop,
            Ok(()) = self.link.changed() => Woken::Link,
            changed = self.handles.commits.changed() => if changed.is_ok() { Woken::Commit } else { Woken::Stop },
            attempted = maybe(&mut self.attempting) => Woken::Attempted(Box::new(attempted)),
            (incarnation, question, standing) = maybe(&mut self.asking) => {
                Woken::Answered(incarnation, question, standing)
            }
            left = maybe(&mut self.releasing) => Woken::Released(left),
            looked = maybe(&mut self.looking) => Woken::Looked(Box::new(looked)),
            identified = maybe(&mut self.identifying) => Woken::Identified(identified),
            permit = self.handles.out.reserve(), if self.pending.is_some() => match (permit, self.pending.take()) {
                (Ok(permit), Some(batch)) => {
                    permit.send(batch);
                    Woken::Queued
                }
                _ => Woken::Stop,
            },
            message = arrival(&mut self.live), if listening => Woken::Arrived(message),
            () = ready(()), if acks_due => Woken::Acks,
            () = tokio::time::sleep_until(wake_at) => Woken::Tick,
        }
    }

    /// Looks at the stream now and then: where its leader lost what it had while the connection lasted, nothing else shows it.
    fn identify(&mut self) {
        let now = self.now();
        let Some(live) =
            self.live.as_ref().filter(|_| self.identifying.is_none() && now >= self.identified_at + IDENTIFY_MS)
        else {
            return;
        };
        self.identified_at = now;
        let (incarnation, api, stream) = (live.incarnation, self.api.clone(), self.config.options.stream.clone());
        let read = Position { next: self.delivery.position(), anchor: self.delivery.anchor() };
        let judged = async move { (incarnation, seems_another(&api, &stream, read).await) };
        self.identifying = Some(judged.boxed());
    }

    /// Whether arrivals are taken.
    fn is_listening(&self, now: Millis) -> bool {
        self.pending.is_none() && self.throttle.pause(now).is_none() && self.delivery.takes_deliveries()
    }

    fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Turns what the link counted into events.
    async fn look_at_link(&mut self) {
        let link = self.link.borrow_and_update().clone();
        let seen = std::mem::replace(&mut self.seen, link.clone());
        if link.denials != seen.denials && self.denials.pass(self.now()).is_some() {
            warn!(split = %self.config.split, denial = link.denial, "the NATS server denies something");
        }
        if link.losses != seen.losses {
            self.apply(Event::Disconnected).await;
        }
        if link.connected {
            self.apply(Event::Connected).await;
        }
        if let (true, Some(live)) = (link.overflows != seen.overflows, &self.live) {
            self.apply(Event::Suspect { incarnation: live.incarnation, reason: Reason::Overflow }).await;
        }
    }

    /// Takes everything that has arrived, up to the bounds of a batch.
    async fn burst(&mut self, first: Option<async_nats::Message>) {
        let now = self.now();
        let mut batch = Vec::new();
        let mut bytes = 0;
        let before = self.delivery.position();
        let incarnation = self.stream_incarnation;
        let mut next = Some(first);
        while let Some(arrived) = next {
            match arrived {
                Some(message) => bytes += self.take(now, message, &mut batch),
                None => self.subscription_ended(now),
            }
            let full = batch.len() >= BATCH_MESSAGES || bytes >= BATCH_BYTES;
            next = match &mut self.live {
                // Outside of the scheduler's budget, which would cut every burst at 128.
                Some(live) if !full && self.delivery.is_reading() && self.delivery.takes_deliveries() => {
                    tokio::task::unconstrained(live.subscriber.next()).now_or_never()
                }
                _ => None,
            };
        }
        self.throttle.spend(now, bytes as u64);
        let position = self.delivery.position();
        if position != before {
            let anchor = self.delivery.anchor();
            self.told = anchor;
            let position = Sequence::new(incarnation, position.0);
            self.pending = Some(Batch { messages: batch, position, anchor });
        }
        self.apply(Event::Drained).await;
        self.send_acks().await;
    }

    /// A place in the stream that is read, as others know it.
    pub(super) fn place(&self, in_stream: Sequence) -> Sequence {
        Sequence::new(self.stream_incarnation, in_stream.0)
    }

    /// What a commit says of the stream that is read; one of an earlier stream says nothing of it.
    pub(super) fn committed_of(&self, committed: Sequence) -> Sequence {
        match committed.incarnation() == self.stream_incarnation {
            true => Sequence(committed.in_stream()),
            false => self.delivery.committed(),
        }
    }

    /// Hands the anchor out, if it is news that no message brought: it is committed with the position.
    pub(super) fn tell_anchor(&mut self) {
        let (position, anchor) = (self.place(self.delivery.position()), self.delivery.anchor());
        if anchor != self.told {
            self.told = anchor;
            let batch = self.pending.get_or_insert_with(|| Batch { messages: Vec::new(), position, anchor });
            (batch.position, batch.anchor) = (position, anchor);
        }
    }

    /// One arrival; its bytes if it was a message.
    fn take(&mut self, now: Millis, mut message: async_nats::Message, batch: &mut Vec<Message>) -> usize {
        let Some(live) = &mut self.live else { return 0 };
        let incarnation = live.incarnation;
        let delivered = match understand(&message, incarnation, &mut live.form) {
            Arrival::Delivery(delivered) => delivered,
            Arrival::Event(event) => {
                self.delivery.apply(now, event, &mut self.actions);
                return 0;
            }
            Arrival::NoResponders => {
                self.actions.push(Action::Verify { incarnation });
                return 0;
            }
        };
        if live.pin.as_mut().is_some_and(|pin| !pin.take_from(&mut message.headers)) {
            self.delivery.apply(now, Event::Taken { incarnation }, &mut self.actions);
            return 0;
        }
        match self.delivery.deliver(now, incarnation, delivered) {
            Verdict::Accept => {
                self.status.lag = delivered.pending;
                self.status.read_ns = delivered.stored_ns;
                self.arrived_at = now;
                if live.selection.as_ref().is_none_or(|selection| selection.admits(&message.subject)) {
                    let async_nats::Message { subject, payload, headers, length, .. } = message;
                    let Delivered { stream_seq, stored_ns, .. } = delivered;
                    let sequence = Sequence::new(self.stream_incarnation, stream_seq).0;
                    let headers = headers.map(Box::new);
                    batch.push(Message { sequence, subject, stored_ns, headers, payload });
                    return length;
                }
            }
            Verdict::AckAndDrop(token) => self.acks.push(token),
            Verdict::Drop | Verdict::Discard => {}
        }
        0
    }

    fn subscription_ended(&mut self, now: Millis) {
        if let Some(live) = &self.live {
            let event = Event::Suspect { incarnation: live.incarnation, reason: Reason::Ended };
            self.delivery.apply(now, event, &mut self.actions);
        }
    }

    /// Tells the machine and does what it says.
    async fn apply(&mut self, event: Event) {
        self.delivery.apply(self.now(), event, &mut self.actions);
        if !self.delivery.is_reading() {
            if self.live.take().is_some() {
                self.publish_server();
            }
            self.asking = None;
            self.unconfirmed = None;
            self.releasing = None;
            self.looking = None;
            self.identifying = None;
            self.ailment = None;
            self.acks.clear();
        }
        for action in std::mem::take(&mut self.actions) {
            self.perform(action).await;
        }
        self.publish_status();
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::Build { incarnation, position, committed, reason, fetch } => {
                if reason != Reason::Retry {
                    self.reason = reason;
                }
                self.attempt(incarnation, (position, committed), fetch).await;
            }
            Action::Pull { incarnation, pull } => {
                let Some(live) = self.live.as_ref().filter(|live| live.incarnation == incarnation) else { return };
                let (subject, reply, body) = live.request(pull);
                let client = self.api.client();
                self.transmit(async move { client.publish_with_reply(subject, reply, body).await }).await;
            }
            Action::Verify { incarnation } => {
                if self.asking.is_none() {
                    self.ask(incarnation, Question::Silence);
                }
            }
            Action::Confirm { incarnation, requested } => {
                // One at a time: the next one stands for all requests sent meanwhile.
                if self.asking.is_some() {
                    self.unconfirmed = Some((incarnation, requested));
                } else {
                    self.ask(incarnation, Question::Requested(requested));
                }
            }
            Action::RequestCheckpoint => self.handles.checkpoint.notify_one(),
            Action::AwaitConfirmation => {
                info!(
                    split = %self.config.split,
                    "the consumer was deleted or taken over by somebody else, reading waits for the next commit"
                );
            }
        }
    }

    /// A commit has come, so the term reigned when it was made, and guards that were seen a while before are of no newer reader.
    /// Nor can anything that an older reader did have reached the server later: they have done their duty.
    fn release_guards(&mut self) {
        let now = self.now();
        let Some(live) = self.live.as_ref().filter(|live| live.guarded && self.releasing.is_none()) else { return };
        let due = self.guards.iter().filter(|(_, seen)| **seen + GUARD_KEPT_MS <= now);
        let due: HashSet<String> = due.map(|(name, _)| name.clone()).collect();
        if due.is_empty() && !self.guards.is_empty() {
            return;
        }
        // Whenever the server gets to it: no other guard may bear the name.
        self.known.guard.take_if(|own| due.contains(own));
        let (stream, owner) = (self.config.options.stream.clone(), self.config.owner.clone());
        self.releasing = Some(live.release(self.api.clone(), stream, owner, due).boxed());
    }

    fn note_guards(&mut self, left: Option<Vec<String>>) {
        let now = self.now();
        if let (Some(left), Some(live)) = (left, &mut self.live) {
            live.guarded = !left.is_empty();
            let before = std::mem::take(&mut self.guards);
            let seen = |name: &String| before.get(name).copied().unwrap_or(now);
            self.guards = left.into_iter().map(|name| (name.clone(), seen(&name))).collect();
        }
    }

    fn ask(&mut self, incarnation: Incarnation, question: Question) {
        if let Some(live) = self.live.as_ref().filter(|live| live.incarnation == incarnation) {
            let standing = live.standing(self.api.clone(), self.config.options.stream.clone());
            self.asking = Some(standing.map(move |standing| (incarnation, question, standing)).boxed());
        }
    }

    async fn answered(&mut self, incarnation: Incarnation, question: Question, standing: Standing) {
        let event = match (standing, question) {
            (Standing::Replaced, _) => Event::Taken { incarnation },
            (Standing::Ours, Question::Requested(requested)) => Event::Confirmed { incarnation, requested },
            _ => Event::Suspect { incarnation, reason: Reason::Silent },
        };
        let waiting = self.unconfirmed.take();
        self.apply(event).await;
        // A question that was asked just now stands for the one that waited, and must not be replaced by it: what was
        // requested since would never be confirmed, and reading would stand still.
        if let (None, Some((incarnation, requested))) = (&self.asking, waiting) {
            self.ask(incarnation, Question::Requested(requested));
        }
    }

    /// Warns of a condition that lasts, once for each state.
    fn warn_of_trouble(&mut self) {
        if let Some(ms) = self.outage.warning(self.now()) {
            let condition = self.handles.condition.borrow();
            let (state, reason) = (condition.state.as_str(), condition.reason());
            warn!(split = %self.config.split, outage_ms = ms, state, reason, "not reading");
        }
    }

    /// What keeps the split from being read as it should be.
    fn trouble(&self) -> Option<Trouble> {
        match self.delivery.is_reading() {
            true => self.ailment.clone(),
            false => Some(Trouble::not_reading(&self.link.borrow(), self.obstacle.as_ref())),
        }
    }

    /// Lets others know the split's condition.
    fn publish_condition(&mut self) {
        let trouble = self.trouble();
        let state = trouble.as_ref().map_or(SplitState::Reading, |trouble| trouble.state);
        if let Some(outage_ms) = self.outage.observe(self.now(), state) {
            info!(split = %self.config.split, outage_ms, "reading again");
        }
        condition::publish(&self.handles.condition, trouble);
    }

    /// Lets others ask the server of what is read.
    fn publish_server(&self) {
        let consumer = self.live.as_ref().map(|live| live.name().to_owned());
        self.handles.server.send_replace(Some(Server { api: self.api.clone(), consumer }));
    }

    fn publish_status(&mut self) {
        let counters = self.delivery.counters();
        self.status.position = self.place(self.delivery.position());
        self.status.committed = self.place(self.delivery.committed());
        let read = Sequence(self.delivery.position().0.saturating_sub(1));
        self.status.stream_last = self.status.stream_last.max(read);
        self.status.reading = self.delivery.is_reading();
        self.status.delivered = self.delivery.delivered();
        self.status.redelivered = counters.redelivered;
        self.status.rebuilds = counters.rebuilds;
        self.handles.gauges.store(self.status);
        self.publish_condition();
    }
}

/// A client with the reader's options. A file that is missing on this node, for instance, is looked for again.
async fn usable(config: &ReaderConfig, handles: &Handles) -> Connection {
    let name = format!("weir {}", config.owner);
    loop {
        let error = match connect::connect_eventually(&config.options, &name).await {
            Ok(connection) => return connection,
            Err(error) => chain(&error),
        };
        if handles.condition.borrow().trouble.as_ref().is_none_or(|before| before.message != error) {
            warn!(split = %config.split, error, "not reading, because the options cannot be used");
        }
        let error = Arc::new(rpc::Error::new(Kind::User, error));
        condition::publish(&handles.condition, Some(Trouble { state: SplitState::Stalled, error }));
        tokio::time::sleep(UNUSABLE_PAUSE).await;
    }
}

/// What a position says to who knows of one stream only.
fn in_stream(Position { next, anchor }: Position) -> Position {
    Position { next: Sequence(next.in_stream()), anchor }
}

/// Whether a stream seems to be another one than was read. If the server does not say it does not.
async fn seems_another(api: &Api, stream: &str, read: Position) -> bool {
    let Ok(info) = api.stream_info(stream).await else { return false };
    let seen = see(api, stream, &info, &read.anchor).await;
    seen.is_ok_and(|seen| judge(read.anchor, read.next, &seen).is_err())
}

/// The outcome of a future that may not be there.
async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The next arrival of a consumer that may not be there.
async fn arrival(live: &mut Option<Live>) -> Option<async_nats::Message> {
    match live {
        Some(live) => live.subscriber.next().await,
        None => std::future::pending().await,
    }
}

//! The machine against a simulated broker: any schedule of publishing, delivering, losing,
//! redelivering, stealing, deleting, disconnecting, committing, acknowledging and killing, messages
//! that break the connection among them. Whatever happens, every message is accepted exactly once
//! and in order, nothing is acknowledged before its commit, and once the trouble ends everything is
//! read and acknowledged.
//!
//! Streams with WorkQueue and Interest retention lose what is acknowledged, or what no consumer
//! needs any more. There it must hold besides that nothing goes before it is committed, and that
//! the stream ends empty. How the reader builds its consumer on them is modelled step by step,
//! because it may be killed between any two. A pinned consumer is reset instead; what others do to
//! it, at any time, is what older and newer readers do: unpin it, reset it, ask for its messages.
//! `builds` has these steps; the stream itself changes in `streams`.

mod builds;
mod steps;
mod streams;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use weir_common::ids::Sequence;
use weir_common::position::Position;

use super::*;
use crate::retention::Retention;
use steps::{Setting, Step, setting, step, step_of_streams};
use streams::Reading;

const PACE: Pace =
    Pace { silence_ms: 2_500, rebuild_ms_min: 50, rebuild_ms_max: 2_000, refused_ms: 500, unacked_max: 9 };

/// A consumer as the server keeps it.
#[derive(Debug)]
struct Consumer {
    /// Who may use it: the incarnation it was made for, or somebody else.
    created: u64,
    /// Index into the stream of the next message to deliver.
    next: usize,
    sequence: u64,
    pending: BTreeMap<u64, (u64, u64)>,
    floor: (u64, u64),
    requested: u64,
    /// Whom it delivers to, if it is pinned.
    pin: Option<Holder>,
}

/// Who holds the pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// The reader, since this incarnation of its consumer.
    Reader(Incarnation),
    /// Somebody else; nothing that goes there is seen again.
    Other,
}

#[derive(Debug)]
enum Wire {
    Delivered(Delivered),
    Taken,
    Expired { unserved: Option<u64> },
}

struct World {
    retention: Retention,
    terms: Terms,
    machine: Delivery,
    now: Millis,
    /// `on_new_stream = 'read'`.
    follows: bool,
    /// One for each stream of the name that was read.
    readings: Vec<Reading>,
    /// The sequences that were published, with gaps.
    stream: Vec<u64>,
    last: u64,
    /// When each was stored, and the time of now.
    times: BTreeMap<u64, u64>,
    clock: u64,
    /// When the stream was created.
    created: u64,
    /// The times of the messages that went with an end.
    gone: BTreeSet<u64>,
    /// Those of them that the stream holds no longer.
    removed: BTreeSet<u64>,
    /// Those that break the connection when they arrive.
    poison: BTreeSet<u64>,
    /// What the reader knows of these.
    unreadable: BTreeSet<u64>,
    /// Everything below is committed of this one of the readings, whether the machine was told or
    /// not.
    durable: u64,
    durable_reading: usize,
    /// Whether it is committed that the stream is another one.
    durable_parted: bool,
    /// The readings and times of the messages that are committed.
    stored: BTreeSet<(usize, u64)>,
    consumer: Option<Consumer>,
    /// Where the guard starts, if there is one.
    guard: Option<u64>,
    /// Whether there was a commit since the consumer was built.
    confirmed: bool,
    creations: u64,
    /// The creation that the machine's current incarnation belongs to.
    mine: Option<(Incarnation, u64)>,
    /// Whether a message has come that says that the consumer is pinned to the current incarnation.
    holds_pin: bool,
    connected: bool,
    /// On its way to the reader's subscription.
    wire: VecDeque<Wire>,
    building: Option<Building>,
    verify: Option<Incarnation>,
    confirm: Option<(Incarnation, u64)>,
    checkpoint_wanted: bool,
    /// True once nothing happens to the stream any more.
    settles: bool,
}

/// A build that the machine has asked for.
#[derive(Clone, Copy, Debug)]
struct Building {
    incarnation: Incarnation,
    position: Position,
    committed: Sequence,
    fetch: bool,
}

impl World {
    fn new(Setting { retention, terms, start, follows }: Setting) -> World {
        let mut world = World {
            retention,
            terms,
            machine: Delivery::new(Sequence(start).into(), PACE),
            now: 0,
            follows,
            readings: vec![Reading::new(start, 1)],
            stream: Vec::new(),
            last: 0,
            times: BTreeMap::new(),
            clock: 0,
            created: 1,
            gone: BTreeSet::new(),
            removed: BTreeSet::new(),
            poison: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            durable: start,
            durable_reading: 0,
            durable_parted: false,
            stored: BTreeSet::new(),
            consumer: None,
            guard: None,
            confirmed: false,
            creations: 0,
            mine: None,
            holds_pin: false,
            connected: false,
            wire: VecDeque::new(),
            building: None,
            verify: None,
            confirm: None,
            checkpoint_wanted: false,
            settles: false,
        };
        if retention == Retention::Limits {
            (1..start).for_each(|_| world.publish());
        } else {
            // The statement that created the table left the durable behind, and whatever is
            // published belongs to it.
            world.last = start - 1;
            world.create(start);
        }
        let anchor = world.judged(Sequence(start).into()).expect("nothing is known yet");
        (world.readings[0].first_anchor, world.readings[0].first_clock) = (anchor, world.clock);
        world.machine = Delivery::new(Position { next: Sequence(start), anchor }, PACE);
        world
    }

    fn apply(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.machine.apply(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Build { incarnation, position, committed, fetch, .. } => {
                    self.building = Some(Building { incarnation, position, committed, fetch });
                }
                Action::Pull { incarnation, pull } => self.pull(incarnation, pull),
                Action::Verify { incarnation } => self.verify = Some(incarnation),
                Action::Confirm { incarnation, requested } => self.confirm = Some((incarnation, requested)),
                Action::RequestCheckpoint => self.checkpoint_wanted = true,
                Action::AwaitConfirmation => {}
            }
        }
    }

    /// A request reaches whatever consumer bears the name by now.
    fn pull(&mut self, incarnation: Incarnation, pull: Pull) {
        let mine = self.mine.is_some_and(|(current, _)| current == incarnation);
        if let (true, true, Some(consumer)) = (self.connected, mine, &mut self.consumer) {
            if self.holds_pin && consumer.pin != Some(Holder::Reader(incarnation)) {
                self.wire.push_back(Wire::Taken);
                return;
            }
            consumer.requested += pull.batch;
            let most = self.terms.batch * self.terms.requests;
            // Statuses that do not say what was left may make the machine ask for more than it
            // would.
            assert!(pull.batch <= most, "a request of {} where {most} is the most", pull.batch);
        }
    }

    fn create(&mut self, position: u64) {
        self.delete();
        self.creations += 1;
        self.consumer = Some(Consumer {
            created: self.creations,
            next: self.stream.partition_point(|sequence| *sequence < position),
            sequence: 0,
            pending: BTreeMap::new(),
            floor: (0, position.saturating_sub(1)),
            requested: 0,
            pin: None,
        });
    }

    /// Whoever waits on the consumer is told, after what was delivered before.
    fn delete(&mut self) {
        if self.consumer.take().is_some_and(|consumer| consumer.requested > 0) && self.connected {
            self.wire.push_back(Wire::Taken);
        }
        self.forget_unneeded();
    }

    /// A message goes from the stream.
    fn remove(&mut self, sequence: u64) {
        let time = self.times[&sequence];
        let reading = self.readings.len() - 1;
        assert!(self.stored.contains(&(reading, time)), "{sequence} of {time} goes, and is not committed");
        self.removed.insert(sequence);
    }

    /// Under Interest retention goes what no consumer needs.
    fn forget_unneeded(&mut self) {
        if self.retention != Retention::Interest {
            return;
        }
        let needed = |at: usize, sequence: u64| {
            let guarded = self.guard.is_some_and(|start| sequence >= start);
            let consumer = self.consumer.as_ref();
            guarded || consumer.is_some_and(|own| at >= own.next || own.pending.contains_key(&sequence))
        };
        let held = self.stream.iter().copied().enumerate().filter(|(_, sequence)| !self.removed.contains(sequence));
        let unneeded: Vec<u64> = held.filter(|(at, held)| !needed(*at, *held)).map(|(_, sequence)| sequence).collect();
        unneeded.into_iter().for_each(|sequence| self.remove(sequence));
    }

    /// The next delivery of the consumer, if it may deliver.
    fn produce(&mut self) -> Option<Delivered> {
        let acks = self.terms.ack_policy != AckPolicy::None;
        let consumer = self.consumer.as_mut()?;
        let full = self.terms.max_ack_pending.is_some_and(|max| acks && consumer.pending.len() as u64 >= max);
        while self.stream.get(consumer.next).is_some_and(|sequence| self.removed.contains(sequence)) {
            consumer.next += 1;
        }
        let stream_seq = *self.stream.get(consumer.next).filter(|_| !full)?;
        consumer.next += 1;
        consumer.sequence += 1;
        if acks {
            consumer.pending.insert(stream_seq, (consumer.sequence, 1));
        } else {
            consumer.floor = (consumer.sequence, stream_seq);
        }
        let stored_ns = self.times[&stream_seq];
        Some(Delivered { stream_seq, consumer_seq: consumer.sequence, deliveries: 1, stored_ns, pending: 0 })
    }

    fn deliver(&mut self, count: u8) {
        for _ in 0..count {
            if !self.is_served() {
                // Whoever is served instead takes what there is.
                self.steal();
                continue;
            }
            let my_pin = self.my_pin();
            let Some(delivered) = self.produce() else { return };
            let consumer = self.consumer.as_mut().expect("it just delivered");
            consumer.requested -= 1;
            consumer.pin = my_pin;
            self.wire.push_back(Wire::Delivered(delivered));
        }
    }

    /// Whether the reader is who the consumer delivers to next.
    fn is_served(&self) -> bool {
        let Some(consumer) = self.consumer.as_ref().filter(|_| self.connected) else { return false };
        consumer.requested > 0 && (consumer.pin.is_none() || consumer.pin == self.my_pin())
    }

    /// What says that the consumer is pinned to the reader.
    fn my_pin(&self) -> Option<Holder> {
        self.mine.map(|(incarnation, _)| Holder::Reader(incarnation)).filter(|_| self.terms.fence == Fence::Pinned)
    }

    /// A delivery goes to somebody else, if the consumer is pinned to him or may be.
    fn steal(&mut self) {
        let Some(consumer) = &self.consumer else { return };
        match (self.terms.fence, consumer.pin) {
            (Fence::Pinned, Some(Holder::Reader(_))) => {}
            (Fence::Pinned, None | Some(Holder::Other)) => {
                if self.produce().is_some() {
                    self.consumer.as_mut().expect("it just delivered").pin = Some(Holder::Other);
                }
            }
            (Fence::Private | Fence::Made, _) => {}
        }
    }

    /// Requests that bear a pin are refused from now on.
    fn unpin(&mut self) {
        let Some(consumer) = &mut self.consumer else { return };
        if consumer.pin.take().is_some_and(|holder| holder != Holder::Other) {
            consumer.requested = 0;
            if self.connected {
                self.wire.push_back(Wire::Taken);
            }
        }
    }

    /// Everything is delivered again from a sequence on, counted from 1, and what lies below counts
    /// as acknowledged.
    fn reset(&mut self, position: u64) {
        let Some(consumer) = &mut self.consumer else { return };
        consumer.next = self.stream.partition_point(|sequence| *sequence < position);
        consumer.pending.clear();
        consumer.sequence = 0;
        self.forget_unneeded();
    }

    fn redeliver(&mut self, count: u8) {
        let (served, my_pin) = (self.is_served(), self.my_pin());
        let Some(consumer) = &mut self.consumer else { return };
        for (stream_seq, (consumer_seq, deliveries)) in consumer.pending.iter_mut().take(usize::from(count)) {
            if !served || consumer.requested == 0 {
                return;
            }
            consumer.requested -= 1;
            consumer.pin = my_pin;
            consumer.sequence += 1;
            (*consumer_seq, *deliveries) = (consumer.sequence, *deliveries + 1);
            let (stream_seq, consumer_seq, deliveries) = (*stream_seq, *consumer_seq, *deliveries);
            self.wire.push_back(Wire::Delivered(Delivered {
                stream_seq,
                consumer_seq,
                deliveries,
                stored_ns: self.times[&stream_seq],
                pending: 0,
            }));
        }
    }

    fn receive(&mut self, count: u8) {
        for _ in 0..count {
            if !self.machine.takes_deliveries() {
                break;
            }
            let Some(wire) = self.wire.pop_front() else { break };
            // Only the subscription of the current incarnation is polled.
            let Some((incarnation, _)) = self.mine else { continue };
            match wire {
                Wire::Taken => self.apply(Event::Taken { incarnation }),
                Wire::Expired { unserved } => {
                    self.apply(Event::PullEnded { incarnation, unserved, end: PullEnd::Expired });
                }
                Wire::Delivered(delivered) if self.poison.contains(&delivered.stream_seq) => {
                    self.disconnect();
                    return;
                }
                Wire::Delivered(delivered) => {
                    self.holds_pin = self.terms.fence == Fence::Pinned;
                    match self.machine.deliver(self.now, incarnation, delivered) {
                        Verdict::Accept => self.accept(delivered.stream_seq),
                        Verdict::AckAndDrop(token) => self.acknowledge_one(token),
                        Verdict::Drop | Verdict::Discard => {}
                    }
                }
            }
        }
        self.apply(Event::Drained);
    }

    fn acknowledge(&mut self, limit: usize) {
        let mut acks = Vec::new();
        self.machine.take_acks(limit, &mut acks);
        for token in acks {
            self.acknowledge_one(token);
        }
    }

    /// What the server makes of an acknowledgement, its rule against old ones under `all` included.
    fn acknowledge_one(&mut self, token: Token) {
        assert!(token.stream_seq < self.machine.committed().0, "acknowledged before its commit: {token:?}");
        let is_there = self.stream.binary_search(&token.stream_seq).is_ok();
        assert!(!is_there || self.is_read(token.stream_seq), "of another stream, and not read: {token:?}");
        let Some(consumer) = self.consumer.as_mut().filter(|_| self.connected) else { return };
        if self.mine.is_none_or(|(_, created)| created != consumer.created) {
            // Somebody else's by now; the next status says so.
            return;
        }
        match self.terms.ack_policy {
            AckPolicy::None => panic!("nothing is acknowledged under none"),
            AckPolicy::Explicit => {
                let pending = consumer.pending.remove(&token.stream_seq).is_some();
                match self.retention {
                    Retention::WorkQueue if pending => self.remove(token.stream_seq),
                    Retention::WorkQueue | Retention::Limits => {}
                    Retention::Interest => self.forget_unneeded(),
                }
            }
            AckPolicy::All => {
                if token.consumer_seq > consumer.floor.0 && token.stream_seq > consumer.floor.1 {
                    consumer.floor = (token.consumer_seq, token.stream_seq);
                    consumer.pending = consumer.pending.split_off(&(token.stream_seq + 1));
                }
            }
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Publish { messages, gap } => {
                self.last += u64::from(*gap);
                (0..*messages).for_each(|_| self.publish());
            }
            Step::Poison => {
                self.publish();
                self.poison.insert(self.last);
            }
            Step::Deliver(count) => self.deliver(*count),
            Step::Receive(count) => self.receive(*count),
            Step::Lose(which) => {
                let deliveries: Vec<usize> =
                    (0..self.wire.len()).filter(|i| matches!(self.wire[*i], Wire::Delivered(_))).collect();
                if let Some(at) = deliveries.get(usize::from(*which) % deliveries.len().max(1)) {
                    self.wire.remove(*at);
                }
            }
            Step::Redeliver(count) => self.redeliver(*count),
            Step::Steal(count) => {
                for _ in 0..*count {
                    match self.terms.fence {
                        Fence::Pinned => self.steal(),
                        Fence::Private | Fence::Made => drop(self.produce()),
                    }
                }
            }
            Step::Unpin => {
                if self.terms.fence == Fence::Pinned {
                    self.unpin();
                }
            }
            // To what is committed for whoever does it; who may then be served until the sequences
            // go on where the reader's end.
            Step::Reset { part, steal } => {
                if self.terms.fence == Fence::Pinned && !self.is_another() && self.is_durable_current() {
                    let start = self.reading().start;
                    self.reset(start + (self.durable - start) * u64::from(*part) / 255);
                    let count = if *steal { self.machine.delivered() } else { 0 };
                    (0..count).for_each(|_| self.steal());
                }
            }
            // To delete it under Interest retention deletes messages, except for those that an old
            // reader does belatedly.
            Step::DeleteConsumer => {
                if self.retention != Retention::Interest || self.guard.is_some() && !self.is_another() {
                    self.delete();
                }
            }
            Step::ReplaceConsumer => {
                // Nobody gives another consumer a name that only its reader knows, and a pinned one
                // is only made where there is none.
                if self.terms.fence == Fence::Made && self.consumer.is_some() && !self.is_another() {
                    let (committed, guard) = (self.machine.committed().0, self.guard);
                    self.guard = guard.or(Some(committed));
                    self.create(committed);
                    self.guard = guard;
                    self.forget_unneeded();
                }
            }
            Step::GoBack { part, restore } => self.go_back(*part, *restore),
            Step::CreateAnew => self.create_anew(),
            Step::Disconnect => self.disconnect(),
            Step::Connect => {
                self.connected = true;
                self.apply(Event::Connected);
            }
            Step::CompleteBuild => self.complete_build(),
            Step::FailBuild { after } => {
                if let Some(building) = self.building.take() {
                    if self.judged(building.position).is_ok() {
                        self.build_steps(building.committed.0, usize::from(*after));
                    }
                    self.apply(Event::BuildFailed { incarnation: building.incarnation });
                }
            }
            Step::Kill { after } => self.kill(usize::from(*after)),
            Step::ReleaseGuard => self.release_guard(),
            Step::Answer => self.answer(),
            Step::Commit { part, told } => self.commit(*part, *told),
            Step::Acknowledge(limit) => self.acknowledge(usize::from(*limit)),
            Step::LoseAcks { disconnect } => {
                self.machine.take_acks(usize::MAX, &mut Vec::new());
                if *disconnect {
                    self.disconnect();
                }
            }
            Step::Expire { says } => self.expire(*says),
            Step::Refuse => {
                self.with_mine(|incarnation| Event::PullEnded { incarnation, unserved: Some(0), end: PullEnd::Refused })
            }
            Step::Heartbeat => self.heartbeat(),
            Step::Suspect => self.with_mine(|incarnation| Event::Suspect { incarnation, reason: Reason::Unsettled }),
            Step::Wait(ms) => {
                self.now += Millis::from(*ms);
                let listening = self.wire.is_empty() && self.machine.takes_deliveries();
                self.apply(Event::Tick { listening });
            }
        }
    }

    /// Comes after what was delivered before.
    fn heartbeat(&mut self) {
        let sequence = self.consumer.as_ref().map_or(0, |consumer| consumer.sequence);
        let delivered = if self.wire.is_empty() { sequence } else { 0 };
        if self.connected {
            self.with_mine(|incarnation| Event::Heartbeat { incarnation, delivered });
        }
    }

    fn with_mine(&mut self, event: impl FnOnce(Incarnation) -> Event) {
        if let Some((incarnation, _)) = self.mine {
            self.apply(event(incarnation));
        }
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.wire.clear();
        self.building = None;
        self.verify = None;
        self.confirm = None;
        if let Some(consumer) = &mut self.consumer {
            consumer.requested = 0;
        }
        self.apply(Event::Disconnected);
    }

    fn publish(&mut self) {
        self.last += 1;
        self.clock += 1;
        self.stream.push(self.last);
        self.times.insert(self.last, self.clock);
        let interested = self.consumer.is_some() || self.guard.is_some();
        assert!(self.retention != Retention::Interest || interested, "{} was published to nobody", self.last);
    }

    /// The guard goes when a commit has shown that no other reader reigns, and the consumer is
    /// still the one that was made.
    fn release_guard(&mut self) {
        let there = self.consumer.as_ref().map(|consumer| consumer.created);
        let mine = self.mine.is_some_and(|(_, created)| there == Some(created));
        if mine && self.connected && self.confirmed && self.machine.is_reading() {
            self.guard = None;
            self.forget_unneeded();
        }
    }

    /// The server says which consumer bears the name now.
    fn answer(&mut self) {
        let there = self.consumer.as_ref().map(|consumer| consumer.created);
        let is_mine = |world: &World, incarnation| world.mine == there.map(|created| (incarnation, created));
        if let Some((incarnation, requested)) = self.confirm.take() {
            let mine = is_mine(self, incarnation);
            self.apply(if mine { Event::Confirmed { incarnation, requested } } else { Event::Taken { incarnation } });
        }
        if let Some(incarnation) = self.verify.take() {
            let mine = is_mine(self, incarnation);
            self.apply(if mine {
                Event::Suspect { incarnation, reason: Reason::Silent }
            } else {
                Event::Taken { incarnation }
            });
        }
    }

    /// Everything requested runs out, which is said after what was delivered before.
    fn expire(&mut self, says: bool) {
        let created = self.mine.map(|(_, created)| created);
        let Some(consumer) = self.consumer.as_mut().filter(|consumer| Some(consumer.created) == created) else {
            return;
        };
        let unserved = std::mem::take(&mut consumer.requested);
        self.wire.push_back(Wire::Expired { unserved: says.then_some(unserved) });
    }

    /// A commit somewhere between what is committed and what was handed out, of which the machine
    /// may not hear.
    fn commit(&mut self, part: u8, told: bool) {
        let is_current = self.store(part);
        if told {
            self.checkpoint_wanted = false;
            self.confirmed = true;
            // One of the stream before says nothing.
            let position = if is_current { Sequence(self.durable) } else { self.machine.committed() };
            self.apply(Event::Committed { position });
        }
    }

    /// The trouble is over: everything that can happen does, over and over.
    fn recover(&mut self) {
        for round in 0..200 + 10 * self.poison.len() {
            self.settles = round >= 10;
            if round >= 30 && !self.follows && self.is_another() && !self.machine.is_reading() {
                return;
            }
            self.run(&Step::Connect);
            self.run(&Step::Wait(700));
            self.answer();
            self.complete_build();
            self.answer();
            self.deliver(50);
            self.receive(u8::MAX);
            if self.consumer.as_ref().is_some_and(|consumer| consumer.requested > 0 && consumer.pin != self.my_pin()) {
                self.heartbeat();
            }
            self.commit(255, true);
            self.acknowledge(usize::MAX);
            self.release_guard();
            // What was not acknowledged comes again after its wait.
            if round % 10 == 9 {
                self.redeliver(u8::MAX);
                self.receive(u8::MAX);
            }
            let settled = self.consumer.as_ref().is_some_and(|consumer| consumer.pending.is_empty());
            let empty = self.retention == Retention::Limits || self.removed.len() == self.stream.len();
            if settled && empty && self.machine.is_reading() && self.is_all_read() && !self.machine.acks_due() {
                return;
            }
        }
        if self.is_another() && !self.follows {
            assert!(!self.machine.is_reading() || self.unread().next().is_none(), "another stream is read");
            return;
        }
        panic!("not settled: accepted {:?} of {:?}, {:?}", self.reading().accepted, self.expected(), self.consumer);
    }
}

/// Runs a schedule, and then lets the trouble end.
fn check(setting: Setting, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::new(setting);
    for step in steps {
        world.run(step);
        if !world.is_another() {
            let expected = world.expected();
            let accepted = &world.reading().accepted;
            let read = expected.iter().take(accepted.len()).copied().collect::<Vec<_>>();
            prop_assert_eq!(accepted, &read, "after {:?}", step);
        }
    }
    world.recover();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_accepted_once_and_acknowledged_after_its_commit(
        setting in setting(Retention::Limits, false),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        check(setting, &steps)?;
    }

    #[test]
    fn no_message_leaves_a_work_queue_before_its_commit_and_all_leave_after_it(
        setting in setting(Retention::WorkQueue, false),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        check(setting, &steps)?;
    }

    #[test]
    fn an_interest_stream_holds_every_message_until_its_commit_and_none_after_it(
        setting in setting(Retention::Interest, false),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        check(setting, &steps)?;
    }

    #[test]
    fn a_pinned_consumer_is_reset_and_loses_nothing(
        setting in setting(Retention::Interest, true),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        check(setting, &steps)?;
    }

    #[test]
    fn a_stream_that_went_back_to_an_earlier_end_is_not_read_on(
        setting in prop_oneof![
            setting(Retention::Limits, false),
            setting(Retention::WorkQueue, false),
            setting(Retention::Interest, false),
            setting(Retention::Interest, true),
        ],
        steps in prop::collection::vec(step_of_streams(), 1..120),
    ) {
        check(setting, &steps)?;
    }

    #[test]
    fn a_stream_that_went_back_is_read_from_its_first_message_where_the_user_says_so(
        setting in prop_oneof![
            setting(Retention::Limits, false),
            setting(Retention::WorkQueue, false),
            setting(Retention::Interest, false),
            setting(Retention::Interest, true),
        ],
        steps in prop::collection::vec(step_of_streams(), 1..120),
    ) {
        check(Setting { follows: true, ..setting }, &steps)?;
    }
}

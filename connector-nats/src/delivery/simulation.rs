//! The machine against a simulated broker: any schedule of publishing, delivering, losing, redelivering, stealing,
//! deleting, disconnecting, committing and acknowledging, messages that break the connection among them. Whatever happens, every message is accepted exactly once and in
//! order, nothing is acknowledged before its commit, and once the trouble ends everything is read and acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use weir_common::ids::Sequence;

use super::*;

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
}

#[derive(Debug)]
enum Wire {
    Delivered(Delivered),
    Deleted,
    Expired { unserved: Option<u64> },
}

struct World {
    terms: Terms,
    shared_name: bool,
    machine: Delivery,
    now: Millis,
    start: u64,
    /// The sequences the stream holds, with gaps.
    stream: Vec<u64>,
    last: u64,
    /// Those that break the connection when they arrive.
    poison: BTreeSet<u64>,
    consumer: Option<Consumer>,
    creations: u64,
    /// The creation that the machine's current incarnation belongs to.
    mine: Option<(Incarnation, u64)>,
    connected: bool,
    /// On its way to the reader's subscription.
    wire: VecDeque<Wire>,
    building: Option<(Incarnation, Sequence, bool)>,
    verify: Option<Incarnation>,
    confirm: Option<(Incarnation, u64)>,
    accepted: Vec<u64>,
    checkpoint_wanted: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Publish { messages: u8, gap: u8 },
    Poison,
    Deliver(u8),
    Receive(u8),
    Lose(u8),
    Redeliver(u8),
    Steal(u8),
    DeleteConsumer,
    ReplaceConsumer,
    Disconnect,
    Connect,
    CompleteBuild,
    FailBuild,
    Answer,
    Commit(u8),
    Acknowledge(u8),
    Expire { says: bool },
    Refuse,
    Heartbeat,
    Suspect,
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6_u8, 0..3_u8).prop_map(|(messages, gap)| Step::Publish { messages, gap }),
        1 => Just(Step::Poison),
        12 => (1..8_u8).prop_map(Step::Deliver),
        12 => (1..8_u8).prop_map(Step::Receive),
        2 => any::<u8>().prop_map(Step::Lose),
        3 => (1..4_u8).prop_map(Step::Redeliver),
        2 => (1..4_u8).prop_map(Step::Steal),
        1 => Just(Step::DeleteConsumer),
        1 => Just(Step::ReplaceConsumer),
        2 => Just(Step::Disconnect),
        6 => Just(Step::Connect),
        8 => Just(Step::CompleteBuild),
        1 => Just(Step::FailBuild),
        3 => Just(Step::Answer),
        6 => any::<u8>().prop_map(Step::Commit),
        6 => (1..5_u8).prop_map(Step::Acknowledge),
        2 => any::<bool>().prop_map(|says| Step::Expire { says }),
        1 => Just(Step::Refuse),
        2 => Just(Step::Heartbeat),
        1 => Just(Step::Suspect),
        6 => (1..4000_u16).prop_map(Step::Wait),
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    let policy = prop_oneof![Just(AckPolicy::None), Just(AckPolicy::All), Just(AckPolicy::Explicit)];
    let window = prop_oneof![Just(None), (1..12_u64).prop_map(Some)];
    (policy, window, 1..6_u64, 1..3_u64).prop_map(|(ack_policy, max_ack_pending, batch, requests)| Terms {
        ack_policy,
        max_ack_pending,
        batch,
        requests,
    })
}

impl World {
    fn new(terms: Terms, shared_name: bool, start: u64) -> World {
        World {
            terms,
            shared_name,
            machine: Delivery::new(Sequence(start), shared_name, PACE),
            now: 0,
            start,
            stream: Vec::new(),
            last: 0,
            poison: BTreeSet::new(),
            consumer: None,
            creations: 0,
            mine: None,
            connected: false,
            wire: VecDeque::new(),
            building: None,
            verify: None,
            confirm: None,
            accepted: Vec::new(),
            checkpoint_wanted: false,
        }
    }

    fn apply(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.machine.apply(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Build { incarnation, position, fetch, .. } => {
                    self.building = Some((incarnation, position, fetch));
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
            consumer.requested += pull.batch;
            let most = self.terms.batch * self.terms.requests;
            // Statuses that do not say what was left may make the machine ask for more than it would.
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
        });
    }

    /// Whoever waits on the consumer is told, after what was delivered before.
    fn delete(&mut self) {
        if self.consumer.take().is_some_and(|consumer| consumer.requested > 0) && self.connected {
            self.wire.push_back(Wire::Deleted);
        }
    }

    /// The next delivery of the consumer, if it may deliver.
    fn produce(&mut self) -> Option<Delivered> {
        let acks = self.terms.ack_policy != AckPolicy::None;
        let consumer = self.consumer.as_mut()?;
        let full = self.terms.max_ack_pending.is_some_and(|max| acks && consumer.pending.len() as u64 >= max);
        let stream_seq = *self.stream.get(consumer.next).filter(|_| !full)?;
        consumer.next += 1;
        consumer.sequence += 1;
        if acks {
            consumer.pending.insert(stream_seq, (consumer.sequence, 1));
        } else {
            consumer.floor = (consumer.sequence, stream_seq);
        }
        Some(Delivered { stream_seq, consumer_seq: consumer.sequence, deliveries: 1, stored_ns: 0, pending: 0 })
    }

    fn deliver(&mut self, count: u8) {
        for _ in 0..count {
            if !self.connected || self.consumer.as_ref().is_none_or(|consumer| consumer.requested == 0) {
                return;
            }
            let Some(delivered) = self.produce() else { return };
            self.consumer.as_mut().expect("it just delivered").requested -= 1;
            self.wire.push_back(Wire::Delivered(delivered));
        }
    }

    fn redeliver(&mut self, count: u8) {
        let connected = self.connected;
        let Some(consumer) = &mut self.consumer else { return };
        for (stream_seq, (consumer_seq, deliveries)) in consumer.pending.iter_mut().take(usize::from(count)) {
            if !connected || consumer.requested == 0 {
                return;
            }
            consumer.requested -= 1;
            consumer.sequence += 1;
            (*consumer_seq, *deliveries) = (consumer.sequence, *deliveries + 1);
            let (stream_seq, consumer_seq, deliveries) = (*stream_seq, *consumer_seq, *deliveries);
            self.wire.push_back(Wire::Delivered(Delivered {
                stream_seq,
                consumer_seq,
                deliveries,
                stored_ns: 0,
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
                Wire::Deleted => self.apply(Event::Deleted { incarnation }),
                Wire::Expired { unserved } => {
                    self.apply(Event::PullEnded { incarnation, unserved, end: PullEnd::Expired });
                }
                Wire::Delivered(delivered) if self.poison.contains(&delivered.stream_seq) => {
                    self.disconnect();
                    return;
                }
                Wire::Delivered(delivered) => match self.machine.deliver(self.now, incarnation, delivered) {
                    Verdict::Accept => self.accepted.push(delivered.stream_seq),
                    Verdict::AckAndDrop(token) => self.acknowledge_one(token),
                    Verdict::Drop | Verdict::Discard => {}
                },
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
        let Some(consumer) = self.consumer.as_mut().filter(|_| self.connected) else { return };
        if self.mine.is_none_or(|(_, created)| created != consumer.created) {
            // Somebody else's by now; the next status says so.
            return;
        }
        match self.terms.ack_policy {
            AckPolicy::None => panic!("nothing is acknowledged under none"),
            AckPolicy::Explicit => {
                consumer.pending.remove(&token.stream_seq);
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
                for _ in 0..*messages {
                    self.last += 1;
                    self.stream.push(self.last);
                }
            }
            Step::Poison => {
                self.last += 1;
                self.stream.push(self.last);
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
                    self.produce();
                }
            }
            Step::DeleteConsumer => self.delete(),
            Step::ReplaceConsumer => {
                // Nobody gives another consumer a name that only its reader knows.
                if self.shared_name && self.consumer.is_some() {
                    self.create(self.machine.committed().0);
                }
            }
            Step::Disconnect => self.disconnect(),
            Step::Connect => {
                self.connected = true;
                self.apply(Event::Connected);
            }
            Step::CompleteBuild => self.complete_build(),
            Step::FailBuild => {
                if let Some((incarnation, ..)) = self.building.take() {
                    self.apply(Event::BuildFailed { incarnation });
                }
            }
            Step::Answer => self.answer(),
            Step::Commit(part) => self.commit(*part),
            Step::Acknowledge(limit) => self.acknowledge(usize::from(*limit)),
            Step::Expire { says } => self.expire(*says),
            Step::Refuse => {
                self.with_mine(|incarnation| Event::PullEnded { incarnation, unserved: Some(0), end: PullEnd::Refused })
            }
            Step::Heartbeat => self.with_mine(|incarnation| Event::Heartbeat { incarnation }),
            Step::Suspect => self.with_mine(|incarnation| Event::Suspect { incarnation, reason: Reason::Unsettled }),
            Step::Wait(ms) => {
                self.now += Millis::from(*ms);
                let listening = self.wire.is_empty() && self.machine.takes_deliveries();
                self.apply(Event::Tick { listening });
            }
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

    fn complete_build(&mut self) {
        if let Some((incarnation, mut position, fetch)) = self.building.take().filter(|_| self.connected) {
            // A few messages, until the one that is to blame is among them.
            while let (true, Some(next)) = (fetch, self.stream.iter().copied().find(|next| *next >= position.0)) {
                self.accepted.push(next);
                position = Sequence(next + 1);
                if self.poison.contains(&next) || next % 4 == 0 {
                    break;
                }
            }
            self.create(position.0);
            self.wire.clear();
            self.mine = Some((incarnation, self.creations));
            self.apply(Event::Built { incarnation, terms: self.terms, position });
        }
    }

    /// The server says which consumer bears the name now.
    fn answer(&mut self) {
        let there = self.consumer.as_ref().map(|consumer| consumer.created);
        let is_mine = |world: &World, incarnation| world.mine == there.map(|created| (incarnation, created));
        if let Some((incarnation, requested)) = self.confirm.take() {
            let mine = is_mine(self, incarnation);
            self.apply(if mine { Event::Confirmed { incarnation, requested } } else { Event::Deleted { incarnation } });
        }
        if let Some(incarnation) = self.verify.take() {
            let mine = is_mine(self, incarnation);
            self.apply(if mine {
                Event::Suspect { incarnation, reason: Reason::Silent }
            } else {
                Event::Deleted { incarnation }
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

    /// A commit somewhere between what is committed and what was handed out.
    fn commit(&mut self, part: u8) {
        let (committed, position) = (self.machine.committed().0, self.machine.position().0);
        let to = committed + (position - committed) * u64::from(part) / 255;
        self.checkpoint_wanted = false;
        self.apply(Event::Committed { position: Sequence(to) });
    }

    fn expected(&self) -> Vec<u64> {
        self.stream.iter().copied().filter(|sequence| *sequence >= self.start).collect()
    }

    /// The trouble is over: everything that can happen does, over and over.
    fn recover(&mut self) {
        for round in 0..200 + 10 * self.poison.len() {
            self.run(&Step::Connect);
            self.run(&Step::Wait(700));
            self.answer();
            self.complete_build();
            self.answer();
            self.deliver(50);
            self.receive(u8::MAX);
            self.commit(255);
            self.acknowledge(usize::MAX);
            // What was not acknowledged comes again after its wait.
            if round % 10 == 9 {
                self.redeliver(u8::MAX);
                self.receive(u8::MAX);
            }
            let settled = self.consumer.as_ref().is_some_and(|consumer| consumer.pending.is_empty());
            if settled && self.machine.is_reading() && self.accepted == self.expected() && !self.machine.acks_due() {
                return;
            }
        }
        panic!("not settled: accepted {:?} of {:?}, {:?}", self.accepted, self.expected(), self.consumer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_accepted_once_and_acknowledged_after_its_commit(
        terms in terms(),
        shared_name in any::<bool>(),
        start in 1..6_u64,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(terms, shared_name, start);
        for step in &steps {
            world.run(step);
            let expected = world.expected();
            let read = expected.iter().take(world.accepted.len()).copied().collect::<Vec<_>>();
            prop_assert_eq!(&world.accepted, &read, "after {:?}", step);
        }
        world.recover();
    }
}

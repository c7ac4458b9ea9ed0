//! Which delivery is accepted, which is dropped, when the consumer is rebuilt, what is acknowledged.
//!
//! A state machine without IO and clock: events in, actions out, time as a parameter. The reader's task drives it, and so
//! does a simulated broker.
//!
//! Owns: the read position, the committed position, the chain of consumer sequences, the pull requests outstanding, what
//! waits for its acknowledgement, the pace of rebuilds. Does not own connections, subjects or payloads.
//!
//! Invariants:
//! * deliveries are complete: one is accepted only if its consumer sequence follows the previous one of the same
//!   incarnation, the first being 1; so what lies between two accepted sequences does not exist for this consumer;
//! * deliveries are of our own consumer: where others know its name, they could replace it by one whose sequences go on by
//!   chance where ours end (two readers of equal windows are enough). So a delivery is taken only as the answer to a
//!   request that is known to have reached the consumer we made. Requests are confirmed while their messages are on the
//!   way, so this costs one question a request and no time. A consumer that is reset instead is pinned: while it is, all its
//!   deliveries come here, from the first one of the reset. Until the first has come one request is outstanding, because
//!   only who holds the pin may have more than one served; and a server that says that it delivered, when nothing has
//!   come, delivers to somebody else;
//! * every sequence is accepted at most once, in ascending order;
//! * no token of a sequence at or above the committed position is ever handed out for acknowledgement;
//! * a message that was not read is never acknowledged: one below the read position that is newer than everything that was read is
//!   of another stream ([`crate::identity`]), and nothing of that is taken;
//! * nothing that can be published stops reading: a message that breaks the connection whenever it is delivered (the client
//!   parses headers, and gives the connection up, or ends, over those that it cannot parse) is fetched by a request instead;
//! * tokens of an older incarnation are forgotten, because the counters of the rebuilt consumer must not be moved by numbers
//!   that are not its own. If it starts at the read position it knows nothing below; if it starts further down, because
//!   acknowledgements delete messages of its stream, it delivers what was not acknowledged again, with new tokens.

mod event;
mod pulls;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use weir_common::ids::Sequence;
use weir_common::position::{Anchor, Position};

use crate::identity;
use crate::options::AckPolicy;
pub use crate::reply::{Delivered, Token};
pub use event::{Action, Event, Fence, Incarnation, Millis, Pace, PullEnd, Reason, Terms, Verdict};
pub use pulls::Pull;
use pulls::Pulls;

/// After so many connections in a row that were lost before anything came of a consumer, its next message is fetched.
const BREAKS_MAX: u32 = 3;

/// Where the machine stands.
#[derive(Clone, Debug)]
enum Phase {
    /// No connection. `confirmed`: whether reading may go on once there is one, or has to wait for a commit of the term.
    Disconnected { confirmed: bool },
    /// A rebuild waits for its time.
    Waiting { until: Millis, reason: Reason },
    /// A rebuild waits for a commit of the term.
    Unconfirmed,
    /// A consumer is being made.
    Building,
    /// Messages are read.
    Reading(Reading),
}

#[derive(Clone, Debug)]
struct Reading {
    terms: Terms,
    next_consumer_seq: u64,
    heard_at: Millis,
    pulls: Pulls,
}

/// How often things happened; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Deliveries of messages that had been read before.
    pub redelivered: u64,
    /// Builds of the consumer after the first.
    pub rebuilds: u64,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Delivery {
    pace: Pace,
    position: Sequence,
    /// What tells the stream from others, as of the read position.
    anchor: Anchor,
    committed: Sequence,
    /// No consumer is built before everything below is committed: what was fetched would be delivered again.
    settled_at: Sequence,
    incarnation: Incarnation,
    phase: Phase,
    /// Of accepted deliveries of this incarnation, ascending by stream sequence; empty without acks. Bounded by the
    /// consumer's `max_ack_pending`, and by [`Pace::unacked_max`] where that is larger or absent.
    unacked: VecDeque<Token>,
    checkpoint_requested: bool,
    built_at: Option<Millis>,
    /// Rebuilds since something was last accepted.
    fruitless: u32,
    /// Connections and clients lost while reading since something last came of a consumer.
    breaks: u32,
    counters: Counters,
}

impl Delivery {
    /// A machine that waits for its connection. `position` is the next sequence to read; everything below counts as
    /// committed.
    pub fn new(Position { next: position, anchor }: Position, pace: Pace) -> Delivery {
        Delivery {
            pace,
            position,
            anchor,
            committed: position,
            settled_at: position,
            incarnation: Incarnation(0),
            phase: Phase::Disconnected { confirmed: true },
            unacked: VecDeque::new(),
            checkpoint_requested: false,
            built_at: None,
            fruitless: 0,
            breaks: 0,
            counters: Counters::default(),
        }
    }

    /// The next sequence to read.
    pub fn position(&self) -> Sequence {
        self.position
    }

    /// What tells the stream from others, as of the read position.
    pub fn anchor(&self) -> Anchor {
        self.anchor
    }

    /// Everything below is committed.
    pub fn committed(&self) -> Sequence {
        self.committed
    }

    /// Whether messages are being read.
    pub fn is_reading(&self) -> bool {
        matches!(self.phase, Phase::Reading(_))
    }

    /// How many deliveries of the consumer being read have come.
    pub fn delivered(&self) -> u64 {
        match &self.phase {
            Phase::Reading(reading) => reading.next_consumer_seq - 1,
            _ => 0,
        }
    }

    /// How often things happened.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many deliveries wait for their acknowledgement.
    pub fn unacked(&self) -> usize {
        self.unacked.len()
    }

    /// Whether the next arrival may be taken. If not, leave arrivals where they are: a confirmation is on its way, or too
    /// much waits for a commit.
    pub fn takes_deliveries(&self) -> bool {
        match &self.phase {
            Phase::Reading(reading) => {
                let confirmed = reading.terms.fence != Fence::Made || reading.pulls.is_next_confirmed();
                confirmed && self.unacked.len() < self.pace.unacked_max
            }
            _ => true,
        }
    }

    /// Whether the outcome of this build is waited for.
    pub fn is_building(&self, incarnation: Incarnation) -> bool {
        matches!(self.phase, Phase::Building) && incarnation == self.incarnation
    }

    /// Decides what becomes of a delivery. Allocates nothing but room for its token. After a burst of deliveries the
    /// machine wants [`Event::Drained`].
    ///
    /// # Panics
    /// If the machine does not take deliveries now.
    pub fn deliver(&mut self, now: Millis, incarnation: Incarnation, delivered: Delivered) -> Verdict {
        assert!(self.takes_deliveries(), "a delivery was taken while the machine takes none");
        let Phase::Reading(reading) = &mut self.phase else { return Verdict::Discard };
        if incarnation != self.incarnation {
            return Verdict::Discard;
        }
        let expected = reading.next_consumer_seq;
        if delivered.consumer_seq != expected {
            let reason = Reason::Incomplete { expected, found: delivered.consumer_seq };
            self.schedule(now, reason);
            return Verdict::Discard;
        }
        if delivered.stream_seq < self.position.0 && identity::is_unread(&self.anchor, delivered.stored_ns) {
            self.anchor.parted = true;
            self.schedule(now, Reason::Parted);
            return Verdict::Discard;
        }
        reading.next_consumer_seq += 1;
        reading.heard_at = now;
        reading.pulls.served();
        let acks = reading.terms.ack_policy != AckPolicy::None;
        let token = delivered.token();
        if token.stream_seq < self.committed.0 {
            self.counters.redelivered += 1;
            return if acks { Verdict::AckAndDrop(token) } else { Verdict::Drop };
        }
        if token.stream_seq < self.position.0 {
            self.counters.redelivered += 1;
            if acks {
                self.renew(token);
            }
            return Verdict::Drop;
        }
        self.position = Sequence(token.stream_seq + 1);
        self.anchor.read(delivered.stream_seq, delivered.stored_ns);
        self.fruitless = 0;
        self.breaks = 0;
        if acks {
            self.unacked.push_back(token);
        }
        Verdict::Accept
    }

    /// The newer reply is the one that is acknowledged at the commit.
    fn renew(&mut self, token: Token) {
        match self.unacked.binary_search_by_key(&token.stream_seq, |token| token.stream_seq) {
            Ok(at) => self.unacked[at] = token,
            Err(at) => self.unacked.insert(at, token),
        }
    }

    /// Takes an event and appends what is to be done.
    pub fn apply(&mut self, now: Millis, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Connected => {
                if let Phase::Disconnected { confirmed } = self.phase {
                    if confirmed {
                        let reason = if self.built_at.is_none() { Reason::Start } else { Reason::Reconnected };
                        self.schedule(now, reason);
                    } else {
                        self.phase = Phase::Unconfirmed;
                    }
                }
            }
            Event::Disconnected => {
                // A new connection does not confirm the term.
                self.breaks += u32::from(self.is_reading());
                let unconfirmed = matches!(self.phase, Phase::Unconfirmed | Phase::Disconnected { confirmed: false });
                self.leave(Phase::Disconnected { confirmed: !unconfirmed });
            }
            Event::Built { incarnation, terms, position } if self.is_building(incarnation) => {
                self.fetched(position);
                let pulls = Pulls::new(terms.batch, terms.requests, terms.fence == Fence::Pinned);
                self.phase = Phase::Reading(Reading { terms, next_consumer_seq: 1, heard_at: now, pulls });
            }
            Event::Fetched { incarnation, position } if self.is_building(incarnation) => {
                self.fetched(position);
                self.breaks = BREAKS_MAX - 1;
                self.settled_at = position.next;
                self.schedule(now, Reason::Retry);
            }
            Event::BuildFailed { incarnation } if self.is_building(incarnation) => self.schedule(now, Reason::Retry),
            Event::Parted { incarnation } if self.is_building(incarnation) => {
                self.anchor.parted = true;
                self.schedule(now, Reason::Retry);
            }
            Event::Renewed { incarnation, position } if self.is_building(incarnation) => {
                self.renew_stream(now, position)
            }
            Event::Built { .. }
            | Event::Fetched { .. }
            | Event::BuildFailed { .. }
            | Event::Parted { .. }
            | Event::Renewed { .. }
            | Event::Drained => {}
            Event::Heartbeat { incarnation, delivered } => {
                self.heard(now, incarnation);
                if let Some(reading) = self.reading(incarnation) {
                    let elsewhere = reading.pulls.waits_for_pin() && delivered > 0;
                    self.fruitless = 0;
                    self.breaks = 0;
                    if elsewhere {
                        self.taken(now, incarnation, actions);
                    }
                }
            }
            Event::PullEnded { incarnation, unserved, end } => {
                self.heard(now, incarnation);
                let hold_until = now + self.pace.refused_ms;
                if let Some(reading) = self.reading(incarnation) {
                    reading.pulls.ended(unserved, end);
                    if end == PullEnd::Refused {
                        reading.pulls.hold_until(hold_until);
                    }
                }
            }
            Event::Confirmed { incarnation, requested } => {
                if let Some(reading) = self.reading(incarnation) {
                    reading.pulls.confirm(requested);
                    reading.heard_at = now;
                }
            }
            Event::Taken { incarnation } => self.taken(now, incarnation, actions),
            Event::Suspect { incarnation, reason } => {
                if self.reading(incarnation).is_some() {
                    self.breaks += u32::from(reason == Reason::Ended);
                    self.schedule(now, reason);
                }
            }
            Event::Committed { position } => self.commit(now, position),
            Event::Tick { listening } => self.tick(now, listening, actions),
        }
        self.settle(now, actions);
    }

    /// When the machine wants [`Event::Tick`] at the latest, if it waits for a time at all.
    pub fn deadline(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Waiting { until, .. } => self.is_settled().then_some(*until),
            Phase::Reading(reading) => {
                let silence = (reading.pulls.outstanding() > 0).then_some(reading.heard_at + self.pace.silence_ms);
                [silence, reading.pulls.held_until()].into_iter().flatten().min()
            }
            Phase::Disconnected { .. } | Phase::Unconfirmed | Phase::Building => None,
        }
    }

    /// Whether [`Delivery::take_acks`] has something to hand out.
    pub fn acks_due(&self) -> bool {
        self.unacked.front().is_some_and(|token| token.stream_seq < self.committed.0)
    }

    /// Appends acknowledgements that are due, at most about `limit`. Under `all` one stands for everything below.
    pub fn take_acks(&mut self, limit: usize, acks: &mut Vec<Token>) {
        let all = matches!(&self.phase, Phase::Reading(reading) if reading.terms.ack_policy == AckPolicy::All);
        let due = self.unacked.partition_point(|token| token.stream_seq < self.committed.0);
        if all {
            acks.extend(self.unacked.drain(..due).next_back());
        } else {
            acks.extend(self.unacked.drain(..due.min(limit)));
        }
    }

    /// Takes over how far was fetched.
    fn fetched(&mut self, Position { next: position, anchor }: Position) {
        assert!(position >= self.position, "fetched up to {position}, but read up to {}", self.position);
        self.anchor = anchor;
        if position > self.position {
            self.position = position;
            self.fruitless = 0;
            // Should a further message be of the same kind, it need not show that so often.
            self.breaks = BREAKS_MAX - 1;
        }
    }

    /// Begins with another stream. Whatever of the one before is not committed yet was handed out, and is committed without
    /// this machine.
    fn renew_stream(&mut self, now: Millis, Position { next, anchor }: Position) {
        (self.position, self.committed, self.settled_at) = (next, next, next);
        self.anchor = anchor;
        self.fruitless = 0;
        self.breaks = 0;
        self.schedule(now, Reason::Parted);
    }

    /// Whether a consumer may be built, as far as commits are concerned.
    fn is_settled(&self) -> bool {
        self.committed >= self.settled_at
    }

    fn reading(&mut self, incarnation: Incarnation) -> Option<&mut Reading> {
        match &mut self.phase {
            Phase::Reading(reading) if incarnation == self.incarnation => Some(reading),
            _ => None,
        }
    }

    fn heard(&mut self, now: Millis, incarnation: Incarnation) {
        if let Some(reading) = self.reading(incarnation) {
            reading.heard_at = now;
        }
    }

    /// Voids everything of the incarnation.
    fn leave(&mut self, phase: Phase) {
        self.incarnation.0 += 1;
        self.unacked.clear();
        self.checkpoint_requested = false;
        self.phase = phase;
    }

    /// Plans a rebuild: at once after progress, later and later without.
    fn schedule(&mut self, now: Millis, reason: Reason) {
        let pause = match self.fruitless {
            0 => self.pace.rebuild_ms_min,
            n => (self.pace.rebuild_ms_min << n.min(16)).min(self.pace.rebuild_ms_max),
        };
        let until = self.built_at.map_or(now, |built_at| (built_at + pause).max(now));
        self.leave(Phase::Waiting { until, reason });
    }

    /// A consumer whose name others know may have been taken by the reader of a newer term.
    fn taken(&mut self, now: Millis, incarnation: Incarnation, actions: &mut Vec<Action>) {
        let Some(reading) = self.reading(incarnation) else { return };
        match reading.terms.fence {
            Fence::Private => self.schedule(now, Reason::Taken),
            Fence::Made | Fence::Pinned => {
                self.leave(Phase::Unconfirmed);
                actions.push(Action::AwaitConfirmation);
            }
        }
    }

    fn commit(&mut self, now: Millis, position: Sequence) {
        assert!(position <= self.position, "committed {position}, but only read up to {}", self.position);
        self.committed = self.committed.max(position);
        self.checkpoint_requested = false;
        match &mut self.phase {
            Phase::Unconfirmed => self.schedule(now, Reason::Taken),
            Phase::Disconnected { confirmed } => *confirmed = true,
            Phase::Waiting { .. } | Phase::Building | Phase::Reading(_) => {}
        }
    }

    fn tick(&mut self, now: Millis, listening: bool, actions: &mut Vec<Action>) {
        let incarnation = self.incarnation;
        let silence_ms = self.pace.silence_ms;
        let Phase::Reading(reading) = &mut self.phase else { return };
        if !listening {
            reading.heard_at = now;
        } else if reading.pulls.outstanding() > 0 && now >= reading.heard_at + silence_ms {
            // Not again before the answer had as much time.
            reading.heard_at = now;
            actions.push(Action::Verify { incarnation });
        }
    }

    /// What follows from the state alone: the rebuild whose time has come, requests, the wish for a checkpoint.
    fn settle(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let (incarnation, settled) = (self.incarnation, self.is_settled());
        match &mut self.phase {
            Phase::Waiting { .. } if !settled && !self.checkpoint_requested => {
                self.checkpoint_requested = true;
                actions.push(Action::RequestCheckpoint);
            }
            Phase::Waiting { until, reason } if settled && *until <= now => {
                let reason = *reason;
                if self.built_at.is_some() {
                    self.counters.rebuilds += 1;
                }
                self.built_at = Some(now);
                self.fruitless += 1;
                self.phase = Phase::Building;
                let fetch = self.breaks >= BREAKS_MAX;
                let position = Position { next: self.position, anchor: self.anchor };
                let committed = self.committed;
                actions.push(Action::Build { incarnation, position, committed, reason, fetch });
            }
            Phase::Reading(reading) => {
                let requested = reading.pulls.requested();
                while let Some(pull) = reading.pulls.next(now) {
                    if reading.pulls.outstanding() == pull.batch {
                        // Nothing was requested until now, so there was nothing to hear.
                        reading.heard_at = now;
                    }
                    actions.push(Action::Pull { incarnation, pull });
                }
                if reading.terms.fence == Fence::Made && reading.pulls.requested() != requested {
                    actions.push(Action::Confirm { incarnation, requested: reading.pulls.requested() });
                }
                let window = reading.terms.max_ack_pending.unwrap_or(u64::MAX).min(self.pace.unacked_max as u64);
                if !self.checkpoint_requested && is_nearly_full(window, &self.unacked, self.committed) {
                    self.checkpoint_requested = true;
                    actions.push(Action::RequestCheckpoint);
                }
            }
            _ => {}
        }
    }
}

/// Three quarters of what may wait for its acknowledgement wait for a commit.
fn is_nearly_full(window: u64, unacked: &VecDeque<Token>, committed: Sequence) -> bool {
    let threshold = (window - window / 4).max(1);
    // Searching is left for when it can matter.
    unacked.len() as u64 >= threshold
        && (unacked.len() - unacked.partition_point(|token| token.stream_seq < committed.0)) as u64 >= threshold
}

//! Pull requests outstanding: how many messages are asked for, when to ask for more, and which requests are known to have
//! reached our own consumer.
//!
//! The server may spread deliveries over its waiting requests in any order, so only sums are kept. Invariants: never more
//! than `requests × batch` messages are outstanding, which is far below what the subscription can hold; of a pinned consumer
//! one request, until a message has come.

use super::{Millis, PullEnd};

/// One pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull {
    /// How many messages.
    pub batch: u64,
    /// Whether the usual bound on bytes is lifted: the next message alone exceeds it.
    pub unbounded: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Pulls {
    batch: u64,
    requests: u64,
    /// Messages asked for so far.
    requested: u64,
    /// Of these, what was served or will not be any more.
    finished: u64,
    /// Of these, what was asked for by requests that are known to have reached our own consumer.
    confirmed: u64,
    hold_until: Option<Millis>,
    /// Whether a message came since the last request was sent.
    served: bool,
    /// Whether the consumer is pinned, and no message has come that says that it is pinned here.
    waits_for_pin: bool,
    next_message: NextMessage,
}

/// How the next message compares with the bound on the bytes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextMessage {
    /// As far as is known it fits.
    Fits,
    /// It does not; it will be asked for once nothing else is outstanding.
    Exceeds,
    /// It is being asked for, alone and without the bound.
    Requested,
}

impl Pulls {
    pub(super) fn new(batch: u64, requests: u64, pinned: bool) -> Pulls {
        Pulls {
            batch,
            requests,
            requested: 0,
            finished: 0,
            confirmed: 0,
            hold_until: None,
            served: false,
            waits_for_pin: pinned,
            next_message: NextMessage::Fits,
        }
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.requested.saturating_sub(self.finished)
    }

    /// Messages asked for so far: what a confirmation refers to.
    pub(super) fn requested(&self) -> u64 {
        self.requested
    }

    /// The requests for the first `requested` messages reached our own consumer.
    pub(super) fn confirm(&mut self, requested: u64) {
        self.confirmed = self.confirmed.max(requested);
    }

    /// Whether the next delivery answers a request that reached our own consumer.
    pub(super) fn is_next_confirmed(&self) -> bool {
        self.finished < self.confirmed
    }

    /// Whether the consumer may be pinned to somebody else yet.
    pub(super) fn waits_for_pin(&self) -> bool {
        self.waits_for_pin
    }

    pub(super) fn held_until(&self) -> Option<Millis> {
        self.hold_until
    }

    /// A message has come.
    pub(super) fn served(&mut self) {
        self.finished += 1;
        self.served = true;
        self.waits_for_pin = false;
        self.next_message = NextMessage::Fits;
    }

    /// A request has ended with `unserved` messages missing. If the server does not say how many, nothing is assumed
    /// outstanding: asking for too much is bounded, waiting for what never comes is not.
    pub(super) fn ended(&mut self, unserved: Option<u64>, end: PullEnd) {
        self.finished += unserved.unwrap_or(u64::MAX).min(self.outstanding());
        match self.next_message {
            NextMessage::Fits if end == PullEnd::Oversized && !self.served => self.next_message = NextMessage::Exceeds,
            // It was not served: it has to be asked for again.
            NextMessage::Requested => self.next_message = NextMessage::Exceeds,
            NextMessage::Fits | NextMessage::Exceeds => {}
        }
    }

    /// Sends nothing before `until`.
    pub(super) fn hold_until(&mut self, until: Millis) {
        self.hold_until = Some(until);
    }

    /// The next request to send, if there is one.
    pub(super) fn next(&mut self, now: Millis) -> Option<Pull> {
        if self.hold_until.is_some_and(|until| now < until) {
            return None;
        }
        self.hold_until = None;
        let requests = if self.waits_for_pin { 1 } else { self.requests };
        let pull = match self.next_message {
            NextMessage::Exceeds if self.outstanding() == 0 => {
                self.next_message = NextMessage::Requested;
                Pull { batch: 1, unbounded: true }
            }
            NextMessage::Fits if self.outstanding() + self.batch <= requests * self.batch => {
                Pull { batch: self.batch, unbounded: false }
            }
            _ => return None,
        };
        self.requested += pull.batch;
        self.served = false;
        Some(pull)
    }
}

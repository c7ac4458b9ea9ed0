//! Pull requests outstanding: how many messages are asked for, and when to ask for more.
//!
//! The server may spread deliveries over its waiting requests in any order, so only the sum is kept. Invariant: never
//! more than `requests × batch` messages are outstanding, which is far below what the subscription can hold.

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
    outstanding: u64,
    hold_until: Option<Millis>,
    /// Whether a message came since the last request was sent.
    served: bool,
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
    pub(super) fn new(batch: u64, requests: u64) -> Pulls {
        Pulls { batch, requests, outstanding: 0, hold_until: None, served: false, next_message: NextMessage::Fits }
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    pub(super) fn held_until(&self) -> Option<Millis> {
        self.hold_until
    }

    /// A message has come.
    pub(super) fn served(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.served = true;
        self.next_message = NextMessage::Fits;
    }

    /// A request has ended with `unserved` messages missing. If the server does not say how many, nothing is assumed
    /// outstanding: asking for too much is bounded, waiting for what never comes is not.
    pub(super) fn ended(&mut self, unserved: Option<u64>, end: PullEnd) {
        self.outstanding = unserved.map_or(0, |unserved| self.outstanding.saturating_sub(unserved));
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
        let pull = match self.next_message {
            NextMessage::Exceeds if self.outstanding == 0 => {
                self.next_message = NextMessage::Requested;
                Pull { batch: 1, unbounded: true }
            }
            NextMessage::Fits if self.outstanding + self.batch <= self.requests * self.batch => {
                Pull { batch: self.batch, unbounded: false }
            }
            _ => return None,
        };
        self.outstanding += pull.batch;
        self.served = false;
        Some(pull)
    }
}

//! The vocabulary of the machine: what it is told, what it says, and the bounds it keeps to.

use weir_common::ids::Sequence;
use weir_common::position::Position;

use super::Pull;
use crate::options::AckPolicy;
use crate::reply::Token;

/// A point in time, in milliseconds since any fixed moment.
pub type Millis = u64;

/// How patient the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Silence beyond this, while something is requested, is suspicious: two heartbeats and a little.
    pub silence_ms: Millis,
    /// Two rebuilds are at least this far apart.
    pub rebuild_ms_min: Millis,
    /// Rebuilds that lead to nothing are spaced out up to this.
    pub rebuild_ms_max: Millis,
    /// After a request that the server refuses, the next one waits this long.
    pub refused_ms: Millis,
    /// So many messages may wait for their acknowledgement, whatever the consumer allows: reading pauses then, so that
    /// commits which do not come cannot fill the memory.
    pub unacked_max: usize,
}

/// What the consumer that was built is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How it is acknowledged.
    pub ack_policy: AckPolicy,
    /// How many messages may wait for their acknowledgement, if there is a bound.
    pub max_ack_pending: Option<u64>,
    /// The size of a pull request, in messages.
    pub batch: u64,
    /// How many requests of that size may be outstanding, 1 or 2.
    pub requests: u64,
    /// What keeps others from reading through the consumer.
    pub fence: Fence,
}

/// What keeps others, readers of an older or a newer term above all, from taking deliveries of a consumer unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Nobody else knows its name.
    Private,
    /// Whoever wants it for himself makes it anew: requests are confirmed to have reached the one that was made.
    Made,
    /// Whoever wants it for himself resets it. The server delivers to one client at a time, to which it is pinned: the first
    /// one that asks. What comes says so, and the requests of others are refused.
    Pinned,
}

/// Which build of the consumer something belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

/// Why a consumer is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The reader starts.
    Start,
    /// The connection was lost and is back.
    Reconnected,
    /// A delivery went elsewhere or got lost.
    Incomplete {
        /// The consumer sequence that should have come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// The consumer is gone, or somebody else's.
    Taken,
    /// Neither a message nor a heartbeat came.
    Silent,
    /// The client dropped messages because its buffer was full.
    Overflow,
    /// The client ended, perhaps over a message that it cannot get over.
    Ended,
    /// The server said something after which its deliveries are not to be relied on.
    Unsettled,
    /// What is delivered cannot be of the stream that was read.
    Parted,
    /// The previous attempt failed.
    Retry,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection is up.
    Connected,
    /// The connection is lost, or was.
    Disconnected,
    /// The consumer that was asked for is there.
    Built {
        /// Which one.
        incarnation: Incarnation,
        /// What it is like.
        terms: Terms,
        /// Where it starts: as was asked, or above if [`Action::Build`] asked for what stands there; and what tells the stream from
        /// others by now.
        position: Position,
    },
    /// Messages were fetched as [`Action::Build`] asked, and the consumer is not made yet: acknowledgements delete
    /// messages of its stream, so it has to begin at the committed position, and would deliver again what was fetched.
    Fetched {
        /// For which consumer.
        incarnation: Incarnation,
        /// Everything below is read; and what tells the stream from others by now.
        position: Position,
    },
    /// The consumer that was asked for could not be made.
    BuildFailed {
        /// Which one.
        incarnation: Incarnation,
    },
    /// The stream of that name is another one than was read, so no consumer was made: nothing of it is read or acknowledged.
    Parted {
        /// Which consumer.
        incarnation: Incarnation,
    },
    /// The stream of that name is another one than was read, and is to be read instead: nothing of it is read or committed yet.
    Renewed {
        /// Which consumer was not made.
        incarnation: Incarnation,
        /// Its first message.
        position: Position,
    },
    /// Everything that had arrived has been handled.
    Drained,
    /// The server is alive and has nothing to deliver.
    Heartbeat {
        /// On the subscription of which consumer.
        incarnation: Incarnation,
        /// How many deliveries of the consumer there were, to whomever; 0 if the server does not say.
        delivered: u64,
    },
    /// A pull request has ended.
    PullEnded {
        /// Of which consumer.
        incarnation: Incarnation,
        /// How much of it was not served, if the server said so.
        unserved: Option<u64>,
        /// Why.
        end: PullEnd,
    },
    /// The consumer is still the one that was made.
    Confirmed {
        /// Which one.
        incarnation: Incarnation,
        /// As in [`Action::Confirm`].
        requested: u64,
    },
    /// The consumer is gone, is another one of the same name, or delivers to somebody else.
    Taken {
        /// Which one.
        incarnation: Incarnation,
    },
    /// The deliveries of the consumer are not to be relied on.
    Suspect {
        /// Of which one.
        incarnation: Incarnation,
        /// Why.
        reason: Reason,
    },
    /// Everything below is committed. Comes with every commit of the reader's term, even if the position did not move,
    /// and so confirms the term.
    Committed {
        /// The first sequence that is not.
        position: Sequence,
    },
    /// Time has passed.
    Tick {
        /// Whether arrivals are being handled: silence means nothing while nobody listens.
        listening: bool,
    },
}

/// Why a pull request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullEnd {
    /// It expired.
    Expired,
    /// The next message does not fit into what is left of its bytes.
    Oversized,
    /// The server did not take it.
    Refused,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the consumer anew, and say [`Event::Built`] or [`Event::BuildFailed`]. Whatever belonged to an older
    /// incarnation is void. Where acknowledgements only move the consumer it starts at the read position; where they delete
    /// messages, at the committed one, so that nothing is deleted that is not committed: what is delivered again is dropped.
    Build {
        /// Its number.
        incarnation: Incarnation,
        /// The next sequence to read, and what tells the stream from others.
        position: Position,
        /// Everything below is committed.
        committed: Sequence,
        /// Why.
        reason: Reason,
        /// Whether the next messages, one at least, are to be fetched by requests of their own and count as read, so that
        /// the consumer starts above them.
        fetch: bool,
    },
    /// Request messages.
    Pull {
        /// From which consumer.
        incarnation: Incarnation,
        /// How much.
        pull: Pull,
    },
    /// Find out whether the consumer is there, then say [`Event::Taken`] or [`Event::Suspect`].
    Verify {
        /// Which one.
        incarnation: Incarnation,
    },
    /// Find out whether the consumer is still the one that was made, by a question that the server answers after it took
    /// every request for the first `requested` messages; then say [`Event::Confirmed`], or as for [`Action::Verify`].
    Confirm {
        /// Which one.
        incarnation: Incarnation,
        /// What the answer is to repeat.
        requested: u64,
    },
    /// Ask for a checkpoint: what may wait for its acknowledgement nearly does.
    RequestCheckpoint,
    /// Somebody else deleted the consumer or took it over: stop reading until the term is confirmed by a commit.
    AwaitConfirmation,
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next message.
    Accept,
    /// It was read before and waits for its commit.
    Drop,
    /// It was committed before: acknowledge it now.
    AckAndDrop(Token),
    /// It belongs to deliveries that are void.
    Discard,
}

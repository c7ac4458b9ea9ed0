//! What streams are simulated, and what can happen to their readers.

use proptest::prelude::*;

use crate::delivery::{Fence, Terms};
use crate::options::AckPolicy;
use crate::retention::Retention;

/// A stream and the way it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) retention: Retention,
    pub(super) terms: Terms,
    /// The first sequence of the table.
    pub(super) start: u64,
    /// `on_new_stream = 'read'`: another stream of the name is read.
    pub(super) follows: bool,
}

/// What can happen.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Publish {
        messages: u8,
        gap: u8,
    },
    Poison,
    Deliver(u8),
    Receive(u8),
    Lose(u8),
    Redeliver(u8),
    Steal(u8),
    DeleteConsumer,
    ReplaceConsumer,
    Unpin,
    Reset {
        part: u8,
        steal: bool,
    },
    /// To a part of the sequences that there are.
    GoBack {
        part: u8,
        restore: bool,
    },
    CreateAnew,
    Disconnect,
    Connect,
    CompleteBuild,
    FailBuild {
        after: u8,
    },
    Kill {
        after: u8,
    },
    ReleaseGuard,
    Answer,
    Commit {
        part: u8,
        told: bool,
    },
    Acknowledge(u8),
    LoseAcks {
        disconnect: bool,
    },
    Expire {
        says: bool,
    },
    Refuse,
    Heartbeat,
    Suspect,
    Wait(u16),
}

/// Any of it.
pub(super) fn step() -> impl Strategy<Value = Step> {
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
        1 => Just(Step::Unpin),
        3 => any::<(u8, bool)>().prop_map(|(part, steal)| Step::Reset { part, steal }),
        2 => Just(Step::Disconnect),
        6 => Just(Step::Connect),
        8 => Just(Step::CompleteBuild),
        1 => (0..4_u8).prop_map(|after| Step::FailBuild { after }),
        1 => (0..4_u8).prop_map(|after| Step::Kill { after }),
        2 => Just(Step::ReleaseGuard),
        3 => Just(Step::Answer),
        6 => (any::<u8>(), prop::bool::weighted(0.8)).prop_map(|(part, told)| Step::Commit { part, told }),
        6 => (1..5_u8).prop_map(Step::Acknowledge),
        1 => any::<bool>().prop_map(|disconnect| Step::LoseAcks { disconnect }),
        2 => any::<bool>().prop_map(|says| Step::Expire { says }),
        1 => Just(Step::Refuse),
        2 => Just(Step::Heartbeat),
        1 => Just(Step::Suspect),
        6 => (1..4000_u16).prop_map(Step::Wait),
    ]
}

/// Any of it, and the stream may become another one.
pub(super) fn step_of_streams() -> impl Strategy<Value = Step> {
    let back = (any::<u8>(), any::<bool>()).prop_map(|(part, restore)| Step::GoBack { part, restore });
    prop_oneof![60 => step(), 2 => back, 1 => Just(Step::CreateAnew)]
}

/// Any way to read a stream of this retention.
pub(super) fn setting(retention: Retention, pinned: bool) -> impl Strategy<Value = Setting> {
    let policy = match retention {
        Retention::Limits => vec![AckPolicy::None, AckPolicy::All, AckPolicy::Explicit],
        Retention::WorkQueue | Retention::Interest => vec![AckPolicy::Explicit],
    };
    let window = prop_oneof![Just(None), (1..12_u64).prop_map(Some)];
    (prop::sample::select(policy), window, 1..6_u64, 1..3_u64, any::<bool>(), 1..6_u64).prop_map(
        move |(ack_policy, max_ack_pending, batch, requests, named, start)| {
            // What deletes messages is a durable, whose name others know.
            let fence = if pinned {
                Fence::Pinned
            } else if named || retention != Retention::Limits {
                Fence::Made
            } else {
                Fence::Private
            };
            let terms = Terms { ack_policy, max_ack_pending, batch, requests, fence };
            Setting { retention, terms, start, follows: false }
        },
    )
}

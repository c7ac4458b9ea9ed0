//! The condition of a reader's split: what it is, and how others learn of it.
//!
//! Owns the rules by which trouble becomes a state. Does not own the warnings, see [`super::outage`].

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use weir_common::condition::SplitState;
use weir_common::error::Kind;
use weir_common::rpc;

use crate::connect::Link;
use crate::error::Error;

/// The condition of a split, as its reader publishes it.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The state.
    pub state: SplitState,
    /// When the state began.
    pub since: SystemTime,
    /// What keeps the split from being read as it should be; present unless the state is `Reading`.
    pub trouble: Option<Arc<rpc::Error>>,
}

impl Condition {
    /// The condition of a reader that starts.
    pub(super) fn begin() -> Condition {
        let trouble = Some(Arc::new(unavailable("connecting to NATS")));
        Condition { state: SplitState::Disconnected, since: SystemTime::now(), trouble }
    }

    /// Why the split is not read as it should be, and what to do about it, in words.
    pub fn reason(&self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        Some(match &trouble.hint {
            Some(hint) => format!("{} ({hint})", trouble.message),
            None => trouble.message.clone(),
        })
    }
}

/// Something that keeps a split from being read as it should be.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) state: SplitState,
    pub(super) error: Arc<rpc::Error>,
}

impl Trouble {
    /// A failed attempt to build the consumer.
    pub(super) fn of(error: Error) -> Trouble {
        let state = match &error {
            Error::StreamReplaced { certain: true, .. } => SplitState::Stopped,
            // It may show otherwise a little later.
            Error::StreamReplaced { certain: false, .. } => SplitState::Disconnected,
            error if error.kind() == Kind::User => SplitState::Stalled,
            _ => SplitState::Disconnected,
        };
        Trouble { state, error: Arc::new(error.into()) }
    }

    /// A split that is not read, with the outcome of the last attempt to read it.
    pub(super) fn not_reading(link: &Link, attempt: Option<&Trouble>) -> Trouble {
        if link.connected {
            return match attempt {
                Some(trouble) => trouble.clone(),
                None => Trouble::disconnected("the consumer is being made"),
            };
        }
        match &link.failure {
            Some(failure) if is_refusal(failure) => {
                let error = unavailable(format!("cannot connect to NATS: {failure}"));
                let error = rpc::Error { kind: Kind::User, ..error }.with_sqlstate("28000");
                Trouble { state: SplitState::Stalled, error: Arc::new(error) }
            }
            Some(failure) => Trouble::disconnected(format!("cannot connect to NATS: {failure}")),
            None if link.losses > 0 => Trouble::disconnected("the connection to NATS is lost"),
            None => Trouble::disconnected("connecting to NATS"),
        }
    }

    fn disconnected(message: impl Into<String>) -> Trouble {
        Trouble { state: SplitState::Disconnected, error: Arc::new(unavailable(message)) }
    }
}

/// Whether the server does not let the user in, which no further attempt changes.
fn is_refusal(failure: &str) -> bool {
    let failure = failure.to_ascii_lowercase();
    ["authorization violation", "authentication"].iter().any(|words| failure.contains(words))
}

fn unavailable(message: impl Into<String>) -> rpc::Error {
    rpc::Error::new(Kind::Unavailable, message)
}

/// Publishes a condition if it is another than before.
pub(super) fn publish(to: &watch::Sender<Condition>, trouble: Option<Trouble>) {
    to.send_if_modified(|condition| {
        let (state, trouble) = match trouble {
            Some(Trouble { state, error }) => (state, Some(error)),
            None => (SplitState::Reading, None),
        };
        if condition.state != state {
            *condition = Condition { state, since: SystemTime::now(), trouble };
            return true;
        }
        let changed = condition.trouble != trouble;
        condition.trouble = trouble;
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(connected: bool, losses: u64, failure: Option<&str>) -> Link {
        Link { connected, losses, failure: failure.map(str::to_owned), ..Link::default() }
    }

    #[test]
    fn a_reason_says_whose_fault_it_is() {
        let no_stream = Trouble::of(Error::NoStream { stream: "A".to_owned() });
        let words = |link, attempt: Option<&Trouble>| {
            let Trouble { state, error } = Trouble::not_reading(&link, attempt);
            (state.as_str(), error.message.clone())
        };
        assert_eq!(words(link(false, 0, None), None), ("disconnected", "connecting to NATS".to_owned()));
        let refused = words(link(false, 3, Some("connection refused")), Some(&no_stream));
        assert_eq!(refused, ("disconnected", "cannot connect to NATS: connection refused".to_owned()));
        let refused = words(link(false, 3, Some("authorization violation")), None);
        assert_eq!(refused, ("stalled", "cannot connect to NATS: authorization violation".to_owned()));
        let missing = words(link(true, 3, None), Some(&no_stream));
        assert_eq!(missing.0, "stalled");
        assert!(missing.1.starts_with("stream \"A\" does not exist"), "{missing:?}");
        let timeout = Trouble::of(Error::Disconnected { what: "to build".to_owned() });
        assert_eq!(words(link(true, 3, None), Some(&timeout)).0, "disconnected");
    }

    #[test]
    fn a_state_lasts_while_its_reason_changes() {
        let (to, mut seen) = watch::channel(Condition::begin());
        let began = to.borrow().since;
        publish(&to, Some(Trouble::disconnected("connecting to NATS")));
        assert!(!seen.has_changed().expect("the sender lives"));
        publish(&to, Some(Trouble::disconnected("refused")));
        let changed = seen.borrow_and_update().clone();
        assert_eq!((changed.since, changed.reason().as_deref()), (began, Some("refused")));
        publish(&to, None);
        assert_eq!((seen.borrow().state, seen.borrow().reason()), (SplitState::Reading, None));
    }
}

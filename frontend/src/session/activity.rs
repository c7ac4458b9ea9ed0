//! The activity of this frontend's sessions, for `pg_stat_activity`.
//!
//! This module owns the registry of sessions. For each session it records the last statement, the
//! state, and whether the session waits for its client. Locks are held only to copy or set these.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use super::Session;

/// Texts of statements are truncated to this many bytes, as in PostgreSQL.
const QUERY_BYTES_MAX: usize = 1024;

/// The sessions of this frontend.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Vec<Weak<Session>>>);

impl Sessions {
    /// Adds a session until it is dropped.
    pub(crate) fn add(&self, session: &Arc<Session>) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(session));
    }

    /// Returns all sessions whose clients have completed start-up.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().filter_map(Weak::upgrade).filter(|session| session.pid() != 0).collect()
    }
}

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Active,
    Idle,
    IdleInTransaction,
    /// The session is in a transaction that has failed.
    IdleInAborted,
}

impl State {
    /// Returns PostgreSQL's name of the state.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Idle => "idle",
            State::IdleInTransaction => "idle in transaction",
            State::IdleInAborted => "idle in transaction (aborted)",
        }
    }
}

/// A session's activity at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Doing {
    pub(crate) state: State,
    /// The running statement, or the last one.
    pub(crate) query: String,
    pub(crate) connected: SystemTime,
    /// The start of the open transaction.
    pub(crate) transaction_start: Option<SystemTime>,
    pub(crate) query_start: Option<SystemTime>,
    pub(crate) state_change: SystemTime,
    /// True while rows wait for the client to read earlier ones.
    is_writing: bool,
}

impl Doing {
    /// Returns PostgreSQL's name of the event that the session waits for.
    pub(crate) fn wait_event(&self) -> Option<&'static str> {
        match self.state {
            State::Active if self.is_writing => Some("ClientWrite"),
            State::Active => None,
            _ => Some("ClientRead"),
        }
    }
}

/// The activity of one session.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<Doing>);

impl Default for Activity {
    fn default() -> Activity {
        let now = SystemTime::now();
        Activity(Mutex::new(Doing {
            state: State::Idle,
            query: String::new(),
            connected: now,
            transaction_start: None,
            query_start: None,
            state_change: now,
            is_writing: false,
        }))
    }
}

impl Activity {
    /// Returns a copy of the present activity.
    pub(crate) fn now(&self) -> Doing {
        self.lock().clone()
    }

    /// Records that a statement begins.
    pub(crate) fn begins(&self, query: &str) {
        let cut = query.floor_char_boundary(QUERY_BYTES_MAX);
        let now = SystemTime::now();
        let mut doing = self.lock();
        doing.query.clear();
        doing.query.push_str(&query[..cut]);
        doing.query_start = Some(now);
        doing.transaction_start.get_or_insert(now);
        doing.enter(State::Active, now);
    }

    /// Records that the client has been answered.
    pub(crate) fn ends(&self, state: State) {
        self.lock().enter(state, SystemTime::now());
    }

    /// Sends to the client. The session counts as waiting for the client while that blocks.
    pub(crate) async fn writing<T>(&self, sending: impl Future<Output = T>) -> T {
        let mut sending = pin!(sending);
        let mut waits = false;
        poll_fn(|context| {
            let sent = sending.as_mut().poll(context);
            if waits != sent.is_pending() {
                waits = sent.is_pending();
                self.lock().is_writing = waits;
            }
            sent
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doing {
    fn enter(&mut self, state: State, now: SystemTime) {
        if state == State::Idle {
            self.transaction_start = None;
        }
        // A statement that was cancelled while it waited left this set.
        self.is_writing = false;
        if self.state != state {
            (self.state, self.state_change) = (state, now);
        }
    }
}

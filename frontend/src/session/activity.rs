//! The activity of this frontend's sessions, for `pg_stat_activity`.
//!
//! Owns the registry of sessions, and for each session its last statement, its state, and whether it waits for its client.
//! Locks are held only to copy or set these.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use super::Session;

/// Texts of statements are cut to this many bytes, as in PostgreSQL.
const QUERY_BYTES_MAX: usize = 1024;

/// The sessions of this frontend.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Vec<Weak<Session>>>);

impl Sessions {
    /// Adds a session, for as long as it lives.
    pub(crate) fn add(&self, session: &Arc<Session>) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(session));
    }

    /// All sessions whose clients have introduced themselves.
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
    /// In a transaction that has failed.
    IdleInAborted,
}

impl State {
    /// As PostgreSQL calls it.
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
    /// The statement that runs, or ran last.
    pub(crate) query: String,
    pub(crate) connected: SystemTime,
    /// When the transaction began, if one is open.
    pub(crate) transaction_start: Option<SystemTime>,
    pub(crate) query_start: Option<SystemTime>,
    pub(crate) state_change: SystemTime,
    /// Rows wait until the client reads earlier ones.
    is_writing: bool,
}

impl Doing {
    /// The event that the session waits for, by the names of PostgreSQL.
    pub(crate) fn wait_event(&self) -> Option<&'static str> {
        match self.state {
            State::Active if self.is_writing => Some("ClientWrite"),
            State::Active => None,
            _ => Some("ClientRead"),
        }
    }
}

/// A session's own entry.
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
    /// A copy of what it is now.
    pub(crate) fn now(&self) -> Doing {
        self.lock().clone()
    }

    /// A statement begins.
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

    /// The client has been answered.
    pub(crate) fn ends(&self, state: State) {
        self.lock().enter(state, SystemTime::now());
    }

    /// Sends to the client, and marks the session as waiting for it while that blocks.
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
        // A statement that was cancelled while it waited has left this set.
        self.is_writing = false;
        if self.state != state {
            (self.state, self.state_change) = (state, now);
        }
    }
}

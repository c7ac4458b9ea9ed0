//! The session of one client: its user, its variables, its running statement.
//!
//! This module owns session variables and the cancellation of statements. A session runs one
//! statement at a time.

mod activity;
mod cursors;
mod messages;
mod statements;
mod transaction;
mod variables;

use std::mem;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use datafusion::execution::session_state::SessionState;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use weir_sql::error::Error;

pub(crate) use activity::{Activity, Sessions, State};
pub(crate) use cursors::{Cursors, SqlCursor};
pub(crate) use messages::{Included, Messages};
use statements::PreparedStatements;
pub(crate) use transaction::Transaction;
pub(crate) use variables::{Change, SERVER_VERSION, Variables, is_of_transaction};

use crate::names::SearchPath;
use crate::notice::Notice;

/// The time that a statement that was cancelled may take to tidy up before its client hears of it.
const TIDYING_MAX: Duration = Duration::from_secs(5);
/// The user of a client that names none.
const DEFAULT_USER: &str = "root";

/// A connection's state.
#[derive(Debug)]
pub(crate) struct Session {
    user: OnceLock<String>,
    /// The number that identifies the connection in cancel requests; 0 before start-up.
    pid: AtomicI32,
    /// This session's entry in `pg_stat_activity`.
    pub(crate) activity: Activity,
    pub(crate) sessions: Arc<Sessions>,
    variables: Mutex<Variables>,
    statements: Mutex<PreparedStatements>,
    cursors: Mutex<Cursors>,
    transaction: Mutex<Transaction>,
    included: Mutex<Included>,
    /// The limits of the running statement, or of the last one.
    running: Mutex<Limits>,
    /// Cancelled when the client is gone or the node stops.
    closed: CancellationToken,
    /// DataFusion's state with this session's functions, created for the first query.
    pub(crate) template: OnceLock<SessionState>,
}

impl Session {
    /// Starts a session that ends when `closed` is cancelled, and adds it to `sessions`.
    pub(crate) fn start_among(sessions: &Arc<Sessions>, closed: CancellationToken) -> Arc<Session> {
        let session = Arc::new(Session { sessions: Arc::clone(sessions), ..Session::new(closed) });
        sessions.add(&session);
        session
    }

    /// Creates a session without a user, which ends when `closed` is cancelled.
    pub(crate) fn new(closed: CancellationToken) -> Session {
        Session {
            activity: Activity::default(),
            sessions: Arc::default(),
            user: OnceLock::new(),
            pid: AtomicI32::new(0),
            variables: Mutex::default(),
            statements: Mutex::default(),
            cursors: Mutex::default(),
            transaction: Mutex::default(),
            included: Mutex::default(),
            running: Mutex::new(Limits::new(&closed, mpsc::unbounded_channel().0)),
            closed,
            template: OnceLock::new(),
        }
    }

    pub(crate) fn start(&self, user: Option<&str>, pid: i32) {
        let user = user.unwrap_or(DEFAULT_USER).to_owned();
        self.variables().set_user(&user);
        self.user.get_or_init(|| user);
        self.pid.store(pid, Ordering::Relaxed);
    }

    pub(crate) fn user(&self) -> &str {
        self.user.get().map_or(DEFAULT_USER, String::as_str)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed)
    }

    pub(crate) fn variables(&self) -> MutexGuard<'_, Variables> {
        self.variables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the schemas in which its statements look for relations.
    pub(crate) fn search_path(&self) -> SearchPath {
        self.variables().search_path(self.user())
    }

    pub(crate) fn statements(&self) -> MutexGuard<'_, PreparedStatements> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cursors(&self) -> MutexGuard<'_, Cursors> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn transaction(&self) -> MutexGuard<'_, Transaction> {
        self.transaction.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what it knows of messages that were read.
    pub(crate) fn included(&self) -> MutexGuard<'_, Included> {
        self.included.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a statement, or the next part of one. It can be cancelled from now on, and has the
    /// session's timeout.
    pub(crate) fn begin_statement(&self) -> Limits {
        let timeout = self.variables().statement_timeout();
        let limits = Limits {
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            ..Limits::new(&self.closed, mpsc::unbounded_channel().0)
        };
        *self.running() = limits.clone();
        limits
    }

    /// Begins a statement that may send notices before its answer.
    pub(crate) fn begin_telling(&self) -> (Limits, mpsc::UnboundedReceiver<Notice>) {
        let (notices, told) = mpsc::unbounded_channel();
        let limits = Limits { notices, ..self.begin_statement() };
        *self.running() = limits.clone();
        (limits, told)
    }

    /// Returns the limits of the running statement, or of the last one.
    pub(crate) fn limits(&self) -> Limits {
        self.running().clone()
    }

    /// Cancels the running statement, if there is one.
    pub(crate) fn cancel(&self) {
        self.running().canceled.cancel();
    }

    fn running(&self) -> MutexGuard<'_, Limits> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reasons to end a statement early.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    canceled: CancellationToken,
    closed: CancellationToken,
    deadline: Option<Instant>,
    /// Sends notices to the client while the statement runs.
    notices: mpsc::UnboundedSender<Notice>,
    /// Tasks that tidy up after parts of the statement that were ended early.
    tidying: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Limits {
    fn new(closed: &CancellationToken, notices: mpsc::UnboundedSender<Notice>) -> Limits {
        let (canceled, closed) = (closed.child_token(), closed.clone());
        Limits { canceled, closed, deadline: None, notices, tidying: Arc::default() }
    }

    /// Runs a part of the statement until it is done or the statement must end.
    ///
    /// # Errors
    /// `57014` if the client cancelled the statement or its timeout is over, `57P01` if the
    /// connection is closing.
    pub(crate) async fn run<T>(&self, part: impl Future<Output = T>) -> Result<T, Error> {
        let outcome = tokio::select! {
            biased;
            () = self.canceled.cancelled() => Err(self.why()),
            () = self.timed_out() => Err(Error::canceled("statement timeout")),
            done = part => Ok(done),
        };
        if outcome.is_err() {
            // The client may rely on it once it hears that the statement has ended.
            let tidying = mem::take(&mut *self.tidying.lock().unwrap_or_else(PoisonError::into_inner));
            let _late = timeout(TIDYING_MAX, join_all(tidying)).await;
        }
        outcome
    }

    /// Tidies up after a part of the statement that was ended early.
    pub(crate) fn tidy_up(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tidying.lock().unwrap_or_else(PoisonError::into_inner).push(tokio::spawn(task));
    }

    /// Sends a notice to the client while the statement runs.
    pub(crate) fn tell(&self, notice: Notice) {
        // A session that does not listen has ended.
        let _ = self.notices.send(notice);
    }

    /// Returns the time to stop retrying: after `retry`, or when the statement times out.
    pub(crate) fn retry_until(&self, retry: Duration) -> Instant {
        let until = Instant::now() + retry;
        self.deadline.map_or(until, |deadline| deadline.min(until))
    }

    async fn timed_out(&self) {
        match self.deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    fn why(&self) -> Error {
        if self.closed.is_cancelled() {
            Error::user(
                weir_sql::error::sqlstate::ADMIN_SHUTDOWN,
                "terminating connection: the client is gone or the node stops",
            )
        } else {
            Error::canceled("user request")
        }
    }
}

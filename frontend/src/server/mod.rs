//! The PostgreSQL wire protocol.
//!
//! This module owns connections: start-up, the simple and the extended protocol, cancellation,
//! limits, the end. `frontend` owns the meaning of statements. In reading order: [`connection`]
//! (one client), [`messages`] and [`frame`] (what the client sends), [`startup`], [`simple`] and
//! [`extended`] (the two protocols), [`copy`] (the data of COPY), [`respond`] (answers on the
//! wire).

mod connection;
mod copy;
mod extended;
mod frame;
mod messages;
mod respond;
mod simple;
mod startup;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use weir_common::error::Kind;
use weir_common::http::Readiness;
use weir_common::task::{Group, OnFailure};

use crate::config::Config;
use crate::frontend::Frontend;
use connection::{Admission, Connections, serve};

/// Accepting fails when file descriptors run out; the pause lets connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// When no place is left, up to this many more connections are read. Start-up refuses them with an
/// error that the client can read, unless they bring a cancel request. Any further connection is
/// closed at once.
const REFUSALS_MAX: usize = 64;

/// The reason why a frontend does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error("the frontend cannot start")]
    Start(#[source] weir_sql::error::Error),
    /// A background task failed; it has been logged.
    #[error("a task of the frontend failed")]
    Task,
}

impl Error {
    /// The kind of the error, by which callers decide what to do.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Start(error) => error.kind(),
            Error::Task => Kind::Internal,
        }
    }
}

/// A frontend node. It is stateless: any number of them serve a cluster.
#[derive(Debug)]
pub struct Server {
    frontend: Arc<Frontend>,
}

impl Server {
    /// Creates a frontend that does not listen yet.
    ///
    /// # Errors
    /// If the configuration cannot be used: it names no meta node, or one that is not `host:port`.
    pub fn new(config: Config) -> Result<Server, Error> {
        Ok(Server { frontend: Arc::new(Frontend::new(config).map_err(Error::Start)?) })
    }

    /// Ready while the leader of the meta nodes is in reach.
    pub fn readiness(&self) -> Readiness {
        let meta = Arc::clone(&self.frontend.meta);
        Arc::new(move || if meta.is_reached() { Ok(()) } else { Err("no meta node leads".to_owned()) })
    }

    /// Serves clients until cancelled, then ends running statements with `57P01`.
    ///
    /// # Errors
    /// If a background task fails.
    pub async fn run(self, listener: TcpListener, cancel: CancellationToken) -> Result<(), Error> {
        let group = Group::child_of(&cancel);
        let connections = Group::child_of(group.token());
        let snapshots = self.frontend.snapshots.clone();
        // Pins are renewed until the last statement has ended, and then released.
        let unused = CancellationToken::new();
        let token = unused.clone();
        group.spawn("pins", OnFailure::StopGroup, async move {
            snapshots.keep(token).await;
            Ok::<_, std::convert::Infallible>(())
        });
        self.accept(listener, &connections).await;
        connections.stop().await;
        unused.cancel();
        group.stop().await;
        if cancel.is_cancelled() { Ok(()) } else { Err(Error::Task) }
    }

    async fn accept(&self, listener: TcpListener, group: &Group) {
        let connections = Arc::new(Connections::default());
        let places = Arc::new(Semaphore::new(self.frontend.config.connections_max));
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        match listener.local_addr() {
            Ok(address) => info!(%address, "accepting SQL connections"),
            Err(error) => warn!(%error, "the SQL listener has no address"),
        }
        loop {
            let accepted = tokio::select! {
                biased;
                () = group.token().cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let place = Arc::clone(&places).try_acquire_owned().map(Admission::Place);
                    let place = place.or_else(|_| Arc::clone(&refusals).try_acquire_owned().map(Admission::Refusal));
                    let Ok(place) = place else {
                        debug!("a connection is closed unheard");
                        continue;
                    };
                    let frontend = Arc::clone(&self.frontend);
                    let (connections, token) = (Arc::clone(&connections), group.token().child_token());
                    group.spawn("connection", OnFailure::Log, serve(frontend, connections, stream, place, token));
                }
                Err(error) => {
                    warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves clients until cancelled: [`Server::new`] and [`Server::run`] in one.
///
/// # Errors
/// The errors of both.
pub async fn run(config: Config, listener: TcpListener, cancel: CancellationToken) -> Result<(), Error> {
    Server::new(config)?.run(listener, cancel).await
}

//! One client's connection, from accept to end.
//!
//! This module owns the registry that maps cancel requests, which arrive on connections of their
//! own, to sessions. It also watches for clients that disconnect while their query runs.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pgwire::api::RandomPidSecretKeyGenerator;
use pgwire::api::cancel::CancelHandler;
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::startup::SecretKey;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span};
use weir_common::listen;

use super::copy::Copying;
use super::extended::Extended;
use super::messages;
use super::simple::Simple;
use super::startup::Startup;
use crate::frontend::Frontend;
use crate::metrics;
use crate::session::Session;
use crate::write::Pipeline;

/// The time that a running statement gets at shutdown to tell its client that it ends.
const FAREWELL: Duration = Duration::from_millis(200);

/// A connection that is silent for this long is probed, so that a client whose machine is gone does
/// not hold its place for ever.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// The purpose for which a connection was admitted; held as long as the connection lasts.
#[derive(Debug)]
pub(super) enum Admission {
    /// To run statements.
    Place(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit),
    /// To be refused, or to bring a cancel request.
    Refusal(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit),
}

/// The sessions that can be cancelled.
#[derive(Debug, Default)]
pub(super) struct Connections {
    sessions: Mutex<HashMap<(i32, Bytes), Weak<Session>>>,
    pub(super) keys: RandomPidSecretKeyGenerator,
}

impl Connections {
    pub(super) fn register(self: &Arc<Self>, pid: i32, key: &SecretKey, session: &Arc<Session>) -> Registered {
        let key = (pid, key.to_bytes());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(key.clone(), Arc::downgrade(session));
        Registered { connections: Arc::clone(self), key }
    }

    fn cancel(&self, request: &CancelRequest) {
        let key = (request.pid, request.secret_key.to_bytes());
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.get(&key).and_then(Weak::upgrade) {
            session.cancel();
        }
    }
}

/// A session's entry, for as long as it lives.
#[derive(Debug)]
pub(super) struct Registered {
    connections: Arc<Connections>,
    key: (i32, Bytes),
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// The resources of a connection whose client has completed start-up.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) _registered: Registered,
    pub(super) _metric: metrics::Connection,
}

/// A connection's handlers.
pub(super) struct Handlers {
    pub(super) startup: Arc<Startup>,
    pub(super) simple: Arc<Simple>,
    pub(super) extended: Arc<Extended>,
    pub(super) copying: Arc<Copying>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) cancel: Arc<Cancel>,
    pub(super) session: Arc<Session>,
}

/// Serves one client until it disconnects or the node stops.
pub(super) async fn serve(
    frontend: Arc<Frontend>,
    connections: Arc<Connections>,
    stream: TcpStream,
    place: Admission,
    closing: CancellationToken,
) -> Result<(), Infallible> {
    let span = info_span!("session", peer = stream.peer_addr().map(tracing::field::display).ok());
    let outcome = serve_stream(frontend, connections, stream, place, closing).instrument(span.clone()).await;
    if let Err(error) = outcome {
        span.in_scope(|| debug!(%error, "the connection broke"));
    }
    Ok(())
}

async fn serve_stream(
    frontend: Arc<Frontend>,
    connections: Arc<Connections>,
    stream: TcpStream,
    place: Admission,
    closing: CancellationToken,
) -> io::Result<()> {
    listen::set_up(&stream);
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
    let (stream, watched) = twice(stream)?;
    let session = Session::start_among(&frontend.sessions, closing.clone());
    let (pipeline, copying) = (Arc::default(), Arc::new(Copying::new(&frontend, &session)));
    let handlers = Handlers {
        startup: Arc::new(Startup::new(&frontend, &connections, &session, matches!(place, Admission::Place(_)))),
        simple: Arc::new(Simple::new(&frontend, &session, &pipeline, &copying)),
        extended: Arc::new(Extended::new(&frontend, &session, &pipeline, &copying)),
        copying,
        pipeline,
        cancel: Arc::new(Cancel(connections)),
        session,
    };
    // The future is large, and there is one per connection.
    let client = Box::pin(messages::serve(stream, &handlers));
    tokio::select! {
        outcome = client => outcome,
        () = end_of(&watched, &closing) => Ok(()),
    }
}

/// Duplicates the socket's descriptor: one is used to talk, the other to notice that the client is
/// gone while nobody reads.
fn twice(stream: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    let stream = stream.into_std()?;
    let watched = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, TcpStream::from_std(watched)?))
}

/// Returns when the connection must be dropped, which is a short time after `closing` is cancelled.
/// Cancels `closing` if the client has closed its side.
async fn end_of(watched: &TcpStream, closing: &CancellationToken) {
    tokio::select! {
        () = closing.cancelled() => {}
        () = closed_by_client(watched) => closing.cancel(),
    }
    sleep(FAREWELL).await;
}

async fn closed_by_client(watched: &TcpStream) {
    loop {
        match watched.ready(Interest::READABLE).await {
            Ok(ready) if ready.is_read_closed() => return,
            // The data belongs to the other descriptor; wait for the next change.
            Ok(_) => {
                let _cleared =
                    watched.try_io(Interest::READABLE, || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock)));
            }
            Err(_) => return,
        }
    }
}

/// Answers cancel requests.
pub(super) struct Cancel(Arc<Connections>);

#[async_trait]
impl CancelHandler for Cancel {
    async fn on_cancel_request(&self, request: CancelRequest) {
        self.0.cancel(&request);
    }
}

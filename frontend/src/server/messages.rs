//! Receives the messages of one connection and passes each to the handler that answers it.
//!
//! This module reads messages up to a maximum size and answers clients that break the protocol.
//! pgwire decodes and dispatches the messages.

use std::io;
use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use futures::SinkExt;
use pgwire::api::{ClientInfo, PgWireConnectionState};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::response::{ReadyForQuery, TransactionStatus};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::server::{MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_message};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::codec::{Decoder, Framed};
use tracing::debug;
use weir_sql::error::{Error, sqlstate};

use super::connection::Handlers;
use super::extended::Bound;
use super::frame::{self, Frame};
use super::respond::{fatal, wire_error};
use crate::session::State;

/// The server drops a client that has not sent its start-up message within this time, as PostgreSQL
/// does.
const START_UP_TIME: Duration = Duration::from_secs(60);

/// The time that a client gets to read the error that ends its connection.
const FAREWELL: Duration = Duration::from_millis(500);

type Socket = Framed<MaybeTls, PgWireMessageServerCodec<Arc<Bound>>>;

/// Serves a client until it disconnects.
///
/// # Errors
/// If the connection breaks.
pub(super) async fn serve(stream: TcpStream, handlers: &Handlers) -> io::Result<()> {
    let patience = Instant::now() + START_UP_TIME;
    let Ok(negotiated) = timeout_at(patience, negotiate_tls(stream, None)).await else {
        return Ok(());
    };
    // `None` if the client insists on TLS.
    let Some(mut socket) = negotiated? else {
        return Ok(());
    };
    loop {
        let received = match handlers.patience(&socket) {
            _ if is_starting(&socket) => match timeout_at(patience, receive(&mut socket)).await {
                Ok(received) => received,
                Err(_) => return Ok(()),
            },
            Some((idle, too_long)) => match timeout(idle, receive(&mut socket)).await {
                Ok(received) => received,
                Err(_) => Err(fatal(too_long)),
            },
            None => receive(&mut socket).await,
        };
        let (outcome, is_extended) = match received {
            Ok(None | Some(Received::Message(PgWireFrontendMessage::Terminate(_)))) => return Ok(()),
            Ok(Some(Received::Message(message))) => {
                let is_extended = match socket.state() {
                    PgWireConnectionState::CopyInProgress(is_extended) => is_extended,
                    _ => message.is_extended_query(),
                };
                (handlers.answer(&mut socket, message).await, is_extended)
            }
            // Skipped, like every other message up to the next Sync.
            Ok(Some(Received::Refused { .. })) if matches!(socket.state(), PgWireConnectionState::AwaitingSync) => {
                continue;
            }
            Ok(Some(Received::Refused { kind, error })) => (Err(wire_error(error)), frame::is_extended(kind)),
            // The start of the next message is unknown.
            Err(error) => (Err(error), false),
        };
        if outcome.is_err() {
            handlers.pipeline.abandon();
        }
        if let Err(error) = outcome
            && refuse(&mut socket, error, is_extended).await?.is_break()
        {
            return Ok(());
        }
        handlers.note(&socket);
    }
}

/// Sends an error to the client; returns `Break` if the error ends the connection.
async fn refuse(socket: &mut Socket, error: PgWireError, is_extended: bool) -> io::Result<ControlFlow<()>> {
    if let PgWireError::IoError(error) = error {
        return Err(error);
    }
    log(&error);
    let info = ErrorInfo::from(error);
    let is_fatal = info.is_fatal();
    socket.feed(PgWireBackendMessage::ErrorResponse(info.into())).await?;
    if is_fatal {
        socket.close().await?;
        // If unread bytes are left when the socket closes, the client may lose the error.
        let _too_late = timeout(FAREWELL, async { while fill(socket).await.is_ok_and(|read| read > 0) {} }).await;
        return Ok(ControlFlow::Break(()));
    }
    let status = socket.transaction_status().to_error_state();
    socket.set_transaction_status(status);
    if is_extended {
        socket.set_state(PgWireConnectionState::AwaitingSync);
    } else {
        socket.set_state(PgWireConnectionState::ReadyForQuery);
        socket.feed(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(status))).await?;
    }
    socket.flush().await?;
    Ok(ControlFlow::Continue(()))
}

impl Handlers {
    /// Returns how long to wait for the next message, and the error once that time is over.
    fn patience(&self, socket: &Socket) -> Option<(Duration, Error)> {
        if !matches!(socket.state(), PgWireConnectionState::ReadyForQuery) {
            return None;
        }
        let in_transaction = socket.transaction_status() != TransactionStatus::Idle;
        let idle = self.session.variables().idle_timeout(in_transaction)?;
        let (code, what) = match in_transaction {
            true => (sqlstate::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, "idle-in-transaction"),
            false => (sqlstate::IDLE_SESSION_TIMEOUT, "idle-session"),
        };
        Some((idle, Error::user(code, format!("terminating connection due to {what} timeout"))))
    }

    /// Records what the session is doing after a message was answered.
    fn note(&self, socket: &Socket) {
        if !matches!(socket.state(), PgWireConnectionState::ReadyForQuery) {
            return;
        }
        self.session.activity.ends(match socket.transaction_status() {
            TransactionStatus::Idle => State::Idle,
            TransactionStatus::Transaction => State::IdleInTransaction,
            TransactionStatus::Error => State::IdleInAborted,
        });
    }

    async fn answer(&self, socket: &mut Socket, message: PgWireFrontendMessage) -> PgWireResult<()> {
        let (startup, simple, extended) =
            (Arc::clone(&self.startup), Arc::clone(&self.simple), Arc::clone(&self.extended));
        let (copy, cancel) = (Arc::clone(&self.copying), Arc::clone(&self.cancel));
        process_message(message, socket, startup, simple, extended, copy, cancel).await
    }
}

fn is_starting(socket: &Socket) -> bool {
    matches!(socket.state(), PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress)
}

/// A message from a client.
enum Received {
    Message(PgWireFrontendMessage),
    /// A message that was discarded.
    Refused {
        kind: u8,
        error: Error,
    },
}

/// Returns the next message; `None` if the client is gone.
async fn receive(socket: &mut Socket) -> PgWireResult<Option<Received>> {
    loop {
        let frame = match is_starting(socket) {
            // pgwire bounds the messages of the start-up, tightly.
            true => Frame::Whole,
            false => frame::examine(socket.read_buffer()).map_err(fatal)?,
        };
        match frame {
            Frame::Whole => {
                let mut buffer = mem::take(socket.read_buffer_mut());
                let decoded = socket.codec_mut().decode(&mut buffer);
                *socket.read_buffer_mut() = buffer;
                if let Some(message) = decoded? {
                    return Ok(Some(Received::Message(message)));
                }
            }
            Frame::TooLarge { kind, bytes } => {
                let is_there = discard(socket, bytes).await?;
                return Ok(is_there.then(|| Received::Refused { kind, error: too_large(bytes) }));
            }
            Frame::Garbled { kind, bytes } => {
                socket.read_buffer_mut().advance(bytes);
                let error =
                    Error::user(sqlstate::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\"");
                return Ok(Some(Received::Refused { kind, error }));
            }
            Frame::Incomplete => {}
        }
        if fill(socket).await? == 0 {
            return Ok(None);
        }
    }
}

/// Reads the available bytes into the buffer.
async fn fill(socket: &mut Socket) -> io::Result<usize> {
    let mut buffer = mem::take(socket.read_buffer_mut());
    let read = socket.get_mut().read_buf(&mut buffer).await;
    *socket.read_buffer_mut() = buffer;
    read
}

/// Discards a message; returns false if the client disconnects before its end.
async fn discard(socket: &mut Socket, bytes: usize) -> io::Result<bool> {
    let mut left = bytes;
    loop {
        let buffer = socket.read_buffer_mut();
        let cut = buffer.len().min(left);
        buffer.advance(cut);
        left -= cut;
        if left == 0 {
            return Ok(true);
        }
        if fill(socket).await? == 0 {
            return Ok(false);
        }
    }
}

fn too_large(bytes: usize) -> Error {
    let message = format!("a message of {bytes} bytes is larger than the limit of {}", frame::MESSAGE_BYTES_MAX);
    Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, message).with_hint("send less at a time")
}

/// Logs internal errors for the operator; all others concern only the client.
fn log(error: &PgWireError) {
    match error {
        PgWireError::UserError(info) if info.code.starts_with("XX") => {
            tracing::error!(sqlstate = info.code, error = info.message, "a statement failed through our fault");
        }
        PgWireError::UserError(info) => debug!(sqlstate = info.code, error = info.message, "a statement failed"),
        error => debug!(%error, "a client broke the protocol"),
    }
}

//! Messages that are fetched one by one, because some message breaks the connection whenever it is delivered.
//!
//! Owns how far that goes: until the message that is to blame has been fetched, but no longer than is bearable where it is
//! not found. Messages before it come along: deliveries that arrive with it are lost with the connection.

use std::time::Duration;

use tokio::time::Instant;
use weir_common::ids::Sequence;

use crate::api::{Api, StoredMessage};
use crate::consumer;
use crate::error::Error;
use crate::headers;
use crate::options::Options;

/// How long is fetched at most.
const TIME: Duration = Duration::from_secs(1);
/// How many messages are fetched at most.
const MESSAGES: usize = 1024;
/// How many bytes of payloads are fetched at most; the last message may exceed it.
const BYTES: usize = 4 << 20;

/// What was fetched.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// The position that was asked for.
    pub(super) from: Sequence,
    /// The table's messages, ascending.
    pub(super) messages: Vec<StoredMessage>,
    /// Everything of the table below, and not below `from`, is among them.
    pub(super) position: Sequence,
    /// The sequence of the last one, if it is to blame.
    pub(super) unreadable: Option<u64>,
    bytes: usize,
}

impl Fetched {
    /// Nothing yet.
    pub(super) fn nothing(from: Sequence) -> Fetched {
        Fetched { from, position: from, ..Fetched::default() }
    }

    /// Whether more would be too much, or is not needed.
    fn is_enough(&self) -> bool {
        self.unreadable.is_some() || self.messages.len() >= MESSAGES || self.bytes >= BYTES
    }

    fn push(&mut self, message: StoredMessage) {
        self.position = Sequence(message.sequence + 1);
        self.bytes += message.payload.len();
        if !headers::is_readable(&message.subject, &message.headers) {
            self.unreadable = Some(message.sequence);
        }
        self.messages.push(message);
    }
}

/// What a search brought.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Messages that the client cannot read.
    pub(super) unreadable: Vec<u64>,
    /// Up to where was searched.
    pub(super) position: Sequence,
}

/// Fetches on. `last` is the last sequence of the stream, looked up before. Every message that came is kept, also if this
/// future is dropped: connections that never last bring a part each.
///
/// # Errors
/// If not even one message can be fetched.
pub(super) async fn fetch(
    api: &Api,
    stream: &str,
    options: &Options,
    last: Sequence,
    fetched: &mut Fetched,
) -> Result<(), Error> {
    let until = Instant::now() + TIME;
    while !fetched.is_enough() && Instant::now() < until {
        match next(api, stream, options, fetched.position).await {
            Ok(Some(message)) => fetched.push(message),
            Ok(None) => {
                // Nothing of what the stream held before is the table's.
                fetched.position = fetched.position.max(Sequence(last.0 + 1));
                break;
            }
            Err(_) if !fetched.messages.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Searches on for messages that the client cannot read among those that were read before and are still there, for as long
/// as is bearable. What was searched is kept, also if this future is dropped.
///
/// # Errors
/// If a message cannot be fetched.
pub(super) async fn search(
    api: &Api,
    stream: &str,
    options: &Options,
    to: Sequence,
    found: &mut Found,
) -> Result<(), Error> {
    let until = Instant::now() + TIME;
    while found.position < to && Instant::now() < until {
        match next(api, stream, options, found.position).await? {
            Some(message) if message.sequence < to.0 => {
                found.position = Sequence(message.sequence + 1);
                if !headers::is_readable(&message.subject, &message.headers) {
                    found.unreadable.push(message.sequence);
                }
            }
            _ => found.position = to,
        }
    }
    Ok(())
}

/// The table's first message at or above a position.
async fn next(api: &Api, stream: &str, options: &Options, position: Sequence) -> Result<Option<StoredMessage>, Error> {
    let mut next: Option<StoredMessage> = None;
    for subject in consumer::wanted_subjects(options) {
        let found = api.message_at(stream, position, subject).await?;
        next = next.into_iter().chain(found).min_by_key(|message| message.sequence);
    }
    Ok(next)
}

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
    /// The table's messages, ascending.
    pub(super) messages: Vec<StoredMessage>,
    /// Everything of the table below is among them.
    pub(super) position: Sequence,
    /// The sequence of the last one, if it is to blame.
    pub(super) unreadable: Option<u64>,
}

/// What a search brought.
#[derive(Debug)]
pub(super) struct Found {
    /// Messages that the client cannot read.
    pub(super) unreadable: Vec<u64>,
    /// Up to where was searched.
    pub(super) position: Sequence,
}

/// Fetches from a position on. `last` is the last sequence of the stream, looked up before.
///
/// # Errors
/// If not even one message can be fetched.
pub(super) async fn fetch(
    api: &Api,
    stream: &str,
    options: &Options,
    position: Sequence,
    last: Sequence,
) -> Result<Fetched, Error> {
    let until = Instant::now() + TIME;
    let mut fetched = Fetched { position, ..Fetched::default() };
    let mut bytes = 0;
    while fetched.messages.len() < MESSAGES && bytes < BYTES && Instant::now() < until {
        let message = match next(api, stream, options, fetched.position).await {
            Ok(Some(message)) => message,
            Ok(None) => {
                // Nothing of what the stream held before is the table's.
                fetched.position = fetched.position.max(Sequence(last.0 + 1));
                break;
            }
            Err(_) if !fetched.messages.is_empty() => break,
            Err(error) => return Err(error),
        };
        let (sequence, to_blame) = (message.sequence, !headers::are_readable(&message.headers));
        fetched.position = Sequence(sequence + 1);
        bytes += message.payload.len();
        fetched.messages.push(message);
        if to_blame {
            fetched.unreadable = Some(sequence);
            break;
        }
    }
    Ok(fetched)
}

/// Searches for messages that the client cannot read among those that were read before and are still there, for as long as
/// is bearable.
///
/// # Errors
/// If a message cannot be fetched.
pub(super) async fn search(
    api: &Api,
    stream: &str,
    options: &Options,
    from: Sequence,
    to: Sequence,
) -> Result<Found, Error> {
    let until = Instant::now() + TIME;
    let mut found = Found { unreadable: Vec::new(), position: from };
    while found.position < to && Instant::now() < until {
        match next(api, stream, options, found.position).await? {
            Some(message) if message.sequence < to.0 => {
                found.position = Sequence(message.sequence + 1);
                if !headers::are_readable(&message.headers) {
                    found.unreadable.push(message.sequence);
                }
            }
            _ => found.position = to,
        }
    }
    Ok(found)
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

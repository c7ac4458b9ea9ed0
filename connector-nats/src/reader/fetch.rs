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
    let mut fetched = Fetched { messages: Vec::new(), position };
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
        let to_blame = !headers::are_readable(&message.headers);
        fetched.position = Sequence(message.sequence + 1);
        bytes += message.payload.len();
        fetched.messages.push(message);
        if to_blame {
            break;
        }
    }
    Ok(fetched)
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

//! Messages that are fetched one by one, because some message breaks the connection whenever it is delivered.
//!
//! Owns how far that goes: until the message that is to blame has been fetched, but no longer than is bearable where it is
//! not found. Messages before it come along: deliveries that arrive with it are lost with the connection.

use std::time::Duration;

use tokio::time::Instant;
use weir_common::ids::Sequence;
use weir_common::position::{Anchor, Position, created_ns};

use crate::api::{Api, StoredMessage, StreamInfo};
use crate::consumer;
use crate::error::Error;
use crate::headers;
use crate::identity::{self, Seen};
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
    /// What tells the stream from others, as of the position.
    pub(super) anchor: Anchor,
    /// The last one, if it is to blame.
    pub(super) unreadable: Option<Unreadable>,
    bytes: usize,
}

impl Fetched {
    /// Nothing yet.
    pub(super) fn nothing(Position { next: from, anchor }: Position) -> Fetched {
        Fetched { from, position: from, anchor, ..Fetched::default() }
    }

    /// Where reading goes on after it.
    pub(super) fn read(&self) -> Position {
        Position { next: self.position, anchor: self.anchor }
    }

    /// Whether more would be too much, or is not needed.
    fn is_enough(&self) -> bool {
        self.unreadable.is_some() || self.messages.len() >= MESSAGES || self.bytes >= BYTES
    }

    fn push(&mut self, message: StoredMessage) {
        self.position = Sequence(message.sequence + 1);
        self.anchor.read(message.sequence, message.stored_ns);
        self.bytes += message.payload.len();
        if !headers::is_readable(&message.subject, &message.headers) {
            self.unreadable = Some(Unreadable::of(&message));
        }
        self.messages.push(message);
    }
}

/// A message that the client cannot read, and that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// Its place in the stream.
    pub(super) sequence: u64,
    /// When it was stored: another message of that sequence is not the one that was handed out.
    pub(super) stored_ns: u64,
}

impl Unreadable {
    fn of(message: &StoredMessage) -> Unreadable {
        Unreadable { sequence: message.sequence, stored_ns: message.stored_ns }
    }
}

/// What a search brought.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Messages that the client cannot read.
    pub(super) unreadable: Vec<Unreadable>,
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
/// If a message cannot be fetched, or was not read: then the stream is another one.
pub(super) async fn search(
    api: &Api,
    stream: &str,
    options: &Options,
    Position { next: to, anchor }: Position,
    found: &mut Found,
) -> Result<(), Error> {
    let until = Instant::now() + TIME;
    while found.position < to && Instant::now() < until {
        match next(api, stream, options, found.position).await? {
            Some(message) if message.sequence < to.0 => {
                if identity::is_unread(&anchor, message.stored_ns) {
                    let message = format!("its message {} was not read", message.sequence);
                    return Err(Error::StreamReplaced { stream: stream.to_owned(), message, certain: true });
                }
                found.position = Sequence(message.sequence + 1);
                if !headers::is_readable(&message.subject, &message.headers) {
                    found.unreadable.push(Unreadable::of(&message));
                }
            }
            _ => found.position = to,
        }
    }
    Ok(())
}

/// What is seen of a stream without a search: whether the message of the anchor is there.
///
/// # Errors
/// If the server does not say.
pub(super) async fn see(api: &Api, stream: &str, info: &StreamInfo, anchor: &Anchor) -> Result<Seen, Error> {
    let at_anchor = match anchor.sequence {
        0 => None,
        sequence => api.message_with(stream, sequence).await?.map(|message| message.stored_ns),
    };
    Ok(Seen { created_ns: created_ns(&info.created), last_seq: info.state.last_seq, at_anchor, below: None })
}

/// The table's last message below a position, in a stream that begins at `first`. Nothing asks a server for the message before a sequence,
/// so it is found by halving.
///
/// # Errors
/// If a message cannot be fetched.
pub(super) async fn last_below(
    api: &Api,
    stream: &str,
    options: &Options,
    first: Sequence,
    position: Sequence,
) -> Result<Option<(u64, u64)>, Error> {
    let mut last = None;
    let (mut low, mut high) = (first.0, position.0);
    // Most often it is the very one before the position.
    let mut at = low.max(high.saturating_sub(1));
    while low < high {
        match next(api, stream, options, Sequence(at)).await? {
            Some(found) if found.sequence < high => {
                last = Some((found.sequence, found.stored_ns));
                low = found.sequence + 1;
            }
            _ => high = at,
        }
        at = low + (high - low) / 2;
    }
    Ok(last)
}

/// The table's first message at or above a position.
pub(super) async fn next(
    api: &Api,
    stream: &str,
    options: &Options,
    position: Sequence,
) -> Result<Option<StoredMessage>, Error> {
    let mut next: Option<StoredMessage> = None;
    for subject in consumer::wanted_subjects(options) {
        let found = api.message_at(stream, position, subject).await?;
        next = next.into_iter().chain(found).min_by_key(|message| message.sequence);
    }
    Ok(next)
}

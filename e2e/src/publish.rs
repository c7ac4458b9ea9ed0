//! Publishing a workload into a stream, fast and, if asked, through the death of the server.
//!
//! Every message carries a reply subject that ends in its number; one subscription collects the acknowledgements. Owns
//! the window of messages that are not acknowledged yet: at most 10,000, so that neither the server's pending limit
//! nor the client's buffers overflow. What is not acknowledged for long is published again under the same
//! `Nats-Msg-Id`, so that the server drops it if it has it. Invariant: on return every message of the range is in the
//! stream exactly once.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber};
use futures::{FutureExt, StreamExt};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::wait::PATIENCE;
use crate::workload::Workload;

/// Messages that are sent and not acknowledged; below async-nats' subscription capacity, which drops beyond it.
const WINDOW: usize = 10_000;
/// Without an acknowledgement for this long everything outstanding is published again.
const STALL: Duration = Duration::from_secs(2);
/// The whole is given up after this long without an acknowledgement.
const GIVE_UP: Duration = PATIENCE;

/// How to publish.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Messages a second; absent: as fast as the server takes them.
    pub per_second: Option<u64>,
    /// Give every message an id, and publish again what the server did not acknowledge in time. Without it a lost
    /// message or acknowledgement is an error.
    pub survive: bool,
}

impl Pace {
    /// As fast as the server takes them; a loss is an error.
    pub const FAST: Pace = Pace { per_second: None, survive: false };

    /// So many messages a second, through the death of the server.
    pub fn steady(per_second: u64) -> Pace {
        Pace { per_second: Some(per_second), survive: true }
    }
}

/// Publishes the messages of the range. `progress` is told how many of them are acknowledged; the result is when each
/// was first handed to the client.
///
/// # Errors
/// If the server refuses a message, or nothing is acknowledged for a minute.
pub async fn publish(
    client: &Client,
    workload: &dyn Workload,
    range: Range<u64>,
    pace: Pace,
    progress: &watch::Sender<u64>,
) -> Result<Vec<Instant>> {
    let inbox = client.new_inbox();
    let replies = client.subscribe(format!("{inbox}.*")).await?;
    // The subscription must be known to the server before the first reply is sent.
    client.flush().await?;
    let total = range.end - range.start;
    let mut publication = Publication {
        client,
        workload,
        inbox,
        replies,
        survive: pace.survive,
        outstanding: BTreeSet::new(),
        last_ack: Instant::now(),
        last_send: Instant::now(),
    };
    let start = Instant::now();
    let mut sent = Vec::with_capacity(usize::try_from(total)?);
    let mut next = range.start;
    while next < range.end || !publication.outstanding.is_empty() {
        let allowed = pace.per_second.map_or(range.end, |rate| {
            range.start + (start.elapsed().as_micros() as u64).saturating_mul(rate) / 1_000_000
        });
        while next < range.end.min(allowed + 1) && publication.outstanding.len() < WINDOW {
            sent.push(Instant::now());
            publication.send(next).await?;
            next += 1;
            publication.take_ready()?;
        }
        publication.wait(next < range.end).await?;
        progress.send_replace(next - range.start - publication.outstanding.len() as u64);
    }
    Ok(sent)
}

/// Publishes the messages of the range as fast as the server takes them.
///
/// # Errors
/// As [`publish`].
pub async fn publish_all(client: &Client, workload: &dyn Workload, range: Range<u64>) -> Result<()> {
    publish(client, workload, range, Pace::FAST, &watch::Sender::new(0)).await.map(drop)
}

/// Publishes the messages of the range at a pace, in a task that ends with its handle.
pub fn publish_in_background(
    client: Client,
    workload: impl Workload + 'static,
    range: Range<u64>,
    per_second: u64,
) -> AbortOnDropHandle<Result<()>> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        // In pieces, since a publication remembers the time of each of its messages.
        let mut from = range.start;
        while from < range.end {
            let to = range.end.min(from + 2 * per_second);
            publish(&client, &workload, from..to, Pace::steady(per_second), &watch::Sender::new(0)).await?;
            from = to;
        }
        Ok(())
    }))
}

struct Publication<'a> {
    client: &'a Client,
    workload: &'a dyn Workload,
    inbox: String,
    replies: Subscriber,
    survive: bool,
    outstanding: BTreeSet<u64>,
    last_ack: Instant,
    last_send: Instant,
}

/// What JetStream answers to a publish.
#[derive(Deserialize)]
struct Reply {
    error: Option<serde_json::Value>,
}

impl Publication<'_> {
    async fn send(&mut self, number: u64) -> Result<()> {
        if self.outstanding.is_empty() {
            self.last_ack = Instant::now();
        }
        self.outstanding.insert(number);
        self.last_send = Instant::now();
        let (subject, payload) = (self.workload.subject(number), self.workload.payload(number));
        let reply = format!("{}.{number}", self.inbox);
        if self.survive {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", format!("{subject}-{number}"));
            self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await?;
        } else {
            self.client.publish_with_reply(subject, reply, payload).await?;
        }
        Ok(())
    }

    /// Takes the acknowledgements that are here already.
    fn take_ready(&mut self) -> Result<()> {
        while let Some(Some(message)) = self.replies.next().now_or_never() {
            self.acknowledge(&message)?;
        }
        Ok(())
    }

    /// Waits a little for acknowledgements, less if there is more to send, and publishes again what is overdue.
    async fn wait(&mut self, more: bool) -> Result<()> {
        let patience = Duration::from_millis(if more { 1 } else { 50 });
        if let Ok(message) = tokio::time::timeout(patience, self.replies.next()).await {
            self.acknowledge(&message.context("the subscription for acknowledgements has ended")?)?;
            self.take_ready()?;
        }
        let silence = self.last_ack.elapsed();
        ensure!(
            self.outstanding.is_empty() || silence < GIVE_UP,
            "no acknowledgement of {} messages for {silence:?}",
            self.outstanding.len()
        );
        if self.survive && silence > STALL && self.last_send.elapsed() > STALL {
            for number in self.outstanding.clone() {
                self.send(number).await?;
                self.take_ready()?;
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, message: &Message) -> Result<()> {
        let refusal = match message.status {
            Some(StatusCode::NO_RESPONDERS) => Some("no stream takes it".to_owned()),
            _ => serde_json::from_slice::<Reply>(&message.payload)?.error.map(|error| error.to_string()),
        };
        match refusal {
            // The server is coming up; the message is published again when it is overdue.
            Some(_) if self.survive => {}
            Some(refusal) => bail!("the server refused {}: {refusal}", message.subject),
            None => {
                let number = message.subject.rsplit('.').next().context("a subject has tokens")?.parse::<u64>()?;
                self.outstanding.remove(&number);
                self.last_ack = Instant::now();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::scenario;
    use crate::servers::Nats;
    use crate::workload::Events;

    #[test]
    fn publishing_survives_kills_of_the_server_without_doubles() {
        scenario("publish", async |sandbox| {
            let mut nats = Nats::start(sandbox).await?;
            nats.create_stream("EVENTS", &["events.>"]).await?;
            let client = nats.client().await?;
            let (progress, mut watcher) = watch::channel(0);
            let publishing = tokio::spawn(async move {
                publish(&client, &Events::new("events", 5), 0..30_000, Pace::steady(10_000), &progress).await
            });
            for moment in [5_000, 15_000] {
                watcher.wait_for(|&acknowledged| acknowledged >= moment).await?;
                nats.process().restart()?;
            }
            assert_eq!(publishing.await??.len(), 30_000);
            assert_eq!(nats.last_sequence("EVENTS").await?, 30_000);
            Ok(())
        });
    }
}

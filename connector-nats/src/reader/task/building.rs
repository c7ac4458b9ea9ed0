//! How the task has the consumer built, and what it makes of the outcome. Invariant: at most one attempt is under way; what
//! one learnt is known to the next, also if its connection was lost.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tracing::{info, warn};
use weir_common::condition::SplitState;
use weir_common::error::chain;
use weir_common::ids::{self, Sequence};
use weir_common::position::{Anchor, Position};

use super::super::build::{Attempt, Gap, Live, Outcome};
use super::super::condition::Trouble;
use super::super::fetch::Fetched;
use super::super::floor::Floor;
use super::super::{Batch, Message};
use super::{Attempted, Task};
use crate::delivery::{Event, Incarnation, Millis};
use crate::error::Error;
use crate::headers;
use crate::options::{OnGap, OnNewStream};

/// A stream that ends before the position for so long is another one: no leader takes longer to catch up.
const SHORT_MS: Millis = 10_000;

impl Task {
    /// Begins to build the consumer, with the read and the committed position.
    pub(super) async fn attempt(
        &mut self,
        incarnation: Incarnation,
        (position, committed): (Position, Sequence),
        fetch: bool,
    ) {
        if let Some(void) = self.attempting.take() {
            // Its connection was lost, so it ends at once.
            let void = void.await;
            self.void(void);
        }
        let attempt = Attempt {
            api: self.api.clone(),
            options: Arc::clone(&self.config.options),
            stream: self.config.options.stream.clone(),
            owner: self.config.owner.clone(),
            stored: self.config.stored,
            incarnation,
            position,
            committed,
            fetch,
            known: std::mem::take(&mut self.known),
        };
        let (mut link, losses) = (self.link.clone(), self.seen.losses);
        let void = async move {
            if link.wait_for(|link| link.losses != losses).await.is_err() {
                // The client is gone, and with it everything that the attempt could ask.
                std::future::pending().await
            }
        };
        let attempting = attempt.run(void).map(move |(known, result)| (incarnation, known, result));
        self.attempting = Some(attempting.boxed());
    }

    /// The consumer is there, or could not be made.
    pub(super) async fn attempted(&mut self, attempted: Attempted) {
        self.attempting = None;
        if !self.delivery.is_building(attempted.0) {
            return self.void(attempted);
        }
        let (incarnation, known, result) = attempted;
        self.known = known;
        self.note_end(&result);
        let split = &self.config.split;
        match result {
            Ok(Outcome { built, stream_last, gap }) => {
                self.obstacle = None;
                self.status.stream_last = stream_last;
                if let Some(gap) = gap {
                    self.tell_of(gap);
                }
                let fetched = self.known.hand_out();
                let position = fetched.read();
                let event = match built {
                    Some((live, terms)) => {
                        self.announce(&live);
                        self.live = Some(live);
                        self.publish_server();
                        self.guards.clear();
                        self.floor = Floor::new(self.now());
                        self.arrived_at = self.now();
                        Event::Built { incarnation, terms, position }
                    }
                    None => Event::Fetched { incarnation, position },
                };
                self.hand_out(fetched);
                self.apply(event).await;
            }
            Err(error) if self.begins_anew(&error) => {
                let begins = self.known.another.take().expect("another stream was found");
                self.begin_anew(incarnation, begins, &error).await;
            }
            // The machine waits for this attempt for ever: reading is over.
            Err(error) if self.is_fatal(&error) => {
                self.handles.failure.send_replace(Some(chain(&error)));
                self.obstacle = Some(Trouble::of(error));
                self.publish_condition();
            }
            Err(error) => {
                let parted = self.is_parted(&error);
                let mut trouble = Trouble::of(error);
                if parted {
                    trouble.state = SplitState::Stopped;
                }
                let is_news = self.obstacle.as_ref().is_none_or(|before| before.error != trouble.error);
                if is_news && let Some(suppressed) = self.outage.recovery(self.now()) {
                    info!(%split, error = trouble.error.message, suppressed, "cannot build the consumer, trying again");
                }
                self.obstacle = Some(trouble);
                self.apply(if parted { Event::Parted { incarnation } } else { Event::BuildFailed { incarnation } })
                    .await;
            }
        }
    }

    /// The connection over which it was attempted was lost: what was learnt remains, and why reading stands still.
    fn void(&mut self, (_, known, result): Attempted) {
        self.known = known;
        if let Err(error) = result {
            self.obstacle = Some(Trouble::of(error));
        }
    }

    fn tell_of(&mut self, Gap { from, count, certain }: Gap) {
        self.known.first_seq = from.0 + count;
        let split = &self.config.split;
        if certain {
            self.status.lost += count;
            warn!(%split, %from, count, "the stream no longer holds messages that were not read yet");
        } else {
            let told = "the stream no longer holds sequences that were not read yet; whether the table's filters match \
                        any of them is not known";
            info!(%split, %from, count, "{told}");
        }
    }

    /// Whether the table is not to be read any further.
    fn is_fatal(&self, error: &Error) -> bool {
        let strict = self.config.options.on_gap == OnGap::Fail;
        let parted = self.config.options.on_new_stream == OnNewStream::Stop && self.is_parted(error);
        strict && (matches!(error, Error::Gap { .. }) || parted)
    }

    /// Whether the stream is another one for good.
    fn is_parted(&self, error: &Error) -> bool {
        match error {
            Error::StreamReplaced { certain, .. } => {
                *certain || self.short_since.is_some_and(|since| self.now() >= since + SHORT_MS)
            }
            _ => false,
        }
    }

    /// Whether another stream is read from now on.
    fn begins_anew(&self, error: &Error) -> bool {
        self.config.options.on_new_stream == OnNewStream::Read
            && !self.config.follows
            && self.is_parted(error)
            && self.known.another.is_some()
            && self.stream_incarnation < ids::Incarnation::MAX
    }

    /// Begins with another stream, whose rows come beside those of the one before.
    async fn begin_anew(&mut self, incarnation: Incarnation, begins: Position, error: &Error) {
        self.known = std::mem::take(&mut self.known).of_another();
        self.short_since = None;
        self.stream_incarnation.0 += 1;
        let (split, stream, position) = (&self.config.split, self.stream_incarnation, begins.next);
        info!(%split, error = chain(error), incarnation = %stream, %position, "reading another stream from its first message");
        self.status.stream_last = Sequence(0);
        self.apply(Event::Renewed { incarnation, position: begins }).await;
        // Before anything of it: whoever reads learns that it begins.
        self.told = Anchor::default();
        self.tell_anchor();
    }

    /// Remembers since when the stream has ended before the position.
    fn note_end(&mut self, result: &Result<Outcome, Error>) {
        match result {
            Err(Error::StreamReplaced { certain: false, .. }) => {
                self.short_since.get_or_insert(self.now());
            }
            // Does not say.
            Err(_) => {}
            Ok(_) => self.short_since = None,
        }
    }

    /// Puts what was fetched, and the position above it, behind what was read before.
    fn hand_out(&mut self, fetched: Fetched) {
        let Fetched { messages, position, anchor, .. } = fetched;
        if position == self.delivery.position() {
            return;
        }
        let (incarnation, position) = (self.stream_incarnation, self.place(position));
        let (split, count) = (&self.config.split, messages.len());
        info!(%split, %position, count, "fetched messages one by one, because the connection breaks over them");
        let batch = self.pending.get_or_insert_with(|| Batch { messages: Vec::new(), position, anchor });
        (batch.position, batch.anchor) = (position, anchor);
        self.told = anchor;
        let headers_only = self.config.options.consumer.headers_only;
        batch.messages.extend(messages.into_iter().map(|stored| {
            let (headers, payload) = match headers_only {
                true => (headers::with_size(&stored.headers, stored.payload.len()), Bytes::new()),
                false => (headers::read(&stored.headers), stored.payload.into()),
            };
            Message {
                sequence: Sequence::new(incarnation, stored.sequence).0,
                subject: stored.subject.into(),
                stored_ns: stored.stored_ns,
                headers: headers.map(Box::new),
                payload,
            }
        }));
    }

    /// One line for each time reading begins.
    fn announce(&mut self, live: &Live) {
        let now = self.now();
        let (split, consumer, position) = (&self.config.split, live.name(), self.delivery.position());
        if let Some(ms) = self.outage.end(now) {
            info!(%split, consumer, %position, outage_ms = ms, "reading again");
        } else if let Some(suppressed) = self.outage.recovery(now) {
            info!(%split, consumer, %position, reason = ?self.reason, suppressed, "reading");
        }
    }
}

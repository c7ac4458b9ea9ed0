//! How the task has the consumer built, and what it makes of the outcome. Invariant: at most one attempt is under way; what
//! one learnt is known to the next, also if its connection was lost.

use std::sync::Arc;

use futures::FutureExt;
use tracing::{info, warn};
use weir_common::error::chain;
use weir_common::ids::Sequence;

use super::super::build::{Attempt, Gap, Live};
use super::super::fetch::Fetched;
use super::super::{Batch, Message};
use super::{Attempted, Task};
use crate::delivery::{Event, Incarnation};
use crate::headers;

impl Task {
    /// Begins to build the consumer.
    pub(super) async fn attempt(&mut self, incarnation: Incarnation, position: Sequence, fetch: bool) {
        if let Some(void) = self.attempting.take() {
            // Its connection was lost, so it ends at once.
            (_, self.known, _) = void.await;
        }
        let attempt = Attempt {
            api: self.api.clone(),
            options: Arc::clone(&self.config.options),
            stream: self.config.split.0.clone(),
            owner: self.config.owner.clone(),
            incarnation,
            position,
            fetch,
            known: self.known.clone(),
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
    pub(super) async fn attempted(&mut self, (incarnation, known, result): Attempted) {
        self.attempting = None;
        self.known = known;
        if !self.delivery.is_building(incarnation) {
            return;
        }
        let stream = &self.config.split;
        match result {
            Ok(built) => {
                self.obstacle = None;
                self.status.stream_last = built.stream_last;
                let position = self.delivery.position();
                match built.gap {
                    Gap::None => {}
                    Gap::Lost(lost) => {
                        self.status.lost += lost;
                        warn!(%stream, %position, lost, "the stream no longer holds messages that were not read yet");
                    }
                    Gap::Possible(sequences) => {
                        let told = "the stream no longer holds sequences that were not read yet; whether the table's \
                                    filters match any of them is not known";
                        info!(%stream, %position, sequences, "{told}");
                    }
                }
                self.announce(&built.live);
                self.live = Some(built.live);
                self.publish_server();
                let (terms, position) = (built.terms, built.fetched.position);
                self.hand_out(built.fetched);
                self.apply(Event::Built { incarnation, terms, position }).await;
            }
            Err(error) => {
                let error = chain(&error);
                // What stays as it is, a stream that is gone for instance, is repeated by the warnings.
                if self.obstacle.as_ref() != Some(&error)
                    && let Some(suppressed) = self.outage.recovery(self.now())
                {
                    info!(%stream, error, suppressed, "cannot build the consumer, trying again");
                }
                self.obstacle = Some(error);
                self.apply(Event::BuildFailed { incarnation }).await;
            }
        }
    }

    /// Puts what was fetched, and the position above it, behind what was read before.
    fn hand_out(&mut self, fetched: Fetched) {
        let Fetched { messages, position } = fetched;
        if position == self.delivery.position() {
            return;
        }
        let (stream, count) = (&self.config.split, messages.len());
        info!(%stream, %position, count, "fetched messages one by one, because the connection breaks over them");
        let batch = self.pending.get_or_insert_with(|| Batch { messages: Vec::new(), position });
        batch.position = position;
        batch.messages.extend(messages.into_iter().map(|stored| Message {
            sequence: stored.sequence,
            subject: stored.subject.into(),
            stored_ns: stored.stored_ns,
            headers: headers::read(&stored.headers),
            payload: stored.payload.into(),
        }));
    }

    /// One line for each time reading begins.
    fn announce(&mut self, live: &Live) {
        let now = self.now();
        let (stream, consumer, position) = (&self.config.split, live.name(), self.delivery.position());
        if let Some(ms) = self.outage.end(now) {
            info!(%stream, consumer, %position, outage_ms = ms, "reading again");
        } else if let Some(suppressed) = self.outage.recovery(now) {
            info!(%stream, consumer, %position, reason = ?self.reason, suppressed, "reading");
        }
    }
}

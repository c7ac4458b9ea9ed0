//! What the task sends: acknowledgements, and its last words. Invariant: nothing here waits for a connection that is lost.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use super::Task;
use crate::delivery::Event;

/// Acknowledgements sent between two bursts of messages, so that reading goes on while a large commit is acknowledged.
const ACKS_BETWEEN_BURSTS: usize = 8192;
/// How long a reader that stops waits for its last words to leave.
const FAREWELL: Duration = Duration::from_secs(1);
/// The acknowledgement itself.
const ACK: Bytes = Bytes::from_static(b"+ACK");

impl Task {
    /// Sends acknowledgements that are due, up to a bound.
    pub(super) async fn send_acks(&mut self) {
        self.delivery.take_acks(ACKS_BETWEEN_BURSTS, &mut self.acks);
        if self.acks.is_empty() {
            return;
        }
        let mut acks = std::mem::take(&mut self.acks);
        acks.iter().for_each(|token| self.floor.acked(token.stream_seq));
        let Some(form) = self.live.as_ref().and_then(|live| live.form.clone()) else { return };
        let (client, mut sent) = (self.api.client(), 0);
        self.transmit(async {
            for token in &acks {
                client.publish(form.ack_subject(*token), ACK).await?;
                sent += 1;
            }
            Ok(())
        })
        .await;
        if self.cancel.is_cancelled() {
            // The others belong to the last words.
            acks.drain(..sent);
            self.acks = acks;
        }
    }

    /// Hands something to the client, unless the connection is lost or the task is to stop meanwhile: the client's queue
    /// is full then, and what is handed over would be void.
    pub(super) async fn transmit(&mut self, send: impl Future<Output = Result<(), async_nats::PublishError>>) {
        let mut link = self.link.clone();
        let losses = self.seen.losses;
        tokio::select! {
            biased;
            // A failure means that the client has ended, which the link shows too.
            _ = send => {}
            () = self.cancel.cancelled() => {}
            _ = link.wait_for(|link| link.losses != losses) => {}
        }
    }

    /// The acknowledgements that are due, the end of a consumer that nobody else knows, and a flush.
    pub(super) async fn farewell(mut self) {
        if !self.link.borrow().connected {
            return;
        }
        let position = self.committed_of(self.handles.commits.borrow().position);
        self.delivery.apply(self.now(), Event::Committed { position }, &mut self.actions);
        let mut acks = std::mem::take(&mut self.acks);
        self.delivery.take_acks(usize::MAX, &mut acks);
        // Kept until the acknowledgements have left: whoever sees the pull requests end knows that nothing follows.
        let live = self.live.take();
        let form = live.as_ref().and_then(|live| live.form.clone());
        let client = self.api.client();
        let last_words = async {
            for (token, form) in acks.into_iter().filter_map(|token| Some((token, form.as_ref()?))) {
                if client.publish(form.ack_subject(token), ACK).await.is_err() {
                    return;
                }
            }
            drop(live);
            if client.flush().await.is_err() {
                return;
            }
            if let Some(attempting) = self.attempting.take() {
                // Only then is it known which consumer it made.
                (_, self.known, _) = attempting.await;
            }
            if let Some(name) = &self.known.anonymous {
                // Left behind, it disappears by itself.
                let _ = self.api.delete_consumer(&self.config.options.stream, name).await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, last_words).await;
    }
}

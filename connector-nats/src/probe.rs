//! Finding out what the user may ask JetStream for, without asking for it.
//!
//! Owns the question for each part of the API: the server looks at permissions before it looks at
//! the question. Invariant: a question is empty or valid JSON, and the server refuses it or it has
//! no effect, whatever stands behind the part. Nothing changes, and the server logs no warning.

use bytes::Bytes;
use serde_json::Value;

use crate::api::Api;
use crate::error::{Error, code};

/// A part of the API, and the question that is tried with it.
#[derive(Clone, Debug)]
pub struct Probe {
    part: String,
    question: &'static str,
}

impl Probe {
    /// Creating a consumer. The question names no stream, and so not the one in the subject.
    pub fn create_consumer(stream: &str, consumer: &str) -> Probe {
        Probe { part: format!("CONSUMER.CREATE.{stream}.{consumer}"), question: "{}" }
    }

    /// Deleting a consumer. The server refuses a deletion that bears a payload.
    pub fn delete_consumer(stream: &str, consumer: &str) -> Probe {
        Probe { part: format!("CONSUMER.DELETE.{stream}.{consumer}"), question: "{\"dry_run\":true}" }
    }

    /// Looking a consumer up.
    pub fn consumer_info(stream: &str, consumer: &str) -> Probe {
        Probe { part: format!("CONSUMER.INFO.{stream}.{consumer}"), question: "" }
    }

    /// Pulling messages, of a consumer that is not there.
    pub fn next_message(stream: &str, nobody: &str) -> Probe {
        Probe { part: format!("CONSUMER.MSG.NEXT.{stream}.{nobody}"), question: "{\"no_wait\":true}" }
    }

    /// Fetching a message. The question does not say which.
    pub fn get_message(stream: &str) -> Probe {
        Probe { part: format!("STREAM.MSG.GET.{stream}"), question: "{}" }
    }

    /// Listing consumers. There are none so far behind.
    pub fn list_consumers(stream: &str) -> Probe {
        Probe { part: format!("CONSUMER.LIST.{stream}"), question: "{\"offset\":1000000000}" }
    }

    /// Unpinning a consumer. The question does not say from whom.
    pub fn unpin_consumer(stream: &str, consumer: &str) -> Probe {
        Probe { part: format!("CONSUMER.UNPIN.{stream}.{consumer}"), question: "{\"group\":\"\"}" }
    }

    /// Resetting a consumer. An empty question would reset it, and a text is no sequence.
    pub fn reset_consumer(stream: &str, consumer: &str) -> Probe {
        Probe { part: format!("CONSUMER.RESET.{stream}.{consumer}"), question: "{\"seq\":\"none\"}" }
    }
}

impl Api {
    /// Finds out whether a part of the API may be asked.
    ///
    /// # Errors
    /// [`Error::Denied`] if it may not.
    pub async fn probe(&self, probe: &Probe) -> Result<(), Error> {
        match self.try_out(probe, format!("to ask {}", probe.part)).await {
            Err(error @ Error::Denied { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// The same of a part that nobody answers, because it is of a consumer that is not there.
    /// `stream` is one that may be asked about: a denial comes before the answer to what is asked
    /// behind the question, and is known before the one after that.
    ///
    /// # Errors
    /// As [`Api::probe`], and if the stream is gone.
    pub async fn probe_unanswered(&self, probe: &Probe, stream: &str) -> Result<(), Error> {
        let behind = async {
            self.stream_info(stream).await?;
            self.stream_info(stream).await.map(drop)
        };
        tokio::select! {
            biased;
            probed = self.probe(probe) => probed,
            behind = behind => behind,
        }
    }

    /// Finds out whether a consumer could be deleted.
    ///
    /// # Errors
    /// [`Error::Denied`] if it could not; others if the server does not say.
    pub async fn may_delete_consumer(&self, stream: &str, consumer: &str) -> Result<(), Error> {
        let what = format!("to delete consumer \"{consumer}\"");
        match self.try_out(&Probe::delete_consumer(stream, consumer), what).await {
            Err(Error::Refused { code: code::PAYLOAD_NOT_EMPTY, .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn try_out(&self, Probe { part, question }: &Probe, what: String) -> Result<Value, Error> {
        self.request(part.clone(), Bytes::from_static(question.as_bytes()), what).await
    }
}

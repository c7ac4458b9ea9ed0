//! JetStream's requests, as far as Weir needs them.
//!
//! Owns: subjects, the layout of answers, and which failure is which. Does not own what is asked
//! only to learn whether it is permitted (`probe`). Consumer configurations are kept as the JSON
//! objects the server sends, so that a consumer Weir found can be made again exactly as it was,
//! fields that this version knows nothing of included. Invariant: every request ends within
//! [`REQUEST_TIMEOUT`], sooner if the server denies it or the connection is lost. Requests to a
//! stream or a consumer without a leader are never answered, so questions, which change nothing,
//! are asked again meanwhile; but not for messages, which may be large.

use std::iter;
use std::time::Duration;

use async_nats::{Client, RequestError, RequestErrorKind, Subscriber};
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::Bytes;
use chrono::DateTime;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use weir_common::ids::Sequence;

use crate::connect::{Connection, Link, TOO_MANY_SUBSCRIPTIONS};
use crate::error::{Error, code};
use crate::limits::{AccountInfo, Excess, Limit, Whose};
use crate::stored::{Transform, Upstream};

/// How long one request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// When a question that is not answered is asked again. A server that is merely slow gets it a few times.
const ASK_AGAIN: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(750), Duration::from_millis(1500), Duration::from_secs(3)];
/// When it is asked again whether anybody receives acknowledgements.
const LISTEN_AGAIN: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];
/// How many subscriptions a reader has: to answers, and to messages.
const SUBSCRIPTIONS: u64 = 2;
/// A sequence that no stream gets to.
const NEVER: u64 = 1 << 62;

/// The first version of nats-server that can reset a consumer.
const RESETS_SINCE: (u64, u64) = (2, 14);

/// A JSON object.
pub type Object = Map<String, Value>;

/// A stream, as far as a reader cares.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamInfo {
    /// How it is configured.
    pub config: StreamConfig,
    /// When it was created, in the server's notation: tells a stream from its successor of the same name.
    pub created: String,
    /// What it holds.
    pub state: StreamState,
}

/// A stream's configuration, as far as a reader cares.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamConfig {
    /// What it listens to; empty for a mirror. See [`crate::stored`].
    #[serde(default)]
    pub subjects: Vec<String>,
    /// What becomes of the subject of every message that comes in.
    #[serde(default)]
    pub subject_transform: Option<Transform>,
    /// `limits`, `interest` or `workqueue`.
    #[serde(default)]
    pub retention: String,
    /// How many messages of one subject are kept; 0 and below: all.
    #[serde(default)]
    pub max_msgs_per_subject: i64,
    /// Present in a mirror.
    #[serde(default)]
    pub mirror: Option<Upstream>,
    /// Present in a stream that collects others.
    #[serde(default)]
    pub sources: Option<Vec<Upstream>>,
    /// Bounds for consumers.
    #[serde(default)]
    pub consumer_limits: ConsumerLimits,
    /// How many messages are kept; 0 and below: all.
    #[serde(default)]
    pub max_msgs: i64,
    /// How many bytes are kept; 0 and below: all.
    #[serde(default)]
    pub max_bytes: i64,
    /// How long messages are kept, in nanoseconds; 0: for ever.
    #[serde(default)]
    pub max_age: i64,
    /// How many consumers it may have; 0 and below: any number.
    #[serde(default)]
    pub max_consumers: i64,
    /// On how many servers it is kept.
    #[serde(default)]
    pub num_replicas: i64,
}

/// Bounds that a stream sets its consumers.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct ConsumerLimits {
    /// The largest `max_ack_pending`; 0: none.
    #[serde(default)]
    pub max_ack_pending: i64,
    /// The longest `inactive_threshold` in nanoseconds; 0: none.
    #[serde(default)]
    pub inactive_threshold: i64,
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct StreamState {
    /// The number of messages.
    pub messages: u64,
    /// The first sequence; without messages the next one or 0.
    pub first_seq: u64,
    /// The last sequence that was given; 0 before the first.
    pub last_seq: u64,
    /// How many subjects its messages have.
    #[serde(default)]
    pub num_subjects: u64,
    /// How many consumers it has.
    #[serde(default)]
    pub consumer_count: u64,
}

/// A consumer, as far as a reader cares.
#[derive(Clone, Debug, Deserialize)]
pub struct ConsumerInfo {
    /// What it is called.
    pub name: String,
    /// When it was created, in the server's notation: tells a consumer from its successor of the same name.
    pub created: String,
    /// How it is configured, in full.
    pub config: Object,
    /// What it delivered last; servers of version 2.10 tell the last sequence that they looked at instead.
    pub delivered: SequencePair,
    /// Below and at this everything is acknowledged.
    pub ack_floor: SequencePair,
    /// What was delivered and not acknowledged.
    #[serde(default)]
    pub num_ack_pending: u64,
    /// Pull requests that wait.
    #[serde(default)]
    pub num_waiting: u64,
    /// What is still to be delivered.
    #[serde(default)]
    pub num_pending: u64,
    /// Of a pinned consumer: to whom.
    #[serde(default)]
    pub priority_groups: Vec<PriorityGroup>,
}

/// Clients of a consumer among which the server chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PriorityGroup {
    /// The pin of the client that it delivers to, empty if there is none yet.
    #[serde(default)]
    pub pinned_client_id: String,
}

impl ConsumerInfo {
    /// Whether the consumer delivers to one client only, and has chosen it.
    pub fn is_pinned(&self) -> bool {
        self.priority_groups.iter().any(|group| !group.pinned_client_id.is_empty())
    }
}

/// The two sequences of a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SequencePair {
    /// The number of the delivery.
    pub consumer_seq: u64,
    /// The message's place in the stream.
    pub stream_seq: u64,
}

/// A message as the stream holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its place in the stream.
    pub sequence: u64,
    /// What it was published to.
    pub subject: String,
    /// When the server stored it, in nanoseconds since 1970.
    pub stored_ns: u64,
    /// What it was published with, as it is; may be empty.
    pub headers: Vec<u8>,
    /// What was published.
    pub payload: Vec<u8>,
}

#[derive(Deserialize)]
struct ConsumerPage {
    total: usize,
    #[serde(default)]
    consumers: Vec<ConsumerInfo>,
}

#[derive(Deserialize)]
struct GetAnswer {
    message: GetMessage,
}

#[derive(Deserialize)]
struct GetMessage {
    seq: u64,
    subject: String,
    time: String,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalBody,
}

#[derive(Deserialize)]
struct RefusalBody {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// JetStream over a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    connection: Connection,
}

impl Api {
    /// JetStream over `connection`.
    pub fn new(connection: Connection) -> Api {
        Api { connection }
    }

    /// The client underneath.
    pub fn client(&self) -> Client {
        self.connection.client()
    }

    /// The version of the server, major and minor; nothing if it does not say.
    pub fn server_version(&self) -> Option<(u64, u64)> {
        let version = self.client().server_info().version;
        let mut parts = version.split('.').map_while(|part| part.parse().ok());
        parts.next().zip(parts.next())
    }

    /// Whether the server can start a consumer over without making it anew.
    pub fn can_reset(&self) -> bool {
        self.server_version().is_some_and(|version| version >= RESETS_SINCE)
    }

    /// Subscribes to a new inbox, as readers do to what is delivered. Should the server refuse, the
    /// next request fails for it.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn subscribe(&self) -> Result<Subscriber, Error> {
        let client = self.client();
        let subscribed = client.subscribe(client.new_inbox()).await;
        subscribed.map_err(|_| Error::Disconnected { what: "to subscribe".to_owned() })
    }

    /// Looks a stream up.
    ///
    /// # Errors
    /// [`Error::NoStream`] only if the server says so; every other failure is its own.
    pub async fn stream_info(&self, stream: &str) -> Result<StreamInfo, Error> {
        let part = format!("STREAM.INFO.{stream}");
        let result = self.ask(part, Bytes::new(), format!("to look up stream \"{stream}\"")).await;
        result.map_err(|error| match error {
            error if error.is_missing_stream() => Error::NoStream { stream: stream.to_owned() },
            error => error,
        })
    }

    /// Creates a stream that keeps everything published to `subjects`.
    ///
    /// # Errors
    /// If the server refuses, because another stream has one of the subjects for example.
    pub async fn create_stream(&self, stream: &str, subjects: &[String]) -> Result<StreamInfo, Error> {
        let config = json!({
            "name": stream, "subjects": subjects, "retention": "limits", "storage": "file", "discard": "old",
            "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "num_replicas": 1,
        });
        let part = format!("STREAM.CREATE.{stream}");
        self.request(part, config.to_string().into(), format!("to create stream \"{stream}\"")).await
    }

    /// Looks up what the account has, and may have.
    ///
    /// # Errors
    /// If the server does not say; not every user may ask.
    pub async fn account_info(&self) -> Result<AccountInfo, Error> {
        self.ask("INFO".to_owned(), Bytes::new(), "to look up the limits of the account".to_owned()).await
    }

    /// Looks a consumer up; nothing if there is none.
    ///
    /// # Errors
    /// If the server does not say.
    pub async fn consumer_info(&self, stream: &str, consumer: &str) -> Result<Option<ConsumerInfo>, Error> {
        let part = format!("CONSUMER.INFO.{stream}.{consumer}");
        match self.ask(part, Bytes::new(), format!("to look up consumer \"{consumer}\"")).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.is_missing_consumer() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All consumers of a stream.
    ///
    /// # Errors
    /// If the server does not say.
    pub async fn consumers(&self, stream: &str) -> Result<Vec<ConsumerInfo>, Error> {
        let mut consumers = Vec::new();
        loop {
            let body = json!({ "offset": consumers.len() }).to_string();
            let what = format!("to list the consumers of stream \"{stream}\"");
            let page = self.ask(format!("CONSUMER.LIST.{stream}"), body.into(), what);
            let ConsumerPage { total, consumers: page } = page.await?;
            let complete = page.is_empty();
            consumers.extend(page);
            if complete || consumers.len() >= total {
                return Ok(consumers);
            }
        }
    }

    /// Creates a consumer that must not be there yet.
    ///
    /// # Errors
    /// If it is there, or the server refuses the configuration.
    pub async fn create_consumer(&self, stream: &str, config: &Object) -> Result<ConsumerInfo, Error> {
        self.put_consumer(stream, config, "create").await
    }

    /// Updates a consumer; with its own configuration that changes nothing and shows that it would be allowed.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn update_consumer(&self, stream: &str, config: &Object) -> Result<ConsumerInfo, Error> {
        self.put_consumer(stream, config, "update").await
    }

    /// Finds out whether the server would refuse a consumer with this configuration, without making
    /// it: an update of one that is not there. Its name has to be one that nobody else has.
    ///
    /// # Errors
    /// As [`Api::create_consumer`]; but not because the stream has too many.
    pub async fn check_consumer(&self, stream: &str, config: &Object) -> Result<(), Error> {
        match self.update_consumer(stream, config).await {
            Err(Error::Refused { code: code::NOT_UPDATED, .. }) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn put_consumer(&self, stream: &str, config: &Object, action: &str) -> Result<ConsumerInfo, Error> {
        let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
        let name = text("name");
        // The server wants a single filter repeated in the subject, where permissions can see it.
        let part = match text("filter_subject") {
            "" => format!("CONSUMER.CREATE.{stream}.{name}"),
            filter => format!("CONSUMER.CREATE.{stream}.{name}.{filter}"),
        };
        let body = json!({ "stream_name": stream, "config": config, "action": action });
        let put = self.request(part, body.to_string().into(), format!("to {action} consumer \"{name}\"")).await;
        put.map_err(|error: Error| error.or_limit(config))
    }

    /// Deletes a consumer; whether it was there.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn delete_consumer(&self, stream: &str, consumer: &str) -> Result<bool, Error> {
        let part = format!("CONSUMER.DELETE.{stream}.{consumer}");
        match self.request::<Value>(part, Bytes::new(), format!("to delete consumer \"{consumer}\"")).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing_consumer() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts a consumer over: everything is delivered from a sequence on, counted from 1, and what lies below counts as
    /// acknowledged. Requests that wait go on waiting.
    ///
    /// # Errors
    /// If the server refuses, or is too old to know how.
    pub async fn reset_consumer(&self, stream: &str, consumer: &str, to: Sequence) -> Result<ConsumerInfo, Error> {
        // 0 would be: to what is not acknowledged.
        let body = json!({ "seq": to.0.max(1) }).to_string();
        let part = format!("CONSUMER.RESET.{stream}.{consumer}");
        self.request(part, body.into(), format!("to reset consumer \"{consumer}\"")).await
    }

    /// Takes a pinned consumer from the client that it is pinned to: requests that bear its pin are refused from now on.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn unpin_consumer(&self, stream: &str, consumer: &str, group: &str) -> Result<(), Error> {
        let body = json!({ "group": group }).to_string();
        let part = format!("CONSUMER.UNPIN.{stream}.{consumer}");
        self.request::<Value>(part, body.into(), format!("to unpin consumer \"{consumer}\"")).await.map(drop)
    }

    /// The first message at or above a sequence that was published to a subject, wildcards allowed; nothing if there is
    /// none.
    ///
    /// # Errors
    /// If the server does not say.
    pub async fn message_at(
        &self,
        stream: &str,
        sequence: Sequence,
        subject: &str,
    ) -> Result<Option<StoredMessage>, Error> {
        self.message(stream, json!({ "seq": sequence.0, "next_by_subj": subject })).await
    }

    /// The message with a sequence; nothing if there is none.
    ///
    /// # Errors
    /// If the server does not say.
    pub async fn message_with(&self, stream: &str, sequence: u64) -> Result<Option<StoredMessage>, Error> {
        self.message(stream, json!({ "seq": sequence })).await
    }

    /// The last message that was published to a subject, wildcards allowed; nothing if there is none.
    ///
    /// # Errors
    /// If the server does not say.
    pub async fn last_message(&self, stream: &str, subject: &str) -> Result<Option<StoredMessage>, Error> {
        self.message(stream, json!({ "last_by_subj": subject })).await
    }

    async fn message(&self, stream: &str, body: Value) -> Result<Option<StoredMessage>, Error> {
        let what = format!("to fetch a message of stream \"{stream}\"");
        let request = self.request(format!("STREAM.MSG.GET.{stream}"), body.to_string().into(), what.clone());
        let GetAnswer { message } = match request.await {
            Ok(answer) => answer,
            Err(Error::Refused { code: code::NO_MESSAGE | code::NO_SEQUENCE, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let decode = |text: &str| {
            let malformed = |source| Error::Malformed { what: what.clone(), source: serde::de::Error::custom(source) };
            BASE64.decode(text).map_err(malformed)
        };
        let (headers, payload) = (decode(&message.hdrs)?, decode(&message.data)?);
        let time = DateTime::parse_from_rfc3339(&message.time).ok().and_then(|time| time.timestamp_nanos_opt());
        let stored_ns = time.and_then(|nanos| u64::try_from(nanos).ok()).ok_or_else(|| {
            let reason = format!("\"{}\" is no time at which a message was stored", message.time);
            Error::Malformed { what: what.clone(), source: serde::de::Error::custom(reason) }
        })?;
        let GetMessage { seq: sequence, subject, .. } = message;
        Ok(Some(StoredMessage { sequence, subject, stored_ns, headers, payload }))
    }

    /// Deletes a message, if it is there.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn delete_message(&self, stream: &str, sequence: u64) -> Result<(), Error> {
        let what = format!("to delete message {sequence} of stream \"{stream}\"");
        let body = json!({ "seq": sequence, "no_erase": true }).to_string();
        match self.request::<Value>(format!("STREAM.MSG.DELETE.{stream}"), body.into(), what).await {
            Ok(_) | Err(Error::Refused { code: code::NO_MESSAGE | code::NO_SEQUENCE, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The subject of a part of JetStream's API.
    pub fn subject(&self, part: &str) -> String {
        format!("{}.{part}", self.connection.api_prefix)
    }

    /// One request to a part of JetStream's API.
    pub(crate) async fn request<T: DeserializeOwned>(
        &self,
        part: String,
        payload: Bytes,
        what: String,
    ) -> Result<T, Error> {
        let client = self.client();
        let (allowed, needed) = (client.server_info().max_payload, payload.len());
        if needed > allowed {
            let (allowed, needed) = (Some(allowed as u64), needed as u64);
            return Err(Error::Limit(Excess { limit: Limit::Payload, whose: Whose::Server, allowed, needed }));
        }
        self.answered(client.request(self.subject(&part), payload), what).await
    }

    /// One question to a part of JetStream's API. The first answer counts.
    async fn ask<T: DeserializeOwned>(&self, part: String, payload: Bytes, what: String) -> Result<T, Error> {
        let subject = self.subject(&part);
        let question = |after: Duration| {
            let (subject, payload) = (subject.clone(), payload.clone());
            async move {
                tokio::time::sleep(after).await;
                self.client().request(subject, payload).await
            }
        };
        let mut asked: FuturesUnordered<_> = iter::once(Duration::ZERO).chain(ASK_AGAIN).map(question).collect();
        let answer = async { asked.next().await.expect("asked at least once") };
        self.answered(answer, what).await
    }

    /// Finds out whether acknowledgements reach a consumer that wants them. Says of a message that the consumer never
    /// delivered that it is being worked on: the server does nothing about it, and answers.
    ///
    /// # Errors
    /// [`Error::AcksUnheard`] if nobody receives it, [`Error::Denied`] if it may not be sent.
    pub async fn check_acks(&self, stream: &str, consumer: &str) -> Result<(), Error> {
        let unheard = || Error::AcksUnheard { stream: stream.to_owned(), consumer: consumer.to_owned() };
        let subject = format!("$JS.ACK.{stream}.{consumer}.1.{NEVER}.{NEVER}.0.0");
        // In a cluster the word that a consumer listens spreads for a moment.
        for pause in [Duration::ZERO].into_iter().chain(LISTEN_AGAIN) {
            tokio::time::sleep(pause).await;
            let client = self.client();
            let answer = client.request(subject.clone(), Bytes::from_static(b"+WPI"));
            match self.heard(answer, format!("to acknowledge messages of consumer \"{consumer}\"")).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => {}
                // It was taken and got lost on its way.
                Err(Error::Timeout { .. }) => return Err(unheard()),
                Err(error) => return Err(error),
            }
        }
        Err(unheard())
    }

    /// What is answered to a request.
    async fn answered<T: DeserializeOwned>(
        &self,
        answer: impl Future<Output = Result<async_nats::Message, RequestError>>,
        what: String,
    ) -> Result<T, Error> {
        let Some(message) = self.heard(answer, what.clone()).await? else { return Err(Error::NoJetStream) };
        if let Ok(Refusal { error }) = serde_json::from_slice::<Refusal>(&message.payload) {
            return Err(match error.err_code {
                code::NOT_ENABLED | code::NOT_ENABLED_FOR_ACCOUNT => Error::NoJetStream,
                _ => Error::Refused { what, status: error.code, code: error.err_code, description: error.description },
            });
        }
        serde_json::from_slice(&message.payload).map_err(|source| Error::Malformed { what, source })
    }

    /// The answer to a request; nothing if nobody listens to it. The link tells of a denial, which the server does not send as
    /// an answer.
    async fn heard(
        &self,
        answer: impl Future<Output = Result<async_nats::Message, RequestError>>,
        what: String,
    ) -> Result<Option<async_nats::Message>, Error> {
        let mut link = self.connection.link.clone();
        let (losses, denials) = {
            let link = link.borrow_and_update();
            (link.losses, link.denials)
        };
        let denied = |link: &Link| link.denials != denials || link.losses != losses;
        let answer = tokio::select! {
            answer = tokio::time::timeout(REQUEST_TIMEOUT, answer) => answer,
            Ok(link) = link.wait_for(denied) => {
                return Err(if link.denials == denials {
                    Error::Disconnected { what }
                } else if link.denial == TOO_MANY_SUBSCRIPTIONS {
                    let limit = Limit::Subscriptions;
                    Error::Limit(Excess { limit, whose: Whose::Unknown, allowed: None, needed: SUBSCRIPTIONS })
                } else {
                    Error::Denied { what, reason: link.denial.clone() }
                });
            }
        };
        match answer {
            Err(_) => Err(Error::Timeout { what, within: REQUEST_TIMEOUT }),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Ok(None),
            Ok(Err(_)) => Err(Error::Disconnected { what }),
            Ok(Ok(message)) => Ok(Some(message)),
        }
    }
}

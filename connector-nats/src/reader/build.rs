//! Making the consumer at a position: the requests of one attempt, and what comes out of them.
//!
//! Owns nothing between attempts except what [`Known`] remembers. Invariant: a consumer that Weir found is only deleted
//! once its configuration is remembered, and made again with exactly that.

use std::sync::Arc;

use async_nats::Subscriber;
use bytes::Bytes;
use serde_json::{Value, json};
use weir_common::ids::Sequence;

use super::fetch::{Fetched, fetch};
use crate::api::{Api, Object, StreamInfo};
use crate::consumer::{self, Bounds};
use crate::delivery::{Incarnation, Pull, Terms};
use crate::error::Error;
use crate::options::Options;
use crate::preflight::{check_filters_understood, unique_name};
use crate::reply::Form;
use crate::subject;

/// What attempts remember of each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// When the stream was created, as first seen: another time is another stream.
    pub(super) stream_created: Option<String>,
    /// The configuration of a consumer that Weir found and did not make.
    pub(super) found: Option<Object>,
    /// The name of the newest consumer without a given name.
    pub(super) anonymous: Option<String>,
    /// Up to here it is known what the stream no longer holds.
    pub(super) first_seq: u64,
}

/// One attempt.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) api: Api,
    pub(super) options: Arc<Options>,
    pub(super) stream: String,
    pub(super) owner: String,
    pub(super) incarnation: Incarnation,
    pub(super) position: Sequence,
    /// Whether messages are fetched before, see [`fetch`].
    pub(super) fetch: bool,
    pub(super) known: Known,
}

/// What an attempt brought.
pub(super) struct Built {
    pub(super) live: Live,
    pub(super) terms: Terms,
    /// The last sequence of the stream.
    pub(super) stream_last: Sequence,
    /// What was fetched, and where the consumer starts: at the position that was asked for, or above what was fetched.
    pub(super) fetched: Fetched,
    /// What the stream no longer holds from the position on, as far as that is news.
    pub(super) gap: Gap,
}

/// Sequences that the stream lost before they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// None.
    None,
    /// So many messages of the table's stream.
    Lost(u64),
    /// So many messages, but the consumer filters: whether the table would have had any of them is not known.
    Possible(u64),
}

/// A consumer that is being read.
pub(super) struct Live {
    pub(super) incarnation: Incarnation,
    pub(super) subscriber: Subscriber,
    /// The form of its replies, learnt from the first.
    pub(super) form: Option<Form>,
    /// Subjects to check each message against, because the consumer does not filter.
    pub(super) guard: Option<Guard>,
    name: String,
    created: String,
    inbox: String,
    next_subject: String,
    bounds: Bounds,
}

impl Attempt {
    /// Makes the consumer, unless the attempt is void before. What is learnt on the way is in `known` whatever the
    /// result: a consumer that Weir found may have been deleted by then, and its configuration is nowhere else.
    pub(super) async fn run(mut self, void: impl Future<Output = ()>) -> (Known, Result<Built, Error>) {
        let result = tokio::select! {
            biased;
            () = void => Err(Error::Disconnected { what: "to build the consumer".to_owned() }),
            result = self.build() => result,
        };
        (self.known, result)
    }

    async fn build(&mut self) -> Result<Built, Error> {
        let info = self.api.stream_info(&self.stream).await?;
        self.check_stream(&info)?;
        let (name, config) = self.configuration(&info).await?;
        let inbox = self.api.client().new_inbox();
        let subscriber = self
            .api
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|_| Error::Disconnected { what: format!("to subscribe for consumer \"{name}\"") })?;
        let last = Sequence(info.state.last_seq);
        let fetched = if self.fetch {
            fetch(&self.api, &self.stream, &self.options, self.position, last).await?
        } else {
            Fetched { position: self.position, ..Fetched::default() }
        };
        let made = self.api.create_consumer(&self.stream, &consumer::starting_at(&config, fetched.position)).await?;
        check_filters_understood(&config, &made.config, &name)?;
        let (terms, bounds) = consumer::terms(&made.config, self.options.consumer.rate_limit);
        let guard = consumer::filters(&self.options, &info.config).is_empty().then(|| Guard::new(&self.options));
        let from = self.position.0.max(self.known.first_seq);
        let gap = match info.state.first_seq.saturating_sub(from) {
            0 => Gap::None,
            lost if guard.is_some() => Gap::Lost(lost),
            possible => Gap::Possible(possible),
        };
        self.known.first_seq = info.state.first_seq.max(self.known.first_seq);
        let live = Live {
            incarnation: self.incarnation,
            subscriber,
            form: None,
            guard,
            next_subject: self.api.subject(&format!("CONSUMER.MSG.NEXT.{}.{name}", self.stream)),
            name,
            created: made.created,
            inbox,
            bounds,
        };
        Ok(Built { live, terms, stream_last: last, fetched, gap })
    }

    /// Positions mean nothing in another stream, or in one that has lost its end.
    fn check_stream(&mut self, info: &StreamInfo) -> Result<(), Error> {
        let replaced = |message: String| Err(Error::StreamReplaced { stream: self.stream.clone(), message });
        if let Some(created) = self.known.stream_created.as_ref().filter(|created| **created != info.created) {
            return replaced(format!("it was created at {}, not at {created}", info.created));
        }
        if info.state.last_seq + 1 < self.position.0 {
            return replaced(format!("it ends at {}, before position {}", info.state.last_seq, self.position));
        }
        self.known.stream_created = Some(info.created.clone());
        Ok(())
    }

    /// Clears the way for the new consumer and says what it has to be.
    async fn configuration(&mut self, info: &StreamInfo) -> Result<(String, Object), Error> {
        let Some(name) = self.options.consumer.name.given().map(str::to_owned) else {
            if let Some(old) = self.known.anonymous.take() {
                self.api.delete_consumer(&self.stream, &old).await?;
            }
            let name = unique_name(&self.api);
            self.known.anonymous = Some(name.clone());
            let config = consumer::wanted(&self.options, &info.config, &name, &self.owner);
            return Ok((name, config));
        };
        if let Some(found) = self.api.consumer_info(&self.stream, &name).await? {
            consumer::check_found(&self.options, &info.config, &name, &self.owner, &found)?;
            if consumer::owner(&found).is_none() {
                self.known.found = Some(found.config);
            }
            self.api.delete_consumer(&self.stream, &name).await?;
        }
        let config = match &self.known.found {
            Some(found) => {
                let mut config = found.clone();
                config.insert("name".to_owned(), json!(name));
                config
            }
            None => consumer::wanted(&self.options, &info.config, &name, &self.owner),
        };
        Ok((name, config))
    }
}

impl Live {
    /// The consumer's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Subject, reply and payload of a pull request.
    pub(super) fn request(&self, pull: Pull) -> (String, String, Bytes) {
        let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let mut body = json!({
            "batch": pull.batch,
            "expires": nanos(self.bounds.expires),
            "idle_heartbeat": nanos(self.bounds.heartbeat),
        });
        if let (false, Value::Object(body)) = (pull.unbounded, &mut body) {
            body.insert("max_bytes".to_owned(), json!(self.bounds.max_bytes));
        }
        (self.next_subject.clone(), self.inbox.clone(), body.to_string().into())
    }

    /// Asks the server which consumer bears the name now. The question leaves after everything sent before.
    pub(super) fn standing(&self, api: Api, stream: String) -> impl Future<Output = Standing> + use<> {
        let (name, created) = (self.name.clone(), self.created.clone());
        async move {
            match api.consumer_info(&stream, &name).await {
                Ok(Some(info)) if info.created == created => Standing::Ours,
                Ok(_) => Standing::Replaced,
                Err(_) => Standing::Unknown,
            }
        }
    }
}

/// Which consumer bears the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The one that was made.
    Ours,
    /// None, or somebody else's.
    Replaced,
    /// The server does not say.
    Unknown,
}

/// Tells the table's messages from others of the stream. An unfiltered consumer is much cheaper for the server, and its
/// stream may be given further subjects at any time.
#[derive(Debug)]
pub(super) struct Guard {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
enum Pattern {
    Exact(String),
    /// Everything below: `a.b.` for `a.b.>`, empty for `>`.
    Below(String),
    Other(String),
}

impl Guard {
    fn new(options: &Options) -> Guard {
        let patterns = consumer::wanted_subjects(options).iter().map(|pattern| match pattern.strip_suffix('>') {
            Some(prefix) if !prefix.contains('*') => Pattern::Below(prefix.to_owned()),
            None if !pattern.contains('*') => Pattern::Exact(pattern.clone()),
            _ => Pattern::Other(pattern.clone()),
        });
        Guard { patterns: patterns.collect() }
    }

    /// Whether a message published to `subject` belongs to the table.
    pub(super) fn admits(&self, subject: &str) -> bool {
        self.patterns.iter().any(|pattern| match pattern {
            Pattern::Exact(exact) => exact == subject,
            Pattern::Below(prefix) => subject.starts_with(prefix.as_str()),
            Pattern::Other(pattern) => subject::covers(pattern, subject),
        })
    }
}

//! What `EXPLAIN CREATE` says of a source: what CREATE would find, and what could go wrong later. It changes nothing; a
//! consumer may be there for a moment, which takes no messages.
//!
//! Owns what is said of each finding. Does not own how permissions are tried (`probe`).

mod limited;

use std::time::SystemTime;

use serde_json::json;

use crate::api::{Api, ConsumerInfo, Object, StreamInfo};
use crate::connect;
use crate::consumer::{self, Fit, OWNER_KEY};
use crate::error::Error;
use crate::found;
use crate::making;
use crate::options::{Options, Start};
use crate::preflight::{DEADLINE, check_stream, check_subjects, unique_name};
use crate::probe::Probe;
use crate::retention::{self, Renewal, Retention};
use limited::Subject;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about, in a word or two.
    pub topic: &'static str,
    /// How serious it is.
    pub severity: Severity,
    /// What was found.
    pub finding: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// It works, and may not do what is wanted.
    Warning,
    /// CREATE would fail.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// Versions below this one are not tested.
const SERVER_MIN: (u64, u64) = (2, 10);

/// Looks at everything that CREATE would look at: of a table, whose rows are `stored`, or of a source. Ends within
/// [`DEADLINE`].
pub async fn inspect(options: &Options, owner: &str, stored: bool) -> Vec<Finding> {
    let mut findings = Findings::default();
    let looking = Box::pin(findings.look(options, owner, stored));
    if tokio::time::timeout(DEADLINE, looking).await.is_err() {
        let what = format!("to look at stream \"{}\"", options.stream);
        findings.fail("connection", &Error::Timeout { what, within: DEADLINE });
    }
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    async fn look(&mut self, options: &Options, owner: &str, stored: bool) {
        for notice in &options.notices {
            self.warn("options", notice.clone(), None);
        }
        let api = match connect::connect(options, &format!("weir {owner} explain")).await {
            Ok(connection) => Api::new(connection),
            Err(error) => return self.fail("connection", &error),
        };
        self.server(&api);
        let _inbox = match api.subscribe().await {
            Ok(inbox) => inbox,
            Err(error) => return self.fail("connection", &error),
        };
        let stream = match api.stream_info(&options.stream).await {
            Ok(stream) => Some(stream),
            Err(Error::NoStream { .. }) if options.allow_create_stream => {
                let subjects = options.subjects.join(", ");
                self.say("stream", format!("stream \"{}\" would be created with subjects {subjects}", options.stream));
                self.limits_of_stream(&api, options).await;
                None
            }
            // Nothing else is answered either.
            Err(error @ Error::Limit(_)) => return self.fail("connection", &error),
            Err(error) => {
                self.fail("stream", &error);
                None
            }
        };
        let retention = match &stream {
            Some(stream) => self.stream(&api, options, stream, stored).await,
            None => None,
        };
        self.permissions(&api, options, retention).await;
        if let (Some(stream), Some(retention)) = (&stream, retention) {
            self.limits(Subject { api: &api, options, stream, retention, owner, stored }).await;
            for split in options.splits() {
                self.consumer(&api, &options.of_split(&split), stream, retention, owner).await;
            }
            self.splits(options, stream);
        }
    }

    fn say(&mut self, topic: &'static str, finding: String) {
        self.0.push(Finding { topic, severity: Severity::Info, finding, hint: None });
    }

    /// What is the same for several splits.
    fn once(&mut self, topic: &'static str, severity: Severity, finding: String) {
        let finding = Finding { topic, severity, finding, hint: None };
        if !self.0.contains(&finding) {
            self.0.push(finding);
        }
    }

    fn warn(&mut self, topic: &'static str, finding: String, hint: Option<&str>) {
        self.0.push(Finding { topic, severity: Severity::Warning, finding, hint: hint.map(str::to_owned) });
    }

    fn fail(&mut self, topic: &'static str, error: &Error) {
        let (finding, hint) = (weir_common::error::chain(error), error.hint());
        self.0.push(Finding { topic, severity: Severity::Error, finding, hint });
    }

    /// A failure that is the same for several splits.
    fn fail_once(&mut self, topic: &'static str, error: &Error) {
        let finding = weir_common::error::chain(error);
        if !self.0.iter().any(|known| known.finding == finding) {
            self.fail(topic, error);
        }
    }

    fn server(&mut self, api: &Api) {
        let text = format!("nats-server {}", api.client().server_info().version);
        match api.server_version() {
            Some(known) if known < SERVER_MIN => {
                self.warn("server", text, Some("use nats-server 2.10 or later: older ones are not tested"));
            }
            _ => self.say("server", text),
        }
    }

    /// What the stream is, and what it keeps, if it can be read at all.
    async fn stream(&mut self, api: &Api, options: &Options, stream: &StreamInfo, stored: bool) -> Option<Retention> {
        let (config, state) = (&stream.config, stream.state);
        let kept = Retention::of(config).map_or(config.retention.as_str(), |known| known.as_str());
        let text = format!(
            "stream \"{}\" has {kept} retention and {} messages, {} to {}",
            options.stream, state.messages, state.first_seq, state.last_seq
        );
        self.say("stream", text);
        let retention = match check_stream(options, stream) {
            Ok(retention) => retention,
            Err(error) => {
                self.fail("stream", &error);
                return None;
            }
        };
        match check_subjects(api, options, stream).await {
            Ok(notices) => notices.into_iter().for_each(|notice| self.warn("stream", notice, None)),
            Err(error) => {
                self.fail("stream", &error);
                return None;
            }
        }
        match retention {
            Retention::Limits => {}
            Retention::WorkQueue | Retention::Interest if !stored => self.warn(
                "retention",
                "acknowledged messages are deleted: they are in the views over the source only".to_owned(),
                Some("a further view begins where the others are; use CREATE TABLE to keep everything"),
            ),
            Retention::WorkQueue => self.warn(
                "retention",
                "acknowledged messages are deleted: what the table has read is in the table only".to_owned(),
                Some("one table reads a subject of a work queue; use retention limits where others read it too"),
            ),
            Retention::Interest => self.warn(
                "retention",
                "messages that all consumers have acknowledged are deleted: the table has no history".to_owned(),
                Some("the table begins with what other consumers still hold"),
            ),
        }
        if config.max_age > 0 || config.max_bytes > 0 || config.max_msgs > 0 {
            self.warn(
                "retention",
                "the stream discards old messages: what goes before it is read is lost to the table".to_owned(),
                Some("watch lag_seconds and lost_messages in weir_catalog.splits"),
            );
        }
        Some(retention)
    }

    /// Whether the user may ask for what reading needs.
    async fn permissions(&mut self, api: &Api, options: &Options, retention: Option<Retention>) {
        let (stream, name) = (&options.stream, options.consumer.name.given().unwrap_or("weir-explain"));
        let mut probes = vec![
            Probe::create_consumer(stream, name),
            Probe::delete_consumer(stream, name),
            Probe::consumer_info(stream, name),
            Probe::next_message(stream, &unique_name(api)),
            Probe::get_message(stream),
        ];
        let interest = retention == Some(Retention::Interest);
        // Guards are found by listing.
        probes.extend(interest.then(|| Probe::list_consumers(stream)));
        probes.extend((interest && api.can_reset()).then(|| Probe::unpin_consumer(stream, name)));
        let mut probed = Vec::new();
        for probe in probes {
            probed.push(api.probe(&probe).await);
        }
        if interest && api.can_reset() {
            probed.push(api.probe_unanswered(&Probe::reset_consumer(stream, name), stream).await);
        }
        let is_denied = |error: &Error| matches!(error, Error::Denied { .. });
        let denied: Vec<Error> = probed.into_iter().filter_map(Result::err).filter(is_denied).collect();
        denied.iter().for_each(|error| self.fail("permission", error));
        if denied.is_empty() {
            self.say("permission", "everything that reading needs is permitted".to_owned());
        }
    }

    async fn consumer(&mut self, api: &Api, options: &Options, stream: &StreamInfo, retention: Retention, owner: &str) {
        let kind = retention::consumer_name(options, retention, owner);
        for notice in retention::notices(options, &stream.config, retention, &kind) {
            self.once("consumer", Severity::Warning, notice);
        }
        let Some(name) = kind.given() else {
            let text = "without a name: nothing is acknowledged, Weir keeps the position";
            return self.once("consumer", Severity::Info, text.to_owned());
        };
        let found = api.consumer_info(&options.stream, name).await;
        let theirs =
            found.as_ref().is_ok_and(|found| found.as_ref().is_some_and(|info| consumer::owner(info).is_none()));
        if retention::renewal(retention, api.can_reset(), theirs) == Renewal::Guarded
            && let Err(error) = retention::check_guarded(options, api.server_version(), theirs.then_some(name))
        {
            self.fail("retention", &Error::Option(error));
        }
        if let Ok(found) = &found {
            let wanted = consumer::wanted(options, &stream.config, &kind, name, owner);
            let config = found.as_ref().map_or(&wanted, |info| &info.config);
            if consumer::is_acknowledged(config) {
                self.acknowledgements(api, options, retention, found.as_ref(), owner).await;
            }
        }
        match found {
            Ok(None) => {
                let wanted = consumer::wanted(options, &stream.config, &kind, name, owner);
                match self.overlap(api, options, retention, &wanted).await {
                    Some(error) => self.fail("consumer", &error),
                    None => self.say("consumer", format!("consumer \"{name}\" would be created")),
                }
            }
            Ok(Some(found)) => match consumer::check_found(options, &stream.config, name, owner, &found, Fit::Same) {
                Ok(()) => {
                    self.warn(
                        "consumer",
                        format!("consumer \"{name}\" exists: the table would read through it"),
                        Some("nobody else may read through it: one consumer has one reader"),
                    );
                    let notices = found::notices(&found, retention, SystemTime::now().into());
                    notices.into_iter().for_each(|notice| self.warn("consumer", notice, None));
                }
                Err(error) => self.fail("consumer", &error),
            },
            // The permission that it needs was looked at before.
            Err(_) => {}
        }
    }

    /// A work queue takes no two consumers that filter the same, and says so only when the second
    /// is made.
    async fn overlap(&self, api: &Api, options: &Options, retention: Retention, wanted: &Object) -> Option<Error> {
        if retention != Retention::WorkQueue {
            return None;
        }
        // Not every user may list them.
        let others = api.consumers(&options.stream).await.unwrap_or_default();
        let consumers = making::overlapping(wanted, &others);
        (!consumers.is_empty()).then(|| Error::QueueOverlap { stream: options.stream.clone(), consumers })
    }

    /// Whether acknowledgements arrive: those to the consumer, another one of the stream, or one that is there for a moment.
    async fn acknowledgements(
        &mut self,
        api: &Api,
        options: &Options,
        retention: Retention,
        found: Option<&ConsumerInfo>,
        owner: &str,
    ) {
        let mut listening = found.map(|info| info.name.clone());
        if listening.is_none() && retention.deletes_acknowledged() {
            // There another consumer may be in the way, or hold messages while it is there.
            let others = api.consumers(&options.stream).await.unwrap_or_default();
            let other = others.into_iter().find(|info| consumer::is_acknowledged(&info.config));
            listening = other.map(|info| info.name);
        }
        let heard = match listening {
            Some(name) => api.check_acks(&options.stream, &name).await,
            None => momentary(api, &options.stream, retention, owner).await,
        };
        match heard {
            Ok(()) => self.once("acknowledgements", Severity::Info, "acknowledgements arrive".to_owned()),
            Err(error @ (Error::AcksUnheard { .. } | Error::Denied { .. })) => self.fail("acknowledgements", &error),
            Err(error) => {
                let text =
                    format!("it is not known whether acknowledgements arrive: {}", weir_common::error::chain(&error));
                self.warn("acknowledgements", text, None);
            }
        }
    }

    fn splits(&mut self, options: &Options, stream: &StreamInfo) {
        let state = stream.state;
        let from = match options.start {
            Start::Earliest if state.messages > 0 => format!("from sequence {}", state.first_seq),
            Start::Earliest | Start::Latest => format!("from sequence {}", state.last_seq + 1),
            _ => "from where CREATE finds that it begins".to_owned(),
        };
        let splits = options.splits();
        for split in &splits {
            self.say("split", format!("\"{split}\" {from}"));
        }
        if splits.len() > 1 {
            self.warn(
                "split",
                format!("{} consumers with filters cost the server more than one without", splits.len()),
                Some("use split_by_subject where decoding, and not the server, is what reading waits for"),
            );
        }
    }
}

/// Whether acknowledgements reach a consumer of the stream that is there for a moment and wants no message of it.
async fn momentary(api: &Api, stream: &str, retention: Retention, owner: &str) -> Result<(), Error> {
    let name = unique_name(api);
    let config = json!({
        "name": name, "deliver_policy": "all", "ack_policy": "explicit", "filter_subject": format!("weir.explain.{name}"),
        "mem_storage": true, "inactive_threshold": 5_000_000_000_u64, "metadata": { OWNER_KEY: owner },
    });
    let serde_json::Value::Object(mut config) = config else { unreachable!("an object was written above") };
    if !retention.deletes_acknowledged() {
        // Elsewhere it has to have as many as the stream.
        config.insert("num_replicas".to_owned(), json!(1));
    }
    api.create_consumer(stream, &config).await?;
    let heard = api.check_acks(stream, &name).await;
    api.delete_consumer(stream, &name).await?;
    heard
}

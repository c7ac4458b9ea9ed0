//! The consumer through which a split is read: how Weir configures it, how it knows its own, and what it makes of one
//! that is there already.
//!
//! Owns the JSON of a consumer's configuration. A consumer that Weir found is only ever made again with its own exact
//! configuration, except for where it starts. Pure.

use std::time::Duration;

use serde_json::{Map, Value, json};
use weir_common::ids::Sequence;

use crate::api::{ConsumerInfo, Object, StreamConfig};
use crate::delivery::{Fence, Terms};
use crate::error::Error;
use crate::found;
use crate::options::{AckPolicy, ConsumerName, ConsumerOptions, Options, Replay};
use crate::retention::{self, Retention};
use crate::stored;
use crate::subject;

/// Metadata of every consumer that Weir made: the owner's name.
pub const OWNER_KEY: &str = "weir.owner";
/// The priority group of pinned consumers, which the server wants named.
pub const PIN_GROUP: &str = "weir";
/// How long a reader may ask for nothing before the server takes the pin from it. A new reader takes it without waiting.
const PIN_TIMEOUT: Duration = Duration::from_secs(600);
/// Unless the user says otherwise the interval between checkpoints must not cap the throughput.
const MAX_ACK_PENDING: u64 = 262_144;
/// How long an anonymous consumer outlives its reader.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(60);
/// The size of a pull request; two of them are outstanding.
const BATCH: u64 = 16_384;
/// What one request may bring, so that large messages cannot fill the memory.
const REQUEST_BYTES: u64 = 16 << 20;
/// How long a request lives.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often an idle server says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Below so many waiting requests allowed, one at a time is sent: the server may hold several half-served ones.
const WAITING_MIN: u64 = 8;

/// What bounds every pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long a request lives.
    pub expires: Duration,
    /// How often the server says that it is there.
    pub heartbeat: Duration,
    /// How many bytes a request may bring.
    pub max_bytes: u64,
}

/// The filters with which the table's subjects are read from a stream; none if they cover all that the stream stores,
/// because filters cost the server. Where acknowledgements delete messages they are always named: the stream may be given
/// further subjects, and what is published to them is not the table's.
pub fn filters(options: &Options, stream: &StreamConfig) -> Vec<String> {
    let wanted = wanted_subjects(options);
    if cover(wanted, stream) && Retention::of(stream) == Some(Retention::Limits) { Vec::new() } else { wanted.to_vec() }
}

/// Whether patterns cover everything that the stream stores from now on.
pub fn cover(patterns: &[String], stream: &StreamConfig) -> bool {
    let stored = stored::subjects(stream);
    !stored.is_empty() && stored.iter().all(|held| patterns.iter().any(|pattern| subject::covers(pattern, held)))
}

/// What the table reads.
pub fn wanted_subjects(options: &Options) -> &[String] {
    options.consumer.filters.as_deref().unwrap_or(&options.subjects)
}

/// The configuration of a consumer that Weir makes: as `kind` says it is called, `name` if that says nothing. It says
/// nothing yet of where it starts.
pub fn wanted(options: &Options, stream: &StreamConfig, kind: &ConsumerName, name: &str, owner: &str) -> Object {
    let consumer = &options.consumer;
    let ack_policy = consumer.ack_policy_of(kind);
    let mut config = explicit(consumer);
    config.insert("name".to_owned(), json!(name));
    config.insert("ack_policy".to_owned(), json!(ack_policy.as_str()));
    config.insert("metadata".to_owned(), json!({ OWNER_KEY: owner }));
    let description = consumer.description.clone().unwrap_or_else(|| match &options.split {
        Some(subject) => format!("Weir {owner}: {subject}"),
        None => format!("Weir {owner}"),
    });
    config.insert("description".to_owned(), json!(description));
    let limits = stream.consumer_limits;
    if kind.is_durable() {
        config.insert("durable_name".to_owned(), json!(name));
        if ack_policy == AckPolicy::None {
            for field in ["ack_wait", "max_ack_pending", "max_deliver", "backoff"] {
                config.remove(field);
            }
        } else {
            let allowed = u64::try_from(limits.max_ack_pending).ok().filter(|limit| *limit > 0);
            let window = MAX_ACK_PENDING.min(allowed.unwrap_or(MAX_ACK_PENDING));
            config.entry("max_ack_pending").or_insert(json!(window));
        }
    } else {
        for field in ["ack_wait", "max_ack_pending", "max_deliver", "backoff"] {
            config.remove(field);
        }
        let allowed = u64::try_from(limits.inactive_threshold).ok().filter(|limit| *limit > 0);
        let threshold = nanos(INACTIVE_THRESHOLD).min(allowed.unwrap_or(u64::MAX));
        config.entry("inactive_threshold").or_insert(json!(threshold));
        // It is rebuilt after every loss of the connection anyway.
        config.entry("mem_storage").or_insert(json!(true));
    }
    set_filters(&mut config, filters(options, stream));
    config
}

fn set_filters(config: &mut Object, mut filters: Vec<String>) {
    match filters.len() {
        0 => {}
        1 => {
            config.insert("filter_subject".to_owned(), json!(filters.remove(0)));
        }
        _ => {
            config.insert("filter_subjects".to_owned(), json!(filters));
        }
    }
}

/// What the user said, in the server's words.
fn explicit(consumer: &ConsumerOptions) -> Object {
    let mut config = Map::new();
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            config.insert(field.to_owned(), value);
        }
    };
    set("ack_policy", consumer.ack_policy.map(|policy| json!(policy.as_str())));
    set("ack_wait", consumer.ack_wait.filter(|_| consumer.backoff.is_empty()).map(|wait| json!(nanos(wait))));
    set("max_deliver", consumer.max_deliver.map(|max| json!(max)));
    set("max_ack_pending", consumer.max_ack_pending.map(|max| json!(max)));
    set("max_batch", consumer.max_batch.map(|max| json!(max)));
    set("max_bytes", consumer.max_bytes.map(|max| json!(max)));
    set("max_expires", consumer.max_expires.map(|max| json!(nanos(max))));
    set("max_waiting", consumer.max_waiting.map(|max| json!(max)));
    set("inactive_threshold", consumer.inactive_threshold.map(|threshold| json!(nanos(threshold))));
    set("num_replicas", consumer.num_replicas.map(|replicas| json!(replicas)));
    set("mem_storage", consumer.memory_storage.map(|memory| json!(memory)));
    set("headers_only", consumer.headers_only.then_some(Value::Bool(true)));
    let backoff: Vec<u64> = consumer.backoff.iter().map(|wait| nanos(*wait)).collect();
    set("backoff", (!backoff.is_empty()).then(|| json!(backoff)));
    set(
        "replay_policy",
        consumer.replay.map(|replay| match replay {
            Replay::Instant => json!("instant"),
            Replay::Original => json!("original"),
        }),
    );
    set("sample_freq", consumer.sample_frequency.map(|percent| json!(percent.to_string())));
    config
}

/// The option behind a field, for messages.
fn option_of(field: &str) -> &str {
    match field {
        "mem_storage" => "memory_storage",
        "sample_freq" => "sample_frequency",
        field => field,
    }
}

/// The same configuration, starting at a sequence.
pub fn starting_at(config: &Object, position: Sequence) -> Object {
    let mut config = config.clone();
    config.remove("opt_start_time");
    config.insert("deliver_policy".to_owned(), json!("by_start_sequence"));
    config.insert("opt_start_seq".to_owned(), json!(position.0.max(1)));
    if let Some(Value::Object(metadata)) = config.get_mut("metadata") {
        // The server's own notes about versions, which it writes anew.
        metadata.retain(|key, _| !key.starts_with("_nats."));
    }
    config
}

/// The same configuration, of a consumer that delivers to one client at a time, and says to which.
pub fn pinned(mut config: Object) -> Object {
    config.insert("priority_policy".to_owned(), json!("pinned_client"));
    config.insert("priority_groups".to_owned(), json!([PIN_GROUP]));
    config.insert("priority_timeout".to_owned(), json!(nanos(PIN_TIMEOUT)));
    config
}

/// What a consumer that is there has to be updated to; nothing if it is as `wanted`. Where it started stays.
pub fn update(wanted: &Object, found: &Object) -> Option<Object> {
    let owner = |config: &Object| config.get("metadata").and_then(|metadata| metadata.get(OWNER_KEY)).cloned();
    let is_same = |(field, value): (&String, &Value)| match field.as_str() {
        // The server adds notes of its own.
        "metadata" => owner(wanted) == owner(found),
        field => same(value, found.get(field).unwrap_or(&Value::Null)),
    };
    if wanted.iter().all(is_same) {
        return None;
    }
    let mut config = wanted.clone();
    for field in ["deliver_policy", "opt_start_seq", "opt_start_time"] {
        if let Some(value) = found.get(field) {
            config.insert(field.to_owned(), value.clone());
        }
    }
    Some(config)
}

/// What a stream keeps.
///
/// # Errors
/// If it has a retention that this version does not know.
pub fn retention(name: &str, stream: &StreamConfig) -> Result<Retention, Error> {
    let unknown = || Error::Retention { stream: name.to_owned(), retention: stream.retention.clone() };
    Retention::of(stream).ok_or_else(unknown)
}

/// Whether what a consumer delivers is acknowledged.
pub fn is_acknowledged(config: &Object) -> bool {
    ack_policy(config) != AckPolicy::None
}

fn ack_policy(config: &Object) -> AckPolicy {
    match config.get("ack_policy").and_then(Value::as_str) {
        Some("all") => AckPolicy::All,
        Some("explicit") => AckPolicy::Explicit,
        _ => AckPolicy::None,
    }
}

/// Who made the consumer, if Weir did.
pub fn owner(info: &ConsumerInfo) -> Option<&str> {
    info.config.get("metadata")?.get(OWNER_KEY)?.as_str()
}

/// How well the filters of a consumer that is there have to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// They are exactly what the table reads.
    Same,
    /// They may deliver more. The stream may have been given further subjects since the table was created.
    Wider,
}

/// Checks that a consumer that is there already is what the table needs.
///
/// # Errors
/// [`Error::Consumer`], which says what differs.
pub fn check_found(
    options: &Options,
    stream: &StreamConfig,
    name: &str,
    me: &str,
    info: &ConsumerInfo,
    fit: Fit,
) -> Result<(), Error> {
    let refuse = |message: String, hint: &str| {
        Err(Error::Consumer { consumer: name.to_owned(), message, hint: hint.to_owned() })
    };
    match owner(info) {
        Some(owner) if owner == me => return Ok(()),
        Some(owner) => {
            return refuse(format!("belongs to {owner}"), "every table needs a consumer.durable_name of its own");
        }
        None => {}
    }
    let text = |field: &str| info.config.get(field).and_then(Value::as_str).unwrap_or_default();
    if let Some((message, hint)) = found::unreadable(&info.config) {
        return refuse(message, &hint);
    }
    let deletes = Retention::of(stream) != Some(Retention::Limits);
    if (deletes || options.consumer.name.is_durable()) && text("durable_name").is_empty() {
        let message = "is no durable: the server forgets it when nobody reads through it";
        return refuse(message.to_owned(), "choose another consumer.durable_name, or delete the consumer");
    }
    if !options.consumer.headers_only && info.config.get("headers_only") == Some(&Value::Bool(true)) {
        let hint = "choose another consumer.durable_name, or set consumer.headers_only";
        return refuse("delivers headers only".to_owned(), hint);
    }
    if deletes && text("ack_policy") != AckPolicy::Explicit.as_str() {
        let message =
            format!("has ack_policy {}, but acknowledgements delete messages of this stream", text("ack_policy"));
        return refuse(message, "choose another consumer.durable_name, or change the consumer to explicit");
    }
    if Retention::of(stream) == Some(Retention::Interest) && info.config.get("mem_storage") == Some(&Value::Bool(true))
    {
        let message = "is kept in memory: it is gone when the server restarts, and messages of this stream with it";
        return refuse(message.to_owned(), "choose another consumer.durable_name");
    }
    let found = match deletes {
        true => subject::normalise(&retention::explicit_filters(&info.config)),
        false => found_filters(&info.config, stream),
    };
    let needed = subject::normalise(&filters(options, stream));
    // Where acknowledgements delete nothing the reader leaves out what else is delivered.
    let covers = |need: &String| found.is_empty() || found.iter().any(|has| subject::covers(has, need));
    let wider = fit == Fit::Wider && !deletes && !needed.is_empty() && needed.iter().all(covers);
    if found != needed && !wider {
        let list = |filters: &[String]| {
            if filters.is_empty() { "everything".to_owned() } else { filters.join(", ") }
        };
        return refuse(
            format!("filters {}, but the table needs {}", list(&found), list(&needed)),
            "change subject, consumer.filter_subjects or consumer.durable_name",
        );
    }
    for (field, wanted) in explicit(&options.consumer) {
        let found = info.config.get(&field).unwrap_or(&Value::Null);
        if !same(&wanted, found) {
            let option = option_of(&field);
            return refuse(
                format!("has {option} {}, but the table asks for {}", printed(&field, found), printed(&field, &wanted)),
                &format!("leave out consumer.{option}, or change the consumer"),
            );
        }
    }
    Ok(())
}

/// What a consumer's configuration says that it filters.
pub fn named_filters(config: &Object) -> Vec<String> {
    let mut found: Vec<String> = match config.get("filter_subjects") {
        Some(Value::Array(filters)) => filters.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    if let Some(filter) = config.get("filter_subject").and_then(Value::as_str).filter(|filter| !filter.is_empty()) {
        found.push(filter.to_owned());
    }
    found
}

/// What a found consumer filters, in the terms of [`filters`].
fn found_filters(config: &Object, stream: &StreamConfig) -> Vec<String> {
    let found = named_filters(config);
    if cover(&found, stream) { Vec::new() } else { subject::normalise(&found) }
}

/// The server leaves out what has its zero value.
fn same(wanted: &Value, found: &Value) -> bool {
    wanted == found || (found.is_null() && (*wanted == json!(false) || *wanted == json!("0")))
}

fn printed(field: &str, value: &Value) -> String {
    match (field, value) {
        (_, Value::Null) => "not set".to_owned(),
        ("ack_wait" | "max_expires" | "inactive_threshold", Value::Number(nanos)) => {
            format!("{}s", nanos.as_u64().unwrap_or_default() / 1_000_000_000)
        }
        (_, Value::String(text)) => text.clone(),
        (_, value) => value.to_string(),
    }
}

/// What the machine and the requests have to keep to, read from the configuration the server reports.
pub fn terms(config: &Object, rate_limit: Option<u64>, fence: Fence) -> (Terms, Bounds) {
    let number = |field: &str| config.get(field).and_then(Value::as_u64).filter(|number| *number > 0);
    let ack_policy = ack_policy(config);
    let batch = BATCH.min(number("max_batch").unwrap_or(BATCH));
    let requests = if number("max_waiting").is_some_and(|max| max < WAITING_MIN) { 1 } else { 2 };
    let expires = EXPIRES.min(number("max_expires").map_or(EXPIRES, Duration::from_nanos));
    // What a second may bring, so that a low limit is not overrun by one request.
    let rate_bytes = rate_limit.map_or(REQUEST_BYTES, |bits| (bits / 8).max(1024));
    let max_bytes = REQUEST_BYTES.min(rate_bytes).min(number("max_bytes").unwrap_or(REQUEST_BYTES));
    let terms = Terms { ack_policy, max_ack_pending: number("max_ack_pending"), batch, requests, fence };
    (terms, Bounds { expires, heartbeat: HEARTBEAT.min(expires / 2), max_bytes })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("options bound durations to 63 bits of nanoseconds")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        let base = [("connector", "nats"), ("server_url", "h:1"), ("subject", "a.>"), ("stream", "s")];
        let all: BTreeMap<String, String> =
            base.iter().chain(pairs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Options::parse(&all).expect("the options are right")
    }

    fn stream(subjects: &[&str]) -> StreamConfig {
        serde_json::from_value(json!({ "subjects": subjects, "retention": "limits" })).expect("a stream")
    }

    fn found(mut config: Value) -> ConsumerInfo {
        config["durable_name"] = json!("d");
        let sequences = json!({ "consumer_seq": 0, "stream_seq": 0 });
        let info =
            json!({ "name": "d", "created": "x", "config": config, "delivered": sequences, "ack_floor": sequences });
        serde_json::from_value(info).expect("a consumer")
    }

    #[test]
    fn a_filter_that_covers_the_stream_is_left_out() {
        assert!(filters(&options(&[]), &stream(&["a.b", "a.c.>"])).is_empty());
        assert_eq!(filters(&options(&[]), &stream(&["a.b", "c"])), ["a.>"]);
        assert_eq!(filters(&options(&[("consumer.filter_subject", "a.x")]), &stream(&["a.>"])), ["a.x"]);
        for retention in ["workqueue", "interest"] {
            let deleting = StreamConfig { retention: retention.to_owned(), ..stream(&["a.b"]) };
            assert_eq!(filters(&options(&[]), &deleting), ["a.>"], "it may be given further subjects");
        }
    }

    #[test]
    fn a_durable_has_a_large_window_unless_the_user_or_the_stream_say_otherwise() {
        let durable = options(&[("consumer.durable_name", "d")]);
        let kind = &durable.consumer.name;
        let config = wanted(&durable, &stream(&["a.>"]), kind, "d", "c/t");
        assert_eq!(config["max_ack_pending"], json!(MAX_ACK_PENDING));
        assert_eq!(config["ack_policy"], json!("explicit"));
        let mut limited = stream(&["a.>"]);
        limited.consumer_limits.max_ack_pending = 500;
        assert_eq!(wanted(&durable, &limited, kind, "d", "c/t")["max_ack_pending"], json!(500));
        let asked = options(&[("consumer.durable_name", "d"), ("consumer.max_ack_pending", "10")]);
        assert_eq!(wanted(&asked, &limited, kind, "d", "c/t")["max_ack_pending"], json!(10));
    }

    #[test]
    fn a_found_consumer_is_compared_with_what_was_asked() {
        let asked = options(&[("consumer.durable_name", "d"), ("consumer.ack_policy", "all")]);
        let check = |config: Value| check_found(&asked, &stream(&["a.>"]), "d", "c/t", &found(config), Fit::Same);
        check(json!({ "ack_policy": "all" })).expect("it fits");
        check(json!({ "ack_policy": "all", "filter_subject": "a.>" })).expect("it filters nothing");
        check(json!({ "ack_policy": "explicit", "metadata": { OWNER_KEY: "c/t" } })).expect("it is our own");
        for (config, named) in [
            (json!({ "ack_policy": "explicit" }), "ack_policy explicit"),
            (json!({ "ack_policy": "all", "deliver_subject": "x" }), "push"),
            (json!({ "ack_policy": "all", "headers_only": true }), "headers"),
            (json!({ "ack_policy": "all", "filter_subject": "a.b" }), "a.b"),
            (json!({ "ack_policy": "all", "metadata": { OWNER_KEY: "c/other" } }), "c/other"),
        ] {
            let error = check(config).expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_found_consumer_may_come_to_deliver_more_than_the_table_reads() {
        let asked = options(&[("consumer.durable_name", "d")]);
        let check = |filter: &str, subjects: &[&str], fit| {
            let config = json!({ "ack_policy": "explicit", "filter_subject": filter });
            check_found(&asked, &stream(subjects), "d", "c/t", &found(config), fit).is_ok()
        };
        for (filter, subjects, same, wider) in [
            ("", &["a.>"][..], true, true),
            ("", &["a.>", "b"], false, true),
            (">", &["a.>", "b"], false, true),
            ("a.>", &["a.>", "b"], true, true),
            ("a.x", &["a.>", "b"], false, false),
            ("a.x", &["a.>"], false, false),
        ] {
            let found = (check(filter, subjects, Fit::Same), check(filter, subjects, Fit::Wider));
            assert_eq!(found, (same, wider), "{filter:?} of {subjects:?}");
        }
    }

    #[test]
    fn where_acknowledgements_delete_a_found_consumer_must_be_explicit_and_name_its_filters() {
        let asked = options(&[("consumer.durable_name", "d")]);
        let queue = StreamConfig { retention: "workqueue".to_owned(), ..stream(&["a.>"]) };
        let check = |config: Value| check_found(&asked, &queue, "d", "c/t", &found(config), Fit::Same);
        check(json!({ "ack_policy": "explicit", "filter_subject": "a.>" })).expect("it fits");
        let error = check(json!({ "ack_policy": "explicit" })).expect_err("it filters nothing").to_string();
        assert!(error.contains("filters >"), "{error}");
        let error =
            check(json!({ "ack_policy": "all", "filter_subject": "a.>" })).expect_err("not explicit").to_string();
        assert!(error.contains("ack_policy all"), "{error}");
    }

    #[test]
    fn a_rebuilt_consumer_differs_only_in_its_start() {
        let Value::Object(config) = json!({
            "deliver_policy": "by_start_time", "opt_start_time": "t", "ack_wait": 5, "unheard_of": [1],
            "metadata": { "a": "b", "_nats.ver": "2.15.1" },
        }) else {
            panic!("an object");
        };
        let expected = json!({
            "deliver_policy": "by_start_sequence", "opt_start_seq": 7, "ack_wait": 5, "unheard_of": [1],
            "metadata": { "a": "b" },
        });
        assert_eq!(Value::Object(starting_at(&config, Sequence(7))), expected);
    }

    #[test]
    fn a_consumer_is_updated_where_it_differs_and_starts_where_it_did() {
        let object = |value: Value| match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        };
        let wanted = pinned(object(json!({
            "name": "d", "ack_policy": "explicit", "filter_subject": "a", "metadata": { "weir.owner": "c/t" },
        })));
        let start = object(json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": 7 }));
        let with = |mut config: Object, more: &Object| {
            config.extend(more.clone());
            config
        };
        let mut there = with(wanted.clone(), &start);
        there.insert("metadata".to_owned(), json!({ "weir.owner": "c/t", "_nats.ver": "2" }));
        there.insert("ack_wait".to_owned(), json!(30));
        assert_eq!(update(&wanted, &there), None);
        there.remove("priority_policy");
        assert_eq!(update(&wanted, &there), Some(with(wanted.clone(), &start)));
    }

    #[test]
    fn requests_keep_to_the_consumers_bounds() {
        let Value::Object(config) = json!({
            "ack_policy": "explicit", "max_batch": 10, "max_waiting": 2, "max_expires": 1_000_000_000_u64,
            "max_bytes": 100, "max_ack_pending": 3,
        }) else {
            panic!("an object");
        };
        let (terms, bounds) = terms(&config, Some(1_000_000), Fence::Made);
        let expected = Terms {
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: Some(3),
            batch: 10,
            requests: 1,
            fence: Fence::Made,
        };
        assert_eq!(terms, expected);
        let expires = Duration::from_secs(1);
        assert_eq!(bounds, Bounds { expires, heartbeat: expires / 2, max_bytes: 100 });
    }
}

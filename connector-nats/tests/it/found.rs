//! Durables that somebody else made, with every field that a consumer's configuration can hold: what the table cannot read
//! through is refused when it is created, what it can is read.

use std::time::Duration;

use async_nats::jetstream;
use serde_json::{Value, json};
use weir_common::condition::SplitState;
use weir_connector_nats::inspect::{Severity, inspect};
use weir_connector_nats::{Error, preflight};

use crate::support::{OWNER, Server, Table, create_stream, eventually, floor_reaches, options, publish};

const SECOND: u64 = 1_000_000_000;

/// What is made of a durable.
#[derive(Clone, Copy)]
enum Outcome {
    /// All rows come, and are acknowledged.
    Read,
    /// The same, but nothing is acknowledged.
    ReadOnly,
    /// The error names this.
    Refused(&'static str),
}
use Outcome::{Read, ReadOnly, Refused};

/// Fields of the durable beside its name and an ack policy of explicit. What a server does not take is left out there.
fn cases() -> Vec<(Value, Outcome)> {
    vec![
        (json!({}), Read),
        (json!({ "description": "theirs", "metadata": { "a": "b" } }), Read),
        (json!({ "deliver_policy": "new" }), Read),
        (json!({ "deliver_policy": "last" }), Read),
        (json!({ "deliver_policy": "last_per_subject", "filter_subject": "events.>" }), Read),
        (json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": 7 }), Read),
        (json!({ "deliver_policy": "by_start_time", "opt_start_time": "2020-01-01T00:00:00Z" }), Read),
        (json!({ "ack_policy": "all" }), Read),
        (json!({ "ack_policy": "none" }), ReadOnly),
        (json!({ "ack_wait": SECOND }), Read),
        (json!({ "ack_wait": 1 }), Refused("ack_wait")),
        (json!({ "backoff": [SECOND, SECOND], "max_deliver": 3 }), Read),
        (json!({ "backoff": [SECOND, 5], "max_deliver": 3 }), Refused("backoff")),
        (json!({ "max_deliver": 1 }), Read),
        (json!({ "max_deliver": -1 }), Read),
        (json!({ "filter_subject": "events.>" }), Read),
        (json!({ "filter_subjects": [">"] }), Read),
        (json!({ "filter_subject": "events.1" }), Refused("filters events.1")),
        (json!({ "filter_subjects": ["events.1", "events.2"] }), Refused("filters events.1, events.2")),
        (json!({ "replay_policy": "original" }), Read),
        (json!({ "sample_freq": "100" }), Read),
        (json!({ "max_ack_pending": 1 }), Read),
        (json!({ "max_ack_pending": -1 }), Read),
        (json!({ "max_waiting": 1 }), Read),
        (json!({ "max_batch": 1 }), Read),
        (json!({ "max_bytes": 1 }), Read),
        (json!({ "max_expires": SECOND }), Read),
        (json!({ "max_expires": 1_000_000 }), Refused("max_expires")),
        (json!({ "inactive_threshold": SECOND }), Read),
        (json!({ "inactive_threshold": 1_000_000 }), Refused("inactive_threshold")),
        (json!({ "num_replicas": 1, "mem_storage": true }), Read),
        (json!({ "headers_only": true }), Refused("headers only")),
        (json!({ "durable_name": Value::Null }), Refused("no durable")),
        (json!({ "deliver_subject": "theirs" }), Refused("push consumer")),
        (json!({ "deliver_subject": "theirs", "deliver_group": "g", "ack_policy": "none" }), Refused("push consumer")),
        (
            json!({ "deliver_subject": "theirs", "flow_control": true, "idle_heartbeat": SECOND }),
            Refused("push consumer"),
        ),
        (json!({ "priority_policy": "overflow", "priority_groups": ["g"] }), Refused("priority_policy overflow")),
        (json!({ "priority_policy": "prioritized", "priority_groups": ["g"] }), Refused("priority_policy prioritized")),
        (
            json!({ "priority_policy": "pinned_client", "priority_groups": ["g"], "priority_timeout": SECOND }),
            Refused("priority_policy pinned_client"),
        ),
        (json!({ "pause_until": "2020-01-01T00:00:00Z" }), Read),
    ]
}

/// Makes a consumer; nothing if the server does not know it all. One of version 2.10 forgets what it does not know.
async fn make(client: &async_nats::Client, fields: &Value) -> Option<Value> {
    let mut config = json!({ "name": "d", "durable_name": "d", "ack_policy": "explicit" });
    for (field, value) in fields.as_object().expect("fields") {
        config[field] = value.clone();
    }
    let body = json!({ "stream_name": "events", "config": config, "action": "create" });
    let part = match fields["filter_subject"].as_str() {
        Some(filter) => format!("$JS.API.CONSUMER.CREATE.events.d.{filter}"),
        None => "$JS.API.CONSUMER.CREATE.events.d".to_owned(),
    };
    let answer = client.request(part, body.to_string().into()).await.expect("it answers");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    let known = |(field, value): (&String, &Value)| {
        let made = &answer["config"][field];
        value.is_null() || made == value || ["pause_until", "metadata"].contains(&field.as_str())
    };
    fields.as_object().expect("fields").iter().all(known).then_some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_is_read_right_or_refused() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.expect("the server runs");
    publish(&js, 1, 10).await;
    let mut skipped = Vec::new();
    for (fields, outcome) in cases() {
        let made = make(&client, &fields).await;
        if made.is_none() {
            skipped.push(fields.clone());
            let _ = stream.delete_consumer("d").await;
            continue;
        }
        let options = options(server.port, &[("consumer.durable_name", "d")]);
        let found = inspect(&options, OWNER, true).await;
        let fails = found.iter().any(|finding| finding.severity == Severity::Error);
        match outcome {
            Refused(named) => {
                assert!(fails, "{fields}: {found:?}");
                let error = preflight(&options, OWNER).await.expect_err(named);
                let told = matches!(&error, Error::Consumer { .. }) && error.to_string().contains(named);
                assert!(told && error.hint().is_some(), "{fields}: {error}");
            }
            Read | ReadOnly => {
                assert!(!fails, "{fields}: {found:?}");
                let mut table = Table::create(&options).await;
                table.read_rows_committing(10).await;
                table.assert_rows(1..=10);
                if matches!(outcome, Read) {
                    floor_reaches(&stream, "d", 10).await;
                }
                table.group.stop().await;
            }
        }
        let _ = stream.delete_consumer("d").await;
    }
    // Priority groups and pauses are younger than 2.10.
    let allowed = if server.is_oldest().await { 5 } else { 0 };
    assert!(skipped.len() <= allowed, "{skipped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_comes_to_deliver_more_is_read_for_what_is_the_tables() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.expect("the server runs");
    publish(&js, 1, 5).await;
    make(&client, &json!({})).await.expect("the server takes it");
    let options = options(server.port, &[("consumer.durable_name", "d")]);
    let mut table = Table::create(&options).await;
    table.read_rows_committing(5).await;
    table.group.stop().await;

    let config = jetstream::stream::Config {
        name: "events".to_owned(),
        subjects: vec!["events.>".to_owned(), "others".to_owned()],
        ..Default::default()
    };
    js.update_stream(config).await.expect("the stream can be changed");
    js.publish("others", "99".into()).await.expect("it is connected").await.expect("it is stored");
    publish(&js, 6, 5).await;
    preflight(&options, OWNER).await.expect_err("a new table needs another durable");
    let mut table = Table::resume(&options, table.position);
    table.read_rows_committing(5).await;
    table.assert_rows(6..=10);
    floor_reaches(&stream, "d", 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_durable_is_told_of_and_read_afterwards() {
    let server = Server::start().await;
    if server.is_oldest().await {
        return;
    }
    let js = server.jetstream().await;
    create_stream(&js).await;
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.expect("the server runs");
    publish(&js, 1, 10).await;
    let until = std::time::SystemTime::now() + Duration::from_secs(4);
    let until = chrono::DateTime::<chrono::Utc>::from(until).to_rfc3339();
    make(&client, &json!({ "pause_until": until })).await.expect("the server takes it");
    let options = options(server.port, &[("consumer.durable_name", "d")]);
    let found = inspect(&options, OWNER, true).await;
    let is_told = |text: &str| text.contains("is paused until");
    assert!(
        found.iter().any(|finding| finding.severity == Severity::Warning && is_told(&finding.finding)),
        "{found:?}"
    );
    let told = preflight(&options, OWNER).await.expect("it can be read later");
    assert!(told.notices.iter().any(|notice| is_told(notice)), "{:?}", told.notices);
    let mut table = Table::create(&options).await;
    table.read_rows_committing(10).await;
    table.assert_rows(1..=10);
    // Somebody pauses it while it is read.
    let until = std::time::SystemTime::now() + Duration::from_secs(60);
    let until = chrono::DateTime::<chrono::Utc>::from(until).to_rfc3339();
    let pause = json!({ "pause_until": until }).to_string();
    client.request("$JS.API.CONSUMER.PAUSE.events.d", pause.into()).await.expect("it answers");
    let control = table.reader.control();
    eventually("it is told", async || control.condition().state == SplitState::Stalled).await;
    assert!(control.condition().reason().is_some_and(|reason| is_told(&reason)));
    client.request("$JS.API.CONSUMER.PAUSE.events.d", "{}".into()).await.expect("it answers");
    eventually("it goes on", async || control.condition().state == SplitState::Reading).await;
}

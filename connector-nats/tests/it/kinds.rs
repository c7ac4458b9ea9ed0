//! Streams of every kind that a server knows are read, and what happens to one does not make it
//! another.

use serde_json::{Value, json};
use weir_common::condition::SplitState;
use weir_connector_nats::preflight;

use crate::support::{OWNER, Server, Table, context, eventually, options, publish};

const DURABLE: (&str, &str) = ("consumer.durable_name", "d");

/// Asks JetStream; nothing if it refuses.
async fn ask(client: &async_nats::Client, part: &str, body: &Value) -> Option<Value> {
    let answer = client.request(format!("$JS.API.{part}"), body.to_string().into()).await.expect("it answers");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    answer["error"].is_null().then_some(answer)
}

async fn state(client: &async_nats::Client) -> Value {
    ask(client, "STREAM.INFO.events", &json!({})).await.expect("it is there")["state"].clone()
}

/// Fields of the stream `events`, and whether its messages come from the stream `origin`.
fn kinds() -> Vec<(Value, bool)> {
    let own = |more: Value| (more, false);
    vec![
        own(json!({ "first_seq": 1000 })),
        own(json!({ "storage": "memory", "compression": "none" })),
        own(json!({ "compression": "s2" })),
        own(json!({ "deny_delete": true, "deny_purge": true })),
        own(json!({ "retention": "workqueue", "deny_delete": true, "deny_purge": true })),
        own(json!({ "retention": "interest", "deny_delete": true, "deny_purge": true })),
        own(json!({ "retention": "workqueue", "first_seq": 1000 })),
        own(json!({ "retention": "interest", "first_seq": 1000 })),
        own(json!({ "max_msgs": 1000, "discard": "new", "max_msg_size": 100, "duplicate_window": 1_000_000_000 })),
        own(json!({ "max_msgs_per_subject": 5 })),
        own(json!({ "republish": { "src": "events.>", "dest": "again.>" } })),
        own(json!({ "allow_rollup_hdrs": true, "allow_direct": true })),
        own(json!({ "allow_msg_ttl": true, "allow_atomic": true, "persist_mode": "async" })),
        own(json!({ "retention": "workqueue", "allow_msg_ttl": true })),
        (json!({ "mirror": { "name": "origin" } }), true),
        (json!({ "mirror": { "name": "origin", "opt_start_seq": 1 }, "mirror_direct": true }), true),
        (json!({ "mirror": { "name": "origin" }, "retention": "workqueue" }), true),
        (json!({ "mirror": { "name": "origin" }, "retention": "interest" }), true),
        (json!({ "sources": [{ "name": "origin" }] }), true),
        (json!({ "sources": [{ "name": "origin" }], "retention": "workqueue" }), true),
        (json!({ "sources": [{ "name": "origin" }], "retention": "interest" }), true),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_every_kind_are_read() {
    for (fields, from_origin) in kinds() {
        let mut server = Server::start().await;
        let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.expect("the server runs");
        let mut config = json!({ "name": "events" });
        match from_origin {
            true => {
                let origin = json!({ "name": "origin", "subjects": ["events.>"] });
                ask(&client, "STREAM.CREATE.origin", &origin).await.expect("it can be created");
            }
            false => config["subjects"] = json!(["events.>"]),
        }
        config.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        if ask(&client, "STREAM.CREATE.events", &config).await.is_none() {
            println!("this server does not make {fields}");
            continue;
        }
        println!("{fields}");
        let js = context(client.clone());
        let options = options(server.port, &[DURABLE]);
        let mut table = Table::create(&options).await;
        publish(&js, 1, 20).await;
        table.read_rows_committing(20).await;
        if fields["storage"] != "memory" {
            server.kill();
            server.restart().await;
        }
        let js = server.jetstream().await;
        let client = js.client();
        eventually("the streams are there again", async || {
            let names = ask(&client, "STREAM.NAMES", &json!({ "subject": "events.>" })).await;
            names.is_some_and(|names| names["total"] != 0)
        })
        .await;
        publish(&js, 21, 20).await;
        table.read_rows_committing(40).await;
        table.assert_rows(1..=40);
        if fields["retention"].is_string() {
            eventually("everything is acknowledged, and goes", async || {
                table.commit();
                state(&client).await["messages"] == 0
            })
            .await;
        }
        assert_eq!(table.reader.control().condition().state, SplitState::Reading, "{fields}");
        table.group.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_stream_is_read_to_its_end() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    crate::support::create_stream(&js).await;
    publish(&js, 1, 20).await;
    let client = js.client();
    let mut config = ask(&client, "STREAM.INFO.events", &json!({})).await.expect("it is there")["config"].clone();
    config["sealed"] = json!(true);
    ask(&client, "STREAM.UPDATE.events", &config).await.expect("it can be sealed");
    for pairs in [&[][..], &[DURABLE]] {
        let mut table = Table::create(&options(server.port, pairs)).await;
        table.read_rows_committing(20).await;
        table.assert_rows(1..=20);
        table.group.stop().await;
    }
}

/// Removes messages of a stream of which ten were read.
async fn remove(client: &async_nats::Client, how: &str) {
    let delete = |sequence: u64| async move {
        let body = json!({ "seq": sequence });
        ask(client, "STREAM.MSG.DELETE.events", &body).await.expect("it can be deleted");
    };
    match how {
        "the last message" => delete(10).await,
        "all but the first" => {
            for sequence in 2..=10 {
                delete(sequence).await;
            }
        }
        "some in the middle" => {
            for sequence in [3, 5, 7, 10] {
                delete(sequence).await;
            }
        }
        "everything" => drop(ask(client, "STREAM.PURGE.events", &json!({})).await.expect("it can be purged")),
        "a beginning" => {
            drop(ask(client, "STREAM.PURGE.events", &json!({ "seq": 8 })).await.expect("it can be purged"))
        }
        "all but two" => {
            drop(ask(client, "STREAM.PURGE.events", &json!({ "keep": 2 })).await.expect("it can be purged"))
        }
        "a subject" => {
            drop(ask(client, "STREAM.PURGE.events", &json!({ "filter": "events.0" })).await.expect("it can be purged"));
        }
        "more than it has" => {
            drop(ask(client, "STREAM.PURGE.events", &json!({ "seq": 11 })).await.expect("it can be purged"));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_loses_messages_stays_the_one_that_was_read() {
    for how in [
        "the last message",
        "all but the first",
        "some in the middle",
        "everything",
        "a beginning",
        "all but two",
        "a subject",
        "more than it has",
    ] {
        for pairs in [&[][..], &[DURABLE]] {
            let mut server = Server::start().await;
            let js = server.jetstream().await;
            crate::support::create_stream(&js).await;
            let mut table = Table::create(&options(server.port, pairs)).await;
            publish(&js, 1, 10).await;
            table.read_rows_committing(10).await;
            remove(&js.client(), how).await;
            server.kill();
            server.restart().await;
            publish(&server.jetstream().await, 11, 10).await;
            table.read_rows_committing(20).await;
            table.assert_rows(1..=20);
            assert_eq!(table.reader.control().condition().state, SplitState::Reading, "{how}");
            table.group.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_puts_into_a_stream_itself_is_a_message_like_others() {
    let server = Server::start().await;
    let client = server.jetstream().await.client();
    let config = json!({
        "name": "events", "subjects": ["events.>"], "allow_msg_ttl": true, "subject_delete_marker_ttl": 60_000_000_000_u64,
        "max_age": 1_000_000_000_u64, "allow_rollup_hdrs": true,
    });
    let made = ask(&client, "STREAM.CREATE.events", &config).await.expect("it can be created");
    if made["config"]["subject_delete_marker_ttl"].is_null() {
        return;
    }
    let options = options(server.port, &[]);
    let found = preflight(&options, OWNER).await.expect("it can be created");
    let mut reader = Table::of_preflight(&options, &found);
    client.publish("events.a", "1".into()).await.expect("it is sent");
    let first = reader.next_message().await;
    assert_eq!((first.subject.as_str(), &first.payload[..]), ("events.a", &b"1"[..]));
    // Once the message is too old, a marker stands for it.
    let marker = reader.next_message().await;
    assert!(marker.subject.as_str() == "events.a" && marker.payload.is_empty());
    let headers = marker.headers.expect("it has some");
    assert!(headers.get("Nats-Marker-Reason").is_some(), "{headers:?}");
}

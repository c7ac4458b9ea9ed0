//! Every option that configures the consumer, one by one, as the server shows it.

use bytes::Bytes;
use serde_json::{Value, json};
use weir_connector_nats::Options;

use crate::support::{Server, Table, create_stream, eventually, options};

/// Options, and what they make of the consumer that is read through: fields of its configuration.
fn cases() -> Vec<(Vec<(&'static str, &'static str)>, Value)> {
    let second = 1_000_000_000_u64;
    vec![
        (vec![], json!({ "durable_name": "d", "ack_policy": "explicit", "max_ack_pending": 262_144 })),
        (vec![("consumer.name", "d")], json!({ "name": "d" })),
        (vec![("consumer.description", "what it is for")], json!({ "description": "what it is for" })),
        (vec![("consumer.ack_policy", "all")], json!({ "ack_policy": "all" })),
        (vec![("consumer.ack_policy", "None")], json!({ "ack_policy": "none" })),
        (vec![("consumer.ack_wait.sec", "7")], json!({ "ack_wait": 7 * second })),
        (vec![("consumer.ack_wait", "8")], json!({ "ack_wait": 8 * second })),
        (vec![("consumer.max_deliver", "5")], json!({ "max_deliver": 5 })),
        (vec![("consumer.max_deliver", "-1")], json!({ "max_deliver": -1 })),
        (vec![("consumer.filter_subject", "events.a")], json!({ "filter_subject": "events.a" })),
        (
            vec![("consumer.filter_subjects", "events.a,events.b.>")],
            json!({ "filter_subjects": ["events.a", "events.b.>"] }),
        ),
        (vec![("consumer.replay_policy", "instant")], json!({ "replay_policy": "instant" })),
        (vec![("consumer.replay_policy", "Original")], json!({ "replay_policy": "original" })),
        (vec![("consumer.sample_frequency", "25")], json!({ "sample_freq": "25" })),
        (vec![("consumer.max_waiting", "33")], json!({ "max_waiting": 33 })),
        (vec![("consumer.max_ack_pending", "44")], json!({ "max_ack_pending": 44 })),
        (vec![("consumer.max_batch", "55")], json!({ "max_batch": 55 })),
        (vec![("consumer.max_bytes", "6666")], json!({ "max_bytes": 6666 })),
        (vec![("consumer.max_expires.sec", "7")], json!({ "max_expires": 7 * second })),
        (vec![("consumer.max_expires", "8")], json!({ "max_expires": 8 * second })),
        (vec![("consumer.inactive_threshold.sec", "90")], json!({ "inactive_threshold": 90 * second })),
        (vec![("consumer.inactive_threshold", "91")], json!({ "inactive_threshold": 91 * second })),
        (vec![("consumer.num_replicas", "1")], json!({ "num_replicas": 1 })),
        (vec![("consumer.num.replicas", "1")], json!({ "num_replicas": 1 })),
        (vec![("consumer.memory_storage", "true")], json!({ "mem_storage": true })),
        (vec![("consumer.headers_only", "true")], json!({ "headers_only": true })),
        (
            vec![("consumer.backoff.sec", "1,2,3"), ("consumer.max_deliver", "4")],
            json!({ "backoff": [second, 2 * second, 3 * second], "max_deliver": 4 }),
        ),
        (vec![("consumer.backoff", "4,5")], json!({ "backoff": [4 * second, 5 * second] })),
        (
            vec![("consumer.deliver_policy", "all")],
            json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": 1 }),
        ),
        (vec![("consumer.deliver_policy", "new")], json!({ "opt_start_seq": 4 })),
        (vec![("scan.startup.mode", "latest")], json!({ "opt_start_seq": 4 })),
        (
            vec![("consumer.deliver_policy", "by_start_sequence"), ("consumer.opt_start_seq", "2")],
            json!({ "opt_start_seq": 2 }),
        ),
        (vec![("scan.startup.mode", "sequence"), ("consumer.start_sequence", "3")], json!({ "opt_start_seq": 3 })),
        (vec![("consumer.deliver_policy", "last")], json!({ "opt_start_seq": 3 })),
    ]
}

/// The configuration that the server shows.
async fn shown(client: &async_nats::Client) -> Option<Value> {
    let answer = client.request("$JS.API.CONSUMER.INFO.events.d", Bytes::new()).await.ok()?;
    let info: Value = serde_json::from_slice(&answer.payload).ok()?;
    info.get("config").cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_option_is_one_of_the_consumer() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    create_stream(&js).await;
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.expect("the server runs");
    crate::support::publish(&js, 1, 3).await;
    for (pairs, expected) in cases() {
        let mut all = vec![("consumer.durable_name", "d")];
        all.extend(&pairs);
        let table = Table::create(&options(server.port, &all)).await;
        eventually("the consumer is made", async || shown(&client).await.is_some()).await;
        let config = shown(&client).await.expect("it was there just now");
        for (field, value) in expected.as_object().expect("fields") {
            assert_eq!(&config[field], value, "{pairs:?}: {field} of {config}");
        }
        table.group.stop().await;
        js.delete_consumer_from_stream("d", "events").await.expect("it was there");
    }
}

#[test]
fn no_option_of_the_consumer_is_left_out() {
    let tested = cases().into_iter().flat_map(|(pairs, _)| pairs).map(|(option, _)| option);
    let tested: std::collections::BTreeSet<&str> = tested.collect();
    // Kept by the reader itself, and not the server's business.
    let others = ["consumer.durable_name", "consumer.rate_limit"];
    let untested: Vec<&str> = Options::names()
        .filter(|name| name.starts_with("consumer.") && !tested.contains(name) && !others.contains(name))
        .collect();
    assert!(untested.is_empty(), "{untested:?}");
}

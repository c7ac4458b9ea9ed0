//! Streams that store messages under other subjects than they listen to: the table reads what is stored.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_common::catalog::{Encode, Source};
use weir_connector_nats::preflight::Altered;
use weir_connector_nats::{Error, Preflight, preflight};

use crate::support::{OWNER, Server, Table, eventually, options};

/// A stream, what it makes of what is published, and subjects that it never stores.
struct Case {
    stream: Value,
    /// Subjects of a table, and how many of the messages are its rows.
    read: &'static [(&'static str, usize)],
    refused: &'static [&'static str],
}

const PUBLISHED: [&str; 9] =
    ["in.a", "in.b.c", "keep.x", "swap.1.2", "part.1", "split.p-q", "split.p", "left.abcdef", "some.1.2"];

fn cases() -> Vec<Case> {
    let transformed = |subjects: &[&str], src: &str, dest: &str| json!({ "subjects": subjects, "subject_transform": { "src": src, "dest": dest } });
    vec![
        Case {
            stream: transformed(&["in.>", "keep.>"], "in.>", "out.>"),
            read: &[("out.>", 2), ("out.a", 1), ("keep.x", 1), (">", 3), ("out.b.>,keep.*", 2)],
            refused: &["in.>", "in.a", "elsewhere", "out.a,in.b"],
        },
        Case {
            stream: transformed(&["swap.*.*"], "swap.*.*", "x.$2.{{wildcard(1)}}"),
            read: &[("x.2.1", 1), ("x.>", 1)],
            refused: &["swap.1.2", "x.1", "y.2.1"],
        },
        Case {
            stream: transformed(&["part.*"], "part.*", "y.{{partition(5,1)}}"),
            read: &[("y.*", 1), ("y.0,y.1,y.2,y.3,y.4", 1)],
            refused: &["part.1"],
        },
        Case {
            stream: transformed(&["split.*"], "split.*", "z.{{split(1,-)}}.e"),
            read: &[("z.p.e", 1), ("z.p.q.e", 1), ("z.>", 2)],
            refused: &["split.p"],
        },
        Case { stream: transformed(&["left.*"], "", "l.>"), read: &[("l.left.abcdef", 1)], refused: &["left.>"] },
        Case {
            stream: transformed(&["some.>"], "some.*", "one"),
            read: &[("some.1.2", 1), ("some.>", 1)],
            refused: &["other"],
        },
        Case {
            stream: json!({ "mirror": { "name": "BASE" } }),
            read: &[("in.>", 2), ("anything", 0), (">", 3)],
            refused: &[],
        },
        Case {
            stream: json!({ "mirror": { "name": "BASE", "filter_subject": "in.>" } }),
            read: &[("in.>", 2), ("in.a", 1), (">", 2)],
            refused: &["keep.>", "elsewhere"],
        },
        Case {
            stream: json!({ "mirror": {
                "name": "BASE", "subject_transforms": [{ "src": "in.>", "dest": "out.>" }, { "src": "keep.>", "dest": "" }]
            } }),
            read: &[("out.>", 2), ("keep.x", 1)],
            refused: &["in.>"],
        },
        Case {
            stream: json!({
                "sources": [{ "name": "BASE", "subject_transforms": [{ "src": "in.a", "dest": "two.a" }] }],
                "subject_transform": { "src": "two.>", "dest": "three.>" },
            }),
            read: &[("three.a", 1), (">", 1)],
            refused: &["two.a", "in.a"],
        },
        Case {
            stream: json!({ "subjects": ["own"], "sources": [{ "name": "BASE", "filter_subject": "keep.>" }] }),
            read: &[("keep.>", 1), ("own", 0)],
            refused: &["in.>"],
        },
    ]
}

async fn request(client: &async_nats::Client, part: &str, body: Value) -> Value {
    let answer = client.request(format!("$JS.API.{part}"), body.to_string().into()).await.expect("it answers");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert!(answer.get("error").is_none(), "{part} {body}: {answer}");
    answer
}

async fn create(client: &async_nats::Client, name: &str, mut stream: Value) {
    stream["name"] = json!(name);
    request(client, &format!("STREAM.CREATE.{name}"), stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_reads_what_its_stream_stores() {
    for case in cases() {
        let server = Server::start().await;
        let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.expect("the server runs");
        create(&client, "BASE", json!({ "subjects": ["base"] })).await;
        // A stream that takes from another one gets its own.
        let listens = case.stream.get("subject_transform").is_some() && case.stream.get("sources").is_none();
        if !listens {
            request(&client, "STREAM.UPDATE.BASE", json!({ "name": "BASE", "subjects": ["in.>", "keep.>"] })).await;
        }
        create(&client, "S", case.stream.clone()).await;
        for (n, subject) in (1..).zip(PUBLISHED) {
            client.publish(subject, format!("{n}").into()).await.expect("it is connected");
        }
        client.flush().await.expect("it is connected");
        let all = case.read.iter().map(|(_, count)| *count).max().unwrap_or_default();
        eventually("the stream has them", async || {
            let info = request(&client, "STREAM.INFO.S", json!({})).await;
            info["state"]["messages"].as_u64() >= u64::try_from(all).ok()
        })
        .await;
        for durable in [None, Some(("consumer.durable_name", "d"))] {
            for (subject, count) in case.read {
                let mut pairs = vec![("stream", "S"), ("subject", *subject)];
                pairs.extend(durable);
                let options = options(server.port, &pairs);
                let mut table = Table::create(&options).await;
                table.read_rows_committing(*count).await;
                let control = table.reader.control();
                eventually("nothing is left", async || control.is_through(table.position).await || *count == 0).await;
                assert_eq!(table.rows.len(), *count, "{subject} of {}", case.stream);
                table.group.stop().await;
            }
        }
        for subject in case.refused {
            let options = options(server.port, &[("stream", "S"), ("subject", subject)]);
            let error = preflight(&options, OWNER).await.expect_err(subject);
            assert!(matches!(error, Error::NoSubject { .. }), "{subject} of {}: {error}", case.stream);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_earlier_configuration_are_read() {
    let server = Server::start().await;
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.expect("the server runs");
    create(&client, "S", json!({ "subjects": ["old.>"] })).await;
    request(&client, "STREAM.INFO.S", json!({})).await;
    let js = server.jetstream().await;
    js.publish("old.1", "1".into()).await.expect("it is connected").await.expect("it is stored");

    let pairs = |on_gap: &str| {
        let url = format!("127.0.0.1:{}", server.port);
        let pairs =
            [("connector", "nats"), ("server_url", &url), ("stream", "S"), ("subject", "old.>"), ("on_gap", on_gap)];
        let options = pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        Source { options: options.collect::<BTreeMap<_, _>>(), encode: Encode::Json }
    };
    let options = options(server.port, &[("stream", "S"), ("subject", "old.>")]);
    let Preflight { splits, notices, .. } = preflight(&options, OWNER).await.expect("it stores them");
    assert!(notices.is_empty(), "{notices:?}");
    request(&client, "STREAM.UPDATE.S", json!({ "name": "S", "subjects": ["new.>"] })).await;
    js.publish("new.1", "2".into()).await.expect("it is connected").await.expect("it is stored");

    let Preflight { notices, .. } = preflight(&options, OWNER).await.expect("there are such messages");
    assert!(notices.iter().any(|notice| notice.contains("no further ones")), "{notices:?}");
    let mut table = Table::create(&options).await;
    table.read_rows(1).await;
    table.assert_rows(1..=1);
    // Another option is altered, whatever became of the stream's subjects.
    js.get_stream("S").await.expect("it is there").purge().await.expect("purging works");
    let error = preflight(&options, OWNER).await.expect_err("nothing of it is left");
    assert!(matches!(error, Error::NoSubject { .. }), "{error}");
    let (before, after) = (pairs("skip"), pairs("fail"));
    let altered = Altered { before: &before, after: &after, splits: &splits };
    altered.preflight(OWNER).await.expect("what is read stays the same");
}

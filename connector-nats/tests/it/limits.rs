//! Limits of the server, the account and the stream: EXPLAIN CREATE knows them, and CREATE says
//! which one is in the way.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, ConsumerLimits, RetentionPolicy, Stream};
use serde_json::json;
use weir_common::error::{Kind, chain};
use weir_connector_nats::error::Error;
use weir_connector_nats::inspect::{Finding, Severity, inspect};
use weir_connector_nats::limits::{Excess, Limit, Whose};
use weir_connector_nats::preflight;

use crate::support::{OWNER, Operator, Server, Table, context, create_stream, options, publish};

type Pairs<'a> = &'a [(&'a str, &'a str)];

const DURABLE: (&str, &str) = ("consumer.durable_name", "d");
const RETENTIONS: [RetentionPolicy; 3] =
    [RetentionPolicy::Limits, RetentionPolicy::WorkQueue, RetentionPolicy::Interest];

fn config(retention: RetentionPolicy) -> Config {
    Config { name: "events".to_owned(), subjects: vec!["events.>".to_owned()], retention, ..Config::default() }
}

/// The one limit that both EXPLAIN and CREATE find in the way, in the same words.
async fn refused(port: u16, pairs: Pairs<'_>) -> Excess {
    let options = options(port, pairs);
    let findings = inspect(&options, OWNER, true).await;
    let errors: Vec<&Finding> = findings.iter().filter(|found| found.severity == Severity::Error).collect();
    let excess = match preflight(&options, OWNER).await {
        Err(Error::Limit(excess)) => excess,
        other => panic!("{pairs:?}: {other:?}, {findings:?}"),
    };
    assert_eq!(errors.len(), 1, "{pairs:?}: {findings:?}");
    assert_eq!(errors[0].hint, Some(excess.hint()));
    // Sizes of requests differ by the lengths of names.
    assert!(errors[0].finding == excess.to_string() || excess.limit == Limit::Payload, "{}", errors[0].finding);
    excess
}

async fn allowed(port: u16, pairs: Pairs<'_>) -> Vec<Finding> {
    let options = options(port, pairs);
    let findings = inspect(&options, OWNER, true).await;
    assert!(findings.iter().all(|found| found.severity != Severity::Error), "{pairs:?}: {findings:?}");
    let mut table = Table::create(&options).await;
    table.read_rows_committing(10).await;
    table.group.stop().await;
    findings
}

async fn consumers(stream: &Stream) -> usize {
    stream.get_info().await.expect("it is there").state.consumer_count
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_the_server_are_found_without_making_a_consumer() {
    let limits = "jetstream { store_dir: STORE, limits { max_ack_pending: 100, max_request_batch: 50 } }";
    for retention in RETENTIONS {
        let server = Server::start_with(limits).await;
        let js = server.jetstream().await;
        let stream = js.create_stream(config(retention)).await.expect("the stream can be created");
        let pending = refused(server.port, &[DURABLE]).await;
        assert_eq!((pending.limit, &pending.whose, pending.allowed), (Limit::AckPending, &Whose::Server, Some(100)));
        assert!(pending.hint().contains("consumer.max_ack_pending to 100") && pending.hint().contains("server"));
        const WINDOW: (&str, &str) = ("consumer.max_ack_pending", "100");
        let batch = refused(server.port, &[DURABLE, WINDOW, ("consumer.max_batch", "1000")]).await;
        assert_eq!((batch.limit, &batch.whose, batch.allowed), (Limit::RequestBatch, &Whose::Server, Some(50)));
        assert!(batch.hint().contains("consumer.max_batch to 50") && batch.hint().contains("max_request_batch"));
        assert_eq!(consumers(&stream).await, 0, "{retention:?}");
        let table = options(server.port, &[DURABLE, WINDOW]);
        preflight(&table, OWNER).await.expect("it fits");
        publish(&js, 1, 10).await;
        allowed(server.port, &[DURABLE, WINDOW]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_an_account_are_told_apart_from_the_streams() {
    let server = Server::start_with(
        "jetstream { store_dir: STORE }\n\
         accounts { A { jetstream { max_consumers: 2, max_ack_pending: 100, max_streams: 1 }, users: [ { user: a, password: pw } ] } }\n\
         no_auth_user: a",
    )
    .await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 10).await;
    let pending = refused(server.port, &[DURABLE]).await;
    assert_eq!((pending.limit, &pending.whose, pending.allowed), (Limit::AckPending, &Whose::Account, Some(100)));
    allowed(server.port, &[DURABLE, ("consumer.max_ack_pending", "100")]).await;

    let splits = [("subject", "events.0,events.1,events.2"), ("split_by_subject", "true")];
    // One is the durable of before.
    let number = refused(server.port, &splits).await;
    assert_eq!((number.limit, number.allowed, number.needed), (Limit::Consumers { present: Some(1) }, Some(2), 3));
    assert!(number.whose == Whose::Account && number.hint().contains("max_consumers of the account"));
    let theirs = pull::Config { durable_name: Some("theirs".to_owned()), ..Default::default() };
    stream.create_consumer(theirs).await.expect("it fits");
    assert_eq!(refused(server.port, &[]).await.limit, Limit::Consumers { present: Some(2) });
    stream.delete_consumer("theirs").await.expect("it is there");
    let findings = allowed(server.port, &[]).await;
    let tight =
        |found: &Finding| found.severity == Severity::Warning && found.finding.contains("further consumers fit");
    assert!(findings.iter().any(tight), "{findings:?}");

    let created =
        refused(server.port, &[("stream", "other"), ("subject", "other.>"), ("allow_create_stream", "true")]).await;
    assert_eq!((created.limit, created.whose), (Limit::Streams, Whose::Account));
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_a_stream_name_it() {
    for retention in RETENTIONS {
        let server = Server::start().await;
        let js = server.jetstream().await;
        let consumer_limits = Some(ConsumerLimits { max_ack_pending: 80, inactive_threshold: Duration::from_secs(20) });
        let limited = Config { max_consumers: 2, consumer_limits, ..config(retention) };
        let stream = js.create_stream(limited).await.expect("the stream can be created");
        for (pairs, limit, allowed) in [
            (&[DURABLE, ("consumer.max_ack_pending", "100")][..], Limit::AckPending, 80),
            (&[DURABLE, ("consumer.inactive_threshold.sec", "60")], Limit::InactiveThreshold, 20_000_000_000),
        ] {
            let excess = refused(server.port, pairs).await;
            assert_eq!((excess.limit, excess.allowed), (limit, Some(allowed)), "{retention:?}");
            assert_eq!(excess.whose, Whose::Stream("events".to_owned()));
            assert!(excess.hint().contains(pairs[1].0.trim_end_matches(".sec")), "{}", excess.hint());
        }
        let replicas = refused(server.port, &[DURABLE, ("consumer.num_replicas", "3")]).await;
        assert_eq!((replicas.allowed, replicas.needed), (Some(1), 3));
        assert!(replicas.hint().contains("consumer.num_replicas"));
        assert_eq!(consumers(&stream).await, 0, "{retention:?}");
        let findings = inspect(&options(server.port, &[DURABLE]), OWNER, true).await;
        let forgotten = |found: &Finding| found.finding.contains("consumer_limits.inactive_threshold");
        assert_eq!(findings.iter().any(forgotten), retention == RetentionPolicy::Interest, "{findings:?}");

        for name in ["other", "another"] {
            let durable_name = Some(name.to_owned());
            let theirs = pull::Config { durable_name, filter_subject: format!("events.{name}"), ..Default::default() };
            stream.create_consumer(theirs).await.expect("it fits");
        }
        let pairs = [("subject", "events.0"), DURABLE];
        let number = refused(server.port, &pairs).await;
        assert_eq!(number.limit, Limit::Consumers { present: Some(2) }, "{retention:?}");
        assert_eq!(number.whose, Whose::Stream("events".to_owned()));
        assert_eq!(consumers(&stream).await, 2, "{retention:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_created_stream_would_exceed_is_found_before_it_is_created() {
    for (limits, pairs, limit) in [
        ("", &[("consumer.num_replicas", "3")][..], Limit::Replicas),
        ("max_bytes: true", &[], Limit::Storage),
        ("max_file: 0", &[], Limit::Storage),
    ] {
        let server = Server::start_with(&format!(
            "jetstream {{ store_dir: STORE }}\n\
             accounts {{ A {{ jetstream {{ max_mem: 1MB, {limits} }}, users: [ {{ user: a, password: pw }} ] }} }}\n\
             no_auth_user: a"
        ))
        .await;
        let mut all = vec![("allow_create_stream", "true"), DURABLE];
        all.extend(pairs);
        assert_eq!(refused(server.port, &all).await.limit, limit, "{limits}");
        let js = server.jetstream().await;
        assert!(js.get_stream("events").await.is_err(), "{limits}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_a_connection_are_told() {
    let server = Server::start_with("jetstream { store_dir: STORE }\nmax_payload: 600\nmax_subscriptions: 2").await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 10).await;
    allowed(server.port, &[]).await;
    let subjects: Vec<String> = (0..30).map(|n| format!("events.number{n}")).collect();
    let long = subjects.join(",");
    let payload = refused(server.port, &[("subject", long.as_str()), DURABLE]).await;
    assert_eq!((payload.limit, payload.whose, payload.allowed), (Limit::Payload, Whose::Server, Some(600)));
    assert_eq!(consumers(&stream).await, 0);

    let server = Server::start_with("jetstream { store_dir: STORE }\nmax_subscriptions: 1").await;
    create_stream(&server.jetstream().await).await;
    assert_eq!(refused(server.port, &[]).await.limit, Limit::Subscriptions);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_ask_for_the_accounts_limits_reads_all_the_same() {
    let server = Server::start_with(
        "jetstream { store_dir: STORE, limits { max_ack_pending: 100 } }\n\
         authorization { users: [ { user: u, password: pw, permissions: { publish: { deny: \"$JS.API.INFO\" } } } ] }\n\
         no_auth_user: u",
    )
    .await;
    let js = server.jetstream().await;
    create_stream(&js).await;
    publish(&js, 1, 10).await;
    let unknown = refused(server.port, &[DURABLE]).await;
    assert_eq!((unknown.limit, unknown.whose, unknown.allowed), (Limit::AckPending, Whose::Unknown, Some(100)));
    let findings = allowed(server.port, &[DURABLE, ("consumer.max_ack_pending", "100")]).await;
    let told = |found: &Finding| found.topic == "limits" && found.finding.contains("not known");
    assert!(findings.iter().any(told), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_all_the_connections_that_it_takes_says_so() {
    for limits in [
        "jetstream { store_dir: STORE }\nmax_connections: 1",
        "jetstream { store_dir: STORE }\naccounts { A { jetstream: enabled, limits { max_connections: 1 }, users: [ { user: a, password: pw } ] } }\nno_auth_user: a",
    ] {
        let server = Server::start_with(limits).await;
        let js = server.jetstream().await;
        create_stream(&js).await;
        let options = options(server.port, &[]);
        let error = preflight(&options, OWNER).await.expect_err("there is no place left");
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(chain(&error).contains("connections exceeded"), "{}", chain(&error));
        assert!(error.hint().is_some_and(|hint| hint.contains("max_connections")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_a_token_hold_for_all_streams_or_by_tiers() {
    let limits =
        json!({ "mem_storage": -1, "disk_storage": 1 << 30, "streams": 1, "consumer": 1, "max_ack_pending": 100 });
    for jetstream in [limits.clone(), json!({ "tiered_limits": { "R1": limits.clone(), "R3": limits } })] {
        let operator = Operator::limited(jetstream.clone());
        let server = Server::start_with(&operator.configuration).await;
        let client = async_nats::ConnectOptions::with_credentials(&operator.creds()).expect("they are well-formed");
        let client = client.connect(format!("127.0.0.1:{}", server.port)).await.expect("the server runs");
        let js = context(client);
        let stream = create_stream(&js).await;
        publish(&js, 1, 10).await;
        let creds = operator.creds();
        let login = [("connect_mode", "creds"), ("creds", creds.as_str())];
        let with = |more: Pairs<'static>| [&login[..], more].concat();
        let pending = refused(server.port, &with(&[DURABLE])).await;
        assert_eq!((pending.limit, &pending.whose, pending.allowed), (Limit::AckPending, &Whose::Account, Some(100)));
        let created = &[("stream", "other"), ("subject", "other.>"), ("allow_create_stream", "true")];
        assert_eq!(refused(server.port, &with(created)).await.limit, Limit::Streams, "{jetstream}");
        allowed(server.port, &with(&[DURABLE, ("consumer.max_ack_pending", "100")])).await;
        assert_eq!(consumers(&stream).await, 1);
        let number = refused(server.port, &login).await;
        assert_eq!((number.limit, number.allowed), (Limit::Consumers { present: Some(1) }, Some(1)), "{jetstream}");
        assert_eq!(number.whose, Whose::Account);
    }
}

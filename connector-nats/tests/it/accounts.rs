//! JetStream of another account: what was not imported is found by CREATE, and acknowledgements that stop to arrive are noticed.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use async_nats::jetstream::{self, stream};
use weir_common::condition::SplitState;
use weir_connector_nats::inspect::{Severity, inspect};
use weir_connector_nats::{Error, Options, preflight};

use crate::support::{OWNER, Server, Table, context, eventually, floor_reaches, options, publish};

/// Account A has JetStream, account B imports it, with or without the subjects of acknowledgements.
fn configuration(acks: bool) -> String {
    let (export, import) = match acks {
        true => (", { service: \"$JS.ACK.>\" }", ", { service: { account: A, subject: \"$JS.ACK.>\" } }"),
        false => ("", ""),
    };
    format!(
        "jetstream {{ store_dir: STORE }}\n\
         accounts {{\n\
           A {{ jetstream: enabled, users: [ {{ user: a, password: pw }} ],\n\
                exports: [ {{ service: \"$JS.API.>\", response: stream }}{export} ] }}\n\
           B {{ users: [ {{ user: b, password: pw }} ],\n\
                imports: [ {{ service: {{ account: A, subject: \"$JS.API.>\" }} }}{import} ] }}\n\
         }}"
    )
}

async fn of_a(server: &Server) -> jetstream::Context {
    let login = async_nats::ConnectOptions::with_user_and_password("a".to_owned(), "pw".to_owned());
    context(login.connect(format!("127.0.0.1:{}", server.port)).await.expect("the server runs"))
}

async fn create(js: &jetstream::Context, retention: RetentionPolicy) -> stream::Stream {
    let config =
        Config { name: "events".to_owned(), subjects: vec!["events.>".to_owned()], retention, ..Config::default() };
    js.create_stream(config).await.expect("the stream can be created")
}

fn of_b(server: &Server, pairs: &[(&str, &str)]) -> Arc<Options> {
    let mut all = vec![("connect_mode", "user_and_password"), ("username", "b"), ("password", "pw")];
    all.extend(pairs);
    options(server.port, &all)
}

async fn consumers(stream: &stream::Stream) -> usize {
    stream.get_info().await.expect("it is there").state.consumer_count
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_that_nobody_receives_are_refused() {
    const DURABLE: (&str, &str) = ("consumer.durable_name", "d");
    for retention in [RetentionPolicy::Limits, RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        let server = Server::start_with(&configuration(false)).await;
        let js = of_a(&server).await;
        let stream = create(&js, retention).await;
        let options = of_b(&server, &[DURABLE]);
        for found in [false, true] {
            if found {
                let config = jetstream::consumer::pull::Config {
                    durable_name: Some("d".to_owned()),
                    filter_subject: "events.>".to_owned(),
                    ..Default::default()
                };
                stream.create_consumer(config).await.expect("it can be created");
            }
            let findings = inspect(&options, OWNER, true).await;
            let named = findings.iter().find(|finding| finding.topic == "acknowledgements");
            assert!(named.is_some_and(|finding| finding.severity == Severity::Error), "{retention:?}: {findings:?}");
            let error = preflight(&options, OWNER).await.expect_err("nobody receives them");
            assert!(matches!(error, Error::AcksUnheard { .. }), "{retention:?}: {error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("$JS.ACK.>")));
            assert_eq!(consumers(&stream).await, usize::from(found), "nothing is left behind");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_acknowledges_nothing_needs_no_acknowledgements() {
    let server = Server::start_with(&configuration(false)).await;
    let js = of_a(&server).await;
    create(&js, RetentionPolicy::Limits).await;
    publish(&js, 1, 10).await;
    for pairs in [&[][..], &[("consumer.durable_name", "d"), ("consumer.ack_policy", "none")]] {
        let options = of_b(&server, pairs);
        let findings = inspect(&options, OWNER, true).await;
        assert!(findings.iter().all(|finding| finding.severity != Severity::Error), "{findings:?}");
        let mut table = Table::create(&options).await;
        table.read_rows_committing(10).await;
        table.assert_rows(1..=10);
        table.group.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_that_stop_to_arrive_are_a_state() {
    for retention in [RetentionPolicy::Limits, RetentionPolicy::WorkQueue] {
        let mut server = Server::start_with(&configuration(true)).await;
        let js = of_a(&server).await;
        let stream = create(&js, retention).await;
        publish(&js, 1, 10).await;
        let options = of_b(&server, &[("consumer.durable_name", "d"), ("consumer.max_ack_pending", "20")]);
        let findings = inspect(&options, OWNER, true).await;
        assert!(findings.iter().all(|finding| finding.severity != Severity::Error), "{findings:?}");
        let mut table = Table::create(&options).await;
        table.read_rows_committing(10).await;
        floor_reaches(&stream, "d", 10).await;
        let control = table.reader.control();
        assert_eq!(control.condition().state, SplitState::Reading);

        server.configure(&configuration(false));
        server.kill();
        server.restart().await;
        publish(&of_a(&server).await, 11, 10).await;
        table.read_rows_committing(20).await;
        eventually("it is told that acknowledgements do not arrive", async || {
            table.commit();
            control.condition().state == SplitState::Stalled
        })
        .await;
        let reason = control.condition().reason().unwrap_or_default();
        assert!(reason.contains("acknowledgements") && reason.contains("$JS.ACK.>"), "{reason}");

        server.configure(&configuration(true));
        server.kill();
        server.restart().await;
        publish(&of_a(&server).await, 21, 10).await;
        table.read_rows_committing(30).await;
        table.assert_rows(1..=30);
        floor_reaches(&of_a(&server).await.get_stream("events").await.expect("it is there"), "d", 30).await;
        eventually("all is well", async || control.condition().state == SplitState::Reading).await;
        tokio::time::timeout(Duration::from_secs(10), table.group.stop()).await.expect("the reader stops");
    }
}

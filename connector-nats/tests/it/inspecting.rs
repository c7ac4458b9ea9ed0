//! What EXPLAIN CREATE says, as far as it takes permissions and failures to show it.

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use futures::StreamExt;
use weir_common::ids::SplitId;
use weir_connector_nats::inspect::{Finding, Severity, inspect};
use weir_connector_nats::{preflight, remove_consumers};

use crate::support::{DEADLINE, OWNER, Server, Table, context, create_stream, free_port, options, publish};

async fn found(port: u16, pairs: &[(&str, &str)]) -> Vec<Finding> {
    inspect(&options(port, pairs), OWNER, true).await
}

fn errors(findings: &[Finding]) -> Vec<(&str, &str)> {
    let errors = findings.iter().filter(|found| found.severity == Severity::Error);
    errors.map(|found| (found.topic, found.finding.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_permission_is_named() {
    let server = Server::start_with(
        r#"jetstream { store_dir: STORE }
        authorization { users: [
            { user: admin, password: pw }
            { user: guest, password: pw, permissions: { publish: { deny: [
                "$JS.API.CONSUMER.DELETE.>", "$JS.API.CONSUMER.MSG.NEXT.>"
            ] } } }
        ] }"#,
    )
    .await;
    let as_user = |user: &'static str| [("connect_mode", "user_and_password"), ("username", user), ("password", "pw")];
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), "pw".to_owned());
    let client = admin.connect(format!("127.0.0.1:{}", server.port)).await.expect("the server runs");
    let stream = create_stream(&context(client)).await;
    assert_eq!(errors(&found(server.port, &as_user("admin")).await), []);
    let findings = found(server.port, &as_user("guest")).await;
    let denied = errors(&findings);
    assert_eq!(denied.len(), 2, "{denied:?}");
    for (part, (topic, finding)) in ["CONSUMER.DELETE", "CONSUMER.MSG.NEXT"].into_iter().zip(denied) {
        assert!(topic == "permission" && finding.contains(part), "{topic}: {finding}");
    }
    let info = stream.get_info().await.expect("the stream is there");
    assert_eq!(info.state.consumer_count, 0, "nothing is made");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interest_stream_needs_permissions_to_reset() {
    let server = Server::start_with(
        r#"jetstream { store_dir: STORE }
        authorization { users: [
            { user: admin, password: pw }
            { user: guest, password: pw, permissions: { publish: { deny: [
                "$JS.API.CONSUMER.RESET.>", "$JS.API.CONSUMER.UNPIN.>"
            ] } } }
        ] }"#,
    )
    .await;
    let as_user = |user: &'static str| [("connect_mode", "user_and_password"), ("username", user), ("password", "pw")];
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), "pw".to_owned());
    let client = admin.connect(format!("127.0.0.1:{}", server.port)).await.expect("the server runs");
    let config = async_nats::jetstream::stream::Config {
        name: "events".to_owned(),
        subjects: vec!["events.>".to_owned()],
        retention: async_nats::jetstream::stream::RetentionPolicy::Interest,
        ..Default::default()
    };
    let stream = context(client.clone()).create_stream(config).await.expect("it can be created");
    assert_eq!(errors(&found(server.port, &as_user("admin")).await), []);
    let findings = found(server.port, &as_user("guest")).await;
    let denied: Vec<_> = errors(&findings).into_iter().map(|error| error.1).collect();
    let created = preflight(&options(server.port, &as_user("guest")), OWNER).await;
    if client.server_info().version.starts_with("2.10.") {
        // It cannot reset, and so nobody has to be permitted to.
        assert!(denied.is_empty() && created.is_ok(), "{denied:?}, {created:?}");
        return;
    }
    assert!(
        denied.len() == 2 && denied[0].contains("CONSUMER.UNPIN") && denied[1].contains("CONSUMER.RESET"),
        "{denied:?}"
    );
    let refused = created.expect_err("it could not be read").to_string();
    assert!(refused.contains("CONSUMER.UNPIN"), "{refused}");
    assert_eq!(stream.get_info().await.expect("it is there").state.consumer_count, 0, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_one_finding() {
    let nobody = found(free_port(), &[]).await;
    assert_eq!(nobody.len(), 1, "{nobody:?}");
    assert_eq!((nobody[0].topic, nobody[0].severity), ("connection", Severity::Error));
    assert!(nobody[0].hint.is_some());
    let server = Server::start().await;
    let missing = found(server.port, &[]).await;
    assert!(errors(&missing)[0].1.contains("allow_create_stream"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_create_would_refuse_of_a_stream_is_an_error_here_too() {
    let server = Server::start().await;
    let config = async_nats::jetstream::stream::Config {
        name: "events".to_owned(),
        subjects: vec!["events.>".to_owned()],
        retention: async_nats::jetstream::stream::RetentionPolicy::Interest,
        ..Default::default()
    };
    let stream = server.jetstream().await.create_stream(config).await.expect("the stream can be created");
    let allowed = found(server.port, &[]).await;
    assert_eq!(errors(&allowed), []);
    let durable = |found: &&Finding| found.topic == "consumer" && found.finding.contains("weir-test-events_table");
    assert!(allowed.iter().any(|found| durable(&found)), "{allowed:?}");
    let theirs = async_nats::jetstream::consumer::pull::Config {
        durable_name: Some("theirs".to_owned()),
        filter_subject: "events.>".to_owned(),
        ..Default::default()
    };
    stream.create_consumer(theirs).await.expect("the consumer can be created");
    for (name, leave) in [("ours", server.can_reset().await), ("theirs", false)] {
        let pairs = [("consumer.durable_name", name), ("allow_interest_stream", "false")];
        let without = found(server.port, &pairs).await;
        let refused: Vec<_> = errors(&without).into_iter().map(|error| error.1).collect();
        // nats-server 2.10 loses nothing.
        let expected = usize::from(!leave && !server.is_oldest().await);
        assert_eq!(refused.len(), expected, "{name}: {refused:?}");
        assert!(refused.iter().all(|error| error.contains("allow_interest_stream")), "{refused:?}");
    }
    let all = found(server.port, &[("consumer.ack_policy", "all")]).await;
    assert!(errors(&all)[0].1.contains("consumer.ack_policy"), "{all:?}");
    let source = inspect(&options(server.port, &[]), OWNER, false).await;
    assert_eq!(errors(&source), []);
    let told = |found: &Finding| found.severity == Severity::Warning && found.finding.contains("in the views");
    assert!(source.iter().any(told), "{source:?}");
}

const DURABLE: (&str, &str) = ("consumer.durable_name", "mine");

#[tokio::test(flavor = "multi_thread")]
async fn the_server_has_nothing_to_warn_of() {
    for retention in [RetentionPolicy::Limits, RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        for pairs in [&[][..], &[DURABLE], &[("subject", "events.1,events.2"), DURABLE]] {
            let server = Server::start().await;
            let js = server.jetstream().await;
            let config = Config {
                name: "events".to_owned(),
                subjects: vec!["events.>".to_owned()],
                retention,
                ..Config::default()
            };
            js.create_stream(config).await.expect("the stream can be created");
            let before = server.faults();
            assert_eq!(errors(&found(server.port, pairs).await), []);
            let options = options(server.port, pairs);
            let mut table = Table::create(&options).await;
            publish(&js, 1, 20).await;
            table.read_rows_committing(if pairs.len() == 2 { 4 } else { 20 }).await;
            found(server.port, pairs).await;
            table.group.stop().await;
            remove_consumers(&options, &SplitId("events".to_owned()), OWNER).await.expect("the server answers");
            assert_eq!(server.faults(), before, "{retention:?}, {pairs:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_consumer_of_a_work_queue_is_named() {
    let server = Server::start().await;
    let config = Config {
        name: "events".to_owned(),
        subjects: vec!["events.>".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    let stream = server.jetstream().await.create_stream(config).await.expect("the stream can be created");
    let theirs = async_nats::jetstream::consumer::pull::Config {
        durable_name: Some("theirs".to_owned()),
        filter_subject: "events.a.*".to_owned(),
        ..Default::default()
    };
    stream.create_consumer(theirs).await.expect("the consumer can be created");
    for (subject, overlaps) in
        [("events.>", true), ("events.*.b", true), ("events.b,events.a.c", true), ("events.b.>", false)]
    {
        let pairs = [("subject", subject)];
        let findings = found(server.port, &pairs).await;
        let created = preflight(&options(server.port, &pairs), OWNER).await;
        let expected: Vec<_> = created.err().iter().map(|error| ("consumer", error.to_string())).collect();
        let told: Vec<_> = errors(&findings).into_iter().map(|(topic, told)| (topic, told.to_owned())).collect();
        assert_eq!((told.len(), &told), (usize::from(overlaps), &expected), "{subject}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_there_stays_as_it_is() {
    for retention in [RetentionPolicy::Limits, RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        let server = Server::start().await;
        let js = server.jetstream().await;
        let config =
            Config { name: "events".to_owned(), subjects: vec!["events.>".to_owned()], retention, ..Config::default() };
        let stream = js.create_stream(config).await.expect("the stream can be created");
        let config = async_nats::jetstream::consumer::pull::Config {
            durable_name: Some("mine".to_owned()),
            filter_subject: "events.>".to_owned(),
            ..Default::default()
        };
        let theirs = stream.create_consumer(config).await.expect("the consumer can be created");
        publish(&js, 1, 10).await;
        let mut held = theirs.batch().max_messages(5).expires(DEADLINE).messages().await.expect("it can be asked");
        let first = held.next().await.expect("there are some").expect("it is a message");
        first.double_ack().await.expect("the server knows of it");
        while held.next().await.is_some() {}
        let before = stream.consumer_info("mine").await.expect("it is there");
        found(server.port, &[DURABLE]).await;
        let after = stream.consumer_info("mine").await.expect("it is there");
        let state = |info: &async_nats::jetstream::consumer::Info| {
            let delivered = (info.delivered.consumer_sequence, info.delivered.stream_sequence);
            (info.created, info.config.clone(), delivered, info.ack_floor.stream_sequence, info.num_ack_pending)
        };
        assert_eq!(state(&after), state(&before), "{retention:?}");
        assert_eq!(stream.get_info().await.expect("it is there").state.consumer_count, 1, "{retention:?}");
    }
}

//! What CREATE TABLE finds out, and what it says when it cannot go on.

use std::time::Duration;

use async_nats::jetstream::{self, consumer};
use weir_common::error::Kind;
use weir_common::ids::Sequence;
use weir_connector_nats::{Error, preflight};

use crate::support::{OWNER, Operator, Server, Table, context, create_stream, free_port, options, publish};

async fn start_of(port: u16, pairs: &[(&str, &str)]) -> Sequence {
    preflight(&options(port, pairs), OWNER).await.expect("the table can be created").splits[0].sequence
}

async fn refusal(port: u16, pairs: &[(&str, &str)]) -> Error {
    preflight(&options(port, pairs), OWNER).await.expect_err("the table cannot be created")
}

#[tokio::test(flavor = "multi_thread")]
async fn start_modes_are_resolved_to_sequences() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let mut stream = create_stream(&js).await;
    assert_eq!(start_of(server.port, &[]).await, Sequence(1), "empty");
    assert_eq!(start_of(server.port, &[("scan.startup.mode", "latest")]).await, Sequence(1), "empty");
    publish(&js, 1, 5).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let between = chrono_millis();
    tokio::time::sleep(Duration::from_millis(20)).await;
    publish(&js, 6, 5).await;
    assert_eq!(start_of(server.port, &[]).await, Sequence(1));
    assert_eq!(start_of(server.port, &[("scan.startup.mode", "latest")]).await, Sequence(11));
    assert_eq!(start_of(server.port, &[("consumer.deliver_policy", "new")]).await, Sequence(11));
    let at = |millis: u64| {
        let millis = millis.to_string();
        let port = server.port;
        async move {
            let pairs = [("scan.startup.mode", "timestamp"), ("scan.startup.timestamp.millis", millis.as_str())];
            start_of(port, &pairs).await
        }
    };
    assert_eq!(at(between).await, Sequence(6));
    assert_eq!(at(0).await, Sequence(1));
    assert_eq!(at(between + 3_600_000).await, Sequence(11));
    stream.purge().sequence(4).await.expect("purging works");
    assert_eq!(start_of(server.port, &[]).await, Sequence(4));
    stream.purge().await.expect("purging works");
    assert_eq!(start_of(server.port, &[]).await, Sequence(11));
    assert_eq!(stream.info().await.expect("it is there").state.consumer_count, 0, "nothing is left behind");
}

fn chrono_millis() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is past 1970");
    u64::try_from(now.as_millis()).expect("it is not that late")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_stream_is_created_only_if_allowed() {
    let server = Server::start().await;
    let error = refusal(server.port, &[]).await;
    assert!(matches!(error, Error::NoStream { .. }), "{error}");
    assert_eq!(error.kind(), Kind::User);
    assert!(error.to_string().contains("set `allow_create_stream` to true to create a stream"), "{error}");
    let allowed = options(server.port, &[("allow_create_stream", "true")]);
    let found = preflight(&allowed, OWNER).await.expect("the stream is created");
    assert_eq!(found.splits[0].split.0, "events");
    assert!(found.notices[0].contains("created stream"), "{:?}", found.notices);
    let again = preflight(&allowed, OWNER).await.expect("the stream is there");
    assert!(again.notices.is_empty(), "{:?}", again.notices);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_apart() {
    let unreachable = refusal(free_port(), &[]).await;
    assert!(matches!(unreachable, Error::Unreachable { .. }), "{unreachable}");
    assert_eq!(unreachable.kind(), Kind::Unavailable);

    let server = Server::start_with(
        r#"jetstream { store_dir: STORE }
        authorization { users: [
            { user: admin, password: pw }
            { user: blind, password: pw, permissions: { publish: { deny: "$JS.API.STREAM.INFO.>" } } }
            { user: guest, password: pw, permissions: { publish: { deny: "$JS.API.CONSUMER.DELETE.>" } } }
        ] }"#,
    )
    .await;
    let as_user = |user: &'static str, password: &'static str| {
        let port = server.port;
        async move {
            let login = [("connect_mode", "user_and_password"), ("username", user), ("password", password)];
            refusal(port, &login).await
        }
    };
    for error in [refusal(server.port, &[]).await, as_user("admin", "wrong").await] {
        assert!(matches!(error, Error::Credentials { .. }), "{error}");
        assert_eq!(error.kind(), Kind::User);
    }
    assert!(matches!(as_user("admin", "pw").await, Error::NoStream { .. }));
    let denied = as_user("blind", "pw").await;
    assert!(matches!(denied, Error::Denied { .. }), "{denied}");
    assert_eq!(denied.kind(), Kind::User);
    assert!(denied.to_string().contains("$JS.API.STREAM.INFO.events"), "{denied}");

    let js = login(&server, "admin").await;
    create_stream(&js).await;
    let denied = as_user("guest", "pw").await;
    assert!(matches!(denied, Error::Denied { .. }), "{denied}");
    assert!(denied.to_string().contains("to delete consumer"), "{denied}");

    let plain = Server::start_with("").await;
    let error = refusal(plain.port, &[]).await;
    assert!(matches!(error, Error::NoJetStream), "{error}");
}

async fn login(server: &Server, user: &str) -> jetstream::Context {
    let client = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), "pw".to_owned())
        .connect(format!("127.0.0.1:{}", server.port))
        .await
        .expect("the server runs");
    context(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_does_not_hang_the_statement() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("there are free ports");
    let port = listener.local_addr().expect("it is bound").port();
    let error = refusal(port, &[]).await;
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_that_the_stream_never_holds_are_refused() {
    let server = Server::start().await;
    create_stream(&server.jetstream().await).await;
    let error = refusal(server.port, &[("subject", "events.a,orders.b")]).await;
    assert!(matches!(&error, Error::NoSubject { subject, .. } if subject == "orders.b"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("events.>")));
    start_of(server.port, &[("subject", "events.a,events.b")]).await;
    start_of(server.port, &[("subject", ">")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_example_of_the_reference_is_accepted_by_the_server() {
    let server =
        Server::start_with("jetstream { store_dir: STORE }\nauthorization { users: [ { user: u, password: p } ] }")
            .await;
    let options = options(
        server.port,
        &[
            ("subject", "risingwave.test.source"),
            ("stream", "risingwave-test-source"),
            ("allow_create_stream", "true"),
            ("scan.startup.mode", "earliest"),
            ("connect_mode", "user_and_password"),
            ("username", "u"),
            ("password", "p"),
            ("consumer.durable_name", "risingwave-test-source"),
            ("consumer.description", "desc-test-source"),
            ("consumer.ack_policy", "all"),
            ("consumer.ack_wait", "10"),
            ("consumer.max_deliver", "10"),
            ("consumer.filter_subjects", "demo.subject.filter.1,demo.subject.filter.2"),
            ("consumer.replay_policy", "instant"),
            ("consumer.rate_limit", "100000000000"),
            ("consumer.sample_frequency", "100"),
            ("consumer.max_waiting", "10"),
            ("consumer.max_ack_pending", "10"),
            ("consumer.max_batch", "1000"),
            ("consumer.max_bytes", "1000000000"),
            ("consumer.max_expires", "3600"),
            ("consumer.inactive_threshold", "10000000"),
            ("consumer.memory_storage", "false"),
            ("consumer.backoff", "10,30,60"),
            ("consumer.num_replicas", "1"),
        ],
    );
    let found = preflight(&options, OWNER).await.expect("the server takes it");
    assert_eq!(found.splits[0].split.0, "risingwave-test-source");
    assert_eq!(found.notices.len(), 3, "{:?}", found.notices);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_an_error_at_create() {
    let server = Server::start().await;
    create_stream(&server.jetstream().await).await;
    let error = refusal(server.port, &[("consumer.num_replicas", "3")]).await;
    assert!(matches!(error, Error::Limit(_)), "{error}");
    assert!(!error.to_string().ends_with('.'));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_durable_is_compared_and_left_alone() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 3).await;
    let config = consumer::pull::Config {
        durable_name: Some("mine".to_owned()),
        ack_policy: consumer::AckPolicy::All,
        ack_wait: Duration::from_secs(5),
        ..Default::default()
    };
    stream.create_consumer(config).await.expect("the consumer can be created");
    let before = stream.consumer_info("mine").await.expect("it is there");
    let durable = ("consumer.durable_name", "mine");
    let fits = options(server.port, &[durable, ("consumer.ack_policy", "all"), ("consumer.ack_wait", "5")]);
    let found = preflight(&fits, OWNER).await.expect("it fits");
    assert!(found.notices[0].contains("\"mine\" exists"), "{:?}", found.notices);
    let after = stream.consumer_info("mine").await.expect("it is still there");
    assert_eq!((before.created, &before.config), (after.created, &after.config));
    for (pairs, named) in [
        (vec![durable, ("consumer.ack_policy", "explicit")], "ack_policy all"),
        (vec![durable, ("consumer.ack_wait", "7")], "ack_wait 5s"),
        (vec![durable, ("subject", "events.a")], "events.a"),
    ] {
        let error = refusal(server.port, &pairs).await;
        assert!(error.to_string().contains(named) && error.kind() == Kind::User, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_its_seed_let_the_table_in() {
    let operator = Operator::new();
    let server = Server::start_with(&operator.configuration).await;
    let login = |nkey: String| {
        let pairs = [
            ("connect_mode", "credential"),
            ("jwt", operator.jwt.as_str()),
            ("nkey", nkey.as_str()),
            ("allow_create_stream", "true"),
        ];
        options(server.port, &pairs)
    };
    let good = login(operator.seed.clone());
    let mut table = Table::create(&good).await;
    let client = async_nats::ConnectOptions::with_credentials(&operator.creds())
        .expect("they are well-formed")
        .connect(format!("127.0.0.1:{}", server.port))
        .await
        .expect("the server runs");
    publish(&context(client), 1, 10).await;
    table.read_rows(10).await;
    table.assert_rows(1..=10);

    let other = Operator::new().seed;
    let refused = preflight(&login(other), OWNER).await.expect_err("it is another user's seed");
    assert!(matches!(refused, Error::Credentials { .. }), "{refused}");
    let malformed = preflight(&login("SUNONSENSE".to_owned()), OWNER).await.expect_err("it is no seed");
    assert!(matches!(malformed, Error::MalformedCredentials { .. }), "{malformed}");
}

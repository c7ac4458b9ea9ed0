//! How Weir gets in: each way to prove its identity against a server that wants it, encryption, and where JetStream's API is.

use std::sync::Arc;

use nkeys::KeyPair;
use weir_common::error::{Kind, chain};
use weir_common::rpc;
use weir_connector_nats::{Error, Options, preflight};

use crate::support::{Authority, OWNER, Operator, Server, Table, context, options, publish};

/// Reads ten messages that `publisher` publishes, as the options say.
async fn reads(options: &Arc<Options>, publisher: async_nats::Client) {
    let mut table = Table::create(options).await;
    publish(&context(publisher), 1, 10).await;
    table.read_rows(10).await;
    table.assert_rows(1..=10);
}

/// Why the server does not let the table in, and the SQLSTATE by which users learn of it.
async fn refused(server: &Server, pairs: &[(&str, &str)]) -> (Error, Option<String>) {
    let options = options(server.port, pairs);
    let error = preflight(&options, OWNER).await.expect_err("the table cannot be created");
    let again = preflight(&options, OWNER).await.expect_err("nothing has changed");
    assert_eq!(chain(&error), chain(&again));
    (error, rpc::Error::from(again).sqlstate)
}

async fn assert_credentials(server: &Server, pairs: &[(&str, &str)]) {
    let (error, sqlstate) = refused(server, pairs).await;
    assert!(matches!(error, Error::Credentials { .. }) && error.kind() == Kind::User, "{pairs:?}: {error}");
    assert_eq!(sqlstate.as_deref(), Some("28000"));
}

fn url(server: &Server) -> String {
    format!("127.0.0.1:{}", server.port)
}

const CREATE: (&str, &str) = ("allow_create_stream", "true");

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in() {
    let server = Server::start_with("jetstream { store_dir: STORE }\nauthorization { token: \"s3cr3t\" }").await;
    let login = |token: &'static str| [("connect_mode", "token"), ("token", token), CREATE];
    let client = async_nats::ConnectOptions::with_token("s3cr3t".to_owned()).connect(url(&server)).await;
    reads(&options(server.port, &login("s3cr3t")), client.expect("the server runs")).await;
    assert_credentials(&server, &login("wrong")).await;
    assert_credentials(&server, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_of_an_nkey_lets_in() {
    let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
    let configuration =
        format!("jetstream {{ store_dir: STORE }}\nauthorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key());
    let server = Server::start_with(&configuration).await;
    let (seed, other) = (user.seed().expect("a seed"), other.seed().expect("a seed"));
    let client = async_nats::ConnectOptions::with_nkey(seed.clone()).connect(url(&server)).await;
    let login = |seed: &str| options(server.port, &[("connect_mode", "nkey"), ("nkey", seed), CREATE]);
    reads(&login(&seed), client.expect("the server runs")).await;
    assert_credentials(&server, &[("connect_mode", "nkey"), ("nkey", &other)]).await;
    let error = preflight(&login("SUNONSENSE"), OWNER).await.expect_err("it is no seed");
    assert!(matches!(error, Error::MalformedCredentials { option: "nkey", .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn creds_let_in_from_a_file_and_as_they_are() {
    let operator = Operator::new();
    let server = Server::start_with(&operator.configuration).await;
    let text = operator.creds();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("user.creds");
    std::fs::write(&file, &text).expect("the directory is writable");
    let path = format!("fs://{}", file.display());
    let client = async_nats::ConnectOptions::with_credentials(&text).expect("they are well-formed");
    let client = client.connect(url(&server)).await.expect("the server runs");
    for (creds, stream, subject) in [(text.as_str(), "events", "events.>"), (path.as_str(), "more", "more.>")] {
        let pairs = [("connect_mode", "creds"), ("creds", creds), CREATE, ("stream", stream), ("subject", subject)];
        preflight(&options(server.port, &pairs), OWNER).await.expect("it is let in");
    }
    reads(&options(server.port, &[("connect_mode", "creds"), ("creds", &path)]), client).await;

    assert_credentials(&server, &[("connect_mode", "creds"), ("creds", &Operator::new().creds())]).await;
    let malformed = [("connect_mode", "creds"), ("creds", "no creds at all")];
    let (error, sqlstate) = refused(&server, &malformed).await;
    assert!(matches!(error, Error::MalformedCredentials { option: "creds", .. }), "{error}");
    assert_eq!(sqlstate.as_deref(), Some("22023"));
    let absent = [("connect_mode", "creds"), ("creds", "fs:///nowhere/user.creds")];
    let (error, sqlstate) = refused(&server, &absent).await;
    assert!(chain(&error).contains("/nowhere/user.creds"), "{}", chain(&error));
    assert_eq!(sqlstate.as_deref(), Some("58P01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_creds_are_taken_at_the_next_connection() {
    let old = Operator::new();
    let mut server = Server::start_with(&old.configuration).await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("user.creds");
    std::fs::write(&file, old.creds()).expect("the directory is writable");
    let path = format!("fs://{}", file.display());
    let options = options(server.port, &[("connect_mode", "creds"), ("creds", &path), CREATE]);
    let mut table = Table::create(&options).await;
    let connect = async |operator: &Operator, server: &Server| {
        let options = async_nats::ConnectOptions::with_credentials(&operator.creds()).expect("they are well-formed");
        context(options.connect(url(server)).await.expect("the server runs"))
    };
    publish(&connect(&old, &server).await, 1, 10).await;
    table.read_rows(10).await;

    let renewed = old.renewed();
    server.kill();
    server.configure(&renewed.configuration);
    std::fs::write(&file, renewed.creds()).expect("the directory is writable");
    server.restart().await;
    publish(&connect(&renewed, &server).await, 11, 10).await;
    table.read_rows(20).await;
    table.assert_rows(1..=20);
}

async fn assert_no_tls(server: &Server, pairs: &[(&str, &str)]) {
    let (error, sqlstate) = refused(server, pairs).await;
    assert!(matches!(error, Error::Tls { .. }) && error.kind() == Kind::User, "{pairs:?}: {}", chain(&error));
    assert_eq!(sqlstate.as_deref(), Some("08001"));
    assert!(error.hint().is_some_and(|hint| hint.contains("tls.ca")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_by_its_certificate() {
    let authority = Authority::new();
    let server = authority.server("").await;
    let ca = format!("fs://{}", authority.path("ca").display());
    preflight(&options(server.port, &[("tls.ca", &ca), CREATE]), OWNER).await.expect("the server is trusted");
    let client = authority.client().connect(url(&server)).await.expect("the server runs");
    reads(&options(server.port, &[("tls.ca", &authority.ca)]), client).await;
    assert_no_tls(&server, &[]).await;
    assert_no_tls(&server, &[("tls.ca", &Authority::new().ca)]).await;
    let malformed = preflight(&options(server.port, &[("tls.ca", "trust me")]), OWNER).await.expect_err("no PEM");
    assert!(matches!(malformed, Error::MalformedCredentials { option: "tls.ca", .. }), "{malformed}");
    // A server without encryption is not spoken to where encryption is asked for.
    let plain = Server::start().await;
    let error = preflight(&options(plain.port, &[("tls.ca", &authority.ca)]), OWNER).await.expect_err("no TLS");
    assert!(matches!(error, Error::Tls { .. } | Error::Unreachable { .. }), "{}", chain(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_proves_itself_by_its_certificate() {
    let authority = Authority::new();
    let server = authority.server("verify: true").await;
    let key = format!("fs://{}", authority.path("client-key").display());
    let login =
        [("tls.ca", authority.ca.as_str()), ("tls.client_cert", &authority.client_cert), ("tls.client_key", &key)];
    let inline = [login[0], login[1], ("tls.client_key", &authority.client_key), CREATE];
    preflight(&options(server.port, &inline), OWNER).await.expect("the client is trusted");
    let cert = authority.path("client-cert");
    std::fs::write(&cert, &authority.client_cert).expect("the directory is writable");
    let client = authority.client().add_client_certificate(cert, authority.path("client-key"));
    reads(&options(server.port, &login), client.connect(url(&server)).await.expect("the server runs")).await;
    let (error, _) = refused(&server, &login[..1]).await;
    assert!(matches!(error, Error::Tls { .. } | Error::Unreachable { .. }), "{}", chain(&error));
    let another = Authority::new();
    let (error, _) = refused(&server, &[login[0], login[1], ("tls.client_key", &another.client_key)]).await;
    assert!(matches!(error, Error::MalformedCredentials { option: "tls.client_key", .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_comes_first_where_the_server_wants_it() {
    let authority = Authority::new();
    let server = authority.server("handshake_first: true").await;
    let login = [("tls.ca", authority.ca.as_str()), ("tls.first", "true"), CREATE];
    let client = authority.client().tls_first().connect(url(&server)).await.expect("the server runs");
    reads(&options(server.port, &login), client).await;
    let error = preflight(&options(server.port, &login[..1]), OWNER).await.expect_err("the server waits for it");
    assert!(matches!(error, Error::Unreachable { .. } | Error::Tls { .. }), "{}", chain(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_tried_if_one_does_not_answer() {
    let (server, dead) = (Server::start().await, crate::support::free_port());
    let servers = format!("127.0.0.1:{dead}, nats://127.0.0.1:{}", server.port);
    let client = async_nats::connect(url(&server)).await.expect("the server runs");
    reads(&options(server.port, &[("server_url", &servers), CREATE]), client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jetstream_is_found_in_its_domain() {
    let server = Server::start_with("jetstream { store_dir: STORE, domain: hub }").await;
    let client = async_nats::connect(url(&server)).await.expect("the server runs");
    reads(&options(server.port, &[("jetstream.domain", "hub"), CREATE]), client).await;
    let error = preflight(&options(server.port, &[("jetstream.domain", "elsewhere")]), OWNER).await;
    assert!(matches!(error, Err(Error::NoJetStream)), "{error:?}");
}

/// An account that has no JetStream of its own, but another account's under a prefix.
const IMPORTED: &str = r#"jetstream { store_dir: STORE }
accounts {
    OWNER: {
        jetstream: enabled
        users: [ { user: owner, password: pw } ]
        exports: [
            { service: "$JS.API.>", response_type: stream }
            { service: "$JS.ACK.>" }
        ]
    }
    GUEST: {
        users: [ { user: guest, password: pw } ]
        imports: [
            { service: { account: OWNER, subject: "$JS.API.>" }, to: "JS.owner.API.>" }
            { service: { account: OWNER, subject: "$JS.ACK.>" } }
        ]
    }
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn jetstream_of_another_account_is_read_under_its_prefix() {
    let server = Server::start_with(IMPORTED).await;
    let login = [
        ("connect_mode", "user_and_password"),
        ("username", "guest"),
        ("password", "pw"),
        ("jetstream.api_prefix", "JS.owner.API"),
        ("consumer.durable_name", "weir"),
        CREATE,
    ];
    let options = options(server.port, &login);
    let owner = async_nats::ConnectOptions::with_user_and_password("owner".to_owned(), "pw".to_owned());
    let client = owner.connect(url(&server)).await.expect("the server runs");
    let mut table = Table::create(&options).await;
    publish(&context(client.clone()), 1, 10).await;
    table.read_rows(10).await;
    table.assert_rows(1..=10);
    table.commit();
    let stream = context(client).get_stream("events").await.expect("the stream is there");
    crate::support::eventually("everything is acknowledged", async || {
        stream.consumer_info("weir").await.is_ok_and(|info| info.ack_floor.stream_sequence == 10)
    })
    .await;
}

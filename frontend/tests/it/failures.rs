//! The effects of failing nodes on clients, and of disconnecting clients on the cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::time::timeout;
use tokio_postgres::NoTls;
use weir_common::catalog::RelationName;
use weir_common::error::Kind;
use weir_frontend::Config;

use crate::cluster::{Cluster, PATIENCE, Scan, Shared, State};
use crate::statements::{add_events, db_error, rows};

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_lost_before_the_first_row_is_replaced_unseen() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10_000);
    let client = cluster.client().await;
    cluster.shared.state().scans.extend([Scan::FailAfter(0, Kind::Fenced), Scan::FailAfter(0, Kind::Unavailable)]);
    assert_eq!(rows(&client, "SELECT count(*) FROM events").await, "10000");
    // An aggregate sends nothing until it has read everything, so a later loss can be retried too.
    cluster.shared.state().scans.extend([Scan::FailAfter(2, Kind::Fenced)]);
    assert_eq!(rows(&client, "SELECT count(DISTINCT id) FROM events").await, "10000");
    cluster.until("are all pins released", |state| state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_ends_early_is_not_taken_for_complete() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10_000);
    let client = cluster.client().await;
    cluster.shared.state().scans.extend([Scan::EndAfter(0), Scan::EndAfter(2), Scan::Answer]);
    assert_eq!(rows(&client, "SELECT count(*) FROM events").await, "10000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_term_is_found_by_pinning_again() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 3_000);
    let client = cluster.client().await;
    assert_eq!(rows(&client, "SELECT count(*) FROM events").await, "3000");
    cluster.shared.state().term += 1;
    assert_eq!(rows(&client, "SELECT count(*) FROM events").await, "3000");
    let last = cluster.shared.state().scan_requests.last().cloned().expect("there were scans");
    assert_eq!(last.term.map(|term| term.term), Some(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_lost_after_a_row_fails_the_query() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 100_000);
    let client = cluster.client().await;
    // Each slot fails on its last batch but one; three more scans would answer a retry.
    cluster.shared.state().scans.extend(vec![Scan::FailAfter(30, Kind::Fenced); 3]);
    let rows = client.query_raw::<_, i64, _>("SELECT id, name FROM events", []).await.expect("begins");
    let outcomes: Vec<_> = rows.collect().await;
    let error = outcomes.last().expect("rows").as_ref().expect_err("the snapshot is lost");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "40001", "{error:?}");
    assert!(outcomes.len() > 1, "rows came before");
    assert_eq!(cluster.shared.state().scan_requests.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn trying_again_has_an_end() {
    let config = Config { retry_ms_max: 300, ..Config::default() };
    let cluster = Cluster::start_with(Shared::default(), config).await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    cluster.shared.state().scans.extend(vec![Scan::FailAfter(0, Kind::Fenced); 1000]);
    let started = Instant::now();
    assert_eq!(db_error(&client, "SELECT * FROM events").await.code().code(), "40001");
    // The error comes long before the default time is over.
    assert!(started.elapsed() < Config::default().retry_max());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_answer_is_nothing_to_try_again() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    cluster.shared.state().scans.push_back(Scan::FailAfter(0, Kind::Corrupt));
    assert_eq!(db_error(&client, "SELECT * FROM events").await.code().code(), "XX001");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_statements_that_need_none_still_run() {
    let stop = tokio_util::sync::CancellationToken::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let config = Config { meta_addrs: vec!["127.0.0.1:1".to_owned()], retry_ms_max: 300, ..Config::default() };
    let server = weir_frontend::Server::new(config).expect("a valid configuration");
    let ready = server.readiness();
    tokio::spawn(server.run(listener, stop.clone()));
    let dsn = format!("host=127.0.0.1 port={port} user=root dbname=dev");
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.expect("the frontend accepts");
    tokio::spawn(connection);
    assert_eq!(rows(&client, "SELECT 1").await, "1");
    assert_eq!(db_error(&client, "SHOW TABLES").await.code().code(), "57P03");
    assert!(ready().is_err());
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_does_not_make_a_created_table_a_duplicate() {
    let cluster = Cluster::start().await;
    cluster.shared.state().lose_answers = 1;
    let client = cluster.client().await;
    let sql = "CREATE TABLE t (a int) WITH (connector = 'nats', server_url = 'x:1', subject = 'a', stream = 's') \
               FORMAT PLAIN ENCODE JSON";
    assert_eq!(rows(&client, sql).await, "");
    assert_eq!(db_error(&client, sql).await.code().code(), "42P07");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_does_not_make_a_created_table_a_duplicate() {
    let cluster = Cluster::start().await;
    cluster.shared.state().depositions = 1;
    let client = cluster.client().await;
    let sql = "CREATE TABLE t (a int) WITH (connector = 'nats', server_url = 'x:1', subject = 'a', stream = 's') \
               FORMAT PLAIN ENCODE JSON";
    assert_eq!(rows(&client, sql).await, "");
    assert_eq!(cluster.shared.state().depositions, 0);
    assert_eq!(db_error(&client, sql).await.code().code(), "42P07");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placement_that_lacks_vnodes_is_not_read_from() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    // The slots are listed in reverse order.
    for placement in
        [[(200, 250), (100, 200), (0, 100)], [(200, 256), (110, 200), (0, 100)], [(200, 256), (100, 200), (0, 110)]]
    {
        cluster.shared.state().placement = Some(placement.to_vec());
        assert_eq!(db_error(&client, "SELECT count(*) FROM events").await.code().code(), "XX000", "{placement:?}");
    }
    cluster.shared.state().placement = None;
    assert_eq!(rows(&client, "SELECT count(*) FROM events").await, "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_was_set_back_is_read_anew() {
    let config = Config { retry_ms_max: 2_000, ..Config::default() };
    let cluster = Cluster::start_with(Shared::default(), config).await;
    add_events(&cluster.shared, 10);
    cluster.shared.state().catalog_version = 20;
    let client = cluster.client().await;
    assert_eq!(rows(&client, "SELECT count(*) FROM events").await, "10");
    {
        let mut state = cluster.shared.state();
        state.catalog_version = 3;
        Arc::make_mut(&mut state.catalog[0].relation).name = RelationName::public("older");
    }
    assert_eq!(rows(&client, "SELECT count(*) FROM older").await, "10");
    assert_eq!(db_error(&client, "SELECT count(*) FROM events").await.code().code(), "42P01");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_ends_the_query_and_its_scans() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10_000);
    let client = cluster.client().await;
    for behaviour in [Scan::StallAfter(0), Scan::StallAfter(1)] {
        cluster.shared.state().scans.extend(vec![behaviour; 3]);
        let token = client.cancel_token();
        let query = client.simple_query("SELECT id, name FROM events");
        let cancel = async {
            // Wait for all scans, because a remaining behaviour would affect the next query.
            cluster.until("do scans run", |state| state.open_scans == 3).await;
            token.cancel_query(NoTls).await.expect("the request is sent");
        };
        let (outcome, ()) = timeout(PATIENCE, async { tokio::join!(query, cancel) }).await.expect("it ends");
        let error = outcome.expect_err("cancelled");
        assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error:?}");
        cluster.until("are scans and pins gone", |state| state.open_scans == 0 && state.pins.is_empty()).await;
    }
    assert_eq!(rows(&client, "SELECT count(*) FROM events").await, "10000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_timeout_ends_the_query() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10_000);
    let client = cluster.client().await;
    rows(&client, "SET statement_timeout = '200ms'").await;
    cluster.shared.state().scans.extend(vec![Scan::StallAfter(0); 3]);
    let error = db_error(&client, "SELECT count(*) FROM events").await;
    assert_eq!((error.code().code(), error.message()), ("57014", "canceling statement due to statement timeout"));
    cluster.until("are scans and pins gone", |state| state.open_scans == 0 && state.pins.is_empty()).await;
    cluster.shared.state().scans.clear();
    rows(&client, "RESET statement_timeout").await;
    assert_eq!(rows(&client, "SELECT count(*) FROM events").await, "10000");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_between_two_fetches_is_not_the_statements() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10_000);
    let mut client = cluster.client().await;
    let timeout = Duration::from_secs(1);
    rows(&client, &format!("SET statement_timeout = {}", timeout.as_millis())).await;
    let transaction = client.transaction().await.expect("begins");
    let portal = transaction.bind("SELECT id FROM events", &[]).await.expect("a query");
    assert_eq!(transaction.query_portal(&portal, 10).await.expect("rows").len(), 10);
    // The client pauses after ten rows, for longer than a statement may take.
    tokio::time::sleep(timeout * 3 / 2).await;
    assert_eq!(transaction.query_portal(&portal, 0).await.expect("rows").len(), 9_990);
    transaction.commit().await.expect("ends");
    cluster.until("is the pin released", |state| state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_takes_its_query_with_it() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10_000);
    let (client, connection) = tokio_postgres::connect(&cluster.dsn(), NoTls).await.expect("the frontend accepts");
    let connection = tokio::spawn(connection);
    cluster.shared.state().scans.extend(vec![Scan::StallAfter(0); 3]);
    let query = tokio::spawn(async move { client.simple_query("SELECT count(*) FROM events").await.map(|_| ()) });
    cluster.until("do scans run", |state| state.open_scans == 3).await;
    connection.abort();
    query.abort();
    cluster.until("are scans and pins gone", |state| state.open_scans == 0 && state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_renewed_while_a_query_runs() {
    let shared = Shared { lease: Some(Duration::from_millis(200)), ..Shared::default() };
    let cluster = Cluster::start_with(shared, Config::default()).await;
    add_events(&cluster.shared, 10_000);
    let client = cluster.client().await;
    cluster.shared.state().scans.extend(vec![Scan::StallAfter(0); 3]);
    let token = client.cancel_token();
    let watch = async {
        cluster.until("is the pin renewed", |state| state.renewals >= 5).await;
        token.cancel_query(NoTls).await.expect("the request is sent");
    };
    let (outcome, ()) = tokio::join!(client.simple_query("SELECT count(*) FROM events"), watch);
    outcome.expect_err("cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_renewed_however_many_statements_end() {
    let shared = Shared { lease: Some(Duration::from_millis(150)), ..Shared::default() };
    let cluster = Cluster::start_with(shared, Config::default()).await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    cluster.shared.state().scans.extend(vec![Scan::StallAfter(0); 3]);
    let token = client.cancel_token();
    let long = tokio::spawn(async move { client.simple_query("SELECT count(*) FROM events").await.map(|_| ()) });
    cluster.until("does the query run", |state| state.open_scans == 3).await;
    let long_pin = cluster.shared.state().next_pin;
    let mut short = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = cluster.client().await;
        short.spawn(async move {
            loop {
                rows(&client, "SHOW TABLES").await;
            }
        });
    }
    let before = cluster.shared.state().next_pin;
    cluster.until("do statements end", |state| state.next_pin > before + 100).await;
    let renewals = cluster.shared.state().renewed.get(&long_pin).copied().unwrap_or_default();
    let renewed = |state: &State| state.renewed.get(&long_pin).copied().unwrap_or_default() - renewals;
    cluster.until("is the pin renewed while statements end", |state| renewed(state) >= 5).await;
    short.abort_all();
    token.cancel_query(NoTls).await.expect("the request is sent");
    long.await.expect("no panic").expect_err("cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_running_statements_and_the_server() {
    let mut cluster = Cluster::start().await;
    add_events(&cluster.shared, 10_000);
    let client = cluster.client().await;
    cluster.shared.state().scans.extend(vec![Scan::StallAfter(0); 3]);
    let stop = async {
        cluster.until("do scans run", |state| state.open_scans > 0).await;
        cluster.stop.cancel();
    };
    let (outcome, ()) = tokio::join!(client.simple_query("SELECT count(*) FROM events"), stop);
    let error = outcome.expect_err("the node stops");
    assert_eq!(error.code().map(|code| code.code()), Some("57P01"), "{error:?}");
    let ended = timeout(PATIENCE, &mut cluster.frontend).await.expect("it ends").expect("no panic");
    ended.expect("cancelling is no failure");
    assert!(cluster.shared.state().pins.is_empty(), "what the statement pinned is released");
}

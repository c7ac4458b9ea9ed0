//! Every limit: a statement beyond it is refused with its SQLSTATE and a hint, and the session
//! continues.

use std::fmt::Write as _;
use std::time::Instant;

use datafusion::arrow::array::{ArrayRef, Int64Array};
use std::sync::Arc;
use tokio_postgres::NoTls;
use tokio_postgres::error::DbError;
use weir_common::types::SqlType;
use weir_frontend::Config;

use crate::cluster::{Cluster, Shared};
use crate::statements::{add_events, db_error, rows};
use crate::wire::Wire;

/// Starts a session with a cluster whose queries have little memory.
async fn with_memory(bytes: usize) -> (Cluster, tokio_postgres::Client) {
    let config = Config { memory_limit_bytes: bytes, ..Config::default() };
    let cluster = Cluster::start_with(Shared::default(), config).await;
    let client = cluster.client().await;
    (cluster, client)
}

fn assert_refused(error: &DbError, sqlstate: &str, sql: &str) {
    assert_eq!(error.code().code(), sqlstate, "{sql}: {error:?}");
    assert!(error.hint().is_some(), "{sql}: {error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_needs_too_much_memory_is_refused() {
    let (cluster, client) = with_memory(4 << 20).await;
    add_events(&cluster.shared, 400_000);
    for sql in [
        "SELECT id, name FROM events ORDER BY name, id",
        "SELECT id, count(*) FROM events GROUP BY id",
        "SELECT count(DISTINCT id) FROM events",
        "SELECT DISTINCT id, name FROM events",
        "SELECT a.id FROM events a JOIN events b ON a.id = b.id",
        "SELECT a.id FROM events a LEFT JOIN events b ON a.id = b.id AND a.name <> b.name",
        "SELECT array_agg(id), array_agg(id + 1) FROM events",
        "SELECT string_agg(name || ' and more', ',') FROM events",
        "SELECT id, sum(id) OVER (PARTITION BY name) FROM events",
        "SELECT id, rank() OVER (PARTITION BY name ORDER BY id) FROM events",
        "SELECT count(*) FROM (SELECT id, max(id) OVER () AS m FROM events) t WHERE m > 0",
        "SELECT id FROM events UNION SELECT id + 1 FROM events",
        "SELECT id FROM events WHERE id NOT IN (SELECT id FROM events WHERE id > 10)",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT array_agg(n) FROM t",
        "SELECT id, (SELECT count(*) FROM events b WHERE b.id = a.id) FROM events a",
        "EXPLAIN ANALYZE SELECT id FROM events ORDER BY name, id",
    ] {
        let error = db_error(&client, sql).await;
        assert_refused(&error, "53200", sql);
    }
    // All memory was released.
    assert_eq!(rows(&client, "SELECT count(*), count(DISTINCT name) FROM events").await, "400000|10");
    assert_eq!(rows(&client, "SELECT id FROM events ORDER BY id DESC LIMIT 1").await, "399999");
    cluster.until("are scans and pins gone", |state| state.open_scans == 0 && state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_makes_only_so_much() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 8_192);
    let client = cluster.client().await;
    for sql in [
        "SELECT repeat('x', 2000000000)",
        "SELECT length(repeat(name, 100000)) FROM events",
        "SELECT lpad('x', 2000000000)",
        "SELECT rpad(name, 1000000) FROM events",
        "SELECT replace(repeat('x', 1000000), 'x', repeat('y', 1000000))",
        "SELECT range(0, 100000000000)",
        "SELECT lpad('x', 100000000, '🦀')",
        "SELECT generate_series(1, 100000000000)",
        // Eight times this number overflows 64 bits.
        "SELECT generate_series(0, 2305843009213693952)",
        "SELECT generate_series('0001-01-01'::timestamp, '9999-12-31'::timestamp, interval '1 second')",
        "SELECT generate_series('0001-01-01'::date, ('9999-12-' || (30 + id % 2))::date, interval '1 day') FROM events",
        "SELECT array_repeat(1, 100000000000)",
        "SELECT array_resize(make_array(1), 10000000000, 0)",
    ] {
        let error = db_error(&client, sql).await;
        assert_refused(&error, "54000", sql);
    }
    assert_eq!(
        rows(&client, "SELECT repeat('ab', 2), lpad('x', 3, '-'), replace('aXb', 'X', 'yy')").await,
        "abab|--x|ayyb"
    );
    assert_eq!(rows(&client, "SELECT max(length(repeat(name, 100))) FROM events").await, "600");
    assert_eq!(rows(&client, "SELECT count(*) FROM generate_series(1, 100000)").await, "100000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_array_is_not_held_once_a_row() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let wanted: Vec<i64> = (0..50_000).map(|number| 2 * number).collect();
    // Pairing each element with each row of a batch would produce four hundred million pairs.
    let sql = "SELECT count(*) FROM generate_series(0, 8191) AS t WHERE t = ANY($1::bigint[])";
    let row = client.query_one(sql, &[&wanted]).await.expect("a query");
    assert_eq!(row.get::<_, i64>(0), 4_096);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_cut_with_a_notice() {
    let cluster = Cluster::start().await;
    let mut wire = Wire::connect(&cluster).await;
    let (long, short) = ("x".repeat(70), "x".repeat(63));
    let notice = format!("Notice NOTICE 42622 identifier \"{long}\" will be truncated to \"{short}\"");
    let description = format!("RowDescription {short}:23:0");
    wire.query(&format!("SELECT 1 AS {long}"));
    assert_eq!(wire.until_ready().await[..2], [notice.clone(), description.clone()]);
    wire.parse("", &format!("SELECT 1 AS {long}"), &[]).describe(b'S', "").sync();
    let answers = wire.until_ready().await;
    assert_eq!(answers[..2], [notice, "ParseComplete".to_owned()]);
    assert_eq!(answers[3], description);
    // A column's name is also the name of a field, so it cannot be truncated.
    let client = cluster.client().await;
    let sql = format!(
        "CREATE TABLE t ({long} int) WITH (connector = 'nats', server_url = 'x:1', subject = 'a', stream = 's') \
         FORMAT PLAIN ENCODE JSON"
    );
    assert_refused(&db_error(&client, &sql).await, "42622", &sql);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_columns() {
    let cluster = Cluster::start().await;
    let column = |number: i64| -> (String, ArrayRef) {
        (format!("c{number}"), Arc::new(Int64Array::from(vec![number])) as ArrayRef)
    };
    let columns: Vec<(String, ArrayRef)> = (0..1_600).map(column).collect();
    let columns: Vec<(&str, SqlType, ArrayRef)> =
        columns.iter().map(|(name, values)| (name.as_str(), SqlType::BigInt, Arc::clone(values))).collect();
    cluster.shared.add("wide", &columns, 1);
    let client = cluster.client().await;
    assert_eq!(rows(&client, "SELECT * FROM wide").await.split('|').count(), 1_600);
    let sql = "SELECT * FROM wide a, wide b";
    assert_refused(&db_error(&client, sql).await, "54011", sql);
    let declared: Vec<String> = (0..1_601).map(|number| format!("c{number} int")).collect();
    let sql = format!(
        "CREATE TABLE t ({}) WITH (connector = 'nats', server_url = 'x:1', subject = 'a', stream = 's') \
         FORMAT PLAIN ENCODE JSON",
        declared.join(", ")
    );
    assert_eq!(db_error(&client, &sql).await.code().code(), "54011");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_parameters() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    for sql in ["SELECT $65536", "SELECT $10000000000", "SELECT $18446744073709551615"] {
        let error = client.prepare(sql).await.expect_err(sql);
        assert_eq!(error.code().map(|code| code.code()), Some("42P02"), "{sql}: {error:?}");
    }
    let mut sql = "SELECT 0".to_owned();
    for number in 1..=1_000 {
        write!(sql, " + ${number}::int").expect("a string grows");
        if number % 100 == 0 {
            sql.push_str(", 0");
        }
    }
    let statement = client.prepare(&sql).await.expect("a thousand parameters");
    assert_eq!(statement.params().len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_only_so_many_statements_and_portals() {
    let cluster = Cluster::start().await;
    let mut wire = Wire::connect(&cluster).await;
    for number in 0..4_096 {
        wire.parse(&format!("s{number}"), "SELECT 1", &[]);
    }
    wire.sync();
    assert_eq!(wire.until_ready().await.len(), 4_097);
    wire.parse("one more", "SELECT 1", &[]).sync();
    let answers = wire.until_ready().await;
    assert_eq!(answers[0], "Error ERROR 54000 a session can have at most 4096 prepared statements");
    wire.query("PREPARE x AS SELECT 1");
    assert!(wire.until_ready().await[0].starts_with("Error ERROR 54000 "));

    wire.query("BEGIN");
    wire.until_ready().await;
    for number in 0..256 {
        wire.bind(&format!("p{number}"), "s0", 0, &[], 0);
    }
    wire.sync();
    assert_eq!(wire.until_ready().await.len(), 257);
    wire.bind("one more", "s0", 0, &[], 0).sync();
    let answers = wire.until_ready().await;
    assert_eq!(answers[0], "Error ERROR 54000 a session can have at most 256 cursors and portals");
    wire.query("ROLLBACK; DEALLOCATE ALL");
    wire.until_ready().await;
    wire.parse("one more", "SELECT 1", &[]).bind("one more", "one more", 0, &[], 0).sync();
    assert_eq!(wire.until_ready().await, ["ParseComplete", "BindComplete", "ReadyForQuery I"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_clients_are_served_at_once() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 100);
    let mut clients = Vec::new();
    for _ in 0..400 {
        clients.push(cluster.client().await);
    }
    let answers = clients.iter().enumerate().map(async |(number, client)| {
        let sql = "SELECT count(*) FROM events WHERE id < $1";
        let row = client.query_one(sql, &[&(number as i64 % 100)]).await.expect("a query");
        row.get::<_, i64>(0)
    });
    let answers = futures::future::join_all(answers).await;
    assert!(answers.iter().enumerate().all(|(number, count)| *count == number as i64 % 100), "{answers:?}");
    drop(clients);
    cluster.until("are all pins released", |state| state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_never_waits_can_be_cancelled() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    rows(&client, "SET statement_timeout = '500ms'").await;
    for sql in [
        "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.a + b.b = 7",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n FROM t) SELECT count(*) FROM t",
        "SELECT sum(g) FROM generate_series(1, 1000000000000) g",
    ] {
        let error = db_error(&client, sql).await;
        assert_eq!(error.code().code(), "57014", "{sql}: {error:?}");
    }
    let (client, connection) = tokio_postgres::connect(&cluster.dsn(), NoTls).await.expect("the frontend accepts");
    tokio::spawn(connection);
    let token = client.cancel_token();
    let query = client.simple_query("SELECT sum(g) FROM generate_series(1, 1000000000000) g");
    // A request that arrives before the query begins cancels nothing.
    let cancel = async {
        loop {
            token.cancel_query(NoTls).await.expect("the request is sent");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let outcome = tokio::select! {
        outcome = query => outcome,
        () = cancel => unreachable!("it is asked for until the query ends"),
    };
    assert_eq!(outcome.expect_err("cancelled").code().map(|code| code.code()), Some("57014"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_planning_of_a_long_statement_can_be_cancelled() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let list: Vec<String> = (0..8_000).map(|number| format!("{number} + a")).collect();
    let sql = format!("SELECT count(*) FROM (SELECT 1 AS a) AS t WHERE a IN ({})", list.join(", "));
    let started = Instant::now();
    assert_eq!(rows(&client, &sql).await, "1");
    let whole = started.elapsed();
    rows(&client, "SET statement_timeout = '1ms'").await;
    let started = Instant::now();
    assert_eq!(db_error(&client, &sql).await.code().code(), "57014");
    // Parsing and rewriting the text takes less than a third of the time.
    let cancelled = started.elapsed();
    assert!(cancelled * 3 < whole * 2, "cancelled after {cancelled:?}, planned and run in {whole:?}");
}

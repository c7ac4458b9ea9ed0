//! The answers of every kind of statement.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::DbError;
use weir_common::types::SqlType;

use crate::cluster::{Cluster, Shared};

const NATS: &str = "WITH (connector = 'nats', server_url = 'localhost:4222', subject = 'a', stream = 's', \
                    connect_mode = 'user_and_password', username = 'u', password = 'hush') \
                    FORMAT PLAIN ENCODE JSON";

/// Adds `events (id bigint, name varchar)` with ids from 0, in batches of 1000 rows over all slots.
pub(crate) fn add_events(shared: &Shared, rows: i64) {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|id| format!("name {}", id % 10))));
    shared.add("events", &[("id", SqlType::BigInt, ids), ("name", SqlType::Varchar, names)], 1000);
}

/// Returns the rows that the statements of a text return: cells separated by `|`, rows by newlines.
pub(crate) async fn rows(client: &tokio_postgres::Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let lines = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or("NULL")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

pub(crate) async fn db_error(client: &tokio_postgres::Client, sql: &str) -> DbError {
    let error = client.simple_query(sql).await.expect_err(sql);
    error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}")).clone()
}

fn place(error: &DbError) -> String {
    let position = match error.position() {
        Some(tokio_postgres::error::ErrorPosition::Original(position)) => *position,
        _ => 0,
    };
    format!("{} at {position}: {}", error.code().code(), error.message())
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_created_shown_and_dropped() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let create = format!("CREATE TABLE t (a int, b jsonb) INCLUDE offset {NATS}");
    assert_eq!(rows(&client, &create).await, "");
    assert_eq!(rows(&client, "SHOW TABLES").await, "t");
    assert_eq!(
        rows(&client, "DESCRIBE t").await,
        "a|integer|false|NULL\nb|jsonb|false|NULL\n_rw_nats_offset|character varying|false|NULL"
    );
    let shown = rows(&client, "SHOW CREATE TABLE t").await;
    assert_eq!(shown, format!("public.t|{}", create.replace("'hush'", "'[REDACTED]'")));
    assert_eq!(place(&db_error(&client, &create).await), "42P07 at 14: relation \"t\" already exists");
    assert_eq!(rows(&client, &create.replace("TABLE t", "TABLE IF NOT EXISTS t")).await, "");
    assert_eq!(rows(&client, "SELECT * FROM t").await, "");
    assert_eq!(rows(&client, "DROP TABLE t").await, "");
    assert_eq!(place(&db_error(&client, "DROP TABLE t").await), "42P01 at 12: table \"t\" does not exist");
    assert_eq!(rows(&client, "DROP TABLE IF EXISTS t").await, "");
    assert_eq!(rows(&client, "SHOW TABLES").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_read_every_slot_at_one_epoch() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10_000);
    let client = cluster.client().await;
    assert_eq!(rows(&client, "SELECT count(*) FROM events").await, "10000");
    assert_eq!(cluster.shared.state().next_pin, 1, "one pin a query");
    let requests = std::mem::take(&mut cluster.shared.state().scan_requests);
    let slots: Vec<u32> = requests.iter().map(|request| request.slot).collect();
    assert!([0, 1, 2].iter().all(|slot| slots.contains(slot)), "{slots:?}");
    assert!(requests.iter().all(|request| request.epoch == 42 && request.projection.is_empty()), "{requests:?}");

    let join = "SELECT a.name, count(*), min(a.id) FROM events a JOIN events b ON a.id = b.id \
                WHERE a.id >= 9990 GROUP BY a.name ORDER BY a.name LIMIT 2";
    assert_eq!(rows(&client, join).await, "name 0|1|9990\nname 1|1|9991");
    assert_eq!(rows(&client, "SELECT id FROM events ORDER BY id DESC LIMIT 1").await, "9999");
    cluster.shared.state().scan_requests.clear();
    assert_eq!(rows(&client, "SELECT name FROM events LIMIT 3").await.lines().count(), 3);
    let requests = std::mem::take(&mut cluster.shared.state().scan_requests);
    assert!(requests.iter().all(|request| request.limit == Some(3) && request.projection == [1]), "{requests:?}");
    cluster.until("are all pins released", |state| state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_called_as_in_postgresql() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    let statement = client.prepare("SELECT 1, 1, count(*), max(id), max(id) AS m, id::text FROM events GROUP BY id");
    let statement = statement.await.expect("a query");
    let names: Vec<&str> = statement.columns().iter().map(tokio_postgres::Column::name).collect();
    assert_eq!(names, ["?column?", "?column?", "count", "max", "m", "id"]);
    let statement = client.prepare("SELECT id, * FROM events").await.expect("a query");
    let names: Vec<&str> = statement.columns().iter().map(tokio_postgres::Column::name).collect();
    assert_eq!(names, ["id", "id", "name"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_where_and_what_to_do() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    for (sql, expected) in [
        ("SELECT * FROM nothing", "42P01 at 15: relation \"nothing\" does not exist"),
        ("SELECT nam FROM events", "42703 at 8: column \"nam\" does not exist"),
        ("SELECT id FROM events WHERE nothing > 1", "42703 at 29: "),
        ("SELECT 1;\nSELECT x FROM events", "42703 at 18: "),
        ("SELECT id FROM public.nothing", "42P01 at 16: relation \"public.nothing\" does not exist"),
        ("SELEKT 1", "42601 at 1: syntax error at or near \"SELEKT\""),
        ("SELECT counts(id) FROM events", "42883 at 8: function counts does not exist"),
        ("SELECT sum(name) FROM events", "42883 at 0: function sum(Utf8) does not exist"),
        ("SELECT a.id FROM events a, events b WHERE id = 1", "42702 at 43: column reference \"id\" is ambiguous"),
        ("SELECT id FROM events GROUP BY name", "42803 at 8: "),
        ("SELECT (SELECT id FROM events)", "21000 at 0: "),
        ("SELECT 1/0", "22012 at 0: "),
        ("SELECT 'x'::int", "22P02 at 0: "),
        ("CREATE SINK s WITH (a = 1)", "0A000 at 8: CREATE SINK is not supported yet"),
        ("MERGE INTO events USING a ON true", "0A000 at 1: MERGE is not supported yet"),
        ("SELECT $1", "42P02 at 0: there is no parameter $1"),
        ("SELECT $10000000000", "42P02 at 8: there is no parameter $10000000000"),
        ("SELECT 1, $65536", "42P02 at 11: there is no parameter $65536"),
        ("SELECT id INTO x FROM events", "0A000 at "),
    ] {
        let error = db_error(&client, sql).await;
        assert!(place(&error).starts_with(expected), "{sql}\n   gave: {error:?}\nexpected: {expected}");
    }
    let error = db_error(&client, "CREATE TABLE t (a int) WITH (connector = 'nats') FORMAT PLAIN ENCODE JSON").await;
    assert_eq!(error.code().code(), "22023");
    assert!(db_error(&client, "SELECT nam FROM events").await.hint().is_some());
    // The connection still works.
    assert_eq!(rows(&client, "SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_the_statements() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    rows(&client, "FLUSH").await;
    assert_eq!(cluster.shared.state().flushes, 1);
    let address = cluster.shared.computes.lock().expect("no panic")[0];
    assert_eq!(
        rows(&client, "SHOW CLUSTER").await,
        format!(
            "m|meta|{address}|leader||7-0000000000000001|42|NULL\n\
             c|compute|{address}|running|0,1|7-0000000000000001|42|no object store"
        )
    );
    assert!(rows(&client, "SELECT version()").await.starts_with("PostgreSQL 15.20"));
    assert_eq!(rows(&client, "SHOW server_version").await, "15.20");
    rows(&client, "SET application_name = 'test'").await;
    assert_eq!(rows(&client, "SHOW application_name; SELECT current_setting('application_name')").await, "test\ntest");
    assert_eq!(rows(&client, "SHOW TIME ZONE").await, "UTC");
    let plan = rows(&client, "EXPLAIN SELECT name, count(*) FROM events GROUP BY name").await;
    assert!(plan.contains("ScanExec: table=events, columns=[name], slots=3, epoch=42"), "{plan}");
    let plan = rows(&client, "EXPLAIN ANALYZE SELECT count(*) FROM events").await;
    assert!(plan.contains("output_rows"), "{plan}");
    assert_eq!(rows(&client, "").await, "");
    assert_eq!(rows(&client, "SELECT 1; ; SELECT 2").await, "1\n2");
}

#[tokio::test(flavor = "multi_thread")]
async fn information_schema_lists_the_tables() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    let sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(rows(&client, sql).await, "events");
    let sql = "SELECT column_name, ordinal_position FROM information_schema.columns \
               WHERE table_name = 'events' ORDER BY 2";
    assert_eq!(rows(&client, sql).await.lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_transaction_refuses_statements_until_it_ends() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    rows(&client, "BEGIN").await;
    assert_eq!(rows(&client, "SELECT 1").await, "1");
    db_error(&client, "SELECT nothing").await;
    assert_eq!(db_error(&client, "SELECT 1").await.code().code(), "25P02");
    rows(&client, "ROLLBACK").await;
    assert_eq!(rows(&client, "SELECT 1").await, "1");
    rows(&client, "BEGIN; SELECT 1; COMMIT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_counted() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    rows(&client, "SELECT id FROM events").await;
    db_error(&client, "SELECT nothing FROM events").await;
    let metrics = weir_common::telemetry::render_metrics();
    for series in [
        "weir_frontend_statements_total{kind=\"query\",outcome=\"ok\"",
        "weir_frontend_statements_total{kind=\"query\",outcome=\"42703\"",
        "weir_frontend_statement_duration_seconds_count{kind=\"query\"",
        "weir_frontend_rows_total",
        "weir_frontend_connections",
    ] {
        assert!(metrics.contains(series), "{series} in\n{metrics}");
    }
}

//! Expressions that DataFusion reads differently than PostgreSQL, and statements built on queries.

use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::statements::{add_events, db_error, rows};
use crate::types::add_types;

async fn sqlstate(client: &Client, sql: &str) -> String {
    db_error(client, sql).await.code().code().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_numbers_never_wrap_around() {
    let cluster = Cluster::start().await;
    add_types(&cluster.shared);
    let client = cluster.client().await;
    for (sql, expected) in [
        ("SELECT i4 + 1 FROM types", "22003"),
        ("SELECT i8 - 1 FROM types", "22003"),
        ("SELECT i8 * 2 FROM types", "22003"),
        ("SELECT -i8 FROM types", "22003"),
        ("SELECT 2147483647 + 1", "22003"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT i4 % 0 FROM types WHERE i4 IS NOT NULL", "22012"),
    ] {
        assert_eq!(sqlstate(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(rows(&client, "SELECT i8 + 1 FROM types ORDER BY 1").await, "-9223372036854775807\nNULL");
    assert_eq!(
        rows(&client, "SELECT sum(n) FROM (VALUES (9223372036854775807), (1)) AS t (n)").await,
        "9223372036854775808"
    );
    assert_eq!(rows(&client, "SELECT 7 / 2, -7 / 2, 7 % 3").await, "3|-3|1");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_jsonb_are_found() {
    let cluster = Cluster::start().await;
    add_types(&cluster.shared);
    let client = cluster.client().await;
    for (sql, expected) in [
        ("SELECT j -> 'a', j -> 'a' -> 0, j -> 'missing' FROM types WHERE j IS NOT NULL", "[1, null]|1|NULL"),
        ("SELECT j -> 'a' ->> 0, j -> 'a' ->> 1 FROM types WHERE j IS NOT NULL", "1|NULL"),
        ("SELECT j #> '{a,0}', j #>> '{a,-2}' FROM types WHERE j IS NOT NULL", "1|1"),
        ("SELECT j @> '{\"a\": [1]}', j ? 'b' FROM types WHERE j IS NOT NULL", "t|f"),
        ("SELECT '{\"b\":1,\"a\": 2}'::jsonb", "{\"a\": 2, \"b\": 1}"),
        ("SELECT jsonb_typeof('[1]'::jsonb)", "array"),
        ("SELECT (j ->> 'a') IS NULL FROM types ORDER BY 1", "f\nt"),
    ] {
        assert_eq!(rows(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(sqlstate(&client, "SELECT '{'::jsonb").await, "22P02");
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_are_called_and_deallocated() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    assert_eq!(rows(&client, "PREPARE one (bigint) AS SELECT name FROM events WHERE id = $1").await, "");
    assert_eq!(rows(&client, "EXECUTE one (7)").await, "name 7");
    assert_eq!(sqlstate(&client, "PREPARE one AS SELECT 1").await, "42P05");
    assert_eq!(sqlstate(&client, "EXECUTE one").await, "42601");
    assert_eq!(sqlstate(&client, "EXECUTE two").await, "26000");
    assert_eq!(rows(&client, "DEALLOCATE one").await, "");
    assert_eq!(sqlstate(&client, "EXECUTE one (7)").await, "26000");
    // Those of the protocol go with the others.
    let statement = client.prepare("SELECT 1").await.expect("a query");
    assert_eq!(rows(&client, "DEALLOCATE ALL").await, "");
    let error = client.query(&statement, &[]).await.expect_err("it is gone");
    assert_eq!(error.as_db_error().map(|error| error.code().code()), Some("26000"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_shown() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 1);
    let client = cluster.client().await;
    let shown = rows(&client, "SHOW JOBS").await;
    assert!(shown.ends_with("|events|table|running|NULL"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_sent_as_text_csv_and_binary() {
    use futures::TryStreamExt;
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 2);
    add_types(&cluster.shared);
    let client = cluster.client().await;
    let copied = async |sql: &str| {
        let stream = client.copy_out(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        stream.try_collect::<Vec<_>>().await.expect(sql).concat()
    };
    assert_eq!(copied("COPY events TO STDOUT").await, b"0\tname 0\n1\tname 1\n");
    let csv = copied("COPY (SELECT name, id FROM events ORDER BY id DESC) TO STDOUT (FORMAT csv, HEADER)").await;
    assert_eq!(csv, b"name,id\nname 1,1\nname 0,0\n");
    assert_eq!(copied("COPY events (name) TO STDOUT").await, b"name 0\nname 1\n");
    let escaped = copied("COPY (SELECT v, i4 FROM types ORDER BY i4) TO STDOUT").await;
    assert_eq!(escaped, "a 'b' \\\\ ä\t2147483647\n\\N\t\\N\n".as_bytes());
    let binary = copied("COPY (SELECT 1) TO STDOUT WITH BINARY").await;
    assert!(binary.starts_with(b"PGCOPY\n\xff\r\n\0") && binary.ends_with(b"\0\x01\0\0\0\x04\0\0\0\x01\xff\xff"));
    assert_eq!(sqlstate(&client, "COPY missing TO STDOUT").await, "42P01");
    assert_eq!(sqlstate(&client, "COPY events FROM STDIN").await, "0A000");
}

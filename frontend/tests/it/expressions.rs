//! Expressions that DataFusion interprets differently from PostgreSQL, and statements built on
//! queries.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;
use weir_common::catalog::SplitStart;
use weir_common::ids::{Sequence, SplitId};
use weir_proto::{SplitProgress, SplitsResponse, Trouble};

use crate::cluster::Cluster;
use crate::statements::{add_events, db_error, rows};
use crate::types::{add_types, raw};

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
        ("SELECT i2 - 1::smallint FROM types", "22003"),
        ("SELECT 70000::smallint", "22003"),
        ("SELECT 1e308::float8 * 10::float8", "22003"),
        ("SELECT 1e-308::float8 / 1e300::float8", "22003"),
        ("SELECT 1::float8 / 0::float8", "22012"),
        ("SELECT f8 / 0::float8 FROM types", "22012"),
    ] {
        assert_eq!(sqlstate(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(rows(&client, "SELECT i8 + 1 FROM types ORDER BY 1").await, "-9223372036854775807\nNULL");
    assert_eq!(
        rows(&client, "SELECT sum(n) FROM (VALUES (9223372036854775807), (1)) AS t (n)").await,
        "9223372036854775808"
    );
    assert_eq!(rows(&client, "SELECT 7 / 2, -7 / 2, 7 % 3").await, "3|-3|1");
    assert_eq!(rows(&client, "SELECT f8 * 2::float8 FROM types ORDER BY 1").await, "-Infinity\nNULL");
    assert_eq!(db_error(&client, "SELECT i4 + 1 FROM types").await.message(), "integer out of range");
    assert_eq!(db_error(&client, "SELECT 1 / 0").await.message(), "division by zero");
}

#[tokio::test(flavor = "multi_thread")]
async fn arithmetic_works_wherever_it_stands() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 6);
    let client = cluster.client().await;
    for (sql, expected) in [
        ("SELECT id / 2 + 1, count(*) FROM events GROUP BY id / 2 + 1 ORDER BY id / 2 + 1 LIMIT 2", "1|2\n2|2"),
        ("SELECT id % 2, sum(id) FROM events GROUP BY ROLLUP (id % 2) ORDER BY 2", "0|6\n1|9\nNULL|15"),
        ("SELECT id - 1, sum(id) OVER (ORDER BY id) FROM events ORDER BY 1 LIMIT 2 OFFSET 1", "0|1\n1|3"),
        ("SELECT name FROM events WHERE id + 1 IN (3, 4) AND -id > -3", "name 2"),
        ("SELECT a.id FROM events a JOIN events b ON a.id = b.id * 2 + 1 ORDER BY 1", "1\n3\n5"),
        ("SELECT id FROM events ORDER BY -id LIMIT 1", "5"),
        ("SELECT sum(x) FROM (SELECT 1 AS x UNION ALL SELECT 3000000000) AS t", "3000000001"),
        ("WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 3) SELECT sum(n) FROM t", "6"),
        ("SELECT lag(id, 1, 0) OVER (ORDER BY id), ntile(2) OVER (ORDER BY id) FROM events LIMIT 1", "0|1"),
        ("SELECT round(2.345, 2), power(2, 3), substr('weir', 2, 2), repeat('a', 2)", "2.35|8|ei|aa"),
        ("SELECT count(*) FROM events WHERE id BETWEEN 1 AND 1 + 2", "3"),
        ("SELECT (SELECT max(id) FROM events) + 1", "6"),
        ("SELECT (ARRAY[10, 20])[1 + 1]", "20"),
        ("SELECT id + 1 FROM events WHERE id = 1 EXCEPT SELECT 1", "2"),
    ] {
        assert_eq!(rows(&client, sql).await, expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_have_postgresqls_types() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 3);
    let client = cluster.client().await;
    let sql = "SELECT 1, 3000000000, id + 1, sum(id), sum(CASE WHEN id > 0 THEN 1 ELSE 0 END), count(*) FROM events GROUP BY id";
    let statement = client.prepare(sql).await.expect("a query");
    let types: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    assert_eq!(types, [Type::INT4, Type::INT8, Type::INT8, Type::NUMERIC, Type::INT8, Type::INT8]);
    let row = client.query_one("SELECT sum(id) + 10000 FROM events", &[]).await.expect("a row");
    // The number 10,003: the digits 1 and 3 in base 10,000, with a weight of 1.
    assert_eq!(raw(&row, 0), [0, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 3]);
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
        ("SELECT j = '{\"a\":[1,null]}' FROM types WHERE j IS NOT NULL", "t"),
        ("SELECT count(*) FROM types WHERE '[1]' <@ (j -> 'a') OR j ->> 'b' = 'c'", "1"),
        ("SELECT (j #> ARRAY['a', '0'])::text::int + 1 FROM types WHERE j IS NOT NULL", "2"),
        ("SELECT jsonb_array_length(j -> 'a') FROM types WHERE j IS NOT NULL", "2"),
        (
            "SELECT j ?| '{b,a}', j ?& '{b,a}', j ?| ARRAY['b', NULL], j ?& ARRAY['a', NULL] FROM types ORDER BY 1",
            "t|f|f|t\nNULL|NULL|NULL|NULL",
        ),
        (
            "SELECT '[\"x\"]'::jsonb ?| '{}', '[\"x\"]'::jsonb ?& '{}', '\"x\"'::jsonb ?& ARRAY[v, 'x'] FROM types ORDER BY 3",
            "f|t|f\nf|t|t",
        ),
    ] {
        assert_eq!(rows(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(sqlstate(&client, "SELECT '{'::jsonb").await, "22P02");
    assert_eq!(sqlstate(&client, "SELECT jsonb_array_length(j) FROM types").await, "22023");
    assert_eq!(sqlstate(&client, "SELECT i4 -> 'a' FROM types").await, "42883");
    let statement = client.prepare("SELECT j -> 'a', j ->> 'a', $1::jsonb -> 'x' FROM types").await.expect("a query");
    let types: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    assert_eq!(types, [Type::JSONB, Type::VARCHAR, Type::JSONB]);
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
    // Statements that the protocol prepared are deallocated too.
    let statement = client.prepare("SELECT 1").await.expect("a query");
    assert_eq!(rows(&client, "DEALLOCATE ALL").await, "");
    let error = client.query(&statement, &[]).await.expect_err("it is gone");
    assert_eq!(error.as_db_error().map(|error| error.code().code()), Some("26000"), "{error:?}");
    rows(&client, "SET application_name = 'x'; PREPARE one AS SELECT 1; BEGIN").await;
    assert_eq!(sqlstate(&client, "DISCARD ALL").await, "25001");
    assert_eq!(rows(&client, "ROLLBACK; SHOW application_name; EXECUTE one").await, "x\n1");
    rows(&client, "DISCARD ALL").await;
    assert_eq!(sqlstate(&client, "EXECUTE one").await, "26000");
    assert_eq!(rows(&client, "SHOW application_name").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_quoted_and_dates_read() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    for (sql, expected) in [
        (r"SELECT quote_literal('it''s'), quote_literal('a\b'), quote_literal(NULL)", r"'it''s'|E'a\\b'|NULL"),
        (
            r#"SELECT quote_ident('plain_1'), quote_ident('Two words'), quote_ident('select')"#,
            r#"plain_1|"Two words"|"select""#,
        ),
        (r"SELECT '\x0aff'::bytea, 'a\\\001'::bytea", r"\x0aff|\x615c01"),
        (
            "SELECT convert_from('ä'::bytea, 'utf-8'), convert_to('ä', 'UTF8'), convert_from(NULL, 'UTF8')",
            r"ä|\xc3a4|NULL",
        ),
        (
            "SELECT '2026-01-02 +00'::date, ' 2026-01-02'::date, '2026-01-02 10:00:00'::date",
            "2026-01-02|2026-01-02|2026-01-02",
        ),
    ] {
        assert_eq!(rows(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(sqlstate(&client, "SELECT '2026-01-02 +x'::date").await, "22007");
    assert_eq!(sqlstate(&client, "SELECT 'soon'::date").await, "22007");
    for (bytes, encoding, code) in [
        (r"\x61ff", "UTF8", "22021"),
        (r"\x6100", "UTF8", "22021"),
        (r"\xff", "UTF8", "22021"),
        ("a", "LATIN1", "22023"),
    ] {
        let sql = format!("SELECT convert_from('{bytes}'::bytea, '{encoding}')");
        assert_eq!(sqlstate(&client, &sql).await, code, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_shown() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 1);
    let client = cluster.client().await;
    let shown = rows(&client, "SHOW JOBS").await;
    assert!(shown.ends_with("|events|table|running|NULL|NULL|NULL|0|NULL|NULL|NULL"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_work_says_so() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 1);
    let id = {
        let mut state = cluster.shared.state();
        let split =
            SplitStart { split: SplitId("S".to_owned()), sequence: Sequence(1), stream_created: None, reads: None };
        Arc::make_mut(&mut state.catalog[0].job).splits.push(split);
        state.catalog_version += 1;
        state.catalog[0].id().0
    };
    let client = cluster.client().await;
    let sql = "SELECT name || '|' || state || '|' || coalesce(since::text, '-') || '|' || coalesce(reason, '-') \
               FROM weir_catalog.jobs";
    let says = async |split: (&str, u64, &str)| {
        let (state, since_s, reason) = split;
        let split = SplitProgress {
            table: id,
            split: "S".to_owned(),
            state: state.to_owned(),
            since_ns: since_s * 1_000_000_000,
            reason: reason.to_owned(),
            ..SplitProgress::default()
        };
        cluster.shared.state().splits =
            SplitsResponse { splits: vec![split], trouble: None, filling: Vec::new(), uses: Vec::new(), states: None };
        let from_view = rows(&client, sql).await;
        let shown = rows(&client, "SHOW JOBS").await;
        assert_eq!(shown.split('|').nth(3), from_view.split('|').nth(1), "{shown}, {from_view}");
        from_view
    };
    assert_eq!(says(("reading", 60, "")).await, "events|running|1970-01-01 00:01:00+00|-");
    let missing = "stream \"S\" does not exist";
    assert_eq!(says(("stalled", 60, missing)).await, format!("events|stalled|1970-01-01 00:01:00+00|{missing}"));
    cluster.shared.state().splits.splits.clear();
    assert_eq!(rows(&client, sql).await, "events|stalled|-|no compute node reads it");
    cluster.shared.state().splits.trouble = Some(Trouble { reason: "no bucket".to_owned(), since_ns: 0 });
    assert!(rows(&client, sql).await.ends_with("no compute node reads it"));

    // The answer names a node that does not answer, after a bounded time.
    cluster.shared.state().silent = true;
    let answer = rows(&client, sql).await;
    assert!(answer.starts_with("events|unknown|-|compute node 127.0.0.1:"), "{answer}");
    assert!(answer.ends_with("does not answer: nothing for 3 seconds"), "{answer}");
    // The answer also covers a cluster without nodes, whose snapshots cannot be pinned.
    cluster.shared.state().deserted = true;
    assert_eq!(rows(&client, sql).await, "events|stalled|-|there is no compute node");
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

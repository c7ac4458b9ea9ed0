//! Queries that DataFusion by itself answers differently from PostgreSQL. The expected answers are
//! those of PostgreSQL 15 with the same tables.

use std::sync::Arc;

use bytes::BytesMut;
use datafusion::arrow::array::{ArrayRef, Float32Array, Float64Array, Int64Array};
use tokio_postgres::Client;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use weir_common::types::SqlType;

use crate::cluster::{Cluster, Shared};
use crate::statements::{add_events, db_error, rows};
use crate::types::add_types;

/// Adds zeros of both signs, a NaN, a NULL, and numbers halfway between integers.
fn add_floats(shared: &Shared) {
    let wide = vec![Some(-0.0), Some(0.0), Some(f64::NAN), Some(1.5), None, Some(-0.0), Some(2.5)];
    let narrow = vec![Some(-0.0), Some(0.0), Some(f32::NAN), Some(1.5), None, Some(0.0), Some(2.5)];
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..7));
    let columns: [(&str, SqlType, ArrayRef); 3] = [
        ("id", SqlType::BigInt, ids),
        ("f8", SqlType::Double, Arc::new(Float64Array::from(wide))),
        ("f4", SqlType::Real, Arc::new(Float32Array::from(narrow))),
    ];
    shared.add("floats", &columns, 2);
}

async fn cluster() -> (Cluster, Client) {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    add_types(&cluster.shared);
    add_floats(&cluster.shared);
    let client = cluster.client().await;
    (cluster, client)
}

pub(crate) async fn check(client: &Client, expected: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (sql, expected) in expected {
        let mut said = String::new();
        let answer = match client.simple_query(sql).await {
            Ok(_) => rows(client, sql).await,
            Err(error) => {
                let error = error.as_db_error().expect("an error of the server's");
                said = error.message().to_owned();
                format!("ERROR {}", error.code().code())
            }
        };
        if answer != *expected {
            wrong.push(format!("{sql}\n   gave: {answer} {said}\nexpected: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn words_like_those_of_system_catalogs_change_nothing() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            ("SELECT array_to_string(ARRAY['pg_a', 'b'], '-')", "pg_a-b"),
            ("SELECT 'pg_x' AS pg_y, array_to_string(ARRAY[1, 2], ',')", "pg_x|1,2"),
            (
                "SELECT id, (SELECT bool_or(b.id = 0) FROM events b WHERE b.id = a.id) AS pg_same FROM events a ORDER BY id LIMIT 1",
                "0|t",
            ),
            ("SELECT name FROM events WHERE name <> 'information_schema' AND id = 1", "name 1"),
            (
                "SELECT (SELECT max(b.id) FROM events b WHERE b.id = a.id) FROM events a, pg_class \
                 WHERE relname = 'events' AND a.id = 2",
                "2",
            ),
            ("SELECT relname, array_to_string(ARRAY['a', 'b'], '-') FROM pg_class WHERE relname = 'events'", "events|a-b"),
            ("SELECT relname FROM pg_class WHERE oid = 'events'::regclass", "events"),
            ("WITH pg_class AS (SELECT 1 AS a) SELECT a FROM pg_class", "1"),
        ],
    )
    .await;
    let error = db_error(&client, "SELECT nam FROM pg_class").await;
    assert_eq!(error.code().code(), "42703");
    assert_eq!(error.position(), Some(&tokio_postgres::error::ErrorPosition::Original(8)));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_looked_up_in_the_newest_catalog() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    // This frontend has not loaded a catalog yet.
    let client = cluster.client().await;
    assert_eq!(rows(&client, "SELECT 'events'::regclass::int > 0").await, "t");
    add_types(&cluster.shared);
    let statement = client.prepare("SELECT 'types'::regclass::int > 0").await.expect("a query");
    assert!(client.query_one(&statement, &[]).await.expect("a row").get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn catalogs_without_rows_can_be_counted() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            ("SELECT count(*) FROM pg_publication", "0"),
            ("SELECT count(*), max(oid) FROM pg_catalog.pg_policy", "0|NULL"),
            ("SELECT pubname FROM pg_publication", ""),
            ("SELECT count(*) FROM pg_publication GROUP BY pubname", ""),
            ("SELECT 1 FROM pg_publication HAVING count(*) = 0", "1"),
            ("SELECT count(*) FROM pg_publication p RIGHT JOIN pg_class c ON true WHERE c.relname = 'events'", "1"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn casts_to_whole_numbers_round() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            ("SELECT 2.7::int, -2.7::int, 2.5::int, 3.5::int, -2.5::int, 0.5::bigint", "3|-3|3|4|-3|1"),
            (
                "SELECT 2.5::float8::int, 3.5::float8::int, (-2.5)::float8::int, 2.5::real::smallint, 2.6::float8::bigint",
                "2|4|-2|2|3",
            ),
            (
                "SELECT 2.5::numeric(5, 2)::int, (-2.5)::numeric(5, 2)::int, 9.99::numeric(3, 2)::smallint, \
                 0.4::numeric(2, 1)::bigint",
                "3|-3|10|0",
            ),
            ("SELECT f8::int FROM floats WHERE id IN (3, 6) ORDER BY id", "2\n2"),
            ("SELECT f8::int, count(*) FROM floats WHERE id IN (3, 6) GROUP BY f8::int", "2|2"),
            ("SELECT 32767.5::float8::smallint", "ERROR 22003"),
            ("SELECT 32767.4::float8::smallint", "32767"),
            ("SELECT 'NaN'::float8::int", "ERROR 22003"),
            ("SELECT '2.7'::int", "ERROR 22P02"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_stands_for_a_jsonb_can_be_written_in_any_way() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            (r#"SELECT j @> ' { "a" : [1] } ', j @> '{"a":[1],"a":[null]}' FROM types WHERE j IS NOT NULL"#, "t|t"),
            ("SELECT j @> 'foo' FROM types WHERE j IS NOT NULL", "ERROR 22P02"),
            ("SELECT j @> NULL FROM types WHERE j IS NOT NULL", "NULL"),
            (r#"SELECT j <@ '{"a" :[ 1,null,2],"b":1}' FROM types WHERE j IS NOT NULL"#, "t"),
            ("SELECT ' [1, 2]' <@ '[2,1,3]'::jsonb, '[1]'::jsonb <@ ' [ 1 ]'", "t|t"),
            (
                r#"SELECT ' {"b":1, "a":{"c":2}}' -> 'a', ' {"a" : 1}'::jsonb -> 'a', ' {"a":1}' ? 'a'"#,
                r#"{"c": 2}|1|t"#,
            ),
            ("SELECT jsonb_typeof(' [1]'), jsonb_array_length(' [1, 2]')", "array|2"),
            ("SELECT j -> ' a' FROM types WHERE j IS NOT NULL", "NULL"),
        ],
    )
    .await;
    let found =
        client.query("SELECT id FROM events WHERE '{\"a\": 1}'::jsonb @> $1 ORDER BY id", &[&Document(" {\"a\" :1}")]);
    assert_eq!(found.await.expect("a query").len(), 10);
    // A parameter becomes a jsonb too, and other parameters still get their types.
    let statement = client.prepare("SELECT i4 FROM types WHERE j = $1 AND i4 = $2").await.expect("a query");
    assert_eq!(statement.params(), [Type::JSONB, Type::INT4]);
    let found = client.query(&statement, &[&Document(r#"{"a":[1,null]}"#), &i32::MAX]).await.expect("a query");
    assert_eq!(found.len(), 1);
    let sql = "SELECT i4 FROM types WHERE $1 <> j";
    let statement = client.prepare_typed(sql, &[Type::JSONB]).await.expect("a query");
    let found = client.query(&statement, &[&Document(r#"{"a":[1,null]}"#)]).await.expect("a query");
    assert_eq!(found.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jsonb_is_compared_with_a_literal_wherever_it_stands() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            (r#"SELECT '{"a":1,"b":2}'::jsonb IN ('{"b":2, "a":1}'), '1'::jsonb NOT IN (' 1', '2')"#, "t|f"),
            (r#"SELECT i4 FROM types WHERE j IN ('{"a" :[ 1,null]}', '7')"#, "2147483647"),
            ("SELECT CASE '[1,2]'::jsonb WHEN '[1,  2]' THEN 'same' ELSE 'other' END", "same"),
            ("SELECT nullif('[1,2]'::jsonb, ' [ 1,2]'), nullif('[1,2]', '[1, 2]'::jsonb)", "NULL|NULL"),
            ("SELECT '1'::jsonb BETWEEN ' 1' AND ' 1'", "t"),
            ("SELECT j IN ('nonsense', '1') FROM types", "ERROR 22P02"),
        ],
    )
    .await;
    let sql = "SELECT i4 FROM types WHERE j IN ($1, '1')";
    let found = client.query(sql, &[&Document(r#" {"a":[1,null]}"#)]).await.expect("a query");
    assert_eq!(found.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn casts_cut_texts_to_their_length() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            ("SELECT 'abc'::varchar(2), 'äöü'::char(2), CAST('abc' AS character varying(1)), 'abc'::char", "ab|äö|a|a"),
            ("SELECT 12345::varchar(3), 'a'::varchar(2), NULL::varchar(2), 'abc'::character varying", "123|a|NULL|abc"),
            ("SELECT name::varchar(4), count(*) FROM events GROUP BY name::varchar(4)", "name|10"),
            ("SELECT 'abc'::varchar(0)", "ERROR 22023"),
            ("SELECT ARRAY['abc']::varchar(2)[]", "{ab}"),
        ],
    )
    .await;
    let row = client.query_one("SELECT $1::varchar(2)", &[&"abc"]).await.expect("a row");
    assert_eq!(row.get::<_, String>(0), "ab");
}

#[tokio::test(flavor = "multi_thread")]
async fn floats_are_rounded_and_summed_up_as_by_postgresql() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            (
                "SELECT round(2.5::float8), round(3.5::float8), round(-2.5::float8), round(2.5), round(2.5::real)",
                "2|4|-2|3|2",
            ),
            ("SELECT round(f8) FROM floats WHERE id IN (3, 6) ORDER BY id", "2\n2"),
            ("SELECT sum(x), avg(x) FROM (VALUES (0.1::real), (0.2::real)) AS t (x)", "0.3|0.15000000223517418"),
            ("SELECT id % 2, sum(f4) FROM floats WHERE id IN (3, 6) GROUP BY 1 HAVING sum(f4) > 2 ORDER BY 1", "0|2.5"),
            ("SELECT id, sum(f4) OVER (ORDER BY id) FROM floats WHERE id IN (3, 6) ORDER BY id", "3|1.5\n6|4"),
        ],
    )
    .await;
    let sql = "SELECT sum(f4), sum(DISTINCT f4), avg(f4), sum(f8), max(f4) FROM floats";
    let statement = client.prepare(sql).await.expect("a query");
    let types: Vec<&Type> = statement.columns().iter().map(tokio_postgres::Column::type_).collect();
    assert_eq!(types, [&Type::FLOAT4, &Type::FLOAT4, &Type::FLOAT8, &Type::FLOAT8, &Type::FLOAT4]);
    let statement = client.prepare("SELECT sum(f4) OVER () AS s FROM floats").await.expect("a query");
    assert_eq!(statement.columns()[0].type_(), &Type::FLOAT4);
}

/// A jsonb in the form in which drivers send it.
#[derive(Debug)]
struct Document(&'static str);

impl ToSql for Document {
    fn to_sql(&self, _ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(b"\x01");
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }

    to_sql_checked!();
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_of_both_signs_are_equal_and_so_is_every_nan() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            ("SELECT id FROM floats WHERE f8 = 0 ORDER BY id", "0\n1\n5"),
            ("SELECT id FROM floats WHERE f8 <> 0 ORDER BY id", "2\n3\n6"),
            ("SELECT id FROM floats WHERE f8 < 0 OR f4 > '-0'::real ORDER BY id", "2\n3\n6"),
            ("SELECT id FROM floats WHERE f8 IN (0, 1.5) ORDER BY id", "0\n1\n3\n5"),
            ("SELECT id FROM floats WHERE f8 BETWEEN 0 AND 1 ORDER BY id", "0\n1\n5"),
            ("SELECT count(*), count(DISTINCT f8) FROM floats", "7|4"),
            (
                "SELECT abs(f), n FROM (SELECT f8 AS f, count(*) AS n FROM floats GROUP BY f8) AS g ORDER BY 2 DESC, 1",
                "0|3\n1.5|1\n2.5|1\nNaN|1\nNULL|1",
            ),
            ("SELECT count(*) FROM floats GROUP BY f4 HAVING count(*) > 1 AND f4 = 0", "3"),
            ("SELECT abs(x) FROM (SELECT DISTINCT f8 FROM floats WHERE id < 3) AS d (x) ORDER BY 1", "0\nNaN"),
            ("SELECT DISTINCT f8 FROM floats WHERE id = 0", "-0"),
            ("SELECT count(*) FROM floats a JOIN floats b ON a.f8 = b.f8", "12"),
            ("SELECT count(*) FROM floats a JOIN floats b USING (f8)", "12"),
            ("SELECT count(*) FROM (SELECT f8 FROM floats UNION SELECT f8 FROM floats) AS t", "5"),
            ("SELECT f8 FROM floats WHERE id = 1 INTERSECT SELECT f8 FROM floats WHERE id = 0", "0"),
            ("SELECT f8 FROM floats WHERE id = 1 EXCEPT SELECT f8 FROM floats WHERE id = 0", ""),
            ("SELECT id FROM floats ORDER BY f8, id DESC", "5\n1\n0\n3\n6\n2\n4"),
            (
                "SELECT id, rank() OVER (ORDER BY f8), count(*) OVER (PARTITION BY f8) FROM floats ORDER BY id",
                "0|1|3\n1|1|3\n2|6|1\n3|4|1\n4|7|1\n5|1|3\n6|5|1",
            ),
            ("SELECT id FROM floats WHERE f8 IN (SELECT f8 FROM floats WHERE id = 0) ORDER BY id", "0\n1\n5"),
            ("SELECT id FROM floats WHERE f8 = ANY (SELECT f8 FROM floats WHERE id = 0) ORDER BY id", "0\n1\n5"),
            ("SELECT id FROM floats WHERE f8 = ANY (ARRAY[0, 2.5]) ORDER BY id", "0\n1\n5\n6"),
            (
                "SELECT a.id FROM floats a WHERE a.f8 IN (SELECT b.f8 FROM floats b WHERE b.id = 0 AND b.f4 = a.f4) \
                 ORDER BY 1",
                "0\n1\n5",
            ),
            ("SELECT id FROM floats WHERE f8 NOT IN (SELECT f8 FROM floats WHERE id < 3) ORDER BY id", "3\n6"),
            ("SELECT id FROM floats WHERE f8 <> ALL (SELECT f8 FROM floats WHERE id < 3) ORDER BY id", "3\n6"),
            ("SELECT id FROM floats WHERE f8 < ANY (SELECT f8 FROM floats WHERE id IN (0, 3)) ORDER BY id", "0\n1\n5"),
            (
                "SELECT id FROM floats WHERE f8 >= ALL (SELECT f8 FROM floats WHERE id < 2) ORDER BY id",
                "0\n1\n2\n3\n5\n6",
            ),
            (
                "SELECT nullif(f8, 0), CASE f8 WHEN 0 THEN 'zero' ELSE 'other' END FROM floats WHERE id IN (0, 3) \
                 ORDER BY id",
                "NULL|zero\n1.5|other",
            ),
            ("SELECT nullif('1 mon'::interval, interval '30 days'), nullif('1.0'::jsonb, '1'::jsonb)", "NULL|NULL"),
            ("SELECT CASE '1 mon'::interval WHEN interval '30 days' THEN 1 END", "1"),
            (
                "SELECT '-0'::float8, '-0'::float8 = 0, ('Infinity'::float8 - 'Infinity'::float8) = 'NaN'::float8",
                "-0|t|t",
            ),
            ("SELECT f8 FROM floats WHERE id = 0", "-0"),
            ("SELECT max(id) FROM floats GROUP BY f8 + 1, f4 HAVING f8 + 1 = 1", "5"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_may_have_the_same_name() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            ("SELECT 1, 1 UNION ALL SELECT 2, 2 ORDER BY 1", "1|1\n2|2"),
            ("SELECT id::text::int, id::bigint::int, id FROM events WHERE id = 3", "3|3|3"),
            ("(SELECT 1, 1) UNION (SELECT 1, 1)", "1|1"),
            ("SELECT id, events.id FROM events WHERE id = 3", "3|3"),
            ("SELECT id, id::text, (id) FROM events WHERE id = 3", "3|3|3"),
            ("SELECT 1 + 1, (1 + 1), 1 AS a, 2 AS a", "2|2|1|2"),
            ("SELECT DISTINCT a.id, b.id FROM events a JOIN events b ON a.id = b.id ORDER BY b.id DESC LIMIT 1", "9|9"),
            (
                "SELECT * FROM (SELECT a.id, b.id FROM events a JOIN events b ON a.id = b.id + 1 WHERE a.id = 2) AS t",
                "2|1",
            ),
            ("SELECT count(*) FROM (SELECT 1, 1, id, * FROM events) AS t", "10"),
            ("SELECT count FROM (SELECT count(*) FROM events) AS t", "10"),
            ("WITH t AS (SELECT max(id), min(id) FROM events) SELECT max - min FROM t", "9"),
            ("SELECT 1 WHERE EXISTS (SELECT 1, 1)", "1"),
            ("SELECT id + 1 FROM events ORDER BY id + 1 DESC LIMIT 1", "10"),
        ],
    )
    .await;
    for (sql, expected) in [
        ("SELECT * FROM (SELECT id, events.id, name FROM events) AS t", vec!["id", "id", "name"]),
        ("SELECT 1, 1 UNION ALL SELECT 2, 2", vec!["?column?", "?column?"]),
        ("SELECT * FROM (SELECT count(*), 1 FROM events) AS t", vec!["count", "?column?"]),
    ] {
        let statement = client.prepare(sql).await.expect(sql);
        let names: Vec<&str> = statement.columns().iter().map(tokio_postgres::Column::name).collect();
        assert_eq!(names, expected, "{sql}");
    }
    // PostgreSQL returns 42702; both refuse the query.
    assert_eq!(db_error(&client, "SELECT id FROM (SELECT id, id FROM events) AS t").await.code().code(), "42703");
}

#[tokio::test(flavor = "multi_thread")]
async fn information_schema_has_postgresqls_types() {
    let (_cluster, client) = cluster().await;
    let sql = "SELECT column_name, data_type, udt_name, ordinal_position, numeric_precision, datetime_precision \
               FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'types' ORDER BY 4";
    assert_eq!(
        rows(&client, sql).await,
        "b|boolean|bool|1|NULL|NULL\n\
         i2|smallint|int2|2|16|NULL\n\
         i4|integer|int4|3|32|NULL\n\
         i8|bigint|int8|4|64|NULL\n\
         f4|real|float4|5|24|NULL\n\
         f8|double precision|float8|6|53|NULL\n\
         v|character varying|varchar|7|NULL|NULL\n\
         y|bytea|bytea|8|NULL|NULL\n\
         d|date|date|9|NULL|0\n\
         ts|timestamp without time zone|timestamp|10|NULL|6\n\
         tz|timestamp with time zone|timestamptz|11|NULL|6\n\
         j|jsonb|jsonb|12|NULL|NULL"
    );
    assert_eq!(db_error(&client, "SELECT 1 FROM information_schema.nothing").await.code().code(), "42P01");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_refused() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            ("EXPLAIN (FORMAT JSON) SELECT 1", "ERROR 0A000"),
            ("EXPLAIN (FORMAT nonsense) SELECT 1", "ERROR 22023"),
            ("EXPLAIN (nonsense) SELECT 1", "ERROR 42601"),
            ("EXPLAIN (BUFFERS) SELECT 1", "ERROR 0A000"),
            (
                "SELECT pg_size_pretty(1024), pg_size_pretty(123456789::bigint), pg_size_pretty(NULL::bigint)",
                "1024 bytes|118 MB|NULL",
            ),
            ("SELECT pg_size_pretty('x'::text)", "ERROR 42883"),
        ],
    )
    .await;
    assert!(!rows(&client, "EXPLAIN (COSTS OFF, VERBOSE, FORMAT TEXT) SELECT id FROM events").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn long_chains_are_answered_or_refused() {
    let (_cluster, client) = cluster().await;
    let chain = |item: &str, count, by: &str| vec![item; count].join(by);
    let with: Vec<String> = (1..200).map(|n| format!("t{n} AS (SELECT a + 1 AS a FROM t{})", n - 1)).collect();
    for (sql, expected) in [
        (format!("SELECT {}", chain("1", 240, " + ")), "240"),
        (format!("SELECT count(*) FROM events WHERE {}", chain("id = 1", 240, " OR ")), "1"),
        (format!("SELECT count(*) FROM events WHERE {}", chain("(id = 1 OR name = 'x')", 240, " AND ")), "1"),
        (format!("SELECT {}", chain("'a'", 240, " || ")), &"a".repeat(240)),
        (format!("SELECT count(*) FROM ({}) AS t", chain("SELECT 1, 2", 50, " UNION ALL ")), "50"),
        (format!("WITH t0 AS (SELECT 1 AS a), {} SELECT a FROM t199", with.join(", ")), "200"),
    ] {
        assert_eq!(rows(&client, &sql).await, expected, "{}", &sql[..60]);
    }
    for sql in [
        format!("SELECT count(*) FROM events WHERE {}", chain("id = 1", 100_000, " OR ")),
        format!("SELECT count(*) FROM events WHERE {}", chain("id = 1", 950, " OR ")),
        format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)),
    ] {
        assert_eq!(db_error(&client, &sql).await.code().code(), "54001", "{}", &sql[..60]);
    }
    assert_eq!(rows(&client, "SELECT 1").await, "1");
}

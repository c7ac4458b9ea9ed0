//! Numbers, times, arrays and structs at the prompt. The expected answers are those of PostgreSQL
//! 15, except for trailing zeros of numerics.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int32Builder, IntervalMonthDayNanoArray, ListBuilder, StringArray,
    StringBuilder, StructArray, Time64MicrosecondArray,
};
use datafusion::arrow::compute::cast;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use weir_common::interval::Interval;
use weir_common::types::{SqlType, StructField};

use crate::cluster::{Cluster, Shared};
use crate::statements::{db_error, rows};

fn array(element: SqlType) -> SqlType {
    SqlType::Array(Box::new(element))
}

/// Adds two rows of values and one of NULLs, in three slots.
fn add_values(shared: &Shared) {
    let numbers = StringArray::from(vec![Some("1.50"), Some("-12345678901234567890.25"), None]);
    let money = Decimal128Array::from(vec![Some(150), Some(-7), None])
        .with_data_type(SqlType::Decimal { precision: 10, scale: 2 }.arrow());
    let interval = |text: &str| Interval::parse(text).and_then(Interval::to_arrow);
    let mut integers = ListBuilder::new(Int32Builder::new());
    integers.append_value([Some(1), None, Some(3)]);
    integers.append_value([]);
    integers.append_null();
    let mut texts = ListBuilder::new(StringBuilder::new());
    texts.append_value([Some("a b"), Some("NULL"), None]);
    texts.append_value([Some("")]);
    texts.append_null();
    let fields =
        [("x", SqlType::Integer), ("y", SqlType::Varchar)].map(|(name, ty)| StructField { name: name.to_owned(), ty });
    let parts: Vec<ArrayRef> = vec![
        Arc::new(datafusion::arrow::array::Int32Array::from(vec![Some(1), None, None])),
        Arc::new(StringArray::from(vec![Some("a, b"), Some(""), None])),
    ];
    let structs = StructArray::new(StructField::arrow(&fields), parts, Some(vec![true, true, false].into()));
    let documents = StringArray::from(vec![Some(r#"{"a": 1.0}"#), Some(r#"{"a": 1}"#), None]);
    shared.add(
        "v",
        &[
            ("k", SqlType::Integer, Arc::new(datafusion::arrow::array::Int32Array::from(vec![1, 2, 3]))),
            ("n", SqlType::Numeric, cast(&numbers, &SqlType::Numeric.arrow()).expect("numbers")),
            ("m", SqlType::Decimal { precision: 10, scale: 2 }, Arc::new(money)),
            ("t", SqlType::Time, Arc::new(Time64MicrosecondArray::from(vec![Some(86_400_000_000), Some(1), None]))),
            (
                "i",
                SqlType::Interval,
                Arc::new(IntervalMonthDayNanoArray::from(vec![interval("1 mon"), interval("30 days"), None])),
            ),
            ("a", array(SqlType::Integer), Arc::new(integers.finish())),
            ("s", array(SqlType::Varchar), Arc::new(texts.finish())),
            ("r", SqlType::Struct(fields.to_vec()), Arc::new(structs)),
            ("f", SqlType::Double, Arc::new(Float64Array::from(vec![Some(-0.0), Some(0.0), Some(f64::NAN)]))),
            ("j", SqlType::Jsonb, Arc::new(documents)),
        ],
        1,
    );
}

async fn check(client: &Client, cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (sql, expected) in cases {
        let answer = match client.simple_query(sql).await {
            Ok(_) => rows(client, sql).await,
            Err(error) => format!("{:?}", error.as_db_error()),
        };
        if answer != *expected {
            wrong.push(format!("{sql}\n  expected {expected:?}\n  answered {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn values() -> (Cluster, Client) {
    let cluster = Cluster::start().await;
    add_values(&cluster.shared);
    let client = cluster.client().await;
    (cluster, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_printed_and_described() {
    let (_cluster, client) = values().await;
    check(
        &client,
        &[(
            "SELECT * FROM v ORDER BY k",
            "1|1.5|1.50|24:00:00|1 mon|{1,NULL,3}|{\"a b\",\"NULL\",NULL}|(1,\"a, b\")|-0|{\"a\": 1.0}\n\
             2|-12345678901234567890.25|-0.07|00:00:00.000001|30 days|{}|{\"\"}|(,\"\")|0|{\"a\": 1}\n\
             3|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NaN|NULL",
        )],
    )
    .await;
    let statement = client.prepare("SELECT n, m, t, i, a, s, r FROM v").await.expect("a query");
    let types: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    let expected =
        [Type::NUMERIC, Type::NUMERIC, Type::TIME, Type::INTERVAL, Type::INT4_ARRAY, Type::VARCHAR_ARRAY, Type::RECORD];
    assert_eq!(types, expected);
    assert_eq!(client.query(&statement, &[]).await.expect("binary").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn numerics_are_computed_as_in_postgresql() {
    let (_cluster, client) = values().await;
    check(
        &client,
        &[
            (
                "SELECT 10::numeric / 3, 10::numeric / 4, 1 / 7::numeric",
                "3.3333333333333333|2.5|0.14285714285714285714",
            ),
            ("SELECT 1.50 * 2.5, 1.50 + 1, 7.5 % 2, -7.5 % 2", "3.750|2.50|1.5|-1.5"),
            ("SELECT n * n FROM v WHERE k = 1", "2.25"),
            (
                "SELECT n + 1, n - 0.5, -n FROM v WHERE k = 2",
                "-12345678901234567889.25|-12345678901234567890.75|12345678901234567890.25",
            ),
            ("SELECT m * 2, m / 7 FROM v WHERE k = 1", "3.00|0.21428571428571428571"),
            (
                "SELECT sum(n), avg(n), sum(m), avg(m), avg(k), avg(k::bigint + 0) FROM v",
                "-12345678901234567888.75|-6172839450617283944.38|1.43|0.715|2|2",
            ),
            ("SELECT avg(x), sum(x) FROM (VALUES (1.5), (2.25)) AS t (x)", "1.875|3.75"),
            (
                "SELECT k % 2, avg(n) FROM v GROUP BY k % 2 HAVING avg(n) IS NOT NULL ORDER BY avg(n)",
                "0|-12345678901234567890.25\n1|1.5",
            ),
            ("SELECT max(n), min(m), count(DISTINCT n) FROM v", "1.5|-0.07|2"),
            ("SELECT k FROM v ORDER BY n", "2\n1\n3"),
            ("SELECT k FROM v ORDER BY n DESC", "3\n1\n2"),
            ("SELECT k FROM v WHERE n = 1.5 AND m = 1.5 AND n > 1 AND n < 1.51", "1"),
            ("SELECT k FROM v WHERE n IN (1.5, 2) OR n BETWEEN 1.4 AND 1.6", "1"),
            ("SELECT n = f + 1.5 FROM v WHERE k = 1", "t"),
            ("SELECT f > 1.5 FROM v ORDER BY k", "f\nf\nt"),
            ("SELECT 2.5::int, -2.5::int, 2.5::float8::int, 3.5::float8::int", "3|-3|2|4"),
            ("SELECT 0.1::float8::numeric, '1e5'::numeric, ' .5 '::numeric, 1e-3, 1e3", "0.1|100000|0.5|0.001|1000"),
            ("SELECT 1.25::numeric(10, 1), (-1.25)::numeric(10, 1), 1.5::numeric(10, 3)", "1.3|-1.3|1.500"),
            ("SELECT n::text, m::text, n::float8, m::int FROM v WHERE k = 1", "1.5|1.50|1.5|2"),
            ("SELECT round(2.345, 2), round(2.5), 1e308::float8", "2.35|3|1e+308"),
            ("SELECT sum(x) FROM (VALUES (9223372036854775807), (1)) AS t (x)", "9223372036854775808"),
        ],
    )
    .await;
    for (sql, code) in [
        ("SELECT n / 0 FROM v", "22012"),
        ("SELECT n % 0.0 FROM v", "22012"),
        ("SELECT 1.5 / 0", "22012"),
        ("SELECT 'x'::numeric", "22P02"),
        ("SELECT 123::numeric(2, 0)", "22003"),
        ("SELECT '1e48'::numeric", "22003"),
        ("SELECT 1e40::numeric * 1e40::numeric", "22003"),
        ("SELECT 3e9::float8::int", "22003"),
        ("SELECT n::smallint FROM v WHERE k = 2", "22003"),
    ] {
        assert_eq!(db_error(&client, sql).await.code().code(), code, "{sql}");
    }
    let statement = client.prepare("SELECT k FROM v WHERE n = $1::numeric").await.expect("a query");
    assert_eq!(statement.params(), [Type::NUMERIC]);
    let statement =
        client.prepare("SELECT 1.5, avg(k), n / 2, k / 2, sum(m) FROM v GROUP BY n, k").await.expect("a query");
    let types: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    assert_eq!(types, [Type::NUMERIC, Type::NUMERIC, Type::NUMERIC, Type::INT4, Type::NUMERIC]);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_values_are_equal_wherever_they_are_compared() {
    let (_cluster, client) = values().await;
    check(
        &client,
        &[
            ("SELECT f = 0, f = -0.0::float8, f <> 0 FROM v ORDER BY k", "t|t|f\nt|t|f\nf|f|t"),
            ("SELECT count(*) FROM v GROUP BY f ORDER BY f", "2\n1"),
            ("SELECT abs(f) FROM (SELECT DISTINCT f FROM v) AS d (f) ORDER BY 1", "0\nNaN"),
            ("SELECT count(DISTINCT f), max(f), abs(min(f)) FROM v", "2|NaN|0"),
            ("SELECT a.k, b.k FROM v a JOIN v b ON a.f = b.f WHERE a.k < b.k", "1|2"),
            ("SELECT count(*) FROM v a JOIN v b USING (f)", "5"),
            ("SELECT k, row_number() OVER (PARTITION BY f ORDER BY k) FROM v ORDER BY k", "1|1\n2|2\n3|1"),
            ("SELECT x FROM (VALUES (1::float8), (NULL), ('NaN'), ('-Infinity'), ('Infinity')) AS t (x) ORDER BY x", "-Infinity\n1\nInfinity\nNaN\nNULL"),
            ("SELECT x FROM (VALUES (1::float8), (NULL), ('NaN'), ('-Infinity')) AS t (x) ORDER BY x DESC", "NULL\nNaN\n1\n-Infinity"),
            ("SELECT 'NaN'::float8 = 'NaN'::float8, 'NaN'::float8 > 'Infinity'::float8", "t|t"),
            ("SELECT i = interval '30 days', i < interval '31 days' FROM v WHERE k = 1", "t|t"),
            ("SELECT count(*) FROM v GROUP BY i ORDER BY i", "2\n1"),
            ("SELECT k FROM v WHERE i IN (interval '720 hours') ORDER BY k", "1\n2"),
            ("SELECT interval '1 mon' = interval '30 days', interval '1 day' = '24:00', interval '-1 mon' < interval '0'", "t|t|t"),
            ("SELECT count(*) FROM v GROUP BY j ORDER BY j", "2\n1"),
            ("SELECT a.k, b.k FROM v a, v b WHERE a.j = b.j AND a.k < b.k", "1|2"),
            ("SELECT '{\"a\":1.0}'::jsonb = '{\"a\":1}'::jsonb, '1.00'::jsonb = '1'::jsonb", "t|t"),
            ("SELECT k FROM v ORDER BY t", "2\n1\n3"),
            ("SELECT k FROM v ORDER BY i DESC, k DESC", "3\n2\n1"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_intervals_are_read_and_printed() {
    let (_cluster, client) = values().await;
    check(
        &client,
        &[
            ("SELECT interval '1 year 2 mons 3 days 04:05:06.789', interval '-1 days +02:03:00'", "1 year 2 mons 3 days 04:05:06.789|-1 days +02:03:00"),
            ("SELECT '1.5 months'::interval, 'P1Y2M3DT4H5M6.7S'::interval, interval '2 weeks'", "1 mon 15 days|1 year 2 mons 3 days 04:05:06.7|14 days"),
            ("SELECT date '2024-01-31' + interval '1 month'", "2024-02-29 00:00:00"),
            ("SELECT '2024-01-03 01:00:00'::timestamp - '2024-01-01'::timestamp", "2 days 01:00:00"),
            (
                "SELECT '2024-01-03 01:00'::timestamp, '2024-01-03 01:00:00+02'::timestamp, \
                 '2024-01-03 01:00+02'::timestamptz, '2024-01-03 23:30:00-05'::date, '{2024-01-03 01:00}'::timestamp[]",
                "2024-01-03 01:00:00|2024-01-03 01:00:00|2024-01-02 23:00:00+00|2024-01-03|{\"2024-01-03 01:00:00\"}",
            ),
            (
                "SELECT x BETWEEN '2024-01-03 00:59' AND '3024-01-03 01:00+05', x IN ('2024-01-03 01:00'), \
                 x < '9999-12-31', '2024-01-03 00:59' < x, x = '2024-01-03 01:00+02' FROM (SELECT timestamp '2024-01-03 01:00' AS x)",
                "t|t|t|t|t",
            ),
            ("SELECT '12:34:56.7'::time, time '24:00', '1:02 PM'::time", "12:34:56.7|24:00:00|13:02:00"),
            ("SELECT k FROM v WHERE t = '24:00'::time OR t < time '00:01' ORDER BY k", "1\n2"),
            ("SELECT i::text, t::text FROM v WHERE k = 1", "1 mon|24:00:00"),
            ("SELECT min(t), max(i) = interval '1 mon' FROM v", "00:00:00.000001|t"),
            ("SELECT true::text, 1.5::float8::text, 1e20::float8::text, '2024-01-01'::timestamp::text, '\\x01'::bytea::text", "true|1.5|1e+20|2024-01-01 00:00:00|\\x01"),
        ],
    )
    .await;
    assert_eq!(db_error(&client, "SELECT 'soon'::interval").await.code().code(), "22007");
    assert_eq!(db_error(&client, "SELECT '25:00'::time").await.code().code(), "22007");
    let error = db_error(&client, "SELECT '2024-13-01'::timestamptz").await;
    assert_eq!(
        (error.code().code(), error.message()),
        ("22007", "invalid input syntax for type timestamp with time zone: \"2024-13-01\"")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_arrays_and_structs_are_found() {
    let (_cluster, client) = values().await;
    check(
        &client,
        &[
            ("SELECT a[1], a[2], a[3], a[4], a[0] FROM v WHERE k = 1", "1|NULL|3|NULL|NULL"),
            ("SELECT array_length(a, 1), cardinality(a) FROM v ORDER BY k", "3|3\nNULL|0\nNULL|NULL"),
            (
                "SELECT 3 = ANY(a), 4 = ANY(a), 1 = ALL(a), 0 < ALL(a) FROM v ORDER BY k",
                "t|NULL|f|NULL\nf|f|t|t\nNULL|NULL|NULL|NULL",
            ),
            ("SELECT 2 = ANY(ARRAY[1, 2]), 5 <> ANY(ARRAY[5, 5]), 3 = ALL(ARRAY[3, 3]), 2 = ANY('{1,2}')", "t|f|t|t"),
            ("SELECT 'a b' = ANY(s), s[2] FROM v WHERE k = 1", "t|NULL"),
            (
                "SELECT k = ANY('{1,NULL}'), k <> ALL('{1,NULL}'), k < ANY('{}'), k < ALL('{}'), k = ANY(NULL::int[]) FROM v \
                 ORDER BY k",
                "t|f|f|t|NULL\nNULL|NULL|f|t|NULL\nNULL|NULL|f|t|NULL",
            ),
            ("SELECT f = ANY('{-0,NaN}'), f > ANY('{1}'), f <= ALL('{0}') FROM v ORDER BY k", "t|f|t\nt|f|t\nt|t|f"),
            ("SELECT NULL = ANY('{1}'::int[]), 1 = ANY('{1}'::int[]), NULL::int = ANY('{}'::int[])", "NULL|t|f"),
            ("SELECT k FROM v WHERE k = ANY('{1,3}'::int[]) ORDER BY k", "1\n3"),
            (
                "SELECT '{1,NULL,3}'::int[], '{\"a b\",c}'::text[], '{{1},{2}}'::int[][]",
                "{1,NULL,3}|{\"a b\",c}|{{1},{2}}",
            ),
            (
                "SELECT array[1, 2, NULL], array['a', 'b c', 'NULL', '', 'x\"y', '{', ','], array[[1, 2], [3, 4]]",
                "{1,2,NULL}|{a,\"b c\",\"NULL\",\"\",\"x\\\"y\",\"{\",\",\"}|{{1,2},{3,4}}",
            ),
            ("SELECT a = ARRAY[1, NULL, 3], a = '{}' FROM v ORDER BY k", "t|f\nf|t\nNULL|NULL"),
            ("SELECT count(*) FROM v GROUP BY a ORDER BY 1", "1\n1\n1"),
            ("SELECT k FROM v ORDER BY a", "2\n1\n3"),
            ("SELECT unnest(a) FROM v WHERE k = 1", "1\nNULL\n3"),
            ("SELECT a::text, r::text FROM v WHERE k = 1", "{1,NULL,3}|(1,\"a, b\")"),
            ("SELECT (r).x, (r).y FROM v ORDER BY k", "1|a, b\nNULL|\nNULL|NULL"),
            ("SELECT (v.r).y, (r).x + 1 FROM v WHERE (r).x = 1", "a, b|2"),
            ("SELECT k FROM v WHERE r IS NULL", "3"),
            ("SELECT count(*) FROM v GROUP BY r ORDER BY 1", "1\n1\n1"),
            ("SELECT array_agg(k ORDER BY k) FROM v", "{1,2,3}"),
        ],
    )
    .await;
    assert_eq!(db_error(&client, "SELECT '{1'::int[]").await.code().code(), "22P02");
    assert_eq!(db_error(&client, "SELECT '{x}'::int[]").await.code().code(), "22P02");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_have_the_same_texts() {
    use futures::TryStreamExt;
    let (_cluster, client) = values().await;
    let copied = async |sql: &str| {
        let stream = client.copy_out(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let bytes = stream.try_collect::<Vec<_>>().await.expect(sql).concat();
        String::from_utf8(bytes).expect("text")
    };
    assert_eq!(
        copied("COPY (SELECT n, i, s, r FROM v WHERE k = 1) TO STDOUT").await,
        "1.5\t1 mon\t{\"a b\",\"NULL\",NULL}\t(1,\"a, b\")\n"
    );
    assert_eq!(
        copied("COPY (SELECT m, a, r FROM v WHERE k = 1) TO STDOUT (FORMAT csv)").await,
        "1.50,\"{1,NULL,3}\",\"(1,\"\"a, b\"\")\"\n"
    );
}

//! Every column type from JSON to a query's answer, and what does not fit.

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::NoTls;
use tokio_postgres::types::{FromSql, Type};
use weir_e2e::sandbox::scenario;
use weir_e2e::wait::eventually_equal;

use crate::support::{SOON, events_options, publish_payloads, standalone, wait_for};

const COLUMNS: &str = "n bigint, a_boolean boolean, a_smallint smallint, an_integer integer, a_bigint bigint, a_real real, \
                       a_double double precision, a_varchar varchar, a_bytea bytea, a_timestamp timestamp, \
                       a_timestamptz timestamptz, a_date date, a_jsonb jsonb";

const FULL: &str = r#"{"n": 1, "a_boolean": true, "a_smallint": -32768, "an_integer": 2147483647,
    "a_bigint": 9223372036854775807, "a_real": 1.5, "a_double": -0.1, "a_varchar": "naïve \"☃\"\n", "a_bytea": "\\x00ff10",
    "a_timestamp": "2026-02-28T23:59:59.123456", "a_timestamptz": "2026-03-01T01:30:00+02:00", "a_date": "1969-12-31",
    "a_jsonb": {"b": [1, 2.50, null], "a": "x"}, "unknown": {"is": "skipped"}}"#;

#[test]
fn every_type_arrives_as_postgres_prints_it() {
    scenario("types", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        let nulls = r#"{"n": 3, "a_boolean": null, "a_smallint": null, "an_integer": null, "a_bigint": null,
            "a_real": null, "a_double": null, "a_varchar": null, "a_bytea": null, "a_timestamp": null,
            "a_timestamptz": null, "a_date": null, "a_jsonb": null}"#;
        publish_payloads(&nats, "events.a", &[FULL, r#"{"n": 2}"#, nulls]).await?;
        sql.query(&format!(
            "CREATE TABLE t ({COLUMNS}) WITH ({}) FORMAT PLAIN ENCODE JSON",
            events_options(&nats.address())
        ))
        .await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 3, SOON).await?;
        let answer = sql.query("SELECT * FROM t ORDER BY n").await?;
        let wanted = [
            "1",
            "t",
            "-32768",
            "2147483647",
            "9223372036854775807",
            "1.5",
            "-0.1",
            "naïve \"☃\"\n",
            "\\x00ff10",
            "2026-02-28 23:59:59.123456",
            "2026-02-28 23:30:00+00",
            "1969-12-31",
            r#"{"a": "x", "b": [1, 2.50, null]}"#,
        ];
        assert_eq!(answer.row(0), wanted);
        for row in 1..3 {
            assert!(answer.rows[row][1..].iter().all(Option::is_none), "missing and null fields are NULL: {answer}");
        }
        Ok(())
    });
}

#[test]
fn bad_records_are_skipped_counted_and_acknowledged() {
    scenario("bad-records", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["bad record"]);
        let mut sql = weir.sql();
        let bad = [
            r#"{"n": 10, "a_smallint": 40000}"#,
            r#"{"n": 11, "an_integer": "twelve"}"#,
            r#"{"n": 12, "a_boolean": 1}"#,
            r#"{"n": 13, "a_timestamp": "yesterday"}"#,
            r#"{"n": 14, "a_bytea": "\\xzz"}"#,
            r#"{"n": 15, "a_varchar": {"an": "object"}}"#,
            r#"[1, 2, 3]"#,
            r#"{"n": 16"#,
            "\u{1}not json at all",
            "",
        ];
        publish_payloads(&nats, "events.a", &[r#"{"n": 1}"#]).await?;
        publish_payloads(&nats, "events.a", &bad).await?;
        publish_payloads(&nats, "events.a", &[r#"{"n": 2}"#]).await?;
        sql.query(&format!(
            "CREATE TABLE t ({COLUMNS}) WITH ({}, consumer.durable_name = 'd', consumer.ack_policy = 'all') \
             FORMAT PLAIN ENCODE JSON",
            events_options(&nats.address())
        ))
        .await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 2, SOON).await?;
        wait_for(&mut sql, "SELECT sum(n) FROM t", 3, SOON).await?;
        eventually_equal("bad records to be counted", SOON, bad.len() as f64, async || {
            weir.metric("weir_source_bad_records_total").await
        })
        .await?;
        eventually_equal("everything to be acknowledged", SOON, nats.last_sequence("EVENTS").await?, async || {
            nats.ack_floor("EVENTS", "d").await
        })
        .await?;
        // The source goes on.
        publish_payloads(&nats, "events.a", &[r#"{"n": 4}"#]).await?;
        wait_for(&mut sql, "SELECT sum(n) FROM t", 7, SOON).await
    });
}

/// Columns of the types that are made of others, or have a form of their own on the wire.
const MORE_COLUMNS: &str = "n bigint, a_numeric numeric, a_money decimal(10, 2), a_time time, an_interval interval, \
                            numbers int[], texts varchar[], grid numeric[][], a_struct struct<x int, y varchar>, \
                            structs struct<at timestamptz, tags varchar[]>[], documents jsonb[]";

#[test]
fn numbers_times_arrays_and_structs_arrive_as_postgres_prints_and_sends_them() {
    scenario("more-types", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["bad record"]);
        let full = r#"{"n": 1, "a_numeric": 12345678901234567890.0123456789000, "a_money": "-1.005", "a_time": "12:34:56.5",
            "an_interval": "1 year 2 months -3 days 04:05:06.7", "numbers": [1, null, 3],
            "texts": ["a", "b c", "NULL", "", null, "x\"y\\z"], "grid": [[1.5, 2], [null, "3.25"]],
            "a_struct": {"Y": "a, \"b\"", "x": 7, "unknown": []},
            "structs": [{"at": "2026-03-01T01:30:00+02:00", "tags": ["p", "q r"]}, null, {}],
            "documents": [{"b": 1, "a": [2]}, "text"]}"#;
        let bad = [
            r#"{"n": 2, "a_numeric": 1e-29}"#,
            r#"{"n": 2, "a_money": 100000000}"#,
            r#"{"n": 2, "a_time": "25:00"}"#,
            r#"{"n": 2, "an_interval": "soon"}"#,
            r#"{"n": 2, "numbers": [1, "x"]}"#,
            r#"{"n": 2, "a_struct": {"x": "x"}}"#,
            r#"{"n": 2, "structs": [{"tags": [{}]}]}"#,
        ];
        publish_payloads(&nats, "events.a", &[full]).await?;
        publish_payloads(&nats, "events.a", &bad).await?;
        publish_payloads(&nats, "events.a", &[r#"{"n": 3, "numbers": [], "grid": [[1], [2, 3]]}"#]).await?;
        let mut sql = weir.sql();
        let options = events_options(&nats.address());
        sql.query(&format!("CREATE TABLE t ({MORE_COLUMNS}) WITH ({options}) FORMAT PLAIN ENCODE JSON")).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 2, SOON).await?;
        let answer = sql.query("SELECT * FROM t ORDER BY n").await?;
        let wanted = [
            "1",
            "12345678901234567890.0123456789",
            "-1.01",
            "12:34:56.5",
            "1 year 2 mons -3 days +04:05:06.7",
            "{1,NULL,3}",
            r#"{a,"b c","NULL","",NULL,"x\"y\\z"}"#,
            "{{1.5,2},{NULL,3.25}}",
            r#"(7,"a, ""b""")"#,
            r#"{"(\"2026-02-28 23:30:00+00\",\"{p,\"\"q r\"\"}\")",NULL,"(,)"}"#,
            r#"{"{\"a\": [2], \"b\": 1}","\"text\""}"#,
        ];
        assert_eq!(answer.row(0), wanted);
        assert_eq!(answer.row(1), ["3", "", "", "", "", "{}", "", "{{1},{2,3}}", "", "", ""]);
        let parts = sql
            .query(
                "SELECT a_numeric * 2, a_money + 1, an_interval = interval '14 months -3 days 04:05:06.7', numbers[3], \
                 3 = ANY(numbers), 4 = ANY(numbers), array_length(texts, 1), grid[2][2], (a_struct).y, \
                 (structs[1]).tags[2] FROM t WHERE n = 1",
            )
            .await?;
        let wanted = ["24691357802469135780.0246913578", "-0.01", "t", "3", "t", "", "6", "3.25", "a, \"b\"", "q r"];
        assert_eq!(parts.row(0), wanted);

        let address = weir.sql_address();
        let parameters = format!("host={} port={} user=root dbname=dev", address.ip(), address.port());
        let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await?;
        tokio::spawn(connection);
        let row = client.query_one("SELECT * FROM t WHERE n = $1", &[&1_i64]).await?;
        let types: Vec<Type> = row.columns().iter().map(|column| column.type_().clone()).collect();
        let wanted = [
            Type::INT8,
            Type::NUMERIC,
            Type::NUMERIC,
            Type::TIME,
            Type::INTERVAL,
            Type::INT4_ARRAY,
            Type::VARCHAR_ARRAY,
            Type::NUMERIC_ARRAY,
            Type::RECORD,
            Type::RECORD_ARRAY,
            Type::JSONB_ARRAY,
        ];
        assert_eq!(types, wanted);
        assert_eq!(row.get::<_, Vec<Option<i32>>>(5), [Some(1), None, Some(3)]);
        let texts = row.get::<_, Vec<Option<String>>>(6);
        assert_eq!(
            texts.iter().map(Option::as_deref).collect::<Vec<_>>(),
            [Some("a"), Some("b c"), Some("NULL"), Some(""), None, Some("x\"y\\z")]
        );
        // The rest as `numeric_send`, `time_send`, `interval_send` and `record_send` of PostgreSQL have them.
        assert_eq!(raw(&row, 2), [0, 2, 0, 0, 0x40, 0, 0, 2, 0, 1, 0, 100]);
        assert_eq!(raw(&row, 3), 45_296_500_000_i64.to_be_bytes());
        let interval =
            [14_706_700_000_i64.to_be_bytes().to_vec(), (-3_i32).to_be_bytes().to_vec(), 14_i32.to_be_bytes().to_vec()];
        assert_eq!(raw(&row, 4), interval.concat());
        let record = [&[0, 0, 0, 2, 0, 0, 0, 23, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 4, 19, 0, 0, 0, 6][..], b"a, \"b\""];
        assert_eq!(raw(&row, 8), record.concat());
        let error = client.query("SELECT grid FROM t WHERE n = 3", &[]).await.err().context("it is not rectangular")?;
        assert_eq!(error.code().map(|code| code.code()), Some("2202E"));
        Ok(())
    });
}

/// A value's bytes, whatever its type.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_ty: &Type, raw: &'a [u8]) -> Result<Raw, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }

    fn accepts(_ty: &Type) -> bool {
        true
    }
}

fn raw(row: &tokio_postgres::Row, column: usize) -> Vec<u8> {
    row.get::<_, Raw>(column).0
}

/// A value as it is published and as it is to be printed.
fn random_value(ty: &str, random: &mut StdRng) -> (String, Option<String>) {
    if random.random_ratio(1, 8) {
        return ("null".to_owned(), None);
    }
    let number: i64 = random.random_range(-1_000_000..1_000_000);
    let sign = if number < 0 { "-" } else { "" };
    let (whole, fraction) = (number.unsigned_abs() / 100, number.unsigned_abs() % 100);
    let quoted = |text: String| (format!("\"{text}\""), Some(text));
    match ty {
        "boolean" => {
            let (written, printed) = if number % 2 == 0 { ("true", "t") } else { ("false", "f") };
            (written.to_owned(), Some(printed.to_owned()))
        }
        "bigint" => (number.to_string(), Some(number.to_string())),
        "double precision" => ((number as f64 / 8.0).to_string(), Some((number as f64 / 8.0).to_string())),
        "numeric(20,4)" => (format!("{sign}{whole}.{fraction:02}"), Some(format!("{sign}{whole}.{fraction:02}00"))),
        "numeric" => {
            let written = format!("{sign}{whole}.{fraction:02}");
            let shown = written.trim_end_matches('0').trim_end_matches('.').to_owned();
            (written, Some(shown))
        }
        "varchar" => quoted(format!("text {number}")),
        "date" => quoted(format!("20{:02}-{:02}-{:02}", whole % 100, 1 + whole % 12, 1 + fraction % 28)),
        "time" => quoted(format!("{:02}:{:02}:{:02}.25", whole % 24, whole % 60, fraction % 60)),
        "timestamp" => quoted(format!("2026-{:02}-{:02} {:02}:00:00", 1 + whole % 12, 1 + fraction % 28, whole % 24)),
        "interval" => quoted(format!("{} mons {} days {:02}:00:01", 2 + whole % 10, 2 + fraction, whole % 24)),
        "bigint[]" => {
            let parts: Vec<_> = (0..fraction % 4).map(|_| random_value("bigint", random)).collect();
            let printed: Vec<String> =
                parts.iter().map(|(_, text)| text.clone().unwrap_or("NULL".to_owned())).collect();
            let written: Vec<String> = parts.into_iter().map(|(json, _)| json).collect();
            (format!("[{}]", written.join(",")), Some(format!("{{{}}}", printed.join(","))))
        }
        _ => {
            let (a, b) = (random_value("numeric", random), random_value("varchar", random));
            let text = b.1.map(|text| format!("\"{text}\"")).unwrap_or_default();
            (format!("{{\"b\":{},\"a\":{}}}", b.0, a.0), Some(format!("({},{text})", a.1.unwrap_or_default())))
        }
    }
}

#[test]
fn what_is_published_is_what_a_client_reads() {
    const TYPES: [&str; 12] = [
        "boolean",
        "bigint",
        "double precision",
        "numeric(20,4)",
        "numeric",
        "varchar",
        "date",
        "time",
        "timestamp",
        "interval",
        "bigint[]",
        "struct<a numeric, b varchar>",
    ];
    const ROWS: u64 = 500;
    scenario("round-trip", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut random = StdRng::seed_from_u64(20_260_301);
        let (mut payloads, mut wanted) = (Vec::new(), Vec::new());
        for n in 0..ROWS {
            let values: Vec<_> = TYPES.iter().map(|ty| random_value(ty, &mut random)).collect();
            let members: Vec<String> =
                values.iter().enumerate().map(|(index, (json, _))| format!("\"c{index}\":{json}")).collect();
            payloads.push(format!("{{\"n\":{n},{}}}", members.join(",")));
            let printed = values.into_iter().map(|(_, text)| text);
            wanted.push(std::iter::once(Some(n.to_string())).chain(printed).collect::<Vec<_>>());
        }
        let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
        publish_payloads(&nats, "events.a", &payloads).await?;
        let columns: Vec<String> = TYPES.iter().enumerate().map(|(index, ty)| format!("c{index} {ty}")).collect();
        let mut sql = weir.sql();
        let options = events_options(&nats.address());
        let statement =
            format!("CREATE TABLE t (n bigint, {}) WITH ({options}) FORMAT PLAIN ENCODE JSON", columns.join(", "));
        sql.query(&statement).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", ROWS, SOON).await?;
        let answer = sql.query("SELECT * FROM t ORDER BY n").await?;
        for (row, wanted) in answer.rows.iter().zip(&wanted) {
            assert_eq!(row, wanted);
        }
        assert_eq!(answer.rows.len(), wanted.len());
        Ok(())
    });
}

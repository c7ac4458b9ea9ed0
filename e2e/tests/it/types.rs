//! Every column type from JSON to a query's answer, and what does not fit.

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

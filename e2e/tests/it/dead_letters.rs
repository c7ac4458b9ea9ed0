//! What becomes of messages that are no row of their table.

use anyhow::{Context, ensure};
use async_nats::HeaderMap;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::wait::eventually;
use weir_e2e::weir::Cluster;

use crate::support::{LATE, SOON, acknowledged, create_json, events_options, publish_payloads, standalone, wait_for};

#[test]
fn a_bad_record_is_a_row_of_the_dead_letters() {
    scenario("dead-letters", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["kept a bad record as a dead letter"]);
        let mut sql = weir.sql();
        let mut headers = HeaderMap::new();
        headers.append("trace", "abc");
        let jetstream = nats.jetstream().await?;
        jetstream.publish_with_headers("events.a", headers, r#"{"n": "many"}"#.into()).await?.await?;
        publish_payloads(&nats, "events.b", &[r#"{"n": 2}"#, "no JSON", r#"{"n": 4}"#]).await?;
        let durable = ", consumer.durable_name = 'reader', consumer.ack_policy = 'explicit'";
        create_json(&mut sql, &nats, "TABLE t", "n bigint", durable).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 2, SOON).await?;
        let answer = sql
            .query(
                "SELECT stream, sequence, subject, headers, payload, error, \"column\", time IS NULL \
                 FROM dead_letters.t ORDER BY sequence",
            )
            .await?;
        let headers = r#"{"(trace,\"\\\\x616263\")"}"#;
        let error = r#"column "n": expected bigint, found string "many": invalid digit 'm', at byte 7"#;
        ensure!(
            answer.row(0) == ["EVENTS", "1", "events.a", headers, r"\x7b226e223a20226d616e79227d", error, "n", "f"],
            "{answer}"
        );
        let error = "payload is not JSON: expected a value at byte 0";
        ensure!(answer.row(1) == ["EVENTS", "3", "events.b", "", r"\x6e6f204a534f4e", error, "", "f"], "{answer}");
        ensure!(answer.rows.len() == 2, "{answer}");
        // A bad record is acknowledged like any other.
        acknowledged(&nats, "reader").await?;
        sql.query("DROP TABLE t").await?;
        let gone = sql.refused("SELECT * FROM dead_letters.t").await?;
        ensure!(gone.code().code() == "42P01", "{gone:?}");
        // The next table of the name has its own.
        create_json(&mut sql, &nats, "TABLE t", "n varchar", "").await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 3, SOON).await?;
        wait_for(&mut sql, "SELECT sequence FROM dead_letters.t", 3, SOON).await
    });
}

#[test]
fn bad_records_are_skipped_or_fail_the_job_if_the_table_says_so() {
    scenario("on-error", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["skipped a bad record", "job failed"]);
        let mut sql = weir.sql();
        publish_payloads(&nats, "events.a", &[r#"{"n": 1}"#, r#"{"n": "many"}"#, r#"{"n": 3}"#]).await?;
        create_json(&mut sql, &nats, "TABLE skipping", "n bigint", ", on_error = 'skip'").await?;
        wait_for(&mut sql, "SELECT count(*) FROM skipping", 2, SOON).await?;
        wait_for(&mut sql, "SELECT count(*) FROM dead_letters.skipping", 0, SOON).await?;
        create_json(&mut sql, &nats, "TABLE failing", "n bigint", ", on_error = 'fail'").await?;
        let error = eventually("the job to fail", SOON, async || {
            let answer =
                sql.query("SELECT reason FROM weir_catalog.jobs WHERE name = 'failing' AND state = 'failed'").await?;
            Ok(answer.rows.first().map(|row| row[0].clone().unwrap_or_default()))
        })
        .await?;
        ensure!(
            error
                == r#"message 2 of stream "EVENTS": column "n": expected bigint, found string "many": invalid digit 'm', at byte 7"#,
            "{error}"
        );
        // What other tables read goes on.
        publish_payloads(&nats, "events.a", &[r#"{"n": 4}"#]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM skipping", 3, SOON).await?;
        let options = events_options(&nats.address());
        let statement =
            format!("CREATE TABLE odd (n bigint) WITH ({options}, on_error = 'ignore') FORMAT PLAIN ENCODE JSON");
        let refused = sql.refused(&statement).await?;
        ensure!(refused.message().contains("dead_letter, skip, fail"), "{refused:?}");
        Ok(())
    });
}

/// Of the messages every fifth is bad.
const TOTAL: u64 = 20_000;

#[test]
fn dead_letters_are_there_exactly_once_under_kill_9() {
    scenario("dead-letters-crash", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&["kept a bad record as a dead letter"]);
        let mut sql = cluster.frontend.sql();
        create_json(&mut sql, &nats, "TABLE blocks", "n bigint", "").await?;
        create_json(&mut sql, &nats, "TABLE keyed", "n bigint PRIMARY KEY", ", consumer.durable_name = 'keyed'")
            .await?;
        for round in 0..4 {
            let payload =
                |n: u64| if n.is_multiple_of(5) { format!("{{\"n\": \"{n}\"}}x") } else { format!("{{\"n\": {n}}}") };
            let payloads: Vec<String> = (round * TOTAL / 4..(round + 1) * TOTAL / 4).map(payload).collect();
            publish_payloads(&nats, "events.n", &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await?;
            let victim = &mut cluster.computes[usize::try_from(round % 2).context("0 or 1")?];
            victim.process().kill9()?;
            victim.process().restart()?;
        }
        for table in ["blocks", "keyed"] {
            wait_for(&mut sql, &format!("SELECT count(*) FROM {table}"), TOTAL * 4 / 5, LATE).await?;
            let letters = format!("SELECT count(*) FROM dead_letters.{table}");
            wait_for(&mut sql, &letters, TOTAL / 5, LATE).await?;
            let distinct = format!("SELECT count(DISTINCT sequence) FROM dead_letters.{table}");
            ensure!(sql.value::<u64>(&distinct).await? == TOTAL / 5, "{table}: some are there more than once");
        }
        Ok(())
    });
}

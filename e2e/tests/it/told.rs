//! What users are told: the state of jobs, and that nothing changes while a process stands still.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_e2e::sandbox::scenario;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually;

use crate::support::{SOON, create_json, publish_payloads, standalone, wait_for};

/// Longer than any lease of a term, a pin or a node.
const STANDSTILL: Duration = Duration::from_secs(12);

async fn publish_numbers(nats: &weir_e2e::servers::Nats, numbers: std::ops::Range<u64>) -> Result<()> {
    let payloads = numbers.map(|number| format!("{{\"n\": {number}}}")).collect::<Vec<_>>();
    publish_payloads(nats, "events.n", &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// State and reason of the only job, as soon as the state is the wanted one; both statements say the same.
async fn job_is(sql: &mut Sql, wanted: &str) -> Result<String> {
    eventually(&format!("the job to be {wanted}"), SOON, async || {
        let view = sql.query("SELECT state, reason, since <= now() FROM weir_catalog.jobs").await?;
        let (state, reason) = (view.rows[0][0].as_deref(), view.rows[0][1].clone());
        ensure!(state == Some(wanted), "it is {:?}", view.rows);
        ensure!(view.rows[0][2].as_deref() == Some("t"), "since when is not told: {:?}", view.rows);
        let shown = sql.query("SHOW JOBS").await?;
        ensure!(shown.columns[..6] == ["Id", "Name", "Kind", "State", "Since", "Reason"]);
        ensure!(shown.columns[6..] == ["Progress", "Lag", "Cpu", "StateRows", "StateBytes"]);
        Ok((shown.rows[0][3].as_deref() == state).then(|| reason.unwrap_or_default()))
    })
    .await
}

#[test]
fn a_job_that_cannot_read_its_stream_is_stalled_until_it_can() {
    scenario("stalled", async |sandbox| {
        let (mut nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["not reading"]);
        let mut sql = weir.sql();
        create_json(&mut sql, &nats, "TABLE events", "n bigint", "").await?;
        ensure!(job_is(&mut sql, "running").await?.is_empty());

        nats.process().kill9()?;
        let reason = job_is(&mut sql, "stalled").await?;
        ensure!(reason.contains("NATS"), "{reason}");
        nats.process().restart()?;
        nats.ready().await?;
        ensure!(job_is(&mut sql, "running").await?.is_empty());

        nats.jetstream().await?.delete_stream("EVENTS").await?;
        let reason = job_is(&mut sql, "stalled").await?;
        ensure!(reason.contains("\"EVENTS\" does not exist"), "{reason}");
        Ok(())
    });
}

#[test]
fn a_standalone_that_stood_still_goes_on_with_its_term() {
    scenario("starved", async |sandbox| {
        let (nats, mut weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create_json(&mut sql, &nats, "TABLE events", "n bigint", "").await?;
        publish_numbers(&nats, 0..100).await?;
        wait_for(&mut sql, "SELECT count(*) FROM events", 100, SOON).await?;
        let term = term(&mut sql).await?;
        for round in 1..=2 {
            weir.process().signal("STOP")?;
            // Not to wait for anything: time passes for everybody else.
            tokio::time::sleep(STANDSTILL).await;
            weir.process().signal("CONT")?;
            publish_numbers(&nats, round * 100..round * 100 + 100).await?;
            wait_for(&mut sql, "SELECT count(*) FROM events", round * 100 + 100, SOON).await?;
            let now = self::term(&mut sql).await?;
            ensure!(now == term, "a new term began: {now}, not {term}");
        }
        Ok(())
    });
}

/// The term that runs.
pub(crate) async fn term(sql: &mut Sql) -> Result<String> {
    let cluster = sql.query("SHOW CLUSTER").await?;
    let column = cluster.columns.iter().position(|name| name == "Term").context("a column of terms")?;
    cluster.rows[0][column].clone().context("a term")
}

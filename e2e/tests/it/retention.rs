//! What CREATE, DROP and gaps do where it matters what a stream keeps. That tables are exact whatever dies is tested in
//! `crash` and `cut_connections`, for every retention.

use anyhow::{Result, ensure};
use async_nats::jetstream::stream::RetentionPolicy;
use futures::TryStreamExt;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::wait::{eventually, eventually_equal};

use crate::support::{SOON, events_options, publish_payloads, standalone, standalone_with, wait_for};

fn create(nats: &Nats, name: &str, more: &str) -> String {
    let options = events_options(&nats.address());
    format!("CREATE TABLE {name} (n bigint) WITH ({options}{more}) FORMAT PLAIN ENCODE JSON")
}

async fn publish_numbers(nats: &Nats, numbers: std::ops::Range<u64>) -> Result<()> {
    let payloads = numbers.map(|number| format!("{{\"n\": {number}}}")).collect::<Vec<_>>();
    publish_payloads(nats, "events.n", &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await
}

async fn consumers(nats: &Nats) -> Result<Vec<String>> {
    let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
    Ok(stream.consumer_names().try_collect().await?)
}

#[test]
fn a_table_takes_what_is_published_once_it_is_created_and_leaves_nothing_behind() {
    for retention in [RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        scenario("create-drop", async |sandbox| {
            let (nats, weir) = standalone_with(sandbox, retention).await?;
            let mut sql = weir.sql();
            for round in 0..2 {
                sql.query(&create(&nats, "t", "")).await?;
                publish_numbers(&nats, 0..100).await?;
                wait_for(&mut sql, "SELECT count(*) FROM t", 100, SOON).await?;
                wait_for(&mut sql, "SELECT sum(n) FROM t", 4_950, SOON).await?;
                sql.query("DROP TABLE t").await?;
                ensure!(consumers(&nats).await?.is_empty(), "round {round}: {:?}", consumers(&nats).await?);
                let state = nats.jetstream().await?.get_stream("EVENTS").await?.get_info().await?.state;
                ensure!(state.messages == 0, "what is committed is acknowledged: {state:?}");
            }
            let refusal = sql.refused(&create(&nats, "t", ", consumer.ack_policy = 'all'")).await?;
            ensure!(refusal.code().code() == "22023" && refusal.message().contains("ack_policy"), "{refusal:?}");
            ensure!(consumers(&nats).await?.is_empty(), "nothing was created");
            Ok(())
        });
    }
}

#[test]
fn another_stream_of_the_same_name_is_told_from_the_one_that_was_read() {
    scenario("another-stream", async |sandbox| {
        let (nats, mut weir) = standalone(sandbox).await?;
        weir.process().log().expect_warnings(&["job failed"]);
        let mut sql = weir.sql();
        sql.query(&create(&nats, "t", ", on_gap = 'fail'")).await?;
        publish_numbers(&nats, 0..10).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 10, SOON).await?;
        weir.process().kill9()?;
        nats.jetstream().await?.delete_stream("EVENTS").await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        publish_numbers(&nats, 0..30).await?;
        weir.process().restart()?;
        weir.ready().await?;
        eventually("the failure to be told", SOON, async || {
            let log = weir.process().log().read()?;
            Ok(log.contains("is not the one that was read before").then_some(()))
        })
        .await?;
        wait_for(&mut weir.sql(), "SELECT count(*) FROM t", 10, SOON).await
    });
}

#[test]
fn a_gap_stops_a_table_that_asks_for_it_and_no_other() {
    scenario("gap", async |sandbox| {
        let (nats, mut weir) = standalone(sandbox).await?;
        let warnings = ["job failed", "the stream no longer holds messages that were not read yet"];
        weir.process().log().expect_warnings(&warnings);
        let mut sql = weir.sql();
        sql.query(&create(&nats, "strict", ", on_gap = 'fail', consumer.durable_name = 'strict'")).await?;
        sql.query(&create(&nats, "lenient", "")).await?;
        publish_numbers(&nats, 0..10).await?;
        for table in ["strict", "lenient"] {
            wait_for(&mut sql, &format!("SELECT count(*) FROM {table}"), 10, SOON).await?;
        }
        weir.process().kill9()?;
        publish_numbers(&nats, 10..30).await?;
        nats.jetstream().await?.get_stream("EVENTS").await?.purge().sequence(21).await?;
        weir.process().restart()?;
        weir.ready().await?;
        let mut sql = weir.sql();
        wait_for(&mut sql, "SELECT count(*) FROM lenient", 20, SOON).await?;
        eventually("the failure to be told", SOON, async || {
            let log = weir.process().log().read()?;
            let told = log.lines().any(|line| line.contains("job failed") && line.contains("sequences 11 to 20"));
            Ok(told.then_some(()))
        })
        .await?;
        let jobs = format!("{:?}", sql.query("SHOW JOBS").await?);
        ensure!(jobs.contains("sequences 11 to 20"), "{jobs}");
        publish_numbers(&nats, 30..40).await?;
        wait_for(&mut sql, "SELECT count(*) FROM lenient", 30, SOON).await?;
        wait_for(&mut sql, "SELECT count(*) FROM strict", 10, SOON).await?;
        // Without what is missing it goes on where it was.
        sql.query("ALTER TABLE strict CONNECTOR WITH (on_gap = 'skip')").await?;
        wait_for(&mut sql, "SELECT count(*) FROM strict", 30, SOON).await?;
        sql.query("DROP TABLE strict").await?;
        eventually_equal("its durable to be gone", SOON, false, async || {
            Ok(consumers(&nats).await?.contains(&"strict".to_owned()))
        })
        .await
    });
}

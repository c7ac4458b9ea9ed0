//! Nothing is lost when the object store fails: what passes is survived unseen; what does not stops commits, is said once and
//! where a person looks, and everything goes on by itself when it is mended.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio_util::task::AbortOnDropHandle;
use weir_e2e::chaos::{self, Kill};
use weir_e2e::faults::{Fault, Faults};
use weir_e2e::publish::publish_in_background;
use weir_e2e::s3::S3;
use weir_e2e::sandbox::{Sandbox, scenario};
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually;
use weir_e2e::weir::Cluster;
use weir_e2e::workload::Events;

use crate::crash::NODE_LOST;
use crate::support::{LATE, SOON, acknowledged, compare_events, create_events};

/// Messages a second.
const RATE: u64 = 4_000;
/// Messages while requests fail in passing.
const TOTAL_PASSING: u64 = 60_000;
/// Of a hundred requests, how many fail.
const PERCENT: u32 = 15;
/// Fewer faults than this show nothing.
const FAULTS_MIN: u64 = 50;
/// Messages while requests are refused for good, twice.
const TOTAL_REFUSED: u64 = 60_000;
/// What a compute node says.
const UNUSABLE: &str = "the object store cannot be used";
const USABLE: &str = "the object store can be used again";

async fn start(sandbox: &Sandbox, seed: u64) -> Result<(S3, Faults, Nats, Cluster)> {
    let s3 = S3::start(sandbox).await?;
    let faults = Faults::start(s3.socket(), seed).await?;
    let nats = Nats::start(sandbox).await?;
    nats.create_stream("EVENTS", &["events.>"]).await?;
    let cluster = Cluster::start_on(s3.state_through(faults.address()), sandbox, 1, 2).await?;
    Ok((s3, faults, nats, cluster))
}

/// A table, and messages that flow into it.
struct Flow {
    events: Events,
    total: u64,
    sql: Sql,
    publishing: AbortOnDropHandle<Result<()>>,
}

impl Flow {
    async fn start(nats: &Nats, cluster: &Cluster, total: u64) -> Result<Flow> {
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", 5));
        sql.query(&create_events("events", &nats.address(), "reader")).await?;
        let publishing = publish_in_background(nats.client().await?, events.clone(), 0..total, RATE);
        Ok(Flow { events, total, sql, publishing })
    }

    /// Waits until everything is published, and in the table, and acknowledged.
    async fn finish(mut self, nats: &Nats) -> Result<()> {
        self.publishing.await??;
        compare_events(&mut self.sql, "events", &self.events, self.total).await?;
        acknowledged(nats, "reader").await
    }
}

/// Waits until so many messages are in the stream.
async fn reaches(nats: &Nats, messages: u64) -> Result<()> {
    eventually(&format!("{messages} messages"), LATE, async || {
        Ok((nats.last_sequence("EVENTS").await? >= messages).then_some(()))
    })
    .await
}

#[test]
fn failures_of_requests_that_pass_are_survived_unseen() {
    scenario("object-store-passing", async |sandbox| {
        let seed = chaos::seed();
        let (_s3, faults, nats, mut cluster) = start(sandbox, seed).await?;
        cluster.expect_warnings(&NODE_LOST);
        let flow = Flow::start(&nats, &cluster, TOTAL_PASSING).await?;
        faults.set(
            PERCENT,
            &[
                Fault::Refuse(500, "InternalError"),
                Fault::Refuse(503, "SlowDown"),
                Fault::Cut,
                Fault::LoseAnswer,
                Fault::Delay(Duration::from_millis(400)),
            ],
        );
        // Recovery goes through the same failures.
        for Kill { victim, at, back_at } in chaos::plan(seed, &[0, 1], 3, TOTAL_PASSING / 10..TOTAL_PASSING) {
            reaches(&nats, at).await?;
            eprintln!("{at}: kill compute-{victim}, back at {back_at}");
            cluster.computes[victim].process().kill9()?;
            reaches(&nats, back_at).await?;
            cluster.computes[victim].process().restart()?;
        }
        flow.finish(&nats).await?;
        let injected = faults.injected();
        eprintln!("{injected} requests failed");
        ensure!(injected >= FAULTS_MIN, "only {injected} requests failed");
        Ok(())
    });
}

/// How often each compute node has said so, over all.
fn said(cluster: &Cluster, what: &str) -> Result<usize> {
    let texts = cluster.computes.iter().map(|node| node.log().read()).collect::<Result<Vec<_>>>()?;
    Ok(texts.iter().map(|text| text.matches(what).count()).sum())
}

/// Waits until every compute node has said so as often as wanted.
async fn all_say(cluster: &Cluster, what: &str, wanted: usize) -> Result<()> {
    eventually(&format!("compute nodes to say: {what}"), SOON, async || {
        let said = said(cluster, what)?;
        ensure!(said == wanted, "{said} of {wanted} do");
        Ok(Some(()))
    })
    .await
}

#[test]
fn a_refusal_stops_commits_and_loses_nothing() {
    scenario("object-store-refuses", async |sandbox| {
        let (_s3, faults, nats, mut cluster) = start(sandbox, 1).await?;
        cluster.expect_warnings(&NODE_LOST);
        cluster.expect_warnings(&[UNUSABLE]);
        let flow = Flow::start(&nats, &cluster, TOTAL_REFUSED).await?;

        // While a term runs.
        reaches(&nats, TOTAL_REFUSED / 6).await?;
        faults.set(100, &[Fault::Refuse(403, "AccessDenied")]);
        all_say(&cluster, UNUSABLE, 2).await?;
        let mut sql = cluster.frontend.sql();
        eventually("SHOW CLUSTER to tell what is wrong", SOON, async || {
            let shown = sql.query("SHOW CLUSTER").await?;
            let told = shown.column("Error").into_iter().filter(|error| error.contains("access is denied")).count();
            ensure!(told == 2, "{shown}");
            Ok(Some(()))
        })
        .await?;
        let reason = cluster.computes[0].readiness().await.err().context("the node says that it is ready")?;
        ensure!(reason.to_string().contains("access is denied"), "{reason}");
        let acknowledged = nats.ack_floor("EVENTS", "reader").await?;
        reaches(&nats, TOTAL_REFUSED / 2).await?;
        let floor = nats.ack_floor("EVENTS", "reader").await?;
        ensure!(floor == acknowledged, "messages up to {floor} are acknowledged, which no epoch can hold");
        faults.set(0, &[]);
        all_say(&cluster, USABLE, 2).await?;
        eventually("commits to go on", SOON, async || {
            Ok((nats.ack_floor("EVENTS", "reader").await? > acknowledged).then_some(()))
        })
        .await?;
        ensure!(said(&cluster, UNUSABLE)? == 2, "each node says it once");

        // While a node starts: it waits outside, and what is missing is not the data but the bucket.
        cluster.computes[1].process().kill9()?;
        faults.set(100, &[Fault::Refuse(404, "NoSuchBucket")]);
        cluster.computes[1].process().restart()?;
        let reason = eventually("the node to say why it is not ready", SOON, async || {
            let reason = cluster.computes[1].readiness().await.err().context("it is ready")?;
            Ok(reason.to_string().contains("bucket").then_some(reason))
        })
        .await?;
        ensure!(reason.to_string().contains("bucket \"weir\" does not exist"), "{reason}");
        faults.set(0, &[]);
        cluster.ready().await?;
        flow.finish(&nats).await
    });
}

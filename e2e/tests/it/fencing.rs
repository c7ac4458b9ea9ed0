//! A compute node that was left behind in an old term, and wakes up again, neither commits nor answers.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tonic::Code;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::wait::{PATIENCE, eventually};
use weir_e2e::weir::Cluster;
use weir_e2e::workload::Events;
use weir_proto::compute_client::ComputeClient;
use weir_proto::meta_client::MetaClient;
use weir_proto::{PinRequest, PinResponse, ScanRequest, SlotAddress};

use crate::crash::NODE_LOST;
use crate::support::{Publishing, acknowledged, compare_events, create_events};

const TOTAL: u64 = 40_000;
const DEADLINE: Duration = PATIENCE;

async fn pin(meta: &str) -> Result<PinResponse> {
    let mut client = MetaClient::connect(format!("http://{meta}")).await?;
    Ok(client.pin(PinRequest::default()).await?.into_inner())
}

/// How a node answers a scan of a slot at the pinned epoch.
async fn scan(pinned: &PinResponse, slot: &SlotAddress) -> Result<Code> {
    let mut client = ComputeClient::connect(format!("http://{}", slot.address)).await?;
    let request =
        ScanRequest { term: pinned.term, epoch: pinned.epoch, slot: slot.slot, table: 1, ..ScanRequest::default() };
    match client.scan(request).await {
        Err(status) => Ok(status.code()),
        Ok(mut answer) => loop {
            match answer.get_mut().message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Code::Ok),
                Err(status) => return Ok(status.code()),
            }
        },
    }
}

#[test]
fn a_compute_node_of_an_old_term_neither_commits_nor_answers() {
    scenario("fencing", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", 3));
        sql.query(&create_events("events", &nats.address(), "reader")).await?;
        let mut publishing = Publishing::start(&nats, &events, TOTAL, 2_000).await?;
        publishing.reaches(TOTAL / 8).await?;

        let meta = cluster.metas[0].sql_address().to_string();
        let old = pin(&meta).await?;
        for slot in &old.slots {
            ensure!(scan(&old, slot).await? == Code::Ok, "a scan of the running term is answered");
        }
        cluster.computes[0].process().signal("STOP")?;
        let new = eventually("a term without the stopped node", DEADLINE, async || {
            let pinned = tokio::time::timeout(Duration::from_secs(1), pin(&meta)).await.context("no pin yet")??;
            ensure!(pinned.term != old.term, "still the old term");
            Ok(Some(pinned))
        })
        .await?;
        let survivor = &new.slots[0].address;
        let Some(behind) = old.slots.iter().find(|slot| slot.address != *survivor) else {
            bail!("the stopped node had no slot")
        };
        let Some(moved_on) = old.slots.iter().find(|slot| slot.address == *survivor) else {
            bail!("the survivor had no slot")
        };
        ensure!(scan(&old, moved_on).await? == Code::FailedPrecondition, "a survivor refuses the old term");

        // It wakes up in the middle of what it did, and is told nothing but that its stream is gone.
        cluster.computes[0].process().signal("CONT")?;
        ensure!(
            scan(&new, behind).await? != Code::Ok,
            "a node that was left behind answers for a term that it is not in"
        );
        eventually("the node leaves the old term", DEADLINE, async || {
            ensure!(scan(&old, behind).await? == Code::FailedPrecondition, "it still answers for the old term");
            Ok(Some(()))
        })
        .await?;
        publishing.end().await?;
        compare_events(&mut sql, "events", &events, TOTAL).await?;
        acknowledged(&nats, "reader").await
    });
}

//! How long a cluster of processes is without new rows when one of them is killed with SIGKILL.
//!
//! etcd, two meta nodes of which one stands by, two compute nodes and a frontend, all on one machine. A time runs from the
//! kill until a SELECT shows a row that was published after it.

use std::time::Instant;

use anyhow::{Result, ensure};
use weir_e2e::publish::publish_in_background;
use weir_e2e::recovery::Watched;
use weir_e2e::sandbox::Sandbox;
use weir_e2e::servers::Nats;
use weir_e2e::weir::Cluster;
use weir_e2e::workload::Bids;

use crate::report::{Aim, Report};
use crate::{DEADLINE, Kept, create_table};

/// Messages a second.
const RATE: u64 = 1_000;
/// 3 seconds and the lease of 3 seconds by which meta knows leaders and nodes.
const AIM: Aim = Aim::Under(6_000.0, "");
/// Compute nodes.
const COMPUTES: usize = 2;

/// Measures both kinds of loss, so many times each.
pub(crate) async fn measure(kills: usize, sandbox: &Sandbox, nats: &Nats, report: &mut Report) -> Result<()> {
    println!("measuring recovery of a cluster after {kills} kills of a compute node and of the leader …");
    nats.create_stream("CLUSTER", &["cluster.>"]).await?;
    let mut cluster = Cluster::start(sandbox, 2, COMPUTES).await?;
    let mut sql = cluster.frontend.sql();
    sql.query(&create_table("rows", Kept::Appended, "CLUSTER", "cluster.>", nats)).await?;
    let bids = Bids { prefix: "cluster".to_owned() };
    let publishing = publish_in_background(nats.client().await?, bids, 0..u64::MAX, RATE);
    let watched = Watched { nats, stream: "CLUSTER", table: "rows", deadline: DEADLINE };

    let mut times = Vec::new();
    for kill in 0..kills {
        watched.settled(&mut cluster, &mut sql).await?;
        let victim = kill % COMPUTES;
        let start = Instant::now();
        cluster.computes[victim].process().kill9()?;
        times.push(watched.new_rows(start, &mut sql).await?);
        cluster.computes[victim].process().restart()?;
    }
    println!("compute nodes: {times:?}");
    report.add_times("recovery after kill -9 of a compute node", times, AIM);

    let mut times = Vec::new();
    for _ in 0..kills {
        watched.settled(&mut cluster, &mut sql).await?;
        let leader = cluster.leader().await?;
        let start = Instant::now();
        cluster.metas[leader].process().kill9()?;
        times.push(watched.new_rows(start, &mut sql).await?);
        cluster.metas[leader].process().restart()?;
    }
    println!("leaders: {times:?}");
    report.add_times("recovery after kill -9 of the meta node that leads", times, AIM);
    ensure!(!publishing.is_finished(), "publishing has ended early: {:?}", publishing.await);
    Ok(())
}

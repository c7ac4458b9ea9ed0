//! Nothing is lost and nothing is counted twice when the network between Weir and nats-server fails.
//!
//! This is where readers that trust a consumer's place lose rows: a socket that dies with deliveries in it has consumed
//! them as far as the server knows.

use tokio::sync::watch;
use weir_e2e::chaos;
use weir_e2e::proxy::Proxy;
use weir_e2e::publish::{Pace, publish};
use weir_e2e::sandbox::scenario;
use weir_e2e::workload::Events;

use crate::support::{acknowledged, compare_events, create_events, standalone};

const TOTAL: u64 = 200_000;
const RATE: u64 = 10_000;

/// What happens to the network at a moment.
#[derive(Clone, Copy, Debug)]
enum Fault {
    CutAll,
    Swallow,
}

#[test]
fn a_table_is_exact_after_connections_are_cut_at_random() {
    scenario("cut-connections", async |sandbox| {
        let seed = chaos::seed();
        let (nats, weir) = standalone(sandbox).await?;
        let proxy = Proxy::start(nats.socket(), seed).await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", 7));
        sql.query(&create_events("events", &proxy.address(), "reader")).await?;
        let created = proxy.accepted();
        proxy.cut_after(Some(20_000..3_000_000));
        proxy.cut_all();

        let (sender, mut progress) = watch::channel(0);
        let (client, workload) = (nats.client().await?, events.clone());
        let publishing =
            tokio::spawn(
                async move { publish(&client, &workload, 0..TOTAL, Pace::steady(RATE), &sender).await.map(drop) },
            );
        let faults = [Fault::CutAll, Fault::CutAll, Fault::Swallow];
        for fault in chaos::plan(seed, &faults, 12, TOTAL / 50..TOTAL) {
            progress.wait_for(|&acknowledged| acknowledged >= fault.at).await?;
            eprintln!("{}: {:?}", fault.at, fault.victim);
            match fault.victim {
                Fault::CutAll => proxy.cut_all(),
                Fault::Swallow => proxy.swallow(),
            }
        }
        publishing.await??;
        compare_events(&mut sql, "events", &events, TOTAL).await?;
        let connections = proxy.accepted() - created;
        assert!(connections >= 10, "the connections were not cut: {connections} in all");
        proxy.cut_after(None);
        proxy.cut_all();
        acknowledged(&nats, "reader").await
    });
}

//! Nothing is lost and nothing is counted twice when the network between Weir and nats-server fails.
//!
//! This is where readers that trust a consumer's place lose rows: a socket that dies with deliveries in it has consumed
//! them as far as the server knows.

use async_nats::jetstream::stream::RetentionPolicy;
use weir_e2e::chaos;
use weir_e2e::proxy::Proxy;
use weir_e2e::sandbox::scenario;
use weir_e2e::workload::Events;

use crate::support::{
    Publishing, Reading, SUBJECTS, compare_readings, readings_acknowledged, standalone_with, total_for,
};

const TOTAL: u64 = 200_000;
const RATE: u64 = 10_000;

/// What happens to the network at a moment.
#[derive(Clone, Copy, Debug)]
enum Fault {
    CutAll,
    Swallow,
}

#[test]
fn tables_are_exact_after_connections_are_cut_at_random() {
    cut_connections("cut-connections", RetentionPolicy::Limits);
}

#[test]
fn a_table_over_a_work_queue_is_exact_after_connections_are_cut_at_random() {
    cut_connections("cut-connections-queue", RetentionPolicy::WorkQueue);
}

#[test]
fn tables_over_an_interest_stream_are_exact_after_connections_are_cut_at_random() {
    cut_connections("cut-connections-interest", RetentionPolicy::Interest);
}

fn cut_connections(name: &str, retention: RetentionPolicy) {
    scenario(name, async |sandbox| {
        let (seed, readings) = (chaos::seed(), Reading::of(retention));
        let (nats, weir) = standalone_with(sandbox, retention).await?;
        let total = total_for(&nats, retention, TOTAL).await?;
        let proxy = Proxy::start(nats.socket(), seed).await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", SUBJECTS));
        for reading in readings {
            sql.query(&reading.create(&proxy.address())).await?;
        }
        let created = proxy.accepted();
        proxy.cut_after(Some(20_000..3_000_000));
        proxy.cut_all();

        let mut publishing = Publishing::start(&nats, &events, total, RATE).await?;
        let faults = [Fault::CutAll, Fault::CutAll, Fault::Swallow];
        for fault in chaos::plan(seed, &faults, 12, total / 50..total) {
            publishing.reaches(fault.at).await?;
            eprintln!("{}: {:?}", fault.at, fault.victim);
            match fault.victim {
                Fault::CutAll => proxy.cut_all(),
                Fault::Swallow => proxy.swallow(),
            }
        }
        publishing.end().await?;
        compare_readings(&mut sql, readings, &events, total).await?;
        let connections = proxy.accepted() - created;
        let wanted = 10 * readings.len() as u64;
        assert!(connections >= wanted, "the connections were not cut: {connections} in all");
        proxy.cut_after(None);
        proxy.cut_all();
        readings_acknowledged(&nats, readings).await
    });
}

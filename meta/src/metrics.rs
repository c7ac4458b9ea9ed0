//! The meta node's metrics.

use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};

/// Instruments, each described once.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Barriers injected.
    pub(crate) barriers: Counter<u64>,
    /// Epochs committed.
    pub(crate) commits: Counter<u64>,
    /// Seconds from the injection of a barrier to the commit of its epoch.
    pub(crate) commit_latency_seconds: Histogram<f64>,
    /// Terms claimed: each start, recovery and rescale is one.
    pub(crate) terms: Counter<u64>,
    /// The committed epoch.
    pub(crate) committed_epoch: Gauge<u64>,
    /// Compute nodes connected.
    pub(crate) nodes: Gauge<u64>,
    /// 1 while this process leads.
    pub(crate) leader: Gauge<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Metrics {
        Metrics {
            barriers: meter.u64_counter("weir_barriers").with_description("barriers injected").build(),
            commits: meter.u64_counter("weir_commits").with_description("epochs committed").build(),
            commit_latency_seconds: meter
                .f64_histogram("weir_commit_latency")
                .with_unit("s")
                .with_description("time from the injection of a barrier to the commit of its epoch")
                .with_boundaries(vec![0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])
                .build(),
            terms: meter
                .u64_counter("weir_recoveries")
                .with_description("terms claimed: starts, recoveries and rescales")
                .build(),
            committed_epoch: meter.u64_gauge("weir_committed_epoch").with_description("newest committed epoch").build(),
            nodes: meter.u64_gauge("weir_compute_nodes").with_description("compute nodes connected").build(),
            leader: meter.u64_gauge("weir_leader").with_description("1 while this process leads").build(),
        }
    }
}

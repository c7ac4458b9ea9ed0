//! The compute node's metrics.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};

/// Instruments, each described once. Those of sources and scans bear the label `table`, those of state `slot`.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Messages decoded into rows.
    pub(crate) rows: Counter<u64>,
    /// Bytes of their payloads.
    pub(crate) bytes: Counter<u64>,
    /// Messages that are no row of their table.
    pub(crate) bad_records: Counter<u64>,
    /// Messages of the stream that have not been read yet.
    pub(crate) lag: Gauge<u64>,
    /// Messages delivered again.
    pub(crate) redelivered: Gauge<u64>,
    /// Times a reader's consumer was rebuilt.
    pub(crate) rebuilds: Gauge<u64>,
    /// Seconds that it takes to cut a checkpoint of a sealed epoch, by slot.
    pub(crate) seal_seconds: Histogram<f64>,
    /// Seconds from the seal of an epoch to its durability.
    pub(crate) durable_seconds: Histogram<f64>,
    /// SSTs that compaction has not touched, by slot.
    pub(crate) l0_ssts: Gauge<u64>,
    /// Other databases whose files a slot still reads, by slot.
    pub(crate) ancestors: Gauge<u64>,
    /// Bytes of all files that a slot reads, by slot.
    pub(crate) state_bytes: Gauge<u64>,
    /// Rows sent to frontends.
    pub(crate) scanned_rows: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Metrics {
        let seconds = |name: &'static str, description: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])
                .build()
        };
        let counter = |name: &'static str, description: &'static str| {
            meter.u64_counter(name).with_description(description).build()
        };
        let gauge =
            |name: &'static str, description: &'static str| meter.u64_gauge(name).with_description(description).build();
        Metrics {
            rows: counter("weir_source_rows", "messages decoded into rows"),
            bytes: counter("weir_source_bytes", "bytes of payloads decoded"),
            bad_records: counter("weir_source_bad_records", "messages that are no row of their table"),
            lag: gauge("weir_source_lag", "messages of the stream that are not read yet"),
            redelivered: gauge("weir_source_redelivered", "messages delivered again to the present reader"),
            rebuilds: gauge("weir_source_rebuilds", "times the present reader's consumer was rebuilt"),
            seal_seconds: seconds("weir_slot_seal", "time to cut a checkpoint of a sealed epoch"),
            durable_seconds: seconds("weir_slot_durable", "time from the seal of an epoch to its durability"),
            l0_ssts: gauge("weir_state_l0_ssts", "SSTs that compaction has not touched yet"),
            ancestors: gauge("weir_state_ancestors", "other databases whose files a slot still reads"),
            state_bytes: gauge("weir_state_bytes", "bytes of all files that a slot reads"),
            scanned_rows: counter("weir_scan_rows", "rows sent to frontends"),
        }
    }
}

/// The label of a table.
pub(crate) fn table(name: &str) -> KeyValue {
    KeyValue::new("table", name.to_owned())
}

//! The compute node's metrics.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};
use weir_common::catalog::RelationName;
use weir_common::condition::SplitState;
use weir_proto::SplitProgress;

/// Instruments, each described once. Instruments of sources, jobs and scans bear the label `table`,
/// those of state `slot`. [`observe_splits`] adds those of splits.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Messages decoded into rows.
    pub(crate) rows: Counter<u64>,
    /// Bytes of their payloads.
    pub(crate) bytes: Counter<u64>,
    /// Messages that cannot be decoded into a row of their table.
    pub(crate) bad_records: Counter<u64>,
    /// Rows that are left out of a view, because an expression fails for them.
    pub(crate) failed_rows: Counter<u64>,
    /// Processor time of the actors of jobs, by the job's relation.
    pub(crate) job_cpu: Counter<f64>,
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
            failed_rows: counter("weir_view_failed_rows", "rows left out because an expression fails for them"),
            job_cpu: meter
                .f64_counter("weir_job_cpu_seconds")
                .with_description("processor time of the actors of a job")
                .build(),
            seal_seconds: seconds("weir_slot_seal", "time to cut a checkpoint of a sealed epoch"),
            durable_seconds: seconds("weir_slot_durable", "time from the seal of an epoch to its durability"),
            l0_ssts: gauge("weir_state_l0_ssts", "SSTs that compaction has not touched yet"),
            ancestors: gauge("weir_state_ancestors", "other databases whose files a slot still reads"),
            state_bytes: gauge("weir_state_bytes", "bytes of all files that a slot reads"),
            scanned_rows: counter("weir_scan_rows", "rows sent to frontends"),
        }
    }
}

/// How far the splits of this node were when they were last asked, each with the labels of its
/// metrics.
#[derive(Debug, Default)]
pub(crate) struct Observed(Mutex<Vec<([KeyValue; 2], SplitProgress)>>);

impl Observed {
    /// Replaces all of them.
    pub(crate) fn set(&self, splits: Vec<([KeyValue; 2], SplitProgress)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = splits;
    }

    fn each(&self, mut told: impl FnMut(&[KeyValue], &SplitProgress)) {
        for (labels, split) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            told(labels, split);
        }
    }
}

/// How much this node stored of a job.
#[derive(Clone, Debug)]
pub(crate) struct ObservedState {
    pub(crate) labels: [KeyValue; 1],
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// How much this node stored of each job when it looked last.
#[derive(Debug, Default)]
pub(crate) struct ObservedStates(Mutex<Vec<ObservedState>>);

impl ObservedStates {
    /// Replaces all of them.
    pub(crate) fn set(&self, states: Vec<ObservedState>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = states;
    }
}

/// Makes the gauges of the states of jobs, which bear the label `table`.
pub(crate) fn observe_states(meter: &Meter, observed: &Arc<ObservedStates>) {
    type StateGauge = (&'static str, &'static str, fn(&ObservedState) -> u64);
    const GAUGES: [StateGauge; 2] = [
        ("weir_job_state_rows", "rows that the node stores of a job", |state| state.rows),
        ("weir_job_state_bytes", "bytes of keys and values that the node stores of a job", |state| state.bytes),
    ];
    for (name, description, value) in GAUGES {
        let observed = Arc::clone(observed);
        let gauge = meter.u64_observable_gauge(name).with_description(description).with_callback(move |observer| {
            let states = observed.0.lock().unwrap_or_else(PoisonError::into_inner);
            states.iter().for_each(|state| observer.observe(value(state), &state.labels));
        });
        gauge.build();
    }
}

/// A gauge of splits: its name, its description, and its value if there is one.
type SplitGauge = (&'static str, &'static str, fn(&SplitProgress) -> Option<u64>);

const SPLIT_GAUGES: [SplitGauge; 11] = [
    ("weir_source_reading", "1 while the split is read, 0 while it cannot be", |split| Some(is_reading(split).into())),
    ("weir_source_read_position", "the next sequence to read", |split| Some(split.read_position)),
    ("weir_source_committed_position", "below it everything is committed", |split| Some(split.committed_position)),
    ("weir_source_last_sequence", "the last sequence of the stream", |split| split.last_sequence),
    ("weir_source_lag", "messages of the stream that are not read yet", |split| split.lag_messages),
    ("weir_source_ack_floor", "up to it everything is acknowledged", |split| split.ack_floor),
    ("weir_source_ack_pending", "messages delivered and not acknowledged", |split| split.ack_pending),
    ("weir_source_redelivered", "messages delivered again to the present reader", |split| Some(split.redelivered)),
    ("weir_source_rebuilds", "times the present reader's consumer was rebuilt", |split| Some(split.rebuilds)),
    ("weir_source_split_bad_records", "bad records that the present reader found", |split| Some(split.bad_records)),
    ("weir_source_lost_messages", "messages lost to the present reader by gaps", |split| Some(split.lost_messages)),
];

fn is_reading(split: &SplitProgress) -> bool {
    split.state == SplitState::Reading.as_str()
}

/// Makes the gauges of splits, which bear the labels `table` and `split`. They cover the splits
/// that this node reads now, and no others.
pub(crate) fn observe_splits(meter: &Meter, observed: &Arc<Observed>) {
    for (name, description, value) in SPLIT_GAUGES {
        let observed = Arc::clone(observed);
        let gauge = meter.u64_observable_gauge(name).with_description(description);
        let each = gauge.with_callback(move |observer| {
            observed.each(|labels, split| value(split).into_iter().for_each(|value| observer.observe(value, labels)));
        });
        each.build();
    }
    let observed = Arc::clone(observed);
    let gauge = meter.f64_observable_gauge("weir_source_lag_seconds");
    let gauge = gauge.with_description("age of the newest message that was read, while others wait");
    let each = gauge.with_callback(move |observer| {
        observed.each(|labels, split| split.lag_seconds.into_iter().for_each(|age| observer.observe(age, labels)));
    });
    each.build();
}

/// The label of a table.
pub(crate) fn table(name: &RelationName) -> KeyValue {
    KeyValue::new("table", name.to_string())
}

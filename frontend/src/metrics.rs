//! The frontend's metrics. Each is described here and nowhere else.

use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};
use weir_common::telemetry::meter;

/// Instruments of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    statements: Counter<u64>,
    duration: Histogram<f64>,
    rows: Counter<u64>,
    retries: Counter<u64>,
    connections: UpDownCounter<i64>,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let meter = meter();
        Metrics {
            statements: meter
                .u64_counter("weir_frontend_statements")
                .with_description("Statements that ended, by kind and outcome (ok, or a SQLSTATE).")
                .build(),
            duration: meter
                .f64_histogram("weir_frontend_statement_duration")
                .with_unit("s")
                .with_description("From the receipt of a statement to the end of its answer, by kind.")
                .with_boundaries(vec![
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
                ])
                .build(),
            rows: meter
                .u64_counter("weir_frontend_rows")
                .with_description("Rows that were returned to clients.")
                .build(),
            retries: meter
                .u64_counter("weir_frontend_query_retries")
                .with_description("Queries started again on a new snapshot because theirs was lost.")
                .build(),
            connections: meter
                .i64_up_down_counter("weir_frontend_connections")
                .with_description("Open connections of clients.")
                .build(),
        }
    }

    /// Counts a query that is retried because its snapshot was lost.
    pub(crate) fn retried(&self) {
        self.retries.add(1, &[]);
    }

    /// Counts a connection as open until the returned value is dropped.
    pub(crate) fn connection(&self) -> Connection {
        self.connections.add(1, &[]);
        Connection(self.connections.clone())
    }

    /// Starts the metrics of a statement.
    pub(crate) fn statement(&self, kind: &'static str) -> Statement {
        Statement { metrics: self.clone(), kind, started: Instant::now(), rows: 0, outcome: None }
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection(UpDownCounter<i64>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}

/// A running statement. If it is dropped without an outcome, its client abandoned it.
#[derive(Debug)]
pub(crate) struct Statement {
    metrics: Metrics,
    kind: &'static str,
    started: Instant,
    rows: u64,
    outcome: Option<String>,
}

impl Statement {
    /// Sets the kind of the statement, once it is known.
    pub(crate) fn is(&mut self, kind: &'static str) {
        self.kind = kind;
    }

    pub(crate) fn count_rows(&mut self, rows: usize) {
        self.rows += rows as u64;
    }

    pub(crate) fn succeeded(&mut self) {
        self.outcome.get_or_insert_with(|| "ok".to_owned());
    }

    pub(crate) fn failed(&mut self, sqlstate: &str) {
        self.outcome.get_or_insert_with(|| sqlstate.to_owned());
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        let kind = KeyValue::new("kind", self.kind);
        let outcome = self.outcome.take().unwrap_or_else(|| "abandoned".to_owned());
        self.metrics.statements.add(1, &[kind.clone(), KeyValue::new("outcome", outcome)]);
        self.metrics.duration.record(self.started.elapsed().as_secs_f64(), &[kind]);
        self.metrics.rows.add(self.rows, &[]);
    }
}

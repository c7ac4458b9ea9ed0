//! Metrics: OpenTelemetry instruments of the meter `weir`, each described once in the `metrics.rs`
//! of its crate.
//!
//! This module owns their provider and the Prometheus registry that reads them.

use std::sync::OnceLock;

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, Registry, TextEncoder};

use super::Export;

struct Metrics {
    registry: Registry,
    provider: SdkMeterProvider,
}

static METRICS: OnceLock<Metrics> = OnceLock::new();

impl Metrics {
    fn new(export: Option<&Export>) -> Metrics {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .build()
            .expect("a fresh registry has no conflicting collector");
        let mut provider = SdkMeterProvider::builder().with_reader(exporter);
        if let Some(export) = export {
            provider = export.read_metrics(provider);
        }
        Metrics { registry, provider: provider.build() }
    }
}

fn metrics() -> &'static Metrics {
    METRICS.get_or_init(|| Metrics::new(None))
}

/// Lets the export read the metrics too.
///
/// # Panics
/// If an instrument was already created, because it would not be exported.
pub(super) fn export_through(export: &Export) {
    let fresh = METRICS.set(Metrics::new(Some(export))).is_ok();
    assert!(fresh, "export is set up before the first instrument is made");
}

/// Sends the metrics since the last time, and ends the export. Does nothing if there is no export.
pub(super) fn stop_export() -> opentelemetry_sdk::error::OTelSdkResult {
    METRICS.get().map_or(Ok(()), |metrics| metrics.provider.shutdown())
}

/// Returns the meter on which every instrument of the process is created.
pub fn meter() -> Meter {
    metrics().provider.meter("weir")
}

/// Returns all metrics of the process in Prometheus' text format.
pub fn render_metrics() -> String {
    let mut buffer = Vec::new();
    TextEncoder::new()
        .encode(&metrics().registry.gather(), &mut buffer)
        .expect("metric families from one registry are consistent");
    String::from_utf8(buffer).expect("the text format is UTF-8")
}

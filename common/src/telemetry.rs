//! Logs to standard error, metrics to a Prometheus registry.
//!
//! Logging is filtered by `WEIR_LOG` (the syntax of `tracing-subscriber`'s `EnvFilter`) and written as JSON lines if
//! `WEIR_LOG_FORMAT=json`. Without `WEIR_LOG` it is [`DEFAULT_FILTER`]. Metrics are OpenTelemetry instruments of the meter `weir`, each described
//! once in the `metrics.rs` of its crate; [`meter`] hands the meter out.

use std::io::IsTerminal;
use std::sync::OnceLock;

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, Registry, TextEncoder};
use tracing_subscriber::EnvFilter;

struct Metrics {
    registry: Registry,
    provider: SdkMeterProvider,
}

fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .build()
            .expect("a fresh registry has no conflicting collector");
        Metrics { registry, provider: SdkMeterProvider::builder().with_reader(exporter).build() }
    })
}

/// The meter on which every instrument of the process is made.
pub fn meter() -> Meter {
    metrics().provider.meter("weir")
}

/// All metrics of the process in Prometheus' text format.
pub fn render_metrics() -> String {
    let mut buffer = Vec::new();
    TextEncoder::new()
        .encode(&metrics().registry.gather(), &mut buffer)
        .expect("metric families from one registry are consistent");
    String::from_utf8(buffer).expect("the text format is UTF-8")
}

/// Weir's own lines from INFO up. What happens to a connection to NATS is logged where it is handled, so the client's
/// own account of the same is left out.
pub const DEFAULT_FILTER: &str = "info,slatedb=warn,async_nats=off";

/// Starts logging. Call once, first thing in `main`.
pub fn init_logging() {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if std::env::var("WEIR_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().init();
    } else {
        builder.init();
    }
}

//! Exports metrics and traces to a receiver that speaks OTLP over gRPC, such as a collector.
//!
//! This module exports periodically in the background, and logs once when the receiver goes out of
//! reach and once when it is back. Nothing waits for the receiver: data that it does not accept is
//! lost.
//!
//! OpenTelemetry's own variables set everything else: `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_SCHEDULE_DELAY`,
//! `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_EXPORTER_OTLP_HEADERS` and others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{MeterProviderBuilder, PeriodicReader, Temporality};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use tracing::{Subscriber, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

use super::metrics;

/// The time that the receiver may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot export metrics and traces to \"{endpoint}\"")]
pub struct Error {
    endpoint: String,
    source: opentelemetry_otlp::ExporterBuildError,
}

/// A receiver, and the data that is exported to it.
pub struct Export {
    endpoint: String,
    resource: Resource,
    traces: SdkTracerProvider,
    metrics: Reported<Arc<MetricExporter>>,
}

impl Export {
    /// Prepares the export of the process, which is called `weir-<role>` there. It needs a runtime,
    /// whose threads send the data until [`Export::stop`].
    ///
    /// # Errors
    /// If the endpoint is malformed. It is not checked that anybody answers there.
    pub fn to(endpoint: &str, role: &str) -> Result<Export, Error> {
        let unusable = |source| Error { endpoint: endpoint.to_owned(), source };
        // A receiver may accept only one of them.
        let receiver = |what| Arc::new(Receiver { endpoint: endpoint.to_owned(), what, lost: AtomicBool::new(false) });
        let spans = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(TIMEOUT);
        let spans = Reported { exporter: spans.build().map_err(unusable)?, receiver: receiver("traces") };
        let metrics = MetricExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(TIMEOUT);
        let metrics =
            Reported { exporter: Arc::new(metrics.build().map_err(unusable)?), receiver: receiver("metrics") };
        let resource = resource(role);
        let traces = SdkTracerProvider::builder().with_resource(resource.clone()).with_batch_exporter(spans).build();
        Ok(Export { endpoint: endpoint.to_owned(), resource, traces, metrics })
    }

    /// Returns the layer that records the spans of traces.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.traces.tracer("weir"))
            // The location and the thread of a span add nothing to its name.
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_context_activation(false)
    }

    /// Adds a reader that exports metrics periodically.
    pub(super) fn read_metrics(&self, provider: MeterProviderBuilder) -> MeterProviderBuilder {
        let reader = PeriodicReader::builder(self.metrics.clone()).build();
        provider.with_resource(self.resource.clone()).with_reader(reader)
    }

    /// Logs that metrics and traces are exported, and the endpoint.
    pub fn announce(&self) {
        info!(endpoint = self.endpoint, "exporting metrics and traces");
    }

    /// Sends the remaining data, and ends the export. It blocks for a few seconds at most; the
    /// runtime must keep running meanwhile.
    pub fn stop(self) {
        // A failed export has already been logged.
        let _ = self.traces.shutdown_with_timeout(TIMEOUT);
        let _ = metrics::stop_export();
    }
}

/// Returns the attributes that identify this process.
fn resource(role: &str) -> Resource {
    // The variables' name and attributes take precedence: their author knows the system around
    // Weir.
    let known = Resource::builder().build();
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if !is_set("OTEL_SERVICE_NAME")
        && known.get(&"service.name".into()).is_none_or(|name| is_default(&name.to_string()))
    {
        resource = resource.with_service_name(format!("weir-{role}"));
    }
    if known.get(&"service.instance.id".into()).is_none() {
        resource = resource.with_attribute(KeyValue::new("service.instance.id", Uuid::new_v4().to_string()));
    }
    resource.build()
}

/// Returns true if a name is the SDK's default for a service without one.
fn is_default(name: &str) -> bool {
    name.starts_with("unknown_service")
}

/// The state of exports to the receiver.
#[derive(Debug)]
struct Receiver {
    endpoint: String,
    what: &'static str,
    /// True if the last export failed.
    lost: AtomicBool,
}

impl Receiver {
    fn note(&self, result: &OTelSdkResult) {
        match result {
            Ok(()) => {
                if self.lost.swap(false, Ordering::Relaxed) {
                    info!(endpoint = self.endpoint, "{} are exported again", self.what);
                }
            }
            Err(error) => {
                if !self.lost.swap(true, Ordering::Relaxed) {
                    warn!(endpoint = self.endpoint, %error, "cannot export {}, they are lost meanwhile", self.what);
                }
            }
        }
    }
}

/// An exporter that reports its success to [`Receiver`].
#[derive(Clone, Debug)]
struct Reported<E> {
    exporter: E,
    receiver: Arc<Receiver>,
}

impl opentelemetry_sdk::trace::SpanExporter for Reported<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        self.receiver.note(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl PushMetricExporter for Reported<Arc<MetricExporter>> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.exporter.export(metrics).await;
        self.receiver.note(&result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

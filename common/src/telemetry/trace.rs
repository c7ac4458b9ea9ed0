//! Traces: the spans that they consist of, and their continuation in other processes.
//!
//! There are two kinds of trace. A statement's trace begins at the frontend and follows every call
//! that the frontend makes for it, in the gRPC metadata. A barrier's trace begins at the leader and
//! follows the barrier over the control streams. A request outside of a trace does not begin one:
//! heartbeats, renewals and the like are not traced.
//!
//! A trace is carried in a `traceparent`, as W3C Trace Context defines it.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::codegen::http;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tracing::{Metadata, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of spans, and of events in them, that exist for traces alone.
pub const TARGET: &str = "weir::trace";
/// The name of the only span that both logs and traces show.
const STATEMENT: &str = "statement";
/// The key in gRPC metadata, and in the carrier.
const TRACEPARENT: &str = "traceparent";

/// Returns true for spans and events that are part of traces.
pub(super) fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET || (metadata.is_span() && metadata.name() == STATEMENT)
}

/// A span of a trace in the form that is sent to others; empty if nothing is traced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceParent(String);

impl TraceParent {
    /// Returns the form of a span.
    pub fn of(span: &Span) -> TraceParent {
        if span.is_disabled() {
            return TraceParent::default();
        }
        let mut carrier = HashMap::new();
        TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
        TraceParent(carrier.remove(TRACEPARENT).unwrap_or_default())
    }

    /// Makes a span, which must be new, part of the trace. A text that is not a `traceparent` has
    /// no effect.
    pub fn adopt(&self, span: &Span) {
        if self.0.is_empty() || span.is_disabled() {
            return;
        }
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), self.0.clone())]);
        // This fails only if no layer records spans.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
    }
}

impl From<String> for TraceParent {
    fn from(text: String) -> TraceParent {
        TraceParent(text)
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> String {
        parent.0
    }
}

/// Adds the present span to the metadata of calls.
#[derive(Clone, Copy, Debug)]
pub struct Inject;

/// A channel whose calls carry the present span.
pub type TracedChannel = InterceptedService<Channel, Inject>;

impl Interceptor for Inject {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let TraceParent(parent) = TraceParent::of(&Span::current());
        if let Some(parent) = (!parent.is_empty()).then(|| parent.parse().ok()).flatten() {
            request.metadata_mut().insert(TRACEPARENT, parent);
        }
        Ok(request)
    }
}

/// Returns true if the present span is part of a trace.
pub fn is_present() -> bool {
    TraceParent::of(&Span::current()) != TraceParent::default()
}

/// Returns the span in which a server answers a call: part of the caller's trace, or none. For
/// `tonic`'s `Server::trace_fn`.
pub fn server_span(request: &http::Request<()>) -> Span {
    let Some(parent) = request.headers().get(TRACEPARENT).and_then(|parent| parent.to_str().ok()) else {
        return Span::none();
    };
    let span = info_span!(target: TARGET, parent: None, "rpc", otel.name = request.uri().path(), otel.kind = "server");
    TraceParent(parent.to_owned()).adopt(&span);
    span
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tracing::Subscriber;
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::filter_fn;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Runs with a subscriber of its own, while no other test has another one. The process caches
    /// which spans are of interest, and recomputes that when a subscriber comes or goes.
    fn subscribed(subscriber: impl Subscriber + Send + Sync, body: impl FnOnce()) {
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        tracing::subscriber::with_default(subscriber, body);
    }

    /// Runs with a subscriber that records traced spans; returns them.
    fn recorded(body: impl FnOnce()) -> Vec<opentelemetry_sdk::trace::SpanData> {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter_fn(is_traced)));
        subscribed(subscriber, body);
        provider.force_flush().expect("memory takes all");
        exporter.get_finished_spans().expect("they are in memory")
    }

    #[test]
    fn a_trace_goes_on_behind_a_call() {
        let spans = recorded(|| {
            let caller = info_span!(target: TARGET, "caller");
            let sent = caller.in_scope(|| Inject.call(Request::new(()))).expect("it is let through");
            let header =
                sent.metadata().get(TRACEPARENT).expect("it is there").to_str().expect("it is text").to_owned();
            let request = http::Request::builder().uri("/weir.v1.Meta/Pin").header(TRACEPARENT, header);
            server_span(&request.body(()).expect("a request")).in_scope(|| ());
        });
        let [server, caller] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!((server.name.as_ref(), caller.name.as_ref()), ("/weir.v1.Meta/Pin", "caller"));
        assert_eq!(server.span_context.trace_id(), caller.span_context.trace_id());
        assert_eq!(server.parent_span_id, caller.span_context.span_id());
    }

    #[test]
    fn what_is_asked_outside_of_a_trace_begins_none() {
        let spans = recorded(|| {
            let sent = Inject.call(Request::new(())).expect("it is let through");
            assert!(sent.metadata().is_empty());
            assert!(server_span(&http::Request::new(())).is_none());
        });
        assert!(spans.is_empty());
    }

    #[test]
    fn without_a_receiver_there_are_no_spans() {
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
        let log = log.with_filter(filter_fn(|metadata| metadata.target() != TARGET));
        subscribed(tracing_subscriber::registry().with(log), || {
            let span = info_span!(target: TARGET, "unwanted");
            assert!(span.is_disabled());
            assert_eq!(TraceParent::of(&span), TraceParent::default());
        });
    }

    #[test]
    fn rubbish_is_no_parent() {
        let spans = recorded(|| {
            let span = info_span!(target: TARGET, "span");
            TraceParent::from("rubbish".to_owned()).adopt(&span);
        });
        assert_eq!(spans[0].parent_span_id, opentelemetry::trace::SpanId::INVALID);
    }
}

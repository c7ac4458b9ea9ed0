//! What a cluster exports: a statement and a barrier are one trace each over all the processes that take part, and metrics
//! come with their names and units.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use weir_e2e::publish::publish_all;
use weir_e2e::sandbox::{Sandbox, scenario};
use weir_e2e::servers::Nats;
use weir_e2e::wait::{PATIENCE, eventually};
use weir_e2e::weir::{Cluster, State};
use weir_e2e::workload::Events;

use crate::support::{SOON, create_events, wait_for};

const TOTAL: u64 = 1_000;
/// What a node says once each when the receiver is away.
const LOST: [&str; 2] = ["cannot export traces", "cannot export metrics"];
/// What the end of a node may take while the receiver is away: it tries to send what it has.
const END: Duration = PATIENCE;

/// A span as it arrived.
#[derive(Clone, Debug)]
struct Span {
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    service: String,
    instance: String,
    attributes: BTreeMap<String, String>,
}

/// What arrived so far.
#[derive(Debug, Default)]
struct Received {
    spans: Vec<Span>,
    /// Metrics as (service, name, unit).
    metrics: BTreeSet<(String, String, String)>,
}

/// A receiver of OTLP; it goes away when it is dropped.
struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    _stop: DropGuard,
}

/// Its services.
#[derive(Clone)]
struct Services(Arc<Mutex<Received>>);

fn lock(received: &Mutex<Received>) -> MutexGuard<'_, Received> {
    received.lock().unwrap_or_else(PoisonError::into_inner)
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let value = |attribute: &KeyValue| attribute.value.as_ref()?.value.as_ref().map(text);
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute).unwrap_or_default())).collect()
}

/// The name and the instance of the process that sent something.
fn process(resource: Option<&Resource>) -> Result<(String, String), Status> {
    let known = attributes(&resource.ok_or_else(|| Status::invalid_argument("no resource"))?.attributes);
    let get = |key: &str| known.get(key).cloned().ok_or_else(|| Status::invalid_argument(format!("no {key}")));
    Ok((get("service.name")?, get("service.instance.id")?))
}

#[tonic::async_trait]
impl TraceService for Services {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for sent in request.into_inner().resource_spans {
            let (service, instance) = process(sent.resource.as_ref())?;
            for span in sent.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                lock(&self.0).spans.push(Span {
                    trace: span.trace_id,
                    id: span.span_id,
                    parent: span.parent_span_id,
                    name: span.name,
                    service: service.clone(),
                    instance: instance.clone(),
                    attributes: attributes(&span.attributes),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Services {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        for sent in request.into_inner().resource_metrics {
            let (service, _) = process(sent.resource.as_ref())?;
            for metric in sent.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                lock(&self.0).metrics.insert((service.clone(), metric.name, metric.unit));
            }
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Receiver {
    async fn start() -> Result<Receiver> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, received, stop) = (listener.local_addr()?, Arc::default(), CancellationToken::new());
        let services = Services(Arc::clone(&received));
        let server = Server::builder()
            .add_service(TraceServiceServer::new(services.clone()))
            .add_service(MetricsServiceServer::new(services));
        // Connections end with it too.
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(server.serve_with_incoming_shutdown(weir_common::listen::rpc(listener), stopped));
        Ok(Receiver { address, received, _stop: stop.drop_guard() })
    }

    /// What makes a node export here, often.
    fn environment(&self) -> Vec<(String, String)> {
        let variables = [
            ("WEIR_OTLP_ENDPOINT", format!("http://{}", self.address)),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500".to_owned()),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// Waits for a trace that has a span of the name and attribute and is what is wanted.
    async fn trace(&self, what: &str, name: &str, wanted: impl Fn(&Trace) -> Result<()>) -> Result<Trace> {
        eventually(what, SOON, async || {
            let spans = lock(&self.received).spans.clone();
            let mut last = None;
            for root in spans.iter().filter(|span| span.name == name && span.parent.is_empty()) {
                let trace = Trace(spans.iter().filter(|span| span.trace == root.trace).cloned().collect());
                match wanted(&trace) {
                    Ok(()) => return Ok(Some(trace)),
                    Err(error) => last = Some(error),
                }
            }
            last.map_or(Ok(None), Err)
        })
        .await
    }
}

/// The spans of one trace.
#[derive(Debug)]
struct Trace(Vec<Span>);

impl Trace {
    fn named(&self, name: &str) -> Vec<&Span> {
        self.0.iter().filter(|span| span.name == name).collect()
    }

    /// The service of each span of that name, with the number of processes that they are of and of the spans.
    fn places(&self, name: &str) -> Vec<(String, usize, usize)> {
        let mut places: BTreeMap<&str, (BTreeSet<&str>, usize)> = BTreeMap::new();
        for span in self.named(name) {
            let place = places.entry(&span.service).or_default();
            place.0.insert(&span.instance);
            place.1 += 1;
        }
        places.into_iter().map(|(service, (instances, spans))| (service.to_owned(), instances.len(), spans)).collect()
    }

    /// Fails unless the spans of that name are of one service, so many processes of it, and so many.
    fn has(&self, name: &str, service: &str, processes: usize, spans: usize) -> Result<()> {
        let places = self.places(name);
        ensure!(places == [(service.to_owned(), processes, spans)], "spans \"{name}\" are of {places:?}: {self:#?}");
        Ok(())
    }

    /// The name of the span that a span was made in.
    fn parent_of(&self, span: &Span) -> Result<&str> {
        let parent = self.0.iter().find(|parent| parent.id == span.parent);
        parent.map(|parent| parent.name.as_str()).with_context(|| format!("{span:?} has no parent in its trace"))
    }

    /// Fails unless every span of a name was made in one of another.
    fn under(&self, name: &str, parent: &str) -> Result<()> {
        for span in self.named(name) {
            ensure!(self.parent_of(span)? == parent, "\"{name}\" is not in \"{parent}\": {self:#?}");
        }
        Ok(())
    }
}

async fn start(sandbox: &Sandbox, receiver: &Receiver) -> Result<(Nats, Cluster)> {
    let nats = Nats::start(sandbox).await?;
    nats.create_stream("EVENTS", &["events.>"]).await?;
    let cluster = Cluster::start_with(State::local(sandbox)?, receiver.environment(), sandbox, 1, 2).await?;
    Ok((nats, cluster))
}

/// The leader says when, every slot of every node seals, the leader commits.
fn check_barrier(trace: &Trace) -> Result<()> {
    trace.has("barrier", "weir-meta", 1, 1)?;
    trace.has("slot", "weir-compute", 2, 4)?;
    trace.has("durable", "weir-compute", 2, 4)?;
    trace.has("commit", "weir-meta", 1, 1)?;
    trace.under("slot", "barrier")?;
    trace.under("durable", "slot")?;
    trace.under("commit", "barrier")?;
    let epochs = trace.0.iter().filter_map(|span| span.attributes.get("epoch")).collect::<BTreeSet<_>>();
    let terms = trace.0.iter().filter_map(|span| span.attributes.get("term")).collect::<BTreeSet<_>>();
    ensure!(epochs.len() == 1 && terms.len() == 1, "one epoch of one term: {trace:#?}");
    let slots = trace.named("slot").into_iter().filter_map(|span| span.attributes.get("slot")).collect::<BTreeSet<_>>();
    ensure!(slots.len() == 4, "each slot once: {trace:#?}");
    Ok(())
}

/// The frontend pins an epoch at meta and scans every slot at it.
fn check_select(trace: &Trace) -> Result<()> {
    trace.has("statement", "weir-frontend", 1, 1)?;
    trace.has("/weir.v1.Meta/Pin", "weir-meta", 1, 1)?;
    trace.has("scan", "weir-frontend", 1, 4)?;
    trace.has("/weir.v1.Compute/Scan", "weir-compute", 2, 4)?;
    trace.has("read", "weir-compute", 2, 4)?;
    trace.under("/weir.v1.Meta/Pin", "statement")?;
    trace.under("scan", "statement")?;
    trace.under("/weir.v1.Compute/Scan", "scan")?;
    trace.under("read", "/weir.v1.Compute/Scan")?;
    for span in trace.named("scan").into_iter().chain(trace.named("read")) {
        ensure!(span.attributes.get("job").is_some_and(|job| job == "events"), "{span:?}");
        ensure!(span.attributes.contains_key("slot") && span.attributes.contains_key("epoch"), "{span:?}");
    }
    Ok(())
}

#[test]
fn a_statement_and_a_barrier_are_one_trace_each_and_metrics_have_units() {
    scenario("telemetry", async |sandbox| {
        let receiver = Receiver::start().await?;
        let (nats, mut cluster) = start(sandbox, &receiver).await?;
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", 3));
        sql.query(&create_events("events", &nats.address(), "reader")).await?;
        publish_all(&nats.client().await?, &events, 0..TOTAL).await?;
        wait_for(&mut sql, "SELECT count(*) FROM events", TOTAL, SOON).await?;
        receiver.trace("the trace of a barrier", "barrier", check_barrier).await?;
        let select = receiver.trace("the trace of a SELECT", "statement", check_select).await?;
        let roots = select.0.iter().filter(|span| span.parent.is_empty()).count();
        ensure!(roots == 1, "a statement is one trace: {select:#?}");

        for (service, name, unit) in [
            ("weir-meta", "weir_commit_latency", "s"),
            ("weir-compute", "weir_source_rows", ""),
            ("weir-compute", "weir_slot_durable", "s"),
            ("weir-frontend", "weir_frontend_statement_duration", "s"),
        ] {
            let wanted = (service.to_owned(), name.to_owned(), unit.to_owned());
            eventually(&format!("{name} of {service}"), SOON, async || {
                let received = lock(&receiver.received);
                ensure!(received.metrics.contains(&wanted), "{:?}", received.metrics);
                Ok(Some(()))
            })
            .await?;
        }

        // Without the receiver everything goes on, each node says so once, and nobody's end waits for it.
        cluster.expect_warnings(&LOST);
        let announced = cluster.metas.iter().chain(&cluster.computes).chain([&cluster.frontend]);
        let logs = announced.map(|node| node.log()).collect::<Vec<_>>();
        drop(receiver);
        eventually("every node to say that the receiver is away", SOON, async || {
            // A frontend has nothing to send unless it is asked something.
            sql.query("SELECT 1").await?;
            for log in &logs {
                let text = log.read()?;
                ensure!(LOST.iter().all(|lost| text.contains(lost)), "{} says nothing", log.path().display());
            }
            Ok(Some(()))
        })
        .await?;
        wait_for(&mut sql, "SELECT count(*) FROM events", TOTAL, SOON).await?;
        let ended = cluster.frontend.process().terminate(END).await?;
        ensure!(ended.success(), "the frontend ended with {ended}");
        for log in &logs {
            let text = log.read()?;
            let said = LOST.map(|lost| text.matches(lost).count());
            ensure!(said == [1, 1], "{} says it {said:?} times", log.path().display());
        }
        Ok(())
    });
}

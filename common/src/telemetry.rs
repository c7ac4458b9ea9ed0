//! The telemetry of a process: logs on standard error, metrics over HTTP in Prometheus' format and,
//! if an endpoint is configured, both metrics and traces over OTLP.
//!
//! In reading order:
//!
//! * [`start`]: called once by `main`;
//! * [`metrics`]: the meter on which the `metrics.rs` of each crate creates its instruments;
//! * [`trace`]: spans, and their way from one process to another;
//! * [`otlp`]: the receiver of metrics and traces.
//!
//! `WEIR_LOG` filters the logs (in the syntax of `tracing-subscriber`'s `EnvFilter`; the default is
//! [`DEFAULT_FILTER`]). With `WEIR_LOG_FORMAT=json` they are JSON lines. Logs and traces are
//! independent of each other.
//!
//! Invariant: without an endpoint there are no spans that only traces need, so they cost nothing.

pub mod metrics;
pub mod otlp;
pub mod trace;

use std::io::IsTerminal;

use tracing::warn;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

pub use metrics::{meter, render_metrics};
pub use otlp::Export;

use crate::error::chain;

/// Weir's own lines from INFO up. Weir logs the state of connections to NATS, to the object store
/// and to the receiver of telemetry where it handles them, so the clients' own lines about them are
/// omitted.
pub const DEFAULT_FILTER: &str = "info,slatedb=warn,object_store=warn,async_nats=off,opentelemetry=off";

/// The variable that overrides [`DEFAULT_FILTER`].
const FILTER: &str = "WEIR_LOG";

/// Starts logging, and the export if there is one. Must be called once, at the beginning of `main`,
/// before the first instrument is created.
///
/// # Panics
/// If it is called twice.
pub fn start(export: Option<&Export>) {
    let wanted = EnvFilter::try_from_env(FILTER);
    let unreadable = wanted.as_ref().err().filter(|_| std::env::var_os(FILTER).is_some()).map(|error| chain(error));
    let filter = wanted.unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let filter = filter.and(filter_fn(|metadata| metadata.target() != trace::TARGET));
    let log = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let log = if std::env::var("WEIR_LOG_FORMAT").is_ok_and(|format| format == "json") {
        log.json().with_filter(filter).boxed()
    } else {
        log.with_filter(filter).boxed()
    };
    let traces = export.map(|export| export.layer().with_filter(filter_fn(trace::is_traced)));
    tracing_subscriber::registry().with(log).with(traces).init();
    if let Some(error) = unreadable {
        warn!(error, "{FILTER} cannot be read, so that what is logged is the default");
    }
    if let Some(export) = export {
        metrics::export_through(export);
    }
}

//! The HTTP listener that every role has: `/health` (the process lives), `/ready` (it can do its
//! work), `/metrics` (Prometheus' text format).

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{listen, telemetry};

/// Returns an error with the reason if the process cannot do its work.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Serves until cancelled.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, ready: Readiness, cancel: CancellationToken) -> std::io::Result<()> {
    let readiness = move || {
        let ready = Arc::clone(&ready);
        async move {
            match ready() {
                Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            }
        }
    };
    let app = Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(readiness))
        .route("/metrics", get(async || telemetry::render_metrics()));
    axum::serve(listen::http(listener), app).with_graceful_shutdown(cancel.cancelled_owned()).await
}

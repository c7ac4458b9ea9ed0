//! When the process is to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once, with exit status 1.
///
/// # Errors
/// If the system does not let the process watch its signals.
pub fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    // Never joined: it has nothing to clean up, and waits for a signal that may never come.
    tokio::spawn(async move {
        let first = next(&mut terminate, &mut interrupt).await;
        info!(signal = first, "stopping");
        stop.cancel();
        let second = next(&mut terminate, &mut interrupt).await;
        warn!(signal = second, "stopping at once");
        std::process::exit(1);
    });
    Ok(cancel)
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

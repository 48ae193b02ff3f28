//! SIGTERM and SIGINT: the first one drains, the second one ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cli::Exit;

/// Returns a token that the first signal cancels. A second signal ends the process.
///
/// # Errors
/// Signal handlers can't be installed.
pub fn shutdown_on_signals() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let cancelled = shutdown.clone();
    tokio::spawn(async move {
        let name = either(&mut terminate, &mut interrupt).await;
        info!(signal = name, "draining; a second signal ends at once");
        cancelled.cancel();
        let name = either(&mut terminate, &mut interrupt).await;
        warn!(signal = name, "ending at once");
        #[expect(clippy::exit, reason = "the operator asked twice; nothing may hold this up")]
        std::process::exit(Exit::Interrupted as i32);
    });
    Ok(shutdown)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

//! Work that waits for the disk runs beside the runtime, and all of it passes here.

use tokio::task::JoinError;

/// Runs work beside the runtime's threads and waits for it. It goes on when the caller stops waiting.
///
/// The simulation has one thread, so that its runs can be repeated: there the work runs at once.
///
/// # Errors
/// The work panicked, or the runtime ended before it began.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    #[cfg(test)]
    if crate::simulation::active() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

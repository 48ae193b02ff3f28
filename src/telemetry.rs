//! Logs on stderr, as text for people or as JSON for collectors. Nothing here ever sees a secret: types
//! that hold one redact it in `Debug`.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::config::Log;

/// Logging could not start.
#[derive(Debug, Error)]
#[error("could not start logging: {0}")]
pub struct TelemetryError(String);

/// Starts logging for the whole process.
///
/// # Errors
/// The filter is malformed, or logging runs already.
pub fn start(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(&log.filter)
        .map_err(|error| TelemetryError(error.to_string()))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match log.format.as_str() {
        "json" => builder.json().flatten_event(true).try_init(),
        _ => builder.try_init(),
    };
    started.map_err(|error| TelemetryError(error.to_string()))
}

//! The binary: arguments, configuration, telemetry, run, exit code.

use std::process::ExitCode;

/// Requests, frames and rows are many small allocations on several threads: under load the system's allocator
/// took a seventh of the processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    peat_gateway::cli::main()
}

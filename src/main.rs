//! The binary: arguments, configuration, telemetry, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    peat_gateway::cli::main()
}

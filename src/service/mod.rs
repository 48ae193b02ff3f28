//! Use cases: authorise, check, propose or read.

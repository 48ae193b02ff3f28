//! The observer against stock Automerge peers, recorded captures and real connections.
#![expect(clippy::print_stdout, reason = "a failing test shows its seed or capture")]

mod capture;
mod commit_order;
mod fake_journal;
mod live;
mod stock_peers;

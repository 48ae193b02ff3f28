//! Whole-gateway tests: real processes, a real broker, real mesh nodes over real QUIC, on loopback.
//!
//! A file per behaviour. Heavy scenarios take [`support::alone`] so that two clusters never compete
//! for the processor. `docs/testing.md` says what is real and what is not.

#![expect(unreachable_pub, reason = "one crate: `pub` says what scenarios use of the support")]
#![expect(clippy::print_stdout, reason = "seeds and progress belong into the output of a test run")]

mod acknowledgement;
mod backup;
mod backup_pages;
mod backup_schedule;
mod bad_input;
mod bench;
mod compat;
mod dev_command;
mod durability;
mod fire;
mod house;
mod membership;
mod netns;
mod overload;
mod rotation;
mod secrets;
mod stop;
mod storage_faults;
mod support;
mod upgrade;

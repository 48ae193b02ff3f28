//! Tests of the replicated state: what it promises, shown on rows in memory.

mod cursors;
mod documents;
mod envelopes;
mod golden;
mod idempotency;
mod invariants;
mod journal;
mod keys;
mod membership;
mod overlay;
mod queries;
mod refusals;
mod requests;
mod restore;
mod samples;
mod support;
mod versions;

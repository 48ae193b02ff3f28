//! The Peat mesh wire protocol, and a mesh node to test against.
//!
//! ```text
//!   genesis ──► formation secret ──► identity (endpoint ids)   formation_key (who is a member)
//!                                          │                            │
//!                                       endpoint ── QUIC, one handshake per connection
//!                                          │
//!                                        link ── frames in, frames out
//!                                          │
//!                     frame · batch · tombstone · negentropy      (bytes, no IO)
//!                                          │
//!                              json · patches                     (Automerge values for people)
//! ```
//!
//! The codecs are total: no input makes them panic, and none makes them allocate more than a small
//! multiple of what was really received. [`node`] is the other side: it behaves as published mesh
//! nodes do, their pacing included, so that tests and `peat-gateway mesh-node` have a real counterpart.

pub mod batch;
pub mod credentials;
mod derive;
pub mod endpoint;
pub mod formation_key;
pub mod frame;
pub mod genesis;
pub mod handshake;
pub mod identity;
pub mod json;
pub mod link;
pub mod negentropy;
pub mod node;
pub mod patches;
pub mod policy;
mod reader;
pub mod tombstone;

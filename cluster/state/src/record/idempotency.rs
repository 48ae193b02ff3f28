//! Answers kept for clients that retry.

use minicbor::{Decode, Encode};

use crate::ids::Hash32;

/// What a retry with the same key gets. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IdempotencyRecord {
    /// SHA-256 of the request; another request under the same key is a conflict.
    #[n(0)]
    pub request_digest: Hash32,
    /// The encoded [`crate::Outcome`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub outcome: Vec<u8>,
    /// Log index of the command that made it.
    #[n(2)]
    pub index: u64,
    /// Unix time in ms after which it is forgotten.
    #[n(3)]
    pub expires_at: u64,
}

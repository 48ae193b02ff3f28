//! Sealed secrets: ciphertext that only a node with the key provider's key can open.

use minicbor::{Decode, Encode};

/// A secret in an envelope. `apply` never opens it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SealedSecret {
    /// The envelope, as the gateway's `keys` module wrote it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub envelope: Vec<u8>,
    /// The record version that the envelope is bound to; a replayed older envelope doesn't open.
    #[n(1)]
    pub record_version: u64,
}

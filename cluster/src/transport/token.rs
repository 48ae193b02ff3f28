//! Proofs that both sides of a bootstrap know the cluster token, without sending it.

use std::sync::{Arc, PoisonError, RwLock};

use blake3::Hash;

/// Binds the derived key to this use; never changes.
const KEY_CONTEXT: &str = "peat-gateway 2026-11 cluster token";

/// A key derived from the cluster token. Clones share it: a replacement counts for all of them.
#[derive(Clone)]
pub(crate) struct TokenKey(Arc<RwLock<[u8; 32]>>);

impl TokenKey {
    /// Derives the key; all tokens are good, the empty one too, if all nodes have the same.
    pub(crate) fn new(token: &str) -> Self {
        Self(Arc::new(RwLock::new(derive(token))))
    }

    /// Takes another token from now on; `false` where it is the same.
    pub(crate) fn replace(&self, token: &str) -> bool {
        let new = derive(token);
        let mut key = self.0.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *key, new) != new
    }

    /// Proves a question: "who are you?".
    pub(crate) fn identify(&self, challenge: &[u8]) -> Hash {
        self.proof(b"identify", &[challenge])
    }

    /// Proves the answer to that question.
    pub(crate) fn identified(&self, challenge: &[u8], node_id: u64) -> Hash {
        self.proof(b"identified", &[challenge, &node_id.to_be_bytes()])
    }

    /// Proves a request to join a cluster.
    pub(crate) fn adopt(&self, cluster_id: &[u8], node_id: u64) -> Hash {
        self.proof(b"adopt", &[cluster_id, &node_id.to_be_bytes()])
    }

    /// Proves a new node's request to be taken in.
    pub(crate) fn join(&self, cluster_id: &[u8], node_id: u64, peer_address: &str) -> Hash {
        self.proof(b"join", &[cluster_id, &node_id.to_be_bytes(), peer_address.as_bytes()])
    }

    fn proof(&self, what: &[u8], parts: &[&[u8]]) -> Hash {
        let key = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        for part in std::iter::once(&what).chain(parts) {
            // The length keeps one part from borrowing bytes of the next.
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }
}

fn derive(token: &str) -> [u8; 32] {
    blake3::derive_key(KEY_CONTEXT, token.as_bytes())
}

/// Compares a proof that came over the wire, in constant time.
pub(crate) fn proves(expected: &Hash, given: &[u8]) -> bool {
    <[u8; 32]>::try_from(given).is_ok_and(|given| *expected == given)
}

#[cfg(test)]
mod tests {
    use super::{TokenKey, proves};

    #[test]
    fn proof_holds_for_the_same_token_only() {
        let (ours, theirs) = (TokenKey::new("secret"), TokenKey::new("Secret"));
        let proof = ours.identify(b"challenge");
        assert!(proves(&TokenKey::new("secret").identify(b"challenge"), proof.as_bytes()));
        assert!(!proves(&theirs.identify(b"challenge"), proof.as_bytes()));
        assert!(!proves(&proof, b""));
    }

    #[test]
    fn replaced_token_counts_for_every_clone_and_the_old_one_no_more() {
        let key = TokenKey::new("old");
        let held = key.clone();
        assert!(key.replace("new"));
        assert!(!key.replace("new"));
        let proof = held.identify(b"challenge");
        assert!(proves(&TokenKey::new("new").identify(b"challenge"), proof.as_bytes()));
        assert!(!proves(&TokenKey::new("old").identify(b"challenge"), proof.as_bytes()));
    }

    #[test]
    fn question_is_no_answer() {
        let key = TokenKey::new("secret");
        assert_ne!(key.identify(b"challenge"), key.identified(b"challenge", 7));
        assert_ne!(key.identified(b"challenge", 7), key.identified(b"challenge", 8));
        assert_ne!(key.adopt(b"one", 7), key.adopt(b"two", 7));
    }
}

//! The one key derivation of the protocol: HKDF-SHA256 with 32 bytes of output (RFC 5869).

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Derives 32 bytes. An empty salt and an absent one are the same (RFC 5869 §2.2).
pub(crate) fn derive(salt: &[u8], input: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut output = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), input)
        .expand(info, output.as_mut_slice())
        .expect("32 bytes is below HKDF's limit of 255 blocks");
    output
}

//! How records and keys become bytes.
//!
//! Records are CBOR arrays with fields in a fixed order (`minicbor` derive): the same value always
//! gives the same bytes, a field is only ever appended, and a reader skips what it doesn't know.
//! ADR 0002 says why not protobuf. Keys are built by [`Key`].

use minicbor::{Decode, Encode};

/// Encodes a record or command. The bytes are canonical: equal values give equal bytes.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    minicbor::encode(value, &mut bytes).expect("encoding to memory has no failure");
    bytes
}

/// Decodes a record or command.
///
/// # Errors
/// Says what is wrong with the bytes. Trailing bytes are an error.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, String> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| error.to_string())?;
    match bytes.len() - decoder.position() {
        0 => Ok(value),
        left => Err(format!("{left} bytes follow the value")),
    }
}

/// Builds a row's key from components.
///
/// A text component is escaped (`00` becomes `00 FF`) and ends with `00 01`, so keys sort by
/// component and no component is a prefix of another's continuation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// Returns an empty key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a text component.
    #[must_use]
    pub fn text(mut self, component: &str) -> Self {
        for byte in component.bytes() {
            self.0.push(byte);
            if byte == 0 {
                self.0.push(0xff);
            }
        }
        self.0.extend_from_slice(&[0x00, 0x01]);
        self
    }

    /// Appends a big-endian 64-bit number.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends a big-endian 32-bit number.
    #[must_use]
    pub fn part(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends bytes of a fixed length, such as a hash.
    #[must_use]
    pub fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Returns the key's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Returns the range `[start, end)` of all keys that begin with this one.
    pub fn range(self) -> (Vec<u8>, Vec<u8>) {
        let end = after_prefix(&self.0);
        (self.0, end)
    }
}

/// Reads one text component from the front of `key`; returns it and the rest.
///
/// `None` if the bytes are no component.
pub fn take_text(key: &[u8]) -> Option<(String, &[u8])> {
    let mut text = Vec::new();
    let mut at = 0;
    loop {
        match (key.get(at)?, key.get(at + 1)) {
            (0, Some(0xff)) => {
                text.push(0);
                at += 2;
            }
            (0, Some(0x01)) => return Some((String::from_utf8(text).ok()?, key.get(at + 2..)?)),
            (0, _) => return None,
            (byte, _) => {
                text.push(*byte);
                at += 1;
            }
        }
    }
}

/// Returns the smallest key above every key that begins with `prefix`; empty means "no end".
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}

//! Typed reads of one view: what `apply`, the API and the leader's workers share.

use minicbor::Decode;

use crate::codec;
use crate::space::{ReadError, Reader, Space};

/// Reads one record.
///
/// # Errors
/// The store failed, or the bytes are no such record.
pub fn record<T>(reader: &dyn Reader, space: Space, key: &[u8]) -> Result<Option<T>, ReadError>
where
    T: for<'b> Decode<'b, ()>,
{
    let Some(bytes) = reader.get(space, key)? else {
        return Ok(None);
    };
    codec::decode(&bytes)
        .map(Some)
        .map_err(|reason| ReadError::Decode { space: space.name(), reason })
}

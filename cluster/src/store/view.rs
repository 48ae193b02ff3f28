//! A consistent view of the state at one applied index.

use peat_gateway_state::space::{ReadError, Reader, Space};

/// The state as of one applied index. Cheap to clone; holds back the deletion of old rows, so drop it soon.
#[derive(Clone)]
pub struct View {
    applied_index: u64,
}

impl View {
    /// The log index that this view reflects.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }
}

impl Reader for View {
    fn get(&self, _space: Space, _key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        unimplemented!("seam")
    }

    fn scan(
        &self,
        _space: Space,
        _start: &[u8],
        _end: &[u8],
        _reverse: bool,
        _visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        unimplemented!("seam")
    }
}

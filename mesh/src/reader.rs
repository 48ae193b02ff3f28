//! Reads fixed layouts from a slice: every step is checked, none panics.

/// The input ended inside the named field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Missing(pub(crate) &'static str);

/// A position in a slice.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    read_bytes: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { rest: input, read_bytes: 0 }
    }

    /// How many bytes have been taken.
    pub(crate) fn position(&self) -> usize {
        self.read_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, bytes: usize, field: &'static str) -> Result<&'a [u8], Missing> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Missing(field))?;
        self.rest = rest;
        self.read_bytes += bytes;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], Missing> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Missing(field))?;
        self.rest = rest;
        self.read_bytes += N;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Missing> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u16_be(&mut self, field: &'static str) -> Result<u16, Missing> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u32_be(&mut self, field: &'static str) -> Result<u32, Missing> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u64_be(&mut self, field: &'static str) -> Result<u64, Missing> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u16_le(&mut self, field: &'static str) -> Result<u16, Missing> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64_le(&mut self, field: &'static str) -> Result<u64, Missing> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }
}

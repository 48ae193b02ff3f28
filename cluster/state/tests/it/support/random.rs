//! Random numbers from a printed seed.

use std::hash::{BuildHasher, RandomState};

/// A xorshift generator: the same seed gives the same numbers.
pub(crate) struct Random(u64);

impl Random {
    /// A generator with a fresh seed, which is printed: the test's output shows it when it fails.
    #[expect(clippy::print_stdout, reason = "the seed must be in a failing test's output")]
    pub(crate) fn printed(test: &str) -> Self {
        let seed = RandomState::new().hash_one(test) | 1;
        println!("{test}: seed {seed:#x}");
        Self(seed)
    }

    /// A number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    /// A byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.number() as u8
    }
}

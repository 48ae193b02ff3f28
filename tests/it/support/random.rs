//! Seeded randomness: every scenario prints its seed, `PEAT_TEST_SEED` repeats it.

/// SplitMix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    /// Takes the seed from `PEAT_TEST_SEED`, or makes one, and prints it.
    pub fn announced(scenario: &str) -> Self {
        let seed = std::env::var("PEAT_TEST_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).expect("the system gives random bytes");
                u64::from_le_bytes(bytes)
            });
        println!("{scenario}: PEAT_TEST_SEED={seed}");
        Self(seed)
    }

    /// A generator of its own for one task.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number in `low..high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }
}

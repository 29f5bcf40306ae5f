//! Random numbers from a seed, the same in every run of the program (xorshift64*).

/// The generator.
pub struct Random(u64);

impl Random {
    /// From a seed; any number will do.
    pub fn new(seed: u64) -> Random {
        Random(seed | 1 << 63)
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound` (at least 1).
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}

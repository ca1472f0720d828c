//! Chance: a small generator of numbers that a seed repeats.
//!
//! Promises: the same seed gives the same numbers on every machine; a test prints its seed, `MALOTE_SEED` sets it.
//! Never: is used for a secret.

use runtime::{config, entropy};

/// SplitMix64: enough for choices, and small enough to read.
#[derive(Clone, Debug)]
pub struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// Seeded by `MALOTE_SEED`, else by the machine.
    #[must_use]
    pub fn from_environment() -> Self {
        let given = config::variable("MALOTE_SEED").and_then(|text| text.parse().ok());
        Self::new(given.unwrap_or_else(|| u64::from_le_bytes(entropy::bytes())))
    }

    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.draw() % end }
    }

    /// True in `percent` of a hundred calls.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of the items; `None` where there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let at = self.below(u64::try_from(items.len()).unwrap_or(0));
        items.get(usize::try_from(at).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut chance = Chance::new(7);
        assert_eq!(
            [chance.draw(), chance.draw()],
            [7_191_089_600_892_374_487, 309_689_372_594_955_804]
        );
        assert_eq!(chance.pick::<u8>(&[]), None);
    }
}

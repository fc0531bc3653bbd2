//! Numbers that follow from a seed, and the loop that tells which seed failed.

use std::env;
use std::time::Duration;

/// A seed from outside: `POCKETCARD_SEED=17` runs that one alone.
const SEED_VARIABLE: &str = "POCKETCARD_SEED";
/// `POCKETCARD_SOAK=1` asks for the full counts.
const SOAK_VARIABLE: &str = "POCKETCARD_SOAK";

/// A stream of numbers that is the same for the same seed (splitmix64). Never for a secret.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        usize::try_from(self.number().checked_rem(limit).unwrap_or(0)).unwrap_or(0)
    }

    /// One of these; `None` if there are none.
    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// Whether something happens that does so `per_mille` times in a thousand.
    pub fn happens(&mut self, per_mille: u16) -> bool {
        self.below(1000) < usize::from(per_mille)
    }

    /// A time from zero up to `limit`.
    pub fn duration(&mut self, limit: Duration) -> Duration {
        let nanoseconds = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.number() % nanoseconds.saturating_add(1))
    }
}

/// Runs `test` with the numbers of each of so many seeds, and prints the seed with which it failed.
///
/// - `quick`: how many in CI; `soak`: how many if `POCKETCARD_SOAK=1`.
pub fn for_seeds(quick: u64, soak: u64, mut test: impl FnMut(u64)) {
    let alone = env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok());
    let seeds = alone.map_or_else(|| 0..repeats(quick, soak), |seed| seed..seed + 1);
    for seed in seeds {
        let _told = Told(seed);
        test(seed);
    }
}

/// `soak` if the full counts are asked for, else `quick`.
#[must_use]
pub fn repeats(quick: u64, soak: u64) -> u64 {
    if env::var_os(SOAK_VARIABLE).is_some_and(|value| value != "0") { soak } else { quick }
}

/// Names the seed when the test that has it panics.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {0}; this one alone: {SEED_VARIABLE}={0}", self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            [random.number(), random.number(), random.number()]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        // The first numbers of splitmix64 for the seed 0, as its author publishes them.
        assert_eq!(numbers(0)[..2], [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4]);
    }

    #[test]
    fn numbers_stay_below_their_limit() {
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
        assert!((0..100).all(|_| random.duration(Duration::from_millis(5)) <= Duration::from_millis(5)));
        assert!(!(0..100).any(|_| random.happens(0)) && (0..100).all(|_| random.happens(1000)));
    }
}

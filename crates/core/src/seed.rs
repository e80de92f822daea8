//! The seed tree: every random draw is addressed by a path.
//!
//! A draw depends on the run's seed and on its path (run → step → rollout → call → token), never on
//! earlier draws. The order in which rollouts finish, the number of threads and a resume in the
//! middle therefore change nothing.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A node of the seed tree. Children of equal names are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedTree(u64);

impl SeedTree {
    pub fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x6c65_7964_656e))
    }

    /// The child named `name`.
    #[must_use]
    pub fn child(self, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(mix(self.0.rotate_left(17) ^ mix(hash)))
    }

    /// The child with number `index`.
    #[must_use]
    pub fn index(self, index: u64) -> Self {
        Self(mix(self.0.rotate_left(29) ^ mix(index.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// The raw seed, for generators that take a number.
    pub fn seed(self) -> u64 {
        self.0
    }

    /// A uniform number in [0, 1) with 53 bits: this node's single draw.
    pub fn uniform(self) -> f64 {
        (mix(self.0) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A generator for a sequence of draws: ChaCha8, whose stream is fixed by its specification and
    /// so does not change with library updates.
    pub fn rng(self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.0)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection that spreads bits.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::SeedTree;

    #[test]
    fn equal_paths_are_equal_and_different_paths_differ() {
        let root = SeedTree::new(7);
        assert_eq!(root.child("step").index(3), root.child("step").index(3));
        let mut seen = std::collections::HashSet::new();
        for name in ["step", "eval", "init"] {
            for i in 0..1000 {
                assert!(seen.insert(root.child(name).index(i).seed()));
            }
        }
        assert_ne!(root.child("a").child("b"), root.child("b").child("a"));
    }

    #[test]
    fn uniform_draws_are_uniform() {
        let n = 20_000;
        let mean = (0..n).map(|i| SeedTree::new(1).index(i).uniform()).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.01, "mean {mean}");
    }
}

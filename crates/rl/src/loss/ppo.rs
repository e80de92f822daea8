//! PPO: the clipped surrogate, with the dual clip.
//!
//! Schulman et al., arXiv 1707.06347; separate lower and upper ranges, DAPO's "clip-higher" (Yu et
//! al., arXiv 2503.14476); the dual clip of Ye et al., arXiv 1912.09729, which bounds the loss of
//! tokens with negative advantage and a large ratio, where the plain clip is inactive.

use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, clip_range, require};
use crate::loss::pieces::{over_rows, sum};
use crate::loss::rule::{LossInput, LossRule, LossStatistics, PolicyLoss, verl};
use crate::ratio::{BLOCK, Ratios, blocks};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// The ratio is clipped below at `1 − clip_low`.
    pub clip_low: f64,
    /// The ratio is clipped above at `1 + clip_high`.
    pub clip_high: f64,
    /// Upper bound of the ratio for negative advantages, above 1; `false` switches it off.
    #[serde(with = "number_or_false")]
    pub dual_clip: Option<f64>,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self { clip_low: 0.2, clip_high: 0.3, dual_clip: Some(3.0) }
    }
}

impl LossRule for PpoConfig {
    fn loss(&self, input: &LossInput) -> PolicyLoss {
        loss(self, input)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        clip_range(self.clip_low, self.clip_high)?;
        match self.dual_clip {
            None => Ok(()),
            Some(bound) => {
                require(bound > 1.0, "loss.dual_clip", bound, "a number above 1, or false")
            }
        }
    }

    fn of_verl(name: &str) -> Option<Self> {
        let (clip_low, clip_high) = (verl::CLIP_LOW, verl::CLIP_HIGH);
        let dual_clip = Some(verl::DUAL_CLIP);
        (name == "vanilla").then_some(Self { clip_low, clip_high, dual_clip })
    }
}

/// `L = max(−Aρ, −A clip(ρ, 1 − low, 1 + high))`, for A < 0 at most `−cA`.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn loss(config: &PpoConfig, input: &LossInput) -> PolicyLoss {
    over_rows(input, |row, piece| {
        let mut summed = Summed::new();
        for range in input.rows.runs_in(row).flat_map(blocks) {
            let [logp_new, logp_old, advantages, weights] =
                [input.logp_new, input.logp_old, input.advantages, input.weights]
                    .map(|array| &array[range.clone()]);
            let n = range.len();
            let grad = piece.grad_of(range);
            clip(config, Block { logp_new, logp_old, advantages, weights, grad }, &mut summed);
            piece.loss += sum(&summed.loss[..n]);
            piece.statistics.merge(&LossStatistics {
                tokens: n,
                clipped: sum(&summed.clipped[..n]) as usize,
                clipped_lower: sum(&summed.held[..n]) as usize,
                kl_sum: -sum(&summed.ratios.log[..n]),
            });
        }
    })
}

/// A block of tokens: slices of one length.
struct Block<'a> {
    logp_new: &'a [f64],
    logp_old: &'a [f64],
    advantages: &'a [f64],
    weights: &'a [f64],
    grad: &'a mut [f64],
}

/// Per-token terms of a block that are summed; counts as 0 or 1.
struct Summed {
    ratios: Ratios,
    loss: [f64; BLOCK],
    clipped: [f64; BLOCK],
    held: [f64; BLOCK],
}

impl Summed {
    fn new() -> Self {
        let zero = [0.0; BLOCK];
        Self { ratios: Ratios::new(), loss: zero, clipped: zero, held: zero }
    }
}

/// Loss and gradient of a block, with AVX2 where available. The results are bit-identical: each
/// token is computed independently, and products and sums are not fused.
fn clip(config: &PpoConfig, block: Block, summed: &mut Summed) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(config: &PpoConfig, block: Block, summed: &mut Summed) {
            clip_each(config, block, summed);
        }
        // SAFETY: AVX2 support was checked above.
        return unsafe { wide(config, block, summed) };
    }
    clip_each(config, block, summed);
}

/// The side of a clip is unpredictable: selections instead of branches, and slices of equal length,
/// let the compiler vectorise this.
#[inline(always)]
fn clip_each(config: &PpoConfig, block: Block, summed: &mut Summed) {
    let (low, high) = (1.0 - config.clip_low, 1.0 + config.clip_high);
    // Off: a bound that no ratio reaches.
    let bound = config.dual_clip.unwrap_or(f64::INFINITY);
    let n = block.grad.len();
    summed.ratios.set(block.logp_new, block.logp_old);
    let (ratio, slope) = (&summed.ratios.value[..n], &summed.ratios.slope[..n]);
    let (advantages, weights) = (&block.advantages[..n], &block.weights[..n]);
    let (loss, clipped, held) =
        (&mut summed.loss[..n], &mut summed.clipped[..n], &mut summed.held[..n]);
    for i in 0..n {
        let (advantage, weight) = (advantages[i], weights[i]);
        let plain = -advantage * ratio[i];
        let bounded = -advantage * between(ratio[i], low, high);
        let clips = bounded > plain;
        let larger = if clips { bounded } else { plain };
        let ceiling = if advantage < 0.0 { -bound * advantage } else { f64::INFINITY };
        let holds = larger > ceiling;
        loss[i] = weight * if holds { ceiling } else { larger };
        block.grad[i] = weight * if clips | holds { 0.0 } else { -advantage * slope[i] };
        clipped[i] = if clips { 1.0 } else { 0.0 };
        held[i] = if holds { 1.0 } else { 0.0 };
    }
}

/// [`f64::clamp`] without the check of its bounds, which would prevent vectorisation.
#[inline(always)]
fn between(x: f64, low: f64, high: f64) -> f64 {
    if x < low {
        low
    } else if x > high {
        high
    } else {
        x
    }
}

/// TOML has no null, so a number whose default is not "off" needs a value for off.
mod number_or_false {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged, expecting = "expected a number, or false for off")]
    enum NumberOrFalse {
        Number(f64),
        Switch(bool),
    }

    pub fn serialize<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        value.map_or(NumberOrFalse::Switch(false), NumberOrFalse::Number).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        match NumberOrFalse::deserialize(from)? {
            NumberOrFalse::Number(number) => Ok(Some(number)),
            NumberOrFalse::Switch(false) => Ok(None),
            NumberOrFalse::Switch(true) => {
                Err(de::Error::custom("expected a number, or false for off"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    /// Loss and derivative at one token with ratio `ratio`.
    fn at(config: &PpoConfig, ratio: f64, advantage: f64) -> (f64, f64, (usize, usize)) {
        let rows = Rows::dense(&[1]);
        let result = loss(
            config,
            &LossInput {
                rows: &rows,
                logp_new: &[ratio.ln() - 1.0],
                logp_old: &[-1.0],
                advantages: &[advantage],
                weights: &[1.0],
            },
        );
        let s = result.statistics;
        (result.loss, result.grad[0], (s.clipped, s.clipped_lower))
    }

    #[test]
    fn each_branch_of_the_clip() {
        let config = PpoConfig::default();
        let close = |(loss, grad, counts), (l, g, c): (f64, f64, _)| {
            let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
            assert!(near(loss, l) && near(grad, g) && counts == c, "{loss} {grad} {counts:?}");
        };
        close(at(&config, 1.1, 2.0), (-2.2, -2.2, (0, 0)));
        close(at(&config, 1.5, 2.0), (-2.6, 0.0, (1, 0)));
        close(at(&config, 0.5, 2.0), (-1.0, -1.0, (0, 0)));
        close(at(&config, 0.5, -2.0), (1.6, 0.0, (1, 0)));
        close(at(&config, 2.5, -2.0), (5.0, 5.0, (0, 0)));
        close(at(&config, 3.5, -2.0), (6.0, 0.0, (0, 1)));
        let single = PpoConfig { dual_clip: None, ..config };
        close(at(&single, 3.5, -2.0), (7.0, 7.0, (0, 0)));
    }

    #[test]
    fn a_vanished_probability_has_a_finite_loss_and_no_slope() {
        let (loss, grad, _) = at(&PpoConfig::default(), 0.0, 1.0);
        assert!(loss.is_finite());
        assert_eq!(grad, 0.0);
    }

    #[test]
    fn the_dual_clip_is_switched_off_by_false() {
        let off: PpoConfig = toml::from_str("dual_clip = false").unwrap();
        assert_eq!(off.dual_clip, None);
        assert_eq!(toml::from_str::<PpoConfig>(&toml::to_string(&off).unwrap()).unwrap(), off);
        assert!(toml::from_str::<PpoConfig>("dual_clip = true").is_err());
        assert!(toml::from_str::<PpoConfig>("dual_clip = 'off'").is_err());
    }
}

//! Scaling of time and memory with one size while the others stay fixed.
//!
//! A point is a randomly initialised model and a batch of rollouts of given sizes. Generation
//! and update of a point are measured in separate processes, so that each has its own memory
//! peak. A power law is fitted to the points along an axis: exponent 1 means linear growth, 0
//! means constant.

use anyhow::{Result, ensure};
use clap::ValueEnum;
use leyden_core::{Sampling, SeedTree};
use leyden_lm::generate::Engine;
use leyden_lm::model::LlamaConfig;
use leyden_lm::model::{Parameters, initialise};
use leyden_lm::optim::{Optimizer, OptimizerConfig};
use leyden_lm::policy::{Policy, PolicyOptions};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use crate::play::play;
use crate::process::{median, peak_memory, timed};
use crate::tiny;
use crate::update::Updater;
use crate::work::{Conversations, Rollouts};

const VOCABULARY: usize = 4096;
const LAYERS: usize = 4;
const HEAD_DIM: usize = 32;
const TASKS: usize = 4;
const RESPONSE: usize = 32;
/// Tokens of the tool result after a response.
const BETWEEN: usize = 16;
/// Maximum number of merged tokens in a micro-batch, which bounds the memory of an update.
const MICRO_BATCH: usize = 2048;

/// The size that is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Rollouts per task.
    Group,
    /// Tokens per prompt.
    Prompt,
    /// Calls per rollout.
    Turns,
    /// Width of the model.
    Width,
}

impl Axis {
    pub const ALL: [Self; 4] = [Self::Group, Self::Prompt, Self::Turns, Self::Width];

    /// The measured sizes.
    pub fn sizes(self) -> &'static [usize] {
        match self {
            Self::Group => &[4, 8, 16, 32],
            Self::Prompt => &[64, 128, 256, 512, 1024],
            Self::Turns => &[1, 2, 4, 8],
            Self::Width => &[64, 128, 256, 512],
        }
    }

    /// Column title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Group => "rollouts of a task",
            Self::Prompt => "tokens of a prompt",
            Self::Turns => "calls of a rollout",
            Self::Width => "width of the model",
        }
    }
}

/// The sizes of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub group: usize,
    pub prompt: usize,
    pub turns: usize,
    pub width: usize,
}

impl Point {
    /// The base point; each axis varies one of its sizes.
    pub const BASE: Self = Self { group: 8, prompt: 128, turns: 2, width: 128 };

    /// The base point with `size` along `axis`.
    pub fn at(axis: Axis, size: usize) -> Self {
        let mut point = Self::BASE;
        match axis {
            Axis::Group => point.group = size,
            Axis::Prompt => point.prompt = size,
            Axis::Turns => point.turns = size,
            Axis::Width => point.width = size,
        }
        point
    }

    /// The model: [`LAYERS`] layers of the point's width.
    ///
    /// # Errors
    /// A width that is not a multiple of twice the head width.
    pub fn config(&self) -> Result<LlamaConfig> {
        let heads = self.width / HEAD_DIM;
        ensure!(
            self.width > 0 && self.width.is_multiple_of(2 * HEAD_DIM),
            "a width of {} is not a multiple of {}",
            self.width,
            2 * HEAD_DIM
        );
        Ok(LlamaConfig {
            vocab_size: VOCABULARY,
            hidden_size: self.width,
            intermediate_size: 3 * self.width,
            layers: LAYERS,
            heads,
            kv_heads: heads / 2,
            head_dim: HEAD_DIM,
            max_positions: 4096,
            ..tiny::config()
        })
    }

    fn policy(&self, kind: Kind, train: bool) -> Result<Policy> {
        let config = self.config()?;
        let tensors = initialise(&config, SeedTree::new(1))?;
        let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, train)?;
        Ok(Policy::new(config, parameters, PolicyOptions { compute: kind, ..Default::default() }))
    }
}

/// The phase of a step that a process measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Generate,
    Update,
}

/// A point of one axis, measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub seconds: f64,
    /// Peak memory of the process minus its memory before the model was created.
    pub bytes: u64,
}

/// Measures one phase of a point in this process: the median of `repetitions` after one untimed
/// run.
///
/// # Errors
/// Errors of the model; peak memory that cannot be read.
pub fn measure(point: Point, phase: Phase, kind: Kind, repetitions: usize) -> Result<Measured> {
    let before = peak_memory()?;
    let Point { group, prompt, turns, .. } = point;
    let mut seconds = Vec::new();
    match phase {
        Phase::Generate => {
            let policy = point.policy(kind, false)?;
            let made = Conversations::make(TASKS, prompt, (turns, BETWEEN), VOCABULARY, 1);
            let limits = made.limits(group, RESPONSE);
            let weights = policy.inference_weights()?;
            let mut engine = Engine::new(point.config()?, weights, Device::Cpu, limits);
            let sampling = Sampling { max_tokens: RESPONSE, ..Sampling::default() };
            for repetition in 0..=repetitions as u64 {
                let seed = SeedTree::new(repetition);
                let (_, took) = timed(|| play(&mut engine, &made, group, &sampling, seed))?;
                seconds.push(took);
            }
        }
        Phase::Update => {
            let policy = point.policy(kind, true)?;
            let sizes = (TASKS, group, turns);
            let rollouts = Rollouts::of_lengths(sizes, (prompt, RESPONSE, BETWEEN), VOCABULARY, 1);
            let batch = rollouts.batch()?;
            let optimizer = Optimizer::new(policy.trained(), OptimizerConfig::default())?;
            let mut updater = Updater::new(&policy, optimizer, &batch, MICRO_BATCH);
            for _ in 0..=repetitions {
                seconds.push(timed(|| updater.update())?.1);
            }
        }
    }
    let seconds = median(&seconds[1..]).unwrap_or(f64::NAN);
    Ok(Measured { seconds, bytes: peak_memory()?.saturating_sub(before) })
}

/// The exponent `e` of `y = c · x^e`, fitted by least squares on the logarithms. `None` for
/// fewer than two distinct sizes or for values that are not positive.
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    if points.iter().any(|&(x, y)| !(x > 0.0 && y > 0.0)) {
        return None;
    }
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = logs.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| logs.iter().map(value).sum::<f64>() / n;
    let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = logs.iter().map(|(x, _)| (x - mx).powi(2)).sum();
    let common: f64 = logs.iter().map(|(x, y)| (x - mx) * (y - my)).sum();
    (spread > 0.0).then(|| common / spread)
}

#[cfg(test)]
mod tests {
    use super::{Axis, Phase, Point, exponent, measure};
    use tch::Kind;

    #[test]
    fn exponents_of_powers() {
        let power = |e: f64| [1.0, 2.0, 4.0, 8.0].map(|x: f64| (x, 3.0 * x.powf(e)));
        for e in [0.0, 1.0, 1.5, 2.0] {
            assert!((exponent(&power(e)).unwrap() - e).abs() < 1e-12);
        }
        assert_eq!(exponent(&[(1.0, 2.0)]), None);
        assert_eq!(exponent(&[(2.0, 2.0), (2.0, 3.0)]), None);
        assert_eq!(exponent(&[(1.0, 0.0), (2.0, 3.0)]), None);
    }

    #[test]
    fn both_phases_of_a_small_point_are_measured() {
        tch::set_num_threads(1);
        let point = Point { group: 2, prompt: 8, turns: 2, width: 64 };
        for phase in [Phase::Generate, Phase::Update] {
            let measured = measure(point, phase, Kind::Float, 1).unwrap();
            assert!(measured.seconds > 0.0 && measured.bytes > 0, "{phase:?}: {measured:?}");
        }
        let message = Point::at(Axis::Width, 100).config().unwrap_err().to_string();
        assert!(message.contains("100"), "{message}");
    }
}

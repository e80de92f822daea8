//! Roofline prediction of the duration of one of the paper's training steps on another device.
//!
//! Not a measurement: the necessary floating-point operations and bytes, divided by the share of
//! the device's peak that is assumed to be reached. Ignores tools, queries and all other waiting.

use leyden_lm::LmError;
use leyden_lm::generate::Engine;
use leyden_lm::memory::{MemoryPlan, MemoryRequest, Training};
use leyden_lm::model::LlamaConfig;
use serde::Serialize;
use tch::Kind;

/// A device by its data sheet, with the assumed utilisation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accelerator {
    pub name: &'static str,
    /// bf16 operations per second, dense.
    pub flops: f64,
    /// Memory bandwidth in bytes per second.
    pub bandwidth: f64,
    pub memory: u64,
    /// Share of `flops` reached in prefill and training.
    pub flops_share: f64,
    /// Share of `bandwidth` reached in decoding and in the optimiser.
    pub bandwidth_share: f64,
}

/// NVIDIA H100 SXM: 989 TFLOP/s, 3.35 TB/s, 80 GB. Good trainers reach 40 % of the FLOP/s, good
/// engines 60 % of the bandwidth.
pub const H100: Accelerator = Accelerator {
    name: "one H100 SXM (80 GB)",
    flops: 989e12,
    bandwidth: 3.35e12,
    memory: 80_000_000_000,
    flops_share: 0.4,
    bandwidth_share: 0.6,
};

/// The sizes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Step {
    pub tasks: usize,
    pub samples: usize,
    /// Calls per rollout.
    pub turns: usize,
    /// Tokens of a task's prompt, of each response, and of the tool result after a response.
    pub prompt: usize,
    pub response: usize,
    pub between: usize,
    /// Merged tokens of a micro-batch.
    pub micro_batch: usize,
    /// Whether the layers are recomputed in the backward pass.
    pub checkpointing: bool,
}

impl Step {
    fn rollouts(&self) -> f64 {
        (self.tasks * self.samples) as f64
    }

    /// Tokens of a whole conversation.
    pub fn context(&self) -> usize {
        self.prompt + self.turns * self.response + (self.turns - 1) * self.between
    }

    /// Tokens of a step with merged prefixes: every prompt once, then each rollout's own tokens.
    pub fn unique(&self) -> f64 {
        (self.tasks * self.prompt) as f64 + self.rollouts() * (self.context() - self.prompt) as f64
    }

    /// Tokens of a step with a row for each call, nothing merged.
    pub fn rows(&self) -> f64 {
        let row = |turn: usize| self.prompt + (turn + 1) * self.response + turn * self.between;
        self.rollouts() * (0..self.turns).map(row).sum::<usize>() as f64
    }
}

/// Durations of the parts of a step in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Seconds {
    pub prefill: f64,
    pub decode: f64,
    pub train: f64,
    /// The same training with a row for each call, for comparison.
    pub train_rows: f64,
    pub optimiser: f64,
}

impl Seconds {
    pub fn total(&self) -> f64 {
        self.prefill + self.decode + self.train + self.optimiser
    }
}

/// Predicts the parts of a training step of `config` on `device`, weights and cache in bf16.
pub fn seconds(config: &LlamaConfig, step: &Step, device: &Accelerator) -> Seconds {
    let parameters = config.parameters() as f64;
    let flops = device.flops * device.flops_share;
    let bandwidth = device.bandwidth * device.bandwidth_share;
    let tools = step.rollouts() * ((step.turns - 1) * step.between) as f64;
    let prefilled = (step.tasks * step.prompt) as f64 + tools;
    // Each decoding step reads the weights once and each rollout's cache, which on average is
    // half full after the prompt.
    let token = Engine::bytes_per_token(config, Kind::BFloat16) as f64;
    let steps = (step.turns * step.response) as f64;
    let own = (step.context() - step.prompt) as f64 / 2.0;
    let seen = step.tasks as f64 * step.prompt as f64 + step.rollouts() * own;
    let decode_bytes = steps * (2.0 * parameters + seen * token);
    let decode_flops = 2.0 * parameters * step.rollouts() * steps;
    let per_token = if step.checkpointing { 8.0 } else { 6.0 } * parameters;
    Seconds {
        prefill: 2.0 * parameters * prefilled / flops,
        decode: (decode_bytes / bandwidth).max(decode_flops / flops),
        train: per_token * step.unique() / flops,
        train_rows: per_token * step.rows() / flops,
        // f32: weights, gradients and two moments read, all but gradients written.
        optimiser: 28.0 * parameters / bandwidth,
    }
}

/// Memory that the step needs.
///
/// # Errors
/// None of these types and shapes; those of [`MemoryRequest::plan`].
pub fn memory(config: &LlamaConfig, step: &Step) -> Result<MemoryPlan, LmError> {
    MemoryRequest {
        config: config.clone(),
        parameters: Kind::Float,
        compute: Kind::BFloat16,
        training: Training::Full { master: false },
        reference: false,
        trunk: false,
        earlier: 0,
        pack_tokens: step.micro_batch,
        replicas: 1,
        checkpointing: step.checkpointing,
        head_chunk: None,
        rollouts: step.tasks * step.samples,
        context: step.context(),
    }
    .plan()
}

#[cfg(test)]
mod tests {
    use super::{H100, Step, memory, seconds};
    use crate::tiny;

    const STEP: Step = Step {
        tasks: 2,
        samples: 4,
        turns: 3,
        prompt: 100,
        response: 10,
        between: 5,
        micro_batch: 1024,
        checkpointing: false,
    };

    #[test]
    fn tokens_are_counted() {
        assert_eq!(STEP.context(), 140);
        assert_eq!(STEP.unique(), (2 * 100 + 8 * 40) as f64);
        assert_eq!(STEP.rows(), (8 * (110 + 125 + 140)) as f64);
    }

    #[test]
    fn parts_follow_from_operations_and_bytes() {
        let config = tiny::config();
        let n = config.parameters() as f64;
        let parts = seconds(&config, &STEP, &H100);
        assert!((parts.train - 6.0 * n * 520.0 / (0.4 * 989e12)).abs() < 1e-18);
        assert!((parts.train_rows / parts.train - 3000.0 / 520.0).abs() < 1e-9);
        let again = seconds(&config, &Step { checkpointing: true, ..STEP }, &H100);
        assert!((again.train / parts.train - 8.0 / 6.0).abs() < 1e-9);
        assert!(memory(&config, &STEP).unwrap().total() > 16 * n as u64);
    }
}

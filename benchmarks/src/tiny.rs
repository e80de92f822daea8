//! A randomly initialised model of the quickstart's size, for benches without files.

use leyden_core::SeedTree;
use leyden_lm::LmError;
use leyden_lm::model::{LlamaConfig, Parameters, initialise};
use leyden_lm::optim::OptimizerConfig;
use leyden_lm::policy::{Policy, PolicyOptions};
use tch::{Device, Kind};

/// Size of the vocabulary.
pub const VOCABULARY: usize = 1024;

/// 0.6 M parameters.
pub fn config() -> LlamaConfig {
    LlamaConfig {
        vocab_size: VOCABULARY,
        hidden_size: 96,
        intermediate_size: 256,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        head_dim: 24,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        max_positions: 1024,
        tied: true,
        bos: None,
        eos: Vec::new(),
    }
}

/// A trainable model in f32 on the CPU, initialised from a fixed seed.
///
/// # Errors
/// Errors of libtorch.
pub fn policy() -> Result<Policy, LmError> {
    let config = config();
    let tensors = initialise(&config, SeedTree::new(1))?;
    let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, true)?;
    Ok(Policy::new(config, parameters, PolicyOptions::default()))
}

/// AdamW without weight decay.
pub fn optimizer(lr: f64) -> OptimizerConfig {
    OptimizerConfig { lr, weight_decay: 0.0, ..OptimizerConfig::default() }
}

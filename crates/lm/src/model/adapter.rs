//! LoRA adapters as plain data: configuration and matrices.

use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Configuration of the adapters (Hu et al. 2021).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Inner dimension of the two matrices.
    pub rank: usize,
    /// Their product is scaled by `alpha / rank`.
    pub alpha: f64,
    /// The adapted projections: any of `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`,
    /// `up_proj`, `down_proj`; a configuration may abbreviate `q_proj` to `q`
    /// ([`LoraConfig::with_full_names`]).
    pub targets: Vec<String>,
}

impl LoraConfig {
    /// The same with the targets' full names: `q` is short for `q_proj`.
    pub fn with_full_names(&self) -> Self {
        let full = |name: &String| {
            if name.ends_with("_proj") { name.clone() } else { format!("{name}_proj") }
        };
        Self { targets: self.targets.iter().map(full).collect(), ..self.clone() }
    }
}

/// The two matrices of one adapted projection: scale · (x Aᵀ) Bᵀ is added to its output.
pub struct Adapter {
    /// Path of the projection, `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// [rank, in]
    pub a: Tensor,
    /// [out, rank]
    pub b: Tensor,
}

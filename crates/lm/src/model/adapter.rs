//! LoRA adapters as plain data: what is adapted, and the matrices.

use serde::{Deserialize, Serialize};
use tch::Tensor;

/// What is adapted, and how strongly (Hu et al. 2021).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Inner dimension of the two matrices.
    pub rank: usize,
    /// Their product is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Which projections: any of `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`,
    /// `up_proj`, `down_proj`; an experiment may write `q` for `q_proj`
    /// ([`LoraConfig::with_full_names`]).
    pub targets: Vec<String>,
}

impl LoraConfig {
    /// The same with the targets by their names in the model: `q` is short for `q_proj`.
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

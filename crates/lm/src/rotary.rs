//! Rotary position embedding (Su et al. 2021), with the frequency scaling of Llama 3.1.

use std::f64::consts::PI;

use tch::{Device, Kind, Tensor};

use crate::LlamaConfig;

/// The inverse frequencies of a model. Angles are computed for the positions at hand, in f32
/// as transformers does, so no table limits the context.
pub struct Rotary {
    inverse_frequencies: Tensor,
}

impl Rotary {
    pub fn new(config: &LlamaConfig, device: Device) -> Self {
        let frequencies: Vec<f32> =
            inverse_frequencies(config).into_iter().map(|f| f as f32).collect();
        Self { inverse_frequencies: Tensor::from_slice(&frequencies).to_device(device) }
    }

    /// Cosine and sine for `positions` [n], each [n, 1, head_dim], in `kind`.
    pub fn angles(&self, positions: &Tensor, kind: Kind) -> (Tensor, Tensor) {
        let angles = positions.to_kind(Kind::Float).unsqueeze(-1) * &self.inverse_frequencies;
        let angles = Tensor::cat(&[&angles, &angles], -1).unsqueeze(1);
        (angles.cos().to_kind(kind), angles.sin().to_kind(kind))
    }
}

/// Turns `x` [n, heads, head_dim] by the given angles: x·cos + rotate_half(x)·sin.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let half = x.size()[2] / 2;
    let turned = Tensor::cat(&[&x.narrow(2, half, half).neg(), &x.narrow(2, 0, half)], 2);
    x * cos + turned * sin
}

/// θ^(−2i/d), scaled as Llama 3.1 does: long wavelengths are divided by `factor`, short ones
/// kept, those between blended.
pub fn inverse_frequencies(config: &LlamaConfig) -> Vec<f64> {
    let d = config.head_dim;
    (0..d / 2)
        .map(|i| {
            let frequency = config.rope_theta.powf(-((2 * i) as f64) / d as f64);
            let Some(scaling) = config.rope_scaling else { return frequency };
            let wavelength = 2.0 * PI / frequency;
            let longest_kept = scaling.original_max_positions / scaling.high_freq_factor;
            let shortest_divided = scaling.original_max_positions / scaling.low_freq_factor;
            if wavelength < longest_kept {
                frequency
            } else if wavelength > shortest_divided {
                frequency / scaling.factor
            } else {
                let blend = (scaling.original_max_positions / wavelength - scaling.low_freq_factor)
                    / (scaling.high_freq_factor - scaling.low_freq_factor);
                (1.0 - blend) * frequency / scaling.factor + blend * frequency
            }
        })
        .collect()
}

//! Rotary position embedding (Su et al. 2021), with the frequency scaling of Llama 3.1.

use std::f32::consts::PI;

use tch::{Device, Kind, Tensor};

use crate::error::LmError;
use crate::kernels;
use crate::model::config::LlamaConfig;

/// The inverse frequencies of a model. Angles are computed on demand for the given positions, in
/// f32 as in transformers, so no table limits the context.
pub struct Rotary {
    inverse_frequencies: Tensor,
}

impl Rotary {
    pub fn new(config: &LlamaConfig, device: Device) -> Self {
        let frequencies: Vec<f32> =
            inverse_frequencies(config).into_iter().map(|f| f as f32).collect();
        Self { inverse_frequencies: Tensor::from_slice(&frequencies).to_device(device) }
    }

    /// Cosine and sine at `positions` `[n]`, for vectors of `kind`.
    pub fn angles(&self, positions: &Tensor, kind: Kind) -> Angles {
        let angles = positions.to_kind(Kind::Float).unsqueeze(-1) * &self.inverse_frequencies;
        let head_dim = 2 * self.inverse_frequencies.numel();
        if kernels::fits_heads(head_dim, kind, angles.device()) {
            return Angles { cos: angles.cos(), sin: angles.sin(), by_kernel: true };
        }
        let angles = Tensor::cat(&[&angles, &angles], -1).unsqueeze(1);
        Angles {
            cos: angles.cos().to_kind(kind),
            sin: angles.sin().to_kind(kind),
            by_kernel: false,
        }
    }
}

/// Cosines and sines of the angles at some positions.
pub struct Angles {
    /// [n, 1, head_dim] in the type of the vectors; for the kernel [n, head_dim / 2], f32.
    cos: Tensor,
    sin: Tensor,
    by_kernel: bool,
}

impl Angles {
    /// Cosines and sines.
    pub(crate) fn tensors(&self) -> (&Tensor, &Tensor) {
        (&self.cos, &self.sin)
    }
}

/// Rotates `x` [n, heads, head_dim] by the given angles: x·cos + rotate_half(x)·sin.
///
/// # Errors
/// Errors of libtorch.
pub fn rotate(x: &Tensor, Angles { cos, sin, by_kernel }: &Angles) -> Result<Tensor, LmError> {
    if *by_kernel {
        return kernels::rotate(x, cos, sin);
    }
    let halves = x.f_split(x.size()[2] / 2, 2)?;
    let turned = Tensor::f_cat(&[&halves[1].neg(), &halves[0]], 2)?;
    Ok(x * cos + turned * sin)
}

/// θ^(−2i/d), scaled as in Llama 3.1: long wavelengths are divided by `factor`, short ones kept,
/// those between blended.
///
/// Computed in f32 (each is an f32 number) and in transformers' order of operations. At position
/// 20,000 an error in the last digit of a frequency is already 1e-3 in an angle, so a more precise
/// result would disagree with the values that models were trained with.
pub fn inverse_frequencies(config: &LlamaConfig) -> Vec<f64> {
    let (theta, d) = (config.rope_theta as f32, config.head_dim as f32);
    let plain = (0..config.head_dim / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / d));
    let Some(scaling) = config.rope_scaling else { return plain.map(f64::from).collect() };
    let longest_kept = (scaling.original_max_positions / scaling.high_freq_factor) as f32;
    let shortest_divided = (scaling.original_max_positions / scaling.low_freq_factor) as f32;
    let (factor, low) = (scaling.factor as f32, scaling.low_freq_factor as f32);
    let span = (scaling.high_freq_factor - scaling.low_freq_factor) as f32;
    plain
        .map(|frequency| {
            let wavelength = 2.0 * PI / frequency;
            if wavelength < longest_kept {
                frequency
            } else if wavelength > shortest_divided {
                frequency / factor
            } else {
                let blend = (scaling.original_max_positions as f32 / wavelength - low) / span;
                (1.0 - blend) * frequency / factor + blend * frequency
            }
        })
        .map(f64::from)
        .collect()
}

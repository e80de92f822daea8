//! Initialisation of weights.
//!
//! Numbers are drawn from Leyden's seed tree, one stream per tensor name, and not from libtorch's
//! global generator: a model depends only on its shape and seed, not on other draws in the process.

use std::f64::consts::TAU;

use leyden_core::SeedTree;
use tch::Tensor;

use crate::error::LmError;
use crate::model::config::LlamaConfig;
use crate::model::parameters::projection_shapes;

/// Standard deviation of initial matrices (GPT-2, Llama).
const DEVIATION: f64 = 0.02;

/// Initial parameters of a model by name, f32 on the CPU: matrices normal with deviation 0.02,
/// those that write into the residual stream with 0.02 / √(2 · layers) so that its variance does
/// not grow with depth (Radford et al. 2019), norms at one.
///
/// # Errors
/// Errors of libtorch (memory).
pub fn initialise(config: &LlamaConfig, seed: SeedTree) -> Result<Vec<(String, Tensor)>, LmError> {
    let residual = DEVIATION / (2.0 * config.layers as f64).sqrt();
    projection_shapes(config)
        .into_iter()
        .map(|(name, shape)| {
            let writes_residual =
                name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
            let tensor = match shape.len() {
                1 => Tensor::f_ones(shape.as_slice(), (tch::Kind::Float, tch::Device::Cpu))?,
                _ if writes_residual => normal(&shape, residual, seed.child(&name))?,
                _ => normal(&shape, DEVIATION, seed.child(&name))?,
            };
            Ok((name, tensor))
        })
        .collect()
}

/// Normal numbers of mean 0 (Box and Muller 1958).
pub(crate) fn normal(shape: &[i64], deviation: f64, seed: SeedTree) -> Result<Tensor, LmError> {
    let numbers = shape.iter().product::<i64>() as usize;
    let mut values = Vec::with_capacity(numbers + 1);
    for pair in 0..numbers.div_ceil(2) as u64 {
        // 1 − u is in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * (1.0 - seed.index(2 * pair).uniform()).ln()).sqrt() * deviation;
        let (sin, cos) = (TAU * seed.index(2 * pair + 1).uniform()).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(numbers);
    Ok(Tensor::f_from_slice(&values)?.f_view(shape)?)
}

/// Uniform numbers in ±`bound`.
pub(crate) fn uniform(shape: &[i64], bound: f64, seed: SeedTree) -> Result<Tensor, LmError> {
    let numbers = shape.iter().product::<i64>() as u64;
    let values: Vec<f32> =
        (0..numbers).map(|i| ((2.0 * seed.index(i).uniform() - 1.0) * bound) as f32).collect();
    Ok(Tensor::f_from_slice(&values)?.f_view(shape)?)
}

#[cfg(test)]
mod tests {
    use super::{normal, uniform};
    use leyden_core::SeedTree;
    use tch::Tensor;

    fn moments(x: &Tensor) -> (f64, f64, f64) {
        let x = x.to_kind(tch::Kind::Double);
        let mean = x.mean(tch::Kind::Double).double_value(&[]);
        let fourth = (&x - mean).pow_tensor_scalar(4).mean(tch::Kind::Double).double_value(&[]);
        let deviation = x.std(false).double_value(&[]);
        (mean, deviation, fourth / deviation.powi(4))
    }

    #[test]
    fn normal_numbers_have_the_moments_of_a_normal_distribution() {
        let (mean, deviation, kurtosis) =
            moments(&normal(&[333, 301], 0.02, SeedTree::new(5)).unwrap());
        assert!(mean.abs() < 3e-4, "mean {mean}");
        assert!((deviation / 0.02 - 1.0).abs() < 0.01, "deviation {deviation}");
        assert!((kurtosis - 3.0).abs() < 0.1, "kurtosis {kurtosis}");
    }

    #[test]
    fn uniform_numbers_fill_their_interval() {
        let x = uniform(&[400, 100], 0.5, SeedTree::new(5)).unwrap();
        let (mean, deviation, _) = moments(&x);
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((deviation - 0.5 / 3f64.sqrt()).abs() < 0.005, "deviation {deviation}");
        assert!(x.abs().max().double_value(&[]) <= 0.5);
    }
}

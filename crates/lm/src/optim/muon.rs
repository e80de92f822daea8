//! Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>): momentum with matrix
//! updates that are made nearly orthogonal before they are applied.
//!
//! Every direction of a matrix then moves at the same rate, however rare its gradient. Only for the
//! matrices inside the layers: embeddings, head and norms use AdamW.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::error::LmError;

/// Coefficients of the quintic Newton–Schulz iteration, chosen by the authors for the
/// steepest slope at zero rather than for convergence to exactly 1.
const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);

/// Muon's constants, for the matrices of the layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MuonConfig {
    /// Base learning rate of the matrices.
    pub lr: f64,
    pub momentum: f64,
    /// Use Nesterov momentum.
    pub nesterov: bool,
    /// Newton–Schulz iterations.
    pub iterations: usize,
    pub weight_decay: f64,
}

impl Default for MuonConfig {
    fn default() -> Self {
        Self { lr: 0.02, momentum: 0.95, nesterov: true, iterations: 5, weight_decay: 0.0 }
    }
}

/// Whether a two-dimensional parameter is updated by Muon, by its name.
pub fn applies(name: &str) -> bool {
    !name.contains("embed_tokens") && !name.contains("lm_head")
}

/// One step on a matrix: `values` and `momentum` [rows, columns] change in place.
///
/// # Errors
/// Errors of libtorch.
pub fn step(
    config: &MuonConfig,
    factor: f64,
    mut values: Tensor,
    mut momentum: Tensor,
    grad: &Tensor,
) -> Result<(), LmError> {
    let lr = config.lr * factor;
    let _ = momentum.f_lerp_(grad, 1.0 - config.momentum)?;
    let direction = if config.nesterov {
        grad.f_lerp(&momentum, config.momentum)?
    } else {
        momentum.shallow_clone()
    };
    let (rows, columns) = (values.size()[0] as f64, values.size()[1] as f64);
    let scale = (rows / columns).max(1.0).sqrt();
    let update = orthogonalise(&direction, config.iterations)? * (lr * scale);
    if config.weight_decay != 0.0 {
        let _ = values.f_mul_scalar_(1.0 - lr * config.weight_decay)?;
    }
    let _ = values.f_sub_(&update.to_kind(values.kind()))?;
    Ok(())
}

/// Moves the singular values of `matrix` close to 1 and keeps its singular vectors.
fn orthogonalise(matrix: &Tensor, iterations: usize) -> Result<Tensor, LmError> {
    let (a, b, c) = COEFFICIENTS;
    let tall = matrix.size()[0] > matrix.size()[1];
    let mut x = if tall { matrix.tr() } else { matrix.shallow_clone() };
    // The Frobenius norm bounds the largest singular value.
    x = &x / (x.f_square()?.f_sum(Kind::Float)?.f_sqrt()? + 1e-7);
    for _ in 0..iterations {
        let gram = x.f_matmul(&x.tr())?;
        let polynomial = &gram * b + gram.f_matmul(&gram)? * c;
        x = &x * a + polynomial.f_matmul(&x)?;
    }
    Ok(if tall { x.tr() } else { x })
}

#[cfg(test)]
mod tests {
    use super::orthogonalise;
    use crate::model::init::normal;
    use leyden_core::SeedTree;

    #[test]
    fn singular_values_come_close_to_one_and_vectors_stay() {
        for shape in [[12, 40], [40, 12], [16, 16]] {
            let matrix = normal(&shape, 3.0, SeedTree::new(8)).unwrap();
            let result = orthogonalise(&matrix, 5).unwrap();
            let (u, before, v) = matrix.svd(true, true);
            // In the singular basis of the input the result is diagonal.
            let core = u.tr().matmul(&result).matmul(&v);
            let diagonal = core.diagonal(0, 0, 1);
            let rest = (&core - diagonal.diag_embed(0, 0, 1)).abs().max().double_value(&[]);
            assert!(rest < 1e-4, "off-diagonal {rest}");
            // Directions a hundredth of the strongest are lifted into the authors' range.
            let strongest = before.max().double_value(&[]);
            for i in 0..12 {
                if before.double_value(&[i]) > 0.05 * strongest {
                    let value = diagonal.double_value(&[i]);
                    assert!((0.6..1.3).contains(&value), "{value} from {before}");
                }
            }
        }
    }
}

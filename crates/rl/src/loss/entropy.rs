//! The entropy bonus.
//!
//! Entropies come from the model; the caller back-propagates the derivative with respect to them.

use crate::rows::Rows;

/// An entropy bonus of a batch or of part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct EntropyBonus {
    /// `−c Σ_t weight_t · H_t`.
    pub loss: f64,
    /// d loss / d entropy, one per token; 0 outside the mask.
    pub grad: Vec<f64>,
    /// Sum of the entropies over `tokens` tokens, without factor and weights; additive over parts.
    pub sum: f64,
    pub tokens: usize,
}

/// The bonus with factor `coefficient` on `entropies`, in nats, one per token.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn bonus(coefficient: f64, entropies: &[f64], weights: &[f64], rows: &Rows) -> EntropyBonus {
    rows.assert_fits("entropies", entropies);
    rows.assert_fits("weights", weights);
    let mut bonus = EntropyBonus { loss: 0.0, grad: vec![0.0; rows.tokens()], sum: 0.0, tokens: 0 };
    for t in rows.active() {
        let factor = -coefficient * weights[t];
        bonus.loss += factor * entropies[t];
        bonus.grad[t] = factor;
        bonus.sum += entropies[t];
        bonus.tokens += 1;
    }
    bonus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_entropy_is_less_loss() {
        let rows = Rows::new(&[2], vec![true, false]).unwrap();
        let bonus = bonus(0.5, &[2.0, f64::NAN], &[0.5, 0.0], &rows);
        assert_eq!((bonus.loss, bonus.sum, bonus.tokens), (-0.5, 2.0, 1));
        assert_eq!(bonus.grad, [-0.25, 0.0]);
    }
}

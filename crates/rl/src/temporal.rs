//! Generalised advantage estimates of consecutive steps from rewards and values.
//!
//! A step is a token ([`crate::advantage::gae`]) or a whole call ([`crate::credit`]).

/// Generalised advantage estimates (Schulman et al., arXiv 1506.02438) of consecutive steps, each
/// given by its reward and the value of its state: `δ_k = r_k + γ V_{k+1} − V_k`,
/// `A_k = δ_k + γλ A_{k+1}`, backwards from V = A = 0.
pub(crate) fn estimates(steps: &[(f64, f64)], gamma: f64, lambda: f64) -> Vec<f64> {
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    let mut advantages = vec![0.0; steps.len()];
    for (&(reward, value), advantage) in steps.iter().zip(&mut advantages).rev() {
        let delta = reward + gamma * next_value - value;
        *advantage = delta + gamma * lambda * next_advantage;
        (next_value, next_advantage) = (value, *advantage);
    }
    advantages
}

//! Learning-rate schedules as a factor of the base rate.

use serde::{Deserialize, Serialize};

/// Shape of the learning rate after warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Constant.
    #[default]
    Constant,
    /// Linear to the floor at the last step.
    Linear,
    /// Half a cosine to the floor at the last step (Loshchilov and Hutter 2017).
    Cosine,
}

/// Linear warm-up, then decay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Steps until the full rate; the first has 1 / warmup of it.
    pub warmup: usize,
    pub decay: Decay,
    /// Number of steps over which the rate decays, including warm-up.
    pub steps: usize,
    /// The factor at the end of the decay and after it.
    pub floor: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { warmup: 0, decay: Decay::Constant, steps: 0, floor: 0.0 }
    }
}

impl Schedule {
    /// The factor for step `step`, counted from 0.
    pub fn factor(&self, step: usize) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.steps.saturating_sub(self.warmup).max(1);
        let done = ((step - self.warmup) as f64 / span as f64).min(1.0);
        let remaining = match self.decay {
            Decay::Constant => return 1.0,
            Decay::Linear => 1.0 - done,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        self.floor + (1.0 - self.floor) * remaining
    }
}

#[cfg(test)]
mod tests {
    use super::{Decay, Schedule};

    #[test]
    fn warm_up_is_linear_and_decay_ends_at_the_floor() {
        for (decay, middle) in
            [(Decay::Constant, 1.0), (Decay::Linear, 0.55), (Decay::Cosine, 0.55)]
        {
            let schedule = Schedule { warmup: 4, decay, steps: 24, floor: 0.1 };
            let start: Vec<f64> = (0..5).map(|step| schedule.factor(step)).collect();
            assert_eq!(start, [0.25, 0.5, 0.75, 1.0, 1.0]);
            assert!((schedule.factor(14) - middle).abs() < 1e-12, "{decay:?}");
            let end = if decay == Decay::Constant { 1.0 } else { 0.1 };
            assert!((schedule.factor(24) - end).abs() < 1e-12, "{decay:?}");
            assert!((schedule.factor(1000) - end).abs() < 1e-12, "{decay:?}");
        }
        // A quarter of the cosine is above the straight line.
        let at = |decay| Schedule { warmup: 0, decay, steps: 20, floor: 0.0 }.factor(5);
        assert!((at(Decay::Cosine) - 0.853_553_390_593).abs() < 1e-9);
        assert!((at(Decay::Linear) - 0.75).abs() < 1e-12);
    }
}

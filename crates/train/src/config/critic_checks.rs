//! Whether an experiment has a critic, and checks of its keys.

use super::critic::{CriticConfig, CriticTrunk};
use super::{Experiment, KeyError, Objective};

impl Experiment {
    /// Whether a critic is trained with the policy.
    pub fn has_critic(&self) -> bool {
        self.train.objective == Objective::Reinforcement && self.algorithm.needs_critic()
    }

    /// Whether a critic with a trunk of its own is trained.
    pub fn has_own_trunk(&self) -> bool {
        self.has_critic() && self.critic.trunk == CriticTrunk::Own
    }

    /// Number of first steps of the run in which the critic is fitted and the policy is not
    /// updated. The policy's learning rate begins after them and ends at the last step.
    pub fn critic_warmup(&self) -> u64 {
        if self.has_critic() { self.critic.warmup } else { 0 }
    }

    /// Rejects keys of a critic that the algorithm does not have, and a warm-up longer than the run.
    pub(super) fn check_critic(&self) -> Result<(), KeyError> {
        let CriticConfig { trunk, warmup, .. } = self.critic;
        if !self.algorithm.needs_critic() {
            let what = "this algorithm has no critic; use algorithm.advantage gae, or \
                 algorithm.credit learned_value or bilevel_gae";
            if trunk == CriticTrunk::Own {
                return Err(KeyError::new("critic.trunk", what));
            }
            if warmup > 0 {
                return Err(KeyError::new("critic.warmup", what));
            }
        }
        let steps = self.train.steps;
        if self.critic_warmup() > steps {
            let what = format!("is {warmup}, but must be at most train.steps ({steps})");
            return Err(KeyError::new("critic.warmup", what));
        }
        Ok(())
    }
}

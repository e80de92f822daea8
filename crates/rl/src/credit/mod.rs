//! Credit assignment: from the return of a trajectory to one number per call.
//!
//! An agent calls the model several times and is rewarded once, at the end. Each call is an action
//! of a Markov decision process and becomes a row of the batch; credit assigns each of them a
//! value. One file per rule; a rule sees all trajectories of the step at once, with all known data
//! of each call, so that it can compare trajectories of a group.
//!
//! There are two kinds of rules. Most compute a call's *return*, which an estimator of
//! [`crate::advantage`] then compares with other returns. Rules with an expectation for a state (a
//! critic, completions sampled from it, other visits to it) compute how much better than that the
//! call was: an *advantage*, which is used directly (`none`) or whitened, but not compared again.
//! [`crate::config::AlgorithmConfig::validate`] rejects other pairings.
//!
//! The header of each rule's file says which calls its returns should be compared with. A rule may
//! leave calls out ([`CreditConfig::leave_out`]): they are not trained.
//!
//! A new rule is a file that implements `CreditRule` for its configuration, its `mod`
//! line here, and its row in the registry below.

pub mod bilevel_gae;
pub mod discounted;
pub mod equal_share;
pub mod gigpo;
pub mod identical;
pub mod last_call;
pub mod learned_value;
pub mod leave_one_out;
pub mod monte_carlo;
pub mod return_to_go;
mod rule;
pub mod signals;
mod trajectory;
mod values;

use crate::error::CreditError;
use crate::registry::registry;

use rule::{CallCredit, CreditRule};

pub use rule::Targets;
pub use trajectory::{Trajectory, TrajectoryCall};

/// The kind of value that a rule computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CreditKind {
    /// A call's return, to be compared with other returns.
    Return,
    /// How much better than expected a call was.
    Advantage,
}

registry! {
    /// A credit assignment rule, by `name`.
    pub enum CreditConfig: CreditRule, CreditKind,
        "rules that compute advantages need an estimator that accepts them; last_call takes others = \
         left_out or zero"
    {
        "identical", Identical(identical::IdenticalCredit), Return, [];
        "equal_share", EqualShare(equal_share::EqualShareCredit), Return, [];
        "last_call", LastCall(last_call::LastCallCredit), Return, [];
        "discounted", Discounted(discounted::DiscountedCredit), Return, [];
        "return_to_go", ReturnToGo(return_to_go::ReturnToGoCredit), Return, [];
        "signals", Signals(signals::SignalsCredit), Return, [];
        "leave_one_out", LeaveOneOut(leave_one_out::LeaveOneOutCredit), Return, [Counterfactuals];
        "learned_value", LearnedValue(learned_value::LearnedValueCredit), Advantage, [Critic];
        "bilevel_gae", BilevelGae(bilevel_gae::BilevelGaeCredit), Advantage, [Critic];
        "monte_carlo", MonteCarlo(monte_carlo::MonteCarloCredit), Advantage, [Completions];
        "gigpo", Gigpo(gigpo::GigpoCredit), Advantage, [Group, Anchors];
    }
}

impl CreditConfig {
    /// Assigns credit to every trained call of every trajectory that the rule does not leave out.
    ///
    /// # Errors
    /// If a trajectory lacks an input of the rule, or a number is not finite.
    pub fn assign(&self, trajectories: &[Trajectory]) -> Result<CallReturns, CreditError> {
        Ok(self.rows_of(self.rule().assign(trajectories)?, trajectories))
    }

    /// Marks the calls that the rule leaves out as not trained. A caller that builds rows before
    /// credit is assigned so avoids rows that would not be used.
    pub fn leave_out(&self, trajectory: &mut Trajectory) {
        for number in 0..trajectory.calls.len() {
            trajectory.calls[number].trained = self.trains(trajectory, number);
        }
    }

    fn trains(&self, trajectory: &Trajectory, call: usize) -> bool {
        trajectory.calls[call].trained && !self.rule().leaves_out(trajectory, call)
    }

    /// Extracts the trained calls.
    fn rows_of(&self, credit: CallCredit, trajectories: &[Trajectory]) -> CallReturns {
        let mut rows = CallReturns { per_token: credit.per_token, ..CallReturns::default() };
        let mut targets = Vec::new();
        let mut place = 0;
        for (index, trajectory) in trajectories.iter().enumerate() {
            for number in 0..trajectory.calls.len() {
                if self.trains(trajectory, number) {
                    rows.returns.push(credit.per_call[place]);
                    rows.groups.push(trajectory.group);
                    rows.trajectories.push(index);
                    rows.calls.push(number);
                    if let Some(Targets::Calls(all)) = &credit.targets {
                        targets.push(all[place]);
                    }
                }
                place += 1;
            }
        }
        rows.targets = credit.targets.map(|kind| match kind {
            Targets::Calls(_) => Targets::Calls(targets),
            tokens => tokens,
        });
        rows
    }

    /// Whether the credit is already an advantage.
    pub fn is_advantage(&self) -> bool {
        self.special() == CreditKind::Advantage
    }
}

/// The trained calls of all trajectories as rows, without those that the rule leaves out, ordered by
/// trajectory and call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallReturns {
    /// The return of each call, or its advantage for rules of that kind.
    pub returns: Vec<f64>,
    /// The group of each call.
    pub groups: Vec<usize>,
    /// The index of each call's trajectory in the input slice.
    pub trajectories: Vec<usize>,
    /// The index of each call in its trajectory.
    pub calls: Vec<usize>,
    /// Advantage of each token, flat over the rows, for token-level rules.
    pub per_token: Option<Vec<f64>>,
    /// Critic targets, for rules with a critic.
    pub targets: Option<Targets>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrained_calls_are_counted_but_are_not_rows() {
        let mut trajectory = Trajectory::of_calls(3, 1.0, 4);
        trajectory.calls[1].trained = false;
        let rows = CreditConfig::EqualShare(Default::default()).assign(&[trajectory]).unwrap();
        assert_eq!(rows.returns, [0.25; 3]);
        assert_eq!(rows.calls, [0, 2, 3]);
        assert_eq!(rows.groups, [3, 3, 3]);
    }

    #[test]
    fn every_rule_is_written_under_its_name() {
        for rule in CreditConfig::all() {
            let name = rule.name();
            let read: CreditConfig = toml::from_str(&format!("name = '{name}'")).unwrap();
            assert_eq!(read, rule, "{name} is at its defaults");
            assert_eq!(rule.validate(), Ok(()));
            assert_eq!(toml::from_str::<CreditConfig>(&toml::to_string(&rule).unwrap()), Ok(rule));
        }
    }
}

//! Credit assignment: from the return of a trajectory to one number per call.
//!
//! An agent calls the model several times and is rewarded once, at the end. Each call is an
//! action of a Markov decision process and becomes a row of the batch; credit says what each
//! of them earned. One file per rule; a rule sees all trajectories of the step at once, with what
//! is known about each call, so that it may compare trajectories of a group.
//!
//! There are two kinds of rules. Most say what a call *earned*, which an estimator of
//! [`crate::advantage`] then compares with what others earned. Rules that know what to expect
//! of a state (a critic, completions sampled from it, other visits to it) say by how much the
//! call was better than that: an *advantage*, which is taken as it is (`none`) or whitened, but
//! not compared again. [`crate::config::AlgorithmConfig::validate`] refuses other pairings.
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

use rule::{CreditRule, Ruling};

pub use rule::Targets;
pub use trajectory::{Trajectory, TrajectoryCall};

/// What the numbers of a rule are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// What a call earned, to be compared with what others earned.
    Return,
    /// By how much a call was better than expected.
    Advantage,
}

registry! {
    /// A rule of credit assignment, by `name`.
    pub enum CreditConfig: CreditRule, Says,
        "those that measure a call against its state need an advantage that takes credit as it is"
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
    /// Assigns credit to every trained call of every trajectory.
    ///
    /// # Errors
    /// If the rule needs what a trajectory lacks, or a number is not finite.
    pub fn assign(&self, trajectories: &[Trajectory]) -> Result<CallReturns, CreditError> {
        Ok(rows_of(self.rule().assign(trajectories)?, trajectories))
    }

    /// Whether what it says is already an advantage.
    pub fn is_advantage(&self) -> bool {
        self.special() == Says::Advantage
    }
}

/// The trained calls of all trajectories as rows, in order: trajectory after trajectory, call after call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallReturns {
    /// What each call earned; of a rule whose kind is an advantage, its advantage.
    pub returns: Vec<f64>,
    /// The group of each call.
    pub groups: Vec<usize>,
    /// The index of each call's trajectory in the slice that was given.
    pub trajectories: Vec<usize>,
    /// The index of each call in its trajectory.
    pub calls: Vec<usize>,
    /// Advantage of each token, flat over the rows, of rules that work token by token.
    pub per_token: Option<Vec<f64>>,
    /// What a critic should have said, of rules that have one.
    pub targets: Option<Targets>,
}

/// The trained calls of a ruling.
fn rows_of(ruling: Ruling, trajectories: &[Trajectory]) -> CallReturns {
    let mut rows = CallReturns { per_token: ruling.per_token, ..CallReturns::default() };
    let mut targets = Vec::new();
    let mut place = 0;
    for (index, trajectory) in trajectories.iter().enumerate() {
        for (number, call) in trajectory.calls.iter().enumerate() {
            if call.trained {
                rows.returns.push(ruling.per_call[place]);
                rows.groups.push(trajectory.group);
                rows.trajectories.push(index);
                rows.calls.push(number);
                if let Some(Targets::Calls(all)) = &ruling.targets {
                    targets.push(all[place]);
                }
            }
            place += 1;
        }
    }
    rows.targets = ruling.targets.map(|kind| match kind {
        Targets::Calls(_) => Targets::Calls(targets),
        tokens => tokens,
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_are_not_trained_on_are_counted_and_become_no_rows() {
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

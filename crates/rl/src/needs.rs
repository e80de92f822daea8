//! Needs of rules and capabilities of runs.
//!
//! Some rules need more than rollouts with rewards: a critic, a reference model, several rollouts
//! of a task. Each row of a registry ([`crate::credit`], [`crate::advantage`], [`crate::loss`])
//! lists its [`Need`]s; a run declares its [`Capabilities`] before it starts.

/// The capabilities of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Rollouts of each task in a step.
    pub samples: usize,
    /// A value head trained with the policy.
    pub critic: bool,
    /// Log-probabilities of a frozen reference model.
    pub reference: bool,
    /// Agents name the states in which they call the model.
    pub anchors: bool,
    /// Agents score their trajectories with a call left out.
    pub counterfactuals: bool,
    /// Trajectories can be continued several times from the state before a call.
    pub branching: bool,
}

/// An input of a rule beyond rollouts with rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Two or more rollouts of each task.
    Group,
    /// A critic's values.
    Critic,
    /// Names of the states in which calls were made ([`crate::credit::TrajectoryCall::anchor`]).
    Anchors,
    /// Rewards of trajectories with a call left out
    /// ([`crate::credit::TrajectoryCall::reward_without`]).
    Counterfactuals,
    /// Mean rewards of completions from the state before a call
    /// ([`crate::credit::TrajectoryCall::value`]).
    Completions,
}

impl Need {
    /// Whether a run satisfies the need.
    pub fn is_met(self, run: &Capabilities) -> bool {
        match self {
            Self::Group => run.samples >= 2,
            Self::Critic => run.critic,
            Self::Anchors => run.anchors,
            Self::Counterfactuals => run.counterfactuals,
            Self::Completions => run.branching,
        }
    }

    /// Predicate for an error message, following the rule's name: why the rule needs it and what
    /// the run lacks.
    pub fn refusal(self) -> &'static str {
        match self {
            Self::Group => {
                "compares the rollouts of a task with each other, and with one of each every \
                 advantage is 0: set rollout.samples to 2 or more"
            }
            Self::Critic => {
                "measures against a critic's values, and this run's model has no value head"
            }
            Self::Anchors => {
                "compares calls made in equal states, and this agent does not name its states"
            }
            Self::Counterfactuals => {
                "needs the reward of the trajectory without a call, and this agent does not score \
                 that"
            }
            Self::Completions => {
                "needs completions sampled from the state before each call, and this run cannot \
                 continue trajectories from there"
            }
        }
    }
}

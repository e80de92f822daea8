//! The records a run writes and reports read.
//!
//! `metrics.jsonl` has one [`Record`] per line. It contains nothing that depends on the clock, so
//! equal configuration and seed give equal bytes; durations go to `timings.jsonl` as [`Timing`]
//! lines.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// Version of the line format; readers reject a newer one.
pub const RECORD_SCHEMA: u32 = 1;

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    Step(Box<StepRecord>),
    Eval(Box<EvalRecord>),
}

/// One training step: rollouts, credit, update.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    pub schema: u32,
    /// Counted from 1; the weights after this step are version `step`.
    pub step: u64,
    pub tasks: usize,
    pub rollouts: usize,
    /// Rollouts without a reward, left out of training.
    pub rollouts_without_reward: usize,
    pub reward_mean: f64,
    pub reward_std: f64,
    /// How often each reward occurred, by value, ascending.
    pub reward_histogram: Vec<(f64, usize)>,
    /// Groups whose rewards are all equal: they have no gradient.
    pub groups_without_variance: usize,
    /// Groups of one row, whose advantage is 0.
    pub groups_of_one: usize,
    pub calls: usize,
    pub calls_per_rollout: f64,
    /// Mean number of tokens per response.
    pub response_length: f64,
    /// Share of responses cut off by the token limit.
    pub truncated: f64,
    /// Tokens of all rows with one row per call (`row_tokens`), and after merging prefixes
    /// (`packed_tokens`).
    pub row_tokens: usize,
    pub packed_tokens: usize,
    /// Tokens that carry a gradient.
    pub action_tokens: usize,
    pub loss: f64,
    /// Mean entropy of the policy at action tokens, in nats.
    pub entropy: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Share of tokens whose ratio was clipped, over all updates of the step.
    pub clip_fraction: f64,
    /// Mean k3 estimate of KL(sampler ‖ trainer) at action tokens: numerical mismatch, not
    /// learning, unless earlier weights sampled (`train.staleness`, `train.replay`).
    pub sampler_kl: f64,
    /// Largest |log-probability by the trainer − by the sampler|.
    pub sampler_gap: f64,
    /// Share of tokens with a probability ratio outside [0.9, 1.1].
    pub sampler_outside: f64,
    /// Signals by kind.
    pub signals: BTreeMap<String, usize>,
    /// Trained calls by the agent's role; absent if there is one role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_role: BTreeMap<String, PartRecord>,
    /// Trained calls by their place in the rollout, from 0; absent if all have the same.
    #[serde(default, deserialize_with = "numbered", skip_serializing_if = "BTreeMap::is_empty")]
    pub by_turn: BTreeMap<usize, PartRecord>,
    /// The highest open level of the curriculum; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Further metrics specific to an algorithm.
    #[serde(default)]
    pub extra: BTreeMap<String, f64>,
}

/// A part of the trained calls of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PartRecord {
    pub calls: usize,
    pub tokens: usize,
    /// Its share of the step's loss in the first pass over the batch: the parts add up.
    pub loss: f64,
    /// Mean entropy of the policy at its tokens, in nats.
    pub entropy: f64,
    /// Mean advantage of its tokens.
    pub advantage_mean: f64,
    /// Mean absolute advantage of its tokens.
    pub advantage_size: f64,
}

/// One evaluation on held-out tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    pub schema: u32,
    /// Number of updates of the evaluated policy; 0 is before training.
    pub step: u64,
    /// `greedy` or `sampled`.
    pub mode: String,
    pub tasks: usize,
    pub without_reward: usize,
    pub reward_mean: f64,
    /// Reward by task id, in the split's order, for paired comparisons.
    pub rewards: Vec<(String, Option<f64>)>,
    /// Mean reward and count by label and value (`operations` → `2` → mean, n).
    pub by_label: BTreeMap<String, BTreeMap<String, (f64, usize)>>,
    pub response_length: f64,
    pub calls_per_rollout: f64,
    pub signals: BTreeMap<String, usize>,
    /// Present if tasks were sampled more than once; then the reward of a task is the mean over its
    /// samples, and `rewards` has an entry for each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<EvalDepth>,
}

/// What several samples of each task show beyond the mean.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalDepth {
    /// Rollouts per task.
    pub samples: usize,
    /// Rollouts without a reward.
    pub missing: usize,
    /// pass@k by k: the unbiased estimate of the probability that one of k rollouts has a reward of
    /// at least 1, over the tasks with k rewards.
    #[serde(deserialize_with = "numbered")]
    pub pass_at: BTreeMap<usize, f64>,
    /// Mean reward of the most frequent answer of each task; absent without rewards.
    pub majority: Option<f64>,
    /// Standard error of `reward_mean` over other tasks and other samples; absent for one task.
    pub error: Option<f64>,
    /// The part of it that other samples of the same tasks would have.
    pub error_sampling: Option<f64>,
    /// The part of it that other tasks would have.
    pub error_items: Option<f64>,
}

/// Reads a map whose keys are numbers. JSON has them as strings, which serde turns back into numbers
/// only outside of a tagged enum such as [`Record`].
fn numbered<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<usize, T>, D::Error> {
    let parse = |(key, value): (String, T)| match key.parse() {
        Ok(number) => Ok((number, value)),
        Err(_) => Err(D::Error::custom(format!("the key `{key}` is not a whole number"))),
    };
    BTreeMap::<String, T>::deserialize(deserializer)?.into_iter().map(parse).collect()
}

/// Seconds of one step or evaluation by part; one line of `timings.jsonl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    pub step: u64,
    /// `step` or `eval`.
    pub phase: String,
    pub seconds: BTreeMap<String, f64>,
    /// Mean seconds per rollout by activity: the `agent` and its tools running, calls queued or
    /// running in the engine (`model`), and waiting for a process or a worker (`queue`). Rollouts
    /// run concurrently, so these add up to more than the duration of the step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub per_rollout: BTreeMap<String, f64>,
    /// Resident memory of the process at the end of a step, in bytes, where the system reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
}

/// Progress of the rollouts of a running step or evaluation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Flight {
    pub step: u64,
    /// `train`, or the mode of an evaluation.
    pub phase: String,
    /// Seconds since the phase began.
    pub seconds: f64,
    /// Tokens generated in this phase.
    pub generated_tokens: u64,
    pub rollouts: Vec<InFlight>,
}

/// One running rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Position within its step.
    pub id: usize,
    pub task_id: String,
    pub state: FlightState,
    /// Model calls answered so far.
    pub calls: usize,
}

/// The state of a running rollout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlightState {
    /// The agent or its tools are running.
    #[default]
    Agent,
    /// A request is waiting for the engine.
    Queued,
    /// The engine is generating.
    Generating,
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_through_their_lines() {
        let part = PartRecord { calls: 3, loss: 0.5, ..PartRecord::default() };
        let step = StepRecord {
            by_role: BTreeMap::from([("write".to_owned(), part), ("check".to_owned(), part)]),
            by_turn: BTreeMap::from([(0, part), (2, part), (10, part)]),
            level: Some("5-8".to_owned()),
            ..StepRecord::default()
        };
        let depth = EvalDepth {
            samples: 4,
            pass_at: BTreeMap::from([(1, 0.25), (2, 0.4), (4, 0.5)]),
            majority: Some(0.3),
            ..EvalDepth::default()
        };
        let eval = EvalRecord { depth: Some(depth), ..EvalRecord::default() };
        for record in [Record::Step(Box::new(step)), Record::Eval(Box::new(eval))] {
            let line = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record, "{line}");
        }
        let line = serde_json::to_string(&Record::Step(Box::default())).unwrap();
        assert!(["by_turn", "by_role", "level"].iter().all(|key| !line.contains(key)), "{line}");
        let wrong = line.replace("\"signals\"", "\"by_turn\":{\"x\":null},\"signals\"");
        assert!(serde_json::from_str::<Record>(&wrong).is_err());
    }
}

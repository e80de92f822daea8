//! Benchmark inputs, as files that all compared tools read.
//!
//! Throughput depends only on the number of tokens and on shared prefixes, not on the tokens
//! themselves. So ids are drawn at random from a fixed seed and lengths are those of calculator
//! rollouts: instructions and a tool description at the start of every prompt, a problem shared
//! by all rollouts of a task, then two or three calls; each call's prompt is the previous one
//! with the response and a tool result appended. Rollouts of a task share nothing beyond the
//! prompt, although real rollouts often begin alike: fewer prefixes are merged here than in
//! training.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use leyden_core::SeedTree;
use leyden_lm::generate::Limits;
use leyden_lm::policy::forest::{self, Pack, Row};
use leyden_rl::Rows;
use leyden_stats::{mean, sample_std};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Ids below this are reserved for control tokens.
const FIRST_ID: usize = 32;

/// Conversations of equal length for generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversations {
    pub conversations: Vec<Conversation>,
}

/// The inputs of one conversation; the model responds after the prompt and after each of the
/// later texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    pub prompt: Vec<u32>,
    /// Token ids after the first, second, … response, like tool results.
    pub later: Vec<Vec<u32>>,
}

impl Conversations {
    /// `count` prompts of `length` random tokens without shared prefixes, with `turns` responses
    /// and `between` tokens after each response but the last.
    pub fn make(
        count: usize,
        length: usize,
        (turns, between): (usize, usize),
        vocabulary: usize,
        seed: u64,
    ) -> Self {
        let seed = SeedTree::new(seed).child("prompts");
        let conversation = |i| {
            let seed = seed.index(i as u64);
            let later = |turn| ids(between, vocabulary, seed.child("turn").index(turn as u64));
            let prompt = ids(length, vocabulary, seed);
            Conversation { prompt, later: (1..turns).map(later).collect() }
        };
        Self { conversations: (0..count).map(conversation).collect() }
    }

    /// Number of responses of the longest conversation.
    pub fn turns(&self) -> usize {
        1 + self.conversations.iter().map(|c| c.later.len()).max().unwrap_or(0)
    }

    /// Length of the longest conversation in tokens, with responses of `response` tokens.
    pub fn context(&self, response: usize) -> usize {
        let length = |c: &Conversation| {
            c.prompt.len()
                + c.later.iter().map(Vec::len).sum::<usize>()
                + (1 + c.later.len()) * response
        };
        self.conversations.iter().map(length).max().unwrap_or(0)
    }

    /// Limits of an engine that plays `samples` of each conversation at once with responses of
    /// `response` tokens: the cache fits all of them, rounded up to whole blocks.
    pub fn limits(&self, samples: usize, response: usize) -> Limits {
        let context = self.context(response);
        let rows = self.conversations.len() * (samples + 1);
        Limits { context, cache_tokens: 2 * rows * (context + 64), prefill_tokens: 2048 }
    }
}

/// Tokens of the calculator agent's system prompt and tool description, up to the first word of
/// the problem.
const INSTRUCTIONS: usize = 150;

/// Rollouts grouped by task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollouts {
    pub groups: Vec<Group>,
}

/// All rollouts of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub rollouts: Vec<Rollout>,
}

/// One rollout; all its tokens have the same advantage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    pub advantage: f64,
    pub calls: Vec<Call>,
}

/// One model call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    pub prompt_ids: Vec<u32>,
    pub response_ids: Vec<u32>,
}

impl Rollouts {
    /// Calculator rollouts: `tasks` groups of `samples`, ids below `vocabulary`. As with the
    /// real agent and SmolLM2's tokenizer, all prompts begin with the same [`INSTRUCTIONS`]
    /// tokens, and 20 to 40 of the problem follow.
    pub fn make(tasks: usize, samples: usize, vocabulary: usize, seed: u64) -> Self {
        let seed = SeedTree::new(seed).child("rollouts");
        let instructions = ids(INSTRUCTIONS, vocabulary, seed.child("instructions"));
        let prompt = |seed: SeedTree| {
            let problem = ids(between(20, 40, seed.child("length")), vocabulary, seed);
            [&instructions[..], &problem].concat()
        };
        let calls = |prompt: &[u32], seed: SeedTree| {
            let turns = between(2, 3, seed.child("calls"));
            calls(prompt, turns, vocabulary, seed, |seed| {
                let response = between(20, 60, seed.child("response length"));
                (response, between(10, 14, seed.child("tool length")))
            })
        };
        Self::of_groups(tasks, samples, seed, prompt, calls)
    }

    /// `tasks` groups of `samples` rollouts of `turns` calls with fixed lengths of the prompt, of
    /// each response, and of the tool result after each response but the last.
    pub fn of_lengths(
        (tasks, samples, turns): (usize, usize, usize),
        (prompt, response, between): (usize, usize, usize),
        vocabulary: usize,
        seed: u64,
    ) -> Self {
        let seed = SeedTree::new(seed).child("lengths");
        let opening = |seed: SeedTree| ids(prompt, vocabulary, seed.child("prompt"));
        let calls = |prompt: &[u32], seed: SeedTree| {
            calls(prompt, turns, vocabulary, seed, |_| (response, between))
        };
        Self::of_groups(tasks, samples, seed, opening, calls)
    }

    /// Groups whose rollouts share only the prompt; rewards are random.
    fn of_groups(
        tasks: usize,
        samples: usize,
        seed: SeedTree,
        prompt: impl Fn(SeedTree) -> Vec<u32>,
        calls: impl Fn(&[u32], SeedTree) -> Vec<Call>,
    ) -> Self {
        let group = |task| {
            let seed = seed.index(task as u64);
            let prompt = prompt(seed);
            let advantages = advantages(samples, seed.child("reward"));
            let rollout = |(sample, &advantage): (usize, &f64)| Rollout {
                advantage,
                calls: calls(&prompt, seed.child("rollout").index(sample as u64)),
            };
            Group { rollouts: advantages.iter().enumerate().map(rollout).collect() }
        };
        Self { groups: (0..tasks).map(group).collect() }
    }

    /// `count` rollouts of one call without shared prefixes: one prompt token, all others action
    /// tokens, as in language modelling.
    pub fn unrelated(count: usize, length: usize, vocabulary: usize, seed: u64) -> Self {
        let seed = SeedTree::new(seed).child("unrelated");
        let group = |(i, advantage)| {
            let mut prompt_ids = ids(length, vocabulary, seed.index(i as u64));
            let response_ids = prompt_ids.split_off(1);
            let calls = vec![Call { prompt_ids, response_ids }];
            Group { rollouts: vec![Rollout { advantage, calls }] }
        };
        let advantages = advantages(count, seed.child("reward"));
        Self { groups: advantages.into_iter().enumerate().map(group).collect() }
    }

    /// Number of rollouts.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.rollouts.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One row per call, with its advantages.
    ///
    /// # Errors
    /// A call without prompt or response; no calls at all.
    pub fn batch(&self) -> Result<Batch> {
        let (mut rows, mut advantages) = (Vec::new(), Vec::new());
        for (g, group) in self.groups.iter().enumerate() {
            for (r, rollout) in group.rollouts.iter().enumerate() {
                for (c, call) in rollout.calls.iter().enumerate() {
                    ensure!(
                        !call.prompt_ids.is_empty() && !call.response_ids.is_empty(),
                        "call {c} of rollout {r} of group {g} has an empty prompt or response"
                    );
                    rows.push(Row::call(&call.prompt_ids, &call.response_ids));
                    advantages.push(rollout.advantage);
                }
            }
        }
        ensure!(!rows.is_empty(), "there are no calls to train on");
        let shape = Rows::dense(&rows.iter().map(Row::action_tokens).collect::<Vec<_>>());
        let advantages = shape.spread(&advantages);
        Ok(Batch { rows, shape, advantages })
    }
}

/// One row per call. Per-token arrays are flat over the rows' response tokens.
pub struct Batch {
    pub rows: Vec<Row>,
    /// Response lengths.
    pub shape: Rows,
    pub advantages: Vec<f64>,
}

impl Batch {
    /// Tokens of all rows, prompts repeated.
    pub fn row_tokens(&self) -> usize {
        self.rows.iter().map(|row| row.ids.len()).sum()
    }

    /// Packs all rows as one trie into micro-batches of at most `budget` merged tokens, as the
    /// trainer does.
    ///
    /// # Errors
    /// A budget of 0.
    pub fn packs(&self, budget: usize) -> Result<Vec<Pack>> {
        Ok(forest::pack(&self.rows, &vec![0; self.rows.len()], budget)?)
    }
}

/// `turns` calls, the first with `prompt` and each continuing the previous one. `lengths` draws
/// the lengths of a response and of the tool result after it.
fn calls(
    prompt: &[u32],
    turns: usize,
    vocabulary: usize,
    seed: SeedTree,
    lengths: impl Fn(SeedTree) -> (usize, usize),
) -> Vec<Call> {
    let mut history = prompt.to_vec();
    let mut calls = Vec::new();
    for turn in 0..turns as u64 {
        let seed = seed.child("turn").index(turn);
        let (length, tool) = lengths(seed);
        let response = ids(length, vocabulary, seed.child("response"));
        calls.push(Call { prompt_ids: history.clone(), response_ids: response.clone() });
        history.extend(response);
        history.extend(ids(tool, vocabulary, seed.child("tool")));
    }
    calls
}

/// Random rewards of 0 and 1, normalised over the group.
fn advantages(samples: usize, seed: SeedTree) -> Vec<f64> {
    normalised((0..samples as u64).map(|i| seed.index(i).uniform() < 0.4))
}

/// Rewards of 0 and 1, normalised over the group. If all are equal, the first is flipped.
pub fn normalised(right: impl Iterator<Item = bool>) -> Vec<f64> {
    let mut rewards: Vec<f64> = right.map(|right| f64::from(u8::from(right))).collect();
    if let [first, rest @ ..] = rewards.as_mut_slice()
        && rest.iter().all(|reward| reward == first)
    {
        // Equal rewards would give the whole task a zero gradient.
        *first = 1.0 - *first;
    }
    let (mean, std) = (mean(&rewards).unwrap_or(0.0), sample_std(&rewards).unwrap_or(1.0));
    rewards.into_iter().map(|reward| (reward - mean) / (std + 1e-6)).collect()
}

fn ids(count: usize, vocabulary: usize, seed: SeedTree) -> Vec<u32> {
    let id = |i| between(FIRST_ID, vocabulary - 1, seed.index(i as u64)) as u32;
    (0..count).map(id).collect()
}

/// A whole number from `low` to `high`, both included.
fn between(low: usize, high: usize, seed: SeedTree) -> usize {
    low + (seed.uniform() * (high + 1 - low) as f64) as usize
}

/// Reads a file of this module.
///
/// # Errors
/// A file that cannot be read or parsed, with its path, line and column.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; --make writes it", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))
}

/// Writes a file of this module.
///
/// # Errors
/// Errors of the file system, with the path.
pub fn write<T: Serialize>(path: &Path, work: &T) -> Result<()> {
    let text = serde_json::to_string(work)?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{Conversations, INSTRUCTIONS, Pack, Rollouts, read, write};

    #[test]
    fn made_work_depends_on_the_seed_alone_and_survives_a_file() {
        let made = Rollouts::make(2, 3, 500, 7);
        assert_eq!(made, Rollouts::make(2, 3, 500, 7));
        assert_ne!(made, Rollouts::make(2, 3, 500, 8));
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.path(), &made).unwrap();
        assert_eq!(read::<Rollouts>(file.path()).unwrap(), made);
        let message = format!("{:#}", read::<Conversations>(file.path()).unwrap_err());
        assert!(message.contains(file.path().to_str().unwrap()), "{message}");
    }

    #[test]
    fn calls_of_a_rollout_continue_each_other_and_share_the_task_s_prompt() {
        let made = Rollouts::make(3, 4, 500, 1);
        let opening = &made.groups[0].rollouts[0].calls[0].prompt_ids[..INSTRUCTIONS];
        for group in &made.groups {
            let sum: f64 = group.rollouts.iter().map(|r| r.advantage).sum();
            assert!(sum.abs() < 1e-9, "advantages sum to {sum}");
            assert!(group.rollouts.iter().any(|r| r.advantage > 0.1));
            let first = &group.rollouts[0].calls[0].prompt_ids;
            assert!(first.starts_with(opening), "all tasks begin with the instructions");
            for rollout in &group.rollouts {
                assert_eq!(&rollout.calls[0].prompt_ids, first);
                assert!((2..=3).contains(&rollout.calls.len()));
                for pair in rollout.calls.windows(2) {
                    let seen = [&pair[0].prompt_ids[..], &pair[0].response_ids].concat();
                    assert!(pair[1].prompt_ids.starts_with(&seen));
                }
            }
        }
    }

    #[test]
    fn conversations_of_one_length_share_nothing() {
        let made = Conversations::make(3, 20, (4, 5), 500, 1);
        assert_eq!((made.turns(), made.context(7)), (4, 20 + 3 * 5 + 4 * 7));
        let [a, b, _] = &made.conversations[..] else { panic!("{made:?}") };
        assert_ne!(a.prompt[..3], b.prompt[..3]);
        assert_ne!(a.later[0], a.later[1]);
        assert_ne!(a.later, b.later);
    }

    #[test]
    fn nothing_of_unrelated_rows_is_merged() {
        let made = Rollouts::unrelated(4, 30, 500, 1);
        let batch = made.batch().unwrap();
        assert_eq!((made.len(), batch.row_tokens(), batch.shape.tokens()), (4, 120, 4 * 29));
        let packs = batch.packs(usize::MAX).unwrap();
        assert!(packs.iter().map(Pack::len).sum::<usize>() >= 4 * 29);
    }

    #[test]
    fn merging_prefixes_leaves_each_token_of_a_rollout_once() {
        let batch = Rollouts::make(2, 4, 5000, 3).batch().unwrap();
        let packs = batch.packs(usize::MAX).unwrap();
        let unique: usize = packs.iter().map(Pack::len).sum();
        assert!(2 * unique < batch.row_tokens(), "{unique} of {}", batch.row_tokens());
        let actions: usize = packs.iter().map(|pack| pack.actions.len()).sum();
        assert_eq!(actions, batch.shape.tokens());
    }

    #[test]
    fn a_call_without_a_response_is_named() {
        let mut made = Rollouts::make(1, 2, 500, 1);
        made.groups[0].rollouts[1].calls[0].response_ids.clear();
        let message = made.batch().err().unwrap().to_string();
        assert!(message.contains("call 0 of rollout 1 of group 0"), "{message}");
    }
}

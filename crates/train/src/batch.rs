//! From rollouts to a batch: selection of trained calls, credit, packing.
//!
//! Every call is a row of prompt and response; the response tokens are the actions. Credit and
//! advantage are assigned per row; common prefixes of rows, mostly the agent's instructions, are
//! computed once when the batch is packed.

use std::collections::HashSet;

use leyden_core::{Call, FinishReason, Rollout};
use leyden_lm::LmError;
use leyden_lm::policy::forest::{self, Pack, Row};
use leyden_rl::Rows;
use leyden_rl::advantage::GroupCounters;
use leyden_rl::config::AlgorithmConfig;
use leyden_rl::credit::{CreditConfig, Targets, Trajectory};

use crate::config::{Layout, Truncated};
use crate::error::TrainError;
use crate::store::CallCredit;

/// The trained calls of a step. Per-token arrays are flat over the rows' response tokens.
pub struct Batch {
    pub rows: Vec<Row>,
    /// Task group of each row.
    pub groups: Vec<usize>,
    /// Rollout of each row: rows of equal numbers are calls of one rollout.
    pub rollouts: Vec<usize>,
    /// Response lengths; the mask is full, since all response tokens are actions.
    pub shape: Rows,
    pub logp_sampler: Vec<f64>,
    /// Version of the weights that sampled each row.
    versions: Vec<u64>,
    pub advantages: Vec<f64>,
    pub counters: GroupCounters,
    pub left_out: LeftOut,
    /// Critic targets, for algorithms with a critic.
    pub targets: Option<Targets>,
    layout: Layout,
    trajectories: Vec<Trajectory>,
    /// Rollout of each trajectory.
    sources: Vec<usize>,
    /// Rollout and call of each row.
    places: Vec<(usize, usize)>,
    /// The agent's role in the call of each row.
    roles: Vec<String>,
    /// By rollout and call, for the store; absent for untrained calls.
    pub credit: Vec<Vec<CallCredit>>,
}

/// Packs `rows` into micro-batches of at most `budget` merged tokens. Rows of all tasks share one
/// trie, since the prompts of an agent begin with the same instructions.
///
/// # Errors
/// A row that cannot be packed.
pub fn pack(rows: &[Row], budget: usize) -> Result<Vec<Pack>, TrainError> {
    forest::pack(rows, &vec![0; rows.len()], budget).map_err(|e| TrainError::Invalid(e.to_string()))
}

/// Selection of the trained calls.
pub struct Selection<'a> {
    /// Trained roles; empty is all.
    pub roles: &'a [String],
    pub max_prompt_tokens: usize,
    /// The credit rule, which may leave calls out.
    pub credit: &'a CreditConfig,
    /// Whether responses that were cut off by the token limit are trained.
    pub truncated: Truncated,
    /// Groups that are excluded entirely.
    pub left_out: &'a HashSet<usize>,
    pub layout: Layout,
}

/// Calls of trained roles that are left out of the batch, by reason; each call counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Prompts above `train.max_prompt_tokens`.
    pub long_prompts: usize,
    /// Responses that were cut off, with `train.truncated = "mask"`.
    pub truncated: usize,
    /// Responses constrained by a grammar.
    pub constrained: usize,
}

impl Selection<'_> {
    /// Whether a call is trained; counts in `left_out` why not.
    fn includes(&self, call: &Call, left_out: &mut LeftOut) -> bool {
        let is_trained_role = self.roles.is_empty() || self.roles.contains(&call.agent_role);
        if call.response_ids.is_empty() || !is_trained_role {
            return false;
        }
        let reason = if call.constrained {
            &mut left_out.constrained
        } else if call.prompt_ids.len() > self.max_prompt_tokens {
            &mut left_out.long_prompts
        } else if self.truncated == Truncated::Mask && call.finish == FinishReason::Length {
            &mut left_out.truncated
        } else {
            return true;
        };
        *reason += 1;
        false
    }
}

impl Batch {
    /// The selected calls of all rollouts with a reward, before credit assignment.
    pub fn unassigned(rollouts: &[Rollout], selection: &Selection<'_>) -> Self {
        let (mut trajectories, mut sources) = (Vec::new(), Vec::new());
        let mut places = Vec::new();
        let mut left_out = LeftOut::default();
        let included = |rollout: &Rollout| !selection.left_out.contains(&rollout.group);
        for (index, rollout) in rollouts.iter().enumerate().filter(|(_, rollout)| included(rollout))
        {
            let Some(mut trajectory) = Trajectory::of(rollout) else { continue };
            for (number, call) in trajectory.calls.iter_mut().enumerate() {
                call.trained = selection.includes(&rollout.calls[number], &mut left_out);
            }
            selection.credit.leave_out(&mut trajectory);
            let calls = trajectory.calls.iter().enumerate();
            places
                .extend(calls.filter(|(_, call)| call.trained).map(|(number, _)| (index, number)));
            trajectories.push(trajectory);
            sources.push(index);
        }
        let call = |&(rollout, call): &(usize, usize)| &rollouts[rollout].calls[call];
        let lengths: Vec<usize> = places.iter().map(|p| call(p).response_ids.len()).collect();
        Self {
            rows: places
                .iter()
                .map(|p| Row::call(&call(p).prompt_ids, &call(p).response_ids))
                .collect(),
            groups: Vec::new(),
            rollouts: Vec::new(),
            logp_sampler: places
                .iter()
                .flat_map(|p| call(p).logprobs.iter().map(|&l| f64::from(l)))
                .collect(),
            versions: places.iter().map(|p| call(p).policy_version).collect(),
            advantages: Vec::new(),
            counters: GroupCounters::default(),
            left_out,
            targets: None,
            layout: selection.layout,
            credit: rollouts.iter().map(|r| vec![CallCredit::default(); r.calls.len()]).collect(),
            shape: Rows::dense(&lengths),
            trajectories,
            sources,
            roles: places.iter().map(|p| call(p).agent_role.clone()).collect(),
            places,
        }
    }

    /// Whether the rows are of several roles or several turns.
    pub fn has_parts(&self) -> bool {
        let differs = |row: usize| self.role(row) != self.role(0) || self.turn(row) != self.turn(0);
        (1..self.rows.len()).any(differs)
    }

    /// By how many updates the weights that sampled the rows are behind version `current`: mean and
    /// maximum over the rows; 0 without rows.
    pub fn staleness(&self, current: u64) -> (f64, u64) {
        let behind = || self.versions.iter().map(|version| current.saturating_sub(*version));
        let mean = behind().sum::<u64>() as f64 / self.versions.len().max(1) as f64;
        (mean, behind().max().unwrap_or(0))
    }

    /// The agent's role in a row's call.
    pub fn role(&self, row: usize) -> &str {
        &self.roles[row]
    }

    /// The index of a row's call in its rollout.
    pub fn turn(&self, row: usize) -> usize {
        self.places[row].1
    }

    /// The trajectories, each with the number of its rollout.
    pub fn trajectories(&mut self) -> impl Iterator<Item = (usize, &mut Trajectory)> + Send {
        self.sources.iter().copied().zip(&mut self.trajectories)
    }

    /// Sets a critic's values, one per token, on every trained call; the call's value is the first
    /// of them.
    pub fn set_values(&mut self, values: &[f64]) {
        let mut ranges = self.shape.ranges();
        for call in self.trajectories.iter_mut().flat_map(|trajectory| &mut trajectory.calls) {
            if call.trained
                && let Some(range) = ranges.next()
            {
                call.value = values.get(range.start).copied();
                call.token_values = Some(values[range].to_vec());
            }
        }
    }

    /// Assigns credit and advantages to every row; `kl_penalties`, one per token, are subtracted
    /// from the rewards.
    ///
    /// # Errors
    /// If the credit rule or the estimator rejects the batch.
    pub fn assign(
        &mut self,
        algorithm: &AlgorithmConfig,
        kl_penalties: Option<&[f64]>,
        step: u64,
    ) -> Result<(), TrainError> {
        let assigned = algorithm
            .assign(&self.trajectories, &self.shape, kl_penalties)
            .map_err(|e| TrainError::Step { step, what: e.to_string() })?;
        for (row, &(rollout, call)) in self.places.iter().enumerate() {
            self.credit[rollout][call] = CallCredit {
                credit: Some(assigned.returns[row]),
                advantage: Some(assigned.advantages.per_row[row]),
            };
        }
        self.groups = assigned.groups;
        self.rollouts = assigned.trajectories;
        self.advantages = assigned.advantages.per_token;
        self.counters = assigned.advantages.counters;
        self.targets = assigned.targets;
        Ok(())
    }

    /// Tokens of all rows without prefix merging.
    pub fn row_tokens(&self) -> usize {
        self.rows.iter().map(|row| row.ids.len()).sum()
    }

    /// The rows of `members` as micro-batches of at most `budget` merged tokens.
    ///
    /// # Errors
    /// None for rows from [`Batch::unassigned`].
    pub fn pack(&self, members: &[usize], budget: usize) -> Result<Vec<Pack>, TrainError> {
        let rows: Vec<Row> = members.iter().map(|&m| self.rows[m].clone()).collect();
        // Rows of equal numbers share prefixes.
        let tree = |&row: &usize| match self.layout {
            Layout::Forest => 0,
            Layout::Trajectories => self.places[row].0,
            Layout::Rows => row,
        };
        let trees: Vec<usize> = members.iter().map(tree).collect();
        let mut packs =
            forest::pack(&rows, &trees, budget).map_err(|e| TrainError::Invalid(e.to_string()))?;
        // Row numbers of the batch instead of positions in `members`.
        for row in packs.iter_mut().flat_map(|pack| &mut pack.rows) {
            row.row = members[row.row];
        }
        Ok(packs)
    }

    /// Per-token values of the whole batch, flat, from `evaluate`, which returns those of a pack's
    /// unique actions. Packs have at most `budget` merged tokens.
    ///
    /// # Errors
    /// Those of `evaluate`.
    pub fn over_packs(
        &self,
        budget: usize,
        evaluate: impl Fn(&Pack) -> Result<Vec<f64>, LmError>,
    ) -> Result<Vec<f64>, TrainError> {
        let mut per_token = vec![0.0; self.shape.tokens()];
        let all: Vec<usize> = (0..self.rows.len()).collect();
        for pack in self.pack(&all, budget)? {
            let per_row = pack.gather(&evaluate(&pack)?);
            for (row, values) in pack.rows.iter().zip(&per_row) {
                per_token[self.shape.range(row.row)].copy_from_slice(values);
            }
        }
        Ok(per_token)
    }

    /// Splits the rows into `parts` nearly equal mini-batches; a task's rows stay together.
    pub fn mini_batches(&self, parts: usize) -> Vec<Vec<usize>> {
        let mut tasks: Vec<usize> = self.groups.clone();
        tasks.dedup();
        tasks.sort_unstable();
        tasks.dedup();
        let parts = parts.clamp(1, tasks.len().max(1));
        let mut batches = vec![Vec::new(); parts];
        for (row, group) in self.groups.iter().enumerate() {
            let rank = tasks.binary_search(group).unwrap_or(0);
            batches[rank * parts / tasks.len()].push(row);
        }
        batches
    }

    /// The rows of a pack, in its order.
    pub fn shape_of(&self, pack: &Pack) -> Rows {
        let lengths: Vec<usize> =
            pack.rows.iter().map(|row| self.shape.range(row.row).len()).collect();
        Rows::dense(&lengths)
    }

    /// The entries of a flat per-token array that belong to the rows of a pack, in its order.
    pub fn select(&self, array: &[f64], pack: &Pack) -> Vec<f64> {
        pack.rows.iter().flat_map(|row| &array[self.shape.range(row.row)]).copied().collect()
    }
}

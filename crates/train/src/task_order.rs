//! The order of the training tasks: which source, and which of its tasks, comes next.
//!
//! Without weights there is one source, which is visited as [`Visits`] describes. With weights each
//! task is of source i with probability weightᵢ / Σ weight, independently, and each source is visited
//! in its own order. A curriculum skips the tasks above the open level in that order: a task of a
//! file that is skipped is not drawn before the next epoch. A source whose tasks are all above it is
//! not drawn.

use leyden_core::{SeedTree, Task};
use serde::{Deserialize, Serialize};

use crate::config::CurriculumConfig;
use crate::curriculum::{Curriculum, CurriculumState, Progress, SourceLevels};
use crate::data::{TaskSource, Visits};
use crate::error::TrainError;

/// Maximum number of consecutive tasks of an endless source that are skipped.
const MOST_SKIPPED: u64 = 100_000;

/// The order of the training tasks, and the run's position in it.
pub struct TaskOrder<'a> {
    parts: Vec<Part<'a>>,
    /// One for each part; empty if there is only one.
    weights: &'a [f64],
    curriculum: Option<Curriculum<'a>>,
    seed: SeedTree,
    /// Number of tasks drawn so far.
    position: u64,
}

/// A source, and the position in it.
struct Part<'a> {
    name: String,
    source: &'a dyn TaskSource,
    visits: Visits,
    /// With a curriculum.
    levels: Option<SourceLevels>,
}

/// The settings of an order.
#[derive(Debug, Clone, Copy, Default)]
pub struct OrderOptions<'a> {
    /// Names of the sources, for messages.
    pub names: &'a [String],
    /// Relative frequencies of the sources that the task source consists of; without them it is
    /// visited as a whole.
    pub weights: &'a [f64],
    pub curriculum: Option<&'a CurriculumConfig>,
}

/// What a checkpoint keeps of an order with weights or a curriculum, besides the position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderState {
    /// Number of visited tasks of each source, including those that the curriculum skipped.
    visited: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    curriculum: Option<CurriculumState>,
}

/// A task with its level, which is 0 without a curriculum.
pub(crate) struct Drawn {
    pub task: Task,
    pub level: usize,
}

impl<'a> TaskOrder<'a> {
    /// The order of the tasks of `source` from its start.
    ///
    /// # Errors
    /// Another number of weights than of sources, a source without tasks; tasks that the
    /// curriculum cannot order.
    pub fn new(
        source: &'a dyn TaskSource,
        options: OrderOptions<'a>,
        seed: SeedTree,
    ) -> Result<Self, TrainError> {
        let OrderOptions { names, weights, curriculum } = options;
        let sources: Vec<&'a dyn TaskSource> = match (weights, source.parts()) {
            ([], _) | (_, []) => vec![source],
            (_, parts) => parts.iter().map(AsRef::as_ref).collect(),
        };
        if !weights.is_empty() && weights.len() != sources.len() {
            let (weights, sources) = (weights.len(), sources.len());
            return Err(TrainError::Invalid(format!(
                "data.weights: the number of weights ({weights}) is not the number of sources \
                 ({sources})"
            )));
        }
        let mut parts = Vec::with_capacity(sources.len());
        for (index, &source) in sources.iter().enumerate() {
            let (name, seed) = match sources.len() {
                // The order of a run without weights.
                1 => (names.join(", "), seed),
                _ => (
                    names.get(index).cloned().unwrap_or_default(),
                    seed.child("source").index(index as u64),
                ),
            };
            if source.is_empty() && sources.len() > 1 {
                return Err(TrainError::Invalid(format!("data.train: {name} has no tasks")));
            }
            let visits = Visits::of_tasks(source.len(), seed);
            parts.push(Part { name, source, visits, levels: None });
        }
        let mut order = Self { parts, weights, curriculum: None, seed, position: 0 };
        if let Some(config) = curriculum {
            let (curriculum, levels) = Curriculum::new(config, &sources)?;
            order.curriculum = Some(curriculum);
            for (part, levels) in order.parts.iter_mut().zip(levels) {
                part.levels = Some(levels);
            }
        }
        Ok(order)
    }

    /// Opens the levels of step `step`, counted from 1.
    pub(crate) fn begin(&mut self, step: u64) {
        if let Some(curriculum) = &mut self.curriculum {
            curriculum.begin(step);
        }
    }

    /// The next task.
    ///
    /// # Errors
    /// A task of an endless source that the curriculum cannot order, or too many in a row that are
    /// above the open level.
    pub(crate) fn next_task(&mut self) -> Result<Drawn, TrainError> {
        let part = self.next_part();
        let drawn = self.parts[part].next_task(self.curriculum.as_ref())?;
        self.position += 1;
        Ok(drawn)
    }

    fn next_part(&self) -> usize {
        if self.parts.len() == 1 {
            return 0;
        }
        let is_open = |part: &Part<'_>| match (&self.curriculum, &part.levels) {
            (Some(curriculum), Some(levels)) => curriculum.is_open(levels.lowest),
            _ => true,
        };
        let weight = |(part, weight): (&Part<'_>, &f64)| if is_open(part) { *weight } else { 0.0 };
        let weights: Vec<f64> = self.parts.iter().zip(self.weights).map(weight).collect();
        choose(&weights, self.seed.child("mixture").index(self.position).uniform())
    }

    /// Takes the levels and the rewards of the rollouts of a step; `None` without a curriculum.
    pub(crate) fn end(&mut self, rollouts: impl Iterator<Item = (usize, f64)>) -> Option<Progress> {
        self.curriculum.as_mut().map(|curriculum| curriculum.end(rollouts))
    }

    /// Number of tasks drawn so far: without weights and curriculum sufficient to resume.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What a checkpoint needs besides the position; `None` without weights and curriculum.
    pub fn state(&self) -> Option<OrderState> {
        if self.weights.is_empty() && self.curriculum.is_none() {
            return None;
        }
        Some(OrderState {
            visited: self.parts.iter().map(|part| part.visits.position).collect(),
            curriculum: self.curriculum.as_ref().and_then(Curriculum::state),
        })
    }

    /// Continues from a checkpoint.
    ///
    /// # Errors
    /// A state of another configuration.
    pub fn restore(&mut self, position: u64, state: Option<&OrderState>) -> Result<(), String> {
        let plain = self.state().is_none();
        match state {
            None if plain => self.parts[0].visits.position = position,
            Some(state) if !plain && state.visited.len() == self.parts.len() => {
                if let Some(curriculum) = &mut self.curriculum {
                    curriculum.restore(state.curriculum.as_ref())?;
                }
                for (part, visited) in self.parts.iter_mut().zip(&state.visited) {
                    part.visits.position = *visited;
                }
            }
            _ => return Err("its order of tasks belongs to another configuration".to_owned()),
        }
        self.position = position;
        Ok(())
    }
}

impl Part<'_> {
    /// The next task with an open level.
    fn next_task(&mut self, curriculum: Option<&Curriculum<'_>>) -> Result<Drawn, TrainError> {
        let Some(curriculum) = curriculum else {
            let index = self.visits.next_item();
            return Ok(Drawn { task: self.source.task(index), level: 0 });
        };
        let known = self.levels.as_ref().and_then(|levels| levels.by_index.as_ref());
        let mut skipped = 0;
        while skipped < MOST_SKIPPED {
            let index = self.visits.next_item();
            // A file is visited only if it has an open task, however large it is.
            if let Some(levels) = known {
                let level = levels[index as usize];
                if curriculum.is_open(level) {
                    return Ok(Drawn { task: self.source.task(index), level });
                }
                continue;
            }
            let task = self.source.task(index);
            let level = curriculum.level(&task)?;
            if curriculum.is_open(level) {
                return Ok(Drawn { task, level });
            }
            skipped += 1;
        }
        let (label, level) = curriculum.highest();
        Err(TrainError::Invalid(format!(
            "data.curriculum: {MOST_SKIPPED} tasks in a row ({}) are above the open level, {label} = \
             `{level}`; open more levels at first (data.curriculum.first) or leave the source out",
            self.name
        )))
    }
}

/// The index drawn in proportion to `weights`, not all 0, by the uniform number `draw` in [0, 1).
fn choose(weights: &[f64], draw: f64) -> usize {
    // Sums of the largest numbers overflow.
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let mut rest = draw * weights.iter().map(|weight| weight / largest).sum::<f64>();
    let mut last = 0;
    for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        rest -= weight / largest;
        last = index;
        if rest < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
#[path = "task_order_tests.rs"]
mod tests;

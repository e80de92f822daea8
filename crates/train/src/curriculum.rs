//! A curriculum: the levels of the training tasks, and when they open.
//!
//! Levels are the values of a label, in the order of a list or of their numbers. The first ones are
//! open at the beginning; each further level opens at a step, or once the rollouts of the highest
//! open level succeed. Levels never close.

use leyden_core::Task;
use serde::{Deserialize, Serialize};

use crate::config::{CurriculumConfig, OpenBy};
use crate::data::TaskSource;
use crate::error::TrainError;

/// Number of tasks of an endless source in which numeric levels are found and listed ones must
/// occur.
const SURVEYED: u64 = 4096;

/// Minimum number of tasks of an endless source that are checked.
const CHECKED: u64 = 256;

/// The levels, from the first to the last.
enum Levels {
    Listed(Vec<String>),
    /// With the text of each number.
    Numbers(Vec<(f64, String)>),
}

impl Levels {
    fn len(&self) -> usize {
        match self {
            Self::Listed(names) => names.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }

    fn name(&self, level: usize) -> &str {
        match self {
            Self::Listed(names) => &names[level],
            Self::Numbers(numbers) => &numbers[level].1,
        }
    }

    /// The level of a value; `None` for one that is not listed, or not a number. A number between
    /// two levels belongs to the higher one, and one above all levels to the last.
    fn of(&self, value: &str) -> Option<usize> {
        match self {
            Self::Listed(names) => names.iter().position(|name| name == value),
            Self::Numbers(numbers) => {
                let value = number(value)?;
                let below = numbers.partition_point(|(known, _)| *known < value);
                Some(below.min(numbers.len().saturating_sub(1)))
            }
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// The distinct numbers among `values`, ascending; each has the text in which it occurs first.
fn distinct<'a>(values: impl Iterator<Item = &'a String>) -> Vec<(f64, String)> {
    let mut numbers: Vec<(f64, String)> =
        values.filter_map(|text| Some((number(text)?, text.clone()))).collect();
    numbers.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    numbers.dedup_by(|(later, _), (first, _)| later == first);
    numbers
}

/// The levels of the tasks of one source.
pub(crate) struct SourceLevels {
    /// The level of each task; absent for an endless source.
    pub by_index: Option<Vec<usize>>,
    /// The lowest level, of an endless source among the surveyed tasks.
    pub lowest: usize,
}

/// Which levels are open.
pub(crate) struct Curriculum<'a> {
    config: &'a CurriculumConfig,
    levels: Levels,
    /// Number of open levels, at least 1.
    open: usize,
    /// Rewards of the last rollouts of the highest open level, at most a window of them.
    rewards: Vec<f64>,
}

/// What a checkpoint keeps of a curriculum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurriculumState {
    open: usize,
    rewards: Vec<f64>,
}

/// The curriculum in a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Progress {
    /// The highest open level.
    pub level: String,
    /// Number of open levels.
    pub open: usize,
    /// Mean reward of the last rollouts of that level; absent by step, and without rollouts.
    pub success: Option<f64>,
}

impl<'a> Curriculum<'a> {
    /// The curriculum over the tasks of `sources`, and their levels.
    ///
    /// # Errors
    /// A task without the label, or with a value that is not listed or not a number; a listed level
    /// without tasks; more open levels at the beginning than there are.
    pub fn new(
        config: &'a CurriculumConfig,
        sources: &[&dyn TaskSource],
    ) -> Result<(Self, Vec<SourceLevels>), TrainError> {
        let levels = match config.levels.as_slice() {
            [] => Levels::Numbers(Vec::new()),
            names => Levels::Listed(names.to_vec()),
        };
        let mut new = Self { config, levels, open: config.first, rewards: Vec::new() };
        let surveys = sources.iter().map(|source| new.survey(*source));
        let values: Vec<Vec<String>> = surveys.collect::<Result<_, _>>()?;
        if let Levels::Numbers(numbers) = &mut new.levels {
            *numbers = distinct(values.iter().flatten());
        }
        let count = new.levels.len();
        if config.first > count {
            return Err(TrainError::Invalid(format!(
                "data.curriculum.first: {} is more than the number of levels of {} ({count})",
                config.first, config.label
            )));
        }
        let mut found = vec![false; count];
        let mut of_sources = Vec::with_capacity(sources.len());
        for (source, values) in sources.iter().zip(&values) {
            let levels: Vec<usize> = values.iter().filter_map(|v| new.levels.of(v)).collect();
            levels.iter().for_each(|&level| found[level] = true);
            let lowest = levels.iter().copied().min().unwrap_or(0);
            let by_index = source.len().is_some().then_some(levels);
            of_sources.push(SourceLevels { by_index, lowest });
        }
        if let Some(level) = found.iter().position(|found| !found) {
            let (label, name) = (&config.label, new.levels.name(level));
            let endless = sources.iter().any(|source| source.len().is_none());
            let among = if endless { " among the first 4,096 of a generated world" } else { "" };
            return Err(TrainError::Invalid(format!(
                "data.curriculum.levels: no task of data.train has {label} = `{name}`{among}; \
                 remove it from the list"
            )));
        }
        Ok((new, of_sources))
    }

    /// The label's values in the tasks of a source, of an endless one in enough of the first tasks.
    fn survey(&self, source: &dyn TaskSource) -> Result<Vec<String>, TrainError> {
        let mut values = Vec::new();
        let mut missing = match &self.levels {
            Levels::Listed(names) => names.clone(),
            // A further task may have a further number.
            Levels::Numbers(_) => vec![String::new()],
        };
        for index in 0..source.len().unwrap_or(SURVEYED) {
            let enough = index >= CHECKED && missing.is_empty();
            if source.len().is_none() && enough {
                break;
            }
            let task = source.task(index);
            self.level(&task)?;
            let value = task.label(&self.config.label).unwrap_or_default();
            missing.retain(|name| name != value);
            values.push(value.to_owned());
        }
        Ok(values)
    }

    /// The level of a task.
    ///
    /// # Errors
    /// A task without the label, or with a value that is not listed or not a number.
    pub fn level(&self, task: &Task) -> Result<usize, TrainError> {
        let (label, id) = (&self.config.label, &task.id);
        let reject = |key: &str, what: String| {
            Err(TrainError::Invalid(format!("data.curriculum.{key}: the task {id} {what}")))
        };
        let Some(value) = task.label(label) else {
            let mut has: Vec<&str> = task.labels.iter().map(|(name, _)| name.as_str()).collect();
            has.dedup();
            let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
            return reject("label", format!("has no label `{label}`; its labels: {has}"));
        };
        match (self.levels.of(value), &self.levels) {
            (Some(level), _) => Ok(level),
            (None, Levels::Listed(names)) => reject(
                "levels",
                format!("has {label} = `{value}`, which is not among {}", names.join(", ")),
            ),
            (None, Levels::Numbers(_)) => reject(
                "label",
                format!(
                    "has {label} = `{value}`, which is not a number; list the values in \
                     data.curriculum.levels"
                ),
            ),
        }
    }

    /// Whether tasks of this level are drawn.
    pub fn is_open(&self, level: usize) -> bool {
        level < self.open
    }

    /// The label, and the name of the highest open level.
    pub fn highest(&self) -> (&str, &str) {
        (&self.config.label, self.levels.name(self.open - 1))
    }

    /// Opens the levels of step `step`, counted from 1.
    pub fn begin(&mut self, step: u64) {
        if let (OpenBy::Step, Some(steps)) = (self.config.by, self.config.steps) {
            let others = self.levels.len() - self.config.first;
            self.open = self.config.first + opened(step, others, steps);
        }
    }

    /// Takes the levels and rewards of the rollouts of a step, in their order, and opens the next
    /// level for the following step if they succeed. Returns the state of the step.
    pub fn end(&mut self, rollouts: impl Iterator<Item = (usize, f64)>) -> Progress {
        let level = self.levels.name(self.open - 1).to_owned();
        let mut progress = Progress { level, open: self.open, success: None };
        let config = self.config;
        if config.by == OpenBy::Step {
            return progress;
        }
        let highest = self.open - 1;
        let of_level = rollouts.filter(|(level, _)| *level == highest);
        self.rewards.extend(of_level.map(|(_, reward)| reward));
        let window = config.window.unwrap_or(CurriculumConfig::DEFAULT_WINDOW);
        self.rewards.drain(..self.rewards.len().saturating_sub(window));
        if self.rewards.is_empty() {
            return progress;
        }
        let success = self.rewards.iter().sum::<f64>() / self.rewards.len() as f64;
        progress.success = Some(success);
        let threshold = config.threshold.unwrap_or(CurriculumConfig::DEFAULT_THRESHOLD);
        let succeeded = self.rewards.len() == window && success >= threshold;
        if succeeded && self.open < self.levels.len() {
            self.open += 1;
            self.rewards.clear();
        }
        progress
    }

    /// What a checkpoint needs: by step nothing, since the step determines the open levels.
    pub fn state(&self) -> Option<CurriculumState> {
        let by_success = self.config.by == OpenBy::Success;
        by_success.then(|| CurriculumState { open: self.open, rewards: self.rewards.clone() })
    }

    /// Continues from a checkpoint.
    ///
    /// # Errors
    /// A state that does not belong to this curriculum.
    pub fn restore(&mut self, state: Option<&CurriculumState>) -> Result<(), String> {
        let (first, count) = (self.config.first, self.levels.len());
        match (self.config.by, state) {
            (OpenBy::Step, None) => Ok(()),
            (OpenBy::Success, Some(state)) if (first..=count).contains(&state.open) => {
                self.open = state.open;
                self.rewards.clone_from(&state.rewards);
                Ok(())
            }
            _ => Err("its state of the curriculum belongs to another configuration".to_owned()),
        }
    }
}

/// How many of `others` further levels are open in step `step`, counted from 1, if they open evenly
/// over `steps` steps: the last one after `steps` steps.
fn opened(step: u64, others: usize, steps: u64) -> usize {
    let done = u128::from(step.saturating_sub(1)) * others as u128 / u128::from(steps.max(1));
    usize::try_from(done).map_or(others, |done| done.min(others))
}

#[cfg(test)]
#[path = "curriculum_tests.rs"]
mod tests;

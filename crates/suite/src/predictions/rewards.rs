//! Computes the rewards of answers and compares them with recorded ones.

use std::fmt;

use leyden_core::{Scorer, Task};
use leyden_stats::mean;
use rayon::prelude::*;
use serde::Serialize;

use super::answers::Answer;
use crate::evaluation::summary::{estimate, interval};
use crate::table::counted;

/// Maximum number of listed differences and failures.
const NAMED: usize = 5;
/// Tolerance for equal rewards: they may have been recorded with fewer digits.
const TOLERANCE: f64 = 1e-9;

/// Rewards over all questions.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rewards {
    pub questions: usize,
    /// Mean over the scored questions.
    pub mean: Option<f64>,
    /// Bounds of the 95 % interval of the mean.
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Reasons for missing rewards.
    pub unscored: Vec<String>,
    /// Number of answers with a recorded reward.
    pub recorded: usize,
    /// Questions whose computed reward differs from the recorded one.
    pub differing: Vec<Differing>,
    #[serde(skip)]
    values: Vec<f64>,
}

/// A recorded reward that was not reproduced.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Differing {
    pub id: String,
    pub recorded: f64,
    pub here: Option<f64>,
}

impl Rewards {
    pub fn of(scorer: &dyn Scorer, tasks: &[Task], answers: &[Answer]) -> Self {
        let pairs: Vec<(&Task, &Answer)> = tasks.iter().zip(answers).collect();
        let scored: Vec<Result<f64, String>> = pairs
            .par_iter()
            .map(|(task, answer)| match scorer.score(task, answer.text.as_deref()) {
                Ok(score) => Ok(score.reward),
                Err(error) => Err(error.to_string()),
            })
            .collect();
        let mut rewards = Self { questions: pairs.len(), ..Self::default() };
        for ((task, answer), scored) in pairs.into_iter().zip(scored) {
            // A rollout may have no reward for reasons other than its answer, such as a prompt
            // beyond the context; it has none here either.
            if answer.recorded == Some(None) {
                rewards.unscored.push(format!("task {}: no reward was recorded", task.id));
                continue;
            }
            if let Some(Some(recorded)) = answer.recorded {
                rewards.recorded += 1;
                let here = scored.as_ref().ok().copied();
                if here.is_none_or(|here| (recorded - here).abs() > TOLERANCE) {
                    rewards.differing.push(Differing { id: task.id.clone(), recorded, here });
                }
            }
            match scored {
                Ok(reward) => rewards.values.push(reward),
                Err(why) => rewards.unscored.push(why),
            }
        }
        rewards.mean = mean(&rewards.values);
        let ends = rewards.mean.and_then(|_| interval(&rewards.values));
        rewards.low = ends.map(|ends| ends.low);
        rewards.high = ends.map(|ends| ends.high);
        rewards
    }
}

impl fmt::Display for Rewards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let questions = counted(self.questions, "question");
        writeln!(f, "reward  {} over {questions}", estimate(&self.values))?;
        if !self.unscored.is_empty() {
            writeln!(f, "not scored: {}", counted(self.unscored.len(), "question"))?;
            for why in self.unscored.iter().take(NAMED) {
                writeln!(f, "  {why}")?;
            }
        }
        if self.recorded > 0 && self.differing.is_empty() {
            writeln!(f, "as recorded beside all {} answers", self.recorded)?;
        } else if self.recorded > 0 {
            let (differing, recorded) = (self.differing.len(), self.recorded);
            writeln!(f, "other than recorded: {differing} of {recorded}")?;
            for one in self.differing.iter().take(NAMED) {
                let here = one.here.map_or("none".to_owned(), |reward| reward.to_string());
                writeln!(f, "  {}: {} recorded, {here} here", one.id, one.recorded)?;
            }
        }
        Ok(())
    }
}

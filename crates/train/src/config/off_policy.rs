//! Checks of training on samples of earlier weights: `train.staleness` and `[train.replay]`.

use leyden_rl::needs::Need;

use super::{Experiment, KeyError, Objective, TrainConfig};

/// Largest `train.staleness`: each version is a copy of the trained parameters.
const MOST_STALENESS: u64 = 8;

/// Largest `train.replay.steps`.
const MOST_STEPS: u64 = 64;

impl TrainConfig {
    /// Whether steps are trained on samples of earlier weights.
    pub fn is_off_policy(&self) -> bool {
        self.staleness > 0 || self.replay.is_on()
    }
}

impl Experiment {
    /// Rejects settings of staleness and replay that are out of bounds, have no effect, or would
    /// bias the gradient.
    pub(super) fn check_off_policy(&self) -> Result<(), KeyError> {
        let (train, replay) = (&self.train, &self.train.replay);
        let reject = |key: &str, what: String| Err(KeyError::new(key, what));
        for (key, value, most) in [
            ("train.staleness", train.staleness, MOST_STALENESS),
            ("train.replay.steps", replay.steps, MOST_STEPS),
        ] {
            if value > most {
                return reject(key, format!("{value} steps: at most {most}, or 0"));
            }
        }
        if !(replay.share > 0.0 && replay.share < 1.0) {
            let what = format!("{}: must be above 0 and below 1", replay.share);
            return reject("train.replay.share", what);
        }
        let key = if train.staleness > 0 { "train.staleness" } else { "train.replay.steps" };
        if !train.is_off_policy() {
            return Ok(());
        }
        if train.objective == Objective::Supervised {
            let what = "train.objective = \"supervised\" samples no rollouts: set it to 0";
            return reject(key, what.to_owned());
        }
        if !self.algorithm.correction.is_on() {
            let what = "samples of earlier weights need algorithm.correction, since the ratio of \
                        every algorithm.loss is to the weights at the start of the step: set \
                        algorithm.correction.weight to token (truncated importance sampling) or \
                        sequence, or exclude tokens or responses with algorithm.correction.reject";
            return reject(key, what.to_owned());
        }
        if replay.is_on() { self.check_replay() } else { Ok(()) }
    }

    /// Rejects a share that rounds to no group or to all, and credit that needs more of a rollout
    /// than is stored.
    fn check_replay(&self) -> Result<(), KeyError> {
        let (tasks, share) = (self.rollout.tasks, self.train.replay.share);
        let groups = self.train.replay.groups(tasks);
        if groups == 0 || groups >= tasks {
            let what = format!(
                "{share} of rollout.tasks = {tasks} is {groups} groups, and a step needs at least \
                 one from earlier steps and one that is fresh: change either"
            );
            return Err(KeyError::new("train.replay.share", what));
        }
        let (fresh, least) = ((tasks - groups) * self.rollout.samples, self.rollout.at_least);
        if least > fresh {
            let what = format!(
                "{least} rollouts with a reward, and beside the groups of train.replay a step has \
                 {fresh} fresh ones: at most that many"
            );
            return Err(KeyError::new("rollout.at_least", what));
        }
        let credit = &self.algorithm.credit;
        let lacking = credit.needs().iter().find_map(|need| match need {
            Need::Completions => Some("completions from the states of a rollout"),
            Need::Counterfactuals => Some("what an agent would have answered before a call"),
            Need::Group | Need::Critic | Need::Anchors => None,
        });
        match lacking {
            Some(what) => {
                let name = credit.name();
                let what = format!(
                    "algorithm.credit {name} needs {what}, which are not kept from earlier steps: \
                     set it to 0, or use another credit rule or train.staleness"
                );
                Err(KeyError::new("train.replay.steps", what))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::ReplayConfig;

    fn read(changes: &[&str]) -> Result<Experiment, String> {
        let text = "name = 'x'\n[model]\nsource = 'tiny'\n[agent]\nname = 'a'\n\
            [data]\ntrain = ['world']\ntest = ['world']\n[train]\nsteps = 3\n";
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        Experiment::parse(text, Path::new("x.toml"), &changes, &()).map_err(|e| e.to_string())
    }

    const TOKEN: &str = "algorithm.correction.weight=token";

    #[test]
    fn by_default_both_are_off() {
        let experiment = read(&[]).unwrap();
        assert!(!experiment.train.is_off_policy() && experiment.train.replay.groups(32) == 0);
        let text = experiment.to_toml();
        assert!(text.contains("\nstaleness = 0\n"), "{text}");
        assert!(text.contains("\n[train.replay]\nsteps = 0\nshare = 0.5\n"), "{text}");
        let older = text.replace("staleness = 0\n", "");
        let older = older.replace("[train.replay]\nsteps = 0\nshare = 0.5\n", "");
        assert_eq!(Experiment::rewritten(&older, &()), text);
    }

    #[test]
    fn the_share_is_rounded_to_groups() {
        let groups = |share: f64, tasks| ReplayConfig { steps: 1, share }.groups(tasks);
        assert_eq!([groups(0.5, 2), groups(0.5, 3), groups(0.25, 8), groups(0.1, 4)], [1, 2, 2, 0]);
        assert_eq!(ReplayConfig { steps: 0, share: 0.5 }.groups(8), 0);
    }

    #[test]
    fn a_correction_is_required() {
        let cut = "algorithm.correction.reject=[{over = 'sequence_mean', by = 'k1', high = 1.5}]";
        for (on, key) in [
            ("train.staleness=1", "train.staleness: samples"),
            ("train.replay.steps=2", "train.replay.steps: samples"),
        ] {
            for loss in leyden_rl::loss::LossConfig::NAMES {
                let loss = format!("algorithm.loss.name={loss}");
                let error = read(&[on, &loss]).unwrap_err();
                for words in [key, "algorithm.correction.weight", "algorithm.correction.reject"] {
                    assert!(error.contains(words), "{error}");
                }
                assert!(!error.contains('\n'), "{error}");
                for correction in [TOKEN, "algorithm.correction.weight=sequence", cut] {
                    assert!(read(&[on, &loss, correction]).is_ok(), "{on} {loss} {correction}");
                }
            }
        }
    }

    #[test]
    fn values_without_effect_or_out_of_bounds_are_refused() {
        for (changes, words) in [
            (&["train.staleness=9"][..], "train.staleness: 9 steps: at most 8"),
            (&["train.replay.steps=65"], "train.replay.steps: 65 steps: at most 64"),
            (&["train.replay.share=1.0"], "train.replay.share: 1: must be above 0 and below 1"),
            (&["train.replay.share=nan"], "train.replay.share"),
            (&["train.staleness=1", "train.objective=supervised"], "samples no rollouts"),
            (&["train.replay.steps=1", "rollout.tasks=1"], "train.replay.share: 0.5 of"),
            (
                &["train.replay.steps=1", "rollout.tasks=4", "train.replay.share=0.9"],
                "rollout.tasks = 4 is 4 groups",
            ),
            (
                &["train.replay.steps=1", "rollout.tasks=4", "rollout.at_least=9"],
                "rollout.at_least: 9 rollouts with a reward",
            ),
            (
                &["train.replay.steps=1", "algorithm.credit.name=leave_one_out"],
                "algorithm.credit leave_one_out needs what an agent",
            ),
        ] {
            let error = read(&[changes, &[TOKEN]].concat()).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let completed = ["algorithm.credit.name=monte_carlo", "algorithm.advantage.name=none"];
        let error = read(&[&completed[..], &["train.replay.steps=1", TOKEN]].concat()).unwrap_err();
        assert!(error.contains("train.replay.steps: algorithm.credit monte_carlo"), "{error}");
        let stale = [&completed[..], &["train.staleness=8", TOKEN]].concat();
        assert!(read(&stale).is_ok());
    }
}

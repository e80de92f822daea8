//! The configuration of a curriculum over the levels of a label, `[data.curriculum]`.

use serde::{Deserialize, Serialize};

use super::own::KeyError;

/// Largest window of rollouts over which success is measured.
const LARGEST_WINDOW: usize = 1 << 16;

/// A curriculum: tasks above the open level are not drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurriculumConfig {
    /// The label of the tasks that has the levels.
    pub label: String,
    /// The values of the label from the first level to the last; if empty, they are numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<String>,
    pub by: OpenBy,
    /// Number of levels that are open at the beginning.
    #[serde(default = "one")]
    pub first: usize,
    /// Number of steps over which the other levels open, evenly; by step only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Mean reward on the highest open level at which the next one opens; by success only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Number of rollouts that the mean is over; by success only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
}

/// What opens the next level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenBy {
    /// The training step.
    Step,
    /// The mean reward on the highest open level.
    Success,
}

fn one() -> usize {
    1
}

impl CurriculumConfig {
    pub const DEFAULT_THRESHOLD: f64 = 0.7;
    pub const DEFAULT_WINDOW: usize = 64;

    /// The configuration with the defaults of its kind written out.
    #[must_use]
    pub fn resolved(mut self) -> Self {
        if self.by == OpenBy::Success {
            self.threshold.get_or_insert(Self::DEFAULT_THRESHOLD);
            self.window.get_or_insert(Self::DEFAULT_WINDOW);
        }
        self
    }

    /// # Errors
    /// The key of an invalid value, or of one that belongs to the other kind.
    pub fn check(&self) -> Result<(), KeyError> {
        let reject =
            |key: &str, what: &str| Err(KeyError::new(format!("data.curriculum.{key}"), what));
        if self.label.is_empty() {
            return reject("label", "is the name of a label of the training tasks");
        }
        for (place, level) in self.levels.iter().enumerate() {
            if self.levels[..place].contains(level) {
                return reject("levels", &format!("`{level}` is listed twice"));
            }
        }
        if self.first == 0 {
            return reject("first", "must be at least 1");
        }
        let listed = self.levels.len();
        if listed > 0 && self.first > listed {
            let what = format!("{} is more than the number of levels ({listed})", self.first);
            return reject("first", &what);
        }
        match self.by {
            OpenBy::Step => match (self.steps, self.threshold, self.window) {
                (_, Some(_), _) => reject("threshold", "belongs to by = \"success\""),
                (_, _, Some(_)) => reject("window", "belongs to by = \"success\""),
                (None, ..) => reject("steps", "is missing: over how many steps the levels open"),
                (Some(0), ..) => reject("steps", "must be at least 1"),
                _ => Ok(()),
            },
            OpenBy::Success if self.steps.is_some() => reject("steps", "belongs to by = \"step\""),
            OpenBy::Success => {
                let threshold = self.threshold.unwrap_or(Self::DEFAULT_THRESHOLD);
                let window = self.window.unwrap_or(Self::DEFAULT_WINDOW);
                if !threshold.is_finite() {
                    return reject("threshold", &format!("{threshold} must be a number"));
                }
                if !(1..=LARGEST_WINDOW).contains(&window) {
                    let what = format!("{window} must be from 1 to {LARGEST_WINDOW}");
                    return reject("window", &what);
                }
                Ok(())
            }
        }
    }
}

/// Checks the weights of the sources `names`.
///
/// # Errors
/// Another number of weights than of sources, a weight that is not positive and finite, a source
/// that is listed twice.
pub(super) fn check_weights(weights: &[f64], names: &[String]) -> Result<(), KeyError> {
    let reject = |what: String| Err(KeyError::new("data.weights", what));
    if weights.is_empty() {
        return Ok(());
    }
    if weights.len() != names.len() {
        let (weights, sources) = (weights.len(), names.len());
        return reject(format!(
            "the number of weights ({weights}) is not the number of sources in data.train ({sources})"
        ));
    }
    if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
        return reject(format!("{weight} must be a positive number; leave the source out instead"));
    }
    for (place, name) in names.iter().enumerate() {
        if names[..place].contains(name) {
            return reject(format!("{name} is listed twice in data.train; add its weights"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CurriculumConfig, String> {
        let config: CurriculumConfig = toml::from_str(text).map_err(|e| e.to_string())?;
        let config = config.resolved();
        config.check().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn the_defaults_of_each_kind_are_written_out() {
        let by_success = read("label = 'steps'\nby = 'success'").unwrap();
        assert_eq!((by_success.first, by_success.steps), (1, None));
        assert_eq!((by_success.threshold, by_success.window), (Some(0.7), Some(64)));
        let by_step = read("label = 'steps'\nby = 'step'\nsteps = 100").unwrap();
        assert_eq!((by_step.threshold, by_step.window), (None, None));
        for config in [by_success, by_step] {
            let text = toml::to_string(&config).unwrap();
            assert_eq!(read(&text).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn invalid_values_are_named() {
        for (text, words) in [
            ("by = 'step'\nsteps = 1", "label"),
            ("label = 'x'", "by"),
            ("label = 'x'\nby = 'luck'", "luck"),
            ("label = ''\nby = 'success'", "data.curriculum.label"),
            ("label = 'x'\nby = 'step'", "data.curriculum.steps: is missing"),
            ("label = 'x'\nby = 'step'\nsteps = 0", "data.curriculum.steps: must be at least 1"),
            ("label = 'x'\nby = 'step'\nsteps = 9\nwindow = 3", "data.curriculum.window: belongs"),
            ("label = 'x'\nby = 'success'\nsteps = 9", "data.curriculum.steps: belongs"),
            ("label = 'x'\nby = 'success'\nthreshold = nan", "data.curriculum.threshold: NaN"),
            ("label = 'x'\nby = 'success'\nthreshold = inf", "data.curriculum.threshold: inf"),
            ("label = 'x'\nby = 'success'\nwindow = 0", "data.curriculum.window: 0 must be from 1"),
            ("label = 'x'\nby = 'success'\nwindow = 70000", "data.curriculum.window: 70000"),
            ("label = 'x'\nby = 'success'\nwindow = -1", "-1"),
            ("label = 'x'\nby = 'success'\nfirst = 0", "data.curriculum.first: must be"),
            (
                "label = 'x'\nby = 'success'\nfirst = 2\nlevels = ['a']",
                "2 is more than the number of levels (1)",
            ),
            ("label = 'x'\nby = 'success'\nlevels = ['a', 'b', 'a']", "`a` is listed twice"),
            ("label = 'x'\nby = 'success'\nlevels = [1, 2]", "string"),
            ("label = 'x'\nby = 'success'\nlevel = 'a'", "unknown field `level`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn weights_belong_to_the_sources() {
        let check = |weights: &[f64], names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            check_weights(weights, &names).map_err(|e| e.to_string())
        };
        assert_eq!(check(&[], &["a", "b"]), Ok(()));
        assert_eq!(check(&[3.0, 1e-300], &["a", "b"]), Ok(()));
        for (weights, words) in [
            (&[1.0][..], "weights (1) is not the number of sources in data.train (2)"),
            (&[1.0, 2.0, 3.0], "weights (3)"),
            (&[1.0, 0.0], "0 must be a positive number"),
            (&[1.0, -2.0], "-2 must be"),
            (&[f64::NAN, 1.0], "NaN must be"),
            (&[1.0, f64::INFINITY], "inf must be"),
        ] {
            let error = check(weights, &["a", "b"]).unwrap_err();
            assert!(error.starts_with("data.weights: ") && error.contains(words), "{error}");
        }
        let error = check(&[1.0, 2.0], &["a", "a"]).unwrap_err();
        assert!(error.contains("a is listed twice"), "{error}");
    }
}

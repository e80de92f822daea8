//! Everything that can be wrong with an algorithm or with what it is given, and the checks of
//! single values.
//!
//! In one file that imports no other of the crate, so that rules, which refuse values, need not
//! know of the configuration that holds them.

/// Why an algorithm cannot be used. Keys are within the algorithm's configuration
/// (`loss.clip_low`).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A value that an algorithm cannot work with.
    #[error("{key} = {value} is not possible: it must be {expected}")]
    Value { key: &'static str, value: f64, expected: &'static str },
    /// Choices that do not go together, or not with the run.
    #[error("{key}: {why}")]
    Combination { key: &'static str, why: String },
}

impl ConfigError {
    pub(crate) fn combination(key: &'static str, why: impl Into<String>) -> Self {
        Self::Combination { key, why: why.into() }
    }

    /// The key that is at fault.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Value { key, .. } | Self::Combination { key, .. } => key,
        }
    }
}

/// Why credit cannot be assigned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CreditError {
    /// A rule lacks something that a rollout does not say by itself.
    #[error(
        "credit {rule} needs {what}, and call {call} of trajectory {trajectory} has none: {why}"
    )]
    Missing {
        rule: &'static str,
        what: &'static str,
        /// What it is needed for.
        why: &'static str,
        /// Index in the slice of trajectories.
        trajectory: usize,
        call: usize,
    },
    #[error("call {call} of trajectory {trajectory} has {values} token values for {tokens} tokens")]
    TokenValues { trajectory: usize, call: usize, values: usize, tokens: usize },
    #[error(transparent)]
    Comparison(#[from] AdvantageError),
}

/// Why there are no advantages.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AdvantageError {
    #[error("row {row} earned {score}, which is not a finite number")]
    Score { row: usize, score: f64 },
    #[error("the advantages cannot be whitened: {tokens} tokens are trained on, and it takes two")]
    TooFewTokens { tokens: usize },
    #[error("group {group} has one sample, and pass@k takes two or more")]
    Singleton { group: usize },
    #[error("generalised advantage estimation needs a critic's values, and there are none")]
    NoValues,
}

/// Why there is nothing to train on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AssignError {
    #[error(transparent)]
    Credit(#[from] CreditError),
    #[error(transparent)]
    Advantage(#[from] AdvantageError),
}

/// Refuses `value` unless `holds`; NaN holds nothing.
pub(crate) fn require(
    holds: bool,
    key: &'static str,
    value: f64,
    expected: &'static str,
) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Value { key, value, expected }) }
}

/// Refuses what is not above 0 and finite.
pub(crate) fn positive(key: &'static str, value: f64) -> Result<(), ConfigError> {
    require(value > 0.0 && value.is_finite(), key, value, "a positive number")
}

/// Refuses what is below 0 or not finite.
pub(crate) fn not_negative(key: &'static str, value: f64) -> Result<(), ConfigError> {
    require(value >= 0.0 && value.is_finite(), key, value, "a number that is not negative")
}

/// Refuses what is not from 0 to 1.
pub(crate) fn fraction(key: &'static str, value: f64) -> Result<(), ConfigError> {
    require((0.0..=1.0).contains(&value), key, value, "a number from 0 to 1")
}

/// Refuses clip ranges of a ratio, `1 − low` to `1 + high`, that make no sense.
pub(crate) fn clip_range(low: f64, high: f64) -> Result<(), ConfigError> {
    fraction("loss.clip_low", low)?;
    not_negative("loss.clip_high", high)
}

/// Refuses clips of a log-ratio, or of a weight, which may be as far apart as one likes.
pub(crate) fn open_clip_range(low: f64, high: f64) -> Result<(), ConfigError> {
    not_negative("loss.clip_low", low)?;
    not_negative("loss.clip_high", high)
}

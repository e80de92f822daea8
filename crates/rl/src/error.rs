//! Errors of algorithms and their inputs, and checks of single values.
//!
//! This file imports no other file of the crate, so that rules can validate values without
//! depending on the configuration.

/// Invalid algorithm configuration. Keys are relative to the algorithm's configuration
/// (`loss.clip_low`).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// An invalid value.
    #[error("{key} = {value} is not possible: it must be {expected}")]
    Value { key: &'static str, value: f64, expected: &'static str },
    /// Choices that are incompatible with each other or with the run.
    #[error("{key}: {why}")]
    Combination { key: &'static str, why: String },
}

impl ConfigError {
    pub(crate) fn combination(key: &'static str, why: impl Into<String>) -> Self {
        Self::Combination { key, why: why.into() }
    }

    /// The offending key.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Value { key, .. } | Self::Combination { key, .. } => key,
        }
    }
}

/// Errors of credit assignment.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CreditError {
    /// An input of the rule that is not part of a rollout is missing.
    #[error(
        "credit {rule} needs {what}, and call {call} of trajectory {trajectory} has none: {why}"
    )]
    Missing {
        rule: &'static str,
        what: &'static str,
        /// Why it is needed.
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

/// Errors of advantage estimation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AdvantageError {
    #[error("row {row} earned {score}, which is not a finite number")]
    Score { row: usize, score: f64 },
    #[error("group {group} has one sample, and pass@k needs two or more")]
    Singleton { group: usize },
    #[error("generalised advantage estimation needs a critic's values, and there are none")]
    NoValues,
}

/// Errors of [`crate::config::AlgorithmConfig::assign`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AssignError {
    #[error(transparent)]
    Credit(#[from] CreditError),
    #[error(transparent)]
    Advantage(#[from] AdvantageError),
}

/// Rejects `value` unless `holds`.
pub(crate) fn require(
    holds: bool,
    key: &'static str,
    value: f64,
    expected: &'static str,
) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Value { key, value, expected }) }
}

/// Rejects values that are not above 0 and finite.
pub(crate) fn positive(key: &'static str, value: f64) -> Result<(), ConfigError> {
    require(value > 0.0 && value.is_finite(), key, value, "a positive number")
}

/// Rejects values below 0 or not finite.
pub(crate) fn not_negative(key: &'static str, value: f64) -> Result<(), ConfigError> {
    require(value >= 0.0 && value.is_finite(), key, value, "a number that is not negative")
}

/// Rejects values outside [0, 1].
pub(crate) fn fraction(key: &'static str, value: f64) -> Result<(), ConfigError> {
    require((0.0..=1.0).contains(&value), key, value, "a number from 0 to 1")
}

/// Rejects invalid clip ranges of a ratio, `1 − low` to `1 + high`.
pub(crate) fn clip_range(low: f64, high: f64) -> Result<(), ConfigError> {
    fraction("loss.clip_low", low)?;
    not_negative("loss.clip_high", high)
}

/// Rejects invalid clip ranges of a log-ratio or a weight, which have no upper limit.
pub(crate) fn open_clip_range(low: f64, high: f64) -> Result<(), ConfigError> {
    not_negative("loss.clip_low", low)?;
    not_negative("loss.clip_high", high)
}

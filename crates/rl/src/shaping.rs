//! Overlong reward shaping, from DAPO.
//!
//! Yu et al., *DAPO*, arXiv 2503.14476. Its dynamic sampling is implemented in the trainer, which
//! selects the tasks to sample.

use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, require};

/// A soft penalty on responses near the token limit, which attributes the failure to length rather
/// than content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlongConfig {
    /// Responses at or beyond this length get the full penalty.
    pub max_tokens: usize,
    /// The penalty grows over this many tokens before the limit.
    pub buffer: usize,
}

impl OverlongConfig {
    /// # Errors
    /// If the buffer is empty or larger than the limit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let holds = self.buffer > 0 && self.buffer <= self.max_tokens;
        let expected = "at least 1 and at most overlong.max_tokens";
        require(holds, "overlong.buffer", self.buffer as f64, expected)
    }

    /// 0 up to `max − buffer` tokens, then falling linearly to −1 at `max`, and −1 beyond.
    pub fn penalty(&self, tokens: usize) -> f64 {
        let free = self.max_tokens - self.buffer.min(self.max_tokens);
        let over = tokens.saturating_sub(free);
        -(over as f64 / self.buffer.max(1) as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_penalty_grows_within_the_buffer() {
        let config = OverlongConfig { max_tokens: 100, buffer: 20 };
        let expected = [(0, 0.0), (80, 0.0), (85, -0.25), (100, -1.0), (101, -1.0), (999, -1.0)];
        for (tokens, penalty) in expected {
            assert_eq!(config.penalty(tokens), penalty, "{tokens}");
        }
        assert_eq!(config.validate(), Ok(()));
        for buffer in [0, 101] {
            let error = OverlongConfig { buffer, ..config.clone() }.validate().unwrap_err();
            assert_eq!(error.key(), "overlong.buffer");
        }
    }
}

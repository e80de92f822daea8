//! Counts of tokens, which each API names in its own way.

use crate::backend::Answer;

/// Tokens of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub prompt: usize,
    /// Of the prompt's tokens those that were found in the cache.
    pub cached: usize,
    pub completion: usize,
}

impl Usage {
    /// Of a call with `per_prompt` choices for each prompt. A prompt counts once, however many
    /// choices continue it.
    pub fn of(answers: &[Answer], per_prompt: usize) -> Self {
        let first = || answers.iter().step_by(per_prompt.max(1));
        Self {
            prompt: first().map(|a| a.prompt_ids.len()).sum(),
            cached: first().map(|a| a.cached_tokens.min(a.prompt_ids.len())).sum(),
            completion: answers.iter().map(|a| a.tokens.len()).sum(),
        }
    }

    /// As chat and text completions report it.
    pub fn completions(self) -> serde_json::Value {
        serde_json::json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": 0},
        })
    }
}

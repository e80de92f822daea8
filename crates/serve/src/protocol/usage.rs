//! Token counts, which each API names differently.

use crate::backend::Answer;

/// Tokens of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub prompt: usize,
    /// Prompt tokens found in the KV cache.
    pub cached: usize,
    pub completion: usize,
}

impl Usage {
    /// The usage of a call with `per_prompt` choices per prompt. A prompt counts once, however
    /// many choices continue it.
    pub fn of(answers: &[Answer], per_prompt: usize) -> Self {
        let first = || answers.iter().step_by(per_prompt.max(1));
        Self {
            prompt: first().map(|a| a.prompt_ids.len()).sum(),
            cached: first().map(|a| a.cached_tokens.min(a.prompt_ids.len())).sum(),
            completion: answers.iter().map(|a| a.tokens.len()).sum(),
        }
    }

    /// In the format of chat and text completions.
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

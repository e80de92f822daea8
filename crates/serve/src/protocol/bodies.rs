//! Response bodies of chat and text completions, whole or in chunks.

use serde::Serialize;
use serde_json::Value;

use super::ids;
use super::options::now;

/// The fields that all bodies of one call share.
pub(super) struct Head {
    id: String,
    created: u64,
    /// As named in the request.
    model: String,
    pub policy_version: u64,
}

/// A body with format-specific choices.
#[derive(Serialize)]
pub(super) struct Body<'a, Choice> {
    pub id: &'a str,
    pub object: &'static str,
    pub created: u64,
    pub model: &'a str,
    /// As at OpenAI, it changes with the weights.
    pub system_fingerprint: String,
    pub choices: &'a [Choice],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<&'a [u32]>,
}

impl Head {
    /// A fresh id with this prefix, and the time.
    pub fn new(prefix: &str, model: String) -> Self {
        Self { id: ids::fresh(prefix), created: now(), model, policy_version: 0 }
    }

    pub fn body<'a, Choice>(
        &'a self,
        object: &'static str,
        choices: &'a [Choice],
    ) -> Body<'a, Choice> {
        Body {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            system_fingerprint: format!("policy-{}", self.policy_version),
            choices,
            usage: None,
            prompt_token_ids: None,
        }
    }
}

impl<Choice: Serialize> Body<'_, Choice> {
    /// Serialises the body. Keys are strings and numbers finite, so this cannot fail.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

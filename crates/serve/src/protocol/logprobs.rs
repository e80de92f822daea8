//! Log-probabilities in the forms of chat and of text completions.
//!
//! One entry for every sampled token, the end-of-turn token included, so that a trainer can
//! lay them beside `token_ids`. A number that is not finite is `null`: JSON has no other way.

use serde_json::{Map, Value, json};

use crate::backend::Token;

/// How tokens are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TokenText {
    /// `token_id:17` instead of the token's text (`return_tokens_as_token_ids`).
    pub as_ids: bool,
}

impl TokenText {
    /// A token's text; of one that holds a part of a character only, a replacement character.
    fn of(self, id: u32, bytes: &[u8]) -> String {
        if self.as_ids {
            return format!("token_id:{id}");
        }
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// `choices[].logprobs` of a chat completion.
    pub fn chat(self, tokens: &[Token]) -> Value {
        let content: Vec<Value> = tokens.iter().map(|token| self.entry(token)).collect();
        json!({"content": content, "refusal": null})
    }

    /// The entries of a response's `output_text.logprobs`.
    pub fn entries(self, tokens: &[Token]) -> Vec<Value> {
        tokens.iter().map(|token| self.entry(token)).collect()
    }

    fn entry(self, token: &Token) -> Value {
        let top: Vec<Value> = token
            .top
            .iter()
            .map(|(id, logprob, bytes)| self.one(*id, *logprob, bytes).into())
            .collect();
        let mut entry = self.one(token.id, token.logprob, &token.bytes);
        entry.insert("top_logprobs".to_owned(), top.into());
        entry.into()
    }

    fn one(self, id: u32, logprob: f32, bytes: &[u8]) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("token".to_owned(), self.of(id, bytes).into());
        map.insert("logprob".to_owned(), finite(logprob));
        map.insert("bytes".to_owned(), bytes.into());
        map
    }

    /// `choices[].logprobs` of a text completion. `offset` counts the characters before these
    /// tokens and is moved behind them.
    pub fn completion(self, tokens: &[Token], top: usize, offset: &mut usize) -> Value {
        let mut texts = Vec::with_capacity(tokens.len());
        let mut offsets = Vec::with_capacity(tokens.len());
        for token in tokens {
            offsets.push(*offset);
            *offset += String::from_utf8_lossy(&token.bytes).chars().count();
            texts.push(self.of(token.id, &token.bytes));
        }
        let alternatives = |token: &Token| -> Map<String, Value> {
            let entry = |(id, logprob, bytes): &(u32, f32, Vec<u8>)| {
                (self.of(*id, bytes), finite(*logprob))
            };
            token.top.iter().map(entry).collect()
        };
        let top_logprobs =
            (top > 0).then(|| tokens.iter().map(alternatives).collect::<Vec<Map<_, _>>>());
        json!({
            "tokens": texts,
            "token_logprobs": tokens.iter().map(|t| finite(t.logprob)).collect::<Vec<_>>(),
            "top_logprobs": top_logprobs,
            "text_offset": offsets,
        })
    }
}

fn finite(x: f32) -> Value {
    if x.is_finite() { f64::from(x).into() } else { Value::Null }
}

/// The ids of tokens.
pub(super) fn ids(tokens: &[Token]) -> Vec<u32> {
    tokens.iter().map(|token| token.id).collect()
}

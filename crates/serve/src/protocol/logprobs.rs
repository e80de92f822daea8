//! Log-probabilities in the formats of chat and text completions.
//!
//! One entry per sampled token, including the end-of-turn token, so that a trainer can align them
//! with `token_ids`. A non-finite number is `null`, as JSON cannot represent it. They are most of
//! the bytes of a trained agent's responses, so they are serialised directly from the tokens,
//! without an intermediate JSON tree.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::backend::Token;

/// How tokens are rendered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TokenText {
    /// `token_id:17` instead of the token's text (`return_tokens_as_token_ids`).
    pub as_ids: bool,
}

/// `choices[].logprobs` of a chat completion.
#[derive(Serialize)]
pub(super) struct ChatLogprobs<'a> {
    content: Vec<Entry<'a>>,
    refusal: (),
}

/// `choices[].logprobs` of a text completion: lists of equal length.
#[derive(Serialize)]
pub(super) struct CompletionLogprobs<'a> {
    tokens: Vec<Cow<'a, str>>,
    token_logprobs: Vec<Finite>,
    top_logprobs: Option<Vec<BTreeMap<Cow<'a, str>, Finite>>>,
    text_offset: Vec<usize>,
}

#[derive(Serialize)]
struct Entry<'a> {
    token: Cow<'a, str>,
    logprob: Finite,
    bytes: &'a [u8],
    top_logprobs: Vec<One<'a>>,
}

#[derive(Serialize)]
struct One<'a> {
    token: Cow<'a, str>,
    logprob: Finite,
    bytes: &'a [u8],
}

#[derive(Clone, Copy)]
struct Finite(f32);

impl Serialize for Finite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f32(self.0)
        } else {
            serializer.serialize_unit()
        }
    }
}

impl TokenText {
    /// A token's text; a replacement character for part of a character.
    fn of(self, id: u32, bytes: &[u8]) -> Cow<'_, str> {
        if self.as_ids { format!("token_id:{id}").into() } else { String::from_utf8_lossy(bytes) }
    }

    pub fn chat(self, tokens: &[Token]) -> ChatLogprobs<'_> {
        ChatLogprobs {
            content: tokens.iter().map(|token| self.entry(token)).collect(),
            refusal: (),
        }
    }

    /// The entries of a response's `output_text.logprobs`.
    pub fn entries(self, tokens: &[Token]) -> Vec<Value> {
        let entry = |token| serde_json::to_value(self.entry(token)).unwrap_or_default();
        tokens.iter().map(entry).collect()
    }

    fn entry(self, token: &Token) -> Entry<'_> {
        Entry {
            token: self.of(token.id, &token.bytes),
            logprob: Finite(token.logprob),
            bytes: &token.bytes,
            top_logprobs: token.top.iter().map(|top| self.one(top)).collect(),
        }
    }

    fn one(self, (id, logprob, bytes): &(u32, f32, Vec<u8>)) -> One<'_> {
        One { token: self.of(*id, bytes), logprob: Finite(*logprob), bytes }
    }

    /// `offset` is the number of characters before these tokens and is advanced past them. Without
    /// alternatives (`top` is 0) their list is omitted.
    pub fn completion<'a>(
        self,
        tokens: &'a [Token],
        top: usize,
        offset: &mut usize,
    ) -> CompletionLogprobs<'a> {
        let start = |token: &Token| {
            let characters = String::from_utf8_lossy(&token.bytes).chars().count();
            std::mem::replace(offset, *offset + characters)
        };
        let text_offset = tokens.iter().map(start).collect();
        let alternatives = |token: &'a Token| -> BTreeMap<Cow<'a, str>, Finite> {
            let pairs = token.top.iter();
            pairs.map(|(id, logprob, bytes)| (self.of(*id, bytes), Finite(*logprob))).collect()
        };
        CompletionLogprobs {
            tokens: tokens.iter().map(|token| self.of(token.id, &token.bytes)).collect(),
            token_logprobs: tokens.iter().map(|token| Finite(token.logprob)).collect(),
            top_logprobs: (top > 0).then(|| tokens.iter().map(alternatives).collect()),
            text_offset,
        }
    }
}

/// Serialises the ids of tokens without an intermediate list.
pub(super) struct Ids<'a>(pub &'a [Token]);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|token| token.id))
    }
}

/// The ids of tokens.
pub(super) fn ids(tokens: &[Token]) -> Vec<u32> {
    tokens.iter().map(|token| token.id).collect()
}

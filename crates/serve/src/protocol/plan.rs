//! The result of parsing a request body.

use leyden_core::ToolCall;
use serde_json::Value;

use super::error::ApiError;
use super::sse::Sse;
use crate::backend::{Answer, Ask, Token};
use crate::call::Written;

/// A parsed request.
pub(super) struct Plan {
    /// One per choice of the response, in order; at least one.
    pub asks: Vec<Ask>,
    pub stream: bool,
    pub writer: Box<dyn Writer>,
}

/// A conversation to keep under a response's id.
pub(super) struct Memory {
    pub id: String,
    pub items: Vec<Value>,
}

/// Writes the response of one call. For a streamed call, `begun`, `text` and `call` receive every
/// choice's parts in order before `whole` is called; otherwise only `whole` is called. Parts may
/// be empty except for tokens.
pub(super) trait Writer: Send + Sync {
    fn begun(&mut self, choice: usize, prompt_ids: &[u32], policy_version: u64, out: &mut Sse);

    fn text(&mut self, choice: usize, text: &str, tokens: Vec<Token>, out: &mut Sse);

    fn call(&mut self, choice: usize, call: &ToolCall, tokens: Vec<Token>, out: &mut Sse);

    /// The body of the non-streamed response.
    fn whole(&mut self, answers: &[Answer]) -> Written;

    /// The rest of the stream, sent once the call is recorded. `body` is the result of `whole`.
    fn close(&mut self, answers: &[Answer], body: &Written, out: &mut Sse);

    /// The end of a stream that failed after it began.
    fn failed(&mut self, error: &ApiError, out: &mut Sse);

    /// Sent to the client while nothing is generated.
    fn keep_alive(&self, out: &mut Sse) {
        out.comment("waiting");
    }

    /// The conversation to store for `previous_response_id`; called after `whole`.
    fn memory(&self) -> Option<Memory> {
        None
    }
}

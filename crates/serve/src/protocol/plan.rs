//! What a format makes of a body.

use leyden_core::ToolCall;
use serde_json::Value;

use super::error::ApiError;
use super::sse::Sse;
use crate::backend::{Answer, Ask, Token};
use crate::call::Written;

/// A body that was understood.
pub(super) struct Plan {
    /// One for every choice of the response, in their order; at least one.
    pub asks: Vec<Ask>,
    pub stream: bool,
    pub writer: Box<dyn Writer>,
}

/// A conversation to keep under a response's id.
pub(super) struct Memory {
    pub id: String,
    pub items: Vec<Value>,
}

/// Writes the response of one call. Of a streamed call `begun`, `text` and `call` see every
/// choice's parts in their order before `whole` is asked for; of another only `whole` is called.
/// Parts that are empty but for tokens occur.
pub(super) trait Writer: Send + Sync {
    fn begun(&mut self, choice: usize, prompt_ids: &[u32], policy_version: u64, out: &mut Sse);

    fn text(&mut self, choice: usize, text: &str, tokens: Vec<Token>, out: &mut Sse);

    fn call(&mut self, choice: usize, call: &ToolCall, tokens: Vec<Token>, out: &mut Sse);

    /// The body as it is answered without streaming.
    fn whole(&mut self, answers: &[Answer]) -> Written;

    /// The rest of the stream, which leaves once the call is recorded. `body` is that of
    /// `whole`.
    fn close(&mut self, answers: &[Answer], body: &Written, out: &mut Sse);

    /// The end of a stream that failed after it had begun.
    fn failed(&mut self, error: &ApiError, out: &mut Sse);

    /// What a client receives while nothing is generated.
    fn keep_alive(&self, out: &mut Sse) {
        out.comment("waiting");
    }

    /// What `previous_response_id` must find later; asked for after `whole`.
    fn memory(&self) -> Option<Memory> {
        None
    }
}

//! Returns a recorded response to a retry.
//!
//! A non-streamed request gets the recorded body. For a streamed one, the protocol runs again over
//! a backend that replays the answer.

use std::sync::Mutex;

use leyden_core::FinishReason;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::backend::{Answer, Ask, Backend, Delta, Event, Failure, ModelCard, Token};
use crate::store::{RecordedCall, StoredAnswer};

/// The recorded status and body, if present.
pub(super) fn body(call: &RecordedCall) -> Option<(u16, Value)> {
    let mut data: Value = serde_json::from_str(&call.data).ok()?;
    let status = data.get("http_status")?.as_u64()?.try_into().ok()?;
    Some((status, data.get_mut("response")?.take()))
}

/// A backend that replays the recorded answers, in order of choices.
pub(super) struct Replay {
    answers: Mutex<std::vec::IntoIter<Answer>>,
    cards: Vec<ModelCard>,
}

impl Replay {
    /// `cards` are the models of the backend that answered first.
    pub(super) fn new(call: &RecordedCall, response: &Value, cards: Vec<ModelCard>) -> Self {
        let answers: Vec<Answer> = call
            .answers
            .iter()
            .enumerate()
            .map(|(choice, answer)| restored(answer, &token_bytes(response, choice)))
            .collect();
        Self { answers: Mutex::new(answers.into_iter()), cards }
    }
}

impl Backend for Replay {
    fn models(&self) -> Vec<ModelCard> {
        self.cards.clone()
    }

    fn submit(&self, _: Ask) -> UnboundedReceiver<Event> {
        let (sender, receiver) = unbounded_channel();
        let answer = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
        // We still hold the receiver, so sending does not fail.
        let _ = match answer {
            None => sender.send(Event::Failed(Failure::Internal(
                "the recorded call has fewer choices than this request".into(),
            ))),
            Some(answer) => {
                let started = Event::Started {
                    prompt_ids: answer.prompt_ids.clone(),
                    policy_version: answer.policy_version,
                };
                let delta = Delta {
                    content: answer.content.clone(),
                    tool_calls: answer.tool_calls.clone(),
                    tokens: answer.tokens.clone(),
                };
                let _ = sender.send(started);
                let _ = sender.send(Event::Delta(delta));
                sender.send(Event::Finished(Box::new(answer)))
            }
        };
        receiver
    }
}

/// The token bytes of a choice, if the recorded body has them.
fn token_bytes(response: &Value, choice: usize) -> Vec<Vec<u8>> {
    let tokens = response
        .get("choices")
        .and_then(|choices| choices.get(choice)?.get("logprobs")?.get("content")?.as_array());
    let bytes = |token: &Value| {
        let bytes = token.get("bytes")?.as_array()?;
        bytes.iter().map(|byte| byte.as_u64()?.try_into().ok()).collect::<Option<Vec<u8>>>()
    };
    tokens.into_iter().flatten().map(|token| bytes(token).unwrap_or_default()).collect()
}

fn restored(answer: &StoredAnswer, bytes: &[Vec<u8>]) -> Answer {
    let token = |(position, id): (usize, &u32)| Token {
        id: *id,
        logprob: answer.logprobs.get(position).copied().unwrap_or(f32::NAN),
        bytes: bytes.get(position).cloned().unwrap_or_default(),
        top: Vec::new(),
    };
    let finish = if answer.finish == "length" { FinishReason::Length } else { FinishReason::Stop };
    Answer {
        content: answer.content.clone(),
        tool_calls: serde_json::from_str(&answer.tool_calls).unwrap_or_default(),
        malformed_call: answer.malformed_call.clone(),
        finish,
        stop_text: answer.stop_text.clone(),
        prompt_ids: answer.prompt_ids.clone(),
        tokens: answer.response_ids.iter().enumerate().map(token).collect(),
        cached_tokens: usize::try_from(answer.cached_tokens).unwrap_or(usize::MAX),
        policy_version: answer.policy_version,
        constrained: answer.constrained,
    }
}

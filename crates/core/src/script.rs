//! A scripted model.
//!
//! An agent that runs against it follows a fixed path. Used to generate demonstrations, whose
//! prompts are then exactly the agent's own, and to test agents.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;

use crate::chat::{ChatModel, ChatReply, ChatRequest, FinishReason, Message, ModelError};

/// Returns its replies in order and records the requests.
#[derive(Debug, Default)]
pub struct Script {
    replies: Mutex<VecDeque<ChatReply>>,
    requests: Mutex<Vec<ChatRequest>>,
}

impl Script {
    pub fn new(replies: impl IntoIterator<Item = ChatReply>) -> Self {
        Self { replies: Mutex::new(replies.into_iter().collect()), requests: Mutex::default() }
    }

    /// A script of well-formed messages that finish with [`FinishReason::Stop`].
    pub fn of_messages(messages: impl IntoIterator<Item = Message>) -> Self {
        let reply = |message| ChatReply::of(message, FinishReason::Stop);
        Self::new(messages.into_iter().map(reply))
    }

    /// The recorded requests, in order.
    pub fn into_requests(self) -> Vec<ChatRequest> {
        self.requests.into_inner().unwrap_or_else(|e| e.into_inner())
    }
}

#[async_trait]
impl ChatModel for Script {
    /// # Errors
    /// Once the script is exhausted.
    async fn chat(&self, request: ChatRequest) -> Result<ChatReply, ModelError> {
        self.requests.lock().unwrap_or_else(|e| e.into_inner()).push(request);
        let next = self.replies.lock().unwrap_or_else(|e| e.into_inner()).pop_front();
        next.ok_or_else(|| ModelError::Unavailable("the script is over".to_owned()))
    }
}

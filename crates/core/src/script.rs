//! A model that follows a script.
//!
//! An agent that runs against it goes a known way: so demonstrations are made, whose prompts
//! are the agent's own word for word, and so agents are tested.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;

use crate::chat::{ChatModel, ChatReply, ChatRequest, FinishReason, Message, ModelError};

/// Gives its replies in order and keeps what it was asked.
#[derive(Debug, Default)]
pub struct Script {
    replies: Mutex<VecDeque<ChatReply>>,
    asked: Mutex<Vec<ChatRequest>>,
}

impl Script {
    pub fn new(replies: impl IntoIterator<Item = ChatReply>) -> Self {
        Self { replies: Mutex::new(replies.into_iter().collect()), asked: Mutex::default() }
    }

    /// A script of messages that are well formed and ended by themselves.
    pub fn of_messages(messages: impl IntoIterator<Item = Message>) -> Self {
        let reply = |message| ChatReply::of(message, FinishReason::Stop);
        Self::new(messages.into_iter().map(reply))
    }

    /// What it was asked, in order.
    pub fn into_asked(self) -> Vec<ChatRequest> {
        self.asked.into_inner().unwrap_or_else(|e| e.into_inner())
    }
}

#[async_trait]
impl ChatModel for Script {
    /// # Errors
    /// Once the script is over.
    async fn chat(&self, request: ChatRequest) -> Result<ChatReply, ModelError> {
        self.asked.lock().unwrap_or_else(|e| e.into_inner()).push(request);
        let next = self.replies.lock().unwrap_or_else(|e| e.into_inner()).pop_front();
        next.ok_or_else(|| ModelError::Unavailable("the script is over".to_owned()))
    }
}

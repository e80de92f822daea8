//! Demonstrations as tokens, for a supervised warm start.
//!
//! Built turn by turn with the same prompts as at run time, with the demonstrated text in place of
//! the sampled one, so training data matches exactly what the model will see.

use leyden_core::{ChatRequest, Message, Speaker, ToolSpec};

use crate::{ChatFormat, Growth, History, TextError};

/// One demonstrated conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Demonstration {
    pub ids: Vec<u32>,
    /// For each id, whether the assistant writes it, including the end of its turns; as long as
    /// `ids`.
    pub mask: Vec<bool>,
}

impl ChatFormat {
    /// The ids of a conversation up to the assistant's last message, and a mask of those the
    /// assistant writes.
    ///
    /// Tool calls may be in a message's text, as sampled, or only in its `tool_calls`; the latter
    /// are written in the model's format.
    ///
    /// # Errors
    /// No assistant message; a template that rewrites history, under which the conversation is not
    /// one sequence; errors of the template and the tokenizer.
    pub fn encode_demonstration(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
    ) -> Result<Demonstration, TextError> {
        let messages: Vec<Message> = messages
            .iter()
            .map(|message| match message.role {
                Speaker::Assistant => {
                    Message { content: self.assistant_text(message), ..message.clone() }
                }
                _ => message.clone(),
            })
            .collect();
        let mut history = History::new();
        let mut demonstration = Demonstration { ids: Vec::new(), mask: Vec::new() };
        for (turn, message) in messages.iter().enumerate() {
            if message.role != Speaker::Assistant {
                continue;
            }
            let request = ChatRequest {
                messages: messages[..turn].to_vec(),
                tools: tools.to_vec(),
                ..ChatRequest::default()
            };
            let prompt = self.prompt(&history, &request)?;
            let grown = matches!(prompt.growth, Growth::Extended { reused }
                if reused == demonstration.ids.len());
            if !history.is_empty() && !grown {
                return Err(TextError::RewrittenHistory { message: turn });
            }
            let mut response = self.reply_ids(&message.content)?;
            response.extend(self.end_of_turn());
            demonstration.ids.clone_from(&prompt.ids);
            demonstration.mask.resize(prompt.ids.len(), false);
            demonstration.ids.extend_from_slice(&response);
            demonstration.mask.resize(demonstration.ids.len(), true);
            history.push(prompt, response, message.clone());
        }
        if history.is_empty() {
            return Err(TextError::NoAssistantMessage { messages: messages.len() });
        }
        Ok(demonstration)
    }
}

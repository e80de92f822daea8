//! Demonstrations as tokens, for a supervised warm start.
//!
//! Built turn by turn through the same prompts as at run time, the demonstrated text taking
//! the place of the sampled one: what is trained on is exactly what the model will see.

use leyden_core::{ChatRequest, Message, Speaker, ToolSpec};

use crate::{ChatFormat, Growth, History, TextError};

/// One conversation to learn from.
#[derive(Debug, Clone, PartialEq)]
pub struct Demonstration {
    pub ids: Vec<u32>,
    /// For each id whether the assistant has to write it, the end of its turns included;
    /// as long as `ids`.
    pub mask: Vec<bool>,
}

impl ChatFormat {
    /// The ids of a conversation up to the last message of the assistant, and which of them
    /// the assistant writes.
    ///
    /// Tool calls may stand in a message's text, as sampled, or in its `tool_calls` alone;
    /// then they are written as the model's format has them.
    ///
    /// # Errors
    /// No message of the assistant; a template that rewrites history, under which the
    /// conversation is not one sequence; the template's and the tokenizer's own.
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
            return Err(TextError::NothingToLearn { messages: messages.len() });
        }
        Ok(demonstration)
    }
}

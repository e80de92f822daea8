//! A model's chat format: tokenizer, template, tool calls and end of turn together.
//!
//! All conversion between an agent's messages and a model's tokens goes through here, at run time
//! and when demonstrations are prepared, so that both produce the same tokens. Immutable; share it
//! behind an `Arc`. Growth of prompts over a rollout is in [`prompt`](crate::Prompt).

use std::collections::BTreeSet;

use leyden_core::{ChatReply, ChatRequest, FinishReason, Message, Speaker, ToolCall, ToolSpec};
use serde_json::{Map, Value, json};

use crate::control::{ControlTokens, Names, Rendering};
use crate::grammar::Vocabulary;
use crate::memo::Memo;
use crate::reply_stream::earlier_calls;
use crate::stop::CutText;
use crate::tool_format::PYTHON_TAG;
use crate::{ChatTemplate, GgufTokenizer, NaiveDate, TextError, Tokenizer, ToolFormat};

/// The chat format of one model.
#[derive(Debug)]
pub struct ChatFormat {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    tool_format: ToolFormat,
    stop_ids: BTreeSet<u32>,
    end_of_turn: Option<u32>,
    variables: Map<String, Value>,
    memo: Memo,
    control_tokens: ControlTokens,
    /// Control tokens that messages may spell out; in an assistant's text, but for those that its
    /// tool calls are written with.
    names: [Names; 2],
    pub(crate) vocabulary: Vocabulary,
}

/// Placeholder for an assistant's text, to find its position in the template's output: private-use
/// characters that no template transforms.
pub(crate) const PLACE: &str = "\u{E0F1}\u{E0F2}assistant\u{E0F2}\u{E0F1}";

impl ChatFormat {
    /// Joins a tokenizer and a template. The tool format is detected from the template;
    /// generation stops at the tokenizer's end of sequence and at the control token that the
    /// template writes after an assistant's text.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate) -> Self {
        let tool_format = ToolFormat::detect(template.source());
        let stop_ids = tokenizer.eos.into_iter().collect();
        let names = [Names::of(&tokenizer, &[]), Names::of(&tokenizer, &[PYTHON_TAG])];
        let mut format = Self {
            tokenizer,
            template,
            tool_format,
            stop_ids,
            end_of_turn: None,
            variables: Map::new(),
            memo: Memo::default(),
            control_tokens: ControlTokens::default(),
            names,
            vocabulary: Vocabulary::default(),
        };
        format.end_of_turn = format.find_end_of_turn().or(format.tokenizer.eos);
        format.stop_ids.extend(format.end_of_turn);
        format
    }

    /// The chat format of a GGUF file.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`]; a file without template; a template that does not compile.
    pub fn from_gguf(meta: &GgufTokenizer, file: &str) -> Result<Self, TextError> {
        let tokenizer = Tokenizer::from_gguf(meta)?;
        let source = meta
            .chat_template
            .as_deref()
            .ok_or_else(|| TextError::NoTemplate { file: file.to_owned() })?;
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
        let (bos, eos) = (text(tokenizer.bos), text(tokenizer.eos));
        let template = ChatTemplate::new(source, bos.as_deref(), eos.as_deref())?;
        Ok(Self::new(tokenizer, template))
    }

    /// Adds tokens at which generation stops.
    #[must_use]
    pub fn with_stop_ids(mut self, ids: impl IntoIterator<Item = u32>) -> Self {
        self.stop_ids.extend(ids);
        self
    }

    /// Adds variables for the template, such as `enable_thinking`.
    #[must_use]
    pub fn with_variables(mut self, variables: Map<String, Value>) -> Self {
        self.variables = variables;
        self
    }

    /// How the names of control tokens in messages are encoded.
    pub fn set_control_tokens(&mut self, control_tokens: ControlTokens) {
        self.control_tokens = control_tokens;
    }

    /// Sets the date that templates write, if any.
    ///
    /// # Errors
    /// None beyond those of the template's first compilation.
    pub fn with_date(mut self, date: NaiveDate) -> Result<Self, TextError> {
        self.template = self.template.with_date(date)?;
        Ok(self)
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    pub fn tool_format(&self) -> ToolFormat {
        self.tool_format
    }

    /// Tokens at which generation stops.
    pub fn stop_ids(&self) -> &BTreeSet<u32> {
        &self.stop_ids
    }

    /// The token that ends an assistant's turn in the template.
    pub fn end_of_turn(&self) -> Option<u32> {
        self.end_of_turn
    }

    /// The ids of a text, memoised.
    pub(crate) fn ids(&self, text: &str) -> Result<Vec<u32>, TextError> {
        self.memo.ids(text, |text| self.tokenizer.encode(text))
    }

    /// The ids of what a template wrote.
    pub(crate) fn rendering_ids(&self, rendering: &Rendering) -> Result<Vec<u32>, TextError> {
        if rendering.spelled.is_empty() {
            return self.ids(&rendering.text);
        }
        let mut ids = Vec::new();
        for (part, spelled) in rendering.parts() {
            ids.extend(if spelled {
                self.tokenizer.encode_literal(part)?
            } else {
                self.ids(part)?
            });
        }
        Ok(ids)
    }

    /// The ids of a text of the assistant, as a model would have to sample them.
    pub(crate) fn reply_ids(&self, text: &str) -> Result<Vec<u32>, TextError> {
        match self.control_tokens {
            ControlTokens::Template => self.ids(text),
            ControlTokens::Text => {
                let marked = self.names[1].mark(text).into_owned();
                self.rendering_ids(&Rendering::of(marked))
            }
        }
    }

    /// The message with marks around the control tokens that it spells out.
    fn marked(&self, message: &Message) -> Message {
        let names = &self.names[usize::from(message.role == Speaker::Assistant)];
        let mut message = message.clone();
        message.content = names.mark(&message.content).into_owned();
        for call in &mut message.tool_calls {
            call.arguments = names.mark_json(&call.arguments);
        }
        message.name = message.name.map(|name| names.mark(&name).into_owned());
        message
    }

    fn find_end_of_turn(&self) -> Option<u32> {
        let turn = [Message::user("?"), Message::assistant(PLACE)];
        let text = self.render(&turn, &[], false).ok()?;
        let (_, after) = text.split_once(PLACE)?;
        let first = *self.tokenizer.encode(after).ok()?.first()?;
        self.tokenizer.is_special(first).then_some(first)
    }

    /// Renders the conversation with the template.
    ///
    /// A generated message is passed to the template as the text that the model wrote, without
    /// structured tool calls, for every family: Hermes templates would write the calls twice, and
    /// Llama 3's, given the text alone, writes it verbatim (except for surrounding white space) and
    /// accepts any number of calls. Structured calls are passed on only for messages whose text
    /// does not contain them.
    ///
    /// # Errors
    /// Errors of the template.
    pub fn render(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        Ok(self.rendering(messages, tools, add_generation_prompt)?.text)
    }

    /// [`ChatFormat::render`], with the places where messages spell out control tokens.
    pub(crate) fn rendering(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        add_generation_prompt: bool,
    ) -> Result<Rendering, TextError> {
        let marked: Vec<Message>;
        let messages = match self.control_tokens {
            ControlTokens::Template => messages,
            ControlTokens::Text => {
                marked = messages.iter().map(|message| self.marked(message)).collect();
                &marked
            }
        };
        let (messages, tools) = if self.tool_format == ToolFormat::HermesInSystem {
            (self.without_tool_roles(messages, tools), Vec::new())
        } else {
            let tools = tools.iter().map(tool_json).collect();
            (messages.iter().map(|message| self.message_json(message)).collect(), tools)
        };
        let tools = (!tools.is_empty()).then_some(tools.as_slice());
        let text =
            self.template.render(&messages, tools, add_generation_prompt, &self.variables)?;
        Ok(Rendering::of(text))
    }

    fn message_json(&self, message: &Message) -> Value {
        let mut json = json!({"role": message.role, "content": message.content});
        if self.has_structured_calls(message) {
            json["tool_calls"] = message.tool_calls.iter().map(call_json).collect();
        }
        if let Some(id) = &message.tool_call_id {
            json["tool_call_id"] = json!(id);
        }
        if let Some(name) = &message.name {
            json["name"] = json!(name);
        }
        json
    }

    fn has_structured_calls(&self, message: &Message) -> bool {
        !message.tool_calls.is_empty()
            && self.tool_format.parse(&message.content, 0).calls.is_empty()
    }

    /// The conversation for a template that supports only system, user and assistant roles.
    fn without_tool_roles(&self, messages: &[Message], tools: &[ToolSpec]) -> Vec<Value> {
        let mut plain: Vec<Message> = Vec::with_capacity(messages.len() + 1);
        let mut after_tool = false;
        for message in messages {
            let is_tool = message.role == Speaker::Tool;
            match plain.last_mut() {
                _ if !is_tool => {
                    plain.push(Message { content: self.assistant_text(message), ..message.clone() })
                }
                Some(last) if after_tool => {
                    last.content.push('\n');
                    last.content.push_str(&tool_response(&message.content));
                }
                _ => plain.push(Message::user(tool_response(&message.content))),
            }
            after_tool = is_tool;
        }
        if !tools.is_empty() {
            let description = ToolFormat::describe(tools);
            match plain.first_mut() {
                Some(first) if first.role == Speaker::System => {
                    first.content = format!("{}\n\n{description}", first.content);
                }
                _ => plain.insert(0, Message::system(description)),
            }
        }
        plain.iter().map(|m| json!({"role": m.role, "content": m.content})).collect()
    }

    /// The text of this message as the model writes it, including its tool calls.
    pub(crate) fn assistant_text(&self, message: &Message) -> String {
        if self.has_structured_calls(message) {
            self.tool_format.write(&message.content, &message.tool_calls)
        } else {
            message.content.clone()
        }
    }

    /// The reply to `request` in `response_ids`: the text as sampled, up to the first stop text and
    /// without a trailing stop token, and the tool calls in it. If no tools are offered, the text
    /// is not searched for calls.
    ///
    /// Calls are numbered over the conversation; [`ReplyStream`](crate::ReplyStream) yields the
    /// same incrementally and supports other call ids.
    pub fn reply(
        &self,
        request: &ChatRequest,
        response_ids: &[u32],
        finish: FinishReason,
    ) -> ChatReply {
        let mut cut = CutText::new(&request.stop);
        for &id in response_ids {
            cut.push(self, id);
        }
        cut.finish();
        let text = cut.text();
        let (mut calls, mut malformed_call) = (Vec::new(), None);
        if !request.offered_tools().is_empty() {
            let parsed = self.tool_format.parse(text, earlier_calls(request));
            (calls, malformed_call) = (parsed.calls, parsed.malformed);
        }
        let message = Message { tool_calls: calls, ..Message::assistant(text) };
        ChatReply { malformed_call, ..ChatReply::of(message, finish) }
    }
}

fn tool_response(content: &str) -> String {
    format!("<tool_response>\n{content}\n</tool_response>")
}

fn tool_json(tool: &ToolSpec) -> Value {
    json!({"type": "function", "function": {
        "name": tool.name, "description": tool.description, "parameters": tool.parameters,
    }})
}

fn call_json(call: &ToolCall) -> Value {
    json!({"id": call.id, "type": "function", "function": {
        "name": call.name, "arguments": call.arguments,
    }})
}

//! Text to tokens and back.
//!
//! A model sees token ids, an agent sees messages. Between them lie a [`Tokenizer`], a
//! [`ChatTemplate`] (the model's own Jinja template), a [`ToolFormat`] (how its family writes
//! tool calls) and the rule by which a conversation grows; a [`ChatFormat`] is the four
//! together. The rule: what the model wrote enters the next prompt as the ids that it
//! sampled, never as text that is tokenised again, because two token sequences of equal text
//! have different probabilities and a trainer that confuses them trains on actions that
//! nobody took.
//!
//! The other direction is a [`ReplyStream`]: tokens become text and tool calls as they are sampled,
//! and the text ends before a stop text ([`StopTexts`]). A [`Grammar`] restricts what is
//! sampled to JSON under a schema, or to a tool call.

mod chat_format;
mod control;
mod demonstration;
mod error;
mod folder;
mod gguf;
mod golden;
mod grammar;
mod jinja;
mod markup;
mod memo;
mod prompt;
mod reply_stream;
mod stop;
mod stream;
mod template;
mod tokenizer;
mod tool_format;
mod train;

pub use chat_format::ChatFormat;
pub use chrono::NaiveDate;
pub use control::ControlTokens;
pub use demonstration::Demonstration;
pub use error::TextError;
pub use gguf::GgufTokenizer;
pub use golden::check_renderings;
pub use grammar::Grammar;
pub use prompt::{Growth, History, Prompt};
pub use reply_stream::{ReplyDelta, ReplyEnd, ReplyStream};
pub use stop::StopTexts;
pub use stream::TextStream;
pub use template::{ChatTemplate, default_date};
pub use tokenizer::Tokenizer;
pub use tool_format::{Parsed, ToolFormat};
pub use train::{BpeTraining, train_bpe};

/// A ChatML template of our own with Hermes tool calls; tools are described by name and
/// argument names alone, so that a model with a short context can afford them.
pub const CHATML_TEMPLATE: &str = include_str!("chatml.jinja");

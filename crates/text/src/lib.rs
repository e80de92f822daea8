//! Conversion between text and tokens.
//!
//! A model processes token ids, an agent exchanges messages. A [`ChatFormat`] converts between
//! them; it combines a [`Tokenizer`], a [`ChatTemplate`] (the model's own Jinja template), a
//! [`ToolFormat`] (its family's syntax for tool calls) and the rule by which a conversation grows:
//! the model's output enters the next prompt as the sampled ids, never as re-tokenised text,
//! because two token sequences of equal text have different probabilities, and training on the
//! wrong one means training on actions that were never taken.
//!
//! In the other direction, a [`ReplyStream`] turns tokens into text and tool calls as they are
//! sampled, and ends the text before a stop text ([`StopTexts`]). A [`Grammar`] restricts sampling
//! to JSON under a schema, or to a tool call.

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
mod methods;
mod prompt;
mod reply_stream;
mod stop;
mod stream;
mod template;
mod tokenizer;
mod tokenizer_json;
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

/// Leyden's own ChatML template with Hermes tool calls; tools are described only by name and
/// argument names, to fit models with a short context.
pub const CHATML_TEMPLATE: &str = include_str!("chatml.jinja");

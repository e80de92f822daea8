//! Errors of the conversion between text and tokens.

use std::path::{Path, PathBuf};

use leyden_core::ModelError;

/// Errors of tokenisation, templates and grammars.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be written: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{file} is malformed: {what}")]
    Malformed { file: String, what: String },
    #[error(
        "{file} has no chat_template and no chat_template.jinja next to it; add either, or \
         use the instruction-tuned model"
    )]
    NoTemplate { file: String },
    /// The template cannot be compiled or fails on this conversation.
    #[error("the chat template fails: {0}")]
    Template(String),
    /// The template called `raise_exception`: the conversation is not one that it supports.
    #[error("the chat template refuses the conversation: {0}")]
    Refused(String),
    #[error("the tokenizer cannot be used: {0}")]
    Tokenizer(String),
    #[error("the tokenizer has no token {0}; the model and the tokenizer do not match")]
    UnknownToken(String),
    #[error(
        "the template rewrites the conversation before message {message} (counted from 0), so \
         the demonstration is not one sequence; split it there"
    )]
    RewrittenHistory { message: usize },
    #[error("a demonstration needs an assistant message; this one has {messages} others")]
    NoAssistantMessage { messages: usize },
    /// A part of a request that cannot be compiled to a grammar. `what` names its location.
    #[error("{field} cannot be enforced: {what}")]
    Constraint { field: String, what: String },
    /// A grammar failed while it was applied.
    #[error("the grammar of the response cannot be enforced: {0}")]
    Grammar(String),
}

impl TextError {
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }

    pub(crate) fn malformed(file: impl ToString, what: impl ToString) -> Self {
        Self::Malformed { file: file.to_string(), what: what.to_string() }
    }
}

impl From<TextError> for ModelError {
    fn from(error: TextError) -> Self {
        Self::Template(error.to_string())
    }
}

//! Errors of language models; each message is one sentence.

use std::path::PathBuf;

/// Errors of this crate. Each names the file, key or value and, if helpful, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LmError {
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error("{}: key `{key}` {what}", path.display())]
    Key { path: PathBuf, key: String, what: String },
    #[error("tensor `{name}`: {what}")]
    Tensor { name: String, what: String },
    #[error("unknown device `{0}`: use cpu, cuda or cuda:N")]
    UnknownDevice(String),
    #[error("device {device} is not available: {why}")]
    NoDevice { device: String, why: String },
    #[error("unknown dtype `{0}`: use f32, bf16 or f16")]
    UnknownKind(String),
    #[error("the prompt has {tokens} tokens, more than the context of {limit}")]
    PromptTooLong { tokens: usize, limit: usize },
    #[error("token id {id} is outside the vocabulary of {vocabulary}")]
    TokenOutside { id: u32, vocabulary: usize },
    #[error("the model's logits are not finite: its weights have diverged or are broken")]
    NotFinite,
    #[error("the engine failed while the request was computed: {0}")]
    Failed(String),
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Text(#[from] leyden_text::TextError),
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    #[error(transparent)]
    Graph(#[from] leyden_autograd::Error),
}

impl LmError {
    /// An error about a file.
    pub fn file(path: impl Into<PathBuf>, what: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), what: what.to_string() }
    }
}

/// libtorch's message without the C++ stack trace.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::LmError;

    #[test]
    fn libtorch_errors_are_one_line() {
        let wrong = tch::Tensor::from(1f32).f_view([2, 3]).unwrap_err();
        let message = LmError::from(wrong).to_string();
        assert!(message.starts_with("libtorch: ") && message.contains("[2, 3]"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }
}

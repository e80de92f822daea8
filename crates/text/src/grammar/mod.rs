//! Grammars that a response must follow.
//!
//! A request may require JSON, JSON under a schema, or a tool call. The text the model would write
//! in that case, including its own tool-call markup, becomes a grammar, and the sampler draws only
//! tokens that the grammar allows. It is implemented with the crate llguidance, which runs an
//! Earley parser along the trie of all tokens' bytes, so tokens may span several parts of a
//! grammar.

mod request;
mod schema;
mod vocabulary;

use std::fmt::Display;

use llguidance::{Matcher, TokenParser};

pub(crate) use vocabulary::Vocabulary;

use crate::TextError;

const NOTHING: &str = "it is unsatisfiable, or no token sequence spells a match";

/// The constraint on a response, applied token by token.
pub struct Grammar {
    matcher: Matcher,
    mask: Vec<u32>,
    /// Whether `mask` is the next token's.
    current: bool,
    end: u32,
    ended: bool,
}

impl Grammar {
    /// `end` is the only token allowed after a complete response; `vocab` the number of tokens.
    ///
    /// # Errors
    /// An unsatisfiable grammar.
    fn new(parser: TokenParser, end: u32, vocab: usize) -> Result<Self, TextError> {
        let mask = vec![0; vocab.div_ceil(32)];
        let matcher = Matcher::new(Ok(parser));
        let mut grammar = Self { matcher, mask, current: false, end, ended: false };
        grammar.allowed()?;
        Ok(grammar)
    }

    /// The tokens that may come next, as a bit mask: token `id` is bit `id % 32` of word `id / 32`.
    /// It has ⌈v / 32⌉ words, where v is the tokenizer's
    /// [`vocab_size`](crate::Tokenizer::vocab_size); a model's vocabulary may be padded beyond it,
    /// and tokens beyond the mask are not allowed. At least one bit is set. Once the response is
    /// complete, only the end-of-turn token is allowed.
    ///
    /// # Errors
    /// A grammar that has become too complex, or that no token matches.
    pub fn allowed(&mut self) -> Result<&[u32], TextError> {
        if self.current {
            return Ok(&self.mask);
        }
        self.mask.fill(0);
        if self.ended {
            if let Some(word) = self.mask.get_mut(self.end as usize / 32) {
                *word = 1 << (self.end % 32);
            }
        } else {
            let allowed = self.matcher.compute_mask_or_eos().map_err(failed)?;
            for (word, &bits) in self.mask.iter_mut().zip(allowed.as_slice()) {
                *word = bits;
            }
        }
        if self.mask.iter().all(|&word| word == 0) {
            return Err(failed(NOTHING));
        }
        self.current = true;
        Ok(&self.mask)
    }

    /// Advances the grammar by the sampled token.
    ///
    /// # Errors
    /// A token that is not allowed; a grammar that has become too complex.
    pub fn accept(&mut self, id: u32) -> Result<(), TextError> {
        if self.ended {
            return Err(failed(format!("token {id} comes after the end of the response")));
        }
        self.current = false;
        let whole = self.matcher.is_stopped() && !self.matcher.is_error();
        if !(whole && id == self.end) {
            let fits = self.matcher.try_consume_tokens(&[id]).map_err(failed)?;
            if fits == 0 {
                return Err(failed(format!("token {id} is not allowed here")));
            }
        }
        self.ended = id == self.end;
        Ok(())
    }

    /// Whether the end-of-turn token was accepted.
    pub fn ended(&self) -> bool {
        self.ended
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// The error for a grammar that cannot be advanced.
fn failed(error: impl Display) -> TextError {
    let what = sentence(error);
    // The name of the parser's state in which no continuation exists.
    let stuck = what.starts_with("NoExtension");
    TextError::Grammar(if stuck { NOTHING.to_owned() } else { what })
}

/// The first sentence of an error. Its further lines show the surrounding text or parser internals.
fn sentence(error: impl Display) -> String {
    let error = error.to_string();
    let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    // Errors of regular expressions: a heading, the marked expression, then the message.
    match lines.find_map(|line| line.strip_prefix("error: ")) {
        Some(what) if first.ends_with(':') => format!("{first} {what}"),
        _ => first.chars().take(300).collect(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn grammars_are_send() {
        fn is_send<T: Send>() {}
        is_send::<super::Grammar>();
    }

    #[test]
    fn errors_are_one_sentence() {
        assert_eq!(super::sentence("a\n<state>\nb"), "a");
        assert_eq!(super::sentence("regex:\n  (x\n  ^\nerror: unclosed"), "regex: unclosed");
    }
}

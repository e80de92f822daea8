//! Grammars that a response must follow.
//!
//! A request may ask for JSON, for JSON under a schema, or for a tool call. What the model
//! would write in that case, its own tool-call markup included, becomes a grammar, and the
//! sampler draws only tokens that the grammar allows. The crate llguidance does the work: it
//! runs an Earley parser along the tree of all tokens' bytes, so that a token may reach across
//! the parts of a grammar in any way.

mod request;
mod schema;
mod vocabulary;

use std::fmt::Display;

use llguidance::{Matcher, TokenParser};

pub(crate) use vocabulary::Vocabulary;

use crate::TextError;

/// What a response must be, followed token by token.
pub struct Grammar {
    matcher: Matcher,
    mask: Vec<u32>,
    end: u32,
    ended: bool,
}

impl Grammar {
    /// `end` is the only token after the response is whole; `vocab` the number of tokens.
    fn new(parser: TokenParser, end: u32, vocab: usize) -> Self {
        let mask = vec![0; vocab.div_ceil(32)];
        Self { matcher: Matcher::new(Ok(parser)), mask, end, ended: false }
    }

    /// The tokens that may come next, as a bit mask: token `id` is bit `id % 32` of word
    /// `id / 32`. It has ⌈v / 32⌉ words, where v is the
    /// [`vocab_size`](crate::Tokenizer::vocab_size) of the tokenizer; a model's vocabulary may
    /// be padded beyond it, and no token beyond the mask is allowed. At least one bit is set.
    /// Once the response is whole, only the end-of-turn token is allowed.
    ///
    /// # Errors
    /// A grammar that has become too complex to follow, or that no token fits.
    pub fn allowed(&mut self) -> Result<&[u32], TextError> {
        self.mask.fill(0);
        if self.ended {
            if let Some(word) = self.mask.get_mut(self.end as usize / 32) {
                *word = 1 << (self.end % 32);
            }
            return Ok(&self.mask);
        }
        let allowed = self.matcher.compute_mask_or_eos().map_err(failed)?;
        for (word, &bits) in self.mask.iter_mut().zip(allowed.as_slice()) {
            *word = bits;
        }
        if self.mask.iter().all(|&word| word == 0) {
            return Err(failed("no token of the vocabulary fits"));
        }
        Ok(&self.mask)
    }

    /// Takes the token that was drawn.
    ///
    /// # Errors
    /// A token that is not allowed; a grammar that has become too complex.
    pub fn accept(&mut self, id: u32) -> Result<(), TextError> {
        if self.ended {
            return Err(failed(format!("token {id} comes after the end of the response")));
        }
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

fn failed(error: impl Display) -> TextError {
    TextError::Grammar(first_line(error))
}

/// An error's sentence; the parser's inside follows it on further lines.
fn first_line(error: impl Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

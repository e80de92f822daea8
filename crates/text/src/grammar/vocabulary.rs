//! A tokenizer's vocabulary as a tree of bytes, which grammars are followed along.

use std::sync::{Arc, OnceLock};

use llguidance::ParserFactory;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::{Grammar, first_line};
use crate::{ChatFormat, TextError, Tokenizer};

/// The tree, made when the first grammar needs it: most runs have none.
#[derive(Default)]
pub(crate) struct Vocabulary(OnceLock<Result<Arc<ParserFactory>, String>>);

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary").field("made", &self.0.get().is_some()).finish()
    }
}

impl ChatFormat {
    /// The token that ends a response that follows a grammar: the template's end of turn, or
    /// where there is none, a token at which generation stops.
    fn end_token(&self) -> Result<u32, TextError> {
        self.end_of_turn().or_else(|| self.stop_ids().first().copied()).ok_or_else(|| {
            let what = "the model has no end-of-turn token, so no response could end";
            TextError::Grammar(what.to_owned())
        })
    }

    /// Begins to follow a grammar; the error is a sentence about the grammar.
    pub(super) fn follow(&self, grammar: TopLevelGrammar) -> Result<Grammar, TextError> {
        let end = self.end_token()?;
        let factory = self.vocabulary.0.get_or_init(|| factory(self.tokenizer(), end));
        let factory = factory.as_ref().map_err(|what| TextError::Grammar(what.clone()))?;
        let parser =
            factory.create_parser(grammar).map_err(|e| TextError::Grammar(first_line(e)))?;
        Ok(Grammar::new(parser, end, self.tokenizer().vocab_size()))
    }
}

fn factory(tokenizer: &Tokenizer, end: u32) -> Result<Arc<ParserFactory>, String> {
    let size = u32::try_from(tokenizer.vocab_size()).map_err(|e| e.to_string())?;
    let words: Vec<Vec<u8>> = (0..size).map(|id| word(tokenizer, id)).collect();
    let trie = TokTrie::from(&TokRxInfo::new(size, end), &words);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&env).map_err(first_line)?;
    factory.quiet();
    *factory.limits_mut() = ParserLimits { verbose_errors: false, ..ParserLimits::default() };
    Ok(Arc::new(factory))
}

/// A token as the tree holds it: control tokens are marked, so that no text matches them.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    if tokenizer.is_special(id) {
        [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat()
    } else {
        bytes.to_vec()
    }
}

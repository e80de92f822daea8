//! A tokenizer's vocabulary as a byte trie, along which grammars are matched.

use std::sync::{Arc, OnceLock};

use llguidance::ParserFactory;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::{Grammar, sentence};
use crate::{ChatFormat, TextError, Tokenizer};

/// Stack size of the compiler thread in bytes; pages are mapped on use.
const STACK: usize = 64 << 20;

/// The trie, built for the first grammar: most runs have none.
#[derive(Default)]
pub(crate) struct Vocabulary(OnceLock<Result<Arc<ParserFactory>, String>>);

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary").field("made", &self.0.get().is_some()).finish()
    }
}

impl ChatFormat {
    /// The token that ends a constrained response: the template's end of turn or, without one, a
    /// token at which generation stops.
    fn end_token(&self) -> Result<u32, TextError> {
        self.end_of_turn().or_else(|| self.stop_ids().first().copied()).ok_or_else(|| {
            let what = "the model has no end-of-turn token, so no response could end";
            TextError::Grammar(what.to_owned())
        })
    }

    /// Compiles a grammar; the error is a sentence about the grammar.
    pub(super) fn follow(&self, grammar: TopLevelGrammar) -> Result<Grammar, TextError> {
        let end = self.end_token()?;
        let factory = self.vocabulary.0.get_or_init(|| factory(self.tokenizer(), end));
        let factory = factory.as_ref().map_err(|what| TextError::Grammar(what.clone()))?;
        let parser = with_stack(|| factory.create_parser(grammar).map_err(sentence));
        let parser = parser.map_err(TextError::Grammar)?;
        Grammar::new(parser, end, self.tokenizer().vocab_size())
    }
}

/// Runs `compile` on a thread with a large stack: the compiler recurses through references, so a
/// chain of references makes it as deep as there are schemas.
fn with_stack<T: Send>(compile: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, compile).map_err(|e| e.to_string())?;
        thread.join().unwrap_or_else(|_| Err("panic: no message".to_owned()))
    })
}

fn factory(tokenizer: &Tokenizer, end: u32) -> Result<Arc<ParserFactory>, String> {
    let size = u32::try_from(tokenizer.vocab_size()).map_err(|e| e.to_string())?;
    let words: Vec<Vec<u8>> = (0..size).map(|id| word(tokenizer, id)).collect();
    let trie = TokTrie::from(&TokRxInfo::new(size, end), &words);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&env).map_err(sentence)?;
    factory.quiet();
    *factory.limits_mut() = limits();
    Ok(Arc::new(factory))
}

/// The compiler's own limits, with two exceptions. Memory: a lexer state takes 1 to 2 KB, so one
/// grammar takes at most about 100 MB. Items per parser row: an object with a thousand optional
/// properties needs about four for each.
fn limits() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 50_000,
        max_items_in_row: 10_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// A token's bytes in the trie: control tokens are marked, so that no text matches them.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    if tokenizer.is_special(id) {
        [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat()
    } else {
        bytes.to_vec()
    }
}

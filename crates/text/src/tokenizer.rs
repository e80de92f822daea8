//! The tokenizer: the `tokenizers` crate for encoding, a byte table for decoding.
//!
//! Decoding is the concatenation of each token's bytes. So decoding a sequence equals decoding its
//! parts, wherever it is split, and a character split over two tokens can be held back until it is
//! complete ([`TextStream`](crate::TextStream)). The crate's own decoder works on whole strings and
//! supports neither.

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::OnceLock;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::{PostProcessor, TruncationDirection};

use crate::{TextError, tokenizer_json};

/// A tokenizer with the ids of its special tokens. Share it behind an `Arc`.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same, by which control tokens are text; made when it is first needed, as it is large.
    literal: OnceLock<Box<tokenizers::Tokenizer>>,
    /// By id: the token's bytes; empty for ids that do not exist.
    bytes: Vec<Vec<u8>>,
    /// By id: whether it is a control token such as the end of a turn.
    special: Vec<bool>,
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file cannot be read or is not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self, TextError> {
        let bytes = std::fs::read(path).map_err(|e| TextError::read(path, e))?;
        Self::from_bytes(&bytes).map_err(|e| TextError::malformed(path.display(), e))
    }

    /// Reads the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// The bytes are not a tokenizer.
    pub fn from_bytes(json: &[u8]) -> Result<Self, TextError> {
        tokenizer_json::check(json)?;
        Self::from_inner(guarded(|| tokenizers::Tokenizer::from_bytes(json))?)
    }

    /// Takes over a tokenizer of the crate and builds the byte table.
    ///
    /// # Errors
    /// A token whose id is far beyond the number of tokens: the tables have a row per id.
    pub(crate) fn from_inner(mut inner: tokenizers::Tokenizer) -> Result<Self, TextError> {
        // A file may specify truncation or padding; here texts are encoded in full.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        let byte_level = inner.get_decoder().is_some_and(is_byte_level);
        let vocabulary = inner.get_vocab(true);
        let size = table_size(&vocabulary)?;
        let mut bytes = vec![Vec::new(); size];
        let of_char = char_to_byte();
        for (token, id) in vocabulary {
            bytes[id as usize] = if byte_level {
                byte_level_bytes(&token, &of_char)
            } else {
                sentencepiece_bytes(&token)
            };
        }
        let mut special = vec![false; size];
        for (id, token) in inner.get_added_tokens_decoder() {
            // An id without a row is one whose token another entry has overwritten.
            if let Some(row) = bytes.get_mut(id as usize) {
                *row = token.content.as_bytes().to_vec();
                special[id as usize] = token.special;
            }
        }
        let literal = OnceLock::new();
        Ok(Self { inner, literal, bytes, special, bos: None, eos: None, pad: None })
    }

    /// The ids of `text`. No token is added; special tokens spelled out in the text are recognised.
    ///
    /// # Errors
    /// Errors of the tokenizer, for instance a character outside a vocabulary without fallback.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding = guarded(|| self.inner.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of `text` as ordinary text, the names of control tokens in it included.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_literal(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let literal = self.literal.get_or_init(|| {
            let mut literal = Box::new(self.inner.clone());
            literal.set_encode_special_tokens(true);
            literal
        });
        let encoding = guarded(|| literal.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The names of all control tokens.
    pub(crate) fn special_names(&self) -> impl Iterator<Item = &str> {
        let ids = (0..self.special.len()).filter(|&id| self.special[id]);
        ids.filter_map(|id| std::str::from_utf8(&self.bytes[id]).ok())
    }

    /// The ids of `text` as one sequence for an encoder, with the special tokens that the
    /// tokenizer's own template adds around it (`[CLS] … [SEP]`). Long texts are truncated to at
    /// most `limit` tokens in total.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; a `limit` that the special tokens alone exceed.
    pub fn encode_sequence(&self, text: &str, limit: usize) -> Result<Vec<u32>, TextError> {
        let added = self.inner.get_post_processor().map_or(0, |p| p.added_tokens(false));
        let room = limit.checked_sub(added).ok_or_else(|| {
            let what = format!("it adds {added} tokens to a text of at most {limit}");
            TextError::Tokenizer(what)
        })?;
        let mut encoding = guarded(|| self.inner.encode_fast(text, false))?;
        encoding.truncate(room, 0, TruncationDirection::Right);
        let whole = guarded(|| self.inner.post_process(encoding, None, true))?;
        Ok(whole.get_ids().to_vec())
    }

    /// The text of `ids`; bytes that are not UTF-8 become U+FFFD, unknown ids nothing.
    pub fn decode(&self, ids: &[u32], keep_special: bool) -> String {
        let bytes: Vec<u8> = ids
            .iter()
            .filter(|&&id| keep_special || !self.is_special(id))
            .flat_map(|&id| self.token_bytes(id))
            .copied()
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes of `id`, not necessarily complete characters.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// The token's string in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token, given its string in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether `id` is a control token, which ordinary text never produces.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// One more than the largest id: the minimum number of rows of an embedding.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// The content of a `tokenizer.json`.
    ///
    /// # Errors
    /// The tokenizer cannot be serialised.
    pub fn to_json(&self) -> Result<String, TextError> {
        self.inner.to_string(true).map_err(|e| TextError::Tokenizer(e.to_string()))
    }

    /// Writes a `tokenizer.json`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TextError> {
        std::fs::write(path, self.to_json()?).map_err(|e| TextError::write(path, e))
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocab_size())
    }
}

/// Calls the `tokenizers` crate, which panics where a file leads it astray: for instance where the
/// search for a regular expression exceeds its limit.
fn guarded<T>(call: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, TextError> {
    let result = panic::catch_unwind(AssertUnwindSafe(call)).map_err(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("no reason");
        TextError::Tokenizer(format!("the tokenizers crate fails on its files: {text}"))
    })?;
    result.map_err(|e| TextError::Tokenizer(e.to_string()))
}

/// Unused ids that a vocabulary may have besides as many as it has tokens.
const UNUSED_IDS: usize = 1 << 16;

/// One more than the largest id.
fn table_size(vocabulary: &HashMap<String, u32>) -> Result<usize, TextError> {
    let Some((token, &id)) = vocabulary.iter().max_by_key(|(_, id)| **id) else { return Ok(0) };
    let size = id as usize + 1;
    let most = 2 * vocabulary.len() + UNUSED_IDS;
    if size > most {
        return Err(TextError::Tokenizer(format!(
            "the token `{token}` has id {id}, far beyond the number of tokens, {}; ids up to {} \
             are supported: renumber the vocabulary",
            vocabulary.len(),
            most - 1
        )));
    }
    Ok(size)
}

fn is_byte_level(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteLevel(_) => true,
        DecoderWrapper::Sequence(parts) => parts.get_decoders().iter().any(is_byte_level),
        _ => false,
    }
}

/// The inverse of GPT-2's `bytes_to_unicode`: printable Latin-1 bytes map to themselves, the other
/// 68 to U+0100 and onwards, in ascending order (Radford et al. 2019, encoder.py).
fn char_to_byte() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=255u8)
        .map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            (char::from_u32(code).unwrap_or_default(), byte)
        })
        .collect()
}

/// A token outside the byte alphabet (an unused vocabulary entry) maps to itself.
fn byte_level_bytes(token: &str, of_char: &HashMap<char, u8>) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(|c| of_char.get(&c).copied()).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// SentencePiece with byte fallback: `▁` is a space, `<0x41>` a byte.
fn sentencepiece_bytes(token: &str) -> Vec<u8> {
    let byte = token
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'))
        .filter(|hex| hex.len() == 2)
        .and_then(|hex| u8::from_str_radix(hex, 16).ok());
    match byte {
        Some(byte) => vec![byte],
        None => token.replace('\u{2581}', " ").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Tokenizer;

    fn with_id(id: u32) -> String {
        json!({"model": {"type": "WordLevel", "vocab": {"a": 0, "zebra": id}, "unk_token": "a"}})
            .to_string()
    }

    #[test]
    fn an_id_far_beyond_the_number_of_tokens_is_rejected() {
        for id in [65_540, 4_000_000_000, u32::MAX] {
            let error = Tokenizer::from_bytes(with_id(id).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(&format!("`zebra` has id {id}")), "{error}");
        }
        let tokenizer = Tokenizer::from_bytes(with_id(65_539).as_bytes()).unwrap();
        assert_eq!(tokenizer.vocab_size(), 65_540);
        assert_eq!(tokenizer.token_bytes(65_539), b"zebra");
    }
}

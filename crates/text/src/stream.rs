//! Incremental decoding of tokens to text.
//!
//! Byte-level BPE may split a character, so bytes are held back until the character is complete.

use crate::Tokenizer;

/// The text of a response while it is generated.
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    text: String,
    pending: Vec<u8>,
}

impl TextStream {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token and returns the characters that it completes. Bytes that can no longer
    /// become UTF-8 turn into U+FFFD.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> &str {
        let start = self.text.len();
        self.pending.extend_from_slice(tokenizer.token_bytes(id));
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(whole) => {
                    self.text.push_str(whole);
                    self.pending.clear();
                    break;
                }
                Err(error) => {
                    let (whole, rest) = self.pending.split_at(error.valid_up_to());
                    self.text.push_str(&String::from_utf8_lossy(whole));
                    let Some(bad) = error.error_len() else {
                        self.pending = rest.to_vec();
                        break;
                    };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    self.pending = rest[bad..].to_vec();
                }
            }
        }
        &self.text[start..]
    }

    /// All complete characters so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the tokens so far end within a character.
    pub fn is_within_character(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Emits an unfinished character as U+FFFD.
    pub fn flush(&mut self) -> &str {
        let start = self.text.len();
        self.text.push_str(&String::from_utf8_lossy(&self.pending));
        self.pending.clear();
        &self.text[start..]
    }

    /// The text including held-back bytes: equal to [`Tokenizer::decode`] of the tokens with
    /// special tokens kept.
    pub fn finish(mut self) -> String {
        self.flush();
        self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::TextStream;
    use crate::train::tests::tiny;

    #[test]
    fn a_split_character_is_held_back() {
        let tokenizer = tiny();
        let ids = tokenizer.encode("a\u{1F980}b").unwrap();
        assert!(ids.len() >= 6, "the crab is not one token here: {ids:?}");
        let mut stream = TextStream::new();
        let pieces: Vec<String> =
            ids.iter().map(|&id| stream.push(&tokenizer, id).to_owned()).collect();
        assert!(pieces.iter().all(|piece| !piece.contains(char::REPLACEMENT_CHARACTER)));
        assert_eq!(pieces.concat(), "a\u{1F980}b");
    }

    proptest! {
        #[test]
        fn streaming_equals_decoding(ids in prop::collection::vec(0u32..400, 0..60)) {
            let tokenizer = tiny();
            let mut stream = TextStream::new();
            for &id in &ids {
                stream.push(&tokenizer, id);
            }
            prop_assert_eq!(stream.finish(), tokenizer.decode(&ids, true));
        }
    }
}

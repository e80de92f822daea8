//! Training a small byte-level BPE.
//!
//! For the tiny model. Digits stay single, so that numbers of any length are copied digit by digit;
//! the fixed syntax of a tool call is one token per part (`protocol`), so that a tiny model spends
//! no capacity on spelling it; both are removed from the texts before pairs are counted, so that no
//! merges are spent on them.

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
};
use tokenizers::{AddedToken, Trainer};

use crate::gguf::single_digits;
use crate::{TextError, Tokenizer};

/// Options of tokenizer training.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BpeTraining {
    /// Total number of entries; at least 256 + special + protocol.
    pub vocab_size: usize,
    /// Control tokens; their ids are 0, 1, … in this order.
    pub special: Vec<String>,
    /// Texts that are one token wherever they occur, but are otherwise ordinary text.
    pub protocol: Vec<String>,
    /// A pair is merged only if it occurs this often.
    pub min_frequency: u64,
    /// A regular expression whose matches are separate words: no token crosses their boundaries.
    /// For invented words that must be split equally everywhere.
    pub isolated: Option<String>,
}

/// Trains on `texts`. The same texts in the same order give the same bytes of `tokenizer.json`.
///
/// # Errors
/// A vocabulary too small for the 256 bytes with the special and protocol tokens.
pub fn train_bpe(
    texts: impl IntoIterator<Item = impl AsRef<str>>,
    training: &BpeTraining,
) -> Result<Tokenizer, TextError> {
    let added = training.special.len() + training.protocol.len();
    if training.vocab_size < 256 + added {
        return Err(TextError::Tokenizer(format!(
            "a vocabulary of {} cannot hold 256 bytes and {added} added tokens",
            training.vocab_size
        )));
    }
    let token = |text: &String, special| AddedToken::from(text.clone(), special).normalized(false);
    let mut added: Vec<AddedToken> = training.special.iter().map(|t| token(t, true)).collect();
    added.extend(training.protocol.iter().map(|t| token(t, false)));

    let mut inner = tokenizers::Tokenizer::new(BPE::default());
    let pre_tokenizer = match &training.isolated {
        None => single_digits(),
        Some(pattern) => {
            let pattern = SplitPattern::Regex(pattern.clone());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                .map_err(|e| TextError::Tokenizer(e.to_string()))?;
            Sequence::new(vec![split.into(), single_digits()]).into()
        }
    };
    let markers: Vec<&str> = added.iter().map(|t| t.content.as_str()).collect();
    let pieces: Vec<String> =
        texts.into_iter().flat_map(|text| without(text.as_ref(), &markers)).collect();
    let mut trainer = BpeTrainer::builder()
        .vocab_size(training.vocab_size)
        .min_frequency(training.min_frequency)
        .special_tokens(added.clone())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build();
    let failed = |e: tokenizers::Error| TextError::Tokenizer(e.to_string());
    trainer
        .feed(pieces.iter(), |piece| {
            let mut words = PreTokenizedString::from(piece);
            pre_tokenizer.pre_tokenize(&mut words)?;
            let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
            Ok(splits.into_iter().map(|(word, _, _)| word.to_owned()).collect())
        })
        .map_err(failed)?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(failed)?;
    inner.with_model(model);
    inner.with_pre_tokenizer(Some(pre_tokenizer));
    inner.with_decoder(Some(ByteLevel::default()));
    inner.add_tokens(added).map_err(failed)?;
    Tokenizer::from_inner(inner)
}

/// The parts of `text` between the markers; if two begin at the same position, the longer wins.
fn without(text: &str, markers: &[&str]) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let next = markers
            .iter()
            .filter(|marker| !marker.is_empty())
            .filter_map(|marker| rest.find(marker).map(|at| (at, marker.len())))
            .min_by_key(|&(at, len)| (at, std::cmp::Reverse(len)));
        let Some((at, len)) = next else {
            parts.push(rest.to_owned());
            break;
        };
        parts.push(rest[..at].to_owned());
        rest = &rest[at + len..];
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{BpeTraining, train_bpe};
    use crate::Tokenizer;

    pub(crate) const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

    fn training() -> BpeTraining {
        BpeTraining {
            vocab_size: 400,
            special: SPECIAL.map(str::to_owned).to_vec(),
            protocol: vec!["<tool_call>\n{\"name\": \"".into(), "\n</tool_call>".into()],
            min_frequency: 2,
            isolated: None,
        }
    }

    const TEXTS: [&str; 4] = [
        "the jar holds 12 sparks and the wire holds 345 sparks",
        "<|im_start|>user\nhow many sparks does the jar hold<|im_end|>\n",
        "<tool_call>\n{\"name\": \"calculator\"}\n</tool_call>",
        "assistant system user the user asks the assistant",
    ];

    /// A tokenizer of 400 entries or fewer with the ChatML tokens.
    pub(crate) fn tiny() -> Tokenizer {
        let mut tokenizer = train_bpe(TEXTS, &training()).unwrap();
        (tokenizer.bos, tokenizer.eos, tokenizer.pad) = (Some(1), Some(2), Some(0));
        tokenizer
    }

    #[test]
    fn equal_texts_give_equal_bytes() {
        let json = tiny().to_json().unwrap();
        for _ in 0..5 {
            assert_eq!(tiny().to_json().unwrap(), json);
        }
        let again = Tokenizer::from_bytes(json.as_bytes()).unwrap();
        assert_eq!(again.to_json().unwrap(), json);
        for text in TEXTS {
            assert_eq!(again.encode(text).unwrap(), tiny().encode(text).unwrap());
        }
    }

    #[test]
    fn digits_are_single_and_protocol_texts_are_one_token() {
        let tokenizer = tiny();
        assert_eq!(tokenizer.encode("345").unwrap().len(), 3);
        assert_eq!(tokenizer.encode("<tool_call>\n{\"name\": \"").unwrap().len(), 1);
        assert_eq!(tokenizer.encode("<|im_start|><|im_end|>").unwrap(), [1, 2]);
        assert!(tokenizer.encode(" sparks").unwrap().len() == 1, "a frequent word is merged");
        for text in TEXTS {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap(), true), text);
        }
        assert_eq!(tokenizer.decode(&[1, 2], false), "");
        assert!(tokenizer.is_special(1) && !tokenizer.is_special(3));
    }

    #[test]
    fn isolated_words_are_split_equally_everywhere() {
        let texts = ["the kalo of nalo and the nabi", "always alone, all along", "'kabi' kalo"];
        let isolated = Some(" ?[kn]a(?=lo|bi)".to_owned());
        let tokenizer = train_bpe(texts, &BpeTraining { isolated, ..training() }).unwrap();
        let parts = |text: &str| -> Vec<String> {
            let ids = tokenizer.encode(text).unwrap();
            ids.iter().map(|&id| tokenizer.decode(&[id], false)).collect()
        };
        assert_eq!(parts(" kalo"), [" ka", "lo"]);
        assert_eq!(parts(" nabi"), [" na", "bi"]);
        assert_eq!(parts("'kabi'").concat(), "'kabi'");
        let again = Tokenizer::from_bytes(tokenizer.to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(again.encode("the nalo").unwrap(), tokenizer.encode("the nalo").unwrap());
    }

    #[test]
    fn a_vocabulary_that_is_too_small_is_rejected() {
        let small = BpeTraining { vocab_size: 260, ..training() };
        let error = train_bpe(TEXTS, &small).unwrap_err().to_string();
        assert!(error.contains("260"), "{error}");
    }
}

//! Byte-level BPE from GGUF metadata.
//!
//! GGUF stores tokens, merges and the NAME of a pre-tokenizer; the corresponding rule is defined in
//! llama.cpp's source (`llama-vocab.cpp`). Each name is mapped to the pre-tokenizer of the
//! `tokenizer.json` from which such files are converted.

use serde::{Deserialize, Serialize};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::{TextError, Tokenizer};

/// The tokenizer part of a GGUF file's metadata, key by key (`tokenizer.ggml.*`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GgufTokenizer {
    /// `model`: `gpt2` is byte-level BPE, the only supported kind.
    pub model: String,
    /// `pre`: the name of the pre-tokenizer; empty if the file has none.
    pub pre: String,
    /// `tokens`, by id, in the byte alphabet of GPT-2.
    pub tokens: Vec<String>,
    /// `token_type`, by id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    /// Empty if the file has none: all normal.
    pub token_types: Vec<i32>,
    /// `merges`: two tokens separated by a space, best first.
    pub merges: Vec<String>,
    /// `bos_token_id`
    pub bos: Option<u32>,
    /// `eos_token_id`
    pub eos: Option<u32>,
    /// `padding_token_id`
    pub pad: Option<u32>,
    /// `add_bos_token`; without effect here, since chat templates write it themselves.
    pub add_bos: bool,
    /// `tokenizer.chat_template`
    pub chat_template: Option<String>,
}

const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Letters with contractions and one leading sign, `{digits}` digits, signs, white space.
fn cl100k(digits: &str) -> String {
    format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

fn split_then_bytes(pattern: String) -> Result<PreTokenizerWrapper, TextError> {
    let split = Split::new(SplitPattern::Regex(pattern), SplitDelimiterBehavior::Isolated, false)
        .map_err(|e| TextError::Tokenizer(e.to_string()))?;
    Ok(Sequence::new(vec![split.into(), ByteLevel::new(false, true, false).into()]).into())
}

/// Single digits, then GPT-2's words.
pub(crate) fn single_digits() -> PreTokenizerWrapper {
    let words = ByteLevel::new(false, true, true);
    Sequence::new(vec![Digits::new(true).into(), words.into()]).into()
}

/// The rule behind a pre-tokenizer's name.
struct Rule {
    pre_tokenizer: PreTokenizerWrapper,
    /// Whether text is first normalised to NFC.
    composed: bool,
    /// Whether a word in the vocabulary is one token, regardless of merges.
    ignore_merges: bool,
}

fn rule(name: &str) -> Result<Rule, TextError> {
    let plain = |pre_tokenizer| Rule { pre_tokenizer, composed: false, ignore_merges: false };
    Ok(match name {
        "smollm" => plain(single_digits()),
        "llama-bpe" | "llama3" | "llama-v3" => {
            Rule { ignore_merges: true, ..plain(split_then_bytes(cl100k("{1,3}"))?) }
        }
        "qwen2" => Rule { composed: true, ..plain(split_then_bytes(cl100k(""))?) },
        "gpt-2" | "gpt2" | "default" | "" => plain(ByteLevel::new(false, true, true).into()),
        other => {
            return Err(TextError::Tokenizer(format!(
                "tokenizer.ggml.pre is `{other}`; known are smollm, llama-bpe, qwen2, gpt-2 and \
                 default"
            )));
        }
    })
}

impl Tokenizer {
    /// Builds a byte-level BPE tokenizer from a GGUF file's metadata.
    ///
    /// # Errors
    /// Another kind of tokenizer, an unknown pre-tokenizer, a merge that does not fit the
    /// vocabulary, an id outside it.
    pub fn from_gguf(meta: &GgufTokenizer) -> Result<Self, TextError> {
        if meta.model != "gpt2" {
            return Err(TextError::Tokenizer(format!(
                "tokenizer.ggml.model is `{}`; only `gpt2`, byte-level BPE, can be read",
                meta.model
            )));
        }
        let rule = rule(&meta.pre)?;
        let mut inner = tokenizers::Tokenizer::new(bpe(meta, rule.ignore_merges)?);
        if rule.composed {
            inner.with_normalizer(Some(NFC)).map_err(|e| TextError::Tokenizer(e.to_string()))?;
        }
        inner.with_pre_tokenizer(Some(rule.pre_tokenizer));
        inner.with_decoder(Some(ByteLevel::default()));
        let added = meta.tokens.iter().zip(&meta.token_types).filter_map(|(token, kind)| {
            let added = |special| AddedToken::from(token.clone(), special).normalized(false);
            match *kind {
                CONTROL => Some(added(true)),
                USER_DEFINED => Some(added(false)),
                _ => None,
            }
        });
        inner.add_tokens(added).map_err(|e| TextError::Tokenizer(e.to_string()))?;
        let mut tokenizer = Self::from_inner(inner)?;
        for (key, id) in [("bos", meta.bos), ("eos", meta.eos), ("padding", meta.pad)] {
            if id.is_some_and(|id| id as usize >= meta.tokens.len()) {
                return Err(TextError::Tokenizer(format!(
                    "tokenizer.ggml.{key}_token_id is outside the vocabulary of {} tokens",
                    meta.tokens.len()
                )));
            }
        }
        (tokenizer.bos, tokenizer.eos, tokenizer.pad) = (meta.bos, meta.eos, meta.pad);
        Ok(tokenizer)
    }
}

fn bpe(meta: &GgufTokenizer, ignore_merges: bool) -> Result<BPE, TextError> {
    let vocabulary: tokenizers::models::bpe::Vocab =
        meta.tokens.iter().zip(0u32..).map(|(token, id)| (token.clone(), id)).collect();
    if vocabulary.len() != meta.tokens.len() {
        return Err(TextError::Tokenizer(
            "tokenizer.ggml.tokens holds the same token twice".to_owned(),
        ));
    }
    let mut merges = Vec::with_capacity(meta.merges.len());
    for (index, merge) in meta.merges.iter().enumerate() {
        let bad = || {
            TextError::Tokenizer(format!(
                "tokenizer.ggml.merges[{index}] is `{merge}`, not two known tokens that make a third"
            ))
        };
        let (left, right) = merge.split_once(' ').ok_or_else(bad)?;
        let whole = format!("{left}{right}");
        if [left, right, &whole].iter().any(|part| !vocabulary.contains_key(*part)) {
            return Err(bad());
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .ignore_merges(ignore_merges)
        .build()
        .map_err(|e| TextError::Tokenizer(e.to_string()))
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::GgufTokenizer;
    use crate::{TextError, Tokenizer};

    /// The 256 bytes, a few merges, a control and a user-defined token.
    fn meta(pre: &str) -> GgufTokenizer {
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let merges = ["1 2", "12 3", "123 4", "Ġ a", "n '", "' t", "! Ċ", "a b", "Ã ©"];
        let mut tokens: Vec<String> = vec!["<|end|>".into(), "<think here>".into()];
        let mut token_types = vec![3, 4];
        tokens.extend(alphabet.iter().map(char::to_string));
        tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
        // A whole word that no merges produce: used only if merges are ignored.
        tokens.push("xyz".into());
        token_types.resize(tokens.len(), 1);
        GgufTokenizer {
            model: "gpt2".into(),
            pre: pre.into(),
            tokens,
            token_types,
            merges: merges.map(str::to_owned).to_vec(),
            eos: Some(0),
            ..GgufTokenizer::default()
        }
    }

    fn split(pre: &str, text: &str) -> Vec<String> {
        let tokenizer = Tokenizer::from_gguf(&meta(pre)).unwrap();
        let ids = tokenizer.encode(text).unwrap();
        ids.iter().map(|&id| tokenizer.decode(&[id], true)).collect()
    }

    #[test]
    fn each_name_splits_as_its_model_does() {
        for pre in ["smollm", "qwen2"] {
            assert_eq!(split(pre, "1234"), ["1", "2", "3", "4"], "{pre}");
        }
        assert_eq!(split("llama-bpe", "1234"), ["123", "4"]);
        assert_eq!(split("gpt-2", "1234"), ["1234"]);
        assert_eq!(split("gpt-2", "!\n"), ["!", "\n"]);
        assert_eq!(split("llama-bpe", "!\n"), ["!\n"]);
        assert_eq!(split("llama-bpe", "xyz"), ["xyz"]);
        assert_eq!(split("qwen2", "xyz"), ["x", "y", "z"]);
        assert_eq!(split("qwen2", "e\u{301}"), ["é"], "composed first");
        assert_eq!(split("default", " ab n't"), [" a", "b", " ", "n", "'t"]);
    }

    #[test]
    fn added_tokens_are_recognised_and_ids_kept() {
        let tokenizer = Tokenizer::from_gguf(&meta("smollm")).unwrap();
        assert_eq!(tokenizer.encode("<|end|><think here>").unwrap(), [0, 1]);
        assert_eq!(tokenizer.eos, Some(0));
        assert_eq!(tokenizer.decode(&[0, 1], false), "<think here>");
        assert_eq!(tokenizer.vocab_size(), meta("smollm").tokens.len());
        let json = tokenizer.to_json().unwrap();
        let again = Tokenizer::from_bytes(json.as_bytes()).unwrap();
        let text = "<|end|> ab 1234 \u{1F980}é!\n";
        assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        assert_eq!(again.decode(&again.encode(text).unwrap(), true), text);
    }

    #[test]
    fn unsupported_metadata_is_reported_with_its_key() {
        let error = |meta: GgufTokenizer| match Tokenizer::from_gguf(&meta) {
            Err(TextError::Tokenizer(what)) => what,
            other => panic!("{other:?}"),
        };
        assert!(error(GgufTokenizer { model: "llama".into(), ..meta("") }).contains("`llama`"));
        assert!(error(meta("viking")).contains("`viking`"));
        let mut broken = meta("gpt-2");
        broken.merges.push("Ġ unseen".into());
        assert!(error(broken).contains("merges[9]"));
        let mut broken = meta("gpt-2");
        broken.tokens.push("xyz".into());
        assert!(error(broken).contains("twice"));
        assert!(error(GgufTokenizer { eos: Some(9999), ..meta("") }).contains("eos"));
    }
}

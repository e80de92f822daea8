//! The steps before and after the transformer, as configured by sentence-transformers.
//!
//! `modules.json` lists the steps from a text to its vector: a transformer, a pooling of its
//! tokens, and optionally a scaling to length 1. A folder without that file is an ordinary BERT;
//! its vector is the unscaled mean of its tokens, as in sentence-transformers.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::encoder::config::BertConfig;
use crate::error::LmError;
use crate::formats::files::read_json;

pub(super) const MODULES: &str = "modules.json";

/// How a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The mean, including special tokens.
    Mean,
    /// The first token.
    First,
}

/// The steps around the transformer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Modules {
    /// Folder of its configuration, weights and tokenizer.
    pub transformer: PathBuf,
    pub pooling: Pooling,
    /// Whether vectors are scaled to length 1.
    pub normalise: bool,
}

impl Modules {
    /// Reads `modules.json` of `folder`, if present, and the files it names.
    ///
    /// # Errors
    /// Unreadable files, unsupported steps and poolings, with file and key.
    pub fn read(folder: &Path) -> Result<Self, LmError> {
        check_prompt(&folder.join("config_sentence_transformers.json"))?;
        let path = folder.join(MODULES);
        let mut modules =
            Self { transformer: folder.to_owned(), pooling: Pooling::Mean, normalise: false };
        let Some(json) = read_optional(&path)? else { return Ok(modules) };
        let steps = json.as_array().ok_or_else(|| LmError::file(&path, "is not a list"))?;
        for (number, step) in steps.iter().enumerate() {
            let inner = folder.join(step_folder(step, &path)?);
            let kind = step["type"].as_str().unwrap_or_default();
            // The name of a Python class; its module differs between versions.
            match (number, kind.rsplit('.').next().unwrap_or_default()) {
                (0, "Transformer") => modules.transformer = inner,
                (1, "Pooling") => modules.pooling = read_pooling(&inner.join("config.json"))?,
                (2, "Normalize") => modules.normalise = true,
                _ => {
                    let what = format!(
                        "is `{kind}` as step {number}; supported are Transformer, Pooling and, \
                         after them, Normalize"
                    );
                    return Err(key(&path, "type", what));
                }
            }
        }
        if steps.len() < 2 {
            return Err(LmError::file(&path, "lists no Transformer with a Pooling after it"));
        }
        Ok(modules)
    }
}

/// Options of the tokenizer: the maximum length of a text, and whether it is lower-cased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TextRules {
    /// Tokens of a text, including special tokens.
    pub max_tokens: usize,
    pub lower_case: bool,
}

impl TextRules {
    /// `max_seq_length` of `sentence_bert_config.json`, else the tokenizer's own
    /// `model_max_length`; at most the model's number of positions.
    ///
    /// # Errors
    /// Unreadable files.
    pub fn read(folder: &Path, config: &BertConfig) -> Result<Self, LmError> {
        let own = read_optional(&folder.join("sentence_bert_config.json"))?.unwrap_or_default();
        let tokenizer = read_optional(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        // The tokenizer's may be a float, 1e30, for no limit; casts saturate.
        let limit = own["max_seq_length"].as_f64().or(tokenizer["model_max_length"].as_f64());
        let max_tokens = limit.filter(|&limit| limit >= 1.0).map_or(usize::MAX, |n| n as usize);
        Ok(Self {
            max_tokens: max_tokens.min(config.max_tokens()),
            lower_case: own["do_lower_case"].as_bool().unwrap_or(false),
        })
    }
}

fn key(path: &Path, key: &str, what: String) -> LmError {
    LmError::Key { path: path.to_owned(), key: key.to_owned(), what }
}

/// `None` if the file does not exist.
fn read_optional(path: &Path) -> Result<Option<Value>, LmError> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}

/// The `path` of a step: inside the encoder's folder, often the folder itself.
fn step_folder<'a>(step: &'a Value, path: &Path) -> Result<&'a Path, LmError> {
    let inner = Path::new(step["path"].as_str().unwrap_or_default());
    if inner.components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(inner)
    } else {
        Err(key(path, "path", format!("is `{}`, outside the folder", inner.display())))
    }
}

/// `pooling_mode` as a name, or the flags `pooling_mode_*` of earlier versions.
fn read_pooling(path: &Path) -> Result<Pooling, LmError> {
    const FLAG: &str = "pooling_mode_";
    let json = read_json(path)?;
    let mut modes: Vec<&str> = match &json["pooling_mode"] {
        Value::String(mode) => vec![mode],
        Value::Array(modes) => modes.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if modes.is_empty() {
        let flags = json.as_object().into_iter().flatten();
        let set = flags.filter(|(_, value)| value.as_bool() == Some(true));
        modes.extend(set.filter_map(|(name, _)| name.strip_prefix(FLAG)));
    }
    match modes.as_slice() {
        ["mean" | "mean_tokens"] => Ok(Pooling::Mean),
        ["cls" | "cls_token"] => Ok(Pooling::First),
        [] => Err(key(path, "pooling_mode", "is missing".to_owned())),
        others => {
            let what = format!("is {}; supported are mean or cls", others.join(" and "));
            Err(key(path, "pooling_mode", what))
        }
    }
}

/// Rejects models that prepend a prompt to every text.
fn check_prompt(path: &Path) -> Result<(), LmError> {
    let json = read_optional(path)?.unwrap_or_default();
    let name = json["default_prompt_name"].as_str();
    match name.map(|name| json["prompts"][name].as_str().unwrap_or_default()) {
        Some(prompt) if !prompt.is_empty() => {
            let what = format!("puts `{prompt}` before every text, which is not supported");
            Err(key(path, "default_prompt_name", what))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(files: &[(&str, Value)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, json) in files {
                let path = folder.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, json.to_string()).unwrap();
            }
            Self(folder)
        }

        fn modules(&self) -> Result<Modules, String> {
            Modules::read(self.0.path()).map_err(|error| error.to_string())
        }
    }

    fn step(kind: &str, path: &str) -> Value {
        json!({ "type": format!("sentence_transformers.models.{kind}"), "path": path })
    }

    #[test]
    fn both_forms_of_pooling_are_read() {
        let steps = json!([step("Transformer", "0_Bert"), step("Pooling", "1_P")]);
        let scaled =
            json!([step("Transformer", ""), step("Pooling", "1_P"), step("Normalize", "2_N")]);
        let old = json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false });
        let new = json!({ "pooling_mode": "mean", "include_prompt": true });
        let folder = Folder::new(&[("modules.json", steps), ("1_P/config.json", old)]);
        let modules = folder.modules().unwrap();
        assert_eq!(modules.transformer, folder.0.path().join("0_Bert"));
        assert_eq!((modules.pooling, modules.normalise), (Pooling::First, false));
        let folder = Folder::new(&[("modules.json", scaled), ("1_P/config.json", new)]);
        let modules = folder.modules().unwrap();
        assert_eq!((modules.pooling, modules.normalise), (Pooling::Mean, true));
        let plain = Folder::new(&[]).modules().unwrap();
        assert_eq!((plain.pooling, plain.normalise), (Pooling::Mean, false));
    }

    #[test]
    fn unsupported_steps_are_reported() {
        let (bert, pool) = (step("Transformer", ""), step("Pooling", "1_P"));
        let prompts = "config_sentence_transformers.json";
        let config = "1_P/config.json";
        for (files, words) in [
            (vec![("modules.json", json!({}))], "modules.json: is not a list"),
            (vec![("modules.json", json!([bert]))], "no Transformer with a Pooling"),
            (vec![("modules.json", json!([step("Transformer", "../x")]))], "`../x`, outside"),
            (vec![("modules.json", json!([step("Transformer", "/x")]))], "`/x`, outside"),
            (vec![("modules.json", json!([bert, pool]))], "1_P/config.json: No such file"),
            (
                vec![("modules.json", json!([bert, step("Dense", "")]))],
                "key `type` is `sentence_transformers.models.Dense` as step 1",
            ),
            (
                vec![
                    ("modules.json", json!([bert, pool])),
                    (config, json!({ "pooling_mode": ["mean", "max"] })),
                ],
                "is mean and max; supported are mean or cls",
            ),
            (
                vec![("modules.json", json!([bert, pool])), (config, json!({}))],
                "key `pooling_mode` is missing",
            ),
            (
                vec![(
                    prompts,
                    json!({ "default_prompt_name": "q", "prompts": { "q": "query: " } }),
                )],
                "puts `query: ` before every text",
            ),
        ] {
            let error = Folder::new(&files).modules().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}

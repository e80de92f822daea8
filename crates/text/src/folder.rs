//! Chat formats in Hugging Face folders.
//!
//! The template is `chat_template.jinja`, otherwise `chat_template` in
//! The stop tokens come from three files: `generation_config.json` and `config.json`
//! (`eos_token_id`, a number or a list) and `tokenizer_config.json` (`eos_token`, a string or an
//! object); all of them count.

use std::path::Path;

use serde_json::{Value, json};

use crate::{ChatFormat, ChatTemplate, TextError, Tokenizer};

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const GENERATION: &str = "generation_config.json";

impl Tokenizer {
    /// Reads `tokenizer.json` of a folder, and the special tokens from the other files of it.
    ///
    /// # Errors
    /// A file that cannot be read or parsed; a special token outside the vocabulary.
    pub fn from_folder(dir: &Path) -> Result<Self, TextError> {
        let mut tokenizer = Self::from_file(&dir.join(TOKENIZER))?;
        tokenizer.set_special(&json_or_null(&dir.join(CONFIG))?)?;
        for file in [GENERATION, "config.json"] {
            let config = json_or_null(&dir.join(file))?;
            let first = |key: &str| id_list(&config[key]).first().copied();
            tokenizer.bos = tokenizer.bos.or(first("bos_token_id"));
            tokenizer.eos = tokenizer.eos.or(first("eos_token_id"));
            tokenizer.pad = tokenizer.pad.or(first("pad_token_id"));
        }
        Ok(tokenizer)
    }

    fn set_special(&mut self, config: &Value) -> Result<(), TextError> {
        let id = |key: &str| match token_text(&config[key]) {
            None => Ok(None),
            Some(token) => {
                let unknown = || TextError::UnknownToken(format!("`{token}` ({key})"));
                self.token_id(token).map(Some).ok_or_else(unknown)
            }
        };
        let (bos, eos, pad) = (id("bos_token")?, id("eos_token")?, id("pad_token")?);
        (self.bos, self.eos, self.pad) = (bos.or(self.bos), eos.or(self.eos), pad.or(self.pad));
        Ok(())
    }
}

impl ChatFormat {
    /// Reads a Hugging Face folder: `tokenizer.json` and, if present, `tokenizer_config.json`,
    /// `chat_template.jinja`, `generation_config.json`, `config.json`.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, no template, a special token outside the
    /// vocabulary; each names the file.
    pub fn from_folder(dir: &Path) -> Result<Self, TextError> {
        let tokenizer = Tokenizer::from_folder(dir)?;
        let path = dir.join(CONFIG);
        let mut config = json_or_null(&path)?;
        match std::fs::read_to_string(dir.join(TEMPLATE)) {
            Ok(source) => config["chat_template"] = Value::from(source),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(TextError::read(&dir.join(TEMPLATE), error)),
        }
        let mut stops = Vec::new();
        for file in [GENERATION, "config.json"] {
            stops.extend(id_list(&json_or_null(&dir.join(file))?["eos_token_id"]));
        }
        let format = assemble(tokenizer, &config, &path.display().to_string())?;
        Ok(format.with_stop_ids(stops))
    }

    /// Reads the contents of `tokenizer.json` and `tokenizer_config.json`, for formats that are
    /// embedded in a program.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder).
    pub fn from_bytes(tokenizer: &[u8], config: &[u8]) -> Result<Self, TextError> {
        let config: Value =
            serde_json::from_slice(config).map_err(|e| TextError::malformed(CONFIG, e))?;
        let mut tokenizer = Tokenizer::from_bytes(tokenizer)?;
        tokenizer.set_special(&config)?;
        assemble(tokenizer, &config, CONFIG)
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` (including the template) and
    /// `generation_config.json` in the layout that transformers reads.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save_to_folder(&self, dir: &Path) -> Result<(), TextError> {
        self.tokenizer().save(&dir.join(TOKENIZER))?;
        let write = |file: &str, value: &Value| {
            let path = dir.join(file);
            std::fs::write(&path, format!("{value:#}\n")).map_err(|e| TextError::write(&path, e))
        };
        write(CONFIG, &self.tokenizer_config())?;
        let tokenizer = self.tokenizer();
        let mut generation = json!({"eos_token_id": self.stop_ids()});
        for (key, id) in [("bos_token_id", tokenizer.bos), ("pad_token_id", tokenizer.pad)] {
            if let Some(id) = id {
                generation[key] = json!(id);
            }
        }
        write(GENERATION, &generation)
    }

    /// The content of `tokenizer_config.json`.
    pub fn tokenizer_config(&self) -> Value {
        let tokenizer = self.tokenizer();
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
        });
        let tokens = [
            ("bos_token", tokenizer.bos),
            ("eos_token", tokenizer.eos),
            ("pad_token", tokenizer.pad),
        ];
        for (key, id) in tokens {
            if let Some(token) = id.and_then(|id| tokenizer.token(id)) {
                config[key] = Value::from(token);
            }
        }
        config["chat_template"] = self.template().to_config();
        config
    }
}

fn assemble(tokenizer: Tokenizer, config: &Value, file: &str) -> Result<ChatFormat, TextError> {
    let text = |key: &str, id: Option<u32>| {
        let named = token_text(&config[key]).map(str::to_owned);
        named.or_else(|| id.and_then(|id| tokenizer.token(id)))
    };
    let (bos, eos) = (text("bos_token", tokenizer.bos), text("eos_token", tokenizer.eos));
    let source = &config["chat_template"];
    if source.is_null() {
        return Err(TextError::NoTemplate { file: file.to_owned() });
    }
    let template = ChatTemplate::from_config(source, bos.as_deref(), eos.as_deref(), file)?;
    Ok(ChatFormat::new(tokenizer, template))
}

/// A token in `tokenizer_config.json`: a string, or an object with `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// A number or a list of numbers.
fn id_list(value: &Value) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value.as_array() {
        Some(ids) => ids.iter().filter_map(one).collect(),
        None => one(value).into_iter().collect(),
    }
}

/// A JSON object, or null if the file does not exist.
fn json_or_null(path: &Path) -> Result<Value, TextError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(error) => return Err(TextError::read(path, error)),
    };
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|e| TextError::malformed(path.display(), e))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(TextError::malformed(path.display(), "expected a JSON object"))
    }
}

//! Summary of a model: architecture, chat format, memory.
//!
//! Reads only headers; downloads only the small files of a hub repository.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use leyden_hub::{Hub, Repository};
use leyden_lm::formats::gguf::Gguf;
use leyden_lm::memory::{MemoryRequest, Training, readable_bytes};
use leyden_lm::model::LlamaConfig;
use leyden_text::{ChatFormat, ToolFormat};
use leyden_train::plan::adapters;
use serde_json::Value;
use tch::Kind;

use super::source::{self, ModelSource};
use crate::table::{Side, aligned, counted};

/// Summary of a model.
pub struct Information {
    source: String,
    config: LlamaConfig,
    /// Tensors by number type, or the configured type if there are no weights.
    dtype: String,
    /// The chat format, or the reason why there is none (no tokenizer or template).
    format: Result<ChatFormat, String>,
}

impl Information {
    /// Reads the summary of the model `source`.
    pub fn of(source: &str) -> Result<Self> {
        let name = source.to_owned();
        match ModelSource::parse(source) {
            ModelSource::Embedded(model) => {
                let folder = model.unpack()?;
                Self::of_folder(name, folder.path())
            }
            ModelSource::Path(path) if path.is_dir() => Self::of_folder(name, &path),
            ModelSource::Path(path) if path.is_file() => Self::of_gguf(name, &path),
            ModelSource::Path(path) => {
                bail!("{}: there is no such model folder or .gguf file", path.display())
            }
            ModelSource::Hub(id) => Self::of_folder(name, &small_files(&id)?),
            ModelSource::Pypi(package) => Err(source::not_imported(&package)),
        }
    }

    fn of_folder(source: String, folder: &Path) -> Result<Self> {
        let config = LlamaConfig::from_file(&folder.join("config.json"))?;
        let format = ChatFormat::from_folder(folder).map_err(|e| e.to_string());
        let counts = safetensors_types(folder)?;
        let dtype = if counts.is_empty() { configured_type(folder) } else { listed(&counts) };
        Ok(Self { source, config, dtype, format })
    }

    fn of_gguf(source: String, path: &Path) -> Result<Self> {
        let file = Gguf::open(path)?;
        let config = file.config()?;
        let name = path.display().to_string();
        let format = file
            .tokenizer()
            .map_err(|e| e.to_string())
            .and_then(|meta| ChatFormat::from_gguf(&meta, &name).map_err(|e| e.to_string()))
            .map(|format| format.with_stop_ids(config.eos.iter().copied()));
        Ok(Self { source, config, dtype: listed(&file.types()), format })
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let c = &self.config;
        let mut rows = Vec::new();
        let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
        row("model", self.source.clone());
        let tied = if c.tied { "tied" } else { "untied" };
        row("architecture", format!("Llama, {} layers of width {}", c.layers, c.hidden_size));
        row("attention", format!("{} heads of {}, {} for keys", c.heads, c.head_dim, c.kv_heads));
        row("feed-forward", format!("width {}", c.intermediate_size));
        row("parameters", format!("{} ({tied} head)", with_separators(c.parameters())));
        row("number type", self.dtype.clone());
        let scaling = c.rope_scaling.map_or(String::new(), |s| {
            format!(", frequencies scaled by {} from {}", s.factor, s.original_max_positions)
        });
        row("context", format!("{} tokens{scaling}", c.max_positions));
        match &self.format {
            Ok(format) => self.format_rows(format, &mut row),
            Err(reason) => row("chat format", format!("none: {reason}")),
        }
        for (name, bytes) in self.memory() {
            row(name, readable_bytes(bytes));
        }
        rows
    }

    fn format_rows(&self, format: &ChatFormat, row: &mut impl FnMut(&str, String)) {
        let tokens = format.tokenizer().vocab_size();
        let rows = self.config.vocab_size;
        let padding = if rows > tokens { format!(" (embedding of {rows})") } else { String::new() };
        row("vocabulary", format!("{tokens} tokens{padding}"));
        row("chat template", family(format.template().source()).to_owned());
        row("tool calls", tool_calls(format.tool_format()).to_owned());
        let stops = format.stop_ids().iter().map(|&id| {
            let token = format.tokenizer().token(id);
            format!("{} ({id})", token.unwrap_or_else(|| "outside the vocabulary".to_owned()))
        });
        row("stop tokens", stops.collect::<Vec<_>>().join(", "));
    }

    /// Bytes for generation and training, in bf16, with 32 rollouts of 1024 tokens.
    fn memory(&self) -> Vec<(&'static str, u64)> {
        let lora = adapters();
        let bytes = |parameters: Kind, training: Training| {
            let request = MemoryRequest {
                config: self.config.clone(),
                parameters,
                compute: Kind::BFloat16,
                training,
                reference: false,
                trunk: false,
                earlier: 0,
                pack_tokens: 4096,
                replicas: 1,
                checkpointing: true,
                head_chunk: None,
                rollouts: 32,
                context: self.config.max_positions.min(1024),
            };
            request.plan().map(|plan| plan.total()).ok()
        };
        [
            ("memory: generate", bytes(Kind::BFloat16, Training::Frozen)),
            ("memory: train LoRA", bytes(Kind::BFloat16, Training::Lora(lora))),
            ("memory: train all", bytes(Kind::Float, Training::Full { master: false })),
        ]
        .into_iter()
        .filter_map(|(name, bytes)| Some((name, bytes?)))
        .collect()
    }
}

impl fmt::Display for Information {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&aligned(&self.rows(), &[Side::Left]))?;
        writeln!(
            f,
            "(memory: bf16, 32 rollouts of 1024 tokens, micro-batches of 4096 tokens, activations \
             recomputed; `leyden doctor --config FILE` plans an experiment)"
        )
    }
}

/// Downloads configuration and tokenizer of a hub repository; returns their folder.
fn small_files(id: &str) -> Result<PathBuf> {
    let hub = Hub::from_env();
    let repository = Repository::model(id);
    let config = hub
        .fetch(&repository, "config.json")
        .with_context(|| format!("{id} is not a local path and could not be downloaded"))?;
    for file in
        ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]
    {
        // Missing files are reported when the folder is read.
        let _ = hub.fetch(&repository, file);
    }
    Ok(config.parent().unwrap_or(Path::new(".")).to_owned())
}

/// Tensors by number type, from the headers of a folder's safetensors.
fn safetensors_types(folder: &Path) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let header = safetensors_header(&path)
                .with_context(|| format!("{}: is not a safetensors file", path.display()))?;
            let tensors = header.as_object().into_iter().flatten();
            for (_, tensor) in tensors.filter(|(name, _)| *name != "__metadata__") {
                let kind = tensor["dtype"].as_str().unwrap_or("unknown");
                *counts.entry(kind.to_owned()).or_default() += 1;
            }
        }
    }
    Ok(counts)
}

/// The header of a safetensors file: eight bytes of length, then JSON.
fn safetensors_header(path: &Path) -> Result<Value> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > size {
        bail!("the file is truncated");
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    Ok(serde_json::from_slice(&header)?)
}

fn configured_type(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let name = config["dtype"].as_str().or(config["torch_dtype"].as_str());
    format!("{} by config.json (no weights here)", name.unwrap_or("unknown"))
}

/// `F32` or `Q4_1 (210 tensors), F32 (61 tensors)`, the most frequent first.
fn listed(counts: &BTreeMap<String, usize>) -> String {
    let mut counts: Vec<(&String, &usize)> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    if let [(name, _)] = counts[..] {
        return name.clone();
    }
    let texts =
        counts.iter().map(|(name, count)| format!("{name} ({})", counted(**count, "tensor")));
    texts.collect::<Vec<_>>().join(", ")
}

/// The template's family, by its special tokens.
fn family(template: &str) -> &'static str {
    if template.contains("<|start_header_id|>") {
        "Llama 3"
    } else if template.contains("<|im_start|>") {
        "ChatML"
    } else if template.contains("[INST]") {
        "Llama 2 / Mistral"
    } else {
        "custom"
    }
}

fn tool_calls(format: ToolFormat) -> &'static str {
    match format {
        ToolFormat::Hermes => "Hermes: JSON between <tool_call> tags, tools shown by the template",
        ToolFormat::Llama3Json => "Llama 3: JSON as the whole message, tools shown by the template",
        ToolFormat::HermesInSystem => {
            "Hermes: JSON between <tool_call> tags, tools explained in the system message"
        }
    }
}

/// `1234567` → `1,234,567`.
fn with_separators(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists_are_formatted() {
        assert_eq!(with_separators(7), "7");
        assert_eq!(with_separators(134_515_008), "134,515,008");
        let one = BTreeMap::from([("BF16".to_owned(), 9)]);
        assert_eq!(listed(&one), "BF16");
        let two = BTreeMap::from([("F32".to_owned(), 61), ("Q4_1".to_owned(), 210)]);
        assert_eq!(listed(&two), "Q4_1 (210 tensors), F32 (61 tensors)");
    }

    #[test]
    fn a_header_longer_than_its_file_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        std::fs::write(&path, &bytes).unwrap();
        let error = safetensors_types(folder.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors: is not a safetensors file"), "{error}");
        let header = br#"{"__metadata__": {}, "a": {"dtype": "BF16"}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        std::fs::write(&path, &bytes).unwrap();
        let counts = safetensors_types(folder.path()).unwrap();
        assert_eq!(counts, BTreeMap::from([("BF16".to_owned(), 1)]));
    }

    #[test]
    fn templates_are_recognised_by_their_special_tokens() {
        assert_eq!(family(leyden_text::CHATML_TEMPLATE), "ChatML");
        assert_eq!(family("{{ '<|start_header_id|>' }}"), "Llama 3");
        assert_eq!(family("{{ messages }}"), "custom");
    }
}

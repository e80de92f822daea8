//! The tiny model: made by `leyden model make-tiny`, embedded in the binary.
//!
//! A Llama of a few hundred thousand parameters that knows the language of the generated
//! worlds, copies numbers and speaks the tool protocol, but does not know which expression
//! answers which question: what is left to learn is what reinforcement learning teaches, and
//! a laptop sees it learned in minutes.

use std::path::Path;

use anyhow::{Context, Result};
use leyden_core::{Message, SeedTree};
use leyden_lm::{LlamaConfig, LoadedModel, initialise, save_folder};
use leyden_mini::MiniCalc;
use leyden_text::{BpeTraining, CHATML_TEMPLATE, ChatFormat, ChatTemplate, train_bpe};
use leyden_train::data::DemonstrationSource;
use serde_json::{Map, Value, json};

use crate::demonstrations::NoisyDemonstrations;

/// The files of the embedded model.
const FILES: [(&str, &[u8]); 5] = [
    ("config.json", include_bytes!("../assets/tiny/config.json")),
    ("generation_config.json", include_bytes!("../assets/tiny/generation_config.json")),
    ("model.safetensors", include_bytes!("../assets/tiny/model.safetensors")),
    ("tokenizer.json", include_bytes!("../assets/tiny/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../assets/tiny/tokenizer_config.json")),
];

/// The files of the embedded model in a temporary folder.
pub fn unpack() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().context("no temporary folder for the embedded model")?;
    for (name, bytes) in FILES {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).with_context(|| format!("{}", path.display()))?;
    }
    Ok(folder)
}

/// The embedded model.
pub fn embedded() -> Result<(LoadedModel, Map<String, Value>)> {
    let model = LoadedModel::load(unpack()?.path())?;
    let hash = |bytes: &[u8]| json!(leyden_train::provenance::hash(bytes));
    let hashes: Map<String, Value> =
        FILES.iter().map(|(name, bytes)| ((*name).to_owned(), hash(bytes))).collect();
    let mut described = Map::new();
    described.insert("model".to_owned(), json!({ "source": "tiny", "sha256": hashes }));
    Ok((model, described))
}

/// Shape of a tiny model.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub inner: usize,
    pub vocabulary: usize,
    pub context: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            width: 128,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            inner: 384,
            vocabulary: 1024,
            context: 512,
        }
    }
}

/// Questions from which the tokenizer learns its words.
const CORPUS: usize = 20_000;

/// Writes an untrained tiny model into `folder`: a tokenizer trained on the worlds, fresh
/// weights drawn from `seed`.
pub fn write_untrained(folder: &Path, shape: Shape, seed: u64) -> Result<()> {
    let world = MiniCalc::new(0);
    let agent = leyden_calc::CalculatorAgent::new(leyden_calc::Prompt::Compact, 4);
    let opening = agent.opening("");
    let system = opening.first().map(|m: &Message| m.content.clone()).unwrap_or_default();
    let tool = "tool: calculator(expression)";
    let training = BpeTraining {
        vocab_size: shape.vocabulary,
        special: ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).to_vec(),
        protocol: vec![
            format!("{system}\n{tool}"),
            "<tool_call>\n{\"name\": \"calculator\", \"arguments\": {\"expression\": \"".to_owned(),
            "\"}}\n</tool_call>".to_owned(),
            "<tool_response>".to_owned(),
            "</tool_response>".to_owned(),
            "### ANSWER: ".to_owned(),
            " ###".to_owned(),
            " = around ".to_owned(),
        ],
        min_frequency: 20,
    };
    let shown = NoisyDemonstrations::new(MiniCalc::new(0), agent);
    let texts = world.corpus(CORPUS).into_iter().chain((0..CORPUS as u64 / 10).flat_map(|i| {
        let messages = shown.conversation(i).messages;
        messages.into_iter().map(|m| m.content).filter(|c| !c.is_empty()).collect::<Vec<_>>()
    }));
    let mut tokenizer = train_bpe(texts, &training)?;
    tokenizer.bos = None;
    tokenizer.eos = tokenizer.token_id("<|im_end|>");
    tokenizer.pad = tokenizer.token_id("<|endoftext|>");
    let eos = tokenizer.eos;
    let vocabulary = tokenizer.vocab_size();
    let template = ChatTemplate::new(CHATML_TEMPLATE, None, Some("<|im_end|>"))?;
    let format = ChatFormat::new(tokenizer, template);
    let config = LlamaConfig {
        vocab_size: vocabulary,
        hidden_size: shape.width,
        intermediate_size: shape.inner,
        layers: shape.layers,
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.width / shape.heads,
        norm_eps: 1e-5,
        // Short contexts: slow rotations would never be used.
        rope_theta: 500.0,
        rope_scaling: None,
        max_positions: shape.context,
        tied: true,
        bos: None,
        eos: eos.into_iter().collect(),
    };
    let tensors = initialise(&config, SeedTree::new(seed).child("tiny"))?;
    let named: Vec<_> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
    save_folder(folder, &config, &named, tch::Kind::Float, &format)?;
    Ok(())
}

//! Pretraining of the embedded models by `leyden model make-tiny`.
//!
//! `tiny` is a Llama of a million parameters, pretrained on the language of the generated worlds, on
//! copying and on the tool protocol, but not on which expression answers which question: that is
//! left to reinforcement learning, which takes minutes on a laptop. `tiny-long` is `tiny` with a
//! longer context, trained further on the worlds of longer rollouts.

use std::path::Path;

use anyhow::{Context, Result};
use leyden_core::SeedTree;
use leyden_lm::formats::save_folder;
use leyden_lm::model::{LlamaConfig, initialise};
use leyden_mini::{MiniCalc, MiniMusique, MiniSpider};
use leyden_text::{BpeTraining, CHATML_TEMPLATE, ChatFormat, ChatTemplate, train_bpe};
use leyden_train::data::{Conversation, DemonstrationSource};

use super::embedded::Embedded;
use crate::benchmark::{GeneratedWorld, Train};
use crate::registry::Registry;
use crate::settings::BenchmarkSettings;

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
            vocabulary: 1536,
            context: 512,
        }
    }
}

/// Number of texts that determines the size of the tokenizer's training corpus.
const CORPUS: usize = 20_000;

/// Settings of a generated world's agent, as in the pretraining of its embedded model.
///
/// # Errors
/// No such world.
pub fn settings(registry: &Registry, world: &str, data_seed: u64) -> Result<BenchmarkSettings> {
    let (found, benchmark) =
        registry.world(world).with_context(|| format!("there is no world {world}"))?;
    let mut settings = BenchmarkSettings::defaults(registry, benchmark.name())?;
    settings.agent.prompt = "compact".to_owned();
    settings.data.demonstration_tokens = usize::MAX;
    settings.data.seed = data_seed;
    (found.configure)(&mut settings);
    Ok(settings)
}

/// The world whose settings suit an embedded model with this agent on tasks of `sources`: the
/// agent's first world among them, else its first one that the model was pretrained on.
pub fn world_for(
    registry: &Registry,
    model: &str,
    agent: &str,
    sources: &[String],
) -> Option<&'static str> {
    Embedded::named(model)?;
    let worlds: Vec<GeneratedWorld> =
        registry.worlds().filter(|(_, b)| b.name() == agent).map(|(world, _)| world).collect();
    let listed = |world: &&GeneratedWorld| sources.iter().any(|source| source == world.name);
    let known = || worlds.iter().find(|world| world.model == Some(model));
    Some(worlds.iter().find(listed).or_else(known)?.name)
}

/// The pretraining data of a world.
///
/// # Errors
/// The world cannot be created, for example without disk space for its databases.
pub fn demonstrations(
    registry: &Registry,
    world: &str,
    data_seed: u64,
) -> Result<WorldDemonstrations> {
    let dataset = registry.prepare(settings(registry, world, data_seed)?)?;
    let assembled = dataset.assemble(Train::World(world), &[], true)?;
    let source = assembled.demonstrations.context("world without demonstrations")?;
    Ok(WorldDemonstrations { source, _folder: assembled.folder })
}

/// Demonstrations of a world with the temporary files of their agent.
pub struct WorldDemonstrations {
    source: Box<dyn DemonstrationSource>,
    _folder: Option<tempfile::TempDir>,
}

impl DemonstrationSource for WorldDemonstrations {
    fn len(&self) -> Option<u64> {
        self.source.len()
    }

    fn conversation(&self, index: u64) -> Conversation {
        self.source.conversation(index)
    }
}

/// Fixed parts of the agents' prompts and replies: each becomes one token.
fn protocol(all: &[WorldDemonstrations]) -> Vec<String> {
    let mut pieces: Vec<String> = [
        "<tool_call>\n{\"name\": \"calculator\", \"arguments\": {\"expression\": \"",
        "<tool_call>\n{\"name\": \"retrieve\", \"arguments\": {\"query\": \"",
        "\"}}\n</tool_call>",
        "<tool_response>",
        "</tool_response>",
        "### ANSWER: ",
        " ###",
        " = around ",
        "<answer>",
        "</answer>",
        "```sql\n",
        "\n```",
        "VERDICT: CORRECT",
        "VERDICT: INCORRECT",
        " SQL: ",
        " Result: ",
        "Answer in SQL.",
        "Correct the SQL.",
        "Does the SQL answer the question? End with VERDICT: CORRECT or VERDICT: INCORRECT.",
    ]
    .map(str::to_owned)
    .to_vec();
    // The system prompt of an agent with a tool, and the line that declares the tool.
    for source in all {
        let Conversation { messages, tools } = source.conversation(0);
        if let (Some(system), Some(tool)) = (messages.first(), tools.first()) {
            let arguments = tool.parameters["properties"].as_object();
            let names: Vec<&str> =
                arguments.into_iter().flat_map(|m| m.keys()).map(|k| &**k).collect();
            let line = format!("tool: {}({})", tool.name, names.join(", "));
            pieces.push(format!("{}\n{line}", system.content));
        }
    }
    pieces
}

/// Texts of all worlds for the tokenizer.
fn texts(all: &[WorldDemonstrations]) -> impl Iterator<Item = String> {
    let calc = MiniCalc::new(0).corpus(CORPUS);
    let spider = MiniSpider::new(0).corpus(CORPUS / 4);
    let musique = MiniMusique::new(0).corpus(CORPUS / 2);
    let shown = all.iter().flat_map(|source| {
        (0..CORPUS as u64 / 20).flat_map(|i| {
            let messages = source.conversation(i).messages;
            messages.into_iter().map(|m| m.content).filter(|c| !c.is_empty()).collect::<Vec<_>>()
        })
    });
    calc.into_iter().chain(spider).chain(musique).chain(shown.collect::<Vec<_>>())
}

/// Writes an untrained tiny model into `folder`: a tokenizer trained on the worlds, and weights
/// initialised from `seed`.
///
/// # Errors
/// Errors of the file system; an invalid shape.
pub fn write_untrained(folder: &Path, shape: Shape, seed: u64) -> Result<()> {
    let registry = crate::registry();
    let worlds = registry.worlds().filter(|(world, _)| world.model == Some("tiny"));
    let all: Vec<WorldDemonstrations> =
        worlds.map(|(world, _)| demonstrations(&registry, world.name, 0)).collect::<Result<_>>()?;
    let training = BpeTraining {
        vocab_size: shape.vocabulary,
        special: ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).to_vec(),
        protocol: protocol(&all),
        min_frequency: 20,
        isolated: Some(leyden_mini::names::start_pattern()),
    };
    let texts = texts(&all);
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
        // Contexts are short: slow rotations would not be used.
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

/// Writes the embedded model `base` into `folder` with another context, in tokens, to be trained
/// further.
///
/// # Errors
/// Errors of the file system.
pub fn write_extended(folder: &Path, base: &Embedded, context: usize) -> Result<()> {
    let (mut model, _) = base.load()?;
    model.config.max_positions = context;
    model.save(folder, tch::Kind::Float)?;
    Ok(())
}

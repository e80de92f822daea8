//! A random Llama behind the backend, and a client that collects its events.

#![allow(dead_code, reason = "each test program uses a part")]

use std::sync::Arc;

use leyden_core::{ChatRequest, Message, Sampling, SeedTree, ToolCall};
use leyden_inference::{EngineBackend, Model, Options};
use leyden_lm::formats::LoadedModel;
use leyden_lm::generate::Limits;
use leyden_lm::model::{LlamaConfig, Weights, initialise};
use leyden_serve::backend::{Answer, Ask, Backend, Delta, Event, Failure, Prompt};
use leyden_text::{BpeTraining, CHATML_TEMPLATE, ChatFormat, ChatTemplate, train_bpe};
use tch::{Device, Kind};
use tokio::sync::mpsc::UnboundedReceiver;

/// Maximum sequence length of [`model`].
pub const CONTEXT: usize = 256;

/// A random Llama of width 32; identical at every call.
pub fn model() -> LoadedModel {
    seeded(1)
}

/// As [`model`], with different weights for each seed.
pub fn seeded(seed: u64) -> LoadedModel {
    let training = BpeTraining {
        vocab_size: 300,
        special: ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).to_vec(),
        protocol: Vec::new(),
        min_frequency: 2,
        isolated: None,
    };
    let texts = ["user assistant system", "the user asks, the assistant answers", "more and more"];
    let mut tokenizer = train_bpe(texts, &training).unwrap();
    tokenizer.eos = tokenizer.token_id("<|im_end|>");
    let template = ChatTemplate::new(CHATML_TEMPLATE, None, Some("<|im_end|>")).unwrap();
    let config = LlamaConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 32,
        intermediate_size: 48,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 16,
        norm_eps: 1e-5,
        rope_theta: 500.0,
        rope_scaling: None,
        max_positions: CONTEXT,
        tied: true,
        bos: None,
        eos: tokenizer.eos.into_iter().collect(),
    };
    let tensors = initialise(&config, SeedTree::new(seed)).unwrap();
    LoadedModel { config, tensors, format: Arc::new(ChatFormat::new(tokenizer, template)) }
}

/// The weights of a model as an engine needs them.
pub fn weights(model: &LoadedModel) -> Weights {
    Model::of(model, (Kind::Float, Device::Cpu), limits()).unwrap().weights
}

pub fn limits() -> Limits {
    Limits { context: CONTEXT, cache_tokens: 8192, prefill_tokens: 4096 }
}

/// A request with one user message and an answer of at most `tokens` tokens.
pub fn ask(question: &str, tokens: usize) -> Ask {
    chat(vec![Message::user(question)], tokens)
}

pub fn chat(messages: Vec<Message>, tokens: usize) -> Ask {
    of(ChatRequest { messages, ..ChatRequest::default() }, tokens)
}

pub fn of(request: ChatRequest, tokens: usize) -> Ask {
    Ask {
        prompt: Prompt::Chat(request),
        sampling: Sampling { max_tokens: tokens, ..Sampling::default() },
        stop: Vec::new(),
        seed: Some(7),
        top_logprobs: 0,
        conversation: None,
        call_prefix: "call_".to_owned(),
        ignore_eos: false,
        stream: false,
    }
}

/// The events of an [`Ask`].
#[derive(Debug, Default)]
pub struct Collected {
    pub started: Option<(Vec<u32>, u64)>,
    pub deltas: Vec<Delta>,
    pub answer: Option<Answer>,
    pub failure: Option<Failure>,
}

impl Collected {
    /// Collects events until the channel closes.
    pub fn all(mut events: UnboundedReceiver<Event>) -> Self {
        let mut collected = Self::default();
        while let Some(event) = events.blocking_recv() {
            assert!(
                collected.answer.is_none() && collected.failure.is_none(),
                "after the end: {event:?}"
            );
            match event {
                Event::Started { prompt_ids, policy_version } => {
                    assert!(collected.deltas.is_empty());
                    assert!(collected.started.replace((prompt_ids, policy_version)).is_none());
                }
                Event::Delta(delta) => collected.deltas.push(delta),
                Event::Finished(answer) => collected.answer = Some(*answer),
                Event::Failed(failure) => collected.failure = Some(failure),
            }
        }
        collected
    }

    pub fn text(&self) -> String {
        self.deltas.iter().map(|delta| delta.content.as_str()).collect()
    }

    pub fn calls(&self) -> Vec<ToolCall> {
        self.deltas.iter().flat_map(|delta| delta.tool_calls.clone()).collect()
    }
}

/// The backend over [`model`].
pub fn backend() -> EngineBackend {
    with(options())
}

pub fn options() -> Options {
    // Several test processes share the machine.
    Options { threads: 1, ..Options::new("random", CONTEXT) }
}

pub fn with(options: Options) -> EngineBackend {
    let model = model();
    let parts = Model::of(&model, (Kind::Float, Device::Cpu), limits()).unwrap();
    EngineBackend::start(parts, Arc::clone(&model.format), options).unwrap()
}

/// All events of the backend for `ask`.
pub fn collect(backend: &EngineBackend, ask: Ask) -> Collected {
    Collected::all(backend.submit(ask))
}

/// The answer to `ask`.
pub fn answer(backend: &EngineBackend, ask: Ask) -> Answer {
    let collected = collect(backend, ask);
    collected.answer.unwrap_or_else(|| panic!("{:?}", collected.failure))
}

/// The failure of `ask`.
pub fn failure(backend: &EngineBackend, ask: Ask) -> Failure {
    let collected = collect(backend, ask);
    collected.failure.unwrap_or_else(|| panic!("{:?}", collected.answer))
}

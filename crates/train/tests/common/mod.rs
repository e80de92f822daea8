//! A small model, agent and scorer for tests.
//!
//! The model is a random Llama of width 32. An agent's behaviour is set by its task's label
//! `script`, so that one step can have working and failing agents. The reward counts letters, so
//! the rollouts of a random model have different rewards.

#![allow(dead_code, reason = "each test program uses a part")]

pub mod outcome;

use std::path::Path;
use std::sync::Arc;

use leyden_core::record::{Record, StepRecord};
use leyden_core::{
    Agent, AgentError, AgentOutput, ChatRequest, Episode, Message, Score, ScoreError, Scorer,
    SeedTree, SignalKind, Task, async_trait,
};
use leyden_lm::formats::LoadedModel;
use leyden_lm::generate::{Engine, Limits};
use leyden_lm::model::{LlamaConfig, Parameters, initialise};
use leyden_lm::optim::{Optimizer, OptimizerConfig};
use leyden_lm::policy::{Policy, PolicyOptions};
use leyden_text::{BpeTraining, CHATML_TEMPLATE, ChatFormat, ChatTemplate, train_bpe};
use leyden_train::data::{Conversation, DemonstrationSource};
use leyden_train::store::RolloutStore;
use leyden_train::trainer::Trainer;
use leyden_train::{Environment, Experiment, Observer};
use tch::{Device, Kind, Tensor};

/// Longest sequence of [`model`].
pub const CONTEXT: usize = 160;

/// A random Llama; the same one on every call.
pub fn model() -> LoadedModel {
    // Several test processes share the machine, and multithreading of such small matrices is pure
    // overhead.
    tch::set_num_threads(1);
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
    let tensors = initialise(&config, SeedTree::new(1)).unwrap();
    LoadedModel { config, tensors, format: Arc::new(ChatFormat::new(tokenizer, template)) }
}

/// The trained policy of `model`, an optimiser for it and an engine with its weights.
pub fn parts(model: &LoadedModel, learning_rate: f64) -> (Policy, Optimizer, Engine) {
    let tensors = model.tensors.iter().map(|(name, t)| (name.clone(), t.copy())).collect();
    let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, true).unwrap();
    let policy = Policy::new(model.config.clone(), parameters, PolicyOptions::default());
    let options = OptimizerConfig { lr: learning_rate, ..OptimizerConfig::default() };
    let optimizer = Optimizer::new(policy.trained(), options).unwrap();
    let limits = Limits { context: CONTEXT, cache_tokens: 8192, prefill_tokens: 4096 };
    let weights = policy.inference_weights().unwrap();
    let engine = Engine::new(model.config.clone(), weights, Device::Cpu, limits);
    (policy, optimizer, engine)
}

/// A task whose agent runs `script`; see [`Scripted`].
pub fn task(number: usize, script: &str) -> Task {
    Task {
        id: format!("task-{number}"),
        question: format!("what is {number}?"),
        gold: String::new(),
        labels: vec![("script".to_owned(), script.to_owned())],
        fields: serde_json::Map::new(),
    }
}

/// An agent that follows its task's script.
pub struct Scripted;

#[async_trait]
impl Agent for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn roles(&self) -> &[&str] {
        &["first", "second"]
    }

    fn drafts(&self) -> bool {
        true
    }

    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError> {
        let mut messages = vec![Message::user(task.question.clone())];
        let ask = |role: &str, messages: &[Message]| ChatRequest {
            agent_role: role.to_owned(),
            messages: messages.to_vec(),
            ..ChatRequest::default()
        };
        let answer =
            |reply: leyden_core::ChatReply| Ok(AgentOutput::of(Some(reply.message.content)));
        match task.label("script").unwrap_or("once") {
            "once" | "unscorable" | "infinite" => {
                answer(episode.chat(ask("first", &messages)).await?)
            }
            "twice" => {
                let reply = episode.chat(ask("first", &messages)).await?;
                episode.draft(reply.message.content.clone());
                episode.signal(SignalKind::Other("halfway".to_owned()), "one call is made");
                messages.extend([reply.message, Message::user("more")]);
                answer(episode.chat(ask("second", &messages)).await?)
            }
            "brief" => {
                let request = ChatRequest { max_tokens: Some(2), ..ask("first", &messages) };
                answer(episode.chat(request).await?)
            }
            // Any letter stops the response.
            "stops" => {
                let stop = ('a'..='z').map(String::from).collect();
                let request = ChatRequest { stop, ..ask("first", &messages) };
                answer(episode.chat(request).await?)
            }
            "fails" => {
                episode.chat(ask("first", &messages)).await?;
                let what = "its tool has gone".to_owned();
                Err(AgentError::Task { task: task.id.clone(), what })
            }
            "long" => {
                let request = ask("first", &[Message::user("more ".repeat(2 * CONTEXT))]);
                answer(episode.chat(request).await?)
            }
            // The second prompt does not fit the context.
            "overflows" => {
                let reply = episode.chat(ask("first", &messages)).await?;
                messages.extend([reply.message, Message::user("more ".repeat(2 * CONTEXT))]);
                answer(episode.chat(ask("second", &messages)).await?)
            }
            "waits" => {
                episode.chat(ask("first", &messages)).await?;
                futures::future::pending::<()>().await;
                unreachable!("nothing is ever ready")
            }
            "asks two at once" => {
                let request = || episode.chat(ask("first", &messages));
                let (one, _) = futures::future::try_join(request(), request()).await?;
                answer(one)
            }
            "silent" => Ok(AgentOutput::of(None)),
            other => unreachable!("no such script: {other}"),
        }
    }
}

/// An agent that answers without a model call and reports no drafts.
pub struct Silent;

#[async_trait]
impl Agent for Silent {
    fn name(&self) -> &str {
        "silent"
    }

    fn roles(&self) -> &[&str] {
        &[]
    }

    async fn run(&self, _: &Task, _: &Episode<'_>) -> Result<AgentOutput, AgentError> {
        Ok(AgentOutput::of(None))
    }
}

/// One point per ten letters a to z in the answer.
pub struct Letters;

impl Scorer for Letters {
    fn score(&self, task: &Task, answer: Option<&str>) -> Result<Score, ScoreError> {
        let letters = answer.unwrap_or("").chars().filter(char::is_ascii_lowercase).count();
        match task.label("script") {
            Some("unscorable") => {
                Err(ScoreError { task: task.id.clone(), what: "its gold is empty".to_owned() })
            }
            Some("infinite") => Ok(Score { reward: f64::INFINITY, ..Score::default() }),
            _ => Ok(Score { reward: letters as f64 / 10.0, ..Score::default() }),
        }
    }
}

/// The same reward for everything.
pub struct Constant;

impl Scorer for Constant {
    fn score(&self, _: &Task, _: Option<&str>) -> Result<Score, ScoreError> {
        Ok(Score { reward: 1.0, ..Score::default() })
    }
}

/// A few sentences to memorise.
struct Sentences;

impl DemonstrationSource for Sentences {
    fn len(&self) -> Option<u64> {
        Some(4)
    }

    fn conversation(&self, index: u64) -> Conversation {
        let answer = ["one", "two and two", "three", "more or less four"][index as usize];
        let messages = vec![Message::user(format!("what is {index}?")), Message::assistant(answer)];
        Conversation { messages, tools: Vec::new() }
    }
}

/// An environment of training tasks with these scripts, and three test tasks.
pub fn environment(scripts: &[&str]) -> Environment {
    let train: Vec<Task> =
        scripts.iter().enumerate().map(|(number, script)| task(number, script)).collect();
    Environment {
        agent: Arc::new(Scripted),
        scorer: Arc::new(Letters),
        train: Box::new(train),
        test: vec![task(100, "once"), task(101, "twice"), task(102, "once")],
        demonstrations: Some(Box::new(Sentences)),
        provenance: serde_json::Map::new(),
    }
}

/// Four steps with two tasks of four rollouts; `changes` are overrides as on the command line.
pub fn experiment(changes: &[&str]) -> Experiment {
    let text = "name = 'x'\n[model]\nsource = 'random'\n[agent]\nname = 'scripted'\n\
        [data]\ntrain = []\ntest = []\n\
        [rollout]\ntasks = 2\nsamples = 4\nmax_tokens = 6\n\
        [train]\nsteps = 4\nlearning_rate = 0.01\n\
        [eval]\nevery = 2\nmodes = ['sampled', 'greedy']\nmax_tokens = 6\n\
        [checkpoint]\nevery = 2\n";
    let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
    Experiment::parse(text, Path::new("x.toml"), &changes, &()).unwrap()
}

/// The result of some training steps.
pub struct Trained {
    /// Their records.
    pub records: Vec<StepRecord>,
    /// The gradient of the last step.
    pub gradient: Tensor,
    pub weights: Tensor,
    /// Number of optimiser steps.
    pub updates: i64,
}

/// Aborts a run after a number of lines of `metrics.jsonl`.
pub struct Interrupt {
    pub lines_left: usize,
}

impl Observer for Interrupt {
    fn record(&mut self, _: &Record) {
        self.lines_left -= 1;
        // Intentional, so without message and backtrace.
        if self.lines_left == 0 {
            std::panic::resume_unwind(Box::new("interrupted"));
        }
    }
}

/// Calls `then` with a new trainer of [`experiment`] with these `changes`, on two tasks.
pub fn with_trainer<T>(changes: &[&str], then: impl FnOnce(&mut Trainer<'_>) -> T) -> T {
    let (experiment, environment, model) =
        (experiment(changes), environment(&["twice", "once"]), model());
    let (policy, optimizer, engine) = parts(&model, experiment.train.learning_rate);
    let folder = tempfile::tempdir().unwrap();
    let store = RolloutStore::open(&folder.path().join("rollouts.sqlite")).unwrap();
    let format = Arc::clone(&model.format);
    let mut trainer =
        Trainer::new(&experiment, &environment, format, policy, optimizer, engine, store).unwrap();
    then(&mut trainer)
}

/// The first `steps` steps of [`experiment`] with these `changes`, on two tasks.
pub fn train(steps: u64, changes: &[&str]) -> Trained {
    with_trainer(changes, |trainer| Trained {
        records: (1..=steps).map(|step| trainer.step(step, &()).unwrap().0).collect(),
        gradient: trainer.policy.trained().grad().unwrap().copy(),
        weights: trainer.policy.trained().flat().detach().copy(),
        updates: trainer.updater.optimizer.steps(),
    })
}

pub fn largest(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}

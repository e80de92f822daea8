//! Core types shared by all crates.
//!
//! A [`Task`] is one dataset item; an [`Agent`] works on it by calling a [`ChatModel`] inside an
//! [`Episode`]; each model invocation is a [`Call`], one action of a Markov decision process; the
//! calls of one episode with its signals and its outcome are a [`Rollout`]; a [`Scorer`] turns an
//! answer into a reward. This crate has no tensors and no network, so that agents, datasets,
//! mathematics and reports build in seconds.
//!
//! An agent with a single model call, run against a scripted model:
//!
//! ```
//! use leyden_core::{
//!     Agent, AgentError, AgentOutput, ChatRequest, Episode, Message, Script, Task, async_trait,
//! };
//!
//! struct Once;
//!
//! #[async_trait]
//! impl Agent for Once {
//!     fn name(&self) -> &str {
//!         "once"
//!     }
//!
//!     fn roles(&self) -> &[&str] {
//!         &["answer"]
//!     }
//!
//!     async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError> {
//!         let messages = vec![Message::user(&task.question)];
//!         let request = ChatRequest { agent_role: "answer".into(), messages, ..Default::default() };
//!         let reply = episode.chat(request).await?;
//!         Ok(AgentOutput::of(Some(reply.message.content)))
//!     }
//! }
//!
//! let task = Task {
//!     id: "1".into(),
//!     question: "What is 2 + 3?".into(),
//!     gold: "5".into(),
//!     labels: vec![],
//!     fields: Default::default(),
//! };
//! let model = Script::of_messages([Message::assistant("5")]);
//! let episode = Episode::new(&model);
//! let output = futures::executor::block_on(Once.run(&task, &episode))?;
//! assert_eq!(output.answer.as_deref(), Some("5"));
//! assert_eq!(episode.calls(), 1);
//! # Ok::<(), AgentError>(())
//! ```

mod agent;
mod chat;
mod files;
mod golden;
mod lock;
mod passage;
pub mod record;
mod rollout;
pub mod rows;
mod scorer;
mod script;
mod seed;
mod task;

pub use agent::{Agent, AgentError, AgentOutput, Draft, Episode, EpisodeId, TurnClock};
pub use chat::{
    ChatModel, ChatReply, ChatRequest, FinishReason, Message, ModelError, ReplyTokens,
    ResponseFormat, Sampling, Speaker, ToolCall, ToolChoice, ToolSpec,
};
pub use files::{remove_unfinished_files, write_atomically};
pub use golden::{Family, GoldenError, GoldenReport, golden_cases, golden_file, shared_material};
pub use lock::{FileLock, probe_lock, take_lock};
pub use passage::Passage;
pub use rollout::{Call, Outcome, ProcessReward, Rollout, Signal, SignalKind};
pub use scorer::{Score, ScoreError, Scorer};
pub use script::Script;
pub use seed::SeedTree;
pub use task::Task;

/// Re-exported so that agents and models implement the traits without their own dependency.
pub use async_trait::async_trait;

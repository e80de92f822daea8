//! LightningRL in one file, from the first token to the updated weights.
//!
//! This does the same as `leyden run benchmarks/experiments/mini/calc.toml`, without configuration,
//! checkpoints or choice of algorithm, and reads top to bottom. The library crates generalise it
//! to any agent and any algorithm; a test checks that both agree, step for step.
//!
//! ```sh
//! cargo run --release -p leyden-train --example nano        # 20 steps, a second or two each
//! ```
//!
//! **The problem.** An agent is a program that calls a language model several times, with tools
//! in between, and gets a single reward at the end. It is unknown which of its calls was good.
//!
//! **The idea** (Agent Lightning, arXiv 2508.03680). Treat each call as one action of a Markov
//! decision process: the state is the prompt, the action is the response. A rollout of the agent
//! is then a list of (prompt, response) pairs with one reward at its end. Credit every call with
//! that reward, compare it with those of other rollouts of the same task, and train each call
//! like a single-turn prompt and response: any single-turn method applies.
//!
//! A step has four parts, the four sections below:
//!
//! 1. *sample*: run the agent several times on each of some tasks;
//! 2. *credit*: the return of each call, and its advantage;
//! 3. *loss*: the derivative of the objective with respect to each token's log-probability;
//! 4. *update*: back-propagation and an AdamW step.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use leyden_calc::{CalculatorAgent, Prompt, ROLE};
use leyden_calcx::{CalcxScorer, calculate};
use leyden_core::{ChatRequest, Message, Sampling, Scorer, SeedTree, Task, ToolCall};
use leyden_lm::formats::LoadedModel;
use leyden_lm::generate::{Completion, Engine, Limits, Request};
use leyden_lm::model::Parameters;
use leyden_lm::optim::clip_grad_norm;
use leyden_lm::policy::forest::{self, Row};
use leyden_lm::policy::{Cotangent, Evaluated, Policy, PolicyOptions};
use leyden_mini::MiniCalc;
use leyden_text::{ChatFormat, History};
use serde_json::Value;
use tch::{Device, Kind, Tensor, no_grad};

/// A Llama of a million parameters, pretrained on the tool protocol but not on arithmetic.
pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../suite/assets/tiny");
const SEED: u64 = 1;
const STEPS: usize = 180;
/// Tasks per step, and rollouts per task: the group within which rewards are compared.
const TASKS: usize = 16;
const SAMPLES: usize = 8;
/// Maximum calls per rollout, and tokens per response.
const MAX_TURNS: usize = 3;
const MAX_TOKENS: usize = 48;
const TEMPERATURE: f64 = 1.0;
const LEARNING_RATE: f64 = 7e-4;
const WARMUP: usize = 10;
/// Maximum tokens per forward and backward pass.
const MICRO_BATCH: usize = 16_384;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    tch::set_num_threads(2);
    let mut nano = Nano::new(Path::new(MODEL))?;
    for step in 1..=20 {
        let Figures { reward, loss } = nano.step(step)?;
        println!("step {step:3}  reward {reward:.3}  loss {loss:+.4}");
    }
    Ok(())
}

/// A model in training.
pub struct Nano {
    /// The weights and their gradients.
    policy: Policy,
    optimizer: AdamW,
    /// Generates with the policy's weights.
    engine: Engine,
    /// Converts between messages and tokens: tokenizer, chat template, tool calls.
    format: Arc<ChatFormat>,
    /// An endless source of word problems with their answers.
    world: MiniCalc,
}

/// Metrics of a step.
pub struct Figures {
    /// Mean over all rollouts.
    pub reward: f64,
    pub loss: f64,
}

impl Nano {
    pub fn new(model: &Path) -> Result<Self, Failure> {
        let LoadedModel { config, tensors, format } = LoadedModel::load(model)?;
        let (context, cache_tokens, prefill_tokens) = (config.max_positions, 262_144, MICRO_BATCH);
        let limits = Limits { context, cache_tokens, prefill_tokens };
        let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, true)?;
        let policy = Policy::new(config.clone(), parameters, PolicyOptions::default());
        let engine = Engine::new(config, policy.inference_weights()?, Device::Cpu, limits);
        let optimizer = AdamW::new(policy.trained().flat().numel());
        Ok(Self { policy, optimizer, engine, format, world: MiniCalc::new(0) })
    }

    /// Step number `step`, counted from 1.
    pub fn step(&mut self, step: usize) -> Result<Figures, Failure> {
        // 1. Sample. Every random draw has its own path in the seed tree (run, step, rollout,
        //    call, token), so it does not depend on other concurrent generation.
        self.engine.set_weights(self.policy.inference_weights()?);
        let numbers = (step - 1) * TASKS..step * TASKS;
        let first = SeedTree::new(SEED).child("order").child("first").seed() >> 25;
        let tasks: Vec<Task> = numbers.map(|n| self.world.train(first + n as u64)).collect();
        let seed = SeedTree::new(SEED).child("step").index(step as u64).child("rollout");
        let rollouts = sample(&tasks, &mut self.engine, &self.format, seed)?;
        let rewards: Vec<f64> = rollouts.iter().filter_map(|rollout| rollout.reward).collect();
        let reward = rewards.iter().sum::<f64>() / rewards.len().max(1) as f64;

        // 2. Credit: one number for each call.
        let calls = credit(rollouts);
        let advantages = grpo(&calls);

        // 3. and 4. Loss and update.
        let loss = self.update(&calls, &advantages, step)?;
        Ok(Figures { reward, loss })
    }
}

// ------------------------------------------------------------------------------- 1. sample

/// One run of the agent on a task.
struct Rollout {
    /// The task's index: rollouts of the same task are a group.
    group: usize,
    /// Prompt and response of every call as the model's own tokens: re-tokenising the text may
    /// give other tokens, which are not the actions taken.
    calls: Vec<Row>,
    /// `None` if the agent failed: such a rollout is excluded from training, not scored as wrong.
    reward: Option<f64>,
}

/// A running rollout: the agent's conversation with its model.
struct Conversation<'a> {
    task: &'a Task,
    messages: Vec<Message>,
    /// Tokens of the previous calls, which the next prompt extends.
    history: History,
    calls: Vec<Row>,
    answer: Option<String>,
    failed: bool,
}

/// `SAMPLES` rollouts of each task.
///
/// The agent is a loop (call the model, run its tool calls, repeat), and all rollouts run it in
/// lockstep: one turn of all of them is one batch of the engine.
fn sample(
    tasks: &[Task],
    engine: &mut Engine,
    format: &ChatFormat,
    seed: SeedTree,
) -> Result<Vec<Rollout>, Failure> {
    let agent = CalculatorAgent::new(Prompt::Compact, MAX_TURNS);
    let of_task = |task| Conversation {
        task,
        messages: agent.opening(&task.question),
        history: History::new(),
        calls: Vec::new(),
        answer: None,
        failed: false,
    };
    let mut conversations: Vec<Conversation> =
        tasks.iter().flat_map(|task| (0..SAMPLES).map(move |_| task)).map(of_task).collect();
    let stop_ids: Arc<[u32]> = format.stop_ids().iter().copied().collect();
    let sampling =
        Sampling { temperature: TEMPERATURE, max_tokens: MAX_TOKENS, ..Sampling::default() };
    for turn in 0..MAX_TURNS {
        let (mut pending, mut requests) = (Vec::new(), Vec::new());
        let is_open = |(_, c): &(usize, &Conversation)| c.answer.is_none() && !c.failed;
        for (id, conversation) in conversations.iter().enumerate().filter(is_open) {
            let question = ChatRequest {
                agent_role: ROLE.to_owned(),
                messages: conversation.messages.clone(),
                tools: CalculatorAgent::tools(),
                ..ChatRequest::default()
            };
            let prompt = format.prompt(&conversation.history, &question)?;
            let own = seed.index(id as u64).child("call").index(turn as u64);
            requests.push(Request {
                stop_ids: Arc::clone(&stop_ids),
                ..Request::new(id as u64, prompt.ids.clone(), sampling.clone(), own)
            });
            pending.push((id, question, prompt));
        }
        let completions = engine.generate(requests)?;
        for ((id, question, prompt), completion) in pending.into_iter().zip(completions) {
            let conversation = &mut conversations[id];
            // For example, a prompt that exceeds the context.
            let Ok(Completion { ids, finish, .. }) = completion else {
                conversation.failed = true;
                continue;
            };
            let reply = format.reply(&question, &ids, finish);
            conversation.calls.push(Row::call(&prompt.ids, &ids));
            conversation.history.push(prompt, ids, reply.message.clone());
            if reply.message.tool_calls.is_empty() && reply.malformed_call.is_none() {
                conversation.answer = Some(reply.message.content);
                continue;
            }
            let calls = reply.message.tool_calls.clone();
            conversation.messages.push(reply.message);
            if let Some(what) = reply.malformed_call {
                let name = "calculator".to_owned();
                let call = ToolCall { id: "call_invalid".to_owned(), name, arguments: Value::Null };
                conversation.messages.push(Message::tool(&call, format!("ERROR: {what}")));
            }
            for call in &calls {
                conversation.messages.push(Message::tool(call, run_tool(call)));
            }
        }
    }
    engine.forget_all();
    let finish = |(id, conversation): (usize, Conversation)| {
        // A tool call in the last turn leaves no answer, which is scored as wrong.
        let score = CalcxScorer.score(conversation.task, conversation.answer.as_deref());
        let reward = score.ok().filter(|_| !conversation.failed).map(|score| score.reward);
        Rollout { group: id / SAMPLES, calls: conversation.calls, reward }
    };
    Ok(conversations.into_iter().enumerate().map(finish).collect())
}

/// The calculator's result for a call; errors are returned to the model.
fn run_tool(call: &ToolCall) -> String {
    if call.name != "calculator" {
        return format!("ERROR: there is no tool `{}`, only `calculator`", call.name);
    }
    match call.arguments.get("expression") {
        Some(Value::String(text)) => calculate(text),
        Some(Value::Number(number)) => calculate(&number.to_string()),
        _ => "ERROR: the argument `expression` is missing".to_owned(),
    }
}

// ------------------------------------------------------------------------------- 2. credit

/// A call as a training example.
struct Call {
    row: Row,
    group: usize,
    /// Its return.
    credit: f64,
}

/// Identical credit: every call of a rollout earns the rollout's reward. It does not distinguish
/// between calls, but it is unbiased, and the comparison below provides the signal.
fn credit(rollouts: Vec<Rollout>) -> Vec<Call> {
    let mut all = Vec::new();
    for Rollout { group, calls, reward } in rollouts {
        let Some(credit) = reward else { continue };
        let written = calls.into_iter().filter(|row| row.action_tokens() > 0);
        all.extend(written.map(|row| Call { row, group, credit }));
    }
    all
}

/// GRPO (arXiv 2402.03300): a call's credit minus the mean of its group, in standard deviations.
/// `A = (c − mean) / (std + 1e-6)`, one number per call.
///
/// The group's mean replaces a critic: it estimates this policy's expected reward on this task. A
/// task whose rollouts all have the same reward has no gradient.
fn grpo(calls: &[Call]) -> Vec<f64> {
    let mut groups: HashMap<usize, Vec<f64>> = HashMap::new();
    for call in calls {
        groups.entry(call.group).or_default().push(call.credit);
    }
    let advantage = |call: &Call| {
        let credits = &groups[&call.group];
        if credits.iter().all(|credit| *credit == credits[0]) {
            return 0.0;
        }
        let n = credits.len() as f64;
        let mean = credits.iter().sum::<f64>() / n;
        let variance = credits.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (call.credit - mean) / (variance.sqrt() + 1e-6)
    };
    calls.iter().map(advantage).collect()
}

// --------------------------------------------------------------------------------- 3. loss

/// PPO's clipped surrogate of one token, and its derivative with respect to `new`.
///
/// `ρ = exp(new − old)` is the ratio of the token's probability to that when it was sampled, and
/// `L = −A ρ` is the surrogate. The clip removes the incentive to move beyond 0.8 or 1.3 within
/// one batch (arXiv 1707.06347; the higher upper bound is DAPO's); a third bound (dual clip)
/// limits the loss of tokens with a negative advantage and a large ratio.
fn ppo(new: f64, old: f64, advantage: f64) -> (f64, f64) {
    let ratio = (new - old).exp();
    let (plain, clipped) = (-advantage * ratio, -advantage * ratio.clamp(0.8, 1.3));
    if advantage < 0.0 && plain.max(clipped) > -3.0 * advantage {
        (-3.0 * advantage, 0.0)
    } else if clipped > plain {
        (clipped, 0.0)
    } else {
        (plain, plain)
    }
}

// ------------------------------------------------------------------------------- 4. update

impl Nano {
    /// One step of the optimiser on all calls; returns the loss.
    fn update(&mut self, calls: &[Call], advantages: &[f64], step: usize) -> Result<f64, Failure> {
        // Token mean: the loss is the mean over all generated tokens.
        let tokens: usize = calls.iter().map(|call| call.row.action_tokens()).sum();
        let weight = 1.0 / tokens as f64;
        // Calls with advantage 0 have no gradient, so they need no backward pass.
        let active: Vec<usize> = (0..calls.len()).filter(|&at| advantages[at] != 0.0).collect();
        let rows: Vec<Row> = active.iter().map(|&at| calls[at].row.clone()).collect();
        let mut loss = 0.0;
        self.policy.trained().zero_grad();
        // Rows are packed into a prefix forest: common prefixes (instructions, question, earlier
        // turns) are computed once. The gradient is the same as for separate rows.
        for pack in forest::pack(&rows, &vec![0; rows.len()], MICRO_BATCH)? {
            // The policy computes log-probabilities and receives their derivatives; the functions
            // above never see a tensor.
            let mut derivative = |now: &Evaluated| {
                let logp = pack.gather(&now.logp);
                let mut slopes = Vec::new();
                for (row, logp) in pack.rows.iter().zip(logp) {
                    let advantage = advantages[active[row.row]];
                    // There is one update per batch, so the sampling policy is the current one.
                    let of_token = |&new: &f64| {
                        let (token_loss, slope) = ppo(new, new, advantage);
                        loss += weight * token_loss;
                        weight * slope
                    };
                    slopes.push(logp.iter().map(of_token).collect::<Vec<f64>>());
                }
                Cotangent { logp: pack.scatter(&slopes), entropy: None }
            };
            self.policy.forward_backward(&pack, TEMPERATURE, &mut derivative)?;
        }
        // Clips the gradient norm to 1, which bounds the effect of a single batch.
        clip_grad_norm(self.policy.trained(), Some(1.0))?;
        self.optimizer.step(self.policy.trained(), learning_rate(step))?;
        Ok(loss)
    }
}

/// Linear warm-up, then linear decay to 0 at the last step.
fn learning_rate(step: usize) -> f64 {
    let done = step - 1;
    let factor = match done < WARMUP {
        true => (done + 1) as f64 / WARMUP as f64,
        false => 1.0 - (done - WARMUP) as f64 / (STEPS - WARMUP) as f64,
    };
    LEARNING_RATE * factor
}

/// AdamW (arXiv 1711.05101) without weight decay: each parameter moves along the running mean of
/// its gradient, divided by the root of the running mean of the gradient's square.
struct AdamW {
    first: Vec<f32>,
    second: Vec<f32>,
    steps: i32,
}

impl AdamW {
    const BETA1: f64 = 0.9;
    const BETA2: f64 = 0.95;
    const EPSILON: f32 = 1e-8;

    fn new(parameters: usize) -> Self {
        Self { first: vec![0.0; parameters], second: vec![0.0; parameters], steps: 0 }
    }

    fn step(&mut self, parameters: &Parameters, rate: f64) -> Result<(), Failure> {
        self.steps += 1;
        // Bias correction: both means start at 0.
        let rate = (-rate / (1.0 - Self::BETA1.powi(self.steps))) as f32;
        let root = (1.0 / (1.0 - Self::BETA2.powi(self.steps)).sqrt()) as f32;
        let (fresh1, fresh2) = ((1.0 - Self::BETA1) as f32, (1.0 - Self::BETA2) as f32);
        let mut values = Vec::<f32>::try_from(parameters.flat().detach())?;
        let gradient = parameters.grad().ok_or("the parameters are frozen")?;
        let gradient = Vec::<f32>::try_from(gradient)?;
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((value, g), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
            *first = fresh1.mul_add(g - *first, *first);
            *second = second.mul_add(Self::BETA2 as f32, g * (g * fresh2));
            let step = *first / (second.sqrt() * root + Self::EPSILON);
            *value = step.mul_add(rate, *value);
        }
        let mut flat = parameters.flat().shallow_clone();
        no_grad(|| flat.f_copy_(&Tensor::from_slice(&values)))?;
        Ok(())
    }
}

//! Demonstrations from the chains of Calc-X, and solutions or pretraining data of the worlds.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use leyden_calc::CalculatorAgent;
use leyden_calcx::chain::{self, Demonstration, Turn, answer_form};
use leyden_core::{Message, SeedTree, Task, ToolCall};
use leyden_mini::{MiniCalc, MiniLedger, Noise, Paraphrase, ledger};
use leyden_train::data::{Conversation, DemonstrationSource};
use serde_json::json;

use crate::demonstrations::task_index;

/// Demonstrations of mini-calc.
pub fn of_world(
    world: &Arc<MiniCalc>,
    agent: &CalculatorAgent,
    gold: bool,
) -> Box<dyn DemonstrationSource> {
    let (world, agent) = (Arc::clone(world), agent.clone());
    Box::new(WorldDemonstrations { world, agent, gold })
}

/// Demonstrations of mini-ledger. Pretraining data has problems of all lengths, so that the base
/// model knows the positions of the longest.
///
/// # Errors
/// None; the lengths are the world's own.
pub fn of_ledger(
    world: &MiniLedger,
    agent: &CalculatorAgent,
    gold: bool,
) -> Result<Box<dyn DemonstrationSource>> {
    let (mut world, agent) = (world.clone(), agent.clone());
    if !gold {
        world = world.with_lengths(ledger::LENGTHS)?;
    }
    Ok(Box::new(LedgerDemonstrations { world, agent, gold }))
}

/// Demonstrations of the training tasks.
///
/// # Errors
/// No task has a usable chain.
pub fn of_tasks(tasks: &[Task], agent: &CalculatorAgent) -> Result<Box<dyn DemonstrationSource>> {
    let (source, flaws) = ChainDemonstrations::of(tasks, agent.clone());
    for (flaw, count) in flaws {
        eprintln!("demonstrations: {count} of {} tasks skipped: {flaw}", tasks.len());
    }
    if source.is_empty() {
        bail!("data.train: no task has a chain that can be demonstrated");
    }
    Ok(Box::new(source))
}

/// Demonstrations from the chains of Calc-X tasks.
struct ChainDemonstrations {
    agent: CalculatorAgent,
    demonstrations: Vec<Demonstration>,
}

impl ChainDemonstrations {
    /// Keeps the tasks with a usable chain; returns the number of others by flaw.
    fn of(tasks: &[Task], agent: CalculatorAgent) -> (Self, BTreeMap<&'static str, usize>) {
        let found = chain::demonstrations(tasks);
        let flaws = found.flaws();
        (Self { agent, demonstrations: found.found }, flaws)
    }
}

impl DemonstrationSource for ChainDemonstrations {
    fn len(&self) -> Option<u64> {
        Some(self.demonstrations.len() as u64)
    }

    fn conversation(&self, index: u64) -> Conversation {
        let demonstration = &self.demonstrations[index as usize];
        conversation(&self.agent, &demonstration.task.question, &demonstration.turns)
    }
}

/// Either solved training tasks of mini-calc, or the pretraining data of its base model,
/// alternating: demonstrations with correct protocol and copying but mostly a wrong expression
/// (see [`Noise`]), and paraphrased problems (see [`leyden_mini::Paraphrase`]).
struct WorldDemonstrations {
    world: Arc<MiniCalc>,
    agent: CalculatorAgent,
    gold: bool,
}

impl DemonstrationSource for WorldDemonstrations {
    fn len(&self) -> Option<u64> {
        None
    }

    fn conversation(&self, index: u64) -> Conversation {
        if !self.gold && index % 2 == 1 {
            return self.retelling(index);
        }
        let task = self.world.train(task_index(self.gold, index));
        let seed = SeedTree::new(index).child("noise");
        let operations = task.label("operations").and_then(|n| n.parse().ok()).unwrap_or(1);
        let noise = if self.gold { Noise::none() } else { Noise::of(operations) };
        let expression = match noise.draw(&task, seed) {
            Ok(expression) => expression,
            // The stream has only tasks of this world.
            Err(error) => unreachable!("{error}"),
        };
        let output = leyden_calcx::calculate(&expression);
        let answer = answer_form(output.rsplit(" = around ").next().unwrap_or(&output));
        let turns = [
            Turn::Assistant { text: String::new(), call: Some(expression) },
            Turn::Tool { output },
            Turn::Assistant { text: answer, call: None },
        ];
        conversation(&self.agent, &task.question, &turns)
    }
}

/// The instruction to paraphrase. It follows the problem, so that the model encodes the problem
/// the same way whether it has to solve or to paraphrase it.
const RETELL: &str = "tell it in other words.";

impl WorldDemonstrations {
    fn retelling(&self, index: u64) -> Conversation {
        let Paraphrase { original, paraphrase } = self.world.retelling(index);
        let turns = [Turn::Assistant { text: paraphrase, call: None }];
        conversation(&self.agent, &format!("{original} {RETELL}"), &turns)
    }
}

/// Either solved training tasks of mini-ledger, or the pretraining data of its base model:
/// attempts with wrong steps and repairs (see [`ledger::Noise`]).
struct LedgerDemonstrations {
    world: MiniLedger,
    agent: CalculatorAgent,
    gold: bool,
}

impl DemonstrationSource for LedgerDemonstrations {
    fn len(&self) -> Option<u64> {
        None
    }

    fn conversation(&self, index: u64) -> Conversation {
        let noise = if self.gold { ledger::Noise::none() } else { ledger::Noise::default() };
        let (index, seed) = (task_index(self.gold, index), SeedTree::new(index));
        let shown = self.world.demonstration(index, &noise, seed);
        conversation(&self.agent, &shown.task.question, &shown.turns())
    }
}

/// The agent's opening messages followed by `turns`.
fn conversation(agent: &CalculatorAgent, question: &str, turns: &[Turn]) -> Conversation {
    let mut messages = agent.opening(question);
    let mut last_call = None;
    for (number, turn) in turns.iter().enumerate() {
        match turn {
            Turn::Assistant { text, call: Some(expression) } => {
                let call = ToolCall {
                    id: format!("call_{number}"),
                    name: "calculator".to_owned(),
                    arguments: json!({ "expression": expression }),
                };
                let mut message = Message::assistant(text.clone());
                message.tool_calls.push(call.clone());
                messages.push(message);
                last_call = Some(call);
            }
            Turn::Assistant { text, call: None } => messages.push(Message::assistant(text.clone())),
            Turn::Tool { output } => {
                if let Some(call) = &last_call {
                    messages.push(Message::tool(call, output.clone()));
                }
            }
        }
    }
    Conversation { messages, tools: agent.own_tools() }
}

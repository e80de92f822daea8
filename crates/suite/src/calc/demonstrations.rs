//! Conversations as they should go, made from the chains of Calc-X, or as a base model should
//! know them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use leyden_calc::CalculatorAgent;
use leyden_calcx::chain::{self, Demonstration, Turn, answer_form};
use leyden_core::{Message, SeedTree, Task, ToolCall};
use leyden_mini::{MiniCalc, Noise, Retelling};
use leyden_train::data::{Conversation, DemonstrationSource};
use serde_json::json;

use crate::benchmark::Train;
use crate::demonstrations::lesson;

/// Demonstrations of the training tasks, or of the world.
///
/// # Errors
/// Where no task has a chain that can be shown.
pub fn of(
    train: Train<'_>,
    world: &Arc<MiniCalc>,
    agent: &CalculatorAgent,
    gold: bool,
) -> Result<Box<dyn DemonstrationSource>> {
    let Train::Tasks(tasks) = train else {
        let (world, agent) = (Arc::clone(world), agent.clone());
        return Ok(Box::new(WorldDemonstrations { world, agent, gold }));
    };
    let (source, flaws) = ChainDemonstrations::of(tasks, agent.clone());
    for (flaw, count) in flaws {
        eprintln!("demonstrations: {count} of {} tasks left out: {flaw}", tasks.len());
    }
    if source.is_empty() {
        bail!("data.train: no task has a chain that can be shown");
    }
    Ok(Box::new(source))
}

/// Demonstrations made from the chains of Calc-X tasks.
struct ChainDemonstrations {
    agent: CalculatorAgent,
    demonstrations: Vec<Demonstration>,
}

impl ChainDemonstrations {
    /// Keeps the tasks whose chain can be shown; returns the others by what is wrong.
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

/// Either the training tasks of mini-calc, solved, or what its base model is raised on, in
/// turn: demonstrations whose protocol and copying are right and whose expression mostly is not
/// (see [`Noise`]), and problems told in other words (see [`leyden_mini::Retelling`]).
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
        let task = self.world.train(lesson(self.gold, index));
        let seed = SeedTree::new(index).child("noise");
        let operations = task.label("operations").and_then(|n| n.parse().ok()).unwrap_or(1);
        let noise = if self.gold { Noise::none() } else { Noise::of(operations) };
        let expression = match noise.draw(&task, seed) {
            Ok(expression) => expression,
            // The stream makes only tasks of this world.
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

/// What asks for a retelling. It follows the problem, so that the model reads the problem
/// before it can know whether to solve or to retell it, and so reads it alike.
const RETELL: &str = "tell it in other words.";

impl WorldDemonstrations {
    fn retelling(&self, index: u64) -> Conversation {
        let Retelling { told, retold } = self.world.retelling(index);
        let turns = [Turn::Assistant { text: retold, call: None }];
        conversation(&self.agent, &format!("{told} {RETELL}"), &turns)
    }
}

/// The conversation of `turns` after the agent's own opening.
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
    Conversation { messages, tools: CalculatorAgent::tools() }
}

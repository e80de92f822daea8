//! Demonstrations of the calculator agent: conversations as they should go, or as a base
//! model should know them.

use std::collections::BTreeMap;

use leyden_calc::CalculatorAgent;
use leyden_calcx::chain::{self, Demonstration, Turn, answer_form};
use leyden_core::{Message, SeedTree, Task, ToolCall};
use leyden_mini::{MiniCalc, Noise, Retelling};
use leyden_train::data::{Conversation, DemonstrationSource};
use serde_json::json;

/// Demonstrations made from the chains of Calc-X tasks.
pub struct ChainDemonstrations {
    agent: CalculatorAgent,
    demonstrations: Vec<Demonstration>,
}

impl ChainDemonstrations {
    /// Keeps the tasks whose chain can be shown; returns the others by what is wrong.
    pub fn of(tasks: &[Task], agent: CalculatorAgent) -> (Self, BTreeMap<&'static str, usize>) {
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

/// What the base model of mini-calc is raised on, in turn: demonstrations whose protocol and
/// copying are right and whose expression mostly is not (see [`Noise`]), and problems told in
/// other words (see [`leyden_mini::Retelling`]).
pub struct NoisyDemonstrations {
    world: MiniCalc,
    agent: CalculatorAgent,
}

/// Tasks of the base model begin here in the stream: runs from its start never meet them.
const FIRST_TASK: u64 = 1 << 40;

impl NoisyDemonstrations {
    pub fn new(world: MiniCalc, agent: CalculatorAgent) -> Self {
        Self { world, agent }
    }
}

impl DemonstrationSource for NoisyDemonstrations {
    fn len(&self) -> Option<u64> {
        None
    }

    fn conversation(&self, index: u64) -> Conversation {
        if index % 2 == 1 {
            return self.retelling(index);
        }
        let task = self.world.train(FIRST_TASK + index);
        let seed = SeedTree::new(index).child("noise");
        let operations = task.label("operations").and_then(|n| n.parse().ok()).unwrap_or(1);
        let expression = match Noise::of(operations).draw(&task, seed) {
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

impl NoisyDemonstrations {
    fn retelling(&self, index: u64) -> Conversation {
        let Retelling { told, retold } = self.world.retelling(index);
        let turns = [Turn::Assistant { text: retold, call: None }];
        conversation(&self.agent, &format!("{told} {RETELL}"), &turns)
    }
}

/// The conversation of `turns` after the agent's own opening.
pub fn conversation(agent: &CalculatorAgent, question: &str, turns: &[Turn]) -> Conversation {
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

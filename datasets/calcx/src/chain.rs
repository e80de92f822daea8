//! Calc-X chains: worked solutions with calculator calls, and their conversion to conversations
//! for supervised training.
//!
//! A chain is text with three tags, `<gadget id="calculator">`, `<output>` and `<result>`. It is
//! not XML (texts contain bare `<` and unknown tags), so only these tags are parsed; everything
//! else stays text.

use std::collections::BTreeMap;

use leyden_core::Task;
use serde_json::Value;

use crate::scorer::same_result;
use crate::{calculator, equation};

/// One element of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Text(String),
    /// A call of the tool `id`.
    Gadget {
        id: String,
        expression: String,
    },
    /// The tool's response.
    Output(String),
    /// The final result.
    Result(String),
}

/// Opening and closing tags of the elements.
const GADGET: (&str, &str) = ("<gadget id=\"", "</gadget>");
const OUTPUT: (&str, &str) = ("<output>", "</output>");
const RESULT: (&str, &str) = ("<result>", "</result>");

/// Splits a chain into its steps. Texts are trimmed and empty ones dropped; an unclosed tag is
/// text.
pub fn parse(chain: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut text_from, mut at) = (0, 0);
    // Elements cannot begin after the last closing tag. Without this bound, a chain of opening
    // tags would be searched to its end once for each.
    let closed = |tag: &str| chain.rfind(tag).unwrap_or(0);
    let (output, result, gadget) = (closed(OUTPUT.1), closed(RESULT.1), closed(GADGET.1));
    while let Some(offset) = chain[at..].find('<') {
        at += offset;
        let rest = &chain[at..];
        let found = if rest.starts_with(OUTPUT.0) && at < output {
            element(rest, OUTPUT).map(|(content, length)| (Step::Output(content), length))
        } else if rest.starts_with(RESULT.0) && at < result {
            element(rest, RESULT).map(|(content, length)| (Step::Result(content), length))
        } else if rest.starts_with(GADGET.0) && at < gadget {
            gadget_element(rest)
        } else {
            None
        };
        match found {
            Some((step, length)) => {
                push_text(&mut steps, &chain[text_from..at]);
                steps.push(step);
                at += length;
                text_from = at;
            }
            None => at += 1,
        }
    }
    push_text(&mut steps, &chain[text_from..]);
    steps
}

fn push_text(steps: &mut Vec<Step>, text: &str) {
    let text = text.trim();
    if !text.is_empty() {
        steps.push(Step::Text(unescaped(text)));
    }
}

/// The content of the element at the start of `rest`, and the element's length.
fn element(rest: &str, (open, close): (&str, &str)) -> Option<(String, usize)> {
    let (content, _) = rest.strip_prefix(open)?.split_once(close)?;
    Some((unescaped(content.trim()), open.len() + content.len() + close.len()))
}

fn gadget_element(rest: &str) -> Option<(Step, usize)> {
    let (id, after) = rest.strip_prefix(GADGET.0)?.split_once('"')?;
    let (content, length) = element(after, (">", GADGET.1))?;
    let step = Step::Gadget { id: id.to_owned(), expression: content };
    Some((step, GADGET.0.len() + id.len() + 1 + length))
}

/// Undoes the escapes of the dataset.
fn unescaped(text: &str) -> String {
    // `&amp;` last, or `&amp;lt;` would be unescaped twice.
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Writes steps as a chain; the inverse of [`parse`].
pub fn render(steps: &[Step]) -> String {
    let written = steps.iter().map(|step| match step {
        Step::Text(text) => escaped(text),
        Step::Gadget { id, expression } => {
            format!("<gadget id=\"{id}\">{}</gadget>", escaped(expression))
        }
        Step::Output(output) => format!("<output>{}</output>", escaped(output)),
        Step::Result(result) => format!("<result>{}</result>", escaped(result)),
    });
    written.collect::<Vec<_>>().join("\n")
}

/// One turn of a demonstration, after the system and user messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The agent's text, and the expression that it passes to the calculator.
    Assistant { text: String, call: Option<String> },
    /// The calculator's response.
    Tool { output: String },
}

/// A conversation that solves a task: alternating assistant and tool turns, ending with the answer
/// in the form `### ANSWER: x ###`.
#[derive(Debug, Clone, PartialEq)]
pub struct Demonstration {
    pub task: Task,
    pub turns: Vec<Turn>,
}

impl Demonstration {
    /// Number of tool calls.
    pub fn calls(&self) -> usize {
        self.turns.iter().filter(|turn| matches!(turn, Turn::Tool { .. })).count()
    }
}

/// Why a task's chain is unsuitable for training.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("it has no chain")]
    NoChain,
    #[error("its chain does not end in a result")]
    NoResult,
    #[error("its chain ends in {chain}, but its result is {result}")]
    OtherResult { chain: String, result: String },
    #[error("its chain calls the unknown tool {0}")]
    UnknownTool(String),
    #[error("its chain has a call without an output, or an output without a call")]
    Unpaired,
    #[error("its chain gives {written} for {expression}, but the calculator gives {ours}")]
    OtherOutput { expression: String, written: String, ours: String },
}

impl Flaw {
    /// Short name of the kind of flaw, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoChain => "no chain",
            Self::NoResult => "no result",
            Self::OtherResult { .. } => "other result",
            Self::UnknownTool(_) => "unknown tool",
            Self::Unpaired => "unpaired call",
            Self::OtherOutput { .. } => "other output",
        }
    }
}

/// The answer in the form that the scorer expects.
pub fn answer_form(answer: &str) -> String {
    format!("### ANSWER: {answer} ###")
}

/// Converts a task's chain, or its equation in prefix notation (MAWPS) if it has no chain, to a
/// conversation. A chain without calls gives a single turn.
///
/// # Errors
/// A flaw of the chain: outputs must equal this calculator's, and the chain must end in the task's
/// result (by the Calc-X rule for equality).
pub fn demonstration(task: &Task) -> Result<Demonstration, Flaw> {
    let chain = task.fields.get("chain").and_then(Value::as_str).unwrap_or("");
    let mut steps = if chain.trim().is_empty() {
        equation_steps(task).ok_or(Flaw::NoChain)?
    } else {
        parse(chain)
    };
    match steps.pop() {
        Some(Step::Result(result)) if same_result(&result, &task.gold) => {}
        Some(Step::Result(chain)) => {
            return Err(Flaw::OtherResult { chain, result: task.gold.clone() });
        }
        _ => return Err(Flaw::NoResult),
    }
    let mut turns = Vec::new();
    let mut text = String::new();
    let mut steps = steps.into_iter();
    while let Some(step) = steps.next() {
        match step {
            Step::Text(more) => append(&mut text, &more),
            Step::Gadget { id, .. } if id != "calculator" => return Err(Flaw::UnknownTool(id)),
            Step::Gadget { expression, .. } => {
                let Some(Step::Output(written)) = steps.next() else {
                    return Err(Flaw::Unpaired);
                };
                let output = checked(&expression, written)?;
                let text = std::mem::take(&mut text);
                turns.push(Turn::Assistant { text, call: Some(expression) });
                turns.push(Turn::Tool { output });
            }
            Step::Output(_) => return Err(Flaw::Unpaired),
            // A result before the end is a premature answer.
            Step::Result(_) => return Err(Flaw::NoResult),
        }
    }
    append(&mut text, &answer_form(&task.gold));
    turns.push(Turn::Assistant { text, call: None });
    Ok(Demonstration { task: task.clone(), turns })
}

/// The steps of a task's equation: a single call of the calculator.
fn equation_steps(task: &Task) -> Option<Vec<Step>> {
    let expression = equation::infix(task)?;
    let output = calculator::calculate(&expression);
    let result = output.clone();
    let id = "calculator".to_owned();
    Some(vec![Step::Gadget { id, expression }, Step::Output(output), Step::Result(result)])
}

fn append(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(more);
}

fn checked(expression: &str, written: String) -> Result<String, Flaw> {
    let ours = calculator::calculate(expression);
    if ours == written {
        return Ok(ours);
    }
    Err(Flaw::OtherOutput { expression: expression.to_owned(), written, ours })
}

/// The demonstrations of several tasks, and the tasks without one.
#[derive(Debug, Default)]
pub struct Demonstrations {
    pub found: Vec<Demonstration>,
    /// Task id and flaw.
    pub flawed: Vec<(String, Flaw)>,
}

impl Demonstrations {
    /// Number of flawed tasks by kind of flaw.
    pub fn flaws(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for (_, flaw) in &self.flawed {
            *counts.entry(flaw.kind()).or_default() += 1;
        }
        counts
    }
}

/// Converts all tasks with suitable chains to conversations.
pub fn demonstrations<'a>(tasks: impl IntoIterator<Item = &'a Task>) -> Demonstrations {
    let mut all = Demonstrations::default();
    for task in tasks {
        match demonstration(task) {
            Ok(found) => all.found.push(found),
            Err(flaw) => all.flawed.push((task.id.clone(), flaw)),
        }
    }
    all
}

#[cfg(test)]
mod tests;

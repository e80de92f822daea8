//! A problem: a plan told in the sentences of a story.

use leyden_core::Task;
use serde_json::{Map, json};

use super::plan::{Operand, Plan};
use super::stories::{NAMING, SIDE, Story, Wordings, stories};
use super::words::Words;
use crate::draws::Draws;

/// Share of the sentences of a held-out problem that have a held-out wording, apart from the one
/// that always has.
const HELD_OUT: f64 = 0.3;

/// A wording of a step or of a sentence beside the story.
#[derive(Debug, Clone)]
pub struct Wording {
    /// Story, operation and number: `tank/-#3`, `tank/-earlier#held1`, `side#2`.
    pub id: String,
    /// The sentence with its slots: `{p}`, `{n}`, ….
    pub text: &'static str,
    /// Whether the wording is reserved for test.
    pub held_out: bool,
}

/// What a problem is drawn from.
pub(super) struct Request {
    pub id: String,
    pub length: usize,
    /// Whether at least one sentence has a held-out wording.
    pub held_out: bool,
    /// Whether the numbers are reserved for test.
    pub reserved: bool,
}

pub(super) struct Problem {
    pub plan: Plan,
    /// The wording of every step.
    pub steps: Vec<Wording>,
    sides: Vec<Wording>,
    story: &'static Story,
    opening: &'static str,
    question: &'static str,
    words: Words,
    request: Request,
}

impl Problem {
    pub fn draw(request: Request, draws: &mut Draws) -> Self {
        let distractors = draws.below(3);
        let plan = Plan::draw(request.length, distractors, request.reserved, draws);
        let stories = stories();
        let story = *draws.choose(&stories);
        let sentences = plan.steps.len() + distractors;
        let always = request.held_out.then(|| draws.below(sentences));
        let held_out = |i: usize, draws: &mut Draws| {
            Some(i) == always || (request.held_out && draws.chance(HELD_OUT))
        };
        let mut steps = Vec::new();
        for (i, step) in plan.steps.iter().enumerate() {
            let earlier = matches!(step.operand, Operand::Earlier(_));
            let fits = |w: &&Wordings| w.operator == step.operator && w.earlier == earlier;
            let Some(wordings) = story.steps.iter().find(fits) else {
                panic!("the story {} has no wording of {step:?}", story.name)
            };
            let choices = wordings.all(story.name, held_out(i, draws));
            steps.push(draws.choose(&choices).clone());
        }
        let mut sides: Vec<Wording> = Vec::new();
        for i in plan.steps.len()..sentences {
            let mut choices = sides_of(held_out(i, draws));
            choices.retain(|side| sides.iter().all(|other| other.id != side.id));
            sides.push(draws.choose(&choices).clone());
        }
        let opening = *draws.choose::<&str>(story.openings);
        let question = *draws.choose::<&str>(story.questions);
        let words = Words::draw(draws);
        Self { plan, steps, sides, story, opening, question, words, request }
    }

    /// The question: the opening, the steps in their order with the sentences beside the story
    /// between them, and what is asked.
    fn text(&self) -> String {
        let named = self.plan.named();
        let time_of = |step: usize| named.iter().position(|s| *s == step);
        let mut sentences = vec![self.words.fill(self.opening, Some(self.plan.start), 0)];
        let side = |place: usize, sentences: &mut Vec<String>| {
            for (distractor, wording) in self.plan.distractors.iter().zip(&self.sides) {
                if distractor.before == place {
                    sentences.push(self.words.fill(wording.text, Some(distractor.number), 0));
                }
            }
        };
        for (i, (step, wording)) in self.plan.steps.iter().zip(&self.steps).enumerate() {
            side(i, &mut sentences);
            let (number, time) = match step.operand {
                Operand::Number(number) => (Some(number), 0),
                Operand::Earlier(step) => (None, time_of(step).unwrap_or(0)),
            };
            sentences.push(self.words.fill(wording.text, number, time));
            if let Some(time) = time_of(i) {
                sentences.push(self.words.fill(NAMING, None, time));
            }
        }
        side(self.plan.steps.len(), &mut sentences);
        sentences.push(self.words.fill(self.question, None, 0));
        sentences.join(" ")
    }

    /// The expressions of the steps as calculator input, earlier results written as the calculator
    /// writes them.
    pub fn expressions(&self) -> Vec<String> {
        let mut left = self.plan.start;
        let mut all = Vec::new();
        for (step, result) in self.plan.steps.iter().zip(&self.plan.results) {
            let right = match step.operand {
                Operand::Number(number) => number,
                Operand::Earlier(named) => self.plan.results[named],
            };
            all.push(format!("{} {} {}", written(left), step.operator.symbol(), written(right)));
            left = *result;
        }
        all
    }

    pub fn task(&self) -> Task {
        let expressions = self.expressions();
        let ids = |list: &[Wording]| list.iter().map(|w| w.id.clone()).collect::<Vec<_>>();
        let distractors: Vec<i64> = self.plan.distractors.iter().map(|d| d.number).collect();
        let mut fields = Map::new();
        fields.insert("chain".into(), json!(self.chain(&expressions)));
        fields.insert("expressions".into(), json!(expressions));
        fields.insert("wordings".into(), json!(ids(&self.steps)));
        fields.insert("side_wordings".into(), json!(ids(&self.sides)));
        fields.insert("side_numbers".into(), json!(distractors));
        fields.insert("source".into(), json!("mini-ledger"));
        Task {
            id: self.request.id.clone(),
            question: self.text(),
            gold: self.plan.answer().to_string(),
            labels: self.labels(),
            fields,
        }
    }

    fn labels(&self) -> Vec<(String, String)> {
        let length = self.plan.steps.len();
        let held_out = self.steps.iter().chain(&self.sides).any(|wording| wording.held_out);
        let seen = if held_out { "held_out" } else { "seen" };
        [
            ("steps", length.to_string()),
            ("horizon", super::horizon(length).to_string()),
            ("template", seen.to_string()),
            ("distractors", self.plan.distractors.len().to_string()),
            ("recalls", self.plan.named().len().to_string()),
            ("story", self.story.name.to_string()),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .to_vec()
    }

    /// The solution in Calc-X's markup: one call of the calculator for every step, then the result.
    fn chain(&self, expressions: &[String]) -> String {
        let call = |(expression, result): (&String, &i64)| {
            let output = written(*result);
            format!(
                "<gadget id=\"calculator\">{expression}</gadget>\n<output>{output}</output>\n\n"
            )
        };
        let calls: String = expressions.iter().zip(&self.plan.results).map(call).collect();
        format!("{calls}<result>{}</result>", written(self.plan.answer()))
    }
}

impl Wordings {
    /// The training wordings or the held-out wordings.
    fn all(&self, story: &str, held_out: bool) -> Vec<Wording> {
        let earlier = if self.earlier { "earlier" } else { "" };
        let name = format!("{story}/{}{earlier}", self.operator.symbol());
        numbered(&name, if held_out { self.held_out } else { self.training }, held_out)
    }
}

fn sides_of(held_out: bool) -> Vec<Wording> {
    numbered("side", if held_out { SIDE.1 } else { SIDE.0 }, held_out)
}

fn numbered(name: &str, texts: &[&'static str], held_out: bool) -> Vec<Wording> {
    let mark = if held_out { "held" } else { "" };
    let wording = |(i, text): (usize, &&'static str)| Wording {
        id: format!("{name}#{mark}{}", i + 1),
        text,
        held_out,
    };
    texts.iter().enumerate().map(wording).collect()
}

/// All wordings of steps and of sentences beside the story, in the order of the tables.
pub(super) fn wordings() -> Vec<Wording> {
    let steps = stories().into_iter().flat_map(|story| {
        story.steps.iter().flat_map(|w| [w.all(story.name, false), w.all(story.name, true)])
    });
    steps.chain([sides_of(false), sides_of(true)]).flatten().collect()
}

/// An intermediate result as the calculator writes it: `_` before the last three of four digits.
fn written(n: i64) -> String {
    if n < 1_000 { n.to_string() } else { format!("{}_{:03}", n / 1_000, n % 1_000) }
}

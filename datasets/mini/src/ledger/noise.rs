//! Demonstrations in which the choices of a step are wrong some of the time.
//!
//! A base model for reinforcement learning has to know the language, the protocol and how to copy
//! results, but not what every sentence means; the rewards train that. In a demonstration the
//! calls are well formed and each continues from the last result, copied as the calculator wrote
//! it. Wrong are, some of the time, the operation, the operand, and the use of a number that does
//! not matter. Steps after a wrong one continue from its result.
//!
//! A fixed third of the wordings is misread ([`is_misread`]): their operation is wrong most of the
//! time, so that the most likely answer of the base model is wrong too. Otherwise a model that
//! always takes its most likely choice would solve nearly everything without training, and
//! reinforcement learning would only have to make it less random.
//!
//! A step can be repaired: a call may use any number, so an agent that doubts a result calls the
//! calculator again with the number before it, which the conversation still shows, and continues
//! from the new result. Results of right steps are whole numbers from 1 to 9,999, so a fraction, a
//! negative number or zero shows that the last step or an earlier one was wrong. Demonstrations
//! contain such repairs: a wrong step is followed by the right one on the same number, more often
//! if its result cannot be right. If a step is right but its result cannot be, because an earlier
//! step was wrong, another operation replaces it: the agent cannot know which of the two was wrong,
//! and the attempt goes on with whole numbers, which are easier to copy.

use leyden_calcx::Turn;
use leyden_calcx::calculate;
use leyden_calcx::chain::answer_form;
use leyden_core::{SeedTree, Task};

use super::MiniLedger;
use super::plan::{LARGEST_RESULT, Operand, Step};
use super::problem::Problem;
use crate::calc::Operator;
use crate::draws::Draws;

/// Repairs in one demonstration at most.
const MOST_REPAIRS: usize = 3;

/// Calls in one demonstration at most: twelve steps, two numbers that do not matter, three repairs.
pub const MOST_CALLS: usize = 12 + 2 + MOST_REPAIRS;

/// Error rates of demonstrations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Probability that the operation of a step is right where its wording is not misread.
    pub right: f64,
    /// Probability that the operation of a step is right where its wording is misread. Equal to
    /// `right`, all wordings are equally difficult.
    pub misread: f64,
    /// Share of wrong operations that are the default: plus, or minus where plus is right. The
    /// others are uniform over the two remaining operations.
    pub lazy: f64,
    /// Probability that the operand of a step is another number of the question.
    pub stray: f64,
    /// Probability that a number that does not matter is used, in a call of its own.
    pub distracted: f64,
    /// Probability that a step is repaired if its result cannot be right and the one before it
    /// could.
    pub repaired: f64,
    /// Probability that a wrong step is repaired although its result could be right.
    pub noticed: f64,
}

impl Default for Noise {
    /// About a seventh of the demonstrations has the right answer over the mix of the test split.
    fn default() -> Self {
        Self {
            right: 0.8,
            misread: 0.35,
            lazy: 0.75,
            stray: 0.03,
            distracted: 0.2,
            repaired: 0.8,
            noticed: 0.1,
        }
    }
}

impl Noise {
    /// No noise: the correct steps.
    pub fn none() -> Self {
        Self {
            right: 1.0,
            misread: 1.0,
            lazy: 0.0,
            stray: 0.0,
            distracted: 0.0,
            repaired: 0.0,
            noticed: 0.0,
        }
    }
}

/// Whether a training wording of a step (by id) is misread. A fixed property of a third of them, in
/// every story and every kind of step.
pub fn is_misread(id: &str) -> bool {
    let Some((kind, number)) = id.split_once('#') else { return false };
    let offset = SeedTree::new(0).child("mini-ledger misread").child(kind).seed() % 3;
    number.parse::<u64>().is_ok_and(|number| (number + offset).is_multiple_of(3))
}

/// Why a demonstration makes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The step of this number, from 0.
    Step(usize),
    /// The step of this number again: the right one if it was wrong, else another one because the
    /// result cannot be right.
    Repair(usize),
    /// A number that does not matter.
    Distractor,
}

/// One call of the calculator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub expression: String,
    /// The calculator's response.
    pub output: String,
    pub purpose: Purpose,
}

/// A task and the calls of an attempt at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Demonstration {
    pub task: Task,
    /// From two to [`MOST_CALLS`] calls.
    pub calls: Vec<Call>,
    /// The last result, which the attempt gives as its answer.
    pub answer: String,
}

impl Demonstration {
    /// The attempt as a conversation: the calls with their outputs, then the final message.
    pub fn turns(&self) -> Vec<Turn> {
        let call = |call: &Call| {
            let (expression, output) = (call.expression.clone(), call.output.clone());
            [Turn::Assistant { text: String::new(), call: Some(expression) }, Turn::Tool { output }]
        };
        let answer = Turn::Assistant { text: answer_form(&self.answer), call: None };
        self.calls.iter().flat_map(call).chain([answer]).collect()
    }
}

impl MiniLedger {
    /// An attempt at training task number `index`, with errors drawn from `seed`.
    pub fn demonstration(&self, index: u64, noise: &Noise, seed: SeedTree) -> Demonstration {
        let problem = self.training_problem(index);
        let attempt = Attempt::new(&problem, noise, Draws::new(seed.child("noise")));
        let (calls, answer) = attempt.run();
        Demonstration { task: problem.task(), calls, answer }
    }
}

/// An attempt in progress.
struct Attempt<'a> {
    problem: &'a Problem,
    noise: &'a Noise,
    draws: Draws,
    calls: Vec<Call>,
    repairs: usize,
    /// The running result as the calculator wrote it.
    value: String,
    /// The result after every step so far.
    results: Vec<String>,
}

impl<'a> Attempt<'a> {
    fn new(problem: &'a Problem, noise: &'a Noise, draws: Draws) -> Self {
        let value = problem.plan.start.to_string();
        Self { problem, noise, draws, calls: Vec::new(), repairs: 0, value, results: Vec::new() }
    }

    fn run(mut self) -> (Vec<Call>, String) {
        for i in 0..self.problem.plan.steps.len() {
            self.distractors(i);
            self.step(i);
        }
        self.distractors(self.problem.plan.steps.len());
        (self.calls, self.value)
    }

    /// Uses the numbers that do not matter before step `before`, some of the time.
    fn distractors(&mut self, before: usize) {
        for distractor in &self.problem.plan.distractors {
            if distractor.before == before && self.draws.chance(self.noise.distracted) {
                let operator = *self.draws.choose(&[Operator::Add, Operator::Subtract]);
                let expression = self.expression(operator, &distractor.number.to_string());
                self.call(expression, Purpose::Distractor);
            }
        }
    }

    fn step(&mut self, i: usize) {
        let step = self.problem.plan.steps[i];
        let operand = match step.operand {
            Operand::Number(number) => number.to_string(),
            Operand::Earlier(named) => self.results[named].clone(),
        };
        let right = self.expression(step.operator, &operand);
        let default = self.expression(default_for(step.operator), &operand);
        let chosen = self.chosen(i, step, &operand);
        let wrong = chosen != right;
        let plausible = can_be_right(&self.value);
        self.call(chosen, Purpose::Step(i));
        let p = match (plausible, can_be_right(&self.value)) {
            (true, false) => self.noise.repaired,
            _ if wrong => self.noise.noticed,
            _ => 0.0,
        };
        if self.repairs < MOST_REPAIRS && self.draws.chance(p) {
            self.repairs += 1;
            self.call(if wrong { right } else { default }, Purpose::Repair(i));
        }
        self.results.push(self.value.clone());
    }

    /// The expression for a step, wrong at the given rates.
    fn chosen(&mut self, i: usize, step: Step, operand: &str) -> String {
        let misread = is_misread(&self.problem.steps[i].id);
        let right = if misread { self.noise.misread } else { self.noise.right };
        let operator = self.operator(step.operator, right);
        let numbers: Vec<String> = self.problem.plan.numbers().map(|n| n.to_string()).collect();
        let stray = self.draws.chance(self.noise.stray);
        let other = self.draws.choose(&numbers).clone();
        let drawn = self.expression(operator, if stray { &other } else { operand });
        let wrong = stray || operator != step.operator;
        if !wrong || is_moderate(&drawn) {
            return drawn;
        }
        // The default is wrong too, and sums stay moderate.
        self.expression(default_for(step.operator), operand)
    }

    fn operator(&mut self, right: Operator, p: f64) -> Operator {
        if self.draws.chance(p) {
            return right;
        }
        let default = default_for(right);
        if self.draws.chance(self.noise.lazy) {
            return default;
        }
        let others: Vec<Operator> =
            Operator::ALL.into_iter().filter(|&op| op != right && op != default).collect();
        *self.draws.choose(&others)
    }

    fn expression(&self, operator: Operator, operand: &str) -> String {
        format!("{} {} {operand}", self.value, operator.symbol())
    }

    fn call(&mut self, expression: String, purpose: Purpose) {
        let output = calculate(&expression);
        // A fraction comes with its decimal, which is the one number that can be copied.
        self.value = output.rsplit(" = around ").next().unwrap_or(&output).to_string();
        self.calls.push(Call { expression, output, purpose });
    }
}

/// The operation that an agent takes without reading.
fn default_for(right: Operator) -> Operator {
    if right == Operator::Add { Operator::Subtract } else { Operator::Add }
}

/// The value of an output that is a whole number.
fn whole(output: &str) -> Option<i64> {
    output.replace('_', "").parse().ok()
}

fn can_be_right(value: &str) -> bool {
    whole(value).is_some_and(|n| (1..=LARGEST_RESULT).contains(&n))
}

/// Whether a wrong expression has a value of at most four digits before the point. Longer ones
/// would fill the conversation with digits that no right solution has.
fn is_moderate(expression: &str) -> bool {
    let output = calculate(expression);
    let value = output.rsplit(" = around ").next().unwrap_or(&output);
    let value: Option<f64> = value.replace('_', "").parse().ok();
    value.is_some_and(|value| value.abs() <= LARGEST_RESULT as f64)
}

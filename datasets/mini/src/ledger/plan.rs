//! The numbers of a problem: its start, its steps and their results.
//!
//! Plans are drawn until every step matters: no single mistake (another operation, a step left
//! out, a number that does not matter used instead or in addition) gives a result that the
//! Calc-X rule accepts, which tolerates 1 %, and no number on the way is accepted as the answer.

use crate::calc::{Operator, is_reserved};
use crate::draws::Draws;

/// Largest intermediate result; the smallest is 1.
pub const LARGEST_RESULT: i64 = 9_999;

/// Numbers from this one on belong to training or to test. Below it are the factors and divisors,
/// of which there are too few to divide them.
pub const SMALLEST_RESERVABLE: i64 = 10;

/// Largest factor, divisor or short number of both splits; the smallest is 2.
const LARGEST_FACTOR: i64 = 9;
/// Largest number of a sentence other than the first.
const LARGEST_NUMBER: i64 = 99;
/// Largest first number.
const LARGEST_START: i64 = 199;
/// Multiplications stop here, so that later sums are not negligible.
const LARGEST_PRODUCT: i64 = 1_500;
/// Answers below could be guessed.
const SMALLEST_ANSWER: i64 = 10;

/// Relative frequency of +, -, *, / before those that do not fit are redrawn.
const SHARES: [f64; 4] = [0.16, 0.22, 0.17, 0.45];
/// Share of summands that have one digit, like factors.
const SHORT: f64 = 0.15;
/// A summand is at least this part of the running result: the tolerance is 1 %.
const LARGEST_RATIO: i64 = 50;

/// The right operand of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand {
    Number(i64),
    /// The result of an earlier step, by its number.
    Earlier(usize),
}

/// One operation on the running result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub operator: Operator,
    pub operand: Operand,
}

/// A number that does not matter, told before the step of the given number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Distractor {
    pub number: i64,
    pub before: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub start: i64,
    pub steps: Vec<Step>,
    /// The result of every step.
    pub results: Vec<i64>,
    /// In the order of the question.
    pub distractors: Vec<Distractor>,
}

/// A single mistake.
#[derive(Clone, Copy)]
enum Mistake {
    Operator(usize, Operator),
    Omission(usize),
    Operand(usize, i64),
    Insertion(Distractor, Operator),
}

impl Plan {
    /// Draws a plan of `length` steps with numbers of one class ([`is_reserved`]).
    pub fn draw(length: usize, distractors: usize, reserved: bool, draws: &mut Draws) -> Self {
        // Some dozens of attempts suffice; the tests draw thousands of plans of every length.
        loop {
            let plan = Self::attempt(length, distractors, reserved, draws);
            if let Some(plan) = plan.filter(Self::every_step_matters) {
                return plan;
            }
        }
    }

    fn attempt(
        length: usize,
        distractors: usize,
        reserved: bool,
        draws: &mut Draws,
    ) -> Option<Self> {
        let start = of_class(LARGEST_START, reserved, draws);
        let recalls = draw_recalls(length, draws);
        let mut steps: Vec<Step> = Vec::with_capacity(length);
        let mut results: Vec<i64> = Vec::with_capacity(length);
        for i in 0..length {
            let value = results.last().copied().unwrap_or(start);
            let named = recalls.iter().find(|(_, user)| *user == i).map(|(named, _)| *named);
            let step = match named {
                Some(named) => recalling_step(value, named, &results, draws)?,
                None => drawn_step(value, steps.last(), reserved, draws)?,
            };
            let operand = match step.operand {
                Operand::Number(number) => number,
                Operand::Earlier(named) => results[named],
            };
            results.push(whole_result(step.operator, value, operand)?);
            steps.push(step);
        }
        let mut plan = Self { start, steps, results, distractors: Vec::new() };
        for _ in 0..distractors {
            let number = of_class(LARGEST_NUMBER, reserved, draws);
            if plan.numbers().any(|n| n == number) || plan.results.contains(&number) {
                return None;
            }
            plan.distractors.push(Distractor { number, before: draws.below(length + 1) });
        }
        plan.distractors.sort_by_key(|distractor| distractor.before);
        Some(plan)
    }

    pub fn answer(&self) -> i64 {
        self.results.last().copied().unwrap_or(self.start)
    }

    /// All numbers of the question.
    pub fn numbers(&self) -> impl Iterator<Item = i64> + '_ {
        let operands = self.steps.iter().filter_map(|step| match step.operand {
            Operand::Number(number) => Some(number),
            Operand::Earlier(_) => None,
        });
        let distractors = self.distractors.iter().map(|distractor| distractor.number);
        std::iter::once(self.start).chain(operands).chain(distractors)
    }

    /// The steps whose results later steps use, in order.
    pub fn named(&self) -> Vec<usize> {
        let earlier = |step: &Step| match step.operand {
            Operand::Earlier(named) => Some(named),
            Operand::Number(_) => None,
        };
        let mut named: Vec<usize> = self.steps.iter().filter_map(earlier).collect();
        named.sort_unstable();
        named
    }

    fn every_step_matters(&self) -> bool {
        let gold = self.answer();
        let on_the_way = self.results.iter().rev().skip(1).copied();
        if gold < SMALLEST_ANSWER || on_the_way.chain(self.numbers()).any(|n| near(n as f64, gold))
        {
            return false;
        }
        !self.mistakes().into_iter().any(|mistake| near(self.replay(mistake), gold))
    }

    fn mistakes(&self) -> Vec<Mistake> {
        let mut all = Vec::new();
        for (i, step) in self.steps.iter().enumerate() {
            all.push(Mistake::Omission(i));
            let others = Operator::ALL.into_iter().filter(|op| *op != step.operator);
            all.extend(others.map(|op| Mistake::Operator(i, op)));
            all.extend(self.distractors.iter().map(|d| Mistake::Operand(i, d.number)));
        }
        for distractor in &self.distractors {
            all.extend(Operator::ALL.map(|op| Mistake::Insertion(*distractor, op)));
        }
        all
    }

    /// The last result with one mistake, all other steps being right.
    fn replay(&self, mistake: Mistake) -> f64 {
        let mut value = self.start as f64;
        let mut results = Vec::with_capacity(self.steps.len());
        for (i, step) in self.steps.iter().enumerate() {
            if let Mistake::Insertion(distractor, op) = mistake
                && distractor.before == i
            {
                value = approximate(op, value, distractor.number as f64);
            }
            let mut operand = match step.operand {
                Operand::Number(number) => number as f64,
                Operand::Earlier(named) => results[named],
            };
            let mut operator = step.operator;
            match mistake {
                Mistake::Operator(at, op) if at == i => operator = op,
                Mistake::Operand(at, number) if at == i => operand = number as f64,
                _ => {}
            }
            if !matches!(mistake, Mistake::Omission(at) if at == i) {
                value = approximate(operator, value, operand);
            }
            results.push(value);
        }
        if let Mistake::Insertion(distractor, op) = mistake
            && distractor.before == self.steps.len()
        {
            value = approximate(op, value, distractor.number as f64);
        }
        value
    }
}

/// Which steps use which earlier results: pairs of the step whose result is named and the step that
/// uses it, with at least one step between them, in the order of the naming.
fn draw_recalls(length: usize, draws: &mut Draws) -> Vec<(usize, usize)> {
    let most = match length {
        0..4 => 0,
        4..8 => 1,
        _ => 2,
    };
    let mut recalls: Vec<(usize, usize)> = Vec::new();
    for _ in 0..draws.below(most + 1) {
        let named = draws.below(length - 2);
        let user = named + 2 + draws.below(length - named - 2);
        if recalls.iter().all(|(other, used)| *other != named && *used != user) {
            recalls.push((named, user));
        }
    }
    recalls.sort_unstable();
    recalls
}

fn recalling_step(value: i64, named: usize, results: &[i64], draws: &mut Draws) -> Option<Step> {
    let operand = results[named];
    let operator = if draws.chance(0.5) { Operator::Add } else { Operator::Subtract };
    let matters = operand * LARGEST_RATIO >= value;
    (matters && whole_result(operator, value, operand).is_some())
        .then_some(Step { operator, operand: Operand::Earlier(named) })
}

/// A step whose number is in the question; `None` if no draw fits.
fn drawn_step(
    value: i64,
    before: Option<&Step>,
    reserved: bool,
    draws: &mut Draws,
) -> Option<Step> {
    for _ in 0..20 {
        let operator = Operator::ALL[draws.weighted(&SHARES)];
        let number = match operator {
            Operator::Multiply | Operator::Divide => draws.between(2, LARGEST_FACTOR),
            _ if draws.chance(SHORT) => draws.between(2, LARGEST_FACTOR),
            _ => of_class(LARGEST_NUMBER, reserved, draws),
        };
        let operand = Operand::Number(number);
        let Some(result) = whole_result(operator, value, number) else { continue };
        let fits = match operator {
            Operator::Multiply => result <= LARGEST_PRODUCT,
            Operator::Divide => true,
            _ => number * LARGEST_RATIO >= value,
        };
        // Two steps that cancel each other could both be left out.
        let cancels = before.is_some_and(|b| b.operand == operand && b.operator != operator);
        if fits && !cancels {
            return Some(Step { operator, operand });
        }
    }
    None
}

/// The result if it is a whole number from 1 to [`LARGEST_RESULT`].
fn whole_result(operator: Operator, left: i64, right: i64) -> Option<i64> {
    let result = match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => (left % right == 0).then(|| left / right)?,
    };
    (1..=LARGEST_RESULT).contains(&result).then_some(result)
}

fn approximate(operator: Operator, left: f64, right: f64) -> f64 {
    match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
    }
}

/// Whether the Calc-X rule accepts `value` for `gold`, or nearly does.
fn near(value: f64, gold: i64) -> bool {
    let gold = gold as f64;
    (value - gold).abs() <= 0.010_001 * value.abs().max(gold.abs())
}

/// A number of the class from [`SMALLEST_RESERVABLE`] to `largest`.
fn of_class(largest: i64, reserved: bool, draws: &mut Draws) -> i64 {
    loop {
        let n = draws.between(SMALLEST_RESERVABLE, largest);
        if is_reserved(n) == reserved {
            return n;
        }
    }
}

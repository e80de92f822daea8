//! The columns of an export: name, type, consumer, and the function that yields their values.
//!
//! JSON lines, the Parquet schema and the command's help are all derived from this table.

use super::{Call, Rollout};

/// Type of a column. Every column is nullable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 64 bits, signed.
    Int,
    /// 64 bits.
    Real,
    Flag,
    Text,
    /// Lists of 64-bit integers, 32-bit floats and flags.
    Ints,
    Reals,
    Flags,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Int(Option<i64>),
    Real(Option<f64>),
    Flag(Option<bool>),
    Text(Option<String>),
    Ints(Option<Vec<i64>>),
    Reals(Option<Vec<f32>>),
    Flags(Option<Vec<bool>>),
}

/// The program that reads a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    Leyden,
    Verl,
    PrimeRl,
}

/// One column.
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub reader: Reader,
    pub what: &'static str,
    /// Computes the value for a call from its rollout, its index and the call.
    pub cell: fn(&Rollout, usize, &Call) -> Cell,
}

/// The columns for one reader, or all of them.
pub fn columns_of(reader: Option<Reader>) -> Vec<&'static Column> {
    COLUMNS.iter().filter(|column| reader.is_none_or(|reader| column.reader == reader)).collect()
}

fn text(text: &str) -> Cell {
    Cell::Text(Some(text.to_owned()))
}

fn ints(ids: &[u32]) -> Cell {
    Cell::Ints(Some(ids.iter().map(|&id| i64::from(id)).collect()))
}

fn int(value: Option<u64>) -> Cell {
    Cell::Int(value.and_then(|value| i64::try_from(value).ok()))
}

/// `value` at every token of prompt and response.
fn throughout<T: Clone>(call: &Call, value: T) -> Vec<T> {
    vec![value; call.prompt_ids.len() + call.response_ids.len()]
}

/// `before` at every token of the prompt, then `response`.
fn after_prompt<T: Clone>(call: &Call, before: T, response: impl IntoIterator<Item = T>) -> Vec<T> {
    std::iter::repeat_n(before, call.prompt_ids.len()).chain(response).collect()
}

/// Log-probabilities of the response, if there is one for each token.
fn logprobs(call: &Call) -> Option<&[f32]> {
    (call.logprobs.len() == call.response_ids.len()).then_some(call.logprobs.as_slice())
}

/// The signals of one call as a JSON array.
fn signals(rollout: &Rollout, number: usize) -> Cell {
    // Signals before the first call belong to the first, those after the last to the last.
    let last = rollout.calls.len().saturating_sub(1) as u64;
    let own: Vec<_> =
        rollout.signals.iter().filter(|s| s.call.min(last) == number as u64).collect();
    Cell::Text(serde_json::to_string(&own).ok())
}

#[rustfmt::skip]
pub const COLUMNS: &[Column] = &[
    Column { name: "rollout", kind: Kind::Text, reader: Reader::Leyden, what: "address of the rollout, as passed to `leyden rollouts show`",
        cell: |r, _, _| text(&r.id) },
    Column { name: "call", kind: Kind::Int, reader: Reader::Leyden, what: "index of the call in its rollout, from 0",
        cell: |_, number, _| Cell::Int(Some(number as i64)) },
    Column { name: "phase", kind: Kind::Text, reader: Reader::Leyden, what: "train, greedy or sampled; train or val in a server's store",
        cell: |r, _, _| text(&r.phase) },
    Column { name: "task_id", kind: Kind::Text, reader: Reader::Leyden, what: "the task's id",
        cell: |r, _, _| text(&r.task_id) },
    Column { name: "question", kind: Kind::Text, reader: Reader::Leyden, what: "the task's question",
        cell: |r, _, _| text(&r.question) },
    Column { name: "answer", kind: Kind::Text, reader: Reader::Leyden, what: "the agent's final answer",
        cell: |r, _, _| Cell::Text(r.answer.clone()) },
    Column { name: "missing", kind: Kind::Text, reader: Reader::Leyden, what: "why the rollout has no reward",
        cell: |r, _, _| Cell::Text(r.missing.clone()) },
    Column { name: "role", kind: Kind::Text, reader: Reader::Leyden, what: "the agent's role in the call",
        cell: |_, _, c| text(&c.role) },
    Column { name: "finish", kind: Kind::Text, reader: Reader::Leyden, what: "stop or length",
        cell: |_, _, c| text(&c.finish) },
    Column { name: "policy_version", kind: Kind::Int, reader: Reader::Leyden, what: "number of weight updates of the policy that generated the call",
        cell: |_, _, c| int(Some(c.policy_version)) },
    Column { name: "constrained", kind: Kind::Flag, reader: Reader::Leyden, what: "whether a grammar restricted the sampler",
        cell: |_, _, c| Cell::Flag(Some(c.constrained)) },
    Column { name: "credit", kind: Kind::Real, reader: Reader::Leyden, what: "the credit rule's share of the reward; null where not trained on",
        cell: |_, _, c| Cell::Real(c.credit) },
    Column { name: "advantage", kind: Kind::Real, reader: Reader::Leyden, what: "the advantage used to train on the call",
        cell: |_, _, c| Cell::Real(c.advantage) },
    Column { name: "signals", kind: Kind::Text, reader: Reader::Leyden, what: "the call's signals, a JSON array of call, kind and detail",
        cell: |r, number, _| signals(r, number) },

    Column { name: "uid", kind: Kind::Text, reader: Reader::Verl, what: "equal for the rollouts of one task in one step",
        cell: |r, _, _| text(&r.group) },
    Column { name: "step", kind: Kind::Int, reader: Reader::Verl, what: "training step",
        cell: |r, _, _| int(r.step) },
    Column { name: "input", kind: Kind::Text, reader: Reader::Verl, what: "the prompt as text, if it was kept or a tokenizer is given",
        cell: |_, _, c| Cell::Text(c.prompt.clone()) },
    Column { name: "output", kind: Kind::Text, reader: Reader::Verl, what: "the response as text",
        cell: |_, _, c| text(&c.text) },
    Column { name: "gts", kind: Kind::Text, reader: Reader::Verl, what: "the reference answer",
        cell: |r, _, _| Cell::Text(r.gold.clone()) },
    Column { name: "score", kind: Kind::Real, reader: Reader::Verl, what: "the rollout's reward; null where it has none",
        cell: |r, _, _| Cell::Real(r.reward) },
    Column { name: "prompt_ids", kind: Kind::Ints, reader: Reader::Verl, what: "token ids of the prompt",
        cell: |_, _, c| ints(&c.prompt_ids) },
    Column { name: "response_ids", kind: Kind::Ints, reader: Reader::Verl, what: "token ids of the response, the end-of-turn token included",
        cell: |_, _, c| ints(&c.response_ids) },
    Column { name: "response_mask", kind: Kind::Ints, reader: Reader::Verl, what: "1 at every response token: the model generated all of them",
        cell: |_, _, c| Cell::Ints(Some(vec![1; c.response_ids.len()])) },
    Column { name: "response_logprobs", kind: Kind::Reals, reader: Reader::Verl, what: "log-probability of each response token when it was sampled",
        cell: |_, _, c| Cell::Reals(logprobs(c).map(<[f32]>::to_vec)) },
    Column { name: "reward_score", kind: Kind::Real, reader: Reader::Verl, what: "the rollout's reward, under its name in AgentLoopOutput",
        cell: |r, _, _| Cell::Real(r.reward) },

    Column { name: "token_ids", kind: Kind::Ints, reader: Reader::PrimeRl, what: "token ids of prompt and response",
        cell: |_, _, c| Cell::Ints(Some(c.prompt_ids.iter().chain(&c.response_ids).map(|&id| i64::from(id)).collect())) },
    Column { name: "mask", kind: Kind::Flags, reader: Reader::PrimeRl, what: "true at tokens that the model sampled freely; false throughout where a grammar constrained it",
        cell: |_, _, c| Cell::Flags(Some(after_prompt(c, false, c.response_ids.iter().map(|_| !c.constrained)))) },
    Column { name: "logprobs", kind: Kind::Reals, reader: Reader::PrimeRl, what: "0 at the prompt, then as response_logprobs",
        cell: |_, _, c| Cell::Reals(logprobs(c).map(|own| after_prompt(c, 0.0, own.iter().copied()))) },
    Column { name: "temperatures", kind: Kind::Reals, reader: Reader::PrimeRl, what: "the sampler's temperature, at every token",
        cell: |_, _, c| Cell::Reals(c.temperature.map(|t| throughout(c, t as f32))) },
    Column { name: "env_name", kind: Kind::Text, reader: Reader::PrimeRl, what: "name of the agent",
        cell: |r, _, _| Cell::Text(r.agent.clone()) },
    Column { name: "advantages", kind: Kind::Reals, reader: Reader::PrimeRl, what: "0 at the prompt, then the call's advantage; null where not trained on",
        cell: |_, _, c| Cell::Reals(c.advantage.map(|a| after_prompt(c, 0.0, c.response_ids.iter().map(|_| a as f32)))) },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_per_token_lists_have_equal_length() {
        let call = Call {
            prompt_ids: vec![1, 2, 3],
            response_ids: vec![4, 5],
            logprobs: vec![-0.5, -0.25],
            temperature: Some(1.0),
            advantage: Some(2.0),
            ..Call::default()
        };
        let rollout = Rollout { calls: vec![call.clone()], ..Rollout::default() };
        let mut names = std::collections::HashSet::new();
        for column in COLUMNS {
            assert!(names.insert(column.name), "{}", column.name);
            let length = match (column.cell)(&rollout, 0, &call) {
                Cell::Ints(Some(list)) => list.len(),
                Cell::Reals(Some(list)) => list.len(),
                Cell::Flags(Some(list)) => list.len(),
                _ => continue,
            };
            let expected = match column.name {
                "prompt_ids" => 3,
                name if name.starts_with("response_") => 2,
                _ => 5,
            };
            assert_eq!(length, expected, "{}", column.name);
        }
    }

    #[test]
    fn constrained_tokens_are_masked_out_and_unknown_numbers_are_null() {
        let call = Call { response_ids: vec![7], constrained: true, ..Call::default() };
        let rollout = Rollout { calls: vec![call.clone()], ..Rollout::default() };
        let cell = |name: &str| {
            let column = COLUMNS.iter().find(|column| column.name == name).unwrap();
            (column.cell)(&rollout, 0, &call)
        };
        assert_eq!(cell("mask"), Cell::Flags(Some(vec![false])));
        assert_eq!(cell("logprobs"), Cell::Reals(None));
        assert_eq!(cell("advantages"), Cell::Reals(None));
        assert_eq!(cell("score"), Cell::Real(None));
    }
}

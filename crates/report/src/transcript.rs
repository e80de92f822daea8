//! Rollouts for display: prompts, responses and tool results.
//!
//! Where a call's prompt extends the previous call's prompt and response, only the added part
//! (mostly tool results) is shown.

use serde::Serialize;

use crate::rollouts::{Change, Samples, Transcript};
use crate::text::significant;

/// Maximum length of text shown in full, in characters.
const LONG: usize = 6000;

/// Samples of one run.
#[derive(Serialize)]
pub(crate) struct SampleView {
    phase: String,
    before_step: i64,
    after_step: i64,
    /// False if there was only one evaluation.
    two: bool,
    counts: Vec<(&'static str, usize)>,
    pairs: Vec<PairView>,
    groups: Vec<GroupView>,
}

#[derive(Serialize)]
struct PairView {
    change: &'static str,
    task_id: String,
    question: String,
    gold: String,
    sides: Vec<RolloutView>,
}

#[derive(Serialize)]
struct GroupView {
    step: i64,
    task_id: String,
    question: String,
    gold: String,
    rollouts: Vec<RolloutView>,
}

#[derive(Serialize)]
struct RolloutView {
    name: String,
    answer: Option<String>,
    reward: String,
    /// `good`, `bad` or `none`: a reward of at least 0.5, below 0.5, or no reward.
    verdict: &'static str,
    calls: Vec<CallView>,
    signals: Vec<(i64, String, String)>,
}

#[derive(Serialize)]
struct CallView {
    number: usize,
    role: String,
    /// The whole prompt, if it does not extend the previous call.
    prompt: Option<String>,
    prompt_tokens: usize,
    /// The part added since the previous call's response.
    added: Option<String>,
    text: String,
    response_tokens: usize,
    finish: String,
    credit: Option<String>,
    advantage: Option<String>,
}

pub(crate) fn view(samples: &Samples, limit: usize) -> SampleView {
    let two = samples.before_step != samples.after_step;
    let pair = |pair: &crate::rollouts::Pair| {
        let mut sides = vec![rollout(&pair.before, format!("step {}", samples.before_step))];
        if two {
            sides[0].name = format!("before training, step {}", samples.before_step);
            sides
                .push(rollout(&pair.after, format!("after training, step {}", samples.after_step)));
        }
        PairView {
            change: if two { pair.change.words() } else { "" },
            task_id: pair.before.task_id.clone(),
            question: cut(&pair.before.question),
            gold: cut(&pair.before.gold),
            sides,
        }
    };
    let group = |group: &Vec<Transcript>| {
        let first = group.first()?;
        Some(GroupView {
            step: first.step,
            task_id: first.task_id.clone(),
            question: cut(&first.question),
            gold: cut(&first.gold),
            rollouts: group
                .iter()
                .map(|member| rollout(member, format!("rollout {}", member.id)))
                .collect(),
        })
    };
    let counts = |(change, count): &(Change, usize)| (change.words(), *count);
    SampleView {
        phase: samples.phase.clone(),
        before_step: samples.before_step,
        after_step: samples.after_step,
        two,
        counts: samples.counts.iter().map(counts).collect(),
        pairs: samples.pairs.iter().take(limit).map(pair).collect(),
        groups: samples.groups.iter().filter_map(group).collect(),
    }
}

fn rollout(transcript: &Transcript, name: String) -> RolloutView {
    let (reward, verdict) = match (transcript.reward, &transcript.missing) {
        (Some(reward), _) => {
            (format!("reward {}", significant(reward)), if reward >= 0.5 { "good" } else { "bad" })
        }
        (None, Some(why)) => (format!("no reward: {}", cut(why)), "none"),
        (None, None) => ("no reward".to_owned(), "none"),
    };
    let mut history: Option<String> = None;
    let mut calls = Vec::new();
    for (index, call) in transcript.calls.iter().enumerate() {
        let added = match (&history, &call.prompt) {
            (Some(history), Some(prompt)) => prompt.strip_prefix(history.as_str()).map(cut),
            _ => None,
        };
        calls.push(CallView {
            number: index + 1,
            role: call.role.clone(),
            prompt: if added.is_none() { call.prompt.as_deref().map(cut) } else { None },
            prompt_tokens: call.prompt_tokens,
            added,
            text: cut(&call.text),
            response_tokens: call.response_tokens,
            finish: call.finish.clone(),
            credit: call.credit.map(significant),
            advantage: call.advantage.map(significant),
        });
        history = call.prompt.as_ref().map(|prompt| format!("{prompt}{}", call.text));
    }
    RolloutView {
        name,
        answer: transcript.answer.as_deref().map(cut),
        reward,
        verdict,
        calls,
        signals: transcript
            .signals
            .iter()
            .map(|(call, kind, detail)| (call + 1, kind.replace('_', " "), cut(detail)))
            .collect(),
    }
}

/// Truncates very long text with a note, to bound the size of the page.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONG) {
        None => text.to_owned(),
        Some((end, _)) => {
            let rest = text[end..].chars().count();
            format!("{} … ({rest} more characters)", &text[..end])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollouts::SampleCall;

    fn call(prompt: Option<&str>, text: &str) -> SampleCall {
        SampleCall {
            role: "solver".to_owned(),
            prompt: prompt.map(str::to_owned),
            prompt_tokens: 1,
            text: text.to_owned(),
            response_tokens: 1,
            finish: "stop".to_owned(),
            credit: None,
            advantage: Some(-0.25),
        }
    }

    fn transcript(calls: Vec<SampleCall>) -> Transcript {
        Transcript {
            step: 0,
            phase: "sampled".to_owned(),
            id: 0,
            task_id: "t".to_owned(),
            question: String::new(),
            gold: String::new(),
            answer: None,
            reward: None,
            missing: Some("time limit".to_owned()),
            calls,
            signals: Vec::new(),
        }
    }

    #[test]
    fn a_continued_prompt_shows_only_what_was_added() {
        let calls = vec![
            call(Some("Q"), "call"),
            call(Some("Qcall<tool>42"), "42"),
            call(Some("other"), "x"),
        ];
        let view = rollout(&transcript(calls), String::new());
        assert_eq!(view.calls[0].prompt.as_deref(), Some("Q"));
        assert_eq!(view.calls[1].added.as_deref(), Some("<tool>42"));
        assert_eq!(view.calls[1].prompt, None);
        assert_eq!(view.calls[2].prompt.as_deref(), Some("other"));
        assert_eq!(view.calls[2].advantage.as_deref(), Some("-0.25"));
        assert_eq!(view.reward, "no reward: time limit");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let text = "é".repeat(LONG + 3);
        assert!(cut(&text).ends_with("… (3 more characters)"));
        assert_eq!(cut("short"), "short");
    }
}

//! One rollout as text.

use std::fmt::Write;

use leyden_report::export::{Call, Decode, PromptText, Rollout, Signal, prompts};

use leyden_suite::table::{counted, indented};

/// The full transcript of a rollout.
pub fn transcript(rollout: &Rollout, decode: Option<Decode<'_>>) -> String {
    let mut text = format!("rollout {}, task {}\n", rollout.id, rollout.task_id);
    let reward = match (rollout.reward, &rollout.missing) {
        (Some(reward), _) => reward.to_string(),
        (None, Some(why)) => format!("none: {why}"),
        (None, None) => "none".to_owned(),
    };
    let answer = rollout.answer.as_deref().unwrap_or("(none)");
    let gold = rollout.gold.as_deref();
    let lines = [
        ("question", Some(rollout.question.as_str())),
        ("gold", gold),
        ("answer", Some(answer)),
        ("reward", Some(&reward)),
    ];
    for (name, value) in lines {
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        if value.contains('\n') {
            let _ = write!(text, "{name}:\n{}", indented(value));
        } else {
            let _ = writeln!(text, "{name}: {value}");
        }
    }
    let count = rollout.calls.len();
    for (number, (call, prompt)) in
        rollout.calls.iter().zip(prompts(&rollout.calls, decode)).enumerate()
    {
        text.push_str(&call_text(call, prompt, number, count));
        let after = |signal: &&Signal| {
            signal.call == number as u64 || (number + 1 == count && signal.call > number as u64)
        };
        rollout.signals.iter().filter(after).for_each(|signal| push_signal(&mut text, signal));
    }
    if count == 0 {
        text.push_str("\nno model calls\n");
        rollout.signals.iter().for_each(|signal| push_signal(&mut text, signal));
    }
    printable(&text)
}

fn call_text(call: &Call, prompt: Option<PromptText>, number: usize, count: usize) -> String {
    let mut text = format!("\ncall {} of {count}", number + 1);
    if !call.role.is_empty() {
        let _ = write!(text, ", {}", call.role);
    }
    let _ = write!(
        text,
        ": {}, {}, {}, policy {}",
        counted(call.prompt_ids.len(), "prompt token"),
        counted(call.response_ids.len(), "response token"),
        call.finish,
        call.policy_version
    );
    if call.constrained {
        text.push_str(", constrained by a grammar");
    }
    text.push('\n');
    let number = |value: Option<f64>| value.map_or("none".to_owned(), |v| format!("{v:+.3}"));
    if call.credit.is_some() || call.advantage.is_some() {
        let _ =
            writeln!(text, "credit {}, advantage {}", number(call.credit), number(call.advantage));
    }
    if let Some(PromptText { text: prompt, continues }) = prompt {
        let name = if continues { "added since the previous call" } else { "prompt" };
        let _ = write!(text, "{name}:\n{}", indented(&prompt));
    }
    let _ = write!(text, "response:\n{}", indented(&call.text));
    text
}

fn push_signal(text: &mut String, signal: &Signal) {
    let kind = signal.kind.replace('_', " ");
    let _ = writeln!(text, "signal: {kind}: {}", signal.detail);
}

/// Escapes control characters, so that model output cannot move a terminal's cursor or change
/// its colours.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !matches!(character, '\n' | '\t') {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_has_all_calls_and_signals_in_order() {
        let call = |text: &str, advantage| Call {
            role: "solver".to_owned(),
            prompt: Some("Q".to_owned()),
            response_ids: vec![1],
            text: text.to_owned(),
            finish: "stop".to_owned(),
            policy_version: 3,
            credit: advantage,
            advantage,
            ..Call::default()
        };
        let rollout = Rollout {
            id: "3/train/0".to_owned(),
            task_id: "t".to_owned(),
            question: "two\nlines".to_owned(),
            missing: Some("late".to_owned()),
            calls: vec![call("\u{1b}[31mred", Some(-0.25)), call("end", None)],
            signals: vec![
                Signal { call: 0, kind: "tool_error".to_owned(), detail: "no".to_owned() },
                Signal { call: 9, kind: "no_answer".to_owned(), detail: String::new() },
            ],
            ..Rollout::default()
        };
        let expected = "\
rollout 3/train/0, task t
question:
  two
  lines
answer: (none)
reward: none: late

call 1 of 2, solver: 0 prompt tokens, 1 response token, stop, policy 3
credit -0.250, advantage -0.250
prompt:
  Q
response:
  \\u{1b}[31mred
signal: tool error: no

call 2 of 2, solver: 0 prompt tokens, 1 response token, stop, policy 3
prompt:
  Q
response:
  end
signal: no answer: 
";
        assert_eq!(transcript(&rollout, None), expected);
    }
}

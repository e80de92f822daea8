//! The agent against a model that follows a script.

use futures::executor::block_on;
use leyden_calc::{CalculatorAgent, Prompt};
use leyden_core::{
    Agent, ChatReply, ChatRequest, Episode, FinishReason, Message, Script, Signal, SignalKind,
    Speaker, Task, ToolCall,
};
use serde_json::{Value, json};

fn says(text: &str) -> ChatReply {
    let message = Message::assistant(text);
    ChatReply::of(message, FinishReason::Stop)
}

fn calls(name: &str, arguments: Value) -> ChatReply {
    let mut reply = says("a call");
    let call = ToolCall { id: "call_0".to_owned(), name: name.to_owned(), arguments };
    reply.message.tool_calls.push(call);
    reply
}

struct Played {
    answer: Option<String>,
    signals: Vec<Signal>,
    asked: Vec<ChatRequest>,
}

impl Played {
    /// What the tool said before the last call of the model.
    fn last_tool_message(&self) -> &str {
        let messages = &self.asked.last().unwrap().messages;
        let tool = messages.iter().rfind(|m| m.role == Speaker::Tool).unwrap();
        &tool.content
    }

    fn kinds(&self) -> Vec<&SignalKind> {
        self.signals.iter().map(|signal| &signal.kind).collect()
    }
}

fn play(max_turns: usize, replies: impl IntoIterator<Item = ChatReply>) -> Played {
    let script = Script::new(replies);
    let task = Task {
        id: "t".to_owned(),
        question: "how many?".to_owned(),
        gold: "12".to_owned(),
        labels: Vec::new(),
        fields: serde_json::Map::new(),
    };
    let episode = Episode::new(&script);
    let agent = CalculatorAgent::new(Prompt::Full, max_turns);
    let output = block_on(agent.run(&task, &episode)).unwrap();
    let signals = episode.into_signals();
    Played { answer: output.answer, signals, asked: script.into_asked() }
}

#[test]
fn a_result_comes_back_and_the_last_message_is_the_answer() {
    let played =
        play(4, [calls("calculator", json!({"expression": "3 * 4"})), says("### ANSWER: 12 ###")]);
    assert_eq!(played.answer.as_deref(), Some("### ANSWER: 12 ###"));
    assert_eq!(played.asked.len(), 2);
    assert_eq!(played.last_tool_message(), "12");
    assert!(played.signals.is_empty());
    let first = &played.asked[0];
    assert_eq!(first.tools[0].name, "calculator");
    assert_eq!(first.messages[1].content, "how many?");
    assert!(first.messages[0].content.contains("### ANSWER: x ###"));
}

#[test]
fn an_error_of_the_calculator_is_shown_and_noted() {
    let played = play(4, [calls("calculator", json!({"expression": "1/0"})), says("?")]);
    assert!(played.last_tool_message().starts_with("ERROR"));
    assert_eq!(played.kinds(), [&SignalKind::ToolError]);
    assert_eq!(played.signals[0].call, 0);
}

#[test]
fn strange_calls_are_answered_with_what_is_wrong() {
    for (reply, kind) in [
        (calls("browser", json!({})), SignalKind::UnknownTool),
        (calls("calculator", json!({"query": "2"})), SignalKind::MalformedCall),
        (
            ChatReply { malformed_call: Some("no JSON".to_owned()), ..says("<tool_call>{") },
            SignalKind::MalformedCall,
        ),
    ] {
        let played = play(4, [reply, says("12")]);
        assert!(played.last_tool_message().starts_with("ERROR"), "{kind:?}");
        assert_eq!(played.kinds(), [&kind]);
        assert_eq!(played.answer.as_deref(), Some("12"));
    }
}

#[test]
fn a_number_where_a_text_is_asked_for_is_taken() {
    let played = play(4, [calls("calculator", json!({"expression": 1200})), says("1200")]);
    assert_eq!(played.last_tool_message(), "1_200");
}

#[test]
fn the_same_call_again_is_noted() {
    let call = || calls("calculator", json!({"expression": "2 + 2"}));
    let played = play(4, [call(), call(), says("4")]);
    assert_eq!(played.kinds(), [&SignalKind::RepeatedCall]);
    assert_eq!(played.signals[0].call, 1);
}

#[test]
fn the_turn_limit_ends_without_an_answer() {
    let call = |n: u32| calls("calculator", json!({"expression": format!("{n} + 1")}));
    let played = play(2, [call(1), call(2), call(3)]);
    assert_eq!(played.answer, None);
    assert_eq!(played.asked.len(), 2);
    assert_eq!(played.kinds(), [&SignalKind::TurnLimit]);
}

//! Tests of the agent with a scripted model.

use futures::executor::block_on;
use leyden_calc::{CalculatorAgent, Prompt};
use leyden_core::{
    Agent, ChatReply, ChatRequest, Episode, FinishReason, Message, Script, Signal, SignalKind,
    Speaker, Task, ToolCall,
};
use serde_json::{Value, json};

fn text_reply(text: &str) -> ChatReply {
    let message = Message::assistant(text);
    ChatReply::of(message, FinishReason::Stop)
}

fn call_reply(name: &str, arguments: Value) -> ChatReply {
    let mut reply = text_reply("a call");
    let call = ToolCall { id: "call_0".to_owned(), name: name.to_owned(), arguments };
    reply.message.tool_calls.push(call);
    reply
}

struct Outcome {
    answer: Option<String>,
    signals: Vec<Signal>,
    requests: Vec<ChatRequest>,
}

impl Outcome {
    /// The tool result before the last model call.
    fn last_tool_message(&self) -> &str {
        let messages = &self.requests.last().unwrap().messages;
        let tool = messages.iter().rfind(|m| m.role == Speaker::Tool).unwrap();
        &tool.content
    }

    fn kinds(&self) -> Vec<&SignalKind> {
        self.signals.iter().map(|signal| &signal.kind).collect()
    }
}

fn run_agent(max_turns: usize, replies: impl IntoIterator<Item = ChatReply>) -> Outcome {
    run(&CalculatorAgent::new(Prompt::Full, max_turns), replies)
}

fn run(agent: &CalculatorAgent, replies: impl IntoIterator<Item = ChatReply>) -> Outcome {
    let script = Script::new(replies);
    let task = Task {
        id: "t".to_owned(),
        question: "how many?".to_owned(),
        gold: "12".to_owned(),
        labels: Vec::new(),
        fields: serde_json::Map::new(),
    };
    let episode = Episode::new(&script);
    let output = block_on(agent.run(&task, &episode)).unwrap();
    let signals = episode.into_signals();
    Outcome { answer: output.answer, signals, requests: script.into_requests() }
}

#[test]
fn the_tool_result_is_returned_and_the_last_message_is_the_answer() {
    let outcome = run_agent(
        4,
        [
            call_reply("calculator", json!({"expression": "3 * 4"})),
            text_reply("### ANSWER: 12 ###"),
        ],
    );
    assert_eq!(outcome.answer.as_deref(), Some("### ANSWER: 12 ###"));
    assert_eq!(outcome.requests.len(), 2);
    assert_eq!(outcome.last_tool_message(), "12");
    assert!(outcome.signals.is_empty());
    let first = &outcome.requests[0];
    assert_eq!(first.tools[0].name, "calculator");
    assert_eq!(first.messages[1].content, "how many?");
    assert!(first.messages[0].content.contains("### ANSWER: x ###"));
}

#[test]
fn a_calculator_error_is_returned_and_recorded() {
    let outcome =
        run_agent(4, [call_reply("calculator", json!({"expression": "1/0"})), text_reply("?")]);
    assert!(outcome.last_tool_message().starts_with("ERROR"));
    assert_eq!(outcome.kinds(), [&SignalKind::ToolError]);
    assert_eq!(outcome.signals[0].call, 0);
}

#[test]
fn invalid_calls_are_answered_with_an_error() {
    for (reply, kind) in [
        (call_reply("browser", json!({})), SignalKind::UnknownTool),
        (call_reply("calculator", json!({"query": "2"})), SignalKind::MalformedCall),
        (
            ChatReply { malformed_call: Some("no JSON".to_owned()), ..text_reply("<tool_call>{") },
            SignalKind::MalformedCall,
        ),
    ] {
        let outcome = run_agent(4, [reply, text_reply("12")]);
        assert!(outcome.last_tool_message().starts_with("ERROR"), "{kind:?}");
        assert_eq!(outcome.kinds(), [&kind]);
        assert_eq!(outcome.answer.as_deref(), Some("12"));
    }
}

#[test]
fn a_number_instead_of_a_string_is_accepted() {
    let outcome =
        run_agent(4, [call_reply("calculator", json!({"expression": 1200})), text_reply("1200")]);
    assert_eq!(outcome.last_tool_message(), "1_200");
}

#[test]
fn a_repeated_call_is_recorded() {
    let call = || call_reply("calculator", json!({"expression": "2 + 2"}));
    let outcome = run_agent(4, [call(), call(), text_reply("4")]);
    assert_eq!(outcome.kinds(), [&SignalKind::RepeatedCall]);
    assert_eq!(outcome.signals[0].call, 1);
}

#[test]
fn the_turn_limit_ends_without_an_answer() {
    let call = |n: u32| call_reply("calculator", json!({"expression": format!("{n} + 1")}));
    let outcome = run_agent(2, [call(1), call(2), call(3)]);
    assert_eq!(outcome.answer, None);
    assert_eq!(outcome.requests.len(), 2);
    assert_eq!(outcome.kinds(), [&SignalKind::TurnLimit]);
}

#[test]
fn with_a_single_operation_a_call_longer_expressions_are_errors() {
    let agent = CalculatorAgent::new(Prompt::Full, 4).with_single_operation(true);
    let call = |text: &str| call_reply("calculator", json!({"expression": text}));
    let outcome =
        run(&agent, [call("3 * 4"), call("12 + 7 - 2"), call("12 + 7"), text_reply("19")]);
    let messages = &outcome.requests[3].messages;
    let results: Vec<&str> =
        messages.iter().filter(|m| m.role == Speaker::Tool).map(|m| m.content.as_str()).collect();
    let error = "ERROR: one operation a call: write two numbers and one of + - * /";
    assert_eq!(results, ["12", error, "19"]);
    assert_eq!(outcome.kinds(), [&SignalKind::ToolError]);
    assert_eq!(outcome.signals[0].call, 1);
}

#[test]
fn the_option_is_off_by_default_and_changes_prompt_and_tool() {
    let sent = |agent: &CalculatorAgent| {
        let outcome = run(agent, [text_reply("12")]);
        let request = &outcome.requests[0];
        (request.messages[0].content.clone(), request.tools.clone())
    };
    let default = CalculatorAgent::new(Prompt::Full, 4);
    let (prompt, tools) = sent(&default);
    assert_eq!(tools, CalculatorAgent::tools());
    assert!(prompt.contains("(12 + 7) * 3"));
    let (prompt, tools) = sent(&default.clone().with_single_operation(true));
    assert_ne!(tools, CalculatorAgent::tools());
    // Its instructions must not show an expression that the calculator refuses.
    assert!(prompt.contains("12 + 7") && !prompt.contains('('));
    let (off, tools) = sent(&default.with_single_operation(true).with_single_operation(false));
    assert_ne!(off, prompt);
    assert_eq!(tools, CalculatorAgent::tools());
}

//! Tests of the agent with a scripted model.

use std::sync::Arc;

use futures::executor::block_on;
use leyden_core::{
    Agent, AgentError, AgentOutput, ChatReply, ChatRequest, Episode, FinishReason, Message,
    Passage, ProcessReward, Scorer, Script, Signal, SignalKind, Speaker, Task, ToolCall,
};
use leyden_musique::MusiqueScorer;
use leyden_rag::{Options, Prompt, RagAgent, TOOL, render};
use leyden_retrieval::{Bm25, Hit, RetrievalError, Retriever};
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

fn searches(query: &str) -> ChatReply {
    call_reply(TOOL, json!({ "query": query }))
}

fn corpus() -> Arc<dyn Retriever> {
    let texts = [
        ("Ada Lovelace", "Ada was born in London."),
        ("London", "The mayor of London in 2020 was Sadiq Khan."),
        ("Paris", "A city on the Seine."),
        ("Rome", "A city on the Tiber."),
        ("Vienna", "A city on the Danube."),
        ("Budapest", "Another city on the Danube."),
    ];
    let passage = |(number, (title, text)): (usize, &(&str, &str))| Passage {
        id: format!("p{number}"),
        title: (*title).to_owned(),
        text: (*text).to_owned(),
    };
    Arc::new(Bm25::in_memory(texts.iter().enumerate().map(passage)).unwrap())
}

struct Outcome {
    output: Result<AgentOutput, AgentError>,
    signals: Vec<Signal>,
    requests: Vec<ChatRequest>,
}

impl Outcome {
    fn answer(&self) -> Option<&str> {
        self.output.as_ref().unwrap().answer.as_deref()
    }

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

fn task() -> Task {
    Task {
        id: "t".to_owned(),
        question: "Who was mayor in 2020 of the city where Ada was born?".to_owned(),
        gold: "Sadiq Khan".to_owned(),
        labels: Vec::new(),
        fields: serde_json::Map::new(),
    }
}

fn run_agent_on(
    retriever: Arc<dyn Retriever>,
    options: Options,
    replies: impl IntoIterator<Item = ChatReply>,
) -> Outcome {
    let script = Script::new(replies);
    let episode = Episode::new(&script);
    let agent = RagAgent::new(retriever, options);
    let output = block_on(agent.run(&task(), &episode));
    let signals = episode.into_signals();
    Outcome { output, signals, requests: script.into_requests() }
}

fn run_agent(options: Options, replies: impl IntoIterator<Item = ChatReply>) -> Outcome {
    run_agent_on(corpus(), options, replies)
}

/// Of two supporting passages, the first search finds one, a repetition nothing new, the third the
/// other.
#[test]
fn a_search_is_rewarded_for_supporting_passages_that_it_finds_first() {
    let mut task = task();
    let paragraph = |title: &str, text: &str, supports: bool| json!({ "title": title, "paragraph_text": text, "is_supporting": supports });
    task.fields.insert(
        "paragraphs".to_owned(),
        json!([
            paragraph("Ada Lovelace", "Ada was born in London.", true),
            paragraph("London", "The mayor of London in 2020 was Sadiq Khan.", true),
            paragraph("Paris", "A city on the Seine.", false),
        ]),
    );
    let run = |process_reward| {
        let replies = [searches("Ada"), searches("Ada"), searches("mayor"), text_reply("done")];
        let script = Script::new(replies);
        let episode = Episode::new(&script);
        let options = Options { passages: 1, process_reward, ..Options::default() };
        block_on(RagAgent::new(corpus(), options).run(&task, &episode)).unwrap();
        episode.take_rewards()
    };
    let half = |call| ProcessReward { call, value: 0.5 };
    assert_eq!(run(1.0), [half(0), half(2)]);
    assert!(run(0.0).is_empty());
}

#[test]
fn two_hops_are_found_and_the_last_message_is_the_answer() {
    let outcome = run_agent(
        Options::default(),
        [
            searches("Ada born"),
            searches("mayor London 2020"),
            text_reply("<answer>Sadiq Khan</answer>"),
        ],
    );
    assert_eq!(outcome.requests.len(), 3);
    assert!(outcome.last_tool_message().starts_with("[1] London: The mayor of London in 2020"));
    assert!(outcome.signals.is_empty());
    let first = &outcome.requests[0];
    assert_eq!((first.agent_role.as_str(), first.tools[0].name.as_str()), ("answer", "retrieve"));
    assert_eq!(first.messages[1].content, task().question);
    assert!(first.messages[0].content.contains("<answer>x</answer>"));
    // Later calls see everything before them.
    assert_eq!(outcome.requests[2].messages[..2], first.messages);
    assert_eq!(outcome.requests[2].messages.len(), 6);
    let score = MusiqueScorer::default().score(&task(), outcome.answer()).unwrap();
    assert_eq!(score.reward, 1.0);
}

#[test]
fn the_number_of_passages_is_configurable() {
    for (passages, shown) in [(4, 4), (2, 2), (0, 1)] {
        let options = Options { passages, ..Options::default() };
        let outcome = run_agent(options, [searches("city Danube"), text_reply("?")]);
        let lines = outcome.last_tool_message().lines().count();
        assert_eq!(lines, shown, "{}", outcome.last_tool_message());
    }
}

#[test]
fn an_empty_result_is_returned_and_recorded() {
    let outcome =
        run_agent(Options::default(), [searches("quark"), text_reply("<answer>no</answer>")]);
    assert_eq!(outcome.last_tool_message(), "No passage matches. Try other words.");
    assert_eq!(outcome.kinds(), [&SignalKind::EmptyResult]);
    assert_eq!((outcome.signals[0].call, outcome.signals[0].detail.as_str()), (0, "quark"));
}

#[test]
fn a_repeated_query_is_recorded_ignoring_case() {
    let last = text_reply("<answer>x</answer>");
    let outcome =
        run_agent(Options::default(), [searches("Ada born"), searches(" ada  BORN"), last]);
    assert_eq!(outcome.kinds(), [&SignalKind::RepeatedCall]);
    assert_eq!(outcome.signals[0].call, 1);
}

#[test]
fn a_message_without_an_answer_is_recorded_and_left_to_the_scorer() {
    for text in ["I do not know.", "<answer> </answer>", "<answer>London"] {
        let outcome = run_agent(Options::default(), [text_reply(text)]);
        assert_eq!(outcome.answer(), Some(text));
        assert_eq!(outcome.kinds(), [&SignalKind::NoAnswer], "{text}");
        assert_eq!(MusiqueScorer::default().score(&task(), outcome.answer()).unwrap().reward, 0.0);
    }
}

#[test]
fn invalid_calls_are_answered_with_an_error() {
    for (reply, kind) in [
        (call_reply("browser", json!({})), SignalKind::UnknownTool),
        (call_reply(TOOL, json!({ "q": "Ada" })), SignalKind::MalformedCall),
        (call_reply(TOOL, json!({ "query": ["Ada"] })), SignalKind::MalformedCall),
        (call_reply(TOOL, json!({ "query": " \n" })), SignalKind::MalformedCall),
        (call_reply(TOOL, Value::Null), SignalKind::MalformedCall),
        (
            ChatReply { malformed_call: Some("no JSON".to_owned()), ..text_reply("<tool_call>{") },
            SignalKind::MalformedCall,
        ),
    ] {
        let outcome = run_agent(Options::default(), [reply, text_reply("<answer>x</answer>")]);
        assert!(outcome.last_tool_message().starts_with("ERROR"), "{kind:?}");
        assert_eq!(outcome.kinds(), [&kind]);
        assert_eq!(outcome.answer(), Some("<answer>x</answer>"));
    }
}

#[test]
fn a_number_instead_of_a_string_is_accepted() {
    let last = text_reply("<answer>x</answer>");
    let outcome = run_agent(Options::default(), [call_reply(TOOL, json!({ "query": 2020 })), last]);
    assert!(outcome.last_tool_message().starts_with("[1] London"));
    assert!(outcome.signals.is_empty());
}

#[test]
fn searches_are_limited_and_the_model_may_still_answer() {
    let options = Options { max_searches: 1, ..Options::default() };
    let replies = [searches("Ada"), searches("London"), text_reply("<answer>London</answer>")];
    let outcome = run_agent(options, replies);
    assert_eq!(outcome.last_tool_message(), "ERROR: no search is left; answer with what you know");
    assert_eq!(outcome.kinds(), [&SignalKind::Other("search_limit".to_owned())]);
    assert_eq!(outcome.answer(), Some("<answer>London</answer>"));
}

#[test]
fn several_calls_of_one_message_are_all_answered() {
    let mut reply = searches("Ada");
    reply.message.tool_calls.push(ToolCall {
        id: "call_1".to_owned(),
        name: TOOL.to_owned(),
        arguments: json!({ "query": "Seine" }),
    });
    let outcome = run_agent(Options::default(), [reply, text_reply("<answer>x</answer>")]);
    let tools: Vec<&Message> =
        outcome.requests[1].messages.iter().filter(|m| m.role == Speaker::Tool).collect();
    let ids: Vec<_> = tools.iter().map(|message| message.tool_call_id.as_deref()).collect();
    assert_eq!(ids, [Some("call_0"), Some("call_1")]);
    assert!(tools[1].content.starts_with("[1] Paris"));
}

#[test]
fn the_turn_limit_ends_without_an_answer() {
    let options = Options { max_turns: 2, ..Options::default() };
    let outcome = run_agent(options, [searches("Ada"), searches("London"), searches("Paris")]);
    assert_eq!(outcome.answer(), None);
    assert_eq!(outcome.requests.len(), 2);
    assert_eq!(outcome.kinds(), [&SignalKind::TurnLimit]);
}

struct Broken;

impl Retriever for Broken {
    fn retrieve(&self, _: &str, _: usize) -> Result<Vec<Hit>, RetrievalError> {
        Err(RetrievalError::Index("the disk is gone".to_owned()))
    }
}

/// A failed search is not the policy's fault: the rollout must have no reward, not 0.
#[test]
fn a_failing_retriever_ends_the_rollout_without_a_reward() {
    let outcome =
        run_agent_on(Arc::new(Broken), Options::default(), [searches("Ada"), text_reply("?")]);
    let error = outcome.output.unwrap_err().to_string();
    assert_eq!(error, "task t: the index cannot be searched: the disk is gone");
}

#[test]
fn long_passages_are_truncated_at_character_boundaries() {
    let hit = |text: &str| Hit {
        passage: Passage { id: "p".into(), title: "T".into(), text: text.into() },
        number: 0,
        score: 1.0,
    };
    assert_eq!(render(&[hit("äöü x")], 3), "[1] T: äöü …");
    assert_eq!(render(&[hit("äöü")], 3), "[1] T: äöü");
    let untitled =
        Hit { passage: Passage { title: String::new(), ..hit("x").passage }, ..hit("x") };
    assert_eq!(render(&[hit("a"), untitled], 9), "[1] T: a\n[2] x");
}

#[test]
fn the_compact_prompt_is_one_line() {
    let agent = RagAgent::new(corpus(), Options { prompt: Prompt::Compact, ..Options::default() });
    let opening = agent.opening("q?");
    assert!(!opening[0].content.contains('\n') && opening[0].content.contains("<answer>"));
}

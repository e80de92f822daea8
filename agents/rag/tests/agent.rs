//! The agent against a model that follows a script.

use std::sync::Arc;

use futures::executor::block_on;
use leyden_core::{
    Agent, AgentError, AgentOutput, ChatReply, ChatRequest, Episode, FinishReason, Message,
    Passage, Scorer, Script, Signal, SignalKind, Speaker, Task, ToolCall,
};
use leyden_musique::MusiqueScorer;
use leyden_rag::{Options, Prompt, RagAgent, TOOL, render};
use leyden_retrieval::{Bm25, Hit, RetrievalError, Retriever};
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

fn searches(query: &str) -> ChatReply {
    calls(TOOL, json!({ "query": query }))
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

struct Played {
    output: Result<AgentOutput, AgentError>,
    signals: Vec<Signal>,
    asked: Vec<ChatRequest>,
}

impl Played {
    fn answer(&self) -> Option<&str> {
        self.output.as_ref().unwrap().answer.as_deref()
    }

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

fn task() -> Task {
    Task {
        id: "t".to_owned(),
        question: "Who was mayor in 2020 of the city where Ada was born?".to_owned(),
        gold: "Sadiq Khan".to_owned(),
        labels: Vec::new(),
        fields: serde_json::Map::new(),
    }
}

fn play_on(
    retriever: Arc<dyn Retriever>,
    options: Options,
    replies: impl IntoIterator<Item = ChatReply>,
) -> Played {
    let script = Script::new(replies);
    let episode = Episode::new(&script);
    let agent = RagAgent::new(retriever, options);
    let output = block_on(agent.run(&task(), &episode));
    let signals = episode.into_signals();
    Played { output, signals, asked: script.into_asked() }
}

fn play(options: Options, replies: impl IntoIterator<Item = ChatReply>) -> Played {
    play_on(corpus(), options, replies)
}

#[test]
fn two_hops_are_found_and_the_last_message_is_the_answer() {
    let played = play(
        Options::default(),
        [searches("Ada born"), searches("mayor London 2020"), says("<answer>Sadiq Khan</answer>")],
    );
    assert_eq!(played.asked.len(), 3);
    assert!(played.last_tool_message().starts_with("[1] London: The mayor of London in 2020"));
    assert!(played.signals.is_empty());
    let first = &played.asked[0];
    assert_eq!((first.agent_role.as_str(), first.tools[0].name.as_str()), ("answer", "retrieve"));
    assert_eq!(first.messages[1].content, task().question);
    assert!(first.messages[0].content.contains("<answer>x</answer>"));
    // Later calls see everything before them.
    assert_eq!(played.asked[2].messages[..2], first.messages);
    assert_eq!(played.asked[2].messages.len(), 6);
    let score = MusiqueScorer::default().score(&task(), played.answer()).unwrap();
    assert_eq!(score.reward, 1.0);
}

#[test]
fn as_many_passages_are_shown_as_asked_for() {
    for (passages, shown) in [(4, 4), (2, 2), (0, 1)] {
        let options = Options { passages, ..Options::default() };
        let played = play(options, [searches("city Danube"), says("?")]);
        let lines = played.last_tool_message().lines().count();
        assert_eq!(lines, shown, "{}", played.last_tool_message());
    }
}

#[test]
fn a_search_that_finds_nothing_is_told_and_noted() {
    let played = play(Options::default(), [searches("quark"), says("<answer>no</answer>")]);
    assert_eq!(played.last_tool_message(), "No passage matches. Try other words.");
    assert_eq!(played.kinds(), [&SignalKind::EmptyResult]);
    assert_eq!((played.signals[0].call, played.signals[0].detail.as_str()), (0, "quark"));
}

#[test]
fn the_same_query_again_is_noted_whatever_its_case() {
    let last = says("<answer>x</answer>");
    let played = play(Options::default(), [searches("Ada born"), searches(" ada  BORN"), last]);
    assert_eq!(played.kinds(), [&SignalKind::RepeatedCall]);
    assert_eq!(played.signals[0].call, 1);
}

#[test]
fn a_message_without_an_answer_is_noted_and_left_to_the_scorer() {
    for text in ["I do not know.", "<answer> </answer>", "<answer>London"] {
        let played = play(Options::default(), [says(text)]);
        assert_eq!(played.answer(), Some(text));
        assert_eq!(played.kinds(), [&SignalKind::NoAnswer], "{text}");
        assert_eq!(MusiqueScorer::default().score(&task(), played.answer()).unwrap().reward, 0.0);
    }
}

#[test]
fn strange_calls_are_answered_with_what_is_wrong() {
    for (reply, kind) in [
        (calls("browser", json!({})), SignalKind::UnknownTool),
        (calls(TOOL, json!({ "q": "Ada" })), SignalKind::MalformedCall),
        (calls(TOOL, json!({ "query": ["Ada"] })), SignalKind::MalformedCall),
        (calls(TOOL, json!({ "query": " \n" })), SignalKind::MalformedCall),
        (calls(TOOL, Value::Null), SignalKind::MalformedCall),
        (
            ChatReply { malformed_call: Some("no JSON".to_owned()), ..says("<tool_call>{") },
            SignalKind::MalformedCall,
        ),
    ] {
        let played = play(Options::default(), [reply, says("<answer>x</answer>")]);
        assert!(played.last_tool_message().starts_with("ERROR"), "{kind:?}");
        assert_eq!(played.kinds(), [&kind]);
        assert_eq!(played.answer(), Some("<answer>x</answer>"));
    }
}

#[test]
fn a_number_where_a_text_is_asked_for_is_taken() {
    let last = says("<answer>x</answer>");
    let played = play(Options::default(), [calls(TOOL, json!({ "query": 2020 })), last]);
    assert!(played.last_tool_message().starts_with("[1] London"));
    assert!(played.signals.is_empty());
}

#[test]
fn searches_are_limited_and_the_model_may_still_answer() {
    let options = Options { max_searches: 1, ..Options::default() };
    let replies = [searches("Ada"), searches("London"), says("<answer>London</answer>")];
    let played = play(options, replies);
    assert_eq!(played.last_tool_message(), "ERROR: no search is left; answer with what you know");
    assert_eq!(played.kinds(), [&SignalKind::Other("search_limit".to_owned())]);
    assert_eq!(played.answer(), Some("<answer>London</answer>"));
}

#[test]
fn several_calls_of_one_message_are_all_answered() {
    let mut reply = searches("Ada");
    reply.message.tool_calls.push(ToolCall {
        id: "call_1".to_owned(),
        name: TOOL.to_owned(),
        arguments: json!({ "query": "Seine" }),
    });
    let played = play(Options::default(), [reply, says("<answer>x</answer>")]);
    let tools: Vec<&Message> =
        played.asked[1].messages.iter().filter(|m| m.role == Speaker::Tool).collect();
    let ids: Vec<_> = tools.iter().map(|message| message.tool_call_id.as_deref()).collect();
    assert_eq!(ids, [Some("call_0"), Some("call_1")]);
    assert!(tools[1].content.starts_with("[1] Paris"));
}

#[test]
fn the_turn_limit_ends_without_an_answer() {
    let options = Options { max_turns: 2, ..Options::default() };
    let played = play(options, [searches("Ada"), searches("London"), searches("Paris")]);
    assert_eq!(played.answer(), None);
    assert_eq!(played.asked.len(), 2);
    assert_eq!(played.kinds(), [&SignalKind::TurnLimit]);
}

struct Broken;

impl Retriever for Broken {
    fn retrieve(&self, _: &str, _: usize) -> Result<Vec<Hit>, RetrievalError> {
        Err(RetrievalError::Index("the disk is gone".to_owned()))
    }
}

/// A search that fails is not the policy's fault: the rollout must have no reward, not 0.
#[test]
fn a_failing_retriever_ends_the_rollout_without_a_reward() {
    let played = play_on(Arc::new(Broken), Options::default(), [searches("Ada"), says("?")]);
    let error = played.output.unwrap_err().to_string();
    assert_eq!(error, "task t: the index cannot be searched: the disk is gone");
}

#[test]
fn long_passages_are_cut_between_characters() {
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

//! Prompts after responses cut by a stop text, and after replies in clients' form.

mod common;

use std::sync::Arc;

use common::{PLAIN, TRIMMING, calculator, format, request, spell};
use leyden_core::{ChatRequest, FinishReason, Message, ToolCall, ToolChoice};
use leyden_text::{CHATML_TEMPLATE, ChatFormat, Growth, History, Prompt};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A first call, and the state needed for the next.
struct Turn {
    format: Arc<ChatFormat>,
    history: History,
    prompt: Prompt,
    response: Vec<u32>,
    request: ChatRequest,
    reply: Message,
}

impl Turn {
    fn new(format: Arc<ChatFormat>, request: ChatRequest, response: Vec<u32>) -> Self {
        let mut history = History::new();
        let prompt = format.prompt(&history, &request).unwrap();
        let reply = format.reply(&request, &response, FinishReason::Stop).message;
        history.push(prompt.clone(), response.clone(), reply.clone());
        Self { format, history, prompt, response, request, reply }
    }

    /// The prompt after the agent has returned `reply` and asked the next question.
    fn next(&self, reply: Message) -> Prompt {
        let mut request = self.request.clone();
        request.messages.extend([reply, Message::user("and?")]);
        self.format.prompt(&self.history, &request).unwrap()
    }

    /// Number of response tokens at the beginning of `prompt`.
    fn kept(&self, prompt: &Prompt) -> usize {
        let Growth::Extended { reused } = prompt.growth else { panic!("{:?}", prompt.growth) };
        let kept = reused - self.prompt.ids.len();
        assert!(prompt.ids.starts_with(&self.prompt.ids));
        assert_eq!(prompt.ids[self.prompt.ids.len()..reused], self.response[..kept]);
        kept
    }
}

fn stopping(stop: &str) -> ChatRequest {
    ChatRequest { stop: vec![stop.to_owned()], ..request(vec![Message::user("q")]) }
}

fn bytes(format: &ChatFormat, text: &str) -> Vec<u32> {
    spell(format.tokenizer(), text, |_| 0)
}

#[test]
fn tokens_of_the_stop_text_do_not_enter_the_next_prompt() {
    let format = format(CHATML_TEMPLATE);
    let response = bytes(&format, "Action: f\nObservation:");
    let turn = Turn::new(Arc::clone(&format), stopping("Observation:"), response);
    assert_eq!(turn.reply.content, "Action: f\n");
    let next = turn.next(turn.reply.clone());
    assert_eq!(turn.kept(&next), "Action: f\n".len());
    let text = format.tokenizer().decode(&next.ids, true);
    assert_eq!(text, next.rendered);
    assert!(text.contains("Action: f\n<|im_end|>\n<|im_start|>user\nand?"), "{text}");
    let trimmed = turn.next(Message::assistant("Action: f"));
    assert_eq!(trimmed.ids, next.ids, "clients may trim");
}

#[test]
fn a_token_that_crosses_the_stop_text_is_tokenised_again() {
    let format = format(CHATML_TEMPLATE);
    let the = format.tokenizer().encode(" the").unwrap();
    assert_eq!(the.len(), 1, "` the` is one token here");
    let response = [bytes(&format, "go"), the, bytes(&format, "re")].concat();
    let turn = Turn::new(Arc::clone(&format), stopping("here"), response);
    assert_eq!(turn.reply.content, "go t");
    let next = turn.next(turn.reply.clone());
    assert_eq!(turn.kept(&next), 2);
    assert_eq!(format.tokenizer().decode(&next.ids, true), next.rendered);
}

#[test]
fn a_conversation_keeps_growing_after_a_stop_text() {
    let format = format(PLAIN);
    let mut turn = Turn::new(Arc::clone(&format), stopping("STOP"), bytes(&format, "one STOP"));
    for answer in ["two STOP", "three", "STOP"] {
        turn.request.messages.extend([turn.reply.clone(), Message::user("on")]);
        turn.prompt = format.prompt(&turn.history, &turn.request).unwrap();
        assert!(matches!(turn.prompt.growth, Growth::Extended { .. }), "{answer}");
        assert_eq!(format.tokenizer().decode(&turn.prompt.ids, true), turn.prompt.rendered);
        turn.response = bytes(&format, answer);
        turn.response.extend(format.end_of_turn().filter(|_| answer == "three"));
        turn.reply = format.reply(&turn.request, &turn.response, FinishReason::Stop).message;
        turn.history.push(turn.prompt.clone(), turn.response.clone(), turn.reply.clone());
    }
    assert_eq!(turn.reply.content, "");
    let next = turn.next(turn.reply.clone());
    assert_eq!(turn.kept(&next), 0);
    assert!(!next.rendered.contains("STOP"), "{}", next.rendered);
}

fn called(arguments: Value) -> Turn {
    let format = format(CHATML_TEMPLATE);
    let call = ToolCall { id: String::new(), name: "calculator".into(), arguments };
    let text = format.tool_format().write(" So:\n", &[call.clone(), call]);
    let response = [bytes(&format, &text), vec![format.end_of_turn().unwrap()]].concat();
    Turn::new(format, request(vec![Message::user("q")]), response)
}

#[test]
fn calls_sent_back_are_recognised_by_name_and_arguments() {
    let turn = called(json!({"n": 2.0, "s": ["é", null], "o": {"a": 1, "b": 2}}));
    let client = |content: &str, n: Value, o: Value| {
        let mut message = turn.reply.clone();
        message.content = content.to_owned();
        for (index, call) in message.tool_calls.iter_mut().enumerate() {
            call.id = format!("toolu_{index}");
            call.arguments = json!({"o": o, "s": ["é", null], "n": n});
        }
        message
    };
    let same = json!({"b": 2, "a": 1});
    for message in [
        turn.reply.clone(),
        Message::assistant(&turn.reply.content),
        client("So:", json!(2.0), same.clone()),
        client(" So:\n", json!(2), same.clone()),
        client(&turn.reply.content, json!(2), same.clone()),
    ] {
        let next = turn.next(message);
        assert_eq!(turn.kept(&next), turn.response.len());
    }
    let more = |message: &mut Message| message.tool_calls.push(message.tool_calls[0].clone());
    let mut longer = client("So:", json!(2), same.clone());
    more(&mut longer);
    let mut renamed = client("So:", json!(2), same.clone());
    renamed.tool_calls[1].name = "other".into();
    for message in [
        client("So:", json!(3), same.clone()),
        client("So:", json!(2), json!({"a": 1})),
        client("No:", json!(2), same.clone()),
        client("", json!(2), same),
        longer,
        renamed,
        Message::assistant("So:"),
    ] {
        assert_eq!(turn.next(message).growth, Growth::Fresh);
    }
}

#[test]
fn a_malformed_call_is_recognised_by_the_text_around_it() {
    let format = format(CHATML_TEMPLATE);
    let response = bytes(&format, "hm <tool_call>oops</tool_call>");
    let turn = Turn::new(Arc::clone(&format), request(vec![Message::user("q")]), response);
    assert_eq!(turn.kept(&turn.next(Message::assistant("hm"))), turn.response.len());
    assert_eq!(turn.next(Message::assistant("")).growth, Growth::Fresh);
}

#[test]
fn a_forbidden_tool_is_not_shown() {
    for template in [CHATML_TEMPLATE, PLAIN] {
        let format = format(template);
        let with = request(vec![Message::user("q")]);
        let forbidden = ChatRequest { tool_choice: ToolChoice::None, ..with.clone() };
        let without = ChatRequest { tools: Vec::new(), ..with.clone() };
        let show = |request| format.prompt(&History::new(), request).unwrap().rendered;
        assert!(show(&with).contains("calculator"));
        assert_eq!(show(&forbidden), show(&without));
        let mut turn = Turn::new(Arc::clone(&format), forbidden, bytes(&format, "ok"));
        assert!(matches!(turn.next(turn.reply.clone()).growth, Growth::Extended { .. }));
        turn.request.tool_choice = ToolChoice::Required;
        assert_eq!(turn.next(turn.reply.clone()).growth, Growth::Fresh, "now it is shown");
    }
}

#[test]
fn of_two_equal_conversations_the_one_with_the_sent_text_is_continued() {
    let format = format(CHATML_TEMPLATE);
    let mut turn =
        Turn::new(Arc::clone(&format), request(vec![Message::user("q")]), bytes(&format, "a"));
    let other = Turn::new(Arc::clone(&format), turn.request.clone(), bytes(&format, "a\n"));
    turn.history.push(other.prompt.clone(), other.response.clone(), other.reply);
    let next = turn.next(turn.reply.clone());
    assert_eq!(turn.kept(&next), 1);
    assert!(!format.tokenizer().decode(&next.ids, true).contains("a\n<|im_end|>"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// For every spelling, the next prompt shows the cut text, with the sampled tokens as far as
    /// they precede the cut.
    #[test]
    fn the_next_prompt_shows_the_agents_text(
        which in 0usize..3,
        before in "[a-z é🦀\n]{0,12}( the| Obs)?",
        after in "[a-z é🦀]{0,6}",
        ended in any::<bool>(),
        draws in prop::collection::vec(any::<prop::sample::Index>(), 32),
    ) {
        let format = FORMATS.with(|formats| Arc::clone(&formats[which]));
        let mut draws = draws.iter().cycle();
        let text = format!("{before}🦀nd of it{after}");
        let mut response =
            spell(format.tokenizer(), &text, |n| draws.next().unwrap().index(n));
        if ended {
            response.extend(format.end_of_turn());
        }
        let turn = Turn::new(Arc::clone(&format), stopping("🦀nd of it"), response);
        prop_assert_eq!(&turn.reply.content, &before);
        let next = turn.next(turn.reply.clone());
        let kept = turn.kept(&next);
        let decode = |ids: &[u32]| format.tokenizer().decode(ids, true);
        prop_assert!(before.starts_with(&decode(&turn.response[..kept])));
        let shown = decode(&next.ids);
        prop_assert!(!shown.contains("nd of it"));
        if which == 1 {
            // This template trims; sampled white space is kept as sampled.
            let solid = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(solid(&shown), solid(&next.rendered));
        } else {
            prop_assert_eq!(&shown, &next.rendered);
        }
        // No further token lies wholly before the cut.
        let longer = decode(&turn.response[..=kept]);
        prop_assert!(!before.starts_with(&longer), "{longer:?}");
    }

    /// With or without tools, the reply equals the text sampled before a stop text.
    #[test]
    fn replies_and_growth_agree(text in "[a-z<>{}\" ]{0,20}", offered in any::<bool>()) {
        let format = FORMATS.with(|formats| Arc::clone(&formats[0]));
        let tools = if offered { vec![calculator()] } else { vec![] };
        let request = ChatRequest { tools, ..stopping("a") };
        let turn = Turn::new(Arc::clone(&format), request, bytes(&format, &text));
        let cut = text.split('a').next().unwrap();
        prop_assert_eq!(&turn.reply.content, cut);
        prop_assert_eq!(turn.kept(&turn.next(turn.reply.clone())), cut.len());
    }
}

thread_local! {
    static FORMATS: [Arc<ChatFormat>; 3] =
        [CHATML_TEMPLATE, TRIMMING, PLAIN].map(format);
}

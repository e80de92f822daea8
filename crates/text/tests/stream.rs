//! Concatenated deltas equal the complete reply, and are emitted early.

mod common;

use std::sync::Arc;

use common::{PLAIN, TRIMMING, calculator, format, request, spell};
use leyden_core::{ChatRequest, FinishReason, Message, ToolCall, ToolChoice};
use leyden_text::{CHATML_TEMPLATE, ChatFormat, ReplyEnd, ReplyStream, StopTexts};
use proptest::prelude::*;
use serde_json::json;

const STOP: FinishReason = FinishReason::Stop;

/// All deltas, each with the number of tokens after which it was emitted; then the end.
fn stream(
    format: &Arc<ChatFormat>,
    request: &ChatRequest,
    ids: &[u32],
) -> (Vec<(String, Vec<ToolCall>)>, ReplyEnd) {
    let mut stream = ReplyStream::new(format, request);
    let mut deltas = Vec::new();
    for &id in ids {
        let delta = stream.push(id);
        deltas.push((delta.content, delta.tool_calls));
    }
    let end = stream.finish(STOP);
    deltas.push((end.delta.content.clone(), end.delta.tool_calls.clone()));
    (deltas, end)
}

fn contents(deltas: &[(String, Vec<ToolCall>)]) -> Vec<&str> {
    deltas.iter().map(|(content, _)| content.as_str()).collect()
}

fn bytes(format: &ChatFormat, text: &str) -> Vec<u32> {
    spell(format.tokenizer(), text, |_| 0)
}

fn stopping(stops: &[&str]) -> ChatRequest {
    ChatRequest { stop: stops.iter().map(ToString::to_string).collect(), ..ChatRequest::default() }
}

/// The definition, regardless of time: the stop text that ends first (the longest of those that end
/// together), and all text before it.
fn cut<'t>(text: &'t str, stops: &[String]) -> &'t str {
    let ends = (0..=text.len()).filter(|&end| text.is_char_boundary(end));
    for end in ends {
        let longest = stops
            .iter()
            .filter(|stop| !stop.is_empty() && text[..end].ends_with(stop.as_str()))
            .map(String::len)
            .max();
        if let Some(length) = longest {
            return &text[..end - length];
        }
    }
    text
}

#[test]
fn text_is_emitted_at_once_except_for_the_beginning_of_a_stop_text() {
    let format = format(CHATML_TEMPLATE);
    let request = stopping(&["abc", ""]);
    let ids = bytes(&format, "xabyab");
    let (deltas, end) = stream(&format, &request, &ids);
    assert_eq!(contents(&deltas), ["x", "", "", "aby", "", "", "ab"]);
    assert_eq!(end.content, "xabyab");
    let ids = bytes(&format, "xababcab");
    let (deltas, end) = stream(&format, &request, &ids);
    assert_eq!(contents(&deltas), ["x", "", "", "ab", "", "", "", "", ""]);
    assert_eq!(end.reply.message.content, "xab");
}

#[test]
fn the_stop_text_that_ends_first_wins_then_the_longest() {
    let format = format(CHATML_TEMPLATE);
    for (stops, text, expected) in [
        (&["abcd", "c"][..], "xabcd", "xab"),
        (&["c", "bc", "abd"], "xabc", "xa"),
        (&["aab"], "aaab", "a"),
        (&["\n\n"], "a\n\n\nb", "a"),
        (&["é"], "xé", "x"),
    ] {
        let request = stopping(stops);
        for whole in [false, true] {
            let last = |n: usize| if whole { n - 1 } else { 0 };
            let ids = spell(format.tokenizer(), text, last);
            assert_eq!(format.reply(&request, &ids, STOP).message.content, expected);
            assert_eq!(stream(&format, &request, &ids).1.content, expected);
        }
    }
}

#[test]
fn stop_texts_are_detected_with_the_token_that_completes_them() {
    let format = format(CHATML_TEMPLATE);
    let ids = bytes(&format, "xxé!y");
    let mut stops = StopTexts::new(&format, &["never".to_owned(), "é!".to_owned()]);
    let stopped: Vec<bool> = ids.iter().map(|&id| stops.push(id)).collect();
    assert_eq!(stopped, [false, false, false, false, true, true]);
    let mut none = StopTexts::new(&format, &[]);
    assert!(!ids.iter().any(|&id| none.push(id)));
}

#[test]
fn the_end_of_turn_is_no_text_unless_more_follows() {
    let format = format(CHATML_TEMPLATE);
    let end = format.end_of_turn().unwrap();
    let request = ChatRequest::default();
    let ids = [bytes(&format, "ok"), vec![end]].concat();
    assert_eq!(contents(&stream(&format, &request, &ids).0).concat(), "ok");
    let ids = [bytes(&format, "a"), vec![end], bytes(&format, "b")].concat();
    let (deltas, end) = stream(&format, &request, &ids);
    assert_eq!(contents(&deltas).concat(), "a<|im_end|>b");
    assert_eq!(end.reply, format.reply(&request, &ids, STOP));
}

#[test]
fn calls_are_emitted_at_their_closing_tag_and_text_is_trimmed() {
    let format = format(CHATML_TEMPLATE);
    let text = " So: \n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"</tool_call>}\"}}\n\
                </tool_call>\n and <tool\n";
    let ids = bytes(&format, text);
    let (deltas, end) = stream(&format, &request(vec![]), &ids);
    let after = |part: &str| text.find(part).unwrap() + part.len() - 1;
    let calls: Vec<usize> = (0..deltas.len()).filter(|&i| !deltas[i].1.is_empty()).collect();
    assert_eq!(calls, [after("\n</tool_call>")]);
    let call = ToolCall {
        id: "call_0".into(),
        name: "f".into(),
        arguments: json!({"x": "</tool_call>}"}),
    };
    assert_eq!(deltas[calls[0]].1, [call]);
    assert_eq!(deltas[1].0, "S");
    assert_eq!(deltas[after("and")].0, "d");
    assert_eq!(deltas[after("and <tool")].0, "", "may be a tag");
    assert_eq!(end.content, "So: \n\n and <tool");
    assert_eq!(contents(&deltas).concat(), end.content);
    assert_eq!(end.reply.message.content, text);
}

#[test]
fn a_broken_call_does_not_hold_back_what_follows() {
    let format = format(CHATML_TEMPLATE);
    for broken in ["oops", "{\"name\": oops", "[1, 2]}", "\"f\" x", "{\"name\": \"f\"}, {}", "}"] {
        let text = format!("<tool_call>{broken}</tool_call>.");
        let ids = bytes(&format, &text);
        let (deltas, end) = stream(&format, &request(vec![]), &ids);
        assert_eq!(deltas[ids.len() - 1].0, ".", "{broken}");
        assert!(end.reply.malformed_call.is_some() && end.reply.message.tool_calls.is_empty());
    }
}

/// Closing tags within strings and errors around them: the parse error decides where a broken call
/// ends.
#[test]
fn streamed_broken_calls_end_as_in_the_complete_text() {
    let format = format(CHATML_TEMPLATE);
    for call in [
        "[\"</tool_call>\" 1] </tool_call>",
        "[\"</tool_call>\", 1] </tool_call>",
        "[\"</tool_call>\"] x</tool_call>",
        "{\"a\": \"</tool_call>\"] </tool_call>",
        "{\"a\": \"\n</tool_call>\"} </tool_call>",
        "\"</tool_call>\" </tool_call>",
        "\"</tool_call>\\\"\" </tool_call>",
        "1e999 </tool_call>",
        "[1e999] </tool_call>",
        "{\"\\ud800\": 1} </tool_call>",
        "{}\u{a0}</tool_call>",
        "\u{a0}{}</tool_call>",
    ] {
        for offered in [true, false] {
            let tools = if offered { vec![calculator()] } else { vec![] };
            let request = ChatRequest { tools, ..ChatRequest::default() };
            let text = format!("a <tool_call>{call} b <tool_call>{call} c");
            check(&format, &request, &bytes(&format, &text));
        }
    }
}

#[test]
fn an_unclosed_call_counts_at_the_end() {
    let format = format(CHATML_TEMPLATE);
    let ids = bytes(&format, "<tool_call>{\"name\": \"f\", \"arguments\": {}} ");
    let (deltas, end) = stream(&format, &request(vec![]), &ids);
    assert!(deltas[..ids.len()].iter().all(|(_, calls)| calls.is_empty()));
    assert_eq!(end.delta.tool_calls.len(), 1);
    assert_eq!(end.delta.tool_calls, end.reply.message.tool_calls);
}

#[test]
fn a_stop_text_within_a_call_cuts_the_call() {
    let format = format(CHATML_TEMPLATE);
    let text =
        "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call><tool_call>{\"name\"STOP";
    let mut request = request(vec![]);
    request.stop = vec!["STOP".to_owned()];
    let ids = bytes(&format, text);
    let (_, end) = stream(&format, &request, &ids);
    assert_eq!(end.reply, format.reply(&request, &ids, STOP));
    assert_eq!(end.reply.message.tool_calls.len(), 1);
    assert!(end.reply.malformed_call.is_some());
}

#[test]
fn llama_text_is_emitted_at_once_and_json_at_the_end() {
    let format = format(TRIMMING);
    let request = request(vec![]);
    let (deltas, end) = stream(&format, &request, &bytes(&format, " hi <|py"));
    assert_eq!(contents(&deltas), ["", "h", "i", "", "", "", "", "", " <|py"]);
    assert_eq!(end.content, "hi <|py");
    let text = "ok <|python_tag|>{\"name\": \"f\", \"parameters\": {\"x\": 1}}";
    let (_, end) = stream(&format, &request, &bytes(&format, text));
    assert_eq!((end.content.as_str(), end.delta.tool_calls.len()), ("ok", 1));
    for answer in ["{\"answer\": 3} ", "{not json", "{\"name\": "] {
        let (deltas, end) = stream(&format, &request, &bytes(&format, answer));
        assert!(deltas[..answer.len()].iter().all(|(content, _)| content.is_empty()));
        assert_eq!(end.reply, format.reply(&request, &bytes(&format, answer), STOP));
    }
}

#[test]
fn without_offered_tools_markup_is_text() {
    let format = format(CHATML_TEMPLATE);
    let text = " <tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call> \n";
    let ids = bytes(&format, text);
    let forbidden = ChatRequest { tool_choice: ToolChoice::None, ..request(vec![]) };
    for request in [ChatRequest::default(), forbidden] {
        let (deltas, end) = stream(&format, &request, &ids);
        let pieces: Vec<&str> = text.split("").filter(|piece| !piece.is_empty()).collect();
        assert_eq!(contents(&deltas)[..ids.len()], pieces);
        assert_eq!(end.reply.message.tool_calls, []);
        assert_eq!(end.reply, format.reply(&request, &ids, STOP));
    }
}

#[test]
fn calls_are_numbered_over_the_conversation_or_named_by_a_seed() {
    let format = format(CHATML_TEMPLATE);
    let call = ToolCall { id: "x".into(), name: "f".into(), arguments: json!({}) };
    let earlier = Message { tool_calls: vec![call], ..Message::assistant("") };
    let request = request(vec![Message::user("q"), earlier]);
    let text = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>".repeat(2);
    let ids = bytes(&format, &text);
    let names = |stream: ReplyStream| -> Vec<String> {
        let mut stream = stream;
        let mut calls: Vec<ToolCall> =
            ids.iter().flat_map(|&id| stream.push(id).tool_calls).collect();
        let end = stream.finish(STOP);
        calls.extend(end.delta.tool_calls);
        assert_eq!(calls, end.reply.message.tool_calls);
        calls.into_iter().map(|call| call.id).collect()
    };
    assert_eq!(names(ReplyStream::new(&format, &request)), ["call_1", "call_2"]);
    let seeded = |seed| names(ReplyStream::new(&format, &request).with_call_seed(seed));
    assert_eq!(seeded(255), ["call_00000000000000ff_0", "call_00000000000000ff_1"]);
    assert!(seeded(7).iter().all(|id| !seeded(8).contains(id)));
    let longest = seeded(u64::MAX)[1].len();
    assert!(longest <= 40, "OpenAI's limit: {longest}");
}

/// Long hostile responses finish quickly; quadratic work would take minutes.
#[test]
fn long_responses_take_linear_time() {
    let format = format(CHATML_TEMPLATE);
    let n = 60_000;
    let open = "<tool_call>{\"name\": \"";
    for text in [
        "a".repeat(4 * n),
        format!("<tool_call>{{}}{}", " ".repeat(4 * n)),
        format!("{open}{}", "</tool_call>".repeat(n)),
        "<tool_call>{\"</tool_call>".repeat(n),
        format!("x{}", " \n".repeat(2 * n)),
        "<tool_call>".repeat(n),
        format!("<tool_call>{}", "[".repeat(4 * n)),
        "<tool_call>\"</tool_call>\"</tool_call>".repeat(n / 4),
    ] {
        let mut request = request(vec![]);
        request.stop = vec![format!("{}b", "a".repeat(n)), "</tool_call".repeat(4)];
        let byte: Vec<u32> = (0..=255u8)
            .map(|byte| {
                let mut ids = 0..format.tokenizer().vocab_size() as u32;
                ids.find(|&id| format.tokenizer().token_bytes(id) == [byte]).unwrap()
            })
            .collect();
        let ids: Vec<u32> = text.bytes().map(|b| byte[b as usize]).collect();
        let (deltas, end) = stream(&format, &request, &ids);
        assert_eq!(contents(&deltas).concat(), end.content);
        assert_eq!(end.reply, format.reply(&request, &ids, STOP));
    }
}

fn fragment() -> impl Strategy<Value = String> {
    let markup = [
        "<tool_call>",
        "<tool_call>\n{\"name\": \"",
        "</tool_call>",
        "<|python_tag|>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": [\"</tool_call>\"]}}",
        "<tool_call>{\"name\": \"f\", \"arguments\": {}} </tool_call>",
        "{\"name\": \"f\", \"parameters\": {\"x\": 1}}",
        "{\"name\": \"f\"}",
        "{\"a\": 1}",
        "; ",
        "</tool",
        "{",
        "}",
        "\"",
        "[",
        "]",
        "\\",
        "1",
        " ",
        "\n",
        "\u{a0}",
        "é",
        "🦀",
        "stop</s>",
        "Observation:",
        "Obs",
    ];
    prop_oneof![4 => prop::sample::select(markup.to_vec()).prop_map(str::to_owned), 1 => ".{0,4}"]
}

fn stops() -> impl Strategy<Value = Vec<String>> {
    let texts = ["stop</s>", "Observation:", "Obs", "</s>", "\n\n", "🦀", "\"f\"", "</", "", "  "];
    prop::collection::vec(prop::sample::select(texts.to_vec()).prop_map(str::to_owned), 0..3)
}

/// Streams `ids` and compares with the definition; then ends where a sampler would.
fn check(format: &Arc<ChatFormat>, request: &ChatRequest, ids: &[u32]) {
    let body = match ids.split_last() {
        Some((last, body)) if format.stop_ids().contains(last) => body,
        _ => ids,
    };
    let decoded = format.tokenizer().decode(body, true);
    let text = cut(&decoded, &request.stop);
    let reply = format.reply(request, ids, STOP);
    assert_eq!(reply.message.content, text);
    let (deltas, end) = stream(format, request, ids);
    assert_eq!(end.reply, reply);
    let expected = match request.offered_tools() {
        [] => text.to_owned(),
        _ => format.tool_format().parse(text, 0).content,
    };
    assert_eq!(end.content, expected);
    assert_eq!(contents(&deltas).concat(), expected);
    let calls: Vec<ToolCall> = deltas.iter().flat_map(|(_, calls)| calls.clone()).collect();
    assert_eq!(calls, reply.message.tool_calls);
    // A sampler adds nothing after the token that completes a stop text.
    let mut watcher = StopTexts::new(format, &request.stop);
    let stopped = ids.iter().position(|&id| watcher.push(id)).map_or(ids.len(), |at| at + 1);
    let (early, end) = stream(format, request, &ids[..stopped]);
    assert_eq!(early[..stopped], deltas[..stopped]);
    assert!(
        deltas[stopped..]
            .iter()
            .take(ids.len() - stopped)
            .all(|(c, t)| c.is_empty() && t.is_empty())
    );
    if stopped < ids.len() {
        assert_eq!(end.reply, reply);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn deltas_joined_are_the_whole(
        which in 0usize..3,
        parts in prop::collection::vec(fragment(), 0..10),
        stop in stops(),
        offered in any::<bool>(),
        ended in any::<bool>(),
        draws in prop::collection::vec(any::<prop::sample::Index>(), 64),
    ) {
        let format = FORMATS.with(|formats| Arc::clone(&formats[which]));
        let mut draws = draws.iter().cycle();
        let mut ids = spell(format.tokenizer(), &parts.concat(), |n| draws.next().unwrap().index(n));
        if ended {
            ids.extend(format.end_of_turn());
        }
        let tools = if offered { vec![calculator()] } else { vec![] };
        check(&format, &ChatRequest { stop, tools, ..ChatRequest::default() }, &ids);
    }

    /// Arbitrary tokens, including control tokens and broken characters.
    #[test]
    fn any_tokens_stream(
        which in 0usize..3,
        ids in prop::collection::vec(0u32..500, 0..40),
        stop in stops(),
        offered in any::<bool>(),
    ) {
        let format = FORMATS.with(|formats| Arc::clone(&formats[which]));
        let tools = if offered { vec![calculator()] } else { vec![] };
        check(&format, &ChatRequest { stop, tools, ..ChatRequest::default() }, &ids);
    }
}

thread_local! {
    static FORMATS: [Arc<ChatFormat>; 3] =
        [CHATML_TEMPLATE, TRIMMING, PLAIN].map(format);
}

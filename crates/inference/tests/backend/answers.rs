//! Answers are the same streamed and whole, for equal seeds, and as from the engine alone.

use std::sync::Arc;

use leyden_core::{ChatRequest, FinishReason, Message, SeedTree, ToolChoice, ToolSpec};
use leyden_inference::Stats;
use leyden_lm::generate::{Engine, Request};
use leyden_serve::backend::{Answer, Ask, Backend, Prompt};
use leyden_text::History;
use serde_json::json;
use tch::Device;

use crate::common::{Collected, answer, ask, backend, collect, limits, model, weights};

#[test]
fn joined_deltas_equal_the_answer() {
    let backend = backend();
    for seed in 0..8 {
        let whole = Ask { seed: Some(seed), top_logprobs: 2, ..ask("what?", 24) };
        let streamed = collect(&backend, Ask { stream: true, ..whole.clone() });
        let silent = collect(&backend, whole);
        assert!(silent.deltas.is_empty() && silent.started.is_none(), "only the end is sent");
        let answer = streamed.answer.clone().unwrap();
        assert_eq!(streamed.text(), answer.content);
        let tokens: Vec<_> = streamed.deltas.iter().flat_map(|d| d.tokens.clone()).collect();
        assert_eq!(tokens, answer.tokens);
        assert_eq!(streamed.started, Some((answer.prompt_ids.clone(), 0)));
        let silent = silent.answer.unwrap();
        assert_eq!((&silent.content, &silent.finish), (&answer.content, &answer.finish));
        assert_eq!(silent.tokens.len(), answer.tokens.len());
        for token in &silent.tokens {
            assert!(token.logprob <= 0.0 && token.top.len() == 2);
            assert!(token.top[0].1 >= token.top[1].1);
        }
    }
}

#[test]
fn answers_match_the_engine() {
    let model = model();
    let mut engine = Engine::new(model.config.clone(), weights(&model), Device::Cpu, limits());
    let backend = backend();
    for seed in [3, 4] {
        let request = ChatRequest { messages: vec![Message::user("how?")], ..Default::default() };
        let prompt = model.format.prompt(&History::new(), &request).unwrap().ids;
        let Ask { sampling, .. } = ask("how?", 30);
        let completion = engine
            .generate(vec![Request {
                stop_ids: model.format.stop_ids().iter().copied().collect(),
                ..Request::new(1, prompt.clone(), sampling, SeedTree::new(seed))
            }])
            .unwrap()
            .remove(0)
            .unwrap();
        let answer = answer(&backend, Ask { seed: Some(seed), ..ask("how?", 30) });
        let (ids, logprobs): (Vec<_>, Vec<_>) =
            answer.tokens.iter().map(|token| (token.id, token.logprob)).unzip();
        assert_eq!(answer.prompt_ids, prompt);
        assert_eq!((ids, answer.finish), (completion.ids, completion.finish));
        for (ours, theirs) in logprobs.iter().zip(&completion.logprobs) {
            assert!((ours - theirs).abs() < 1e-4, "{ours} and {theirs}");
        }
    }
}

/// Requests without a seed get different answers each time; requests with one do not, regardless of
/// what else is being generated.
#[test]
fn equal_seeds_give_equal_answers() {
    let backend = backend();
    let ids = |collected: Collected| -> Vec<u32> {
        collected.answer.unwrap().tokens.iter().map(|token| token.id).collect()
    };
    let alone = ids(collect(&backend, ask("a", 20)));
    let company: Vec<_> = (0..6)
        .map(|i| backend.submit(Ask { seed: (i % 2 == 0).then_some(7), ..ask("a", 20) }))
        .collect();
    let company: Vec<_> = company.into_iter().map(|events| ids(Collected::all(events))).collect();
    for (i, other) in company.iter().enumerate() {
        assert_eq!(*other == alone, i % 2 == 0, "{i}");
    }
    assert_ne!(company[1], company[3]);
}

#[test]
fn a_response_ends_before_its_stop_text() {
    let backend = backend();
    let long = answer(&backend, ask("stop", 40)).content;
    let characters: Vec<char> = long.chars().collect();
    // Two characters from the middle of the answer without stop texts.
    let stop: String = characters[characters.len() / 2..][..2].iter().collect();
    let before = &long[..long.find(&stop).unwrap()];
    for stream in [false, true] {
        let collected =
            collect(&backend, Ask { stop: vec![stop.clone()], stream, ..ask("stop", 40) });
        let answer = collected.answer.as_ref().unwrap();
        assert_eq!(answer.content, before);
        assert_eq!(answer.finish, FinishReason::Stop);
        assert_eq!(answer.stop_text.as_deref(), Some(&*stop));
        if stream {
            assert_eq!(collected.text(), before);
        }
    }
}

#[test]
fn an_answer_continues_past_end_of_turn_if_requested() {
    let backend = backend();
    let ids = |answer: &Answer| -> Vec<u32> { answer.tokens.iter().map(|t| t.id).collect() };
    let (seed, short) = (0..)
        .map(|seed| (seed, answer(&backend, Ask { seed: Some(seed), ..ask("end", 40) })))
        .find(|(_, answer)| answer.finish == FinishReason::Stop)
        .unwrap();
    let long = answer(&backend, Ask { seed: Some(seed), ignore_eos: true, ..ask("end", 40) });
    assert_eq!((long.finish, long.tokens.len()), (FinishReason::Length, 40));
    assert_eq!(ids(&long)[..short.tokens.len()], ids(&short)[..]);
}

#[test]
fn raw_text_and_ids_are_continued_unchanged() {
    let (model, backend) = (model(), backend());
    let ids = model.format.tokenizer().encode("more and more").unwrap();
    let of = |prompt: Prompt| answer(&backend, Ask { prompt, ..ask("", 12) });
    let text = of(Prompt::Text("more and more".to_owned()));
    assert_eq!(text.prompt_ids, ids);
    let again = of(Prompt::Ids(ids));
    assert_eq!((&again.content, &again.tokens), (&text.content, &text.tokens));
    let written: Vec<u32> = text.tokens.iter().map(|token| token.id).collect();
    let end = written.iter().position(|id| model.format.stop_ids().contains(id));
    let body = &written[..end.unwrap_or(written.len())];
    assert_eq!(text.content, model.format.tokenizer().decode(body, true));
}

/// Without offered tools, text that looks like a call is text.
#[test]
fn tools_that_are_not_offered_are_not_called() {
    let backend = backend();
    let tool = ToolSpec {
        name: "add".to_owned(),
        description: String::new(),
        parameters: json!({"type": "object"}),
    };
    let request = ChatRequest {
        messages: vec![Message::user("x")],
        tools: vec![tool],
        tool_choice: ToolChoice::None,
        ..ChatRequest::default()
    };
    let plain = answer(&backend, ask("x", 20));
    let none = answer(&backend, Ask { prompt: Prompt::Chat(request), ..ask("x", 20) });
    assert_eq!(none.prompt_ids, plain.prompt_ids, "the tool is not shown");
    assert!(none.tool_calls.is_empty() && none.malformed_call.is_none());
}

#[test]
fn everything_is_counted() {
    let backend = Arc::new(backend());
    let first = answer(&backend, ask("count", 10));
    let second = answer(&backend, ask("count", 10));
    // The answer is sent before the thread's loop iterates once more.
    drop(backend.submit(ask("count", 1)).blocking_recv());
    let Stats { finished, prompt_tokens, generated_tokens, failed, refused, .. } = backend.stats();
    assert!(finished >= 2 && failed == 0 && refused == 0);
    assert!(prompt_tokens >= 2 * first.prompt_ids.len() as u64);
    assert!(generated_tokens >= (first.tokens.len() + second.tokens.len()) as u64);
}

//! `/v1/completions`.

use leyden_serve::backend::Prompt;
use leyden_serve::backend::stub::{END, Reply, Scripted};
use leyden_serve::call::{Endpoint, Overrides};
use serde_json::{Value, json};

use crate::harness::{Harness, MODEL, gathered, joined, with};

const HERE: Endpoint = Endpoint::Completions;

fn body() -> Value {
    json!({"model": MODEL, "prompt": "Once upon"})
}

#[tokio::test]
async fn an_answer_has_every_field_that_clients_read() {
    let harness = Harness::replying(Reply::text(" a time"));
    let wanted = json!({"logprobs": 2, "return_token_ids": true});
    let mut answer = harness.post(HERE, &with(body(), wanted)).await.ok();
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    for volatile in ["id", "created"] {
        answer.as_object_mut().unwrap().remove(volatile).unwrap();
    }
    let choice = answer["choices"][0].take();
    let expected = json!({
        "object": "text_completion",
        "model": MODEL,
        "system_fingerprint": "policy-0",
        "choices": [null],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    });
    assert_eq!(answer, expected);
    assert_eq!((&choice["text"], &choice["index"]), (&json!(" a time"), &json!(0)));
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["prompt_token_ids"].as_array().unwrap().len(), 3);
    assert_eq!(choice["token_ids"][2], END);
    let logprobs = &choice["logprobs"];
    assert_eq!(logprobs["tokens"], json!([" a t", "ime", "</s>"]));
    assert_eq!(logprobs["text_offset"], json!([0, 4, 7]));
    assert_eq!(logprobs["token_logprobs"].as_array().unwrap().len(), 3);
    assert_eq!(logprobs["top_logprobs"][0].as_object().unwrap().len(), 2);
    assert_eq!(harness.ask().sampling.max_tokens, 16, "OpenAI's default");
}

#[tokio::test]
async fn prompts_are_texts_or_token_ids_or_lists_of_them() {
    let text = |s: &str| Prompt::Text(s.to_owned());
    let cases = [
        (json!("a"), vec![text("a")]),
        (json!([5, 6, 7]), vec![Prompt::Ids(vec![5, 6, 7])]),
        (json!(["a", "b"]), vec![text("a"), text("b")]),
        (json!([[5], [6, 7]]), vec![Prompt::Ids(vec![5]), Prompt::Ids(vec![6, 7])]),
        (json!([[5], "b"]), vec![Prompt::Ids(vec![5]), text("b")]),
    ];
    for (prompt, expected) in cases {
        let harness = Harness::replying(Reply::text("x"));
        let wanted = json!({"prompt": prompt, "n": 2, "return_token_ids": true});
        let answer = harness.post(HERE, &with(body(), wanted)).await.ok();
        let asked: Vec<Prompt> = harness.backend.asks().into_iter().map(|ask| ask.prompt).collect();
        let twice: Vec<Prompt> = expected.iter().flat_map(|p| [p.clone(), p.clone()]).collect();
        assert_eq!(asked, twice);
        let choices = answer["choices"].as_array().unwrap();
        assert_eq!(choices.len(), twice.len());
        // Each prompt counts once.
        let tokens: usize = choices
            .iter()
            .step_by(2)
            .map(|choice| choice["prompt_token_ids"].as_array().unwrap().len())
            .sum();
        assert_eq!(answer["usage"]["prompt_tokens"], tokens);
    }
}

#[tokio::test]
async fn the_joined_stream_equals_the_whole_response() {
    for backend in [
        Scripted::new(MODEL, |_| Reply::text(" a time, in Zürich")),
        Scripted::new(MODEL, |_| Reply::text(" a time, in Zürich")).without_deltas(),
    ] {
        let harness = Harness::new(backend);
        let wanted = json!({"logprobs": 1, "return_token_ids": true, "n": 2});
        let body = with(body(), wanted);
        let whole = harness.post(HERE, &body).await.ok();
        let more = json!({"stream": true, "stream_options": {"include_usage": true}});
        let chunks = harness.post(HERE, &with(body, more)).await.chunks();
        for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
            let of: Vec<Value> =
                chunks.iter().filter(|c| c["choices"][0]["index"] == index).cloned().collect();
            assert_eq!(joined(&of, "/choices/0/text"), choice["text"]);
            let lists = |name: &str| Value::from(gathered(&of, &format!("/choices/0/{name}")));
            assert_eq!(lists("token_ids"), choice["token_ids"]);
            assert_eq!(lists("prompt_token_ids"), choice["prompt_token_ids"], "sent once");
            assert!(of[0]["choices"][0].get("prompt_token_ids").is_some());
            for name in ["tokens", "token_logprobs", "text_offset", "top_logprobs"] {
                assert_eq!(lists(&format!("logprobs/{name}")), choice["logprobs"][name]);
            }
        }
        assert_eq!(chunks.last().unwrap()["choices"], json!([]));
        assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
    }
}

/// agent-lightning's proxy sends `logprobs: true` to this endpoint too.
#[tokio::test]
async fn logprobs_may_be_true_or_forced_by_overrides() {
    let harness = Harness::replying(Reply::text("x"));
    let answer = harness.post(HERE, &with(body(), json!({"logprobs": true}))).await.ok();
    assert_eq!(harness.ask().top_logprobs, 1);
    assert!(answer["choices"][0]["logprobs"]["top_logprobs"][0].is_object());
    let overrides = Overrides { logprobs: true, token_ids: true, ..Overrides::default() };
    let harness = Harness::replying(Reply::text("x")).with(overrides);
    let answer = harness.post(HERE, &body()).await.ok();
    assert_eq!(answer["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(answer["choices"][0]["logprobs"]["top_logprobs"], Value::Null);
    assert!(answer["choices"][0]["token_ids"].is_array());
}

#[tokio::test]
async fn unsupported_fields_are_refused_by_name() {
    let cases = [
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [[]]}), "prompt[0]"),
        (json!({"prompt": [1, "a"]}), "prompt"),
        (json!({"prompt": [-1]}), "prompt"),
        (json!({"prompt": [4_294_967_296_u64]}), "prompt"),
        (json!({"prompt": ["a", 5]}), "prompt[1]"),
        (json!({"prompt": {"text": "a"}}), "prompt"),
        (json!({"echo": true}), "echo"),
        (json!({"suffix": "end"}), "suffix"),
        (json!({"best_of": 3}), "best_of"),
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"prompt": vec!["a"; 100], "n": 2}), "n"),
        (json!({"messages": []}), "messages"),
        (json!({"tools": []}), "tools"),
    ];
    for (extra, param) in cases {
        let harness = Harness::replying(Reply::text("x"));
        let (status, _, named) = harness.post(HERE, &with(body(), extra.clone())).await.error();
        assert_eq!((status, named), (400, param.into()), "{extra}");
    }
    let harness = Harness::replying(Reply::text("x"));
    let neutral = json!({"echo": false, "suffix": "", "best_of": 1, "logit_bias": {}});
    harness.post(HERE, &with(body(), neutral)).await.ok();
}

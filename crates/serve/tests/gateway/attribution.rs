//! Attribution of calls to rollouts, and their overrides.

use serde_json::json;

use super::harness::{Harness, chat_body, chat_path, config, replying, send};

#[tokio::test]
async fn modes_decide_the_sampling() {
    let harness = Harness::new(config(), replying("2")).await;
    harness.rollout("r").await;
    let mut body = chat_body("1+1");
    body["temperature"] = json!(0.2);
    body["top_p"] = json!(0.3);
    let path = chat_path("r");
    let train = harness.post(&path, body.clone()).await.is(200).json();
    let val = harness.post(&path.replace("train", "val"), body.clone()).await.is(200).json();
    body["model"] = json!("stub");
    let open = harness.post("/v1/chat/completions", body).await.is(200).json();
    let sampled: Vec<(f64, f64)> = harness
        .model
        .asks()
        .iter()
        .map(|ask| (ask.sampling.temperature, ask.sampling.top_p))
        .collect();
    assert_eq!(sampled, [(1.0, 1.0), (0.7, 0.3), (0.2, 0.3)]);
    assert!(train["prompt_token_ids"].is_array() && train["choices"][0]["logprobs"].is_object());
    assert!(val["prompt_token_ids"].is_array() && val["choices"][0]["logprobs"].is_null());
    assert!(open.get("prompt_token_ids").is_none_or(|ids| ids.is_null()));
}

#[tokio::test]
async fn calls_share_the_conversation_of_their_attempt() {
    let harness = Harness::new(config(), replying("2")).await;
    harness.rollout("r").await;
    harness.chat("r", "1+1").await.is(200);
    harness.post(&chat_path("r").replace("attempt/0", "attempt/1"), chat_body("1+1")).await.is(200);
    let mut open = chat_body("1+1");
    open["model"] = json!("stub");
    harness.post("/v1/chat/completions", open).await.is(200);
    let conversations: Vec<Option<String>> =
        harness.model.asks().into_iter().map(|ask| ask.conversation).collect();
    assert_eq!(conversations, [Some("r/0".into()), Some("r/1".into()), None]);
    // Events of the replaced attempt are stored but not listed.
    harness.patch("/api/rollouts/r", json!({"status": {"last_attempt_id": "1"}})).await.is(200);
    let events = harness.get("/api/rollouts/r/events").await.is(200).json();
    assert_eq!(events.as_array().map(Vec::len), Some(1));
    let rollout = harness.get("/api/rollouts/r").await.is(200).json();
    assert_eq!(rollout["attempts"], json!(["0", "1"]));
}

#[tokio::test]
async fn every_choice_is_kept_with_its_ids() {
    let harness = Harness::new(config(), replying("The answer is 2.")).await;
    harness.rollout("r").await;
    let mut body = chat_body("1+1");
    body["n"] = json!(3);
    let request = harness.request(reqwest::Method::POST, &chat_path("r")).json(&body);
    send(request.header("x-leyden-role", "solver")).await.is(200);
    let calls = harness.store.calls("r").await.expect("calls");
    assert_eq!(calls.iter().map(|call| call.choice).collect::<Vec<_>>(), [0, 1, 2]);
    for call in &calls {
        assert_eq!(call.role.as_deref(), Some("solver"));
        assert_eq!(call.endpoint, "chat/completions");
        assert_eq!(call.answer.content, "The answer is 2.");
        assert_eq!(call.answer.response_ids.len(), call.answer.logprobs.len());
        assert_eq!(call.answer.response_ids.last(), Some(&2));
    }
}

#[tokio::test]
async fn a_previous_response_is_remembered() {
    let harness = Harness::new(config(), replying("The answer is 2.")).await;
    harness.rollout("r").await;
    let path = "/proxy/rollout/r/attempt/0/mode/train/openai/v1/responses";
    let first = harness.post(path, json!({"model": "auto", "input": "1+1"})).await.is(200).json();
    let next = json!({"model": "auto", "input": "why?", "previous_response_id": first["id"]});
    harness.post(path, next).await.is(200);
    let asks = harness.model.asks();
    let leyden_serve::backend::Prompt::Chat(chat) = &asks[1].prompt else { panic!("{asks:?}") };
    let texts: Vec<&str> = chat.messages.iter().map(|message| message.content.as_str()).collect();
    assert_eq!(texts, ["1+1", "The answer is 2.", "why?"]);
    let unknown = json!({"model": "auto", "input": "x", "previous_response_id": "resp_none"});
    let refused = harness.post(path, unknown).await;
    assert!(refused.status.is_client_error(), "{refused:?}");
}

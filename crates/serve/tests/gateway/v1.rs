//! agent-lightning v1's endpoints, as its controllers and trainers use them.

use serde_json::{Value, json};

use super::harness::{Harness, chat_body, chat_path, config, replying};

#[tokio::test]
async fn a_rollout_has_v1s_fields_and_defaults() {
    let harness = Harness::new(config(), replying("2")).await;
    let body = json!([
        {"input": {"data_id": "d7", "n": [1, 2]}},
        {"input": "text", "is_train": false, "rollout_id": "r-2",
         "config": {"timeout_seconds": 60, "local": {"agent_class": "a:B"}, "k8s": {"job_template": "t"}},
         "metadata": {"batch_idx": 3, "own": "kept"}},
    ]);
    let made = harness.post("/api/rollouts", body).await.is(201).json();
    let first = &made[0];
    assert_eq!(first["rollout_id"].as_str().map(str::len), Some(32));
    assert_eq!(first["input"], json!({"data_id": "d7", "n": [1, 2]}));
    assert_eq!(first["is_train"], true);
    assert_eq!(first["config"], json!({"timeout_seconds": 3600, "local": null, "k8s": null}));
    assert_eq!(first["metadata"], json!({"batch_idx": null, "sample_idx_in_batch": null}));
    let status = &first["status"];
    assert_eq!(status["state"], "queuing");
    assert_eq!(status["version"], 1);
    assert_eq!(status["created_at"], status["updated_at"]);
    for absent in ["k8s_job_name", "last_attempt_id", "error_message"] {
        assert_eq!(status[absent], Value::Null);
    }
    let second = &made[1];
    assert_eq!(
        second["config"],
        json!({
            "timeout_seconds": 60,
            "local": {"agent_class": "a:B", "env_map": {}},
            "k8s": {"job_template": "t"},
        })
    );
    assert_eq!(
        second["metadata"],
        json!({"batch_idx": 3, "sample_idx_in_batch": null, "own": "kept"})
    );
}

#[tokio::test]
async fn creating_an_existing_id_returns_the_existing_rollout() {
    let harness = Harness::new(config(), replying("2")).await;
    let first = harness.rollout("same").await;
    let body = json!([{"input": "another", "rollout_id": "same"}]);
    let again = harness.post("/api/rollouts", body).await.is(201).json();
    assert_eq!(again[0], first);
}

#[tokio::test]
async fn listing_requires_a_state() {
    let harness = Harness::new(config(), replying("2")).await;
    for id in ["a", "b", "c"] {
        harness.rollout(id).await;
    }
    harness.patch("/api/rollouts/b", json!({"status": {"state": "running"}})).await.is(200);
    let ids = async |query: &str| -> Vec<String> {
        let list = harness.get(&format!("/api/rollouts?{query}")).await.is(200).json();
        let list = list.as_array().expect("a list").clone();
        list.iter().filter_map(|r| r["rollout_id"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(ids("state_in=queuing").await, ["a", "c"]);
    assert_eq!(ids("state_in=queuing&state_in=running").await, ["a", "b", "c"]);
    assert_eq!(ids("state_in=queuing&limit=1").await, ["a"]);
    assert_eq!(ids("state_in=failed").await, Vec::<String>::new());
    harness.get("/api/rollouts").await.is(422);
    harness.get("/api/rollouts?state_in=flying").await.is(422);
    harness.get("/api/rollouts?state_in=queuing&limit=many").await.is(422);
}

#[tokio::test]
async fn the_state_machine_refuses_what_v1_refuses() {
    let harness = Harness::new(config(), replying("2")).await;
    harness.rollout("r").await;
    let state = |state: &str| json!({"status": {"state": state}});
    let refused = harness.patch("/api/rollouts/r", state("succeeded")).await.is(409).json();
    assert_eq!(refused["detail"], "Rollout r: cannot transition queuing -> succeeded");
    let running =
        json!({"status": {"state": "running", "last_attempt_id": "0", "k8s_job_name": "job"}});
    let running = harness.patch("/api/rollouts/r", running).await.is(200).json();
    assert_eq!(running["status"]["version"], 2);
    assert_eq!(running["status"]["k8s_job_name"], "job");
    harness.patch("/api/rollouts/r", state("queuing")).await.is(409);
    let unset = json!({"status": {"k8s_job_name": null}});
    let unset = harness.patch("/api/rollouts/r", unset).await.is(200).json();
    assert_eq!(unset["status"]["k8s_job_name"], Value::Null);
    assert_eq!(unset["status"]["last_attempt_id"], "0");
    let failed = json!({"status": {"state": "failed", "error_message": "out of memory"}});
    harness.patch("/api/rollouts/r", failed).await.is(200);
    for next in ["queuing", "running", "succeeded", "failed"] {
        harness.patch("/api/rollouts/r", state(next)).await.is(409);
    }
    // An empty patch is no change.
    let same = harness.patch("/api/rollouts/r", json!({})).await.is(200).json();
    assert_eq!(same["status"]["version"], 4);
    harness.patch("/api/rollouts/r", json!({"status": {"colour": "red"}})).await.is(422);
    harness.patch("/api/rollouts/r", json!({"status": {"state": 1}})).await.is(422);
    harness.patch("/api/rollouts/none", state("running")).await.is(404);
}

#[tokio::test]
async fn the_completion_log_is_ordered_and_counts_deleted_rollouts() {
    let harness = Harness::new(config(), replying("2")).await;
    let body = json!([
        {"rollout_id": "a", "input": {"data_id": "d"}},
        {"rollout_id": "b", "input": {"instance_id": 7}},
        {"rollout_id": "c", "input": "none", "is_train": false},
    ]);
    harness.post("/api/rollouts", body).await.is(201);
    for id in ["b", "c", "a"] {
        let failed = json!({"status": {"state": "failed"}});
        harness.patch(&format!("/api/rollouts/{id}"), failed).await.is(200);
    }
    let page = harness.get("/api/rollouts/terminal").await.is(200).json();
    assert_eq!(
        page,
        json!({
            "items": [
                {"rollout_id": "b", "state": "failed", "data_id": "7", "is_train": true},
                {"rollout_id": "c", "state": "failed", "data_id": "", "is_train": false},
                {"rollout_id": "a", "state": "failed", "data_id": "d", "is_train": true},
            ],
            "next_after": 3,
            "total_terminal": 3,
        })
    );
    harness.delete("/api/rollouts/c").await.is(204);
    harness.delete("/api/rollouts/c").await.is(204);
    let page = harness.get("/api/rollouts/terminal?after=1&limit=1").await.is(200).json();
    assert_eq!(page, json!({"items": [], "next_after": 2, "total_terminal": 3}));
    let page = harness.get("/api/rollouts/terminal?after=-5&limit=0").await.is(200).json();
    assert_eq!(page["next_after"], 1);
    let page = harness.get("/api/rollouts/terminal?after=99").await.is(200).json();
    assert_eq!(page, json!({"items": [], "next_after": 99, "total_terminal": 3}));
}

#[tokio::test]
async fn reads_a_rollout_with_its_attempts() {
    let harness = Harness::new(config(), replying("2")).await;
    harness.get("/api/rollouts/r").await.is(404);
    harness.rollout("r").await;
    assert_eq!(harness.get("/api/rollouts/r").await.is(200).json()["attempts"], json!([]));
    for attempt in ["1", "0", "1"] {
        let event = json!({"event_type": "note"});
        harness.post(&format!("/api/rollouts/r/attempt/{attempt}/events"), event).await.is(200);
    }
    assert_eq!(harness.get("/api/rollouts/r").await.is(200).json()["attempts"], json!(["1", "0"]));
}

#[tokio::test]
async fn events_of_the_current_attempt_are_listed() {
    let harness = Harness::new(config(), replying("2")).await;
    harness.rollout("r").await;
    let post = async |attempt: &str, value: i64| {
        let event = json!({"event_type": "reward", "data": {"value": value, "why": "x"}});
        harness
            .post(&format!("/api/rollouts/r/attempt/{attempt}/events"), event)
            .await
            .is(200)
            .json()
    };
    let event = post("0", 1).await;
    assert_eq!(event["event_type"], "reward");
    assert_eq!(event["rollout_id"], "r");
    assert_eq!(event["attempt_id"], "0");
    assert_eq!(event["data"], json!({"value": 1, "why": "x"}));
    assert!(event["timestamp"].as_f64().is_some_and(|seconds| seconds > 1.7e9));
    post("1", 2).await;
    let values = async |query: &str| -> Vec<Value> {
        let events = harness.get(&format!("/api/rollouts/r/events{query}")).await.is(200).json();
        events.as_array().expect("a list").iter().map(|e| e["data"].clone()).collect()
    };
    assert_eq!(values("").await, [json!({"value": 1, "why": "x"})]);
    let next = json!({"status": {"last_attempt_id": "1"}});
    harness.patch("/api/rollouts/r", next).await.is(200);
    assert_eq!(values("?event_type=reward").await, [json!({"value": 2, "why": "x"})]);
    assert_eq!(values("?format=triplet").await, [json!({"value": 2})]);
    assert_eq!(values("?event_type=other").await, Vec::<Value>::new());
    harness.get("/api/rollouts/none/events").await.is(404);
    let event = json!({"event_type": "reward", "data": {"value": 1}});
    harness.post("/api/rollouts/none/attempt/0/events", event).await.is(404);
    harness.post("/api/rollouts/r/attempt/0/events", json!({"data": {}})).await.is(422);
    harness
        .post("/api/rollouts/r/attempt/0/events", json!({"event_type": "x", "data": 1}))
        .await
        .is(422);
}

#[tokio::test]
async fn triplets_have_ids_and_log_probabilities_once_per_prompt() {
    let harness = Harness::new(config(), replying("The answer is 2.")).await;
    harness.rollout("r").await;
    for question in ["1+1", "2+2", "1+1"] {
        harness.chat("r", question).await.is(200);
    }
    let events = harness
        .get("/api/rollouts/r/events?format=triplet&include_routed_experts=false")
        .await
        .is(200)
        .json();
    let events = events.as_array().expect("a list");
    assert_eq!(events.len(), 2);
    for event in events {
        let data = &event["data"];
        let ids = data["response_token_ids"].as_array().expect("ids");
        let logprobs = data["response_log_probs"].as_array().expect("log-probabilities");
        assert_eq!(ids.len(), logprobs.len());
        assert_eq!(ids.last(), Some(&json!(2)), "including the end-of-turn token");
        assert!(!data["prompt_token_ids"].as_array().expect("ids").is_empty());
        assert_eq!(data["http_status"], 200);
        assert_eq!(data["status"], "ok");
        assert_eq!(data["server"]["version"], 0);
        assert_eq!(data.get("request"), None);
    }
    let all = harness.get("/api/rollouts/r/events").await.is(200).json();
    assert_eq!(all.as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_model_request_has_v1s_fields() {
    let harness = Harness::new(config(), replying("2").with_policy_version(9)).await;
    harness.rollout("r").await;
    let answer = harness.chat("r", "1+1").await.is(200).json();
    let events = harness.get("/api/rollouts/r/events").await.is(200).json();
    let data = &events[0]["data"];
    assert_eq!(data["model"], "stub");
    assert_eq!(data["model_version"], 9);
    assert_eq!(data["server"], json!({"model": "stub", "endpoint": "local", "version": 9}));
    assert_eq!(data["request"], chat_body("1+1"));
    assert_eq!(data["response"], answer);
    assert_eq!(data["usage"], answer["usage"]);
    assert_eq!(data["finish_reason"], "stop");
    assert_eq!(data["http_status"], 200);
    assert_eq!(data["status"], "ok");
    assert_eq!(data["retry_count"], 0);
    assert!(data["latency_ms"].as_f64().is_some_and(|ms| ms >= 0.0));
}

#[tokio::test]
async fn invalid_calls_get_v1s_statuses() {
    let harness = Harness::new(config(), replying("2")).await;
    harness.chat("none", "1+1").await.is(404);
    harness.rollout("r").await;
    let to = |mode: &str, path: &str| format!("/proxy/rollout/r/attempt/0/mode/{mode}/{path}");
    let body = chat_body("1+1");
    harness.post(&to("test", "openai/v1/chat/completions"), body.clone()).await.is(404);
    harness.post(&to("train", "openai/v1/embeddings"), body.clone()).await.is(404);
    harness.post(&to("train", "openai/v1/chat/completions"), json!([1])).await.is(400);
    let broken = harness.request(reqwest::Method::POST, &chat_path("r")).body("{\"a\":");
    super::harness::send(broken).await.is(400);
    let modelless = Harness::modelless(config()).await;
    modelless.rollout("r").await;
    modelless.chat("r", "1+1").await.is(503);
}

#[tokio::test]
async fn streams_and_responses_which_v1_refuses_are_answered() {
    let harness = Harness::new(config(), replying("The answer is 2.")).await;
    harness.rollout("r").await;
    let mut body = chat_body("1+1");
    body["stream"] = json!(true);
    let stream = harness.post(&chat_path("r"), body).await.is(200);
    assert!(stream.text.ends_with("data: [DONE]\n\n"), "{}", stream.text);
    let path = "/proxy/rollout/r/attempt/0/mode/val/openai/v1/responses";
    let answer = harness.post(path, json!({"model": "auto", "input": "2+2"})).await.is(200).json();
    assert_eq!(answer["object"], "response");
    let events = harness.get("/api/rollouts/r/events").await.is(200).json();
    assert_eq!(events.as_array().map(Vec::len), Some(2), "both are recorded");
    let models = "/proxy/rollout/r/attempt/0/mode/train/openai/v1/models";
    assert_eq!(harness.get(models).await.is(200).json()["data"][0]["id"], "stub");
}

#[tokio::test]
async fn anthropics_messages_are_answered_and_recorded() {
    let harness = Harness::new(config(), replying("The answer is 2.")).await;
    harness.rollout("r").await;
    let body = json!({"model": "auto", "max_tokens": 64,
        "messages": [{"role": "user", "content": "1+1"}]});
    let path = "/proxy/rollout/r/attempt/0/mode/train/anthropic/v1/messages";
    let answer = harness.post(path, body).await.is(200).json();
    assert_eq!(answer["type"], "message");
    let triplets = harness.get("/api/rollouts/r/events?format=triplet").await.is(200).json();
    assert!(
        triplets[0]["data"]["response_token_ids"].as_array().is_some_and(|ids| !ids.is_empty())
    );
}

#[tokio::test]
async fn models_are_registered_by_name_and_endpoint() {
    let harness = Harness::modelless(config()).await;
    let body = json!([
        {"model": "m", "endpoint": "http://127.0.0.1:1/v1"},
        {"model": "m", "endpoint": "http://127.0.0.1:2/v1", "version": 3},
    ]);
    let made = harness.post("/api/models", body).await.is(201).json();
    assert_eq!(made[0], json!({"model": "m", "endpoint": "http://127.0.0.1:1/v1", "version": 0}));
    assert_eq!(harness.get("/v1/models").await.is(200).json()["data"][0]["id"], "m");
    harness.get("/v1/models/m").await.is(200);
    assert_eq!(harness.delete("/api/models").await.is(200).json(), json!({"status": "ok"}));
    harness.get("/v1/models/m").await.is(404);
    for wrong in [json!("ftp://host/v1"), json!("host:80"), json!(7)] {
        let body = json!([{"model": "m", "endpoint": wrong}]);
        harness.post("/api/models", body).await.is(422);
    }
}

#[tokio::test]
async fn healthz_needs_no_key_and_everything_else_does() {
    let key = Some("a long secret".to_owned());
    let harness =
        Harness::new(leyden_serve::gateway::GatewayConfig { key, ..config() }, replying("2")).await;
    let plain = |path: &str| harness.client.get(format!("{}{path}", harness.url));
    let got = super::harness::send(plain("/healthz")).await.is(200);
    assert_eq!(got.json(), json!({"status": "ok"}));
    for path in ["/v1/models", "/metrics", "/proxy/state", "/api/rollouts/terminal", "/nowhere"] {
        let refused = super::harness::send(plain(path)).await.is(401).json();
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("API key")));
        super::harness::send(plain(path).bearer_auth("a long secres")).await.is(401);
        super::harness::send(plain(path).bearer_auth("")).await.is(401);
    }
    harness.get("/v1/models").await.is(200);
    super::harness::send(plain("/v1/models").header("x-api-key", "a long secret")).await.is(200);
}

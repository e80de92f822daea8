//! Behaviour common to all endpoints: failures, records, disconnecting clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use axum::body::BodyDataStream;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::backend::{Delta, Event, Failure};
use leyden_serve::call::{CallContext, CallRecord, Endpoint, Recorder};
use leyden_serve::protocol;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};

use crate::harness::{Harness, MODEL, with};

/// All endpoints with a valid body.
pub fn endpoints() -> [(Endpoint, Value); 4] {
    let messages = json!([{"role": "user", "content": "Hello"}]);
    [
        (Endpoint::Chat, json!({"model": MODEL, "messages": messages})),
        (Endpoint::Completions, json!({"model": MODEL, "prompt": "Hello", "max_tokens": 50})),
        (Endpoint::Responses, json!({"model": MODEL, "input": "Hello"})),
        (Endpoint::Messages, json!({"model": MODEL, "messages": messages, "max_tokens": 50})),
    ]
}

fn failures() -> Vec<(Failure, u16, &'static str)> {
    let invalid = Failure::Invalid { param: Some("tools".into()), message: "no grammar".into() };
    vec![
        (Failure::ContextLength { tokens: 9, limit: 5 }, 400, "invalid_request_error"),
        (invalid, 400, "invalid_request_error"),
        (Failure::Gone("over".into()), 404, "not_found_error"),
        (
            Failure::Busy { retry_after_seconds: 7, message: "weights".into() },
            429,
            "rate_limit_error",
        ),
        (Failure::Late("the call's deadline of 5 s passed".into()), 504, "timeout_error"),
        (Failure::ShuttingDown, 503, "overloaded_error"),
        (Failure::Internal("numbers".into()), 500, "api_error"),
    ]
}

#[tokio::test]
async fn a_failure_has_its_status_and_its_api_s_error_body() {
    for (failure, status, anthropic) in failures() {
        for (endpoint, body) in endpoints() {
            for stream in [false, true] {
                let harness = Harness::replying(Reply::Fail(failure.clone()));
                let got =
                    harness.post(endpoint, &with(body.clone(), json!({"stream": stream}))).await;
                assert_eq!(got.status, status, "{failure:?}");
                let error = got.json();
                let message = error["error"]["message"].as_str().unwrap();
                assert_eq!(message, failure.to_string());
                if endpoint == Endpoint::Messages {
                    assert_eq!(error["type"], "error");
                    assert_eq!(error["error"]["type"], anthropic);
                } else {
                    assert!(error["error"].as_object().unwrap().len() == 4);
                }
                let kept = !matches!(failure, Failure::Busy { .. } | Failure::ShuttingDown);
                assert_eq!(harness.records().len(), usize::from(kept));
                for record in harness.records() {
                    assert_eq!((record.status, &record.response.value()), (status, &error));
                    assert_eq!(record.failure.as_ref(), Some(&failure));
                    assert_eq!(record.request["model"], MODEL);
                }
            }
        }
    }
}

#[tokio::test]
async fn busy_responses_have_retry_after() {
    let busy = |seconds| {
        let message = "weights are being updated".to_owned();
        Reply::Fail(Failure::Busy { retry_after_seconds: seconds, message })
    };
    // `openai` ignores a delay of 0 s or of more than 120 s.
    for (seconds, expected) in [(7, "7"), (0, "1"), (100_000, "120")] {
        let (endpoint, body) = &endpoints()[0];
        let got = Harness::replying(busy(seconds)).post(*endpoint, body).await;
        assert_eq!(got.headers["retry-after"], expected);
    }
}

/// LangChain detects an overflow by these words in the message only.
#[tokio::test]
async fn a_context_overflow_is_recognisable() {
    let harness = Harness::new(Scripted::new(MODEL, |_| Reply::text("")).with_context(2));
    let (endpoint, body) = &endpoints()[0];
    let got = harness.post(*endpoint, body).await;
    assert_eq!(got.error(), (400, "context_length_exceeded".into(), Value::Null));
    let message = got.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("prompt is too long") && message.contains("context_length_exceeded"));
}

#[tokio::test]
async fn a_failing_stream_reports_the_error_and_does_not_complete() {
    let late = Failure::Late("the call's deadline passed".to_owned());
    for reply in [Reply::Break("Once upon".to_owned(), late.clone()), Reply::Vanish] {
        for (endpoint, body) in endpoints() {
            let harness = Harness::replying(reply.clone());
            let got = harness.post(endpoint, &with(body, json!({"stream": true}))).await;
            let mut events = got.events();
            let text = String::from_utf8_lossy(&got.bytes);
            for end in ["response.completed", "message_stop", "\"finish_reason\":\"stop\""] {
                assert!(!text.contains(end), "{text}");
            }
            if matches!(endpoint, Endpoint::Chat | Endpoint::Completions) {
                assert_eq!(events.pop().unwrap().1, "[DONE]");
            }
            let (name, data) = events.pop().unwrap();
            let error = match endpoint {
                Endpoint::Chat | Endpoint::Completions => &data["error"],
                Endpoint::Responses => {
                    assert_eq!(name, "response.failed");
                    assert_eq!(data["response"]["status"], "failed");
                    &data["response"]["error"]
                }
                Endpoint::Messages => {
                    assert_eq!(name, "error");
                    &data["error"]
                }
            };
            assert!(!error["message"].as_str().unwrap().is_empty());
            let record = harness.record();
            assert!(record.status >= 500 && record.answers.is_empty());
            assert!(record.failure.is_some());
        }
    }
}

#[tokio::test]
async fn the_record_has_request_and_response() {
    for (endpoint, body) in endpoints() {
        for stream in [false, true] {
            let harness = Harness::replying(Reply::text("Good day."));
            let body = with(body.clone(), json!({"stream": stream}));
            let got = harness.post(endpoint, &body).await;
            let record = harness.record();
            assert_eq!((record.endpoint, record.status), (endpoint, 200));
            assert_eq!((&record.request, record.role.as_deref()), (&body, Some("write")));
            assert_eq!(record.failure, None);
            assert!(record.seconds >= 0.0);
            let [answer] = record.answers.as_slice() else { panic!("one answer") };
            assert_eq!(answer.content, "Good day.");
            assert!(!answer.prompt_ids.is_empty());
            if stream {
                assert!(!got.events().is_empty());
                assert!(record.response.value()["id"].is_string());
            } else {
                assert_eq!(record.response.text, got.bytes);
            }
        }
    }
}

#[tokio::test]
async fn a_call_that_cannot_be_recorded_fails() {
    let full = Failure::Internal("the disk is full".to_owned());
    for (endpoint, body) in endpoints() {
        let harness = Harness::replying(Reply::text("Good day."));
        *harness.recorder.failure.lock().unwrap() = Some(full.clone());
        let got = harness.post(endpoint, &body).await;
        assert_eq!(got.status, 500);
        assert!(String::from_utf8_lossy(&got.bytes).contains("the disk is full"));
        let got = harness.post(endpoint, &with(body, json!({"stream": true}))).await;
        let text = String::from_utf8_lossy(&got.bytes);
        assert!(text.contains("the disk is full"));
        for end in ["response.completed", "message_stop", "\"finish_reason\":\"stop\""] {
            assert!(!text.contains(end), "{text}");
        }
    }
}

/// A recorder that waits for a permit.
struct Gate {
    permits: Semaphore,
    records: AtomicUsize,
    recorded: Notify,
}

#[async_trait]
impl Recorder for Gate {
    async fn record(&self, _: CallRecord) -> Result<(), Failure> {
        self.permits.acquire().await.unwrap().forget();
        self.records.fetch_add(1, Ordering::SeqCst);
        self.recorded.notify_one();
        Ok(())
    }
}

fn gated(harness: &Harness) -> (Arc<Gate>, CallContext) {
    let gate = Arc::new(Gate {
        permits: Semaphore::new(0),
        records: AtomicUsize::new(0),
        recorded: Notify::new(),
    });
    let recorder = Arc::clone(&gate) as Arc<dyn Recorder>;
    (gate, CallContext { recorder, ..harness.context() })
}

/// The data that a stream has ready.
fn ready(body: &mut BodyDataStream) -> String {
    let mut text = String::new();
    while let Some(Some(bytes)) = body.next().now_or_never() {
        text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn an_answer_is_recorded_before_it_is_complete_for_the_client() {
    let ends = ["[DONE]", "\"finish_reason\":\"stop\"", "response.completed", "message_stop"];
    for (endpoint, body) in endpoints() {
        let harness = Harness::replying(Reply::text("Good day."));
        let (gate, context) = gated(&harness);
        let body = Bytes::from(with(body, json!({"stream": true})).to_string());
        let mut stream =
            protocol::handle(endpoint, body, context).await.into_body().into_data_stream();
        let before = ready(&mut stream);
        assert!(before.contains("Good"));
        assert!(ends.iter().all(|end| !before.contains(end)), "{before}");
        gate.permits.add_permits(1);
        let after: Vec<Bytes> = stream.map(Result::unwrap).collect().await;
        let after = String::from_utf8(after.concat()).unwrap();
        assert!(ends.iter().any(|end| after.contains(end)), "{after}");
    }
}

#[tokio::test]
async fn a_complete_answer_is_recorded_even_if_the_client_disconnects() {
    for (endpoint, body) in endpoints() {
        for stream in [false, true] {
            let harness = Harness::replying(Reply::text("Good day."));
            let (gate, context) = gated(&harness);
            let body = Bytes::from(with(body.clone(), json!({"stream": stream})).to_string());
            {
                let mut call = Box::pin(protocol::handle(endpoint, body, context));
                match (&mut call).now_or_never() {
                    Some(response) => {
                        let mut data = response.into_body().into_data_stream();
                        ready(&mut data);
                    }
                    None => assert!(!stream),
                }
            }
            assert_eq!(gate.records.load(Ordering::SeqCst), 0);
            gate.permits.add_permits(1);
            gate.recorded.notified().await;
        }
    }
}

#[tokio::test]
async fn a_disconnecting_client_cancels_its_generation() {
    for (endpoint, body) in endpoints() {
        let harness = Harness::replying(Reply::Hold);
        let text = Bytes::from(body.to_string());
        let mut call = Box::pin(protocol::handle(endpoint, text, harness.context()));
        assert!((&mut call).now_or_never().is_none());
        let (_, sender) = harness.backend.held().remove(0);
        assert!(!sender.is_closed());
        drop(call);
        sender.closed().await;

        let text = Bytes::from(with(body, json!({"stream": true})).to_string());
        let mut call = Box::pin(protocol::handle(endpoint, text, harness.context()));
        assert!((&mut call).now_or_never().is_none());
        let (_, sender) = harness.backend.held().remove(0);
        sender.send(Event::Started { prompt_ids: vec![1], policy_version: 0 }).unwrap();
        let delta = Delta { content: "Good".to_owned(), ..Delta::default() };
        sender.send(Event::Delta(delta)).unwrap();
        let mut stream = call.await.into_body().into_data_stream();
        assert!(ready(&mut stream).contains("Good"));
        assert!(!sender.is_closed());
        drop(stream);
        sender.closed().await;
        assert!(harness.records().is_empty(), "no record of a cancelled call");
    }
}

/// During a weight update nothing is sent for a while; connections must not appear dead.
#[tokio::test(start_paused = true)]
async fn an_idle_stream_is_kept_alive() {
    for (endpoint, body) in endpoints() {
        let harness = Harness::replying(Reply::Hold);
        let text = Bytes::from(with(body, json!({"stream": true})).to_string());
        let mut call = Box::pin(protocol::handle(endpoint, text, harness.context()));
        assert!((&mut call).now_or_never().is_none());
        let (_, sender) = harness.backend.held().remove(0);
        sender.send(Event::Started { prompt_ids: vec![1], policy_version: 0 }).unwrap();
        let mut stream = call.await.into_body().into_data_stream();
        ready(&mut stream);
        let sent = stream.next().await.unwrap().unwrap();
        let expected: &[u8] = match endpoint {
            Endpoint::Messages => b"event: ping\ndata: {\"type\":\"ping\"}\n\n",
            _ => b": waiting\n\n",
        };
        assert_eq!(sent, expected);
    }
}

#[tokio::test]
async fn one_choice_that_fails_cancels_the_others() {
    let count = AtomicUsize::new(0);
    let backend = Scripted::new(MODEL, move |_| match count.fetch_add(1, Ordering::SeqCst) {
        1 => Reply::Fail(Failure::Internal("numbers".to_owned())),
        _ => Reply::Hold,
    });
    let harness = Harness::new(backend);
    let (endpoint, body) = endpoints()[0].clone();
    let got = harness.post(endpoint, &with(body, json!({"n": 3}))).await;
    assert_eq!(got.status, 500);
    let held = harness.backend.held();
    assert_eq!(held.len(), 2);
    for (_, sender) in held {
        sender.closed().await;
    }
}

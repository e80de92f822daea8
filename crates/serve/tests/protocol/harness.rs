//! A test harness without a server: scripted model, inspectable recorder, response memory, and
//! complete responses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::http::HeaderMap;
use bytes::Bytes;
use http_body_util::BodyExt;
use leyden_core::ChatRequest;
use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::backend::{Ask, Backend, Failure, Prompt};
use leyden_serve::call::{CallContext, CallRecord, Endpoint, Overrides, Recorder, ResponseMemory};
use leyden_serve::protocol;
use serde_json::Value;

/// Stores records; fails if `failure` is set.
#[derive(Default)]
pub struct TestRecorder {
    pub records: Mutex<Vec<CallRecord>>,
    pub failure: Mutex<Option<Failure>>,
}

#[async_trait]
impl Recorder for TestRecorder {
    async fn record(&self, record: CallRecord) -> Result<(), Failure> {
        self.records.lock().unwrap().push(record);
        self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

#[derive(Default)]
pub struct TestMemory(pub Mutex<HashMap<String, Vec<Value>>>);

#[async_trait]
impl ResponseMemory for TestMemory {
    async fn keep(&self, id: &str, items: Vec<Value>) {
        self.0.lock().unwrap().insert(id.to_owned(), items);
    }

    async fn recall(&self, id: &str) -> Option<Vec<Value>> {
        self.0.lock().unwrap().get(id).cloned()
    }
}

#[derive(Clone)]
pub struct Harness {
    pub backend: Arc<Scripted>,
    pub recorder: Arc<TestRecorder>,
    pub memory: Arc<TestMemory>,
    pub overrides: Overrides,
}

/// The model's name.
pub const MODEL: &str = "small";

impl Harness {
    pub fn new(backend: Scripted) -> Self {
        Self {
            backend: Arc::new(backend),
            recorder: Arc::default(),
            memory: Arc::default(),
            overrides: Overrides::default(),
        }
    }

    /// With a model that always returns `reply`.
    pub fn replying(reply: Reply) -> Self {
        Self::new(Scripted::new(MODEL, move |_| reply.clone()))
    }

    pub fn with(mut self, overrides: Overrides) -> Self {
        self.overrides = overrides;
        self
    }

    pub fn context(&self) -> CallContext {
        CallContext {
            backend: Arc::clone(&self.backend) as Arc<dyn Backend>,
            recorder: Arc::clone(&self.recorder) as Arc<dyn Recorder>,
            memory: Arc::clone(&self.memory) as Arc<dyn ResponseMemory>,
            overrides: self.overrides.clone(),
            conversation: Some("r1/0".to_owned()),
            role: Some("write".to_owned()),
        }
    }

    pub async fn send(&self, endpoint: Endpoint, body: impl Into<Bytes>) -> Got {
        let response = protocol::handle(endpoint, body.into(), self.context()).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Got { status: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub async fn post(&self, endpoint: Endpoint, body: &Value) -> Got {
        self.send(endpoint, body.to_string()).await
    }

    /// The only request so far.
    pub fn ask(&self) -> Ask {
        let mut asks = self.backend.asks();
        assert_eq!(asks.len(), 1);
        asks.remove(0)
    }

    /// The chat of the only request.
    pub fn request(&self) -> ChatRequest {
        match self.ask().prompt {
            Prompt::Chat(request) => request,
            other => panic!("not a conversation: {other:?}"),
        }
    }

    pub fn records(&self) -> Vec<CallRecord> {
        self.recorder.records.lock().unwrap().clone()
    }

    /// The response body of the only record.
    pub fn recorded(&self) -> Value {
        self.record().response.value()
    }

    pub fn record(&self) -> CallRecord {
        let mut records = self.records();
        assert_eq!(records.len(), 1);
        records.remove(0)
    }
}

/// A complete response.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    /// The body of a successful call.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }

    /// Status, code and field of an error in OpenAI's format.
    pub fn error(&self) -> (u16, Value, Value) {
        let error = self.json()["error"].clone();
        assert!(!error["message"].as_str().unwrap().is_empty());
        (self.status, error["code"].clone(), error["param"].clone())
    }

    /// The events of a stream: name (empty if unnamed) and data. The end of OpenAI's streams is an
    /// event with the text `[DONE]`.
    pub fn events(&self) -> Vec<(String, Value)> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.bytes));
        assert_eq!(self.headers["content-type"], "text/event-stream");
        let text = std::str::from_utf8(&self.bytes).unwrap();
        assert!(text.ends_with("\n\n"), "an event is cut off");
        let event = |block: &str| {
            let (mut name, mut data) = (String::new(), Value::Null);
            for line in block.lines() {
                match line.split_once(": ") {
                    Some(("event", rest)) => name = rest.to_owned(),
                    Some(("data", "[DONE]")) => data = "[DONE]".into(),
                    Some(("data", rest)) => data = serde_json::from_str(rest).unwrap(),
                    _ => panic!("not a line of an event: {line}"),
                }
            }
            (name, data)
        };
        text.split_terminator("\n\n").map(event).collect()
    }

    /// The chunks of an OpenAI stream, checking its terminator.
    pub fn chunks(&self) -> Vec<Value> {
        let mut chunks: Vec<Value> = self.events().into_iter().map(|(_, data)| data).collect();
        assert_eq!(chunks.pop(), Some("[DONE]".into()));
        chunks
    }
}

/// The strings at `pointer` in all `values`, joined.
pub fn joined(values: &[Value], pointer: &str) -> String {
    values.iter().filter_map(|value| value.pointer(pointer)?.as_str()).collect()
}

/// The lists at `pointer` in all `values`, concatenated.
pub fn gathered(values: &[Value], pointer: &str) -> Vec<Value> {
    values.iter().filter_map(|v| v.pointer(pointer)?.as_array()).flatten().cloned().collect()
}

/// `body` with the fields of `more`.
pub fn with(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

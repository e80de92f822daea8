//! Serves all endpoints with a scripted model, for trying out clients.
//!
//! ```text
//! cargo run -p leyden-serve --example stub_server -- 8080
//! OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=none python my_agent.py
//! ```
//!
//! It calls the first offered tool with `{"a": 2, "b": 3}` until a tool has answered; then, and
//! without tools, it returns the number of messages received. No keys, no store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use leyden_core::Speaker;
use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::backend::{Ask, Failure, Prompt};
use leyden_serve::call::{CallContext, CallRecord, Endpoint, Overrides, Recorder, ResponseMemory};
use leyden_serve::protocol;
use serde_json::{Value, json};

fn script(ask: &Ask) -> Reply {
    let Prompt::Chat(request) = &ask.prompt else { return Reply::text(" and so on.") };
    let answered = request.messages.last().is_some_and(|m| m.role == Speaker::Tool);
    match request.offered_tools().first() {
        Some(tool) if !answered => Reply::Say {
            content: "Let me see. ".to_owned(),
            calls: vec![(tool.name.clone(), json!({"a": 2, "b": 3}))],
        },
        _ => Reply::text(format!("I have seen {} messages.", request.messages.len())),
    }
}

/// Prints one line per call.
struct Printer;

#[async_trait]
impl Recorder for Printer {
    async fn record(&self, record: CallRecord) -> Result<(), Failure> {
        let CallRecord { endpoint, status, seconds, request, .. } = record;
        println!("{status} {} {:.1} ms {request}", endpoint.path(), seconds * 1e3);
        Ok(())
    }
}

#[derive(Default)]
struct Memory(Mutex<HashMap<String, Vec<Value>>>);

#[async_trait]
impl ResponseMemory for Memory {
    async fn keep(&self, id: &str, items: Vec<Value>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), items);
    }

    async fn recall(&self, id: &str) -> Option<Vec<Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

fn endpoint(kind: Endpoint) -> axum::routing::MethodRouter<CallContext> {
    post(move |State(context): State<CallContext>, body: Bytes| -> Answer {
        Box::pin(protocol::handle(kind, body, context))
    })
}

type Answer = std::pin::Pin<Box<dyn Future<Output = Response> + Send>>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "8080".to_owned());
    let context = CallContext {
        backend: Arc::new(Scripted::new("stub", script)),
        recorder: Arc::new(Printer),
        memory: Arc::new(Memory::default()),
        overrides: Overrides { any_model: true, ..Overrides::default() },
        conversation: None,
        role: None,
    };
    let models = |State(context): State<CallContext>| async move {
        Json(protocol::models(&*context.backend))
    };
    let app = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", endpoint(Endpoint::Chat))
        .route("/v1/completions", endpoint(Endpoint::Completions))
        .route("/v1/responses", endpoint(Endpoint::Responses))
        .route("/v1/messages", endpoint(Endpoint::Messages))
        .with_state(context);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}/v1", listener.local_addr()?);
    axum::serve(listener, app).await
}

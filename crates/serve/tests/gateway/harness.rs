//! A running gateway and a client for it.

use std::sync::Arc;

use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::gateway::{Gateway, GatewayConfig};
use leyden_serve::store::{Limits, Store};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A gateway that shuts down with the test.
pub struct Harness {
    pub gateway: Gateway,
    pub store: Store,
    pub model: Arc<Scripted>,
    pub url: String,
    pub client: reqwest::Client,
    pub key: Option<String>,
    end: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

/// An HTTP response.
#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text))
    }

    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
}

/// Port 0, otherwise the defaults.
pub fn config() -> GatewayConfig {
    GatewayConfig { port: 0, ..GatewayConfig::default() }
}

pub fn replying(text: &str) -> Scripted {
    let text = text.to_owned();
    Scripted::new("stub", move |_| Reply::text(text.clone()))
}

impl Harness {
    pub async fn new(config: GatewayConfig, model: Scripted) -> Self {
        let store = Store::temporary(Limits::default()).expect("a temporary folder");
        Self::over(store, config, Some(model)).await
    }

    /// Without a local model.
    pub async fn modelless(config: GatewayConfig) -> Self {
        let store = Store::temporary(Limits::default()).expect("a temporary folder");
        Self::over(store, config, None).await
    }

    pub async fn over(store: Store, config: GatewayConfig, model: Option<Scripted>) -> Self {
        let key = config.key.clone();
        let is_local = model.is_some();
        let model = Arc::new(model.unwrap_or_else(|| replying("unused")));
        let local = is_local.then(|| model.clone() as _);
        let gateway = Gateway::new(config, store.clone(), local).await.expect("a gateway");
        let listener = gateway.bind().await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (end, ended) = oneshot::channel::<()>();
        let serving = gateway.clone();
        let serving = tokio::spawn(async move {
            serving.serve(listener, async move { drop(ended.await) }).await;
        });
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { gateway, store, model, url, client, key, end: Some(end), serving: Some(serving) }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Got {
        send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Got {
        send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Got {
        send(self.request(Method::PATCH, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Got {
        send(self.request(Method::DELETE, path)).await
    }

    /// Creates a rollout through v1's API.
    pub async fn rollout(&self, id: &str) -> Value {
        let body = json!([{"input": {"question": "1+1"}, "rollout_id": id}]);
        let mut made = self.post("/api/rollouts", body).await.is(201).json();
        made[0].take()
    }

    /// Calls the model as attempt 0 of a rollout.
    pub async fn chat(&self, id: &str, question: &str) -> Got {
        self.post(&chat_path(id), chat_body(question)).await
    }

    /// Begins the shutdown and waits for its end.
    pub async fn shut_down(mut self) {
        drop(self.end.take());
        if let Some(serving) = self.serving.take() {
            serving.await.expect("the server ends in order");
        }
    }

    /// Begins the shutdown.
    pub fn begin_shutdown(&mut self) {
        drop(self.end.take());
    }
}

pub async fn send(request: reqwest::RequestBuilder) -> Got {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    Got { status, headers, text: response.text().await.expect("a text") }
}

pub fn chat_path(id: &str) -> String {
    format!("/proxy/rollout/{id}/attempt/0/mode/train/openai/v1/chat/completions")
}

pub fn chat_body(question: &str) -> Value {
    json!({"model": "auto", "messages": [{"role": "user", "content": question}]})
}

/// Polls until `done` returns true, yielding to this runtime.
pub async fn until(mut done: impl AsyncFnMut() -> bool) {
    while !done().await {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

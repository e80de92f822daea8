//! Handling of a model call, from admission to the protocol and back.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;

use super::error::Refusal;
use super::gate::NotAdmitted;
use super::held::Held;
use super::recorder::{AttemptRecorder, NoRecorder, Server};
use super::replay::{self, Replay};
use super::retries::{Begun, RetryInfo};
use super::state::State;
use super::upstream::{self, UpstreamBackend};
use super::{http, ids};
use crate::backend::Backend;
use crate::call::{CallContext, CallRecord, Endpoint, Overrides, Recorder, Written};
use crate::protocol;
use crate::store::ModelServer;

/// The attempt that a call belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) rollout_id: String,
    pub(super) attempt_id: String,
    /// Whether its mode is `train`.
    pub(super) is_train: bool,
}

/// Where a call is answered.
enum Route {
    Backend(Arc<dyn Backend>),
    Upstream(ModelServer),
}

/// Answers a call of `attempt`, or one that belongs to no rollout.
pub(super) async fn call(
    state: Arc<State>,
    endpoint: Endpoint,
    attempt: Option<Attempt>,
    request: Request,
) -> Response {
    let mut held = Held::new(state.clone(), endpoint);
    let answered = answer(&state, endpoint, attempt, request, &mut held).await;
    held.attach(answered.unwrap_or_else(IntoResponse::into_response))
}

async fn answer(
    state: &Arc<State>,
    endpoint: Endpoint,
    attempt: Option<Attempt>,
    request: Request,
    held: &mut Held,
) -> Result<Response, Refusal> {
    let permit = state.call_permits.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{} calls are in flight (max_calls)", state.config.max_calls);
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(1)
    })?;
    held._permit = Some(permit);
    let (parts, body) = request.into_parts();
    if let Some(attempt) = &attempt {
        check_attempt(state, attempt)?;
    }
    let body = http::read(body, state.config.max_body_bytes, state.config.body_timeout).await?;
    let call = Call { state, endpoint, attempt, headers: &parts.headers, body };
    match &call.attempt {
        Some(_) => call.of_attempt(held).await,
        None => call.unattributed(held).await,
    }
}

/// Checks that the attempt may call: its rollout exists and, if a trainer owns it, is not finished
/// and has not started another attempt.
fn check_attempt(state: &State, attempt: &Attempt) -> Result<(), Refusal> {
    let id = &attempt.rollout_id;
    let brief = state
        .store
        .brief(id)
        .ok_or_else(|| Refusal::not_found(format!("Rollout not found: {id}")))?;
    ids::check("attempt_id", &attempt.attempt_id).map_err(Refusal::not_found)?;
    if !brief.hosted {
        return Ok(());
    }
    let Some(hosted) = state.rollouts.find(id) else {
        return Err(Refusal::new(StatusCode::GONE, format!("rollout {id} is over")));
    };
    let current = hosted.attempt();
    if current != attempt.attempt_id {
        let message = format!("attempt {} of rollout {id} was replaced", attempt.attempt_id);
        return Err(Refusal::new(StatusCode::GONE, message));
    }
    Ok(())
}

/// A call whose body has arrived.
struct Call<'a> {
    state: &'a Arc<State>,
    endpoint: Endpoint,
    attempt: Option<Attempt>,
    headers: &'a HeaderMap,
    body: Bytes,
}

impl Call<'_> {
    async fn of_attempt(&self, held: &mut Held) -> Result<Response, Refusal> {
        let Some(attempt) = &self.attempt else { return self.unattributed(held).await };
        let (rollout, number) = (&attempt.rollout_id, &attempt.attempt_id);
        let retry_info = RetryInfo::read(rollout, number, self.endpoint, self.headers, &self.body);
        let begun = self.state.retries.begin(&retry_info, &self.state.store).await?;
        let in_flight = match begun {
            Begun::New(in_flight) => in_flight,
            Begun::Repeated(call) => return self.repeat(&call, attempt).await,
        };
        held.in_flight = Some(in_flight.clone());
        let overrides = self.overrides();
        let route = self.route(attempt)?;
        self.pass(held).await?;
        let recorder = |request, server| {
            let state = self.state.clone();
            AttemptRecorder { state, retry_info, in_flight, server, request }
        };
        match route {
            Route::Backend(backend) => {
                // The name of the model here, whatever name the agent used.
                let model = backend.models().into_iter().next().map(|model| model.id);
                let server = Server { model, endpoint: "local".into(), version: None };
                let recorder = Arc::new(recorder(self.body.clone(), server));
                self.generate(backend, recorder, overrides).await
            }
            Route::Upstream(server) => {
                let answered_by = Server {
                    model: Some(server.model.clone()),
                    endpoint: server.endpoint.clone(),
                    version: Some(server.version),
                };
                let recorder = recorder(self.body.clone(), answered_by);
                self.forward(server, Some(recorder), overrides).await
            }
        }
    }

    async fn unattributed(&self, held: &mut Held) -> Result<Response, Refusal> {
        let overrides = self.overrides();
        self.pass(held).await?;
        if let Some(backend) = &self.state.local {
            return self.generate(backend.clone(), Arc::new(NoRecorder), overrides).await;
        }
        let body: Value = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        let model = body.get("model").and_then(Value::as_str).unwrap_or_default();
        let server = self
            .state
            .upstreams
            .of_model(model, "")
            .ok_or_else(|| Refusal::not_found(format!("The model `{model}` does not exist")))?;
        self.forward(server, None, overrides).await
    }

    fn overrides(&self) -> Overrides {
        let config = &self.state.config;
        match &self.attempt {
            None => config.open.clone(),
            Some(attempt) if attempt.is_train => config.train.clone(),
            Some(_) => config.val.clone(),
        }
    }

    fn route(&self, attempt: &Attempt) -> Result<Route, Refusal> {
        if let Some(hosted) = self.state.rollouts.find(&attempt.rollout_id) {
            return Ok(Route::Backend(hosted.backend.clone()));
        }
        if let Some(server) = self.state.upstreams.of_rollout(&attempt.rollout_id) {
            return Ok(Route::Upstream(server));
        }
        let local = self.state.local.clone().map(Route::Backend);
        local.ok_or_else(|| {
            let model = self.state.config.model.as_deref().unwrap_or("any");
            let message = format!("No servers available for model '{model}'");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(5)
        })
    }

    /// Waits while weights are updated.
    async fn pass(&self, held: &mut Held) -> Result<(), Refusal> {
        let before = Instant::now();
        let passed = self.state.gate.enter(self.state.config.pause_deadline).await;
        self.state.metrics.waited.observe(before.elapsed().as_secs_f64());
        held._passed = Some(passed.map_err(not_admitted)?);
        Ok(())
    }

    async fn generate(
        &self,
        backend: Arc<dyn Backend>,
        recorder: Arc<dyn Recorder>,
        overrides: Overrides,
    ) -> Result<Response, Refusal> {
        let context = CallContext {
            backend,
            recorder,
            memory: Arc::new(self.state.store.clone()),
            overrides,
            conversation: self
                .attempt
                .as_ref()
                .map(|attempt| format!("{}/{}", attempt.rollout_id, attempt.attempt_id)),
            role: self.role(),
        };
        let answer = protocol::handle(self.endpoint, self.body.clone(), context);
        let deadline = self.state.config.request_timeout;
        tokio::time::timeout(deadline, answer).await.map_err(|_| {
            let seconds = deadline.as_secs_f64();
            let message = format!("no answer within {seconds} s (request_timeout)");
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, message)
        })
    }

    fn role(&self) -> Option<String> {
        let role = self.headers.get("x-leyden-role")?.to_str().ok()?;
        (!role.is_empty() && role.len() <= 200).then(|| role.to_owned())
    }

    /// Sends the call to a registered model server.
    async fn forward(
        &self,
        server: ModelServer,
        recorder: Option<AttemptRecorder>,
        overrides: Overrides,
    ) -> Result<Response, Refusal> {
        let mut body = match serde_json::from_slice(&self.body) {
            Ok(Value::Object(body)) => body,
            Ok(_) => return Err(Refusal::bad_request("Request body must be a JSON object")),
            Err(error) => {
                return Err(Refusal::bad_request(format!("Invalid JSON in request body: {error}")));
            }
        };
        let streams = body.get("stream").is_some_and(|stream| *stream != Value::Bool(false));
        let passes = matches!(self.endpoint, Endpoint::Chat | Endpoint::Completions);
        if streams || !passes {
            let sender = self.state.upstreams.sender.clone();
            let backend = Arc::new(UpstreamBackend { server, sender });
            let recorder: Arc<dyn Recorder> = match recorder {
                Some(recorder) => Arc::new(recorder),
                None => Arc::new(NoRecorder),
            };
            return self.generate(backend, recorder, overrides).await;
        }
        rewrite(&mut body, &server, self.endpoint, &overrides);
        self.pass_through(&server, recorder, Value::Object(body)).await
    }

    async fn pass_through(
        &self,
        server: &ModelServer,
        recorder: Option<AttemptRecorder>,
        request: Value,
    ) -> Result<Response, Refusal> {
        let started = Instant::now();
        let text = Bytes::from(request.to_string());
        let sender = &self.state.upstreams.sender;
        let sent = sender.send(&server.endpoint, self.endpoint.path(), text.clone()).await;
        let sent = sent.map_err(|error| Refusal::new(error.status(), error.to_string()))?;
        self.state.metrics.upstream_retries.inc_by(sent.retries.into());
        let status = StatusCode::from_u16(sent.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let (answer, tree) = sent.read();
        if let Some(recorder) = recorder {
            let recorder = AttemptRecorder { request: text, ..recorder };
            let choice = tree.get("choices").and_then(|choices| choices.list()?.first());
            let finish = choice.and_then(|choice| choice.get("finish_reason")?.text());
            let usage = tree.get("usage").filter(|usage| usage.is_map());
            let record = CallRecord {
                endpoint: self.endpoint,
                request,
                answers: upstream::answers(&tree, server.version),
                response: Written {
                    // It was parsed as JSON, hence valid UTF-8.
                    text: String::from_utf8_lossy(&answer).into_owned(),
                    usage: usage.map_or(Value::Null, upstream::Tree::to_value),
                    finish_reason: finish.map(str::to_owned),
                },
                status: sent.status,
                seconds: started.elapsed().as_secs_f64(),
                role: self.role(),
                failure: None,
            };
            recorder.write(record, sent.retries).await.map_err(|failure| {
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, failure.to_string())
            })?;
        }
        let kind = [(header::CONTENT_TYPE, "application/json")];
        Ok((status, kind, answer).into_response())
    }

    /// Answers a retry with the recorded response.
    async fn repeat(
        &self,
        call: &crate::store::RecordedCall,
        attempt: &Attempt,
    ) -> Result<Response, Refusal> {
        self.state.metrics.repeated.inc();
        let (status, recorded) = replay::body(call).ok_or_else(|| {
            let message = "the recorded answer to this request cannot be read";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        })?;
        let request: Value = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        let mut response = if request.get("stream") == Some(&Value::Bool(true)) {
            let cards = match self.route(attempt)? {
                Route::Backend(backend) => backend.models(),
                Route::Upstream(server) => {
                    let sender = self.state.upstreams.sender.clone();
                    UpstreamBackend { server, sender }.models()
                }
            };
            let backend = Arc::new(Replay::new(call, &recorded, cards));
            self.generate(backend, Arc::new(NoRecorder), self.overrides()).await?
        } else {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            (status, Json(recorded)).into_response()
        };
        let name = HeaderName::from_static("x-leyden-repeated");
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
        Ok(response)
    }
}

/// Applies v1's changes to a request body: sets the run's model and sampling, and requests token
/// ids and log-probabilities.
fn rewrite(
    body: &mut serde_json::Map<String, Value>,
    server: &ModelServer,
    endpoint: Endpoint,
    overrides: &Overrides,
) {
    body.insert("model".into(), server.model.clone().into());
    if let Some(temperature) = overrides.temperature {
        body.insert("temperature".into(), temperature.into());
    }
    if let Some(top_p) = overrides.top_p {
        body.insert("top_p".into(), top_p.into());
    }
    if overrides.token_ids {
        body.insert("return_token_ids".into(), true.into());
    }
    if overrides.logprobs {
        // Chat takes a boolean, completions a count.
        let logprobs = if endpoint == Endpoint::Chat { Value::Bool(true) } else { 1.into() };
        body.insert("logprobs".into(), logprobs);
    }
}

fn not_admitted(not_admitted: NotAdmitted) -> Refusal {
    match not_admitted {
        NotAdmitted::Ending => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down")
        }
        NotAdmitted::Paused(closed) => {
            let reason = closed.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            let message = format!("gateway paused{reason}: try again later");
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, message);
            Refusal { paused: true, code: Some("paused"), ..refusal }
                .retry_after(closed.retry_after_seconds)
        }
    }
}

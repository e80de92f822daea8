//! Stores a call before its response is sent.

use std::fmt::Write;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use leyden_core::FinishReason;
use serde_json::{Value, json};

use super::retries::{InFlight, RetryInfo};
use super::state::State;
use crate::backend::{Answer, Failure};
use crate::call::{CallRecord, Recorder};
use crate::store::{NewCall, NewEvent, StoreError, StoredAnswer};

/// The answering server, as v1's events record it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Server {
    /// `None` uses the request's `model`.
    pub(super) model: Option<String>,
    pub(super) endpoint: String,
    /// `None` uses the version of the policy that answered.
    pub(super) version: Option<i64>,
}

/// Records the calls of one attempt.
pub(super) struct AttemptRecorder {
    pub(super) state: Arc<State>,
    pub(super) retry_info: RetryInfo,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) server: Server,
    /// The request as recorded: a JSON object.
    pub(super) request: Bytes,
}

/// Discards records: for calls of no rollout and for retries.
pub(super) struct NoRecorder;

#[async_trait]
impl Recorder for NoRecorder {
    async fn record(&self, _: CallRecord) -> Result<(), Failure> {
        Ok(())
    }
}

#[async_trait]
impl Recorder for AttemptRecorder {
    async fn record(&self, record: CallRecord) -> Result<(), Failure> {
        // Nothing was generated, and the client will retry.
        if matches!(record.failure, Some(Failure::Busy { .. } | Failure::ShuttingDown)) {
            return Ok(());
        }
        self.write(record, 0).await
    }
}

impl AttemptRecorder {
    /// Returns once the call is durable. `tries` counts the retries upstream.
    pub(super) async fn write(&self, record: CallRecord, tries: u32) -> Result<(), Failure> {
        let metrics = &self.state.metrics;
        for answer in &record.answers {
            metrics.prompt_tokens.inc_by(answer.prompt_ids.len() as u64);
            metrics.cached_tokens.inc_by(answer.cached_tokens as u64);
            metrics.response_tokens.inc_by(answer.tokens.len() as u64);
        }
        let event = self.event(record, tries);
        let store = self.state.store.clone();
        let in_flight = self.in_flight.clone();
        // A separate task: if the client disconnects meanwhile, its retry finds the answer.
        let appended = tokio::spawn(async move {
            let appended = store.append(event).await;
            if let Ok(appended) = &appended {
                in_flight.recorded(appended.seq);
            }
            appended
        });
        match appended.await {
            Ok(Ok(_)) => {
                metrics.recorded.inc();
                Ok(())
            }
            Ok(Err(StoreError::UnknownRollout(id))) => {
                Err(Failure::Gone(format!("rollout {id} was deleted while it called the model")))
            }
            Ok(Err(StoreError::Closed)) => Err(Failure::ShuttingDown),
            Ok(Err(error)) => Err(Failure::Internal(error.to_string())),
            Err(error) => Err(Failure::Internal(error.to_string())),
        }
    }

    fn event(&self, record: CallRecord, tries: u32) -> NewEvent {
        let data = self.data(&record, tries);
        let succeeded = record.status < 400;
        let call = NewCall {
            endpoint: record.endpoint.path(),
            role: record.role,
            body: self.retry_info.body,
            answers: record.answers.into_iter().map(stored).collect(),
        };
        NewEvent {
            rollout_id: self.retry_info.rollout_id.clone(),
            attempt_id: self.retry_info.attempt_id.clone(),
            event_type: "model_request".into(),
            data,
            // Failures have no key: a retry of a failed call is executed again.
            key: self.retry_info.key.clone().filter(|_| succeeded),
            call: Some(call),
        }
    }

    /// v1's `model_request`, written directly as text: request and response are large, and a JSON
    /// tree of both would be copied only to be serialised.
    fn data(&self, record: &CallRecord, tries: u32) -> String {
        let model = match &self.server.model {
            Some(model) => json!(model),
            None => record.request.get("model").cloned().unwrap_or(Value::Null),
        };
        let version = match (self.server.version, record.answers.first()) {
            (Some(version), _) => json!(version),
            (None, Some(answer)) => json!(answer.policy_version),
            (None, None) => Value::Null,
        };
        let server = json!({"model": model, "endpoint": self.server.endpoint, "version": version});
        let status = if record.status < 400 { "ok" } else { "error" };
        // The received bytes, which were already parsed as JSON.
        let request = std::str::from_utf8(&self.request).unwrap_or("null");
        let mut data =
            String::with_capacity(request.len() + record.response.text.len() + (1 << 10));
        // Writing to a string does not fail.
        let _ = write!(
            data,
            r#"{{"model":{model},"model_version":{version},"request":{request},"response":{},"server":{server},"latency_ms":{:.3},"http_status":{},"status":"{status}","retry_count":{tries},"usage":{},"finish_reason":{},"endpoint":"{}","role":{}}}"#,
            record.response,
            record.seconds * 1e3,
            record.status,
            record.response.usage,
            json!(record.response.finish_reason),
            record.endpoint.path(),
            json!(record.role),
        );
        data
    }
}

fn stored(answer: Answer) -> StoredAnswer {
    let tool_calls = if answer.tool_calls.is_empty() {
        String::new()
    } else {
        serde_json::to_string(&answer.tool_calls).unwrap_or_default()
    };
    let mut logprobs: Vec<f32> = answer.tokens.iter().map(|token| token.logprob).collect();
    // The server did not report them, or reported non-finite values.
    if logprobs.iter().any(|logprob| !logprob.is_finite()) {
        logprobs.clear();
    }
    StoredAnswer {
        content: answer.content,
        tool_calls,
        malformed_call: answer.malformed_call,
        finish: finish_name(answer.finish).into(),
        stop_text: answer.stop_text,
        response_ids: answer.tokens.iter().map(|token| token.id).collect(),
        prompt_ids: answer.prompt_ids,
        logprobs,
        cached_tokens: answer.cached_tokens as u64,
        policy_version: answer.policy_version,
        constrained: answer.constrained,
    }
}

pub(super) fn finish_name(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

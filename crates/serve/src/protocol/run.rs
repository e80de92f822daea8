//! Executes a plan: submits requests, streams events, records the call.

use std::convert::Infallible;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::unfold;
use leyden_core::ToolCall;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::error::{ApiError, Shape};
use super::plan::{Plan, Writer};
use super::sse::Sse;
use crate::backend::{Answer, Ask, Backend, Delta, Event, Failure, Prompt, Token};
use crate::call::{CallContext, CallRecord, Endpoint, Written};

/// Keep-alive interval of a stream while nothing is generated.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Ready events are combined into one write of about this size.
const WRITE: usize = 16 * 1024;

/// A call in progress, with the data for its record.
pub(super) struct Call {
    pub endpoint: Endpoint,
    pub request: Value,
    pub context: CallContext,
    pub started: Instant,
}

impl Call {
    /// Responds to an invalid body and records the call.
    pub async fn refuse(mut self, error: ApiError) -> Response {
        let shape = Shape::of(self.endpoint);
        let record = self.failed(&error, Failure::from(&error));
        // The client gets the error even if recording fails.
        let _ = self.keep(record).await;
        error.respond(shape)
    }

    fn record(&mut self, response: Written, answers: Vec<Answer>) -> CallRecord {
        CallRecord {
            endpoint: self.endpoint,
            request: std::mem::take(&mut self.request),
            response,
            answers,
            status: 200,
            seconds: self.started.elapsed().as_secs_f64(),
            role: self.context.role.clone(),
            failure: None,
        }
    }

    fn failed(&mut self, error: &ApiError, failure: Failure) -> CallRecord {
        let body = error.body(Shape::of(self.endpoint));
        let record = self.record(body.into(), Vec::new());
        CallRecord { status: error.status, failure: Some(failure), ..record }
    }

    /// Returns once the record is durable. It is written completely even if the client disconnects
    /// meanwhile, because the answer is complete and a partial record would be worse than none.
    async fn keep(&self, record: CallRecord) -> Result<(), Failure> {
        let recorder = self.context.recorder.clone();
        let kept = tokio::spawn(async move { recorder.record(record).await });
        kept.await.unwrap_or_else(|e| {
            Err(Failure::Internal(format!("the call could not be recorded: {e}")))
        })
    }

    /// Converts a failed generation to an error. Rejections for lack of capacity are not recorded:
    /// nothing was done, and the client will retry the same request.
    async fn fail(&mut self, failure: Failure) -> ApiError {
        let transient = matches!(failure, Failure::Busy { .. } | Failure::ShuttingDown);
        let error = ApiError::from(failure.clone());
        if !transient {
            let record = self.failed(&error, failure);
            let _ = self.keep(record).await;
        }
        error
    }
}

/// Submits the plan to the backend and responds, whole or streamed.
pub(super) async fn answer(plan: Plan, call: Call) -> Response {
    let choices = Choices::submit(&*call.context.backend, plan.asks);
    if plan.stream {
        streamed(choices, plan.writer, call).await
    } else {
        whole(choices, plan.writer, call).await
    }
}

async fn whole(mut choices: Choices, mut writer: Box<dyn Writer>, mut call: Call) -> Response {
    let shape = Shape::of(call.endpoint);
    while let Some((choice, event)) = choices.next().await {
        if let Err(failure) = choices.take(choice, event, None) {
            drop(choices);
            return call.fail(failure).await.respond(shape);
        }
    }
    let answers = choices.answers();
    let body = writer.whole(&answers);
    let text = Bytes::from(body.text.clone());
    match finish(&mut call, &*writer, body, answers).await {
        Ok(_) => {
            let mut response = Response::new(Body::from(text));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(failure) => ApiError::from(failure).respond(shape),
    }
}

/// Records a complete call and stores its conversation.
async fn finish(
    call: &mut Call,
    writer: &dyn Writer,
    body: Written,
    answers: Vec<Answer>,
) -> Result<(), Failure> {
    let memory = writer.memory();
    let record = call.record(body, answers);
    call.keep(record).await?;
    if let Some(memory) = memory {
        call.context.memory.keep(&memory.id, memory.items).await;
    }
    Ok(())
}

/// Waits for the first event, so that a request that fails immediately gets its error status, then
/// streams. The connection pulls the stream: when the client disconnects, the stream is dropped,
/// and with it the backend's receivers.
async fn streamed(mut choices: Choices, mut writer: Box<dyn Writer>, mut call: Call) -> Response {
    let mut out = Sse::default();
    if let Some((choice, event)) = choices.next().await
        && let Err(failure) =
            choices.take(choice, event, Some(Output { writer: &mut *writer, out: &mut out }))
    {
        drop(choices);
        return call.fail(failure).await.respond(Shape::of(call.endpoint));
    }
    let stream = Stream { choices, writer, call, out, ended: false };
    let mut response = Response::new(Body::from_stream(unfold(stream, Stream::step)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Disables buffering in proxies such as nginx.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Stream {
    choices: Choices,
    writer: Box<dyn Writer>,
    call: Call,
    out: Sse,
    ended: bool,
}

impl Stream {
    /// The next bytes, `None` after the last.
    async fn step(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        while self.out.is_empty() {
            if self.ended {
                return None;
            }
            self.advance().await;
        }
        // Add all events that are ready.
        while self.out.len() < WRITE && !self.ended {
            match self.choices.next().now_or_never() {
                Some(Some((choice, event))) => self.take(choice, event).await,
                // Closing waits for the record; send the buffered events first.
                Some(None) | None => break,
            }
        }
        Some((Ok(self.out.take()), self))
    }

    async fn advance(&mut self) {
        match tokio::time::timeout(KEEP_ALIVE, self.choices.next()).await {
            Err(_) => self.writer.keep_alive(&mut self.out),
            Ok(Some((choice, event))) => self.take(choice, event).await,
            Ok(None) => self.close().await,
        }
    }

    async fn take(&mut self, choice: usize, event: Event) {
        let output = Output { writer: &mut *self.writer, out: &mut self.out };
        if let Err(failure) = self.choices.take(choice, event, Some(output)) {
            self.choices.cancel();
            let error = self.call.fail(failure).await;
            self.fail(&error);
        }
    }

    async fn close(&mut self) {
        let answers = self.choices.answers();
        let body = self.writer.whole(&answers);
        let mut last = Sse::default();
        self.writer.close(&answers, &body, &mut last);
        match finish(&mut self.call, &*self.writer, body, answers).await {
            Ok(()) => {
                self.out.append(&mut last);
                self.ended = true;
            }
            Err(failure) => self.fail(&ApiError::from(failure)),
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.writer.failed(error, &mut self.out);
        self.ended = true;
    }
}

/// A writer and its output buffer.
struct Output<'a> {
    writer: &'a mut dyn Writer,
    out: &'a mut Sse,
}

/// The generations of one call.
struct Choices(Vec<Choice>);

/// One generation: how much was forwarded, and its answer once complete.
struct Choice {
    events: Option<UnboundedReceiver<Event>>,
    rule: CallRule,
    begun: bool,
    text: usize,
    calls: usize,
    tokens: usize,
    answer: Option<Answer>,
}

/// Filters the tool calls that a client may see.
struct CallRule {
    most: usize,
    prefix: String,
}

impl CallRule {
    fn of(ask: &Ask) -> Self {
        let most = match &ask.prompt {
            Prompt::Chat(request) if request.offered_tools().is_empty() => 0,
            Prompt::Chat(request) if request.single_call => 1,
            Prompt::Chat(_) => usize::MAX,
            Prompt::Text(_) | Prompt::Ids(_) => 0,
        };
        Self { most, prefix: ask.call_prefix.clone() }
    }

    /// Drops calls that were not offered and renames those with a foreign id; `first` is the
    /// position in the answer of the first of `calls`.
    fn apply(&self, calls: &mut Vec<ToolCall>, first: usize) {
        calls.truncate(self.most.saturating_sub(first));
        for (i, call) in calls.iter_mut().enumerate() {
            if !call.id.starts_with(&self.prefix) {
                call.id = format!("{}{}", self.prefix, first + i);
            }
        }
    }
}

impl Choices {
    fn submit(backend: &dyn Backend, asks: Vec<Ask>) -> Self {
        let choice = |ask: Ask| Choice {
            rule: CallRule::of(&ask),
            events: Some(backend.submit(ask)),
            begun: false,
            text: 0,
            calls: 0,
            tokens: 0,
            answer: None,
        };
        Self(asks.into_iter().map(choice).collect())
    }

    /// The next event of any choice; `None` once all are complete.
    async fn next(&mut self) -> Option<(usize, Event)> {
        poll_fn(|cx| {
            let mut open = false;
            for (i, choice) in self.0.iter_mut().enumerate() {
                let Some(events) = &mut choice.events else { continue };
                match events.poll_recv(cx) {
                    Poll::Pending => open = true,
                    Poll::Ready(Some(event)) => return Poll::Ready(Some((i, event))),
                    Poll::Ready(None) => {
                        let message = "the backend closed the channel without an answer".to_owned();
                        let failure = Event::Failed(Failure::Internal(message));
                        return Poll::Ready(Some((i, failure)));
                    }
                }
            }
            if open { Poll::Pending } else { Poll::Ready(None) }
        })
        .await
    }

    /// Processes an event of a choice and forwards it to the writer, if any.
    fn take(&mut self, index: usize, event: Event, output: Option<Output>) -> Result<(), Failure> {
        let choice = &mut self.0[index];
        match event {
            Event::Failed(failure) => return Err(failure),
            Event::Started { prompt_ids, policy_version } => {
                if let Some(mut output) = output {
                    choice.begin(index, &prompt_ids, policy_version, &mut output);
                }
            }
            Event::Delta(mut delta) => {
                choice.rule.apply(&mut delta.tool_calls, choice.calls);
                if let Some(mut output) = output {
                    // Clients cannot handle a delta before the start, so emit the start if the
                    // backend omitted it.
                    choice.begin(index, &[], 0, &mut output);
                    choice.forward(index, delta, &mut output);
                }
            }
            Event::Finished(mut answer) => {
                choice.events = None;
                choice.rule.apply(&mut answer.tool_calls, 0);
                if let Some(mut output) = output {
                    choice.begin(index, &answer.prompt_ids, answer.policy_version, &mut output);
                    choice.forward(index, choice.rest(&answer), &mut output);
                }
                choice.answer = Some(*answer);
            }
        }
        Ok(())
    }

    fn cancel(&mut self) {
        self.0.clear();
    }

    fn answers(&mut self) -> Vec<Answer> {
        self.0.iter_mut().filter_map(|choice| choice.answer.take()).collect()
    }
}

impl Choice {
    fn begin(&mut self, index: usize, prompt_ids: &[u32], version: u64, output: &mut Output) {
        if !std::mem::replace(&mut self.begun, true) {
            output.writer.begun(index, prompt_ids, version, output.out);
        }
    }

    /// The part of a complete answer that was not forwarded yet: all of it if the backend does not
    /// stream.
    fn rest(&self, answer: &Answer) -> Delta {
        Delta {
            content: answer.content.get(self.text..).unwrap_or_default().to_owned(),
            tool_calls: answer.tool_calls.get(self.calls..).unwrap_or_default().to_vec(),
            tokens: answer.tokens.get(self.tokens..).unwrap_or_default().to_vec(),
        }
    }

    /// Forwards text first, then each call separately: some clients drop the calls of a delta that
    /// also has text.
    fn forward(&mut self, index: usize, delta: Delta, output: &mut Output) {
        self.text += delta.content.len();
        self.calls += delta.tool_calls.len();
        self.tokens += delta.tokens.len();
        let mut tokens: Vec<Token> = delta.tokens;
        if !delta.content.is_empty() || (delta.tool_calls.is_empty() && !tokens.is_empty()) {
            output.writer.text(index, &delta.content, std::mem::take(&mut tokens), output.out);
        }
        for call in &delta.tool_calls {
            output.writer.call(index, call, std::mem::take(&mut tokens), output.out);
        }
    }
}

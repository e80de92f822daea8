//! Resources that a call holds until its response has been sent: a concurrency permit, its place
//! in the update gate, its metrics.
//!
//! A streamed response ends long after the handler has returned, so these are attached to the
//! response's body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::gate::Passed;
use super::retries::InFlight;
use super::state::State;
use crate::call::Endpoint;

/// Resources that a call holds until its response has been sent.
pub(super) struct Held {
    state: Arc<State>,
    endpoint: Endpoint,
    started: Instant,
    status: StatusCode,
    pub(super) in_flight: Option<Arc<InFlight>>,
    /// Released on drop.
    pub(super) _permit: Option<OwnedSemaphorePermit>,
    pub(super) _passed: Option<Passed>,
}

impl Held {
    /// A call that has just arrived.
    pub(super) fn new(state: Arc<State>, endpoint: Endpoint) -> Self {
        state.metrics.in_flight.inc();
        Self {
            state,
            endpoint,
            started: Instant::now(),
            // Counted if the client disconnects before there is a response.
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            in_flight: None,
            _permit: None,
            _passed: None,
        }
    }

    /// Attaches itself to the response until it has been sent.
    pub(super) fn attach(mut self, response: Response) -> Response {
        self.status = response.status();
        response.map(|body| Body::new(HeldBody { body, held: Some(self) }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let metrics = &self.state.metrics;
        let endpoint = self.endpoint.path();
        metrics.in_flight.dec();
        metrics.requests.with_label_values(&[endpoint, self.status.as_str()]).inc();
        metrics
            .seconds
            .with_label_values(&[endpoint])
            .observe(self.started.elapsed().as_secs_f64());
    }
}

/// A body that detects when it has been sent completely.
struct HeldBody {
    body: Body,
    held: Option<Held>,
}

impl HeldBody {
    fn sent(&mut self) {
        if let Some(held) = self.held.take()
            && let Some(in_flight) = &held.in_flight
        {
            in_flight.delivered();
        }
    }
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.sent(),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.sent(),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! What a call holds until its answer has left: room, its place before updates, its metrics.
//!
//! A streamed answer leaves long after the handler has returned, so all of it travels with the
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

/// What a call holds until its answer has left.
pub(super) struct Held {
    state: Arc<State>,
    endpoint: Endpoint,
    started: Instant,
    status: StatusCode,
    pub(super) in_flight: Option<Arc<InFlight>>,
    /// Held only to be given back.
    pub(super) _room: Option<OwnedSemaphorePermit>,
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
            // What is counted where the client goes away before there is an answer.
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            in_flight: None,
            _room: None,
            _passed: None,
        }
    }

    /// Goes along with the answer until it has left.
    pub(super) fn until_left(mut self, response: Response) -> Response {
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

/// A body that knows when it has left.
struct HeldBody {
    body: Body,
    held: Option<Held>,
}

impl HeldBody {
    fn left(&mut self) {
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
            Poll::Ready(None) => self.left(),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.left(),
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

//! The page's routes, all below `/live/`.
//!
//! ```text
//! /live/                               the page, its script and its style sheet
//! /live/events                         server-sent events: snapshot, step, eval, flight, status
//! /live/rollouts?step=&phase=&offset=  finished rollouts of a step
//! /live/rollouts/{step}/{phase}/{id}   one of them, with its calls
//! ```
//!
//! Model output is untrusted. It is served as JSON only, and the page inserts it into the document
//! as text nodes; should that ever fail, the content security policy allows no script, style,
//! image or connection but the page's own three files.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::stream::{self, Stream};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::feed::{Cursor, Feed, Notice};
use super::guard::{self, Guard};
use super::rollouts::{Key, Query, Rollouts, Unreadable};

/// Maximum concurrent event streams.
const MOST_STREAMS: usize = 64;

/// Maximum concurrent reads of the store.
const MOST_READS: usize = 8;

/// Minimum time between two batches of events for one reader: the state of the rollouts changes
/// faster than anyone can read.
const PACE: Duration = Duration::from_millis(250);

/// Delay after which a browser reconnects.
const RETRY: Duration = Duration::from_secs(1);

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

#[derive(Clone)]
struct Live {
    feed: Feed,
    rollouts: Arc<dyn Rollouts>,
    streams: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

/// The page as a router, to be merged into another. `/live` redirects to `/live/`.
pub fn router(feed: Feed, rollouts: Arc<dyn Rollouts>, guard: Guard) -> Router {
    let live = Live {
        feed,
        rollouts,
        streams: Arc::new(Semaphore::new(MOST_STREAMS)),
        reads: Arc::new(Semaphore::new(MOST_READS)),
    };
    Router::new()
        .route("/live", get(|| async { Redirect::permanent("/live/") }))
        .route("/live/", get(|| file("text/html", include_str!("page/page.html"))))
        .route("/live/page.css", get(|| file("text/css", include_str!("page/page.css"))))
        .route("/live/page.js", get(|| file("text/javascript", include_str!("page/page.js"))))
        .route("/live/events", get(events))
        .route("/live/rollouts", get(list))
        .route("/live/rollouts/{step}/{phase}/{id}", get(show))
        .with_state(live)
        .layer(from_fn_with_state(guard, guard::check))
}

/// A file of the page.
async fn file(kind: &str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, format!("{kind}; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, POLICY.to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (REFERRER_POLICY, "no-referrer".to_owned()),
        (CACHE_CONTROL, "no-cache".to_owned()),
    ];
    (headers, text).into_response()
}

/// A JSON response that is not cached.
fn answer(status: StatusCode, value: impl serde::Serialize) -> Response {
    let headers = [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, Json(value)).into_response()
}

fn refusal(status: StatusCode, what: &str) -> Response {
    answer(status, json!({ "error": what }))
}

async fn events(State(live): State<Live>, headers: HeaderMap) -> Response {
    let Ok(permit) = live.streams.try_acquire_owned() else {
        let what = format!("{MOST_STREAMS} pages are already open; close one of them");
        return refusal(StatusCode::SERVICE_UNAVAILABLE, &what);
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let reader = Reader {
        cursor: live.feed.cursor(last),
        changes: live.feed.changes(),
        feed: live.feed,
        ready: VecDeque::new(),
        begun: false,
        last: false,
        _permit: permit,
    };
    let headers = [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Sse::new(reader.events()).keep_alive(KeepAlive::default())).into_response()
}

/// One open event stream.
struct Reader {
    feed: Feed,
    cursor: Cursor,
    changes: watch::Receiver<u64>,
    ready: VecDeque<Notice>,
    begun: bool,
    /// No events follow those in `ready`.
    last: bool,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut reader| async move {
            let notice = reader.next().await?;
            let mut event = Event::default().event(notice.name).data(notice.data).retry(RETRY);
            if let Some(id) = notice.id {
                event = event.id(id);
            }
            Some((Ok(event), reader))
        })
    }

    async fn next(&mut self) -> Option<Notice> {
        while self.ready.is_empty() {
            if self.last {
                return None;
            }
            if self.begun {
                tokio::time::sleep(PACE).await;
                self.changes.changed().await.ok()?;
            }
            self.begun = true;
            self.changes.mark_unchanged();
            let news = self.feed.news(&mut self.cursor);
            self.last = news.last;
            self.ready.extend(news.notices);
        }
        self.ready.pop_front()
    }
}

async fn list(
    State(live): State<Live>,
    query: Result<UrlQuery<Query>, QueryRejection>,
) -> Response {
    match query {
        Ok(UrlQuery(query)) => read(live, move |rollouts| rollouts.list(&query).map(Some)).await,
        Err(wrong) => refusal(StatusCode::BAD_REQUEST, &wrong.body_text()),
    }
}

async fn show(State(live): State<Live>, key: Result<Path<Key>, PathRejection>) -> Response {
    match key {
        Ok(Path(key)) => read(live, move |rollouts| rollouts.show(&key)).await,
        Err(wrong) => refusal(StatusCode::BAD_REQUEST, &wrong.body_text()),
    }
}

/// Reads from the store on a blocking thread.
async fn read<T, Ask>(live: Live, ask: Ask) -> Response
where
    T: serde::Serialize + Send + 'static,
    Ask: FnOnce(&dyn Rollouts) -> Result<Option<T>, Unreadable> + Send + 'static,
{
    let Ok(_permit) = live.reads.acquire().await else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "the page is closing");
    };
    let rollouts = live.rollouts;
    match tokio::task::spawn_blocking(move || ask(&*rollouts)).await {
        Ok(Ok(Some(found))) => answer(StatusCode::OK, found),
        Ok(Ok(None)) => refusal(StatusCode::NOT_FOUND, "there is no such rollout"),
        Ok(Err(error)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "reading the rollouts failed"),
    }
}

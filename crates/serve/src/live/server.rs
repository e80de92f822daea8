//! Serves the page on its own address, for a run that does not use `async`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::Redirect;
use axum::routing::get;
use tokio::sync::watch;

use super::feed::Feed;
use super::guard::{self, Guard};
use super::http::router;
use super::rollouts::Rollouts;

/// Maximum wait for readers to receive the remaining events when the page closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error(
        "{0} is reachable from other machines, so the live page needs a key: set one, \
         or serve it on 127.0.0.1"
    )]
    KeyNeeded(SocketAddr),
    #[error("the live page cannot be served on {address}: {source}")]
    Address { address: SocketAddr, source: io::Error },
    #[error("the live page cannot be served: {0}")]
    Start(io::Error),
}

/// A page being served. Dropping it closes the page after the last events have been sent to its
/// readers.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// The listening address; with port 0, the port chosen by the system.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The page's URL, without the key.
    pub fn url(&self) -> String {
        format!("http://{}/live/", self.address)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves the page of `feed` on `address` until the handle is dropped.
///
/// # Errors
/// A non-loopback address without a key; an address that cannot be bound.
pub fn serve(
    address: SocketAddr,
    guard: Guard,
    feed: Feed,
    rollouts: Arc<dyn Rollouts>,
) -> Result<Handle, LiveError> {
    if !address.ip().is_loopback() && !guard.has_key() {
        return Err(LiveError::KeyNeeded(address));
    }
    let failed = |source| LiveError::Address { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // One thread, so that the page takes little CPU time from the run.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LiveError::Start)?;
    let (end, ended) = watch::channel(false);
    let entrance = Router::new()
        .route("/", get(|| async { Redirect::temporary("/live/") }))
        .layer(from_fn_with_state(guard.clone(), guard::check));
    let app = router(feed.clone(), rollouts, guard).merge(entrance);
    let thread = std::thread::Builder::new()
        .name("live page".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(run(listener, app, feed, ended)) {
                eprintln!("the live page ended: {error}");
            }
            runtime.shutdown_background();
        })
        .map_err(LiveError::Start)?;
    Ok(Handle { address, end, thread: Some(thread) })
}

async fn run(
    listener: TcpListener,
    app: Router,
    feed: Feed,
    ended: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let shutdown = |mut ended: watch::Receiver<bool>| async move {
        // A dropped sender also ends the page.
        let _ = ended.wait_for(|&ended| ended).await;
    };
    let close = {
        let ended = shutdown(ended.clone());
        async move {
            ended.await;
            feed.close();
            tokio::time::sleep(CLOSE_TIMEOUT).await;
        }
    };
    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown(ended));
    tokio::select! {
        result = server => result,
        () = close => Ok(()),
    }
}

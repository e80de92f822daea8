//! The page on an address of its own, beside a run that knows nothing of `async`.

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

/// Longest wait for readers to take what is left when the page closes.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a page is not served.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error(
        "{0} can be reached from other machines, so the live page needs a key there: give one, \
         or serve it on 127.0.0.1"
    )]
    KeyNeeded(SocketAddr),
    #[error("the live page cannot be served on {address}: {source}")]
    Address { address: SocketAddr, source: io::Error },
    #[error("the live page cannot be served: {0}")]
    Start(io::Error),
}

/// A page that is being served. Dropping it ends the page, after what was said last has been
/// sent to whoever is looking.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Where it is served; the port is a real one also where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to type into a browser, without the key.
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
/// An address that others can reach, without a key; one that cannot be listened on.
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
    // One thread: the page must not take the processor from the run.
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
    let asked = |mut ended: watch::Receiver<bool>| async move {
        // A handle that is gone without a word has ended too.
        let _ = ended.wait_for(|&ended| ended).await;
    };
    let farewell = {
        let ended = asked(ended.clone());
        async move {
            ended.await;
            feed.close();
            tokio::time::sleep(FAREWELL).await;
        }
    };
    let server = axum::serve(listener, app).with_graceful_shutdown(asked(ended));
    tokio::select! {
        result = server => result,
        () = farewell => Ok(()),
    }
}

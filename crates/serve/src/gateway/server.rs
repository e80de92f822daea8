//! Connection handling: a connection limit, timeouts for idle connections, and draining on
//! shutdown.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::config::GatewayConfig;

/// Serves until `shutdown` resolves, then lets requests in flight finish until the drain deadline.
/// `draining` is called in between.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    config: &GatewayConfig,
    shutdown: impl Future<Output = ()>,
    draining: impl FnOnce(),
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.max_header_bytes);
    let permits = Arc::new(Semaphore::new(config.max_connections));
    let (end, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // Connections beyond the limit wait in the kernel's backlog.
        let accepting = async {
            let permit = permits.clone().acquire_owned().await.ok()?;
            Some((accept(&listener).await, permit))
        };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepting => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Some((stream, permit)) = accepted else { break };
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let mut ending = ending.clone();
        connections.spawn(async move {
            let _permit = permit;
            let mut connection = std::pin::pin!(connection);
            // Connection errors are the client's problem and ignored.
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = ending.wait_for(|ending| *ending) => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        });
    }
    drop(listener);
    draining();
    let _ = end.send(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(config.drain_deadline, drained).await;
    // Dropping the set aborts the connections that remain.
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Responses are written whole, so Nagle's algorithm would only delay them.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            // Out of descriptors, or the client disconnected: neither stops the server.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

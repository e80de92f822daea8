//! Connections: accepted up to a number, silent ones closed, drained at the end.

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

/// Serves until `shutdown` ends, then lets requests in flight finish until the drain deadline.
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
    let room = Arc::new(Semaphore::new(config.max_connections));
    let (end, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // Whoever is beyond the limit waits in the kernel's queue.
        let accepting = async {
            let room = room.clone().acquire_owned().await.ok()?;
            Some((accept(&listener).await, room))
        };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepting => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Some((stream, room)) = accepted else { break };
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let mut ending = ending.clone();
        connections.spawn(async move {
            let _room = room;
            let mut connection = std::pin::pin!(connection);
            // How a connection breaks is its client's affair.
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
    // What is left is late; the set aborts it.
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written whole; waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            // Out of descriptors, or a client that gave up: neither ends the server.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

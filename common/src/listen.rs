//! Sets up accepted connections in the same way for every listener of a node.
//!
//! Every accepted socket has TCP_NODELAY. Without it, an answer that is written in several small
//! parts waits until the peer acknowledges the first part, which the peer may delay by 40 ms.

use axum::serve::ListenerExt;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpIncoming;

/// Returns the connections of a gRPC server.
pub fn rpc(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Returns the connections of an HTTP server.
pub(crate) fn http(listener: TcpListener) -> impl axum::serve::Listener<Addr = std::net::SocketAddr> {
    listener.tap_io(|stream| set_up(stream))
}

/// Sets up an accepted socket.
pub fn set_up(stream: &TcpStream) {
    // This fails only if the connection is already broken, which its user notices.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection broke before it was used");
    }
}

#[cfg(test)]
mod tests {
    use axum::serve::Listener;
    use tonic::codegen::tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn accepted_connections_do_not_delay_what_is_written() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut accepted = rpc(listener);
        let _client = TcpStream::connect(address).await.expect("it listens");
        let stream = accepted.next().await.expect("a connection").expect("it works");
        assert!(stream.nodelay().expect("an option of every socket"));

        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut accepted = listener.tap_io(|stream| set_up(stream));
        let _client = TcpStream::connect(address).await.expect("it listens");
        let (stream, _) = accepted.accept().await;
        assert!(stream.nodelay().expect("an option of every socket"));
    }
}

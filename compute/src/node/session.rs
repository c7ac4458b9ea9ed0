//! The control stream to the leader: finding the leader, and opening the stream.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use tracing::debug;
use weir_common::error::{Kind, chain};
use weir_common::rpc;
use weir_proto::control_client::ControlClient;
use weir_proto::{FromNode, Hello, ToNode, from_node};

/// The time an address has to answer before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages waiting for the stream: reports of at most 4 barriers, and little else.
const OUTBOX_MAX: usize = 64;
/// A catalog with all its tables travels in one message.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// An open control stream.
pub(crate) struct Session {
    /// Messages from meta.
    pub(crate) inbox: Streaming<ToNode>,
    /// Messages to meta.
    pub(crate) outbox: mpsc::Sender<FromNode>,
}

/// Tries the addresses in turn. Returns `None` if no leader answered.
///
/// # Errors
/// If the leader refused this node for a lasting reason.
pub(crate) async fn open(addresses: &[String], hello: &Hello) -> Result<Option<Session>, rpc::Error> {
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, join(address, hello.clone())).await {
            Ok(Ok(session)) => return Ok(Some(session)),
            Ok(Err(error)) if error.kind == Kind::User => return Err(error),
            Ok(Err(error)) => debug!(address, error = chain(&error), "no leader there"),
            Err(_) => debug!(address, "no answer"),
        }
    }
    Ok(None)
}

async fn join(address: &str, hello: Hello) -> Result<Session, rpc::Error> {
    let unavailable = |error: tonic::transport::Error| rpc::Error::new(Kind::Unavailable, chain(&error));
    let channel: Channel = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| rpc::Error::new(Kind::User, format!("\"{address}\" is no address: {}", chain(&error))))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(unavailable)?;
    let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
    let hello = FromNode { message: Some(from_node::Message::Hello(hello)) };
    outbox.send(hello).await.expect("the receiver is here");
    let mut client = ControlClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let inbox = client.join(ReceiverStream::new(messages)).await?.into_inner();
    Ok(Session { inbox, outbox })
}

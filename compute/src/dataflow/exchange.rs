//! The exchange: carries changes between the fragments of two nodes, over one gRPC stream for each
//! direction and term.
//!
//! Streams that share a connection never wait for each other: each has a window of its own, and the
//! connection's window is larger than the windows of all of its streams together, whose number is
//! bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use weir_common::error::{Kind, chain};
use weir_common::ids::{SlotId, TableId, TermId};
use weir_common::rpc;
use weir_common::task::{Group, OnFailure};
use weir_proto::{CarriedAll, CarriedMessage, MergeRequest, MergeResponse, exchange_server};

use super::changes;
use super::router::{Router, Way};
use crate::control::event::{Event, Inputs};
use crate::control::wire;
use crate::storage::slots::{Slots, not_running};

/// The time a node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// HTTP/2's window of each stream: about one message of rows.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The window of a connection: the largest that HTTP/2 allows.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// A connection carries at most this many streams.
const STREAMS_MAX: usize = 1024;

// A stream therefore never waits for the connection's window.
const _: () = assert!(STREAMS_MAX as u64 * STREAM_WINDOW_BYTES as u64 <= CONNECTION_WINDOW_BYTES as u64);

/// A message of rows is about a mebibyte, or a single row.
pub(crate) const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// Connections to the other nodes of a term: the newest to each, and how many streams it carries.
#[derive(Default)]
pub(crate) struct Peers(HashMap<String, (Channel, usize)>);

impl Peers {
    /// A connection to another node for one more stream. It connects when it is first used.
    ///
    /// # Errors
    /// If `address` is not a valid address.
    pub(crate) fn channel(&mut self, address: &str) -> Result<Channel, tonic::transport::Error> {
        if let Some((channel, streams)) = self.0.get_mut(address)
            && *streams < STREAMS_MAX
        {
            *streams += 1;
            return Ok(channel.clone());
        }
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_lazy();
        self.0.insert(address.to_owned(), (channel.clone(), 1));
        Ok(channel)
    }

    /// A way to the fragments of another node. The node is told if the stream ends before the term
    /// does.
    pub(crate) fn changes(&mut self, term: TermId, address: &str, group: &Group, node: Inputs) -> Way {
        let (way, outgoing) = mpsc::unbounded_channel();
        let (channel, address, cancel) = (self.channel(address), address.to_owned(), group.token().clone());
        group.spawn("changes", OnFailure::Log, async move {
            let sent = async {
                match channel {
                    Ok(channel) => changes::send(channel, term, outgoing).await,
                    Err(error) => Err(rpc::Error::new(Kind::Internal, chain(&error))),
                }
            };
            let Some(ended) = cancel.run_until_cancelled(sent).await else { return Ok(()) };
            let reason = ended.map_or_else(|error| chain(&error), |()| "it closed the stream".to_owned());
            node.send(Event::Separated(term, format!("exchange with node {address} ended: {reason}"))).await;
            Ok::<_, std::convert::Infallible>(())
        });
        way
    }
}

/// The parts of a term that other nodes reach. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reachable {
    pub(crate) slots: Arc<Slots>,
    pub(crate) router: Router,
}

/// The gRPC service of the receiving side.
pub(crate) struct Exchange {
    running: watch::Receiver<Option<Reachable>>,
}

impl Exchange {
    pub(crate) fn new(running: watch::Receiver<Option<Reachable>>) -> Exchange {
        Exchange { running }
    }
}

#[tonic::async_trait]
impl exchange_server::Exchange for Exchange {
    async fn merge(&self, request: Request<MergeRequest>) -> Result<Response<MergeResponse>, Status> {
        let MergeRequest { term, slot, table, rows } = request.into_inner();
        let running = of_term(self.running.clone(), wire::term(term)?).await?;
        let rows = changes::decode(&rows).map_err(|error| rpc::Error::new(Kind::Internal, chain(&error)))?;
        let epoch = running.router.merge(TableId(table), SlotId(slot), rows).await?;
        Ok(Response::new(MergeResponse { epoch: epoch.0 }))
    }

    async fn carry(&self, request: Request<Streaming<CarriedMessage>>) -> Result<Response<CarriedAll>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.unwrap_or_default();
        let running = of_term(self.running.clone(), wire::term(first.term)?).await?;
        changes::receive(incoming, &running.router).await?;
        Ok(Response::new(CarriedAll {}))
    }
}

/// Waits until a term runs here.
///
/// # Errors
/// If it never will.
async fn of_term(mut running: watch::Receiver<Option<Reachable>>, term: TermId) -> Result<Reachable, rpc::Error> {
    let reached = |running: &Option<Reachable>| running.as_ref().is_some_and(|running| running.slots.term >= term);
    let found = running.wait_for(reached).await.map_err(|_| not_running(term))?.clone();
    found.filter(|running| running.slots.term == term).ok_or_else(|| not_running(term))
}

//! The exchange: carries writes of actors to slots of other nodes, over one gRPC stream for each
//! actor and slot.
//!
//! The receiving side passes on every message at once. It waits for the slot's task, never for a
//! seal, and the sender's credits bound the messages under way. Streams that share a connection
//! never wait for each other: each has a window of its own, and the connection's window is larger
//! than the windows of all of its streams together, whose number is bounded. A slot that takes
//! nothing for a while, because its database waits for the object store, therefore delays only the
//! actors that write to it.
//!
//! If either side ends a stream before the actor has ended, rows may be lost, so the term ends for
//! the sender's node.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;
use weir_common::error::{Kind, chain};
use weir_common::ids::{Epoch, JobSplit, Sequence, SlotId, SplitId, TableId, TermId};
use weir_common::position::Position;
use weir_common::rpc;
use weir_common::task::{Group, OnFailure};
use weir_proto::exchange_client::ExchangeClient;
use weir_proto::exchange_message::Message;
use weir_proto::{
    CarriedAll, CarriedMessage, ExchangeBarrier, ExchangeCredit, ExchangeMessage, ExchangeOpen, ExchangeRows,
    MergeRequest, MergeResponse, exchange_server,
};

use super::changes;
use super::edge::{CREDITS, Edge, Outgoing};
use super::router::{Router, Way};
use crate::control::event::{Event, Inputs};
use crate::control::plan::Route;
use crate::control::wire;
use crate::storage::entries;
use crate::storage::slot::{self, Credit};
use crate::storage::slots::{Slots, not_running};

/// Messages waiting for a stream: rows as far as there are credits, and at most 4 barriers in
/// flight. A sender that holds a credit therefore does not wait here.
const OUTGOING_MAX: usize = CREDITS + 8;
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

    /// An edge of an actor to a slot of another node. The node is told if the stream ends before
    /// the actor does.
    pub(crate) fn edge(&mut self, term: TermId, actor: &JobSplit, route: &Route, group: &Group, node: Inputs) -> Edge {
        let (way, outgoing) = mpsc::channel(OUTGOING_MAX);
        let credits = Arc::new(Semaphore::new(CREDITS));
        let actor_lives = way.downgrade();
        let edge = Edge::remote(route.vnodes, way, Arc::clone(&credits));
        let open = ExchangeOpen {
            term: Some(term.into()),
            slot: route.slot.0,
            table: actor.job.0,
            split: actor.split.0.clone(),
        };
        let channel = self.channel(&route.address);
        let address = route.address.clone();
        let cancel = group.token().clone();
        group.spawn("exchange", OnFailure::Log, async move {
            let sent = async {
                match channel {
                    Ok(channel) => send(channel, open, outgoing, &credits).await,
                    Err(error) => Err(rpc::Error::new(Kind::Internal, chain(&error))),
                }
            };
            let Some(ended) = cancel.run_until_cancelled(sent).await else { return Ok(()) };
            if actor_lives.upgrade().is_some() {
                let reason = ended.map_or_else(|error| chain(&error), |()| "it closed the stream".to_owned());
                node.send(Event::Separated(term, format!("exchange with node {address} ended: {reason}"))).await;
            }
            Ok::<_, std::convert::Infallible>(())
        });
        edge
    }
}

impl Peers {
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

/// Sends until the actor or the receiver ends the stream.
async fn send(
    channel: Channel,
    open: ExchangeOpen,
    outgoing: mpsc::Receiver<Outgoing>,
    credits: &Semaphore,
) -> Result<(), rpc::Error> {
    let message = |message| ExchangeMessage { message: Some(message) };
    let rest = ReceiverStream::new(outgoing).map(move |outgoing| {
        message(match outgoing {
            Outgoing::Rows(entries) => Message::Rows(ExchangeRows { entries }),
            Outgoing::Barrier(epoch, position) => Message::Barrier(ExchangeBarrier {
                epoch: epoch.0,
                sequence: position.next.0,
                anchor: Some(position.anchor.into()),
            }),
        })
    });
    let messages = stream::iter([message(Message::Open(open))]).chain(rest);
    let mut returned = ExchangeClient::new(channel).write(messages).await?.into_inner();
    while let Some(credit) = returned.message().await? {
        credits.add_permits(credit.returned as usize);
    }
    Ok(())
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
    type WriteStream = Pin<Box<dyn Stream<Item = Result<ExchangeCredit, Status>> + Send>>;

    async fn write(&self, request: Request<Streaming<ExchangeMessage>>) -> Result<Response<Self::WriteStream>, Status> {
        let credits = accept(self.running.clone(), request.into_inner()).await?;
        Ok(Response::new(Box::pin(credits)))
    }

    async fn merge(&self, request: Request<MergeRequest>) -> Result<Response<MergeResponse>, Status> {
        let MergeRequest { term, slot, table, entries } = request.into_inner();
        let slots = self.running.borrow().as_ref().map(|running| Arc::clone(&running.slots));
        let slots = Slots::of_term(slots, term.map(TermId::from).unwrap_or_default())?;
        let entries = entries::unframe(entries)
            .ok_or_else(|| rpc::Error::new(Kind::Internal, "rows of a replay are not framed"))?;
        let epoch = slots.get(SlotId(slot))?.merge(TableId(table), entries).await?;
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

/// Takes the writes of another node's actor to a slot of this node, and returns the credits that go
/// back. Waits until the term runs here.
///
/// # Errors
/// If the term does not run here and never will, or if the stream does not begin with its opening.
async fn accept(
    running: watch::Receiver<Option<Reachable>>,
    mut incoming: Streaming<ExchangeMessage>,
) -> Result<impl Stream<Item = Result<ExchangeCredit, Status>> + Send + use<>, rpc::Error> {
    let Some(Message::Open(open)) = incoming.message().await?.and_then(|first| first.message) else {
        return Err(rpc::Error::new(Kind::Internal, "an exchange does not begin with its opening"));
    };
    let term = wire::term(open.term)?;
    let actor = JobSplit { job: TableId(open.table), split: SplitId(open.split) };
    let slots = of_term(running, term).await?.slots;
    let slot = slots.handles.get(&SlotId(open.slot)).cloned().ok_or_else(|| not_running(term))?;
    // Unbounded, but it never holds more messages than there are credits.
    let (returned, credits) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        // In all other cases the sender sees the stream end.
        if let Err(error) = take(incoming, actor, &slot.inbox, &returned).await {
            warn!(%term, error = chain(&error), "cannot take what another node writes");
        }
    });
    Ok(UnboundedReceiverStream::new(credits).map(|()| Ok(ExchangeCredit { returned: 1 })))
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

/// Hands messages to the slot until either goes away.
async fn take(
    mut incoming: Streaming<ExchangeMessage>,
    actor: JobSplit,
    slot: &mpsc::Sender<slot::Message>,
    returned: &mpsc::UnboundedSender<()>,
) -> Result<(), rpc::Error> {
    let malformed = |what: &str| rpc::Error::new(Kind::Internal, format!("exchange of {actor}: {what}"));
    while let Ok(Some(message)) = incoming.message().await {
        let message = match message.message {
            Some(Message::Rows(ExchangeRows { entries })) => slot::Message::Write {
                actor: actor.clone().into(),
                entries: entries::unframe(entries).ok_or_else(|| malformed("rows are not framed"))?,
                credit: Credit::Remote(returned.clone()),
            },
            Some(Message::Barrier(ExchangeBarrier { epoch, sequence, anchor })) => {
                let position = Position { next: Sequence(sequence), anchor: anchor.into() };
                slot::Message::Barrier { actor: actor.clone().into(), epoch: Epoch(epoch), position: Some(position) }
            }
            Some(Message::Open(_)) | None => return Err(malformed("neither rows nor a barrier")),
        };
        if slot.send(message).await.is_err() {
            break;
        }
    }
    Ok(())
}

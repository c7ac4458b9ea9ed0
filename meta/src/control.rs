//! Control streams: one a compute node, from its `Hello` to its loss.
//!
//! Owns the stream and the node's membership key; everything it hears becomes an event of the coordinator. A node that
//! falls silent is lost, and so is one whose stream breaks.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};
use weir_common::error::{Kind, chain};
use weir_common::ids::{NodeId, TableId};
use weir_common::{rpc, running};
use weir_proto::from_node::Message;
use weir_proto::{FromNode, Heartbeat, Hello, ToNode, control_server, to_node};

use crate::coordinator::event::Event;
use crate::coordinator::task::{Attachment, Input, not_leading};
use crate::reign::{Config, Current, Reign};
use crate::store::{LeaseId, Txn};
use crate::wire;

/// How often each side says that it lives.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// After how long a silent node counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Messages waiting for a node: barriers (at most 4 in flight), commits, and a start; more means it does not read.
const OUTBOX_MAX: usize = 64;

/// The gRPC service.
pub(crate) struct Control {
    config: Config,
    current: Current,
}

impl Control {
    pub(crate) fn new(config: Config, current: Current) -> Control {
        Control { config, current }
    }

    fn check(&self, hello: &Hello) -> Result<(), rpc::Error> {
        for (what, theirs, ours) in
            [("cluster", &hello.cluster, &self.config.cluster), ("state URL", &hello.state_url, &self.config.state_url)]
        {
            if theirs != ours {
                let message =
                    format!("{what} of the compute node is \"{theirs}\", that of the meta node is \"{ours}\"");
                return Err(rpc::Error::new(Kind::User, message).with_hint(format!("start both with the same {what}")));
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl control_server::Control for Control {
    type JoinStream = ReceiverStream<Result<ToNode, Status>>;

    async fn join(&self, request: Request<Streaming<FromNode>>) -> Result<Response<Self::JoinStream>, Status> {
        let Some(reign) = self.current.borrow().clone() else { return Err(not_leading().into()) };
        let mut inbox = request.into_inner();
        let first = running::timeout(SILENCE_MAX, inbox.next()).await;
        let Ok(Some(Ok(FromNode { message: Some(Message::Hello(hello)) }))) = first else {
            return Err(rpc::Error::new(Kind::Internal, "a control stream begins with a hello").into());
        };
        self.check(&hello)?;
        let (sender, receiver) = mpsc::channel(OUTBOX_MAX);
        let connection = Connection {
            node: NodeId(hello.node.clone()),
            reign,
            disconnect: CancellationToken::new(),
            lease_ttl: self.config.lease_ttl,
        };
        tokio::spawn(connection.run(hello, inbox, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Connection {
    node: NodeId,
    reign: Reign,
    disconnect: CancellationToken,
    lease_ttl: Duration,
}

impl Connection {
    async fn run(self, hello: Hello, inbox: Streaming<FromNode>, stream: mpsc::Sender<Result<ToNode, Status>>) {
        let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
        let attachment = Attachment {
            node: self.node.clone(),
            address: hello.advertise.clone(),
            parallelism: usize::try_from(hello.parallelism).expect("at least 32 bits"),
            outbox,
            disconnect: self.disconnect.clone(),
        };
        if self.reign.coordinator.send(Input::Attach(attachment)).await.is_err() {
            return;
        }
        let lease = self.register(&hello.advertise).await;
        let reason = tokio::select! {
            biased;
            () = self.disconnect.cancelled() => "disconnected by the coordinator".to_owned(),
            reason = self.listen(inbox) => reason,
            () = self.speak(messages, stream) => "it closed its control stream".to_owned(),
            () = self.stay_registered(lease) => unreachable!("membership is kept for ever"),
        };
        info!(node = %self.node, reason, "compute node lost");
        // If the reign has ended there is nobody left to tell.
        let _ = self.reign.coordinator.send(Input::Event(Event::NodeLost(self.node.clone()))).await;
        if let Some(lease) = lease
            && let Err(error) = self.reign.storage.store.revoke(lease).await
        {
            debug!(node = %self.node, error = chain(&error), "cannot revoke a node's lease");
        }
    }

    /// Puts the node's key under a lease, by which the next leader knows whom to wait for. Best effort.
    async fn register(&self, address: &str) -> Option<LeaseId> {
        let storage = &self.reign.storage;
        let lease = storage.store.grant_lease(self.lease_ttl).await.ok()?;
        let key = storage.keys.node(&self.node.0);
        let txn = Txn::new().when(storage.fence.clone()).put_leased(key, address.to_owned(), lease);
        storage.store.txn(txn).await.ok().map(|_| lease)
    }

    async fn stay_registered(&self, lease: Option<LeaseId>) {
        loop {
            tokio::time::sleep(self.lease_ttl / 3).await;
            if let Some(lease) = lease
                && let Err(error) = self.reign.storage.store.keep_alive(lease).await
            {
                debug!(node = %self.node, error = chain(&error), "cannot keep a node's lease alive");
            }
        }
    }

    /// Forwards what the coordinator says, and a heartbeat when it says nothing.
    async fn speak(&self, mut messages: mpsc::Receiver<ToNode>, stream: mpsc::Sender<Result<ToNode, Status>>) {
        loop {
            let message = match tokio::time::timeout(HEARTBEAT, messages.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(_) => wire::to_node(to_node::Message::Heartbeat(Heartbeat::default())),
            };
            if stream.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }

    /// Hands what the node says to the coordinator, until the node is lost; returns why.
    async fn listen(&self, mut inbox: Streaming<FromNode>) -> String {
        let mut trouble = String::new();
        loop {
            let message = match running::timeout(SILENCE_MAX, inbox.next()).await {
                Ok(Some(Ok(FromNode { message }))) => message,
                Ok(Some(Err(status))) => return status.message().to_owned(),
                Ok(None) => return "it closed its control stream".to_owned(),
                Err(_) => return format!("silent for {} s", SILENCE_MAX.as_secs()),
            };
            let heard = match message {
                Some(Message::Heartbeat(Heartbeat { trouble: now })) if now != trouble => {
                    trouble.clone_from(&now);
                    Ok(Some(Input::Trouble(self.node.clone(), now)))
                }
                message => message.map_or(Ok(None), |message| self.input(message)),
            };
            match heard {
                Ok(None) => {}
                Ok(Some(input)) => {
                    if self.reign.coordinator.send(input).await.is_err() {
                        return "leadership has ended".to_owned();
                    }
                }
                Err(error) => return chain(&error),
            }
        }
    }

    fn input(&self, message: Message) -> Result<Option<Input>, rpc::Error> {
        let node = self.node.clone();
        Ok(Some(Input::Event(match message {
            Message::Heartbeat(_) => return Ok(None),
            Message::Hello(_) => return Err(rpc::Error::new(Kind::Internal, "a second hello")),
            Message::TermReady(ready) => Event::TermReady(node, wire::term(ready.term)?),
            Message::TermFailed(failed) => Event::TermFailed(node, wire::term(failed.term)?, failed.error),
            Message::EpochReport(report) => Event::EpochReported(node, wire::report(report)?),
            Message::WantBarrier(_) => Event::BarrierWanted,
            Message::JobFailed(failed) => {
                let (term, job) = (wire::term(failed.term)?, TableId(failed.table));
                Event::JobFailed { term, job, error: failed.error, waits: failed.waits }
            }
            Message::Leave(_) => Event::NodeLeaving(node),
            Message::Surveyed(made) => return Ok(Some(Input::Surveyed(node, made.survey))),
        })))
    }
}

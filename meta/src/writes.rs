//! The service that commits statements that write: it hands them to the coordinator, and gives out
//! the locks of tables.
//!
//! Locks live as long as the reign. The next leader claims a term, in which no statement of an
//! earlier one is committed, so its locks need not be known.

use std::pin::Pin;

use futures::stream::{self, Stream, StreamExt};
use tokio::sync::OwnedMutexGuard;
use tonic::{Request, Response, Status};
use weir_common::ids::{SlotId, StatementId, TableId};
use weir_common::rpc;
use weir_proto as proto;
use weir_proto::statements_server;

use crate::coordinator::statements::Statement;
use crate::coordinator::task::{Handle, Input, not_leading};
use crate::reign::Current;
use crate::turns::Turns;
use crate::wire;

/// The gRPC service.
pub(crate) struct Writes {
    current: Current,
    locks: Turns<TableId>,
}

impl Writes {
    pub(crate) fn new(current: Current) -> Writes {
        Writes { current, locks: Turns::default() }
    }

    fn coordinator(&self) -> Result<Handle, rpc::Error> {
        self.current.borrow().as_ref().map(|reign| reign.coordinator.clone()).ok_or_else(not_leading)
    }
}

#[tonic::async_trait]
impl statements_server::Statements for Writes {
    type LockStream = Pin<Box<dyn Stream<Item = Result<proto::LockResponse, Status>> + Send>>;

    async fn lock(&self, request: Request<proto::LockRequest>) -> Result<Response<Self::LockStream>, Status> {
        self.coordinator()?;
        let lock: OwnedMutexGuard<()> = self.locks.take(TableId(request.into_inner().table)).await;
        // The stream holds the lock until the caller ends the call, and it is dropped.
        let held = stream::once(async { Ok(proto::LockResponse {}) }).chain(stream::once(async move {
            let _lock = lock;
            std::future::pending().await
        }));
        Ok(Response::new(Box::pin(held)))
    }

    async fn commit(&self, request: Request<proto::CommitRequest>) -> Result<Response<proto::CommitResponse>, Status> {
        let proto::CommitRequest { term, statement } = request.into_inner();
        let (term, named) = (wire::term(term)?, statement.unwrap_or_default());
        let slots = named.slots.into_iter().map(SlotId).collect();
        let statement = Statement { id: StatementId(named.id), table: TableId(named.table), slots };
        let commit = |reply| Input::Statement(term, statement, reply);
        let epoch = self.coordinator()?.ask(commit).await??;
        Ok(Response::new(proto::CommitResponse { epoch: epoch.0 }))
    }
}

//! The gRPC service by which frontends hand over the rows of statements that write.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status, Streaming};
use weir_common::error::{Kind, chain};
use weir_common::ids::{SlotId, StatementId, TableId};
use weir_common::rpc;
use weir_proto::{AbandonRequest, AbandonResponse, HeldRows, HeldStatement, HoldResponse, dml_server};

use super::serving::Serving;
use crate::dataflow::changes;
use crate::dataflow::router::{Hold, Message};
use crate::storage::slots::not_running;

/// The gRPC service that takes the rows of statements.
pub(crate) struct Dml {
    serving: watch::Receiver<Option<Arc<Serving>>>,
}

impl Dml {
    pub(crate) fn new(serving: watch::Receiver<Option<Arc<Serving>>>) -> Dml {
        Dml { serving }
    }

    /// The term of a statement, if it runs here.
    fn of_term(&self, statement: &HeldStatement) -> Result<Arc<Serving>, rpc::Error> {
        Serving::of_term(self.serving.borrow().clone(), statement.term)
    }
}

fn malformed(what: impl std::fmt::Display) -> rpc::Error {
    rpc::Error::new(Kind::Internal, format!("rows of a statement: {what}"))
}

#[tonic::async_trait]
impl dml_server::Dml for Dml {
    async fn hold(&self, request: Request<Streaming<HeldRows>>) -> Result<Response<HoldResponse>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?;
        let statement = first.as_ref().and_then(|first| first.statement);
        let statement = statement.ok_or_else(|| malformed("the statement is not named"))?;
        let serving = self.of_term(&statement)?;
        let actor = serving.router.table(TableId(statement.table), SlotId(statement.slot))?;
        let id = StatementId(statement.id);
        let held = async {
            let mut next = first;
            while let Some(HeldRows { rows, deletes, .. }) = next {
                let rows = changes::decode(&rows).map_err(|error| malformed(chain(&error)))?;
                let rows = changes::chunk(rows, &deletes).ok_or_else(|| malformed("not a bit for each row"))?;
                next = incoming.message().await?;
                let layout = u16::try_from(statement.layout).unwrap_or(u16::MAX);
                let (held, answer) = oneshot::channel();
                let hold = Hold { statement: id, rows, layout, is_last: next.is_none(), held };
                serving.router.send(actor, Message::Hold(hold));
                answer.await.map_err(|_| not_running(serving.slots.term))??;
            }
            Ok::<_, Status>(())
        };
        if let Err(error) = held.await {
            // A part of the rows is of no use.
            serving.router.send(actor, Message::Abandon(id));
            return Err(error);
        }
        Ok(Response::new(HoldResponse {}))
    }

    async fn abandon(&self, request: Request<AbandonRequest>) -> Result<Response<AbandonResponse>, Status> {
        let statement = request.into_inner().statement.ok_or_else(|| malformed("the statement is not named"))?;
        let serving = self.of_term(&statement)?;
        let actor = serving.router.table(TableId(statement.table), SlotId(statement.slot))?;
        serving.router.send(actor, Message::Abandon(StatementId(statement.id)));
        Ok(Response::new(AbandonResponse {}))
    }
}

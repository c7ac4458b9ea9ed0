//! The services of the cluster that take the rows of statements: nodes hold them, the leader
//! commits them.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;

use arrow_ipc::reader::StreamReader;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use futures::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};
use weir_common::error::Kind;
use weir_common::key::{Keys, vnode_of};
use weir_common::rpc;
use weir_proto as proto;
use weir_proto::dml_server::Dml;
use weir_proto::statements_server::Statements;

use crate::cluster::{Node, SLOTS};

/// Rows of a statement, each a batch and whether it is deleted.
type Rows = Vec<(RecordBatch, bool)>;

/// The rows that nodes hold, and those that were committed.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// By statement and slot.
    pub(crate) rows: HashMap<(u64, u32), Rows>,
    /// The rows of a table's slot by their keys.
    pub(crate) stored: HashMap<(u32, u32), BTreeMap<Vec<u8>, RecordBatch>>,
    /// The statements that were committed.
    pub(crate) commits: usize,
    pub(crate) abandoned: usize,
    pub(crate) locks: usize,
    /// How the next calls of Hold fail.
    pub(crate) refused_holds: Vec<(Kind, &'static str)>,
    /// How the next calls of Commit fail.
    pub(crate) refused_commits: Vec<(Kind, Option<&'static str>)>,
}

fn over() -> Status {
    rpc::Error::new(Kind::Fenced, "the term is over").into()
}

#[tonic::async_trait]
impl Dml for Node {
    async fn hold(
        &self,
        request: Request<Streaming<proto::HeldRows>>,
    ) -> Result<Response<proto::HoldResponse>, Status> {
        let mut rows = request.into_inner();
        let first = rows.message().await?.expect("a first message");
        let statement = first.statement.expect("the first message names the statement");
        {
            let mut state = self.shared.state();
            if let Some((kind, sqlstate)) = state.held.refused_holds.pop() {
                return Err(rpc::Error::new(kind, "there is no room").with_sqlstate(sqlstate).into());
            }
            if statement.term.as_ref().map(|term| term.term) != Some(state.term) {
                return Err(over());
            }
        }
        let mut held = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            let mut reader = StreamReader::try_new(message.rows.as_ref(), None).expect("a stream of Arrow");
            let batch = reader.next().expect("a batch").expect("a batch");
            for row in 0..batch.num_rows() {
                let is_deleted = message.deletes.get(row / 8).is_some_and(|bits| bits >> (row % 8) & 1 == 1);
                held.push((batch.slice(row, 1), is_deleted));
            }
            next = rows.message().await?;
        }
        self.shared.state().held.rows.insert((statement.id, statement.slot), held);
        Ok(Response::new(proto::HoldResponse {}))
    }

    async fn abandon(
        &self,
        request: Request<proto::AbandonRequest>,
    ) -> Result<Response<proto::AbandonResponse>, Status> {
        let statement = request.into_inner().statement.expect("a statement");
        let mut state = self.shared.state();
        state.held.rows.remove(&(statement.id, statement.slot));
        state.held.abandoned += 1;
        Ok(Response::new(proto::AbandonResponse {}))
    }
}

#[tonic::async_trait]
impl Statements for Node {
    type LockStream = Pin<Box<dyn Stream<Item = Result<proto::LockResponse, Status>> + Send>>;

    async fn lock(&self, _request: Request<proto::LockRequest>) -> Result<Response<Self::LockStream>, Status> {
        self.lead()?.held.locks += 1;
        Ok(Response::new(Box::pin(stream::iter([Ok(proto::LockResponse {})]).chain(stream::pending()))))
    }

    async fn commit(&self, request: Request<proto::CommitRequest>) -> Result<Response<proto::CommitResponse>, Status> {
        let mut state = self.lead()?;
        if let Some((kind, sqlstate)) = state.held.refused_commits.pop() {
            let error = rpc::Error::new(kind, "the term ended before the statement was committed");
            return Err(match sqlstate {
                Some(sqlstate) => error.with_sqlstate(sqlstate).into(),
                None => error.with_outcome_unknown().into(),
            });
        }
        let statement = request.into_inner().statement.expect("a statement");
        let entry = state.catalog.iter().find(|entry| entry.id().0 == statement.table).expect("the table").clone();
        let schema = entry.relation.stored_schema();
        for slot in statement.slots {
            let rows = state.held.rows.remove(&(statement.id, slot)).expect("the slot holds rows of it");
            let stored = state.held.stored.entry((statement.table, slot)).or_default();
            for (row, is_deleted) in rows {
                let mut key = Vec::new();
                Keys::new(&row, &entry.relation.primary_key).write(0, &mut key);
                let (_, _, start, end) = SLOTS.into_iter().find(|known| known.0 == slot).expect("a slot");
                assert!((start..end).contains(&u32::from(vnode_of(&key))), "the slot owns the key");
                if is_deleted {
                    stored.remove(&key)
                } else {
                    stored.insert(key, row)
                };
            }
            let all = concat_batches(&schema, stored.values()).expect("rows of the table");
            state.replace(statement.table, slot, all);
        }
        state.held.commits += 1;
        state.epoch += 1;
        Ok(Response::new(proto::CommitResponse { epoch: state.epoch }))
    }
}

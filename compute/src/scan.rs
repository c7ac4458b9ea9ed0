//! Scans: what frontends read of the slots of this node, at a sealed epoch of the running term.
//!
//! A request of another term is refused: an old one must not be answered with newer or uncommitted data, a newer one
//! means that this node was left behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use weir_common::catalog::Table;
use weir_common::error::{Kind, chain};
use weir_common::ids::{Epoch, SlotId, TableId, TermId, VnodeRange};
use weir_common::rpc;
use weir_proto::{ScanRequest, ScanResponse, compute_server};

use crate::metrics::{self, Metrics};
use crate::state::Snapshot;
use crate::{block, decode, slot};

/// Batches waiting for the network: enough to keep it busy, a few mebibytes at most.
const BATCHES_MAX: usize = 4;

/// What may be read.
pub(crate) struct Serving {
    pub(crate) term: TermId,
    pub(crate) slots: BTreeMap<SlotId, slot::Handle>,
    pub(crate) tables: HashMap<TableId, Arc<Table>>,
    /// The newest table that the node has heard of, dropped or not.
    pub(crate) newest_table: TableId,
}

/// The gRPC service.
pub(crate) struct Scans {
    serving: watch::Receiver<Option<Arc<Serving>>>,
    metrics: Metrics,
}

/// A scan that was found to be possible.
struct Scan {
    snapshot: Snapshot,
    vnodes: VnodeRange,
    table: Arc<Table>,
    projection: Vec<usize>,
    limit: u64,
}

impl Scans {
    pub(crate) fn new(serving: watch::Receiver<Option<Arc<Serving>>>, metrics: Metrics) -> Scans {
        Scans { serving, metrics }
    }

    fn prepare(&self, request: ScanRequest) -> Result<Scan, rpc::Error> {
        let serving = self.serving.borrow().clone();
        let term = request.term.map(TermId::from).unwrap_or_default();
        let Some(serving) = serving.filter(|serving| serving.term == term) else {
            return Err(rpc::Error::new(Kind::Fenced, format!("term {term} does not run on this node")));
        };
        let slot = serving.slots.get(&SlotId(request.slot));
        let slot = slot.ok_or_else(|| rpc::Error::new(Kind::Fenced, format!("no slot {} here", request.slot)))?;
        let epoch = Epoch(request.epoch);
        let snapshot = slot.snapshots.borrow().get(&epoch).cloned();
        let snapshot = snapshot
            .ok_or_else(|| rpc::Error::new(Kind::Unavailable, format!("epoch {epoch} is not kept here any more")))?;
        let table = TableId(request.table);
        let found = serving.tables.get(&table).cloned();
        let table = found.ok_or_else(|| {
            if table > serving.newest_table {
                // In the catalog already, but the barrier that adds it has not come: a later epoch has it.
                return rpc::Error::new(Kind::Unavailable, format!("table {table} is being created"));
            }
            rpc::Error::new(Kind::User, format!("table {table} was dropped")).with_sqlstate("42P01")
        })?;
        let projection = request.projection.iter().map(|column| usize::try_from(*column).expect("at least 32 bits"));
        let projection: Vec<usize> = projection.collect();
        if projection.iter().any(|column| *column >= table.declared.columns.len()) {
            return Err(rpc::Error::new(Kind::Internal, "projection of a column that the table does not have"));
        }
        let limit = request.limit.unwrap_or(u64::MAX);
        Ok(Scan { snapshot, vnodes: slot.vnodes, table, projection, limit })
    }
}

impl Scan {
    /// The first `limit` rows of a block. Where only their number is asked for, nothing is decoded.
    fn response(&self, block: &Bytes, schema: &SchemaRef, limit: u64) -> Result<ScanResponse, block::Error> {
        if self.projection.is_empty() {
            let rows = u64::from(block::rows(block)?).min(limit);
            return Ok(ScanResponse { rows, ..ScanResponse::default() });
        }
        let batch = block::decode(block, schema, Some(&self.projection))?;
        let rows = batch.num_rows().min(usize::try_from(limit).unwrap_or(usize::MAX));
        let (header, body) = block::wire_parts(&batch.slice(0, rows));
        Ok(ScanResponse { header, body, rows: rows as u64, done: false })
    }

    /// Sends batches until the end, the limit, an error, or until nobody listens any more. Of what ends otherwise, a panic
    /// say, the last message is missing.
    async fn run(self, out: mpsc::Sender<Result<ScanResponse, Status>>, metrics: Metrics) {
        let schema = decode::block_schema(&self.table.declared.columns);
        let labels = [metrics::table(&self.table.declared.name)];
        let blocks = self.snapshot.scan(self.table.id, self.vnodes);
        tokio::pin!(blocks);
        let mut left = self.limit;
        while left > 0
            && let Some(stored) = blocks.next().await
        {
            let response = match stored {
                Ok((_, value)) => self.response(&value, &schema, left).map_err(|error| {
                    rpc::Error::new(error.kind(), format!("table \"{}\": {}", self.table.declared.name, chain(&error)))
                }),
                Err(error) => Err(rpc::Error::new(error.kind(), chain(&error))),
            };
            let failed = response.is_err();
            if let Ok(response) = &response {
                left -= response.rows;
                metrics.scanned_rows.add(response.rows, &labels);
            }
            if out.send(response.map_err(Status::from)).await.is_err() || failed {
                return;
            }
        }
        // Whether anybody still listens makes no difference.
        let _ = out.send(Ok(ScanResponse { done: true, ..ScanResponse::default() })).await;
    }
}

#[tonic::async_trait]
impl compute_server::Compute for Scans {
    type ScanStream = ReceiverStream<Result<ScanResponse, Status>>;

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let scan = self.prepare(request.into_inner())?;
        let (sender, receiver) = mpsc::channel(BATCHES_MAX);
        tokio::spawn(scan.run(sender, self.metrics.clone()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

//! Scans: what frontends read of the slots of this node, at a sealed epoch of the running term.
//!
//! A request of another term is refused: an old one must not be answered with newer or uncommitted data, a newer one
//! means that this node was left behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{Instrument, Span, info_span};
use weir_common::catalog::Table;
use weir_common::error::{Kind, chain};
use weir_common::ids::{Epoch, SlotId, TableId, TermId, VnodeRange};
use weir_common::rpc;
use weir_common::telemetry::trace;
use weir_proto::{ReadSourceRequest, ScanRequest, ScanResponse, SplitsRequest, SplitsResponse, compute_server};

use crate::metrics::{self, Metrics};
use crate::source::SourceRead;
use crate::splits::{self, ReadSplit};
use crate::state::Snapshot;
use crate::{block, decode, row, slot};

/// Batches waiting for the network: enough to keep it busy, a few mebibytes at most.
const BATCHES_MAX: usize = 4;
/// Stored rows are sent together, as many or as large as a block of them would be.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 1 << 20;
/// So many rows that are merely counted are told at once, so that a frontend that has gone is noticed.
const COUNTED_ROWS: u64 = 1 << 18;

/// What may be read.
pub(crate) struct Serving {
    pub(crate) term: TermId,
    pub(crate) slots: BTreeMap<SlotId, slot::Handle>,
    pub(crate) tables: HashMap<TableId, Arc<Table>>,
    /// The newest table that the node has heard of, dropped or not.
    pub(crate) newest_table: TableId,
    /// What is read of NATS.
    pub(crate) splits: Vec<ReadSplit>,
    pub(crate) cluster: String,
}

impl Serving {
    /// A table, or source, of the catalog as the node knows it.
    fn table(&self, id: TableId) -> Result<Arc<Table>, rpc::Error> {
        self.tables.get(&id).cloned().ok_or_else(|| {
            if id > self.newest_table {
                // In the catalog already, but the barrier that adds it has not come: a later epoch has it.
                return rpc::Error::new(Kind::Unavailable, format!("table {id} is being created"));
            }
            rpc::Error::new(Kind::User, format!("table {id} was dropped")).with_sqlstate("42P01")
        })
    }
}

/// The gRPC service.
pub(crate) struct Scans {
    serving: watch::Receiver<Option<Arc<Serving>>>,
    metrics: Metrics,
}

impl Scans {
    pub(crate) fn new(serving: watch::Receiver<Option<Arc<Serving>>>, metrics: Metrics) -> Scans {
        Scans { serving, metrics }
    }
}

#[tonic::async_trait]
impl compute_server::Compute for Scans {
    type ScanStream = ReceiverStream<Result<ScanResponse, Status>>;

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let serving = self.serving.borrow().clone();
        let request = request.into_inner();
        let (slot, epoch) = (request.slot, request.epoch);
        let scan = Scan::prepare(serving, request)?;
        let span = match trace::is_present() {
            true => info_span!(target: trace::TARGET, "read", job = scan.table.declared.name, slot, epoch),
            false => Span::none(),
        };
        let (sender, receiver) = mpsc::channel(BATCHES_MAX);
        // The call's own span ends with the head of the answer.
        tokio::spawn(scan.run(sender, self.metrics.clone()).instrument(span));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type ReadSourceStream = ReceiverStream<Result<ScanResponse, Status>>;

    async fn read_source(
        &self,
        request: Request<ReadSourceRequest>,
    ) -> Result<Response<Self::ReadSourceStream>, Status> {
        let request = request.into_inner();
        let serving = of_term(self.serving.borrow().clone(), request.term)?;
        let read = SourceRead::prepare(serving.table(TableId(request.table))?, &request, &serving.cluster)?;
        let (sender, receiver) = mpsc::channel(BATCHES_MAX);
        tokio::spawn(read.run(sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn splits(&self, request: Request<SplitsRequest>) -> Result<Response<SplitsResponse>, Status> {
        let serving = of_term(self.serving.borrow().clone(), request.into_inner().term)?;
        let splits = join_all(serving.splits.iter().map(splits::progress)).await;
        Ok(Response::new(SplitsResponse { splits }))
    }
}

/// What may be read in a term, which has to be the running one.
fn of_term(serving: Option<Arc<Serving>>, term: Option<weir_proto::TermId>) -> Result<Arc<Serving>, rpc::Error> {
    let term = term.map(TermId::from).unwrap_or_default();
    serving
        .filter(|serving| serving.term == term)
        .ok_or_else(|| rpc::Error::new(Kind::Fenced, format!("term {term} does not run on this node")))
}

/// A scan that was found to be possible.
struct Scan {
    snapshot: Snapshot,
    vnodes: VnodeRange,
    table: Arc<Table>,
    projection: Vec<usize>,
    limit: u64,
}

impl Scan {
    fn prepare(serving: Option<Arc<Serving>>, request: ScanRequest) -> Result<Scan, rpc::Error> {
        let serving = of_term(serving, request.term)?;
        let slot = serving.slots.get(&SlotId(request.slot));
        let slot = slot.ok_or_else(|| rpc::Error::new(Kind::Fenced, format!("no slot {} here", request.slot)))?;
        let epoch = Epoch(request.epoch);
        let snapshot = slot.snapshots.borrow().get(&epoch).cloned();
        let snapshot = snapshot
            .ok_or_else(|| rpc::Error::new(Kind::Unavailable, format!("epoch {epoch} is not kept here any more")))?;
        let table = serving.table(TableId(request.table))?;
        let projection = request.projection.iter().map(|column| usize::try_from(*column).expect("at least 32 bits"));
        let projection: Vec<usize> = projection.collect();
        let known = projection.iter().all(|column| *column < table.declared.columns.len());
        if !known || (1..projection.len()).any(|place| projection[..place].contains(&projection[place])) {
            return Err(rpc::Error::new(
                Kind::Internal,
                "projection of a column that the table does not have, or twice",
            ));
        }
        let limit = request.limit.unwrap_or(u64::MAX);
        Ok(Scan { snapshot, vnodes: slot.vnodes, table, projection, limit })
    }

    /// Sends batches until the end, the limit, an error, or until nobody listens any more. Of what ends otherwise, a panic
    /// say, the last message is missing.
    async fn run(self, out: mpsc::Sender<Result<ScanResponse, Status>>, metrics: Metrics) {
        let labels = [metrics::table(&self.table.declared.name)];
        let failed = |kind, error: &(dyn std::error::Error + 'static)| {
            rpc::Error::new(kind, format!("table \"{}\": {}", self.table.declared.name, chain(error)))
        };
        let mut gathering = match Gathering::new(&self) {
            Ok(gathering) => gathering,
            Err(error) => return drop(out.send(Err(failed(error.kind(), &error).into())).await),
        };
        let entries = self.snapshot.scan(self.table.id, self.vnodes);
        tokio::pin!(entries);
        let mut left = self.limit;
        while left > 0 {
            let entry = entries.next().await;
            let last = entry.is_none();
            let response = match entry {
                Some(Ok((_, value))) => gathering.take(&value, left).map_err(|error| failed(error.kind(), &error)),
                Some(Err(error)) => Err(failed(error.kind(), &error)),
                None => gathering.finish(left).map_err(|error| failed(error.kind(), &error)),
            };
            let failed = response.is_err();
            if let Ok(Some(response)) = &response {
                left -= response.rows;
                metrics.scanned_rows.add(response.rows, &labels);
            }
            let gone = match response.transpose() {
                Some(response) => out.send(response.map_err(Status::from)).await.is_err(),
                None => false,
            };
            if gone || failed {
                return;
            }
            if last {
                break;
            }
        }
        // Whether anybody still listens makes no difference.
        let _ = out.send(Ok(ScanResponse { done: true, ..ScanResponse::default() })).await;
    }
}

/// Why a table's entries cannot be read.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read a block")]
    Block(#[from] block::Error),
    #[error("cannot read a row")]
    Row(#[from] row::Error),
}

impl Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Block(error) => error.kind(),
            Error::Row(error) => error.kind(),
        }
    }
}

/// Stored entries on their way to becoming batches.
enum Gathering<'a> {
    /// Each is a block; where only the number of rows is asked for, nothing is decoded.
    Blocks { schema: SchemaRef, projection: &'a [usize] },
    /// Each is a row.
    Rows(row::Reader),
    /// Each is a row, and only their number is asked for.
    Count(u64),
}

impl<'a> Gathering<'a> {
    fn new(scan: &'a Scan) -> Result<Gathering<'a>, Error> {
        let (declared, projection) = (&scan.table.declared, scan.projection.as_slice());
        Ok(match (declared.is_keyed(), projection.is_empty()) {
            (false, _) => Gathering::Blocks { schema: decode::block_schema(&declared.columns), projection },
            (true, true) => Gathering::Count(0),
            (true, false) => Gathering::Rows(row::Reader::new(&declared.schema(), projection)?),
        })
    }

    /// Takes an entry, and returns a batch of at most `limit` rows when there is one.
    fn take(&mut self, value: &Bytes, limit: u64) -> Result<Option<ScanResponse>, Error> {
        match self {
            Gathering::Blocks { projection: [], .. } => Ok(Some(counted(u64::from(block::rows(value)?).min(limit)))),
            Gathering::Blocks { schema, projection } => {
                let batch = block::decode(value, schema, Some(projection))?;
                let rows = batch.num_rows().min(usize::try_from(limit).unwrap_or(usize::MAX));
                Ok(Some(response(&batch.slice(0, rows))))
            }
            Gathering::Rows(reader) => {
                reader.append(value)?;
                let full =
                    reader.rows() >= BATCH_ROWS || reader.bytes() >= BATCH_BYTES || reader.rows() as u64 == limit;
                if full { self.finish(limit) } else { Ok(None) }
            }
            Gathering::Count(rows) => {
                *rows += 1;
                let full = *rows >= COUNTED_ROWS || *rows == limit;
                if full { self.finish(limit) } else { Ok(None) }
            }
        }
    }

    /// What is gathered and was not returned yet; of it `limit` rows at most, which [`Gathering::take`] has seen to.
    fn finish(&mut self, limit: u64) -> Result<Option<ScanResponse>, Error> {
        let response = match self {
            Gathering::Blocks { .. } => return Ok(None),
            Gathering::Rows(reader) if reader.rows() == 0 => return Ok(None),
            Gathering::Rows(reader) => response(&reader.finish()?),
            Gathering::Count(rows) => counted(std::mem::take(rows)),
        };
        assert!(response.rows <= limit, "a batch is sent when the limit is reached");
        Ok(Some(response))
    }
}

pub(crate) fn response(batch: &RecordBatch) -> ScanResponse {
    let (header, body) = block::wire_parts(batch);
    ScanResponse { header, body, rows: batch.num_rows() as u64, done: false }
}

fn counted(rows: u64) -> ScanResponse {
    ScanResponse { rows, ..ScanResponse::default() }
}

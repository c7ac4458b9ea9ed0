//! The gRPC service that frontends call. It prepares each request under the term that the request
//! names, and runs it elsewhere.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{Instrument, Span, info_span};
use weir_common::ids::{SlotId, TableId};
use weir_common::telemetry::trace;
use weir_proto::{
    AwaitReadRequest, AwaitReadResponse, ReadSourceRequest, ReplayRequest, ReplayResponse, ScanRequest, ScanResponse,
    SplitsRequest, SplitsResponse, compute_server,
};

use super::replay::Replay;
use super::scan::Scan;
use super::serving::Serving;
use super::source::SourceRead;
use super::{splits, states};
use crate::metrics::Metrics;

/// Batches that wait for the network besides the one being sent. A stalled scan holds no more than
/// these.
const BATCHES_MAX: usize = 1;

/// The gRPC service that frontends call.
pub(crate) struct Service {
    serving: watch::Receiver<Option<Arc<Serving>>>,
    metrics: Metrics,
}

impl Service {
    pub(crate) fn new(serving: watch::Receiver<Option<Arc<Serving>>>, metrics: Metrics) -> Service {
        Service { serving, metrics }
    }
}

#[tonic::async_trait]
impl compute_server::Compute for Service {
    type ScanStream = ReceiverStream<Result<ScanResponse, Status>>;

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let serving = self.serving.borrow().clone();
        let request = request.into_inner();
        let (slot, epoch) = (request.slot, request.epoch);
        let serving = Serving::of_term(serving, request.term)?;
        let scan = Scan::prepare(&serving, &request)?;
        let span = match trace::is_present() {
            true => info_span!(target: trace::TARGET, "read", job = %scan.relation().name, slot, epoch),
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
        let serving = Serving::of_term(self.serving.borrow().clone(), request.term)?;
        let read = SourceRead::prepare(
            serving.relations.entry(TableId(request.table), request.layout)?,
            &request,
            &serving.cluster,
        )?;
        let (sender, receiver) = mpsc::channel(BATCHES_MAX);
        tokio::spawn(read.run(sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn replay(&self, request: Request<ReplayRequest>) -> Result<Response<ReplayResponse>, Status> {
        let ReplayRequest { term, slot, table, layout } = request.into_inner();
        let serving = Serving::of_term(self.serving.borrow().clone(), term)?;
        let (slot, entry) =
            (serving.slots.get(SlotId(slot))?.clone(), serving.relations.entry(TableId(table), layout)?);
        Ok(Response::new(Replay::prepare(serving, slot, entry).await?.run().await?))
    }

    async fn await_read(&self, request: Request<AwaitReadRequest>) -> Result<Response<AwaitReadResponse>, Status> {
        let request = request.into_inner();
        let serving = Serving::of_term(self.serving.borrow().clone(), request.term)?;
        Ok(Response::new(splits::await_read(&serving, &request).await?))
    }

    async fn splits(&self, request: Request<SplitsRequest>) -> Result<Response<SplitsResponse>, Status> {
        let SplitsRequest { term, ask_servers, ask_state } = request.into_inner();
        let serving = Serving::of_term(self.serving.borrow().clone(), term)?;
        let splits = splits::progress_of(&serving, ask_servers).await;
        let states = if ask_state { states::told(&serving).await } else { None };
        let (trouble, filling, uses) = (splits::trouble(&serving), splits::filling(&serving), splits::uses(&serving));
        Ok(Response::new(SplitsResponse { splits, trouble, filling, uses, states }))
    }
}

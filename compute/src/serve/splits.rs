//! How far the readers of this node are, for frontends and for metrics.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::{join_all, try_join_all};
use opentelemetry::KeyValue;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use weir_common::ids::{SplitId, TableId};
use weir_common::rpc;
use weir_proto::{
    AwaitReadRequest, AwaitReadResponse, AwaitedSplit, Filling, JobUse, ReadPosition, SplitProgress, Trouble,
};

use super::serving::Serving;
use crate::dataflow::usage::Used;
use crate::ingest::progress::{ReadSplit, since_1970_ns};
use crate::metrics::{self, Observed};
use crate::storage::slots::not_running;

/// The interval at which metrics are brought up to date.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);

/// The progress of every split that is read in a term. Without `ask_servers` the answer costs
/// nothing and comes at once.
pub(crate) async fn progress_of(serving: &Serving, ask_servers: bool) -> Vec<SplitProgress> {
    let read: Vec<ReadSplit> = serving.splits.values().flat_map(|actor| actor.borrow().clone()).collect();
    join_all(read.iter().map(|split| split.progress(ask_servers))).await
}

/// The jobs that read what their inputs had before them, and how far they are on this node.
pub(crate) fn filling(serving: &Serving) -> Vec<Filling> {
    let number = |parts| u32::try_from(parts).unwrap_or(u32::MAX);
    let parts = serving.following.parts().into_iter();
    parts.map(|(job, (read, all))| Filling { table: job.0, read: number(read), parts: number(all) }).collect()
}

/// The processor time that jobs take on this node, and the rows that they leave out.
pub(crate) fn uses(serving: &Serving) -> Vec<JobUse> {
    let now = std::time::Instant::now();
    serving.usage.note(now);
    let told = |Used { job, cpu, left_out: (left_out, reason) }| JobUse { table: job.0, cpu, left_out, reason };
    serving.usage.used(now).into_iter().map(told).collect()
}

/// Waits until jobs have read splits up to the places that are asked for, as far as this node reads
/// them.
///
/// # Errors
/// If the term ends first.
pub(crate) async fn await_read(serving: &Serving, request: &AwaitReadRequest) -> Result<AwaitReadResponse, rpc::Error> {
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
    let wait = async |(place, wanted): (u32, &AwaitedSplit)| {
        let (job, split) = (TableId(wanted.table), SplitId(wanted.split.clone()));
        let read = serving.relations.catalog().get(job).map(|entry| entry.job.read(&split));
        let actor = read.and_then(|read| serving.splits.get(&read));
        let Some(actor) = actor else { return Ok(None) };
        let read = timeout_at(deadline, reads_up_to(actor.clone(), job, wanted.sequence)).await;
        let fed = actor.borrow().iter().find(|read| read.feeds.contains(&job)).map(|read| *read.next.borrow());
        match read {
            Ok(Err(_)) => Err(not_running(serving.slots.term)),
            Ok(Ok(())) => Ok(Some(ReadPosition { place, position: fed.unwrap_or_default(), is_read: true })),
            Err(_) => Ok(Some(ReadPosition { place, position: fed.unwrap_or_default(), is_read: false })),
        }
    };
    let read = try_join_all((0..).zip(&request.splits).map(wait)).await?;
    Ok(AwaitReadResponse { read: read.into_iter().flatten().collect() })
}

/// Waits until the reading that feeds a job has read everything up to a place in the stream.
/// Another reading feeds it once it has caught up.
///
/// # Errors
/// If the actor ends first.
async fn reads_up_to(
    mut actor: watch::Receiver<Vec<ReadSplit>>,
    job: TableId,
    sequence: u64,
) -> Result<(), watch::error::RecvError> {
    loop {
        let fed = actor.borrow_and_update().iter().find(|read| read.feeds.contains(&job)).cloned();
        tokio::select! {
            biased;
            () = async { fed.as_ref().expect("it is fed").reads_up_to(sequence).await }, if fed.is_some() => return Ok(()),
            changed = actor.changed() => changed?,
        }
    }
}

/// The trouble that keeps the node from committing.
pub(crate) fn trouble(serving: &Serving) -> Option<Trouble> {
    let (reason, since) = serving.store.lasting_trouble()?;
    Some(Trouble { reason, since_ns: since_1970_ns(SystemTime::now() - since.elapsed()) })
}

/// Keeps the metrics of the splits up to date. It never ends.
pub(crate) async fn observe(observed: Arc<Observed>, serving: watch::Receiver<Option<Arc<Serving>>>) {
    let mut ask = tokio::time::interval(OBSERVE_INTERVAL);
    loop {
        ask.tick().await;
        let served = serving.borrow().clone();
        let splits = match &served {
            Some(served) => {
                served.usage.note(std::time::Instant::now());
                progress_of(served, true).await
            }
            None => Vec::new(),
        };
        let name = |split: &SplitProgress| {
            Some(served.as_ref()?.relations.catalog().get(TableId(split.table))?.name().clone())
        };
        let named = splits.into_iter().filter_map(|split| {
            Some(([metrics::table(&name(&split)?), KeyValue::new("split", split.split.clone())], split))
        });
        observed.set(named.collect());
    }
}

//! How far the readers of this node are, for frontends and for metrics.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use opentelemetry::KeyValue;
use tokio::sync::watch;
use weir_common::ids::TableId;
use weir_proto::{SplitProgress, Trouble};

use super::serving::Serving;
use crate::ingest::progress::{ReadSplit, since_1970_ns};
use crate::metrics::{self, Observed};

/// The interval at which metrics are brought up to date.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);

/// The progress of every split that is read in a term. Without `ask_servers` the answer costs
/// nothing and comes at once.
pub(crate) async fn progress_of(serving: &Serving, ask_servers: bool) -> Vec<SplitProgress> {
    let read: Vec<ReadSplit> = serving.splits.iter().flat_map(|actor| actor.borrow().clone()).collect();
    join_all(read.iter().map(|split| split.progress(ask_servers))).await
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
            Some(served) => progress_of(served, true).await,
            None => Vec::new(),
        };
        let name = |split: &SplitProgress| {
            Some(served.as_ref()?.relations.catalog().get(TableId(split.table))?.name().to_owned())
        };
        let named = splits.into_iter().filter_map(|split| {
            Some(([metrics::table(&name(&split)?), KeyValue::new("split", split.split.clone())], split))
        });
        observed.set(named.collect());
    }
}

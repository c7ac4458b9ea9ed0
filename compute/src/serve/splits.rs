//! How far the readers of this node are, and how they are doing: from what they know, and what the server says when it is asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use opentelemetry::KeyValue;
use tokio::sync::watch;
use weir_common::ids::{TableId, TableSplit};
use weir_connector_nats::{Control, Progress};
use weir_proto::{SplitProgress, Trouble};

use crate::metrics;
use crate::serve::scan::Serving;

/// How long the server may take to answer before it counts as silent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How often metrics are brought up to date.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);

/// A split that is read on this node, for a relation.
#[derive(Clone)]
pub(crate) struct ReadSplit {
    pub(crate) split: TableSplit,
    pub(crate) reader: Control,
    pub(crate) bad_records: Arc<AtomicU64>,
}

/// How far everything is that is read in a term. Without `ask_servers` the answer costs nothing and comes at once.
pub(crate) async fn progress_of(serving: &Serving, ask_servers: bool) -> Vec<SplitProgress> {
    let read: Vec<ReadSplit> = serving.splits.iter().flat_map(|actor| actor.borrow().clone()).collect();
    join_all(read.iter().map(|split| progress(split, ask_servers))).await
}

/// What keeps the node from committing anything.
pub(crate) fn trouble(serving: &Serving) -> Option<Trouble> {
    let (reason, since) = serving.store.lasting_trouble()?;
    Some(Trouble { reason, since_ns: since_1970_ns(SystemTime::now() - since.elapsed()) })
}

fn since_1970_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// How far it is.
async fn progress(read: &ReadSplit, ask_servers: bool) -> SplitProgress {
    let server: Option<Progress> = match ask_servers {
        true => tokio::time::timeout(ANSWER_TIMEOUT, read.reader.progress()).await.ok().and_then(Result::ok),
        false => None,
    };
    // After the server's answer, so that a reader is never ahead of its stream.
    let (status, condition) = (read.reader.status(), read.reader.condition());
    let consumer = server.and_then(|server| server.consumer);
    // Some of what was delivered may be on its way.
    let lag_messages = consumer.map(|consumer| consumer.pending + consumer.delivered.saturating_sub(status.delivered));
    SplitProgress {
        table: read.split.table.0,
        split: read.split.split.0.clone(),
        state: condition.state.as_str().to_owned(),
        since_ns: since_1970_ns(condition.since),
        reason: condition.reason().unwrap_or_default(),
        incarnation: status.position.incarnation().0.into(),
        read_position: status.position.in_stream(),
        committed_position: status.committed.in_stream(),
        last_sequence: server.map(|server| server.stream_last.0.max(status.position.in_stream().saturating_sub(1))),
        lag_messages,
        lag_seconds: lag_messages.and_then(|lag| lag_seconds(lag, status.read_ns)),
        ack_floor: consumer.map(|consumer| consumer.ack_floor.0),
        ack_pending: consumer.map(|consumer| consumer.ack_pending),
        redelivered: status.redelivered,
        rebuilds: status.rebuilds,
        bad_records: read.bad_records.load(Ordering::Relaxed),
        lost_messages: status.lost,
    }
}

/// How long ago the newest message that was read was stored, if there are others to read: what waits is no older.
fn lag_seconds(lag_messages: u64, read_ns: u64) -> Option<f64> {
    if lag_messages == 0 {
        return Some(0.0);
    }
    let read_at = UNIX_EPOCH + Duration::from_nanos(read_ns);
    (read_ns > 0).then(|| SystemTime::now().duration_since(read_at).unwrap_or_default().as_secs_f64())
}

/// How far the splits of this node were when they were last asked.
#[derive(Debug, Default)]
pub(crate) struct Observed(Mutex<Vec<([KeyValue; 2], SplitProgress)>>);

impl Observed {
    /// Asks again and again, for ever.
    pub(crate) async fn keep_up(&self, serving: watch::Receiver<Option<Arc<Serving>>>) {
        let mut ask = tokio::time::interval(OBSERVE_INTERVAL);
        loop {
            ask.tick().await;
            let served = serving.borrow().clone();
            let splits = match &served {
                Some(served) => progress_of(served, true).await,
                None => Vec::new(),
            };
            let name =
                |split: &SplitProgress| Some(served.as_ref()?.tables.get(&TableId(split.table))?.declared.name.clone());
            let named = splits.into_iter().filter_map(|split| {
                Some(([metrics::table(&name(&split)?), KeyValue::new("split", split.split.clone())], split))
            });
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = named.collect();
        }
    }

    /// Each of them, with the labels of its metrics.
    pub(crate) fn each(&self, mut told: impl FnMut(&[KeyValue], &SplitProgress)) {
        for (labels, split) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            told(labels, split);
        }
    }
}

//! The progress of a reader: its own figures, and those that the server gives when it is asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weir_common::ids::{JobSplit, TableId};
use weir_connector_nats::{Control, Progress};
use weir_proto::SplitProgress;

/// The time that the server has to answer before it counts as silent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before the server is asked whether an awaited message concerns a split at all. Most
/// do, and are on their way. Each further pause doubles the previous one.
const ASK_PAUSE_MIN: Duration = Duration::from_millis(5);
const ASK_PAUSE_MAX: Duration = Duration::from_millis(250);

/// A split that this node reads for a relation.
#[derive(Clone)]
pub(crate) struct ReadSplit {
    pub(crate) split: JobSplit,
    pub(crate) reader: Control,
    pub(crate) bad_records: Arc<AtomicU64>,
    /// The jobs that get all that is read.
    pub(crate) feeds: Vec<TableId>,
    /// The next place in the stream: rows of everything below are in the open epoch, or in an
    /// earlier one. 0 while the stream of that name is another one.
    pub(crate) next: watch::Receiver<u64>,
    /// The messages that were not read yet when the server was asked last.
    pub(crate) known_lag: Arc<Mutex<Option<u64>>>,
}

impl ReadSplit {
    /// Completes once everything up to a place in the stream has been read, and with it; never if
    /// the reading ends first. If nothing is read the server is asked whether anything is left.
    pub(crate) async fn reads_up_to(&self, sequence: u64) {
        let mut next = self.next.clone();
        let mut pause = ASK_PAUSE_MIN;
        let mut ask_at = Instant::now() + pause;
        loop {
            let position = *next.borrow_and_update();
            if position > sequence {
                return;
            }
            tokio::select! {
                changed = next.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                }
                () = sleep_until(ask_at) => {
                    if position > 0 && self.is_void(position, sequence).await {
                        return;
                    }
                    pause = (2 * pause).min(ASK_PAUSE_MAX);
                    ask_at = Instant::now() + pause;
                }
            }
        }
    }

    /// Returns true if the server has no message of the split between two places. Users who may
    /// fetch no messages are told by their consumer instead.
    async fn is_void(&self, position: u64, sequence: u64) -> bool {
        let asked = async {
            match self.reader.is_void(position, sequence).await {
                Ok(is_void) => is_void,
                Err(_) => {
                    let stream = self.reader.progress().await.is_ok_and(|stream| stream.stream_last.0 >= sequence);
                    let read = self.reader.status().position;
                    stream && read.in_stream() == position && self.reader.is_through(read).await
                }
            }
        };
        tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or(false)
    }

    /// The split's progress. Without `ask_server` the answer costs nothing and comes at once.
    pub(crate) async fn progress(&self, ask_server: bool) -> SplitProgress {
        let server: Option<Progress> = match ask_server {
            true => tokio::time::timeout(ANSWER_TIMEOUT, self.reader.progress()).await.ok().and_then(Result::ok),
            false => None,
        };
        // This comes after the server's answer, so that a reader is never ahead of its stream.
        let (status, condition) = (self.reader.status(), self.reader.condition());
        let consumer = server.and_then(|server| server.consumer);
        // Some delivered messages may still be on their way.
        let lag = consumer.map(|consumer| consumer.pending + consumer.delivered.saturating_sub(status.delivered));
        let lag_messages = {
            let mut known = self.known_lag.lock().unwrap_or_else(PoisonError::into_inner);
            if ask_server {
                *known = lag;
            }
            *known
        };
        SplitProgress {
            table: self.split.job.0,
            split: self.split.split.0.clone(),
            state: condition.state.as_str().to_owned(),
            since_ns: since_1970_ns(condition.since),
            reason: condition.reason().unwrap_or_default(),
            incarnation: status.position.incarnation().0.into(),
            read_position: status.position.in_stream(),
            committed_position: status.committed.in_stream(),
            last_sequence: server.map(|server| server.stream_last.0.max(status.position.in_stream().saturating_sub(1))),
            lag_messages,
            lag_seconds: lag.and_then(|lag| lag_seconds(lag, status.read_ns)),
            ack_floor: consumer.map(|consumer| consumer.ack_floor.0),
            ack_pending: consumer.map(|consumer| consumer.ack_pending),
            redelivered: status.redelivered,
            rebuilds: status.rebuilds,
            bad_records: self.bad_records.load(Ordering::Relaxed),
            lost_messages: status.lost,
        }
    }
}

/// The age of the newest message that was read, if others wait to be read: they are no older.
fn lag_seconds(lag_messages: u64, read_ns: u64) -> Option<f64> {
    if lag_messages == 0 {
        return Some(0.0);
    }
    let read_at = UNIX_EPOCH + Duration::from_nanos(read_ns);
    (read_ns > 0).then(|| SystemTime::now().duration_since(read_at).unwrap_or_default().as_secs_f64())
}

/// A time in nanoseconds since 1970.
pub(crate) fn since_1970_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

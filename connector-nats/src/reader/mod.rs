//! The reader of a split: a task on a connection of its own that hands out batches, and the handle
//! to it.
//!
//! Owns the task's life and what is known about it from outside. Decisions are
//! [`crate::delivery`]'s. Invariants: batches are contiguous, ascending and without duplicates,
//! whatever happens to connection, server and consumer; the task goes on until the handle is
//! dropped or its group stops; what is read ahead is bounded by a few queued batches plus two pull
//! requests.
//!
//! The log tells of recoveries that operation brings along (a lost connection, a restarted server,
//! an incomplete delivery) at INFO, at most one line each half second; a split whose condition
//! stays bad (see `outage`), once for each state, with the reason, and messages that are lost to
//! the stream, at WARN.

mod build;
mod condition;
mod fetch;
mod floor;
mod intake;
mod outage;
mod pin;
mod status;
mod task;
mod throttle;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::DropGuard;
use weir_common::ids::{Sequence, SplitId};
use weir_common::position::{Anchor, Position};
use weir_common::task::{Group, OnFailure};

pub use async_nats::{HeaderMap, HeaderValue, Subject};
pub use condition::Condition;
use status::Gauges;
pub use status::Status;
use task::Task;

use crate::api::Api;
use crate::error::Error;
use crate::options::Options;

/// How many batches wait for the decoder: enough that neither waits for the other, few enough to
/// stay in the cache.
const QUEUED_BATCHES: usize = 4;

/// What a reader reads.
#[derive(Clone, Debug)]
pub struct ReaderConfig {
    /// The table's options, or the split's.
    pub options: Arc<Options>,
    /// The split.
    pub split: SplitId,
    /// The next sequence to read, below which everything is committed, and what tells its stream
    /// from others of the name: these are not read.
    pub position: Position,
    /// True if the messages are stored and committed. Only then is a stream read whose messages
    /// acknowledgements delete.
    pub stored: bool,
    /// True if another reader decides when another stream of the name is read: then this one waits.
    pub follows: bool,
    /// `<cluster>/<table>`: marks the consumers that Weir made.
    pub owner: String,
}

/// A message, not decoded.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its place in the split, as in [`Sequence`].
    pub sequence: u64,
    /// What it was published to.
    pub subject: Subject,
    /// When the server stored it, in nanoseconds since 1970.
    pub stored_ns: u64,
    /// The headers it was published with; none also where [`crate::headers`] cannot read it. Boxed,
    /// because most messages have none, and batches of thousands of messages are moved and dropped.
    pub headers: Option<Box<HeaderMap>>,
    /// The bytes that were published.
    pub payload: Bytes,
}

impl Message {
    /// A message without headers that was stored at the beginning of 1970.
    pub fn new(sequence: u64, subject: impl Into<Subject>, payload: impl Into<Bytes>) -> Message {
        Message { sequence, subject: subject.into(), stored_ns: 0, headers: None, payload: payload.into() }
    }
}

/// Messages that follow the previous batch without a gap.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Ascending by sequence; may be empty when only the position or the anchor moved.
    pub messages: Vec<Message>,
    /// The next sequence to read after this batch: the position to commit with its rows.
    pub position: Sequence,
    /// What tells the stream from others, to be committed with the position.
    pub anchor: Anchor,
}

/// The newest commit, and how many there were.
#[derive(Clone, Copy, Debug)]
struct Commit {
    position: Sequence,
    count: u64,
}

/// The handle to a reader. Dropping it stops the task, which sends the acknowledgements that are
/// due and ends.
#[derive(Debug)]
pub struct Reader {
    batches: mpsc::Receiver<Batch>,
    control: Control,
    _stop: DropGuard,
}

/// A handle by which others tell and ask a reader things while somebody waits for its next batch.
/// Cheap to clone; does not keep the reader alive.
#[derive(Clone, Debug)]
pub struct Control {
    commit: Arc<watch::Sender<Commit>>,
    checkpoint: Arc<Notify>,
    gauges: Arc<Gauges>,
    condition: watch::Receiver<Condition>,
    failure: watch::Receiver<Option<String>>,
    options: Arc<Options>,
    server: watch::Receiver<Option<Server>>,
}

/// Where a reader reads.
#[derive(Clone, Debug)]
struct Server {
    api: Api,
    /// The consumer, while it is read.
    consumer: Option<String>,
}

/// What the server says of a stream and the consumer through which it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last sequence of the stream.
    pub stream_last: Sequence,
    /// The consumer, while it is read.
    pub consumer: Option<ConsumerProgress>,
}

/// How far a consumer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerProgress {
    /// What is still to be delivered.
    pub pending: u64,
    /// How many deliveries there were, redeliveries included.
    pub delivered: u64,
    /// Up to and with this everything is acknowledged.
    pub ack_floor: Sequence,
    /// What was delivered and not acknowledged.
    pub ack_pending: u64,
}

impl Reader {
    /// Starts reading. The task belongs to `group`; should it fail, which is a fault of Weir's own,
    /// the group stops.
    pub fn spawn(config: ReaderConfig, group: &Group) -> Reader {
        let config = ReaderConfig { options: Arc::new(config.options.of_split(&config.split)), ..config };
        let cancel = group.token().child_token();
        let (out, batches) = mpsc::channel(QUEUED_BATCHES);
        let (commit, commits) = watch::channel(Commit { position: config.position.next, count: 0 });
        let (failure, failed) = watch::channel(None);
        let (condition, conditions) = watch::channel(Condition::begin());
        let (server, whereabouts) = watch::channel(None);
        let control = Control {
            commit: Arc::new(commit),
            checkpoint: Arc::new(Notify::new()),
            gauges: Arc::new(Gauges::new(config.position.next)),
            condition: conditions,
            failure: failed,
            options: Arc::clone(&config.options),
            server: whereabouts,
        };
        let (checkpoint, gauges) = (Arc::clone(&control.checkpoint), Arc::clone(&control.gauges));
        let handles = task::Handles { out, commits, checkpoint, gauges, condition, failure, server };
        let task_cancel = cancel.clone();
        group.spawn("reader", OnFailure::StopGroup, async move {
            match Task::start(config, handles, task_cancel).await {
                Some(task) => task.run().await,
                None => Ok(()),
            }
        });
        Reader { batches, control, _stop: cancel.drop_guard() }
    }

    /// The next batch. Waits for ever once the task has ended. Cancel safe.
    pub async fn next(&mut self) -> Batch {
        match self.batches.recv().await {
            Some(batch) => batch,
            None => std::future::pending().await,
        }
    }

    /// What can be said and asked while [`Reader::next`] waits.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// As [`Control::committed`].
    pub fn committed(&self, position: Sequence) {
        self.control.committed(position);
    }

    /// As [`Control::wants_checkpoint`].
    pub async fn wants_checkpoint(&self) {
        self.control.wants_checkpoint().await;
    }

    /// As [`Control::status`].
    pub fn status(&self) -> Status {
        self.control.status()
    }
}

impl Control {
    /// Everything below `position` is committed: its acknowledgements leave now. To be called after
    /// every commit of the reader's term, even if the position did not move: a reader whose
    /// consumer was deleted by somebody else takes it as the sign that its term still reigns.
    ///
    /// # Panics
    /// In the task, if `position` lies beyond what was handed out.
    pub fn committed(&self, position: Sequence) {
        self.commit.send_modify(|commit| {
            commit.position = commit.position.max(position);
            commit.count += 1;
        });
    }

    /// Completes when a checkpoint is wanted: the messages that may wait for their acknowledgement
    /// nearly do. Once for each commit at most. Cancel safe.
    pub fn wants_checkpoint(&self) -> impl Future<Output = ()> + Send + use<> {
        let checkpoint = Arc::clone(&self.checkpoint);
        async move { checkpoint.notified().await }
    }

    /// Completes if reading cannot go on for a reason that the user has to mend: says why. Cancel
    /// safe.
    pub fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let mut failure = self.failure.clone();
        async move {
            // The task ends without a failure when it is told to: then nobody waits for one.
            let failed = failure.wait_for(Option::is_some).await.map(|failure| failure.clone().unwrap_or_default());
            match failed {
                Ok(error) => error,
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// How far the reader is.
    pub fn status(&self) -> Status {
        self.gauges.snapshot()
    }

    /// The split's condition, without asking the server.
    pub fn condition(&self) -> Condition {
        self.condition.borrow().clone()
    }

    /// Asks the server, which answers by the leaders of stream and consumer.
    ///
    /// # Errors
    /// If it does not answer, or there is no connection yet.
    pub async fn progress(&self) -> Result<Progress, Error> {
        let server = self.server()?;
        let stream = server.api.stream_info(&self.options.stream).await?;
        let consumer = match &server.consumer {
            Some(name) => server.api.consumer_info(&self.options.stream, name).await?,
            None => None,
        };
        let consumer = consumer.map(|info| ConsumerProgress {
            pending: info.num_pending,
            delivered: info.delivered.consumer_seq,
            // Before its first delivery a consumer that was made anew may have none of its own.
            ack_floor: Sequence(match info.delivered.consumer_seq {
                0 => info.delivered.stream_seq,
                _ => info.ack_floor.stream_seq,
            }),
            ack_pending: info.num_ack_pending,
        });
        Ok(Progress { stream_last: Sequence(stream.state.last_seq), consumer })
    }

    /// Asks the leader of the stream. Returns true if the stream has come to `sequence`, and has no
    /// message of the split between the two places: whoever has read everything below `position`
    /// has read everything up to `sequence`. Both are places in the stream that is read now.
    ///
    /// # Errors
    /// If it does not answer, or does not let this user fetch messages.
    pub async fn is_void(&self, position: u64, sequence: u64) -> Result<bool, Error> {
        let (api, stream) = (self.server()?.api, &self.options.stream);
        if api.stream_info(stream).await?.state.last_seq < sequence {
            return Ok(false);
        }
        let next = fetch::next(&api, stream, &self.options, Sequence(position)).await?;
        Ok(next.is_none_or(|message| message.sequence > sequence))
    }

    fn server(&self) -> Result<Server, Error> {
        let server = self.server.borrow().clone();
        server.ok_or_else(|| Error::Disconnected { what: "to see how far it is".to_owned() })
    }

    /// Asks the server. Returns true if it has nothing left that is not below `position`: nothing
    /// to deliver, and nothing that was delivered and is on its way or waits to be handed out. If
    /// it does not answer there may be something.
    pub async fn is_through(&self, position: Sequence) -> bool {
        let progress = self.progress().await.ok().and_then(|progress| progress.consumer);
        // After the server's answer: what it had delivered by then is counted, and so below the
        // reader's position.
        let read = self.status();
        progress.is_some_and(|consumer| consumer.pending == 0 && consumer.delivered <= read.delivered)
            && read.position == position
    }
}

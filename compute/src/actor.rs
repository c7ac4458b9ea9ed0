//! An actor: one split of one table, from messages to what is stored. Its task owns the reader and the decoder; barriers
//! reach it from the node; what it writes, and barriers, leave it for its slot or, if the table is keyed, for all slots.
//!
//! A message that is no row of the table becomes a row of its dead letters, unless the table's options say otherwise.
//!
//! Invariant: when the actor delivers the barrier of an epoch with a position, every row below the position was sent
//! before, to whichever slot, and no row at or above it was.
//!
//! It cannot hold a checkpoint up for ever: it waits for credits only in an epoch whose predecessors it has delivered
//! everywhere. Of all actors, take one in the oldest open epoch: everything before was delivered by all, so every slot
//! can seal it, applies what this actor wrote, and gives its credits back.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use opentelemetry::KeyValue;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use weir_common::catalog::Table;
use weir_common::ids::{Epoch, Sequence, TableSplit, TermId, VnodeRange};
use weir_common::task::{Group, OnFailure};
use weir_connector_nats::options::{OnError, stream_of};
use weir_connector_nats::{Batch, Control, Options, Reader, ReaderConfig};

use crate::dead_letters::DeadLetters;
use crate::decode::{BadRecord, Decoder};
use crate::metrics::{self, Metrics};
use crate::node::state::Event;
use crate::node::task::Inputs;
use crate::outlet::{Closed, Outlet};
use crate::shuffle::Shuffle;
use crate::state::keys::BlockKey;
use crate::tail::Tail;

/// A block is closed at this many rows or bytes, whichever comes first.
pub(crate) const BLOCK_ROWS_MAX: usize = 8192;
/// See [`BLOCK_ROWS_MAX`].
pub(crate) const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Barriers and commits waiting for the actor: at most 4 barriers are in flight, each with its commit.
const INBOX_MAX: usize = 16;
/// At most one bad record in this time is logged.
const BAD_RECORD_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What an actor is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Message {
    /// The epoch ends here.
    Barrier(Epoch),
    /// The epoch ends here, and with it the actor: its table was dropped.
    Last(Epoch),
    /// The epoch is committed.
    Committed(Epoch),
}

/// What an actor is made of.
pub(crate) struct Config {
    pub(crate) term: TermId,
    pub(crate) table: Arc<Table>,
    pub(crate) split: TableSplit,
    /// The next sequence to read.
    pub(crate) position: Sequence,
    /// The committed epoch before the first that the actor writes.
    pub(crate) epoch: Epoch,
    pub(crate) cluster: String,
    /// The ways to the slots that it writes to: every slot if the table is keyed, else the actor's own.
    pub(crate) outlets: Vec<Outlet>,
    pub(crate) node: Inputs,
    pub(crate) metrics: Metrics,
}

/// An actor's task.
struct Actor {
    config: Config,
    options: Arc<Options>,
    reader: Reader,
    decoder: Decoder,
    storage: Storage,
    dead_letters: Option<DeadLetters>,
    inbox: mpsc::Receiver<Message>,
    /// The next sequence to decode.
    position: Sequence,
    /// The sequence of the first row in the decoder.
    first: Sequence,
    /// The epoch that is open.
    epoch: Epoch,
    /// Positions at barriers that are not committed yet.
    barriers: VecDeque<(Epoch, Sequence)>,
    labels: [KeyValue; 1],
    bad_records: BadRecordLog,
    bad_count: Arc<AtomicU64>,
    /// Whether a checkpoint that shows the first rows was asked for.
    started: bool,
    /// Whether the node was told that reading cannot go on.
    failed: bool,
    /// Fetched once the last barrier was delivered: then nothing is read any more.
    last: Option<Epoch>,
}

/// How rows are stored.
enum Storage {
    /// As blocks, in the actor's own slot.
    Blocks(Tail),
    /// Each by itself, in the slot that owns its key.
    Rows(Box<Shuffle>),
}

impl Storage {
    fn new(table: &Table, outlets: &[Outlet]) -> Storage {
        if !table.declared.is_keyed() {
            return Storage::Blocks(Tail::new(table.layout()));
        }
        let slots = outlets.iter().map(|outlet| outlet.vnodes);
        Storage::Rows(Box::new(Shuffle::new(table, slots)))
    }
}

/// What is stored of a table is not understood, although it was when the table was created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotUnderstood {
    /// The options of WITH.
    #[error(transparent)]
    Options(#[from] weir_connector_nats::OptionError),
    /// The schema of its messages.
    #[error("the stored schema of the messages cannot be used")]
    Schema(#[from] weir_common::protobuf::Error),
}

/// A running actor.
pub(crate) struct Handle {
    pub(crate) inbox: mpsc::Sender<Message>,
    /// What can be asked of its reader.
    pub(crate) reader: Control,
    /// How many messages were no row of the table.
    pub(crate) bad_records: Arc<AtomicU64>,
}

/// Starts an actor in `group`.
///
/// # Errors
/// If what is stored of the table is not understood by this version.
pub(crate) fn spawn(config: Config, group: &Group) -> Result<Handle, NotUnderstood> {
    let options = Arc::new(Options::parse(&config.table.declared.source.options)?);
    let owner = format!("{}/{}", config.cluster, config.table.declared.name);
    let reader = Reader::spawn(
        ReaderConfig {
            options: Arc::clone(&options),
            split: config.split.split.clone(),
            position: config.position,
            stream_created: stream_created(&config),
            stored: true,
            owner,
        },
        group,
    );
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let decoder = Decoder::of(&config.table.declared, &config.split.split.0)?;
    let (control, bad_count) = (reader.control(), Arc::<AtomicU64>::default());
    let actor = Actor {
        bad_count: Arc::clone(&bad_count),
        options,
        reader,
        decoder,
        storage: Storage::new(&config.table, &config.outlets),
        dead_letters: DeadLetters::new(&config.table, &config.split.split),
        inbox,
        position: config.position,
        first: config.position,
        epoch: config.epoch.next(),
        barriers: VecDeque::new(),
        labels: [metrics::table(&config.table.declared.name)],
        bad_records: BadRecordLog::default(),
        started: false,
        failed: false,
        last: None,
        config,
    };
    group.spawn("actor", OnFailure::Log, actor.run(group.token().clone()));
    Ok(Handle { inbox: sender, reader: control, bad_records: bad_count })
}

/// When the stream of the actor's split was created, if the catalog says so.
fn stream_created(config: &Config) -> Option<String> {
    let start = config.table.splits.iter().find(|start| start.split == config.split.split);
    start.and_then(|start| start.stream_created.clone())
}

impl Actor {
    async fn run(mut self, cancel: CancellationToken) -> Result<(), std::convert::Infallible> {
        cancel.run_until_cancelled(self.serve()).await;
        Ok(())
    }

    /// Serves until the table is dropped, or the slot goes away, which the node is told by the slot itself.
    async fn serve(&mut self) -> () {
        let control = self.reader.control();
        loop {
            tokio::select! {
                biased;
                Some(message) = self.inbox.recv() => {
                    if self.take(message).await.is_break() {
                        return;
                    }
                }
                () = control.wants_checkpoint() => {
                    self.config.node.send(Event::CheckpointWanted(self.config.term)).await;
                }
                error = control.failed(), if !self.failed => {
                    self.failed = true;
                    self.config.node.send(Event::JobFailed(self.config.term, self.config.table.id, error)).await;
                }
                batch = self.reader.next(), if self.last.is_none() => {
                    if self.decode(batch).await.is_break() {
                        return;
                    }
                }
            }
        }
    }

    async fn take(&mut self, message: Message) -> ControlFlow<()> {
        match message {
            Message::Barrier(epoch) => return self.barrier(epoch).await,
            Message::Last(epoch) => {
                self.last = Some(epoch);
                return self.barrier(epoch).await;
            }
            Message::Committed(epoch) => {
                let mut position = None;
                while let Some((oldest, reached)) = self.barriers.front().copied()
                    && oldest <= epoch
                {
                    position = Some(reached);
                    self.barriers.pop_front();
                }
                if let Some(position) = position {
                    self.reader.committed(position);
                }
                if self.last.is_some_and(|last| last <= epoch) {
                    // The reader acknowledges what is committed and ends; meta removes its consumer.
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    async fn barrier(&mut self, epoch: Epoch) -> ControlFlow<()> {
        if self.close_block().await.is_break() || self.close_dead_letters().await.is_break() {
            return ControlFlow::Break(());
        }
        self.barriers.push_back((epoch, self.position));
        self.epoch = epoch.next();
        for outlet in &self.config.outlets {
            if let Err(Closed) = outlet.barrier(&self.config.split, epoch, self.position).await {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Decodes a batch. Rows gather in the decoder until a block is full or a barrier comes.
    async fn decode(&mut self, batch: Batch) -> ControlFlow<()> {
        let (mut rows, mut bytes) = (0, 0);
        for message in &batch.messages {
            if self.decoder.is_empty() {
                self.first = Sequence(message.sequence);
            }
            let before = self.decoder.len();
            match self.decoder.append(message) {
                Ok(()) => rows += (self.decoder.len() - before) as u64,
                Err(bad) if self.reject(message, &bad).await.is_break() => return ControlFlow::Break(()),
                Err(_) => {}
            }
            bytes += message.payload.len() as u64;
            self.position = Sequence(message.sequence + 1);
            let full = self.decoder.len() >= BLOCK_ROWS_MAX || self.decoder.bytes() >= BLOCK_BYTES_MAX;
            if full && self.close_block().await.is_break() {
                return ControlFlow::Break(());
            }
        }
        // Later than the last message if what follows it is known to hold nothing for this split.
        self.position = batch.position;
        if rows > 0 && !self.started {
            // Whoever waits for the table, or for it to go on after a crash, need not wait for the next barrier too.
            self.started = true;
            self.config.node.send(Event::CheckpointWanted(self.config.term)).await;
        }
        self.config.metrics.rows.add(rows, &self.labels);
        self.config.metrics.bytes.add(bytes, &self.labels);
        ControlFlow::Continue(())
    }

    /// Does with a bad record what the table's options say.
    async fn reject(&mut self, message: &weir_connector_nats::Message, bad: &BadRecord) -> ControlFlow<()> {
        self.config.metrics.bad_records.add(1, &self.labels);
        self.bad_count.fetch_add(1, Ordering::Relaxed);
        let table = &self.config.table;
        match (self.options.on_error, &mut self.dead_letters) {
            (OnError::Fail, _) => {
                let stream = stream_of(&self.config.split.split);
                let error = format!("message {} of stream \"{stream}\": {bad}", message.sequence);
                let failed = Event::JobFailed(self.config.term, table.id, error);
                self.config.node.send(failed).await;
                // The term is about to end, and the next one leaves the job out: nothing of the message is committed.
                return ControlFlow::Break(());
            }
            (OnError::DeadLetter, Some(dead_letters)) => {
                self.bad_records.log(table, message.sequence, bad, "kept a bad record as a dead letter");
                dead_letters.append(message, bad);
                if dead_letters.bytes() >= BLOCK_BYTES_MAX {
                    return self.close_dead_letters().await;
                }
            }
            (OnError::Skip, _) | (OnError::DeadLetter, None) => {
                self.bad_records.log(table, message.sequence, bad, "skipped a bad record");
            }
        }
        ControlFlow::Continue(())
    }

    /// Sends dead letters on their way, to a slot of this node.
    async fn close_dead_letters(&mut self) -> ControlFlow<()> {
        let Some(dead_letters) = &mut self.dead_letters else { return ControlFlow::Continue(()) };
        let own = self.config.outlets.iter().find(|outlet| outlet.is_local()).expect("the actor's slot is on its node");
        let Some((key, value)) = dead_letters.close(vnode(own.vnodes, self.epoch)) else {
            return ControlFlow::Continue(());
        };
        match own.write_entry(&self.config.split, key, value).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(Closed) => ControlFlow::Break(()),
        }
    }

    /// Sends the rows in the decoder on their way. Waits for credits while the actor is far ahead of a seal.
    async fn close_block(&mut self) -> ControlFlow<()> {
        if self.decoder.is_empty() {
            return ControlFlow::Continue(());
        }
        let rows = self.decoder.finish();
        match self.store(rows).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(Closed) => ControlFlow::Break(()),
        }
    }

    async fn store(&mut self, rows: RecordBatch) -> Result<(), Closed> {
        let (table, actor, outlets) = (self.config.table.id, &self.config.split, &self.config.outlets);
        match &mut self.storage {
            Storage::Blocks(tail) => {
                let [own] = outlets.as_slice() else { unreachable!("blocks go to the actor's own slot") };
                let vnode = vnode(own.vnodes, self.epoch);
                let key = || BlockKey { table, vnode, split: actor.split.clone(), sequence: self.first }.encode();
                let (key, value) = tail.close(key, rows);
                own.write_entry(actor, key, value).await
            }
            Storage::Rows(shuffle) => {
                for (part, entries) in shuffle.divide(&rows) {
                    outlets[part].write(actor, entries).await?;
                }
                Ok(())
            }
        }
    }
}

/// The vnode of blocks that begin in an epoch: the slot's vnodes in turn, so that when slots are divided anew each takes
/// over an even share of what was read.
fn vnode(slot: VnodeRange, epoch: Epoch) -> u16 {
    let offset = epoch.0 % u64::from(slot.end - slot.start);
    slot.start + u16::try_from(offset).expect("less than 256")
}

/// Logs bad records at a bounded rate.
#[derive(Default)]
struct BadRecordLog {
    next: Option<Instant>,
    unmentioned: u64,
}

impl BadRecordLog {
    fn log(&mut self, table: &Table, sequence: u64, bad: &BadRecord, what: &str) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            self.unmentioned += 1;
            return;
        }
        let others = std::mem::take(&mut self.unmentioned);
        warn!(table = table.declared.name, sequence, error = %bad, others_since_last = others, "{what}");
        self.next = Some(now + BAD_RECORD_LOG_INTERVAL);
    }
}

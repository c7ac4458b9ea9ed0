//! A reading of a split: a reader, the decoder of its messages, and the outputs that get all of its
//! rows.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use opentelemetry::KeyValue;
use tokio::sync::watch;
use weir_common::catalog::Relation;
use weir_common::ids::{Epoch, JobSplit, Sequence, TableId};
use weir_common::position::{Anchor, Position};
use weir_connector_nats::options::{ConsumerName, OnError, stream_of};
use weir_connector_nats::{Batch, Control, Message, Options, Reader, ReaderConfig};

use super::output::{Output, Stopped};
use super::shared::{NotUnderstood, Shared};
use crate::control::event::Event;
use crate::ingest::dead_letters::DeadLetters;
use crate::ingest::decode::{BadRecord, Decoder};
use crate::ingest::progress::ReadSplit;
use crate::metrics;
use crate::storage::block;

/// A reading of a split.
pub(super) struct Reading {
    reader: Reader,
    control: Control,
    decoder: Decoder,
    /// Set if the table keeps them.
    dead_letters: Option<DeadLetters>,
    /// The outputs that get every row.
    pub(super) outputs: Vec<Output>,
    /// The next sequence that the reader hands out.
    handed: Sequence,
    /// The anchor of the stream as of the last message that was handed out.
    anchor: Anchor,
    /// The sequence of the first row in the decoder.
    first: Sequence,
    /// The reader's position at each barrier that is not committed yet.
    barriers: VecDeque<(Epoch, Sequence)>,
    /// The next place in the stream that its outputs lack, for observers.
    next: watch::Sender<u64>,
    /// The name under which others know it.
    known_as: JobSplit,
    labels: [KeyValue; 1],
    bad_records: Arc<AtomicU64>,
    known_lag: Arc<Mutex<Option<u64>>>,
    /// True once a checkpoint was requested that shows the first rows.
    started: bool,
    /// True once the node was told that reading cannot go on.
    failed: bool,
}

/// An event of a reader.
pub(super) enum Said {
    /// A batch has to be decoded.
    Batch(Batch),
    /// Nearly as many messages wait for acknowledgement as may.
    CheckpointWanted,
    /// Reading cannot go on.
    Failed(String),
}

impl Reading {
    /// The reading that follows the relation's options, through the consumer that they name.
    ///
    /// # Errors
    /// If this version does not understand the stored definition of the relation.
    pub(super) fn front(shared: &Shared, position: Position) -> Result<Reading, NotUnderstood> {
        let config = &shared.config;
        let known_as = JobSplit { job: config.source.id(), split: config.split.clone() };
        let owner = (&*config.source.relation, config.source.consumers(), known_as);
        let read = Reading::new(shared, Arc::clone(&shared.options), position, true, owner)?;
        Ok(Reading { dead_letters: DeadLetters::new(&config.source.job, &config.split), ..read })
    }

    /// A reading for an output that is behind. It leaves the consumer of the others alone.
    ///
    /// # Errors
    /// As [`Reading::front`].
    pub(super) fn behind(shared: &Shared, position: Position, output: Output) -> Result<Reading, NotUnderstood> {
        let mut options = Options::clone(&shared.options);
        options.consumer.name = ConsumerName::Anonymous;
        let known_as = output.split().clone();
        let consumers = output.name().to_string();
        let read = Reading::new(shared, Arc::new(options), position, false, (output.relation(), &consumers, known_as))?;
        Ok(Reading { outputs: vec![output], ..read })
    }

    fn new(
        shared: &Shared,
        options: Arc<Options>,
        position: Position,
        is_front: bool,
        (owner, consumers, known_as): (&Relation, &str, JobSplit),
    ) -> Result<Reading, NotUnderstood> {
        let config = &shared.config;
        let reader = Reader::spawn(
            ReaderConfig {
                options,
                split: config.split.clone(),
                position,
                stored: is_front,
                follows: !is_front,
                owner: format!("{}/{consumers}", config.cluster),
            },
            &shared.group,
        );
        Ok(Reading {
            control: reader.control(),
            reader,
            decoder: Decoder::of(&config.source.relation, config.stream()?, &config.split.0)?,
            dead_letters: None,
            outputs: Vec::new(),
            handed: position.next,
            anchor: position.anchor,
            first: position.next,
            barriers: VecDeque::new(),
            next: watch::Sender::new(position.next.in_stream()),
            known_as,
            labels: [metrics::table(&owner.name)],
            bad_records: Arc::default(),
            known_lag: Arc::default(),
            started: false,
            failed: false,
        })
    }

    /// The handles by which others observe it.
    pub(super) fn observed(&self) -> ReadSplit {
        let (split, reader) = (self.known_as.clone(), self.control.clone());
        let feeds = self.outputs.iter().map(Output::id).collect();
        let (bad_records, known_lag) = (Arc::clone(&self.bad_records), Arc::clone(&self.known_lag));
        ReadSplit { split, reader, bad_records, feeds, next: self.next.subscribe(), known_lag }
    }

    /// Tells observers that its outputs have everything below a position.
    pub(super) fn tell(&self, position: Sequence) {
        let next = if self.anchor.parted { 0 } else { position.in_stream() };
        self.next.send_if_modified(|told| std::mem::replace(told, next) != next);
    }

    /// The name under which others know it.
    pub(super) fn known_as(&self) -> &JobSplit {
        &self.known_as
    }

    /// The next sequence that the reader hands out, and the reader's control.
    pub(super) fn handed(&self) -> (Sequence, &Control) {
        (self.handed, &self.control)
    }

    /// The anchor of the stream as of the last message that was handed out.
    pub(super) fn anchor(&self) -> Anchor {
        self.anchor
    }

    /// Waits for the reader's next event. Cancel safe.
    pub(super) async fn said(&mut self) -> Said {
        tokio::select! {
            biased;
            () = self.control.wants_checkpoint() => Said::CheckpointWanted,
            error = self.control.failed(), if !self.failed => {
                self.failed = true;
                Said::Failed(error)
            }
            batch = self.reader.next() => Said::Batch(batch),
        }
    }

    /// Decodes the messages of a batch below `end`. Rows gather in the decoder until a block is
    /// full or a barrier comes.
    pub(super) async fn decode(
        &mut self,
        batch: &Batch,
        end: Option<Sequence>,
        epoch: Epoch,
        shared: &mut Shared,
    ) -> ControlFlow<()> {
        let (mut rows, mut bytes) = (0, 0);
        let ours = |message: &&Message| end.is_none_or(|end| message.sequence < end.0);
        for message in batch.messages.iter().take_while(ours) {
            if self.decoder.is_empty() {
                self.first = Sequence(message.sequence);
            }
            let before = self.decoder.len();
            match self.decoder.append(message) {
                Ok(()) => rows += (self.decoder.len() - before) as u64,
                Err(bad) => self.reject(message, &bad, epoch, shared).await?,
            }
            bytes += message.payload.len() as u64;
            let full = self.decoder.len() >= block::ROWS_MAX || self.decoder.bytes() >= block::BYTES_MAX;
            if full {
                self.close_block(epoch, shared).await?;
            }
        }
        // This is later than the last message if the following ones are known to hold nothing for
        // this split.
        self.handed = batch.position;
        self.anchor = batch.anchor;
        if rows > 0 && !self.started {
            // Users who wait for the table's first rows, or for its first rows after a crash,
            // should not have to wait for the next barrier as well.
            self.started = true;
            shared.tell(Event::CheckpointWanted(shared.config.term)).await;
        }
        shared.config.metrics.rows.add(rows, &self.labels);
        shared.config.metrics.bytes.add(bytes, &self.labels);
        ControlFlow::Continue(())
    }

    /// Treats a bad record as the relation's options say. Bad records of a source are stored
    /// nowhere: a statement that asks for them finds them in the stream.
    async fn reject(
        &mut self,
        message: &Message,
        bad: &BadRecord,
        epoch: Epoch,
        shared: &mut Shared,
    ) -> ControlFlow<()> {
        shared.config.metrics.bad_records.add(1, &self.labels);
        self.bad_records.fetch_add(1, Ordering::Relaxed);
        match (shared.options.on_error, &mut self.dead_letters) {
            (OnError::Fail, _) => {
                let stream = stream_of(&shared.config.split);
                let place = Sequence(message.sequence).in_stream();
                let error = format!("message {place} of stream \"{stream}\": {bad}");
                shared.tell(Event::JobFailed(shared.config.term, shared.config.source.id(), error)).await;
                // The term is about to end, and the next one leaves the job out: nothing of the
                // message is committed.
                return ControlFlow::Break(());
            }
            (OnError::DeadLetter, Some(dead_letters)) => {
                shared.log_bad_record(Sequence(message.sequence), bad, "kept a bad record as a dead letter");
                dead_letters.append(message, bad);
                if dead_letters.bytes() >= block::BYTES_MAX {
                    return self.close_dead_letters(epoch).await;
                }
            }
            (OnError::Skip, _) | (OnError::DeadLetter, None) => {
                shared.log_bad_record(Sequence(message.sequence), bad, "skipped a bad record");
            }
        }
        ControlFlow::Continue(())
    }

    /// Sends the rows that wait in the decoder to every output.
    pub(super) async fn close_block(&mut self, epoch: Epoch, shared: &Shared) -> ControlFlow<()> {
        if self.decoder.is_empty() {
            return ControlFlow::Continue(());
        }
        let rows = self.decoder.finish();
        for output in &mut self.outputs {
            let written = output.write(&rows, self.first, epoch).await;
            passed_on(written, output.id(), shared).await?;
        }
        ControlFlow::Continue(())
    }

    /// Sends dead letters to a slot of this node.
    async fn close_dead_letters(&mut self, epoch: Epoch) -> ControlFlow<()> {
        let (Some(dead_letters), Some(output)) = (&mut self.dead_letters, self.outputs.first()) else {
            return ControlFlow::Continue(());
        };
        match output.write_beside(|vnode| dead_letters.close(vnode), epoch).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Ends an epoch at the position that all outputs have reached.
    pub(super) async fn barrier(&mut self, epoch: Epoch, next: Sequence, shared: &Shared) -> ControlFlow<()> {
        self.close_block(epoch, shared).await?;
        self.close_dead_letters(epoch).await?;
        self.barriers.push_back((epoch, self.handed));
        let position = Position { next, anchor: self.anchor };
        for output in &mut self.outputs {
            let passed = output.barrier(epoch, position).await;
            passed_on(passed, output.id(), shared).await?;
        }
        ControlFlow::Continue(())
    }

    /// An epoch is committed: the reader acknowledges the messages up to its barrier.
    pub(super) fn committed(&mut self, epoch: Epoch) {
        let mut position = None;
        while let Some((oldest, handed)) = self.barriers.front().copied()
            && oldest <= epoch
        {
            position = Some(handed);
            self.barriers.pop_front();
        }
        if let Some(position) = position {
            self.reader.committed(position);
        }
    }
}

/// Tells the node if an output takes no more because of its rows.
async fn passed_on(result: Result<(), Stopped>, output: TableId, shared: &Shared) -> ControlFlow<()> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(Stopped::Closed) => ControlFlow::Break(()),
        Err(Stopped::Failed(error)) => {
            shared.tell(Event::JobFailed(shared.config.term, output, error.message)).await;
            ControlFlow::Break(())
        }
    }
}

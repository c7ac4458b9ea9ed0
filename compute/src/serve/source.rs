//! Reads a source for one statement: its stream from the start of the source up to the stream's
//! present last message.
//!
//! The rows are stored nowhere. The reader is the one that tables use, with an anonymous consumer,
//! so it makes the same promise: every message of the range that the stream still has, once.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::sync::mpsc;
use tonic::Status;
use tracing::info;
use weir_common::catalog::{Entry, Relation, Source, SplitStart, dead_letter_columns};
use weir_common::condition::SplitState;
use weir_common::error::{Kind, chain};
use weir_common::ids::Sequence;
use weir_common::position::Position;
use weir_common::rpc;
use weir_common::task::Group;
use weir_connector_nats::options::{ConsumerName, OnError};
use weir_connector_nats::{Batch, Condition, Control, Message, Options, Reader, ReaderConfig, consumer, subject};
use weir_proto::{ReadSourceRequest, ScanResponse};

use super::scan::response;
use crate::ingest::dead_letters::Letters;
use crate::ingest::decode::Decoder;

/// Rows are sent in batches of at most as many rows or bytes as a block.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 1 << 20;
/// While nothing arrives, the server is asked at this interval whether anything is left.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// The time that the server may be out of reach before the statement fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// A statement's request of a source.
pub(crate) struct SourceRead {
    relation: Arc<Relation>,
    source: Source,
    parts: Vec<Part>,
    projection: Vec<usize>,
    limit: u64,
    on_error: OnError,
    /// True if the statement wants the bad records instead of the rows.
    dead_letters: bool,
    /// The first and the last sequence, if the statement bounds them.
    from: Sequence,
    /// See `from`.
    to: Option<Sequence>,
    owner: String,
}

/// The part of a request that concerns one split.
struct Part {
    options: Arc<Options>,
    start: SplitStart,
    /// The first sequence.
    from: Sequence,
}

/// The way in which reading ended, if not by an error.
enum End {
    /// Everything was sent.
    Done,
    /// The frontend has gone.
    Gone,
}

impl SourceRead {
    /// # Errors
    /// If this version does not understand the source's options, or the request asks for columns
    /// that the source does not have.
    pub(crate) fn prepare(entry: Entry, request: &ReadSourceRequest, owner: &str) -> Result<SourceRead, rpc::Error> {
        let Entry { relation, job, .. } = entry;
        let source = job.stream().ok_or_else(|| rpc::Error::new(Kind::Internal, "a view has no stream"))?;
        let mut options = Options::parse(&source.options).map_err(weir_connector_nats::Error::from)?;
        // Consumers of jobs stay untouched.
        options.consumer.name = ConsumerName::Anonymous;
        let projection: Vec<usize> =
            request.projection.iter().map(|column| usize::try_from(*column).expect("at least 32 bits")).collect();
        let columns = if request.dead_letters { dead_letter_columns().len() } else { relation.columns.len() };
        if projection.iter().any(|column| *column >= columns) {
            return Err(rpc::Error::new(Kind::Internal, "projection of a column that the source does not have"));
        }
        Ok(SourceRead {
            owner: owner.to_owned(),
            parts: job.splits.iter().filter_map(|start| Part::of(start, &options, request)).collect(),
            projection,
            limit: request.limit.unwrap_or(u64::MAX),
            on_error: options.on_error,
            dead_letters: request.dead_letters,
            from: Sequence(request.from_sequence.unwrap_or_default()),
            to: request.to_sequence.map(Sequence),
            source: source.clone(),
            relation,
        })
    }

    /// Sends batches until the end, the limit, an error, or until the frontend has gone.
    pub(crate) async fn run(self, out: mpsc::Sender<Result<ScanResponse, Status>>) {
        let group = Group::default();
        let outcome = tokio::select! {
            outcome = self.read(&group, &out) => outcome,
            () = out.closed() => Ok(End::Gone),
        };
        group.stop().await;
        // It makes no difference if the frontend is still there.
        match outcome {
            Ok(End::Done) => drop(out.send(Ok(ScanResponse { done: true, ..ScanResponse::default() })).await),
            Ok(End::Gone) => {}
            Err(error) => drop(out.send(Err(error.into())).await),
        }
    }

    async fn read(&self, group: &Group, out: &mpsc::Sender<Result<ScanResponse, Status>>) -> Result<End, rpc::Error> {
        let mut left = self.limit;
        for part in &self.parts {
            let mut rows = Rows::new(self, part, out, left)?;
            if self.read_part(part, group, &mut rows).await?.is_gone() || rows.finish().await.is_gone() {
                return Ok(End::Gone);
            }
            left = rows.left;
        }
        Ok(End::Done)
    }

    async fn read_part(&self, part: &Part, group: &Group, rows: &mut Rows<'_>) -> Result<End, rpc::Error> {
        if rows.is_full() {
            return Ok(End::Done);
        }
        let SplitStart { split, .. } = part.start.clone();
        let position = Position { next: part.from, ..part.start.position() };
        let (options, owner) = (Arc::clone(&part.options), self.owner.clone());
        let config = ReaderConfig { options, split, position, stored: false, follows: false, owner };
        let mut reader = Reader::spawn(config, group);
        let control = reader.control();
        let last = self.last(&control, part).await?;
        let mut ask = tokio::time::interval(ASK_INTERVAL);
        let (mut position, mut heard) = (part.from, tokio::time::Instant::now());
        while position.in_stream() <= last.0 && !rows.is_full() {
            tokio::select! {
                biased;
                batch = reader.next() => {
                    heard = tokio::time::Instant::now();
                    position = batch.position;
                    let drained = control.status().lag == 0;
                    if rows.take(&batch, last).await?.is_gone() {
                        return Ok(End::Gone);
                    }
                    // Nothing is acknowledged. This only lets the reader forget.
                    control.committed(position);
                    if drained && control.is_through(position).await {
                        break;
                    }
                }
                _ = ask.tick() => {
                    if control.is_through(position).await {
                        break;
                    }
                    if let Some(error) = obstacle(&control, part, heard.elapsed()) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(End::Done)
    }

    /// The last sequence that belongs to the statement: the stream's present last one, or the
    /// statement's own bound.
    async fn last(&self, control: &Control, part: &Part) -> Result<Sequence, rpc::Error> {
        let started = tokio::time::Instant::now();
        let mut ask = tokio::time::interval(ASK_INTERVAL);
        loop {
            ask.tick().await;
            match control.progress().await {
                Ok(progress) => return Ok(self.to.map_or(progress.stream_last, |to| to.min(progress.stream_last))),
                Err(error) if error.kind() == Kind::Unavailable && started.elapsed() < PATIENCE => {
                    // Some errors do not pass, for instance a file that is missing on this node.
                    if let Some(error) = obstacle(control, part, Duration::ZERO) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The error of a statement that has heard nothing for a while, if it is to fail. It fails at once
/// if somebody has to fix the cause.
fn obstacle(control: &Control, part: &Part, silence: Duration) -> Option<rpc::Error> {
    let Condition { state, trouble, .. } = control.condition();
    let trouble = trouble?;
    let prefix = format!("cannot read stream \"{}\"", part.options.stream);
    match state {
        SplitState::Disconnected if silence > PATIENCE => {
            Some(rpc::Error::new(Kind::Unavailable, format!("{prefix} now: {}", trouble.message)))
        }
        SplitState::Stalled | SplitState::Stopped => {
            Some(rpc::Error { message: format!("{prefix}: {}", trouble.message), ..rpc::Error::clone(&trouble) })
        }
        _ => None,
    }
}

impl Part {
    /// The part for one split, or `None` if the statement wants nothing of it.
    fn of(start: &SplitStart, options: &Options, request: &ReadSourceRequest) -> Option<Part> {
        let mut options = options.of_split(&start.split);
        if !request.subjects.is_empty() {
            let read = consumer::wanted_subjects(&options);
            let within = request.subjects.iter().filter(|wanted| read.iter().any(|held| subject::covers(held, wanted)));
            let within: Vec<String> = within.cloned().collect();
            if within.is_empty() {
                return None;
            }
            options.consumer.filters = Some(within);
        }
        let from = start.sequence.max(Sequence(request.from_sequence.unwrap_or_default()));
        Some(Part { options: Arc::new(options), start: start.clone(), from })
    }
}

/// Sends the rows of a split to the frontend.
struct Rows<'a> {
    read: &'a SourceRead,
    stream: &'a str,
    decoder: Decoder,
    /// The bad records, if the statement wants these.
    letters: Option<Letters>,
    out: &'a mpsc::Sender<Result<ScanResponse, Status>>,
    left: u64,
    skipped: u64,
}

impl End {
    fn is_gone(&self) -> bool {
        matches!(self, End::Gone)
    }
}

impl<'a> Rows<'a> {
    /// # Errors
    /// If the stored schema of the messages cannot be used, although it could when the source was
    /// created.
    fn new(
        read: &'a SourceRead,
        part: &'a Part,
        out: &'a mpsc::Sender<Result<ScanResponse, Status>>,
        left: u64,
    ) -> Result<Rows<'a>, rpc::Error> {
        let decoder = Decoder::of(&read.relation, &read.source, &part.start.split.0)
            .map_err(|error| rpc::Error::new(Kind::Corrupt, chain(&error)))?;
        let letters = read.dead_letters.then(|| Letters::new(&part.start.split));
        Ok(Rows { read, stream: &part.options.stream, decoder, letters, out, left, skipped: 0 })
    }

    /// The number of rows that wait to be sent.
    fn len(&self) -> usize {
        self.letters.as_ref().map_or(self.decoder.len(), Letters::len)
    }

    /// Returns true if the statement wants no more rows.
    fn is_full(&self) -> bool {
        self.len() as u64 >= self.left
    }

    async fn take(&mut self, batch: &Batch, last: Sequence) -> Result<End, rpc::Error> {
        for message in &batch.messages {
            // A later stream of the same name is read from its first message.
            let place = Sequence(message.sequence).in_stream();
            if place < self.read.from.0 {
                continue;
            }
            if place > last.0 || self.is_full() {
                break;
            }
            self.decode(message)?;
            let bytes = self.letters.as_ref().map_or(self.decoder.bytes(), Letters::bytes);
            let full = self.len() >= BATCH_ROWS || bytes >= BATCH_BYTES;
            if full && self.send().await.is_gone() {
                return Ok(End::Gone);
            }
        }
        Ok(End::Done)
    }

    fn decode(&mut self, message: &Message) -> Result<(), rpc::Error> {
        let decoded = self.decoder.append(message);
        if let Some(letters) = &mut self.letters {
            match decoded {
                // The statement wants no rows.
                Ok(()) if self.decoder.bytes() >= BATCH_BYTES => drop(self.decoder.finish()),
                Ok(()) => {}
                Err(bad) => letters.append(message, &bad),
            }
            return Ok(());
        }
        match decoded {
            Ok(()) => {}
            Err(bad) if self.read.on_error == OnError::Fail => {
                let place = Sequence(message.sequence).in_stream();
                let message = format!("message {place} of stream \"{}\": {bad}", self.stream);
                return Err(rpc::Error::new(Kind::User, message).with_sqlstate("22P02"));
            }
            Err(_) => self.skipped += 1,
        }
        Ok(())
    }

    async fn send(&mut self) -> End {
        let rows = self.letters.as_mut().map_or_else(|| self.decoder.finish(), Letters::finish);
        let rows = rows.slice(0, rows.num_rows().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
        self.left -= rows.num_rows() as u64;
        let projected = project(&rows, &self.read.projection);
        if self.out.send(Ok(projected)).await.is_ok() { End::Done } else { End::Gone }
    }

    async fn finish(&mut self) -> End {
        if self.skipped > 0 {
            let (source, skipped) = (&self.read.relation.name, self.skipped);
            info!(%source, skipped, "skipped bad records of a source");
        }
        if self.len() == 0 { End::Done } else { self.send().await }
    }
}

/// The wanted columns. If none are wanted, only the number of rows.
fn project(rows: &RecordBatch, projection: &[usize]) -> ScanResponse {
    if projection.is_empty() {
        return ScanResponse { rows: rows.num_rows() as u64, ..ScanResponse::default() };
    }
    response(&rows.project(projection).expect("checked when the statement came"))
}

//! A table as the connector meets it: preflight, a reader, rows that are counted, commits.

use std::sync::Arc;
use std::time::Duration;

use weir_common::ids::{Sequence, SplitId};
use weir_common::position::Position;
use weir_common::task::Group;
use weir_connector_nats::{Message, Options, Preflight, Reader, ReaderConfig, preflight};

use super::DEADLINE;

pub(crate) const OWNER: &str = "test/events_table";

pub(crate) struct Table {
    pub(crate) reader: Reader,
    pub(crate) group: Group,
    /// Payloads, which are numbers, in the order of their arrival.
    pub(crate) rows: Vec<u64>,
    /// Sequences in the order of their arrival.
    pub(crate) sequences: Vec<u64>,
    pub(crate) position: Sequence,
}

impl Table {
    /// Preflight, then a reader at the position it resolved.
    pub(crate) async fn create(options: &Arc<Options>) -> Table {
        let Preflight { splits, .. } = preflight(options, OWNER).await.expect("the table can be created");
        Table::of(options, splits[0].position())
    }

    /// A reader at a position.
    pub(crate) fn resume(options: &Arc<Options>, position: Sequence) -> Table {
        Table::of(options, position.into())
    }

    fn of(options: &Arc<Options>, position: Position) -> Table {
        let group = Group::default();
        let config = ReaderConfig {
            options: Arc::clone(options),
            split: SplitId(options.stream.clone()),
            position,
            stored: true,
            follows: false,
            owner: OWNER.to_owned(),
        };
        let reader = Reader::spawn(config, &group);
        Table { reader, group, rows: Vec::new(), sequences: Vec::new(), position: position.next }
    }

    /// A reader where the table starts.
    pub(crate) fn of_preflight(options: &Arc<Options>, found: &Preflight) -> Table {
        Table::of(options, found.splits[0].position())
    }

    /// The next message, whatever it holds; for streams with few of them.
    pub(crate) async fn next_message(&mut self) -> Message {
        loop {
            let batch = tokio::time::timeout(DEADLINE, self.reader.next()).await.expect("a batch comes");
            let mut messages = batch.messages.into_iter();
            if let Some(message) = messages.next() {
                assert!(messages.next().is_none(), "there is one only");
                return message;
            }
        }
    }

    /// One batch; checks that it follows the one before. Cancel safe.
    pub(crate) async fn read_batch(&mut self) {
        let batch = loop {
            let batch = tokio::time::timeout(DEADLINE, self.reader.next()).await.expect("a batch comes");
            // Some bring an anchor only.
            if batch.position != self.position || !batch.messages.is_empty() {
                break batch;
            }
        };
        for message in &batch.messages {
            let last = self.sequences.last().copied().unwrap_or(0);
            assert!(message.sequence > last && message.sequence >= self.position.0, "{last} then {}", message.sequence);
            self.sequences.push(message.sequence);
            let text = std::str::from_utf8(&message.payload).expect("a number");
            self.rows.push(text.trim_start_matches('x').parse().expect("a number"));
        }
        assert!(batch.position > self.position, "a batch moves the position");
        assert!(self.sequences.last().is_none_or(|last| *last < batch.position.0));
        self.position = batch.position;
    }

    /// Reads until `count` rows are there.
    pub(crate) async fn read_rows(&mut self, count: usize) {
        while self.rows.len() < count {
            self.read_batch().await;
        }
    }

    /// Reads until `count` rows are there, with a commit as often as the reader wants one, and every 100 ms.
    pub(crate) async fn read_rows_committing(&mut self, count: usize) {
        let mut commits = tokio::time::interval(Duration::from_millis(100));
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while self.rows.len() < count {
            let wanted = tokio::select! {
                biased;
                () = self.reader.wants_checkpoint() => true,
                _ = commits.tick() => true,
                () = std::future::ready(()) => false,
            };
            if wanted {
                self.commit();
            }
            // Short, so that commits are not held up.
            let _ = tokio::time::timeout(Duration::from_millis(20), self.read_batch()).await;
            assert!(tokio::time::Instant::now() < deadline, "{} of {count} rows", self.rows.len());
        }
        self.commit();
    }

    pub(crate) fn commit(&self) {
        self.reader.committed(self.position);
    }

    /// Asserts that the rows are exactly these, in order.
    pub(crate) fn assert_rows(&self, expected: impl Iterator<Item = u64>) {
        let expected: Vec<u64> = expected.collect();
        assert_eq!(self.rows.len(), expected.len(), "count");
        if let Some(at) = (0..expected.len()).find(|at| self.rows[*at] != expected[*at]) {
            panic!("row {at} is {}, not {}", self.rows[at], expected[at]);
        }
    }
}

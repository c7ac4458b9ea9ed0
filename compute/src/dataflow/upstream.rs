//! A relation that a fragment follows: stored by key, or in blocks.

use bytes::Bytes;
use weir_common::ids::Epoch;
use weir_common::plan::Stream;
use weir_stream::chunk::Chunk;
use weir_stream::pipeline::{StateKey, StateWrite};

use super::follow::{Error, Follow};
use super::history::History;

/// The way of an actor through a relation: first the rows that are there, then the changes.
pub(crate) enum Upstream {
    /// Rows are stored by key.
    Rows(Box<Follow>),
    /// Rows are stored in blocks.
    Blocks(Box<History>),
}

impl Upstream {
    /// The stream that it brings.
    pub(crate) fn stream(&self) -> Stream {
        match self {
            Upstream::Rows(rows) => rows.stream(),
            Upstream::Blocks(blocks) => blocks.stream(),
        }
    }

    /// Reads so many rows a second at most of those that are there already.
    pub(crate) fn at_rate(self, rows_per_second: Option<f64>) -> Upstream {
        match self {
            Upstream::Rows(rows) => Upstream::Rows(Box::new(rows.at_rate(rows_per_second))),
            Upstream::Blocks(blocks) => Upstream::Blocks(Box::new(blocks.at_rate(rows_per_second))),
        }
    }

    /// The keys of the stored cursors.
    pub(crate) fn cursor_keys(&self) -> Vec<StateKey> {
        match self {
            Upstream::Rows(rows) => rows.cursor_keys(),
            Upstream::Blocks(blocks) => blocks.cursor_keys(),
        }
    }

    /// Takes up the stored cursors, as the committed `epoch` has them.
    ///
    /// # Errors
    /// If one is damaged.
    pub(crate) fn restore(&mut self, found: &[Option<Bytes>], epoch: Epoch) -> Result<(), Error> {
        match self {
            Upstream::Rows(rows) => rows.restore(found, epoch),
            Upstream::Blocks(blocks) => blocks.restore(found, epoch),
        }
    }

    /// An epoch begins.
    pub(crate) fn begin(&mut self, epoch: Epoch) {
        match self {
            Upstream::Rows(rows) => rows.begin(epoch),
            Upstream::Blocks(blocks) => blocks.begin(epoch),
        }
    }

    /// The next part of the page of this epoch; `None` once it is complete.
    ///
    /// # Errors
    /// If the rows cannot be read.
    pub(crate) async fn page(&mut self) -> Result<Option<Chunk>, Error> {
        match self {
            Upstream::Rows(rows) => rows.page().await,
            Upstream::Blocks(blocks) => blocks.page().await,
        }
    }

    /// The changes that pass, with the columns that the fragment reads.
    pub(crate) fn pass(&mut self, chunk: &Chunk) -> Chunk {
        match self {
            Upstream::Rows(rows) => rows.pass(chunk),
            Upstream::Blocks(blocks) => blocks.pass(chunk),
        }
    }

    /// The cursors that moved in the epoch, as state.
    pub(crate) fn take_writes(&mut self) -> Vec<StateWrite> {
        match self {
            Upstream::Rows(rows) => rows.take_writes(),
            Upstream::Blocks(blocks) => blocks.take_writes(),
        }
    }
}

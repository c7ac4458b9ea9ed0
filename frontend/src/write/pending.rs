//! INSERTs of a pipeline, which a client sends without waiting for answers. They are one statement
//! that is committed at the next Sync, as PostgreSQL commits a pipeline: a batch of a thousand rows
//! waits for one barrier. Nothing of them is written if one of the pipeline's statements fails.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::RecordBatch;
use tokio::time::{Instant, sleep};
use weir_sql::error::{Error, sqlstate};

use super::holding::Holding;
use super::statement::Planned;
use super::{PAUSE, Writes, rows};
use crate::query::is_lost;
use crate::snapshot::Placement;

/// Rows beyond so many bytes are sent to the slots.
const BUFFERED_BYTES_MAX: usize = 1 << 20;

/// The rows that a client's pipeline has inserted and not committed yet.
#[derive(Debug, Default)]
pub(crate) struct Pipeline(Mutex<Option<Pending>>);

impl Pipeline {
    /// Abandons what was inserted.
    pub(crate) fn abandon(&self) {
        drop(self.take());
    }

    fn take(&self) -> Option<Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, pending: Pending) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
    }
}

/// Rows of one table.
#[derive(Debug)]
struct Pending {
    holding: Holding,
    buffered: Vec<RecordBatch>,
    bytes: usize,
    /// True if rows were sent already.
    has_sent: bool,
}

impl Pending {
    /// Sends what is buffered.
    async fn send(&mut self) -> Result<(), Error> {
        let all = rows::joined(&self.holding.relation.schema(), &self.buffered)?;
        self.holding.insert(&all).await?;
        (self.buffered, self.bytes, self.has_sent) = (Vec::new(), 0, true);
        Ok(())
    }
}

impl Writes {
    /// Keeps rows until the pipeline ends. Rows of another table are committed before.
    pub(super) async fn defer(
        &self,
        pipeline: &Pipeline,
        planned: &Planned,
        rows: RecordBatch,
        (placement, deadline): (Arc<Placement>, Instant),
    ) -> Result<(), Error> {
        let mut pending = pipeline.take();
        if let Some(other) = pending.take_if(|pending| pending.holding.relation != planned.relation) {
            pipeline.put(other);
            self.settle(pipeline, deadline).await?;
        }
        let mut pending = pending.unwrap_or_else(|| {
            let nodes = Arc::clone(&self.queries.planner.nodes);
            let holding = Holding::new(placement, Arc::clone(&planned.relation), nodes);
            Pending { holding, buffered: Vec::new(), bytes: 0, has_sent: false }
        });
        pending.bytes += rows.get_array_memory_size();
        pending.buffered.push(rows);
        if pending.bytes > BUFFERED_BYTES_MAX {
            pending.send().await?;
        }
        pipeline.put(pending);
        Ok(())
    }

    /// Commits what a pipeline has inserted.
    ///
    /// # Errors
    /// Nothing was inserted then, except with `08007`.
    pub(crate) async fn settle(&self, pipeline: &Pipeline, deadline: Instant) -> Result<(), Error> {
        let Some(mut pending) = pipeline.take() else { return Ok(()) };
        let buffered = pending.buffered.clone();
        loop {
            let can_repeat = !pending.has_sent;
            match self.end(&mut pending, deadline).await {
                Ok(()) => return Ok(()),
                // The placement was the newest that was known, but is over; or a node was lost.
                Err(error) if can_repeat && is_lost(&error) && Instant::now() + PAUSE < deadline => {
                    sleep(PAUSE).await;
                    let snapshot = self.snapshots.acquire(deadline).await?;
                    let relation = Arc::clone(&pending.holding.relation);
                    if snapshot.catalog.by_id(relation.id).is_none_or(|entry| entry.relation != relation) {
                        let message = format!("table \"{}\" was changed or dropped meanwhile", relation.name);
                        return Err(Error::user(sqlstate::UNDEFINED_TABLE, message));
                    }
                    let nodes = Arc::clone(&self.queries.planner.nodes);
                    let holding = Holding::new(snapshot.placement(), relation, nodes);
                    pending = Pending { holding, buffered: buffered.clone(), bytes: 0, has_sent: false };
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn end(&self, pending: &mut Pending, deadline: Instant) -> Result<(), Error> {
        pending.send().await?;
        if let Some(statement) = pending.holding.held().await? {
            self.meta.commit(pending.holding.placement.term, &statement, deadline).await?;
        }
        Ok(())
    }
}

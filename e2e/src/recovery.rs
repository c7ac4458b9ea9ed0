//! How long new rows are in coming after something was lost: for benchmarks and for tests with a bound.
//!
//! A time runs until a SELECT shows a row that was not published yet when it was asked for, and so includes everything:
//! noticing, electing, a new term, opening state, building the consumer, reading, a commit. Somebody has to publish in
//! the meantime.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::servers::Nats;
use crate::sql::Sql;
use crate::wait::eventually;
use crate::weir::{Cluster, READY_DEADLINE};

/// What new rows are waited for: a table that holds all of a stream.
pub struct Watched<'a> {
    /// The server with the stream.
    pub nats: &'a Nats,
    /// The stream.
    pub stream: &'a str,
    /// The table.
    pub table: &'a str,
    /// How long they may take.
    pub deadline: Duration,
}

impl Watched<'_> {
    /// The time from the start until a row is visible that is not in the stream yet.
    ///
    /// # Errors
    /// If there is none by the deadline.
    pub async fn new_rows(&self, start: Instant, sql: &mut Sql) -> Result<Duration> {
        let published = self.nats.last_sequence(self.stream).await?;
        let query = format!("SELECT count(*) FROM {}", self.table);
        eventually("new rows", self.deadline, async || {
            let count = sql.value::<u64>(&query).await?;
            ensure!(count > published, "{count} rows, {published} were published");
            Ok(Some(start.elapsed()))
        })
        .await
    }

    /// Waits until every compute node runs in the term and new rows flow.
    ///
    /// # Errors
    /// If that is not so in time.
    pub async fn settled(&self, cluster: &mut Cluster, sql: &mut Sql) -> Result<()> {
        cluster.ready().await?;
        let computes = cluster.computes.len();
        eventually("every compute node to have slots", READY_DEADLINE, async || {
            let nodes = sql.query("SHOW CLUSTER").await?;
            let (roles, slots) = (nodes.column("Role"), nodes.column("Slots"));
            let placed = roles.iter().zip(slots).filter(|(role, slots)| **role == "compute" && !slots.is_empty());
            let placed = placed.count();
            ensure!(placed == computes, "{placed} have");
            Ok(Some(()))
        })
        .await?;
        self.new_rows(Instant::now(), sql).await.map(drop)
    }
}

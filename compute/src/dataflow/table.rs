//! The rows that come to the actor of a table beside its inputs: those of statements, held until a
//! barrier names the statement, and those of replayed dead letters.
//!
//! Both take effect at the end of an epoch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_common::catalog::Relation;
use weir_common::error::Kind;
use weir_common::ids::{Epoch, StatementId};
use weir_common::rpc;
use weir_stream::actor::Announced;
use weir_stream::chunk::Chunk;
use weir_stream::statements::Statements;

use super::router::{Hold, Merge};

/// Rows of statements that an actor holds at most, in bytes.
const HELD_BYTES_MAX: u64 = 64 << 20;
/// Rows that no barrier has named after this time are forgotten. A statement is named within
/// seconds, unless its frontend is gone.
const HELD_MAX: Duration = Duration::from_secs(120);

/// The rows of a table that wait for the end of an epoch.
pub(crate) struct Table {
    relation: Arc<Relation>,
    statements: Statements<Chunk>,
    /// When parts of statements came, the oldest first.
    came: VecDeque<(Instant, StatementId)>,
    /// The statements that the announced barriers name.
    named: VecDeque<(Epoch, Vec<StatementId>)>,
    merges: Vec<Merge>,
}

/// A barrier names a statement whose rows are not here.
#[derive(Debug, thiserror::Error)]
#[error("statement {0} was named after its rows were forgotten")]
pub(crate) struct NotHeld(StatementId);

impl Table {
    /// Nothing waits yet.
    pub(crate) fn new(relation: &Arc<Relation>) -> Table {
        Table {
            relation: Arc::clone(relation),
            statements: Statements::new(HELD_BYTES_MAX),
            came: VecDeque::new(),
            named: VecDeque::new(),
            merges: Vec::new(),
        }
    }

    /// Holds rows of a statement, or refuses them.
    pub(crate) fn hold(&mut self, Hold { statement, rows, layout, is_last, held }: Hold) {
        let answer = self.check(statement, &rows, layout).and_then(|()| {
            self.came.push_back((Instant::now(), statement));
            self.statements.hold(statement, rows, is_last).map(drop).map_err(|_| full())
        });
        if answer.is_err() {
            self.statements.abandon(statement);
        }
        // A frontend that has gone away does not name it.
        let _ = held.send(answer);
    }

    fn check(&self, statement: StatementId, rows: &Chunk, layout: u16) -> Result<(), rpc::Error> {
        let types = |schema: &arrow::datatypes::Schema| -> Vec<_> {
            schema.fields().iter().map(|field| field.data_type().clone()).collect()
        };
        if layout != self.relation.layout() || types(&rows.rows().schema()) != types(&self.relation.stored_schema()) {
            let message = format!("table \"{}\" has changed", self.relation.name);
            return Err(rpc::Error::new(Kind::User, message)
                .with_sqlstate("40001")
                .with_hint("run the statement again"));
        }
        match self.statements.is_whole(statement) {
            true => Err(rpc::Error::new(Kind::Internal, "more rows of a statement came after its last ones")),
            false => Ok(()),
        }
    }

    /// Forgets a statement.
    pub(crate) fn abandon(&mut self, statement: StatementId) {
        self.statements.abandon(statement);
    }

    /// Takes replayed rows.
    pub(crate) fn merge(&mut self, merge: Merge) {
        self.merges.push(merge);
    }

    /// Takes a barrier that was announced.
    pub(crate) fn announce(&mut self, barrier: &Announced) {
        self.named.push_back((barrier.epoch, barrier.statements.clone()));
    }

    /// An epoch ends: the rows of the statements that its barrier names, in order.
    ///
    /// # Errors
    /// If a statement is not here. Nothing of the epoch may be committed then.
    pub(crate) fn end(&mut self, epoch: Epoch) -> Result<Vec<Chunk>, NotHeld> {
        let mut chunks = Vec::new();
        while let Some((_, named)) = self.named.pop_front_if(|(named, _)| *named <= epoch) {
            if let Some(missing) = named.iter().find(|id| !self.statements.is_whole(**id)) {
                return Err(NotHeld(*missing));
            }
            chunks.extend(self.statements.name(&named));
        }
        let now = Instant::now();
        while let Some((_, old)) = self.came.pop_front_if(|(came, _)| now.duration_since(*came) > HELD_MAX) {
            self.statements.abandon(old);
        }
        Ok(chunks)
    }

    /// The replayed rows that came so far.
    pub(crate) fn take_merges(&mut self) -> Vec<Merge> {
        std::mem::take(&mut self.merges)
    }
}

fn full() -> rpc::Error {
    let message = format!("rows of statements that are not finished take {} MiB in a slot", HELD_BYTES_MAX >> 20);
    rpc::Error::new(Kind::User, message)
        .with_sqlstate("53200")
        .with_hint("write fewer rows with one statement, or fewer at the same time")
}

//! Statements that write, from the request to commit one until its outcome is known.
//!
//! A statement belongs to the term in which its rows are held. The next barrier names it, and the
//! commit of that epoch makes it durable, in one transaction with a record of its id. If the term
//! ends first, the record tells whether it was committed, once a newer term is claimed: then the
//! commit that may be under way is refused.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use weir_common::ids::{Epoch, SlotId, StatementId, TableId};

use super::event::{Time, Waiter};

/// Statements that one barrier names at most.
const NAMED_MAX: usize = 4096;
/// How long the outcome of a statement can be asked for.
pub const REMEMBERED: Duration = Duration::from_secs(600);

/// A statement whose rows are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its id.
    pub id: StatementId,
    /// The table that it writes to.
    pub table: TableId,
    /// The slots that hold rows of it.
    pub slots: Vec<SlotId>,
}

/// A statement that is not committed yet, and those who wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) statement: Statement,
    pub(super) waiters: Vec<Waiter>,
}

/// The statements of a reign that no barrier under way has named.
#[derive(Debug, Default)]
pub(super) struct Statements {
    /// The next barrier names them.
    queue: VecDeque<Pending>,
    /// They wait for the outcome of statements whose terms have ended.
    ended: Vec<Waiter>,
    committed: HashMap<StatementId, Epoch>,
    /// When they were committed, the oldest first.
    order: VecDeque<(Time, StatementId)>,
}

impl Statements {
    /// The epoch in which a statement was committed lately.
    pub(super) fn committed(&self, id: StatementId) -> Option<Epoch> {
        self.committed.get(&id).copied()
    }

    /// A statement that waits for a barrier.
    pub(super) fn queued(&mut self, id: StatementId) -> Option<&mut Pending> {
        self.queue.iter_mut().find(|pending| pending.statement.id == id)
    }

    /// The next barrier is to name a statement.
    pub(super) fn queue(&mut self, statement: Statement, waiter: Waiter) {
        self.queue.push_back(Pending { statement, waiters: vec![waiter] });
    }

    /// Returns true if there is something for a barrier to name.
    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes the statements that a barrier names.
    pub(super) fn name(&mut self) -> Vec<Pending> {
        self.queue.drain(..self.queue.len().min(NAMED_MAX)).collect()
    }

    /// A term has ended, with these statements under way.
    pub(super) fn end(&mut self, under_way: impl Iterator<Item = Pending>) {
        let ended = self.queue.drain(..).chain(under_way).flat_map(|pending| pending.waiters);
        self.ended.extend(ended);
    }

    /// Someone asks for a statement of a term that has ended.
    pub(super) fn end_one(&mut self, waiter: Waiter) {
        self.ended.push(waiter);
    }

    /// Takes those who wait for outcomes of ended terms. A newer term is claimed.
    pub(super) fn take_ended(&mut self) -> Vec<Waiter> {
        std::mem::take(&mut self.ended)
    }

    /// Statements are committed.
    pub(super) fn commit(&mut self, ids: impl Iterator<Item = StatementId>, epoch: Epoch, now: Time) {
        for id in ids {
            self.committed.insert(id, epoch);
            self.order.push_back((now, id));
        }
        while let Some((_, old)) = self.order.pop_front_if(|(at, _)| *at + REMEMBERED < now) {
            self.committed.remove(&old);
        }
    }
}

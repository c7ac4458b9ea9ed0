//! Statements that write: the chunks of INSERT, UPDATE, DELETE and COPY at the actor of a table
//! that takes them.
//!
//! The actor holds the chunks of a statement until a barrier names it. Meta names a statement only
//! when every actor that holds a part of it has the whole of its part, so a snapshot shows all of a
//! statement or nothing. At that barrier the actor emits the parts in the barrier's order.
//!
//! Held rows have a budget. A statement beyond it is refused; it never waits, because those that
//! would free the budget may wait for it.

use std::collections::BTreeMap;

use weir_common::ids::StatementId;

use crate::edge::Weight;

/// The statements that an actor holds.
#[derive(Debug)]
pub struct Statements<C> {
    held: BTreeMap<StatementId, Held<C>>,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug)]
struct Held<C> {
    chunks: Vec<C>,
    is_whole: bool,
}

/// The budget for held rows is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<C: Weight> Statements<C> {
    /// Holds nothing yet, and at most `bytes_max` bytes ever.
    pub fn new(bytes_max: u64) -> Statements<C> {
        Statements { held: BTreeMap::new(), bytes: 0, bytes_max }
    }

    /// Takes a chunk of a statement; `is_last`: this actor gets no more of it. Returns whether the
    /// part of this actor is whole, which the caller then confirms.
    ///
    /// # Errors
    /// If the budget is used up. The statement is forgotten then.
    ///
    /// # Panics
    /// If the statement was whole already.
    pub fn hold(&mut self, id: StatementId, chunk: C, is_last: bool) -> Result<bool, Full> {
        let bytes = chunk.bytes();
        if self.bytes + bytes > self.bytes_max {
            self.abandon(id);
            return Err(Full);
        }
        let held = self.held.entry(id).or_insert(Held { chunks: Vec::new(), is_whole: false });
        assert!(!held.is_whole, "nothing follows the last chunk of a statement");
        held.chunks.push(chunk);
        held.is_whole = is_last;
        self.bytes += bytes;
        Ok(is_last)
    }

    /// Forgets a statement that will not be named.
    pub fn abandon(&mut self, id: StatementId) {
        if let Some(held) = self.held.remove(&id) {
            self.bytes -= held.chunks.iter().map(Weight::bytes).sum::<u64>();
        }
    }

    /// A barrier names statements: their chunks, in the order in which they take effect. Statements
    /// that sent nothing to this actor have none.
    ///
    /// # Panics
    /// If a named statement is not whole.
    pub fn name(&mut self, ids: &[StatementId]) -> Vec<C> {
        let mut chunks = Vec::new();
        for held in ids.iter().filter_map(|id| self.held.remove(id)) {
            assert!(held.is_whole, "a statement is named once all of it has come");
            self.bytes -= held.chunks.iter().map(Weight::bytes).sum::<u64>();
            chunks.extend(held.chunks);
        }
        chunks
    }

    /// Returns true if the part of a statement is whole, and no barrier has named it yet.
    pub fn is_whole(&self, id: StatementId) -> bool {
        self.held.get(&id).is_some_and(|held| held.is_whole)
    }

    /// Statements whose part is whole, and which no barrier has named yet.
    pub fn whole(&self) -> impl Iterator<Item = StatementId> {
        self.held.iter().filter(|(_, held)| held.is_whole).map(|(id, _)| *id)
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StatementId = StatementId(1);
    const B: StatementId = StatementId(2);

    #[test]
    fn statements_take_effect_in_the_order_of_the_barrier() {
        let mut statements = Statements::new(100);
        assert_eq!(statements.hold(A, 10u64, false), Ok(false));
        assert_eq!(statements.hold(B, 20, true), Ok(true));
        assert_eq!(statements.hold(A, 11, true), Ok(true));
        assert_eq!(statements.whole().collect::<Vec<_>>(), [A, B]);
        assert_eq!(statements.name(&[B, StatementId(7), A]), [20, 10, 11]);
        assert_eq!(statements.bytes(), 0);
    }

    #[test]
    fn a_statement_beyond_the_budget_is_refused_whole() {
        let mut statements = Statements::new(30);
        assert_eq!(statements.hold(A, 20u64, false), Ok(false));
        assert_eq!(statements.hold(A, 20, true), Err(Full));
        assert_eq!(statements.bytes(), 0);
        assert_eq!(statements.hold(B, 30, true), Ok(true));
    }
}

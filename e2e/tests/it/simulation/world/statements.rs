//! Statements that write to keyed tables: slots hold their rows, a barrier names them, and their
//! frontends ask for the outcome until they know it.
//!
//! All rows of a statement become visible together or never do; and they do if its frontend is told
//! so, and never if it is told the opposite.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use weir_common::catalog::JobState;
use weir_common::ids::{SlotId, StatementId, TableId, TermId};
use weir_meta::coordinator::event::{Event, Waiter};
use weir_meta::coordinator::statements::Statement;

use super::super::model::{Rows, row_of};
use super::World;

/// Statements of a schedule.
const STATEMENTS_MAX: usize = 6;

/// A statement as its frontend knows it.
pub(super) struct Written {
    statement: Statement,
    /// One for each row.
    vnodes: BTreeSet<u16>,
    term: TermId,
    /// The leader that was asked last.
    leader: usize,
    /// True: it is committed. False: it never will be.
    outcome: Option<bool>,
}

/// The statements of all frontends.
#[derive(Default)]
pub(super) struct Frontends {
    written: BTreeMap<StatementId, Written>,
    waiters: BTreeMap<Waiter, StatementId>,
}

impl World {
    /// A frontend begins a statement, or asks for the outcome of one.
    pub(super) fn statement(&mut self) {
        match self.frontends.written.len() < STATEMENTS_MAX && self.random.random_bool(0.5) {
            true => self.write(),
            false => self.ask_again(),
        }
    }

    /// A frontend sends the rows of a statement to the slots that own them, and asks to commit it.
    fn write(&mut self) {
        let Some(leader) = self.reigning() else { return };
        let Some(serving) = self.leaders[leader].core.serving() else { return };
        let tables =
            self.tables.values().filter(|table| table.relation.is_keyed() && table.job.state == JobState::Running);
        let tables: Vec<TableId> = tables.map(|table| table.id()).collect();
        if tables.is_empty() {
            return;
        }
        let table = tables[self.random.random_range(0..tables.len())];
        let vnodes: BTreeSet<u16> =
            (0..self.random.random_range(1..4)).map(|_| self.random.random_range(0..256)).collect();
        let id = StatementId(self.random.random());
        let mut held: BTreeMap<SlotId, Vec<u16>> = BTreeMap::new();
        for vnode in &vnodes {
            let owns =
                |slot: &&(SlotId, weir_common::ids::VnodeRange, String)| (slot.1.start..slot.1.end).contains(vnode);
            let (slot, ..) = serving.slots.iter().find(owns).expect("every vnode has a slot");
            held.entry(*slot).or_default().push(*vnode);
        }
        let slots = held.keys().copied().collect();
        for (slot, vnodes) in held {
            let is_held = |process: &mut super::Process| process.hold(serving.term, slot, table, (id, &vnodes));
            if !self.nodes.iter_mut().any(is_held) || self.random.random_bool(0.05) {
                // The frontend gives up, or dies: nobody asks for the commit.
                return;
            }
        }
        let statement = Statement { id, table, slots };
        let written = Written { statement, vnodes, term: serving.term, leader, outcome: None };
        self.frontends.written.insert(id, written);
        self.ask(id, leader);
    }

    /// A frontend that has no answer asks again, maybe another leader.
    pub(super) fn ask_again(&mut self) {
        let Some(leader) = self.reigning() else { return };
        let unanswered = |(id, written): (&StatementId, &Written)| {
            (written.outcome.is_none() && written.leader != leader).then_some(*id)
        };
        if let Some(id) = self.frontends.written.iter().find_map(unanswered) {
            self.ask(id, leader);
        }
    }

    fn ask(&mut self, id: StatementId, leader: usize) {
        self.next_waiter += 1;
        let waiter = Waiter(3_000_000 + self.next_waiter);
        self.frontends.waiters.insert(waiter, id);
        let written = self.frontends.written.get_mut(&id).expect("it was written");
        written.leader = leader;
        let event = Event::Statement(written.term, written.statement.clone(), waiter);
        self.tell_leader(leader, event);
    }

    /// A leader tells that a statement is committed.
    pub(super) fn committed(&mut self, waiter: Waiter) {
        let Some(id) = self.frontends.waiters.remove(&waiter) else { return };
        self.learn(id, true);
    }

    /// A leader looks at the records for the outcome of a statement.
    pub(super) fn recall(&mut self, waiter: Waiter) {
        let id = self.frontends.waiters.remove(&waiter).expect("someone asked for a statement");
        let is_recorded = self.store.records(id);
        self.learn(id, is_recorded);
    }

    fn learn(&mut self, id: StatementId, outcome: bool) {
        let written = self.frontends.written.get_mut(&id).expect("it was written");
        assert!(written.outcome.is_none_or(|before| before == outcome), "two outcomes of a statement");
        written.outcome = Some(outcome);
        match outcome {
            true => self.statistics.statements += 1,
            false => self.statistics.statements_refused += 1,
        }
    }

    /// Checks committed rows.
    pub(super) fn check_statements(&self, rows: &Rows) {
        for (id, Written { statement, vnodes, outcome, .. }) in &self.frontends.written {
            if !self.tables.contains_key(&statement.table) {
                continue;
            }
            let there = vnodes.iter().filter(|vnode| rows.contains_key(&row_of(statement.table, **vnode, *id))).count();
            assert!(there == 0 || there == vnodes.len(), "a part of statement {id} is committed");
            assert_eq!(there > 0, self.store.records(*id), "statement {id} and its record");
            assert!(outcome.is_none_or(|outcome| outcome == (there > 0)), "the outcome of statement {id}");
        }
    }

    /// Returns true if every frontend has its answer.
    pub(super) fn all_answered(&self) -> bool {
        let is_dropped = |written: &Written| !self.tables.contains_key(&written.statement.table);
        self.frontends.written.values().all(|written| written.outcome.is_some() || is_dropped(written))
    }
}

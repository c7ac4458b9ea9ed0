//! Statements: begun by frontends, held by actors, named by meta; and what becomes of them when a
//! frontend dies.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use weir_common::ids::{ActorId, StatementId};

use super::World;
use crate::simulation::jobs::{Change, Chunk, Job, Kind, Statement, owner, vnode};

impl World {
    pub(super) fn begin_statement(&mut self) {
        let runs = |job: &&Job| matches!(job.kind, Kind::Written) && !self.discarded.contains(&job.id);
        let tables: Vec<Job> = self.jobs.running.values().filter(runs).copied().collect();
        let Some(job) = self.pick(&tables).filter(|_| self.statements.len() < 4) else { return };
        if self.jobs.actors(&job).into_keys().any(|actor| !self.runners.contains_key(&actor)) {
            return;
        }
        let id = StatementId(self.next_statement);
        self.next_statement += 1;
        let keys: BTreeSet<i64> = (0..self.random.random_range(1..7)).map(|_| self.random.random_range(0..9)).collect();
        let rows: Vec<Change> = keys
            .into_iter()
            .map(|key| Change { key, value: self.random.random_range(0..20), insert: self.random.random_bool(0.7) })
            .collect();
        let mut parts: BTreeMap<ActorId, Vec<Change>> = BTreeMap::new();
        for row in &rows {
            let actor = ActorId { fragment: job.front(), instance: owner(vnode(row.key), self.jobs.slots) };
            parts.entry(actor).or_default().push(*row);
        }
        let mut unsent = Vec::new();
        for (actor, rows) in &parts {
            let count = rows.chunks(2).len();
            let chunks = rows.chunks(2).zip(1..);
            unsent.extend(chunks.map(|(rows, number)| (*actor, Chunk(rows.to_vec()), number == count)));
        }
        let unconfirmed = parts.into_keys().collect();
        self.statements.insert(id, Statement { id, job: job.id, rows, unsent, unconfirmed });
    }

    pub(super) fn send_statement(&mut self) -> bool {
        let sending = self.statements.values().filter(|statement| !statement.unsent.is_empty());
        let sending: Vec<StatementId> = sending.map(|statement| statement.id).collect();
        let Some(id) = self.pick(&sending).filter(|id| !self.orphans.contains(id)) else { return false };
        let statement = self.statements.get_mut(&id).expect("picked");
        let (actor, chunk, is_last) = statement.unsent.remove(0);
        let runner = self.runners.get_mut(&actor).expect("an actor of a table that is there");
        match runner.logic.statements().expect("it takes statements").hold(id, chunk, is_last) {
            Ok(false) => {}
            Ok(true) => {
                statement.unconfirmed.retain(|unconfirmed| *unconfirmed != actor);
                if statement.unconfirmed.is_empty() {
                    self.finishing.push(id);
                }
            }
            Err(_) => {
                self.statistics.refused += 1;
                self.abandon(id);
            }
        }
        true
    }

    /// Meta hears that a statement is whole.
    pub(super) fn finish_statement(&mut self) -> bool {
        let Some(id) = self.pick(&self.finishing.clone()) else { return false };
        self.finishing.retain(|finishing| *finishing != id);
        if self.statements.contains_key(&id) && !self.refused.contains(&id) {
            self.to_name.push(id);
        }
        true
    }

    /// The frontend of a statement dies. Some of what it said may still be on its way.
    pub(super) fn orphan(&mut self) {
        let candidates: Vec<StatementId> = self.statements.keys().copied().collect();
        if let Some(id) = self.pick(&candidates).filter(|id| !self.orphans.contains(id)) {
            self.statistics.orphaned += 1;
            self.orphans.push(id);
        }
    }

    /// An actor that holds a part of a statement whose frontend is gone asks meta. Meta has heard
    /// that it is whole, or will refuse to hear so.
    pub(super) fn inquire(&mut self) -> bool {
        let Some(id) = self.pick(&self.orphans.clone()) else { return false };
        self.orphans.retain(|orphan| *orphan != id);
        if self.statements.contains_key(&id) && !self.to_name.contains(&id) && !self.named.contains(&id) {
            self.refused.insert(id);
            self.abandon(id);
        }
        true
    }

    pub(super) fn abandon(&mut self, id: StatementId) {
        if self.named.contains(&id) {
            return;
        }
        self.statements.remove(&id);
        self.to_name.retain(|named| *named != id);
        self.finishing.retain(|finishing| *finishing != id);
        for runner in self.runners.values_mut() {
            if let Some(statements) = runner.logic.statements() {
                statements.abandon(id);
            }
        }
    }
}

//! The node's core: a pure state machine of the term that a compute node takes part in.
//!
//! It decides which term's messages count, when the node is ready, and when an epoch is durable on
//! all slots. It opens no databases, runs no actors and does not talk to meta; its actions say when
//! to do so.
//!
//! Invariants: a node takes part in one term at a time; events of another term have no effect; an
//! epoch is reported once, after all slots are durable up to it and after every earlier epoch; the
//! report of an epoch in which a job stopped, or an earlier one, says so.

use std::collections::{BTreeMap, BTreeSet};

use weir_common::ids::{Epoch, JobSplit, SlotId, TableId, TermId};
use weir_common::position::Position;

use super::event::{Action, Event, Message, SlotEpoch};
use super::plan::{Barrier, Plan};

/// A compute node.
#[derive(Debug, Default)]
pub struct Node {
    term: Option<ActiveTerm>,
}

#[derive(Debug)]
struct ActiveTerm {
    id: TermId,
    slots: BTreeSet<SlotId>,
    opened: bool,
    /// Epochs injected and not reported yet.
    pending: BTreeMap<Epoch, BTreeMap<SlotId, SlotEpoch>>,
    /// Positions as of the last report.
    reported: BTreeMap<JobSplit, Position>,
    /// Jobs that have stopped since the last report, and why.
    stopped: BTreeMap<TableId, String>,
}

impl Node {
    /// The term that the node takes part in.
    pub fn term(&self) -> Option<TermId> {
        self.term.as_ref().map(|term| term.id)
    }

    /// Applies an event and returns the actions to perform, in order.
    pub fn apply(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Start(plan) => self.start(plan),
            Event::Stop(id) if self.term() == Some(id) => self.close(),
            Event::Disconnected => self.close(),
            Event::Barrier(barrier) => self.barrier(barrier),
            Event::Opened(id, result) => self.opened(id, result),
            Event::SlotDurable(id, slot) => self.slot_durable(id, slot),
            Event::Broken(id, error) | Event::Separated(id, error) if self.term() == Some(id) => self.fail(id, error),
            Event::Committed(id, epoch) if self.term() == Some(id) => vec![Action::Acknowledge(epoch)],
            Event::JobFailed(id, table, error) if self.term() == Some(id) => {
                vec![Action::Send(Message::JobFailed(id, table, error))]
            }
            Event::JobStopped(id, table, error) => {
                if let Some(term) = self.term.as_mut().filter(|term| term.id == id) {
                    term.stopped.entry(table).or_insert(error);
                }
                Vec::new()
            }
            Event::JobWaits(id, table, error) if self.term() == Some(id) => {
                vec![Action::Send(Message::JobWaits(id, table, error))]
            }
            Event::CheckpointWanted(id) if self.term() == Some(id) => vec![Action::Send(Message::WantBarrier(id))],
            Event::Stop(_)
            | Event::Broken(..)
            | Event::Separated(..)
            | Event::Committed(..)
            | Event::JobFailed(..)
            | Event::JobWaits(..)
            | Event::CheckpointWanted(_) => Vec::new(),
        }
    }

    fn start(&mut self, plan: Plan) -> Vec<Action> {
        // A late message of an older term must not displace a newer one.
        if self.term().is_some_and(|current| current.term >= plan.term.term) {
            return Vec::new();
        }
        let mut actions = self.close();
        self.term = Some(ActiveTerm {
            id: plan.term,
            slots: plan.slots.iter().map(|slot| slot.slot).collect(),
            opened: false,
            pending: BTreeMap::new(),
            reported: plan.splits.iter().map(|split| (split.split.clone(), split.position)).collect(),
            stopped: BTreeMap::new(),
        });
        actions.push(Action::Open(plan));
        actions
    }

    fn close(&mut self) -> Vec<Action> {
        self.term.take().map(|term| Action::Close(term.id)).into_iter().collect()
    }

    fn fail(&mut self, id: TermId, error: String) -> Vec<Action> {
        let mut actions = self.close();
        actions.push(Action::Send(Message::Failed(id, error)));
        actions
    }

    fn opened(&mut self, id: TermId, result: Result<(), String>) -> Vec<Action> {
        let Some(term) = self.term.as_mut().filter(|term| term.id == id) else { return Vec::new() };
        match result {
            Ok(()) => {
                term.opened = true;
                vec![Action::Send(Message::Ready(id))]
            }
            Err(error) => self.fail(id, error),
        }
    }

    fn barrier(&mut self, barrier: Barrier) -> Vec<Action> {
        let Some(term) = self.term.as_mut().filter(|term| term.id == barrier.term && term.opened) else {
            return Vec::new();
        };
        let fresh = term.pending.insert(barrier.epoch, BTreeMap::new()).is_none();
        assert!(fresh, "meta injects an epoch once");
        vec![Action::Inject(barrier)]
    }

    fn slot_durable(&mut self, id: TermId, slot: SlotEpoch) -> Vec<Action> {
        let Some(term) = self.term.as_mut().filter(|term| term.id == id) else { return Vec::new() };
        let epoch = slot.epoch;
        let known = term.pending.get_mut(&epoch).map(|slots| slots.insert(slot.slot, slot));
        assert!(matches!(known, Some(None)), "a slot seals each injected epoch once");
        let mut actions = Vec::new();
        while let Some(oldest) = term.pending.first_entry()
            && oldest.get().len() == term.slots.len()
        {
            let (epoch, slots) = oldest.remove_entry();
            actions.push(Action::Send(term.report(epoch, slots)));
        }
        actions
    }
}

impl ActiveTerm {
    fn report(&mut self, epoch: Epoch, slots: BTreeMap<SlotId, SlotEpoch>) -> Message {
        let mut checkpoints = Vec::new();
        let mut positions = Vec::new();
        for slot in slots.into_values() {
            checkpoints.push((slot.slot, slot.checkpoint));
            for (split, position) in slot.positions {
                if self.reported.insert(split.clone(), position) != Some(position) {
                    positions.push((split, position));
                }
            }
        }
        let stopped = std::mem::take(&mut self.stopped).into_iter().collect();
        Message::Report { term: self.id, epoch, checkpoints, positions, stopped }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use weir_common::ids::{Term, VnodeRange};
    use weir_common::telemetry::trace::TraceParent;

    use super::super::plan::SlotPlan;
    use super::*;

    fn term(number: u64) -> TermId {
        TermId { term: Term(number), nonce: number }
    }

    fn plan(number: u64, slots: u32) -> Plan {
        let slot = |slot| SlotPlan {
            slot: SlotId(slot),
            vnodes: VnodeRange::ALL,
            path: format!("{number}/{slot}"),
            sources: Vec::new(),
        };
        Plan {
            term: term(number),
            epoch: Epoch(0),
            slots: (0..slots).map(slot).collect(),
            catalog: Vec::new(),
            splits: Vec::new(),
            routes: Vec::new(),
        }
    }

    fn barrier(number: u64, epoch: u64) -> Event {
        Event::Barrier(Barrier {
            term: term(number),
            epoch: Epoch(epoch),
            lowest_pinned: Epoch(0),
            mutation: None,
            trace: TraceParent::default(),
            statements: Vec::new(),
        })
    }

    fn durable(number: u64, slot: u32, epoch: u64) -> Event {
        let slot = SlotEpoch {
            slot: SlotId(slot),
            epoch: Epoch(epoch),
            checkpoint: Uuid::from_u128(u128::from(epoch)),
            positions: Vec::new(),
        };
        Event::SlotDurable(term(number), slot)
    }

    fn reported(actions: &[Action]) -> Vec<u64> {
        let epoch = |action: &Action| match action {
            Action::Send(Message::Report { epoch, .. }) => Some(epoch.0),
            _ => None,
        };
        actions.iter().filter_map(epoch).collect()
    }

    #[test]
    fn an_epoch_is_reported_when_all_slots_are_durable_and_in_order() {
        let mut node = Node::default();
        node.apply(Event::Start(plan(1, 2)));
        node.apply(Event::Opened(term(1), Ok(())));
        node.apply(barrier(1, 1));
        node.apply(barrier(1, 2));
        assert!(reported(&node.apply(durable(1, 0, 2))).is_empty());
        assert!(reported(&node.apply(durable(1, 1, 2))).is_empty(), "epoch 1 is not durable yet");
        assert!(reported(&node.apply(durable(1, 0, 1))).is_empty());
        assert_eq!(reported(&node.apply(durable(1, 1, 1))), [1, 2]);
    }

    #[test]
    fn a_job_that_stops_is_in_the_next_report_once() {
        let mut node = Node::default();
        node.apply(Event::Start(plan(1, 1)));
        node.apply(Event::Opened(term(1), Ok(())));
        for error in ["division by zero", "of another actor"] {
            assert!(node.apply(Event::JobStopped(term(1), TableId(7), error.to_owned())).is_empty());
        }
        let stopped = |actions: Vec<Action>| match actions.as_slice() {
            [Action::Send(Message::Report { stopped, .. })] => stopped.clone(),
            other => panic!("{other:?}"),
        };
        node.apply(barrier(1, 1));
        node.apply(barrier(1, 2));
        assert_eq!(stopped(node.apply(durable(1, 0, 1))), [(TableId(7), "division by zero".to_owned())]);
        assert_eq!(stopped(node.apply(durable(1, 0, 2))), []);
    }

    #[test]
    fn an_old_term_has_no_effect() {
        let mut node = Node::default();
        node.apply(Event::Start(plan(2, 1)));
        assert!(node.apply(Event::Start(plan(1, 1))).is_empty());
        assert!(node.apply(barrier(1, 1)).is_empty());
        assert!(node.apply(durable(1, 0, 1)).is_empty());
        assert!(node.apply(Event::Committed(term(1), Epoch(1))).is_empty());
        assert_eq!(node.term(), Some(term(2)));
    }

    #[test]
    fn a_new_term_closes_the_old_one_first() {
        let mut node = Node::default();
        node.apply(Event::Start(plan(1, 1)));
        let actions = node.apply(Event::Start(plan(2, 1)));
        assert_eq!(actions, [Action::Close(term(1)), Action::Open(plan(2, 1))]);
    }
}

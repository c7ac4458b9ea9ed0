//! A model of a slot: it applies the writes of its actors, and seals an epoch when all of them have
//! delivered its barrier. Writes of actors that are ahead wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weir_common::ids::{ActorId, Epoch};

use super::jobs::{State, StateKey};

/// Writes of an actor that the slot holds without having applied them.
const WAITING_MAX: usize = 2;

/// A slot.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) node: usize,
    /// The epoch that is open.
    pub(super) open: Epoch,
    injected: VecDeque<(Epoch, BTreeSet<ActorId>)>,
    actors: BTreeMap<ActorId, Member>,
    state: State,
    pub(super) snapshots: BTreeMap<Epoch, State>,
}

#[derive(Debug)]
struct Member {
    /// The barrier behind which it started.
    after: Epoch,
    items: VecDeque<Item>,
}

#[derive(Debug)]
enum Item {
    Write(StateKey, Option<[i64; 2]>),
    Barrier(Epoch),
}

impl Slot {
    pub(super) fn new(node: usize, epoch: Epoch, state: State) -> Slot {
        let snapshots = BTreeMap::from([(epoch, state.clone())]);
        Slot { node, open: epoch.next(), injected: VecDeque::new(), actors: BTreeMap::new(), state, snapshots }
    }

    pub(super) fn start(&mut self, actor: ActorId, after: Epoch) {
        self.actors.insert(actor, Member { after, items: VecDeque::new() });
    }

    /// A barrier comes from meta; actors end with it.
    pub(super) fn inject(&mut self, epoch: Epoch, stopped: BTreeSet<ActorId>) {
        self.injected.push_back((epoch, stopped));
    }

    /// Takes a write unless the actor has too many waiting.
    pub(super) fn write(&mut self, actor: ActorId, key: StateKey, value: Option<[i64; 2]>) -> bool {
        let items = &mut self.actors.get_mut(&actor).expect("an actor of the slot").items;
        let waiting = items.iter().filter(|item| matches!(item, Item::Write(..))).count();
        if waiting >= WAITING_MAX {
            return false;
        }
        items.push_back(Item::Write(key, value));
        true
    }

    pub(super) fn barrier(&mut self, actor: ActorId, epoch: Epoch) {
        self.actors.get_mut(&actor).expect("an actor of the slot").items.push_back(Item::Barrier(epoch));
    }

    /// Returns true if the epoch that the actor writes in is not open yet.
    pub(super) fn is_ahead(&self, actor: ActorId) -> bool {
        let member = &self.actors[&actor];
        member.after >= self.open || member.items.iter().any(|item| matches!(item, Item::Barrier(_)))
    }

    /// Applies the oldest write of one actor that may be applied.
    pub(super) fn apply(&mut self, choice: usize) -> bool {
        let mut actors: Vec<&mut Member> = self.actors.values_mut().collect();
        let first = choice.checked_rem(actors.len()).unwrap_or(0);
        actors.rotate_left(first);
        for actor in actors {
            if actor.after >= self.open {
                continue;
            }
            if let Some(Item::Write(key, value)) = actor.items.pop_front_if(|item| matches!(item, Item::Write(..))) {
                match value {
                    Some(value) => self.state.insert(key, value),
                    None => self.state.remove(&key),
                };
                return true;
            }
        }
        false
    }

    /// Seals the open epoch if it may.
    pub(super) fn seal(&mut self) -> Option<Epoch> {
        let open = self.open;
        let (injected, _) = self.injected.front()?;
        assert_eq!(*injected, open, "barriers come in order");
        let at_end = |member: &Member| match member.items.front() {
            _ if member.after >= open => true,
            Some(Item::Barrier(epoch)) => {
                assert_eq!(*epoch, open, "an actor delivers every barrier");
                true
            }
            _ => false,
        };
        if !self.actors.values().all(at_end) {
            return None;
        }
        let (_, stopped) = self.injected.pop_front().expect("just seen");
        for member in self.actors.values_mut().filter(|member| member.after < open) {
            member.items.pop_front();
        }
        self.actors.retain(|actor, _| !stopped.contains(actor));
        self.snapshots.insert(open, self.state.clone());
        self.open = open.next();
        Some(open)
    }

    /// The rows of a dropped job are removed.
    pub(super) fn forget(&mut self, job: u32) {
        self.state.retain(|(of, ..), _| *of != job);
        self.snapshots.values_mut().for_each(|snapshot| snapshot.retain(|(of, ..), _| *of != job));
    }
}

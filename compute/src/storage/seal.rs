//! The seal of an epoch on a slot: the pure core. It decides which writes may enter the slot's
//! database now, which must wait, and when the database stands exactly at the end of an epoch.
//!
//! An actor that has delivered its barrier is *ahead*: its later writes belong to the next epoch
//! and wait here, in order, until the seal. Writes of actors that are not ahead pass at once. The
//! credits of an actor's channel bound the number of its waiting writes.
//!
//! Invariant: between [`Sealer::seal`] returning an epoch and [`Sealer::sealed`] no write passes;
//! every write of the epoch passed before, and none of a later one did.

use std::collections::{BTreeMap, VecDeque};

use weir_common::ids::{Epoch, JobSplit, TableId};
use weir_common::position::Position;

use crate::control::plan::Writer;

/// Decides when a slot's database stands at the end of an epoch. `W` is a write.
#[derive(Debug)]
pub struct Sealer<W> {
    /// Barriers that were injected and are not sealed yet, oldest first.
    injected: VecDeque<Injected>,
    /// The epoch whose seal is under way.
    sealing: Option<Epoch>,
    /// The newest sealed epoch.
    sealed: Epoch,
    actors: BTreeMap<Writer, Actor<W>>,
    /// Writes that belong to no actor, each with the first epoch that it may be in.
    early: Vec<(Epoch, W)>,
}

#[derive(Debug)]
struct Injected {
    epoch: Epoch,
    /// It is the last barrier for the actors of these tables.
    remove: Vec<TableId>,
}

/// The change of the slot's actors at a barrier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Actors that start: they deliver the barriers after this one.
    pub add: Vec<Writer>,
    /// The tables whose actors stop: this barrier is the last they deliver.
    pub remove: Vec<TableId>,
}

#[derive(Debug)]
struct Actor<W> {
    /// The barrier at which it started. It delivers the later barriers, and its writes belong to
    /// their epochs.
    started: Epoch,
    /// Its writes and barriers that belong to later epochs than the slot's open one. Begins with
    /// the barrier of the open epoch, unless the actor started at an open or later one.
    ahead: VecDeque<Item<W>>,
}

impl<W> Actor<W> {
    fn new(started: Epoch) -> Actor<W> {
        Actor { started, ahead: VecDeque::new() }
    }

    /// Returns true if it delivers the barrier of an epoch.
    fn delivers(&self, epoch: Epoch) -> bool {
        self.started < epoch
    }

    /// Takes the leading writes.
    fn release(&mut self, released: &mut Vec<W>) {
        while let Some(Item::Write(write)) = self.ahead.pop_front_if(|item| matches!(item, Item::Write(_))) {
            released.push(write);
        }
    }
}

#[derive(Debug)]
enum Item<W> {
    Write(W),
    Barrier(Epoch, Option<Position>),
}

/// A sealed epoch: all of its writes are in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The epoch.
    pub epoch: Epoch,
    /// The position of each of the slot's splits at its end.
    pub positions: Vec<(JobSplit, Position)>,
}

impl<W> Sealer<W> {
    /// Creates the sealer of a slot at the committed epoch, with the actors that the term starts
    /// with.
    pub fn new(epoch: Epoch, actors: impl IntoIterator<Item = Writer>) -> Sealer<W> {
        let actors = actors.into_iter().map(|actor| (actor, Actor::new(epoch))).collect();
        Sealer { injected: VecDeque::new(), sealing: None, sealed: epoch, actors, early: Vec::new() }
    }

    /// The open epoch, to which writes that enter the database now belong.
    pub fn open(&self) -> Epoch {
        self.sealed.next()
    }

    /// A barrier is on its way to the actors. Actors that it adds may write from now on.
    ///
    /// # Panics
    /// If its epoch is not above that of the barrier before, or it adds an actor that is there
    /// already.
    pub fn inject(&mut self, epoch: Epoch, change: Change) {
        assert!(self.injected.back().is_none_or(|last| last.epoch < epoch), "barriers come in order");
        for added in change.add {
            let before = self.actors.insert(added, Actor::new(epoch));
            assert!(before.is_none(), "an actor is added once");
        }
        self.injected.push_back(Injected { epoch, remove: change.remove });
    }

    /// Takes an actor's write. Returns it if it may enter the database now, and keeps it otherwise.
    ///
    /// # Panics
    /// If the actor was not added, or is removed.
    pub fn write(&mut self, actor: &Writer, write: W) -> Option<W> {
        let (sealed, sealing) = (self.sealed, self.sealing.is_some());
        let actor = self.known(actor);
        if actor.ahead.is_empty() && actor.delivers(sealed.next()) && !sealing {
            return Some(write);
        }
        actor.ahead.push_back(Item::Write(write));
        None
    }

    /// Takes a write that belongs to no actor, for an epoch no earlier than `not_before`. Returns
    /// it if it may enter the database now, and keeps it otherwise.
    pub fn write_no_earlier(&mut self, not_before: Epoch, write: W) -> Option<W> {
        if self.open() >= not_before && self.sealing.is_none() {
            return Some(write);
        }
        self.early.push((not_before, write));
        None
    }

    /// Takes an actor's barrier. One that reads a split delivers its position with it, and has
    /// written everything below the position.
    ///
    /// # Panics
    /// If the actor was not added, or is removed.
    pub fn barrier(&mut self, actor: &Writer, epoch: Epoch, position: Option<Position>) {
        self.known(actor).ahead.push_back(Item::Barrier(epoch, position));
    }

    fn known(&mut self, actor: &Writer) -> &mut Actor<W> {
        self.actors.get_mut(actor).expect("an actor sends nothing before it is added and after it is removed")
    }

    /// Returns the oldest injected epoch once every actor has delivered its barrier. The caller now
    /// seals it. No write passes until [`Sealer::sealed`].
    pub fn seal(&mut self) -> Option<Seal> {
        let open = self.injected.front().filter(|_| self.sealing.is_none())?.epoch;
        let delivered = |actor: &Actor<W>| match actor.ahead.front() {
            Some(Item::Barrier(epoch, position)) => {
                assert_eq!(*epoch, open, "an actor delivers every barrier");
                Some(*position)
            }
            Some(Item::Write(_)) => unreachable!("what an actor has waiting begins with a barrier"),
            None => None,
        };
        let mut positions = Vec::new();
        for (writer, actor) in self.actors.iter().filter(|(_, actor)| actor.delivers(open)) {
            if let (Some(position), Writer::Split(split)) = (delivered(actor)?, writer) {
                positions.push((split.clone(), position));
            }
        }
        self.sealing = Some(open);
        Some(Seal { epoch: open, positions })
    }

    /// The epoch that [`Sealer::seal`] returned is sealed. Returns the waiting writes that may
    /// enter now: those of actors in the order of each actor, then those that belong to no actor.
    ///
    /// # Panics
    /// If no seal is under way.
    pub fn sealed(&mut self) -> Vec<W> {
        assert!(self.sealing.take().is_some(), "a seal is under way");
        let Injected { epoch, remove } = self.injected.pop_front().expect("the epoch that was sealed");
        self.sealed = epoch;
        if !remove.is_empty() {
            self.actors.retain(|actor, _| !remove.contains(&actor.job()));
        }
        let mut released = Vec::new();
        for actor in self.actors.values_mut().filter(|actor| actor.delivers(epoch.next())) {
            if actor.delivers(epoch) {
                let barrier = actor.ahead.pop_front();
                assert!(matches!(barrier, Some(Item::Barrier(delivered, _)) if delivered == epoch));
            }
            actor.release(&mut released);
        }
        let open = self.open();
        released.extend(self.early.extract_if(.., |(not_before, _)| *not_before <= open).map(|(_, write)| write));
        released
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_common::ids::{Sequence, SplitId, TableId};

    use super::*;

    fn split(number: u32) -> JobSplit {
        JobSplit { job: TableId(number), split: SplitId("s".to_owned()) }
    }

    fn actor(number: u32) -> Writer {
        split(number).into()
    }

    #[test]
    fn a_slot_without_actors_seals_at_once() {
        let mut sealer = Sealer::<u8>::new(Epoch(0), []);
        sealer.inject(Epoch(1), Change::default());
        assert_eq!(sealer.seal(), Some(Seal { epoch: Epoch(1), positions: vec![] }));
        assert_eq!(sealer.seal(), None, "one seal at a time");
        assert!(sealer.sealed().is_empty());
    }

    #[test]
    fn an_added_actor_delivers_the_barriers_after_the_one_that_added_it() {
        let mut sealer = Sealer::<u8>::new(Epoch(0), []);
        sealer.inject(Epoch(1), Change { add: vec![actor(1)], remove: Vec::new() });
        sealer.inject(Epoch(2), Change { add: vec![], remove: vec![TableId(1)] });
        sealer.inject(Epoch(3), Change::default());
        assert_eq!(sealer.write(&actor(1), 6), None, "its first epoch is not open yet");
        assert!(sealer.seal().is_some());
        assert_eq!(sealer.sealed(), [6]);
        assert_eq!(sealer.seal(), None, "the new actor has not delivered yet");
        assert_eq!(sealer.write(&actor(1), 7), Some(7));
        sealer.barrier(&actor(1), Epoch(2), Some(Sequence(8).into()));
        assert_eq!(sealer.seal().map(|seal| seal.positions), Some(vec![(split(1), Sequence(8).into())]));
        sealer.sealed();
        assert!(sealer.seal().is_some(), "the removed actor is not waited for");
    }

    proptest! {
        /// Actors write the numbers 0, 1, 2, … and deliver barriers at arbitrary points,
        /// arbitrarily interleaved. Each seal must find in the database exactly the numbers below
        /// each actor's position.
        #[test]
        fn a_seal_cuts_every_actor_at_its_position(steps in prop::collection::vec((0u32..3, any::<bool>(), any::<bool>()), 1..200)) {
            let mut sealer = Sealer::<(u32, u64)>::new(Epoch(0), (0..3).map(actor));
            let mut database: Vec<(u32, u64)> = Vec::new();
            let mut next = [0u64; 3];
            let mut epochs = [0u64; 3];
            let mut injected = 0;
            let mut sealed = 0;
            for (number, is_barrier, try_seal) in steps {
                let index = number as usize;
                if is_barrier {
                    epochs[index] += 1;
                    if epochs[index] > injected {
                        injected += 1;
                        sealer.inject(Epoch(injected), Change::default());
                    }
                    sealer.barrier(&actor(number), Epoch(epochs[index]), Some(Sequence(next[index]).into()));
                } else {
                    database.extend(sealer.write(&actor(number), (number, next[index])));
                    next[index] += 1;
                }
                if try_seal && let Some(seal) = sealer.seal() {
                    sealed += 1;
                    prop_assert_eq!(seal.epoch, Epoch(sealed));
                    for (number, (_, position)) in (0u32..3).zip(&seal.positions) {
                        let written: Vec<u64> = database.iter().filter(|row| row.0 == number).map(|row| row.1).collect();
                        prop_assert_eq!(written, (0..position.next.0).collect::<Vec<_>>());
                    }
                    database.extend(sealer.sealed());
                }
            }
        }
    }
}

//! The builds of a reader's consumer, step by step: each may fail between two steps, or end with
//! the reader's process.

use weir_common::ids::Sequence;
use weir_common::position::Position;

use super::{Building, PACE, World};
use crate::delivery::{Delivery, Event, Fence};
use crate::identity::Another;
use crate::retention::Retention;

impl World {
    pub(super) fn complete_build(&mut self) {
        let Some(building) = self.building.take().filter(|_| self.connected) else { return };
        let Building { incarnation, committed, fetch, position } = building;
        let position = match self.judged(position) {
            Ok(anchor) => Position { anchor, ..position },
            // Uncertain ones are never taken for certain here: the evidence has to do.
            Err(Another { certain, .. }) if self.follows && (certain || self.settles) => {
                return self.begin_anew(incarnation);
            }
            Err(Another { certain: true, .. }) => return self.apply(Event::Parted { incarnation }),
            Err(Another { certain: false, .. }) => return self.apply(Event::BuildFailed { incarnation }),
        };
        let position = if fetch { self.fetch(position) } else { position };
        if fetch && self.retention != Retention::Limits {
            self.apply(Event::Fetched { incarnation, position });
            return;
        }
        if self.retention == Retention::Limits {
            self.create(position.next.0);
        } else {
            self.build_steps(committed.0, usize::MAX);
        }
        self.wire.clear();
        self.confirmed = false;
        self.holds_pin = false;
        self.mine = Some((incarnation, self.creations));
        self.apply(Event::Built { incarnation, terms: self.terms, position });
    }

    /// The first steps of a build where acknowledgements delete messages.
    pub(super) fn build_steps(&mut self, committed: u64, steps: usize) {
        if self.terms.fence == Fence::Pinned {
            let make = |world: &mut World| {
                if world.consumer.is_none() {
                    world.create(committed);
                }
            };
            let start_over = |world: &mut World| {
                world.reset(committed);
                // Its own older requests are nobody's.
                world.consumer.as_mut().expect("it was made").requested = 0;
            };
            let all: [&dyn Fn(&mut World); 3] = [&make, &World::unpin, &start_over];
            return all.iter().take(steps).for_each(|step| step(self));
        }
        let prepare = |world: &mut World| match world.retention {
            Retention::WorkQueue => {
                let uncommitted = world.unreadable.split_off(&committed);
                let known = std::mem::replace(&mut world.unreadable, uncommitted);
                known.into_iter().for_each(|sequence| world.remove(sequence));
            }
            Retention::Interest => world.guard = world.guard.or(Some(committed)),
            Retention::Limits => {}
        };
        let create = |world: &mut World| match world.retention {
            Retention::WorkQueue => world.create(0),
            Retention::Interest | Retention::Limits => world.create(committed),
        };
        let all: [&dyn Fn(&mut World); 3] = [&prepare, &World::delete, &create];
        all.iter().take(steps).for_each(|step| step(self));
    }

    /// A few messages, until the one that is to blame is among them; where it could be.
    fn fetch(&mut self, mut position: Position) -> Position {
        if self.retention == Retention::WorkQueue {
            let below = self.poison.range(..position.next.0).filter(|sequence| !self.removed.contains(*sequence));
            self.unreadable = below.copied().collect();
        }
        while let Some(next) = self.stream.iter().copied().find(|next| *next >= position.next.0) {
            self.accept(next);
            position.next = Sequence(next + 1);
            position.anchor.read(next, self.times[&next]);
            if self.poison.contains(&next) {
                self.unreadable.insert(next);
                break;
            }
            if next % 4 == 0 {
                break;
            }
        }
        position
    }

    /// The reader's process dies, in the middle of a build perhaps, and another begins where the
    /// last commit was.
    pub(super) fn kill(&mut self, after: usize) {
        if let Some(building) = self.building.take().filter(|_| self.connected)
            && self.judged(building.position).is_ok()
        {
            self.build_steps(building.committed.0, after);
        }
        self.disconnect();
        self.mine = None;
        self.unreadable.clear();
        let anchor = self.return_to_commit();
        self.machine = Delivery::new(Position { next: Sequence(self.durable), anchor }, PACE);
    }
}

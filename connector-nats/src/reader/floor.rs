//! Whether acknowledgements arrive: the consumer's ack floor has to follow what was acknowledged. Pure.
//!
//! Acknowledgements are not answered, so nothing else tells that nobody receives them. Such a consumer ends up delivering
//! nothing, once as much waits for its acknowledgement as may.

use crate::delivery::Millis;

/// How often the consumer is looked at while something acknowledged lies above its floor.
const LOOK_MS: Millis = 2_000;
/// How often it is looked at while nothing comes.
const IDLE_LOOK_MS: Millis = 10_000;
/// How long the floor has to stand still below what was acknowledged.
const STANDS_MS: Millis = 6_000;

/// The ack floor of the consumer that is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    /// The highest sequence that was acknowledged.
    acked: u64,
    /// As far as is known.
    floor: u64,
    /// Since when it stands there, and how far it should have come by then.
    since: Millis,
    due: u64,
    looked_at: Millis,
}

impl Floor {
    /// That of a consumer that was just made, and so has nothing acknowledged.
    pub(super) fn new(now: Millis) -> Floor {
        Floor { since: now, looked_at: now, ..Floor::default() }
    }

    /// An acknowledgement was sent.
    pub(super) fn acked(&mut self, sequence: u64) {
        self.acked = self.acked.max(sequence);
    }

    /// Whether it is time to look at the consumer; `heard_at`: when a message came last. Takes note of the look.
    pub(super) fn wants_look(&mut self, now: Millis, heard_at: Millis) -> bool {
        let every = if self.acked > self.floor { LOOK_MS } else { IDLE_LOOK_MS };
        let idle = now >= heard_at + IDLE_LOOK_MS;
        let due = now >= self.looked_at + every && (idle || self.acked > self.floor);
        if due {
            self.looked_at = now;
        }
        due
    }

    /// The consumer was looked at. Whether its floor stands still although what lies above it was acknowledged long ago.
    pub(super) fn stands_still(&mut self, now: Millis, floor: u64, ack_pending: u64) -> bool {
        if floor != self.floor || floor >= self.due || ack_pending == 0 {
            *self = Floor { floor, since: now, due: self.acked, ..self.clone() };
            if ack_pending == 0 {
                // Everything that was delivered is acknowledged, wherever the floor is said to be.
                self.floor = self.floor.max(self.acked);
            }
            return false;
        }
        now >= self.since + STANDS_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_that_follows_is_as_it_should_be() {
        let mut floor = Floor::new(0);
        assert!(!floor.wants_look(9_999, 0));
        for round in 1..10 {
            floor.acked(round * 100);
            let now = round * LOOK_MS;
            assert!(floor.wants_look(now, now), "{round}");
            // A little behind.
            assert!(!floor.stands_still(now, round * 100 - 50, 50), "{round}");
        }
        assert!(!floor.stands_still(100_000, 900, 0));
        assert!(!floor.wants_look(100_001, 100_000), "everything has arrived");
        assert!(floor.wants_look(110_000, 100_000), "nothing comes");
    }

    #[test]
    fn a_floor_that_stands_still_below_what_was_acknowledged_is_noticed() {
        let mut floor = Floor::new(0);
        floor.acked(100);
        assert!(!floor.stands_still(2_000, 0, 100));
        assert!(!floor.stands_still(7_999, 0, 100));
        floor.acked(200);
        assert!(floor.stands_still(8_000, 0, 200));
        assert!(floor.stands_still(60_000, 0, 200));
        assert!(!floor.stands_still(61_000, 50, 150), "it moves");
        assert!(!floor.stands_still(63_000, 200, 3), "what is left was not acknowledged");
    }

    #[test]
    fn what_was_not_acknowledged_is_not_waited_for() {
        let mut floor = Floor::new(0);
        assert!(!floor.stands_still(2_000, 0, 100));
        assert!(!floor.stands_still(60_000, 0, 100));
    }
}

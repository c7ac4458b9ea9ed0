//! When a reader's trouble is worth a line in the log: never silent, never a flood. Pure.

use weir_common::condition::SplitState;

use crate::delivery::Millis;

/// A lost connection that lasts this long is no longer what operation brings along.
const LASTING_MS: Millis = 30_000;
/// Trouble that somebody has to mend rarely passes by itself within this time.
const PATIENCE_MS: Millis = 5_000;
/// Lines about recoveries are this far apart.
const RECOVERY_MS: Millis = 500;
/// Lines about what the server denies are this far apart.
pub(super) const DENIAL_MS: Millis = 30_000;

/// Keeps lines of one sort apart, and counts those that are left out.
#[derive(Clone, Debug)]
pub(super) struct Spacing {
    apart_ms: Millis,
    last: Option<Millis>,
    suppressed: u64,
}

impl Spacing {
    pub(super) fn new(apart_ms: Millis) -> Spacing {
        Spacing { apart_ms, last: None, suppressed: 0 }
    }

    /// Whether a line may be written, and how many were not since the last one.
    pub(super) fn pass(&mut self, now: Millis) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + self.apart_ms) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// A time in which the split is not read as it should be, and the lines about it: one warning for each state that lasts.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    state: SplitState,
    /// When the state began.
    since: Millis,
    /// When the split was last read as it should be.
    began: Option<Millis>,
    /// The state that was warned of last.
    warned: Option<SplitState>,
    recoveries: Spacing,
}

impl Outage {
    pub(super) fn new() -> Outage {
        Outage {
            state: SplitState::Reading,
            since: 0,
            began: None,
            warned: None,
            recoveries: Spacing::new(RECOVERY_MS),
        }
    }

    /// Takes note of the split's state. Returns how long the trouble lasted, if this ends one that was warned of.
    pub(super) fn observe(&mut self, now: Millis, state: SplitState) -> Option<Millis> {
        if state != self.state {
            (self.state, self.since) = (state, now);
        }
        if state == SplitState::Reading {
            return self.end(now);
        }
        self.began.get_or_insert(now);
        None
    }

    /// Reading goes on; how long it stood still, if that was warned of.
    pub(super) fn end(&mut self, now: Millis) -> Option<Millis> {
        let warned = self.warned.take().is_some();
        self.began.take().filter(|_| warned).map(|began| now - began)
    }

    /// How long the trouble has lasted, if a warning is due.
    pub(super) fn warning(&mut self, now: Millis) -> Option<Millis> {
        let lasted = now - self.began?;
        let patience = if self.state == SplitState::Disconnected { LASTING_MS } else { PATIENCE_MS };
        let due = match self.warned {
            // Whatever the states are that take turns.
            None => now >= self.since + patience || lasted >= LASTING_MS,
            Some(warned) => warned != self.state && now >= self.since + patience,
        };
        due.then(|| {
            self.warned = Some(self.state);
            lasted
        })
    }

    /// Whether a line about a recovery may be written, and how many were not since the last one.
    pub(super) fn recovery(&mut self, now: Millis) -> Option<u64> {
        self.recoveries.pass(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_warned_of_once_if_it_lasts() {
        let mut outage = Outage::new();
        outage.observe(1000, SplitState::Disconnected);
        outage.observe(2000, SplitState::Disconnected);
        assert_eq!(outage.warning(30_999), None);
        assert_eq!(outage.warning(31_000), Some(30_000));
        assert_eq!(outage.warning(300_000), None);
        assert_eq!(outage.observe(300_001, SplitState::Reading), Some(299_001));
        assert_eq!(outage.warning(900_000), None);
        outage.observe(900_000, SplitState::Disconnected);
        assert_eq!(outage.observe(900_002, SplitState::Reading), None);
    }

    #[test]
    fn what_somebody_has_to_mend_is_warned_of_soon_and_a_change_once_more() {
        let mut outage = Outage::new();
        outage.observe(0, SplitState::Disconnected);
        outage.observe(1000, SplitState::Stalled);
        assert_eq!(outage.warning(5_999), None);
        assert_eq!(outage.warning(6_000), Some(6_000));
        outage.observe(7_000, SplitState::Stopped);
        assert_eq!(outage.warning(7_000), None);
        assert_eq!(outage.warning(12_000), Some(12_000));
        assert_eq!(outage.warning(20_000), None);
        assert_eq!(outage.end(21_000), Some(21_000));
    }

    #[test]
    fn states_that_take_turns_are_warned_of_together() {
        let mut outage = Outage::new();
        let states = [SplitState::Disconnected, SplitState::Stalled];
        let turns = (0..40).filter(|second| {
            outage.observe(second * 1000, states[usize::from(second % 2 == 0)]);
            outage.warning(second * 1000).is_some()
        });
        assert_eq!(turns.collect::<Vec<_>>(), [30]);
    }

    #[test]
    fn a_storm_of_recoveries_is_counted_instead_of_logged() {
        let mut outage = Outage::new();
        assert_eq!(outage.recovery(0), Some(0));
        assert_eq!(outage.recovery(100), None);
        assert_eq!(outage.recovery(200), None);
        assert_eq!(outage.recovery(500), Some(2));
    }
}

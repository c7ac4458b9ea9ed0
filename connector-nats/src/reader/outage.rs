//! When a reader's trouble is worth a line in the log: never silent, never a flood. Pure.

use crate::delivery::Millis;

/// Trouble that lasts this long is no longer what operation brings along.
const LASTING_MS: Millis = 30_000;
/// Lines about trouble that goes on are this far apart.
const REPEAT_MS: Millis = 30_000;
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

/// A time without reading, and the lines about it.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    began: Option<Millis>,
    reported: Option<Millis>,
    recoveries: Spacing,
}

impl Outage {
    pub(super) fn new() -> Outage {
        Outage { began: None, reported: None, recoveries: Spacing::new(RECOVERY_MS) }
    }

    /// Reading stands still; the first call of several counts.
    pub(super) fn begin(&mut self, now: Millis) {
        self.began.get_or_insert(now);
    }

    /// Reading goes on; how long it stood still, if a warning had been due.
    pub(super) fn end(&mut self, now: Millis) -> Option<Millis> {
        let warned = self.reported.take().is_some();
        self.began.take().filter(|_| warned).map(|began| now - began)
    }

    /// How long reading has stood still, if a warning is due.
    pub(super) fn warning(&mut self, now: Millis) -> Option<Millis> {
        let lasted = now - self.began?;
        let due = lasted >= LASTING_MS && self.reported.is_none_or(|reported| now >= reported + REPEAT_MS);
        due.then(|| {
            self.reported = Some(now);
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
    fn short_trouble_is_not_warned_of_and_long_trouble_is_repeated() {
        let mut outage = Outage::new();
        outage.begin(1000);
        outage.begin(2000);
        assert_eq!(outage.warning(30_999), None);
        assert_eq!(outage.warning(31_000), Some(30_000));
        assert_eq!(outage.warning(40_000), None);
        assert_eq!(outage.warning(61_000), Some(60_000));
        assert_eq!(outage.end(62_000), Some(61_000));
        assert_eq!(outage.warning(200_000), None);
        outage.begin(1);
        assert_eq!(outage.end(2), None);
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

//! `consumer.rate_limit`, kept by the reader because pull consumers know no such limit: after each burst reading pauses
//! for as long as the burst should have taken. Pure.

use std::time::Duration;

use crate::delivery::Millis;

#[derive(Clone, Debug)]
pub(super) struct Throttle {
    bits_per_second: Option<u64>,
    /// When everything read so far has been paid for, in microseconds.
    paid_at: u64,
}

impl Throttle {
    pub(super) fn new(bits_per_second: Option<u64>) -> Throttle {
        Throttle { bits_per_second, paid_at: 0 }
    }

    /// A burst of `bytes` was read.
    pub(super) fn spend(&mut self, now: Millis, bytes: u64) {
        if let Some(rate) = self.bits_per_second {
            let micros = u128::from(bytes) * 8 * 1_000_000 / u128::from(rate);
            let micros = u64::try_from(micros).unwrap_or(u64::MAX);
            self.paid_at = self.paid_at.max(now.saturating_mul(1000)).saturating_add(micros);
        }
    }

    /// How long reading has to pause.
    pub(super) fn pause(&self, now: Millis) -> Option<Duration> {
        let ahead = self.paid_at.saturating_sub(now.saturating_mul(1000));
        // Timers are no finer.
        (ahead >= 1000).then(|| Duration::from_micros(ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_paid_for_in_time() {
        let mut throttle = Throttle::new(Some(8_000));
        assert_eq!(throttle.pause(0), None);
        throttle.spend(0, 500);
        assert_eq!(throttle.pause(0), Some(Duration::from_millis(500)));
        throttle.spend(100, 500);
        assert_eq!(throttle.pause(400), Some(Duration::from_millis(600)));
        assert_eq!(throttle.pause(1000), None);
        throttle.spend(5000, 1);
        assert_eq!(throttle.pause(5000), Some(Duration::from_millis(1)), "idle time is not saved up");
    }

    #[test]
    fn without_a_limit_nothing_pauses() {
        let mut throttle = Throttle::new(None);
        throttle.spend(0, u64::MAX);
        assert_eq!(throttle.pause(0), None);
    }
}

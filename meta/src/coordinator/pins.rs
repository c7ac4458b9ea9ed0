//! Pins: epochs that running statements read, each with a lease so that a lost frontend holds nothing for long.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_common::ids::Epoch;

/// How long a pin lives without being renewed.
pub const PIN_LEASE: Duration = Duration::from_secs(10);

/// The pins in use.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    last: u64,
    held: BTreeMap<u64, Pin>,
}

#[derive(Clone, Copy, Debug)]
struct Pin {
    epoch: Epoch,
    deadline: Duration,
}

impl Pins {
    /// Pins an epoch from `now` on.
    pub fn take(&mut self, epoch: Epoch, now: Duration) -> u64 {
        self.last += 1;
        self.held.insert(self.last, Pin { epoch, deadline: now + PIN_LEASE });
        self.last
    }

    /// Extends the leases of pins; those that ran out stay gone.
    pub fn renew(&mut self, pins: &[u64], now: Duration) {
        for pin in pins {
            if let Some(held) = self.held.get_mut(pin) {
                held.deadline = now + PIN_LEASE;
            }
        }
    }

    /// Gives pins up.
    pub fn release(&mut self, pins: &[u64]) {
        for pin in pins {
            self.held.remove(pin);
        }
    }

    /// Forgets pins whose lease ran out and returns the lowest epoch still pinned.
    pub fn lowest(&mut self, now: Duration) -> Option<Epoch> {
        self.held.retain(|_, pin| pin.deadline > now);
        self.held.values().map(|pin| pin.epoch).min()
    }

    /// Forgets every pin: they belonged to a term that ended.
    pub fn clear(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_holds_its_epoch_until_released_or_expired() {
        let second = Duration::from_secs(1);
        let mut pins = Pins::default();
        let old = pins.take(Epoch(3), Duration::ZERO);
        let new = pins.take(Epoch(5), Duration::ZERO);
        assert_eq!(pins.lowest(second), Some(Epoch(3)));
        pins.release(&[old]);
        assert_eq!(pins.lowest(second), Some(Epoch(5)));
        pins.renew(&[new], 5 * second);
        assert_eq!(pins.lowest(12 * second), Some(Epoch(5)));
        assert_eq!(pins.lowest(16 * second), None);
    }
}

//! How far a reader is, for metrics: written by the task, read from anywhere.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use weir_common::ids::Sequence;

/// How far a reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The next sequence to read. As in what follows, the incarnation of the stream is part of it.
    pub position: Sequence,
    /// Everything below is committed.
    pub committed: Sequence,
    /// The last place in the stream, as far as is known.
    pub stream_last: Sequence,
    /// How many messages the consumer has still to deliver, as far as is known.
    pub lag: u64,
    /// Whether messages are being read: connected, and with a consumer.
    pub reading: bool,
    /// Deliveries of messages that had been read before.
    pub redelivered: u64,
    /// Builds of the consumer after the first.
    pub rebuilds: u64,
    /// Messages that the stream lost before they were read.
    pub lost: u64,
    /// How many deliveries of the consumer being read have come. What they brought is below the position.
    pub delivered: u64,
    /// When the newest message that was read was stored, in nanoseconds since 1970; 0: none was read yet.
    pub read_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Gauges {
    position: AtomicU64,
    committed: AtomicU64,
    stream_last: AtomicU64,
    lag: AtomicU64,
    reading: AtomicBool,
    redelivered: AtomicU64,
    rebuilds: AtomicU64,
    lost: AtomicU64,
    read_ns: AtomicU64,
    /// Written last and read first, so that the position is never behind it.
    delivered: AtomicU64,
}

impl Gauges {
    pub(super) fn new(position: Sequence) -> Gauges {
        let gauges = Gauges::default();
        gauges.position.store(position.0, Ordering::Relaxed);
        gauges.committed.store(position.0, Ordering::Relaxed);
        gauges
    }

    pub(super) fn store(&self, status: Status) {
        self.position.store(status.position.0, Ordering::Relaxed);
        self.committed.store(status.committed.0, Ordering::Relaxed);
        self.stream_last.store(status.stream_last.0, Ordering::Relaxed);
        self.lag.store(status.lag, Ordering::Relaxed);
        self.reading.store(status.reading, Ordering::Relaxed);
        self.redelivered.store(status.redelivered, Ordering::Relaxed);
        self.rebuilds.store(status.rebuilds, Ordering::Relaxed);
        self.lost.store(status.lost, Ordering::Relaxed);
        self.read_ns.store(status.read_ns, Ordering::Relaxed);
        self.delivered.store(status.delivered, Ordering::Release);
    }

    pub(super) fn snapshot(&self) -> Status {
        let delivered = self.delivered.load(Ordering::Acquire);
        Status {
            delivered,
            position: Sequence(self.position.load(Ordering::Relaxed)),
            committed: Sequence(self.committed.load(Ordering::Relaxed)),
            stream_last: Sequence(self.stream_last.load(Ordering::Relaxed)),
            lag: self.lag.load(Ordering::Relaxed),
            reading: self.reading.load(Ordering::Relaxed),
            redelivered: self.redelivered.load(Ordering::Relaxed),
            rebuilds: self.rebuilds.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            read_ns: self.read_ns.load(Ordering::Relaxed),
        }
    }
}

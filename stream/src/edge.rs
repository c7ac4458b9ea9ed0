//! An edge: the way of changes from one actor to another. It carries chunks and barriers in order;
//! credits flow back.
//!
//! Credits are bytes. Each edge owns a *floor* of them that no other edge can use, so an edge
//! always moves once its receiver does. Beyond the floor the receiver's node lends from a [`Pool`],
//! and only for rows of its oldest unsealed epoch. A sender that has left the epoch of a loan
//! returns it as soon as it is unused; otherwise rows behind a barrier would hold what those before
//! it wait for.
//!
//! Barriers need no credits: rows that cannot move never keep a barrier of another edge waiting.
//!
//! Invariants: the bytes that a receiver holds for an edge never exceed the floor and its loans,
//! one oversized chunk aside, which passes only over an empty edge; a pool lends no byte twice.

use std::collections::VecDeque;

use weir_common::ids::Epoch;

/// The size of a chunk in memory.
pub trait Weight {
    /// Bytes, at least one.
    fn bytes(&self) -> u64;
}

/// A part of an edge's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<C> {
    /// Changes.
    Chunk {
        /// The changes.
        chunk: C,
        /// The sender has more but no credit for it.
        starved: bool,
    },
    /// The end of an epoch.
    Barrier(Epoch),
    /// Bytes of loans that the sender does not use any more.
    Return(u64),
}

/// The right to send more, granted by the receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Bytes that the receiver has taken from the edge, or the floor of an edge that opens.
    pub bytes: u64,
    /// Bytes on top.
    pub loan: Option<Loan>,
}

/// Bytes of a pool, usable for rows of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loan {
    /// The epoch.
    pub epoch: Epoch,
    /// The bytes.
    pub bytes: u64,
}

/// The memory of a node that any of its edges may use for rows of the oldest unsealed epoch.
#[derive(Debug)]
pub struct Pool {
    free: u64,
    oldest: Epoch,
}

impl Pool {
    /// A pool of some bytes on a node whose oldest unsealed epoch is `oldest`.
    pub fn new(bytes: u64, oldest: Epoch) -> Pool {
        Pool { free: bytes, oldest }
    }

    /// Bytes that are not lent.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// All slots of the node have sealed the epochs before this one.
    pub fn advance(&mut self, oldest: Epoch) {
        debug_assert!(self.oldest <= oldest, "sealed epochs stay sealed");
        self.oldest = oldest;
    }

    pub(crate) fn take_back(&mut self, bytes: u64) {
        self.free += bytes;
    }

    fn lend(&mut self, epoch: Epoch, bytes_max: u64) -> Option<Loan> {
        let bytes = self.free.min(bytes_max);
        if epoch != self.oldest || bytes == 0 {
            return None;
        }
        self.free -= bytes;
        Some(Loan { epoch, bytes })
    }
}

/// The sending end of an edge.
#[derive(Debug)]
pub struct Sender<C> {
    queue: VecDeque<Queued<C>>,
    /// Chunks in the queue.
    chunks: usize,
    /// The epoch of the rows at the head of the queue.
    epoch: Epoch,
    /// Bytes that may be sent; below zero after an oversized chunk.
    available: i64,
    /// Bytes sent that the receiver has not taken yet.
    outstanding: u64,
    /// The bytes that are lent, and their epoch.
    loan: Loan,
}

#[derive(Debug)]
enum Queued<C> {
    Chunk(C),
    Barrier(Epoch),
}

impl<C: Weight> Sender<C> {
    /// The end of an edge whose first rows are of `epoch`. It has no credit until the receiver
    /// grants the floor.
    pub fn new(epoch: Epoch) -> Sender<C> {
        let loan = Loan { epoch, bytes: 0 };
        Sender { queue: VecDeque::new(), chunks: 0, epoch, available: 0, outstanding: 0, loan }
    }

    /// Queues a chunk.
    pub fn chunk(&mut self, chunk: C) {
        self.queue.push_back(Queued::Chunk(chunk));
        self.chunks += 1;
    }

    /// Queues the end of an epoch.
    pub fn barrier(&mut self, epoch: Epoch) {
        self.queue.push_back(Queued::Barrier(epoch));
    }

    /// Takes in what the receiver grants.
    pub fn credit(&mut self, credit: Credit) {
        self.outstanding = self.outstanding.saturating_sub(credit.bytes);
        self.available += signed(credit.bytes);
        if let Some(loan) = credit.loan {
            self.available += signed(loan.bytes);
            self.loan = Loan { epoch: loan.epoch, bytes: self.loan.bytes + loan.bytes };
        }
    }

    /// Returns true if all chunks have left.
    pub fn is_clear(&self) -> bool {
        self.chunks == 0
    }

    /// Throws away the chunks that have not left; barriers stay.
    pub fn discard(&mut self) {
        self.queue.retain(|queued| matches!(queued, Queued::Barrier(_)));
        self.chunks = 0;
    }

    /// Returns true if nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Nothing is queued any more. The receiver takes back by itself what it has lent.
    pub fn close(&mut self) {
        self.loan.bytes = 0;
    }

    /// The next frame that may leave now.
    pub fn poll(&mut self) -> Option<Frame<C>> {
        if let Some(unused) = self.take_unused_loan() {
            return Some(Frame::Return(unused));
        }
        match self.queue.front()? {
            Queued::Barrier(epoch) => {
                let epoch = *epoch;
                self.queue.pop_front();
                self.epoch = epoch.next();
                Some(Frame::Barrier(epoch))
            }
            Queued::Chunk(chunk) if self.fits(chunk.bytes()) => {
                let Some(Queued::Chunk(chunk)) = self.queue.pop_front() else { unreachable!("just seen") };
                self.chunks -= 1;
                self.available -= signed(chunk.bytes());
                self.outstanding += chunk.bytes();
                let next = self.queue.front();
                let starved = matches!(next, Some(Queued::Chunk(next)) if !self.fits(next.bytes()));
                Some(Frame::Chunk { chunk, starved })
            }
            Queued::Chunk(_) => None,
        }
    }

    fn fits(&self, bytes: u64) -> bool {
        signed(bytes) <= self.available || (self.outstanding == 0 && self.available > 0)
    }

    /// The part of a loan for an earlier epoch that no row under way occupies.
    fn take_unused_loan(&mut self) -> Option<u64> {
        let is_over = self.epoch > self.loan.epoch;
        let unused = self.loan.bytes.min(u64::try_from(self.available).unwrap_or(0));
        if !is_over || unused == 0 {
            return None;
        }
        self.loan.bytes -= unused;
        self.available -= signed(unused);
        Some(unused)
    }
}

/// The receiving end of an edge: frames that came and were not taken yet.
#[derive(Debug)]
pub struct Receiver<C> {
    queue: VecDeque<Queued<(C, bool)>>,
    /// The epoch of the rows at the head of the queue.
    epoch: Epoch,
    floor: u64,
    lent: u64,
}

/// The head of a receiver's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Nothing.
    Empty,
    /// A chunk of the epoch that is being received.
    Chunk,
    /// The end of this epoch.
    Barrier(Epoch),
}

impl<C: Weight> Receiver<C> {
    /// Opens the edge: the first rows are of `epoch`, and the sender gets the floor as its credit.
    pub fn open(epoch: Epoch, floor: u64) -> (Receiver<C>, Credit) {
        let receiver = Receiver { queue: VecDeque::new(), epoch, floor, lent: 0 };
        (receiver, Credit { bytes: floor, loan: None })
    }

    /// Takes in a frame.
    pub fn accept(&mut self, frame: Frame<C>, pool: &mut Pool) {
        match frame {
            Frame::Chunk { chunk, starved } => self.queue.push_back(Queued::Chunk((chunk, starved))),
            Frame::Barrier(epoch) => self.queue.push_back(Queued::Barrier(epoch)),
            Frame::Return(bytes) => {
                self.lent = self.lent.checked_sub(bytes).expect("a sender returns what it was lent");
                pool.take_back(bytes);
            }
        }
    }

    /// The head of the queue.
    pub fn head(&self) -> Head {
        match self.queue.front() {
            None => Head::Empty,
            Some(Queued::Chunk(_)) => Head::Chunk,
            Some(Queued::Barrier(epoch)) => Head::Barrier(*epoch),
        }
    }

    /// Takes the chunk at the head, with the credit that the sender gets for it.
    ///
    /// # Panics
    /// If no chunk is there.
    pub fn take_chunk(&mut self, pool: &mut Pool) -> (C, Credit) {
        let Some(Queued::Chunk((chunk, starved))) = self.queue.pop_front() else { panic!("a chunk is at the head") };
        let loan = if starved { pool.lend(self.epoch, self.floor) } else { None };
        self.lent += loan.map_or(0, |loan| loan.bytes);
        let credit = Credit { bytes: chunk.bytes(), loan };
        (chunk, credit)
    }

    /// Passes the barrier at the head.
    ///
    /// # Panics
    /// If no barrier is there.
    pub fn pass(&mut self) {
        let Some(Queued::Barrier(epoch)) = self.queue.pop_front() else { panic!("a barrier is at the head") };
        self.epoch = epoch.next();
    }

    /// Bytes lent to the sender that it has not returned.
    pub fn lent(&self) -> u64 {
        self.lent
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("memory is smaller than that")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Weight for u64 {
        fn bytes(&self) -> u64 {
            *self
        }
    }

    const FLOOR: u64 = 10;

    fn edge(pool_bytes: u64) -> (Sender<u64>, Receiver<u64>, Pool) {
        let pool = Pool::new(pool_bytes, Epoch(1));
        let mut sender = Sender::new(Epoch(1));
        let (receiver, floor) = Receiver::open(Epoch(1), FLOOR);
        sender.credit(floor);
        (sender, receiver, pool)
    }

    fn transfer(sender: &mut Sender<u64>, receiver: &mut Receiver<u64>, pool: &mut Pool) {
        while let Some(frame) = sender.poll() {
            receiver.accept(frame, pool);
        }
    }

    #[test]
    fn a_barrier_passes_without_credit_and_rows_behind_it_wait() {
        let (mut sender, mut receiver, mut pool) = edge(0);
        sender.chunk(10);
        sender.barrier(Epoch(1));
        sender.chunk(1);
        transfer(&mut sender, &mut receiver, &mut pool);
        assert!(!sender.is_clear());
        let (_, credit) = receiver.take_chunk(&mut pool);
        assert_eq!(receiver.head(), Head::Barrier(Epoch(1)));
        sender.credit(credit);
        transfer(&mut sender, &mut receiver, &mut pool);
        assert!(sender.is_clear());
    }

    #[test]
    fn a_chunk_larger_than_the_floor_passes_over_an_empty_edge_only() {
        let (mut sender, mut receiver, mut pool) = edge(0);
        sender.chunk(1);
        sender.chunk(25);
        transfer(&mut sender, &mut receiver, &mut pool);
        assert!(!sender.is_clear(), "one byte is under way");
        let (_, credit) = receiver.take_chunk(&mut pool);
        sender.credit(credit);
        transfer(&mut sender, &mut receiver, &mut pool);
        assert!(sender.is_clear());
    }

    #[test]
    fn a_loan_comes_back_behind_its_epoch() {
        let (mut sender, mut receiver, mut pool) = edge(100);
        for _ in 0..3 {
            sender.chunk(10);
        }
        transfer(&mut sender, &mut receiver, &mut pool);
        let (_, credit) = receiver.take_chunk(&mut pool);
        assert_eq!(credit.loan, Some(Loan { epoch: Epoch(1), bytes: FLOOR }));
        sender.credit(credit);
        transfer(&mut sender, &mut receiver, &mut pool);
        assert!(sender.is_clear(), "two chunks are under way at once");
        sender.barrier(Epoch(1));
        transfer(&mut sender, &mut receiver, &mut pool);
        assert_eq!(pool.free(), 90, "rows of the epoch still occupy it");
        sender.credit(receiver.take_chunk(&mut pool).1);
        transfer(&mut sender, &mut receiver, &mut pool);
        assert_eq!((pool.free(), receiver.lent()), (100, 0));
    }

    proptest! {
        /// Frames and credits are delivered late, rows of several epochs are sent: nothing is lost
        /// or reordered, bounds hold, and once all is taken and the epoch is over, the pool is
        /// whole.
        #[test]
        fn bytes_are_conserved(steps in prop::collection::vec((0u8..6, 1u64..15), 1..200)) {
            let (mut sender, mut receiver, mut pool) = edge(40);
            let (mut frames, mut credits) = (VecDeque::new(), VecDeque::new());
            let (mut sent, mut taken, mut epoch) = (Vec::new(), Vec::new(), Epoch(1));
            let mut barriers = Vec::new();
            let drain = [(2, 1), (3, 1), (4, 1), (5, 1)].into_iter().cycle().take(4_000);
            let steps = steps.into_iter().chain([(1, 1)]).chain(drain);
            for (step, bytes) in steps {
                match step {
                    0 => { sender.chunk(bytes); sent.push(bytes); }
                    1 => { sender.barrier(epoch); epoch = epoch.next(); }
                    2 => frames.extend(sender.poll()),
                    3 => if let Some(frame) = frames.pop_front() { receiver.accept(frame, &mut pool) },
                    4 => if let Some(credit) = credits.pop_front() { sender.credit(credit) },
                    _ => match receiver.head() {
                        Head::Chunk => {
                            let (chunk, credit) = receiver.take_chunk(&mut pool);
                            taken.push(chunk);
                            credits.push_back(credit);
                        }
                        Head::Barrier(passed) => { receiver.pass(); barriers.push(passed); pool.advance(passed.next()); }
                        Head::Empty => {}
                    },
                }
                prop_assert_eq!(pool.free() + receiver.lent(), 40);
            }
            prop_assert_eq!(taken, sent);
            prop_assert_eq!(barriers, (1..epoch.0).map(Epoch).collect::<Vec<_>>());
            prop_assert_eq!(pool.free(), 40);
        }
    }
}

//! Alignment: the inputs of an actor as one stream of chunks, cut at barriers.
//!
//! An input that has delivered the barrier of the current epoch is not read until all inputs have.
//! Inputs take turns, so that a busy one holds no other back.
//!
//! Frames may come over an edge before the actor knows of the edge, because its sender learned of
//! the change first. They can only be barriers, since the receiver has granted no credit yet; they
//! wait.

use std::collections::BTreeMap;
use std::ops::Bound;

use weir_common::ids::{EdgeId, Epoch};

use crate::edge::{Credit, Frame, Head, Pool, Receiver, Weight};

/// The inputs of an actor.
#[derive(Debug)]
pub struct Alignment<C> {
    inputs: BTreeMap<EdgeId, Receiver<C>>,
    /// Frames of edges that are not open yet.
    early: BTreeMap<EdgeId, Vec<Frame<C>>>,
    /// The input whose chunk was taken last.
    turn: Option<EdgeId>,
}

/// The next thing that the inputs have for the actor.
#[derive(Debug, PartialEq, Eq)]
pub enum Ready<C> {
    /// A chunk of the current epoch, with the credit that its sender gets.
    Chunk(EdgeId, C, Credit),
    /// The end of the epoch: no row of it is still to come.
    Barrier,
    /// Nothing yet.
    Nothing,
}

impl<C> Default for Alignment<C> {
    fn default() -> Alignment<C> {
        Alignment { inputs: BTreeMap::new(), early: BTreeMap::new(), turn: None }
    }
}

impl<C: Weight> Alignment<C> {
    /// Opens an input whose first rows are of `epoch`. Returns the credit that its sender gets.
    ///
    /// # Panics
    /// If the input is open already.
    pub fn open(&mut self, edge: EdgeId, epoch: Epoch, floor: u64, pool: &mut Pool) -> Credit {
        let (mut receiver, credit) = Receiver::open(epoch, floor);
        for frame in self.early.remove(&edge).unwrap_or_default() {
            receiver.accept(frame, pool);
        }
        let before = self.inputs.insert(edge, receiver);
        assert!(before.is_none(), "an edge is opened once: {edge}");
        credit
    }

    /// Closes an input behind its last barrier; what its sender was lent goes back to the pool.
    ///
    /// # Panics
    /// If the input is not open, or rows of it are left.
    pub fn close(&mut self, edge: EdgeId, pool: &mut Pool) {
        let input = self.inputs.remove(&edge).expect("an open input is closed");
        assert_eq!(input.head(), Head::Empty, "nothing follows the last barrier: {edge}");
        pool.take_back(input.lent());
    }

    /// Takes in a frame.
    pub fn accept(&mut self, edge: EdgeId, frame: Frame<C>, pool: &mut Pool) {
        if let Some(input) = self.inputs.get_mut(&edge) {
            input.accept(frame, pool);
            return;
        }
        assert!(matches!(frame, Frame::Barrier(_)), "rows need a credit, which an edge gets when it is opened: {edge}");
        self.early.entry(edge).or_default().push(frame);
    }

    /// Returns what comes next in `epoch`. Without inputs the epoch may end at any time.
    pub fn poll(&mut self, epoch: Epoch, pool: &mut Pool) -> Ready<C> {
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.inputs.range((after, Bound::Unbounded));
        let with_chunk = |(edge, input): (&EdgeId, &Receiver<C>)| (input.head() == Head::Chunk).then_some(*edge);
        let first = later.chain(self.inputs.iter()).find_map(with_chunk);
        if let Some(edge) = first {
            self.turn = Some(edge);
            let (chunk, credit) = self.inputs.get_mut(&edge).expect("just found").take_chunk(pool);
            return Ready::Chunk(edge, chunk, credit);
        }
        let at_end = |input: &Receiver<C>| match input.head() {
            Head::Barrier(barrier) => {
                assert_eq!(barrier, epoch, "an edge carries every barrier");
                true
            }
            Head::Empty | Head::Chunk => false,
        };
        if self.inputs.values().all(at_end) { Ready::Barrier } else { Ready::Nothing }
    }

    /// Passes the barrier of all inputs.
    ///
    /// # Panics
    /// If [`Alignment::poll`] has not just said that it is due.
    pub fn pass(&mut self) {
        self.inputs.values_mut().for_each(Receiver::pass);
    }

    /// The open inputs.
    pub fn edges(&self) -> impl Iterator<Item = EdgeId> {
        self.inputs.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use weir_common::ids::{ActorId, FragmentId, TableId};

    use super::*;

    fn edge(instance: u32) -> EdgeId {
        let actor =
            |fragment, instance| ActorId { fragment: FragmentId { job: TableId(fragment), index: 0 }, instance };
        EdgeId { from: actor(1, instance), to: actor(2, 0), input: 0 }
    }

    fn chunk(bytes: u64) -> Frame<u64> {
        Frame::Chunk { chunk: bytes, starved: false }
    }

    fn taken(ready: Ready<u64>) -> (EdgeId, u64) {
        let Ready::Chunk(edge, chunk, _) = ready else { panic!("a chunk is ready: {ready:?}") };
        (edge, chunk)
    }

    fn two_inputs() -> (Alignment<u64>, Pool) {
        let (mut inputs, mut pool) = (Alignment::default(), Pool::new(0, Epoch(1)));
        inputs.open(edge(0), Epoch(1), 10, &mut pool);
        inputs.open(edge(1), Epoch(1), 10, &mut pool);
        (inputs, pool)
    }

    #[test]
    fn an_input_at_its_barrier_waits_for_the_others() {
        let (mut inputs, mut pool) = two_inputs();
        inputs.accept(edge(0), Frame::Barrier(Epoch(1)), &mut pool);
        inputs.accept(edge(0), chunk(3), &mut pool);
        assert_eq!(inputs.poll(Epoch(1), &mut pool), Ready::Nothing);
        inputs.accept(edge(1), chunk(4), &mut pool);
        inputs.accept(edge(1), Frame::Barrier(Epoch(1)), &mut pool);
        assert_eq!(taken(inputs.poll(Epoch(1), &mut pool)), (edge(1), 4));
        assert_eq!(inputs.poll(Epoch(1), &mut pool), Ready::Barrier);
        inputs.pass();
        assert_eq!(taken(inputs.poll(Epoch(2), &mut pool)), (edge(0), 3));
    }

    #[test]
    fn inputs_take_turns() {
        let (mut inputs, mut pool) = two_inputs();
        for bytes in [1, 2] {
            inputs.accept(edge(0), chunk(bytes), &mut pool);
            inputs.accept(edge(1), chunk(bytes), &mut pool);
        }
        let order: Vec<EdgeId> = (0..4).map(|_| taken(inputs.poll(Epoch(1), &mut pool)).0).collect();
        assert_eq!(order, [edge(0), edge(1), edge(0), edge(1)]);
    }

    #[test]
    fn barriers_of_an_edge_that_is_not_open_yet_wait_for_it() {
        let (mut inputs, mut pool) = (Alignment::<u64>::default(), Pool::new(0, Epoch(1)));
        inputs.accept(edge(0), Frame::Barrier(Epoch(2)), &mut pool);
        assert_eq!(inputs.poll(Epoch(1), &mut pool), Ready::Barrier, "the edge begins behind this barrier");
        inputs.open(edge(0), Epoch(2), 10, &mut pool);
        assert_eq!(inputs.poll(Epoch(2), &mut pool), Ready::Barrier);
    }

    #[test]
    fn an_input_that_closes_gives_back_its_loans() {
        let (mut inputs, mut pool) = (Alignment::default(), Pool::new(30, Epoch(1)));
        inputs.open(edge(0), Epoch(1), 10, &mut pool);
        inputs.accept(edge(0), Frame::Chunk { chunk: 5, starved: true }, &mut pool);
        inputs.accept(edge(0), Frame::Barrier(Epoch(1)), &mut pool);
        taken(inputs.poll(Epoch(1), &mut pool));
        assert_eq!(pool.free(), 20);
        inputs.pass();
        inputs.close(edge(0), &mut pool);
        assert_eq!(pool.free(), 30);
    }
}

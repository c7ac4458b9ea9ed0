//! An actor: one instance of a fragment. This is the order of what it does, without the operators
//! and without IO: the caller performs each [`Step`] and says when work is done.
//!
//! In an epoch an actor takes chunks from its inputs, one at a time, and lets its operators work.
//! It takes the next chunk only when all that the operators emitted has left; an edge without
//! credit holds back its senders that way. At a barrier it works in this order:
//!
//! 1. all inputs have delivered the barrier, and the node has announced it;
//! 2. the operators flush: they emit what the epoch changed, and write their state to the slot;
//! 3. the barrier goes to every output and to the slot, before any row of the next epoch;
//! 4. outputs and inputs that the barrier changes are opened and closed; an actor that stops,
//!    stops;
//! 5. the actor goes on. It does not wait for the seal.
//!
//! An actor whose job was dropped or has failed *discards*: it takes chunks and throws them away,
//! and passes barriers without its operators, so that it holds nobody, even if an operator never
//! returns.
//!
//! Progress: barriers need no credit, and rows of an epoch wait only for actors downstream and for
//! earlier epochs. By induction over (epoch, topological order) every barrier arrives.

use std::collections::{BTreeMap, VecDeque};

use weir_common::ids::{EdgeId, Epoch, StatementId};

use crate::align::{Alignment, Ready};
use crate::edge::{Credit, Frame, Pool, Sender, Weight};

/// An actor.
#[derive(Debug)]
pub struct Actor<C> {
    /// Credits that an edge of this node gets when the actor opens it.
    floor: u64,
    /// True if the actor has something to do at the beginning of each epoch.
    begins: bool,
    inputs: Alignment<C>,
    outputs: BTreeMap<EdgeId, Sender<C>>,
    /// Outputs that are closed, and have something left to send.
    closing: BTreeMap<EdgeId, Sender<C>>,
    /// Credits of outputs that this actor has not opened yet.
    early: BTreeMap<EdgeId, Vec<Credit>>,
    /// Credits on their way out.
    grants: VecDeque<(EdgeId, Credit)>,
    /// Barriers that the node announced and the actor has not passed.
    announced: VecDeque<Announced>,
    /// The epoch that the actor works in.
    epoch: Epoch,
    phase: Phase,
    work: Work,
    discards: bool,
}

/// A barrier as its node announces it to one actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The epoch that it ends.
    pub epoch: Epoch,
    /// Inputs that begin behind it.
    pub opened_inputs: Vec<EdgeId>,
    /// Inputs that end with it.
    pub closed_inputs: Vec<EdgeId>,
    /// Outputs that begin behind it.
    pub opened_outputs: Vec<EdgeId>,
    /// Outputs that end with it.
    pub closed_outputs: Vec<EdgeId>,
    /// The actor ends with it.
    pub stops: bool,
    /// Statements that take effect with it, in this order, as far as this actor holds rows of them.
    pub statements: Vec<StatementId>,
}

/// The next thing that the caller does.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<C> {
    /// Sends a credit to the sender of an input.
    Grant(EdgeId, Credit),
    /// Sends a frame over an output.
    Send(EdgeId, Frame<C>),
    /// Does what comes before the first row of an epoch, then says [`Actor::finish`].
    Begin(Epoch),
    /// Lets the operators work on a chunk of an input, then says [`Actor::finish`].
    Apply(EdgeId, C),
    /// Lets the operators go on with work that is not finished: all that they emitted has left.
    Resume,
    /// Flushes the operators at the end of an epoch, then says [`Actor::finish`].
    Flush(Epoch),
    /// Tells the slot that it has every write of the epoch.
    Deliver(Epoch),
    /// Ends.
    Stop,
    /// Waits for an event.
    Wait,
}

/// How far the operators got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The work is done.
    Done,
    /// There is more to emit, once what was emitted has left.
    More,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the first row of the epoch.
    Beginning,
    /// Taking chunks.
    Receiving,
    /// Flushing, or about to pass the barrier.
    Ending,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// The operators have nothing to do.
    None,
    /// They work.
    Running,
    /// They go on once the outputs are clear.
    Interrupted,
}

impl<C: Weight> Actor<C> {
    /// An actor that starts behind the barrier of `after`, with the edges that it has then.
    /// `begins`: it has something to do at the beginning of each epoch. `floor`: the credit of each
    /// input, in bytes.
    pub fn new(
        after: Epoch,
        (inputs, outputs): (impl IntoIterator<Item = EdgeId>, impl IntoIterator<Item = EdgeId>),
        begins: bool,
        floor: u64,
        pool: &mut Pool,
    ) -> Actor<C> {
        let mut actor = Actor {
            floor,
            begins,
            inputs: Alignment::default(),
            outputs: BTreeMap::new(),
            closing: BTreeMap::new(),
            early: BTreeMap::new(),
            grants: VecDeque::new(),
            announced: VecDeque::new(),
            epoch: after.next(),
            phase: Phase::Beginning,
            work: Work::None,
            discards: false,
        };
        inputs.into_iter().for_each(|edge| actor.open_input(edge, pool));
        outputs.into_iter().for_each(|edge| actor.open_output(edge));
        actor
    }

    /// The node has got a barrier from meta.
    pub fn announce(&mut self, barrier: Announced) {
        self.announced.push_back(barrier);
    }

    /// A frame came over an input.
    pub fn frame(&mut self, edge: EdgeId, frame: Frame<C>, pool: &mut Pool) {
        self.inputs.accept(edge, frame, pool);
    }

    /// A credit came for an output. One for an output that has been closed stays unused.
    pub fn credit(&mut self, edge: EdgeId, credit: Credit) {
        if let Some(output) = self.outputs.get_mut(&edge) {
            output.credit(credit);
        } else if let Some(output) = self.closing.get_mut(&edge) {
            output.credit(Credit { loan: None, ..credit });
        } else {
            self.early.entry(edge).or_default().push(credit);
        }
    }

    /// The operators emitted a chunk. Ignored once the actor discards.
    pub fn emit(&mut self, edge: EdgeId, chunk: C) {
        if !self.discards {
            self.outputs.get_mut(&edge).expect("operators emit to open outputs").chunk(chunk);
        }
    }

    /// The operators finished what a step asked for, or have more. Ignored once the actor discards.
    pub fn finish(&mut self, progress: Progress) {
        if self.discards {
            return;
        }
        assert_eq!(self.work, Work::Running, "operators finish what they were asked for");
        self.work = match progress {
            Progress::Done => Work::None,
            Progress::More => Work::Interrupted,
        };
    }

    /// Begins work on rows of a leaf's own: those of a reader, of statements, of VALUES. Returns
    /// whether it may; then the caller says [`Actor::finish`]. A leaf that may not tries again
    /// after other steps.
    ///
    /// A leaf whose barriers come faster than it passes them still gets a turn in each epoch.
    pub fn begin_own(&mut self) -> bool {
        let is_open = match self.phase {
            Phase::Beginning => !self.begins,
            Phase::Receiving => true,
            Phase::Ending | Phase::Stopped => false,
        };
        let may = is_open && self.work == Work::None && !self.discards && self.is_clear();
        if may {
            self.phase = Phase::Receiving;
            self.work = Work::Running;
        }
        may
    }

    /// Throws away all rows from now on.
    pub fn discard(&mut self) {
        self.discards = true;
        self.work = Work::None;
        self.outputs.values_mut().chain(self.closing.values_mut()).for_each(Sender::discard);
    }

    /// The epoch that the actor works in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The next step. The caller performs it and asks again, until it is told to wait or to stop.
    pub fn step(&mut self, pool: &mut Pool) -> Step<C> {
        if let Some((edge, credit)) = self.grants.pop_front() {
            return Step::Grant(edge, credit);
        }
        if let Some(step) = self.send() {
            return step;
        }
        match (self.work, self.phase) {
            (Work::Running, _) => Step::Wait,
            (_, Phase::Stopped) => match self.closing.is_empty() {
                true => Step::Stop,
                false => Step::Wait,
            },
            (Work::None, Phase::Ending) => self.pass(pool),
            _ if !self.is_clear() => Step::Wait,
            (Work::Interrupted, _) => self.work(Step::Resume),
            (Work::None, Phase::Beginning) => {
                self.phase = Phase::Receiving;
                match self.begins && !self.discards {
                    true => self.work(Step::Begin(self.epoch)),
                    false => self.receive(pool),
                }
            }
            (Work::None, Phase::Receiving) => self.receive(pool),
        }
    }

    fn send(&mut self) -> Option<Step<C>> {
        let ready = |(edge, output): (&EdgeId, &mut Sender<C>)| Some((*edge, output.poll()?));
        if let Some((edge, frame)) = self.outputs.iter_mut().find_map(ready) {
            return Some(Step::Send(edge, frame));
        }
        let (edge, frame) = self.closing.iter_mut().find_map(ready)?;
        self.closing.retain(|_, output| !output.is_empty());
        Some(Step::Send(edge, frame))
    }

    fn is_clear(&self) -> bool {
        self.outputs.values().chain(self.closing.values()).all(Sender::is_clear)
    }

    fn work(&mut self, step: Step<C>) -> Step<C> {
        self.work = Work::Running;
        step
    }

    fn receive(&mut self, pool: &mut Pool) -> Step<C> {
        match self.inputs.poll(self.epoch, pool) {
            Ready::Chunk(edge, _, credit) if self.discards => Step::Grant(edge, credit),
            Ready::Chunk(edge, chunk, credit) => {
                self.grants.push_back((edge, credit));
                self.work(Step::Apply(edge, chunk))
            }
            Ready::Barrier if self.announced.front().is_some_and(|barrier| barrier.epoch == self.epoch) => {
                self.phase = Phase::Ending;
                match self.discards {
                    true => self.pass(pool),
                    false => self.work(Step::Flush(self.epoch)),
                }
            }
            Ready::Barrier | Ready::Nothing => Step::Wait,
        }
    }

    fn pass(&mut self, pool: &mut Pool) -> Step<C> {
        let barrier = self.announced.pop_front().expect("a barrier is passed once it is announced");
        let epoch = self.epoch;
        assert_eq!(barrier.epoch, epoch, "barriers are announced in order");
        self.inputs.pass();
        self.outputs.values_mut().for_each(|output| output.barrier(epoch));
        self.epoch = epoch.next();
        self.phase = if barrier.stops { Phase::Stopped } else { Phase::Beginning };
        let (closed_inputs, closed_outputs): (Vec<_>, Vec<_>) = match barrier.stops {
            true => (self.inputs.edges().collect(), self.outputs.keys().copied().collect()),
            false => (barrier.closed_inputs, barrier.closed_outputs),
        };
        closed_inputs.into_iter().for_each(|edge| self.inputs.close(edge, pool));
        for edge in closed_outputs {
            let mut output = self.outputs.remove(&edge).expect("an open output is closed");
            output.close();
            self.closing.insert(edge, output);
        }
        barrier.opened_outputs.into_iter().for_each(|edge| self.open_output(edge));
        barrier.opened_inputs.into_iter().for_each(|edge| self.open_input(edge, pool));
        Step::Deliver(epoch)
    }

    fn open_input(&mut self, edge: EdgeId, pool: &mut Pool) {
        let credit = self.inputs.open(edge, self.epoch, self.floor, pool);
        self.grants.push_back((edge, credit));
    }

    fn open_output(&mut self, edge: EdgeId) {
        let mut output = Sender::new(self.epoch);
        self.early.remove(&edge).unwrap_or_default().into_iter().for_each(|credit| output.credit(credit));
        self.outputs.insert(edge, output);
    }
}

#[cfg(test)]
mod tests {
    use weir_common::ids::{ActorId, FragmentId, TableId};

    use super::*;

    fn edge(from: u32, to: u32) -> EdgeId {
        let actor = |fragment| ActorId { fragment: FragmentId { job: TableId(fragment), index: 0 }, instance: 0 };
        EdgeId { from: actor(from), to: actor(to), input: 0 }
    }

    const IN: (u32, u32) = (1, 2);
    const OUT: (u32, u32) = (2, 3);

    /// An actor with an input and an output that has credit, behind the barrier of epoch 0.
    fn actor() -> (Actor<u64>, Pool) {
        let mut pool = Pool::new(0, Epoch(1));
        let edges = ([edge(IN.0, IN.1)], [edge(OUT.0, OUT.1)]);
        let mut actor = Actor::new(Epoch(0), edges, false, 10, &mut pool);
        actor.credit(edge(OUT.0, OUT.1), Credit { bytes: 10, loan: None });
        assert_eq!(actor.step(&mut pool), Step::Grant(edge(IN.0, IN.1), Credit { bytes: 10, loan: None }));
        (actor, pool)
    }

    fn receive(actor: &mut Actor<u64>, pool: &mut Pool, bytes: u64) {
        actor.frame(edge(IN.0, IN.1), Frame::Chunk { chunk: bytes, starved: false }, pool);
    }

    fn barrier(actor: &mut Actor<u64>, pool: &mut Pool, announced: Announced) {
        actor.frame(edge(IN.0, IN.1), Frame::Barrier(announced.epoch), pool);
        actor.announce(announced);
    }

    fn send(chunk: u64) -> Step<u64> {
        Step::Send(edge(OUT.0, OUT.1), Frame::Chunk { chunk, starved: false })
    }

    #[test]
    fn the_flush_comes_before_the_barrier_and_the_barrier_before_the_next_epoch() {
        let (mut actor, mut pool) = actor();
        barrier(&mut actor, &mut pool, Announced { epoch: Epoch(1), ..Announced::default() });
        receive(&mut actor, &mut pool, 4);
        assert_eq!(actor.step(&mut pool), Step::Flush(Epoch(1)));
        actor.emit(edge(OUT.0, OUT.1), 3);
        assert_eq!(actor.step(&mut pool), send(3));
        assert_eq!(actor.step(&mut pool), Step::Wait, "the flush is not over");
        actor.finish(Progress::Done);
        assert_eq!(actor.step(&mut pool), Step::Deliver(Epoch(1)));
        assert_eq!(actor.step(&mut pool), Step::Send(edge(OUT.0, OUT.1), Frame::Barrier(Epoch(1))));
        assert_eq!(actor.step(&mut pool), Step::Apply(edge(IN.0, IN.1), 4));
    }

    #[test]
    fn a_barrier_waits_until_the_node_has_announced_it() {
        let (mut actor, mut pool) = actor();
        actor.frame(edge(IN.0, IN.1), Frame::Barrier(Epoch(1)), &mut pool);
        assert_eq!(actor.step(&mut pool), Step::Wait);
        actor.announce(Announced { epoch: Epoch(1), ..Announced::default() });
        assert_eq!(actor.step(&mut pool), Step::Flush(Epoch(1)));
    }

    #[test]
    fn nothing_is_taken_while_emitted_rows_wait_for_credit() {
        let (mut actor, mut pool) = actor();
        receive(&mut actor, &mut pool, 1);
        receive(&mut actor, &mut pool, 2);
        assert_eq!(actor.step(&mut pool), Step::Apply(edge(IN.0, IN.1), 1));
        actor.emit(edge(OUT.0, OUT.1), 10);
        actor.emit(edge(OUT.0, OUT.1), 5);
        actor.finish(Progress::More);
        assert_eq!(actor.step(&mut pool), Step::Grant(edge(IN.0, IN.1), Credit { bytes: 1, loan: None }));
        let starved = Step::Send(edge(OUT.0, OUT.1), Frame::Chunk { chunk: 10, starved: true });
        assert_eq!(actor.step(&mut pool), starved);
        assert_eq!(actor.step(&mut pool), Step::Wait);
        actor.credit(edge(OUT.0, OUT.1), Credit { bytes: 10, loan: None });
        assert_eq!(actor.step(&mut pool), send(5));
        assert_eq!(actor.step(&mut pool), Step::Resume);
        actor.finish(Progress::Done);
        assert_eq!(actor.step(&mut pool), Step::Apply(edge(IN.0, IN.1), 2));
    }

    #[test]
    fn an_actor_that_discards_holds_nobody_even_if_its_operators_never_return() {
        let (mut actor, mut pool) = actor();
        receive(&mut actor, &mut pool, 1);
        assert_eq!(actor.step(&mut pool), Step::Apply(edge(IN.0, IN.1), 1));
        receive(&mut actor, &mut pool, 2);
        actor.discard();
        barrier(&mut actor, &mut pool, Announced { epoch: Epoch(1), stops: true, ..Announced::default() });
        for bytes in [1, 2] {
            let credit = Credit { bytes, loan: None };
            assert_eq!(actor.step(&mut pool), Step::Grant(edge(IN.0, IN.1), credit), "the sender goes on");
        }
        assert_eq!(actor.step(&mut pool), Step::Deliver(Epoch(1)));
        actor.emit(edge(OUT.0, OUT.1), 3);
        actor.finish(Progress::Done);
        assert_eq!(actor.step(&mut pool), Step::Send(edge(OUT.0, OUT.1), Frame::Barrier(Epoch(1))));
        assert_eq!(actor.step(&mut pool), Step::Stop);
    }

    #[test]
    fn an_output_opens_behind_the_barrier_that_adds_it() {
        let (mut actor, mut pool) = actor();
        let new = edge(2, 4);
        actor.credit(new, Credit { bytes: 10, loan: None });
        barrier(
            &mut actor,
            &mut pool,
            Announced { epoch: Epoch(1), opened_outputs: vec![new], ..Announced::default() },
        );
        assert_eq!(actor.step(&mut pool), Step::Flush(Epoch(1)));
        actor.finish(Progress::Done);
        assert_eq!(actor.step(&mut pool), Step::Deliver(Epoch(1)));
        assert_eq!(actor.step(&mut pool), Step::Send(edge(OUT.0, OUT.1), Frame::Barrier(Epoch(1))));
        receive(&mut actor, &mut pool, 1);
        assert_eq!(actor.step(&mut pool), Step::Apply(edge(IN.0, IN.1), 1));
        actor.emit(new, 7);
        let credit = Credit { bytes: 1, loan: None };
        assert_eq!(actor.step(&mut pool), Step::Grant(edge(IN.0, IN.1), credit));
        let frame = Frame::Chunk { chunk: 7, starved: false };
        assert_eq!(actor.step(&mut pool), Step::Send(new, frame), "its credit came early");
    }
}

//! The readings of a split: a pure core. All outputs that have caught up share one of them, the
//! **front**. An output that begins further back, such as a later view, has a reading of its own,
//! which joins the front once it has reached it.
//!
//! The core decides which messages of a batch belong to which output, and when a reading joins. It
//! reads and stores nothing.
//!
//! When the front begins with another stream, nothing is left of the earlier one: every output
//! begins with the new stream, at the front. An output that comes later and has read only of an
//! earlier stream begins with the first message of the front's stream.
//!
//! If acknowledgements delete messages there is nothing to read again: an output begins at the
//! front, whatever its position.
//!
//! Invariant: an output at a position has got every message below it, from where it began, and none
//! at or above it, through whichever readings. The front is never behind another reading.

use std::collections::BTreeMap;

use weir_common::ids::Sequence;

/// A reading beside the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReadingId(u64);

/// The reading that feeds an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The front.
    Front,
    /// A reading of its own, which begins at the output's position.
    Behind(ReadingId),
}

/// Says if messages that the front has read can be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// The stream keeps messages as long as its limits allow.
    Kept,
    /// Messages leave the stream once they are committed and acknowledged.
    Consumed,
}

/// The state of a reading after it has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// It is still behind.
    Behind,
    /// It has reached the front, which feeds its output from now on. The reading ends.
    Joins,
}

/// The positions of all readings of a split: each is the next sequence that its outputs lack.
#[derive(Debug)]
pub(crate) struct Readings {
    history: History,
    front: Sequence,
    behind: BTreeMap<ReadingId, Sequence>,
    last: u64,
}

impl Readings {
    /// Creates the front alone.
    pub(crate) fn new(front: Sequence, history: History) -> Readings {
        Readings { history, front, behind: BTreeMap::new(), last: 0 }
    }

    /// The position of the front.
    pub(crate) fn front(&self) -> Sequence {
        self.front
    }

    /// The position of a reading.
    pub(crate) fn position(&self, place: Place) -> Sequence {
        match place {
            Place::Front => self.front,
            Place::Behind(id) => self.behind[&id],
        }
    }

    /// Chooses the reading for an output at `position`. Nothing beyond the front was read yet, so
    /// no output begins there; and no output begins behind it if messages cannot be read again.
    pub(crate) fn attach(&mut self, position: Sequence) -> Place {
        if position >= self.front || self.history == History::Consumed {
            return Place::Front;
        }
        self.last += 1;
        let id = ReadingId(self.last);
        let first = Sequence::new(self.front.incarnation(), 1);
        self.behind.insert(id, position.max(first));
        Place::Behind(id)
    }

    /// Ends the reading of an output that is gone.
    pub(crate) fn detach(&mut self, id: ReadingId) {
        self.behind.remove(&id);
    }

    /// The sequence up to which messages of a reading belong to its outputs. The front brings the
    /// later ones.
    pub(crate) fn end(&self, place: Place) -> Option<Sequence> {
        match place {
            Place::Front => None,
            Place::Behind(_) => Some(self.front),
        }
    }

    /// The front has handed out everything below `position`.
    pub(crate) fn advance(&mut self, position: Sequence) {
        self.front = self.front.max(position);
    }

    /// The front goes on at `position`, in another stream. No reading is behind it any more.
    pub(crate) fn begin_anew(&mut self, position: Sequence) {
        assert!(
            self.front.incarnation() < position.incarnation(),
            "{position} is of no newer stream than {}",
            self.front
        );
        self.front = position;
        self.behind.clear();
    }

    /// A reading has handed out everything below `position`. Messages beyond the front do not
    /// count.
    pub(crate) fn catch_up(&mut self, id: ReadingId, position: Sequence) -> Moved {
        let reached = self.behind.get_mut(&id).expect("a reading that was not ended");
        *reached = (*reached).max(position.min(self.front));
        if *reached < self.front {
            return Moved::Behind;
        }
        self.behind.remove(&id);
        Moved::Joins
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use weir_common::ids::Incarnation;

    use super::*;

    /// An event of an actor.
    #[derive(Clone, Debug)]
    enum Step {
        /// A message is published, which matches the filter or not.
        Publish(bool),
        /// The front, or another reading, gets a batch of at most so many messages.
        Read(usize, u8),
        /// The server is asked whether anything is left for a reading.
        Ask(usize),
        /// A view is created.
        Attach,
        /// A view is dropped.
        Detach(usize),
        /// Everything so far is committed.
        Commit,
        /// Everything uncommitted is lost.
        Crash,
        /// Another stream takes the place of this one. The front finds it at its next read.
        Replace,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => any::<bool>().prop_map(Step::Publish),
            6 => (0_usize..5, 1_u8..6).prop_map(|(reading, count)| Step::Read(reading, count)),
            2 => (0_usize..5).prop_map(Step::Ask),
            2 => Just(Step::Attach),
            1 => (0_usize..5).prop_map(Step::Detach),
            2 => Just(Step::Commit),
            1 => Just(Step::Crash),
            1 => Just(Step::Replace),
        ]
    }

    /// The messages that an output has got, and where it began.
    #[derive(Clone, Debug)]
    struct Got {
        from: Sequence,
        sequences: Vec<u64>,
    }

    /// An actor over a stream, and the messages of its outputs.
    struct Model {
        history: History,
        incarnation: Incarnation,
        /// The messages of this incarnation, whose sequences count from 1; true if the source reads
        /// it.
        stream: Vec<bool>,
        /// Everything below is gone from the stream.
        lost: Sequence,
        readings: Option<Readings>,
        outputs: BTreeMap<u64, (Place, Got)>,
        committed: BTreeMap<u64, (Sequence, Got)>,
        /// The intended start of each output that was ever created.
        starts: Vec<Sequence>,
    }

    const START: Sequence = Sequence(1);

    impl Model {
        fn new(history: History) -> Model {
            let (outputs, committed) = (BTreeMap::new(), BTreeMap::new());
            Model {
                history,
                incarnation: Incarnation(0),
                stream: Vec::new(),
                lost: START,
                readings: None,
                outputs,
                committed,
                starts: Vec::new(),
            }
        }

        fn attach(&mut self, output: u64, position: Sequence, got: Option<Got>) {
            let history = self.history;
            let readings = self.readings.get_or_insert_with(|| Readings::new(position, history));
            let place = readings.attach(position);
            let from = readings.position(place);
            self.outputs.insert(output, (place, got.unwrap_or(Got { from, sequences: Vec::new() })));
        }

        /// The place of the n-th reading; the front is the first.
        fn place(&self, number: usize) -> Option<Place> {
            let readings = self.readings.as_ref()?;
            let behind = readings.behind.keys().map(|id| Place::Behind(*id));
            std::iter::once(Place::Front).chain(behind).nth(number)
        }

        fn moved(&mut self, place: Place, position: Sequence) {
            let readings = self.readings.as_mut().expect("something is read");
            match place {
                Place::Front => readings.advance(position),
                Place::Behind(id) => {
                    if readings.catch_up(id, position) == Moved::Joins {
                        let joining = self.outputs.values_mut().filter(|(fed, _)| *fed == place);
                        joining.for_each(|(fed, _)| *fed = Place::Front);
                    }
                }
            }
        }

        fn read(&mut self, number: usize, count: u8) {
            let Some(place) = self.place(number) else { return };
            let readings = self.readings.as_ref().expect("something is read");
            let (from, end) = (readings.position(place), readings.end(place));
            if from.incarnation() < self.incarnation {
                return self.find_another(place);
            }
            assert!(from >= self.lost, "what is gone is read");
            let batch: Vec<u64> = self.wanted(from, self.end()).take(count.into()).collect();
            let Some(last) = batch.last().copied() else { return };
            for (_, got) in self.outputs.values_mut().filter(|(fed, _)| *fed == place) {
                got.sequences.extend(batch.iter().filter(|sequence| end.is_none_or(|end| **sequence < end.0)));
            }
            self.moved(place, Sequence(last + 1));
        }

        /// If nothing is left for a reading, it has everything that the front had when the server
        /// was asked.
        fn ask(&mut self, number: usize) {
            let Some(place @ Place::Behind(_)) = self.place(number) else { return };
            let readings = self.readings.as_ref().expect("something is read");
            let (from, front) = (readings.position(place), readings.front());
            if from.incarnation() == self.incarnation && self.wanted(from, self.end()).next().is_none() {
                self.moved(place, front);
            }
        }

        /// The end of the stream.
        fn end(&self) -> Sequence {
            Sequence::new(self.incarnation, self.stream.len() as u64 + 1)
        }

        /// The messages between two positions that the source reads.
        fn wanted(&self, from: Sequence, to: Sequence) -> impl Iterator<Item = u64> {
            let range = from.0.max(Sequence::new(self.incarnation, 1).0)..to.0;
            range.filter(|place| self.stream[Sequence(*place).in_stream() as usize - 1])
        }

        /// A reader of a stream that is gone finds another one. Only the front goes on with it.
        fn find_another(&mut self, place: Place) {
            if place == Place::Front {
                let readings = self.readings.as_mut().expect("something is read");
                readings.begin_anew(Sequence::new(self.incarnation, 1));
                self.outputs.values_mut().for_each(|(fed, _)| *fed = Place::Front);
            }
        }

        fn take(&mut self, step: &Step) {
            match *step {
                Step::Publish(wanted) => self.stream.push(wanted),
                Step::Read(number, count) => self.read(number, count),
                Step::Ask(number) => self.ask(number),
                Step::Attach => {
                    self.starts.push(self.lost);
                    self.attach(self.starts.len() as u64, self.lost, None);
                }
                Step::Detach(number) => {
                    let Some(output) = self.outputs.keys().nth(number).copied() else { return };
                    self.committed.remove(&output);
                    if let Some((Place::Behind(id), _)) = self.outputs.remove(&output) {
                        self.readings.as_mut().expect("something is read").detach(id);
                    }
                    if self.outputs.is_empty() {
                        self.readings = None;
                    }
                }
                Step::Commit => {
                    let Some(readings) = &self.readings else { return };
                    let at = |(place, got): &(Place, Got)| (readings.position(*place), got.clone());
                    self.committed = self.outputs.iter().map(|(output, fed)| (*output, at(fed))).collect();
                    if self.history == History::Consumed {
                        self.lost = self.lost.max(readings.front());
                    }
                }
                Step::Replace => {
                    self.incarnation.0 += 1;
                    self.stream.clear();
                    self.lost = Sequence::new(self.incarnation, 1);
                }
                Step::Crash => {
                    let stored = |output: &u64| {
                        let (position, got) = self.committed.get(output).cloned().unzip();
                        (position.unwrap_or(self.starts[*output as usize - 1]), *output, got)
                    };
                    let mut stored: Vec<_> = self.outputs.keys().map(stored).collect();
                    stored.sort_by_key(|(position, ..)| std::cmp::Reverse(*position));
                    (self.readings, self.outputs) = (None, BTreeMap::new());
                    for (position, output, got) in stored {
                        self.attach(output, position, got);
                    }
                }
            }
        }

        fn check(&self) {
            let Some(readings) = &self.readings else { return };
            for (place, got) in self.outputs.values() {
                assert!(got.sequences.is_sorted_by(|a, b| a < b), "nothing comes twice");
                let position = readings.position(*place);
                if position.incarnation() < self.incarnation {
                    continue;
                }
                let of_now =
                    got.sequences.iter().copied().filter(|place| *place >= Sequence::new(self.incarnation, 0).0);
                let wanted = self.wanted(got.from, position).collect::<Vec<_>>();
                assert_eq!(of_now.collect::<Vec<_>>(), wanted, "an output has what is below its position");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn every_output_gets_every_message_once_and_in_order(
            history in prop_oneof![Just(History::Kept), Just(History::Consumed)],
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let mut model = Model::new(history);
            for step in &steps {
                model.take(step);
                model.check();
            }
            // In the end every output reaches the front, and one reading is left.
            for _ in 0..8 {
                for number in (0..8).rev() {
                    model.read(number, u8::MAX);
                    model.ask(number);
                    model.check();
                }
            }
            prop_assert!(model.readings.is_none_or(|readings| readings.behind.is_empty()));
        }
    }
}

//! A model of one replay of a keyed table, over the cores that slots use. One slot has the dead
//! letters and another owns the keys; the actor goes on reading. Barriers, commits and crashes come
//! in any order.

use std::collections::{BTreeMap, VecDeque};

use arrow::array::RecordBatchOptions;
use arrow::datatypes::Schema;
use proptest::prelude::*;

use super::*;
use crate::control::plan::Writer;
use crate::dataflow::materialize::is_newer;
use crate::storage::row;
use crate::storage::seal::{Change, Sealer};

/// Each message has one of this many keys.
const KEYS: u64 = 3;
/// Barriers in flight.
const BARRIERS_MAX: usize = 4;

/// The contents of a slot: stored rows by their keys, and the sequences of dead letters.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    rows: BTreeMap<u64, Vec<u8>>,
    letters: Vec<u64>,
}

#[derive(Debug)]
enum Write {
    Row(u64),
    Remove(u64),
}

/// A message to a slot. A queue keeps the order of one sender's messages, and no other order.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Row(u64),
    Barrier(Epoch, Sequence),
}

struct Slot {
    now: Held,
    sealed: BTreeMap<Epoch, Held>,
    sealer: Sealer<Write>,
    from_actor: VecDeque<Sent>,
}

/// The progress of the replay of the next letter.
#[derive(Clone, Copy, Debug)]
enum Step {
    Merge,
    Replace(Epoch),
    Wait,
}

struct World {
    /// Marks the messages that could not be decoded when they were first read.
    bad: Vec<bool>,
    committed: (Epoch, Sequence, [Held; 2]),
    slots: [Slot; 2],
    /// The newest barriers, and the actor's position at each that is not committed.
    barriers: VecDeque<(Epoch, Sequence)>,
    last: Epoch,
    position: Sequence,
    replay: Option<(VecDeque<u64>, Step)>,
}

fn stored(sequence: u64) -> Vec<u8> {
    let one = RecordBatchOptions::new().with_row_count(Some(1));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one).expect("a row");
    let mut row = Vec::new();
    row::Writer::new(&batch, 0, 0).write(0, sequence, &mut row);
    row
}

fn sequence(row: &[u8]) -> u64 {
    row::Stored::parse(row).expect("an entry").expect("a row").sequence.expect("it has one")
}

fn actor() -> Writer {
    JobSplit { job: TableId(1), split: SplitId("split".to_owned()) }.into()
}

impl Slot {
    fn new(epoch: Epoch, held: Held) -> Slot {
        let sealer = Sealer::new(epoch, [actor()]);
        Slot { now: held, sealed: BTreeMap::new(), sealer, from_actor: VecDeque::new() }
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Row(number) => drop(self.now.rows.insert(number % KEYS, stored(number))),
            Write::Remove(number) => self.now.letters.retain(|letter| *letter != number),
        }
    }

    /// Takes the oldest message of the actor.
    fn take(&mut self) {
        match self.from_actor.pop_front() {
            Some(Sent::Row(number)) => {
                if let Some(write) = self.sealer.write(&actor(), Write::Row(number)) {
                    self.apply(write);
                }
            }
            Some(Sent::Barrier(epoch, position)) => self.sealer.barrier(&actor(), epoch, Some(position.into())),
            None => {}
        }
        self.seal();
    }

    fn merge(&mut self, number: u64) -> Epoch {
        let old = self.now.rows.get(&(number % KEYS)).map(Vec::as_slice);
        if is_newer(number, old).expect("both have a sequence") {
            self.apply(Write::Row(number));
        }
        self.sealer.open()
    }

    fn replace(&mut self, not_before: Epoch, number: u64) {
        if let Some(write) = self.sealer.write_no_earlier(not_before, Write::Remove(number)) {
            self.apply(write);
        }
    }

    fn seal(&mut self) {
        while let Some(seal) = self.sealer.seal() {
            self.sealed.insert(seal.epoch, self.now.clone());
            for write in self.sealer.sealed() {
                self.apply(write);
            }
        }
    }
}

impl World {
    /// A table reads the first messages, and some of them are bad records.
    fn new(bad: Vec<bool>, read: usize) -> World {
        let mut held = [Held::default(), Held::default()];
        for (number, bad) in (0..).zip(&bad[..read]) {
            if *bad {
                held[0].letters.push(number);
            } else {
                held[1].rows.insert(number % KEYS, stored(number));
            }
        }
        let committed = (Epoch(1), Sequence(read as u64), held);
        let slots = committed.2.clone().map(|held| Slot::new(Epoch(1), held));
        let (position, last) = (committed.1, committed.0);
        World { bad, committed, slots, barriers: VecDeque::new(), last, position, replay: None }
    }

    /// Everything uncommitted is lost, and the next term begins.
    fn crash(&mut self) {
        let (epoch, position, held) = self.committed.clone();
        self.slots = held.map(|held| Slot::new(epoch, held));
        (self.last, self.position, self.replay) = (epoch, position, None);
        self.barriers.clear();
    }

    fn step(&mut self, choice: u8) {
        match choice {
            0 if self.position.0 < self.bad.len() as u64 => {
                // The bad records would be rows now.
                self.slots[1].from_actor.push_back(Sent::Row(self.position.0));
                self.position.0 += 1;
            }
            1 if self.barriers.len() < BARRIERS_MAX => {
                self.last = self.last.next();
                self.barriers.push_back((self.last, self.position));
                for slot in &mut self.slots {
                    slot.sealer.inject(self.last, Change::default());
                    slot.from_actor.push_back(Sent::Barrier(self.last, self.position));
                }
            }
            2 => self.slots[0].take(),
            3 => self.slots[1].take(),
            4 => self.commit(),
            5 | 6 => self.replay(),
            7 => self.crash(),
            _ => {}
        }
    }

    fn replay(&mut self) {
        let World { slots, replay, .. } = self;
        let (letters, step) = replay.get_or_insert_with(|| (slots[0].now.letters.clone().into(), Step::Merge));
        let Some(letter) = letters.front().copied() else { return };
        *step = match *step {
            Step::Merge => Step::Replace(slots[1].merge(letter)),
            Step::Replace(epoch) => {
                slots[0].replace(epoch, letter);
                Step::Wait
            }
            Step::Wait if slots[0].now.letters.contains(&letter) => Step::Wait,
            Step::Wait => {
                letters.pop_front();
                Step::Merge
            }
        };
    }

    fn commit(&mut self) {
        let Some(&(epoch, position)) = self.barriers.front() else { return };
        let [Some(letters), Some(rows)] = [0, 1].map(|slot: usize| self.slots[slot].sealed.get(&epoch).cloned()) else {
            return;
        };
        self.barriers.pop_front();
        self.committed = (epoch, position, [letters, rows]);
        self.check();
    }

    /// Every message that was read is a dead letter, or its key has a row that is no older; and no
    /// row comes from a message that was not read.
    fn check(&self) {
        let (_, position, [letters, rows]) = &self.committed;
        for number in 0..position.0 {
            let row = rows.rows.get(&(number % KEYS)).map(|row| sequence(row));
            assert!(letters.letters.contains(&number) || row >= Some(number), "message {number} is lost: {row:?}");
        }
        assert!(rows.rows.values().all(|row| sequence(row) < position.0), "a row is committed before its message");
    }

    /// Reads and replays the rest undisturbed.
    fn finish(&mut self) {
        self.replay = None;
        for _ in 0..self.bad.len() * 8 + 8 {
            for choice in [0, 1, 2, 3, 4, 5] {
                self.step(choice);
            }
        }
        let (_, position, [letters, rows]) = &self.committed;
        assert_eq!((position.0, letters.letters.len()), (self.bad.len() as u64, 0));
        for (key, row) in &rows.rows {
            let last = (0..position.0).rev().find(|number| number % KEYS == *key);
            assert_eq!(Some(sequence(row)), last);
        }
    }
}

proptest! {
    #[test]
    fn the_last_message_of_a_key_is_its_row_whenever_it_became_one(
        bad in prop::collection::vec(any::<bool>(), 1..20),
        read: prop::sample::Index,
        choices in prop::collection::vec(prop_oneof![20 => 0_u8..7, 1 => Just(7_u8)], 0..200),
    ) {
        let read = read.index(bad.len() + 1);
        let mut world = World::new(bad, read);
        for choice in choices {
            world.step(choice);
        }
        world.finish();
    }
}

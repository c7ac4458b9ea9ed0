//! The fates of a simulated stream, and the readings of the streams of its name.
//!
//! A stream may go back to an earlier end, be overtaken again, get back what was acknowledged, and
//! be created anew. A message is known by the time at which it was stored. Once something that was
//! read is gone with the end, the stream is another one. Unless the reader is to follow, nothing of
//! that one may be read, or go by the reader's doing. Otherwise it is read from its first message,
//! which begins another reading: within each, messages come once and in order, and what goes is
//! committed in it.

use std::collections::BTreeSet;

use weir_common::ids::Sequence;
use weir_common::position::{Anchor, Position};

use super::World;
use crate::delivery::{Event, Incarnation};
use crate::identity::{Another, Seen, judge};
use crate::retention::Retention;

/// Everything that was read of one of the streams of the name.
#[derive(Debug)]
pub(super) struct Reading {
    /// The first sequence that is read.
    pub(super) start: u64,
    /// The reader's anchor when it began, and the time of that.
    pub(super) first_anchor: Anchor,
    pub(super) first_clock: u64,
    /// Sequences and times.
    pub(super) accepted: Vec<(u64, u64)>,
    /// When the stream was created.
    created: u64,
    /// True once something below its start went with an end.
    start_is_gone: bool,
    /// The times of messages that the stream no longer held when the reading began.
    absent: BTreeSet<u64>,
    /// Where it ended, once the next has begun.
    end: u64,
}

impl Reading {
    pub(super) fn new(start: u64, created: u64) -> Reading {
        Reading {
            start,
            first_anchor: Anchor::default(),
            first_clock: 0,
            accepted: Vec::new(),
            created,
            start_is_gone: false,
            absent: BTreeSet::new(),
            end: 0,
        }
    }
}

impl World {
    /// The present one.
    pub(super) fn reading(&self) -> &Reading {
        self.readings.last().expect("one has begun")
    }

    /// True once anything of the present reading is committed.
    pub(super) fn is_durable_current(&self) -> bool {
        self.durable_reading + 1 == self.readings.len()
    }

    /// Another stream is read from its first message.
    pub(super) fn begin_anew(&mut self, incarnation: Incarnation) {
        let first = self.stream.iter().copied().find(|sequence| !self.removed.contains(sequence));
        let start = first.unwrap_or(self.last + 1);
        self.readings.last_mut().expect("one has begun").end = self.machine.position().0;
        let anchor = Anchor { created_ns: self.created, newest_ns: 0, ..Anchor::default() };
        let absent = self.removed.iter().filter_map(|sequence| self.times.get(sequence).copied()).collect();
        let reading =
            Reading { first_anchor: anchor, first_clock: self.clock, absent, ..Reading::new(start, self.created) };
        self.readings.push(reading);
        self.unreadable.clear();
        self.mine = None;
        self.apply(Event::Renewed { incarnation, position: Position { next: Sequence(start), anchor } });
    }

    /// A reader that begins again does so at the last commit; its anchor.
    pub(super) fn return_to_commit(&mut self) -> Anchor {
        self.readings.truncate(self.durable_reading + 1);
        let (durable, parted) = (self.durable, self.durable_parted);
        let reading = self.readings.last_mut().expect("one has begun");
        reading.accepted.retain(|(sequence, _)| *sequence < durable);
        let mut anchor = Anchor { parted, ..reading.first_anchor };
        reading.accepted.iter().for_each(|(sequence, time)| anchor.read(*sequence, *time));
        anchor
    }

    /// Commits a part of what was handed out, earlier readings first. Returns true if it reaches
    /// into the present reading.
    pub(super) fn store(&mut self, part: u8) -> bool {
        let moves_on = self.is_durable_current() || part >= 128;
        if moves_on && !self.is_durable_current() {
            for earlier in self.durable_reading..self.readings.len() - 1 {
                self.store_below(earlier, u64::MAX);
            }
            self.durable_reading = self.readings.len() - 1;
            self.durable = self.reading().start;
        }
        let position = if moves_on { self.machine.position().0 } else { self.readings[self.durable_reading].end };
        let wanted = self.durable + (position - self.durable) * u64::from(part) / 255;
        self.durable = if wanted == position { position } else { self.end_below(wanted).max(self.durable) };
        self.store_below(self.durable_reading, self.durable);
        if moves_on && self.durable == position {
            self.durable_parted = self.machine.anchor().parted;
        }
        moves_on
    }

    /// The end of the last message that was accepted below a sequence. Committed positions are
    /// those of batches, which end with a message; none lies within a gap.
    fn end_below(&self, sequence: u64) -> u64 {
        let accepted = &self.readings[self.durable_reading].accepted;
        accepted.iter().rfind(|(accepted, _)| *accepted < sequence).map_or(0, |(accepted, _)| accepted + 1)
    }

    fn store_below(&mut self, reading: usize, end: u64) {
        let accepted = self.readings[reading].accepted.iter().filter(|(sequence, _)| *sequence < end);
        self.stored.extend(accepted.map(|(_, time)| (reading, *time)));
    }

    /// The messages of the stream as it is that belong to the present reading.
    pub(super) fn expected(&self) -> Vec<(u64, u64)> {
        let reading = self.reading();
        let from_start = self.stream.iter().copied().filter(|sequence| *sequence >= reading.start);
        let timed = from_start.map(|sequence| (sequence, self.times[&sequence]));
        timed.filter(|read| reading.accepted.contains(read) || !reading.absent.contains(&read.1)).collect()
    }

    /// Takes a message that was read.
    pub(super) fn accept(&mut self, sequence: u64) {
        assert!(self.created == self.reading().created, "{sequence} of a stream that was created anew is read");
        assert!(!self.is_read(sequence), "{sequence} is read twice");
        let passed_over = self.unread().find(|unread| *unread < sequence);
        assert_eq!(passed_over, None, "passed over, {sequence} is read");
        let read = (sequence, self.times[&sequence]);
        self.readings.last_mut().expect("one has begun").accepted.push(read);
    }

    /// True if the present reading has the message that has this sequence now.
    pub(super) fn is_read(&self, sequence: u64) -> bool {
        self.reading().accepted.contains(&(sequence, self.times[&sequence]))
    }

    /// The messages that are in the stream, or were, and that no reading has: of those published
    /// since the table was created, and of another stream from its first message on.
    pub(super) fn unread(&self) -> impl Iterator<Item = u64> {
        let (first_clock, start) = (self.readings[0].first_clock, self.reading().start);
        let follows = self.readings.len() > 1;
        let wanted = move |sequence: &u64| self.times[sequence] > first_clock || (follows && *sequence >= start);
        let read = |sequence: &u64| {
            let read = (*sequence, self.times[sequence]);
            self.readings.iter().any(|reading| reading.accepted.contains(&read))
        };
        self.stream.iter().copied().filter(wanted).filter(move |sequence| !read(sequence))
    }

    /// True once something is gone that was read, or that the reader knows the stream by. Reading
    /// on is right then only if nothing is passed over.
    pub(super) fn is_another(&self) -> bool {
        let reading = self.reading();
        let is_gone = |(_, time): &(u64, u64)| self.gone.contains(time);
        self.created != reading.created || reading.start_is_gone || reading.accepted.iter().any(is_gone)
    }

    /// The verdict that the reader reaches before it builds.
    pub(super) fn judged(&self, Position { next, anchor }: Position) -> Result<Anchor, Another> {
        let there = |sequence: &u64| !self.removed.contains(sequence);
        let at = self.stream.iter().copied().filter(there).find(|sequence| *sequence == anchor.sequence);
        let at_anchor = at.filter(|_| anchor.is_found()).map(|sequence| self.times[&sequence]);
        let below = self.stream.iter().copied().filter(there).rfind(|sequence| *sequence < next.0);
        let below = below.filter(|_| at_anchor.is_none()).map(|sequence| (sequence, self.times[&sequence]));
        judge(anchor, next, &Seen { created_ns: self.created, last_seq: self.last, at_anchor, below })
    }

    /// The server restarts with an earlier state of the stream; `restore`: with what was
    /// acknowledged since.
    pub(super) fn go_back(&mut self, part: u8, restore: bool) {
        self.disconnect();
        self.mine = None;
        self.last = self.last * u64::from(part) / 255;
        let kept = self.stream.partition_point(|sequence| *sequence <= self.last);
        for sequence in self.stream.split_off(kept) {
            self.gone.insert(self.times[&sequence]);
            self.removed.remove(&sequence);
            self.poison.remove(&sequence);
        }
        for reading in &mut self.readings {
            reading.start_is_gone |= self.last + 1 < reading.start;
        }
        if restore && self.retention == Retention::WorkQueue {
            self.removed.clear();
        }
        // Whatever the consumer was, it holds what is there and what is published from now on.
        self.guard = Some(0);
        if self.consumer.take().is_some() || self.retention == Retention::Interest {
            let next = self.stream.iter().copied().find(|sequence| !self.removed.contains(sequence));
            self.create(next.unwrap_or(self.last + 1));
        }
        self.guard = None;
    }

    /// The stream is deleted and created again.
    pub(super) fn create_anew(&mut self) {
        self.go_back(0, false);
        self.clock += 1;
        self.created = self.clock + 1;
    }

    /// True if nothing is left to read. A stream of which nothing is left below the position counts
    /// as the one that was read, and nothing of it is passed over then.
    pub(super) fn is_all_read(&self) -> bool {
        let is_like_it = self.follows && self.is_another() && self.unread().next().is_none();
        is_like_it || self.reading().accepted == self.expected()
    }
}

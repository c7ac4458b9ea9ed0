//! How often each value occurs in each group: for DISTINCT, which counts equal values once, for
//! `min` and `max` where rows are deleted, and for aggregates that take rows in an order.
//!
//! The entry of a value is read when the value first comes up, so its count is known. At the end of
//! an epoch those that appeared or disappeared tell what changes for the aggregate.
//!
//! The state has an entry for each value that occurs. Its key is the group's key and the value's
//! ([`sorted`](super::sorted)). Its value is the byte 1, the version, and a count; then, where the
//! aggregate takes rows in an order, its arguments ([`payload`](super::payload)): those of the
//! newest row, if several are equal.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::BooleanBuffer;
use bytes::Bytes;
use weir_common::key::Reader;
use weir_common::plan::{AggregateCall, SortKey, StreamColumn};
use weir_common::types::SqlType;
use weir_common::view::Error;

use super::cell::{damaged, put_count, take_byte, take_count};
use super::evict::{Clock, Victims, bytes_of, renumber, retain};
use super::groups::{Group, Groups, key_types};
use super::payload::Writer;
use super::sorted::SortedKeys;
use super::{Failure, StateKey, StateWrite};
use crate::slices::Slices;

mod finish;
mod first;

pub(super) use finish::Finish;
use finish::Item;
pub(super) use first::Firsts;

const VERSION: u8 = 1;

/// The number of an entry in memory.
pub(super) type ValuePlace = u32;

/// See the module.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) table: u16,
    key: Vec<SortKey>,
    /// The types of the key, if values are read back from it.
    types: Vec<SqlType>,
    /// The arguments that are kept beside the key.
    payload: Vec<usize>,
    /// Entries by the group's key and the value's.
    entries: Groups,
    counted: Vec<Counted>,
    payloads: Vec<Box<[u8]>>,
    /// The bytes of all payloads.
    payload_bytes: usize,
    /// Entries that changed in this epoch.
    changed: Vec<ValuePlace>,
}

/// A value in a group.
#[derive(Clone, Copy, Debug)]
struct Counted {
    group: Group,
    count: i64,
    /// True if the state has it.
    is_stored: bool,
    has_changed: bool,
    /// The epoch in which it last changed.
    changed: u32,
}

impl Values {
    pub(super) fn new(
        table: u16,
        call: &AggregateCall,
        key: Vec<SortKey>,
        input: &[StreamColumn],
    ) -> Result<Values, Error> {
        let types = match call.is_ordered() {
            true => Vec::new(),
            false => key_types(input, &call.arguments)?,
        };
        Ok(Values {
            table,
            key,
            types,
            payload: call.payload().to_vec(),
            entries: Groups::default(),
            counted: Vec::new(),
            payloads: Vec::new(),
            payload_bytes: 0,
            changed: Vec::new(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.counted.len()
    }

    /// The entry of each row that counts. New ones have the places from the former length on.
    pub(super) fn places(
        &mut self,
        rows: &RecordBatch,
        counted: Option<&BooleanBuffer>,
        groups_of_rows: &[Group],
        groups: &Groups,
    ) -> Vec<(usize, ValuePlace)> {
        let keys = SortedKeys::new(rows, &self.key);
        let mut key = Vec::new();
        let mut place = |row: usize| {
            let group = groups_of_rows[row];
            key.clear();
            key.extend_from_slice(groups.key(group));
            keys.write(row, &mut key);
            let place = self.entries.insert(&key);
            if place as usize == self.counted.len() {
                self.counted.push(Counted { group, count: 0, is_stored: false, has_changed: false, changed: 0 });
                self.payloads.push(Box::default());
            }
            (row, place)
        };
        match counted {
            Some(counted) => counted.set_indices().map(&mut place).collect(),
            None => (0..rows.num_rows()).map(&mut place).collect(),
        }
    }

    pub(super) fn group(&self, place: ValuePlace) -> Group {
        self.counted[place as usize].group
    }

    pub(super) fn key(&self, place: ValuePlace) -> &[u8] {
        self.entries.key(place)
    }

    fn item(&self, place: ValuePlace) -> Item {
        Item { count: self.counted[place as usize].count, payload: self.payloads[place as usize].clone() }
    }

    /// Takes the entry of the state.
    pub(super) fn read(&mut self, place: ValuePlace, value: &[u8]) -> Result<(), Failure> {
        let (count, payload) = entry(value)?;
        let counted = &mut self.counted[place as usize];
        (counted.count, counted.is_stored) = (count, true);
        set(&mut self.payloads[place as usize], payload, &mut self.payload_bytes);
        if payload.is_empty() == self.payload.is_empty() && count > 0 { Ok(()) } else { Err(damaged()) }
    }

    /// Counts rows.
    pub(super) fn count(
        &mut self,
        rows: &[(usize, ValuePlace)],
        batch: &RecordBatch,
        deletes: Option<&BooleanBuffer>,
        epoch: u32,
    ) -> Result<(), Failure> {
        let payload = self.payload.iter().map(|column| Writer::new(batch.column(*column)));
        let payload = payload.collect::<Result<Vec<_>, _>>()?;
        let mut bytes = Vec::new();
        for (row, place) in rows {
            let counted = &mut self.counted[*place as usize];
            let is_delete = deletes.is_some_and(|deletes| deletes.value(*row));
            counted.count += if is_delete { -1 } else { 1 };
            if !is_delete && !payload.is_empty() {
                bytes.clear();
                payload.iter().for_each(|column| column.write(*row, &mut bytes));
                set(&mut self.payloads[*place as usize], &bytes, &mut self.payload_bytes);
            }
            if !counted.has_changed {
                (counted.has_changed, counted.changed) = (true, epoch);
                self.changed.push(*place);
            }
        }
        Ok(())
    }

    /// True if no value was deleted more often than inserted.
    pub(super) fn can_flush(&self) -> bool {
        self.changed.iter().all(|place| self.counted[*place as usize].count >= 0)
    }

    /// The values that appeared in this epoch, which has ended, true, or disappeared. One of which
    /// the arguments may have changed appears again.
    pub(super) fn changes(&self) -> Result<Vec<(ValuePlace, bool)>, Failure> {
        if !self.can_flush() {
            return Err(Failure::Broken("a value was deleted more often than inserted".to_owned()));
        }
        let change = |place: &ValuePlace| {
            let counted = self.counted[*place as usize];
            let is_there = counted.count > 0;
            let may_differ = is_there && !self.payload.is_empty();
            (is_there != counted.is_stored || may_differ).then_some((*place, is_there))
        };
        Ok(self.changed.iter().filter_map(change).collect())
    }

    /// The values that appeared in this epoch.
    fn appeared(&self) -> impl Iterator<Item = ValuePlace> {
        let has_appeared = |place: &ValuePlace| {
            let counted = self.counted[*place as usize];
            counted.count > 0 && !counted.is_stored
        };
        self.changed.iter().copied().filter(has_appeared)
    }

    /// The entry with this key, if it is in memory.
    fn find(&self, key: &[u8]) -> Option<ValuePlace> {
        self.entries.find(key)
    }

    /// True if the value is known not to occur any more.
    fn has_gone(&self, place: ValuePlace) -> bool {
        self.counted[place as usize].count == 0
    }

    /// The columns of values.
    pub(super) fn columns(&self, places: &[ValuePlace], groups: &Groups) -> Result<Vec<ArrayRef>, Failure> {
        let mut reader = Reader::new(&self.types);
        for place in places {
            let value = &self.key(*place)[groups.key(self.group(*place)).len()..];
            reader.push(value).ok_or_else(damaged)?;
        }
        Ok(reader.finish())
    }

    /// Appends what changed in this epoch, and begins the next one.
    pub(super) fn take_writes(&mut self, groups: &Groups, vnode: impl Fn(Group) -> u16, writes: &mut Vec<StateWrite>) {
        let mut changed = std::mem::take(&mut self.changed);
        changed.retain(|place| {
            let counted = &mut self.counted[*place as usize];
            counted.has_changed = false;
            counted.is_stored || counted.count > 0
        });
        let (mut keys, mut values) = (Slices::default(), Slices::default());
        for place in &changed {
            let counted = &mut self.counted[*place as usize];
            counted.is_stored = counted.count > 0;
            keys.push(|out| out.extend_from_slice(self.entries.key(*place)));
            values.push(|out| {
                if counted.count > 0 {
                    out.push(VERSION);
                    put_count(counted.count, out);
                    out.extend_from_slice(&self.payloads[*place as usize]);
                }
            });
        }
        let write = |(place, (key, value)): (ValuePlace, (Bytes, Bytes))| {
            let group = self.counted[place as usize].group;
            let key = StateKey { table: self.table, vnode: vnode(group), key, prefix: groups.key(group).len() };
            StateWrite { key, value: (!value.is_empty()).then_some(value) }
        };
        writes.extend(changed.into_iter().zip(keys.finish().zip(values.finish())).map(write));
    }
}

/// Memory, and what may be forgotten of it.
impl Values {
    pub(super) fn bytes(&self) -> usize {
        self.entries.bytes() + bytes_of(&self.counted) + bytes_of(&self.payloads) + self.payload_bytes
    }

    /// Keeps the values of groups that stay. `numbers`: the new number of each group.
    pub(super) fn retain_groups(&mut self, numbers: &[Group]) {
        self.retain(|counted| numbers[counted.group as usize] != Group::MAX);
        self.counted.iter_mut().for_each(|counted| counted.group = numbers[counted.group as usize]);
    }

    pub(super) fn evictable(&self, clock: &Clock) -> impl Iterator<Item = u32> {
        self.counted.iter().filter(|counted| counted.is_evictable(clock)).map(|counted| counted.changed)
    }

    pub(super) fn evict(&mut self, victims: &mut Victims, vnode: impl Fn(Group) -> u16, clock: &mut Clock) {
        self.retain(|counted| {
            let goes = counted.is_evictable(clock) && victims.take(counted.changed);
            if goes && counted.is_stored {
                clock.forget(vnode(counted.group));
            }
            !goes
        });
    }

    pub(super) fn drop_absent(&mut self, clock: &Clock) {
        self.retain(|counted| counted.is_stored || !counted.is_evictable(clock));
    }

    fn retain(&mut self, mut stays: impl FnMut(&Counted) -> bool) {
        let count = self.counted.len();
        let kept: Vec<ValuePlace> =
            (0..).zip(&self.counted).filter(|(_, counted)| stays(counted)).map(|(place, _)| place).collect();
        if kept.len() < count {
            self.entries.retain(&kept);
            retain(&mut self.counted, &kept);
            retain(&mut self.payloads, &kept);
            self.payload_bytes = self.payloads.iter().map(|payload| payload.len()).sum();
            let numbers = renumber(count, &kept);
            self.changed.iter_mut().for_each(|place| *place = numbers[*place as usize]);
        }
    }
}

impl Counted {
    fn is_evictable(&self, clock: &Clock) -> bool {
        !self.has_changed && clock.is_applied(self.changed)
    }
}

/// Replaces a payload.
fn set(payload: &mut Box<[u8]>, value: &[u8], bytes: &mut usize) {
    *bytes = *bytes + value.len() - payload.len();
    *payload = value.into();
}

/// The count of an entry of the state, and its payload.
fn entry(mut value: &[u8]) -> Result<(i64, &[u8]), Failure> {
    if take_byte(&mut value)? != VERSION {
        return Err(Failure::Broken("the count of a value has an unknown version".to_owned()));
    }
    Ok((take_count(&mut value)?, value))
}

//! Aggregates that take the values of a group in an order: `min` and `max` where rows are deleted,
//! `array_agg` and its like. Kept beside the values: nothing.
//!
//! All values of a group up to its horizon are in memory. Those beyond are in the state alone.
//! Where the first value is the result they are read once none is left in memory; where all values
//! are needed, as soon as the group changes.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use bytes::Bytes;

use super::finish::{Finish, Item, Items, Taken};
use super::{ValuePlace, Values, entry};
use crate::pipeline::Failure;
use crate::pipeline::accumulate::Keep;
use crate::pipeline::cell::damaged;
use crate::pipeline::evict::{bytes_of, retain};
use crate::pipeline::groups::{Group, Groups};

/// Values that are read at once, where one is enough and where all are needed.
const RANGE: usize = 64;
const RANGE_OF_ALL: usize = 1_024;
/// A group with more values in memory keeps half as many of them, where one is enough.
const FIRST: usize = 256;
/// An estimate of the memory that an entry of a map takes beside its bytes.
const ENTRY_BYTES: usize = 48;

/// See the module.
#[derive(Debug)]
pub(crate) struct Firsts {
    finish: Finish,
    firsts: Vec<First>,
}

#[derive(Clone, Debug, Default)]
struct First {
    values: Items,
    horizon: Horizon,
    /// The memory that the values take.
    bytes: usize,
}

/// The values of a group that are in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Horizon {
    /// All that the group has.
    #[default]
    All,
    /// All up to this one.
    To(Box<[u8]>),
    Nothing,
}

impl Horizon {
    fn covers(&self, value: &[u8]) -> bool {
        match self {
            Horizon::All => true,
            Horizon::To(last) => *value <= **last,
            Horizon::Nothing => false,
        }
    }
}

impl Firsts {
    pub(crate) fn new(finish: Finish) -> Firsts {
        Firsts { finish, firsts: Vec::new() }
    }

    /// The number of values that are read at once.
    pub(crate) fn page(&self) -> usize {
        if self.finish.takes_all() { RANGE_OF_ALL } else { RANGE }
    }

    /// Returns true if the result is not known: the state has to be read.
    pub(crate) fn is_lacking(&self, group: Group) -> bool {
        let first = &self.firsts[group as usize];
        (self.finish.takes_all() || first.values.is_empty()) && first.horizon != Horizon::All
    }

    /// The last value that is known, above which the state is read.
    pub(crate) fn after(&self, group: Group) -> Option<&[u8]> {
        match &self.firsts[group as usize].horizon {
            Horizon::To(last) => Some(last),
            Horizon::All | Horizon::Nothing => None,
        }
    }

    /// The group has no values any more.
    pub(crate) fn empty(&mut self, group: Group) {
        self.firsts[group as usize] = First::default();
    }

    /// Takes the values that appeared and disappeared.
    pub(crate) fn change(&mut self, values: &Values, groups: &Groups) -> Result<(), Failure> {
        for (place, is_there) in values.changes()? {
            let group = values.group(place);
            let value = &values.key(place)[groups.key(group).len()..];
            let first = &mut self.firsts[group as usize];
            match is_there {
                true => first.insert(value, values.item(place), self.finish.takes_all()),
                false => first.remove(value),
            }
        }
        Ok(())
    }

    /// Takes the next values of groups from the state, which does not have the changes of this
    /// epoch yet.
    pub(crate) fn fill(
        &mut self,
        found: Vec<(Group, Vec<(Bytes, Bytes)>)>,
        values: &Values,
        groups: &Groups,
    ) -> Result<(), Failure> {
        let all = self.finish.takes_all();
        let mut appeared: HashMap<Group, Vec<ValuePlace>> =
            found.iter().map(|(group, _)| (*group, Vec::new())).collect();
        for place in values.appeared() {
            let group = values.group(place);
            if let Some(appeared) = appeared.get_mut(&group) {
                appeared.push(place);
            }
        }
        let page = self.page();
        for (group, found) in found {
            let first = &mut self.firsts[group as usize];
            let prefix = groups.key(group).len();
            let value = |key: &Bytes| key.get(prefix..).map(Box::from).ok_or_else(damaged);
            first.horizon = match found.last() {
                Some((last, _)) if found.len() >= page => Horizon::To(value(last)?),
                _ => Horizon::All,
            };
            for (key, stored) in &found {
                match values.find(key) {
                    Some(place) if values.has_gone(place) => {}
                    // It may have changed in this epoch.
                    Some(place) => first.add(value(key)?, values.item(place)),
                    None => {
                        let (count, payload) = entry(stored)?;
                        first.add(value(key)?, Item { count, payload: payload.into() });
                    }
                }
            }
            for place in &appeared[&group] {
                first.insert(&values.key(*place)[prefix..], values.item(*place), all);
            }
        }
        Ok(())
    }
}

impl First {
    fn add(&mut self, value: Box<[u8]>, item: Item) {
        let key = value.len();
        self.bytes += key + item.bytes();
        if let Some(before) = self.values.insert(value, item) {
            self.bytes -= key + before.bytes();
        }
    }

    fn insert(&mut self, value: &[u8], item: Item, all: bool) {
        if !self.horizon.covers(value) {
            return;
        }
        self.add(value.into(), item);
        if self.values.len() > FIRST && !all {
            let last = self.values.keys().nth(FIRST / 2).expect("there are more").clone();
            let gone = self.values.split_off(&last);
            self.bytes -= gone.iter().map(|(value, item)| value.len() + item.bytes()).sum::<usize>();
            let (last, _) = self.values.last_key_value().expect("some stay");
            self.horizon = Horizon::To(last.clone());
        }
    }

    fn remove(&mut self, value: &[u8]) {
        if let Some(item) = self.values.remove(value) {
            self.bytes -= value.len() + item.bytes();
        }
    }
}

impl Item {
    fn bytes(&self) -> usize {
        self.payload.len() + ENTRY_BYTES
    }
}

impl Keep for Firsts {
    fn resize(&mut self, groups: usize) {
        self.firsts.resize_with(groups, First::default);
    }

    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure> {
        let mut taken = Taken::new(&self.finish);
        for group in groups {
            assert!(!self.is_lacking(*group), "the values of a group were read");
            taken.push(&self.firsts[*group as usize].values)?;
        }
        taken.finish()
    }

    fn put(&self, _group: Group, _out: &mut Vec<u8>) {}

    fn take(&mut self, group: Group, _input: &mut &[u8]) -> Result<(), Failure> {
        self.firsts[group as usize].horizon = Horizon::Nothing;
        Ok(())
    }

    fn retain(&mut self, kept: &[Group]) {
        retain(&mut self.firsts, kept);
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.firsts) + self.firsts.iter().map(|first| first.bytes).sum::<usize>()
    }
}

//! `min` and `max` where rows are deleted: the first values of each group, in the order of the
//! state. Kept beside the values: nothing.
//!
//! All values of a group up to its horizon are in memory, so the first of them is the result. Those
//! beyond are in the state alone; they are read once none is left in memory.

use std::collections::HashMap;

use arrow::array::{ArrayRef, new_empty_array};
use bytes::Bytes;
use weir_common::key::{NULL, Reader};
use weir_common::types::SqlType;

use super::{Order, Values, flip};
use crate::pipeline::Failure;
use crate::pipeline::accumulate::Keep;
use crate::pipeline::cell::damaged;
use crate::pipeline::evict::{bytes_of, retain};
use crate::pipeline::groups::{Group, Groups};

/// Values that are read at once.
pub(crate) const RANGE: usize = 64;
/// A group with more values in memory keeps half as many of them.
const FIRST: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Firsts {
    order: Order,
    ty: SqlType,
    firsts: Vec<First>,
}

#[derive(Clone, Debug, Default)]
struct First {
    /// Keys of values, in order.
    values: Vec<Box<[u8]>>,
    horizon: Horizon,
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
    pub(crate) fn new(ty: SqlType, order: Order) -> Firsts {
        Firsts { order, ty, firsts: Vec::new() }
    }

    /// Returns true if the result is not known: the state has to be read.
    pub(crate) fn is_lacking(&self, group: Group) -> bool {
        let first = &self.firsts[group as usize];
        first.values.is_empty() && first.horizon != Horizon::All
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
                true => first.insert(value),
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
        let mut appeared: HashMap<Group, Vec<&[u8]>> = found.iter().map(|(group, _)| (*group, Vec::new())).collect();
        for place in values.appeared() {
            let group = values.group(place);
            if let Some(appeared) = appeared.get_mut(&group) {
                appeared.push(&values.key(place)[groups.key(group).len()..]);
            }
        }
        for (group, found) in found {
            let first = &mut self.firsts[group as usize];
            let prefix = groups.key(group).len();
            let value = |key: &Bytes| key.get(prefix..).map(Box::from).ok_or_else(damaged);
            first.horizon = match found.last() {
                Some((last, _)) if found.len() >= RANGE => Horizon::To(value(last)?),
                _ => Horizon::All,
            };
            for (key, _) in found.iter().filter(|(key, _)| !values.has_gone(key)) {
                first.values.push(value(key)?);
            }
            appeared[&group].iter().for_each(|value| first.insert(value));
        }
        Ok(())
    }
}

impl First {
    fn bytes(&self) -> usize {
        let values: usize = self.values.iter().map(|value| value.len()).sum();
        self.values.capacity() * size_of::<Box<[u8]>>() + values
    }

    fn insert(&mut self, value: &[u8]) {
        if !self.horizon.covers(value) {
            return;
        }
        if let Err(place) = self.values.binary_search_by(|other| (**other).cmp(value)) {
            self.values.insert(place, value.into());
        }
        if self.values.len() > FIRST {
            self.values.truncate(FIRST / 2);
            self.horizon = Horizon::To(self.values[FIRST / 2 - 1].clone());
        }
    }

    fn remove(&mut self, value: &[u8]) {
        if let Ok(place) = self.values.binary_search_by(|other| (**other).cmp(value)) {
            self.values.remove(place);
        }
    }
}

impl Keep for Firsts {
    fn resize(&mut self, groups: usize) {
        self.firsts.resize_with(groups, First::default);
    }

    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure> {
        let mut reader = Reader::new([&self.ty]);
        let mut key = Vec::new();
        for group in groups {
            assert!(!self.is_lacking(*group), "the values of a group were read");
            key.clear();
            match self.firsts[*group as usize].values.first() {
                Some(value) => {
                    key.extend_from_slice(value);
                    flip(&mut key, self.order);
                }
                None => key.push(NULL),
            }
            reader.push(&key).ok_or_else(damaged)?;
        }
        Ok(reader.finish().pop().unwrap_or_else(|| new_empty_array(&self.ty.arrow())))
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
        bytes_of(&self.firsts) + self.firsts.iter().map(First::bytes).sum::<usize>()
    }
}

//! The groups that an operator has in memory, numbered from 0 in the order in which they came.
//!
//! A group is known by the bytes of its key ([`weir_common::key`]), all of which stand in one
//! buffer. A chunk is turned into numbers of groups once; accumulators then work on those alone.

use std::hash::BuildHasher;

use arrow::array::{ArrayRef, RecordBatch};
use hashbrown::{DefaultHashBuilder, HashTable};
use weir_common::key::{Keys, Reader};
use weir_common::plan::StreamColumn;
use weir_common::types::SqlType;
use weir_common::view::Error;

use super::Failure;
use super::evict::{bytes_of, retain};

/// A number of a group.
pub(super) type Group = u32;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Groups {
    hasher: DefaultHashBuilder,
    numbers: HashTable<Group>,
    hashes: Vec<u64>,
    keys: Vec<u8>,
    /// Where the key of each group ends.
    ends: Vec<usize>,
}

impl Groups {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.hashes.clear();
        self.keys.clear();
        self.ends.clear();
    }

    pub(super) fn key(&self, group: Group) -> &[u8] {
        let group = group as usize;
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.keys[start..self.ends[group]]
    }

    /// The group of each row. Groups that are new have the numbers from the former length on.
    pub(super) fn assign(&mut self, rows: &RecordBatch, columns: &[usize]) -> Vec<Group> {
        let keys = Keys::new(rows, columns);
        let mut key = Vec::new();
        let group = |row| {
            key.clear();
            keys.write(row, &mut key);
            self.insert(&key)
        };
        (0..rows.num_rows()).map(group).collect()
    }

    /// The group with this key.
    pub(super) fn find(&self, key: &[u8]) -> Option<Group> {
        self.find_hashed(self.hasher.hash_one(key), key)
    }

    fn find_hashed(&self, hash: u64, key: &[u8]) -> Option<Group> {
        let is_same = |group: &Group| self.hashes[*group as usize] == hash && self.key(*group) == key;
        self.numbers.find(hash, is_same).copied()
    }

    /// The group with this key, which is new if it was not there.
    pub(super) fn insert(&mut self, key: &[u8]) -> Group {
        let hash = self.hasher.hash_one(key);
        if let Some(group) = self.find_hashed(hash, key) {
            return group;
        }
        let group = Group::try_from(self.len()).expect("memory has room for fewer groups");
        self.hashes.push(hash);
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        let hashes = &self.hashes;
        self.numbers.insert_unique(hash, group, |group| hashes[*group as usize]);
        group
    }

    /// Keeps the groups with these numbers, which ascend, and numbers them anew.
    pub(super) fn retain(&mut self, kept: &[Group]) {
        let mut keys = Vec::new();
        let end = |group: &Group| {
            keys.extend_from_slice(self.key(*group));
            keys.len()
        };
        let ends = kept.iter().map(end).collect();
        (self.keys, self.ends) = (keys, ends);
        retain(&mut self.hashes, kept);
        let hashes = &self.hashes;
        self.numbers = HashTable::with_capacity(kept.len());
        for (group, hash) in (0..).zip(hashes) {
            self.numbers.insert_unique(*hash, group, |group| hashes[*group as usize]);
        }
    }

    /// The memory in use, in bytes.
    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.keys) + bytes_of(&self.ends) + bytes_of(&self.hashes) + self.numbers.allocation_size()
    }

    /// The columns of the keys of groups.
    pub(super) fn columns(&self, groups: &[Group], types: &[SqlType]) -> Result<Vec<ArrayRef>, Failure> {
        let mut reader = Reader::new(types);
        for group in groups {
            let rest = reader.push(self.key(*group));
            rest.ok_or_else(|| Failure::Broken("the key of a group is damaged".to_owned()))?;
        }
        Ok(reader.finish())
    }
}

/// The types of the columns of a key.
pub(super) fn key_types(columns: &[StreamColumn], keys: &[usize]) -> Result<Vec<SqlType>, Error> {
    let ty = |key: &usize| {
        let StreamColumn { name, ty } = &columns[*key];
        match ty.can_be_key() {
            true => Ok(ty.clone()),
            false => Err(Error::new(format!("this version does not group by a {ty}, as \"{name}\" is"))),
        }
    };
    keys.iter().map(ty).collect()
}

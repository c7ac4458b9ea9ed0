//! Aggregates rows by key: a row for each group that has rows. An aggregate without a key has one
//! group, whose row is there from the first barrier on.
//!
//! A chunk is added to its groups, see `accumulate`; groups and values that are not in memory and
//! may be in the state are read first, all at once. At the end of an epoch each group that changed
//! emits a delete of the row that it had and an insert of the one that it has, nothing if they are
//! equal. Where a group is stored with its row, the row that stays is handed out for that.
//!
//! The state has an entry for each group that has a row. Its key is the group's, and its value part
//! of stored state, with cells as in `cell`:
//!
//! | bytes | content |
//! | --- | --- |
//! | 0 | the version, 1 |
//! | 1… | the number of rows, a count |
//! | … | what each aggregate keeps, in order, as the modules in `accumulate` say |
//!
//! A group for which an aggregate fails, because the result is out of range, emits no row. It stays
//! in the state, so it has a row again once the result is in range.
//!
//! Invariants: a group's number of rows is never negative at a barrier; a group has an entry if and
//! only if it has a row.

use arrow::array::{Array, ArrayRef, RecordBatch, make_comparator, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{SortOptions, concat, interleave};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use weir_common::key::{Keys, vnode_of};
use weir_common::plan::{AggregateCall, StateTable, StreamColumn};
use weir_common::types::SqlType;
use weir_common::view::Error;

use super::accumulate::{Calls, Lacking, Places, ValueEntry, is_append_only};
use super::cell::{damaged, put_count, take_byte, take_count};
use super::evict::{Clock, Victims, bytes_of, renumber, retain};
use super::groups::{Group, Groups, key_types};
use super::linear::{batch, schema};
use super::preaggregate::{add_rows, count_rows};
use super::{Division, FailedRow, Failure, Next, Operate, Outcome, StateKey, StateWrite};
use crate::chunk::Chunk;
use crate::slices::Slices;

const VERSION: u8 = 1;
/// Groups that are flushed at once.
const GROUPS: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct Aggregate {
    keys: Vec<usize>,
    types: Vec<SqlType>,
    columns: Vec<StreamColumn>,
    schema: SchemaRef,
    /// True if the input are partial results.
    is_final: bool,
    table: u16,
    division: Division,
    /// True if rows that stay are handed out.
    keeps_rows: bool,
    clock: Clock,
    groups: Groups,
    entries: Vec<Entry>,
    /// The number of rows of each group.
    rows: Vec<i64>,
    calls: Calls,
    /// Entries that were asked for.
    asked: Vec<Group>,
    asked_values: Vec<ValueEntry>,
    /// Groups of which values were asked for.
    lacking: Lacking,
    /// The chunk that waits for them.
    waiting: Option<Waiting>,
    /// True once the values of the epoch are settled.
    is_settled: bool,
    /// Groups that changed in this epoch.
    changed: Vec<Group>,
    before: Before,
    writes: Vec<StateWrite>,
}

/// A chunk that is not added to its groups yet.
#[derive(Debug)]
struct Waiting {
    chunk: Chunk,
    groups: Vec<Group>,
    places: Places,
}

/// A group in memory.
#[derive(Clone, Copy, Debug)]
struct Entry {
    vnode: u16,
    /// True if it has a row, and an entry in the state.
    has_row: bool,
    has_changed: bool,
    /// The epoch in which it last changed.
    changed: u32,
}

/// The rows that changed groups had at the end of the epoch before, in the order of these groups.
/// Groups that had none are left out.
#[derive(Debug, Default)]
struct Before {
    /// For each chunk, the results.
    gathered: Vec<Results>,
    /// All of them, from the beginning of a flush on.
    all: Results,
    /// Changed groups that were flushed.
    flushed: usize,
    /// The groups among them that had rows.
    rows: usize,
}

/// Results of groups.
#[derive(Debug, Default)]
struct Results {
    /// A column for each aggregate, with a row for each group.
    columns: Vec<ArrayRef>,
    /// For each group, the reason if it has no results.
    errors: Vec<Option<Error>>,
}

impl Aggregate {
    pub(super) fn new(
        input: &[StreamColumn],
        (keys, calls): (&[usize], &[AggregateCall]),
        is_final: bool,
        (number, table): (u16, &StateTable),
        (division, is_fresh): (Division, bool),
        keeps_rows: bool,
    ) -> Result<Aggregate, Error> {
        if table.version != 1 {
            return Err(Error::new(format!("this version does not read groups in layout {}", table.version)));
        }
        let results = calls.iter().map(|call| StreamColumn { name: call.function.clone(), ty: call.ty.clone() });
        let columns: Vec<StreamColumn> = keys.iter().map(|key| input[*key].clone()).chain(results).collect();
        Ok(Aggregate {
            keys: keys.to_vec(),
            types: key_types(input, keys)?,
            schema: schema(&columns),
            columns,
            is_final,
            table: number,
            division,
            keeps_rows,
            clock: Clock::new(is_fresh),
            groups: Groups::default(),
            entries: Vec::new(),
            rows: Vec::new(),
            calls: Calls::new(calls, input, is_append_only(calls, table.value.iter()))?,
            asked: Vec::new(),
            asked_values: Vec::new(),
            lacking: Lacking::new(),
            waiting: None,
            is_settled: false,
            changed: Vec::new(),
            before: Before::default(),
            writes: Vec::new(),
        })
    }

    pub(super) fn columns(&self) -> &[StreamColumn] {
        &self.columns
    }

    /// Makes room for groups that are new, of which these are the rows.
    fn admit(&mut self, chunk: &Chunk, groups: &[Group]) {
        let first = self.entries.len();
        if first == self.groups.len() {
            return;
        }
        let division = match &self.division {
            Division::Columns(columns) => Some(Keys::new(chunk.rows(), columns)),
            Division::Single(_) | Division::Key => None,
        };
        let mut key = Vec::new();
        for (row, group) in groups.iter().enumerate() {
            if *group as usize != self.entries.len() {
                continue;
            }
            let vnode = match (&self.division, &division) {
                (Division::Single(vnode), _) => *vnode,
                (_, None) => vnode_of(self.groups.key(*group)),
                (_, Some(columns)) => {
                    key.clear();
                    columns.write(row, &mut key);
                    vnode_of(&key)
                }
            };
            self.entries.push(Entry { vnode, has_row: false, has_changed: false, changed: 0 });
        }
        self.grow(first);
    }

    /// Makes room for what groups from `first` on keep, and asks for them if they may be in the
    /// state.
    fn grow(&mut self, first: usize) {
        self.rows.resize(self.entries.len(), 0);
        self.calls.resize(self.entries.len());
        let new = (0..).zip(&self.entries).skip(first);
        let asked = new.filter(|(_, entry)| !self.clock.knows_misses(entry.vnode)).map(|(group, _)| group);
        self.asked.extend(asked);
    }

    /// Adds a chunk to its groups, once all is known about them.
    fn add(&mut self, waiting: Waiting) -> Result<Outcome, Failure> {
        self.lacking = self.calls.lacking(waiting.groups.iter().copied());
        if !self.lacking.is_empty() {
            self.waiting = Some(waiting);
            return Ok(self.need_ranges());
        }
        let Waiting { chunk, groups, places } = waiting;
        self.note(&groups)?;
        if self.is_final {
            let first = self.keys.len();
            add_rows(&mut self.rows, chunk.rows().column(first), &groups)?;
            self.calls.merge(chunk.rows(), first + 1, &groups)?;
        } else {
            count_rows(&mut self.rows, &chunk, &groups);
            self.calls.update(chunk.rows(), chunk.deletes(), &groups, &places, self.clock.epoch)?;
        }
        Ok(Outcome::done(Vec::new()))
    }

    /// Goes on with the chunk that waits, or lets the flush go on.
    fn go_on(&mut self) -> Result<Outcome, Failure> {
        match self.waiting.take() {
            Some(waiting) => self.add(waiting),
            None => Ok(Outcome::done(Vec::new())),
        }
    }

    /// Notes groups as changed, and the rows that they had.
    fn note(&mut self, groups: &[Group]) -> Result<(), Failure> {
        let mut had_rows = Vec::new();
        for group in groups {
            let entry = &mut self.entries[*group as usize];
            if !entry.has_changed {
                (entry.has_changed, entry.changed) = (true, self.clock.epoch);
                self.changed.push(*group);
                if entry.has_row {
                    had_rows.push(*group);
                }
            }
        }
        if !had_rows.is_empty() {
            let results = self.results(&had_rows)?;
            self.before.gathered.push(results);
        }
        Ok(())
    }

    /// The results of groups. Those for which an aggregate fails are found by halving.
    fn results(&self, groups: &[Group]) -> Result<Results, Failure> {
        match self.calls.results(groups) {
            Ok(columns) => Ok(Results { columns, errors: vec![None; groups.len()] }),
            Err(Failure::Value(error)) if groups.len() == 1 => {
                let calls = &self.columns[self.keys.len()..];
                let columns = calls.iter().map(|call| new_null_array(&call.ty.arrow(), 1)).collect();
                Ok(Results { columns, errors: vec![Some(error)] })
            }
            Err(Failure::Value(_)) => {
                let (one, other) = groups.split_at(groups.len() / 2);
                Results::concat(vec![self.results(one)?, self.results(other)?])
            }
            Err(failure) => Err(failure),
        }
    }

    fn read(&mut self, group: Group, value: &[u8]) -> Result<(), Failure> {
        let mut input = value;
        if take_byte(&mut input)? != VERSION {
            return Err(Failure::Broken("a group in the state has an unknown version".to_owned()));
        }
        self.rows[group as usize] = take_count(&mut input)?;
        self.calls.take(group, &mut input)?;
        self.entries[group as usize].has_row = true;
        if input.is_empty() { Ok(()) } else { Err(damaged()) }
    }

    fn need(&self) -> Outcome {
        let mut keys = Slices::default();
        let groups = self.asked.iter().map(|group| (self.table, *group, self.groups.key(*group)));
        let values = self.asked_values.iter().map(|entry| self.calls.value(*entry));
        let entries: Vec<(u16, Group, &[u8])> = groups.chain(values).collect();
        entries.iter().for_each(|(_, _, key)| keys.push(|out| out.extend_from_slice(key)));
        let key = |((table, group, _), key)| StateKey {
            table,
            vnode: self.entries[group as usize].vnode,
            key,
            prefix: self.groups.key(group).len(),
        };
        Outcome::need(entries.into_iter().zip(keys.finish()).map(key).collect())
    }

    fn need_ranges(&self) -> Outcome {
        let range =
            |lacking: &(usize, Group)| self.calls.range(*lacking, &self.groups, self.entries[lacking.1 as usize].vnode);
        Outcome::ranges(self.lacking.iter().map(range).collect())
    }

    fn state_key(&self, group: Group, key: Bytes) -> StateKey {
        let prefix = key.len();
        StateKey { table: self.table, vnode: self.entries[group as usize].vnode, key, prefix }
    }

    /// True if a group has a row now.
    fn has_row(&self, group: Group) -> bool {
        self.keys.is_empty() || self.rows[group as usize] > 0
    }

    fn is_evictable(&self, entry: &Entry) -> bool {
        // The group without a key is looked for in every epoch.
        !self.keys.is_empty() && !entry.has_changed && self.clock.is_applied(entry.changed)
    }

    /// Forgets groups and values that are known not to be in the state.
    fn drop_absent(&mut self) {
        self.calls.drop_absent(&self.clock);
        let stays = |(_, entry): &(Group, &Entry)| entry.has_row || !self.is_evictable(entry);
        let kept: Vec<Group> = (0..).zip(&self.entries).filter(stays).map(|(group, _)| group).collect();
        self.retain(&kept);
    }

    fn retain(&mut self, kept: &[Group]) {
        if kept.len() == self.entries.len() {
            return;
        }
        let numbers = renumber(self.entries.len(), kept);
        self.groups.retain(kept);
        retain(&mut self.entries, kept);
        retain(&mut self.rows, kept);
        self.calls.retain(kept, &numbers);
        self.changed.iter_mut().for_each(|group| *group = numbers[*group as usize]);
    }

    /// Emits the changes of groups, and writes them.
    fn flush_part(&mut self, groups: &[Group]) -> Result<Outcome, Failure> {
        if let Some(group) = groups.iter().find(|group| self.rows[**group as usize] < 0) {
            let rows = self.rows[*group as usize];
            return Err(Failure::Broken(format!("a group has {rows} rows: more were deleted than inserted")));
        }
        let present: Vec<Group> = groups.iter().copied().filter(|group| self.has_row(*group)).collect();
        let after = self.results(&present)?;
        let (mut failed, mut kept) = (Vec::new(), Vec::new());
        let chunk = self.changes(groups, &after, (&mut kept, &mut failed))?;
        let kept = if self.keeps_rows { self.kept(&kept, &after)? } else { None };
        self.write(groups);
        for group in groups {
            let has_row = self.has_row(*group);
            let entry = &mut self.entries[*group as usize];
            (entry.has_row, entry.has_changed) = (has_row, false);
        }
        Ok(Outcome { failed, kept: kept.into_iter().collect(), ..Outcome::done(chunk.into_iter().collect()) })
    }

    /// The changes of the rows of groups, whose present rows are `after`. Appends the groups whose
    /// rows stay, with the places of these among `after`, and those that begin to fail or end it.
    fn changes(
        &mut self,
        groups: &[Group],
        after: &Results,
        (kept, failed): (&mut Vec<(Group, usize)>, &mut Vec<FailedRow>),
    ) -> Result<Option<Chunk>, Failure> {
        const BEFORE: usize = 0;
        const AFTER: usize = 1;
        let compare = |(before, after): (&ArrayRef, &ArrayRef)| {
            make_comparator(before, after, SortOptions::default()).map_err(|error| Failure::Broken(error.to_string()))
        };
        let pairs = self.before.all.columns.iter().zip(&after.columns);
        let compare = pairs.map(compare).collect::<Result<Vec<_>, _>>()?;
        let is_same = |before, after| compare.iter().all(|compare| compare(before, after).is_eq());
        let (mut changed, mut places, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut next, results) = (0, after);
        for group in groups {
            let before = self.entries[*group as usize].has_row.then_some(self.before.rows);
            let after = self.has_row(*group).then_some(next);
            self.before.rows += usize::from(before.is_some());
            next += usize::from(after.is_some());
            let error_before = before.and_then(|row| self.before.all.errors[row].clone());
            let error_after = after.and_then(|row| results.errors[row].clone());
            let before = before.filter(|_| error_before.is_none());
            let after = after.filter(|_| error_after.is_none());
            if error_before != error_after {
                let changes = [(error_before, true), (error_after, false)];
                for (error, is_delete) in changes.into_iter().filter_map(|(error, is_delete)| Some((error?, is_delete)))
                {
                    let row = self.group(*group)?;
                    failed.push(FailedRow { operator: 0, row, error, is_delete });
                }
            }
            if let Some((_, after)) = before.zip(after).filter(|(before, after)| is_same(*before, *after)) {
                kept.push((*group, after));
                continue;
            }
            let before = before.map(|row| ((BEFORE, row), true));
            let after = after.map(|row| ((AFTER, row), false));
            for (place, is_delete) in before.into_iter().chain(after) {
                changed.push(*group);
                places.push(place);
                deletes.push(is_delete);
            }
        }
        if changed.is_empty() {
            return Ok(None);
        }
        let mut columns = self.groups.columns(&changed, &self.types)?;
        for (number, after) in results.columns.iter().enumerate() {
            let none = after.slice(0, 0);
            let before = self.before.all.columns.get(number).unwrap_or(&none);
            let column = interleave(&[before.as_ref(), after.as_ref()], &places);
            columns.push(column.map_err(|error| Failure::Broken(error.to_string()))?);
        }
        let rows = batch(&self.schema, columns, changed.len())?;
        Ok(Some(Chunk::new(rows, BooleanBuffer::from(deletes))))
    }

    /// Rows that stay: groups, with the places of their results.
    fn kept(&self, kept: &[(Group, usize)], results: &Results) -> Result<Option<RecordBatch>, Failure> {
        if kept.is_empty() {
            return Ok(None);
        }
        let groups: Vec<Group> = kept.iter().map(|(group, _)| *group).collect();
        let places: Vec<(usize, usize)> = kept.iter().map(|(_, row)| (0, *row)).collect();
        let mut columns = self.groups.columns(&groups, &self.types)?;
        for after in &results.columns {
            let column = interleave(&[after.as_ref()], &places);
            columns.push(column.map_err(|error| Failure::Broken(error.to_string()))?);
        }
        batch(&self.schema, columns, kept.len()).map(Some)
    }

    /// The key of a group.
    fn group(&self, group: Group) -> Result<RecordBatch, Failure> {
        batch(&schema(&self.columns[..self.keys.len()]), self.groups.columns(&[group], &self.types)?, 1)
    }

    fn write(&mut self, groups: &[Group]) {
        let is_written = |group: &Group| self.has_row(*group) || self.entries[*group as usize].has_row;
        let written: Vec<Group> = groups.iter().copied().filter(is_written).collect();
        let (mut keys, mut values) = (Slices::default(), Slices::default());
        for group in &written {
            keys.push(|out| out.extend_from_slice(self.groups.key(*group)));
            values.push(|out| {
                if self.has_row(*group) {
                    out.push(VERSION);
                    put_count(self.rows[*group as usize], out);
                    self.calls.put(*group, out);
                }
            });
        }
        // An entry has at least a version.
        let write = |(group, (key, value)): (Group, (Bytes, Bytes))| StateWrite {
            key: self.state_key(group, key),
            value: (!value.is_empty()).then_some(value),
        };
        let writes: Vec<StateWrite> = written.into_iter().zip(keys.finish().zip(values.finish())).map(write).collect();
        self.writes.extend(writes);
    }
}

impl Operate for Aggregate {
    fn apply(&mut self, chunk: Chunk) -> Result<Outcome, Failure> {
        let groups = self.groups.assign(chunk.rows(), &self.keys);
        self.admit(&chunk, &groups);
        let mut new = Vec::new();
        let places = match self.is_final {
            true => Places::new(),
            false => self.calls.places(chunk.rows(), &groups, &self.groups, &mut new),
        };
        new.retain(|entry| {
            let (_, group, _) = self.calls.value(*entry);
            !self.clock.knows_misses(self.entries[group as usize].vnode)
        });
        self.asked_values = new;
        let waiting = Waiting { chunk, groups, places };
        if self.asked.is_empty() && self.asked_values.is_empty() {
            return self.add(waiting);
        }
        self.waiting = Some(waiting);
        Ok(self.need())
    }

    fn supply(&mut self, found: Vec<Option<Bytes>>) -> Result<Outcome, Failure> {
        let (groups, values) = (std::mem::take(&mut self.asked), std::mem::take(&mut self.asked_values));
        assert_eq!(groups.len() + values.len(), found.len(), "an answer for each entry");
        let mut found = found.into_iter();
        for (group, value) in groups.into_iter().zip(&mut found) {
            if let Some(value) = value {
                self.read(group, &value)?;
            }
        }
        for (entry, value) in values.into_iter().zip(found) {
            if let Some(value) = value {
                self.calls.read_value(entry, &value)?;
            }
        }
        self.go_on()
    }

    fn supply_ranges(&mut self, found: Vec<Vec<(Bytes, Bytes)>>) -> Result<Outcome, Failure> {
        let lacking = std::mem::take(&mut self.lacking);
        assert_eq!(lacking.len(), found.len(), "an answer for each range");
        self.calls.fill(lacking, found, &self.groups)?;
        self.go_on()
    }

    fn flush(&mut self) -> Result<Outcome, Failure> {
        if self.keys.is_empty() && self.groups.len() == 0 {
            let Division::Single(vnode) = self.division else { panic!("a group of all rows is at one actor") };
            self.groups.insert(&[]);
            self.entries.push(Entry { vnode, has_row: false, has_changed: false, changed: 0 });
            self.grow(0);
            if !self.asked.is_empty() {
                return Ok(self.need());
            }
        }
        if self.keys.is_empty() && !self.entries[0].has_row {
            self.note(&[0])?;
        }
        if !self.is_settled {
            self.calls.settle(&self.groups)?;
            let without_rows = self.changed.iter().filter(|group| self.rows[**group as usize] == 0);
            without_rows.for_each(|group| self.calls.empty(*group));
            self.is_settled = true;
        }
        let with_rows = self.changed.iter().copied().filter(|group| self.rows[*group as usize] > 0);
        self.lacking = self.calls.lacking(with_rows);
        if !self.lacking.is_empty() {
            return Ok(self.need_ranges());
        }
        if self.before.flushed == 0 {
            self.before.gather()?;
        }
        let end = self.changed.len().min(self.before.flushed + GROUPS);
        let groups = self.changed[self.before.flushed..end].to_vec();
        let mut outcome = self.flush_part(&groups)?;
        self.before.flushed = end;
        if end < self.changed.len() {
            outcome.next = Next::More;
            return Ok(outcome);
        }
        self.calls.take_writes(&self.groups, |group| self.entries[group as usize].vnode, &mut self.writes);
        self.changed.clear();
        self.before = Before::default();
        self.is_settled = false;
        Ok(outcome)
    }

    fn can_flush(&self) -> bool {
        // A group without rows may have values all the same, as long as the rows of others are on
        // their way. It is gone only if that is so at the end of an epoch.
        self.changed.iter().all(|group| self.rows[*group as usize] > 0) && self.calls.can_flush()
    }

    fn take_writes(&mut self, writes: &mut Vec<StateWrite>) {
        writes.append(&mut self.writes);
        self.clock.end_epoch();
    }

    fn applied(&mut self) {
        self.clock.applied();
    }

    fn bytes(&self) -> usize {
        self.groups.bytes() + bytes_of(&self.entries) + bytes_of(&self.rows) + self.calls.bytes()
    }

    fn evict(&mut self, target: usize) {
        self.drop_absent();
        let bytes = self.bytes();
        if bytes <= target {
            return;
        }
        let groups = self.entries.iter().filter(|entry| self.is_evictable(entry)).map(|entry| entry.changed);
        let changed: Vec<u32> = groups.chain(self.calls.evictable(&self.clock)).collect();
        let share = (bytes - target) as f64 / bytes as f64;
        let count = (changed.len() as f64 * share).ceil() as usize;
        let mut victims = Victims::choose(changed, count);
        let vnode = |group: Group| self.entries[group as usize].vnode;
        self.calls.evict(&mut victims, vnode, &mut self.clock);
        let mut kept = Vec::new();
        for (group, entry) in (0..).zip(&self.entries) {
            if self.is_evictable(entry) && victims.take(entry.changed) {
                self.clock.forget(entry.vnode);
            } else {
                kept.push(group);
            }
        }
        self.retain(&kept);
    }
}

impl Before {
    fn gather(&mut self) -> Result<(), Failure> {
        self.all = Results::concat(std::mem::take(&mut self.gathered))?;
        Ok(())
    }
}

impl Results {
    fn concat(parts: Vec<Results>) -> Result<Results, Failure> {
        let width = parts.first().map_or(0, |part| part.columns.len());
        let column = |number: usize| {
            let columns: Vec<&dyn Array> = parts.iter().map(|part| part.columns[number].as_ref()).collect();
            concat(&columns).map_err(|error| Failure::Broken(error.to_string()))
        };
        let columns = (0..width).map(column).collect::<Result<_, _>>()?;
        Ok(Results { columns, errors: parts.into_iter().flat_map(|part| part.errors).collect() })
    }
}

//! Finds the columns of keys, and walks over an object's members.

use std::collections::HashMap;

use weir_common::catalog::Column;
use weir_common::types::SqlType;

use super::bad_record::{BadRecord, describe};
use super::cell::{Cell, Match, Scratch};
use super::json::{Scanner, Syntax, unescape};
use super::span::Span;
use super::{convert, reason};

/// The number of keys that are remembered in their order. Objects with more keys have the later
/// ones looked up.
const SHAPE_MAX: usize = 256;
/// Longer keys are not remembered: they are looked up each time, and take no memory.
const KEY_BYTES_MAX: usize = 256;
/// Optional fields may be absent, so a key is searched this far ahead.
const LOOK_AHEAD: usize = 3;
/// The number of objects in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objects {
    One,
    /// An array, or one object after the other.
    Several,
}

/// The columns that are filled from the payload, in the order of their cells.
pub(super) struct Fields {
    columns: Vec<(String, SqlType)>,
    /// Columns whose names differ only in the case of letters; mostly one in each group.
    groups: Vec<Vec<usize>>,
    /// Groups by their names in lower case.
    by_name: HashMap<String, usize>,
    /// The keys of recent objects, in their order.
    shape: Vec<Expected>,
    /// Buffers for a key without escapes, and for one in lower case.
    unescaped: String,
    folded: String,
}

/// A key that is expected to come.
struct Expected {
    /// Without escapes.
    key: Vec<u8>,
    target: Target,
}

/// The columns that a key's value goes to.
#[derive(Clone, Copy)]
enum Target {
    /// No column.
    Nothing,
    /// A single column.
    Column(usize, Match),
    /// Columns whose names differ only in the case of letters.
    Several(Several),
}

/// Columns whose names differ only in the case of letters, for one key.
#[derive(Clone, Copy)]
struct Several {
    group: usize,
    /// The column that is named exactly like the key.
    exact: Option<usize>,
}

impl Fields {
    pub(super) fn new(columns: Vec<&Column>) -> Fields {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut by_name = HashMap::new();
        for (cell, column) in columns.iter().enumerate() {
            let group = *by_name.entry(column.name.to_ascii_lowercase()).or_insert(groups.len());
            groups.resize(groups.len().max(group + 1), Vec::new());
            groups[group].push(cell);
        }
        let columns = columns.into_iter().map(|column| (column.name.clone(), column.ty.clone())).collect();
        Fields { columns, groups, by_name, shape: Vec::new(), unescaped: String::new(), folded: String::new() }
    }

    /// Reads a payload into the scratch row, unless it has several objects, or none.
    pub(super) fn read(&mut self, payload: &str, scratch: &mut Scratch) -> Result<Objects, BadRecord> {
        let mut scanner = Scanner::new(payload);
        scanner.skip_whitespace();
        let other = match scanner.peek() {
            Some(b'{') => {
                self.read_object(&mut scanner, payload, scratch)?;
                None
            }
            Some(b'[') => return Ok(Objects::Several),
            _ => Some(scanner.value(0)?),
        };
        scanner.skip_whitespace();
        match (other, scanner.peek()) {
            (None, None) => self.check(payload, scratch).map(|()| Objects::One),
            (None, Some(b'{')) => Ok(Objects::Several),
            (_, Some(_)) => Err(scanner.error("trailing characters").into()),
            (Some(value), None) => Err(BadRecord::NotAnObject { found: describe(value, payload) }),
        }
    }

    /// Reads the payload's object at the scanner into the scratch row.
    pub(super) fn read_one(
        &mut self,
        scanner: &mut Scanner<'_>,
        payload: &str,
        scratch: &mut Scratch,
    ) -> Result<(), BadRecord> {
        self.read_object(scanner, payload, scratch)?;
        self.check(payload, scratch)
    }

    fn read_object(
        &mut self,
        scanner: &mut Scanner<'_>,
        payload: &str,
        scratch: &mut Scratch,
    ) -> Result<(), BadRecord> {
        scanner.take(b'{');
        scanner.skip_whitespace();
        if !scanner.take(b'}') {
            let mut place = 0;
            loop {
                self.read_member(&mut place, scanner, payload, scratch)?;
                scanner.skip_whitespace();
                if !scanner.take(b',') {
                    break;
                }
                scanner.skip_whitespace();
            }
            scanner.expect(b'}', "expected , or }")?;
        }
        Ok(())
    }

    /// Reads a key and its value. `place` is the place in the shape at which the key is expected.
    #[inline]
    fn read_member(
        &mut self,
        place: &mut usize,
        scanner: &mut Scanner<'_>,
        payload: &str,
        scratch: &mut Scratch,
    ) -> Result<(), Syntax> {
        let target = match self.shape.get(*place) {
            Some(expected) if scanner.take_string(&expected.key) => {
                *place += 1;
                expected.target
            }
            _ => self.find(place, scanner)?,
        };
        if let Target::Several(columns) = target {
            return self.read_several(columns, scanner, payload, scratch);
        }
        scanner.colon()?;
        let start = scanner.at();
        let value = scanner.value(1)?;
        if let Target::Column(cell, how) = target {
            let (_, ty) = &self.columns[cell];
            let filled = convert::cell(ty, value, payload, &mut scratch.arena);
            scratch.set(cell, how, filled.unwrap_or_else(|| Cell::Misfit(Span::new(start, scanner.at()))));
        }
        Ok(())
    }

    /// Finds the columns of the next key, which is not the expected one.
    #[cold]
    fn find(&mut self, place: &mut usize, scanner: &mut Scanner<'_>) -> Result<Target, Syntax> {
        let ahead = self.shape.iter().enumerate().skip(*place + 1).take(LOOK_AHEAD);
        for (at, expected) in ahead {
            if scanner.take_string(&expected.key) {
                *place = at + 1;
                return Ok(expected.target);
            }
        }
        let key = scanner.string()?;
        let raw = key.span.of(scanner.text());
        if !key.escaped {
            let target = self.look_up(raw);
            self.remember(*place, raw, target);
            *place += usize::from(raw.len() <= KEY_BYTES_MAX);
            return Ok(target);
        }
        let mut unescaped = std::mem::take(&mut self.unescaped);
        unescaped.clear();
        let known = unescape(raw, &mut unescaped).map(|()| self.look_up(&unescaped));
        self.unescaped = unescaped;
        known.ok_or_else(|| scanner.error("unpaired surrogate in a key"))
    }

    /// Reads a value that several columns may take.
    #[cold]
    fn read_several(
        &mut self,
        columns: Several,
        scanner: &mut Scanner<'_>,
        payload: &str,
        scratch: &mut Scratch,
    ) -> Result<(), Syntax> {
        scanner.colon()?;
        let start = scanner.at();
        let value = scanner.value(1)?;
        for &cell in &self.groups[columns.group] {
            let how = if columns.exact == Some(cell) { Match::Exact } else { Match::Folded };
            let filled = convert::cell(&self.columns[cell].1, value, payload, &mut scratch.arena);
            scratch.set(cell, how, filled.unwrap_or_else(|| Cell::Misfit(Span::new(start, scanner.at()))));
        }
        Ok(())
    }

    /// Looks up the columns of a key.
    fn look_up(&mut self, key: &str) -> Target {
        self.folded.clear();
        self.folded.push_str(key);
        self.folded.make_ascii_lowercase();
        let Some(&group) = self.by_name.get(&self.folded) else { return Target::Nothing };
        let exact = self.groups[group].iter().copied().find(|cell| self.columns[*cell].0 == key);
        match self.groups[group][..] {
            [cell] => Target::Column(cell, if exact.is_some() { Match::Exact } else { Match::Folded }),
            _ => Target::Several(Several { group, exact }),
        }
    }

    /// Remembers that a key came at a place of the shape.
    fn remember(&mut self, place: usize, key: &str, target: Target) {
        if key.len() > KEY_BYTES_MAX {
            return;
        }
        if self.shape.len() < SHAPE_MAX {
            let place = place.min(self.shape.len());
            self.shape.insert(place, Expected { key: key.as_bytes().to_vec(), target });
        } else if let Some(expected) = self.shape.get_mut(place) {
            expected.key.clear();
            expected.key.extend_from_slice(key.as_bytes());
            expected.target = target;
        }
    }

    /// The size of the remembered keys.
    #[cfg(test)]
    pub(super) fn remembered_bytes(&self) -> usize {
        self.shape.iter().map(|expected| expected.key.capacity()).sum()
    }

    /// Returns the error of the first cell that could not be filled.
    fn check(&self, payload: &str, scratch: &Scratch) -> Result<(), BadRecord> {
        if scratch.arena.too_large {
            return Err(BadRecord::TooLarge);
        }
        for (cell, (name, ty)) in scratch.cells.iter().zip(&self.columns) {
            if let Cell::Misfit(span) = cell {
                let value = Scanner::within(payload, *span).value(1)?;
                let (found, reason) = (describe(value, payload), reason::why(ty, value, payload));
                return Err(BadRecord::Type { column: name.clone(), expected: ty.clone(), found, reason });
            }
        }
        Ok(())
    }
}

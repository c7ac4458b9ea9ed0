//! The scratch row: a cell for each column that is filled from the payload, and the bytes of cells
//! that cannot point into the payload. It is reused from record to record.

use arrow::datatypes::{IntervalMonthDayNano, i256};

use super::jsonb;
use super::span::Span;

/// A value that waits to be appended. Text is a range of bytes, either of the payload or of the
/// scratch row. Values larger than a word, and the contents of arrays and structs, are kept by
/// their place in the [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Boolean(bool),
    /// Any of the integer types, days, or microseconds.
    Integer(i64),
    Float(f64),
    Payload(Span),
    Text(Span),
    Bytes(Span),
    Decimal(u32),
    Interval(u32),
    /// The cells of the elements.
    List(Span),
    /// The cells of the fields, in the order of their declaration.
    Struct(Span),
    /// Elements of an array that is still being read: the places of the first and the last node.
    Chain {
        first: u32,
        last: u32,
    },
    /// A value that does not fit, by its range in the payload.
    Misfit(Span),
}

/// An element of an array whose elements are not side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) cell: Cell,
    /// The place of the next node.
    pub(super) next: u32,
}

impl Node {
    /// Marks the last node.
    pub(super) const NONE: u32 = u32::MAX;
}

impl Cell {
    /// The size in bytes of a text or bytea; 0 for any other value.
    #[inline]
    pub(super) fn len(self) -> usize {
        match self {
            Cell::Payload(span) | Cell::Text(span) | Cell::Bytes(span) => span.len(),
            _ => 0,
        }
    }
}

impl Span {
    /// The cells in a range of an arena's cells.
    #[inline]
    pub(super) fn cells(self, nested: &[Cell]) -> &[Cell] {
        &nested[self.start as usize..self.end as usize]
    }
}

/// The way in which the name of a field matched the column of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    /// No field has matched yet.
    None,
    /// It is the column's name but for the case of letters.
    Folded,
    /// It is exactly the column's name.
    Exact,
}

/// The scratch row.
pub(super) struct Scratch {
    pub(super) cells: Vec<Cell>,
    pub(super) matches: Vec<Match>,
    pub(super) arena: Arena,
}

/// The data that cells point to.
#[derive(Default)]
pub(super) struct Arena {
    pub(super) text: String,
    pub(super) bytes: Vec<u8>,
    pub(super) decimals: Vec<i256>,
    pub(super) intervals: Vec<IntervalMonthDayNano>,
    /// Cells of elements and fields.
    pub(super) nested: Vec<Cell>,
    pub(super) nodes: Vec<Node>,
    /// The matches of the fields of structs that are being read.
    pub(super) matches: Vec<Match>,
    /// The size of the columns of structs that are NULL, which have no cells of their own.
    pub(super) absent: usize,
    /// An array would have made the record too large; it was not read.
    pub(super) too_large: bool,
    pub(super) jsonb: jsonb::Work,
    /// JSON that is being written.
    pub(super) json: Vec<u8>,
    /// This much of the text, and this many of the decimals, are the same for every record.
    fixed_text: usize,
    fixed_decimals: usize,
}

impl Arena {
    fn clear(&mut self) {
        self.text.truncate(self.fixed_text);
        self.bytes.clear();
        self.decimals.truncate(self.fixed_decimals);
        self.intervals.clear();
        self.nested.clear();
        self.nodes.clear();
        self.matches.clear();
        self.absent = 0;
        self.too_large = false;
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.len()
            + self.bytes.len()
            + size_of_val(&self.decimals[..])
            + size_of_val(&self.intervals[..])
            + size_of_val(&self.nested[..])
            + size_of_val(&self.nodes[..])
            + self.absent
    }
}

/// The place of the next entry.
///
/// # Panics
/// Beyond 4 Gi entries; a record is far smaller.
#[inline]
pub(super) fn place<T>(entries: &[T]) -> u32 {
    u32::try_from(entries.len()).expect("a record is smaller than 4 GiB")
}

impl Scratch {
    pub(super) fn new(cells: usize) -> Scratch {
        Scratch { cells: vec![Cell::Null; cells], matches: vec![Match::None; cells], arena: Arena::default() }
    }

    /// Creates a scratch row whose arena begins with text and decimals that cells of any record may
    /// point to.
    pub(super) fn with_fixed(cells: usize, text: String, decimals: Vec<i256>) -> Scratch {
        let (fixed_text, fixed_decimals) = (text.len(), decimals.len());
        let arena = Arena { text, decimals, fixed_text, fixed_decimals, ..Arena::default() };
        Scratch { arena, ..Scratch::new(cells) }
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.clear_cells();
        self.arena.clear();
    }

    /// Begins another row of the same payload. Cells of earlier rows may wait beside it.
    #[inline]
    pub(super) fn clear_cells(&mut self) {
        self.cells.fill(Cell::Null);
        self.matches.fill(Match::None);
    }

    pub(super) fn bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// Fills a cell unless a better match has filled it.
    #[inline]
    pub(super) fn set(&mut self, cell: usize, how: Match, value: Cell) {
        if how >= self.matches[cell] {
            self.matches[cell] = how;
            self.cells[cell] = value;
        }
    }
}

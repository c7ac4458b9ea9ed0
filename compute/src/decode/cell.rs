//! The scratch row: a cell for each column that is filled from the payload, and the bytes of those cells that are not
//! found in the payload as they stand. Reused from record to record.

/// A value that waits to be appended. Text is kept as a range of bytes, either of the payload or of the scratch row.
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
    /// A value that does not fit: where it stands in the payload.
    Misfit(Span),
}

impl Cell {
    /// The bytes of a value of variable width; 0 for any other.
    #[inline]
    pub(super) fn len(self) -> usize {
        match self {
            Cell::Payload(span) | Cell::Text(span) | Cell::Bytes(span) => span.len(),
            Cell::Null | Cell::Boolean(_) | Cell::Integer(_) | Cell::Float(_) | Cell::Misfit(_) => 0,
        }
    }
}

/// A range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// # Panics
    /// If a bound is beyond 4 GiB; payloads and scratch rows are far smaller.
    #[inline]
    pub(super) fn new(start: usize, end: usize) -> Span {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Span { start, end },
            _ => panic!("a record is smaller than 4 GiB"),
        }
    }

    #[inline]
    pub(super) fn of(self, text: &str) -> &str {
        &text[self.start as usize..self.end as usize]
    }

    #[inline]
    pub(super) fn bytes(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }

    #[inline]
    pub(super) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// How the field that filled a cell was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    /// There was none yet.
    None,
    /// Like the column but for the case of letters.
    Folded,
    /// Exactly like the column.
    Exact,
}

/// The scratch row.
pub(super) struct Scratch {
    pub(super) cells: Vec<Cell>,
    pub(super) matches: Vec<Match>,
    pub(super) arena: Arena,
}

/// Bytes that cells point to.
#[derive(Default)]
pub(super) struct Arena {
    pub(super) text: String,
    pub(super) bytes: Vec<u8>,
    pub(super) jsonb: super::jsonb::Work,
}

impl Scratch {
    pub(super) fn new(cells: usize) -> Scratch {
        Scratch { cells: vec![Cell::Null; cells], matches: vec![Match::None; cells], arena: Arena::default() }
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.cells.fill(Cell::Null);
        self.matches.fill(Match::None);
        self.arena.text.clear();
        self.arena.bytes.clear();
    }

    pub(super) fn bytes(&self) -> usize {
        self.arena.text.len() + self.arena.bytes.len()
    }

    /// Fills a cell unless a better match did.
    #[inline]
    pub(super) fn set(&mut self, cell: usize, how: Match, value: Cell) {
        if how >= self.matches[cell] {
            self.matches[cell] = how;
            self.cells[cell] = value;
        }
    }
}

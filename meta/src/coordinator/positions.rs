//! Committed positions, and the immutable pages in which they are stored beside the head.
//!
//! The positions, sorted, are cut into pages of bounded size. A page whose content did not change
//! keeps its key, so a commit writes only what moved, and the head names all pages that are needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_common::ids::{Epoch, JobSplit, Sequence, SplitId, TableId, TermId};
use weir_common::position::{Anchor, Position};

/// The most bytes in a page: well below etcd's request limit of 1.5 MiB.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Every committed position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    by_split: Arc<BTreeMap<JobSplit, Position>>,
    pages: Vec<Page>,
    /// Derived: the sum of each table's positions, as places in the streams.
    places: Arc<BTreeMap<TableId, u64>>,
}

/// A stored part of the positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its key, relative to the cluster's prefix.
    pub key: String,
    /// JSON: an array of `[table, split, sequence, anchor]`; pages from before anchors were kept
    /// have `[table, split, sequence]`.
    pub content: Vec<u8>,
}

/// Why stored positions could not be read.
#[derive(Debug, thiserror::Error)]
#[error("position page \"{key}\" is not readable")]
pub struct CorruptPage {
    key: String,
    #[source]
    source: serde_json::Error,
}

impl Positions {
    /// Reads stored pages.
    ///
    /// # Errors
    /// If a page is not what [`Positions::advance`] wrote.
    pub fn from_pages(pages: Vec<Page>) -> Result<Positions, CorruptPage> {
        let mut by_split = BTreeMap::new();
        for page in &pages {
            let entries: Vec<Entry> = serde_json::from_slice(&page.content)
                .map_err(|source| CorruptPage { key: page.key.clone(), source })?;
            by_split.extend(entries.into_iter().map(Entry::read));
        }
        Ok(Positions::new(by_split, pages))
    }

    fn new(by_split: BTreeMap<JobSplit, Position>, pages: Vec<Page>) -> Positions {
        let mut places = BTreeMap::<TableId, u64>::new();
        for (split, position) in &by_split {
            let sum = places.entry(split.job).or_default();
            *sum = sum.saturating_add(position.next.in_stream());
        }
        Positions { by_split: Arc::new(by_split), pages, places: Arc::new(places) }
    }

    /// All of them.
    pub fn all(&self) -> Arc<BTreeMap<JobSplit, Position>> {
        Arc::clone(&self.by_split)
    }

    /// The sum of each table's positions, as places in the streams: how far its job has read.
    pub fn places(&self) -> Arc<BTreeMap<TableId, u64>> {
        Arc::clone(&self.places)
    }

    /// The position of a split, if one was ever committed.
    pub fn get(&self, split: &JobSplit) -> Option<Position> {
        self.by_split.get(split).copied()
    }

    /// The keys of all pages.
    pub fn page_keys(&self) -> Vec<String> {
        self.pages.iter().map(|page| page.key.clone()).collect()
    }

    /// The positions after an epoch: `moved` replaced, splits that `keep` refuses forgotten. Pages
    /// that have to be written bear the term and the epoch in their keys;
    /// [`Positions::pages_missing_in`] lists them.
    ///
    /// # Panics
    /// If a position moves backwards: it would be committed without the state that belongs to it.
    pub fn advance(
        &self,
        term: TermId,
        epoch: Epoch,
        moved: impl IntoIterator<Item = (JobSplit, Position)>,
        keep: impl Fn(&JobSplit) -> bool,
    ) -> Positions {
        let mut by_split = BTreeMap::clone(&self.by_split);
        for (split, position) in moved {
            let before = by_split.insert(split.clone(), position);
            assert!(
                before.is_none_or(|before| before.next <= position.next),
                "the position of {split} moved backwards"
            );
        }
        by_split.retain(|split, _| keep(split));
        if by_split == *self.by_split {
            return self.clone();
        }
        let pages = cut(&by_split)
            .into_iter()
            .enumerate()
            .map(|(number, content)| match self.pages.iter().find(|page| page.content == content) {
                Some(unchanged) => unchanged.clone(),
                None => Page { key: format!("pos/{term}/{epoch}/{number}"), content },
            })
            .collect();
        Positions::new(by_split, pages)
    }

    /// The pages that `other` does not have.
    pub fn pages_missing_in(&self, other: &Positions) -> Vec<Page> {
        self.pages.iter().filter(|page| !other.pages.iter().any(|known| known.key == page.key)).cloned().collect()
    }
}

/// A stored position.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Anchored(u32, String, u64, Anchor),
    /// As they were stored before anchors were kept.
    Bare(u32, String, u64),
}

impl Entry {
    fn read(self) -> (JobSplit, Position) {
        let (table, split, sequence, anchor) = match self {
            Entry::Anchored(table, split, sequence, anchor) => (table, split, sequence, anchor),
            Entry::Bare(table, split, sequence) => (table, split, sequence, Anchor::default()),
        };
        let split = JobSplit { job: TableId(table), split: SplitId(split) };
        (split, Position { next: Sequence(sequence), anchor })
    }
}

fn cut(by_split: &BTreeMap<JobSplit, Position>) -> Vec<Vec<u8>> {
    let mut pages: Vec<Vec<u8>> = Vec::new();
    let mut open: Vec<u8> = Vec::new();
    for (split, Position { next, anchor }) in by_split {
        let entry = Entry::Anchored(split.job.0, split.split.0.clone(), next.0, *anchor);
        let entry = serde_json::to_vec(&entry).expect("numbers and a string");
        if !open.is_empty() && open.len() + entry.len() + 2 > PAGE_BYTES_MAX {
            open.push(b']');
            pages.push(std::mem::take(&mut open));
        }
        open.push(if open.is_empty() { b'[' } else { b',' });
        open.extend_from_slice(&entry);
    }
    if !open.is_empty() {
        open.push(b']');
        pages.push(open);
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(table: u32, number: u32) -> JobSplit {
        JobSplit { job: TableId(table), split: SplitId(format!("a-stream-with-a-long-name-{number:08}")) }
    }

    fn at(sequence: u64) -> Position {
        let mut position = Position::from(Sequence(sequence));
        position.anchor.read(sequence, sequence);
        position
    }

    #[test]
    fn positions_that_were_stored_without_an_anchor_are_read() {
        let page = Page { key: "k".to_owned(), content: br#"[[1,"s",5],[2,"s",6,[1,5,3,4,false]]]"#.to_vec() };
        let positions = Positions::from_pages(vec![page]).expect("both forms are read");
        let get = |table| positions.get(&JobSplit { job: TableId(table), split: SplitId("s".to_owned()) });
        assert_eq!(get(1), Some(Position::from(Sequence(5))));
        let anchor = Anchor { created_ns: 1, sequence: 5, stored_ns: 3, newest_ns: 4, parted: false };
        assert_eq!(get(2), Some(Position { next: Sequence(6), anchor }));
    }

    #[test]
    fn pages_are_bounded_and_read_back() {
        let moved = (0..30_000).map(|number| (split(1, number), at(u64::from(number))));
        let positions = Positions::default().advance(TermId::default(), Epoch(1), moved, |_| true);
        assert!(positions.pages.len() > 1);
        assert!(positions.pages.iter().all(|page| page.content.len() <= PAGE_BYTES_MAX));
        assert_eq!(Positions::from_pages(positions.pages.clone()).expect("just written"), positions);
    }

    #[test]
    fn unchanged_pages_keep_their_keys() {
        let moved = (0..30_000).map(|number| (split(1, number), at(1_000_000)));
        let before = Positions::default().advance(TermId::default(), Epoch(1), moved, |_| true);
        let after = before.advance(TermId::default(), Epoch(2), [(split(1, 29_999), at(2_000_000))], |_| true);
        let missing = after.pages_missing_in(&before);
        assert_eq!(missing.len(), 1);
        assert!(missing[0].key.starts_with("pos/0-0000000000000000/2/"));
    }

    #[test]
    fn dropped_tables_leave_no_position() {
        let moved = [(split(1, 0), at(5)), (split(2, 0), at(6))];
        let before = Positions::default().advance(TermId::default(), Epoch(1), moved, |_| true);
        let after = before.advance(TermId::default(), Epoch(2), [], |split| split.job != TableId(1));
        assert_eq!(after.get(&split(1, 0)), None);
        assert_eq!(after.get(&split(2, 0)), Some(at(6)));
    }

    #[test]
    #[should_panic(expected = "moved backwards")]
    fn a_position_never_moves_backwards() {
        let before = Positions::default().advance(TermId::default(), Epoch(1), [(split(1, 0), at(5))], |_| true);
        before.advance(TermId::default(), Epoch(2), [(split(1, 0), at(4))], |_| true);
    }
}

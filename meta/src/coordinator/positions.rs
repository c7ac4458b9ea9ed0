//! Committed positions, and the immutable chunks in which they are stored beside the head.
//!
//! The positions, sorted, are cut into chunks of bounded size. A chunk whose content did not change keeps its key, so a
//! commit writes only what moved, and the head names all chunks that are needed.

use std::collections::BTreeMap;

use weir_common::ids::{Epoch, Sequence, SplitId, TableId, TableSplit, TermId};

/// The most bytes in a chunk: well below etcd's request limit of 1.5 MiB.
pub const CHUNK_BYTES_MAX: usize = 512 * 1024;

/// Every committed position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    by_split: BTreeMap<TableSplit, Sequence>,
    chunks: Vec<Chunk>,
}

/// A stored part of the positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its key, relative to the cluster's prefix.
    pub key: String,
    /// JSON: an array of `[table, split, sequence]`.
    pub content: Vec<u8>,
}

/// Why stored positions could not be read.
#[derive(Debug, thiserror::Error)]
#[error("position chunk \"{key}\" is not readable")]
pub struct CorruptChunk {
    key: String,
    #[source]
    source: serde_json::Error,
}

impl Positions {
    /// Reads stored chunks.
    ///
    /// # Errors
    /// If a chunk is not what [`Positions::advance`] wrote.
    pub fn from_chunks(chunks: Vec<Chunk>) -> Result<Positions, CorruptChunk> {
        let mut by_split = BTreeMap::new();
        for chunk in &chunks {
            let entries: Vec<(u32, String, u64)> = serde_json::from_slice(&chunk.content)
                .map_err(|source| CorruptChunk { key: chunk.key.clone(), source })?;
            for (table, split, sequence) in entries {
                by_split.insert(TableSplit { table: TableId(table), split: SplitId(split) }, Sequence(sequence));
            }
        }
        Ok(Positions { by_split, chunks })
    }

    /// The position of a split, if one was ever committed.
    pub fn get(&self, split: &TableSplit) -> Option<Sequence> {
        self.by_split.get(split).copied()
    }

    /// The keys of all chunks.
    pub fn chunk_keys(&self) -> Vec<String> {
        self.chunks.iter().map(|chunk| chunk.key.clone()).collect()
    }

    /// The positions after an epoch: `moved` replaced, splits that `keep` refuses forgotten. Chunks that have to be
    /// written bear the term and the epoch in their keys; [`Positions::chunks_missing_in`] lists them.
    ///
    /// # Panics
    /// If a position moves backwards: it would be committed without the state that belongs to it.
    pub fn advance(
        &self,
        term: TermId,
        epoch: Epoch,
        moved: impl IntoIterator<Item = (TableSplit, Sequence)>,
        keep: impl Fn(&TableSplit) -> bool,
    ) -> Positions {
        let mut by_split = self.by_split.clone();
        for (split, sequence) in moved {
            let before = by_split.insert(split.clone(), sequence);
            assert!(before.is_none_or(|before| before <= sequence), "the position of {split} moved backwards");
        }
        by_split.retain(|split, _| keep(split));
        if by_split == self.by_split {
            return self.clone();
        }
        let chunks = cut(&by_split)
            .into_iter()
            .enumerate()
            .map(|(number, content)| match self.chunks.iter().find(|chunk| chunk.content == content) {
                Some(unchanged) => unchanged.clone(),
                None => Chunk { key: format!("pos/{term}/{epoch}/{number}"), content },
            })
            .collect();
        Positions { by_split, chunks }
    }

    /// The chunks that `other` does not have.
    pub fn chunks_missing_in(&self, other: &Positions) -> Vec<Chunk> {
        self.chunks.iter().filter(|chunk| !other.chunks.iter().any(|known| known.key == chunk.key)).cloned().collect()
    }
}

fn cut(by_split: &BTreeMap<TableSplit, Sequence>) -> Vec<Vec<u8>> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut open: Vec<u8> = Vec::new();
    for (split, sequence) in by_split {
        let entry = serde_json::to_vec(&(split.table.0, &split.split.0, sequence.0)).expect("numbers and a string");
        if !open.is_empty() && open.len() + entry.len() + 2 > CHUNK_BYTES_MAX {
            open.push(b']');
            chunks.push(std::mem::take(&mut open));
        }
        open.push(if open.is_empty() { b'[' } else { b',' });
        open.extend_from_slice(&entry);
    }
    if !open.is_empty() {
        open.push(b']');
        chunks.push(open);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(table: u32, number: u32) -> TableSplit {
        TableSplit { table: TableId(table), split: SplitId(format!("a-stream-with-a-long-name-{number:08}")) }
    }

    #[test]
    fn chunks_are_bounded_and_read_back() {
        let moved = (0..30_000).map(|number| (split(1, number), Sequence(u64::from(number))));
        let positions = Positions::default().advance(TermId::default(), Epoch(1), moved, |_| true);
        assert!(positions.chunks.len() > 1);
        assert!(positions.chunks.iter().all(|chunk| chunk.content.len() <= CHUNK_BYTES_MAX));
        assert_eq!(Positions::from_chunks(positions.chunks.clone()).expect("just written"), positions);
    }

    #[test]
    fn unchanged_chunks_keep_their_keys() {
        let moved = (0..30_000).map(|number| (split(1, number), Sequence(1_000_000)));
        let before = Positions::default().advance(TermId::default(), Epoch(1), moved, |_| true);
        let after = before.advance(TermId::default(), Epoch(2), [(split(1, 29_999), Sequence(2_000_000))], |_| true);
        let missing = after.chunks_missing_in(&before);
        assert_eq!(missing.len(), 1);
        assert!(missing[0].key.starts_with("pos/0-0000000000000000/2/"));
    }

    #[test]
    fn dropped_tables_leave_no_position() {
        let moved = [(split(1, 0), Sequence(5)), (split(2, 0), Sequence(6))];
        let before = Positions::default().advance(TermId::default(), Epoch(1), moved, |_| true);
        let after = before.advance(TermId::default(), Epoch(2), [], |split| split.table != TableId(1));
        assert_eq!(after.get(&split(1, 0)), None);
        assert_eq!(after.get(&split(2, 0)), Some(Sequence(6)));
    }

    #[test]
    #[should_panic(expected = "moved backwards")]
    fn a_position_never_moves_backwards() {
        let before = Positions::default().advance(TermId::default(), Epoch(1), [(split(1, 0), Sequence(5))], |_| true);
        before.advance(TermId::default(), Epoch(2), [(split(1, 0), Sequence(4))], |_| true);
    }
}

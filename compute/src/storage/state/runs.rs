//! Reads whole ranges of a database from its files, many entries at a time.
//!
//! SlateDB's own iterator passes every entry through a dozen boxed futures, which costs several
//! times as much as reading the entry. If everything that a snapshot shows is in files, this module
//! reads them by blocks and merges them itself. It repeats nothing: after an error the scan goes on
//! with the iterator, from the last key that was returned.
//!
//! Invariant: it returns the values that the iterator would return, in the same order. If a key has
//! several entries, the one with the greatest sequence number that the snapshot shows counts,
//! wherever it lies; SlateDB keeps that entry for as long as the snapshot exists.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::ops::{Add, Bound, Range, RangeBounds};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use slatedb::db_cache::{CacheFetch, CacheLoader, CachedEntry, CachedKey, DbCache};
use slatedb::manifest::{SsTableHandle, SsTableView};
use slatedb::{PathResolver, RowEntry, SstIndex, SstReader, SstStats, ValueDeletable, VersionedManifest};
use tokio_util::task::AbortOnDropHandle;

use super::Store;

/// The most values, by number and by bytes, that are returned at once.
pub(super) const VALUES_MAX: usize = 4096;
pub(super) const VALUES_BYTES_MAX: usize = 1 << 20;
/// All files together are fetched in pieces of about this many bytes, which bounds the memory of a
/// scan to a few times as much.
const PIECES_BYTES: u64 = 16 << 20;
/// The bounds on a piece of one file. Smaller ones would ask an object store too often.
const PIECE_BYTES: Range<u64> = 128 << 10..1 << 20;
/// Pieces of each sorted source that are fetched and decoded ahead of the merge.
const PIECES_AHEAD: usize = 2;

/// The reason why files cannot be read, or not in this way.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot fetch a file")]
    Objects(#[from] object_store::Error),
    #[error("cannot read a file")]
    Database(#[from] slatedb::Error),
    #[error("a task that reads a file has ended")]
    Task(#[from] tokio::task::JoinError),
    #[error("an operand of a merge, which is never written")]
    Operand,
}

/// A range of keys.
pub(super) type Keys = (Bound<Bytes>, Bound<Bytes>);

/// All keys.
const ALL_KEYS: Keys = (Bound::Unbounded, Bound::Unbounded);
/// Files that are opened at the same time.
const FILES_MAX: usize = 32;

/// The entries of a range of keys, merged from all files that may hold some.
pub(super) struct Runs {
    sources: Vec<Source>,
    /// The sources that have entries left, as a binary heap: the first one has the least next
    /// entry.
    heap: Vec<usize>,
    /// The last sequence number that the snapshot shows.
    newest: u64,
    last: Option<Bytes>,
    failed: Option<Error>,
}

/// Adds up the sizes in bytes of a file's visible blocks, by what `of` tells of the first key of
/// each. Blocks of which it tells nothing do not count: the index has each key only up to where it
/// differs from the key before.
///
/// # Errors
/// If the file cannot be read.
pub(super) async fn sizes<K: Eq + Hash>(
    store: &Store,
    paths: &PathResolver,
    view: &SsTableView,
    of: impl Fn(&[u8]) -> Option<K>,
) -> Result<HashMap<K, u64>, Error> {
    let mut sizes = HashMap::new();
    if let Some(view) = View::new(view, paths, &ALL_KEYS, store) {
        let (index, blocks) = view.blocks().await?;
        for block in blocks {
            let (offset, key) = index.get(block).expect("a block of this index");
            // The index has nothing of the file's first key.
            let first = view.handle.info.first_entry.as_ref().filter(|_| block == 0);
            if let Some(of) = of(first.map_or(key, |first| first)) {
                *sizes.entry(of).or_default() += view.offset(&index, block + 1).saturating_sub(offset);
            }
        }
    }
    Ok(sizes)
}

/// How much is in files, whatever of it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Values and marks of deleted ones.
    pub(super) entries: u64,
    /// The bytes of their blocks.
    pub(super) bytes: u64,
}

impl Add for Size {
    type Output = Size;

    fn add(self, other: Size) -> Size {
        Size { entries: self.entries + other.entries, bytes: self.bytes + other.bytes }
    }
}

/// Returns how much is in the visible blocks of a file.
///
/// # Errors
/// If the file cannot be read.
pub(super) async fn size(store: &Store, paths: &PathResolver, view: &SsTableView) -> Result<Size, Error> {
    let is_whole = view.visible_range().is_none();
    let Some(view) = View::new(view, paths, &ALL_KEYS, store) else { return Ok(Size::default()) };
    if is_whole {
        let entries = view.stats().await?.num_rows();
        return Ok(Size { entries, bytes: view.end() });
    }
    let blocks = FileBlocks::open(view).await?;
    Ok(blocks.blocks.clone().map(|block| blocks.size(block)).fold(Size::default(), Add::add))
}

/// The blocks of the files of a segment.
pub(super) struct Blocks(Vec<FileBlocks>);

/// The visible blocks of a file.
struct FileBlocks {
    view: View,
    index: SstIndex,
    stats: SstStats,
    blocks: Range<usize>,
}

impl Blocks {
    /// Opens files.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) async fn open(store: &Store, paths: &PathResolver, views: &[&SsTableView]) -> Result<Blocks, Error> {
        let mut opening = Vec::with_capacity(views.len());
        for view in views {
            opening.extend(View::new(view, paths, &ALL_KEYS, store).map(FileBlocks::open));
        }
        Ok(Blocks(stream::iter(opening).buffered(FILES_MAX).try_collect().await?))
    }

    /// The number of blocks.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|file| file.blocks.len()).sum()
    }

    /// The keys from the beginning of one block to that of the `count`th one behind it, and how
    /// much is in the blocks that begin among them. Without an end, they are the last ones.
    pub(super) fn range(&self, block: usize, count: usize) -> Option<(KeysFrom, Size)> {
        let mut place = block;
        let file = self.0.iter().find(|file| match place.checked_sub(file.blocks.len()) {
            Some(rest) => {
                place = rest;
                false
            }
            None => true,
        })?;
        let start = file.first_key(file.blocks.start + place);
        let mut end = Some(start);
        for _ in 0..count {
            let Some(last) = end else { break };
            end = self.0.iter().filter_map(|file| file.key_above(last)).min();
        }
        let within = self.0.iter().flat_map(|file| file.between(start, end).map(|block| file.size(block)));
        let keys = KeysFrom { start: Bytes::copy_from_slice(start), end: end.map(Bytes::copy_from_slice) };
        Some((keys, within.fold(Size::default(), Add::add)))
    }
}

/// Keys from one on, up to the other if there is one.
pub(super) struct KeysFrom {
    pub(super) start: Bytes,
    pub(super) end: Option<Bytes>,
}

impl FileBlocks {
    async fn open(view: View) -> Result<FileBlocks, Error> {
        let (index, blocks) = view.blocks().await?;
        let stats = view.stats().await?;
        Ok(FileBlocks { view, index, stats, blocks })
    }

    /// The index has nothing of the file's first key, and the others only up to where they differ
    /// from the key before.
    fn first_key(&self, block: usize) -> &[u8] {
        match &self.view.handle.info.first_entry {
            Some(first) if block == 0 => first,
            _ => self.index.get(block).expect("a block of this index").1,
        }
    }

    fn size(&self, block: usize) -> Size {
        let [start, end] = [block, block + 1].map(|block| self.view.offset(&self.index, block));
        let counted = self.stats.block_stats.get(block);
        let entries = counted
            .map_or(0, |block| u64::from(block.num_puts) + u64::from(block.num_deletes) + u64::from(block.num_merges));
        Size { entries, bytes: end.saturating_sub(start) }
    }

    /// The least first key of a block that is above `key`.
    fn key_above(&self, key: &[u8]) -> Option<&[u8]> {
        let next = self.partition_point(|first| first <= key);
        (next < self.blocks.end).then(|| self.first_key(next))
    }

    /// The blocks whose first keys are from one key on, up to the other if there is one.
    fn between(&self, start: &[u8], end: Option<&[u8]>) -> Range<usize> {
        let first = self.partition_point(|key| key < start);
        first..end.map_or(self.blocks.end, |end| self.partition_point(|key| key < end)).max(first)
    }

    /// The first of the visible blocks whose first key is not one of the least keys, for which
    /// `is_least` holds.
    fn partition_point(&self, is_least: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (self.blocks.start, self.blocks.end);
        while low < high {
            let middle = low.midpoint(high);
            if is_least(self.first_key(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// A file of the lowest level, or a sorted run of files that follow each other.
struct Source {
    pieces: BoxStream<'static, Result<Vec<RowEntry>, Error>>,
    entries: std::vec::IntoIter<RowEntry>,
}

impl Runs {
    /// The entries of one segment in a range of keys, as of the sequence number. `None` if some of
    /// them may be only in memory, or if there are so few that the block cache serves better.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) async fn open(
        store: &Store,
        (path, manifest): (&str, &VersionedManifest),
        segment: &[u8],
        keys: &Keys,
        newest: u64,
    ) -> Result<Option<Runs>, Error> {
        if manifest.last_l0_seq() < newest {
            return Ok(None);
        }
        let paths = PathResolver::new(path, manifest);
        let view = |view: &SsTableView| View::new(view, &paths, keys, store);
        let runs: Vec<Vec<View>> = manifest.segment(segment).map_or_else(Vec::new, |segment| {
            let level = segment.l0().iter().map(|file| view(file).into_iter().collect());
            let runs = segment.compacted().iter().map(|run| run.sst_views().iter().filter_map(view).collect());
            level.chain(runs).filter(|views: &Vec<View>| !views.is_empty()).collect()
        });
        let bytes: u64 = runs.iter().flatten().map(|view| view.handle.estimate_size()).sum();
        if bytes < store.tuning.bulk_bytes_min {
            return Ok(None);
        }
        let piece = (PIECES_BYTES / runs.len().max(1) as u64).clamp(PIECE_BYTES.start, PIECE_BYTES.end);
        let sources = runs.into_iter().map(|views| Source::new(views, piece)).collect();
        let mut runs = Runs { sources, heap: Vec::new(), newest, last: None, failed: None };
        for source in 0..runs.sources.len() {
            if runs.sources[source].refill().await? {
                runs.heap.push(source);
            }
        }
        // A sorted list is a heap, too.
        let Runs { sources, heap, .. } = &mut runs;
        heap.sort_by(|a, b| sources[*a].compare(&sources[*b]));
        Ok(Some(runs))
    }

    /// The next values, of which there is at least one; `None` at the end.
    ///
    /// # Errors
    /// If a file cannot be read. The rest begins behind [`Runs::last`].
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let (mut values, mut bytes) = (Vec::with_capacity(VALUES_MAX), 0);
        while values.len() < VALUES_MAX
            && bytes < VALUES_BYTES_MAX
            && let Some(&least) = self.heap.first()
        {
            let entry = self.sources[least].entries.next().expect("a source of the heap has entries left");
            if entry.seq <= self.newest && self.last.as_ref() != Some(&entry.key) {
                match entry.value {
                    ValueDeletable::Value(value) => {
                        bytes += value.len();
                        values.push(value);
                    }
                    ValueDeletable::Tombstone => {}
                    ValueDeletable::Merge(_) => {
                        self.failed = Some(Error::Operand);
                        break;
                    }
                }
                self.last = Some(entry.key);
            }
            if self.sources[least].entries.as_slice().is_empty() {
                match self.sources[least].refill().await {
                    Ok(true) => {}
                    Ok(false) => drop(self.heap.swap_remove(0)),
                    Err(error) => {
                        self.failed = Some(error);
                        break;
                    }
                }
            }
            self.sift_down();
        }
        match self.failed.take_if(|_| values.is_empty()) {
            Some(error) => Err(error),
            None => Ok(Some(values).filter(|values| !values.is_empty())),
        }
    }

    /// The last key whose value was returned, or that turned out to be deleted.
    pub(super) fn last(&self) -> Option<&Bytes> {
        self.last.as_ref()
    }

    /// Moves the first source of the heap to its place.
    fn sift_down(&mut self) {
        let (heap, sources) = (&mut self.heap, &self.sources);
        let mut place = 0;
        while let Some(&left) = heap.get(2 * place + 1) {
            let (mut child, mut least) = (2 * place + 1, left);
            if let Some(&right) = heap.get(child + 1)
                && sources[right].compare(&sources[left]).is_lt()
            {
                (child, least) = (child + 1, right);
            }
            if sources[heap[place]].compare(&sources[least]).is_le() {
                break;
            }
            heap.swap(place, child);
            place = child;
        }
    }
}

impl Source {
    /// Creates a source of files that follow each other, in pieces of about `piece` bytes.
    fn new(views: Vec<View>, piece: u64) -> Source {
        let pieces = stream::iter(views).then(move |view| async move { view.divide(piece).await });
        let pieces = pieces.map_ok(|pieces| stream::iter(pieces.into_iter().map(Ok))).try_flatten();
        let pieces = pieces.map(|piece: Result<Piece, Error>| {
            let entries = piece.map(|piece| AbortOnDropHandle::new(tokio::spawn(piece.entries())));
            async move { entries?.await? }
        });
        Source { pieces: pieces.buffered(PIECES_AHEAD).boxed(), entries: Vec::new().into_iter() }
    }

    /// Takes the next entries; false if there are no more.
    async fn refill(&mut self) -> Result<bool, Error> {
        while let Some(entries) = self.pieces.try_next().await? {
            if !entries.is_empty() {
                self.entries = entries.into_iter();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Orders by the next entries: by key, and the newest first within a key.
    #[inline]
    fn compare(&self, other: &Source) -> Ordering {
        let (own, other) = (&self.entries.as_slice()[0], &other.entries.as_slice()[0]);
        own.key.cmp(&other.key).then_with(|| other.seq.cmp(&own.seq))
    }
}

/// The visible part of a file.
#[derive(Clone)]
struct View {
    handle: SsTableHandle,
    file: File,
    index: Arc<Index>,
    /// Each of them limits the part.
    keys: [Keys; 2],
}

/// Blocks of a file that are fetched together.
struct Piece {
    view: View,
    blocks: Range<usize>,
    bytes: Range<u64>,
}

impl View {
    /// `None` if it holds none of the keys.
    fn new(view: &SsTableView, paths: &PathResolver, keys: &Keys, store: &Store) -> Option<View> {
        let visible = match view.visible_range() {
            Some(range) => (range.start_bound().cloned(), range.end_bound().cloned()),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let keys = [keys.clone(), visible];
        let info = &view.sst.info;
        let outside = info.first_entry.as_ref().is_some_and(|first| keys.iter().any(|keys| is_behind(first, keys)))
            || info.last_entry.as_ref().is_some_and(|last| keys.iter().any(|keys| is_before(last, keys)));
        let file = || File { objects: Arc::clone(&store.objects), path: paths.sst_path(&view.sst.id), piece: None };
        let index = || Arc::new(Index { shared: Arc::clone(&store.cache), entry: OnceLock::new() });
        (!outside).then(|| View { handle: view.sst.clone(), file: file(), index: index(), keys })
    }

    fn open(&self, file: File) -> Result<slatedb::SstFile, Error> {
        let index: Arc<dyn DbCache> = self.index.clone();
        Ok(SstReader::new("", Arc::new(file), Some(index), None).open_with_handle(self.handle.clone())?)
    }

    /// The numbers of entries in the file and in each of its blocks, which nobody keeps.
    async fn stats(&self) -> Result<SstStats, Error> {
        let reader = SstReader::new("", Arc::new(self.file.clone()), None, None);
        // Files of all versions that were ever written here have them.
        Ok(reader.open_with_handle(self.handle.clone())?.stats().await?.unwrap_or_default())
    }

    /// Its blocks, in groups of about `piece` bytes.
    async fn divide(self, piece: u64) -> Result<Vec<Piece>, Error> {
        let (index, blocks) = self.blocks().await?;
        let mut pieces = Vec::new();
        let mut start = blocks.start;
        for end in blocks.clone().map(|block| block + 1) {
            let bytes = self.offset(&index, start)..self.offset(&index, end);
            if end == blocks.end || bytes.end - bytes.start >= piece {
                pieces.push(Piece { view: self.clone(), blocks: start..end, bytes });
                start = end;
            }
        }
        Ok(pieces)
    }

    /// The file's index, and the places in it of the blocks that may hold wanted keys.
    async fn blocks(&self) -> Result<(SstIndex, Range<usize>), Error> {
        let index = self.open(self.file.clone())?.index().await?;
        // An index holds the first key of each block, so the block before may end with the wanted
        // key.
        let first = self.keys.iter().map(|keys| index.partition_point(|key| is_before(key, keys)).saturating_sub(1));
        let end = self.keys.iter().map(|keys| index.partition_point(|key| !is_behind(key, keys)));
        let blocks = first.max().unwrap_or_default()..end.min().unwrap_or_default();
        Ok((index, blocks))
    }

    /// The place of a block in the file, or of the end of the last one.
    fn offset(&self, index: &SstIndex, block: usize) -> u64 {
        index.get(block).map_or_else(|| self.end(), |(offset, _)| offset)
    }

    /// The end of the last block.
    fn end(&self) -> u64 {
        let info = &self.handle.info;
        if info.filter_len > 0 { info.filter_offset } else { info.index_offset }
    }
}

impl Piece {
    /// Its visible entries, in order.
    async fn entries(self) -> Result<Vec<RowEntry>, Error> {
        let Piece { view, blocks, bytes } = self;
        let content = view.file.objects.get_range(&view.file.path, bytes.clone()).await?;
        let file = view.open(File { piece: Some((bytes.start, content)), ..view.file.clone() })?;
        let mut entries = Vec::new();
        for block in blocks {
            let rows = file.read_block(block).await?;
            if entries.is_empty() {
                entries = rows;
            } else {
                entries.extend(rows);
            }
        }
        let end = entries.partition_point(|entry| !view.keys.iter().any(|keys| is_behind(&entry.key, keys)));
        entries.truncate(end);
        let start = entries.partition_point(|entry| view.keys.iter().any(|keys| is_before(&entry.key, keys)));
        entries.drain(..start);
        Ok(entries)
    }
}

/// Returns true if a key lies before the range.
fn is_before(key: &[u8], keys: &Keys) -> bool {
    match &keys.0 {
        Bound::Included(start) => key < &start[..],
        Bound::Excluded(start) => key <= &start[..],
        Bound::Unbounded => false,
    }
}

/// Returns true if a key lies behind the range.
fn is_behind(key: &[u8], keys: &Keys) -> bool {
    match &keys.1 {
        Bound::Included(end) => key > &end[..],
        Bound::Excluded(end) => key >= &end[..],
        Bound::Unbounded => false,
    }
}

/// The index of one file, which is kept in memory. Blocks are not kept: a scan asks for each only
/// once, and would drive blocks that look-ups by key need out of the cache.
struct Index {
    shared: Arc<dyn DbCache>,
    entry: OnceLock<CachedEntry>,
}

#[async_trait]
impl DbCache for Index {
    async fn get_block(&self, _: &CachedKey) -> Result<Option<CachedEntry>, slatedb::Error> {
        Ok(None)
    }

    async fn get_index(&self, key: &CachedKey) -> Result<Option<CachedEntry>, slatedb::Error> {
        if let Some(entry) = self.entry.get() {
            return Ok(Some(entry.clone()));
        }
        let found = self.shared.get_index(key).await?;
        Ok(found.map(|entry| self.entry.get_or_init(|| entry).clone()))
    }

    async fn get_filter(&self, _: &CachedKey) -> Result<Option<CachedEntry>, slatedb::Error> {
        Ok(None)
    }

    async fn get_stats(&self, _: &CachedKey) -> Result<Option<CachedEntry>, slatedb::Error> {
        Ok(None)
    }

    /// It is an index, because blocks do not come here.
    async fn insert(&self, key: CachedKey, value: CachedEntry) {
        self.shared.insert(key, self.entry.get_or_init(|| value).clone()).await;
    }

    async fn remove(&self, key: &CachedKey) {
        self.shared.remove(key).await;
    }

    fn entry_count(&self) -> u64 {
        self.entry.get().map_or(0, |_| 1)
    }

    async fn fetch_block(&self, _: CachedKey, loader: CacheLoader) -> Result<CacheFetch, slatedb::Error> {
        Ok(CacheFetch::miss(loader().await?))
    }
}

/// One file as an object store that answers with it, whatever the path, and with a piece of it that
/// was fetched before.
#[derive(Clone, Debug)]
struct File {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    /// The piece, and its start.
    piece: Option<(u64, Bytes)>,
}

impl File {
    fn fetched(&self, wanted: &Range<u64>) -> Option<Bytes> {
        let (start, piece) = self.piece.as_ref()?;
        let from = usize::try_from(wanted.start.checked_sub(*start)?).ok()?;
        let to = usize::try_from(wanted.end.checked_sub(*start)?).ok()?;
        (from <= to && to <= piece.len()).then(|| piece.slice(from..to))
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.path, self.objects)
    }
}

#[async_trait]
impl ObjectStore for File {
    async fn get_opts(&self, _: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let wanted = match &options.range {
            Some(GetRange::Bounded(range)) if !options.head => range.clone(),
            _ => return self.objects.get_opts(&self.path, options).await,
        };
        let Some(bytes) = self.fetched(&wanted) else { return self.objects.get_opts(&self.path, options).await };
        let meta = ObjectMeta {
            location: Path::default(),
            last_modified: Default::default(),
            size: wanted.end,
            e_tag: None,
            version: None,
        };
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range: wanted, attributes: Default::default(), extensions: Default::default() })
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> object_store::Result<PutResult> {
        Err(object_store::Error::NotImplemented { operation: "put".to_owned(), implementer: self.to_string() })
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Err(object_store::Error::NotImplemented { operation: "put".to_owned(), implementer: self.to_string() })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let refused = || object_store::Error::NotSupported { source: "files are only read".into() };
        paths.map(move |_| Err(refused())).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        stream::empty().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> object_store::Result<ListResult> {
        Err(object_store::Error::NotImplemented { operation: "list".to_owned(), implementer: self.to_string() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> object_store::Result<()> {
        Err(object_store::Error::NotImplemented { operation: "copy".to_owned(), implementer: self.to_string() })
    }
}

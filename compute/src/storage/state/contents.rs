//! How much of a database belongs to which job, in rows and bytes, without reading all of it.
//!
//! Each file says how many entries each of its blocks has, values that were replaced and marks of
//! deleted ones among them. A small segment is read as a whole. Of a large one, short ranges of
//! keys all over it are read, which begin and end with blocks. The entries that a snapshot shows in
//! them, divided by those that the files have there, give a share, and the entries of all files
//! times the share is the estimate. Files are looked at once, and a segment only if its files have
//! changed.
//!
//! Caveats: the contents of a large segment are an estimate, of which a few percent may be wrong. A
//! job that has a small part of a large segment of state may be estimated far off.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use slatedb::compactor::SourceId;
use slatedb::manifest::SsTableView;
use slatedb::{PathResolver, VersionedManifest};
use weir_common::error::chain;
use weir_common::ids::{TableId, VnodeRange};

use super::runs::{self, Blocks, Size};
use super::{Snapshot, Store, keys};

/// A segment with no more entries and bytes than these in its files is read as a whole.
const WHOLE: Size = Size { entries: 8_192, bytes: 4 << 20 };
/// Ranges that are read of a larger one, each with about so many entries, and all with about so
/// many bytes.
const SAMPLES: usize = 32;
const SAMPLE_ENTRIES: u64 = 512;
const SAMPLED_BYTES: u64 = 8 << 20;
/// The shares of a large segment are taken for so long.
const SAMPLE_AGE: Duration = Duration::from_secs(60);

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The number of rows.
    pub rows: u64,
    /// The bytes of their keys and values.
    pub bytes: u64,
}

impl std::ops::AddAssign for Content {
    fn add_assign(&mut self, other: Content) {
        *self = Content { rows: self.rows + other.rows, bytes: self.bytes + other.bytes };
    }
}

/// An entry whose rows are to be counted.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// A block or a row of a table, with its value.
    Table(TableId, &'a [u8]),
    /// State of a job, in the table with this place in its plan.
    State(TableId, u16),
}

/// Counts the rows in an entry.
pub type Count<'a> = &'a (dyn Fn(Stored<'_>) -> u64 + Sync);

/// The reason why the contents are not known. The next look may succeed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot look at a file")]
    File(#[from] runs::Error),
    #[error("cannot read entries")]
    Entries(#[from] super::Error),
}

/// The contents of a database by the tables and jobs that they belong to, as of the last look.
#[derive(Debug, Default)]
pub(super) struct Contents {
    segments: HashMap<Bytes, Segment>,
}

/// The rows and bytes of each id for an entry of a segment's files.
type Shares = HashMap<TableId, (f64, f64)>;

#[derive(Debug, Default)]
struct Segment {
    /// The visible part of each file.
    files: HashMap<SourceId, Size>,
    content: HashMap<TableId, Content>,
    /// The shares, and when they were taken.
    sampled: Option<(Instant, Shares)>,
}

impl Contents {
    /// Looks at the segments whose files have changed since the last look. `snapshot` is younger
    /// than `manifest`.
    pub(super) async fn look(
        &mut self,
        (store, path): (&Store, &str),
        manifest: &VersionedManifest,
        snapshot: &Snapshot,
        count: Count<'_>,
    ) -> HashMap<TableId, Content> {
        let paths = PathResolver::new(path, manifest);
        let present: HashSet<&[u8]> = manifest.segments().iter().map(|segment| &segment.prefix()[..]).collect();
        self.segments.retain(|prefix, _| present.contains(&prefix[..]));
        for segment in manifest.segments() {
            let known = self.segments.entry(segment.prefix().clone()).or_default();
            let runs = segment.compacted().iter().flat_map(|run| run.sst_views());
            let views: Vec<&SsTableView> = segment.l0().iter().chain(runs).collect();
            if let Err(error) = known.look((store, &paths), segment.prefix(), &views, (snapshot, count)).await {
                // Files come and go. The next look may succeed.
                tracing::debug!(path, error = chain(&error), "cannot look at the contents of a segment");
            }
        }
        let mut all: HashMap<TableId, Content> = HashMap::new();
        for (id, content) in self.segments.values().flat_map(|segment| &segment.content) {
            *all.entry(*id).or_default() += *content;
        }
        all
    }
}

impl Segment {
    async fn look(
        &mut self,
        (store, paths): (&Store, &PathResolver),
        prefix: &[u8],
        views: &[&SsTableView],
        (snapshot, count): (&Snapshot, Count<'_>),
    ) -> Result<(), Error> {
        let id = |view: &SsTableView| SourceId::SstView(view.id);
        if self.files.len() == views.len() && views.iter().all(|view| self.files.contains_key(&id(view))) {
            return Ok(());
        }
        let mut files = HashMap::new();
        for view in views {
            let size = match self.files.get(&id(view)) {
                Some(size) => *size,
                None => runs::size(store, paths, view).await?,
            };
            files.insert(id(view), size);
        }
        let all = files.values().fold(Size::default(), |all, size| all + *size);
        if all.entries <= WHOLE.entries && all.bytes <= WHOLE.bytes {
            let range = keys::segment_range(prefix, VnodeRange::ALL);
            (self.content, self.sampled) = (read(snapshot, range, count).await?, None);
        } else {
            let sampled = self.sampled.take_if(|(at, _)| at.elapsed() < SAMPLE_AGE);
            let shares = match sampled {
                Some(sampled) => sampled,
                None => {
                    let blocks = Blocks::open(store, paths, views).await?;
                    (Instant::now(), sample(&blocks, prefix, all, (snapshot, count)).await?)
                }
            };
            let whole = |share: f64| (share * all.entries as f64).round() as u64;
            let content = |(rows, bytes): (f64, f64)| Content { rows: whole(rows), bytes: whole(bytes) };
            self.content = shares.1.iter().map(|(id, share)| (*id, content(*share))).collect();
            self.sampled = Some(shares);
        }
        self.files = files;
        Ok(())
    }
}

/// Reads samples of a segment.
async fn sample(
    blocks: &Blocks,
    prefix: &[u8],
    all: Size,
    (snapshot, count): (&Snapshot, Count<'_>),
) -> Result<Shares, Error> {
    let end = keys::segment_range(prefix, VnodeRange::ALL).end;
    let each = usize::try_from(SAMPLE_ENTRIES * blocks.len() as u64 / all.entries.max(1)).unwrap_or(usize::MAX).max(1);
    let (mut found, mut entries, mut bytes): (HashMap<TableId, Content>, _, _) = (HashMap::new(), 0, 0);
    // The samples are far apart in any order, so that those before the limit are, too.
    for sample in (0..SAMPLES).map(|sample| sample * 13 % SAMPLES) {
        let Some((range, size)) = blocks.range((2 * sample + 1) * blocks.len() / (2 * SAMPLES), each) else { continue };
        let range = range.start..range.end.unwrap_or_else(|| end.clone());
        for (id, content) in read(snapshot, range, count).await? {
            *found.entry(id).or_default() += content;
        }
        (entries, bytes) = (entries + size.entries, bytes + size.bytes);
        if bytes >= SAMPLED_BYTES {
            break;
        }
    }
    let share = |part: u64| part as f64 / u64::max(entries, 1) as f64;
    Ok(found.into_iter().map(|(id, content)| (id, (share(content.rows), share(content.bytes)))).collect())
}

/// Reads the entries in a range of keys.
async fn read(snapshot: &Snapshot, range: Range<Bytes>, count: Count<'_>) -> Result<HashMap<TableId, Content>, Error> {
    let mut entries = snapshot.entries_in(range);
    let mut found: HashMap<TableId, Content> = HashMap::new();
    while let Some((key, value)) = entries.next().await? {
        let (id, stored) = match (keys::state_table(&key), keys::entry_table(&key)) {
            (Some((job, table)), _) => (job, Stored::State(job, table)),
            (None, Some(table)) => (table, Stored::Table(table, &value)),
            (None, None) => continue,
        };
        *found.entry(id).or_default() += Content { rows: count(stored), bytes: (key.len() + value.len()) as u64 };
    }
    Ok(found)
}

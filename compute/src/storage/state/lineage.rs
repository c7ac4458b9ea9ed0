//! Makes new databases: empty, or as a clone of committed checkpoints, narrowed to the new slot's
//! vnodes. A clone copies no data. It refers to the files of its sources, and through them to those
//! of their own sources; all of these are its ancestors. Writes after a checkpoint do not appear in
//! its clones.
//!
//! A clone protects every source from deletion by a checkpoint of its own there, so the checkpoint
//! that it was made of may be deleted once the clone exists.

use std::collections::HashSet;
use std::ops::{Bound, Range, RangeBounds};

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use slatedb::CloneSourceSpec;
use slatedb::admin::Admin;
use slatedb::manifest::SsTableView;
use uuid::Uuid;
use weir_common::head::SlotState;
use weir_common::ids::{TableId, VnodeRange};

use super::{Error, Store, keys};

/// A committed checkpoint that a new database takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneSource {
    /// The database, relative to the state URL.
    pub path: String,
    /// Its checkpoint.
    pub checkpoint: Uuid,
    /// The vnodes that it holds.
    pub vnodes: VnodeRange,
}

impl From<&SlotState> for CloneSource {
    fn from(slot: &SlotState) -> CloneSource {
        CloneSource { path: slot.path.clone(), checkpoint: slot.checkpoint, vnodes: slot.vnodes }
    }
}

/// Refuses a path that holds anything: cloning onto a used path succeeds, and brings uncommitted
/// rows back.
pub(super) async fn ensure_unused(store: &Store, path: &str) -> Result<(), Error> {
    match store.objects.list(Some(&Path::from(path))).next().await {
        None => Ok(()),
        Some(Ok(_)) => Err(Error::PathUsed { path: path.to_owned() }),
        Some(Err(error)) => Err(Error::objects("list", path)(error)),
    }
}

/// Makes a database of the parts of the sources that belong to `vnodes`, and to one of `tables` or
/// to the operators' state. State of jobs that are not in `tables` comes along; compaction leaves
/// it out. Does nothing if no source holds any of them: then the database is empty when it is
/// opened.
pub(super) async fn clone(
    store: &Store,
    path: &str,
    vnodes: VnodeRange,
    sources: &[CloneSource],
    tables: &HashSet<TableId>,
) -> Result<(), Error> {
    let mut sources: Vec<&CloneSource> =
        sources.iter().filter(|source| source.vnodes.intersect(vnodes).is_some()).collect();
    if sources.len() > 1 {
        // A union warns about each source that has nothing to give, at length.
        let giving = sources.iter().map(|source| gives(store, source, vnodes, tables));
        let giving = futures::future::try_join_all(giving).await?;
        let mut giving = giving.into_iter();
        sources.retain(|_| giving.next().unwrap_or(true));
    }
    let mut specs = sources.iter().map(|source| CloneSourceSpec::with_checkpoint(&*source.path, source.checkpoint));
    let Some(first) = specs.next() else { return Ok(()) };
    let tables = tables.clone();
    let admin = Admin::builder(path, store.objects.clone()).build();
    let mut clone = admin
        .create_clone_builder_from_source(first)
        .with_segment_filter(move |prefix| is_wanted(prefix, &tables))
        .with_segment_projection(move |prefix| keys::segment_range(prefix, vnodes));
    for spec in specs {
        clone = clone.with_source(spec);
    }
    clone.build().await.map_err(Error::database("clone", path))
}

/// Returns true if a new database takes a segment over.
fn is_wanted(prefix: &[u8], tables: &HashSet<TableId>) -> bool {
    keys::segment_table(prefix).is_some_and(|table| table == keys::STATE || tables.contains(&table))
}

/// Returns true if a source holds anything wanted in the vnodes, or if that is unknown.
async fn gives(
    store: &Store,
    source: &CloneSource,
    vnodes: VnodeRange,
    tables: &HashSet<TableId>,
) -> Result<bool, Error> {
    let admin = Admin::builder(&*source.path, store.objects.clone()).build();
    let read = async |id| admin.read_manifest(id).await.map_err(Error::database("read the manifest of", &source.path));
    let Some(newest) = read(None).await? else { return Ok(true) };
    let checkpoint = newest.checkpoints().iter().find(|checkpoint| checkpoint.id == source.checkpoint);
    let Some(checkpoint) = checkpoint else { return Ok(true) };
    let Some(manifest) = read(Some(checkpoint.manifest_id)).await? else { return Ok(true) };
    Ok(manifest.segments().iter().any(|segment| {
        let wanted = is_wanted(segment.prefix(), tables);
        let range = keys::segment_range(segment.prefix(), vnodes);
        let runs = segment.compacted().iter().flat_map(|run| run.sst_views());
        wanted && segment.l0().iter().chain(runs).any(|view| shows(view, &range))
    }))
}

/// Returns true if the visible part of a file may hold a key of a range.
fn shows(view: &SsTableView, range: &Range<Bytes>) -> bool {
    let info = &view.sst.info;
    let begins = info.first_entry.as_ref().is_some_and(|first| *first < range.end);
    let ends = info.last_entry.as_ref().is_none_or(|last| *last >= range.start);
    let visible = view.visible_range().is_none_or(|visible| {
        let begins = match visible.start_bound() {
            Bound::Included(start) | Bound::Excluded(start) => *start < range.end,
            Bound::Unbounded => true,
        };
        let ends = match visible.end_bound() {
            Bound::Included(end) => *end >= range.start,
            Bound::Excluded(end) => *end > range.start,
            Bound::Unbounded => true,
        };
        begins && ends
    });
    begins && ends && visible
}

//! How a new database is made: empty, or as a clone of committed checkpoints, narrowed to the new slot's vnodes. A clone
//! copies no data: it refers to the files of its sources, and through them to those of their own sources. These are its
//! ancestors. Writes after a checkpoint do not appear in its clones.
//!
//! A clone holds every source back from deletion by a checkpoint of its own there, so the checkpoint it was made of may
//! be deleted once the clone is made.

use std::collections::HashSet;

use futures::StreamExt;
use object_store::path::Path;
use slatedb::CloneSourceSpec;
use slatedb::admin::Admin;
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
    /// The vnodes it holds.
    pub vnodes: VnodeRange,
}

impl From<&SlotState> for CloneSource {
    fn from(slot: &SlotState) -> CloneSource {
        CloneSource { path: slot.path.clone(), checkpoint: slot.checkpoint, vnodes: slot.vnodes }
    }
}

/// Refuses a path that holds anything: cloning onto a used path succeeds and brings uncommitted rows back.
pub(super) async fn ensure_unused(store: &Store, path: &str) -> Result<(), Error> {
    match store.objects.list(Some(&Path::from(path))).next().await {
        None => Ok(()),
        Some(Ok(_)) => Err(Error::PathUsed { path: path.to_owned() }),
        Some(Err(error)) => Err(Error::objects("list", path)(error)),
    }
}

/// Makes a database of the parts of the sources that belong to `vnodes` and to one of `tables`. Does nothing if no
/// source holds any of the vnodes: then the database begins empty when it is opened.
pub(super) async fn clone(
    store: &Store,
    path: &str,
    vnodes: VnodeRange,
    sources: &[CloneSource],
    tables: &HashSet<TableId>,
) -> Result<(), Error> {
    let mut specs = sources
        .iter()
        .filter(|source| source.vnodes.intersect(vnodes).is_some())
        .map(|source| CloneSourceSpec::with_checkpoint(source.path.as_str(), source.checkpoint));
    let Some(first) = specs.next() else { return Ok(()) };
    let tables = tables.clone();
    let admin = Admin::builder(path, store.objects.clone()).build();
    let mut clone = admin
        .create_clone_builder_from_source(first)
        .with_segment_filter(move |prefix| keys::segment_table(prefix).is_some_and(|table| tables.contains(&table)))
        .with_segment_projection(move |prefix| keys::segment_range(prefix, vnodes));
    for spec in specs {
        clone = clone.with_source(spec);
    }
    clone.build().await.map_err(Error::database("clone", path))
}

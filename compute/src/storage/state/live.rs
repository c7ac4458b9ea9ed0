//! The ids whose entries a database keeps: those of the catalog that it was opened with, and of
//! each job that has written since, until they are dropped.
//!
//! The state of all jobs shares one segment, so no segment can be taken away when a job is dropped.
//! Instead a filter leaves the state of jobs that are gone out of everything that compaction
//! writes, and a [`Shares`] has the segment rewritten when a fifth of it is of such jobs.
//!
//! Invariant: state of a job is left out only after the job was dropped. Ids are never reused, so a
//! job is gone for good if neither the catalog nor a write of this term has named it. A write names
//! its job before it enters the database, so a job that is being created loses nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use slatedb::compactor::SourceId;
use slatedb::manifest::SsTableId;
use slatedb::{
    CompactionFilter, CompactionFilterDecision, CompactionFilterError, CompactionFilterSupplier, CompactionJobContext,
    PathResolver, RowEntry, VersionedManifest,
};
use tokio::sync::watch;
use tracing::info;
use weir_common::ids::TableId;

use super::{Store, keys, runs};

/// The segment is rewritten when one part in so many is of jobs that are gone.
const GONE_MAX: u64 = 5;

/// The jobs whose data a database keeps, shared between its handle and its compactor.
#[derive(Clone)]
pub(super) struct Live(Arc<watch::Sender<Ids>>);

/// The ids that a database keeps or forgets.
pub(super) struct Ids {
    /// Named by the catalog or by a write.
    known: HashSet<TableId>,
    dropped: HashSet<TableId>,
    /// Files of the operators' segment that are to be rewritten.
    spent: HashSet<SsTableId>,
}

impl Live {
    /// `tables` are the ids of the catalog.
    pub(super) fn new(tables: HashSet<TableId>) -> Live {
        Live(Arc::new(watch::Sender::new(Ids { known: tables, dropped: HashSet::new(), spent: HashSet::new() })))
    }

    /// Keeps the state of a job from now on, unless it was dropped.
    pub(super) fn writes(&self, job: TableId) {
        if !self.0.borrow().known.contains(&job) {
            self.0.send_if_modified(|ids| ids.known.insert(job));
        }
    }

    pub(super) fn drop_table(&self, table: TableId) {
        self.0.send_if_modified(|ids| ids.dropped.insert(table));
    }

    /// Returns true if a segment is that of a dropped table.
    pub(super) fn is_dropped(&self, prefix: &[u8]) -> bool {
        keys::segment_table(prefix).is_some_and(|table| self.0.borrow().dropped.contains(&table))
    }

    /// Files of the operators' segment that are to be rewritten.
    pub(super) fn spent(&self) -> HashSet<SsTableId> {
        self.0.borrow().spent.clone()
    }

    /// Reports each job that is dropped, and each that writes for the first time.
    pub(super) fn changes(&self) -> watch::Receiver<Ids> {
        self.0.subscribe()
    }

    fn is_gone(&self, job: TableId) -> bool {
        let ids = self.0.borrow();
        ids.dropped.contains(&job) || !ids.known.contains(&job)
    }

    fn set_spent(&self, files: HashSet<SsTableId>) {
        // Nobody waits for it.
        self.0.send_if_modified(|ids| {
            ids.spent = files;
            false
        });
    }
}

/// Makes the filter of each compaction.
pub(super) struct FilterSupplier {
    live: Live,
}

impl FilterSupplier {
    pub(super) fn new(live: Live) -> FilterSupplier {
        FilterSupplier { live }
    }
}

#[async_trait]
impl CompactionFilterSupplier for FilterSupplier {
    async fn create_compaction_filter(
        &self,
        _: &CompactionJobContext,
    ) -> Result<Box<dyn CompactionFilter>, CompactionFilterError> {
        Ok(Box::new(Filter { live: self.live.clone(), last: None }))
    }
}

/// Leaves out the state of jobs that are gone. Older values of a key that lie deeper come to light
/// again, but they are state of the same job, which nobody reads.
struct Filter {
    live: Live,
    /// The job of the last entry, and the decision.
    last: Option<(TableId, CompactionFilterDecision)>,
}

#[async_trait]
impl CompactionFilter for Filter {
    async fn filter(&mut self, entry: &RowEntry) -> Result<CompactionFilterDecision, CompactionFilterError> {
        let Some(job) = keys::state_job(&entry.key) else { return Ok(CompactionFilterDecision::Keep) };
        if let Some((_, decision)) = self.last.as_ref().filter(|(last, _)| *last == job) {
            return Ok(decision.clone());
        }
        let decision = match self.live.is_gone(job) {
            true => CompactionFilterDecision::Drop,
            false => CompactionFilterDecision::Keep,
        };
        self.last = Some((job, decision.clone()));
        Ok(decision)
    }

    async fn on_compaction_end(&mut self) -> Result<(), CompactionFilterError> {
        Ok(())
    }
}

/// Tells how much of the operators' segment is of which job, from the indexes of its files. Each is
/// read once. A block counts for the job of its first key, so files of few blocks tell little; but
/// there is little in them, too.
#[derive(Default)]
pub(super) struct Shares {
    /// The bytes of each job, by the visible part of a file.
    files: HashMap<SourceId, HashMap<TableId, u64>>,
}

impl Shares {
    /// Looks at the files. Returns how many bytes in them are of jobs that are gone. If that is too
    /// much, the compactor rewrites the files.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) async fn take(
        &mut self,
        store: &Store,
        path: &str,
        manifest: &VersionedManifest,
        live: &Live,
    ) -> Result<u64, runs::Error> {
        let Some(segment) = manifest.segment(&keys::segment(keys::STATE)) else { return Ok(0) };
        let paths = PathResolver::new(path, manifest);
        let runs = segment.compacted().iter().flat_map(|run| run.sst_views());
        let views: Vec<_> = segment.l0().iter().chain(runs).collect();
        let mut files = HashMap::new();
        for view in &views {
            let id = SourceId::SstView(view.id);
            let sizes = match self.files.remove(&id) {
                Some(sizes) => sizes,
                None => runs::sizes(store, &paths, view, keys::state_job).await?,
            };
            files.insert(id, sizes);
        }
        self.files = files;
        let (mut gone, mut all) = (0, 0);
        for (job, bytes) in self.files.values().flatten() {
            all += bytes;
            gone += if live.is_gone(*job) { *bytes } else { 0 };
        }
        let is_worth_it = gone > 0 && gone * GONE_MAX >= all;
        if is_worth_it {
            info!(path, gone, all, "the state of dropped jobs is removed");
        }
        let spent = views.iter().filter(|_| is_worth_it).map(|view| view.sst.id);
        live.set_spent(spent.collect());
        Ok(gone)
    }
}

//! Schedules compactions. SlateDB's size-tiered scheduler does the usual work; this one adds three
//! things:
//!
//! * the segment of a dropped table is drained: its files leave the manifest without being read;
//! * when too much of the operators' segment is of jobs that are gone, its files are rewritten
//!   without it;
//! * when a database reads files of too many ancestors, the data of the smallest is rewritten, one
//!   rewrite at a time, so that ancestors can be deleted and the cost of a clone does not grow with
//!   the number of recoveries.
//!
//! The scheduler only proposes. SlateDB refuses proposals that do not fit its state, and asks again
//! at the next poll.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use slatedb::compactor::{
    CompactionScheduler, CompactionSchedulerSupplier, CompactionSpec, CompactorStateView,
    SizeTieredCompactionSchedulerSupplier, SourceId,
};
use slatedb::config::CompactorOptions;
use slatedb::manifest::{Segment, SsTableId};

use super::keys;
use super::live::Live;

/// Makes the scheduler of one database.
pub(super) struct SchedulerSupplier {
    live: Live,
    ancestors_max: usize,
}

impl SchedulerSupplier {
    pub(super) fn new(live: Live, ancestors_max: usize) -> SchedulerSupplier {
        SchedulerSupplier { live, ancestors_max }
    }
}

impl CompactionSchedulerSupplier for SchedulerSupplier {
    fn compaction_scheduler(&self, options: &CompactorOptions) -> Box<dyn CompactionScheduler + Send + Sync> {
        Box::new(Scheduler {
            usual: SizeTieredCompactionSchedulerSupplier::new().compaction_scheduler(options),
            live: self.live.clone(),
            ancestors_max: self.ancestors_max,
            rewrite: Mutex::new(None),
        })
    }
}

struct Scheduler {
    usual: Box<dyn CompactionScheduler + Send + Sync>,
    live: Live,
    ancestors_max: usize,
    /// The last proposed rewrite of an ancestor's data.
    rewrite: Mutex<Option<CompactionSpec>>,
}

impl CompactionScheduler for Scheduler {
    fn propose(&self, state: &CompactorStateView) -> Vec<CompactionSpec> {
        let active: Vec<CompactionSpec> = state
            .compactions()
            .into_iter()
            .flat_map(|compactions| compactions.recent_compactions())
            .filter(|compaction| compaction.active())
            .map(|compaction| compaction.spec().clone())
            .collect();
        let segments = state.manifest().segments();
        let (doomed, kept): (Vec<_>, Vec<_>) =
            segments.iter().partition(|segment| self.live.is_dropped(segment.prefix()));
        // A rewrite goes before the usual work, which would starve it under steady load. Only one
        // runs at a time.
        let mut specs: Vec<CompactionSpec> = doomed.iter().filter_map(|segment| drain(segment, &active)).collect();
        let reclaims = self.reclaim(state, &kept, &active);
        match reclaims.is_empty() {
            true => specs.extend(self.rewrite(state, &kept, &active)),
            false => specs.extend(reclaims),
        }
        let taken: HashSet<SourceId> = specs.iter().flat_map(|spec| spec.sources()).copied().collect();
        let usual = self.usual.propose(state).into_iter().filter(|spec| {
            !self.live.is_dropped(spec.segment()) && !spec.sources().iter().any(|source| taken.contains(source))
        });
        // Two new runs must not get the same number, so the later proposal waits for the next poll.
        let numbers: HashSet<u32> = specs.iter().filter_map(CompactionSpec::destination).collect();
        let usual: Vec<_> = usual.filter(|spec| spec.destination().is_none_or(|run| !numbers.contains(&run))).collect();
        specs.extend(usual);
        specs
    }

    fn validate(&self, state: &CompactorStateView, spec: &CompactionSpec) -> Result<(), slatedb::Error> {
        self.usual.validate(state, spec)
    }
}

impl Scheduler {
    /// Rewrites the files that were found to hold too much state of jobs that are gone. The lowest
    /// level is rewritten by itself, because its other compactions wait for that.
    fn reclaim(
        &self,
        state: &CompactorStateView,
        segments: &[&Segment],
        active: &[CompactionSpec],
    ) -> Vec<CompactionSpec> {
        let spent = self.live.spent();
        let segment = segments.iter().find(|segment| keys::segment_table(segment.prefix()) == Some(keys::STATE));
        let Some(segment) = segment.filter(|_| !spent.is_empty()) else { return Vec::new() };
        let level: HashSet<SsTableId> = segment.l0().iter().map(|view| view.sst.id).collect();
        let (level, runs): (HashSet<_>, HashSet<_>) = spent.iter().partition(|file| level.contains(file));
        let fresh = fresh_run(state, active);
        [level, runs].iter().filter_map(|files| stretch(segment, files, active, fresh)).collect()
    }

    /// If there are too many ancestors, rewrites a stretch of the files that come from the
    /// smallest.
    fn rewrite(
        &self,
        state: &CompactorStateView,
        segments: &[&Segment],
        active: &[CompactionSpec],
    ) -> Option<CompactionSpec> {
        let mut last = self.rewrite.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|spec| active.contains(spec)) {
            return None;
        }
        let mut ancestors: Vec<HashSet<SsTableId>> = state
            .manifest()
            .external_dbs()
            .iter()
            .map(|ancestor| ancestor.sst_ids.iter().copied().collect::<HashSet<_>>())
            .filter(|files| !files.is_empty())
            .collect();
        if ancestors.len() <= self.ancestors_max {
            return None;
        }
        let sizes: HashMap<SsTableId, u64> =
            state.manifest().all_sst_views().map(|view| (view.sst.id, view.sst.estimate_size())).collect();
        ancestors.sort_by_cached_key(|files| files.iter().filter_map(|file| sizes.get(file)).sum::<u64>());
        let fresh = fresh_run(state, active);
        *last = ancestors
            .iter()
            .find_map(|files| segments.iter().find_map(|segment| stretch(segment, files, active, fresh)));
        last.clone()
    }
}

/// Takes all files out of a segment, unless a compaction works there.
fn drain(segment: &Segment, active: &[CompactionSpec]) -> Option<CompactionSpec> {
    let sources: Vec<SourceId> = sources(segment).map(|(source, _)| source).collect();
    let busy = active.iter().any(|spec| spec.segment() == segment.prefix());
    (!busy && !sources.is_empty()).then(|| CompactionSpec::drain_segment(segment.prefix().clone(), sources))
}

/// A segment's sources, newest first, each with its files.
fn sources(segment: &Segment) -> impl Iterator<Item = (SourceId, Vec<SsTableId>)> {
    let l0 = segment.l0().iter().map(|view| (SourceId::SstView(view.id), vec![view.sst.id]));
    let runs = segment
        .compacted()
        .iter()
        .map(|run| (SourceId::SortedRun(run.id), run.sst_views().iter().map(|view| view.sst.id).collect()));
    l0.chain(runs)
}

/// The shortest compaction of neighbouring sources that holds every use of `files` in a segment. If
/// it takes in part of the lowest level, it takes in everything older there, as SlateDB demands.
fn stretch(
    segment: &Segment,
    files: &HashSet<SsTableId>,
    active: &[CompactionSpec],
    fresh: u32,
) -> Option<CompactionSpec> {
    let sources: Vec<(SourceId, Vec<SsTableId>)> = sources(segment).collect();
    let uses = |(_, held): &(SourceId, Vec<SsTableId>)| held.iter().any(|file| files.contains(file));
    let first = sources.iter().position(uses)?;
    let last = sources.iter().rposition(uses)?;
    let last = if first < segment.l0().len() { last.max(segment.l0().len() - 1) } else { last };
    let stretch: Vec<SourceId> = sources[first..=last].iter().map(|(source, _)| *source).collect();
    let with_l0 = first < segment.l0().len();
    let conflict = active.iter().filter(|spec| spec.segment() == segment.prefix()).any(|spec| {
        (with_l0 && spec.has_l0_sources())
            || spec.sources().iter().any(|source| stretch.contains(source))
            || spec.destination().is_some_and(|run| stretch.contains(&SourceId::SortedRun(run)))
    });
    if conflict {
        return None;
    }
    let oldest_run = match stretch.last() {
        Some(SourceId::SortedRun(run)) => *run,
        _ => fresh,
    };
    Some(CompactionSpec::for_segment(segment.prefix().clone(), stretch, oldest_run))
}

/// A number above those of all runs that exist or are being made.
fn fresh_run(state: &CompactorStateView, active: &[CompactionSpec]) -> u32 {
    let existing = state.manifest().segments().iter().flat_map(|segment| segment.compacted()).map(|run| run.id);
    let coming = active.iter().filter_map(CompactionSpec::destination);
    existing.chain(coming).max().map_or(0, |run| run.saturating_add(1))
}

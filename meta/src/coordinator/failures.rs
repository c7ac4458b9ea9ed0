//! Jobs that have failed, until the catalog says so. Pure.
//!
//! A job that cannot go on ends its term, and the claim of the next one marks it. A job that its
//! user wants to stop at a failing row stops alone. It may have stored a part of the changes of the
//! epoch then, so the catalog is written before that epoch is committed: whoever reads the epoch
//! knows that the rows are torn.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use weir_common::catalog::{Entry, Graph, JobState};
use weir_common::ids::TableId;

use super::event::Time;

/// The most jobs that one claim marks failed, so that its transaction stays within what a store
/// takes. Others run once more and fail with the next term.
const FAILED_MAX: usize = 64;

/// The jobs that are to be marked failed.
#[derive(Debug)]
pub(super) struct Failures {
    /// The wall clock's time at which the core's own begins.
    began: SystemTime,
    failing: BTreeMap<TableId, Failure>,
}

/// Why a job is to be marked failed.
#[derive(Debug)]
struct Failure {
    error: String,
    at: Time,
    /// It stopped within an epoch, and its term went on.
    torn: bool,
}

impl Failures {
    pub(super) fn new(began: SystemTime) -> Failures {
        Failures { began, failing: BTreeMap::new() }
    }

    /// A job has failed, and with it its term.
    pub(super) fn insert(&mut self, job: TableId, error: String, at: Time) {
        let torn = self.failing.get(&job).is_some_and(|failure| failure.torn);
        self.failing.insert(job, Failure { error, at, torn });
    }

    /// A job has stopped within an epoch. Returns the entry to be stored, unless the job is known
    /// to have failed, or does not run.
    pub(super) fn stop(&mut self, job: TableId, error: String, at: Time, catalog: &Graph) -> Option<Entry> {
        let entry = catalog.get(job).filter(|entry| catalog.runs(entry) && !self.contains(job))?;
        let failure = Failure { error, at, torn: true };
        let marked = self.mark(entry, &failure);
        self.failing.insert(job, failure);
        Some(marked)
    }

    /// A job is marked, or is not to be marked any more.
    pub(super) fn remove(&mut self, job: TableId) {
        self.failing.remove(&job);
    }

    pub(super) fn contains(&self, job: TableId) -> bool {
        self.failing.contains_key(&job)
    }

    /// Returns true if no epoch may be committed: one of them may be torn.
    pub(super) fn holds_commits(&self) -> bool {
        self.failing.values().any(|failure| failure.torn)
    }

    /// The entries that a claim stores to mark their jobs.
    pub(super) fn marked(&self, catalog: &Graph) -> Vec<Entry> {
        let mark = |(job, failure): (&TableId, &Failure)| Some(self.mark(catalog.get(*job)?, failure));
        self.failing.iter().filter_map(mark).take(FAILED_MAX).collect()
    }

    fn mark(&self, entry: &Entry, failure: &Failure) -> Entry {
        let Failure { error, at, torn } = failure;
        let since = (self.began + *at).duration_since(UNIX_EPOCH).ok();
        let since_ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
        entry.with_state(JobState::Failed { error: error.clone(), since_ms, torn: *torn })
    }
}

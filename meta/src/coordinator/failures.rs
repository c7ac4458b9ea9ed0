//! Which jobs the catalog is to mark, and as what. Pure.
//!
//! A job that cannot go on ends its term, and the claim of the next one marks it. A job that its
//! user wants to stop at a failing row stops alone. It may have stored a part of the changes of the
//! epoch then, so the catalog is written before that epoch is committed: whoever reads the epoch
//! knows that the rows are torn.
//!
//! * A job that failed for a reason that its user has to fix is failed.
//! * A job that a node cannot build from its plan waits, and so does one whose plan this process
//!   cannot read. The next leader tries it again: it may be of another version.
//! * A job that stops, for whatever reason, while a relation that it follows goes on, misses
//!   changes and can never be right again: it is failed.
//!
//! All but those that stop alone are marked before a term runs without them.

use std::collections::BTreeMap;

use tracing::{info, warn};
use weir_common::catalog::{Entry, Graph, JobState, Plan};
use weir_common::ids::TableId;

/// The most jobs that one claim marks, so that its transaction stays within what a store takes.
/// Another claim marks the others.
const MARKED_MAX: usize = 64;

/// The jobs that nodes told that they cannot run.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Jobs to be marked failed.
    failed: BTreeMap<TableId, Failure>,
    /// Jobs that this leader does not try again.
    waiting: BTreeMap<TableId, Failure>,
}

#[derive(Clone, Debug)]
struct Failure {
    error: String,
    since_ms: Option<u64>,
    /// It stopped within an epoch, and its term went on.
    torn: bool,
}

impl Failure {
    fn state(&self) -> JobState {
        let Failure { error, since_ms, torn } = self.clone();
        JobState::Failed { error, since_ms, torn }
    }
}

impl Failures {
    /// A job failed, and with it its term.
    pub(super) fn fail(&mut self, job: TableId, error: String, since_ms: Option<u64>) {
        let torn = self.failed.get(&job).is_some_and(|failure| failure.torn);
        self.failed.insert(job, Failure { error, since_ms, torn });
    }

    /// A job has stopped within an epoch. Returns the entry to be stored, unless the job is known
    /// to have failed, or does not run.
    pub(super) fn stop(
        &mut self,
        job: TableId,
        error: String,
        since_ms: Option<u64>,
        catalog: &Graph,
    ) -> Option<Entry> {
        let entry = catalog.get(job).filter(|entry| catalog.runs(entry) && !self.contains(job))?;
        let failure = Failure { error, since_ms, torn: true };
        let marked = entry.with_state(failure.state());
        self.failed.insert(job, failure);
        Some(marked)
    }

    /// Returns true if a job has failed and is not marked yet.
    pub(super) fn contains(&self, job: TableId) -> bool {
        self.failed.contains_key(&job)
    }

    /// Returns true if no epoch may be committed: one of them may be torn.
    pub(super) fn holds_commits(&self) -> bool {
        self.failed.values().any(|failure| failure.torn)
    }

    /// A node cannot build a job.
    pub(super) fn wait(&mut self, job: TableId, error: String, since_ms: Option<u64>) {
        self.waiting.insert(job, Failure { error, since_ms, torn: false });
    }

    /// A job is another one now, or is gone.
    pub(super) fn forget(&mut self, job: TableId) {
        self.failed.remove(&job);
        self.waiting.remove(&job);
    }

    /// A job was marked.
    pub(super) fn settle(&mut self, job: TableId) {
        self.failed.remove(&job);
    }

    /// The entries to be marked at `now_ms`, with the states that their jobs get.
    pub(super) fn marks(&self, catalog: &Graph, now_ms: Option<u64>) -> Vec<Entry> {
        let mut marked: BTreeMap<TableId, Entry> = BTreeMap::new();
        for entry in catalog.entries() {
            if let Some(state) = self.state(entry, now_ms) {
                marked.insert(entry.id(), entry.with_state(state));
            }
        }
        let mut after = catalog.clone();
        marked.values().for_each(|entry| after.insert(entry.clone()));
        for entry in after.entries().filter(|entry| !after.runs(entry)) {
            let stopped = after.failed(entry).filter(|_| !matches!(entry.job.state, JobState::Failed { .. }));
            if let (Some(stopped), Some(missed)) = (stopped, after.missed(entry)) {
                let late = Failure { error: too_late(entry, stopped, missed), since_ms: now_ms, torn: true };
                marked.insert(entry.id(), entry.with_state(late.state()));
            }
        }
        marked.into_values().take(MARKED_MAX).collect()
    }

    /// The state that a job gets, if it is another one than it has, as far as that does not depend
    /// on other jobs.
    fn state(&self, entry: &Entry, now_ms: Option<u64>) -> Option<JobState> {
        if let Some(failure) = self.failed.get(&entry.id()) {
            return Some(failure.state());
        }
        let unbuildable = match &entry.job.plan {
            Plan::Unknown(unknown) => Some(Failure { error: unknown.reason.clone(), since_ms: now_ms, torn: false }),
            _ => self.waiting.get(&entry.id()).cloned(),
        };
        match (&entry.job.state, unbuildable) {
            (JobState::Running, Some(Failure { error, since_ms, .. })) => Some(JobState::Waiting { error, since_ms }),
            (JobState::Waiting { .. }, None) => Some(JobState::Running),
            _ => None,
        }
    }
}

/// Tells the log of jobs that are being marked, for another reason than that they failed, which was
/// told when it happened.
pub(super) fn tell(marked: &[Entry]) {
    for entry in marked {
        let relation = entry.name();
        match &entry.job.state {
            JobState::Running => info!(%relation, "a job that waited runs again"),
            JobState::Waiting { error, .. } => {
                warn!(%relation, error, "a job cannot be built by this version: it waits")
            }
            JobState::Failed { error, .. } => info!(%relation, error, "a job is marked failed"),
        }
    }
}

/// The error of a job that misses changes.
fn too_late(entry: &Entry, stopped: &Entry, missed: &Entry) -> String {
    let missed = missed.name();
    match &stopped.job.state {
        JobState::Waiting { error, .. } if stopped.id() == entry.id() => format!(
            "this version of Weir cannot build it ({error}), and it misses changes of \"{missed}\" meanwhile: \
             drop it and create it again"
        ),
        _ => format!(
            "\"{}\", which it reads, stopped, and it misses changes of \"{missed}\" meanwhile: drop it and create it again",
            stopped.name()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weir_common::catalog::{Declaration, Encode, OnError, Query, Reads, RelationKind, RelationName, Source};
    use weir_common::plan::JobPlan;

    use super::*;

    fn entry(id: u32, kind: RelationKind, on: &[u32]) -> Entry {
        let reads = |id: &u32| Reads {
            relation: TableId(*id),
            name: RelationName::public(format!("r{id}")),
            columns: Vec::new(),
            expanded: None,
        };
        let plan = match on {
            [] => Plan::Stream(Source { options: BTreeMap::new(), encode: Encode::Json }),
            on => {
                let (reads, through) = (on.iter().map(reads).collect(), Vec::new());
                Plan::Query(Query { reads, plan: JobPlan::default(), through })
            }
        };
        let (columns, hidden, primary_key, sql) = (Vec::new(), Vec::new(), Vec::new(), String::new());
        let on_error = OnError::default();
        let declared = Declaration {
            kind,
            name: RelationName::public(format!("r{id}")),
            columns,
            hidden,
            primary_key,
            plan,
            sql,
            on_error,
        };
        Entry::new(TableId(id), declared, Vec::new(), None)
    }

    /// An entry as a newer version stores it.
    fn newer(entry: &Entry) -> Entry {
        let stored = serde_json::to_string(entry).expect("an entry serialises");
        let fragments = r#""fragments":[{"distribution":"hash","operators":[{"hash_join":{}}],"output":{"#;
        let fragments = format!(r#"{fragments}"columns":[],"key":[],"append_only":false}}}}]"#);
        let stored = stored.replace(r#""fragments":[]"#, &fragments);
        serde_json::from_str(&stored).expect("it has an id and a name")
    }

    /// A source 1 and a table 2; a view 3 over the source and 4 above it; 5 over the table; 6 over
    /// both 4 and the table.
    fn catalog() -> Graph {
        let view = |id, on: &[u32]| entry(id, RelationKind::MaterializedView, on);
        let (source, table) = (entry(1, RelationKind::Source, &[]), entry(2, RelationKind::Table, &[]));
        [source, table, view(3, &[1]), view(4, &[3]), view(5, &[2]), view(6, &[4, 2])].into_iter().collect()
    }

    fn told(marks: &[Entry]) -> Vec<String> {
        let word = |entry: &Entry| match &entry.job.state {
            JobState::Running => format!("{} runs", entry.name()),
            JobState::Waiting { error, .. } => format!("{} waits: {error}", entry.name()),
            JobState::Failed { error, .. } => format!("{} failed: {error}", entry.name()),
        };
        marks.iter().map(word).collect()
    }

    fn marked(catalog: &Graph, failures: &Failures) -> Graph {
        let marks = failures.marks(catalog, None);
        let after: Graph = catalog.entries().chain(&marks).cloned().collect();
        assert!(failures.marks(&after, None).iter().all(|mark| failures.failed.contains_key(&mark.id())), "settled");
        after
    }

    #[test]
    fn a_job_that_misses_changes_is_failed_with_the_one_that_stops() {
        let (catalog, mut failures) = (catalog(), Failures::default());
        assert!(failures.marks(&catalog, None).is_empty());
        failures.fail(TableId(3), "division by zero".to_owned(), None);
        let late = "r6 failed: \"r3\", which it reads, stopped, and it misses changes of \"r2\" meanwhile: drop it and create it again";
        assert_eq!(told(&failures.marks(&catalog, None)), ["r3 failed: division by zero", late]);
        // What the view 4 reads has stopped too.
        let after = marked(&catalog, &failures);
        assert_eq!(after.get(TableId(4)).map(|entry| &entry.job.state), Some(&JobState::Running));
        failures.forget(TableId(3));
        assert!(failures.marks(&catalog, None).is_empty(), "it was altered before the claim");
    }

    #[test]
    fn a_job_of_a_newer_version_waits_until_there_is_one() {
        let known = catalog();
        let unread = |id: u32| -> Graph {
            let newer = newer(known.get(TableId(id)).expect("it is there"));
            known.entries().cloned().chain([newer]).collect()
        };
        let catalog = unread(3);
        let unknown = "unknown variant `hash_join`";
        let marks = Failures::default().marks(&catalog, None);
        let late = "r6 failed: \"r3\", which it reads, stopped, and it misses changes of \"r2\" meanwhile: drop it and create it again";
        assert_eq!(told(&marks), [&format!("r3 waits: {unknown}"), late]);
        let waits = marked(&catalog, &Failures::default());
        assert!(!waits.runs(waits.get(TableId(4)).expect("it is there")));
        // A leader that can read it finds the state in the same document.
        let stored = serde_json::to_string(waits.get(TableId(3)).expect("it is there")).expect("it serialises");
        let stored = stored.replace(r#"{"hash_join":{}}"#, r#""union""#);
        let again: Entry = serde_json::from_str(&stored).expect("an entry");
        let catalog: Graph = waits.entries().cloned().chain([again]).collect();
        assert_eq!(told(&Failures::default().marks(&catalog, None)), ["r3 runs"]);
        // The table goes on without a view that follows it.
        let error = format!(
            "r5 failed: this version of Weir cannot build it ({unknown}), and it misses changes of \"r2\" meanwhile: \
             drop it and create it again"
        );
        assert_eq!(told(&Failures::default().marks(&unread(5), None)), [error]);
    }

    #[test]
    fn a_job_that_a_node_cannot_build_is_tried_once_by_each_leader() {
        let (catalog, mut failures) = (catalog(), Failures::default());
        failures.wait(TableId(3), "no function f".to_owned(), None);
        let waits = marked(&catalog, &failures);
        assert_eq!(told(&[waits.get(TableId(3)).expect("it is there").clone()]), ["r3 waits: no function f"]);
        failures.settle(TableId(3));
        assert!(failures.marks(&waits, None).is_empty());
        assert_eq!(told(&Failures::default().marks(&waits, None)), ["r3 runs"]);
    }
}

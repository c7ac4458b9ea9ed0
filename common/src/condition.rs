//! The conditions of splits and jobs: a state, since when, and why.
//!
//! Readers publish the condition of their split, and frontends ask for it. [`of_job`], which is
//! pure, derives the condition of a job from those of its splits. The catalog only records which
//! jobs have failed.

use std::time::{Duration, SystemTime};

use crate::ids::SplitId;

/// The time that a split may be disconnected before its job counts as stalled. A reconnection takes
/// less.
pub const DISCONNECTED_MAX: Duration = Duration::from_secs(5);

/// A state, since when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition<S> {
    /// The state.
    pub state: S,
    /// The start of the state, if it is known.
    pub since: Option<SystemTime>,
    /// The reason in words; absent while all is well.
    pub reason: Option<String>,
}

/// The state of a split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SplitState {
    /// Its messages are read.
    Reading,
    /// It has no connection or no consumer yet. The reader retries by itself.
    #[default]
    Disconnected,
    /// A fault that somebody has to mend stops its progress. The reader retries meanwhile.
    Stalled,
    /// The reader waits for a decision of its user.
    Stopped,
    /// No compute node reads it. Only frontends can report this.
    Unread,
    /// Its compute node does not answer. Only frontends can report this.
    Unknown,
}

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// All its splits are read.
    Running,
    /// It reads what its inputs had before it.
    Creating,
    /// It exists, but cannot do its work now.
    Stalled,
    /// A compute node does not answer, and nothing else is known to be wrong.
    Unknown,
    /// No node can build it: a newer version of Weir made it.
    Waiting,
    /// It stopped for a reason that its user has to mend.
    Failed,
}

impl SplitState {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            SplitState::Reading => "reading",
            SplitState::Disconnected => "disconnected",
            SplitState::Stalled => "stalled",
            SplitState::Stopped => "stopped",
            SplitState::Unread => "unread",
            SplitState::Unknown => "unknown",
        }
    }

    /// Returns the state with a word.
    pub fn parse(word: &str) -> Option<SplitState> {
        use SplitState::{Disconnected, Reading, Stalled, Stopped, Unknown, Unread};
        [Reading, Disconnected, Stalled, Stopped, Unread, Unknown].into_iter().find(|state| state.as_str() == word)
    }
}

impl JobState {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Creating => "creating",
            JobState::Stalled => "stalled",
            JobState::Unknown => "unknown",
            JobState::Waiting => "waiting",
            JobState::Failed => "failed",
        }
    }
}

/// Returns the condition of a job that has not failed, given those of all its splits. `trouble` is
/// a fault that keeps a compute node, and with it all others, from committing.
///
/// The worst split determines the state. A job is stalled since its first split is; it is running
/// since its last split is read.
pub fn of_job(
    splits: &[(SplitId, Condition<SplitState>)],
    trouble: Option<&(String, SystemTime)>,
    now: SystemTime,
) -> Condition<JobState> {
    let severity = |condition: &Condition<SplitState>| match condition.state {
        SplitState::Reading => 0,
        SplitState::Disconnected if is_short(condition, now) => 0,
        SplitState::Unknown => 1,
        SplitState::Disconnected => 2,
        SplitState::Unread => 3,
        SplitState::Stalled => 4,
        SplitState::Stopped => 5,
    };
    let worst = splits.iter().map(|(_, condition)| severity(condition)).max().unwrap_or(0);
    let state = match worst {
        0 => JobState::Running,
        1 => JobState::Unknown,
        _ => JobState::Stalled,
    };
    if let (Some((reason, since)), true) = (trouble, worst < 2) {
        return Condition { state: JobState::Stalled, since: Some(*since), reason: Some(reason.clone()) };
    }
    if state == JobState::Running {
        let since = splits.iter().filter_map(|(_, condition)| condition.since).max();
        return Condition { state, since, reason: None };
    }
    let ailing: Vec<_> = splits.iter().filter(|(_, condition)| severity(condition) >= worst.min(2)).collect();
    let since = ailing.iter().filter_map(|(_, condition)| condition.since).min();
    let (split, decisive) =
        ailing.iter().find(|(_, condition)| severity(condition) == worst).expect("the worst is one of them");
    let reason = decisive.reason.as_deref().unwrap_or(decisive.state.as_str());
    let reason = match (splits.len(), ailing.len()) {
        (1, _) => reason.to_owned(),
        (_, 1) => format!("split \"{split}\": {reason}"),
        (_, ailing) => format!("split \"{split}\": {reason}; {ailing} of {} splits are not read", splits.len()),
    };
    Condition { state, since, reason: Some(reason) }
}

/// Returns true while the interruption of a split is still short.
fn is_short(condition: &Condition<SplitState>, now: SystemTime) -> bool {
    condition.since.and_then(|since| now.duration_since(since).ok()).is_none_or(|lasted| lasted < DISCONNECTED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn split(name: &str, state: SplitState, since: u64, reason: Option<&str>) -> (SplitId, Condition<SplitState>) {
        let reason = reason.map(str::to_owned);
        (SplitId(name.to_owned()), Condition { state, since: Some(at(since)), reason })
    }

    fn job(splits: &[(SplitId, Condition<SplitState>)]) -> (&'static str, Option<SystemTime>, Option<String>) {
        let Condition { state, since, reason } = of_job(splits, None, at(100));
        (state.as_str(), since, reason)
    }

    #[test]
    fn a_job_runs_since_its_last_split_is_read() {
        let splits = [split("a", SplitState::Reading, 10, None), split("b", SplitState::Reading, 20, None)];
        assert_eq!(job(&splits), ("running", Some(at(20)), None));
        assert_eq!(job(&[]), ("running", None, None));
    }

    #[test]
    fn a_short_disconnection_is_no_stall() {
        let lost = Some("the connection to NATS is lost");
        assert_eq!(job(&[split("a", SplitState::Disconnected, 96, lost)]).0, "running");
        let stalled = job(&[split("a", SplitState::Disconnected, 95, lost)]);
        assert_eq!(stalled, ("stalled", Some(at(95)), lost.map(str::to_owned)));
    }

    #[test]
    fn the_worst_split_decides_and_the_first_says_since_when() {
        let splits = [
            split("a", SplitState::Reading, 10, None),
            split("b", SplitState::Disconnected, 30, Some("refused")),
            split("c", SplitState::Stopped, 40, Some("another stream")),
            split("d", SplitState::Unknown, 1, Some("no answer")),
        ];
        let reason = "split \"c\": another stream; 2 of 4 splits are not read";
        assert_eq!(job(&splits), ("stalled", Some(at(30)), Some(reason.to_owned())));
        let reason = "split \"b\": refused";
        assert_eq!(job(&splits[..2]), ("stalled", Some(at(30)), Some(reason.to_owned())));
    }

    #[test]
    fn a_node_that_does_not_answer_is_neither_running_nor_stalled() {
        let splits = [split("a", SplitState::Unknown, 1, Some("compute node x does not answer"))];
        assert_eq!(job(&splits).0, "unknown");
        assert_eq!(job(&splits).2.as_deref(), Some("compute node x does not answer"));
    }

    #[test]
    fn a_node_that_cannot_commit_stalls_every_job() {
        let trouble = ("no bucket".to_owned(), at(50));
        let reading = [split("a", SplitState::Reading, 10, None)];
        let Condition { state, since, reason } = of_job(&reading, Some(&trouble), at(100));
        assert_eq!((state, since, reason.as_deref()), (JobState::Stalled, Some(at(50)), Some("no bucket")));
        let gone = [split("a", SplitState::Stalled, 10, Some("no stream"))];
        assert_eq!(of_job(&gone, Some(&trouble), at(100)).reason.as_deref(), Some("no stream"));
    }

    #[test]
    fn words_of_states_are_read_back() {
        for state in [SplitState::Reading, SplitState::Disconnected, SplitState::Stalled, SplitState::Stopped] {
            assert_eq!(SplitState::parse(state.as_str()), Some(state));
        }
        assert_eq!(SplitState::parse("busy"), None);
    }
}

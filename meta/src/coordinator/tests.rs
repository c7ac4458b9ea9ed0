//! Golden scripts of the coordinator: what happens, and what it wants done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use uuid::Uuid;
use weir_common::catalog::{
    Declaration, Encode, Entry, JobState, OnError, Plan, Reads, RelationKind, RelationName, Source, SplitStart,
};
use weir_common::ids::{Epoch, JobSplit, NodeId, Sequence, SlotId, SplitId, StatementId, TableId, TermId};

use super::config::Config;
use super::event::{Action, Durable, Event, Mutation, Outcome, Report, Time, Waiter};
use super::placement::Placement;
use super::state::{Coordinator, IN_FLIGHT_MAX};
use super::statements::Statement;

const INTERVAL: Duration = Duration::from_millis(1000);
const SETTLE: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_secs(60);

/// A coordinator, the time, and what it last wanted done.
struct Script {
    core: Coordinator,
    now: Time,
    revision: u64,
    term: TermId,
    placement: Arc<Placement>,
}

impl Script {
    /// A coordinator that has loaded an empty store. `expected`: nodes that its predecessor knew.
    fn new(tables: &[Entry], expected: &[&str]) -> Script {
        let config = Config {
            state_prefix: "state/test".to_owned(),
            began: UNIX_EPOCH + Duration::from_secs(1_000),
            barrier_interval: INTERVAL,
            settle: SETTLE,
            grace: Duration::from_secs(3),
            node_timeout: TIMEOUT,
        };
        let catalog = tables.iter().cloned().collect();
        let expected = expected.iter().map(|id| format!("{id}:5688")).collect::<BTreeSet<_>>();
        let core = Coordinator::new(config, catalog, expected, 1);
        let now = Duration::ZERO;
        let mut script =
            Script { core, now, revision: 0, term: TermId::default(), placement: Arc::new(Placement::default()) };
        assert_eq!(script.tick(Duration::ZERO), ["load"]);
        script.says(Event::Loaded { leading: true, durable: Durable::default() });
        script
    }

    /// Time passes.
    fn tick(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.says(Event::Tick)
    }

    /// Takes in an event; what is to be done, a line an action.
    fn says(&mut self, event: Event) -> Vec<String> {
        let actions = self.core.apply(event, self.now);
        for action in &actions {
            match action {
                Action::Claim { head, .. } => self.term = head.term,
                Action::StartTerm { placement, .. } => self.placement = Arc::clone(placement),
                _ => {}
            }
        }
        actions.iter().map(line).collect()
    }

    fn joins(&mut self, id: &str) -> Vec<String> {
        self.says(Event::NodeJoined { node: node(id), address: format!("{id}:5688"), parallelism: 1 })
    }

    fn claimed(&mut self) -> Vec<String> {
        self.revision += 1;
        self.says(Event::Claimed(self.term, Outcome::Applied(self.revision)))
    }

    fn ready(&mut self, id: &str) -> Vec<String> {
        self.says(Event::TermReady(node(id), self.term))
    }

    /// A node reports its slots durable, and the position of every split it reads.
    fn reports(&mut self, id: &str, epoch: u64, position: u64) -> Vec<String> {
        self.reports_stopped(id, epoch, position, &[])
    }

    /// The same, and jobs have stopped.
    fn reports_stopped(&mut self, id: &str, epoch: u64, position: u64, stopped: &[u32]) -> Vec<String> {
        let checkpoint = Uuid::from_u128(u128::from(epoch));
        let placement = Arc::clone(&self.placement);
        let id = node(id);
        let report = Report {
            term: self.term,
            epoch: Epoch(epoch),
            checkpoints: placement.slots_of(&id).map(|slot| (slot.id, checkpoint)).collect(),
            positions: placement.splits_of(&id).map(|split| (split.split.clone(), Sequence(position).into())).collect(),
            stopped: stopped.iter().map(|job| (TableId(*job), "division by zero".to_owned())).collect(),
        };
        self.says(Event::EpochReported(id, report))
    }

    /// A statement of a term is to be committed.
    fn writes(&mut self, term: TermId, id: u64, waiter: u64) -> Vec<String> {
        let statement = Statement { id: StatementId(id), table: TableId(1), slots: vec![SlotId(0)] };
        self.says(Event::Statement(term, statement, Waiter(waiter)))
    }

    fn committed(&mut self, epoch: u64) -> Vec<String> {
        self.revision += 1;
        self.says(Event::Committed(self.term, Epoch(epoch), Outcome::Applied(self.revision)))
    }

    /// Nodes join, and their first epoch is committed.
    fn runs(tables: &[Entry], nodes: &[&str]) -> Script {
        let mut script = Script::new(tables, &[]);
        for id in nodes {
            script.joins(id);
        }
        script.tick(SETTLE);
        script.claimed();
        for id in nodes {
            script.ready(id);
        }
        for id in nodes {
            script.reports(id, 1, 10);
        }
        script.committed(1);
        script
    }
}

fn node(id: &str) -> NodeId {
    NodeId(id.to_owned())
}

fn table(id: u32) -> Entry {
    let source = Source { options: BTreeMap::new(), encode: Encode::Json };
    let name = RelationName::public(format!("t{id}"));
    let declared = Declaration {
        kind: RelationKind::Table,
        name,
        columns: Vec::new(),
        hidden: Vec::new(),
        primary_key: Vec::new(),
        plan: Plan::Stream(source),
        on_error: OnError::default(),
        sql: String::new(),
    };
    let splits =
        vec![SplitStart { split: SplitId("S".to_owned()), sequence: Sequence(1), stream_created: None, reads: None }];
    Entry::new(TableId(id), declared, splits, None)
}

fn line(action: &Action) -> String {
    let names = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match action {
        Action::Load => "load".to_owned(),
        Action::Claim { expected, head, marked } => {
            let failed = marked.iter().map(|entry| format!(", {} failed", entry.name())).collect::<String>();
            format!("claim term {} over epoch {} and revision {expected}{failed}", head.term.term, head.epoch)
        }
        Action::Commit { expected, head, pages, statements } => {
            let pages = pages.iter().map(|page| String::from_utf8_lossy(&page.content).into_owned());
            let positions = pages.collect::<String>();
            let statements = statements.iter().map(|id| format!(", statement {id}")).collect::<String>();
            let (epoch, slots) = (head.epoch, head.slots.len());
            format!("commit epoch {epoch} of {slots} slots over revision {expected}{positions}{statements}")
        }
        Action::Fail(entry) => format!("mark {} failed", entry.name()),
        Action::Forget(pages) => format!("forget {} page(s)", pages.len()),
        Action::StartTerm { node, term, placement, .. } => {
            let slots = placement.slots_of(node).map(|slot| format!(" {}={}", slot.id, slot.vnodes));
            let splits = placement.splits_of(node).map(|split| format!(" {}@{}", split.split, split.position.next));
            format!("start term {} on {node}:{}", term.term, slots.chain(splits).collect::<String>())
        }
        Action::StopTerm(node, term) => format!("stop term {} on {node}", term.term),
        Action::Inject { epoch, mutation, statements, nodes, .. } => {
            let mutation = match mutation {
                None => String::new(),
                Some(Mutation::Add(entry, splits)) => format!(" adding {}/{}", entry.name(), splits.len()),
                Some(Mutation::Drop(jobs)) => {
                    let jobs: Vec<String> = jobs.iter().map(|job| format!(" t{job}")).collect();
                    format!(" dropping{}", jobs.concat())
                }
                Some(Mutation::Stop(entry, jobs)) => {
                    let jobs: Vec<String> = jobs.iter().map(|job| format!(" t{job}")).collect();
                    format!(", {} failed, stopping{}", entry.name(), jobs.concat())
                }
            };
            let statements = statements.iter().map(|named| format!(" naming {}", named.id)).collect::<String>();
            format!("barrier {epoch}{mutation}{statements} to {}", names(nodes))
        }
        Action::Announce { epoch, nodes, .. } => format!("announce {epoch} to {}", names(nodes)),
        Action::Resolve(waiter, epoch) => format!("resolve {} with epoch {epoch}", waiter.0),
        Action::Recall(waiter) => format!("recall {}", waiter.0),
        Action::Disconnect(_, reason) => format!("disconnect: {reason}"),
        Action::Release(node) => format!("release {node}"),
        Action::StepDown => "step down".to_owned(),
    }
}

#[test]
fn the_first_nodes_share_a_term_and_its_first_barrier_comes_at_once() {
    let mut script = Script::new(&[table(1), table(2)], &[]);
    assert!(script.joins("a").is_empty());
    assert!(script.joins("b").is_empty(), "nodes that start together are waited for");
    assert_eq!(script.tick(SETTLE), ["claim term 1 over epoch 0 and revision 0"]);
    assert_eq!(script.claimed(), ["start term 1 on a: 0=0..128 1/S@1", "start term 1 on b: 1=128..256 2/S@1"]);
    assert!(script.ready("a").is_empty());
    assert_eq!(script.ready("b"), ["barrier 1 to a b"]);
    assert!(script.reports("a", 1, 5).is_empty());
    assert_eq!(
        script.reports("b", 1, 7),
        [
            r#"commit epoch 1 of 2 slots over revision 1[[1,"S",5,[0,0,0,18446744073709551615,false]],[2,"S",7,[0,0,0,18446744073709551615,false]]]"#
        ],
        "a commit has the slots and the positions of all"
    );
    assert_eq!(script.committed(1), ["announce 1 to a b"]);
    assert!(script.tick(INTERVAL - Duration::from_millis(1)).is_empty());
    assert_eq!(script.tick(Duration::from_millis(1)), ["barrier 2 to a b"]);
}

#[test]
fn whoever_waits_gets_a_barrier_at_once_and_an_answer_after_its_commit() {
    let mut script = Script::runs(&[], &["a"]);
    assert_eq!(script.says(Event::Flush(Waiter(7))), ["barrier 2 to a"]);
    assert_eq!(script.reports("a", 2, 0), ["commit epoch 2 of 1 slots over revision 2"]);
    assert_eq!(script.committed(2), ["announce 2 to a", "resolve 7 with epoch 2"]);
}

#[test]
fn a_table_starts_and_stops_at_a_barrier() {
    let mut script = Script::runs(&[], &["a"]);
    assert_eq!(script.says(Event::Created(table(1), Waiter(1))), ["barrier 2 adding t1/1 to a"]);
    script.reports("a", 2, 0);
    assert_eq!(script.committed(2), ["announce 2 to a", "resolve 1 with epoch 2"]);
    assert_eq!(script.says(Event::Dropped(vec![TableId(1)], Vec::new(), Waiter(2))), ["barrier 3 dropping t1 to a"]);
}

#[test]
fn only_so_many_barriers_are_in_flight() {
    let mut script = Script::runs(&[], &["a"]);
    for epoch in 2..2 + IN_FLIGHT_MAX {
        assert_eq!(script.tick(INTERVAL), [format!("barrier {epoch} to a")]);
    }
    assert!(script.tick(INTERVAL).is_empty());
    assert_eq!(script.reports("a", 2, 0), ["commit epoch 2 of 1 slots over revision 2"]);
    assert_eq!(script.tick(Duration::ZERO), ["barrier 6 to a"]);
}

#[test]
fn epochs_that_complete_during_a_commit_are_committed_together_after_it() {
    let mut script = Script::runs(&[], &["a"]);
    for _ in 0..3 {
        script.tick(INTERVAL);
    }
    assert_eq!(script.reports("a", 2, 0), ["commit epoch 2 of 1 slots over revision 2"]);
    assert!(script.reports("a", 3, 0).is_empty());
    assert!(script.reports("a", 4, 0).is_empty());
    assert_eq!(script.committed(2), ["announce 2 to a", "commit epoch 4 of 1 slots over revision 3"]);
}

#[test]
fn survivors_take_over_a_lost_nodes_share_from_the_committed_positions() {
    let mut script = Script::runs(&[table(1), table(2)], &["a", "b"]);
    assert_eq!(script.tick(INTERVAL), ["barrier 2 to a b"]);
    script.reports("a", 2, 20);
    let lost = script.says(Event::NodeLost(node("b")));
    assert_eq!(lost, ["stop term 1 on a", "claim term 2 over epoch 1 and revision 2"]);
    assert_eq!(script.claimed(), ["start term 2 on a: 0=0..256 1/S@10 2/S@10"]);
}

fn job_failed(term: TermId, job: u32, error: &str) -> Event {
    Event::JobFailed { term, job: TableId(job), error: error.to_owned(), waits: false }
}

#[test]
fn a_table_whose_job_failed_has_no_part_in_the_next_term() {
    let mut script = Script::runs(&[table(1), table(2)], &["a"]);
    let failed = script.says(job_failed(script.term, 1, "no such stream"));
    assert_eq!(failed, ["stop term 1 on a", "claim term 2 over epoch 1 and revision 2, t1 failed"]);
    assert_eq!(script.claimed(), ["start term 2 on a: 0=0..256 2/S@10"]);
    let stored = script.core.catalog().entries().next().map(|entry| entry.job.state.clone());
    let since_ms = Some(1_000_000 + u64::try_from(script.now.as_millis()).expect("seconds"));
    assert_eq!(stored, Some(JobState::Failed { error: "no such stream".to_owned(), since_ms, torn: false }));
}

#[test]
fn a_job_that_stops_is_marked_before_its_epoch_is_committed_and_its_term_goes_on() {
    let mut script = Script::runs(&[table(1), table(2)], &["a", "b"]);
    assert_eq!(script.tick(INTERVAL), ["barrier 2 to a b"]);
    assert_eq!(script.reports_stopped("a", 2, 20, &[1]), ["mark t1 failed"]);
    let since_ms = Some(1_000_000 + u64::try_from(script.now.as_millis()).expect("seconds"));
    assert!(script.reports_stopped("b", 2, 20, &[1]).is_empty(), "the epoch is torn; the mark is on its way");
    assert_eq!(script.tick(INTERVAL), ["barrier 3 to a b"], "barriers flow meanwhile");
    let failed = JobState::Failed { error: "division by zero".to_owned(), since_ms, torn: true };
    let marked = script.says(Event::Marked(table(1).with_state(failed.clone())));
    assert_eq!(marked[0], "barrier 4, t1 failed, stopping t1 to a b");
    assert!(marked[1].starts_with("commit epoch 2 of 2 slots over revision 2"), "{marked:?}");
    assert_eq!(script.core.catalog().get(TableId(1)).map(|entry| &entry.job.state), Some(&failed));
    assert!(script.reports_stopped("a", 3, 20, &[1]).is_empty(), "it does not run any more");
    // The next term does without it.
    let lost = script.says(Event::NodeLost(node("b")));
    assert_eq!(lost, ["stop term 1 on a", "claim term 2 over epoch 1 and revision 2"]);
    assert_eq!(script.claimed(), ["start term 2 on a: 0=0..256 2/S@10"]);
}

#[test]
fn a_job_that_stops_while_its_term_ends_is_marked_by_the_next_claim() {
    let mut script = Script::runs(&[table(1), table(2)], &["a"]);
    script.tick(INTERVAL);
    assert_eq!(script.reports_stopped("a", 2, 20, &[1]), ["mark t1 failed"]);
    let lost = script.says(Event::TermFailed(node("a"), script.term, "a database closed".to_owned()));
    assert_eq!(lost, ["stop term 1 on a", "claim term 2 over epoch 1 and revision 2, t1 failed"]);
    assert_eq!(script.claimed(), ["start term 2 on a: 0=0..256 2/S@10"]);
    assert_eq!(script.ready("a"), ["barrier 2 to a"]);
    // The call of the ended term comes to its end.
    let state = script.core.catalog().get(TableId(1)).expect("it is there").job.state.clone();
    assert!(script.says(Event::Marked(table(1).with_state(state))).is_empty());
    let reported = script.reports("a", 2, 20);
    assert!(reported.len() == 1 && reported[0].starts_with("commit epoch 2"), "{reported:?}");
}

#[test]
fn a_job_that_stopped_and_then_ends_its_term_keeps_its_torn_mark() {
    let mut script = Script::runs(&[table(1), table(2)], &["a"]);
    script.tick(INTERVAL);
    assert_eq!(script.reports_stopped("a", 2, 20, &[1]), ["mark t1 failed"]);
    let torn = JobState::Failed { error: "division by zero".to_owned(), since_ms: None, torn: true };
    script.says(Event::Marked(table(1).with_state(torn.clone())));
    let failed = script.says(job_failed(script.term, 1, "its own fault"));
    assert_eq!(failed, ["stop term 1 on a", "claim term 2 over epoch 1 and revision 2"]);
    assert_eq!(script.claimed(), ["start term 2 on a: 0=0..256 2/S@10"]);
    assert_eq!(script.core.catalog().get(TableId(1)).map(|entry| &entry.job.state), Some(&torn));
}

#[test]
fn a_job_that_stops_and_is_dropped_holds_no_commit() {
    let mut script = Script::runs(&[table(1)], &["a"]);
    script.tick(INTERVAL);
    assert_eq!(script.reports_stopped("a", 2, 20, &[1]), ["mark t1 failed"]);
    let dropped = script.says(Event::Dropped(vec![TableId(1)], Vec::new(), Waiter(1)));
    assert_eq!(dropped[0], "barrier 3 dropping t1 to a");
    assert!(dropped[1].starts_with("commit epoch 2"), "{dropped:?}");
}

#[test]
fn a_job_that_stops_takes_those_above_it_along_and_new_ones_come_behind_it() {
    let above = |id: u32, input: u32| {
        let mut declared = table(id).declaration();
        declared.kind = RelationKind::MaterializedView;
        let columns = Vec::new();
        declared.plan =
            Plan::View(Reads { relation: TableId(input), name: RelationName::public(""), columns, expanded: None });
        Entry::new(TableId(id), declared, table(id).job.splits.clone(), None)
    };
    let mut script = Script::runs(&[table(1), above(2, 1), above(3, 2)], &["a"]);
    // As many barriers are in flight as may be, so that changes wait.
    for _ in 0..IN_FLIGHT_MAX {
        script.tick(INTERVAL);
    }
    script.says(Event::Created(above(4, 2), Waiter(4)));
    assert_eq!(script.reports_stopped("a", 2, 20, &[2]), ["mark t2 failed"]);
    let failed = JobState::Failed { error: "division by zero".to_owned(), since_ms: None, torn: true };
    let marked = script.says(Event::Marked(above(2, 1).with_state(failed)));
    assert!(marked.len() == 1 && marked[0].starts_with("commit epoch 2"), "{marked:?}");
    assert_eq!(script.tick(Duration::ZERO), ["barrier 6, t2 failed, stopping t2 t3 t4 to a"]);
    script.committed(2);
    script.reports("a", 3, 20);
    assert_eq!(script.tick(Duration::ZERO), ["barrier 7 adding t4/0 to a"]);
}

#[test]
fn after_a_claim_of_unknown_outcome_everything_is_read_again() {
    let mut script = Script::runs(&[table(1)], &["a"]);
    script.says(job_failed(script.term, 1, "no such stream"));
    assert_eq!(script.says(Event::Claimed(script.term, Outcome::Unknown)), ["load"]);
    let durable = Durable { revision: 9, ..script.core.durable().clone() };
    let again = script.says(Event::Loaded { leading: true, durable: durable.clone() });
    assert_eq!(again, ["claim term 3 over epoch 1 and revision 9, t1 failed"]);
    script.says(Event::Claimed(script.term, Outcome::Unknown));
    assert!(script.says(Event::Loaded { leading: true, durable }).is_empty(), "from then on it waits a little");
    let third = script.tick(Duration::from_millis(100));
    assert_eq!(third, ["claim term 4 over epoch 1 and revision 9, t1 failed"]);
}

#[test]
fn a_commit_that_was_refused_ends_the_term_and_one_who_was_deposed_steps_down() {
    let mut script = Script::runs(&[], &["a"]);
    script.tick(INTERVAL);
    script.reports("a", 2, 0);
    let refused = script.says(Event::Committed(script.term, Epoch(2), Outcome::Refused));
    assert_eq!(refused, ["stop term 1 on a", "load"]);
    assert_eq!(script.says(Event::Loaded { leading: false, durable: Durable::default() }), ["step down"]);
}

#[test]
fn a_node_that_joins_is_given_a_share_after_one_more_checkpoint() {
    let mut script = Script::runs(&[table(1)], &["a"]);
    assert!(script.joins("b").is_empty());
    assert_eq!(script.tick(SETTLE), ["barrier 2 to a"]);
    script.reports("a", 2, 20);
    assert_eq!(
        script.committed(2),
        ["announce 2 to a", "forget 1 page(s)", "stop term 1 on a", "claim term 2 over epoch 2 and revision 3"]
    );
    assert_eq!(script.claimed(), ["start term 2 on a: 0=0..128 1/S@20", "start term 2 on b: 1=128..256"]);
}

#[test]
fn a_node_that_leaves_is_released_once_others_have_its_share() {
    let mut script = Script::runs(&[table(1)], &["a", "b"]);
    assert_eq!(script.says(Event::NodeLeaving(node("a"))), ["barrier 2 to a b"]);
    script.reports("a", 2, 20);
    script.reports("b", 2, 20);
    let committed = script.committed(2);
    assert_eq!(committed.last().map(String::as_str), Some("claim term 2 over epoch 2 and revision 3"));
    assert_eq!(script.claimed(), ["start term 2 on b: 0=0..256 1/S@20"]);
    assert_eq!(script.ready("b"), ["barrier 3 to b"]);
    script.reports("b", 3, 20);
    assert_eq!(script.committed(3), ["announce 3 to b", "release a"]);
}

#[test]
fn a_node_that_does_not_answer_a_barrier_is_given_up() {
    let mut script = Script::runs(&[], &["a", "b"]);
    script.tick(INTERVAL);
    script.reports("a", 2, 0);
    script.tick(TIMEOUT - Duration::from_millis(1));
    let given_up = script.tick(Duration::from_millis(1));
    assert_eq!(given_up[0], "disconnect: node \"b\" did not answer within 60 s");
    assert!(given_up.contains(&"claim term 2 over epoch 1 and revision 2".to_owned()), "{given_up:?}");
}

#[test]
fn a_new_leader_waits_a_while_for_the_nodes_that_the_last_one_knew() {
    let mut script = Script::new(&[], &["a", "b"]);
    script.joins("a");
    assert!(script.tick(SETTLE).is_empty());
    assert_eq!(script.tick(Duration::from_millis(2700)), ["claim term 1 over epoch 0 and revision 0"]);
    // They come back as other nodes, at the same addresses; when all have, nothing is waited for but that they settle.
    let mut script = Script::new(&[], &["a", "b"]);
    for address in ["a:5688", "b:5688"] {
        let node = node(&format!("{address} again"));
        script.says(Event::NodeJoined { node, address: address.to_owned(), parallelism: 1 });
    }
    assert_eq!(script.tick(SETTLE), ["claim term 1 over epoch 0 and revision 0"]);
}

#[test]
fn an_old_terms_words_have_no_effect() {
    let mut script = Script::runs(&[table(1)], &["a"]);
    let old = script.term;
    script.says(Event::TermFailed(node("a"), old, "a database closed".to_owned()));
    script.claimed();
    script.ready("a");
    assert!(script.says(Event::TermFailed(node("a"), old, "late".to_owned())).is_empty());
    assert!(script.says(job_failed(old, 1, "late")).is_empty());
    let checkpoints = vec![(script.placement.slots[0].id, Uuid::nil())];
    let split = JobSplit { job: TableId(1), split: SplitId("S".to_owned()) };
    let report = Report {
        term: old,
        epoch: Epoch(2),
        checkpoints,
        positions: vec![(split, Sequence(99).into())],
        stopped: Vec::new(),
    };
    assert!(script.says(Event::EpochReported(node("a"), report)).is_empty());
}

#[test]
fn statements_share_a_barrier_and_are_committed_with_it() {
    let mut script = Script::runs(&[table(1)], &["a"]);
    let term = script.term;
    assert_eq!(script.writes(term, 7, 1), ["barrier 2 naming 7 to a"]);
    // Another one of its frontend, which lost the connection, waits for the same.
    assert!(script.writes(term, 7, 2).is_empty());
    // The next barrier names all that come while this one is under way.
    assert!(script.writes(term, 11, 11).is_empty());
    assert!(script.writes(term, 12, 12).is_empty());
    let reported = script.reports("a", 2, 10);
    assert!(reported[0].ends_with(", statement 7"), "{reported:?}");
    let committed = script.committed(2);
    assert_eq!(committed[..3], ["announce 2 to a", "resolve 1 with epoch 2", "resolve 2 with epoch 2"]);
    assert_eq!(committed.last().map(String::as_str), Some("barrier 3 naming 11 naming 12 to a"));
    assert_eq!(script.writes(term, 7, 3), ["resolve 3 with epoch 2"], "asked again later");
}

#[test]
fn a_statement_whose_term_ends_is_looked_for_once_the_next_is_claimed() {
    let mut script = Script::runs(&[table(1)], &["a"]);
    let old = script.term;
    script.writes(old, 7, 1);
    script.reports("a", 2, 10);
    // The commit is under way. Nobody knows its outcome before it cannot happen any more.
    script.says(Event::TermFailed(node("a"), old, "a database closed".to_owned()));
    assert!(script.writes(old, 8, 2).is_empty());
    let claimed = script.claimed();
    assert_eq!(claimed[..2], ["recall 1", "recall 2"]);
    assert_eq!(script.writes(old, 8, 3), ["recall 3"]);
    assert!(script.writes(script.term, 9, 4).is_empty(), "the nodes hold rows as soon as the term starts");
    assert_eq!(script.ready("a"), ["barrier 2 naming 9 to a"]);
}

#[test]
fn no_term_runs_before_all_jobs_are_marked_that_no_node_can_build() {
    let newer = |id| {
        let stored = serde_json::to_string(&table(id)).expect("an entry serialises");
        serde_json::from_str(&stored.replace(r#""encode":"json""#, r#""encode":"cbor""#))
            .expect("it has an id and a name")
    };
    let tables: Vec<Entry> = (1..=70).map(newer).chain([table(71)]).collect();
    let mut script = Script::new(&tables, &[]);
    script.joins("a");
    let first = script.tick(SETTLE);
    assert!(matches!(first.as_slice(), [claim] if claim.ends_with("t64 failed")), "{first:?}");
    let second = script.claimed();
    assert_eq!(
        second,
        [
            "claim term 2 over epoch 0 and revision 1, t65 failed, t66 failed, t67 failed, t68 failed, t69 failed, t70 failed"
        ]
    );
    assert_eq!(script.claimed(), ["start term 2 on a: 0=0..256 71/S@1"]);
    let states: Vec<_> = script.core.catalog().entries().map(|entry| entry.job.state.clone()).collect();
    assert!(states[..70].iter().all(|state| matches!(state, JobState::Waiting { .. })));
}

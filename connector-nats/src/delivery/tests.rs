//! What the machine does, case by case.

use super::*;

const PACE: Pace =
    Pace { silence_ms: 2_500, rebuild_ms_min: 50, rebuild_ms_max: 2_000, refused_ms: 500, unacked_max: 16 };
const TERMS: Terms =
    Terms { ack_policy: AckPolicy::Explicit, max_ack_pending: Some(8), batch: 4, requests: 2, fence: Fence::Private };
const DURABLE: Terms = Terms { fence: Fence::Made, ..TERMS };

struct Rig {
    machine: Delivery,
    now: Millis,
    incarnation: Incarnation,
    /// Whether every request is confirmed at once.
    confirms: bool,
}

impl Rig {
    /// A machine that reads from sequence 10.
    fn reading(terms: Terms) -> Rig {
        let machine = Delivery::new(Sequence(10).into(), PACE);
        let mut rig = Rig { machine, now: 0, incarnation: Incarnation(0), confirms: true };
        rig.apply(Event::Connected);
        rig.built(terms);
        rig
    }

    fn built(&mut self, terms: Terms) -> Vec<Action> {
        let position = Position { next: self.machine.position(), anchor: self.machine.anchor() };
        self.apply(Event::Built { incarnation: self.incarnation, terms, position })
    }

    fn apply(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.machine.apply(self.now, event, &mut actions);
        for action in &actions {
            if let Action::Build { incarnation, .. } = action {
                self.incarnation = *incarnation;
            }
        }
        let confirm = actions.iter().find_map(|action| match action {
            Action::Confirm { requested, .. } => Some(*requested),
            _ => None,
        });
        if let Some(requested) = confirm.filter(|_| self.confirms) {
            let further = self.apply(Event::Confirmed { incarnation: self.incarnation, requested });
            assert!(further.is_empty(), "{further:?}");
        }
        actions
    }

    fn deliver(&mut self, stream_seq: u64, consumer_seq: u64, deliveries: u64) -> Verdict {
        self.deliver_of(stream_seq, consumer_seq, deliveries, 0)
    }

    /// A delivery of a message that was stored at a time.
    fn deliver_of(&mut self, stream_seq: u64, consumer_seq: u64, deliveries: u64, stored_ns: u64) -> Verdict {
        let delivered = Delivered { stream_seq, consumer_seq, deliveries, stored_ns, pending: 0 };
        self.machine.deliver(self.now, self.incarnation, delivered)
    }

    fn acks(&mut self) -> Vec<u64> {
        let mut acks = Vec::new();
        self.machine.take_acks(usize::MAX, &mut acks);
        acks.iter().map(|token| token.consumer_seq).collect()
    }
}

fn pulls(actions: &[Action]) -> Vec<u64> {
    let pulled = actions.iter().filter_map(|action| match action {
        Action::Pull { pull, .. } => Some(pull.batch),
        _ => None,
    });
    pulled.collect()
}

fn build(actions: &[Action]) -> Option<(u64, Reason)> {
    actions.iter().find_map(|action| match action {
        Action::Build { position, reason, .. } => Some((position.next.0, *reason)),
        _ => None,
    })
}

#[test]
fn two_requests_are_outstanding_and_refilled_at_half() {
    let mut rig = Rig::reading(TERMS);
    assert!(pulls(&rig.apply(Event::Drained)).is_empty(), "both were sent when the consumer was built");
    for n in 1..=3 {
        assert_eq!(rig.deliver(9 + n, n, 1), Verdict::Accept);
    }
    assert!(pulls(&rig.apply(Event::Drained)).is_empty());
    assert_eq!(rig.deliver(13, 4, 1), Verdict::Accept);
    assert_eq!(pulls(&rig.apply(Event::Drained)), [4]);
}

#[test]
fn an_incomplete_delivery_rebuilds_at_the_read_position() {
    let mut rig = Rig::reading(DURABLE);
    assert_eq!(rig.deliver(12, 1, 1), Verdict::Accept);
    assert_eq!(rig.deliver(14, 3, 1), Verdict::Discard);
    assert_eq!(rig.deliver(13, 2, 1), Verdict::Discard, "too late");
    rig.now = 50;
    let reason = Reason::Incomplete { expected: 2, found: 3 };
    assert_eq!(build(&rig.apply(Event::Drained)), Some((13, reason)));
    assert_eq!(rig.deliver(13, 1, 1), Verdict::Discard, "not built yet");
    rig.built(DURABLE);
    assert_eq!(rig.deliver(13, 1, 1), Verdict::Accept);
}

#[test]
fn a_fresh_consumer_begins_at_one() {
    let mut rig = Rig::reading(DURABLE);
    assert_eq!(rig.deliver(10, 2, 1), Verdict::Discard, "somebody else had the first");
}

#[test]
fn where_others_know_the_name_only_answers_to_confirmed_requests_are_taken() {
    let mut rig = Rig::reading(DURABLE);
    rig.confirms = false;
    for n in 1..=4 {
        rig.deliver(9 + n, n, 1);
    }
    let incarnation = rig.incarnation;
    let pull = Pull { batch: 4, unbounded: false };
    let confirm = Action::Confirm { incarnation, requested: 12 };
    assert_eq!(rig.apply(Event::Drained), [Action::Pull { incarnation, pull }, confirm]);
    for n in 5..=8 {
        assert!(rig.machine.takes_deliveries(), "the first two requests are confirmed");
        rig.deliver(9 + n, n, 1);
    }
    assert!(!rig.machine.takes_deliveries(), "the third may have reached another consumer");
    rig.apply(Event::Confirmed { incarnation, requested: 12 });
    assert!(rig.machine.takes_deliveries());
    assert_eq!(rig.deliver(18, 9, 1), Verdict::Accept);
    assert!(Rig::reading(TERMS).machine.takes_deliveries(), "nobody knows the name");
}

#[test]
fn redeliveries_are_dropped_and_the_newer_reply_is_acknowledged() {
    let mut rig = Rig::reading(DURABLE);
    for n in 1..=3 {
        rig.deliver(9 + n, n, 1);
    }
    assert_eq!(rig.deliver(11, 4, 2), Verdict::Drop);
    assert!(rig.acks().is_empty(), "nothing is committed");
    rig.apply(Event::Committed { position: Sequence(12) });
    assert_eq!(rig.acks(), [1, 4]);
    let token = Token { stream_seq: 10, consumer_seq: 5, deliveries: 2 };
    assert_eq!(rig.deliver(10, 5, 2), Verdict::AckAndDrop(token), "it is committed");
    assert_eq!(rig.machine.counters().redelivered, 2);
}

#[test]
fn what_was_not_read_is_not_acknowledged_although_it_lies_below_the_position() {
    for committed in [10, 12] {
        let mut rig = Rig::reading(DURABLE);
        rig.deliver_of(10, 1, 1, 100);
        rig.deliver_of(11, 2, 1, 90);
        rig.apply(Event::Committed { position: Sequence(committed) });
        assert!(!matches!(rig.deliver_of(10, 3, 2, 100), Verdict::Discard), "it was read");
        assert_eq!(rig.deliver_of(11, 4, 1, 101), Verdict::Discard, "it is newer than all that was read");
        assert!(rig.machine.anchor().parted && !rig.machine.is_reading());
        assert!(rig.acks().is_empty(), "tokens of another stream's consumer are void");
    }
}

#[test]
fn under_all_one_acknowledgement_stands_for_those_before() {
    let mut rig = Rig::reading(Terms { ack_policy: AckPolicy::All, ..DURABLE });
    for n in 1..=5 {
        rig.deliver(9 + n, n, 1);
    }
    rig.apply(Event::Committed { position: Sequence(13) });
    assert_eq!(rig.acks(), [3]);
    assert!(rig.acks().is_empty());
    rig.apply(Event::Committed { position: Sequence(15) });
    assert_eq!(rig.acks(), [5]);
}

#[test]
fn under_none_nothing_is_kept_for_acknowledgement() {
    let mut rig = Rig::reading(Terms { ack_policy: AckPolicy::None, ..TERMS });
    rig.deliver(10, 1, 1);
    rig.apply(Event::Committed { position: Sequence(11) });
    assert_eq!((rig.machine.unacked(), rig.acks().len()), (0, 0));
}

#[test]
fn a_nearly_full_window_asks_for_a_checkpoint_once_a_commit() {
    let mut rig = Rig::reading(DURABLE);
    for n in 1..=5 {
        rig.deliver(9 + n, n, 1);
        assert!(!rig.apply(Event::Drained).contains(&Action::RequestCheckpoint), "{n} of 8");
    }
    rig.deliver(15, 6, 1);
    assert!(rig.apply(Event::Drained).contains(&Action::RequestCheckpoint), "6 of 8");
    rig.deliver(16, 7, 1);
    assert!(!rig.apply(Event::Drained).contains(&Action::RequestCheckpoint), "one is on its way");
    assert!(rig.apply(Event::Committed { position: Sequence(11) }).contains(&Action::RequestCheckpoint), "still 6");
    assert!(!rig.apply(Event::Committed { position: Sequence(13) }).contains(&Action::RequestCheckpoint));
}

#[test]
fn a_reconnect_rebuilds_whatever_else_is_known() {
    let mut rig = Rig::reading(TERMS);
    rig.deliver(10, 1, 1);
    rig.apply(Event::Disconnected);
    assert_eq!(rig.deliver(11, 2, 1), Verdict::Discard);
    rig.now = 1000;
    assert_eq!(build(&rig.apply(Event::Connected)), Some((11, Reason::Reconnected)));
}

#[test]
fn a_message_that_breaks_every_connection_is_fetched() {
    let mut rig = Rig::reading(DURABLE);
    rig.deliver(10, 1, 1);
    let fetches = |rig: &mut Rig| {
        rig.apply(Event::Disconnected);
        rig.now += 10_000;
        let actions = rig.apply(Event::Connected);
        actions.iter().any(|action| matches!(action, Action::Build { fetch: true, .. }))
    };
    for _ in 0..2 {
        assert!(!fetches(&mut rig));
        rig.built(DURABLE);
    }
    assert!(fetches(&mut rig), "three connections were lost");
    rig.apply(Event::Built { incarnation: rig.incarnation, terms: DURABLE, position: Sequence(12).into() });
    assert_eq!(rig.machine.position(), Sequence(12));
    assert!(fetches(&mut rig), "the next message is like it");
    rig.built(DURABLE);
    let incarnation = rig.incarnation;
    rig.apply(Event::Heartbeat { incarnation, delivered: 0 });
    assert!(!fetches(&mut rig), "it was not the connection");
    rig.built(DURABLE);
    assert_eq!(rig.deliver(12, 1, 1), Verdict::Accept);
}

#[test]
fn a_message_that_ends_every_client_is_fetched() {
    let mut rig = Rig::reading(DURABLE);
    rig.deliver(10, 1, 1);
    for last in [false, false, true] {
        // The subscription ends before the connection is known to be lost.
        let incarnation = rig.incarnation;
        rig.apply(Event::Suspect { incarnation, reason: Reason::Ended });
        rig.apply(Event::Disconnected);
        rig.now += 10_000;
        let actions = rig.apply(Event::Connected);
        assert_eq!(actions.iter().any(|action| matches!(action, Action::Build { fetch: true, .. })), last);
        rig.built(DURABLE);
    }
}

#[test]
fn what_was_fetched_is_committed_before_a_consumer_that_begins_there_is_built() {
    let mut rig = Rig::reading(DURABLE);
    for _ in 0..3 {
        rig.apply(Event::Disconnected);
        rig.now += 10_000;
        rig.apply(Event::Connected);
        if rig.incarnation.0 < 3 {
            rig.built(DURABLE);
        }
    }
    let incarnation = rig.incarnation;
    let actions = rig.apply(Event::Fetched { incarnation, position: Sequence(13).into() });
    assert_eq!(actions, [Action::RequestCheckpoint]);
    rig.now += 10_000;
    assert_eq!(rig.machine.deadline(), None);
    assert_eq!(rig.apply(Event::Committed { position: Sequence(12) }), [Action::RequestCheckpoint], "not all of it");
    rig.apply(Event::Disconnected);
    rig.now += 10_000;
    assert_eq!(build(&rig.apply(Event::Connected)), None, "still not");
    let actions = rig.apply(Event::Committed { position: Sequence(13) });
    let [Action::Build { position, committed, fetch, .. }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!((position.next, committed, fetch), (Sequence(13), Sequence(13), false));
}

#[test]
fn a_consumer_that_begins_at_the_committed_position_brings_new_tokens() {
    let mut rig = Rig::reading(DURABLE);
    for n in 1..=4 {
        rig.deliver(9 + n, n, 1);
    }
    rig.apply(Event::Committed { position: Sequence(12) });
    rig.apply(Event::Disconnected);
    rig.now += 10_000;
    let actions = rig.apply(Event::Connected);
    let Some(Action::Build { position, committed, .. }) = actions.first() else { panic!("{actions:?}") };
    assert_eq!((position.next, *committed), (Sequence(14), Sequence(12)));
    rig.built(DURABLE);
    let token = Token { stream_seq: 11, consumer_seq: 1, deliveries: 1 };
    assert_eq!(rig.deliver(11, 1, 1), Verdict::AckAndDrop(token), "its acknowledgement was lost");
    assert_eq!(rig.deliver(12, 2, 1), Verdict::Drop);
    assert_eq!(rig.deliver(13, 3, 1), Verdict::Drop);
    assert_eq!(rig.deliver(14, 4, 1), Verdict::Accept);
    assert!(rig.acks().is_empty());
    rig.apply(Event::Committed { position: Sequence(15) });
    assert_eq!(rig.acks(), [2, 3, 4]);
}

#[test]
fn a_deleted_durable_is_rebuilt_only_after_a_commit_of_the_term() {
    let mut rig = Rig::reading(DURABLE);
    rig.now = 1000;
    let incarnation = rig.incarnation;
    assert_eq!(rig.apply(Event::Taken { incarnation }), [Action::AwaitConfirmation]);
    rig.now = 60_000;
    assert!(rig.apply(Event::Tick { listening: true }).is_empty());
    let actions = rig.apply(Event::Committed { position: Sequence(10) });
    assert_eq!(build(&actions), Some((10, Reason::Taken)));
}

#[test]
fn a_new_connection_does_not_confirm_the_term() {
    let mut rig = Rig::reading(DURABLE);
    rig.now = 1000;
    let incarnation = rig.incarnation;
    rig.apply(Event::Taken { incarnation });
    for _ in 0..2 {
        rig.apply(Event::Disconnected);
        rig.now += 10_000;
        assert!(rig.apply(Event::Connected).is_empty());
    }
    let actions = rig.apply(Event::Committed { position: Sequence(10) });
    assert_eq!(build(&actions), Some((10, Reason::Taken)));

    // A commit that comes while there is no connection does.
    rig.built(DURABLE);
    let incarnation = rig.incarnation;
    rig.apply(Event::Taken { incarnation });
    rig.apply(Event::Disconnected);
    assert!(rig.apply(Event::Committed { position: Sequence(10) }).is_empty());
    rig.now += 10_000;
    assert_eq!(build(&rig.apply(Event::Connected)), Some((10, Reason::Reconnected)));
}

#[test]
fn reading_pauses_when_too_much_waits_for_a_commit() {
    let mut rig = Rig::reading(Terms { max_ack_pending: None, ..TERMS });
    let mut wanted = 0;
    for n in 1..=16 {
        assert!(rig.machine.takes_deliveries());
        rig.deliver(9 + n, n, 1);
        wanted += rig.apply(Event::Drained).iter().filter(|action| **action == Action::RequestCheckpoint).count();
    }
    assert_eq!(wanted, 1, "before it comes to that, a checkpoint is wanted");
    assert!(!rig.machine.takes_deliveries());
    rig.apply(Event::Committed { position: Sequence(12) });
    assert_eq!(rig.acks(), [1, 2]);
    assert!(rig.machine.takes_deliveries());
}

#[test]
fn a_deleted_anonymous_consumer_is_rebuilt_at_once() {
    let mut rig = Rig::reading(TERMS);
    rig.now = 1000;
    let incarnation = rig.incarnation;
    assert_eq!(build(&rig.apply(Event::Taken { incarnation })), Some((10, Reason::Taken)));
}

#[test]
fn silence_is_looked_into_only_while_somebody_listens() {
    let mut rig = Rig::reading(TERMS);
    rig.now = 10_000;
    assert!(rig.apply(Event::Tick { listening: false }).is_empty());
    assert_eq!(rig.machine.deadline(), Some(12_500));
    rig.now = 12_499;
    assert!(rig.apply(Event::Tick { listening: true }).is_empty());
    rig.now = 12_500;
    let incarnation = rig.incarnation;
    assert_eq!(rig.apply(Event::Tick { listening: true }), [Action::Verify { incarnation }]);
    let actions = rig.apply(Event::Suspect { incarnation, reason: Reason::Silent });
    assert_eq!(build(&actions), Some((10, Reason::Silent)));
}

#[test]
fn heartbeats_are_signs_of_life() {
    let mut rig = Rig::reading(TERMS);
    let incarnation = rig.incarnation;
    for _ in 0..10 {
        rig.now += 1000;
        assert!(rig.apply(Event::Heartbeat { incarnation, delivered: 0 }).is_empty());
        assert!(rig.apply(Event::Tick { listening: true }).is_empty());
    }
}

#[test]
fn requests_that_ran_out_are_replaced_by_what_was_left_of_them() {
    let mut rig = Rig::reading(TERMS);
    let incarnation = rig.incarnation;
    rig.deliver(10, 1, 1);
    let expired = |unserved| Event::PullEnded { incarnation, unserved, end: PullEnd::Expired };
    assert_eq!(pulls(&rig.apply(expired(Some(3)))), [4], "4 of 8 are outstanding");
    assert_eq!(pulls(&rig.apply(expired(None))), [4, 4], "nothing is assumed to be outstanding");
}

#[test]
fn refused_requests_are_not_repeated_at_once() {
    let mut rig = Rig::reading(TERMS);
    let incarnation = rig.incarnation;
    let refused = Event::PullEnded { incarnation, unserved: None, end: PullEnd::Refused };
    assert!(pulls(&rig.apply(refused)).is_empty());
    assert_eq!(rig.machine.deadline(), Some(500));
    rig.now = 500;
    assert_eq!(pulls(&rig.apply(Event::Tick { listening: true })), [4, 4]);
}

#[test]
fn a_message_larger_than_a_request_is_asked_for_alone() {
    let mut rig = Rig::reading(TERMS);
    let incarnation = rig.incarnation;
    let oversized = Event::PullEnded { incarnation, unserved: Some(4), end: PullEnd::Oversized };
    assert!(rig.apply(oversized).is_empty(), "the other request may still be served");
    let pull = Pull { batch: 1, unbounded: true };
    assert_eq!(rig.apply(oversized), [Action::Pull { incarnation, pull }]);
    assert_eq!(rig.deliver(10, 1, 1), Verdict::Accept);
    assert_eq!(pulls(&rig.apply(Event::Drained)), [4, 4]);
}

#[test]
fn failing_builds_are_spaced_out_and_progress_forgives() {
    let mut rig = Rig::reading(TERMS);
    rig.deliver(10, 1, 1);
    rig.apply(Event::Disconnected);
    rig.now = 10_000;
    assert!(build(&rig.apply(Event::Connected)).is_some());
    let mut gaps = Vec::new();
    for _ in 0..7 {
        let failed_at = rig.now;
        let mut actions = rig.apply(Event::BuildFailed { incarnation: rig.incarnation });
        while build(&actions).is_none() {
            rig.now = rig.machine.deadline().expect("it waits for its time");
            actions = rig.apply(Event::Tick { listening: true });
        }
        gaps.push(rig.now - failed_at);
    }
    assert_eq!(gaps, [100, 200, 400, 800, 1600, 2000, 2000]);
    rig.built(TERMS);
    rig.deliver(11, 1, 1);
    let incarnation = rig.incarnation;
    rig.now += 50;
    let suspect = Event::Suspect { incarnation, reason: Reason::Unsettled };
    assert!(build(&rig.apply(suspect)).is_some(), "at once");
}

#[test]
fn what_belongs_to_an_older_incarnation_is_ignored() {
    let mut rig = Rig::reading(TERMS);
    let old = rig.incarnation;
    rig.deliver(10, 1, 1);
    rig.apply(Event::Disconnected);
    rig.now = 1000;
    rig.apply(Event::Connected);
    let position = Sequence(11).into();
    assert!(rig.apply(Event::Built { incarnation: old, terms: TERMS, position }).is_empty());
    assert!(rig.apply(Event::Taken { incarnation: old }).is_empty());
    rig.built(TERMS);
    let delivered = Delivered { stream_seq: 11, consumer_seq: 1, deliveries: 1, stored_ns: 0, pending: 0 };
    assert_eq!(rig.machine.deliver(1000, old, delivered), Verdict::Discard);
    rig.apply(Event::Committed { position: Sequence(11) });
    assert!(rig.acks().is_empty(), "the new consumer starts above");
}

#[test]
#[should_panic(expected = "only read up to 10")]
fn a_commit_beyond_what_was_read_is_a_fault() {
    Rig::reading(TERMS).apply(Event::Committed { position: Sequence(11) });
}

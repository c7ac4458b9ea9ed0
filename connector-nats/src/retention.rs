//! What a stream keeps, and what follows from it for the consumer through which it is read.
//!
//! Under Limits retention acknowledgements only move a consumer. Under WorkQueue retention they delete messages, and under
//! Interest retention a message goes once every consumer that wants it has acknowledged it, or is gone. There the consumer
//! is a durable with explicit acknowledgements, names what it filters, and exists from CREATE to DROP. Owns these rules, the
//! name of a durable that the user did not name, and the configuration of a guard. Pure.

use std::time::Duration;

use serde_json::json;
use weir_common::ids::Sequence;

use crate::api::{ConsumerInfo, Object, StreamConfig};
use crate::consumer::{self, OWNER_KEY};
use crate::error::Error;
use crate::options::{AckPolicy, ConsumerName, OptionError, Options, Start};

/// Metadata of a guard: the durable that it stands in for.
pub const GUARD_KEY: &str = "weir.guard";
/// Versions of nats-server from this one on may discard messages that are wanted when a consumer is deleted.
const DISCARDS_SINCE: (u64, u64) = (2, 11);

/// What a stream keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Messages, until there are too many or they are too old.
    Limits,
    /// Messages that were not acknowledged: each goes to one consumer.
    WorkQueue,
    /// Messages that a consumer still wants.
    Interest,
}

impl Retention {
    /// What a stream keeps; nothing if it has a retention that this version does not know.
    pub fn of(stream: &StreamConfig) -> Option<Retention> {
        match stream.retention.as_str() {
            "limits" | "" => Some(Retention::Limits),
            "workqueue" => Some(Retention::WorkQueue),
            "interest" => Some(Retention::Interest),
            _ => None,
        }
    }

    /// Whether acknowledgements delete messages.
    pub fn deletes_acknowledged(self) -> bool {
        self != Retention::Limits
    }

    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Retention::Limits => "Limits",
            Retention::WorkQueue => "WorkQueue",
            Retention::Interest => "Interest",
        }
    }
}

/// How a consumer that others know by its name is started over at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is deleted and made again.
    Remade,
    /// The same, and meanwhile a guard keeps the messages of its Interest stream.
    Guarded,
    /// It is reset, and pinned to the reader.
    Reset,
}

/// How the consumer of a stream is started over. One that Weir found stays as it was configured, and so is not pinned.
pub fn renewal(retention: Retention, server_can_reset: bool, found: bool) -> Renewal {
    match retention {
        Retention::Limits | Retention::WorkQueue => Renewal::Remade,
        Retention::Interest if server_can_reset && !found => Renewal::Reset,
        Retention::Interest => Renewal::Guarded,
    }
}

/// Checks that a consumer may be deleted and made again behind a guard: newer servers have been seen to lose messages then.
/// `found`: the name of a consumer that Weir did not make.
///
/// # Errors
/// If the user has to allow it first.
pub fn check_guarded(options: &Options, server: Option<(u64, u64)>, found: Option<&str>) -> Result<(), OptionError> {
    if options.allow_interest_stream || server.is_some_and(|version| version < DISCARDS_SINCE) {
        return Ok(());
    }
    let (through, other) = match found {
        Some(name) => (format!("consumer \"{name}\", which Weir did not make"), "leave out consumer.durable_name"),
        None => ("this version of nats-server".to_owned(), "use nats-server 2.14 or later, or 2.10"),
    };
    let message = format!("is needed to read a stream with Interest retention through {through}");
    let hint = format!(
        "the consumer has to be deleted and made anew, and nats-server has been seen to discard messages that were still \
         wanted when more than 100,000 lay above it: {other}, or set `allow_interest_stream` to true to read it all the same"
    );
    Err(OptionError::new("allow_interest_stream", message).with_hint(hint))
}

/// Checks that options differ only in what a consumer that is never made anew can be updated to.
///
/// # Errors
/// Names the first that it cannot.
pub fn check_update(before: &Options, after: &Options) -> Result<(), OptionError> {
    let (before, after) = (&before.consumer, &after.consumer);
    let fixed = [
        ("consumer.max_waiting", before.max_waiting != after.max_waiting),
        ("consumer.replay_policy", before.replay != after.replay),
    ];
    match fixed.into_iter().find(|(_, differs)| *differs) {
        None => Ok(()),
        Some((option, _)) => {
            let message = "cannot be changed on a stream with Interest retention";
            let hint =
                "the server cannot change it, and Weir never makes the consumer anew there: create another table";
            Err(OptionError::new(option, message).with_hint(hint))
        }
    }
}

/// Checks that a reader may read a stream: where acknowledgements delete messages what is read has to be stored.
///
/// # Errors
/// [`Error::NotStored`].
pub fn check_use(stream: &str, retention: Retention, stored: bool) -> Result<(), Error> {
    if stored || !retention.deletes_acknowledged() {
        return Ok(());
    }
    Err(Error::NotStored { stream: stream.to_owned(), retention: retention.as_str() })
}

/// Checks options that a stream of this retention rules out.
///
/// # Errors
/// Names the first of them.
pub fn check(options: &Options, retention: Retention) -> Result<(), OptionError> {
    if !retention.deletes_acknowledged() {
        return Ok(());
    }
    let refuse = |option: &str, message: &str, hint: &str| {
        let message = format!("{message} on a stream with {} retention", retention.as_str());
        Err(OptionError::new(option, message).with_hint(hint))
    };
    let consumer = &options.consumer;
    if let Some(policy) = consumer.ack_policy.filter(|policy| *policy != AckPolicy::Explicit) {
        let message = format!("\"{}\" is not possible", policy.as_str());
        let hint = "acknowledgements delete messages there, so each is given by itself: use explicit, or leave it out";
        return refuse("consumer.ack_policy", &message, hint);
    }
    if retention == Retention::WorkQueue && options.start != Start::Earliest {
        let hint = "a queue hands out everything that was not acknowledged: use earliest, or leave it out";
        return refuse("scan.startup.mode", "must be earliest (consumer.deliver_policy: all)", hint);
    }
    if retention == Retention::Interest && consumer.memory_storage == Some(true) {
        let hint = "the consumer is gone when the server restarts, and messages with it: use false, or leave it out";
        return refuse("consumer.memory_storage", "must not be true", hint);
    }
    Ok(())
}

/// What the user should be told before a stream of this retention is read with these options.
pub fn notices(options: &Options, stream: &StreamConfig, retention: Retention, name: &ConsumerName) -> Vec<String> {
    if !retention.deletes_acknowledged() {
        return options.consumer.unacknowledged_notices.clone();
    }
    let mut notices = Vec::new();
    let kind = retention.as_str();
    if let (false, Some(given)) = (options.consumer.name.is_durable(), name.given()) {
        notices.push(format!(
            "a stream with {kind} retention is read through a durable consumer: Weir makes \"{given}\", and removes it \
             again by DROP"
        ));
    }
    let of_stream = u64::try_from(stream.consumer_limits.inactive_threshold).ok().filter(|threshold| *threshold > 0);
    let threshold = match options.consumer.inactive_threshold {
        Some(threshold) => Some(("consumer.inactive_threshold", threshold)),
        // The server gives it to every consumer that has none.
        None => {
            of_stream.map(|nanos| ("consumer_limits.inactive_threshold of the stream", Duration::from_nanos(nanos)))
        }
    };
    if let (Retention::Interest, Some((setting, threshold))) = (retention, threshold) {
        notices.push(format!(
            "{setting}: if Weir does not read for {} seconds the server forgets the consumer, and with it the messages that \
             only it still wants",
            threshold.as_secs_f64()
        ));
    }
    notices
}

/// What the consumer is called. Where acknowledgements delete messages it is a durable, whether the user named it or not.
pub fn consumer_name(options: &Options, retention: Retention, owner: &str) -> ConsumerName {
    let of_split = |name: &str| options.name_of_split(name);
    match &options.consumer.name {
        ConsumerName::Anonymous if !retention.deletes_acknowledged() => ConsumerName::Anonymous,
        ConsumerName::Named(name) if !retention.deletes_acknowledged() => ConsumerName::Named(of_split(name)),
        ConsumerName::Anonymous => ConsumerName::Durable(of_split(&default_name(owner))),
        ConsumerName::Named(name) | ConsumerName::Durable(name) => ConsumerName::Durable(of_split(name)),
    }
}

/// `weir-<cluster>-<table>`. What a consumer's name cannot hold, and what would make two owners share one, is written as
/// `=` and its bytes in hexadecimal.
fn default_name(owner: &str) -> String {
    let mut name = "weir-".to_owned();
    for byte in owner.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => name.push(char::from(byte)),
            b'/' => name.push('-'),
            byte => name.push_str(&format!("={byte:02x}")),
        }
    }
    name
}

/// What a consumer filters where acknowledgements delete messages, whether it names one subject or many: an unnamed filter
/// is everything, whatever the stream comes to hold.
pub fn explicit_filters(config: &Object) -> Vec<String> {
    let filters = consumer::named_filters(config);
    if filters.is_empty() { vec![">".to_owned()] } else { filters }
}

/// The guard of a durable: like it, but it is never read. It keeps everything from a sequence on while the durable is made
/// anew.
pub fn guard(durable: &Object, name: &str, durable_name: &str, owner: &str, position: Sequence) -> Object {
    let mut config = consumer::starting_at(durable, position);
    for field in ["inactive_threshold", "mem_storage", "backoff", "max_deliver", "sample_freq"] {
        config.remove(field);
    }
    config.insert("name".to_owned(), json!(name));
    config.insert("durable_name".to_owned(), json!(name));
    config.insert("description".to_owned(), json!(format!("Weir {owner}: guard of {durable_name}")));
    config.insert("metadata".to_owned(), json!({ OWNER_KEY: owner, GUARD_KEY: durable_name }));
    config
}

/// The durable that a consumer is the guard of, if it is one.
pub fn guards(info: &ConsumerInfo) -> Option<&str> {
    info.config.get("metadata")?.get(GUARD_KEY)?.as_str()
}

/// The same configuration, delivering everything.
pub fn delivering_all(config: &Object) -> Object {
    let mut config = consumer::starting_at(config, Sequence(0));
    config.remove("opt_start_seq");
    config.insert("deliver_policy".to_owned(), json!("all"));
    config
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        let base = [
            ("connector", "nats"),
            ("server_url", "h:1"),
            ("subject", "a.>"),
            ("stream", "s"),
            ("allow_interest_stream", "true"),
        ];
        let all: BTreeMap<String, String> =
            base.iter().chain(pairs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Options::parse(&all).expect("the options are right")
    }

    #[test]
    fn options_that_the_retention_rules_out_are_named() {
        use Retention::{Interest, Limits, WorkQueue};
        let cases = [
            (("consumer.ack_policy", "all"), vec![WorkQueue, Interest]),
            (("consumer.ack_policy", "none"), vec![WorkQueue, Interest]),
            (("scan.startup.mode", "latest"), vec![WorkQueue]),
            (("consumer.memory_storage", "true"), vec![Interest]),
        ];
        for (pair, refusing) in cases {
            for retention in [Limits, WorkQueue, Interest] {
                let result = check(&options(&[pair]), retention);
                let refused = result.err().map(|error| error.option);
                let expected = refusing.contains(&retention).then(|| pair.0.to_owned());
                assert_eq!(refused, expected, "{pair:?} on {retention:?}");
            }
        }
    }

    #[test]
    fn an_interest_stream_is_read_without_leave_where_nothing_can_be_lost() {
        use Retention::{Interest, Limits, WorkQueue};
        for (retention, can_reset, found, expected) in [
            (Limits, true, false, Renewal::Remade),
            (WorkQueue, true, true, Renewal::Remade),
            (Interest, true, false, Renewal::Reset),
            (Interest, true, true, Renewal::Guarded),
            (Interest, false, false, Renewal::Guarded),
        ] {
            assert_eq!(renewal(retention, can_reset, found), expected, "{retention:?}, {can_reset}, {found}");
        }
        let (with, without) = (options(&[]), options(&[("allow_interest_stream", "false")]));
        for (version, found, safe) in [
            (Some((2, 10)), None, true),
            (Some((2, 10)), Some("d"), true),
            (Some((2, 12)), None, false),
            (Some((2, 15)), Some("d"), false),
            (None, None, false),
        ] {
            assert_eq!(check_guarded(&with, version, found), Ok(()));
            let refused = check_guarded(&without, version, found).err();
            assert_eq!(refused.is_none(), safe, "{version:?}, {found:?}: {refused:?}");
        }
    }

    #[test]
    fn what_the_server_cannot_update_is_named() {
        let (before, same) = (options(&[]), options(&[("consumer.ack_wait", "5")]));
        assert_eq!(check_update(&before, &same), Ok(()));
        for pair in [("consumer.max_waiting", "5"), ("consumer.replay_policy", "original")] {
            let refused = check_update(&before, &options(&[pair])).expect_err("it cannot be updated");
            assert_eq!(refused.option, pair.0);
        }
    }

    #[test]
    fn a_durable_is_named_after_cluster_and_table_where_one_is_needed() {
        let named = |pairs: &[(&str, &str)], retention| consumer_name(&options(pairs), retention, "dev/orders");
        assert_eq!(named(&[], Retention::Limits), ConsumerName::Anonymous);
        assert_eq!(named(&[], Retention::WorkQueue), ConsumerName::Durable("weir-dev-orders".to_owned()));
        let given = named(&[("consumer.name", "n")], Retention::Interest);
        assert_eq!(given, ConsumerName::Durable("n".to_owned()));
        assert_ne!(default_name("a/b-c"), default_name("a-b/c"));
        assert_eq!(default_name("dev/Ünit 1.x"), "weir-dev-=c3=9cnit=201=2ex");
    }

    #[test]
    fn a_guard_keeps_what_its_durable_wants_and_nothing_else_of_it() {
        let durable = json!({
            "name": "d", "durable_name": "d", "filter_subjects": ["a", "b"], "ack_policy": "explicit", "deliver_policy": "all",
            "inactive_threshold": 5, "backoff": [1, 2], "max_deliver": 3, "metadata": { "theirs": "x" },
        });
        let serde_json::Value::Object(durable) = durable else { panic!("an object") };
        let expected = json!({
            "name": "d-guard", "durable_name": "d-guard", "filter_subjects": ["a", "b"], "ack_policy": "explicit",
            "deliver_policy": "by_start_sequence", "opt_start_seq": 7, "description": "Weir c/t: guard of d",
            "metadata": { "weir.owner": "c/t", "weir.guard": "d" },
        });
        let guard = guard(&durable, "d-guard", "d", "c/t", Sequence(7));
        assert_eq!(serde_json::Value::Object(guard), expected);
        let all = delivering_all(&durable);
        assert_eq!((&all["deliver_policy"], all.get("opt_start_seq")), (&json!("all"), None));
    }
}

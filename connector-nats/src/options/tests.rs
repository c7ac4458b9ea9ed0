//! Options as users write them, the contradictions of the reference page included.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_common::ids::SplitId;

use super::*;

fn with(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let base = [("connector", "nats"), ("server_url", "localhost:4222"), ("subject", "events.>"), ("stream", "events")];
    base.iter().chain(pairs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn parsed(pairs: &[(&str, &str)]) -> Options {
    Options::parse(&with(pairs)).expect("the options are right")
}

fn refused(pairs: &[(&str, &str)]) -> OptionError {
    Options::parse(&with(pairs)).expect_err("the options are wrong")
}

#[test]
fn the_first_example_of_the_reference_is_understood() {
    let options = parsed(&[
        ("server_url", "nats-server:4222"),
        ("subject", "live_stream_metrics"),
        ("stream", "risingwave"),
        ("allow_create_stream", "true"),
        ("connect_mode", "plain"),
    ]);
    assert_eq!(options.servers, ["nats-server:4222"]);
    assert_eq!(options.subjects, ["live_stream_metrics"]);
    assert!(options.allow_create_stream);
    assert_eq!(options.start, Start::Earliest);
    assert_eq!(options.consumer.name, ConsumerName::Anonymous);
    assert!(options.notices.is_empty());
}

#[test]
fn the_second_example_of_the_reference_is_understood() {
    let options = parsed(&[
        ("subject", "risingwave.test.source"),
        ("stream", "risingwave-test-source"),
        ("allow_create_stream", "true"),
        ("scan.startup.mode", "earliest"),
        ("connect_mode", "user_and_password"),
        ("username", "u"),
        ("password", "p"),
        ("consumer.durable_name", "risingwave-test-source"),
        ("consumer.description", "desc-test-source"),
        ("consumer.ack_policy", "all"),
        ("consumer.ack_wait", "10"),
        ("consumer.max_deliver", "10"),
        ("consumer.filter_subjects", "demo.subject.filter.1,demo.subject.filter.2"),
        ("consumer.replay_policy", "instant"),
        ("consumer.rate_limit", "100000000000"),
        ("consumer.sample_frequency", "100"),
        ("consumer.max_waiting", "10"),
        ("consumer.max_ack_pending", "10"),
        ("consumer.max_batch", "1000"),
        ("consumer.max_bytes", "1000000000"),
        ("consumer.max_expires", "3600"),
        ("consumer.inactive_threshold", "10000000"),
        ("consumer.memory_storage", "false"),
        ("consumer.backoff", "10,30,60"),
        ("consumer.num_replicas", "1"),
    ]);
    let consumer = &options.consumer;
    assert_eq!(consumer.name, ConsumerName::Durable("risingwave-test-source".to_owned()));
    assert_eq!(consumer.ack_policy, Some(AckPolicy::All));
    assert_eq!(consumer.filters, None, "subject decides");
    assert_eq!(consumer.backoff, [10, 30, 60].map(Duration::from_secs));
    assert_eq!(options.notices.len(), 2, "{:?}", options.notices);
    assert!(options.notices[0].contains("demo.subject.filter.1"), "{}", options.notices[0]);
    assert!(options.notices[1].contains("consumer.ack_wait"), "{}", options.notices[1]);
}

#[test]
fn both_spellings_mean_the_same() {
    for key in ["consumer.ack_wait", "consumer.ack_wait.sec"] {
        let options = parsed(&[("consumer.durable_name", "d"), (key, "7")]);
        assert_eq!(options.consumer.ack_wait, Some(Duration::from_secs(7)));
    }
    for key in ["consumer.num_replicas", "consumer.num.replicas"] {
        assert_eq!(parsed(&[(key, "3")]).consumer.num_replicas, Some(3));
    }
    for (mode, key) in
        [("timestamp", "scan.startup.timestamp.millis"), ("timestamp_millis", "scan.startup.timestamp_millis")]
    {
        assert_eq!(parsed(&[("scan.startup.mode", mode), (key, "5")]).start, Start::Timestamp { millis: 5 });
    }
    let error = refused(&[("consumer.ack_wait", "7"), ("consumer.ack_wait.sec", "8")]);
    assert!(error.to_string().contains("consumer.ack_wait.sec") && error.to_string().contains("\"consumer.ack_wait\""));
}

#[test]
fn filters_narrow_the_subject() {
    let filters = |text: &str| parsed(&[("consumer.filter_subjects", text)]).consumer.filters;
    assert_eq!(filters("events.a,events.b.>"), Some(vec!["events.a".to_owned(), "events.b.>".to_owned()]));
    assert_eq!(filters(">"), Some(vec!["events.>".to_owned()]));
    assert_eq!(filters("*.a"), Some(vec!["events.a".to_owned()]));
    assert_eq!(filters("other"), None);
}

#[test]
fn an_unknown_option_is_named_and_its_like_suggested() {
    let error = refused(&[("consumer.max_ack_pendin", "1")]);
    assert_eq!(error.option, "consumer.max_ack_pendin");
    assert_eq!(error.hint.as_deref(), Some("did you mean \"consumer.max_ack_pending\"?"));
    assert_eq!(refused(&[("durable_name", "d")]).hint.as_deref(), Some("did you mean \"consumer.durable_name\"?"));
    assert_eq!(refused(&[("shoe_size", "43")]).hint, None);
}

#[test]
fn options_that_contradict_each_other_are_both_named() {
    for (pairs, other) in [
        (vec![("scan.startup.mode", "latest"), ("consumer.deliver_policy", "all")], "consumer.deliver_policy"),
        (vec![("consumer.name", "a"), ("consumer.durable_name", "b")], "consumer.durable_name"),
        (vec![("consumer.filter_subject", "a"), ("consumer.filter_subjects", "b")], "consumer.filter_subjects"),
        (vec![("username", "u")], "connect_mode"),
        (vec![("connect_mode", "token"), ("token", "t"), ("nkey", "n")], "connect_mode"),
        (vec![("jetstream.domain", "d"), ("jetstream.api_prefix", "JS.d.API")], "jetstream.api_prefix"),
        (vec![("connect_mode", "credential"), ("jwt", "j"), ("nkey", "n"), ("password", "p")], "connect_mode"),
        (vec![("scan.startup.timestamp.millis", "1")], "scan.startup.mode"),
        (vec![("scan.startup.sequence", "1"), ("scan.startup.mode", "last")], "scan.startup.mode"),
        (vec![("consumer.max_deliver", "2"), ("consumer.backoff", "1,2")], "consumer.backoff"),
    ] {
        let error = refused(&pairs);
        let named = pairs.iter().any(|(key, _)| error.option == *key);
        assert!(named && error.message.contains(other), "{pairs:?}: {error}");
    }
    assert_eq!(parsed(&[("scan.startup.mode", "latest"), ("consumer.deliver_policy", "new")]).start, Start::Latest);
}

#[test]
fn starts_are_written_as_modes_and_as_policies() {
    let sequence = |mode, option| parsed(&[mode, (option, "7")]).start;
    for mode in [("scan.startup.mode", "sequence"), ("consumer.deliver_policy", "ByStartSequence")] {
        for option in ["consumer.opt_start_seq", "consumer.start_sequence", "scan.startup.sequence"] {
            assert_eq!(sequence(mode, option), Start::Sequence(7));
        }
        assert_eq!(refused(&[mode]).option, "consumer.opt_start_seq");
    }
    for key in ["scan.startup.mode", "consumer.deliver_policy"] {
        assert_eq!(parsed(&[(key, "last")]).start, Start::Last);
        assert_eq!(parsed(&[(key, "last_per_subject")]).start, Start::LastPerSubject);
    }
    assert_eq!((parsed(&[]).on_gap, parsed(&[("on_gap", "fail")]).on_gap), (OnGap::Skip, OnGap::Fail));
}

#[test]
fn malformed_values_are_refused() {
    for (key, value) in [
        ("connector", "kafka"),
        ("server_url", "ws://x:1"),
        ("server_url", "nats://user:pw@x:1"),
        ("server_url", "x:notaport"),
        ("subject", "a..b"),
        ("subject", "a,,b"),
        ("stream", "a.b"),
        ("allow_create_stream", "yes"),
        ("connect_mode", "tls"),
        ("jetstream.domain", "a.b"),
        ("jetstream.api_prefix", "a.>"),
        ("tls.first", "maybe"),
        ("tls.client", "x"),
        ("scan.startup.mode", "sometime"),
        ("scan.startup.mode", "timestamp"),
        ("on_gap", "panic"),
        ("consumer.ack_policy", "maybe"),
        ("consumer.max_ack_pending", "0"),
        ("consumer.max_deliver", "0"),
        ("consumer.sample_frequency", "101"),
        ("consumer.ack_wait", "1.5"),
        ("consumer.durable_name", "a b"),
        ("consumer.description", ""),
    ] {
        let error = refused(&[(key, value)]);
        assert!(error.option.starts_with(key) || error.option.contains("timestamp"), "{key}={value}: {error}");
    }
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let error = refused(&[("consumer.deliver_subject", "x")]);
    assert!(error.message.contains("not supported yet"), "{error}");
}

#[test]
fn each_subject_can_be_a_split() {
    let stream = parsed(&[]);
    assert_eq!(stream.splits(), [SplitId(stream.stream.clone())]);
    assert_eq!(stream.of_split(&stream.splits()[0]), stream);

    let pairs = [("subject", "b.>, a.*"), ("stream", "s"), ("split_by_subject", "true"), ("consumer.name", "n")];
    let options = parsed(&pairs);
    let splits = options.splits();
    assert_eq!(splits, [SplitId("s/a.*".to_owned()), SplitId("s/b.>".to_owned())]);
    assert_eq!((stream_of(&splits[1]), subject_of(&splits[1])), ("s", Some("b.>")));
    let second = options.of_split(&splits[1]);
    assert_eq!((second.subjects.clone(), second.stream.as_str()), (vec!["b.>".to_owned()], "s"));
    assert_eq!(second.of_split(&splits[1]), second);
    // Of every version: consumers are there by this name.
    assert_eq!(second.name_of_split("n"), "n-7e74d2db");

    for (more, named) in [
        (("subject", "a.*,a.b"), "\"a.*\" and \"a.b\" overlap"),
        (("subject", "a,a"), "\"a\" and \"a\" overlap"),
        (("consumer.filter_subject", "a.x"), "consumer.filter_subject"),
        (("consumer.filter_subjects", "a.x"), "consumer.filter_subjects"),
        // Of two CRC-32 that are the same it is not known which consumer is meant.
        (("subject", "plumless,buckeroo"), "same hash"),
    ] {
        let error = refused(&[pairs[0], pairs[1], pairs[2], more]);
        assert!(error.to_string().contains(named), "{error}");
    }
    let many: Vec<String> = (0..257).map(|number| number.to_string()).collect();
    assert!(refused(&[("subject", &many.join(",")), pairs[2]]).message.contains("257 subjects are too many"));
}

#[test]
fn required_options_are_missed_by_name() {
    for key in ["connector", "server_url", "subject", "stream"] {
        let mut options = with(&[]);
        options.remove(key);
        assert_eq!(Options::parse(&options).expect_err("one is missing").option, key);
    }
    assert_eq!(refused(&[("connect_mode", "user_and_password"), ("username", "u")]).option, "password");
    assert_eq!(refused(&[("connect_mode", "token")]).option, "token");
    assert_eq!(refused(&[("tls.client_cert", "c")]).option, "tls.client_key");
    let relative = refused(&[("connect_mode", "creds"), ("creds", "fs://relative/path")]);
    assert!(relative.message.contains("no absolute path"), "{relative}");
}

#[test]
fn secrets_are_not_printed() {
    let pairs = [("connect_mode", "user_and_password"), ("username", "u"), ("password", "hunter2")];
    assert!(!format!("{:?}", parsed(&pairs)).contains("hunter2"));
    let pairs = [("connect_mode", "credential"), ("jwt", "hunter2"), ("nkey", "hunter3")];
    let printed = format!("{:?}", parsed(&pairs));
    assert!(!printed.contains("hunter2") && !printed.contains("hunter3"));
    for (mode, option, value) in [
        ("token", "token", "hunter2"),
        ("nkey", "nkey", "hunter2"),
        ("creds", "creds", "hunter2"),
        ("plain", "tls.client_key", "hunter2"),
    ] {
        let mut pairs = vec![("connect_mode", mode), (option, value)];
        pairs.extend((mode == "plain").then_some(("tls.client_cert", "certificate")));
        assert!(!format!("{:?}", parsed(&pairs)).contains("hunter2"), "{option}");
        assert!(secret_keys().contains(&option));
    }
    assert!(["password", "jwt"].iter().all(|option| secret_keys().contains(option)));
}

#[test]
fn acknowledgements_without_a_durable_are_mentioned() {
    let options = parsed(&[("consumer.ack_policy", "explicit"), ("consumer.max_ack_pending", "5")]);
    let consumer = &options.consumer;
    assert_eq!(consumer.ack_policy_of(&consumer.name), AckPolicy::None);
    assert_eq!(consumer.unacknowledged_notices.len(), 2);
    let durable = ConsumerName::Durable("d".to_owned());
    assert_eq!(consumer.ack_policy_of(&durable), AckPolicy::Explicit, "the stream may need one");
    let named = parsed(&[("consumer.durable_name", "d"), ("consumer.max_ack_pending", "5")]).consumer;
    assert_eq!((&named.name, &named.unacknowledged_notices), (&durable, &Vec::new()));
}

#[test]
fn every_option_is_documented() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/nats-source.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let missing: Vec<&str> = Options::names().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/nats-source.md lacks {missing:?}");
}

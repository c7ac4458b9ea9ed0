//! Streams where acknowledgements delete messages: everything is read once, nothing goes before it is committed, and the
//! stream ends empty, whatever happens to servers, connections and readers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{self, pull};
use async_nats::jetstream::stream::{self, RetentionPolicy, Stream};
use async_nats::jetstream::{self};
use weir_common::error::Kind;
use weir_common::ids::{Sequence, SplitId};
use weir_connector_nats::preflight::undo;
use weir_connector_nats::{Error, Options, preflight, remove_consumers};

use crate::support::{DEADLINE, OWNER, PROMPT, Proxy, Server, Table, eventually, options, publish};

const BOTH: [RetentionPolicy; 2] = [RetentionPolicy::WorkQueue, RetentionPolicy::Interest];
/// What Weir calls the durable of [`OWNER`].
const DURABLE: &str = "weir-test-events_table";

/// A stream `events` with subjects `events.>`.
async fn create_stream(js: &jetstream::Context, retention: RetentionPolicy) -> Stream {
    let config = stream::Config {
        name: "events".to_owned(),
        subjects: vec!["events.>".to_owned()],
        retention,
        ..Default::default()
    };
    js.create_stream(config).await.expect("the stream can be created")
}

async fn messages(stream: &Stream) -> u64 {
    stream.get_info().await.expect("it is there").state.messages
}

async fn consumers(stream: &Stream) -> Vec<String> {
    use futures::TryStreamExt;
    let mut names: Vec<String> = stream.consumer_names().try_collect().await.expect("the server answers");
    names.sort();
    names
}

/// Commits until the stream is empty, everything is acknowledged and only the durable is left.
async fn ends_empty(table: &Table, stream: &Stream, last: u64) {
    eventually("the stream to be empty", async || {
        table.commit();
        let info = stream.consumer_info(DURABLE).await;
        let floor = info.is_ok_and(|info| info.num_ack_pending == 0 && info.num_pending == 0);
        floor && messages(stream).await == 0 && consumers(stream).await == [DURABLE]
    })
    .await;
    assert_eq!(stream.get_info().await.expect("it is there").state.last_sequence, last);
}

/// The durable that Weir would make, but it did not.
async fn found_durable(stream: &Stream) {
    let config = pull::Config {
        durable_name: Some(DURABLE.to_owned()),
        ack_policy: consumer::AckPolicy::Explicit,
        filter_subject: "events.>".to_owned(),
        ..Default::default()
    };
    stream.create_consumer(config).await.expect("the consumer can be created");
}

async fn refusal(options: &Options) -> Error {
    preflight(options, OWNER).await.expect_err("the table cannot be created")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_after_the_preflight_is_read_and_goes_with_its_commit() {
    for retention in BOTH {
        let server = Server::start().await;
        let js = server.jetstream().await;
        let stream = create_stream(&js, retention).await;
        let options = options(server.port, &[]);
        let found = preflight(&options, OWNER).await.expect("the table can be created");
        assert_eq!((found.splits[0].sequence, &found.made), (Sequence(1), &vec![DURABLE.to_owned()]));
        assert!(found.notices.iter().any(|notice| notice.contains(DURABLE)), "{:?}", found.notices);
        let config = stream.consumer_info(DURABLE).await.expect("it is there").config;
        assert_eq!(config.filter_subject, "events.>");
        publish(&js, 1, 5_000).await;
        let mut table = Table::resume(&options, Sequence(1));
        table.read_rows(5_000).await;
        table.assert_rows(1..=5_000);
        assert_eq!(messages(&stream).await, 5_000, "nothing is committed");
        table.reader.committed(Sequence(2_001));
        if retention == RetentionPolicy::WorkQueue {
            eventually("the commit is acknowledged", async || messages(&stream).await == 3_000).await;
        }
        ends_empty(&table, &stream, 5_000).await;
        assert_eq!(table.reader.status().rebuilds, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_for_a_table_that_is_not_created_is_removed() {
    for retention in BOTH {
        let server = Server::start().await;
        let stream = create_stream(&server.jetstream().await, retention).await;
        let options = options(server.port, &[("consumer.durable_name", "d")]);
        let found = preflight(&options, OWNER).await.expect("the table can be created");
        assert_eq!(consumers(&stream).await, ["d"]);
        undo(&options, OWNER, &found.made).await.expect("the server answers");
        assert!(consumers(&stream).await.is_empty());
        // What an attempt with an unknown outcome left behind is taken over.
        preflight(&options, OWNER).await.expect("the table can be created");
        preflight(&options, OWNER).await.expect("the table can be created");
        assert_eq!(consumers(&stream).await, ["d"]);
        let error = preflight(&options, "test/another").await.expect_err("it is another table's");
        assert!(error.to_string().contains("belongs to"), "{error}");
        let split = SplitId("events".to_owned());
        assert_eq!(remove_consumers(&options, &split, OWNER).await.expect("the server answers"), ["d"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_retention_rules_out_is_refused() {
    for retention in BOTH {
        let server = Server::start().await;
        let stream = create_stream(&server.jetstream().await, retention).await;
        let with = |pairs: &[(&str, &str)]| options(server.port, pairs);
        let error = refusal(&with(&[("consumer.durable_name", "d"), ("consumer.ack_policy", "all")])).await;
        assert!(error.to_string().contains("consumer.ack_policy") && error.kind() == Kind::User, "{error}");
        let theirs = |name: &str, filter: &str| pull::Config {
            durable_name: Some(name.to_owned()),
            ack_policy: consumer::AckPolicy::Explicit,
            filter_subject: filter.to_owned(),
            ..Default::default()
        };
        stream.create_consumer(theirs("theirs", "events.a.>")).await.expect("the consumer can be created");
        if retention == RetentionPolicy::WorkQueue {
            let error = refusal(&with(&[("scan.startup.mode", "latest")])).await;
            assert!(error.to_string().contains("scan.startup.mode"), "{error}");
            let error = refusal(&with(&[])).await;
            assert!(matches!(&error, Error::QueueOverlap { consumers, .. } if consumers == &["theirs"]), "{error}");
            assert!(error.to_string().contains("\"theirs\""), "{error}");
            preflight(&with(&[("subject", "events.b")]), OWNER).await.expect("nobody else reads it");
        } else {
            let error = refusal(&with(&[("consumer.memory_storage", "true")])).await;
            assert!(error.to_string().contains("consumer.memory_storage"), "{error}");
        }
        let error = refusal(&with(&[("consumer.durable_name", "theirs")])).await;
        assert!(error.to_string().contains("filters events.a.>"), "{error}");
        assert!(!consumers(&stream).await.contains(&"d".to_owned()), "nothing is left behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_at_the_committed_position_and_the_tail_of_acknowledgements_is_sent_again() {
    for retention in BOTH {
        let server = Server::start().await;
        let js = server.jetstream().await;
        let stream = create_stream(&js, retention).await;
        let options = options(server.port, &[]);
        let mut table = Table::create(&options).await;
        publish(&js, 1, 1_000).await;
        table.read_rows(1_000).await;
        table.reader.committed(Sequence(301));
        // As if it had died between a commit of 600 and its acknowledgements.
        table.group.stop().await;
        let resumed = Instant::now();
        let mut table = Table::resume(&options, Sequence(601));
        table.read_rows(400).await;
        assert!(resumed.elapsed() < PROMPT, "not after ack_wait");
        table.assert_rows(601..=1_000);
        assert!(messages(&stream).await >= 400, "nothing is committed");
        ends_empty(&table, &stream, 1_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_server_lose_and_repeat_nothing() {
    for retention in BOTH {
        let mut server = Server::start().await;
        create_stream(&server.jetstream().await, retention).await;
        let mut table = Table::create(&options(server.port, &[])).await;
        for round in 0..3 {
            publish(&server.jetstream().await, round * 5_000 + 1, 5_000).await;
            let published = usize::try_from((round + 1) * 5_000).expect("it is small");
            // Somewhere in the middle of it, with a commit that is acknowledged or not. Batches may be larger than that.
            table.read_rows(table.rows.len() + 1_000).await;
            table.commit();
            table.read_rows(published.min(table.rows.len() + 500)).await;
            server.kill();
            server.restart().await;
            table.read_rows_committing(published).await;
        }
        table.assert_rows(1..=15_000);
        let stream = server.jetstream().await.get_stream("events").await.expect("it is there");
        ends_empty(&table, &stream, 15_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_lose_and_repeat_nothing() {
    for retention in BOTH {
        let server = Server::start().await;
        // Above 100,000 messages an Interest stream fares badly where consumers have to be made anew.
        let rows: u64 = if server.can_reset().await { 150_000 } else { 100_000 };
        let js = server.jetstream().await;
        let stream = create_stream(&js, retention).await;
        let proxy = Proxy::start(server.port).await;
        let mut table = Table::create(&options(proxy.port, &[("allow_interest_stream", "false")])).await;
        publish(&js, 1, rows).await;
        for cut in 0..12_u64 {
            proxy.cut_after(150_007 + 137_123 * cut);
            proxy.cut();
            table.read_rows_committing(table.rows.len() + 500).await;
        }
        proxy.cut_after(0);
        proxy.cut();
        table.read_rows_committing(usize::try_from(rows).expect("it is small")).await;
        table.assert_rows(1..=rows);
        assert!(table.reader.status().rebuilds >= 2, "{:?}", table.reader.status());
        ends_empty(&table, &stream, rows).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_never_last_are_read_through() {
    // What is read and not committed yet, and then fetched, comes to several times of what a connection carries.
    const ROWS: u64 = 2_000;
    for retention in [RetentionPolicy::Limits, RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        let server = Server::start().await;
        let js = server.jetstream().await;
        create_stream(&js, retention).await;
        let proxy = Proxy::start(server.port).await;
        let pairs = [("consumer.durable_name", DURABLE)];
        let options = options(proxy.port, if retention == RetentionPolicy::Limits { &pairs } else { &[] });
        let mut table = Table::create(&options).await;
        publish(&js, 1, ROWS / 2).await;
        table.read_rows(usize::try_from(ROWS / 2).expect("it is small")).await;
        proxy.cut_after(60_000);
        proxy.cut();
        server.publish_raw("events.raw", "NATS/1.0\r\nno colon\r\n\r\n", &(ROWS / 2 + 1).to_string()).await;
        publish(&js, ROWS / 2 + 2, ROWS / 2 - 1).await;
        table.read_rows_committing(usize::try_from(ROWS).expect("it is small")).await;
        table.assert_rows(1..=ROWS);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_an_older_term_that_deletes_the_consumer_once_more_loses_nothing() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js, RetentionPolicy::Interest).await;
    found_durable(&stream).await;
    let mut table = Table::resume(&options(server.port, &[("consumer.durable_name", DURABLE)]), Sequence(1));
    publish(&js, 1, 100).await;
    table.read_rows(50).await;
    table.commit();
    assert_eq!(consumers(&stream).await.len(), 2, "the durable and its guard");
    stream.delete_consumer(DURABLE).await.expect("it is there");
    publish(&js, 101, 100).await;
    table.read_rows_committing(200).await;
    table.assert_rows(1..=200);
    ends_empty(&table, &stream, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_that_others_left_behind_go_and_those_of_a_dropped_table_too() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js, RetentionPolicy::Interest).await;
    found_durable(&stream).await;
    let options = options(server.port, &[("consumer.durable_name", DURABLE)]);
    let mut table = Table::resume(&options, Sequence(1));
    publish(&js, 1, 10).await;
    table.read_rows(10).await;
    table.commit();
    table.group.stop().await;
    assert_eq!(consumers(&stream).await.len(), 2, "its guard is still there");
    let mut table = Table::resume(&options, Sequence(11));
    publish(&js, 11, 10).await;
    table.read_rows(10).await;
    table.assert_rows(11..=20);
    assert_eq!(consumers(&stream).await.len(), 3);
    ends_empty(&table, &stream, 20).await;
    table.group.stop().await;
    let table = Table::resume(&options, Sequence(21));
    eventually("its guard is there", async || consumers(&stream).await.len() == 2).await;
    drop(table);
    let split = SplitId("events".to_owned());
    assert_eq!(remove_consumers(&options, &split, OWNER).await.expect("the server answers").len(), 1);
    assert_eq!(consumers(&stream).await, [DURABLE], "it was found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_is_removed_only_if_it_was_there_a_while_and_its_name_is_not_used_again() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js, RetentionPolicy::Interest).await;
    found_durable(&stream).await;
    let table = Table::resume(&options(server.port, &[("consumer.durable_name", DURABLE)]), Sequence(1));
    let guards = async || {
        let mut names = consumers(&stream).await;
        names.retain(|name| name.starts_with(&format!("{DURABLE}-guard-")));
        names
    };
    eventually("a guard is there", async || guards().await.len() == 1).await;
    let first = guards().await;
    let created = Instant::now();
    // One of a newer reader, as it looks to this one: made when its own has nearly done its duty.
    eventually("nine seconds to pass", async || {
        table.commit();
        created.elapsed() > Duration::from_secs(9)
    })
    .await;
    let info = stream.consumer_info(&first[0]).await.expect("it is there");
    let newer = format!("{DURABLE}-guard-newer");
    let config = pull::Config {
        durable_name: Some(newer.clone()),
        filter_subject: info.config.filter_subject.clone(),
        metadata: info.config.metadata.clone(),
        ..Default::default()
    };
    stream.create_consumer(config).await.expect("it can be created");
    eventually("the reader's own guard is gone", async || {
        table.commit();
        guards().await == [newer.clone()]
    })
    .await;
    assert!(created.elapsed() > Duration::from_secs(10));
    // The durable is made anew: with another guard than the one whose removal may still be on its way.
    stream.delete_consumer(DURABLE).await.expect("it is there");
    eventually("a guard is there", async || {
        table.commit();
        guards().await.len() == 2
    })
    .await;
    assert!(!guards().await.contains(&first[0]));
    ends_empty(&table, &stream, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_found_durable_of_an_interest_stream_is_guarded_from_create_on() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js, RetentionPolicy::Interest).await;
    let config = pull::Config {
        durable_name: Some("theirs".to_owned()),
        ack_policy: consumer::AckPolicy::Explicit,
        ack_wait: Duration::from_secs(77),
        filter_subject: "events.>".to_owned(),
        ..Default::default()
    };
    let theirs = stream.create_consumer(config).await.expect("the consumer can be created");
    publish(&js, 1, 10).await;
    let options = options(server.port, &[("consumer.durable_name", "theirs")]);
    let found = preflight(&options, OWNER).await.expect("the table can be created");
    assert_eq!((found.splits[0].sequence, found.made.len()), (Sequence(1), 1));
    // Its own reader goes on for a while.
    let batch = theirs.fetch().max_messages(10).messages().await.expect("the server answers");
    use futures::StreamExt;
    let acked = batch.map(|message| async { message.expect("a message").double_ack().await.expect("it is taken") });
    assert_eq!(acked.buffer_unordered(10).count().await, 10);
    publish(&js, 11, 10).await;
    let mut table = Table::resume(&options, Sequence(1));
    table.read_rows(20).await;
    table.assert_rows(1..=20);
    eventually("the stream to be empty", async || {
        table.commit();
        messages(&stream).await == 0 && consumers(&stream).await == ["theirs"]
    })
    .await;
    let config = stream.consumer_info("theirs").await.expect("it is there").config;
    assert_eq!(config.ack_wait, Duration::from_secs(77));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_can_be_reset_is_pinned_and_not_made_anew() {
    let mut server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js, RetentionPolicy::Interest).await;
    let can_reset = server.can_reset().await;
    let options = options(server.port, &[]);
    let mut table = Table::create(&options).await;
    let created = stream.consumer_info(DURABLE).await.expect("it is there").created;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("theirs", "1");
    js.publish_with_headers("events.a", headers.clone(), "1".into())
        .await
        .expect("publishing works")
        .await
        .expect("stored");
    publish(&js, 2, 999).await;
    let batch = table.reader.next().await;
    assert_eq!(batch.messages[0].headers.as_deref(), Some(&headers), "nothing of the server's is added");
    assert!(batch.messages[1..].iter().all(|message| message.headers.is_none()));
    table.group.stop().await;
    // Options that changed are the consumer's as well.
    let changed = crate::support::options(server.port, &[("consumer.ack_wait", "77")]);
    let mut table = Table::resume(&changed, Sequence(1));
    table.read_rows_committing(1_000).await;
    server.kill();
    server.restart().await;
    publish(&server.jetstream().await, 1_001, 1_000).await;
    table.read_rows_committing(2_000).await;
    table.assert_rows(1..=2_000);
    let stream = server.jetstream().await.get_stream("events").await.expect("it is there");
    let info = stream.consumer_info(DURABLE).await.expect("it is there");
    assert_eq!(info.config.ack_wait, Duration::from_secs(77));
    assert_eq!(info.created == created, can_reset, "{info:?}");
    assert_eq!(consumers(&stream).await.len() == 1, can_reset, "guards only where they are needed");
    ends_empty(&table, &stream, 2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_readers_the_newer_one_reads_everything() {
    for retention in BOTH {
        let server = Server::start().await;
        let js = server.jetstream().await;
        let stream = create_stream(&js, retention).await;
        let options = options(server.port, &[("consumer.max_batch", "100")]);
        let mut older = Table::create(&options).await;
        publish(&js, 1, 1_000).await;
        older.read_rows(100).await;
        let mut newer = Table::resume(&options, Sequence(1));
        publish(&js, 1_001, 1_000).await;
        newer.read_rows_committing(2_000).await;
        newer.assert_rows(1..=2_000);
        ends_empty(&newer, &stream, 2_000).await;
        eventually("the older one to wait for a commit that never comes", async || {
            // What had come before is still handed out.
            let _ = tokio::time::timeout(Duration::from_millis(20), older.read_batch()).await;
            !older.reader.status().reading
        })
        .await;
        assert!(older.rows.len() < 2_000, "{}", older.rows.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_want_stays_when_a_table_is_dropped_whatever_lies_above_its_consumer() {
    const ROWS: u64 = 120_000;
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js, RetentionPolicy::Interest).await;
    let theirs = pull::Config {
        durable_name: Some("theirs".to_owned()),
        ack_policy: consumer::AckPolicy::Explicit,
        filter_subject: "events.1".to_owned(),
        ..Default::default()
    };
    stream.create_consumer(theirs).await.expect("the consumer can be created");
    let options = options(server.port, &[]);
    preflight(&options, OWNER).await.expect("the table can be created");
    publish(&js, 1, ROWS).await;
    let split = SplitId("events".to_owned());
    assert_eq!(remove_consumers(&options, &split, OWNER).await.expect("the server answers"), [DURABLE]);
    if server.can_reset().await {
        assert_eq!(messages(&stream).await, ROWS / 10, "what only the table wanted is gone");
    }
    let info = stream.consumer_info("theirs").await.expect("it is there");
    assert_eq!(info.num_pending, ROWS / 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_headers_stop_the_reader() {
    for retention in BOTH {
        let server = Server::start().await;
        let js = server.jetstream().await;
        let stream = create_stream(&js, retention).await;
        let options = options(server.port, &[]);
        let mut table = Table::create(&options).await;
        publish(&js, 1, 10).await;
        server.publish_raw("events.raw", "NATS/1.0\r\nno colon\r\n\r\n", "11").await;
        publish(&js, 12, 10).await;
        table.read_rows_committing(21).await;
        table.assert_rows(1..=21);
        ends_empty(&table, &stream, 21).await;
        // One that was committed, but is still there, because its reader died.
        server.publish_raw("events.raw", "NATS/1.0\r\nno colon\r\n\r\n", "22").await;
        table.group.stop().await;
        publish(&js, 23, 5).await;
        let mut table = Table::resume(&options, Sequence(23));
        table.read_rows_committing(5).await;
        table.assert_rows(23..=27);
        ends_empty(&table, &stream, 27).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_to_further_subjects_is_not_acknowledged_away() {
    for retention in BOTH {
        let server = Server::start().await;
        let js = server.jetstream().await;
        let stream = create_stream(&js, retention).await;
        let mut table = Table::create(&options(server.port, &[])).await;
        let mut config = stream.get_info().await.expect("it is there").config;
        config.subjects.push("others".to_owned());
        js.update_stream(config).await.expect("it may have further subjects");
        if retention == RetentionPolicy::Interest {
            let theirs = pull::Config {
                durable_name: Some("theirs".to_owned()),
                filter_subject: "others".to_owned(),
                ..Default::default()
            };
            stream.create_consumer(theirs).await.expect("the consumer can be created");
        }
        js.publish("others", "1".into()).await.expect("publishing works").await.expect("it is stored");
        publish(&js, 2, 10).await;
        table.read_rows(10).await;
        table.assert_rows(2..=11);
        table.commit();
        eventually("the table's messages go", async || {
            table.commit();
            messages(&stream).await == 1
        })
        .await;
    }
}

/// A table that is to fail over gaps, with its reader at a position.
fn strict(server: &Server, pairs: &[(&str, &str)], position: u64) -> (Arc<Options>, Table) {
    let all: Vec<_> = pairs.iter().copied().chain([("on_gap", "fail")]).collect();
    let options = options(server.port, &all);
    let table = Table::resume(&options, Sequence(position));
    (options, table)
}

async fn failure(table: &Table) -> String {
    tokio::time::timeout(DEADLINE, table.reader.control().failed()).await.expect("the table fails")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_fails_a_table_that_asks_for_it_and_says_what_is_gone() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js, RetentionPolicy::Limits).await;
    publish(&js, 1, 100).await;
    stream.purge().sequence(51).await.expect("purging works");
    let (_options, table) = strict(&server, &[], 11);
    let error = failure(&table).await;
    assert!(error.contains("\"events\"") && error.contains("11 to 50"), "{error}");
    // Others' messages may be missing only: that is no reason.
    let (_options, mut table) = strict(&server, &[("subject", "events.1")], 11);
    table.read_rows(5).await;
    table.assert_rows((51..=100).filter(|n| n % 10 == 1));
    // Another stream of the same name.
    let (_options, mut table) = strict(&server, &[], 51);
    table.read_rows(50).await;
    js.delete_stream("events").await.expect("it is there");
    create_stream(&js, RetentionPolicy::Limits).await;
    publish(&js, 1, 200).await;
    let error = failure(&table).await;
    assert!(error.contains("not the one that was read before"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_by_sequence_and_at_the_last_message_are_exact() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js, RetentionPolicy::Limits).await;
    let start = async |pairs: &[(&str, &str)]| {
        let found = preflight(&options(server.port, pairs), OWNER).await.expect("the table can be created");
        (found.splits[0].sequence.0, found.notices)
    };
    assert_eq!(start(&[("scan.startup.mode", "last")]).await.0, 1, "empty");
    publish(&js, 1, 25).await;
    stream.purge().sequence(4).await.expect("purging works");
    let by_sequence =
        |n: &'static str| [("consumer.deliver_policy", "by_start_sequence"), ("consumer.opt_start_seq", n)];
    assert_eq!(start(&by_sequence("7")).await, (7, vec![]));
    assert_eq!(start(&by_sequence("26")).await, (26, vec![]), "the next one");
    let (first, notices) = start(&by_sequence("2")).await;
    assert!(first == 4 && notices[0].contains("begins at sequence 4"), "{notices:?}");
    let error = refusal(&options(server.port, &by_sequence("27"))).await;
    assert!(error.to_string().contains("beyond the end"), "{error}");
    assert_eq!(start(&[("scan.startup.mode", "last")]).await.0, 25);
    assert_eq!(start(&[("scan.startup.mode", "last"), ("subject", "events.1,events.2")]).await.0, 22);
    let per_subject = ("consumer.deliver_policy", "last_per_subject");
    assert_eq!(start(&[per_subject, ("subject", "events.3")]).await.0, 23);
    let error = refusal(&options(server.port, &[per_subject])).await;
    assert!(error.to_string().contains("not exact") && error.hint().is_some(), "{error}");
    let mut config = stream.get_info().await.expect("it is there").config;
    config.max_messages_per_subject = 1;
    js.update_stream(config).await.expect("it may keep one message a subject");
    stream.purge().await.expect("purging works");
    publish(&js, 26, 25).await;
    let mut table = Table::create(&options(server.port, &[per_subject])).await;
    table.read_rows(10).await;
    table.assert_rows(41..=50);
}

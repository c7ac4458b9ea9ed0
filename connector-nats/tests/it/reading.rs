//! Reading when nothing goes wrong: every policy, every bound, and where the acknowledgements end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_common::ids::{Sequence, SplitId};
use weir_connector_nats::remove_consumers;

use crate::support::{OWNER, PROMPT, Server, Table, create_stream, eventually, floor_reaches, options, publish};

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_reads_everything_once_and_acknowledges_after_the_commit() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let mut stream = create_stream(&js).await;
    publish(&js, 1, 20_000).await;
    for policy in ["explicit", "all", "none"] {
        let pairs = [("consumer.durable_name", policy), ("consumer.ack_policy", policy)];
        let mut table = Table::create(&options(server.port, &pairs)).await;
        table.read_rows(20_000).await;
        table.assert_rows(1..=20_000);
        if policy != "none" {
            let info = stream.consumer_info(policy).await.expect("it is there");
            assert_eq!((info.ack_floor.stream_sequence, info.num_ack_pending), (0, 20_000), "nothing is committed");
            table.reader.committed(Sequence(12_346));
            eventually("the commit is acknowledged", async || {
                let info = stream.consumer_info(policy).await.expect("it is there");
                assert!(info.ack_floor.stream_sequence <= 12_345, "beyond the commit");
                info.ack_floor.stream_sequence == 12_345
            })
            .await;
        }
        table.commit();
        floor_reaches(&stream, policy, 20_000).await;
        assert_eq!(table.reader.status().rebuilds, 0);
        assert_eq!(table.reader.status().position, Sequence(20_001));
        table.group.stop().await;
    }
    let mut table = Table::create(&options(server.port, &[])).await;
    table.read_rows(20_000).await;
    table.assert_rows(1..=20_000);
    assert_eq!(stream.info().await.expect("it is there").state.consumer_count, 4);
    drop(table);
    eventually("the anonymous consumer is gone", async || {
        stream.get_info().await.expect("it is there").state.consumer_count == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_later_arrives_soon() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 10).await;
    let pairs = [("scan.startup.mode", "latest"), ("consumer.durable_name", "d"), ("consumer.ack_policy", "all")];
    let mut table = Table::create(&options(server.port, &pairs)).await;
    for n in 11..=20 {
        let published = Instant::now();
        publish(&js, n, 1).await;
        table.read_rows(table.rows.len() + 1).await;
        assert!(published.elapsed() < PROMPT);
    }
    table.assert_rows(11..=20);
    table.commit();
    floor_reaches(&stream, "d", 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_that_are_due_leave_before_the_reader_stops() {
    const MESSAGES: u64 = 20_000;
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, MESSAGES).await;
    // A stop comes before they are being sent, and meanwhile.
    for (durable, begun) in [("a", false), ("b", true), ("c", true), ("d", true)] {
        let mut table = Table::create(&options(server.port, &[("consumer.durable_name", durable)])).await;
        table.read_rows(MESSAGES as usize).await;
        table.commit();
        while begun && stream.consumer_info(durable).await.expect("it is there").ack_floor.stream_sequence == 0 {}
        table.group.stop().await;
        floor_reaches(&stream, durable, MESSAGES).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_ack_window_makes_progress_through_checkpoints() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 2_000).await;
    for policy in ["all", "explicit"] {
        let pairs =
            [("consumer.durable_name", policy), ("consumer.ack_policy", policy), ("consumer.max_ack_pending", "10")];
        let mut table = Table::create(&options(server.port, &pairs)).await;
        let started = Instant::now();
        while table.rows.len() < 2_000 {
            tokio::select! {
                () = table.reader.wants_checkpoint() => {}
                // The last few do not fill the window.
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
            // The task has handed over, or is about to, what fills its window.
            table.read_batch().await;
            while let Ok(()) = tokio::time::timeout(Duration::ZERO, table.read_batch()).await {}
            table.commit();
        }
        assert!(started.elapsed() < 2 * PROMPT, "200 windows were not held up by timers");
        table.assert_rows(1..=2_000);
        floor_reaches(&stream, policy, 2_000).await;
        table.group.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_keep_to_the_users_bounds() {
    for max_batch in ["10", "1"] {
        keeps_to_bounds(max_batch).await;
    }
}

async fn keeps_to_bounds(max_batch: &str) {
    let server = Server::start().await;
    let js = server.jetstream().await;
    create_stream(&js).await;
    publish(&js, 1, 500).await;
    // Larger than a whole request may bring, in the middle.
    let large = format!("{}501", "x".repeat(5_000));
    js.publish("events.large", large.into()).await.expect("publishing works").await.expect("the server stores it");
    publish(&js, 502, 500).await;
    let pairs = [
        ("consumer.durable_name", "d"),
        ("consumer.max_batch", max_batch),
        ("consumer.max_bytes", "1000"),
        ("consumer.max_expires", "1"),
        ("consumer.max_waiting", "2"),
    ];
    let mut table = Table::create(&options(server.port, &pairs)).await;
    table.read_rows(1_001).await;
    table.assert_rows(1..=1_001);
    assert_eq!(table.reader.status().rebuilds, 0);
    // Longer than a request lives.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    publish(&js, 1_002, 1).await;
    table.read_rows(1_002).await;
    assert_eq!(table.reader.status().rebuilds, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_kept() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    create_stream(&js).await;
    for n in 1..=40 {
        let payload = format!("{}{n}", "x".repeat(1_000));
        js.publish("events.a", payload.into()).await.expect("publishing works").await.expect("the server stores it");
    }
    // 40 kB at 20 kB/s.
    let mut table = Table::create(&options(server.port, &[("consumer.rate_limit", "160000")])).await;
    let started = Instant::now();
    table.read_rows(40).await;
    let took = started.elapsed();
    assert!(took > Duration::from_millis(700) && took < PROMPT, "{took:?}");
    assert_eq!(table.reader.status().rebuilds, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_table_asks_for_is_read() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let mut stream = create_stream(&js).await;
    publish(&js, 1, 1_000).await;
    let wanted = |n: &u64| matches!(n % 10, 3 | 7);
    for pairs in [
        vec![("subject", "events.3,events.7")],
        vec![("consumer.filter_subjects", "events.3,events.7")],
        vec![("subject", "events.3,events.7"), ("consumer.durable_name", "d")],
    ] {
        let mut table = Table::create(&options(server.port, &pairs)).await;
        table.read_rows(200).await;
        table.assert_rows((1..=1_000).filter(wanted));
        table.group.stop().await;
    }
    // A stream that is given more subjects after the consumer, which does not filter, was made.
    let mut table = Table::create(&options(server.port, &[])).await;
    table.read_rows(1_000).await;
    let mut config = stream.info().await.expect("it is there").config.clone();
    config.subjects.push("other".to_owned());
    js.update_stream(config).await.expect("the stream can be changed");
    js.publish("other", "7".into()).await.expect("publishing works").await.expect("the server stores it");
    publish(&js, 1_001, 1).await;
    table.read_rows(1_001).await;
    table.assert_rows(1..=1_001);
    assert_eq!(table.position, Sequence(1_003));
}

#[tokio::test(flavor = "multi_thread")]
async fn redeliveries_are_not_read_again_and_end_with_the_commit() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 100).await;
    for policy in ["explicit", "all"] {
        let pairs = [("consumer.durable_name", policy), ("consumer.ack_policy", policy), ("consumer.ack_wait", "1")];
        let mut table = Table::create(&options(server.port, &pairs)).await;
        table.read_rows(100).await;
        eventually("the server delivers again", async || table.reader.status().redelivered >= 100).await;
        table.assert_rows(1..=100);
        table.commit();
        floor_reaches(&stream, policy, 100).await;
        table.group.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_resumes_starts_at_its_position_at_once() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 1_000).await;
    let options = options(server.port, &[("consumer.durable_name", "d"), ("consumer.ack_policy", "explicit")]);
    let mut table = Table::create(&options).await;
    table.read_rows(1_000).await;
    table.group.stop().await;
    let resumed = Instant::now();
    let mut table = Table::resume(&options, Sequence(301));
    table.read_rows(700).await;
    assert!(resumed.elapsed() < PROMPT, "not after ack_wait");
    table.assert_rows(301..=1_000);
    table.commit();
    floor_reaches(&stream, "d", 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_found_durable_keeps_its_configuration_and_survives_the_table() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 100).await;
    let config = async_nats::jetstream::consumer::pull::Config {
        durable_name: Some("theirs".to_owned()),
        description: Some("not Weir's".to_owned()),
        ack_policy: async_nats::jetstream::consumer::AckPolicy::All,
        ack_wait: Duration::from_secs(77),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
        ..Default::default()
    };
    stream.create_consumer(config).await.expect("the consumer can be created");
    let options = options(server.port, &[("consumer.durable_name", "theirs")]);
    let mut table = Table::create(&options).await;
    table.read_rows(100).await;
    table.commit();
    floor_reaches(&stream, "theirs", 100).await;
    table.group.stop().await;
    let config = stream.consumer_info("theirs").await.expect("it is there").config;
    assert_eq!(config.description.as_deref(), Some("not Weir's"));
    assert_eq!((config.ack_wait, config.max_ack_pending), (Duration::from_secs(77), 1_000));
    assert_eq!(config.metadata.get("team").map(String::as_str), Some("a"));
    let split = SplitId("events".to_owned());
    let removed = remove_consumers(&options, &split, OWNER).await.expect("the server answers");
    assert!(removed.is_empty(), "it is not Weir's");
    stream.consumer_info("theirs").await.expect("it is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_table_removes_the_durable_that_it_made() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 1).await;
    let options = options(server.port, &[("consumer.durable_name", "d")]);
    let mut table = Table::create(&options).await;
    table.read_rows(1).await;
    table.group.stop().await;
    let split = SplitId("events".to_owned());
    let removed = async |owner| remove_consumers(&options, &split, owner).await.expect("the server answers");
    assert!(removed("test/another").await.is_empty());
    assert_eq!(removed(OWNER).await, ["d"]);
    assert!(stream.consumer_info("d").await.is_err());
    assert!(removed(OWNER).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_decoder_stops_the_reader_and_loses_nothing() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    create_stream(&js).await;
    publish(&js, 1, 120_000).await;
    let mut table = Table::create(&Arc::clone(&options(server.port, &[]))).await;
    table.read_batch().await;
    // Longer than the patience with a silent server, and more than its queue holds.
    tokio::time::sleep(Duration::from_secs(4)).await;
    table.read_rows(120_000).await;
    table.assert_rows(1..=120_000);
    assert_eq!(table.reader.status().rebuilds, 0);
}

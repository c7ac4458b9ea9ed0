//! Reading while servers die, connections break and others meddle: nothing is lost, nothing comes twice.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer;
use futures::StreamExt;
use weir_common::ids::Sequence;

use crate::support::{
    DEADLINE, PROMPT, Proxy, Server, Table, create_stream, eventually, floor_reaches, options, publish,
};

const DURABLE: [(&str, &str); 2] = [("consumer.durable_name", "d"), ("consumer.ack_policy", "explicit")];

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_after_the_server_was_killed() {
    for pairs in [&[][..], &DURABLE[..]] {
        let mut server = Server::start().await;
        create_stream(&server.jetstream().await).await;
        let mut table = Table::create(&options(server.port, pairs)).await;
        for round in 0..3 {
            publish(&server.jetstream().await, round * 5_000 + 1, 5_000).await;
            // Somewhere in the middle of it.
            table.read_rows(table.rows.len() + 1_000).await;
            server.kill();
            server.restart().await;
            let restarted = Instant::now();
            let rows = usize::try_from((round + 1) * 5_000).expect("it is small");
            table.read_rows_committing(rows).await;
            assert!(restarted.elapsed() < PROMPT, "{:?}", restarted.elapsed());
        }
        table.assert_rows(1..=15_000);
        if !pairs.is_empty() {
            let stream = server.jetstream().await.get_stream("events").await.expect("it is there");
            floor_reaches(&stream, "d", 15_000).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_in_the_middle_of_the_stream_lose_and_repeat_nothing() {
    const ROWS: u64 = 100_000;
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, ROWS).await;
    for pairs in [vec![], DURABLE.to_vec(), vec![("consumer.durable_name", "a"), ("consumer.ack_policy", "all")]] {
        let proxy = Proxy::start(server.port).await;
        let options = options(proxy.port, &pairs);
        let mut table = Table::create(&options).await;
        // Uneven, so that the cut falls anywhere in a message.
        for cut in 0..12_u64 {
            proxy.cut_after(150_007 + 37_123 * cut);
            proxy.cut();
            let more = table.rows.len() + 500;
            table.read_rows_committing(more).await;
        }
        proxy.cut_after(0);
        proxy.cut();
        table.read_rows_committing(usize::try_from(ROWS).expect("it is small")).await;
        table.assert_rows(1..=ROWS);
        assert!(table.reader.status().rebuilds >= 5, "{:?}", table.reader.status());
        if let Some(durable) = options.consumer.name.given() {
            floor_reaches(&stream, durable, ROWS).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_headers_stop_the_reader() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 10).await;
    // One looks like a status of the server, the others cannot be parsed by the client, or end it.
    let raw: [(&[u8], &[u8]); 8] = [
        (b"events.raw", b"NATS/1.0 503 Go away"),
        (b"events.raw", b"NATS/1.0\r\nno colon"),
        (b"events.raw", b"HTTP/1.1"),
        (b"events.raw", b"NATS/1.0 x"),
        (b"events.raw", b"NATS/1.0\r\na: x\ry"),
        (b"events.raw", b"NATS/1.0\r\na: x\r\n y\rz"),
        (b"events.raw.\xc2\xa0x", b"NATS/1.0\r\na: b"),
        (b"events.raw.\xff", b"NATS/1.0\r\na: b"),
    ];
    for (n, (subject, headers)) in (11..).zip(raw) {
        server.publish_raw(subject, [headers, b"\r\n\r\n"].concat(), &n.to_string()).await;
    }
    publish(&js, 19, 10).await;
    for pairs in [&[][..], &DURABLE[..], &[("subject", "events.raw,events.raw.>,events.5,events.6")]] {
        let started = Instant::now();
        let mut table = Table::create(&options(server.port, pairs)).await;
        if pairs.first().is_some_and(|(option, _)| *option == "subject") {
            table.read_rows_committing(12).await;
            table.assert_rows([5, 6].into_iter().chain(11..=18).chain([25, 26]));
        } else {
            table.read_rows_committing(28).await;
            table.assert_rows(1..=28);
        }
        assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
        if pairs == DURABLE {
            floor_reaches(&stream, "d", 28).await;
        }
        table.group.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_ended_is_replaced() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    for pairs in [&[][..], &DURABLE[..]] {
        stream.purge().await.expect("purging works");
        let proxy = Proxy::start(server.port).await;
        let mut table = Table::create(&options(proxy.port, pairs)).await;
        for round in 0..5 {
            publish(&js, round * 10 + 1, 10).await;
            table.read_rows_committing(usize::try_from(round + 1).expect("it is small") * 10).await;
            proxy.poison();
            eventually("the reader notices", async || !table.reader.status().reading).await;
        }
        eventually("there is another client", async || table.reader.status().reading).await;
        let control = table.reader.control();
        let asked = control.progress().await.expect("the server answers");
        assert!(asked.consumer.is_some_and(|consumer| consumer.pending == 0), "{asked:?}");
        table.assert_rows(1..=50);
        table.group.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_noticed() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    create_stream(&js).await;
    let proxy = Proxy::start(server.port).await;
    let mut table = Table::create(&options(proxy.port, &DURABLE)).await;
    publish(&js, 1, 10).await;
    table.read_rows(10).await;
    proxy.silent(true);
    publish(&js, 11, 10).await;
    let silenced = Instant::now();
    eventually("the reader notices", async || !table.reader.status().reading).await;
    assert!(silenced.elapsed() < PROMPT, "{:?}", silenced.elapsed());
    proxy.silent(false);
    table.read_rows_committing(20).await;
    publish(&js, 21, 10).await;
    table.read_rows_committing(30).await;
    table.assert_rows(1..=30);
    assert!(table.reader.status().rebuilds > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_reader_of_the_same_durable_steals_nothing() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    let mut table = Table::create(&options(server.port, &DURABLE)).await;
    publish(&js, 1, 100).await;
    table.read_rows(100).await;
    let meddler = tokio::spawn(async move {
        let mut stolen = 0;
        while stolen < 50 {
            // The reader rebuilds the consumer, which ends what the meddler has.
            let Ok(consumer) = stream.get_consumer::<consumer::pull::Config>("d").await else { continue };
            // A request that waits beside the reader's, so that the server serves both in turn.
            let request = consumer.batch().max_messages(5).expires(Duration::from_millis(500));
            let Ok(mut messages) = request.messages().await else { continue };
            while let Some(Ok(_)) = messages.next().await {
                stolen += 1;
            }
        }
    });
    let mut published = 100;
    let deadline = Instant::now() + DEADLINE;
    while !meddler.is_finished() {
        assert!(Instant::now() < deadline, "the meddler gets nothing");
        publish(&js, published + 1, 50).await;
        published += 50;
        let _ = tokio::time::timeout(Duration::from_millis(50), table.read_batch()).await;
        table.commit();
    }
    table.read_rows_committing(usize::try_from(published).expect("it is small")).await;
    table.assert_rows(1..=published);
    assert!(table.reader.status().rebuilds > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_durable_is_rebuilt_after_the_next_commit_only() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    let mut table = Table::create(&options(server.port, &DURABLE)).await;
    publish(&js, 1, 10).await;
    table.read_rows(10).await;
    stream.delete_consumer("d").await.expect("it is there");
    eventually("the reader notices", async || !table.reader.status().reading).await;
    publish(&js, 11, 10).await;
    let early = tokio::time::timeout(Duration::from_secs(1), table.read_batch()).await;
    assert!(early.is_err(), "its term may be over");
    table.commit();
    table.read_rows(20).await;
    table.assert_rows(1..=20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reader_of_a_newer_term_takes_over() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 100).await;
    let options = options(server.port, &DURABLE);
    let mut old = Table::create(&options).await;
    old.read_rows(100).await;
    old.commit();
    // The old reader lives on, but nothing is committed in its term any more.
    let mut new = Table::resume(&options, Sequence(101));
    eventually("the old reader stops", async || !old.reader.status().reading).await;
    publish(&js, 101, 100).await;
    new.read_rows(100).await;
    new.assert_rows(101..=200);
    new.commit();
    floor_reaches(&stream, "d", 200).await;
    assert_eq!(old.rows.len(), 100);
    assert_eq!(new.reader.status().rebuilds, 0, "nobody fights");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_waits_for_its_server() {
    let mut server = Server::start().await;
    create_stream(&server.jetstream().await).await;
    publish(&server.jetstream().await, 1, 10).await;
    server.kill();
    let mut table = Table::resume(&options(server.port, &DURABLE), Sequence(1));
    let early = tokio::time::timeout(Duration::from_millis(500), table.read_batch()).await;
    assert!(early.is_err(), "there is no server");
    server.restart().await;
    table.read_rows(10).await;
    table.assert_rows(1..=10);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_stream_of_the_same_name_is_not_read() {
    let server = Server::start().await;
    let js = server.jetstream().await;
    create_stream(&js).await;
    publish(&js, 1, 10).await;
    let mut table = Table::create(&options(server.port, &[])).await;
    table.read_rows(10).await;
    js.delete_stream("events").await.expect("it is there");
    create_stream(&js).await;
    publish(&js, 1, 30).await;
    eventually("the reader notices", async || !table.reader.status().reading).await;
    let read = tokio::time::timeout(Duration::from_secs(3), table.read_batch()).await;
    assert!(read.is_err(), "positions mean nothing in it");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_the_stream_lost_are_counted() {
    let mut server = Server::start().await;
    let js = server.jetstream().await;
    let stream = create_stream(&js).await;
    publish(&js, 1, 100).await;
    stream.purge().sequence(51).await.expect("purging works");
    let mut table = Table::resume(&options(server.port, &DURABLE), Sequence(11));
    table.read_rows(50).await;
    table.assert_rows(51..=100);
    assert_eq!(table.reader.status().lost, 40);
    server.kill();
    server.restart().await;
    publish(&server.jetstream().await, 101, 1).await;
    table.read_rows_committing(51).await;
    assert_eq!(table.reader.status().lost, 40, "counted once");
}

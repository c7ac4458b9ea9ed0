//! Other ways to read the stream of bids: acknowledged, of each retention, as many splits, from its history, several rows a
//! message.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{RetentionPolicy, Stream};
use futures::StreamExt;
use futures::future::try_join_all;
use weir_e2e::publish::publish_all;
use weir_e2e::servers::Nats;
use weir_e2e::weir::Weir;
use weir_e2e::workload::{Bids, Together};

use crate::report::{Aim, Report};
use crate::standalone::{Cost, bids, cost_of, follow, read_table};
use crate::{Kept, Options};

/// Messages that one request asks for.
const BATCH: u64 = 5_000;

/// What acknowledging costs, and what a small window does; and how long a statement takes that reads the stream itself.
pub(crate) async fn acks(options: &Options, nats: &mut Nats, weir: &mut Weir, report: &mut Report) -> Result<()> {
    let messages = options.messages;
    for (table, policy, more, name) in [
        ("by_explicit", "explicit", "", "ack policy explicit"),
        ("by_all", "all", "", "ack policy all"),
        ("by_few", "explicit", ", consumer.max_ack_pending = 1000", "ack policy explicit and max_ack_pending 1,000"),
    ] {
        println!("reading with {name} …");
        let more = format!(", consumer.durable_name = '{table}', consumer.ack_policy = '{policy}'{more}");
        let create = Kept::Appended.create(table, Bids::COLUMNS, ("BIDS", "bids.>"), &more, nats);
        let cost = read_table(table, &create, messages, nats, weir).await?;
        report.add(&format!("Weir, {name}, k messages/s"), cost.thousands_a_second(messages), 0, Aim::None);
    }
    println!("reading a source …");
    let mut sql = weir.sql();
    let create = Kept::Appended.create("bids_source", Bids::COLUMNS, ("BIDS", "bids.>"), "", nats);
    sql.query(&create.replacen("TABLE", "SOURCE", 1)).await?;
    let start = Instant::now();
    ensure!(sql.value::<u64>("SELECT count(price) FROM bids_source").await? == messages, "the source is not whole");
    let rate = messages as f64 / start.elapsed().as_secs_f64() / 1_000.0;
    report.add("SELECT that reads a source, k messages/s", rate, 0, Aim::None);
    Ok(())
}

/// What each retention costs: the bids are published while a table reads and acknowledges them.
pub(crate) async fn retention(options: &Options, nats: &mut Nats, weir: &mut Weir, report: &mut Report) -> Result<()> {
    let (mut sql, messages) = (weir.sql(), options.messages);
    for (retention, name) in [
        (RetentionPolicy::Limits, "Limits"),
        (RetentionPolicy::WorkQueue, "WorkQueue"),
        (RetentionPolicy::Interest, "Interest"),
    ] {
        println!("reading while it is published, {name} retention …");
        let table = format!("kept_by_{}", name.to_lowercase());
        let (stream, bids) = (table.to_uppercase(), Bids { prefix: table.clone() });
        nats.create_stream_with(&stream, &[&format!("{table}.>")], retention).await?;
        let more = format!(", consumer.durable_name = '{table}', consumer.ack_policy = 'explicit'");
        let create = Kept::Appended.create(&table, Bids::COLUMNS, (&stream, &format!("{table}.>")), &more, nats);
        sql.query(&create).await?;
        let cpu = follow(nats, weir, &bids, (&table, std::slice::from_ref(&table)), messages).await?;
        report.add(&format!("{name} retention, CPU-seconds per million messages"), cpu, 2, Aim::None);
    }
    Ok(())
}

/// What it does to read a stream as a split for each of its 16 subjects.
pub(crate) async fn splits(options: &Options, nats: &mut Nats, weir: &mut Weir, report: &mut Report) -> Result<()> {
    println!("reading as 16 splits …");
    let subjects: Vec<String> = (0..16).map(|number| format!("bids.{number}")).collect();
    let (subjects, more) = (subjects.join(","), ", split_by_subject = true");
    let create = Kept::Appended.create("by_subject", Bids::COLUMNS, ("BIDS", &subjects), more, nats);
    let cost = read_table("by_subject", &create, options.messages, nats, weir).await?;
    report.add("Weir, 16 splits, k messages/s", cost.thousands_a_second(options.messages), 0, Aim::None);
    let server = cost.server_a_million(options.messages);
    report.add("nats-server under it, CPU-seconds per million messages", server, 2, Aim::None);
    Ok(())
}

/// What it does to have several rows in a message, each on a line.
pub(crate) async fn several_rows_a_message(
    options: &Options,
    nats: &mut Nats,
    weir: &mut Weir,
    report: &mut Report,
) -> Result<()> {
    let rows = options.messages;
    for together in [10, 100] {
        println!("publishing and reading {together} rows a message …");
        let (stream, table) = (format!("BIDS_BY_{together}"), format!("bids_by_{together}"));
        nats.create_stream(&stream, &[&table]).await?;
        let workload = Together { rows: bids(), together, subject: table.clone() };
        publish_all(&nats.client().await?, &workload, 0..rows / together).await?;
        let create = Kept::Appended.create(&table, Bids::COLUMNS, (&stream, &table), "", nats);
        let rows = rows / together * together;
        let cost = read_table(&table, &create, rows, nats, weir).await?;
        let name = format!("Weir, {together} rows a message");
        report.add(&format!("{name}, k rows/s"), cost.thousands_a_second(rows), 0, Aim::None);
        report.add(&format!("{name}, CPU-seconds per million rows"), cost.reader_a_million(rows), 2, Aim::None);
    }
    Ok(())
}

/// Ways to read what a stream has stored, without decoding it: one consumer, several of ranges of sequences, and requests
/// for stored messages in batches.
pub(crate) async fn history(options: &Options, nats: &mut Nats, report: &mut Report) -> Result<()> {
    let messages = options.messages;
    let stream = nats.jetstream().await?.get_stream("BIDS").await?;
    for ranges in [1, 2, 4] {
        println!("reading through {ranges} consumers of a range each …");
        let length = messages / ranges;
        let readers = try_join_all((0..ranges).map(|number| {
            let stream = stream.clone();
            async move { tokio::spawn(async move { range(&stream, number * length, length).await }).await? }
        }));
        let cost = cost_of(nats, async { readers.await.map(drop) }).await?;
        add_history(report, &format!("{ranges} consumers of a range each"), &cost, messages);
    }
    let mut config = stream.cached_info().config.clone();
    config.allow_direct = true;
    nats.jetstream().await?.update_stream(config).await?;
    for (headers, name) in [(true, "direct get in batches"), (false, "direct get in batches without headers")] {
        println!("reading by {name} …");
        let client = nats.client().await?;
        let cost = cost_of(nats, direct(&client, messages, headers)).await?;
        add_history(report, name, &cost, messages);
    }
    Ok(())
}

fn add_history(report: &mut Report, name: &str, cost: &Cost, messages: u64) {
    report.add(&format!("history, {name}, k messages/s"), cost.thousands_a_second(messages), 0, Aim::None);
    let cpu = "CPU-seconds per million messages";
    report.add(&format!("history, {name}, reader's {cpu}"), cost.reader_a_million(messages), 2, Aim::None);
    report.add(&format!("history, {name}, nats-server's {cpu}"), cost.server_a_million(messages), 2, Aim::None);
}

/// Reads a range of a stream with async-nats' `messages()`: nothing is decoded, nothing acknowledged.
pub(crate) async fn range(stream: &Stream, after: u64, messages: u64) -> Result<()> {
    let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: after + 1 };
    let config = pull::Config { ack_policy: AckPolicy::None, deliver_policy, ..Default::default() };
    let consumer = stream.create_consumer(config).await?;
    let mut received = consumer.stream().max_messages_per_batch(BATCH as usize).messages().await?;
    for _ in 0..messages {
        received.next().await.context("the reader has ended")??;
    }
    Ok(())
}

/// Asks for the stored messages themselves, batch after batch, two of them at a time. Without headers there is neither
/// subject nor time.
async fn direct(client: &Client, messages: u64, headers: bool) -> Result<()> {
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await?;
    let ask = async |sequence: u64| {
        let batch = BATCH.min(messages + 1 - sequence);
        let request = serde_json::json!({ "seq": sequence, "batch": batch, "no_hdr": !headers });
        client.publish_with_reply("$JS.API.DIRECT.GET.BIDS", inbox.clone(), request.to_string().into()).await
    };
    let mut next = 1;
    for _ in 0..2 {
        ask(next).await?;
        next += BATCH;
    }
    let (mut received, mut ended) = (0, 0);
    while ended < messages.div_ceil(BATCH) {
        let message = replies.next().await.context("the subscription has ended")?;
        match message.status.map(|status| status.as_u16()) {
            Some(204) => {
                ended += 1;
                if next <= messages {
                    ask(next).await?;
                    next += BATCH;
                }
            }
            None => received += 1,
            Some(status) => anyhow::bail!("direct get: status {status}"),
        }
    }
    ensure!(received == messages, "{received} of {messages} messages came");
    Ok(())
}

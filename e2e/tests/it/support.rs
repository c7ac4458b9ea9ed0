//! What the topics share: statements, publishing by hand and in the background, and the comparison of a table with what
//! was published.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::stream::RetentionPolicy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use weir_e2e::chaos;
use weir_e2e::publish::{Pace, publish};
use weir_e2e::sandbox::Sandbox;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::{PATIENCE, eventually_equal};
use weir_e2e::weir::{Cluster, Node, Weir};
use weir_e2e::workload::{Events, Workload};

/// What something may take that takes well under a second on an idle machine.
pub(crate) const SOON: Duration = PATIENCE;
/// What catching up after a series of crashes may take.
pub(crate) const LATE: Duration = PATIENCE.saturating_mul(2);

/// How many subjects the events of [`Reading`] have.
pub(crate) const SUBJECTS: u64 = 7;

/// Rows that are compared at a time.
const PAGE: u64 = 20_000;

/// A nats-server with a stream `EVENTS` over `events.>`, and a standalone Weir that is ready.
pub(crate) async fn standalone(sandbox: &Sandbox) -> Result<(Nats, Weir)> {
    standalone_with(sandbox, RetentionPolicy::Limits).await
}

/// The same with a stream of the given retention.
pub(crate) async fn standalone_with(sandbox: &Sandbox, retention: RetentionPolicy) -> Result<(Nats, Weir)> {
    let nats = Nats::start(sandbox).await?;
    nats.create_stream_with("EVENTS", &["events.>"], retention).await?;
    let mut weir = Weir::standalone(sandbox)?;
    weir.ready().await?;
    Ok((nats, weir))
}

/// How many messages of a stream a test can have: all of `total`, except where Interest retention is known to fare badly above
/// a number, on servers that cannot reset a consumer (docs/decisions, 0008).
pub(crate) async fn total_for(nats: &Nats, retention: RetentionPolicy, total: u64) -> Result<u64> {
    const TOTAL_GUARDED: u64 = 90_000;
    let guarded = retention == RetentionPolicy::Interest && !nats.can_reset().await?;
    Ok(if guarded { total.min(TOTAL_GUARDED) } else { total })
}

/// The options that every table over the stream `EVENTS` has.
pub(crate) fn events_options(server: &str) -> String {
    format!(
        "connector = 'nats', server_url = '{server}', stream = 'EVENTS', subject = 'events.>', connect_mode = 'plain'"
    )
}

/// A way in which a table reads its stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reading {
    /// Through a durable with the ack policy of that name.
    Durable(&'static str),
    /// Through a consumer that the user did not name: it is gone with its connection, or a durable where the stream's
    /// retention asks for one.
    Unnamed,
    /// As a split for each subject.
    Split,
}

impl Reading {
    /// All there are: what must be exact must be so whichever is chosen.
    pub(crate) const ALL: [Reading; 5] = [
        Reading::Durable("all"),
        Reading::Durable("explicit"),
        Reading::Durable("none"),
        Reading::Unnamed,
        Reading::Split,
    ];

    /// All that a stream of this retention can be read in at the same time: a work queue has one reader.
    pub(crate) fn of(retention: RetentionPolicy) -> &'static [Reading] {
        match retention {
            RetentionPolicy::Limits => &Reading::ALL,
            RetentionPolicy::WorkQueue => &[Reading::Unnamed],
            RetentionPolicy::Interest => &[Reading::Durable("explicit"), Reading::Unnamed, Reading::Split],
        }
    }

    /// The name of the table that reads so, and of its durable if it has one.
    pub(crate) fn table(self) -> String {
        match self {
            Reading::Durable(policy) => format!("by_{policy}"),
            Reading::Unnamed => "unnamed".to_owned(),
            Reading::Split => "split".to_owned(),
        }
    }

    /// The statement that creates the table.
    pub(crate) fn create(self, server: &str) -> String {
        let table = self.table();
        let relation = format!("TABLE {table}");
        match self {
            Reading::Durable(policy) => create_events_with(
                &relation,
                server,
                &format!(", consumer.durable_name = '{table}', consumer.ack_policy = '{policy}'"),
            ),
            Reading::Unnamed => create_events_with(&relation, server, ""),
            // Of an option that is given twice the last value counts.
            Reading::Split => {
                let subjects: Vec<String> = (0..SUBJECTS).map(|number| format!("events.{number}")).collect();
                let more = format!(", subject = '{}', split_by_subject = true", subjects.join(","));
                create_events_with(&relation, server, &more)
            }
        }
    }

    /// Through how many consumers it reads.
    fn consumers(self) -> u64 {
        if matches!(self, Reading::Split) { SUBJECTS } else { 1 }
    }

    /// The durable that is to be acknowledged.
    fn acknowledges(self) -> Option<String> {
        matches!(self, Reading::Durable("all" | "explicit")).then(|| self.table())
    }
}

/// A table of [`Events`] with the stream's sequence and the subject, read through a durable.
pub(crate) fn create_events(name: &str, server: &str, durable: &str) -> String {
    let durable = format!(", consumer.durable_name = '{durable}', consumer.ack_policy = 'all'");
    create_events_with(&format!("TABLE {name}"), server, &durable)
}

/// A table or source, `TABLE t` say, of [`Events`] with the stream's sequence and the subject; `more` begins with a comma.
pub(crate) fn create_events_with(relation: &str, server: &str, more: &str) -> String {
    format!(
        "CREATE {relation} ({}) INCLUDE offset AS stream_seq INCLUDE subject AS subject WITH ({}{more}) \
         FORMAT PLAIN ENCODE JSON",
        Events::COLUMNS,
        events_options(server)
    )
}

/// More options of a source of [`Events`]: a split for each subject.
pub(crate) fn split_by_subject() -> String {
    let subjects: Vec<String> = (0..SUBJECTS).map(|number| format!("events.{number}")).collect();
    format!(", subject = '{}', split_by_subject = true", subjects.join(","))
}

/// Publishes the first `total` events, and meanwhile kills a node six times, which starts again.
/// Each time `before` comes first.
pub(crate) async fn publish_while_nodes_are_killed(
    cluster: &mut Cluster,
    (nats, events, total): (&Nats, &Events, u64),
    mut before: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let mut publishing = Publishing::start(nats, events, total, 4_000).await?;
    let victims = [Node::Compute(0), Node::Compute(1), Node::Meta(0)];
    for kill in chaos::plan(chaos::seed(), &victims, 6, total / 30..total - total / 30) {
        publishing.reaches(kill.at).await?;
        before().await?;
        eprintln!("{}: kill {:?}", kill.at, kill.victim);
        cluster.node(kill.victim).process().kill9()?;
        publishing.reaches(kill.back_at).await?;
        cluster.node(kill.victim).process().restart()?;
    }
    publishing.end().await
}

/// Events that are published while something else goes on; publishing ends with this.
pub(crate) struct Publishing {
    task: AbortOnDropHandle<Result<()>>,
    progress: watch::Receiver<u64>,
}

impl Publishing {
    /// Starts publishing so many events a second, through the death of the server.
    pub(crate) async fn start(
        nats: &Nats,
        workload: &(impl Workload + Clone + 'static),
        total: u64,
        per_second: u64,
    ) -> Result<Publishing> {
        let (sender, progress) = watch::channel(0);
        let (client, workload) = (nats.client().await?, workload.clone());
        let pace = Pace::steady(per_second);
        let task = tokio::spawn(async move { publish(&client, &workload, 0..total, pace, &sender).await.map(drop) });
        Ok(Publishing { task: AbortOnDropHandle::new(task), progress })
    }

    /// Waits until so many events are in the stream.
    pub(crate) async fn reaches(&mut self, events: u64) -> Result<()> {
        let reached = self.progress.wait_for(|&acknowledged| acknowledged >= events).await;
        reached.map(drop).context("publishing has ended early")
    }

    /// Waits until all of them are.
    pub(crate) async fn end(self) -> Result<()> {
        self.task.await?
    }
}

/// Publishes payloads one after the other and waits for each to be stored.
pub(crate) async fn publish_payloads(nats: &Nats, subject: &str, payloads: &[&str]) -> Result<()> {
    let jetstream = nats.jetstream().await?;
    for payload in payloads {
        jetstream.publish(subject.to_owned(), (*payload).to_owned().into()).await?.await?;
    }
    Ok(())
}

/// Publishes what no client would, on a connection of its own, and waits until it is stored.
pub(crate) async fn publish_raw(nats: &Nats, subject: &str, headers: Option<&str>, payload: &str) -> Result<()> {
    let mut stream = TcpStream::connect(nats.socket()).await?;
    let begin = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nSUB _INBOX.raw 1\r\n";
    let message = match headers {
        Some(headers) => {
            let (header_bytes, bytes) = (headers.len(), headers.len() + payload.len());
            format!("HPUB {subject} _INBOX.raw {header_bytes} {bytes}\r\n{headers}{payload}\r\n")
        }
        None => format!("PUB {subject} _INBOX.raw {}\r\n{payload}\r\n", payload.len()),
    };
    stream.write_all(format!("{begin}{message}").as_bytes()).await?;
    let mut answer = String::new();
    while !answer.contains("\"seq\":") {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await?;
        answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
        ensure!(read > 0 && !answer.contains("-ERR"), "{answer}");
    }
    Ok(())
}

/// Creates a table or source of JSON over the stream `EVENTS`: `relation` is `TABLE t`, say, and `more` begins with a comma.
pub(crate) async fn create_json(sql: &mut Sql, nats: &Nats, relation: &str, columns: &str, more: &str) -> Result<()> {
    let options = events_options(&nats.address());
    sql.query(&format!("CREATE {relation} ({columns}) WITH ({options}{more}) FORMAT PLAIN ENCODE JSON")).await?;
    Ok(())
}

/// Runs a statement that has to fail, with an SQLSTATE and with words that are part of the message.
pub(crate) async fn refuses(sql: &mut Sql, statement: &str, code: &str, words: &str) -> Result<()> {
    let refused = sql.refused(statement).await?;
    ensure!(refused.code().code() == code && refused.message().contains(words), "{statement}: {refused:?}");
    Ok(())
}

/// Waits until the query's only value is the wanted one.
pub(crate) async fn wait_for(sql: &mut Sql, query: &str, wanted: u64, deadline: Duration) -> Result<()> {
    eventually_equal(query, deadline, wanted, async || sql.value::<u64>(query).await).await
}

/// Compares a table made by [`create_events`] with the first `total` events: every one once, as it was sent.
pub(crate) async fn compare_events(sql: &mut Sql, table: &str, events: &Events, total: u64) -> Result<()> {
    wait_for(sql, &format!("SELECT count(*) FROM {table}"), total, LATE).await?;
    let summary = sql
        .query(&format!(
            "SELECT count(*), count(DISTINCT seq), count(DISTINCT stream_seq), min(seq), max(seq), sum(price) FROM {table}"
        ))
        .await?;
    let prices = (0..total).map(Events::price).sum::<u64>();
    let wanted = [total, total, total, 0, total - 1, prices].map(|number| number.to_string());
    ensure!(summary.row(0) == wanted, "{table} is not what was published; wanted {wanted:?}\n{summary}");
    for from in (0..total).step_by(PAGE as usize) {
        let to = total.min(from + PAGE);
        let page =
            format!("SELECT seq, price, note, subject FROM {table} WHERE seq >= {from} AND seq < {to} ORDER BY seq");
        let answer = sql.query(&page).await?;
        ensure!(answer.rows.len() as u64 == to - from, "{page}: {} rows", answer.rows.len());
        for (index, number) in (from..to).enumerate() {
            let wanted = [number.to_string(), Events::price(number).to_string(), Events::note(number)];
            let row = answer.row(index);
            ensure!(row[..3] == wanted && row[3] == events.subject(number), "event {number} arrived as {row:?}");
        }
    }
    Ok(())
}

/// Compares the tables of several ways of reading with the first `total` events. Of the second table and those after it
/// every value is compared with the first's.
pub(crate) async fn compare_readings(sql: &mut Sql, readings: &[Reading], events: &Events, total: u64) -> Result<()> {
    let first = readings[0].table();
    compare_events(sql, &first, events, total).await?;
    for reading in &readings[1..] {
        let table = reading.table();
        wait_for(sql, &format!("SELECT count(*) FROM {table}"), total, LATE).await?;
        // As many rows as there are, none of them twice, each of them one of the first table.
        let columns = "seq, price, note, subject, stream_seq";
        let both = format!("SELECT {columns} FROM {table} INTERSECT SELECT {columns} FROM {first}");
        let common = sql.value::<u64>(&format!("SELECT count(*) FROM ({both}) AS b")).await?;
        ensure!(common == total, "{table} and {first} have {common} rows in common of {total}");
    }
    Ok(())
}

/// Compares tables with a stream that has more messages than there are events: a server that is killed forgets the ids of
/// messages that are deleted already, and so takes what the publisher sends again for new. Every message is in the tables
/// once all the same.
pub(crate) async fn compare_sequences(
    nats: &Nats,
    sql: &mut Sql,
    readings: &[Reading],
    last: u64,
    total: u64,
) -> Result<()> {
    let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
    let deletes = stream.cached_info().config.retention != RetentionPolicy::Limits;
    ensure!(deletes && last > total, "the publisher has put {last} messages into the stream, and not {total}");
    for table in readings.iter().map(|reading| reading.table()) {
        wait_for(sql, &format!("SELECT count(*) FROM {table}"), last, LATE).await?;
        let distinct = format!("SELECT count(DISTINCT stream_seq), count(DISTINCT seq) FROM {table}");
        let found = sql.query(&distinct).await?;
        ensure!(found.row(0) == [last.to_string(), total.to_string()], "{table} is not what was published:\n{found}");
    }
    Ok(())
}

/// Waits until everything in the stream is acknowledged by those that acknowledge. Where that deletes messages, the stream
/// is empty in the end, and nothing but the tables' durables is left.
pub(crate) async fn readings_acknowledged(nats: &Nats, readings: &[Reading]) -> Result<()> {
    for durable in readings.iter().filter_map(|reading| reading.acknowledges()) {
        acknowledged(nats, &durable).await?;
    }
    let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
    if stream.cached_info().config.retention == RetentionPolicy::Limits {
        return Ok(());
    }
    let consumers: u64 = readings.iter().map(|reading| reading.consumers()).sum();
    eventually_equal("an empty stream with its consumers", LATE, (0, consumers), async || {
        let state = stream.get_info().await?.state;
        Ok((state.messages, state.consumer_count as u64))
    })
    .await
}

/// Waits until everything in the stream is acknowledged by the durable.
pub(crate) async fn acknowledged(nats: &Nats, durable: &str) -> Result<()> {
    let last = nats.last_sequence("EVENTS").await?;
    eventually_equal("the ack floor to reach the stream's end", LATE, last, async || {
        nats.ack_floor("EVENTS", durable).await
    })
    .await
}

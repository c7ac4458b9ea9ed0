//! Views that aggregate: over history, beside what arrives, and on clusters whose processes are
//! killed.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use tokio_util::task::AbortOnDropHandle;
use weir_e2e::publish::{publish_all, publish_in_background};
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually_equal;
use weir_e2e::weir::{Cluster, Node, State, Weir};
use weir_e2e::workload::{Events, Workload};

use crate::crash::NODE_LOST;
use crate::support::{
    LATE, SUBJECTS, create_events_with, publish_while_nodes_are_killed, split_by_subject, standalone, wait_for,
};
use crate::told::term;

/// A row of a group: the number of events, the sum of their prices, the least and greatest number.
const AGGREGATES: &str = "count(*) AS events, sum(price) AS prices, min(seq) AS first, max(seq) AS last";

/// Compares a view of [`AGGREGATES`] by subject with the first `total` events.
async fn compare_by_subject(sql: &mut Sql, view: &str, events: &Events, total: u64) -> Result<()> {
    wait_for(sql, &format!("SELECT coalesce(sum(events), 0) FROM {view}"), total, LATE).await?;
    let mut wanted: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    for number in 0..total {
        let group = wanted.entry(events.subject(number)).or_insert([0, 0, number, number]);
        *group = [group[0] + 1, group[1] + Events::price(number), group[2], number];
    }
    let wanted: Vec<Vec<String>> = wanted
        .into_iter()
        .map(|(subject, group)| std::iter::once(subject).chain(group.map(|value| value.to_string())).collect())
        .collect();
    let query = format!("SELECT subject, events, prices, first, last FROM {view} ORDER BY subject");
    let found = sql.query(&query).await?;
    let rows: Vec<Vec<&str>> = (0..found.rows.len()).map(|row| found.row(row)).collect();
    ensure!(rows == wanted, "{view} is not what was published; wanted {wanted:?}\n{found}");
    Ok(())
}

/// Compares a view by key with the first `total` events: as many groups, and what they have
/// together.
async fn compare_by_key(sql: &mut Sql, view: &str, total: u64) -> Result<()> {
    wait_for(sql, &format!("SELECT coalesce(sum(events), 0) FROM {view}"), total, LATE).await?;
    let mut wanted: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for number in 0..total {
        let group = wanted.entry(Events::price(number) % 5_000).or_default();
        *group = (group.0 + 1, group.1.max(number));
    }
    let found = sql.query(&format!("SELECT key, events, last FROM {view} ORDER BY key")).await?;
    ensure!(found.rows.len() == wanted.len(), "{view} has {} groups of {}", found.rows.len(), wanted.len());
    for (row, (key, (events, last))) in wanted.into_iter().enumerate() {
        let wanted = [key, events, last].map(|value| value.to_string());
        ensure!(found.row(row) == wanted, "{view}: wanted {wanted:?}, found {:?}", found.row(row));
    }
    Ok(())
}

fn by_subject(view: &str) -> String {
    format!("CREATE MATERIALIZED VIEW {view} AS SELECT subject, {AGGREGATES} FROM s GROUP BY subject")
}

fn by_key(view: &str) -> String {
    format!(
        "CREATE MATERIALIZED VIEW {view} AS SELECT price % 5000 AS key, count(*) AS events, max(seq) AS last FROM s GROUP BY 1"
    )
}

/// Queries over the source `s`.
const QUERIES: [&str; 6] = [
    "SELECT count(*) AS n, sum(seq) AS total, min(seq) AS least, max(price) AS most FROM s",
    "SELECT price, count(*) AS n, sum(seq) AS total, avg(seq) AS mean, min(note) AS least FROM s GROUP BY price",
    "SELECT seq % 1000 AS part, subject, count(*) AS n, max(seq) AS last FROM s GROUP BY seq % 1000, subject",
    "SELECT DISTINCT price FROM s WHERE seq % 3 = 1",
    "SELECT subject, count(DISTINCT price) AS prices, count(*) FILTER (WHERE price > 10) AS high FROM s GROUP BY subject",
    "SELECT price, bool_and(seq % 2 = 0) AS even FROM s GROUP BY price HAVING count(*) % 2 = 1",
];

/// Queries over the views of these queries, `v` standing for the view.
const UPPER: [&str; 6] = [
    "SELECT n % 7 AS part, total FROM v",
    "SELECT n, count(*) AS prices, sum(total) AS total, min(least) AS least FROM v GROUP BY n",
    "SELECT subject, sum(n) AS n, max(last) AS last, count(DISTINCT part) AS parts FROM v GROUP BY subject",
    "SELECT count(*) AS prices, min(price) AS least, max(price) AS most FROM v",
    "SELECT subject, prices FROM v WHERE high > 10",
    "SELECT even, count(*) AS prices FROM v GROUP BY even UNION ALL SELECT NULL, count(*) FROM v",
];

/// Views over stored relations: the keyed table `k`, whose rows are replaced all the time, the
/// table `a` without a key, and the view `picked`, which only selects. Their names and queries.
const OVER_STORED: [(&str, &str); 6] = [
    ("a_subjects", "SELECT subject, count(*) AS n, sum(seq) AS total, max(seq) AS last FROM a GROUP BY subject"),
    ("picked_prices", "SELECT price, count(*) AS n, min(seq) AS first FROM picked GROUP BY price"),
    ("k_subjects", "SELECT subject, count(*) AS n, sum(seq) AS total, max(seq) AS last FROM k GROUP BY subject"),
    ("k_even", "SELECT price, seq, note FROM k WHERE seq % 2 = 0"),
    ("a_even", "SELECT seq, note FROM a WHERE seq % 2 = 0 UNION ALL SELECT seq, NULL FROM picked"),
    ("k_prices", "SELECT count(DISTINCT subject) AS subjects, count(*) AS n, min(seq) AS first FROM k"),
];

/// A query over two sources, whose readers are in different slots, and over a view.
const SEVERAL: &str = "SELECT subject, count(*) AS n, sum(seq) AS total FROM (SELECT subject, seq FROM s \
                       UNION ALL SELECT subject, seq FROM whole UNION ALL SELECT subject, seq FROM picked) AS all_of_them \
                       GROUP BY subject";

/// The query over the view of this number.
fn upper(number: usize) -> String {
    UPPER[number % UPPER.len()].replace("FROM v", &format!("FROM v{number}"))
}

/// Checks that each view over a view has the rows of its query, in whichever epoch is the newest.
async fn agree(sql: &mut Sql, views: usize) -> Result<()> {
    let over_stored = OVER_STORED.iter().take(views).map(|(view, _)| (*view).to_owned());
    for view in (0..views).map(|number| format!("u{number}")).chain(over_stored) {
        verified(sql, &view).await?;
    }
    Ok(())
}

/// Checks the same of one view by a query of this test's own.
async fn agrees(sql: &mut Sql, view: &str, query: &str) -> Result<()> {
    let view = format!("SELECT * FROM {view}");
    let differing = format!(
        "SELECT count(*) FROM ((({view}) EXCEPT ALL ({query})) UNION ALL (({query}) EXCEPT ALL ({view}))) AS differing"
    );
    let differing: u64 = sql.value(&differing).await?;
    ensure!(differing == 0, "{differing} rows of {view} and its query differ: {query}");
    Ok(())
}

/// Views whose expressions fail for some rows: of the source, and of the keyed table.
const FAILING: [&str; 2] = [
    "CREATE MATERIALIZED VIEW bad AS SELECT subject, sum(10 / (price % 97)) AS total FROM s GROUP BY subject",
    "CREATE MATERIALIZED VIEW bad_k AS SELECT price, 10 / (seq % 50) AS part FROM k",
];

/// Checks that the letters of the keyed table's rows, and the other rows, are those of its view.
async fn letters_agree(sql: &mut Sql) -> Result<()> {
    let letters = "(SELECT (row->>'price')::bigint AS price FROM dead_letters.bad_k) AS letters";
    agrees(sql, letters, "SELECT price FROM k WHERE seq % 50 = 0").await?;
    agrees(sql, "(SELECT price FROM bad_k) AS rows", "SELECT price FROM k WHERE seq % 50 <> 0").await
}

/// Checks that each event of the source whose expression fails is a letter, once.
async fn letters_of_events(sql: &mut Sql, total: u64) -> Result<()> {
    let failing = (0..total).filter(|number| Events::price(*number).is_multiple_of(97)).count() as u64;
    ensure!(failing > 0, "no expression fails");
    wait_for(sql, "SELECT count(*) FROM dead_letters.bad", failing, LATE).await?;
    let places = "SELECT count(DISTINCT (stream, sequence)) FROM dead_letters.bad WHERE error = 'division by zero'";
    let places: u64 = sql.value(places).await?;
    ensure!(places == failing, "{failing} letters come from {places} messages");
    Ok(())
}

/// Checks that a query which waits for the last message has everything up to it: each of the
/// stream's messages is an event.
async fn reads_what_is_published(sql: &mut Sql, nats: &Nats) -> Result<()> {
    let last = nats.last_sequence("EVENTS").await?;
    sql.query("SET wait_for_timeout = '60s'").await?;
    let query = format!("SELECT weir_wait_for('EVENTS', {last})");
    ensure!(sql.query(&query).await?.row(0) == ["t"]);
    let events: u64 = sql.value("SELECT coalesce(sum(events), 0) FROM subjects").await?;
    ensure!(events >= last, "{events} events are counted of {last}");
    Ok(())
}

/// All rows of a query, in an order of their own.
async fn rows(sql: &mut Sql, query: &str) -> Result<Vec<Vec<Option<String>>>> {
    let mut rows = sql.query(query).await?.rows;
    rows.sort();
    Ok(rows)
}

/// Checks that a view has the rows of its query over the source, once it has read everything.
async fn compare(sql: &mut Sql, view: &str, query: &str) -> Result<()> {
    let wanted = rows(sql, query).await?;
    eventually_equal(&format!("rows of {view}: {query}"), LATE, wanted, async || {
        rows(sql, &format!("SELECT * FROM {view}")).await
    })
    .await
}

#[test]
fn groups_are_exact_over_history_and_over_what_arrives_while_they_are_created() {
    scenario("groups", async |sandbox| {
        const TOTAL: u64 = 40_000;
        let (nats, weir) = standalone(sandbox).await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", SUBJECTS));
        sql.query(&create_events_with("SOURCE s", &nats.address(), ", consumer.durable_name = 'jobs'")).await?;
        // Before there is a message, beside history, and while messages arrive.
        sql.query(&by_subject("empty")).await?;
        publish_all(&nats.client().await?, &events, 0..TOTAL / 4).await?;
        compare_by_subject(&mut sql, "empty", &events, TOTAL / 4).await?;
        sql.query(&by_subject("history")).await?;
        compare_by_subject(&mut sql, "history", &events, TOTAL / 4).await?;
        let client = nats.client().await?;
        let publishing = publish_all(&client, &events, TOTAL / 4..TOTAL);
        let creating = async {
            let mut other = weir.sql();
            other.query(&by_subject("during")).await?;
            other.query(&by_key("keys")).await?;
            other.query("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS events, sum(price) FROM s").await
        };
        let (published, created) = tokio::join!(publishing, creating);
        published?;
        created?;
        for view in ["empty", "history", "during"] {
            compare_by_subject(&mut sql, view, &events, TOTAL).await?;
        }
        compare_by_key(&mut sql, "keys", TOTAL).await?;
        wait_for(&mut sql, "SELECT events FROM total", TOTAL, LATE).await?;
        let sum: u64 = (0..TOTAL).map(Events::price).sum();
        ensure!(sql.value::<u64>("SELECT sum FROM total").await? == sum);

        // A dropped one leaves the others alone, and its name is free.
        sql.query("DROP MATERIALIZED VIEW history, keys").await?;
        publish_all(&nats.client().await?, &events, TOTAL..TOTAL + 1_000).await?;
        sql.query(&by_key("history")).await?;
        compare_by_subject(&mut sql, "during", &events, TOTAL + 1_000).await?;
        compare_by_key(&mut sql, "history", TOTAL + 1_000).await?;
        sql.query("DROP SOURCE s CASCADE").await?;
        eventually_equal("no job", LATE, 0, async || sql.value::<u64>("SELECT count(*) FROM weir_catalog.jobs").await)
            .await
    });
}

/// Views over a source and over these views, while nodes are killed that have `environment`.
fn kills(name: &str, environment: &'static [(&'static str, &'static str)]) {
    scenario(name, async |sandbox| {
        const TOTAL: u64 = 60_000;
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut cluster = Cluster::start_with(State::local(sandbox)?, environment, sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", SUBJECTS));
        sql.query(&create_events_with("SOURCE s", &nats.address(), &split_by_subject())).await?;
        sql.query(&by_subject("subjects")).await?;
        sql.query(&by_key("keys")).await?;
        let keyed = create_events_with("TABLE k", &nats.address(), &split_by_subject());
        sql.query(&keyed.replace("varchar)", "varchar, PRIMARY KEY (price))")).await?;
        sql.query(&create_events_with("TABLE a", &nats.address(), &split_by_subject())).await?;
        sql.query("CREATE MATERIALIZED VIEW picked AS SELECT subject, seq, price FROM s WHERE seq % 3 = 0").await?;
        sql.query(&create_events_with("SOURCE whole", &nats.address(), "")).await?;
        sql.query(&format!("CREATE MATERIALIZED VIEW several AS {SEVERAL}")).await?;
        for view in FAILING {
            sql.query(view).await?;
        }
        let mut created = 0;
        publish_while_nodes_are_killed(&mut cluster, (&nats, &events, TOTAL), async || {
            // A node is killed while these begin.
            let query = QUERIES[created % QUERIES.len()];
            sql.query(&format!("CREATE MATERIALIZED VIEW IF NOT EXISTS v{created} AS {query}")).await?;
            let upper = upper(created);
            sql.query(&format!("CREATE MATERIALIZED VIEW IF NOT EXISTS u{created} AS {upper}")).await?;
            if let Some((view, query)) = OVER_STORED.get(created) {
                sql.query(&format!("CREATE MATERIALIZED VIEW IF NOT EXISTS {view} AS {query}")).await?;
            }
            created += 1;
            agree(&mut sql, created).await?;
            letters_agree(&mut sql).await?;
            reads_what_is_published(&mut sql, &nats).await
        })
        .await?;
        // All of it is still there after one more start of every node.
        for is_last in [false, true] {
            compare_by_subject(&mut sql, "subjects", &events, TOTAL).await?;
            compare_by_key(&mut sql, "keys", TOTAL).await?;
            compare(&mut sql, "several", SEVERAL).await?;
            letters_of_events(&mut sql, TOTAL).await?;
            letters_agree(&mut sql).await?;
            for view in 0..created {
                compare(&mut sql, &format!("v{view}"), QUERIES[view % QUERIES.len()]).await?;
            }
            agree(&mut sql, created).await?;
            for view in 0..created {
                agrees(&mut sql, &format!("u{view}"), &upper(view)).await?;
            }
            for (view, query) in OVER_STORED.iter().take(created) {
                agrees(&mut sql, view, query).await?;
            }
            if !is_last {
                for node in [Node::Compute(0), Node::Compute(1), Node::Meta(0)] {
                    cluster.node(node).process().kill9()?;
                    cluster.node(node).process().restart()?;
                }
            }
        }
        Ok(())
    });
}

/// Rounds of publishing a message and reading it.
const ROUNDS: u64 = 100;
/// A round asks for a barrier. Without that it would take half of the interval between two.
const ROUND_MAX: Duration = Duration::from_millis(2_000);
const BARRIER_INTERVAL_MS: &str = "60000";

#[test]
fn a_publisher_that_waits_for_its_event_reads_it_before_the_next_barrier_is_due() {
    scenario("own-events", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut weir = Weir::standalone_with(sandbox, &[("--barrier-interval-ms", BARRIER_INTERVAL_MS)])?;
        weir.ready().await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", SUBJECTS));
        sql.query(&create_events_with("SOURCE s", &nats.address(), "")).await?;
        sql.query(&by_subject("subjects")).await?;
        sql.query("CREATE MATERIALIZED VIEW total AS SELECT sum(events) AS events FROM subjects").await?;
        let jetstream = nats.jetstream().await?;
        let mut times = Vec::new();
        for number in 0..ROUNDS {
            let began = Instant::now();
            let ack = jetstream.publish(events.subject(number), events.payload(number)).await?.await?;
            sql.query(&format!("SET wait_for = 'EVENTS:{}'", ack.sequence)).await?;
            let read: u64 = sql.value("SELECT events FROM total").await?;
            ensure!(read == ack.sequence, "{read} events are read of {}", ack.sequence);
            times.push(began.elapsed());
        }
        times.sort();
        let [median, most] = [50, 99].map(|percent| times[times.len() * percent / 100]);
        eprintln!("publish, wait, SELECT: p50 {median:?}, p99 {most:?}");
        ensure!(median < ROUND_MAX, "a round takes {median:?}");
        Ok(())
    });
}

/// A statement on a connection of its own: the client, and the notices that it gets.
async fn notified(weir: &Weir) -> Result<(Client, mpsc::UnboundedReceiver<String>, AbortOnDropHandle<()>)> {
    let address = weir.sql_address();
    let parameters = format!("host={} port={} user=root dbname=dev", address.ip(), address.port());
    let (client, mut connection) = tokio_postgres::connect(&parameters, NoTls).await?;
    let (sender, notices) = mpsc::unbounded_channel();
    let hear = async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = sender.send(notice.message().to_owned());
            }
        }
    };
    Ok((client, notices, AbortOnDropHandle::new(tokio::spawn(hear))))
}

/// Waits until the view `slow` is being created, or until there is none.
async fn slow_is(sql: &mut Sql, state: Option<&str>) -> Result<()> {
    let jobs = "SELECT coalesce(max(state), 'none') FROM weir_catalog.jobs WHERE name = 'slow'";
    eventually_equal("state of the view", LATE, state.unwrap_or("none").to_owned(), async || {
        sql.value::<String>(jobs).await
    })
    .await
}

#[test]
fn a_view_whose_creation_is_cancelled_is_gone() {
    scenario("cancelled-views", async |sandbox| {
        const ROWS: u64 = 4_000;
        const CREATE: &str = "CREATE MATERIALIZED VIEW slow AS SELECT n, count(*) AS rows FROM rows GROUP BY n";
        let (nats, weir) = standalone(sandbox).await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", SUBJECTS));
        sql.query(&create_events_with("SOURCE s", &nats.address(), "")).await?;
        publish_all(&nats.client().await?, &events, 0..ROWS).await?;
        sql.query("CREATE MATERIALIZED VIEW rows AS SELECT seq, count(*) AS n FROM s GROUP BY seq").await?;
        sql.query(&format!("SELECT weir_wait_for('EVENTS', {ROWS})")).await?;

        // Somebody presses Ctrl-C.
        let (client, mut notices, _hearing) = notified(&weir).await?;
        client.simple_query("SET backfill_rate_limit = 100").await?;
        let creating = client.simple_query(CREATE);
        let cancelling = async {
            slow_is(&mut sql, Some("creating")).await?;
            let refused = sql.refused("SELECT * FROM slow").await?;
            ensure!(refused.code().code() == "55000", "{refused}");
            let progress = "SELECT progress FROM weir_catalog.jobs WHERE name = 'slow'";
            ensure!((0.0..100.0).contains(&sql.value::<f64>(progress).await?));
            let notice = notices.recv().await.context("no progress is told")?;
            ensure!(notice.starts_with("materialized view \"slow\" has read "), "{notice}");
            client.cancel_token().cancel_query(NoTls).await?;
            Ok(())
        };
        let (created, cancelled) = tokio::join!(creating, cancelling);
        cancelled?;
        let refused = created.expect_err("it was cancelled");
        ensure!(refused.code().is_some_and(|code| code.code() == "57014"), "{refused}");
        ensure!(sql.value::<u64>("SELECT count(*) FROM weir_catalog.jobs WHERE name = 'slow'").await? == 0);

        // The client goes away.
        {
            let creating = client.simple_query(CREATE);
            tokio::select! {
                created = creating => anyhow::bail!("it has ended: {created:?}"),
                seen = slow_is(&mut sql, Some("creating")) => seen?,
            }
        }
        drop((client, _hearing));
        slow_is(&mut sql, None).await?;

        // Nobody waits for it.
        sql.query("SET backfill_rate_limit = 100").await?;
        sql.query("SET background_ddl = true").await?;
        sql.query(CREATE).await?;
        slow_is(&mut sql, Some("creating")).await?;
        ensure!(sql.refused("VERIFY MATERIALIZED VIEW slow").await?.code().code() == "55000");
        let id: u64 = sql.value("SELECT id FROM weir_catalog.jobs WHERE name = 'slow'").await?;
        sql.query(&format!("CANCEL JOB {id}")).await?;
        slow_is(&mut sql, None).await?;
        ensure!(sql.refused(&format!("CANCEL JOBS {id}")).await?.code().code() == "42704");

        sql.query("RESET background_ddl").await?;
        sql.query("RESET backfill_rate_limit").await?;
        sql.query(CREATE).await?;
        ensure!(sql.query("SELECT n, rows FROM slow").await?.row(0) == ["1", "4000"]);
        ensure!(sql.query("VERIFY MATERIALIZED VIEW slow").await?.rows.is_empty());
        slow_is(&mut sql, Some("running")).await?;
        let id: u64 = sql.value("SELECT id FROM weir_catalog.jobs WHERE name = 'slow'").await?;
        ensure!(sql.refused(&format!("CANCEL JOB {id}")).await?.code().code() == "55000");
        Ok(())
    });
}

#[test]
fn aggregates_are_exact_whoever_is_killed() {
    kills("aggregates-kills", &[]);
}

/// As before, but operators remember next to nothing of their state.
#[test]
fn aggregates_are_exact_whoever_is_killed_though_memory_holds_a_fraction_of_the_groups() {
    kills("aggregates-memory", &[("WEIR_STATE_MEMORY_BYTES", "65536")]);
}

/// Waits until both compute nodes take part in the term that runs. Returns the term.
async fn settled(sql: &mut Sql) -> Result<String> {
    eventually_equal("both compute nodes to run", LATE, 2, async || {
        let cluster = sql.query("SHOW CLUSTER").await?;
        Ok(cluster.column("State").iter().filter(|state| **state == "running").count())
    })
    .await?;
    term(sql).await
}

/// Checks that a view has the rows of its query, in whichever epoch is the newest.
async fn verified(sql: &mut Sql, view: &str) -> Result<()> {
    let differing = sql.query(&format!("VERIFY MATERIALIZED VIEW {view}")).await?;
    ensure!(differing.rows.is_empty(), "{view} differs from its query:\n{differing}");
    Ok(())
}

/// Checks that the views which stopped, and those above them, have failed and cannot be read.
async fn have_stopped(sql: &mut Sql, views: &[&str]) -> Result<()> {
    for view in views {
        let state = format!("SELECT state FROM weir_catalog.jobs WHERE name = '{view}'");
        eventually_equal(&format!("{view} to fail"), LATE, "failed".to_owned(), async || sql.value(&state).await)
            .await?;
        let refused = sql.refused(&format!("SELECT * FROM {view}")).await?;
        let told = refused.message().contains("division by zero, in ");
        ensure!(refused.code().code() == "55000" && told, "{view}: {refused}");
    }
    Ok(())
}

#[test]
fn a_view_that_stops_at_a_failing_row_stops_alone_whoever_is_killed() {
    scenario("on-error", async |sandbox| {
        // The events for which expressions of some views fail.
        const EARLY: u64 = 20_100;
        const LATER: u64 = 40_000;
        const TOTAL: u64 = 60_000;
        const STOPPED: [&str; 8] =
            ["early", "of_early", "early_rows", "of_early_rows", "late", "of_late", "late_rows", "of_late_rows"];
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        cluster.expect_warnings(&["job failed, and stops alone"]);
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", SUBJECTS));
        sql.query(&create_events_with("SOURCE s", &nats.address(), &split_by_subject())).await?;
        let keyed = create_events_with("TABLE k", &nats.address(), &split_by_subject());
        sql.query(&keyed.replace("varchar)", "varchar, PRIMARY KEY (price))")).await?;
        sql.query(&by_subject("subjects")).await?;
        sql.query(&by_key("keys")).await?;
        sql.query(&format!("CREATE MATERIALIZED VIEW of_k AS {}", OVER_STORED[2].1)).await?;
        for (name, bad) in [("early", EARLY), ("late", LATER)] {
            let expression = format!("10 / (seq - {bad})");
            for (view, query) in [
                (
                    name.to_owned(),
                    format!("SELECT subject, count(*) AS n, sum({expression}) AS total FROM s GROUP BY subject"),
                ),
                (format!("{name}_rows"), format!("SELECT seq, {expression} AS part FROM s")),
            ] {
                sql.query(&format!("CREATE MATERIALIZED VIEW {view} WITH (on_error = 'fail') AS {query}")).await?;
                sql.query(&format!("CREATE MATERIALIZED VIEW of_{view} AS SELECT count(*) AS n FROM {view}")).await?;
            }
        }
        let client = nats.client().await?;
        // A node is killed before one of them fails.
        let publishing = publish_in_background(client.clone(), events.clone(), 0..20_000, 4_000);
        wait_for(&mut sql, "SELECT CASE WHEN sum(n) > 2000 THEN 1 ELSE 0 END FROM early", 1, LATE).await?;
        cluster.node(Node::Compute(0)).process().kill9()?;
        publishing.await??;
        cluster.node(Node::Compute(0)).process().restart()?;
        let before = settled(&mut sql).await?;
        for view in ["early", "late"] {
            wait_for(&mut sql, &format!("SELECT sum(n) FROM {view}"), 20_000, LATE).await?;
            wait_for(&mut sql, &format!("SELECT count(*) FROM {view}_rows"), 20_000, LATE).await?;
        }
        publish_all(&client, &events, 20_000..30_000).await?;
        have_stopped(&mut sql, &STOPPED[..4]).await?;
        compare_by_subject(&mut sql, "subjects", &events, 30_000).await?;
        wait_for(&mut sql, "SELECT sum(n) FROM late", 30_000, LATE).await?;
        wait_for(&mut sql, "SELECT n FROM of_late_rows", 30_000, LATE).await?;
        verified(&mut sql, "of_k").await?;
        ensure!(term(&mut sql).await? == before, "a term has ended");

        // A node is killed while the others fail.
        let publishing = publish_in_background(client.clone(), events.clone(), 30_000..TOTAL, 4_000);
        wait_for(&mut sql, "SELECT CASE WHEN sum(events) > 38000 THEN 1 ELSE 0 END FROM subjects", 1, LATE).await?;
        cluster.node(Node::Compute(1)).process().kill9()?;
        cluster.node(Node::Compute(1)).process().restart()?;
        publishing.await??;
        have_stopped(&mut sql, &STOPPED).await?;

        // They stay as they are after a start of all processes, which do not try them again.
        for is_last in [false, true] {
            compare_by_subject(&mut sql, "subjects", &events, TOTAL).await?;
            compare_by_key(&mut sql, "keys", TOTAL).await?;
            have_stopped(&mut sql, &STOPPED).await?;
            verified(&mut sql, "of_k").await?;
            if !is_last {
                for node in [Node::Compute(0), Node::Compute(1), Node::Meta(0)] {
                    cluster.node(node).process().kill9()?;
                    cluster.node(node).process().restart()?;
                }
            }
        }
        let before = settled(&mut sql).await?;
        sql.query("FLUSH").await?;
        sql.query("DROP MATERIALIZED VIEW early, late_rows CASCADE").await?;
        sql.query("FLUSH").await?;
        compare_by_subject(&mut sql, "subjects", &events, TOTAL).await?;
        ensure!(term(&mut sql).await? == before, "a term has ended");
        Ok(())
    });
}

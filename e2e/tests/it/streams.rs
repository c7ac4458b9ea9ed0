//! `CREATE SOURCE`: a stream that is declared, read when a statement asks for it, and stored nowhere but in NATS.

use anyhow::{Context, Result, ensure};
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::weir::{Cluster, Weir};

use crate::support::{SOON, acknowledged, events_options, publish_payloads, publish_raw, standalone, wait_for};

/// Creates `name (n bigint)` with its subject and sequence over the stream `EVENTS`, with more options.
async fn create(sql: &mut Sql, nats: &Nats, name: &str, more: &str) -> Result<()> {
    let options = events_options(&nats.address());
    let statement = format!(
        "CREATE SOURCE {name} (n bigint) INCLUDE subject AS subject INCLUDE offset AS sequence WITH ({options}{more}) \
         FORMAT PLAIN ENCODE JSON"
    );
    sql.query(&statement).await?;
    Ok(())
}

async fn publish_numbers(nats: &Nats, subject: &str, numbers: std::ops::Range<u64>) -> Result<()> {
    let payloads = numbers.map(|number| format!("{{\"n\": {number}}}")).collect::<Vec<_>>();
    publish_payloads(nats, subject, &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await
}

#[test]
fn a_select_reads_the_stream_up_to_its_end() {
    scenario("source", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create(&mut sql, &nats, "s", ", consumer.durable_name = 'jobs'").await?;
        let count = "SELECT count(*) FROM s";
        ensure!(sql.value::<u64>(count).await? == 0);
        publish_numbers(&nats, "events.a", 0..20_000).await?;
        publish_numbers(&nats, "events.b", 20_000..20_100).await?;
        // What was acknowledged before a statement is in its answer.
        ensure!(sql.value::<u64>(count).await? == 20_100);
        ensure!(sql.value::<u64>("SELECT sum(n) FROM s").await? == 20_099 * 20_100 / 2);
        ensure!(sql.value::<u64>("SELECT count(DISTINCT sequence) FROM s").await? == 20_100);
        publish_numbers(&nats, "events.c", 0..1).await?;
        ensure!(sql.value::<u64>(count).await? == 20_101);
        ensure!(sql.query("SELECT n FROM s LIMIT 3").await?.rows.len() == 3);
        // Every source reads all of it, whoever else does.
        create(&mut sql, &nats, "latest", ", scan.startup.mode = 'latest'").await?;
        publish_numbers(&nats, "events.c", 1..5).await?;
        ensure!(sql.value::<u64>("SELECT count(*) FROM latest").await? == 4);
        ensure!(sql.value::<u64>("SELECT count(*) FROM s JOIN latest USING (sequence)").await? == 4);
        // Reading leaves no consumer behind, and the durable is for jobs.
        let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
        weir_e2e::wait::eventually_equal("no consumers", SOON, 0, async || {
            Ok(stream.get_info().await?.state.consumer_count)
        })
        .await
    });
}

#[test]
fn subject_and_sequence_in_a_where_narrow_what_is_read() {
    scenario("source-where", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create(&mut sql, &nats, "s", "").await?;
        for (subject, numbers) in [("events.a", 0..100), ("events.b", 100..200), ("events.c", 200..300)] {
            publish_numbers(&nats, subject, numbers).await?;
        }
        for (condition, pushed, count) in [
            ("subject = 'events.b'", "subjects=[events.b]", 100),
            ("subject IN ('events.a', 'events.c')", "subjects=[events.a, events.c]", 200),
            ("sequence::bigint > 250", "sequences=251..=", 50),
            ("sequence::bigint BETWEEN 90 AND 110 AND subject = 'events.b'", "sequences=90..=110", 10),
            ("sequence = '7'", "sequences=7..=7", 1),
            ("subject = 'events.a' AND n % 2 = 0", "subjects=[events.a]", 50),
            ("subject = 'elsewhere'", "subjects=[elsewhere]", 0),
            ("subject = 'events.b' AND sequence::bigint < 50", "sequences=..=49", 0),
        ] {
            let plan = sql.query(&format!("EXPLAIN SELECT count(*) FROM s WHERE {condition}")).await?;
            ensure!(plan.to_string().contains(pushed), "{condition}: {plan}");
            let found = sql.value::<u64>(&format!("SELECT count(*) FROM s WHERE {condition}")).await?;
            ensure!(found == count, "{condition}: {found}");
        }
        Ok(())
    });
}

#[test]
fn a_subject_in_a_where_is_compared_as_it_is_written() {
    scenario("source-where-odd", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create(&mut sql, &nats, "s", "").await?;
        publish_numbers(&nats, "events.a", 0..100).await?;
        // A server takes wildcards and control characters as part of a subject.
        publish_raw(&nats, "events.*", None, r#"{"n": 1}"#).await?;
        publish_raw(&nats, "events.\u{1}", None, r#"{"n": 1}"#).await?;
        let long = format!("subject = 'events.{}'", "x".repeat(5_000));
        for (condition, count) in [
            ("subject = 'events.'", 0),
            ("subject = 'x.'", 0),
            ("subject = ''", 0),
            ("subject = ' '", 0),
            ("subject = '.events'", 0),
            ("subject = 'events..a'", 0),
            ("subject = 'events a'", 0),
            ("subject = E'events\\ta'", 0),
            ("subject = 'events.>'", 0),
            ("subject = 'events.*'", 1),
            ("subject = E'events.\\x01'", 1),
            (long.as_str(), 0),
            ("subject IN ('x.', '')", 0),
            ("subject IN ('x.', 'events.a')", 100),
            ("subject IN ('events.*', 'events.a')", 101),
            ("subject = 'x.' OR subject = 'events.a'", 100),
            ("subject = 'x.' OR n = 7", 1),
            ("subject = 'events.a' AND subject = 'events.b'", 0),
            ("subject LIKE 'x.'", 0),
            ("subject LIKE 'events.%'", 102),
            ("subject <> 'x.'", 102),
            ("NOT subject = 'x.'", 102),
        ] {
            let found = sql.value::<u64>(&format!("SELECT count(*) FROM s WHERE {condition}")).await;
            let found = found.with_context(|| condition.to_owned())?;
            ensure!(found == count, "{condition}: {found}");
        }
        let plan = sql.query("EXPLAIN SELECT * FROM s WHERE subject = 'x.'").await?;
        ensure!(plan.to_string().contains("EmptyExec"), "{plan}");
        Ok(())
    });
}

#[test]
fn headers_that_end_the_client_stop_nothing() {
    scenario("source-headers", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        publish_numbers(&nats, "events.a", 0..10).await?;
        for n in 10..12 {
            let headers = "NATS/1.0\r\nk: a\rb\r\n\r\n";
            publish_raw(&nats, "events.a", Some(headers), &format!("{{\"n\": {n}}}")).await?;
        }
        publish_numbers(&nats, "events.a", 12..20).await?;
        create(&mut sql, &nats, "s", "").await?;
        let options = events_options(&nats.address());
        let table = format!(
            "TABLE t (n bigint) INCLUDE header AS headers WITH ({options}, consumer.durable_name = 'd') FORMAT PLAIN ENCODE JSON"
        );
        let findings = sql.query(&format!("EXPLAIN CREATE {table}")).await?;
        ensure!(!findings.to_string().contains("error"), "{findings}");
        sql.query(&format!("CREATE {table}")).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 20, SOON).await?;
        ensure!(sql.value::<u64>("SELECT count(*) FROM t WHERE headers IS NULL").await? == 20);
        ensure!(sql.value::<u64>("SELECT count(*) FROM s").await? == 20);
        ensure!(sql.value::<u64>("SELECT sum(n) FROM s WHERE subject = 'events.a'").await? == 190);
        publish_numbers(&nats, "events.a", 20..30).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 30, SOON).await?;
        acknowledged(&nats, "d").await
    });
}

#[test]
fn what_is_no_row_of_a_source_is_read_as_its_dead_letters() {
    scenario("source-dead-letters", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create(&mut sql, &nats, "s", "").await?;
        ensure!(sql.query("SELECT * FROM dead_letters.s").await?.rows.is_empty());
        publish_numbers(&nats, "events.a", 0..3).await?;
        publish_payloads(&nats, "events.b", &[r#"{"n": "x"}"#, "{"]).await?;
        publish_numbers(&nats, "events.a", 3..5_000).await?;
        ensure!(sql.value::<u64>("SELECT count(*) FROM s").await? == 5_000);
        let letters = "SELECT stream, sequence, subject, \"column\", convert_from(payload, 'UTF8'), error IS NULL, \
                       time > '2020-01-01' FROM dead_letters.s ORDER BY sequence";
        let found = sql.query(letters).await?;
        ensure!(found.rows.len() == 2, "{found}");
        ensure!(found.row(0) == ["EVENTS", "4", "events.b", "n", r#"{"n": "x"}"#, "f", "t"], "{found}");
        ensure!(found.row(1) == ["EVENTS", "5", "events.b", "", "{", "f", "t"], "{found}");
        ensure!(sql.value::<u64>("SELECT count(*) FROM dead_letters.s").await? == 2);
        ensure!(sql.query("SELECT error FROM dead_letters.s LIMIT 1").await?.rows.len() == 1);
        // Where a bad record fails a statement, this is how to find it.
        sql.query("ALTER SOURCE s CONNECTOR WITH (on_error = 'fail')").await?;
        let refused = sql.refused("SELECT count(*) FROM s").await?;
        ensure!(refused.code().code() == "22P02", "{refused:?}");
        ensure!(sql.value::<u64>("SELECT min(sequence) FROM dead_letters.s").await? == 4);
        Ok(())
    });
}

#[test]
fn a_source_is_shown_and_dropped_as_one() {
    scenario("source-shown", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create(&mut sql, &nats, "s", "").await?;
        sql.query(&format!(
            "CREATE TABLE t (n bigint) WITH ({}) FORMAT PLAIN ENCODE JSON",
            events_options(&nats.address())
        ))
        .await?;
        ensure!(sql.query("SHOW SOURCES").await?.row(0) == ["s"]);
        ensure!(sql.query("SHOW TABLES").await?.row(0) == ["t"]);
        ensure!(sql.query("SHOW CREATE SOURCE s").await?.row(0)[1].starts_with("CREATE SOURCE s (n bigint)"));
        ensure!(sql.query("SHOW JOBS").await?.rows.len() == 1, "a source is no job");
        ensure!(sql.query("DESCRIBE s").await?.rows.len() == 3);
        for (statement, state) in [
            ("DROP TABLE s", "42809"),
            ("DROP SOURCE t", "42809"),
            ("DROP SOURCE absent", "42P01"),
            ("SHOW CREATE TABLE s", "42809"),
            ("SELECT * FROM dead_letters.absent", "42P01"),
        ] {
            let refused = sql.refused(statement).await?;
            ensure!(refused.code().code() == state, "{statement}: {refused:?}");
        }
        sql.query("DROP SOURCE IF EXISTS absent").await?;
        sql.query("DROP SOURCE s").await?;
        ensure!(sql.refused("SELECT * FROM s").await?.code().code() == "42P01");
        Ok(())
    });
}

#[test]
fn a_source_outlives_every_node() {
    scenario("source-crash", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        let mut sql = cluster.frontend.sql();
        create(&mut sql, &nats, "s", "").await?;
        for round in 1..=4_u64 {
            publish_numbers(&nats, "events.a", 0..1_000).await?;
            let victim = &mut cluster.computes[usize::try_from(round % 2).context("0 or 1")?];
            victim.process().kill9()?;
            victim.process().restart()?;
            ensure!(sql.value::<u64>("SELECT count(*) FROM s").await? == round * 1_000);
        }
        cluster.metas[0].process().kill9()?;
        cluster.metas[0].process().restart()?;
        wait_for(&mut sql, "SELECT count(*) FROM s", 4_000, SOON).await
    });
}

/// The statement of the reference page, with a server and a user in place of the variables.
const SECOND_EXAMPLE: &str = "CREATE SOURCE test_source
WITH (
    connector='nats',
    server_url='SERVER',
    subject='risingwave.test.source',
    stream='risingwave-test-source',
    allow_create_stream='true',
    scan.startup.mode='earliest',
    connect_mode='user_and_password',
    username='USER',
    password='PASSWORD',
    consumer.durable_name='risingwave-test-source',
    consumer.description='desc-test-source',
    consumer.ack_policy='all',
    consumer.ack_wait=10,
    consumer.max_deliver=10,
    consumer.filter_subjects='demo.subject.filter.*',
    consumer.filter_subjects='demo.subject.filter.1,demo.subject.filter.2',
    consumer.replay_policy='instant',
    consumer.rate_limit=100000000000,
    consumer.sample_frequency=100,
    consumer.max_waiting=10,
    consumer.max_ack_pending=10,
    -- consumer.idle_heartbeat=60, not available in async_nats crate
    consumer.max_batch=1000,
    consumer.max_bytes=1000000000,
    consumer.max_expires=3600,
    consumer.inactive_threshold=10000000,
    consumer.memory_storage='false',
    consumer.backoff='10,30,60',
    consumer.num_replicas=1
) FORMAT PLAIN ENCODE JSON;";

#[test]
fn the_second_example_of_the_reference_runs_as_it_stands() {
    scenario("second-example", async |sandbox| {
        let nats = Nats::start_with(sandbox, &["--user", "reader", "--pass", "open-sesame"]).await?;
        let mut weir = Weir::standalone(sandbox)?;
        weir.ready().await?;
        let mut sql = weir.sql();
        let options = async_nats::ConnectOptions::with_user_and_password("reader".to_owned(), "open-sesame".to_owned());
        let statement = SECOND_EXAMPLE.replace("SERVER", &nats.address()).replace("USER", "reader");
        sql.query(&statement.replace("PASSWORD", "open-sesame")).await?;
        let client = options.connect(nats.address()).await?;
        let jetstream = async_nats::jetstream::new(client);
        for payload in [r#"{"b": 1, "a": [true]}"#, "17"] {
            jetstream.publish("risingwave.test.source", payload.into()).await?.await?;
        }
        let answer = sql.query("SELECT payload FROM test_source").await?;
        ensure!(answer.row(0) == [r#"{"a": [true], "b": 1}"#], "{answer}");
        ensure!(answer.row(1) == ["17"], "{answer}");
        Ok(())
    });
}

#[test]
fn explain_create_says_what_create_would_find_and_changes_nothing() {
    scenario("explain-create", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        let config = async_nats::jetstream::stream::Config {
            name: "EVENTS".to_owned(),
            subjects: vec!["events.>".to_owned()],
            max_age: SOON * 100,
            ..Default::default()
        };
        let stream = nats.jetstream().await?.create_stream(config).await?;
        let mut weir = Weir::standalone(sandbox)?;
        weir.ready().await?;
        let mut sql = weir.sql();
        publish_numbers(&nats, "events.a", 0..3).await?;
        let options = events_options(&nats.address());
        let explain = |options: &str, more: &str| {
            format!("EXPLAIN CREATE TABLE t (n bigint) WITH ({options}{more}) FORMAT PLAIN ENCODE JSON")
        };
        let answer = sql.query(&explain(&options, ", consumer.durable_name = 'd'")).await?;
        let found = answer.to_string();
        for part in [
            "nats-server 2.",
            "Limits retention and 3 messages, 1 to 3",
            "discards old messages",
            "everything that reading needs is permitted",
            "consumer \"d\" would be created",
            "\"EVENTS\" from sequence 1",
        ] {
            ensure!(found.contains(part), "{part}: {found}");
        }
        ensure!(!found.contains("error"), "{found}");
        let absent = sql.query(&explain(&options.replace("EVENTS", "OTHER"), "")).await?.to_string();
        ensure!(absent.contains("set `allow_create_stream` to true"), "{absent}");
        let created = sql.query(&explain(&options.replace("EVENTS", "OTHER"), ", allow_create_stream = true")).await?;
        ensure!(created.to_string().contains("would be created"), "{created}");
        let elsewhere = sql.query(&explain(&options.replace("events.>", "orders.*"), "")).await?.to_string();
        ensure!(elsewhere.contains("no messages under subject \"orders.*\""), "{elsewhere}");
        ensure!(stream.get_info().await?.state.consumer_count == 0);
        ensure!(nats.jetstream().await?.get_stream("OTHER").await.is_err(), "nothing is created");
        ensure!(sql.query("SHOW TABLES").await?.rows.is_empty());
        Ok(())
    });
}

#[test]
fn a_source_reads_what_its_stream_still_holds_and_has_lost_nothing() {
    scenario("source-purged", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create(&mut sql, &nats, "s", ", on_gap = 'fail'").await?;
        publish_numbers(&nats, "events.a", 0..100).await?;
        ensure!(sql.value::<u64>("SELECT count(*) FROM s").await? == 100);
        nats.jetstream().await?.get_stream("EVENTS").await?.purge().sequence(61).await?;
        ensure!(sql.value::<u64>("SELECT count(*) FROM s").await? == 40);
        ensure!(sql.value::<u64>("SELECT count(*) FROM s WHERE sequence::bigint > 1000").await? == 0);
        Ok(())
    });
}

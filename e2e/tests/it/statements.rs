//! The statements around a table: SHOW, DESCRIBE, DROP, and queries of every kind; and that a restart forgets nothing.

use anyhow::ensure;
use weir_e2e::publish::publish_all;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::weir::Weir;
use weir_e2e::workload::Events;

use crate::support::{LATE, SOON, compare_events, create_events, events_options, standalone, wait_for};

#[test]
fn tables_are_listed_described_and_shown() {
    scenario("show", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        ensure!(sql.query("SHOW TABLES").await?.rows.is_empty(), "a new cluster has no tables");
        let statement = create_events("events", &nats.address(), "d");
        sql.query(&statement).await?;
        sql.query(&create_events("another", &nats.address(), "e")).await?;

        let tables = sql.query("SHOW TABLES").await?;
        let mut names = tables.rows.iter().filter_map(|row| row[0].as_deref()).collect::<Vec<_>>();
        names.sort_unstable();
        assert_eq!(names, ["another", "events"]);

        let described = sql.query("DESCRIBE events").await?;
        let described =
            described.rows.iter().map(|row| (row[0].as_deref().unwrap_or(""), row[1].as_deref().unwrap_or("")));
        let wanted = [
            ("seq", "bigint"),
            ("price", "bigint"),
            ("note", "character varying"),
            ("stream_seq", "character varying"),
            ("subject", "character varying"),
        ];
        assert_eq!(described.collect::<Vec<_>>(), wanted);

        let shown = sql.query("SHOW CREATE TABLE events").await?;
        let text = shown.row(0).join(" ");
        assert!(text.contains(&statement), "{text}\ndoes not show\n{statement}");

        let cluster = sql.query("SHOW CLUSTER").await?;
        let text = format!("{cluster:?}");
        assert!(text.contains("meta") && text.contains("compute"), "{cluster}");
        Ok(())
    });
}

#[test]
fn a_dropped_table_is_gone_and_can_be_created_again() {
    scenario("drop", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", 3));
        publish_all(&nats.client().await?, &events, 0..3_000).await?;
        let statement = create_events("events", &nats.address(), "d");
        sql.query(&statement).await?;
        compare_events(&mut sql, "events", &events, 3_000).await?;

        sql.query("DROP TABLE events").await?;
        let refusal = sql.refused("SELECT count(*) FROM events").await?;
        assert_eq!(refusal.code().code(), "42P01");
        let refusal = sql.refused("DROP TABLE events").await?;
        assert_eq!(refusal.code().code(), "42P01");
        sql.query("DROP TABLE IF EXISTS events").await?;

        sql.query(&statement).await?;
        compare_events(&mut sql, "events", &events, 3_000).await?;
        let refusal = sql.refused(&statement).await?;
        assert_eq!(refusal.code().code(), "42P07");
        sql.query(&statement.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")).await?;
        compare_events(&mut sql, "events", &events, 3_000).await
    });
}

#[test]
fn queries_run_over_tables_as_in_postgres() {
    scenario("queries", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        publish_all(&nats.client().await?, &Events::new("events", 3), 0..1_000).await?;
        sql.query(&create_events("events", &nats.address(), "d")).await?;
        wait_for(&mut sql, "SELECT count(*) FROM events", 1_000, SOON).await?;
        let prices = (0..1_000).map(Events::price).collect::<Vec<_>>();
        let dear = prices.iter().filter(|&&price| price > 500_000).count().to_string();
        let queries = [
            ("SELECT count(*) FROM events WHERE price > 500000", dear.as_str()),
            ("SELECT sum(n) FROM (SELECT subject, count(*) AS n FROM events GROUP BY subject) AS by_subject", "1000"),
            ("SELECT count(*) FROM events AS a JOIN events AS b ON a.seq = b.seq + 1", "999"),
            ("SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET 2", "997"),
            ("WITH first AS (SELECT min(seq) AS s FROM events) SELECT s FROM first", "0"),
            (
                "SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY seq) AS r FROM events) AS x WHERE r <= 10",
                "10",
            ),
            ("SELECT count(*) FROM events WHERE note LIKE '%quoted%' AND length(note) > 0 OR false", &quoted()),
            ("SELECT 1 + 1", "2"),
        ];
        for (query, wanted) in queries {
            assert_eq!(sql.value::<String>(query).await?, wanted, "{query}");
        }
        let plan = sql.query("EXPLAIN SELECT count(*) FROM events").await?;
        assert!(format!("{plan:?}").contains("events"), "{plan}");
        sql.query("SET application_name = 'a test'").await?;
        assert_eq!(sql.value::<String>("SHOW application_name").await?, "a test");
        Ok(())
    });
}

/// How many of the first 1,000 notes contain the word.
fn quoted() -> String {
    (0..1_000).filter(|&number| Events::note(number).contains("quoted")).count().to_string()
}

#[test]
fn a_terminated_process_ends_well_and_forgets_nothing() {
    scenario("terminate", async |sandbox| {
        let (nats, mut weir) = standalone(sandbox).await?;
        let (mut sql, events, client) = (weir.sql(), Events::new("events", 3), nats.client().await?);
        publish_all(&client, &events, 0..3_000).await?;
        sql.query(&create_events("events", &nats.address(), "d")).await?;
        wait_for(&mut sql, "SELECT count(*) FROM events", 3_000, SOON).await?;
        let status = weir.process().terminate(SOON).await?;
        assert!(status.success(), "{status}");
        publish_all(&client, &events, 3_000..5_000).await?;
        weir.process().restart()?;
        weir.ready().await?;
        compare_events(&mut sql, "events", &events, 5_000).await
    });
}

#[test]
fn a_message_as_large_as_nats_takes_is_a_row() {
    scenario("large", async |sandbox| {
        let config = sandbox.path().join("large.conf");
        std::fs::write(&config, "max_payload: 67108864\nmax_pending: 268435456\n")?;
        let nats = Nats::start_with(sandbox, &["--config", &config.display().to_string()]).await?;
        nats.ready().await?;
        // Files take only half as much a message.
        let stream = async_nats::jetstream::stream::Config {
            name: "EVENTS".to_owned(),
            subjects: vec!["events.>".to_owned()],
            storage: async_nats::jetstream::stream::StorageType::Memory,
            ..Default::default()
        };
        nats.jetstream().await?.create_stream(stream).await?;
        let mut weir = Weir::standalone(sandbox)?;
        weir.ready().await?;
        let mut sql = weir.sql();
        let options = events_options(&nats.address());
        sql.query(&format!("CREATE TABLE large (seq bigint, note varchar) WITH ({options}) FORMAT PLAIN ENCODE JSON"))
            .await?;
        let jetstream = nats.jetstream().await?;
        let length = 60 << 20;
        for (seq, length) in [(0, length), (1, 1), (2, length)] {
            let payload = format!("{{\"seq\": {seq}, \"note\": \"{}\"}}", "x".repeat(length));
            jetstream.publish("events.large", payload.into()).await?.await?;
        }
        wait_for(&mut sql, "SELECT count(*) FROM large", 3, LATE).await?;
        let lengths = sql.query("SELECT length(note) FROM large ORDER BY seq").await?;
        let lengths: Vec<&str> = lengths.rows.iter().filter_map(|row| row[0].as_deref()).collect();
        assert_eq!(lengths, [length.to_string(), "1".to_owned(), length.to_string()]);
        Ok(())
    });
}

//! What a table reads of its stream: where it starts, which columns tell where a row came from, how it acknowledges.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use async_nats::HeaderMap;
use weir_e2e::publish::publish_all;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::{eventually, eventually_equal};
use weir_e2e::weir::Weir;
use weir_e2e::workload::Events;

use crate::support::{
    LATE, SOON, acknowledged, compare_events, create_events, events_options, publish_payloads, standalone, wait_for,
};

/// Creates `name (n bigint)` over the stream `EVENTS` with more options.
async fn create(sql: &mut Sql, nats: &Nats, name: &str, more: &str) -> Result<()> {
    let options = events_options(&nats.address());
    let statement = format!("CREATE TABLE {name} (n bigint) WITH ({options}{more}) FORMAT PLAIN ENCODE JSON");
    sql.query(&statement).await?;
    Ok(())
}

async fn publish_numbers(nats: &Nats, numbers: std::ops::Range<u64>) -> Result<()> {
    let payloads = numbers.map(|number| format!("{{\"n\": {number}}}")).collect::<Vec<_>>();
    publish_payloads(nats, "events.n", &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await
}

#[test]
fn rows_are_queryable_moments_after_they_are_published() {
    scenario("fresh", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let (mut sql, events, client) = (weir.sql(), Events::new("events", 5), nats.client().await?);
        publish_all(&client, &events, 0..20_000).await?;
        sql.query(&create_events("events", &nats.address(), "reader")).await?;
        wait_for(&mut sql, "SELECT count(*) FROM events", 20_000, SOON).await?;
        publish_all(&client, &events, 20_000..30_000).await?;
        compare_events(&mut sql, "events", &events, 30_000).await?;
        acknowledged(&nats, "reader").await
    });
}

#[test]
fn flush_makes_rows_that_were_read_queryable() {
    scenario("flush", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        // Without FLUSH nothing would be committed for a minute.
        let mut weir = Weir::standalone_with(sandbox, &[("--barrier-interval-ms", "60000")])?;
        weir.ready().await?;
        let mut sql = weir.sql();
        create(&mut sql, &nats, "t", "").await?;
        publish_numbers(&nats, 0..100).await?;
        eventually("FLUSH to show all rows", SOON, async || {
            sql.query("FLUSH").await?;
            let count = sql.value::<u64>("SELECT count(*) FROM t").await?;
            Ok((count == 100).then_some(()))
        })
        .await
    });
}

#[test]
fn a_table_starts_where_it_is_told() {
    scenario("start", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        publish_numbers(&nats, 0..5).await?;
        let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
        let fifth = millis(stream.get_raw_message(5).await?.time.unix_timestamp_nanos());
        eventually("the clock to move on", SOON, async || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
            Ok((now > fifth as u128 + 1).then_some(()))
        })
        .await?;
        publish_numbers(&nats, 5..10).await?;
        let sixth = millis(stream.get_raw_message(6).await?.time.unix_timestamp_nanos());

        create(&mut sql, &nats, "by_default", "").await?;
        create(&mut sql, &nats, "earliest", ", scan.startup.mode = 'earliest'").await?;
        create(&mut sql, &nats, "latest", ", scan.startup.mode = 'latest'").await?;
        let by_time = format!(", scan.startup.mode = 'timestamp', scan.startup.timestamp.millis = '{sixth}'");
        create(&mut sql, &nats, "by_time", &by_time).await?;
        publish_numbers(&nats, 10..12).await?;

        for (table, count, sum) in [("by_default", 12, 66), ("earliest", 12, 66), ("latest", 2, 21), ("by_time", 7, 56)]
        {
            wait_for(&mut sql, &format!("SELECT count(*) FROM {table}"), count, SOON).await?;
            wait_for(&mut sql, &format!("SELECT sum(n) FROM {table}"), sum, SOON).await?;
        }
        Ok(())
    });
}

fn millis(nanos: i128) -> i64 {
    i64::try_from(nanos / 1_000_000).expect("a time of our days")
}

#[test]
fn included_columns_tell_where_a_row_came_from() {
    scenario("include", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        publish_payloads(&nats, "events.a", &[r#"{"n": 1}"#]).await?;
        publish_payloads(&nats, "events.b", &[r#"{"n": 2}"#]).await?;
        let options = events_options(&nats.address());
        sql.query(&format!(
            "CREATE TABLE t (n bigint) INCLUDE offset AS o INCLUDE subject INCLUDE partition AS p WITH ({options}) \
             FORMAT PLAIN ENCODE JSON"
        ))
        .await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 2, SOON).await?;
        let answer = sql.query("SELECT n, o, _rw_nats_subject, p FROM t ORDER BY n").await?;
        assert_eq!(answer.row(0), ["1", "1", "events.a", "EVENTS"]);
        assert_eq!(answer.row(1), ["2", "2", "events.b", "EVENTS"]);
        Ok(())
    });
}

#[test]
fn headers_time_and_payload_of_a_message_are_columns() {
    scenario("include_headers", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        let mut headers = HeaderMap::new();
        for (name, value) in [("trace", "abc"), ("trace", "def"), ("Nats-Msg-Id", "one")] {
            headers.append(name, value);
        }
        let jetstream = nats.jetstream().await?;
        jetstream.publish_with_headers("events.a", headers, r#"{"n": 1, "more": [true]}"#.into()).await?.await?;
        publish_payloads(&nats, "events.a", &[r#"{"n": 2}"#]).await?;
        let stored = jetstream.get_stream("EVENTS").await?.get_raw_message(1).await?.time;
        let options = events_options(&nats.address());
        sql.query(&format!(
            "CREATE TABLE t (n bigint) INCLUDE header INCLUDE header 'trace' varchar AS trace \
             INCLUDE header 'Nats-Msg-Id' INCLUDE timestamp AS stored INCLUDE payload WITH ({options}) \
             FORMAT PLAIN ENCODE JSON"
        ))
        .await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 2, SOON).await?;
        let columns = "n, _rw_nats_header, trace, \"_rw_nats_header_Nats-Msg-Id\", _rw_nats_payload, \
                       (extract(epoch FROM stored) * 1000000)::bigint";
        let answer = sql.query(&format!("SELECT {columns} FROM t ORDER BY n")).await?;
        // Half a microsecond goes to the even one.
        let (micros, rest) = (stored.unix_timestamp_nanos() / 1000, stored.unix_timestamp_nanos() % 1000);
        let micros = (micros + i128::from(rest > 500 || rest == 500 && micros % 2 == 1)).to_string();
        let all = r#"{"(Nats-Msg-Id,\"\\\\x6f6e65\")","(trace,\"\\\\x616263\")","(trace,\"\\\\x646566\")"}"#;
        let document = r#"{"n": 1, "more": [true]}"#;
        assert_eq!(answer.row(0), ["1", all, "abc", r"\x6f6e65", document, &micros]);
        let absent = sql.query("SELECT n FROM t WHERE _rw_nats_header IS NULL AND trace IS NULL").await?;
        assert_eq!(absent.row(0), ["2"]);
        Ok(())
    });
}

#[test]
fn a_table_reads_only_the_subjects_it_names() {
    scenario("subjects", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        for (subject, payload) in [("events.a.x", "1"), ("events.b.x", "2"), ("events.c", "4"), ("events.a.y", "8")] {
            publish_payloads(&nats, subject, &[&format!("{{\"n\": {payload}}}")]).await?;
        }
        let options = events_options(&nats.address());
        for (table, subject, sum) in [("one", "events.a.*", 9), ("two", "events.c,events.b.>", 6)] {
            let options = options.replace("'events.>'", &format!("'{subject}'"));
            sql.query(&format!("CREATE TABLE {table} (n bigint) WITH ({options}) FORMAT PLAIN ENCODE JSON")).await?;
            wait_for(&mut sql, &format!("SELECT sum(n) FROM {table}"), sum, SOON).await?;
            wait_for(&mut sql, &format!("SELECT count(*) FROM {table}"), 2, SOON).await?;
        }
        Ok(())
    });
}

#[test]
fn durables_are_acknowledged_to_the_end_under_every_policy() {
    scenario("acks", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", 3));
        publish_all(&nats.client().await?, &events, 0..5_000).await?;
        let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
        for policy in ["all", "explicit", "none"] {
            let table = format!("by_{policy}");
            let statement = create_events(&table, &nats.address(), &table);
            sql.query(&statement.replace("= 'all'", &format!("= '{policy}'"))).await?;
            compare_events(&mut sql, &table, &events, 5_000).await?;
            let config = stream.consumer_info(&table).await?.config;
            assert_eq!(format!("{:?}", config.ack_policy).to_lowercase(), policy);
            if policy != "none" {
                acknowledged(&nats, &table).await?;
                let pending = stream.consumer_info(&table).await?.num_ack_pending;
                assert_eq!(pending, 0, "nothing waits for an acknowledgement");
            }
        }
        Ok(())
    });
}

#[test]
fn a_small_ack_window_slows_a_table_but_does_not_stop_it() {
    scenario("ack-window", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", 3));
        publish_all(&nats.client().await?, &events, 0..2_000).await?;
        let statement = create_events("t", &nats.address(), "small");
        let statement = statement.replace("'all'", "'all', consumer.max_ack_pending = '100'");
        sql.query(&statement).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 2_000, LATE).await?;
        acknowledged(&nats, "small").await?;
        let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
        assert_eq!(stream.consumer_info("small").await?.config.max_ack_pending, 100);
        Ok(())
    });
}

#[test]
fn two_tables_over_one_stream_both_see_every_row() {
    scenario("two-tables", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", 3));
        let client = nats.client().await?;
        publish_all(&client, &events, 0..5_000).await?;
        sql.query(&create_events("one", &nats.address(), "one")).await?;
        sql.query(&create_events("two", &nats.address(), "two")).await?;
        publish_all(&client, &events, 5_000..10_000).await?;
        compare_events(&mut sql, "one", &events, 10_000).await?;
        compare_events(&mut sql, "two", &events, 10_000).await
    });
}

#[test]
fn a_missing_stream_is_created_when_allowed() {
    scenario("create-stream", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        let options = events_options(&nats.address()).replace("EVENTS", "NEW").replace("events.>", "new.*");
        let statement = format!(
            "CREATE TABLE t (n bigint) WITH ({options}, allow_create_stream = 'true') FORMAT PLAIN ENCODE JSON"
        );
        sql.query(&statement).await?;
        publish_payloads(&nats, "new.a", &[r#"{"n": 5}"#]).await?;
        wait_for(&mut sql, "SELECT sum(n) FROM t", 5, SOON).await
    });
}

#[test]
fn passwords_are_used_and_never_shown() {
    scenario("password", async |sandbox| {
        let nats = Nats::start_with(sandbox, &["--user", "reader", "--pass", "open-sesame"]).await?;
        let options = async_nats::ConnectOptions::with_user_and_password("reader".to_owned(), "open-sesame".to_owned());
        let client = eventually("nats-server to let us in", SOON, async || {
            Ok(Some(options.clone().connect(nats.address()).await?))
        })
        .await?;
        let jetstream = async_nats::jetstream::new(client);
        let config = async_nats::jetstream::stream::Config {
            name: "EVENTS".to_owned(),
            subjects: vec!["events.>".to_owned()],
            ..Default::default()
        };
        jetstream.create_stream(config).await?;
        jetstream.publish("events.a", r#"{"n": 7}"#.into()).await?.await?;

        let mut weir = Weir::standalone(sandbox)?;
        weir.ready().await?;
        let mut sql = weir.sql();
        let plain = events_options(&nats.address());
        let by_password = plain.replace("'plain'", "'user_and_password', username = 'reader', password = 'PASSWORD'");
        let create = |options: &str| format!("CREATE TABLE t (n bigint) WITH ({options}) FORMAT PLAIN ENCODE JSON");
        for wrong in [plain, by_password.replace("PASSWORD", "guess")] {
            let refusal = sql.refused(&create(&wrong)).await?;
            assert!(refusal.message().contains("refuses the credentials"), "{refusal:?}");
            assert!(refusal.hint().context("a hint")?.contains("connect_mode"));
        }
        sql.query(&create(&by_password.replace("PASSWORD", "open-sesame"))).await?;
        wait_for(&mut sql, "SELECT sum(n) FROM t", 7, SOON).await?;
        let shown = sql.query("SHOW CREATE TABLE t").await?;
        assert!(!format!("{shown:?}").contains("open-sesame"), "{shown}");
        assert!(!weir.process().log().read()?.contains("open-sesame"));
        Ok(())
    });
}

#[test]
fn splits_show_how_far_they_are() {
    scenario("splits", async |sandbox| {
        let (mut nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["kept a bad record", "not reading"]);
        let mut sql = weir.sql();
        publish_numbers(&nats, 0..99).await?;
        publish_payloads(&nats, "events.n", &["bad"]).await?;
        create(&mut sql, &nats, "acked", ", consumer.durable_name = 'd', consumer.ack_policy = 'explicit'").await?;
        create(&mut sql, &nats, "plain", "").await?;
        let columns = "source, split, subject, state, read_position, committed_position, last_sequence, lag_messages, \
                       lag_seconds, ack_floor, ack_pending, redelivered, bad_records, lost_messages";
        let question = format!("SELECT {columns} FROM weir_catalog.splits ORDER BY source");
        let wanted = [
            "acked|EVENTS|events.>|reading|101|101|100|0|0|100|0|0|1|0",
            "plain|EVENTS|events.>|reading|101|101|100|0|0|100|0|0|1|0",
        ];
        eventually("both to be through", SOON, async || {
            let answer = sql.query(&question).await?;
            let rows: Vec<String> = (0..answer.rows.len()).map(|row| answer.row(row).join("|")).collect();
            ensure!(rows == wanted, "{rows:?}");
            Ok(Some(()))
        })
        .await?;
        ensure!(sql.value::<u64>("SELECT count(DISTINCT node) FROM weir_catalog.splits").await? == 1);

        nats.process().kill9()?;
        let lost = "SELECT count(*) FROM weir_catalog.splits WHERE state = 'disconnected' AND last_sequence IS NULL \
                    AND lag_messages IS NULL AND read_position = 101";
        wait_for(&mut sql, lost, 2, SOON).await?;
        nats.process().restart()?;
        nats.ready().await?;
        publish_numbers(&nats, 99..100).await?;
        let back = "SELECT count(*) FROM weir_catalog.splits WHERE state = 'reading' AND last_sequence = 101 \
                    AND lag_messages = 0 AND read_position = 102";
        wait_for(&mut sql, back, 2, SOON).await?;

        // Metrics say the same, of what is read.
        let sums = [("reading", 2), ("read_position", 204), ("last_sequence", 202), ("lag", 0), ("ack_floor", 202)];
        for (name, wanted) in sums {
            let name = format!("weir_source_{name}");
            eventually_equal(&name, SOON, f64::from(wanted), async || weir.metric(&name).await).await?;
        }
        sql.query("DROP TABLE plain").await?;
        eventually_equal("one split to be left", SOON, 1.0, async || weir.metric("weir_source_reading").await).await
    });
}

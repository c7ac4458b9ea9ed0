//! `ALTER { TABLE | SOURCE } … CONNECTOR WITH`: options of what is read already.

use anyhow::ensure;
use async_nats::jetstream::stream::RetentionPolicy;
use weir_e2e::proxy::Proxy;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::wait::eventually_equal;
use weir_e2e::weir::Cluster;
use weir_e2e::workload::Events;

use crate::crash::NODE_LOST;
use crate::support::{
    Publishing, SOON, acknowledged, compare_events, create_events, events_options, publish_payloads, refuses,
    standalone, standalone_with, wait_for,
};

const TOTAL: u64 = 40_000;

#[test]
fn a_table_is_exact_while_it_is_altered_and_nodes_are_killed() {
    scenario("alter-exact", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", 3));
        let proxy = Proxy::start(nats.socket(), 7).await?;
        sql.query(&create_events("t", &nats.address(), "reader")).await?;
        sql.query(&create_events("other", &nats.address(), "other")).await?;
        let mut publishing = Publishing::start(&nats, &events, TOTAL, 4_000).await?;
        let addresses = [proxy.address(), nats.address()];
        for round in 1..8_u64 {
            publishing.reaches(TOTAL / 8 * round).await?;
            let address = &addresses[usize::from(round % 2 == 0)];
            let options = format!("server_url = '{address}', consumer.max_batch = {}", 100 * round);
            sql.query(&format!("ALTER TABLE t CONNECTOR WITH ({options})")).await?;
            // A reader that starts anew makes its consumer anew: for a moment there is none.
            eventually_equal("the reader to read so", SOON, 100 * round as i64, async || {
                let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
                Ok(stream.consumer_info("reader").await?.config.max_batch)
            })
            .await?;
            if round % 3 == 0 {
                cluster.computes[0].process().kill9()?;
                cluster.computes[0].process().restart()?;
            }
        }
        ensure!(proxy.accepted() >= 4, "the table was read through the proxy in turn");
        publishing.end().await?;
        for table in ["t", "other"] {
            compare_events(&mut sql, table, &events, TOTAL).await?;
        }
        acknowledged(&nats, "reader").await?;
        acknowledged(&nats, "other").await
    });
}

#[test]
fn a_job_that_failed_goes_on_where_it_was_once_it_is_altered() {
    scenario("alter-failed", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["job failed", "kept a bad record"]);
        let mut sql = weir.sql();
        let options = format!("{}, on_error = 'fail'", events_options(&nats.address()));
        sql.query(&format!("CREATE TABLE t (n bigint) WITH ({options}) FORMAT PLAIN ENCODE JSON")).await?;
        publish_payloads(&nats, "events.a", &["{\"n\": 1}"]).await?;
        wait_for(&mut sql, "SELECT sum(n) FROM t", 1, SOON).await?;
        publish_payloads(&nats, "events.a", &["bad", "{\"n\": 2}"]).await?;
        let state = "SELECT count(*) FROM weir_catalog.jobs WHERE state = 'failed'";
        wait_for(&mut sql, state, 1, SOON).await?;
        // The same again is a try, too: it fails again.
        sql.query("ALTER TABLE t CONNECTOR WITH (on_error = 'fail')").await?;
        wait_for(&mut sql, state, 1, SOON).await?;
        sql.query("ALTER TABLE t CONNECTOR WITH (on_error = 'dead_letter')").await?;
        wait_for(&mut sql, "SELECT sum(n) FROM t", 3, SOON).await?;
        wait_for(&mut sql, "SELECT sequence FROM dead_letters.t", 2, SOON).await?;
        wait_for(&mut sql, state, 0, SOON).await
    });
}

#[test]
fn subjects_change_from_here_on_and_other_things_do_not() {
    scenario("alter-subjects", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        let with = format!(
            "WITH ({}, subject = 'events.a', connect_mode = 'user_and_password', username = 'u', password = 'hide-me') \
             FORMAT PLAIN ENCODE JSON",
            events_options(&nats.address())
        );
        for kind in ["TABLE t", "SOURCE s"] {
            sql.query(&format!("CREATE {kind} (n bigint) {with}")).await?;
        }
        for (subject, n) in [("events.b", 1), ("events.a", 2)] {
            publish_payloads(&nats, subject, &[&format!("{{\"n\": {n}}}")]).await?;
        }
        wait_for(&mut sql, "SELECT sum(n) FROM t", 2, SOON).await?;
        for kind in ["TABLE t", "SOURCE s"] {
            sql.query(&format!("ALTER {kind} CONNECTOR WITH (subject = 'events.a,events.b')")).await?;
        }
        for (subject, n) in [("events.b", 4), ("events.a", 8)] {
            publish_payloads(&nats, subject, &[&format!("{{\"n\": {n}}}")]).await?;
        }
        wait_for(&mut sql, "SELECT sum(n) FROM t", 14, SOON).await?;
        // A source is read from its beginning.
        wait_for(&mut sql, "SELECT sum(n) FROM s", 15, SOON).await?;
        let shown = sql.query("SHOW CREATE TABLE t").await?.to_string();
        ensure!(shown.contains("subject = 'events.a,events.b'") && !shown.contains("hide-me"), "{shown}");

        for (statement, code, named) in [
            ("TABLE t CONNECTOR WITH (stream = 'OTHER')", "22023", "\"stream\": cannot be changed"),
            ("TABLE t CONNECTOR WITH (consumer.name = 'x')", "22023", "\"consumer.name\": cannot be changed"),
            ("TABLE t CONNECTOR WITH (subjekt = 'x')", "22023", "subjekt"),
            ("TABLE t CONNECTOR WITH (on_gap = 'x')", "22023", "on_gap"),
            ("TABLE t CONNECTOR WITH (subject = 'nowhere')", "42704", "no messages under subject \"nowhere\""),
            ("TABLE t CONNECTOR WITH (server_url = '127.0.0.1:1')", "08001", "127.0.0.1:1"),
            ("SOURCE t CONNECTOR WITH (on_gap = 'skip')", "42809", "is not a source"),
            ("TABLE none CONNECTOR WITH (on_gap = 'skip')", "42P01", "\"none\" does not exist"),
            ("TABLE t", "42601", "syntax error"),
        ] {
            refuses(&mut sql, &format!("ALTER {statement}"), code, named).await?;
        }
        sql.query("ALTER TABLE IF EXISTS none CONNECTOR WITH (on_gap = 'skip')").await?;
        wait_for(&mut sql, "SELECT sum(n) FROM t", 14, SOON).await
    });
}

#[test]
fn where_acknowledgements_delete_the_subjects_stay() {
    scenario("alter-queue", async |sandbox| {
        let (nats, weir) = standalone_with(sandbox, RetentionPolicy::WorkQueue).await?;
        let mut sql = weir.sql();
        let options = events_options(&nats.address());
        sql.query(&format!("CREATE TABLE t (n bigint) WITH ({options}) FORMAT PLAIN ENCODE JSON")).await?;
        let refused = sql.refused("ALTER TABLE t CONNECTOR WITH (subject = 'events.a')").await?;
        ensure!(refused.message().contains("WorkQueue") && refused.hint().is_some(), "{refused:?}");
        sql.query("ALTER TABLE t CONNECTOR WITH (consumer.max_ack_pending = 77)").await?;
        publish_payloads(&nats, "events.a", &["{\"n\": 1}"]).await?;
        wait_for(&mut sql, "SELECT sum(n) FROM t", 1, SOON).await?;
        let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
        let config = stream.consumer_info("weir-standalone-t").await?.config;
        ensure!(config.max_ack_pending == 77, "{config:?}");
        eventually_equal("an empty queue", SOON, 0, async || Ok(stream.get_info().await?.state.messages)).await
    });
}

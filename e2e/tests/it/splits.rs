//! `split_by_subject`: a stream that is read as a split for each subject.

use anyhow::ensure;
use weir_e2e::publish::publish_all;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::wait::eventually_equal;
use weir_e2e::weir::Cluster;
use weir_e2e::workload::Events;

use crate::support::{SOON, SUBJECTS, compare_events, events_options, publish_payloads, standalone};

/// The options of a table that has a split for each of the subjects.
fn options(nats: &Nats, subjects: &str) -> String {
    format!("{}, subject = '{subjects}', split_by_subject = true", events_options(&nats.address()))
}

#[test]
fn a_stream_is_read_as_a_split_for_each_subject_on_several_nodes() {
    scenario("splits-by-subject", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let cluster = Cluster::start(sandbox, 1, 2).await?;
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", SUBJECTS));
        publish_all(&nats.client().await?, &events, 0..10_000).await?;
        // The last one has a wildcard, and what it matches is one split.
        let with = options(&nats, "events.0,events.1,events.2,events.3,events.4,events.5,events.6.>,events.6");
        sql.query(&format!(
            "CREATE TABLE t ({}) INCLUDE offset AS stream_seq INCLUDE subject AS subject INCLUDE partition AS split \
             WITH ({with}, consumer.durable_name = 'd') FORMAT PLAIN ENCODE JSON",
            Events::COLUMNS
        ))
        .await?;
        compare_events(&mut sql, "t", &events, 10_000).await?;
        ensure!(sql.value::<u64>("SELECT count(*) FROM t WHERE split <> 'EVENTS/' || subject").await? == 0);
        let query = "SELECT count(*), count(DISTINCT split), count(DISTINCT node), sum(lag_messages), sum(ack_pending) \
                     FROM weir_catalog.splits WHERE split = 'EVENTS/' || subject";
        eventually_equal(query, SOON, ["8", "8", "2", "0", "0"].map(str::to_owned).to_vec(), async || {
            Ok(sql.query(query).await?.row(0).into_iter().map(str::to_owned).collect())
        })
        .await?;

        // What the server shows of it: a durable a split, which knows what it is for.
        let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
        ensure!(stream.get_info().await?.state.consumer_count == 8);
        let config = stream.consumer_info("d-90d3041a").await?.config;
        ensure!(config.filter_subject == "events.6.>", "{config:?}");
        ensure!(config.description.is_some_and(|text| text.ends_with("/t: events.6.>")));
        sql.query("DROP TABLE t").await?;
        ensure!(stream.get_info().await?.state.consumer_count == 0, "DROP removes all of them");
        Ok(())
    });
}

#[test]
fn a_source_of_several_splits_is_read_as_they_are() {
    scenario("splits-source", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        for (subject, n) in [("events.a", 1), ("events.b", 2), ("events.c", 4), ("events.a", 8), ("events.b", 16)] {
            publish_payloads(&nats, subject, &[&format!("{{\"n\": {n}}}")]).await?;
        }
        let format = "FORMAT PLAIN ENCODE JSON";
        let columns = "(n bigint) INCLUDE subject AS subject INCLUDE partition AS split";
        let with = options(&nats, "events.a,events.b");
        sql.query(&format!("CREATE SOURCE s {columns} WITH ({with}) {format}")).await?;
        let rows = sql.query("SELECT split, sum(n) FROM s GROUP BY split ORDER BY split").await?;
        ensure!([rows.row(0), rows.row(1)] == [["EVENTS/events.a", "9"], ["EVENTS/events.b", "18"]], "{rows}");
        ensure!(sql.value::<u64>("SELECT sum(n) FROM s WHERE subject = 'events.b'").await? == 18);
        ensure!(sql.query("SELECT n FROM s LIMIT 3").await?.rows.len() == 3);
        // The last message of each subject, which is exact where each has a position of its own.
        let last =
            format!("CREATE SOURCE last {columns} WITH ({with}, scan.startup.mode = 'last_per_subject') {format}");
        sql.query(&last).await?;
        ensure!(sql.value::<u64>("SELECT sum(n) FROM last").await? == 24);

        let found = sql.query(&format!("EXPLAIN CREATE SOURCE e {columns} WITH ({with}) {format}")).await?.to_string();
        for part in ["\"EVENTS/events.a\" from sequence 1", "\"EVENTS/events.b\" from", "2 consumers with filters"] {
            ensure!(found.contains(part), "{part} is missing:\n{found}");
        }
        let overlap = options(&nats, "events.*,events.b");
        let refused = sql.refused(&format!("CREATE SOURCE o {columns} WITH ({overlap}) {format}")).await?;
        ensure!(refused.message().contains("overlap") && refused.hint().is_some(), "{refused:?}");
        Ok(())
    });
}

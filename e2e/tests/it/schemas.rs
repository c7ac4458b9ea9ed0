//! Schemas: sessions that create and drop them at once, restarts, and names in metrics.

use anyhow::Result;
use weir_e2e::publish::publish_all;
use weir_e2e::sandbox::scenario;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually_equal;
use weir_e2e::weir::Weir;
use weir_e2e::workload::Events;

use crate::support::{SOON, compare_events, create_events, standalone};

/// The number of times that two sessions meet.
const ROUNDS: usize = 8;
/// Relations that are in no schema.
const ORPHANS: &str =
    "SELECT count(*) FROM pg_class c LEFT JOIN pg_namespace n ON n.oid = relnamespace WHERE n.oid IS NULL";

/// Runs a statement; returns the SQLSTATE with which it is refused.
async fn outcome(sql: &mut Sql, statement: &str) -> Result<Option<String>> {
    match sql.query(statement).await {
        Ok(_) => Ok(None),
        Err(error) => match error.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.code()) {
            Some(code) => Ok(Some(code.code().to_owned())),
            None => Err(error),
        },
    }
}

/// Runs two statements of two sessions at once.
async fn both(weir: &Weir, one: &str, other: &str) -> Result<(Option<String>, Option<String>)> {
    let (mut first, mut second) = (weir.sql(), weir.sql());
    let (one, other) = tokio::join!(outcome(&mut first, one), outcome(&mut second, other));
    Ok((one?, other?))
}

#[test]
fn sessions_that_create_and_drop_at_once_leave_no_orphan() {
    scenario("schemas", async |sandbox| {
        let (_nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        for round in 0..ROUNDS {
            let created = both(&weir, "CREATE SCHEMA s", "CREATE SCHEMA s").await?;
            let duplicate = Some("42P06".to_owned());
            assert!(created == (None, duplicate.clone()) || created == (duplicate, None), "{round}: {created:?}");
            let taken = Some("42P07".to_owned());
            let created = both(&weir, "CREATE TABLE s.t (a int)", "CREATE VIEW s.t AS SELECT 1 AS a").await?;
            assert!(created == (None, taken.clone()) || created == (taken, None), "{round}: {created:?}");
            sql.query("DROP SCHEMA s CASCADE").await?;

            sql.query("CREATE SCHEMA s").await?;
            let (dropped, created) = both(&weir, "DROP SCHEMA s", "CREATE TABLE s.t (a int)").await?;
            match (dropped.as_deref(), created.as_deref()) {
                (None, Some("3F000")) => sql.query("CREATE SCHEMA s").await.map(drop)?,
                (Some("2BP01"), None) => sql.query("SELECT a FROM s.t").await.map(drop)?,
                other => panic!("round {round}: {other:?}"),
            }
            let created = both(&weir, "DROP SCHEMA s CASCADE", "CREATE TABLE s.u (a int)").await?;
            assert!(matches!(created.1.as_deref(), None | Some("3F000")), "{round}: {created:?}");
            assert_eq!(created.0, None, "{round}");
            assert_eq!(outcome(&mut sql, "SELECT * FROM s.u").await?.as_deref(), Some("42P01"), "{round}");
            assert_eq!(sql.value::<u64>(ORPHANS).await?, 0, "{round}");
            assert_eq!(sql.value::<u64>("SELECT count(*) FROM weir_catalog.jobs").await?, 0, "{round}");
        }
        Ok(())
    });
}

#[test]
fn schemas_survive_a_restart_and_metrics_name_them() {
    scenario("schemas-restart", async |sandbox| {
        let (nats, mut weir) = standalone(sandbox).await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", 3));
        publish_all(&nats.client().await?, &events, 0..1_000).await?;
        sql.query("CREATE SCHEMA s").await?;
        sql.query("COMMENT ON SCHEMA s IS 'events'").await?;
        // Two tables of one name have consumers of their own.
        sql.query(&create_events("events", &nats.address(), "d")).await?;
        sql.query(&create_events("s.events", &nats.address(), "e")).await?;
        sql.query("SET search_path TO s").await?;
        sql.query("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM events").await?;
        compare_events(&mut sql, "public.events", &events, 1_000).await?;
        compare_events(&mut sql, "events", &events, 1_000).await?;
        sql.query("ALTER SCHEMA s RENAME TO r").await?;
        assert!(weir.process().terminate(SOON).await?.success());
        publish_all(&nats.client().await?, &events, 1_000..2_000).await?;
        weir.process().restart()?;
        weir.ready().await?;

        let mut sql = weir.sql();
        compare_events(&mut sql, "r.events", &events, 2_000).await?;
        compare_events(&mut sql, "events", &events, 2_000).await?;
        assert_eq!(sql.value::<u64>("SELECT n FROM r.total").await?, 2_000);
        assert!(sql.query("VERIFY MATERIALIZED VIEW r.total").await?.rows.is_empty());
        let comment = "SELECT obj_description('r'::regnamespace, 'pg_namespace')";
        assert_eq!(sql.value::<String>(comment).await?, "events");
        let named = async || Ok(weir.metrics().await?.contains("table=\"r.events\""));
        eventually_equal("the table in metrics", SOON, true, named).await?;

        // Its consumers go with it, those of the other table stay.
        let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
        assert_eq!(stream.get_info().await?.state.consumer_count, 2);
        sql.query("DROP SCHEMA r CASCADE").await?;
        assert_eq!(stream.get_info().await?.state.consumer_count, 1);
        publish_all(&nats.client().await?, &events, 2_000..3_000).await?;
        compare_events(&mut sql, "events", &events, 3_000).await?;
        Ok(())
    });
}

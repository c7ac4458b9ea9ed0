//! What users are told when a statement cannot be done: SQLSTATE, words, position and hint.

use anyhow::{Context, Result};
use tokio_postgres::error::{DbError, ErrorPosition};
use weir_e2e::sandbox::scenario;
use weir_e2e::sql::Sql;

use crate::support::{events_options, standalone};

/// Checks the SQLSTATE and that message and hint contain the given words.
async fn refused(sql: &mut Sql, statement: &str, sqlstate: &str, message: &str, hint: &str) -> Result<DbError> {
    let refusal = sql.refused(statement).await?;
    let context = || format!("{statement}\nwas refused with {refusal:?}");
    assert_eq!(refusal.code().code(), sqlstate, "{}", context());
    assert!(refusal.message().contains(message), "{}", context());
    assert!(hint.is_empty() || refusal.hint().with_context(context)?.contains(hint), "{}", context());
    Ok(refusal)
}

#[test]
fn mistakes_in_queries_are_explained() {
    scenario("query-errors", async |sandbox| {
        let (_nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        let refusal = refused(&mut sql, "SELECT 1; SELEC 2", "42601", "SELEC", "").await?;
        assert_eq!(refusal.position(), Some(&ErrorPosition::Original(11)));
        refused(&mut sql, "SELECT * FROM nowhere", "42P01", "nowhere", "").await?;
        refused(&mut sql, "SELECT 1 / 0", "22012", "", "").await?;
        refused(&mut sql, "MERGE INTO t USING u ON true", "0A000", "MERGE", "").await?;
        refused(&mut sql, "CREATE VIEW v AS SELECT 1 / n FROM t", "42P01", "relation \"t\" does not exist", "").await?;
        // The connection has survived all of it.
        assert_eq!(sql.value::<u64>("SELECT 1").await?, 1);
        Ok(())
    });
}

#[test]
fn mistakes_in_create_table_are_explained() {
    scenario("create-errors", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        let options = events_options(&nats.address());
        let create = |columns: &str, options: &str| {
            format!("CREATE TABLE t ({columns}) WITH ({options}) FORMAT PLAIN ENCODE JSON")
        };
        let cases = [
            (create("n bigint", &options.replace("EVENTS", "NOWHERE")), "NOWHERE", "allow_create_stream"),
            (create("n bigint", &options.replace("events.>", "other.>")), "other.>", "events.>"),
            (create("n bigint", &options.replace("'nats'", "'kafka'")), "kafka", "nats"),
            (create("n bigint", &format!("{options}, consumer.durabel_name = 'd'")), "consumer.durabel_name", ""),
            (
                create("n bigint", &format!("{options}, scan.startup.mode = 'timestamp'")),
                "scan.startup.timestamp.millis",
                "milliseconds",
            ),
            (
                create(
                    "n bigint",
                    &format!("{options}, scan.startup.mode = 'latest', consumer.deliver_policy = 'all'"),
                ),
                "consumer.deliver_policy",
                "",
            ),
        ];
        for (statement, message, hint) in cases {
            // The hint may stand in the message.
            let refusal = sql.refused(&statement).await?;
            let text = format!("{} {}", refusal.message(), refusal.hint().unwrap_or(""));
            assert!(text.contains(message) && text.contains(hint), "{statement}\n{refusal:?}");
            assert!(["22023", "42704"].contains(&refusal.code().code()), "{statement}\n{refusal:?}");
        }
        refused(&mut sql, &create("n bigint, n integer", &options), "42701", "\"n\"", "").await?;
        refused(&mut sql, &create("n blurb", &options), "42704", "blurb", "boolean").await?;
        refused(&mut sql, &create("n money", &options), "42704", "money", "boolean").await?;
        assert!(sql.query("SHOW TABLES").await?.rows.is_empty(), "nothing was created");
        Ok(())
    });
}

#[test]
fn a_server_that_is_not_there_is_named() {
    scenario("no-server", async |sandbox| {
        let (_nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        let nobody = weir_e2e::sandbox::free_address().to_string();
        let options = events_options(&nobody);
        let statement = format!("CREATE TABLE t (n bigint) WITH ({options}) FORMAT PLAIN ENCODE JSON");
        let refusal = sql.refused(&statement).await?;
        assert!(refusal.message().contains(&nobody), "{refusal:?}");
        assert!(refusal.hint().context("a hint")?.contains("server_url"), "{refusal:?}");
        Ok(())
    });
}

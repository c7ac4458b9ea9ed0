//! The statements of tools, each of which must have an answer. `tests/statements` contains them.

use crate::cluster::Cluster;
use crate::statements::{add_events, rows};
use crate::wire::Wire;

const PGJDBC: &str = include_str!("../statements/pgjdbc.sql");
const DBEAVER: &str = include_str!("../statements/dbeaver.sql");
const PSQL: &str = include_str!("../statements/psql-completion.sql");

/// Returns the statements of a file, each of which ends a line with a semicolon.
fn statements(file: &str) -> impl Iterator<Item = &str> {
    file.split(";\n").map(str::trim).filter(|statement| !statement.is_empty())
}

/// Runs every statement in both protocols, and reports those that fail.
async fn assert_answered(file: &str) {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    let mut wire = Wire::connect(&cluster).await;
    let mut failed = Vec::new();
    for sql in statements(file) {
        if let Err(error) = client.simple_query(sql).await {
            let error = error.as_db_error().map(ToString::to_string);
            failed.push(format!("{sql}\n   simple: {error:?}"));
        }
        wire.parse("", sql, &[]).describe(b'S', "").bind("", "", 0, &[], 1).execute("", 0).sync();
        let answers = wire.until_ready().await;
        if let Some(error) = answers.iter().find(|answer| answer.starts_with("Error")) {
            failed.push(format!("{sql}\n   extended: {error}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn jdbc_is_answered() {
    assert_answered(PGJDBC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dbeaver_is_answered() {
    assert_answered(DBEAVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tab_key_is_answered() {
    assert_answered(PSQL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_list_what_there_is() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    let find = |part: &str| statements(PGJDBC).find(|sql| sql.contains(part)).unwrap_or_else(|| panic!("{part}"));
    let tables = rows(&client, find("n.nspname LIKE 'public' AND c.relname LIKE '%'")).await;
    assert!(tables.starts_with("NULL|public|events|TABLE|"), "{tables}");
    let columns = rows(&client, find("AND attname LIKE '%' ORDER BY nspname")).await;
    let columns: Vec<&str> = columns.lines().filter_map(|line| line.split('|').nth(2)).collect();
    assert_eq!(columns, ["id", "name"]);
    let settings = "SELECT setting FROM pg_settings WHERE name IN ('server_version', 'max_index_keys') ORDER BY name";
    assert_eq!(rows(&client, settings).await, "32\n15.20");
}

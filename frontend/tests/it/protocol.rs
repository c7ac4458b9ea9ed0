//! The extended protocol, connections, and their limits.

use std::pin::pin;
use std::sync::Arc;

use futures::TryStreamExt;
use tokio_postgres::types::Type;
use tokio_postgres::{Config as ClientConfig, NoTls};
use weir_common::catalog::RelationName;
use weir_frontend::Config;

use crate::cluster::{Cluster, PATIENCE, Shared};
use crate::statements::{add_events, rows};
use crate::types::add_types;

#[tokio::test(flavor = "multi_thread")]
async fn parameters_get_their_types_from_where_they_stand() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10_000);
    let client = cluster.client().await;
    let statement = client
        .prepare("SELECT id, $3 FROM events WHERE id BETWEEN $1 AND $2 AND name = $3 ORDER BY id LIMIT $4")
        .await
        .expect("a query");
    assert_eq!(statement.params(), [Type::INT8, Type::INT8, Type::TEXT, Type::INT8]);
    let found = client.query(&statement, &[&5_i64, &100_i64, &"name 7", &2_i64]).await.expect("a query");
    let found: Vec<(i64, String)> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found, [(7, "name 7".to_owned()), (17, "name 7".to_owned())]);
    // The statement can run again, with other values.
    let found = client.query(&statement, &[&0_i64, &0_i64, &"name 0", &5_i64]).await.expect("a query");
    assert_eq!(found.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_without_a_type_are_text() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let row = client.query_one("SELECT $1, $2::int + 1, coalesce($3, 'x')", &[&"a", &41_i32, &None::<String>]);
    let row = row.await.expect("a query");
    assert_eq!((row.get::<_, String>(0), row.get::<_, i32>(1), row.get::<_, String>(2)), ("a".into(), 42, "x".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_say_which_types_its_parameters_have() {
    let cluster = Cluster::start().await;
    add_types(&cluster.shared);
    let client = cluster.client().await;
    let types = [Type::INT2, Type::FLOAT8, Type::BOOL, Type::BYTEA];
    let statement = client.prepare_typed("SELECT $1, $2 * 2, NOT $3, $4", &types).await.expect("a query");
    assert_eq!(statement.params(), types);
    let row = client.query_one(&statement, &[&7_i16, &1.5_f64, &true, &[1_u8, 2].as_slice()]).await.expect("a query");
    assert_eq!(row.get::<_, i16>(0), 7);
    assert_eq!(row.get::<_, f64>(1), 3.0);
    assert!(!row.get::<_, bool>(2));
    assert_eq!(row.get::<_, Vec<u8>>(3), [1, 2]);
    // The parameter's type is smaller than the column's.
    let statement = client.prepare_typed("SELECT i4 FROM types WHERE i8 < $1", &[Type::INT2]).await.expect("a query");
    assert_eq!(client.query_one(&statement, &[&0_i16]).await.expect("a query").get::<_, i32>(0), i32::MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_prepared_statements_have_a_place() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    let error = client.prepare("SELECT id FROM events WHERE nam = $1").await.expect_err("no such column");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "42703");
    assert_eq!(error.position(), Some(&tokio_postgres::error::ErrorPosition::Original(29)));
    let error = client.prepare("SELECT 1; SELECT 2").await.expect_err("two statements");
    assert_eq!(error.code().map(|code| code.code()), Some("42601"));
    assert_eq!(rows(&client, "SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_is_fetched_some_rows_at_a_time() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 2_500);
    let mut client = cluster.client().await;
    let transaction = client.transaction().await.expect("BEGIN");
    let portal = transaction.bind("SELECT id FROM events ORDER BY id", &[]).await.expect("a portal");
    let mut ids = Vec::new();
    loop {
        let fetched = transaction.query_portal(&portal, 1000).await.expect("rows");
        ids.extend(fetched.iter().map(|row| row.get::<_, i64>(0)));
        if fetched.len() < 1000 {
            break;
        }
    }
    assert_eq!(ids, (0..2_500).collect::<Vec<_>>());
    transaction.commit().await.expect("COMMIT");
    cluster.until("is the pin released", |state| state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_results_are_streamed() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 300_000);
    let client = cluster.client().await;
    let stream = client.query_raw::<_, i64, _>("SELECT id, name FROM events", []).await.expect("begins");
    let mut stream = pin!(stream);
    let mut sum = 0;
    while let Some(row) = stream.try_next().await.expect("rows") {
        sum += row.get::<_, i64>(0);
    }
    assert_eq!(sum, 299_999 * 300_000 / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_whose_table_changed_is_refused() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    let statement = client.prepare("SELECT * FROM events").await.expect("a query");
    rows(&client, "DROP TABLE events").await;
    add_types(&cluster.shared);
    {
        let mut state = cluster.shared.state();
        state.catalog_version += 1;
        Arc::make_mut(&mut state.catalog[0].relation).name = RelationName::public("events");
    }
    let error = client.query(&statement, &[]).await.expect_err("other columns");
    assert_eq!(error.as_db_error().expect("of the server").message(), "cached plan must not change result type");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_can_be_prepared() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.execute("SET application_name = 'x'", &[]).await.expect("SET");
    let row = client.query_one("SHOW application_name", &[]).await.expect("SHOW");
    assert_eq!(row.get::<_, String>(0), "x");
    client.execute("FLUSH", &[]).await.expect("FLUSH");
    client.execute("", &[]).await.expect("nothing");
    assert_eq!(client.query("SHOW TABLES", &[]).await.expect("SHOW TABLES").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_about_the_server() {
    let cluster = Cluster::start().await;
    let mut config: ClientConfig = cluster.dsn().parse().expect("a valid DSN");
    config.application_name("driver").options("-c statement_timeout=5s -c extra_float_digits=3");
    let (client, connection) = config.connect(NoTls).await.expect("the frontend accepts");
    assert_eq!(connection.parameter("server_version"), Some("15.20"));
    assert_eq!(connection.parameter("client_encoding"), Some("UTF8"));
    assert_eq!(connection.parameter("standard_conforming_strings"), Some("on"));
    assert_eq!(connection.parameter("application_name"), Some("driver"));
    tokio::spawn(connection);
    assert_eq!(rows(&client, "SHOW statement_timeout").await, "5s");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_database_dev_exists() {
    let cluster = Cluster::start().await;
    let dsn = cluster.dsn().replace("dev", "other");
    let error = tokio_postgres::connect(&dsn, NoTls).await.map(|_| ()).expect_err("no such database");
    assert_eq!(error.code().map(|code| code.code()), Some("3D000"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_refused() {
    let config = Config { connections_max: 2, ..Config::default() };
    let cluster = Cluster::start_with(Shared::default(), config).await;
    let first = cluster.client().await;
    let _second = cluster.client().await;
    let error = tokio_postgres::connect(&cluster.dsn(), NoTls).await.map(|_| ()).expect_err("no place");
    assert_eq!(error.code().map(|code| code.code()), Some("53300"), "{error:?}");
    drop(first);
    // The place is free once the server has noticed that the client is gone.
    let freed = async {
        while tokio_postgres::connect(&cluster.dsn(), NoTls).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("the place is freed");
}

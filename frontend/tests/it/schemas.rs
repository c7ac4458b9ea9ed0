//! Schemas, and search paths of sessions.

use std::pin::pin;

use futures::{SinkExt, TryStreamExt};

use crate::cluster::Cluster;
use crate::psql::psql;
use crate::statements::{db_error, rows};

/// Creates tables `t` in `public` and in the schemas `s` and `My s`, with different columns.
async fn create_tables(client: &tokio_postgres::Client) {
    for sql in [
        "CREATE SCHEMA s",
        "CREATE SCHEMA \"My s\"",
        "CREATE TABLE t (a int PRIMARY KEY)",
        "CREATE TABLE s.t (a int PRIMARY KEY, b varchar)",
        "CREATE TABLE \"My s\".t (a int, b varchar, c varchar)",
    ] {
        rows(client, sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_lists_and_describes_what_is_in_schemas() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    create_tables(&client).await;
    rows(&client, "COMMENT ON SCHEMA s IS 'more tables'").await;
    let Some((out, err)) = psql(&cluster, &["-c", "\\dn"]).await else { return };
    assert_eq!(err, "");
    assert_eq!(
        out,
        "   List of schemas\n     \
         Name     | Owner \n\
         --------------+-------\n \
         My s         | root\n \
         dead_letters | root\n \
         public       | root\n \
         rw_catalog   | root\n \
         s            | root\n \
         weir_catalog | root\n\
         (6 rows)\n\n"
    );
    for (command, expected) in [
        ("\\dn+ s", "s|root||more tables\n"),
        ("\\dt s.*", "s|t|table|root\n"),
        ("\\dt", "public|t|table|root\n"),
        ("\\dt *.t", "My s|t|table|root\npublic|t|table|root\ns|t|table|root\n"),
        (
            "\\d s.t",
            "Table \"s.t\"\nColumn|Type|Collation|Nullable|Default\na|integer||not null|\nb|character varying|||\n\
             Indexes:\n    \"t_pkey\" PRIMARY KEY, btree (a)\n",
        ),
        (
            "\\d \"My s\".t",
            "Table \"My s.t\"\nColumn|Type|Collation|Nullable|Default\na|integer|||\n\
             b|character varying|||\nc|character varying|||\n",
        ),
        (
            "\\d t",
            "Table \"public.t\"\nColumn|Type|Collation|Nullable|Default\na|integer||not null|\n\
             Indexes:\n    \"t_pkey\" PRIMARY KEY, btree (a)\n",
        ),
    ] {
        let tuples = if command.starts_with("\\d ") { "-A" } else { "-At" };
        let (out, err) = psql(&cluster, &[tuples, "-c", command]).await.expect("psql is there");
        assert_eq!((out.as_str(), err.as_str()), (expected, ""), "{command}");
    }
    let (out, err) = psql(&cluster, &["-At", "-c", "SET search_path TO s", "-c", "\\dt"]).await.expect("psql is there");
    assert_eq!((out.as_str(), err.as_str()), ("SET\ns|t|table|root\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_means_what_the_search_path_says_when_it_runs() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    create_tables(&client).await;
    let insert = client.prepare("INSERT INTO t VALUES ($1)").await.expect("it is prepared");
    let select = client.prepare("SELECT 't'::regclass::oid::int, current_schema()").await.expect("it is prepared");
    let mut seen = Vec::new();
    for path in ["public", "s, public", "\"My s\""] {
        rows(&client, &format!("SET search_path TO {path}")).await;
        assert_eq!(client.execute(&insert, &[&1_i32]).await.expect("it is inserted"), 1);
        let row = client.query_one(&select, &[]).await.expect("a row");
        seen.push((row.get::<_, i32>(0), row.get::<_, String>(1)));
    }
    let schemas: Vec<&str> = seen.iter().map(|(_, schema)| schema.as_str()).collect();
    assert_eq!(schemas, ["public", "s", "My s"]);
    let written: Vec<u32> = cluster.shared.state().held.stored.keys().map(|(table, _)| *table).collect();
    let tables: Vec<u32> = cluster.shared.state().catalog.iter().map(|entry| entry.id().0).collect();
    assert!(tables.iter().all(|table| written.contains(table)), "{written:?} of {tables:?}");
    assert_eq!(seen.iter().map(|(oid, _)| oid).collect::<std::collections::BTreeSet<_>>().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_copied_to_and_from_tables_of_schemas() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    create_tables(&client).await;
    for (path, table) in [("public", "s.t"), ("s", "t"), ("public", "dev.s.t (a, b)")] {
        rows(&client, &format!("SET search_path TO {path}")).await;
        let sink = client.copy_in::<_, bytes::Bytes>(&format!("COPY {table} FROM STDIN")).await.expect("a COPY");
        let mut sink = pin!(sink);
        sink.send(bytes::Bytes::from_static(b"1\tone\n")).await.expect("a row");
        assert_eq!(sink.finish().await.expect("it is committed"), 1);
        let copied: Vec<bytes::Bytes> = client
            .copy_out(&format!("COPY {table} TO STDOUT"))
            .await
            .expect("a COPY")
            .try_collect()
            .await
            .expect("its rows");
        assert_eq!(copied.concat(), b"1\tone\n", "{table}");
        rows(&client, &format!("TRUNCATE {}", table.trim_end_matches(" (a, b)"))).await;
        assert_eq!(rows(&client, "SELECT count(*) FROM s.t").await, "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_keep_their_meaning() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    create_tables(&client).await;
    rows(&client, "SET search_path TO s, public").await;
    // The name in WITH is none of a schema's; comments stay.
    let sql =
        "CREATE VIEW v AS /* all */ WITH u AS (SELECT * FROM t) SELECT u.b, o.a FROM u JOIN public.t AS o USING (a)";
    rows(&client, sql).await;
    rows(&client, "CREATE VIEW names AS SELECT relname FROM pg_class").await;
    let shown = sql.replace("VIEW v", "VIEW s.v").replace("FROM t)", "FROM s.t)");
    let classes = "SELECT 't'::regclass, 'public.t'::regclass, '\"My s\".t'::regclass, to_regclass('u')";
    assert_eq!(rows(&client, classes).await, "t|public.t|\"My s\".t|NULL");
    for (sql, expected) in [
        ("SHOW CREATE VIEW v", format!("s.v|{shown}").as_str()),
        ("SHOW CREATE VIEW names", "s.names|CREATE VIEW s.names AS SELECT relname FROM pg_class"),
        ("SET search_path TO \"My s\"", ""),
        ("SELECT * FROM s.v", ""),
        ("SHOW CREATE VIEW s.v", &format!("s.v|{shown}")),
        ("ALTER SCHEMA s RENAME TO r", ""),
        ("CREATE SCHEMA s", ""),
        ("CREATE TABLE s.t (x int)", ""),
        ("SELECT * FROM r.v", ""),
        ("SELECT count(*) > 100 FROM r.names", "t"),
        ("CREATE OR REPLACE VIEW r.v AS SELECT b, 1 AS a FROM t", ""),
        ("SELECT pg_get_viewdef('r.v')", " SELECT b, 1 AS a FROM \"My s\".t;"),
    ] {
        assert_eq!(rows(&client, sql).await, expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_schemas_is_told() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    create_tables(&client).await;
    for (sql, expected) in [
        ("CREATE TABLE x.t (a int)", "3F000: schema \"x\" does not exist"),
        ("CREATE VIEW x.v AS SELECT 1 AS a", "3F000: schema \"x\" does not exist"),
        ("ALTER TABLE x.t RENAME TO u", "3F000: schema \"x\" does not exist"),
        ("COMMENT ON TABLE x.t IS 'x'", "3F000: schema \"x\" does not exist"),
        ("DESCRIBE x.t", "3F000: schema \"x\" does not exist"),
        ("ALTER TABLE s.u RENAME TO v", "42P01: table \"s.u\" does not exist"),
        ("INSERT INTO x.t VALUES (1)", "42P01: relation \"x.t\" does not exist"),
        ("INSERT INTO dead_letters.t VALUES (1)", "0A000: tables of the schema \"dead_letters\" cannot be written"),
        ("SELECT 'x.t'::regclass", "42P01: relation \"x.t\" does not exist"),
        ("CREATE TABLE s.t (a int)", "42P07: relation \"s.t\" already exists"),
        ("ALTER TABLE t SET SCHEMA s", "42P07: relation \"s.t\" already exists"),
        ("SET search_path TO a, ", "42601: syntax error at end of input"),
        (
            "COMMENT ON SCHEMA pg_catalog IS 'x'",
            "0A000: cannot comment on schema pg_catalog because it is required by the database system",
        ),
        ("SELECT * FROM other.public.t", "0A000: cross-database references are not implemented: \"other.public.t\""),
    ] {
        let error = db_error(&client, sql).await;
        assert_eq!(format!("{}: {}", error.code().code(), error.message()), expected, "{sql}");
    }
    let error = db_error(&client, "CREATE SCHEMA weir_s").await;
    assert_eq!(error.code().code(), "42939");
    let error = db_error(&client, "CREATE TABLE x.t (a int)").await;
    assert_eq!(error.position(), Some(&tokio_postgres::error::ErrorPosition::Original(14)));
}

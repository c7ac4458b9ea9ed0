//! INSERT, UPDATE, DELETE and COPY: rows that nodes hold until the leader commits them.

use futures::SinkExt;
use tokio_postgres::{Client, SimpleQueryMessage};
use weir_common::error::Kind;

use crate::cluster::Cluster;
use crate::statements::db_error;

/// The answer to a text: rows with values joined by `|`, or the number of rows of a tag.
async fn run(client: &Client, sql: &str) -> String {
    let messages = match client.simple_query(sql).await {
        Ok(messages) => messages,
        Err(error) => {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
            return format!("{}: {}", error.code().code(), error.message());
        }
    };
    let mut lines = Vec::new();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                let cells = (0..row.len()).map(|place| row.get(place).unwrap_or("NULL"));
                lines.push(cells.collect::<Vec<_>>().join("|"));
            }
            SimpleQueryMessage::CommandComplete(rows) if lines.is_empty() => lines.push(format!("#{rows}")),
            _ => {}
        }
    }
    lines.sort();
    lines.join(" ")
}

async fn sqlstate(client: &Client, sql: &str) -> String {
    db_error(client, sql).await.code().code().to_owned()
}

async fn table(client: &Client) {
    let sql = "CREATE TABLE t (a int PRIMARY KEY, b varchar DEFAULT 'new', c bigint AS a * 10)";
    client.batch_execute(sql).await.expect("a table");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_written_once_they_are_committed() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    table(&client).await;
    for (sql, expected) in [
        ("INSERT INTO t VALUES (1, DEFAULT), (2, 'two')", "#2"),
        ("SELECT * FROM t", "1|new|10 2|two|20"),
        ("INSERT INTO t (a, b) SELECT a + 10, b FROM t RETURNING *", "11|new|110 12|two|120"),
        ("UPDATE t SET b = b || '!' WHERE a > 10 RETURNING a, b, c", "11|new!|110 12|two!|120"),
        ("UPDATE t SET a = a + 1 WHERE a < 10", "#2"),
        ("SELECT * FROM t", "11|new!|110 12|two!|120 2|new|20 3|two|30"),
        ("DELETE FROM t USING (VALUES (2), (2), (12)) AS v(n) WHERE a = n RETURNING t.*", "12|two!|120 2|new|20"),
        ("UPDATE t SET b = v.n FROM (VALUES ('x')) AS v(n) WHERE a = 3 RETURNING t.a, v.n AS m", "3|x"),
        ("INSERT INTO t VALUES (3, NULL)", "#1"),
        ("SELECT * FROM t", "11|new!|110 3|NULL|30"),
        ("DELETE FROM t WHERE a = 99", "#0"),
        ("DELETE FROM t", "#2"),
        ("SELECT count(*) FROM t", "0"),
        (
            "INSERT INTO t (b) VALUES ('x')",
            "23502: null value in column \"a\" of relation \"t\" violates not-null constraint",
        ),
        ("INSERT INTO nothing VALUES (1)", "42P01: relation \"nothing\" does not exist"),
        ("BEGIN READ ONLY; INSERT INTO t VALUES (1)", "25006: cannot execute INSERT in a read-only transaction"),
        ("ROLLBACK", "#0"),
    ] {
        assert_eq!(run(&client, sql).await, expected, "{sql}");
    }
    let state = cluster.shared.state();
    assert!(state.held.rows.is_empty(), "{:?}", state.held);
    assert!(state.held.locks >= 6, "{:?}", state.held);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_key_are_numbered() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute("CREATE TABLE t (a int, j jsonb)").await.expect("a table");
    for (sql, expected) in [
        ("INSERT INTO t VALUES (1, '{\"x\": 1}'), (1, NULL)", "#2"),
        ("INSERT INTO t SELECT * FROM t", "#2"),
        ("SELECT * FROM t", "1|NULL 1|NULL 1|{\"x\": 1} 1|{\"x\": 1}"),
        ("UPDATE t SET a = 2 WHERE j IS NULL", "#2"),
        ("DELETE FROM t WHERE a = 1", "#2"),
        ("SELECT * FROM t", "2|NULL 2|NULL"),
        ("CREATE TABLE u (x) AS SELECT a, count(*) FROM t GROUP BY a", "#1"),
        ("SELECT x, count FROM u", "2|2"),
        ("CREATE TABLE u AS SELECT 1 AS a", "42P07: relation \"u\" already exists"),
        ("CREATE TABLE v AS SELECT 1 / 0 AS a", "22012: division by zero"),
        ("SELECT * FROM v", "42P01: relation \"v\" does not exist"),
        (
            "SELECT is_nullable, column_default FROM information_schema.columns WHERE table_name = 't'",
            "YES|NULL YES|NULL",
        ),
        ("SELECT conname FROM pg_constraint", "#0"),
    ] {
        assert_eq!(run(&client, sql).await, expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_of_columns_are_checked() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    for (columns, expected) in [
        ("a int DEFAULT 'x'", "22P02"),
        ("a int DEFAULT ('x' || 'y')", "42804"),
        ("a int DEFAULT b, b int", "42703"),
        ("a int DEFAULT (SELECT 1)", "0A000"),
        ("a int DEFAULT count(*)", "42803"),
        ("a int, b timestamptz AS now()", "42P17"),
        ("a int, b int AS a || 'x'", "42804"),
        ("a int, b int AS c + 1, c int AS a + 1", "42703"),
    ] {
        let sql = format!("CREATE TABLE t ({columns})");
        assert_eq!(sqlstate(&client, &sql).await, expected, "{sql}");
    }
    let sql = "CREATE TABLE t (a int NOT NULL DEFAULT 1 + 1, b timestamptz DEFAULT now(), c int AS a * 2)";
    client.batch_execute(sql).await.expect("a table");
    let defaults = "SELECT column_name, column_default, is_nullable, generation_expression FROM information_schema.columns \
                    WHERE table_name = 't'";
    assert_eq!(run(&client, defaults).await, "a|1 + 1|NO|NULL b|now()|YES|NULL c|NULL|YES|a * 2");
    let expressions = "SELECT a.attname, pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d JOIN pg_attribute a \
                       ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE adrelid = 't'::regclass";
    assert_eq!(run(&client, expressions).await, "a|1 + 1 b|now() c|a * 2");
    assert_eq!(run(&client, "INSERT INTO t DEFAULT VALUES RETURNING a, b > '2000-01-01', c").await, "2|t|4");
    assert_eq!(run(&client, "INSERT INTO t (a) VALUES (5), (DEFAULT)").await, "#2");
    assert_eq!(run(&client, "SELECT a, c FROM t").await, "2|4 2|4 5|10");
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_take_the_types_of_columns() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.batch_execute("CREATE TABLE t (a bigint PRIMARY KEY, b varchar, j jsonb, d date)").await.expect("a table");
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2, $3::text::jsonb, $4)").await.expect("a statement");
    let types: Vec<String> = insert.params().iter().map(|ty| ty.name().to_owned()).collect();
    assert_eq!(types, ["int8", "varchar", "varchar", "date"]);
    assert!(insert.columns().is_empty());
    let none: Option<&str> = None;
    assert_eq!(client.execute("INSERT INTO t VALUES ($1, $2)", &[&1_i64, &"x"]).await.expect("a row"), 1);
    let returning = client.query_one("UPDATE t SET b = $1 WHERE a = $2 RETURNING b, a AS n", &[&none, &1_i64]).await;
    let row = returning.expect("a row");
    assert_eq!((row.get::<_, Option<String>>(0), row.get::<_, i64>("n")), (None, 1));
    // A pipeline of INSERTs is one statement.
    let before = cluster.shared.state().held.commits;
    let statement = client.prepare("INSERT INTO t (a, b) VALUES ($1, $2)").await.expect("a statement");
    for (start, end) in [(10_i64, 20_i64)] {
        let all = (start..end).map(|number| {
            let (client, statement) = (&client, &statement);
            async move { client.execute(statement, &[&number, &"many"]).await }
        });
        assert_eq!(futures::future::try_join_all(all).await.expect("rows").iter().sum::<u64>(), 10);
    }
    assert!(cluster.shared.state().held.commits > before);
    assert_eq!(run(&client, "SELECT count(*) FROM t WHERE b = 'many'").await, "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_rows_are_one_statement() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    table(&client).await;
    let copy = async |sql: &str, data: &str| {
        let sink = client.copy_in::<_, bytes::Bytes>(sql).await?;
        let mut sink = std::pin::pin!(sink);
        for piece in data.as_bytes().chunks(7) {
            sink.send(bytes::Bytes::copy_from_slice(piece)).await?;
        }
        sink.finish().await
    };
    assert_eq!(copy("COPY t (a, b) FROM STDIN", "1\ta\\tb\n2\t\\N\n").await.expect("rows"), 2);
    assert_eq!(copy("COPY t (a) FROM STDIN (FORMAT csv, HEADER)", "a\n3\n4\n").await.expect("rows"), 2);
    assert_eq!(run(&client, "SELECT * FROM t").await, "1|a\tb|10 2|NULL|20 3|new|30 4|new|40");
    let commits = cluster.shared.state().held.commits;
    for (sql, data, state, context) in [
        ("COPY t (a) FROM STDIN", "5\nx\n", "22P02", "COPY t, line 2, column a: \"x\""),
        ("COPY t FROM STDIN", "5\n", "22P04", "COPY t, line 1: \"5\""),
        ("COPY t (a, b) FROM STDIN", "5\ta\tb\n", "22P04", "COPY t, line 1: \"5\ta\tb\""),
        ("COPY t (b) FROM STDIN CSV", "x\n", "23502", ""),
    ] {
        let error = copy(sql, data).await.expect_err(sql);
        let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
        assert_eq!((error.code().code(), error.where_().unwrap_or_default()), (state, context), "{sql}");
    }
    assert_eq!(sqlstate(&client, "COPY t (c) FROM STDIN").await, "42P10");
    assert_eq!(sqlstate(&client, "COPY missing FROM STDIN").await, "42P01");
    // The client gives up.
    {
        let sink = client.copy_in::<_, bytes::Bytes>("COPY t (a) FROM STDIN").await.expect("a COPY");
        let mut sink = std::pin::pin!(sink);
        sink.send(bytes::Bytes::from_static(b"7\n")).await.expect("a row");
    }
    assert_eq!(run(&client, "SELECT count(*) FROM t").await, "4");
    assert_eq!(cluster.shared.state().held.commits, commits);
    let binary = client.copy_in::<_, bytes::Bytes>("COPY t (a, b) FROM STDIN BINARY").await.expect("a COPY");
    let types = [tokio_postgres::types::Type::INT4, tokio_postgres::types::Type::VARCHAR];
    let mut writer = std::pin::pin!(tokio_postgres::binary_copy::BinaryCopyInWriter::new(binary, &types));
    writer.as_mut().write(&[&8_i32, &"eight"]).await.expect("a row");
    assert_eq!(writer.finish().await.expect("rows"), 1);
    assert_eq!(run(&client, "SELECT * FROM t WHERE a = 8").await, "8|eight|80");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_runs_again_if_it_is_known_not_to_be_committed() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    table(&client).await;
    assert_eq!(run(&client, "INSERT INTO t VALUES (1)").await, "#1");
    // The placement that the frontend knows is over.
    cluster.shared.state().term += 1;
    assert_eq!(run(&client, "INSERT INTO t VALUES (2)").await, "#1");
    cluster.shared.state().held.refused_holds.push((Kind::Unavailable, "57P03"));
    assert_eq!(run(&client, "UPDATE t SET b = 'again' WHERE a = 1").await, "#1");
    cluster.shared.state().held.refused_holds = vec![(Kind::User, "53200")];
    assert_eq!(sqlstate(&client, "INSERT INTO t VALUES (3)").await, "53200");
    // The term of its rows ended before their commit.
    cluster.shared.state().held.refused_commits = vec![(Kind::Fenced, Some("40001"))];
    assert_eq!(run(&client, "INSERT INTO t VALUES (4)").await, "#1");
    // The leader is deposed before it answers, which is asked again.
    cluster.shared.state().held.refused_commits = vec![(Kind::Unavailable, None)];
    assert_eq!(run(&client, "INSERT INTO t VALUES (5)").await, "#1");
    assert_eq!(run(&client, "SELECT a, b FROM t").await, "1|again 2|new 4|new 5|new");
    assert_eq!(run(&client, "INSERT INTO t VALUES (1), (6) ON CONFLICT DO NOTHING").await, "#1");
}

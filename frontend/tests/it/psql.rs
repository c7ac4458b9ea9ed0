//! psql's own commands, if psql is installed.

use std::process::Stdio;

use tokio::process::Command;
use weir_common::catalog::JobState;

use crate::cluster::{Cluster, Scan};
use crate::statements::add_events;
use crate::types::add_types;

/// Returns psql's output for a command, or `None` if there is no psql.
pub(crate) async fn psql(cluster: &Cluster, arguments: &[&str]) -> Option<(String, String)> {
    let output = Command::new("psql")
        .args(["-h", "127.0.0.1", "-p", &cluster.sql.port().to_string(), "-U", "root", "-d", "dev", "-X"])
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .env("PAGER", "cat")
        .stdin(Stdio::null())
        .output()
        .await;
    match output {
        Ok(output) => {
            Some((String::from_utf8(output.stdout).expect("UTF-8"), String::from_utf8(output.stderr).expect("UTF-8")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("psql is not installed: nothing is checked");
            None
        }
        Err(error) => panic!("psql cannot be run: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lists_tables() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    add_types(&cluster.shared);
    let Some((out, err)) = psql(&cluster, &["-c", "\\dt"]).await else { return };
    assert_eq!(err, "");
    assert_eq!(
        out,
        "        List of relations\n \
         Schema |  Name  | Type  | Owner \n\
         --------+--------+-------+-------\n \
         public | events | table | root\n \
         public | types  | table | root\n\
         (2 rows)\n\n"
    );
    let (out, err) = psql(&cluster, &["-A", "-t", "-c", "\\d"]).await.expect("psql is there");
    assert_eq!((out.as_str(), err.as_str()), ("public|events|table|root\npublic|types|table|root\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_describes_a_table() {
    let cluster = Cluster::start().await;
    add_types(&cluster.shared);
    let Some((out, err)) = psql(&cluster, &["-c", "\\d types"]).await else { return };
    assert_eq!(err, "");
    assert_eq!(
        out,
        "                         Table \"public.types\"\n \
         Column |            Type             | Collation | Nullable | Default \n\
         --------+-----------------------------+-----------+----------+---------\n \
         b      | boolean                     |           |          | \n \
         i2     | smallint                    |           |          | \n \
         i4     | integer                     |           |          | \n \
         i8     | bigint                      |           |          | \n \
         f4     | real                        |           |          | \n \
         f8     | double precision            |           |          | \n \
         v      | character varying           |           |          | \n \
         y      | bytea                       |           |          | \n \
         d      | date                        |           |          | \n \
         ts     | timestamp without time zone |           |          | \n \
         tz     | timestamp with time zone    |           |          | \n \
         j      | jsonb                       |           |          | \n\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lists_databases_and_schemas() {
    let cluster = Cluster::start().await;
    let Some((out, err)) = psql(&cluster, &["-A", "-t", "-c", "\\l"]).await else { return };
    assert_eq!(err, "");
    assert!(out.starts_with("dev|root|UTF"), "{out}");
    let (out, err) = psql(&cluster, &["-A", "-t", "-c", "\\dn"]).await.expect("psql is there");
    assert_eq!(err, "");
    assert!(out.contains("public|root"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lists_and_describes_views() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 3);
    let script = [
        "CREATE VIEW v (key) AS SELECT id, name AS called FROM events WHERE id > 0",
        "CREATE VIEW w AS SELECT * FROM v",
        "COMMENT ON VIEW v IS 'some of them'",
        "COMMENT ON COLUMN v.key IS 'the key'",
        "COMMENT ON TABLE events IS 'all of them'",
    ];
    let script: Vec<&str> = script.iter().flat_map(|sql| ["-c", sql]).collect();
    let Some((out, err)) = psql(&cluster, &script).await else { return };
    assert_eq!((out.as_str(), err.as_str()), ("CREATE VIEW\nCREATE VIEW\nCOMMENT\nCOMMENT\nCOMMENT\n", ""));
    for (command, expected) in [
        ("\\dv", "public|v|view|root\npublic|w|view|root\n"),
        ("\\d v", "key|bigint|||\ncalled|character varying|||\n"),
        ("\\dt+", "public|events|table|root|permanent|heap||all of them\n"),
        ("SELECT * FROM w ORDER BY key", "1|name 1\n2|name 2\n"),
    ] {
        let (out, err) = psql(&cluster, &["-A", "-t", "-c", command]).await.expect("psql is there");
        assert_eq!((out.as_str(), err.as_str()), (expected, ""), "{command}");
    }
    let (out, err) = psql(&cluster, &["-c", "\\d+ v"]).await.expect("psql is there");
    assert_eq!(err, "");
    assert!(out.contains("View \"public.v\"") && out.contains("| the key"), "{out}");
    assert!(out.contains("View definition:\n SELECT id AS key, name AS called FROM events WHERE id > 0;"), "{out}");
    let (out, err) = psql(&cluster, &["-A", "-t", "-c", "\\dv+ v"]).await.expect("psql is there");
    assert!(out.ends_with("|some of them\n") && err.is_empty(), "{out}{err}");
}

/// The commands that psql must run without an error, even if Weir has no such objects.
const QUESTIONS: &[&str] = &[
    "\\d",
    "\\d+",
    "\\d types",
    "\\d+ types",
    "\\d nothing*",
    "\\dt",
    "\\dt+",
    "\\dt public.*",
    "\\dn",
    "\\dn+",
    "\\dT",
    "\\dT+",
    "\\dp",
    "\\z",
    "\\dm",
    "\\dv",
    "\\di",
    "\\ds",
    "\\dE",
    "\\l",
    "\\df",
    "\\df+",
    "\\da",
    "\\du",
    "\\du+",
    "\\dg",
    "\\dx",
    "\\db",
    "\\dy",
    "\\dRp",
    "\\dS types",
    "\\conninfo",
    "\\encoding",
    "\\drds",
    "\\dD",
    "\\dC",
    "\\do",
    "\\dc",
];

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_every_question_about_the_database() {
    let cluster = Cluster::start().await;
    add_types(&cluster.shared);
    let mut failed = Vec::new();
    for question in QUESTIONS {
        let Some((out, err)) = psql(&cluster, &["-c", question]).await else { return };
        eprintln!("{question}: {out}");
        if !err.is_empty() && !err.starts_with("Did not find any") {
            failed.push(format!("{question}: {err}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_cancels_a_query_when_it_is_interrupted() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    cluster.shared.state().scans.extend(vec![Scan::StallAfter(0); 3]);
    let url = format!("postgresql://root@127.0.0.1:{}/dev", cluster.sql.port());
    let started = Command::new("psql")
        .args(["-X", &url, "-c", "SELECT count(*) FROM events"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    // Without psql there is nothing to check; the other tests report that.
    let Ok(process) = started else { return };
    let pid = process.id().expect("it runs").to_string();
    cluster.until("do scans run", |state| state.open_scans == 3).await;
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.expect("kill runs").success());
    let output = process.wait_with_output().await.expect("it ends");
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(err.contains("ERROR:  canceling statement due to user request"), "{err}");
    cluster.until("are scans and pins gone", |state| state.open_scans == 0 && state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_copies_to_its_output() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 2);
    let copy = "\\copy (SELECT id, name FROM events ORDER BY id) TO STDOUT WITH CSV HEADER";
    let Some((out, err)) = psql(&cluster, &["-c", copy]).await else { return };
    assert_eq!((out.as_str(), err.as_str()), ("id,name\n0,name 0\n1,name 1\n", ""));
    let (out, err) = psql(&cluster, &["-c", "COPY events TO STDOUT"]).await.expect("psql is there");
    assert_eq!((out.as_str(), err.as_str()), ("0\tname 0\n1\tname 1\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_that_a_table_has_failed() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 2);
    {
        let mut state = cluster.shared.state();
        state.catalog_version += 1;
        let failed =
            JobState::Failed { error: "the stream is gone".to_owned(), since_ms: Some(86_400_000), torn: false };
        state.catalog[0] = state.catalog[0].with_state(failed);
    }
    let Some((out, err)) = psql(&cluster, &["-A", "-t", "-c", "SELECT count(*) FROM events"]).await else { return };
    assert_eq!(out, "2\n");
    assert_eq!(
        err,
        "WARNING:  table \"events\" has failed and is not kept up to date: the stream is gone\n\
         HINT:  its rows end where it stopped; mend the cause, then drop it and create it again\n"
    );
    let jobs = "SELECT name, kind, state, since, reason FROM weir_catalog.jobs";
    let (out, err) = psql(&cluster, &["-A", "-t", "-c", jobs]).await.expect("psql is there");
    assert_eq!((out.as_str(), err.as_str()), ("events|table|failed|1970-01-02 00:00:00+00|the stream is gone\n", ""));
    let (out, _) = psql(&cluster, &["-A", "-t", "-c", "SHOW JOBS"]).await.expect("psql is there");
    assert!(out.ends_with("|events|table|failed|1970-01-02 00:00:00+00|the stream is gone||0|||\n"), "{out}");
    let quiet = ["-c", "SET client_min_messages = error", "-c", "SELECT count(*) FROM events"];
    let (_, err) = psql(&cluster, &quiet).await.expect("psql is there");
    assert_eq!(err, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_points_at_errors() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let Some((_, err)) = psql(&cluster, &["-c", "SELECT id,\n  nam FROM events"]).await else { return };
    assert!(err.contains("LINE 2:   nam FROM events\n          ^"), "{err}");
    let (_, err) = psql(&cluster, &["-c", "CREATE TABLE t (a blob)"]).await.expect("psql is there");
    assert!(err.contains("LINE 1: CREATE TABLE t (a blob)\n                          ^"), "{err}");
    assert!(err.contains("HINT:  the types are"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_prints_results_and_tags() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 3);
    let Some((out, err)) = psql(&cluster, &["-c", "SELECT * FROM events ORDER BY id"]).await else { return };
    assert_eq!(err, "");
    assert_eq!(out, " id |  name  \n----+--------\n  0 | name 0\n  1 | name 1\n  2 | name 2\n(3 rows)\n\n");
    let (out, _) = psql(&cluster, &["-c", "SET application_name = 'x'", "-c", "SHOW TABLES", "-c", "FLUSH"])
        .await
        .expect("psql is there");
    assert_eq!(out, "SET\n  Name  \n--------\n events\n(1 row)\n\nFLUSH\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_notices() {
    let cluster = Cluster::start().await;
    cluster.shared.state().notices.push("the stream holds nothing yet".to_owned());
    let sql = "CREATE TABLE t (a int) WITH (connector = 'nats', server_url = 'x:1', subject = 'a', subject = 'b', \
               stream = 's') FORMAT PLAIN ENCODE JSON";
    let Some((out, err)) = psql(&cluster, &["-c", sql]).await else { return };
    assert_eq!(out, "CREATE TABLE\n");
    assert_eq!(
        err,
        "NOTICE:  option \"subject\" is given more than once; the last value is used\n\
         NOTICE:  the stream holds nothing yet\n"
    );
    let again = sql.replace("TABLE t", "TABLE IF NOT EXISTS t");
    let (out, err) = psql(&cluster, &["-c", &again]).await.expect("psql is there");
    assert_eq!((out.as_str(), err.as_str()), ("CREATE TABLE\n", "NOTICE:  relation \"t\" already exists, skipping\n"));
    let (out, err) = psql(&cluster, &["-c", "DROP TABLE IF EXISTS x"]).await.expect("psql is there");
    assert_eq!((out.as_str(), err.as_str()), ("DROP TABLE\n", "NOTICE:  table \"x\" does not exist, skipping\n"));
    let (_, err) = psql(&cluster, &["-c", "SET TimeZone = 'Europe/Berlin'"]).await.expect("psql is there");
    assert_eq!(err, "NOTICE:  sessions are in UTC; the time zone \"Europe/Berlin\" is not used\n");
    let (_, err) = psql(&cluster, &["-c", "COMMIT"]).await.expect("psql is there");
    assert_eq!(err, "WARNING:  there is no transaction in progress\n");
}

//! Statements about materialized views that a plan of fragments keeps up to date.

use weir_common::catalog::Plan;

use crate::cluster::Cluster;
use crate::semantics::check;
use crate::statements::{db_error, rows};

const SOURCE: &str = "CREATE SOURCE s (channel varchar, n int, weight double precision, document jsonb) \
                      WITH (connector = 'nats', server_url = 'localhost:4222', subject = 'a', stream = 's', \
                      connect_mode = 'plain') FORMAT PLAIN ENCODE JSON";

#[tokio::test(flavor = "multi_thread")]
async fn views_of_aggregates_are_created_described_and_shown() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    rows(&client, SOURCE).await;
    let create = "CREATE MATERIALIZED VIEW v (channel, \"Last\") AS SELECT avg(n), max(weight) FROM s GROUP BY channel";
    rows(&client, create).await;
    rows(&client, "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT count(*) FROM s").await;
    rows(&client, "CREATE MATERIALIZED VIEW total AS SELECT count(*) FROM s").await;
    check(
        &client,
        &[
            ("SHOW MATERIALIZED VIEWS", "total\nv"),
            ("DESCRIBE v", "channel|numeric|false|NULL\nLast|double precision|false|NULL"),
            ("DESCRIBE total", "count|bigint|false|NULL"),
            ("SELECT column_name FROM information_schema.columns WHERE table_name IN ('v', 'total')", ""),
            ("SELECT count(*) FROM pg_index", "0"),
            ("SELECT attname FROM pg_attribute WHERE attrelid = 'total'::regclass AND attnum > 0", "count"),
        ],
    )
    .await;
    assert_eq!(rows(&client, "SHOW CREATE MATERIALIZED VIEW v").await, format!("public.v|{create}"));
    let stored = cluster.shared.state().catalog.clone();
    let view = stored.iter().find(|entry| entry.name().to_string() == "v").expect("the view");
    let hidden: Vec<&str> = view.relation.hidden.iter().map(|column| column.name.as_str()).collect();
    assert_eq!((hidden.as_slice(), view.relation.primary_key.as_slice()), (&["_channel"][..], &[2][..]));
    assert!(matches!(&view.job.plan, Plan::Query(query) if query.reads.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_views_plan_is_explained() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    rows(&client, SOURCE).await;
    let explain = "EXPLAIN CREATE MATERIALIZED VIEW v AS";
    let plan = rows(&client, &format!("{explain} SELECT channel, count(*) FROM s WHERE n > 1 GROUP BY channel")).await;
    let expected = "Fragment 0: an actor for each split of s\n  \
                    Read #0, #1\n  \
                    Filter (#1 > '1'::integer)\n  \
                    Project #0\n  \
                    PreAggregate by (#0): count(*)\n  \
                    Output: inserts only, stream key (channel)\n  \
                    To fragment 1 input 0: by hash of (channel)\n\
                    Fragment 1: an actor for each slot\n  \
                    Aggregate partial results by (#0): count(*); groups in state table 0\n  \
                    Materialize; visible columns: 2; with the groups of state table 0\n  \
                    Output: changes, stream key (channel)\n\
                    State table 0: (character varying) to (bigint, bigint)";
    assert_eq!(plan, expected);
    let plan = rows(&client, &format!("{explain} SELECT n * 2 AS double FROM s")).await;
    assert_eq!(plan, "Each row of s gives one row or none, where it is read\n  Read n");
    assert_eq!(rows(&client, "SHOW MATERIALIZED VIEWS").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_on_the_group_narrows_the_scan() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    rows(&client, SOURCE).await;
    rows(&client, "CREATE MATERIALIZED VIEW v AS SELECT channel, n, count(*) FROM s GROUP BY channel, n").await;
    for (condition, expected) in [
        ("channel = 'x' AND n IS NULL", "slots=1"),
        ("channel IS NULL AND n IN (1)", "slots=1"),
        ("channel > 'x'", "keys=["),
        ("channel IS NULL", "keys=["),
    ] {
        let plan = rows(&client, &format!("EXPLAIN SELECT * FROM v WHERE {condition}")).await;
        assert!(plan.contains(expected), "{condition}: {plan}");
    }
    let plan = rows(&client, "EXPLAIN SELECT * FROM v WHERE count = 5").await;
    assert!(!plan.contains("keys=["), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_cannot_be_kept_up_to_date_are_refused() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    rows(&client, SOURCE).await;
    for explain in ["", "EXPLAIN "] {
        let view = format!("{explain}CREATE MATERIALIZED VIEW v AS SELECT count(*), now() FROM s");
        let error = db_error(&client, &view).await;
        assert_eq!(error.code().code(), "0A000", "{view}");
        assert!(error.message().starts_with("now(), whose value depends on when"), "{}", error.message());
        assert!(error.hint().is_some_and(|hint| hint.contains("aggregate")), "{:?}", error.hint());
    }
    let error = db_error(&client, "CREATE MATERIALIZED VIEW v AS SELECT count(*), channel FROM s").await;
    assert_eq!(error.code().code(), "42803");
    let error = db_error(&client, "CREATE MATERIALIZED VIEW v AS SELECT count(*), count(*) FROM s").await;
    assert_eq!(error.code().code(), "42701");
}

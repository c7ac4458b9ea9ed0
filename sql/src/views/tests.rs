//! How views are described for the catalog.

use weir_common::catalog::Plan;
use weir_common::plan::Operator;

use super::{Described, describe};
use crate::error::Error;
use crate::parser::{self, Statement};
use crate::streaming::tests::Fixture;

async fn described(sql: &str) -> Result<Described, Error> {
    let Fixture { planner, threads, state } = Fixture::new();
    let parsed = parser::parse(&format!("CREATE MATERIALIZED VIEW v AS {sql}"))?.pop().expect("a statement");
    let Statement::CreateView(create) = &parsed.statement else { panic!("a view") };
    describe(&planner, &threads, state, &parsed, create.query.clone()).await
}

/// Columns with their types, hidden ones in brackets, and the places of the key.
fn shown(described: &Described) -> String {
    let own = described.columns.iter().map(|column| format!("{} {}", column.name, column.ty));
    let hidden = described.hidden.iter().map(|column| format!("[{} {}]", column.name, column.ty));
    format!("{}; key {:?}", own.chain(hidden).collect::<Vec<_>>().join(", "), described.primary_key)
}

#[tokio::test]
async fn a_view_is_stored_by_its_stream_key() {
    for (sql, expected) in [
        ("SELECT id, price * 2 AS double FROM orders", "id bigint, double numeric(20,2); key []"),
        ("SELECT channel, count(*) FROM orders GROUP BY channel", "channel character varying, count bigint; key [0]"),
        ("SELECT count(*), channel FROM orders GROUP BY channel", "count bigint, channel character varying; key [1]"),
        (
            "SELECT sum(quantity), avg(quantity), avg(weight) FROM orders GROUP BY channel",
            "sum bigint, avg numeric, avg double precision, [channel character varying]; key [3]",
        ),
        ("SELECT max(ordered) AS last FROM orders", "last timestamp with time zone, [_row smallint]; key [1]"),
        ("SELECT DISTINCT channel, quantity FROM orders", "channel character varying, quantity integer; key [0, 1]"),
    ] {
        assert_eq!(shown(&described(sql).await.expect("a view")), expected, "{sql}");
    }
}

#[tokio::test]
async fn a_plan_names_columns_by_their_places_among_those_that_it_reads() {
    let described = described("SELECT max(ordered), channel FROM orders WHERE quantity > 1 GROUP BY channel").await;
    let Plan::Query(query) = described.expect("a view").plan else { panic!("a plan of fragments") };
    let [reads] = query.reads.as_slice() else { panic!("one input") };
    assert_eq!(reads.columns.iter().map(|column| &column.name).collect::<Vec<_>>(), ["channel", "quantity", "ordered"]);
    let operator = query.plan.fragments[0].operators.first();
    assert_eq!(operator, Some(&Operator::Read { columns: vec![0, 1, 2] }));
}

#[tokio::test]
async fn tables_are_followed() {
    for (sql, key) in [
        ("SELECT city, count(*) FROM users GROUP BY city", vec![0]),
        ("SELECT name FROM users", vec![1]),
        ("SELECT level, count(*) FROM log GROUP BY level", vec![0]),
        ("SELECT line FROM log WHERE level > 1", vec![1, 2, 3]),
    ] {
        let described = described(sql).await.expect("a view");
        assert!(matches!(described.plan, Plan::Query(_)), "{sql}");
        assert_eq!(described.primary_key, key, "{sql}");
    }
}

#[tokio::test]
async fn other_queries_are_refused_with_what_is_possible() {
    for (sql, expected) in [
        (
            "SELECT array_agg(document) FROM orders",
            "the aggregate array_agg of the type jsonb is not supported yet in a materialized view",
        ),
        ("SELECT id FROM orders ORDER BY id", "ORDER BY is not supported yet in a materialized view"),
        (
            "SELECT count(*), random() FROM orders",
            "random(), whose value depends on when or by whom it is asked, is not supported yet in a materialized view",
        ),
        ("SELECT a.id FROM orders a, orders b", "a join is not supported yet in a materialized view"),
    ] {
        let error = described(sql).await.err().expect("an error");
        assert_eq!((error.sqlstate.as_ref(), error.message.as_str()), ("0A000", expected), "{sql}");
        assert!(error.hint.is_some(), "{sql}");
    }
}

//! Literals whose type depends on the operand beside them, and patterns with an escape character,
//! as drivers and ORMs write them.

use crate::cluster::Cluster;
use crate::statements::{add_events, db_error, rows};

#[tokio::test(flavor = "multi_thread")]
async fn a_text_beside_a_boolean_is_one() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let among = "FROM (VALUES (1, true), (2, false), (3, NULL)) AS t (n, b)";
    for (sql, expected) in [
        ("SELECT n {among} WHERE b = 'true'", "1"),
        ("SELECT n {among} WHERE 'F' = b", "2"),
        ("SELECT n {among} WHERE b <> 't'", "2"),
        ("SELECT n {among} WHERE b IS NOT DISTINCT FROM 'on'", "1"),
        ("SELECT n {among} WHERE b IN ('yes', 'no') ORDER BY n", "1\n2"),
        ("SELECT CASE b WHEN 't' THEN 0 ELSE 1 END {among} ORDER BY n", "0\n1\n1"),
        ("SELECT count(*) FILTER (WHERE b = '1') {among}", "1"),
        ("SELECT (SELECT max(n) {among} WHERE b = 'off')", "2"),
    ] {
        let sql = sql.replace("{among}", among);
        assert_eq!(rows(&client, &sql).await, expected, "{sql}");
    }
    assert_eq!(db_error(&client, &format!("SELECT n {among} WHERE b = 'maybe'")).await.code().code(), "22P02");
    let found =
        client.query("SELECT n FROM (VALUES (1, true)) AS t (n, b) WHERE b = 't' AND n = $1::int", &[&1_i32]).await;
    assert_eq!(found.expect("one row").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_have_any_escape_character() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    for (sql, expected) in [
        ("SELECT 'pg_x' LIKE 'pg/_%' ESCAPE '/', 'pgxx' LIKE 'pg/_%' ESCAPE '/'", "t|f"),
        ("SELECT 'pg_x' NOT LIKE 'PG!_' || '%' ESCAPE '!'", "t"),
        ("SELECT 'PG_x' ILIKE 'pg!_%' ESCAPE '!'", "t"),
        (r"SELECT 'a\b' LIKE 'a\b' ESCAPE '', 'a\b' LIKE 'a\\b'", "t|t"),
        (r"SELECT 'a_b' LIKE 'a\_b' ESCAPE '\'", "t"),
        ("SELECT s FROM (VALUES ('a%', 'a#%'), ('ab', 'a#%')) AS t (s, p) WHERE s LIKE p ESCAPE '#'", "a%"),
    ] {
        assert_eq!(rows(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(db_error(&client, "SELECT 'a' LIKE 'a' ESCAPE 'ab'").await.code().code(), "22025");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_counts_and_elements_are_cut() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    assert_eq!(rows(&client, "SELECT id FROM events ORDER BY id LIMIT '2' OFFSET '3'").await, "3\n4");
    assert_eq!(db_error(&client, "SELECT id FROM events LIMIT 'x'").await.code().code(), "22P02");
    assert_eq!(rows(&client, "SELECT ARRAY['heat', 'cold']::varchar(3)[]").await, "{hea,col}");
    assert_eq!(rows(&client, "SELECT (ARRAY['heat'])::varchar(255)[]").await, "{heat}");
}

#[tokio::test(flavor = "multi_thread")]
async fn arrays_contain_and_overlap() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    for (sql, expected) in [
        ("SELECT ARRAY[1, 2, 3] @> ARRAY[3, 1], ARRAY[1] @> ARRAY[1, 2], ARRAY[1, 2] <@ ARRAY[2, 1, 1]", "t|f|t"),
        (
            "SELECT ARRAY['a', 'b'] @> '{b}', '{b}' <@ ARRAY['a', 'b'], ARRAY['a'] @> '{}', '{1,9}' && ARRAY[9]",
            "t|t|t|t",
        ),
        ("SELECT ARRAY[1, NULL] @> ARRAY[NULL]::int[], ARRAY[NULL]::int[] && ARRAY[NULL]::int[]", "f|f"),
        ("SELECT ARRAY[1, NULL] @> ARRAY[1], ARRAY[1, NULL] && ARRAY[NULL, 1], NULL::int[] @> ARRAY[1]", "t|t|NULL"),
        ("SELECT ARRAY[0::float8] @> ARRAY[-0.0::float8], ARRAY[1.5] && ARRAY[1.50]", "t|t"),
        ("SELECT ARRAY[1.5] @> ARRAY[1.51], ARRAY[DATE '2026-01-02'] && '{2026-01-02}'", "f|t"),
        ("SELECT t FROM (VALUES (ARRAY['x', 'y']), (ARRAY['y']), (NULL)) AS v (t) WHERE t && '{x,z}'", "{x,y}"),
    ] {
        assert_eq!(rows(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(db_error(&client, "SELECT ARRAY[1] @> '{x}'").await.code().code(), "22P02");
    let sql = "SELECT n FROM (VALUES (1, ARRAY['x', 'y']), (2, ARRAY['y'])) AS v (n, t) WHERE t @> $1 AND t && $2";
    let found = client.query(sql, &[&vec!["x"], &vec!["y"]]).await.expect("one row");
    assert_eq!(found.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_one_value_stand_in_from() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    for (sql, expected) in [
        ("SELECT * FROM current_database()", "dev"),
        ("SELECT abs, x FROM abs(-5), upper('a') AS x", "5|A"),
        ("SELECT t.n + 1 FROM pg_catalog.abs(-5) AS t (n)", "6"),
        ("SELECT n FROM generate_series(1, 2) AS g (n), abs(-5) ORDER BY n", "1\n2"),
        ("SELECT n, pg_typeof(n) FROM generate_series(1, -2, -2) AS g (n) ORDER BY n", "-1|integer\n1|integer"),
        ("SELECT n, pg_typeof(n) FROM generate_series(3000000000, 3000000000) AS g (n)", "3000000000|bigint"),
    ] {
        assert_eq!(rows(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(db_error(&client, "SELECT * FROM nowhere(1)").await.code().code(), "42883");
}

//! Statements, and the rows that their queries give or the errors that they meet.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::common::ParamValues;
use datafusion::physical_plan::collect;
use datafusion::scalar::ScalarValue;
use weir_common::catalog::{Constraints, Origin, RelationKind, RelationName};
use weir_common::ids::TableId;
use weir_common::types::SqlType;

use super::*;
use crate::output::texts;
use crate::parser::{self, Statement};
use crate::planner;
use crate::streaming::tests::Fixture;

/// `t (a integer PRIMARY KEY, b varchar DEFAULT 'x', c numeric(5,2), d date, j jsonb, g AS a + 1)`.
fn table() -> Relation {
    let column =
        |name: &str, ty, constraints| Column { name: name.to_owned(), ty, origin: Origin::Statement(constraints) };
    let plain = Constraints::default;
    let columns = vec![
        column("a", SqlType::Integer, Constraints { not_null: true, ..plain() }),
        column("b", SqlType::Varchar, Constraints { default: Some("'x' || 'y'".to_owned()), ..plain() }),
        column("c", SqlType::Decimal { precision: 5, scale: 2 }, plain()),
        column("d", SqlType::Date, plain()),
        column("j", SqlType::Jsonb, plain()),
        column("g", SqlType::BigInt, Constraints { generated: Some("a + 1".to_owned()), ..plain() }),
    ];
    Relation {
        id: TableId(7),
        kind: RelationKind::Table,
        name: RelationName::public("t"),
        columns,
        hidden: Vec::new(),
        primary_key: vec![0],
        layouts: Vec::new(),
        sql: String::new(),
    }
}

fn parsed(sql: &str) -> Result<Parsed, Error> {
    Ok(parser::parse(sql)?.pop().expect("a statement"))
}

fn planned(sql: &str, relation: &Relation) -> Result<(Parsed, Rows), Error> {
    let parsed = parsed(sql)?;
    let Statement::Write(write) = &parsed.statement else { panic!("{sql} writes") };
    let target = Target { relation, conflict: Conflict::Overwrite, is_changeable: true };
    let rows = rows(&parsed, write, target, Some(1))?;
    Ok((parsed.clone(), rows))
}

/// The rows that a statement without tables gives, a line each.
async fn answer(sql: &str, relation: &Relation) -> Result<String, Error> {
    let Fixture { planner, threads, state } = Fixture::new();
    let (parsed, rows) = planned(sql, relation)?;
    let draft = planner.read(parsed, rows.query.clone(), *rows.query)?;
    let prepared = draft.prepare(&[], || state.clone(), &threads).await?;
    let plan = planner::plan(&state, &prepared).await?;
    let plan = state.create_physical_plan(&plan).await?;
    let mut lines = Vec::new();
    for batch in collect(plan, state.task_ctx()).await? {
        let schema = batch.schema();
        let columns = batch.columns().iter().zip(schema.fields());
        let columns: Vec<_> = columns.map(|(column, field)| texts(column, field).expect("a text")).collect();
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| {
                let column = column.as_string::<i32>();
                if column.is_valid(row) { column.value(row).to_owned() } else { "NULL".to_owned() }
            });
            lines.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    Ok(lines.join("; "))
}

#[tokio::test]
async fn inserted_rows_have_all_columns() {
    let table = table();
    for (sql, expected) in [
        ("INSERT INTO t VALUES (1)", "1 xy NULL NULL NULL 2"),
        ("INSERT INTO t (b, a) VALUES (NULL, '7'), (DEFAULT, 8.5)", "7 NULL NULL NULL NULL 8; 9 xy NULL NULL NULL 10"),
        ("INSERT INTO t VALUES (1, 2, 3.456, '2026-01-02', '{\"a\": 1}', DEFAULT)", "1 2 3.46 2026-01-02 {\"a\": 1} 2"),
        (
            "INSERT INTO t SELECT 5, 'b' RETURNING g, *, a * 2 AS twice",
            "5 b NULL NULL NULL 6 6 5 b NULL NULL NULL 6 10",
        ),
        ("INSERT INTO t (a) SELECT n FROM (VALUES (1), (2)) AS s(n)", "1 xy NULL NULL NULL 2; 2 xy NULL NULL NULL 3"),
        ("INSERT INTO t (a, c) VALUES ((SELECT 3), 1), (4, NULL)", "3 xy 1.00 NULL NULL 4; 4 xy NULL NULL NULL 5"),
        ("WITH x AS (SELECT 1 AS n) INSERT INTO t SELECT n, n::text FROM x", "1 1 NULL NULL NULL 2"),
        ("INSERT INTO t AS u VALUES (1) RETURNING u.a, b", "1 xy NULL NULL NULL 2 1 xy"),
    ] {
        assert_eq!(answer(sql, &table).await.as_deref(), Ok(expected), "{sql}");
    }
    let mut empty = table.clone();
    empty.columns[0].origin =
        Origin::Statement(Constraints { default: Some("40 + 2".to_owned()), ..Constraints::default() });
    assert_eq!(answer("INSERT INTO t DEFAULT VALUES", &empty).await.as_deref(), Ok("42 xy NULL NULL NULL 43"));
}

#[tokio::test]
async fn values_are_converted_as_assignments_are() {
    let table = table();
    for (sql, expected) in [
        ("INSERT INTO t VALUES ('x')", "22P02"),
        (
            "INSERT INTO t VALUES ('a' || 'b')",
            "42804: column \"a\" is of type integer but expression is of type character varying",
        ),
        ("INSERT INTO t VALUES (true)", "42804"),
        ("INSERT INTO t VALUES (3000000000)", "22003"),
        ("INSERT INTO t (a, c) VALUES (1, 1000)", "22003"),
        ("INSERT INTO t (a, d) VALUES (1, 1)", "42804"),
        ("INSERT INTO t (a, j) VALUES (1, 'x'::text)", "42804"),
        ("INSERT INTO t VALUES (1, 2, 3, 4, 5, 6, 7)", "42601: INSERT has more expressions than target columns"),
        ("INSERT INTO t (a) VALUES (1, 2)", "42601: INSERT has more expressions than target columns"),
        ("INSERT INTO t (a, b) VALUES (1)", "42601: INSERT has more target columns than expressions"),
        ("INSERT INTO t VALUES (1), (1, 2)", "42601: VALUES lists must all be the same length"),
        ("INSERT INTO t (a, a) VALUES (1, 2)", "42701: column \"a\" specified more than once"),
        ("INSERT INTO t (z) VALUES (1)", "42703: column \"z\" of relation \"t\" does not exist"),
        ("INSERT INTO t (a, g) VALUES (1, 2)", "428C9: cannot insert a non-DEFAULT value into column \"g\""),
        ("INSERT INTO t VALUES (1) ON CONFLICT (b) DO NOTHING", "42P10"),
        ("INSERT INTO t VALUES (1) ON CONFLICT ON CONSTRAINT t_key DO NOTHING", "42P10"),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET b = 'x'", "42601"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2", "0A000"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET g = 2", "428C9"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = (SELECT 'x')", "0A000"),
        ("INSERT INTO t VALUES (b)", "42703"),
        ("UPDATE t SET g = 1", "428C9: column \"g\" can only be updated to DEFAULT"),
        ("UPDATE t SET a = 1, a = 2", "42601: multiple assignments to same column \"a\""),
        ("UPDATE t SET (a, b) = (1)", "0A000"),
    ] {
        let error = match answer(sql, &table).await {
            Ok(rows) => panic!("{sql} gave {rows}"),
            Err(error) => format!("{}: {}", error.sqlstate, error.message),
        };
        assert!(error.starts_with(expected), "{sql} gave {error}");
    }
    let all = "INSERT INTO t (a, b) VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET b = excluded.b, c = EXCLUDED.c, \
               d = excluded.d, j = excluded.j, g = excluded.g";
    assert_eq!(planned(all, &table).expect(all).1.shape.deleted, 0, "the table's rule is the same");
}

#[test]
fn changes_read_keys_and_new_values() {
    let mut table = table();
    table.columns.truncate(2);
    let text = |sql: &str, table: &Relation| {
        let rows = planned(sql, table).expect(sql).1;
        (rows.query.to_string(), rows.shape)
    };
    let (query, shape) = text("UPDATE t SET b = 'z' WHERE a > 1", &table);
    assert_eq!(
        query,
        "SELECT t.\"a\" AS \"?key0\", t.\"a\" AS \"a\", CAST('z' AS CHARACTER VARYING) AS \"b\" \
         FROM \"weir_stored\".\"t\" AS t WHERE a > 1"
    );
    assert_eq!(shape, Shape { deleted: 1, inserted: 2, returns: false, again: Again::Kept });
    let (query, shape) = text("UPDATE t AS x SET a = u.n FROM u WHERE u.m = x.a RETURNING x.a, u.m, b AS c", &table);
    assert_eq!(
        query,
        "SELECT \"?key0\" AS \"?key0\", x.\"a\" AS \"a\", x.\"b\" AS \"b\", x.a, \"?other0\" AS m, b AS c FROM \
         (SELECT x.\"a\" AS \"?key0\", weir_assign(u.n, 'integer', 'a') AS \"a\", x.\"b\" AS \"b\", u.m AS \"?other0\" \
         FROM \"weir_stored\".\"t\" AS x, u WHERE u.m = x.a) AS x"
    );
    assert!(shape.returns);
    let hidden = Column { name: "_row_id".to_owned(), ty: SqlType::Bytea, origin: Origin::Expression };
    table.hidden = vec![hidden];
    table.primary_key = vec![2];
    let (query, shape) = text("DELETE FROM t USING u WHERE u.n = t.a RETURNING t.*", &table);
    assert_eq!(
        query,
        "SELECT t.\"_row_id\" AS \"?key0\", t.\"a\", t.\"b\" FROM \"weir_stored\".\"t\" AS t, u WHERE u.n = t.a"
    );
    assert_eq!(shape, Shape { deleted: 1, inserted: 0, returns: true, again: Again::LeftOut });
}

#[test]
fn the_rule_of_a_statement_joins_new_rows_with_stored_ones() {
    let mut table = table();
    table.columns.truncate(2);
    let text = |sql: &str| {
        let rows = planned(sql, &table).expect(sql).1;
        (rows.query.to_string(), rows.shape)
    };
    let joined = "(SELECT 1 AS \"a\", CAST('n' AS CHARACTER VARYING) AS \"b\") AS excluded \
                  LEFT JOIN \"weir_stored\".\"t\" AS t ON t.\"a\" = excluded.\"a\"";
    let joined = joined.replace("SELECT 1", "SELECT weir_assign(1, 'integer', 'a')");
    let (query, shape) = text("INSERT INTO t VALUES (1, 'n') ON CONFLICT DO NOTHING");
    let new = "excluded.\"a\" AS \"?key0\", excluded.\"a\" AS \"a\", excluded.\"b\" AS \"b\"";
    assert_eq!(query, format!("SELECT {new} FROM {joined} WHERE t.\"a\" IS NULL"));
    assert_eq!(shape, Shape { deleted: 1, inserted: 2, returns: false, again: Again::LeftOut });
    let sql = "INSERT INTO t VALUES (1, 'n') ON CONFLICT (a) DO UPDATE SET b = b || excluded.b WHERE t.a > 0";
    let (query, shape) = text(sql);
    let choice = |new: &str, old: &str| format!("(CASE WHEN t.\"a\" IS NULL THEN {new} ELSE {old} END)");
    let a = choice("excluded.\"a\"", "t.\"a\"");
    let b = choice("excluded.\"b\"", "weir_assign(t.b || excluded.b, 'character varying', 'b')");
    let items = format!("excluded.\"a\" AS \"?key0\", {a} AS \"a\", {b} AS \"b\"");
    assert_eq!(query, format!("SELECT {items} FROM {joined} WHERE t.\"a\" IS NULL OR (t.a > 0)"));
    assert_eq!(shape.again, Again::Refused);
}

#[test]
fn returning_has_the_columns_of_other_tables() {
    let expanded = |sql: &str| {
        let parsed = parsed(sql).expect(sql);
        let Statement::Write(write) = &parsed.statement else { panic!("{sql} writes") };
        let others: Vec<_> =
            others(write).expect(sql).into_iter().map(|other| (other, vec!["a".to_owned(), "B".to_owned()])).collect();
        let queries: Vec<String> = others.iter().map(|(other, _)| other.query.to_string()).collect();
        let mut write = write.clone();
        write.expand(&others);
        let items: Vec<String> = write.returning.iter().map(ToString::to_string).collect();
        (queries.join("; "), items.join(", "))
    };
    let (queries, items) = expanded("DELETE FROM t USING u, v AS w WHERE t.a = u.a RETURNING *, w.*, 1");
    assert_eq!(queries, "SELECT u.* FROM u, v AS w; SELECT w.* FROM u, v AS w");
    assert_eq!(items, "t.*, u.\"a\", u.\"B\", w.\"a\", w.\"B\", w.\"a\", w.\"B\", 1");
    let (queries, items) = expanded("UPDATE t SET a = 1 FROM u JOIN v ON true RETURNING v.*, t.a");
    assert_eq!((queries.as_str(), items.as_str()), ("SELECT v.* FROM u JOIN v ON true", "v.\"a\", v.\"B\", t.a"));
    let refused = parsed("DELETE FROM t USING u JOIN v USING (a) RETURNING *").expect("it is parsed");
    let Statement::Write(write) = &refused.statement else { panic!("it writes") };
    assert_eq!(others(write).expect_err("columns are merged").sqlstate, "0A000");
}

#[test]
fn literals_need_no_query() {
    let mut table = table();
    table.columns.truncate(4);
    table.columns[1].origin = Origin::Statement(Constraints::default());
    let literals = |sql: &str| planned(sql, &table).expect(sql).1.literals;
    let rows =
        literals("INSERT INTO t VALUES (-1, 'b', 1.5, '2026-01-01'), ($1, DEFAULT, $2, NULL)").expect("literals");
    let one = ScalarValue::Int32(Some(5));
    let two = ScalarValue::Utf8(Some("2.25".to_owned()));
    let batch = rows.rows(Some(&ParamValues::from(vec![one, two])), 0).expect("values").expect("rows");
    assert_eq!((batch.num_rows(), batch.num_columns()), (2, 4));
    let other = ParamValues::from(vec![ScalarValue::Int64(Some(5)), ScalarValue::Null]);
    assert!(rows.rows(Some(&other), 0).expect("values").is_none());
    for sql in [
        "INSERT INTO t VALUES (1.5)",
        "INSERT INTO t VALUES ('x')",
        "INSERT INTO t VALUES (1 + 1)",
        "INSERT INTO t VALUES (1) RETURNING a",
        "INSERT INTO t (a, b) VALUES (1, 2)",
    ] {
        assert!(literals(sql).is_none(), "{sql}");
    }
}

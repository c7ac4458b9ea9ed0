//! Tests statements other than CREATE TABLE, which `bind` tests together with its meaning.

use weir_common::catalog::OnError;

use super::*;

fn one(sql: &str) -> Statement {
    let mut statements = parse(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0).statement
}

fn error(sql: &str) -> String {
    let error = parse(sql).expect_err(sql);
    format!("{} at {}: {}", error.sqlstate, error.position.unwrap_or(0), error.message)
}

#[test]
fn statements_of_weirs_own() {
    assert!(matches!(one("show tables;"), Statement::ShowRelations(RelationKind::Table, None)));
    assert!(matches!(one("SHOW TABLES FROM s"), Statement::ShowRelations(RelationKind::Table, Some(_))));
    assert!(matches!(one("SHOW CLUSTER"), Statement::ShowCluster));
    assert!(matches!(one("flush"), Statement::Flush));
    assert!(
        matches!(one("SHOW CREATE TABLE \"T\""), Statement::ShowCreate(RelationKind::Table, name) if name.name == "T")
    );
    assert!(matches!(one("DESCRIBE public.T"), Statement::Describe(name) if name.name == "t"));
    assert!(matches!(one("DESC t"), Statement::Describe(_)));
    assert!(matches!(
        one("DROP TABLE IF EXISTS a, dev.public.b CASCADE"),
        Statement::Drop { kind: RelationKind::Table, names, if_exists: true, cascade: true } if names.len() == 2
    ));
}

#[test]
fn views_and_names() {
    use RelationKind::{MaterializedView, View};
    let view = |sql: &str| match one(sql) {
        Statement::CreateView(view) => (view.kind, view.or_replace, view.if_not_exists, view.columns.len()),
        other => panic!("{sql}: {other:?}"),
    };
    assert_eq!(view("CREATE VIEW v AS SELECT 1"), (View, false, false, 0));
    assert_eq!(view("create or replace view v (a, b) AS VALUES (1, 2)"), (View, true, false, 2));
    assert_eq!(view("CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT 1"), (MaterializedView, false, true, 0));
    assert!(error("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT 1").starts_with("0A000"));
    let on_error = |options: &str| match one(&format!("CREATE MATERIALIZED VIEW v (a) {options} AS SELECT 1")) {
        Statement::CreateView(view) => view.on_error,
        other => panic!("{options}: {other:?}"),
    };
    let options = ["", "WITH ()", "WITH (on_error = 'SKIP')", "with (ON_ERROR = fail)"];
    assert_eq!(options.map(on_error), [OnError::DeadLetter, OnError::DeadLetter, OnError::Skip, OnError::Fail]);
    let refused = |options: &str| error(&format!("CREATE MATERIALIZED VIEW v WITH ({options}) AS SELECT 1"));
    assert_eq!(
        refused("on_error = 'stop'"),
        "22023 at 45: option \"on_error\": \"stop\" is not one of dead_letter, skip, fail"
    );
    assert!(refused("fillfactor = 70").starts_with("0A000 at 34: option \"fillfactor\""));
    assert!(refused("on_error = skip, on_error = fail").starts_with("42601 at 51"));
    assert!(error("CREATE VIEW v WITH (on_error = 'skip') AS SELECT 1").starts_with("0A000"));
    let change = |sql: &str| match one(sql) {
        Statement::Alter(alter) => alter.change,
        other => panic!("{sql}: {other:?}"),
    };
    assert!(matches!(change("ALTER TABLE t RENAME TO \"U\""), Change::Rename(to) if to.name == "U"));
    for sql in ["ALTER VIEW v RENAME COLUMN a TO b", "ALTER MATERIALIZED VIEW v RENAME a TO b"] {
        assert!(
            matches!(change(sql), Change::RenameColumn(from, to) if (from.name.as_str(), to.name.as_str()) == ("a", "b"))
        );
    }
    assert!(matches!(change("ALTER SOURCE s SET SCHEMA \"S\""), Change::SetSchema(schema) if schema.name == "S"));
    assert!(matches!(change("ALTER MATERIALIZED VIEW a SWAP WITH public.b"), Change::Swap(other) if other.name == "b"));
    let comment = |sql: &str| match one(sql) {
        Statement::Comment(comment) => {
            (comment.kind, comment.name.name, comment.column.map(|column| column.name), comment.text)
        }
        other => panic!("{sql}: {other:?}"),
    };
    assert_eq!(comment("COMMENT ON VIEW v IS 'it''s'"), (Some(View), "v".to_owned(), None, Some("it's".to_owned())));
    assert_eq!(comment("comment on column public.t.C is null"), (None, "t".to_owned(), Some("c".to_owned()), None));
    assert!(error("COMMENT ON COLUMN c IS 'x'").starts_with("42601"));
}

#[test]
fn session_variables() {
    let set = |sql: &str| match one(sql) {
        Statement::Set { name, value, is_local, .. } => {
            format!("{}{name}={}", if is_local { "local " } else { "" }, value.unwrap_or_else(|| "DEFAULT".to_owned()))
        }
        other => panic!("{sql}: {other:?}"),
    };
    assert_eq!(set("SET application_name = 'x'"), "application_name=x");
    assert_eq!(set("SET SESSION DateStyle TO ISO, MDY"), "datestyle=ISO, MDY");
    assert_eq!(set("SET extra_float_digits TO -3"), "extra_float_digits=-3");
    assert_eq!(set("SET LOCAL statement_timeout TO DEFAULT"), "local statement_timeout=DEFAULT");
    assert_eq!(set("SET TIME ZONE 'UTC'"), "timezone=UTC");
    assert_eq!(set("SET TIME ZONE INTERVAL '+00:00' HOUR TO MINUTE"), "timezone=+00:00");
    assert_eq!(set("SET NAMES 'UTF8'"), "client_encoding=UTF8");
    assert_eq!(set("RESET search_path"), "search_path=DEFAULT");
    assert!(matches!(
        one("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
        Statement::SetTransaction { of_session: true, .. }
    ));
    assert!(matches!(one("SET CONSTRAINTS ALL DEFERRED"), Statement::Nothing("SET CONSTRAINTS")));
    assert!(matches!(one("RESET ALL"), Statement::ResetAll));
    assert!(matches!(one("SHOW ALL"), Statement::ShowAll));
    assert!(matches!(one("SHOW server_version"), Statement::ShowVariable(name) if name == "server_version"));
    assert!(matches!(one("SHOW TRANSACTION ISOLATION LEVEL"), Statement::ShowVariable(_)));
}

#[test]
fn transactions_are_accepted() {
    let modes = |sql: &str| match one(sql) {
        Statement::Begin(modes) | Statement::SetTransaction { modes, .. } => {
            modes.settings().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        }
        other => panic!("{sql}: {other:?}"),
    };
    for sql in ["BEGIN", "BEGIN WORK", "BEGIN TRANSACTION", "START TRANSACTION"] {
        assert_eq!(modes(sql), "", "{sql}");
    }
    let all = "transaction_isolation=repeatable read transaction_read_only=on transaction_deferrable=off";
    assert_eq!(modes("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY, NOT DEFERRABLE"), all);
    assert_eq!(modes("START TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY NOT DEFERRABLE"), all);
    assert_eq!(modes("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), "transaction_isolation=serializable");
    assert_eq!(modes("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"), "transaction_read_only=off");
    assert_eq!(error("BEGIN ISOLATION LEVEL CHAOS"), "42601 at 23: syntax error at or near \"CHAOS\"");
    assert_eq!(error("BEGIN READ ONLY,"), "42601 at 17: syntax error at end of input");
    assert_eq!(error("SET TRANSACTION"), "42601 at 16: syntax error at end of input");
    assert_eq!(error("SET TRANSACTION SNAPSHOT '1'"), "0A000 at 26: SET TRANSACTION SNAPSHOT is not supported yet");
    assert!(matches!(one("COMMIT WORK"), Statement::Commit));
    assert!(matches!(one("END"), Statement::Commit));
    assert!(matches!(one("ROLLBACK"), Statement::Rollback));
    assert!(matches!(one("ROLLBACK TO SAVEPOINT a"), Statement::RollbackTo(name) if name == "a"));
    assert!(matches!(one("DEALLOCATE ALL"), Statement::Deallocate(None)));
    assert!(matches!(one("DEALLOCATE \"_pg3_0\""), Statement::Deallocate(Some(name)) if name == "_pg3_0"));
    assert!(matches!(one("DISCARD ALL"), Statement::DiscardAll));
}

#[test]
fn queries_go_to_datafusion() {
    for sql in ["SELECT 1", "(SELECT 1)", "VALUES (1)", "WITH a AS (SELECT 1) SELECT * FROM a", "EXPLAIN SELECT 1"] {
        assert!(matches!(one(sql), Statement::Query(_)), "{sql}");
    }
}

#[test]
fn errors_name_the_place_in_the_whole_text() {
    assert_eq!(error("SELEKT 1"), "42601 at 1: syntax error at or near \"SELEKT\"");
    assert_eq!(error("SELECT 1;\nSELECT a FROM t u v"), "42601 at 29: syntax error at or near \"v\"");
    assert_eq!(error("SELECT 'ä' +"), "42601 at 13: syntax error at end of input");
    assert_eq!(error("MERGE INTO t USING u ON true"), "0A000 at 1: MERGE is not supported yet");
    assert_eq!(error("ALTER VIEW v ADD x int"), "0A000 at 14: ALTER VIEW … ADD is not supported yet");
    assert_eq!(error("SHOW CREATE TABLE"), "42601 at 18: syntax error at end of input");
}

#[test]
fn what_copy_could_not_be_read_back_from_is_refused() {
    assert!(matches!(one("COPY t (a) TO STDIN WITH DELIMITER E'\t' NULL AS E'\\N'"), Statement::Copy { .. }));
    for options in ["DELIMITER '|', NULL 'x'", "FORMAT csv, DELIMITER 'a', NULL '-'", "FORMAT text, NULL ''"] {
        assert!(matches!(one(&format!("COPY t TO STDOUT ({options})")), Statement::Copy { .. }), "{options}");
    }
    for options in [
        "DELIMITER 'n'",
        "DELIMITER '.'",
        "DELIMITER '\\'",
        "DELIMITER '|', NULL 'a|b'",
        "NULL E'a\\nb'",
        "FORMAT csv, NULL 'a,b'",
        "FORMAT csv, NULL '\"'",
        "FORMAT csv, DELIMITER '\"'",
    ] {
        let refused = error(&format!("COPY t TO STDOUT ({options})"));
        assert!(refused.starts_with("22023 at 1: "), "{options}: {refused}");
    }
}

#[test]
fn an_empty_text_has_no_statement() {
    assert!(parse(" ;; -- nothing\n /* at all */ ;").expect("valid").is_empty());
}

#[test]
fn deep_nesting_is_refused() {
    let sql = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(parse(&sql).expect_err("too deep").sqlstate, "54001");
}

#[test]
fn long_chains_are_refused_wherever_they_stand() {
    let chains = [
        ("SELECT 1 FROM t WHERE a = 1", " OR a = 1", ""),
        ("SELECT 1", " + 1", ""),
        ("SELECT 1", "::int", ""),
        ("SELECT 1::int", "[]", ""),
        ("SELECT a", "[1]", " FROM t"),
        ("SELECT 1", " IS NULL", ""),
        ("SELECT 1, 2", " UNION ALL SELECT 1, 2", ""),
        ("SELECT 1 FROM t", " JOIN t USING (a)", ""),
        ("SELECT t.or", " + t.or", " FROM t"),
        ("EXECUTE p (1", " + 1", ")"),
        ("PREPARE p AS SELECT 1", " + 1", ""),
        ("COPY (SELECT 1", " + 1", ") TO STDOUT"),
        ("DECLARE c CURSOR FOR SELECT 1", " + 1", ""),
    ];
    for (head, link, tail) in chains {
        // The chain of 4,000 links is parsed before it is refused.
        for links in [1_100, 4_000, 100_000] {
            let sql = format!("{head}{}{tail}", link.repeat(links));
            assert_eq!(parse(&sql).map(|_| ()).expect_err(head).sqlstate, "54001", "{head}{link} {links} times");
        }
    }
}

#[test]
fn long_lists_are_no_deep_nesting() {
    let list = |item: &str, count| vec![item; count].join(", ");
    for sql in [
        format!("SELECT * FROM t WHERE a IN ({})", list("-1", 20_000)),
        format!("DECLARE c CURSOR FOR SELECT 1 FROM t WHERE {}", vec!["a = 1"; 240].join(" OR ")),
        format!("SELECT {}", list("a + 1 * 2", 5_000)),
        format!("VALUES {}", list("(1, 'x')", 20_000)),
        format!("SELECT CASE {} END FROM t", vec!["WHEN a = 1 THEN 2"; 2_000].join(" ")),
        format!("SELECT 1 FROM t WHERE {}", vec!["a = 1"; 240].join(" OR ")),
        format!("SELECT 1 FROM t WHERE {}", vec!["(a = 1 AND b = 2)"; 240].join(" OR ")),
    ] {
        assert_eq!(parse(&sql).map(|parsed| parsed.len()).expect("not too deep"), 1);
    }
}

#[test]
fn a_script_of_many_statements_is_read_in_one_pass() {
    let statements: Vec<String> = (0..100_000).map(|n| format!("SELECT 'ä{n}'")).collect();
    let started = std::time::Instant::now();
    let parsed = parse(&statements.join(";")).expect("valid");
    assert!(parsed.iter().map(Parsed::sql).eq(statements.iter()));
    // This takes seconds. Counting from the start of the text for every statement would take many
    // minutes.
    assert!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn statements_about_schemas() {
    let command = |sql: &str| match one(sql) {
        Statement::Schema(command) => command,
        other => panic!("{sql}: {other:?}"),
    };
    assert!(matches!(
        command("CREATE SCHEMA IF NOT EXISTS S"),
        SchemaCommand::Create { name, if_not_exists: true } if name.name == "s"
    ));
    assert!(matches!(
        command("DROP SCHEMA IF EXISTS a, \"B\" CASCADE"),
        SchemaCommand::Drop { names, if_exists: true, cascade: true } if names[1].name == "B"
    ));
    assert!(matches!(
        command("drop schema a restrict"),
        SchemaCommand::Drop { names, if_exists: false, cascade: false } if names.len() == 1
    ));
    assert!(matches!(command("ALTER SCHEMA a RENAME TO b"), SchemaCommand::Rename { to, .. } if to.name == "b"));
    assert!(matches!(
        command("COMMENT ON SCHEMA a IS 'x'"),
        SchemaCommand::Comment { text: Some(text), .. } if text == "x"
    ));
    for (sql, expected) in [
        ("CREATE SCHEMA s AUTHORIZATION root", "0A000"),
        ("CREATE SCHEMA s CREATE TABLE t (a int)", "0A000"),
        ("CREATE SCHEMA a.b", "42601"),
        ("ALTER SCHEMA a OWNER TO b", "0A000"),
    ] {
        assert!(error(sql).starts_with(expected), "{sql}: {}", error(sql));
    }
}

#[test]
fn a_search_path_is_kept_as_a_list_of_names() {
    let value = |sql: &str| match one(sql) {
        Statement::Set { name, value, .. } if name == "search_path" => value,
        other => panic!("{sql}: {other:?}"),
    };
    for (sql, expected) in [
        ("SET search_path TO S, \"My s\", '$user', \"$user\"", Some("s, \"My s\", \"$user\", \"$user\"")),
        ("SET SESSION Search_Path = 'a, b'", Some("\"a, b\"")),
        ("SET search_path = ''", Some("\"\"")),
        ("SET SCHEMA 'a'", Some("a")),
        ("SET search_path TO DEFAULT", None),
        ("RESET search_path", None),
    ] {
        assert_eq!(value(sql).as_deref(), expected, "{sql}");
    }
    assert!(error("SET search_path TO a, ").starts_with("42601"));
}

#[test]
fn statements_that_write() {
    let write = |sql: &str| match one(sql) {
        Statement::Write(write) => format!("{} {} {}", write.verb(), write.table.name, write.alias),
        other => panic!("{sql}: {other:?}"),
    };
    for (sql, expected) in [
        ("INSERT INTO T VALUES (1)", "INSERT t T"),
        (
            "INSERT INTO dev.public.\"T\" (a, \"B\") SELECT 1, 2 FROM u ON CONFLICT DO NOTHING RETURNING *",
            "INSERT T \"T\"",
        ),
        ("INSERT INTO t AS u DEFAULT VALUES", "INSERT t u"),
        ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", "INSERT t t"),
        ("UPDATE t u SET a = 1, (b, c) = (2, DEFAULT) FROM v, w WHERE a = 2 RETURNING a", "UPDATE t u"),
        ("DELETE FROM t AS u USING v WHERE u.a = v.a", "DELETE t u"),
    ] {
        assert_eq!(write(sql), expected, "{sql}");
    }
    for (sql, expected) in [
        ("INSERT t VALUES (1)", "42601"),
        ("INSERT INTO other.public.t VALUES (1)", "0A000 at 13: cross-database references are not implemented"),
        ("UPDATE t SET a.b = 1", "0A000 at 14: a field of a column cannot be written alone"),
        ("UPDATE t SET (a, b) = (SELECT 1, 2)", "0A000"),
        ("DELETE t", "42601"),
    ] {
        assert!(error(sql).starts_with(expected), "{sql}: {}", error(sql));
    }
}

#[test]
fn copy_from_stdin_ends_with_its_statement() {
    let statements =
        parse("COPY public.t (a, b) FROM STDIN WITH (FORMAT csv, HEADER); SELECT 1").expect("two statements");
    assert_eq!(statements.len(), 2);
    let Statement::CopyFrom(copy) = &statements[0].statement else { panic!("a COPY FROM") };
    assert_eq!((copy.table.name.as_str(), copy.columns.len()), ("t", 2));
    assert!(matches!(copy.format, CopyFormat::Csv { header: true, .. }));
    assert!(matches!(one("COPY t FROM STDIN"), Statement::CopyFrom(copy) if copy.columns.is_empty()));
    assert!(error("COPY t FROM '/tmp/x'").starts_with("0A000"));
    assert!(error("COPY t FROM STDIN (FORMAT avro)").starts_with("22023"));
}

#[test]
fn tables_can_be_made_of_queries() {
    let Statement::CreateTableAs(create) = one("CREATE TABLE IF NOT EXISTS t (a, b) AS SELECT 1, 2 WITH NO DATA")
    else {
        panic!("a CREATE TABLE AS")
    };
    assert!(create.if_not_exists && !create.with_data && create.columns.len() == 2);
    assert!(matches!(one("CREATE TABLE t AS TABLE u"), Statement::CreateTableAs(_)));
}

//! Golden cases: a statement, and the table that comes of it or the error with its place.

use std::fmt::Write;

use super::*;
use crate::parser::{Statement, parse};

const NATS: &str = "WITH (connector = 'nats', server_url = 'localhost:4222', subject = 'a.b', stream = 's') \
                    FORMAT PLAIN ENCODE JSON";

/// The outcome as a few lines of text.
fn outcome(sql: &str) -> String {
    let bound = parse(sql).and_then(|statements| {
        let [parsed] = statements.as_slice() else { panic!("one statement in {sql}") };
        let Statement::CreateTable(create) = &parsed.statement else { panic!("a CREATE TABLE: {sql}") };
        create_table(parsed, create)
    });
    match bound {
        Ok(bound) => describe(&bound),
        Err(error) => {
            let mut text = format!("{} at {:?}: {}", error.sqlstate, error.position.unwrap_or(0), error.message);
            for (label, more) in [("detail", &error.detail), ("hint", &error.hint)] {
                if let Some(more) = more {
                    write!(text, "\n  {label}: {more}").expect("a String takes everything");
                }
            }
            text
        }
    }
}

fn describe(bound: &Bound) -> String {
    let mut text = bound.table.name.clone();
    for column in &bound.table.columns {
        write!(text, "\n  {} {} {:?}", column.name, column.ty, column.origin).expect("a String takes everything");
    }
    for (key, value) in &bound.table.source.options {
        write!(text, "\n  {key} = {value}").expect("a String takes everything");
    }
    for notice in &bound.notices {
        write!(text, "\n  notice: {notice}").expect("a String takes everything");
    }
    text
}

fn assert_error(sql: &str, expected: &str) {
    let got = outcome(sql);
    assert!(got.starts_with(expected), "{sql}\n   gave: {got}\nexpected: {expected}");
}

#[test]
fn the_whole_grammar() {
    let sql = r#"
CREATE TABLE IF NOT EXISTS public."Events" (
    id bigint, -- the key
    "Name" text NULL,
    temp float4,
    at timestamptz,
    raw jsonb,
)
INCLUDE offset
INCLUDE subject AS source
INCLUDE PARTITION as "P"
INCLUDE timestamp
INCLUDE payload AS document
INCLUDE header
INCLUDE header 'Nats-Msg-Id'
INCLUDE header 'trace' text
INCLUDE header 'x' bytea AS x
WITH (
    connector='nats',
    server_url='nats-server:4222',
    subject='demo.subject.*',
    stream=`risingwave-test-source`,
    allow_create_stream=true,
    scan.startup.mode='earliest',
    connect_mode='user_and_password', username='it''s', password=$$pass$$,
    consumer.durable_name='durable',
    consumer.ack_policy='all',
    consumer.ack_wait.sec=10, /* seconds */
    consumer.filter_subjects='demo.subject.1',
    consumer.filter_subjects='demo.subject.1,demo.subject.2',
    consumer.rate_limit=100000000000,
    -- consumer.idle_heartbeat=60, not available
    consumer.max_ack_pending = '10',
) FORMAT PLAIN ENCODE JSON ();"#;
    assert_eq!(
        outcome(sql),
        r#"Events
  id bigint Payload
  Name character varying Payload
  temp real Payload
  at timestamp with time zone Payload
  raw jsonb Payload
  _rw_nats_offset character varying Offset
  source character varying Subject
  P character varying Partition
  _rw_nats_timestamp timestamp with time zone Timestamp
  document jsonb WholePayload
  _rw_nats_header struct<key character varying, value bytea>[] Headers
  _rw_nats_header_Nats-Msg-Id bytea Header { name: "Nats-Msg-Id" }
  _rw_nats_header_trace_varchar character varying Header { name: "trace" }
  x bytea Header { name: "x" }
  allow_create_stream = true
  connect_mode = user_and_password
  connector = nats
  consumer.ack_policy = all
  consumer.ack_wait.sec = 10
  consumer.durable_name = durable
  consumer.filter_subjects = demo.subject.1,demo.subject.2
  consumer.max_ack_pending = 10
  consumer.rate_limit = 100000000000
  password = pass
  scan.startup.mode = earliest
  server_url = nats-server:4222
  stream = risingwave-test-source
  subject = demo.subject.*
  username = it's
  notice: option "consumer.filter_subjects" is given more than once; the last value is used"#
    );
}

#[test]
fn every_type_and_its_aliases() {
    let columns = "a bool, b boolean, c int2, d smallint, e int, f int4, g integer, h int8, i bigint, j real, \
                   k float4, l float, m float8, n double precision, o varchar, p character varying, q text, \
                   r string, s bytea, t date, u timestamp, v timestamp without time zone, w timestamptz, \
                   x timestamp with time zone, y jsonb";
    let names: Vec<String> = outcome(&format!("CREATE TABLE t ({columns}) {NATS}"))
        .lines()
        .skip(1)
        .take(25)
        .map(|line| line.trim().split_once(' ').expect("a name and a type").1.replace(" Payload", ""))
        .collect();
    assert_eq!(
        names.join(", "),
        "boolean, boolean, smallint, smallint, integer, integer, integer, bigint, bigint, real, real, \
         double precision, double precision, double precision, character varying, character varying, \
         character varying, character varying, bytea, date, timestamp without time zone, \
         timestamp without time zone, timestamp with time zone, timestamp with time zone, jsonb"
    );
}

#[test]
fn the_statement_is_kept_as_it_was_written() {
    let sql = format!("  SELECT 1;\n CREATE TABLE t (ä int)  {NATS} ;  ");
    let parsed = parse(&sql).expect("two statements");
    assert_eq!(parsed[1].sql(), format!("CREATE TABLE t (ä int)  {NATS}"));
}

#[test]
fn syntax_errors_name_the_place() {
    assert_error("CREATE TABEL t (a int)", "42601 at 8: syntax error at or near \"TABEL\"\n  detail: expected TABLE");
    assert_error("CREATE TABLE t (a int", "42601 at 22: syntax error at end of input");
    assert_error("CREATE TABLE t (a int,, b int)", "42601 at 23: syntax error at or near \",\"");
    assert_error("CREATE TABLE t (a int) WITH (connector 'nats')", "42601 at 40: syntax error at or near \"'nats'\"");
    assert_error("CREATE TABLE t (a int) WITH (a. = 1)", "42601 at 33: syntax error at or near \"=\"");
    assert_error("CREATE TABLE t (a int) WITH (a = ) FORMAT", "42601 at 34: syntax error at or near \")\"");
    assert_error(
        &format!("CREATE TABLE t (a int) {} AVRO_ISH", NATS.trim_end_matches(" JSON")),
        "42601 at 132: syntax error at or near \"AVRO_ISH\"\n  detail: expected JSON",
    );
    assert_error(&format!("CREATE TABLE t (a int) {NATS} x"), "42601 at 137: syntax error at or near \"x\"");
    assert_error("CREATE TABLE t (a int) WITH (a = 1)", "42601 at 36: syntax error at end of input");
}

#[test]
fn what_is_not_supported_yet_says_so() {
    let cases = [
        ("CREATE SINK s WITH (a = 1)", "0A000 at 8: CREATE SINK is not supported yet"),
        ("CREATE SOURCE s (a int)", "0A000 at 15: a source without a connector is not supported yet"),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1", "0A000 at 8: CREATE MATERIALIZED VIEW is not supported yet"),
        ("CREATE TABLE t (a int)", "0A000 at 14: a table without a connector is not supported yet"),
        ("CREATE TABLE t (a int) INCLUDE key WITH", "0A000 at 32: messages of NATS have no key"),
        ("CREATE TABLE t (a int) INCLUDE header 'x' int WITH", "42804 at 43: a header cannot be of type integer"),
        ("CREATE TABLE t (a int) WITH (a = 1) FORMAT UPSERT", "0A000 at 44: FORMAT UPSERT is not supported yet"),
        (
            "CREATE TABLE t (a int) WITH (a = 1) FORMAT PLAIN ENCODE PROTOBUF (message = 'x')",
            "0A000 at 57: ENCODE PROTOBUF is not supported yet",
        ),
        (
            "CREATE TABLE t (a int) WITH (a = 1) FORMAT PLAIN ENCODE JSON (b.c = 'x')",
            "0A000 at 63: the option \"b.c\" of ENCODE JSON is not supported yet",
        ),
        ("CREATE TABLE t (a uuid)", "0A000 at 19: type \"uuid\" is not supported yet\n  hint: the types are boolean"),
        ("CREATE TABLE t (a varchar(10))", "0A000 at 19: a varchar with a length is not supported yet"),
        ("CREATE TABLE t (a blurb)", "42704 at 19: type \"blurb\" does not exist\n  hint: the types are boolean"),
    ];
    for (sql, expected) in cases {
        assert_error(sql, expected);
    }
    assert_error(&format!("CREATE TABLE t {NATS}"), "0A000 at 14: a JSON table without columns is not supported yet");
}

#[test]
fn names_are_checked() {
    let with = |columns: &str| format!("CREATE TABLE t ({columns}) {NATS}");
    assert_error(&with("a int, A text"), "42701 at 24: column \"a\" specified more than once");
    assert_error(&with("ctid int"), "42701 at 17: column name \"ctid\" conflicts with a system column name");
    assert_error(&with("_rw_x int"), "42939 at 17: column name \"_rw_x\" is reserved");
    assert_error(&with(r#""" int"#), "42601 at 17: a name cannot be empty");
    assert_error(&with(&format!("{} int", "x".repeat(64))), "42622 at 17: the name");
    assert_error(&format!("CREATE TABLE other.t (a int) {NATS}"), "3F000 at 14: schema \"other\" does not exist");
    assert_error(&format!("CREATE TABLE x.public.t (a int) {NATS}"), "0A000 at 14: cross-database references");
    assert_error(
        &format!("CREATE TABLE t (a int) INCLUDE offset AS a {NATS}"),
        "42701 at 42: column \"a\" specified more than once",
    );
}

#[test]
fn primary_keys_are_bound_in_the_order_they_are_written() {
    let key = |columns: &str| {
        let sql = format!("CREATE TABLE t ({columns}) INCLUDE offset AS o {NATS}");
        let parsed = parse(&sql).expect("a statement");
        let Statement::CreateTable(create) = &parsed[0].statement else { panic!("a CREATE TABLE: {sql}") };
        create_table(&parsed[0], create).expect("a table").table.primary_key
    };
    assert!(key("a int, b int").is_empty());
    assert_eq!(key("a int, b int NOT NULL PRIMARY KEY"), [1]);
    assert_eq!(key("a int NOT NULL, b int, PRIMARY KEY (b, o, a),"), [1, 2, 0]);
}

#[test]
fn primary_keys_are_checked() {
    let with = |columns: &str| format!("CREATE TABLE t ({columns}) {NATS}");
    assert_error(&with("a int, PRIMARY KEY (b)"), "42703 at 37: column \"b\" named in key does not exist");
    assert_error(
        &with("a int, PRIMARY KEY (a, a)"),
        "42701 at 40: column \"a\" appears twice in primary key constraint",
    );
    assert_error(&with("a int PRIMARY KEY, b int PRIMARY KEY"), "42P16 at 42: multiple primary keys are not allowed");
    assert_error(&with("a int PRIMARY KEY, PRIMARY KEY (a)"), "42P16 at 36: multiple primary keys are not allowed");
    assert_error(
        &with("a jsonb PRIMARY KEY"),
        "0A000 at 17: column \"a\" of type jsonb cannot be part of a primary key",
    );
    assert_error(&with("a int PRIMARY KEY, b int NOT NULL"), "0A000 at 42: NOT NULL is only supported for");
    assert_error(&with("a int, PRIMARY KEY ()"), "42601 at 37: syntax error at or near \")\"");
    assert_error(&with("a int PRIMARY b"), "42601 at 23: syntax error at or near \"PRIMARY\"");
}

#[test]
fn options_are_checked_where_they_stand() {
    let sql = "CREATE TABLE t (a int) WITH (connector = 'nats', server_url = 'x:1', subject = 'a', stream = 's', \
               scan.startup.mode = 'soon') FORMAT PLAIN ENCODE JSON";
    assert_error(sql, "22023 at 99: option \"scan.startup.mode\"");
    let sql = "CREATE TABLE t (a int) WITH (connector = 'nats') FORMAT PLAIN ENCODE JSON";
    assert_error(sql, "22023 at 14: option \"subject\"");
}

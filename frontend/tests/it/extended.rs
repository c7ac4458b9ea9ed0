//! The extended protocol, message by message.

use tokio_postgres::types::Type;

use crate::cluster::Cluster;
use crate::statements::add_events;
use crate::wire::Wire;

const SELECT: &str = "SELECT id, name FROM events WHERE id >= $1 ORDER BY id";

#[tokio::test(flavor = "multi_thread")]
async fn each_message_has_its_answer_and_sync_ends_them() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let mut wire = Wire::connect(&cluster).await;
    wire.parse("s", SELECT, &[]).describe(b'S', "s").bind("p", "s", 1, &[Some(&8_i64.to_be_bytes())], 1);
    wire.describe(b'P', "p").execute("p", 0).close(b'P', "p").close(b'S', "s").sync();
    assert_eq!(
        wire.until_ready().await,
        [
            "ParseComplete",
            "ParameterDescription 20",
            "RowDescription id:20:0 name:1043:0",
            "BindComplete",
            "RowDescription id:20:1 name:1043:1",
            "DataRow 0000000000000008|name 8",
            "DataRow 0000000000000009|name 9",
            "CommandComplete SELECT 2",
            "CloseComplete",
            "CloseComplete",
            "ReadyForQuery I"
        ]
    );
    wire.describe(b'S', "s").sync();
    assert_eq!(
        wire.until_ready().await,
        ["Error ERROR 26000 prepared statement \"s\" does not exist", "ReadyForQuery I"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_without_rows_and_empty_ones_are_described_as_such() {
    let cluster = Cluster::start().await;
    let mut wire = Wire::connect(&cluster).await;
    for (sql, answers) in [
        ("SET application_name = 'x'", ["ParameterStatus application_name=x", "CommandComplete SET"].as_slice()),
        ("", &["EmptyQueryResponse"]),
        (" -- nothing\n", &["EmptyQueryResponse"]),
    ] {
        wire.parse("", sql, &[]).describe(b'S', "").bind("", "", 0, &[], 0).describe(b'P', "").execute("", 0).sync();
        let head = ["ParseComplete", "ParameterDescription ", "NoData", "BindComplete", "NoData"];
        let expected = [head.as_slice(), answers, &["ReadyForQuery I"]].concat();
        assert_eq!(wire.until_ready().await, expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_error_everything_is_skipped_up_to_sync() {
    let cluster = Cluster::start().await;
    let mut wire = Wire::connect(&cluster).await;
    wire.parse("", "SELECT nothing", &[]).bind("", "", 0, &[], 0).execute("", 0).query("SELECT 1").sync();
    wire.parse("", "SELECT 1", &[]).bind("", "", 0, &[], 0).execute("", 0).sync();
    let first = wire.until_ready().await;
    assert!(first.len() == 2 && first[0].starts_with("Error ERROR 42703 "), "{first:?}");
    let second = wire.until_ready().await;
    assert_eq!(second, ["ParseComplete", "BindComplete", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_brings_the_answers_without_sync() {
    let cluster = Cluster::start().await;
    let mut wire = Wire::connect(&cluster).await;
    wire.parse("", "SELECT 1 AS a", &[]).describe(b'S', "").flush();
    let answers = wire.until("RowDescription").await;
    assert_eq!(answers, ["ParseComplete", "ParameterDescription ", "RowDescription a:23:0"]);
    assert!(!wire.has_answer(), "nothing is ready before Sync");
    wire.sync();
    assert_eq!(wire.until_ready().await, ["ReadyForQuery I"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn portals_are_fetched_in_pieces_side_by_side() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 5);
    let mut wire = Wire::connect(&cluster).await;
    wire.query("BEGIN");
    wire.until_ready().await;
    wire.parse("s", SELECT, &[]);
    wire.bind("a", "s", 0, &[Some(b"0")], 0).bind("b", "s", 0, &[Some(b"3")], 0).sync();
    wire.until_ready().await;
    wire.execute("a", 2).execute("b", 1).execute("a", 3).execute("b", 7).execute("a", 1).sync();
    assert_eq!(
        wire.until_ready().await,
        [
            "DataRow 0|name 0",
            "DataRow 1|name 1",
            "PortalSuspended",
            "DataRow 3|name 3",
            "PortalSuspended",
            "DataRow 2|name 2",
            "DataRow 3|name 3",
            "DataRow 4|name 4",
            "PortalSuspended",
            "DataRow 4|name 4",
            "CommandComplete SELECT 1",
            "CommandComplete SELECT 0",
            "ReadyForQuery T"
        ]
    );
    wire.bind("a", "s", 0, &[Some(b"0")], 0).sync();
    assert_eq!(wire.until_ready().await, ["Error ERROR 42P03 cursor \"a\" already exists", "ReadyForQuery E"]);
    wire.query("ROLLBACK");
    wire.until_ready().await;
    wire.execute("a", 0).sync();
    assert_eq!(wire.until_ready().await, ["Error ERROR 34000 portal \"a\" does not exist", "ReadyForQuery I"]);
    cluster.until("are all pins released", |state| state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_do_not_fit_are_refused_when_they_are_bound() {
    let cluster = Cluster::start().await;
    let mut wire = Wire::connect(&cluster).await;
    let int4 = Type::INT4.oid();
    wire.parse("s", "SELECT $1 + 1", &[int4]).sync();
    wire.until_ready().await;
    for (format, values, expected) in [
        (0, vec![Some(b"x".as_slice())], "22P02 invalid input syntax for type integer: \"x\""),
        (0, vec![Some(b"3000000000".as_slice())], "22003 value \"3000000000\" is out of range for type integer"),
        (1, vec![Some(b"abc".as_slice())], "22P03 invalid binary representation of a value of type integer"),
        (2, vec![None], "22023 unsupported format code: 2"),
        (0, vec![], "08P01 bind message supplies 0 parameters, but prepared statement \"s\" requires 1"),
        (0, vec![None, None], "08P01 bind message supplies 2 parameters, but prepared statement \"s\" requires 1"),
    ] {
        wire.bind("", "s", format, &values, 0).sync();
        assert_eq!(wire.until_ready().await, [format!("Error ERROR {expected}"), "ReadyForQuery I".to_owned()]);
    }
    wire.bind("", "s", 0, &[None], 0).execute("", 0).sync();
    assert_eq!(wire.until_ready().await[1], "DataRow NULL");
    wire.bind("", "missing", 0, &[], 0).sync();
    assert_eq!(wire.until_ready().await[0], "Error ERROR 26000 prepared statement \"missing\" does not exist");
    // Two formats for one parameter, three for one column.
    for body in
        [b"\0s\0\0\x02\0\0\0\0\0\x01\0\0\0\x011\0\0".as_slice(), b"\0s\0\0\0\0\x01\0\0\0\x011\0\x03\0\0\0\0\0\0"]
    {
        let length = u8::try_from(body.len() + 4).expect("a short message");
        wire.raw(&[b"B\0\0\0".as_slice(), &[length], body].concat()).sync();
        assert!(wire.until_ready().await[0].starts_with("Error ERROR 08P01 bind message has "));
    }
}

/// A value in text, the same value in binary, and the text of both.
type Example = (Type, &'static str, Vec<u8>, &'static str);

fn examples() -> Vec<Example> {
    let micros = 86_400_000_000_i64;
    vec![
        (Type::BOOL, "yes", vec![1], "t"),
        (Type::INT2, "-7", (-7_i16).to_be_bytes().to_vec(), "-7"),
        (Type::INT4, "7", 7_i32.to_be_bytes().to_vec(), "7"),
        (Type::INT8, "7", 7_i64.to_be_bytes().to_vec(), "7"),
        (Type::FLOAT4, "1.5", 1.5_f32.to_be_bytes().to_vec(), "1.5"),
        (Type::FLOAT8, "NaN", f64::NAN.to_be_bytes().to_vec(), "NaN"),
        (Type::TEXT, "ä", "ä".into(), "ä"),
        (Type::VARCHAR, "ä", "ä".into(), "ä"),
        (Type::BYTEA, "\\x00ff", vec![0, 255], "\\x00ff"),
        (Type::DATE, "2000-01-02", 1_i32.to_be_bytes().to_vec(), "2000-01-02"),
        (Type::TIMESTAMP, "2000-01-02 00:00:00", micros.to_be_bytes().to_vec(), "2000-01-02 00:00:00"),
        (Type::TIMESTAMPTZ, "2000-01-02 02:00:00+02", micros.to_be_bytes().to_vec(), "2000-01-02 00:00:00+00"),
        (Type::JSONB, "{\"a\": 1}", b"\x01{\"a\": 1}".to_vec(), "{\"a\": 1}"),
        (
            Type::UUID,
            "00000000-0000-0000-0000-000000000001",
            [vec![0; 15], vec![1]].concat(),
            "00000000-0000-0000-0000-000000000001",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_every_type_come_in_text_and_in_binary() {
    let cluster = Cluster::start().await;
    let mut wire = Wire::connect(&cluster).await;
    for (ty, text, binary, expected) in examples() {
        for (format, value) in [(0, text.as_bytes()), (1, binary.as_slice())] {
            wire.parse("", "SELECT $1", &[ty.oid()]).bind("", "", format, &[Some(value)], 0).execute("", 0).sync();
            let answers = wire.until_ready().await;
            assert_eq!(answers[2], format!("DataRow {expected}"), "{ty} in format {format}: {answers:?}");
        }
    }
    // Text is parsed like a literal.
    for (ty, text, expected) in [
        (Type::DATE, "2026-01-02 +01", "DataRow 2026-01-02"),
        (Type::TIMESTAMP, "2026-01-02 03:04+01", "DataRow 2026-01-02 03:04:00"),
        (Type::TIMESTAMPTZ, "2026-01-02 03:04+01", "DataRow 2026-01-02 02:04:00+00"),
        (Type::DATE, "soon", "Error ERROR 22007 invalid input syntax for type date: \"soon\""),
    ] {
        wire.parse("", "SELECT $1", &[ty.oid()]).bind("", "", 0, &[Some(text.as_bytes())], 0).execute("", 0).sync();
        let answers = wire.until_ready().await;
        assert!(answers.contains(&expected.to_owned()), "{ty} {text}: {answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_ends_the_connection_with_a_reason() {
    let cluster = Cluster::start().await;
    for bytes in [b"Q\0\0\0\x03".as_slice(), b"?\0\0\0\x04", b"B\0\0\0\x06\0\0", b"Q\0\0\0\x06xx"] {
        let mut wire = Wire::connect(&cluster).await;
        let answers = wire.raw(bytes).until_ready().await;
        assert!(answers.len() == 1 && answers[0].starts_with("Error FATAL 08P01 "), "{bytes:?}: {answers:?}");
    }
    // A client of another protocol.
    let mut wire = Wire::open(cluster.sql).await;
    wire.raw(b"GET / HTTP/1.1\r\n\r\n").until_ready().await;
    assert_eq!(wire.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8_is_refused() {
    let cluster = Cluster::start().await;
    let mut wire = Wire::connect(&cluster).await;
    wire.raw(b"Q\0\0\0\x0fSELECT '\xff'\0");
    assert_eq!(
        wire.until_ready().await,
        ["Error ERROR 22021 invalid byte sequence for encoding \"UTF8\"", "ReadyForQuery I"]
    );
    wire.query("SELECT 1");
    assert_eq!(wire.until_ready().await[1], "DataRow 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let cluster = Cluster::start().await;
    let mut wire = Wire::connect(&cluster).await;
    let value = vec![b'x'; 65 << 20];
    wire.parse("", "SELECT length($1::text)", &[]).bind("", "", 0, &[Some(&value)], 0).execute("", 0).sync();
    let answers = wire.until_ready().await;
    assert!(answers[1].starts_with("Error ERROR 54000 a message of "), "{answers:?}");
    assert_eq!(answers[2..], ["ReadyForQuery I"]);
    // A value may be longer than a statement's text.
    let value = &value[..20 << 20];
    wire.parse("", "SELECT length($1::text)", &[]).bind("", "", 0, &[Some(value)], 0).execute("", 0).sync();
    assert_eq!(wire.until_ready().await[2], format!("DataRow {}", 20 << 20));
    let text = format!("SELECT '{}'", "x".repeat(17 << 20));
    wire.query(&text);
    assert!(wire.until_ready().await[0].starts_with("Error ERROR 54000 a text of "));
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_goes_out_in_the_extended_protocol() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 2);
    let mut wire = Wire::connect(&cluster).await;
    wire.parse("", "COPY (SELECT id, name FROM events ORDER BY id) TO STDOUT (FORMAT csv, HEADER)", &[]);
    wire.bind("", "", 0, &[], 0).describe(b'P', "").execute("", 0).sync();
    assert_eq!(
        wire.until_ready().await,
        [
            "ParseComplete",
            "BindComplete",
            "NoData",
            "CopyOutResponse 0",
            "CopyData \"id,name\\n\"",
            "CopyData \"0,name 0\\n\"",
            "CopyData \"1,name 1\\n\"",
            "CopyDone",
            "CommandComplete COPY 2",
            "ReadyForQuery I"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_and_idle_clients_end_with_their_time() {
    let cluster = Cluster::start().await;
    let mut wire = Wire::connect(&cluster).await;
    wire.query("SET LOCAL application_name = 'x'");
    let warning = "Notice WARNING 25P01 SET LOCAL can only be used in transaction blocks";
    assert_eq!(wire.until_ready().await, [warning, "CommandComplete SET", "ReadyForQuery I"]);
    wire.query("BEGIN; DROP TABLE IF EXISTS nothing; ROLLBACK");
    let answers = wire.until_ready().await;
    let warning = "Notice WARNING 01000 DROP TABLE is done at once: ROLLBACK does not undo it";
    assert!(answers.contains(&warning.to_owned()), "{answers:?}");
    wire.query("BEGIN; SET LOCAL application_name = 'x'; COMMIT; SHOW application_name");
    let answers = wire.until_ready().await;
    let ends = ["ParameterStatus application_name=", "CommandComplete COMMIT"];
    assert!(answers.windows(2).any(|pair| pair == ends), "{answers:?}");
    assert!(answers.contains(&"DataRow ".to_owned()), "{answers:?}");
    for (sql, error) in [
        ("SET idle_session_timeout = '20ms'", "57P05 terminating connection due to idle-session timeout"),
        (
            "SET idle_in_transaction_session_timeout = 20; BEGIN",
            "25P03 terminating connection due to idle-in-transaction timeout",
        ),
    ] {
        let mut wire = Wire::connect(&cluster).await;
        wire.query(sql);
        wire.until_ready().await;
        assert_eq!(wire.next().await, Some(format!("Error FATAL {error}")));
        assert_eq!(wire.next().await, None);
    }
}

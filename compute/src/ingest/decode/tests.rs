//! The decoder against a plain model of the same rules over `serde_json::Value`, and examples of
//! each rule.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType, UInt64Type, i256,
};
use proptest::prelude::*;
use serde_json::Value;
use weir_common::ids::{Incarnation, Sequence};
use weir_common::interval::Interval;
use weir_common::types::StructField;

use super::*;

/// A stored value in a form that tests can compare.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Datum {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Without its scale.
    Decimal(i256),
    Interval(Interval),
    /// Elements of an array, or fields of a struct.
    Parts(Vec<Datum>),
}

fn column(name: &str, ty: SqlType) -> Column {
    Column { name: name.to_owned(), ty, origin: Origin::Payload }
}

fn message(payload: impl AsRef<[u8]>, sequence: u64, subject: &str) -> Message {
    Message::new(sequence, subject, payload.as_ref().to_vec())
}

fn datum(array: &dyn Array, ty: &SqlType, row: usize) -> Datum {
    if array.is_null(row) {
        return Datum::Null;
    }
    match ty {
        SqlType::Boolean => Datum::Boolean(array.as_boolean().value(row)),
        SqlType::SmallInt => Datum::Integer(array.as_primitive::<Int16Type>().value(row).into()),
        SqlType::Integer => Datum::Integer(array.as_primitive::<Int32Type>().value(row).into()),
        SqlType::BigInt => Datum::Integer(array.as_primitive::<Int64Type>().value(row)),
        SqlType::Date => Datum::Integer(array.as_primitive::<Date32Type>().value(row).into()),
        SqlType::Timestamp | SqlType::Timestamptz => {
            Datum::Integer(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        SqlType::Real => Datum::Float(array.as_primitive::<Float32Type>().value(row).into()),
        SqlType::Double => Datum::Float(array.as_primitive::<Float64Type>().value(row)),
        SqlType::Varchar | SqlType::Jsonb => Datum::Text(array.as_string::<i32>().value(row).to_owned()),
        SqlType::Bytea => Datum::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        SqlType::Decimal { precision: ..=38, .. } => {
            Datum::Decimal(i256::from_i128(array.as_primitive::<Decimal128Type>().value(row)))
        }
        SqlType::Numeric | SqlType::Decimal { .. } => Datum::Decimal(array.as_primitive::<Decimal256Type>().value(row)),
        SqlType::Time => Datum::Integer(array.as_primitive::<Time64MicrosecondType>().value(row)),
        SqlType::Interval => {
            Datum::Interval(Interval::from_arrow(array.as_primitive::<IntervalMonthDayNanoType>().value(row)))
        }
        SqlType::Array(element) => {
            let elements = array.as_list::<i32>().value(row);
            Datum::Parts((0..elements.len()).map(|row| datum(&elements, element, row)).collect())
        }
        SqlType::Struct(fields) => {
            let columns = array.as_struct().columns();
            Datum::Parts(fields.iter().zip(columns).map(|(field, column)| datum(column, &field.ty, row)).collect())
        }
    }
}

pub(super) fn rows(batch: &RecordBatch, columns: &[Column]) -> Vec<Vec<Datum>> {
    let row = |row| columns.iter().zip(batch.columns()).map(|(column, array)| datum(array, &column.ty, row)).collect();
    (0..batch.num_rows()).map(row).collect()
}

/// Decodes the field `a` of a payload.
fn decode(ty: &SqlType, value: &str) -> Result<Datum, String> {
    let columns = [column("a", ty.clone())];
    let mut decoder = Decoder::new(&columns, "split");
    decoder.append(&message(format!("{{\"a\":{value}}}"), 1, "subject")).map_err(|error| error.to_string())?;
    Ok(rows(&decoder.finish(), &columns).remove(0).remove(0))
}

fn array(element: SqlType) -> SqlType {
    SqlType::Array(Box::new(element))
}

fn point() -> SqlType {
    let field = |name: &str, ty| StructField { name: name.to_owned(), ty };
    SqlType::Struct(vec![field("x", SqlType::Integer), field("y", array(SqlType::SmallInt))])
}

#[test]
fn values_that_fit() {
    let n = Datum::Integer;
    let decimal = |digits: &str| Datum::Decimal(i256::from_string(digits).expect("a number"));
    let interval = |months, days, micros| Datum::Interval(Interval { months, days, micros });
    let parts = |parts: &[Datum]| Datum::Parts(parts.to_vec());
    let text = |text: &str| Datum::Text(text.to_owned());
    let bytes = |bytes: &[u8]| Datum::Bytes(bytes.to_vec());
    let noon = Datum::Integer(1_709_208_000_000_000);
    for (ty, value, expected) in [
        (SqlType::Boolean, "true", Datum::Boolean(true)),
        (SqlType::Boolean, "null", Datum::Null),
        (SqlType::SmallInt, "-32768", Datum::Integer(-32768)),
        (SqlType::SmallInt, "-0", Datum::Integer(0)),
        (SqlType::Integer, "\"+12\"", Datum::Integer(12)),
        (SqlType::Integer, r#""\u0031""#, Datum::Integer(1)),
        (SqlType::BigInt, "-9223372036854775808", Datum::Integer(i64::MIN)),
        (SqlType::BigInt, "9223372036854775807", Datum::Integer(i64::MAX)),
        (SqlType::Real, "0.1", Datum::Float(f64::from(0.1_f32))),
        (SqlType::Real, "\"-inf\"", Datum::Float(f64::NEG_INFINITY)),
        (SqlType::Double, "9007199254740993", Datum::Float(9_007_199_254_740_992.0)),
        (SqlType::Double, "1e-400", Datum::Float(0.0)),
        (SqlType::Double, "-3", Datum::Float(-3.0)),
        (SqlType::Double, "\"Infinity\"", Datum::Float(f64::INFINITY)),
        (SqlType::Double, "\"1.5e3\"", Datum::Float(1500.0)),
        (SqlType::Varchar, r#""a\n\u00e9""#, text("a\né")),
        (SqlType::Varchar, "1.50", text("1.50")),
        (SqlType::Varchar, "false", text("false")),
        (SqlType::Bytea, r#""\\xDe Ad""#, bytes(&[0xde, 0xad])),
        (SqlType::Bytea, r#""é\\\\\\001""#, bytes("é\\\u{1}".as_bytes())),
        (SqlType::Bytea, "\"12CD\"", bytes(b"12CD")),
        (SqlType::Date, "\"2024-02-29\"", Datum::Integer(19_782)),
        (SqlType::Date, "-1", Datum::Integer(-1)),
        (SqlType::Timestamp, "\"2024-02-29 12:00:00+05\"", noon.clone()),
        (SqlType::Timestamp, "1709208000", noon.clone()),
        (SqlType::Timestamp, "1709208000000", noon.clone()),
        (SqlType::Timestamptz, "\"2024-02-29T13:00:00.000+01:00\"", noon.clone()),
        (SqlType::Timestamptz, "\"2024-02-29 12:00:00\"", noon.clone()),
        (SqlType::Timestamptz, "1709208000000000", noon),
        (SqlType::Jsonb, r#"{"b":1.0,"a":[null,"x"]}"#, text(r#"{"a": [null, "x"], "b": 1.0}"#)),
        (SqlType::Jsonb, "\"text\"", text("\"text\"")),
        (SqlType::Jsonb, "null", Datum::Null),
        (SqlType::Numeric, "1.50", decimal("15000000000000000000000000000")),
        (SqlType::Numeric, "\"-1e-28\"", decimal("-1")),
        (SqlType::Decimal { precision: 5, scale: 2 }, "999.994", decimal("99999")),
        (SqlType::Decimal { precision: 5, scale: 2 }, "\"-0.005\"", decimal("-1")),
        (SqlType::Decimal { precision: 75, scale: 2 }, "1e72", decimal(&format!("1{}", "0".repeat(74)))),
        (SqlType::Time, "\"24:00\"", Datum::Integer(86_400_000_000)),
        (SqlType::Time, "1", Datum::Integer(1)),
        (SqlType::Interval, "\"P1M2DT3S\"", interval(1, 2, 3_000_000)),
        (array(SqlType::Integer), " [ 1 , null, \"3\" ] ", parts(&[n(1), Datum::Null, n(3)])),
        (array(SqlType::Integer), "[]", parts(&[])),
        (
            array(array(SqlType::Varchar)),
            r#"[["a","\u0062"],null,[null]]"#,
            parts(&[parts(&[text("a"), text("b")]), Datum::Null, parts(&[Datum::Null])]),
        ),
        (point(), r#"{"Y":[1],"x":2,"z":{},"X":3}"#, parts(&[n(2), parts(&[n(1)])])),
        (point(), r#"{"\u0078":"5","x":6}"#, parts(&[n(6), Datum::Null])),
        (point(), "{}", parts(&[Datum::Null, Datum::Null])),
        (array(point()), r#"[{"x":"no","x":1},null]"#, parts(&[parts(&[n(1), Datum::Null]), Datum::Null])),
    ] {
        assert_eq!(decode(&ty, value), Ok(expected), "{value} as {ty}");
    }
    assert!(matches!(decode(&SqlType::Double, "\"NaN\""), Ok(Datum::Float(nan)) if nan.is_nan()));
}

#[test]
fn values_that_do_not_fit() {
    for (ty, value, found) in [
        (SqlType::Boolean, "1", "number 1"),
        (SqlType::Boolean, "\"true\"", "string \"true\""),
        (SqlType::SmallInt, "32768", "number 32768"),
        (SqlType::Integer, "1.0", "number 1.0"),
        (SqlType::Integer, "1e2", "number 1e2"),
        (SqlType::Integer, "\" 1\"", "string \" 1\""),
        (SqlType::Integer, "\"\"", "string \"\""),
        (SqlType::BigInt, "9223372036854775808", "number 9223372036854775808"),
        (SqlType::BigInt, "123456789012345678901", "number 123456789012345678901"),
        (SqlType::Real, "1e39", "number 1e39"),
        (SqlType::Double, "1e309", "number 1e309"),
        (SqlType::Double, "\"1e309\"", "string \"1e309\""),
        (SqlType::Double, "\"x\"", "string \"x\""),
        (SqlType::Varchar, "{\"b\":1}", "object {\"b\":1}"),
        (SqlType::Varchar, "[1]", "array [1]"),
        (SqlType::Varchar, r#""\ud800""#, r#"string "\ud800""#),
        (SqlType::Varchar, r#""a\u0000""#, r#"string "a\u0000""#),
        (SqlType::Jsonb, r#"["a\u0000"]"#, r#"array ["a\u0000"]"#),
        (SqlType::Jsonb, r#"{"\u0000":1}"#, r#"object {"\u0000":1}"#),
        (SqlType::Bytea, r#""\\x1""#, r#"string "\\x1""#),
        (SqlType::Bytea, r#""\\400""#, r#"string "\\400""#),
        (SqlType::Bytea, "1", "number 1"),
        (SqlType::Date, "\"2023-02-29\"", "string \"2023-02-29\""),
        (SqlType::Date, "95026237", "number 95026237"),
        (SqlType::Timestamp, "1.5", "number 1.5"),
        (SqlType::Timestamptz, "\"now\"", "string \"now\""),
        (SqlType::Timestamptz, "true", "true"),
        (SqlType::Jsonb, "[1e401]", "array [1e401]"),
        (SqlType::Numeric, "1e-29", "number 1e-29"),
        (SqlType::Numeric, "1e48", "number 1e48"),
        (SqlType::Numeric, "\"NaN\"", "string \"NaN\""),
        (SqlType::Decimal { precision: 5, scale: 2 }, "999.995", "number 999.995"),
        (SqlType::Time, "\"25:00\"", "string \"25:00\""),
        (SqlType::Time, "86400000001", "number 86400000001"),
        (SqlType::Interval, "3", "number 3"),
        (SqlType::Interval, "\"300 years 3000000 hours\"", "string \"300 years 3000000 hours\""),
        (array(SqlType::Integer), "1", "number 1"),
        (array(SqlType::Integer), "[1,\"x\"]", "array [1,\"x\"]"),
        (array(SqlType::Integer), "{\"0\":1}", "object {\"0\":1}"),
        (point(), "[1]", "array [1]"),
        (point(), r#"{"x":1,"y":[70000]}"#, r#"object {"x":1,"y":[70000]}"#),
        (point(), "\"{}\"", "string \"{}\""),
    ] {
        let error = decode(&ty, value).expect_err(value);
        let shown = error.strip_prefix(&format!("column \"a\": expected {ty}, found {found}"));
        // The tests of `reason` cover the text.
        assert!(shown.is_some_and(|reason| reason.is_empty() || reason.starts_with(": ")), "{value} as {ty}: {error}");
    }
    let long = decode(&SqlType::Boolean, &format!("\"{}\"", "é".repeat(100))).expect_err("a string");
    assert!(long.ends_with(&format!("found string \"{}…\"", "é".repeat(30))), "{long}");
}

#[test]
fn payloads_that_are_no_objects() {
    for (payload, error) in [
        ("", "payload is not JSON: unexpected end at byte 0"),
        ("nope", "payload is not JSON: expected a value at byte 0"),
        ("{\"a\":1", "payload is not JSON: expected , or } at byte 6"),
        ("{\"a\":1,}", "payload is not JSON: expected a string at byte 7"),
        ("{\"a\":1} x", "payload is not JSON: trailing characters at byte 8"),
        ("null", "payload is not a JSON object but null"),
        ("1 2", "payload is not JSON: trailing characters at byte 2"),
    ] {
        let refused = Decoder::new(&[column("a", SqlType::BigInt)], "split").append(&message(payload, 1, "subject"));
        assert_eq!(refused.map_err(|error| error.to_string()), Err(error.to_owned()), "{payload}");
    }
    let refused = Decoder::new(&[], "split").append(&message(b"{\"a\":\"\xff\"}", 1, "subject"));
    assert_eq!(refused, Err(BadRecord::Syntax { reason: "invalid UTF-8", at: 6 }));
}

#[test]
fn a_payload_of_several_objects_is_several_rows_or_none() {
    let mut columns = vec![column("a", SqlType::BigInt), column("t", SqlType::Varchar)];
    columns.extend([
        Column { name: "whole".to_owned(), ty: SqlType::Jsonb, origin: Origin::WholePayload },
        Column { name: "subject".to_owned(), ty: SqlType::Varchar, origin: Origin::Subject },
    ]);
    let mut decoder = Decoder::new(&columns, "split").with_primary_key(&[0]);
    for (payload, error) in [
        ("[1]", "object 1 of the payload: payload is not a JSON object but number 1"),
        ("[{\"a\":1}, []]", "object 2 of the payload: payload is not a JSON object but array []"),
        ("[{\"a\":1}", "object 2 of the payload: payload is not JSON: expected , or ] at byte 8"),
        ("[{\"a\":1},", "object 2 of the payload: payload is not JSON: unexpected end at byte 9"),
        ("[{\"a\":1},]", "object 2 of the payload: payload is not JSON: expected a value at byte 9"),
        ("[{\"a\":1}]{}", "object 2 of the payload: payload is not JSON: trailing characters at byte 9"),
        ("{\"a\":1}\n{\"a\":2}\n3", "object 3 of the payload: payload is not JSON: trailing characters at byte 16"),
        ("{\"a\":1}{\"a\"}", "object 2 of the payload: payload is not JSON: expected : at byte 11"),
        (
            "{\"a\":1}{\"a\":\"x\"}",
            "object 2 of the payload: column \"a\": expected bigint, found string \"x\": invalid digit 'x', at byte 13",
        ),
        ("[{\"a\":1},{\"t\":\"x\"}]", "object 2 of the payload: column \"a\" of the primary key is null"),
    ] {
        let refused = decoder.append(&message(payload, 1, "subject"));
        assert_eq!(refused.map_err(|error| error.to_string()), Err(error.to_owned()), "{payload}");
        assert_eq!((decoder.len(), decoder.bytes()), (0, 0), "{payload}");
    }
    for (sequence, payload) in (2..).zip([
        "[]",
        " [ { \"a\" : 1 , \"t\":\"\\u0041\" } , {\"a\":2} ] ",
        "{\"a\":3}\n{\"t\":\"B\\n\",\"a\":4}\r\n",
        "[{\"a\":5}]",
    ]) {
        decoder.append(&message(payload, sequence, "s")).expect(payload);
    }
    let batch = decoder.finish();
    let (integer, text) = (Datum::Integer, |text: &str| Datum::Text(text.to_owned()));
    let row = |a, t, whole| vec![integer(a), t, text(whole), text("s")];
    let expected = [
        row(1, text("A"), r#"{"a": 1, "t": "A"}"#),
        row(2, Datum::Null, r#"{"a": 2}"#),
        row(3, Datum::Null, r#"{"a": 3}"#),
        row(4, text("B\n"), r#"{"a": 4, "t": "B\n"}"#),
        row(5, Datum::Null, r#"{"a": 5}"#),
    ];
    assert_eq!(rows(&batch, &columns), expected);
    assert_eq!(batch.column(4).as_primitive::<UInt64Type>().values(), &[3, 3, 4, 4, 5]);
}

#[test]
fn many_small_objects_are_bounded_by_what_becomes_of_them() {
    let mut decoder = Decoder::new(&[column("a", SqlType::BigInt)], "split");
    let refused = decoder.append(&message("{}".repeat(4 << 20), 1, "subject"));
    assert_eq!(refused, Err(BadRecord::TooLarge));
    decoder.append(&message("{}".repeat(1 << 20), 2, "subject")).expect("a million rows");
    assert_eq!(decoder.finish().num_rows(), 1 << 20);
}

#[test]
fn a_few_bytes_cannot_grow_without_bound() {
    let wide = (0..1_000).map(|n| StructField { name: format!("f{n}"), ty: SqlType::Integer }).collect();
    let mut decoder = Decoder::new(&[column("a", array(SqlType::Struct(wide)))], "split");
    let record = format!("{{\"a\":[{}{{}}]}}", "{},".repeat(20_000));
    assert_eq!(decoder.append(&message(record, 1, "subject")), Err(BadRecord::TooLarge));
    decoder.append(&message(b"{\"a\":[{}]}", 2, "subject")).expect("a good record");
    assert_eq!(decoder.finish().num_rows(), 1);
}

#[test]
fn a_null_of_a_wide_struct_is_as_large_as_its_columns() {
    let wide = (0..1_000).map(|n| StructField { name: format!("f{n}"), ty: SqlType::Numeric }).collect();
    let inner = StructField { name: "s".to_owned(), ty: SqlType::Struct(wide) };
    let outer = SqlType::Struct(vec![inner.clone()]);
    for (ty, element) in [(inner.ty, "null"), (outer, "{}")] {
        let mut decoder = Decoder::new(&[column("a", array(ty))], "split");
        let record = |count: usize| format!("{{\"a\":[{}{element}]}}", format!("{element},").repeat(count));
        assert_eq!(decoder.append(&message(record(5_000), 1, "subject")), Err(BadRecord::TooLarge), "{element}");
        decoder.append(&message(record(1_000), 2, "subject")).expect("a good record");
        assert_eq!(decoder.finish().num_rows(), 1);
    }
}

#[test]
fn long_keys_are_read_and_not_remembered() {
    let columns = [column("a", SqlType::Integer), column("b", SqlType::Integer)];
    let mut decoder = Decoder::new(&columns, "split");
    let record = |n: usize| format!("{{\"a\":1,\"{}{n}\":7,\"b\":2}}", "k".repeat(100_000));
    for n in 0..300 {
        decoder.append(&message(record(n), 1, "subject")).expect("a good record");
    }
    let Reader::Json(fields) = &decoder.reader else { panic!("the payloads are JSON") };
    assert!(fields.remembered_bytes() < 1_000, "{}", fields.remembered_bytes());
    assert!(rows(&decoder.finish(), &columns).iter().all(|row| *row == [Datum::Integer(1), Datum::Integer(2)]));
}

#[test]
fn included_columns_come_from_the_message() {
    let included = |name: &str, origin| Column { origin, ..column(name, SqlType::Varchar) };
    let columns = [
        included("o", Origin::Offset),
        column("a", SqlType::Integer),
        included("s", Origin::Subject),
        included("p", Origin::Partition),
    ];
    let mut decoder = Decoder::new(&columns, "orders");
    decoder
        .append(&message(br#"{"a": 1, "o": "x", "s": 2}"#, Sequence::new(Incarnation::MAX, 7).0, "orders.new"))
        .expect("a good record");
    decoder.append(&message(b"{}", 0, "orders.old")).expect("a good record");
    assert_eq!(decoder.len(), 2);
    assert!(decoder.bytes() > 0);
    let batch = decoder.finish();
    let text = |text: &str| Datum::Text(text.to_owned());
    let orders = text("orders");
    assert_eq!(
        rows(&batch, &columns),
        [
            vec![text("7"), Datum::Integer(1), text("orders.new"), orders.clone()],
            vec![text("0"), Datum::Null, text("orders.old"), orders],
        ]
    );
    assert_eq!(batch.schema(), block::schema(&columns));
    assert_eq!(batch.column(4).as_primitive::<UInt64Type>().values(), &[Sequence::new(Incarnation::MAX, 7).0, 0]);
    assert!(decoder.is_empty() && decoder.bytes() == 0 && decoder.finish().num_rows() == 0);
}

#[test]
fn headers_time_and_the_whole_payload_are_columns() {
    let included = |name: &str, ty, origin| Column { origin, ..column(name, ty) };
    let header = |name: &str| Origin::Header { name: name.to_owned() };
    let columns = [
        included("h", Origin::headers_type(), Origin::Headers),
        column("a", SqlType::Integer),
        included("t", SqlType::Timestamptz, Origin::Timestamp),
        included("one", SqlType::Bytea, header("b")),
        included("two", SqlType::Varchar, header("B")),
        included("p", SqlType::Jsonb, Origin::WholePayload),
    ];
    let mut with_headers = message(r#"{"zz":[1e2], "a":7}"#, 1, "subject");
    with_headers.stored_ns = 1_700_000_000_123_456_789;
    let headers = with_headers.headers.insert(Box::default());
    for (name, value) in [("b", "2"), ("B", "x"), ("b", "1")] {
        headers.append(name, value);
    }
    let mut decoder = Decoder::new(&columns, "split");
    decoder.append(&with_headers).expect("a good record");
    decoder.append(&message("{}", 2, "subject")).expect("a good record");
    let bad = decoder.append(&message(r#"{"x": 1e999999999}"#, 3, "subject"));
    assert!(matches!(bad, Err(BadRecord::NoJsonb { .. })), "{bad:?}");
    let (text, bytes) = (|text: &str| Datum::Text(text.to_owned()), |text: &str| Datum::Bytes(text.into()));
    let pair = |name, value| Datum::Parts(vec![text(name), bytes(value)]);
    assert_eq!(
        rows(&decoder.finish(), &columns),
        [
            vec![
                Datum::Parts(vec![pair("B", "x"), pair("b", "2"), pair("b", "1")]),
                Datum::Integer(7),
                Datum::Integer(1_700_000_000_123_457),
                bytes("2"),
                text("x"),
                text(r#"{"a": 7, "zz": [100]}"#),
            ],
            vec![Datum::Null, Datum::Null, Datum::Integer(0), Datum::Null, Datum::Null, text("{}")],
        ]
    );
}

#[test]
fn keys_match_exactly_before_they_match_in_another_case() {
    let columns =
        [column("userid", SqlType::Integer), column("userId", SqlType::Integer), column("b", SqlType::Integer)];
    let mut decoder = Decoder::new(&columns, "split");
    for payload in [
        r#"{"userId": 1, "B": 2}"#,
        r#"{"userId": 1, "userid": 2, "USERID": 3}"#,
        r#"{"USERID": 3, "B": 1, "b": null}"#,
        r#"{"b": 4, "B": "not a number"}"#,
        r#"{"b": "not a number", "b": 5}"#,
        r#"{"\u0062": 6, "c": {"b": 7}}"#,
    ] {
        decoder.append(&message(payload, 1, "subject")).expect("a good record");
    }
    let (n, null) = (Datum::Integer, Datum::Null);
    assert_eq!(
        rows(&decoder.finish(), &columns),
        [
            [n(1), n(1), n(2)],
            [n(2), n(1), null.clone()],
            [n(3), n(3), null.clone()],
            [null.clone(), null.clone(), n(4)],
            [null.clone(), null.clone(), n(5)],
            [null.clone(), null, n(6)],
        ]
    );
}

/// A field of a generated payload.
#[derive(Clone, Debug)]
struct Written {
    key: String,
    /// True if the key is written with escapes.
    escaped: bool,
    value: Value,
}

fn json_text(text: &str, escaped: bool) -> String {
    if escaped {
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        format!("\"{units}\"")
    } else {
        serde_json::to_string(text).expect("a string")
    }
}

fn payload(fields: &[Written], space: &str) -> String {
    let members: Vec<String> = fields
        .iter()
        .map(|field| format!("{space}{}{space}:{space}{}{space}", json_text(&field.key, field.escaped), field.value))
        .collect();
    format!("{space}{{{}}}{space}", members.join(","))
}

/// PostgreSQL's form of values without floating point exponents.
fn jsonb_model(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(jsonb_model).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| (key.len(), (*key).clone()));
            let written: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("{}: {}", json_text(key, false), jsonb_model(value)))
                .collect();
            format!("{{{}}}", written.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

fn model(ty: &SqlType, value: &Value) -> Option<Datum> {
    let integer = |min: i64, max: i64| {
        let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        number.filter(|number| (min..=max).contains(number)).map(Datum::Integer)
    };
    let point = |text: &str| {
        let naive = |format| chrono::NaiveDateTime::parse_from_str(text, format).ok().map(|at| (at, 0));
        let with_offset = chrono::DateTime::parse_from_rfc3339(text).ok();
        let with_offset = with_offset.map(|at| (at.naive_local(), at.offset().local_minus_utc()));
        let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
        let midnight = date.and_then(|date| date.and_hms_opt(0, 0, 0)).map(|at| (at, 0));
        with_offset.or_else(|| naive("%Y-%m-%d %H:%M:%S%.f")).or(midnight)
    };
    let nearest = |nanos: i64| (nanos as f64 / 1e9 * 1e6).round_ties_even() as i64;
    let micros = |utc: bool| match value {
        Value::Number(_) => value.as_i64().map(|number| {
            let digits = number.unsigned_abs().to_string().len();
            match digits {
                ..=11 => number * 1_000_000,
                12..=14 => number * 1_000,
                15..=17 => number,
                _ => number.div_euclid(1_000_000_000) * 1_000_000 + nearest(number.rem_euclid(1_000_000_000)),
            }
        }),
        Value::String(text) => point(text)
            .map(|(at, offset)| at.and_utc().timestamp_micros() - if utc { i64::from(offset) * 1_000_000 } else { 0 }),
        _ => None,
    };
    match (ty, value) {
        (_, Value::Null) => Some(Datum::Null),
        (SqlType::Boolean, value) => value.as_bool().map(Datum::Boolean),
        (SqlType::SmallInt, _) => integer(i16::MIN.into(), i16::MAX.into()),
        (SqlType::Integer, _) => integer(i32::MIN.into(), i32::MAX.into()),
        (SqlType::BigInt, _) => integer(i64::MIN, i64::MAX),
        (SqlType::Real, Value::Number(number)) => {
            number.to_string().parse::<f32>().ok().map(|number| Datum::Float(number.into()))
        }
        (SqlType::Real, Value::String(text)) => text.parse::<f32>().ok().map(|number| Datum::Float(number.into())),
        (SqlType::Double, Value::Number(number)) => number.to_string().parse().ok().map(Datum::Float),
        (SqlType::Double, Value::String(text)) => text.parse().ok().map(Datum::Float),
        (SqlType::Varchar, Value::String(text)) => Some(Datum::Text(text.clone())),
        (SqlType::Varchar, Value::Number(_) | Value::Bool(_)) => Some(Datum::Text(value.to_string())),
        (SqlType::Bytea, Value::String(text)) => match text.strip_prefix("\\x") {
            Some(hex) if hex.len() % 2 == 0 => (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok())
                .collect::<Option<Vec<u8>>>()
                .map(Datum::Bytes),
            Some(_) => None,
            None => (!text.contains('\\')).then(|| Datum::Bytes(text.clone().into_bytes())),
        },
        (SqlType::Date, Value::Number(_)) => {
            value.as_i64().filter(|days| (-2_440_588..=95_026_236).contains(days)).map(Datum::Integer)
        }
        (SqlType::Date, Value::String(text)) => {
            let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            let days = date.signed_duration_since(chrono::NaiveDate::from_ymd_opt(1970, 1, 1)?).num_days();
            Some(Datum::Integer(days))
        }
        (SqlType::Timestamp, _) => micros(false).map(Datum::Integer),
        (SqlType::Timestamptz, _) => micros(true).map(Datum::Integer),
        (SqlType::Jsonb, value) => Some(Datum::Text(jsonb_model(value))),
        (SqlType::Numeric, Value::Number(_)) => decimal_model(&value.to_string(), 28),
        (SqlType::Numeric, Value::String(text)) => decimal_model(text, 28),
        (SqlType::Decimal { scale, .. }, Value::Number(_)) => decimal_model(&value.to_string(), *scale),
        (SqlType::Decimal { scale, .. }, Value::String(text)) => decimal_model(text, *scale),
        (SqlType::Time, Value::Number(_)) => {
            value.as_i64().filter(|micros| (0..=86_400_000_000).contains(micros)).map(Datum::Integer)
        }
        (SqlType::Time, Value::String(text)) => {
            let time = chrono::NaiveTime::parse_from_str(text, "%H:%M:%S%.f").ok()?;
            Some(Datum::Integer((time - chrono::NaiveTime::MIN).num_microseconds()?))
        }
        // Other tests cover its text.
        (SqlType::Interval, Value::String(text)) => Interval::parse(text).map(Datum::Interval),
        (SqlType::Array(element), Value::Array(values)) => {
            values.iter().map(|value| model(element, value)).collect::<Option<Vec<_>>>().map(Datum::Parts)
        }
        (SqlType::Struct(fields), Value::Object(members)) => {
            let last = |matches: &dyn Fn(&str) -> bool| members.iter().filter(|(key, _)| matches(key)).last();
            let parts = fields.iter().map(|StructField { name, ty }| {
                let member = last(&|key| key == name).or_else(|| last(&|key| key.eq_ignore_ascii_case(name)));
                member.map_or(Some(Datum::Null), |(_, value)| model(ty, value))
            });
            parts.collect::<Option<Vec<_>>>().map(Datum::Parts)
        }
        _ => None,
    }
}

/// Converts numbers as the strategies write them: without exponents, with at most three digits
/// after the point. A scale below three rounds them.
fn decimal_model(text: &str, scale: u8) -> Option<Datum> {
    let unsigned = text.trim_start_matches(['-', '+']);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    if text.len() > unsigned.len() + 1 || digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let power = |exponent: usize| i256::from_i128(10).wrapping_pow(u32::try_from(exponent).expect("small"));
    let digits = i256::from_string(&digits)?;
    let scale = usize::from(scale);
    let magnitude = match fraction.len().checked_sub(scale) {
        Some(0) => digits,
        Some(more) => digits.wrapping_add(power(more).wrapping_div(i256::from_i128(2))).wrapping_div(power(more)),
        None => digits.wrapping_mul(power(scale - fraction.len())),
    };
    Some(Datum::Decimal(if text.starts_with('-') { magnitude.wrapping_neg() } else { magnitude }))
}

/// The row of a payload's fields; `None` if it is bad.
fn model_row(columns: &[Column], fields: &[Written]) -> Option<Vec<Datum>> {
    let last = |matches: &dyn Fn(&str) -> bool| fields.iter().rfind(|field| matches(&field.key));
    let one = |column: &Column| {
        let field = last(&|key| key == column.name).or_else(|| last(&|key| key.eq_ignore_ascii_case(&column.name)));
        field.map_or(Some(Datum::Null), |field| model(&column.ty, &field.value))
    };
    columns.iter().map(one).collect()
}

fn any_type() -> impl Strategy<Value = SqlType> {
    let scalar = prop::sample::select(vec![
        SqlType::Boolean,
        SqlType::SmallInt,
        SqlType::Integer,
        SqlType::BigInt,
        SqlType::Real,
        SqlType::Double,
        SqlType::Varchar,
        SqlType::Bytea,
        SqlType::Date,
        SqlType::Timestamp,
        SqlType::Timestamptz,
        SqlType::Jsonb,
        SqlType::Numeric,
        SqlType::Decimal { precision: 38, scale: 2 },
        SqlType::Decimal { precision: 50, scale: 0 },
        SqlType::Time,
        SqlType::Interval,
    ]);
    scalar.prop_recursive(3, 8, 3, |inner| {
        let names = prop::sample::subsequence(vec!["a", "ab", "A", "b", "\n"], 1..4);
        prop_oneof![
            inner.clone().prop_map(|element| SqlType::Array(Box::new(element))),
            (names, prop::collection::vec(inner, 5)).prop_map(|(names, types)| {
                let fields = names.into_iter().zip(types).map(|(name, ty)| StructField { name: name.to_owned(), ty });
                SqlType::Struct(fields.collect())
            }),
        ]
    })
}

fn any_columns() -> impl Strategy<Value = Vec<Column>> {
    let names = prop::sample::subsequence(vec!["a", "b", "A", "channel", "été", "q\"\\"], 0..6);
    (names, prop::collection::vec(any_type(), 6))
        .prop_map(|(names, types)| names.into_iter().zip(types).map(|(name, ty)| column(name, ty)).collect())
}

fn any_value() -> impl Strategy<Value = Value> {
    let seconds = -2_000_000_000_i64..4_000_000_000;
    let time = (seconds, 0_u32..1_000_000)
        .prop_map(|(seconds, micros)| chrono::DateTime::from_timestamp(seconds, micros * 1000).expect("in range"));
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-40_000_i64..40_000).prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        // Eighths: written without an exponent.
        (-8_000_000_i32..8_000_000).prop_map(|eighths| (f64::from(eighths) / 8.0).into()),
        // Backslashes have a meaning in a bytea, which the model does not know.
        any::<String>().prop_map(|text| text.replace('\\', "/").replace('\0', "0").into()),
        (-40_000_i64..40_000).prop_map(|number| number.to_string().into()),
        prop::sample::select(vec!["Infinity", "-inf", "1.25", "", "true", "\\x", "\\x0", "\\xAb01", "a\\"])
            .prop_map(Into::into),
        time.clone().prop_map(|at| at.format("%Y-%m-%d").to_string().into()),
        time.clone().prop_map(|at| at.format("%H:%M:%S%.6f").to_string().into()),
        (-50_i32..50, -50_i32..50, time.clone()).prop_map(|(months, days, at)| {
            format!("{months} mons {days} days -{}", at.format("%H:%M:%S%.6f")).into()
        }),
        time.clone().prop_map(|at| at.format("%Y-%m-%d %H:%M:%S%.6f").to_string().into()),
        (time, -12_i32..12).prop_map(|(at, hours)| {
            let zone = chrono::FixedOffset::east_opt(hours * 3600).expect("below a day");
            at.with_timezone(&zone).to_rfc3339().into()
        }),
    ];
    scalar.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[abA\n]{0,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_fields() -> impl Strategy<Value = Vec<Written>> {
    let key = prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "A", "B", "channel", "Channel", "été", "q\"\\", "other", ""])
            .prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let field =
        (key, prop::bool::weighted(0.1), any_value()).prop_map(|(key, escaped, value)| Written { key, escaped, value });
    prop::collection::vec(field, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn records_are_decoded_as_the_model_says(
        columns in any_columns(),
        records in prop::collection::vec((any_fields(), "[ \n\t\r]{0,2}"), 1..6),
    ) {
        let mut decoder = Decoder::new(&columns, "split");
        let mut expected = Vec::new();
        for (fields, space) in &records {
            let (rows, bytes) = (decoder.len(), decoder.bytes());
            let result = decoder.append(&message(payload(fields, space), 7, "subject"));
            let row = model_row(&columns, fields);
            prop_assert_eq!(result.is_ok(), row.is_some(), "{:?}: {:?}", result, row);
            if result.is_err() {
                prop_assert_eq!((rows, bytes), (decoder.len(), decoder.bytes()));
            }
            expected.extend(row);
        }
        prop_assert_eq!(rows(&decoder.finish(), &columns), expected);
    }

    /// In an array, or one after the other.
    #[test]
    fn several_objects_are_the_rows_that_they_are_alone(
        columns in any_columns(),
        objects in prop::collection::vec((any_fields(), "[ \n\t\r]{0,2}"), 2..6),
        in_array: bool,
    ) {
        let texts: Vec<String> = objects.iter().map(|(fields, space)| payload(fields, space)).collect();
        let together = if in_array { format!("[{}]", texts.join(",")) } else { texts.concat() };
        let mut alone = Decoder::new(&columns, "split");
        let mut good = true;
        for text in &texts {
            good &= alone.append(&message(text, 7, "subject")).is_ok();
        }
        let mut decoder = Decoder::new(&columns, "split");
        prop_assert_eq!(decoder.append(&message(together, 7, "subject")).is_ok(), good);
        let expected = if good { rows(&alone.finish(), &columns) } else { Vec::new() };
        prop_assert_eq!(rows(&decoder.finish(), &columns), expected);
    }

    #[test]
    fn broken_payloads_leave_no_trace(
        columns in any_columns(), fields in any_fields(), at: prop::sample::Index, byte: u8, cut: bool,
    ) {
        let mut broken = payload(&fields, "").into_bytes();
        let at = at.index(broken.len());
        if cut { broken.truncate(at) } else { broken[at] = byte }
        let mut decoder = Decoder::new(&columns, "split");
        let good = decoder.append(&message(&broken, 1, "subject")).is_ok();
        let object = serde_json::from_slice::<std::collections::HashMap<String, serde::de::IgnoredAny>>(&broken).is_ok();
        prop_assert!(object || !good);
        decoder.append(&message(b"{}", 2, "subject")).expect("a good record");
        let batch = decoder.finish();
        prop_assert_eq!(batch.num_rows(), 1 + usize::from(good));
        prop_assert!(batch.columns().iter().all(|column| column.len() == batch.num_rows()));
    }
}

#[test]
fn a_record_that_is_too_large_is_bad_and_leaves_no_trace() {
    let columns = [column("a", SqlType::Varchar), column("j", SqlType::Jsonb)];
    let mut decoder = Decoder::new(&columns, "split");
    let filler = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
    let too_large = filler(PAYLOAD_BYTES_MAX);
    assert_eq!(decoder.append(&message(too_large, 1, "subject")), Err(BadRecord::TooLarge));
    // A number takes six bytes, and grows to four hundred.
    let grows = format!("{{\"j\":[{}1]}}", "1e400,".repeat(1 << 20));
    assert!(decoder.append(&message(grows, 2, "subject")).is_err());
    decoder.append(&message(filler(PAYLOAD_BYTES_MAX - 100), 3, "subject")).expect("as large as it may be");
    decoder.append(&message(b"{\"j\": 1}", 4, "subject")).expect("a good record");
    let batch = decoder.finish();
    assert_eq!(batch.num_rows(), 2);
    assert_eq!(batch.column(2).as_primitive::<UInt64Type>().values(), &[3, 4]);
}

#[test]
fn a_document_is_kept_whole() {
    let columns = [column("payload", SqlType::Jsonb)];
    let mut decoder = Decoder::new(&columns, "split").with_encode(&Encode::JsonDocument, &columns).expect("a decoder");
    for (payload, error) in [
        ("", "payload is not JSON: unexpected end at byte 0"),
        ("1 2", "payload is not JSON: trailing characters at byte 2"),
        ("[1e401]", "payload has no normal form as jsonb: a number whose exponent is beyond ±400, at byte 1"),
    ] {
        assert_eq!(
            decoder.append(&Message::new(1, "subject", payload)).map_err(|bad| bad.to_string()),
            Err(error.to_owned())
        );
    }
    for payload in [r#" {"b": [1.0], "a": "\u0041"} "#, "\"x\"", "-1.50", "null"] {
        decoder.append(&Message::new(1, "subject", payload)).expect("a good record");
    }
    let got: Vec<Datum> = rows(&decoder.finish(), &columns).into_iter().flatten().collect();
    let text = |text: &str| Datum::Text(text.to_owned());
    assert_eq!(got, [text(r#"{"a": "A", "b": [1.0]}"#), text("\"x\""), text("-1.50"), Datum::Null]);
}

#[test]
fn bytes_are_kept_as_they_are() {
    let columns = [column("data", SqlType::Bytea)];
    let mut decoder = Decoder::new(&columns, "split").with_encode(&Encode::Bytes, &columns).expect("a decoder");
    let largest = vec![7; PAYLOAD_BYTES_MAX];
    for payload in [&b""[..], b"\xff\0", &largest] {
        decoder.append(&Message::new(1, "subject", payload.to_vec())).expect("a good record");
    }
    let got: Vec<Datum> = rows(&decoder.finish(), &columns).into_iter().flatten().collect();
    assert!(got == [Datum::Bytes(Vec::new()), Datum::Bytes(vec![255, 0]), Datum::Bytes(largest)]);
}

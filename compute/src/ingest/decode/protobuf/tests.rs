//! Compares messages that `prost-reflect` writes with the values that it reads, and tests bytes
//! made by hand where their form matters.

use arrow::array::RecordBatch;
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::prost_types::FileDescriptorSet;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value as Reflected,
};
use weir_common::catalog::{Column, Encode, Origin};
use weir_common::interval::Interval;
use weir_common::protobuf::columns as infer;
use weir_common::types::{SqlType, StructField};
use weir_connector_nats::Message;

use super::super::tests::{Datum, rows};
use super::super::{Decoder, PAYLOAD_BYTES_MAX};
use super::{BadRecord, MessageSchema, NUMERIC_SCALE, TIMESTAMP_SECONDS, i256, power_of_ten};

const PROTO: &str = r#"syntax = "proto3";
    package p;
    import "google/protobuf/any.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    message Event {
        double double = 1; float float = 2; int32 int32 = 3; int64 int64 = 4; uint32 uint32 = 5; uint64 uint64 = 6;
        sint32 sint32 = 7; sint64 sint64 = 8; fixed32 fixed32 = 9; fixed64 fixed64 = 10; sfixed32 sfixed32 = 11;
        sfixed64 sfixed64 = 12; bool bool = 13; string string = 14; bytes bytes = 15; Colour colour = 16;
        optional int32 maybe = 17; optional Colour maybe_colour = 18;
        repeated sint64 numbers = 19; repeated int32 unpacked = 20 [packed = false]; repeated string texts = 21;
        repeated Colour colours = 22; repeated uint64 big = 23;
        Inner inner = 24; repeated Inner inners = 25;
        oneof choice { int64 number = 26; string text = 27; Inner message = 28; }
        google.protobuf.Timestamp at = 29; google.protobuf.Duration took = 30; repeated google.protobuf.Timestamp times = 31;
        google.protobuf.Int32Value wrapped = 32; google.protobuf.StringValue wrapped_text = 33;
        repeated google.protobuf.UInt64Value wrappers = 34;
        map<string, int64> counts = 35; map<int32, Inner> by_number = 36;
        google.protobuf.Struct object = 37; google.protobuf.Value value = 38; google.protobuf.Any any = 39;
        repeated google.protobuf.Struct objects = 40; Nothing nothing = 41;
        int32 far = 536870911;
    }
    message Inner { string name = 1; repeated int32 ids = 2; Deep deep = 3; optional bool flag = 4; }
    message Deep { repeated Point points = 1; oneof kind { Point one = 2; Point two = 3; } }
    message Point { int32 x = 1; int32 y = 2; }
    message Nothing {}
    enum Colour { UNKNOWN = 0; RED = 1; GREEN = 5; MINUS = -1; }"#;

fn schema(proto: &str, message: &str) -> MessageSchema {
    let file = protox::file::File::from_source("a.proto", proto).expect("a schema").file_descriptor_proto().clone();
    MessageSchema::new(FileDescriptorSet { file: vec![file] }, message).expect("a message")
}

fn column(name: &str, ty: SqlType) -> Column {
    Column { name: name.to_owned(), ty, origin: Origin::Payload }
}

/// A table over all fields of a message.
struct Table {
    descriptor: MessageDescriptor,
    columns: Vec<Column>,
    decoder: Decoder,
}

impl Table {
    fn new(message: &str) -> Table {
        let descriptor = schema(PROTO, message).descriptor().expect("a descriptor");
        let fields = infer(&descriptor, &[]).expect("columns");
        Table::with(schema(PROTO, message), fields.into_iter().map(|field| column(&field.name, field.ty)).collect())
    }

    fn with(schema: MessageSchema, columns: Vec<Column>) -> Table {
        let descriptor = schema.descriptor().expect("a descriptor");
        let decoder = Decoder::new(&columns, "split").with_encode(&Encode::Protobuf(schema), &columns).expect("a plan");
        Table { descriptor, columns, decoder }
    }

    fn decode(&mut self, payload: &[u8]) -> Result<Vec<Datum>, BadRecord> {
        self.decoder.append(&Message::new(1, "subject", payload.to_vec()))?;
        let batch: RecordBatch = self.decoder.finish();
        Ok(rows(&batch, &self.columns).remove(0))
    }

    /// One column of the decoded row.
    fn get(&mut self, payload: &[u8], name: &str) -> Datum {
        let place = self.columns.iter().position(|column| column.name == name).expect("a column");
        self.decode(payload).expect("a good record").swap_remove(place)
    }

    fn encode(&self, fill: impl FnOnce(&mut DynamicMessage)) -> Vec<u8> {
        let mut message = DynamicMessage::new(self.descriptor.clone());
        fill(&mut message);
        message.encode_to_vec()
    }
}

fn parts(parts: &[Datum]) -> Datum {
    Datum::Parts(parts.to_vec())
}

fn text(text: &str) -> Datum {
    Datum::Text(text.to_owned())
}

fn n(number: i64) -> Datum {
    Datum::Integer(number)
}

#[test]
fn an_empty_payload_is_a_message_of_defaults() {
    let mut table = Table::new("p.Event");
    let row = table.decode(b"").expect("a good record");
    let shown =
        |name: &str| row[table.columns.iter().position(|column| column.name == name).expect("a column")].clone();
    assert_eq!(shown("double"), Datum::Float(0.0));
    assert_eq!(shown("int64"), n(0));
    assert_eq!(shown("uint64"), Datum::Decimal(i256::ZERO));
    assert_eq!(shown("bool"), Datum::Boolean(false));
    assert_eq!(shown("string"), text(""));
    assert_eq!(shown("bytes"), Datum::Bytes(Vec::new()));
    assert_eq!(shown("colour"), text("UNKNOWN"));
    assert_eq!(shown("numbers"), parts(&[]));
    assert_eq!(shown("objects"), parts(&[]));
    assert_eq!(shown("counts"), text("{}"));
    for absent in
        ["maybe", "maybe_colour", "inner", "number", "text", "message", "at", "took", "wrapped", "object", "nothing"]
    {
        assert_eq!(shown(absent), Datum::Null, "{absent}");
    }
}

#[test]
fn the_last_value_counts_and_messages_are_merged() {
    let mut table = Table::new("p.Event");
    assert_eq!(table.get(b"\x18\x01\x18\x02", "int32"), n(2));
    // inner { name: "a", ids: 1, deep { points { x: 1 } } }, int32: 7, inner { ids: [2, 3], deep {
    // points { y: 2 } } }
    let merged = b"\xc2\x01\x0b\x0a\x01a\x10\x01\x1a\x04\x0a\x02\x08\x01\x18\x07\xc2\x01\x0a\x12\x02\x02\x03\x1a\x04\x0a\x02\x10\x02";
    let point = |x, y| parts(&[n(x), n(y)]);
    let deep = parts(&[parts(&[point(1, 0), point(0, 2)]), Datum::Null, Datum::Null]);
    assert_eq!(table.get(merged, "inner"), parts(&[text("a"), parts(&[n(1), n(2), n(3)]), deep, Datum::Null]));
    // at { seconds: 1 }, at { nanos: 1500 }
    assert_eq!(table.get(b"\xea\x01\x02\x08\x01\xea\x01\x03\x10\xdc\x0b", "at"), n(1_000_002));
    // object { fields { "a": 1 } }, object { fields { "b": true }, fields { "a": "x" } }
    let field = |key: &str, value: &[u8]| {
        let mut entry = vec![0x0a, u8::try_from(key.len()).expect("short")];
        entry.extend_from_slice(key.as_bytes());
        entry.extend([0x12, u8::try_from(value.len()).expect("short")]);
        entry.extend_from_slice(value);
        [&[0x0a, u8::try_from(entry.len()).expect("short")], &entry[..]].concat()
    };
    let object = |fields: &[Vec<u8>]| {
        let body = fields.concat();
        [&[0xaa, 0x02, u8::try_from(body.len()).expect("short")], &body[..]].concat()
    };
    let first = object(&[field("a", b"\x11\0\0\0\0\0\0\xf0\x3f")]);
    let second = object(&[field("b", b"\x20\x01"), field("a", b"\x1a\x01x")]);
    assert_eq!(table.get(&[first, second].concat(), "object"), text(r#"{"a": "x", "b": true}"#));
}

#[test]
fn a_oneof_has_one_member() {
    let choose = |payload: &[u8], columns: &[&str]| {
        let mut table = Table::new("p.Event");
        table.columns.retain(|column| columns.contains(&column.name.as_str()));
        let columns = table.columns;
        Table::with(schema(PROTO, "p.Event"), columns).decode(payload).expect("a good record")
    };
    // number: 5, text: "x"
    assert_eq!(
        choose(b"\xd0\x01\x05\xda\x01\x01x", &["number", "text", "message"]),
        [Datum::Null, text("x"), Datum::Null]
    );
    assert_eq!(choose(b"\xda\x01\x01x\xd0\x01\x05", &["number", "text"]), [n(5), Datum::Null]);
    // A reader of only one member still sees that another came after it.
    assert_eq!(choose(b"\xd0\x01\x05\xda\x01\x01x", &["number"]), [Datum::Null]);
    assert_eq!(choose(b"\xda\x01\x01x\xd0\x01\x05", &["number"]), [n(5)]);
    // message { name: "a" }, message { ids: 1 } are merged; with a number between them they are
    // not.
    let (name, ids) = (b"\xe2\x01\x03\x0a\x01a", b"\xe2\x01\x02\x10\x01");
    let inner = |name: &str| parts(&[text(name), parts(&[n(1)]), Datum::Null, Datum::Null]);
    assert_eq!(choose(&[&name[..], ids].concat(), &["message"]), [inner("a")]);
    assert_eq!(choose(&[&name[..], b"\xd0\x01\x05", ids].concat(), &["message"]), [inner("")]);
}

#[test]
fn repeated_numbers_may_be_packed_or_not() {
    let mut table = Table::new("p.Event");
    // The same field, one by one, then packed, then one by one; declared packed or not.
    assert_eq!(
        table.get(b"\x98\x01\x02\x9a\x01\x02\x04\x06\x98\x01\x01", "numbers"),
        parts(&[n(1), n(2), n(3), n(-1)])
    );
    assert_eq!(table.get(b"\xa0\x01\x02\xa2\x01\x02\x04\x06", "unpacked"), parts(&[n(2), n(4), n(6)]));
    assert_eq!(table.get(b"\xb2\x01\x02\x05\x07", "colours"), parts(&[text("GREEN"), text("7")]));
    let negative = b"\x80\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(table.get(negative, "colour"), text("MINUS"));
}

#[test]
fn numbers_fit_into_wider_columns() {
    let columns = vec![
        column("int32", SqlType::Numeric),
        column("FLOAT", SqlType::Double),
        column("sint64", SqlType::Numeric),
        column("far", SqlType::BigInt),
        column("at", SqlType::Struct(vec![StructField { name: "nanos".to_owned(), ty: SqlType::Integer }])),
        column("inner", SqlType::Jsonb),
    ];
    let mut table = Table::with(schema(PROTO, "p.Event"), columns);
    let payload = table.encode(|message| {
        message.set_field_by_name("int32", Reflected::I32(-3));
        message.set_field_by_name("float", Reflected::F32(0.5));
        message.set_field_by_name("sint64", Reflected::I64(i64::MIN));
        message.set_field_by_name("far", Reflected::I32(9));
    });
    let payload = [&payload[..], b"\xea\x01\x02\x10\x07\xc2\x01\x03\x0a\x01a"].concat();
    let decimal =
        |number: i64| Datum::Decimal(i256::from_i128(number.into()).wrapping_mul(power_of_ten(NUMERIC_SCALE)));
    assert_eq!(
        table.decode(&payload).expect("a good record"),
        [decimal(-3), Datum::Float(0.5), decimal(i64::MIN), n(9), parts(&[n(7)]), text(r#"{"ids": [], "name": "a"}"#),]
    );
}

#[test]
fn maps_and_messages_of_any_kind_are_jsonb() {
    let mut table = Table::new("p.Event");
    // counts { "b": 2 }, { "a": 1 }, { "b": 3 }, {}
    let counts = b"\x9a\x02\x05\x0a\x01b\x10\x02\x9a\x02\x05\x0a\x01a\x10\x01\x9a\x02\x05\x0a\x01b\x10\x03\x9a\x02\x00";
    assert_eq!(table.get(counts, "counts"), text(r#"{"": 0, "a": 1, "b": 3}"#));
    // by_number { -1: { name: "x" } }, { 7: absent }
    let by_number = b"\xa2\x02\x10\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x12\x03\x0a\x01x\xa2\x02\x02\x08\x07";
    assert_eq!(
        table.get(by_number, "by_number"),
        text(r#"{"7": {"ids": [], "name": ""}, "-1": {"ids": [], "name": "x"}}"#)
    );
    let known = b"\xba\x02\x1c\x0a\x13type.test.com/p.Point\x12\x04\x08\x01\x10\x02";
    let known = [&known[..2], &[27], b"\x0a\x15type.test.com/p.Point\x12\x02\x08\x01"].concat();
    assert_eq!(table.get(&known, "any"), text(r#"{"x": 1, "y": 0, "@type": "type.test.com/p.Point"}"#));
    let unknown = b"\xba\x02\x0e\x0a\x08x/p.Nope\x12\x02\xff\x00";
    assert_eq!(table.get(unknown, "any"), text(r#"{"@type": "x/p.Nope", "value": "/wA="}"#));
    assert_eq!(table.get(b"\xb2\x02\x02\x08\x00", "value"), Datum::Null, "JSON's null is NULL");
    assert_eq!(table.get(b"\xca\x02\x00", "nothing"), text("{}"));
}

#[test]
fn what_is_not_a_message_of_the_schema_is_bad() {
    let mut table = Table::new("p.Event");
    for (payload, error) in [
        (&b"\x18"[..], "payload is not a message of the schema: invalid varint at byte 1"),
        (
            b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            "payload is not a message of the schema: invalid varint at byte 1",
        ),
        (b"\x00\x01", "payload is not a message of the schema: invalid field number at byte 0"),
        (b"\x18\x01\x1f", "payload is not a message of the schema: invalid wire type at byte 2"),
        (b"\x09\x00", "payload is not a message of the schema: unexpected end at byte 1"),
        (b"\x72\x05abc", "payload is not a message of the schema: length beyond the end at byte 2"),
        (b"\x72\x02a\xff", "payload is not a message of the schema: field \"string\": invalid UTF-8 at byte 3"),
        (
            b"\x70\x05",
            "payload is not a message of the schema: field \"string\": its wire type is not that of the schema at byte 1",
        ),
        (b"\xc2\x01\x04\x0a\x05ab", "payload is not a message of the schema: length beyond the end at byte 5"),
        (b"\xac\x3f", "payload is not a message of the schema: end of a group that was not begun at byte 2"),
        (b"\xab\x3f\x08\x01", "payload is not a message of the schema: unexpected end at byte 4"),
        (
            b"\xea\x01\x0b\x08\xff\x91\xb8\xc3\x98\xfe\xff\xff\xff\x01",
            "field \"at\": a timestamp beyond the years 1 to 9999",
        ),
        (b"\xf2\x01\x04\x08\x01\x10\x01", ""),
        (
            b"\xf2\x01\x0d\x08\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            "field \"took\": a duration of 292 years or more",
        ),
        (b"\xaa\x02\x01\xff", "field \"object\": "),
        (b"hello", "payload is not a message of the schema: "),
        (br#"{"int32": 1}"#, "payload is not a message of the schema: "),
    ] {
        let got = table.decode(payload).map_err(|error| error.to_string());
        match (got, error) {
            (Ok(_), "") => {}
            (got, error) => {
                let got = got.expect_err(&payload.escape_ascii().to_string());
                assert!(got.starts_with(error), "{}\n   gave: {got}\nexpected: {error}", payload.escape_ascii());
            }
        }
    }
}

#[test]
fn included_columns_stand_beside_fields() {
    let included = |name: &str, ty, origin| Column { name: name.to_owned(), ty, origin };
    let columns = vec![
        included("s", SqlType::Varchar, Origin::Subject),
        column("INT32", SqlType::Integer),
        included("raw", SqlType::Bytea, Origin::WholePayload),
        column("at", SqlType::Timestamptz),
        included("stored", SqlType::Timestamptz, Origin::Timestamp),
        included("headers", Origin::headers_type(), Origin::Headers),
    ];
    let mut table = Table::with(schema(PROTO, "p.Event"), columns);
    let row = table.decode(b"\x18\x05").expect("a good record");
    assert_eq!(row, [text("subject"), n(5), Datum::Bytes(vec![0x18, 5]), Datum::Null, n(0), Datum::Null]);
    let bad = table.decode(b"\x18\x05\xea\x01\x02\x10\xff").expect_err("cut off");
    assert_eq!(bad.column(), None);
    let bad = table.decode(b"\xea\x01\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").expect_err("a negative nano");
    assert_eq!(bad.column(), Some("at"));
}

#[test]
fn groups_are_skipped_and_bounded() {
    let mut table = Table::new("p.Event");
    // An unknown group that holds a group, with a field 3 inside that is not the table's.
    assert_eq!(table.get(b"\xab\x3f\x18\x05\xb3\x3f\xb4\x3f\xac\x3f\x18\x01", "int32"), n(1));
    let nested = |depth: usize| [b"\xab\x3f".repeat(depth), b"\xac\x3f".repeat(depth)].concat();
    table.decode(&nested(100)).expect("a good record");
    let error = table.decode(&nested(101)).expect_err("nested too deeply").to_string();
    assert!(error.contains("nested too deeply"), "{error}");
    table.decode(&b"\xab\x3f".repeat(1 << 20)).expect_err("nested too deeply");

    let proto2 = r#"syntax = "proto2"; message M { optional group G = 1 { optional int32 a = 1; } repeated group H = 2 {
        optional string b = 1; } optional int32 d = 3 [default = 5]; required int32 r = 4; }"#;
    let descriptor = schema(proto2, "M").descriptor().expect("a descriptor");
    let fields = infer(&descriptor, &[]).expect("columns").into_iter();
    let mut table = Table::with(schema(proto2, "M"), fields.map(|field| column(&field.name, field.ty)).collect());
    let row = table.decode(b"\x0b\x08\x07\x0c\x13\x0a\x01x\x14\x13\x14\x20\x01").expect("a good record");
    assert_eq!(row, [parts(&[n(7)]), parts(&[parts(&[text("x")]), parts(&[Datum::Null])]), Datum::Null, n(1)]);
}

#[test]
fn a_record_cannot_grow_beyond_its_bound() {
    let mut table = Table::new("p.Event");
    // An empty message of two bytes has cells of its own.
    let many = b"\xca\x01\x00".repeat(PAYLOAD_BYTES_MAX / 16);
    assert_eq!(table.decode(&many), Err(BadRecord::TooLarge));
    let packed = [&b"\xb2\x01"[..], b"\x80\x80\x80\x02", &vec![1; 1 << 22][..]].concat();
    assert_eq!(table.decode(&packed), Err(BadRecord::TooLarge));
    let large = vec![b' '; (4 << 20) + 1];
    let mut object = vec![0xaa, 0x02];
    prost::encoding::encode_varint(large.len() as u64, &mut object);
    object.extend(&large);
    let error = table.decode(&object).expect_err("too large").to_string();
    assert_eq!(error, "field \"object\": larger than 4194304 bytes, and no jsonb can be made of it");
    table.decode(b"").expect("a good record");
}

/// The expected column of a field, from the built message.
fn expected(message: &DynamicMessage, field: &FieldDescriptor, ty: &SqlType) -> Datum {
    if field.supports_presence() && !message.has_field(field) {
        return Datum::Null;
    }
    let value = message.get_field(field);
    match (&*value, ty) {
        (Reflected::List(values), SqlType::Array(element)) => {
            Datum::Parts(values.iter().map(|value| expected_one(value, &field.kind(), element)).collect())
        }
        (Reflected::Map(entries), _) => {
            let object: serde_json::Map<String, serde_json::Value> = entries
                .iter()
                .map(|(key, value)| match (key, value) {
                    (MapKey::String(key), Reflected::I64(value)) => (key.clone(), (*value).into()),
                    (MapKey::I32(key), Reflected::Message(value)) => (key.to_string(), json(value)),
                    other => panic!("no such map: {other:?}"),
                })
                .collect();
            jsonb(&object.into())
        }
        (value, ty) => expected_one(value, &field.kind(), ty),
    }
}

fn json(message: &DynamicMessage) -> serde_json::Value {
    let options = prost_reflect::SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).expect("JSON")
}

/// The same form as the decoder of JSON.
fn jsonb(value: &serde_json::Value) -> Datum {
    let columns = [column("a", SqlType::Jsonb)];
    let mut decoder = Decoder::new(&columns, "split").with_encode(&Encode::JsonDocument, &columns).expect("a decoder");
    decoder.append(&Message::new(1, "subject", value.to_string())).expect("a good record");
    rows(&decoder.finish(), &columns).remove(0).remove(0)
}

fn expected_one(value: &Reflected, kind: &Kind, ty: &SqlType) -> Datum {
    let decimal =
        |number: u64| Datum::Decimal(i256::from_i128(number.into()).wrapping_mul(power_of_ten(NUMERIC_SCALE)));
    match (value, ty) {
        (Reflected::Message(message), SqlType::Struct(fields)) => {
            let member = |field: &StructField| {
                let descriptor = message.descriptor().get_field_by_name(&field.name).expect("a field");
                expected(message, &descriptor, &field.ty)
            };
            Datum::Parts(fields.iter().map(member).collect())
        }
        (Reflected::Message(message), SqlType::Jsonb) => jsonb(&json(message)),
        (Reflected::Message(message), SqlType::Timestamptz | SqlType::Interval) => {
            let part = |name: &str| message.get_field_by_name(name).expect("a field").into_owned();
            let (seconds, nanos) =
                (part("seconds").as_i64().expect("a number"), part("nanos").as_i32().expect("a number"));
            let fraction = f64::from(nanos) / 1e9 * 1e6;
            let fraction = match ty {
                SqlType::Timestamptz => fraction.round_ties_even(),
                // A half goes towards zero.
                _ => fraction.trunc() + if fraction.fract().abs() > 0.5 { fraction.signum() } else { 0.0 },
            };
            let micros = i128::from(seconds) * 1_000_000 + fraction as i128;
            let micros = i64::try_from(micros).expect("in range");
            if *ty == SqlType::Timestamptz {
                n(micros)
            } else {
                Datum::Interval(Interval { months: 0, days: 0, micros })
            }
        }
        (Reflected::Message(message), ty) => {
            let value = message.descriptor().get_field_by_name("value").expect("a wrapper");
            expected_one(&message.get_field(&value), &value.kind(), ty)
        }
        (Reflected::EnumNumber(number), _) => {
            let name = kind.as_enum().expect("an enum").get_value(*number);
            name.map_or_else(|| text(&number.to_string()), |name| text(name.name()))
        }
        (Reflected::Bool(value), _) => Datum::Boolean(*value),
        (Reflected::I32(value), _) => n((*value).into()),
        (Reflected::I64(value), _) => n(*value),
        (Reflected::U32(value), _) => n((*value).into()),
        (Reflected::U64(value), _) => decimal(*value),
        (Reflected::F32(value), _) => Datum::Float((*value).into()),
        (Reflected::F64(value), _) => Datum::Float(*value),
        (Reflected::String(value), _) => text(value),
        (Reflected::Bytes(value), _) => Datum::Bytes(value.to_vec()),
        other => panic!("no such value: {other:?}"),
    }
}

/// A message in which each field is set or not.
fn messages(descriptor: &MessageDescriptor) -> BoxedStrategy<DynamicMessage> {
    let descriptor = descriptor.clone();
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => seconds_and_nanos(
            &descriptor,
            (TIMESTAMP_SECONDS.start() + 1..*TIMESTAMP_SECONDS.end(), 0..1_000_000_000).boxed(),
        ),
        "google.protobuf.Duration" => seconds_and_nanos(&descriptor, (0..9_000_000_000_i64, 0..1_000_000_000).boxed()),
        "google.protobuf.Value" => prop_oneof![
            any::<bool>().prop_map(|value| (4, Reflected::Bool(value))),
            "[a-z\"\\\\é]{0,3}".prop_map(|value| (3, Reflected::String(value))),
            (-1e6..1e6).prop_map(|value| (2, Reflected::F64(value))),
        ]
        .prop_map(move |(number, value)| {
            let mut message = DynamicMessage::new(descriptor.clone());
            message.set_field_by_number(number, value);
            message
        })
        .boxed(),
        "google.protobuf.Any" => Just(DynamicMessage::new(descriptor)).boxed(),
        _ => {
            let fields: Vec<FieldDescriptor> = descriptor.fields().collect();
            let values: Vec<_> = fields.iter().map(|field| prop::option::weighted(0.4, values(field))).collect();
            values
                .prop_map(move |values| {
                    let mut message = DynamicMessage::new(descriptor.clone());
                    for (field, value) in fields.iter().zip(values) {
                        // An Any without a type has no JSON.
                        if let Some(value) = value.filter(|_| field.name() != "any") {
                            message.set_field(field, value);
                        }
                    }
                    message
                })
                .boxed()
        }
    }
}

fn seconds_and_nanos(
    descriptor: &MessageDescriptor,
    parts: BoxedStrategy<(i64, i32)>,
) -> BoxedStrategy<DynamicMessage> {
    let descriptor = descriptor.clone();
    parts
        .prop_map(move |(seconds, nanos)| {
            let mut message = DynamicMessage::new(descriptor.clone());
            message.set_field_by_name("seconds", Reflected::I64(seconds));
            message.set_field_by_name("nanos", Reflected::I32(nanos));
            message
        })
        .boxed()
}

fn values(field: &FieldDescriptor) -> BoxedStrategy<Reflected> {
    let kind = field.kind();
    if field.is_map() {
        let entry = kind.as_message().expect("an entry").clone();
        let key = value(&entry.map_entry_key_field().kind());
        let entries = prop::collection::vec((key, value(&entry.map_entry_value_field().kind())), 0..3);
        let map = |entries: Vec<(Reflected, Reflected)>| {
            let entry = |(key, value): (Reflected, Reflected)| (key.into_map_key().expect("a key"), value);
            Reflected::Map(entries.into_iter().map(entry).collect())
        };
        return entries.prop_map(map).boxed();
    }
    if field.is_list() {
        return prop::collection::vec(value(&kind), 0..4).prop_map(Reflected::List).boxed();
    }
    value(&kind)
}

fn value(kind: &Kind) -> BoxedStrategy<Reflected> {
    match kind {
        Kind::Double => (-1e30..1e30).prop_map(Reflected::F64).boxed(),
        Kind::Float => (-1e30_f32..1e30).prop_map(Reflected::F32).boxed(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => any::<i32>().prop_map(Reflected::I32).boxed(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => any::<i64>().prop_map(Reflected::I64).boxed(),
        Kind::Uint32 | Kind::Fixed32 => any::<u32>().prop_map(Reflected::U32).boxed(),
        Kind::Uint64 | Kind::Fixed64 => any::<u64>().prop_map(Reflected::U64).boxed(),
        Kind::Bool => any::<bool>().prop_map(Reflected::Bool).boxed(),
        Kind::String => "[a-zé\"\\\\]{0,4}".prop_map(Reflected::String).boxed(),
        Kind::Bytes => {
            prop::collection::vec(any::<u8>(), 0..4).prop_map(|bytes| Reflected::Bytes(bytes.into())).boxed()
        }
        Kind::Enum(_) => (-2..8).prop_map(Reflected::EnumNumber).boxed(),
        Kind::Message(message) => messages(message).prop_map(Reflected::Message).boxed(),
    }
}

fn event() -> MessageDescriptor {
    schema(PROTO, "p.Event").descriptor().expect("a descriptor")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Messages of another implementation are read as it reads them, whole, and merged with another
    /// message.
    #[test]
    fn messages_are_read_as_they_were_meant(first in messages(&event()), second in messages(&event())) {
        let mut table = Table::new("p.Event");
        let mut payload = first.encode_to_vec();
        for more in [&[][..], &second.encode_to_vec()] {
            payload.extend_from_slice(more);
            let merged = DynamicMessage::decode(first.descriptor(), payload.as_slice()).expect("a message");
            let got = table.decode(&payload).expect("a good record");
            for (column, got) in table.columns.iter().zip(got) {
                let field = first.descriptor().get_field_by_name(&column.name).expect("a field");
                prop_assert_eq!(got, expected(&merged, &field, &column.ty), "{}", column.name);
            }
        }
    }

    /// Any bytes make a row or a bad record. Bytes that are not a message for another
    /// implementation are not one here.
    #[test]
    fn any_bytes_are_a_row_or_bad(
        message in messages(&event()),
        at in any::<prop::sample::Index>(),
        replaced in prop::collection::vec(any::<u8>(), 0..3),
        noise in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut table = Table::new("p.Event");
        let mut broken = message.encode_to_vec();
        let at = at.index(broken.len() + 1);
        let end = (at + replaced.len()).min(broken.len());
        broken.splice(at..end, replaced);
        for payload in [broken, noise] {
            let is_row = table.decode(&payload).is_ok();
            let is_message = DynamicMessage::decode(message.descriptor(), payload.as_slice()).is_ok();
            prop_assert!(!is_row || is_message, "{}", payload.escape_ascii());
        }
        table.decode(b"").expect("a good record");
    }
}

const PROTO2: &str = r#"syntax = "proto2";
    package q;
    message M {
        optional Colour colour = 1; repeated Colour colours = 2; repeated Colour packed = 3 [packed = true];
        map<string, Colour> by_name = 4; map<string, int32> counts = 5; map<int32, Inner> inners = 6;
        oneof choice { Colour picked = 7; string text = 8; }
        optional Inner inner = 9; repeated Inner list = 10; optional group G = 11 { optional Colour colour = 1; }
        optional Tree tree = 12;
    }
    message Inner { required int32 id = 1; optional Colour colour = 2; required string name = 3; }
    message Tree { optional Tree left = 1; repeated Tree others = 2; required Colour colour = 3; }
    enum Colour { RED = 1; GREEN = 5; }"#;

fn proto2(columns: &[&str]) -> Table {
    let schema = schema(PROTO2, "q.M");
    let fields =
        infer(&schema.descriptor().expect("a descriptor"), &["q.Tree".to_owned()]).expect("columns").into_iter();
    let wanted = fields.filter(|field| columns.contains(&field.name.as_str()));
    Table::with(schema, wanted.map(|field| column(&field.name, field.ty)).collect())
}

/// A number that a closed enum does not name leaves its field absent, as in protoc's own
/// implementations.
#[test]
fn a_number_that_a_closed_enum_does_not_name_is_none_of_its_values() {
    let columns = ["colour", "colours", "packed", "by_name", "picked", "text", "g"];
    let mut table = proto2(&columns);
    let colours = |names: &[&str]| Datum::Parts(names.iter().map(|name| text(name)).collect());
    for (payload, name, expected) in [
        (&b"\x08\x05"[..], "colour", text("GREEN")),
        (b"\x08\x07", "colour", Datum::Null),
        // The earlier value stays.
        (b"\x08\x01\x08\x07", "colour", text("RED")),
        (b"\x10\x01\x10\x07\x10\x05", "colours", colours(&["RED", "GREEN"])),
        (b"\x12\x03\x01\x07\x05", "colours", colours(&["RED", "GREEN"])),
        (b"\x1a\x03\x07\x07\x07", "packed", colours(&[])),
        (b"\x1a\x0c\x05\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01", "packed", colours(&["GREEN", "RED"])),
        (b"\x22\x05\x0a\x01a\x10\x07\x22\x05\x0a\x01b\x10\x01", "by_name", text(r#"{"b": "RED"}"#)),
        // The other member of the oneof is still there.
        (b"\x42\x01x\x38\x07", "text", text("x")),
        (b"\x42\x01x\x38\x05", "text", Datum::Null),
        (b"\x5b\x08\x07\x5c", "g", parts(&[Datum::Null])),
    ] {
        assert_eq!(table.get(payload, name), expected, "{name} of {payload:x?}");
    }
}

#[test]
fn an_entry_of_a_map_has_the_default_of_what_it_lacks() {
    let mut table = proto2(&["by_name", "counts"]);
    assert_eq!(table.get(b"\x2a\x03\x0a\x01v", "counts"), text(r#"{"v": 0}"#));
    assert_eq!(table.get(b"\x2a\x02\x10\x07", "counts"), text(r#"{"": 7}"#));
    assert_eq!(table.get(b"\x2a\x00", "counts"), text(r#"{"": 0}"#));
    assert_eq!(table.get(b"\x22\x03\x0a\x01v", "by_name"), text(r#"{"v": "RED"}"#), "the first of the enum");
    let proto = "syntax = \"proto2\"; message M { map<string, string> m = 1; }";
    let mut table = Table::with(schema(proto, "M"), vec![column("m", SqlType::Jsonb)]);
    assert_eq!(table.get(&[0x0a, 0x03, 0x12, 0x01, 0x76], "m"), text(r#"{"": "v"}"#));
}

#[test]
fn a_message_that_lacks_what_its_schema_requires_is_bad() {
    let requires = |path: &str| {
        let reason = "the schema requires it, and the message does not have it".to_owned();
        Err(BadRecord::Field { path: path.to_owned(), reason })
    };
    // This holds even if no column is filled from it.
    for columns in [&["inner", "list", "inners"][..], &["colour"]] {
        let mut table = proto2(columns);
        let mut check = |payload: &[u8], expected: Result<(), BadRecord>| {
            assert_eq!(table.decode(payload).map(|_| ()), expected, "{payload:x?}");
        };
        check(b"", Ok(()));
        check(b"\x4a\x05\x08\x01\x1a\x01n", Ok(()));
        check(b"\x4a\x02\x08\x01", requires("inner.name"));
        check(b"\x4a\x03\x1a\x01n", requires("inner.id"));
        // The pieces of a message are one.
        check(b"\x4a\x02\x08\x01\x4a\x03\x1a\x01n", Ok(()));
        check(b"\x52\x05\x08\x01\x1a\x01n\x52\x02\x08\x01", requires("list.name"));
        check(b"\x32\x02\x08\x01", Ok(()));
        check(b"\x32\x04\x12\x02\x08\x01", requires("inners.value.name"));
        // A number without a name is absent.
        check(b"\x62\x02\x18\x07", requires("tree.colour"));
        check(b"\x62\x02\x18\x05", Ok(()));
        check(b"\x62\x04\x0a\x00\x18\x05", requires("tree.left.colour"));
        let deep = |levels: usize| {
            let mut body = vec![0x18, 0x05];
            for _ in 0..levels {
                let mut outer = vec![0x0a];
                prost::encoding::encode_varint(body.len() as u64, &mut outer);
                outer.append(&mut body);
                body = [outer, vec![0x18, 0x05]].concat();
            }
            let mut payload = vec![0x62];
            prost::encoding::encode_varint(body.len() as u64, &mut payload);
            [payload, body].concat()
        };
        check(&deep(90), Ok(()));
        let refused = table.decode(&deep(101)).expect_err("too deep").to_string();
        assert!(refused.contains("messages nested too deeply"), "{refused}");
    }
}

#[test]
fn a_text_with_u0000_has_no_place_in_a_row() {
    let mut table = Table::new("p.Event");
    let refused = |bad: BadRecord| (bad.column().map(str::to_owned), bad.to_string());
    let (column, error) = refused(table.decode(b"\x72\x03a\0b").expect_err("a NUL"));
    assert_eq!(
        (column.as_deref(), error.as_str()),
        (Some("string"), "field \"string\": U+0000, which no text can hold, at byte 3")
    );
    let (column, error) = refused(table.decode(b"\xc2\x01\x04\x0a\x02\0x").expect_err("a NUL"));
    assert_eq!(column.as_deref(), Some("inner"), "{error}");
    assert!(error.starts_with("field \"inner.name\": U+0000"), "{error}");
    // In a map, which becomes jsonb, in a key and in a value.
    assert!(table.decode(b"\x9a\x02\x05\x0a\x01\0\x10\x01").expect_err("a NUL").to_string().contains("U+0000"));
    // In bytes it is allowed.
    assert!(table.decode(b"\x7a\x03a\0b").is_ok());
}

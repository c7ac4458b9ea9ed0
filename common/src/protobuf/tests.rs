//! The stored parts of a schema, and the columns that it leads to.

use super::*;
use crate::catalog::Encode;
use crate::types::StructField;

/// Returns the descriptors of one `.proto` text, without Google's own files.
fn set(proto: &str) -> FileDescriptorSet {
    let file = protox::file::File::from_source("a.proto", proto).expect("a schema");
    FileDescriptorSet { file: vec![file.file_descriptor_proto().clone()] }
}

fn inferred(proto: &str, message: &str) -> String {
    let message = MessageSchema::new(set(proto), message).expect("a message").descriptor().expect("a descriptor");
    match columns(&message, &[]) {
        Ok(fields) => shown(&fields),
        Err(error) => error.to_string(),
    }
}

fn shown(fields: &[StructField]) -> String {
    fields.iter().map(|field| format!("{} {}", field.name, field.ty)).collect::<Vec<_>>().join(", ")
}

#[test]
fn each_kind_of_field_has_a_type() {
    let proto = r#"syntax = "proto3";
        import "google/protobuf/any.proto";
        import "google/protobuf/duration.proto";
        import "google/protobuf/struct.proto";
        import "google/protobuf/timestamp.proto";
        import "google/protobuf/wrappers.proto";
        message M {
            string last = 20;
            double a = 1; float b = 2; int32 c = 3; sint32 d = 4; sfixed32 e = 5; int64 f = 6; uint32 g = 7;
            fixed32 h = 8; uint64 i = 9; fixed64 j = 10; bool k = 11; bytes l = 12; Colour m = 13;
            repeated Inner n = 14; map<int32, Inner> o = 15; google.protobuf.Timestamp p = 16;
            google.protobuf.Duration q = 17; google.protobuf.UInt64Value r = 18; google.protobuf.Any s = 19;
            repeated google.protobuf.Struct t = 21; Nothing u = 22; oneof v { int32 w = 23; Inner x = 24; }
            message Inner { repeated string a = 1; }
        }
        message Nothing {}
        enum Colour { RED = 0; }"#;
    assert_eq!(
        inferred(proto, "M"),
        "last character varying, a double precision, b real, c integer, d integer, e integer, f bigint, g bigint, h bigint, \
         i numeric, j numeric, k boolean, l bytea, m character varying, n struct<a character varying[]>[], o jsonb, \
         p timestamp with time zone, q interval, r numeric, s jsonb, t jsonb[], u jsonb, w integer, \
         x struct<a character varying[]>"
    );
}

#[test]
fn messages_in_themselves_have_no_type() {
    let proto = r#"syntax = "proto3"; package p; message A { int32 n = 1; B b = 2; } message B { repeated A a = 1; }"#;
    assert_eq!(inferred(proto, "p.A"), "the message \"p.A\" contains itself: b.a");
    let message = MessageSchema::new(set(proto), "p.A").expect("a message").descriptor().expect("a descriptor");
    let as_jsonb = columns(&message, &["p.B".to_owned()]).expect("columns");
    assert_eq!(shown(&as_jsonb), "n integer, b jsonb");
    let deep: String = (0..18).map(|at| format!("message M{at} {{ M{} m = 1; }} ", at + 1)).collect();
    let deep = format!("syntax = \"proto3\"; {deep} message M18 {{ int32 n = 1; }}");
    assert!(inferred(&deep, "M0").ends_with("is nested deeper than 16 levels"), "{}", inferred(&deep, "M0"));
    assert!(!inferred(&deep, "M2").contains("deeper"), "{}", inferred(&deep, "M2"));
}

#[test]
fn only_what_a_message_leads_to_is_kept() {
    let proto = r#"syntax = "proto3"; package p;
        import "google/protobuf/timestamp.proto";
        // A comment.
        message A { B.C.Kind kind = 1; google.protobuf.Timestamp at = 2; Top top = 3; }
        message B { message C { enum Kind { X = 0; } D d = 1; } }
        message D {}
        message Unused { Other other = 1; }
        enum Top { T = 0; }
        enum Other { O = 0; }
        service S { rpc Call(Unused) returns (A); }"#;
    let kept = MessageSchema::new(set(proto), "p.A").expect("a message");
    let pool = DescriptorPool::decode(kept.descriptors.0.as_slice()).expect("descriptors");
    let mut names: Vec<String> = pool.all_messages().map(|message| message.full_name().to_owned()).collect();
    names.extend(pool.all_enums().map(|descriptor| descriptor.full_name().to_owned()));
    names.sort();
    assert_eq!(names, ["google.protobuf.Timestamp", "p.A", "p.B", "p.B.C", "p.B.C.Kind", "p.D", "p.Top"]);
    assert_eq!(pool.services().len(), 0);

    let any = proto.replace("timestamp", "any").replace("Timestamp", "Any");
    let kept = MessageSchema::new(set(&any), "p.A").expect("a message").descriptor().expect("a descriptor");
    assert!(kept.parent_pool().get_message_by_name("p.Unused").is_some(), "an Any may be of any message");
}

#[test]
fn an_unknown_message_is_answered_with_those_that_there_are() {
    let proto = r#"syntax = "proto3"; package p; message A { map<string, string> m = 1; }"#;
    match MessageSchema::new(set(proto), "A") {
        Err(Error::NoMessage { message, known }) => {
            assert_eq!((message.as_str(), known), ("A", vec!["p.A".to_owned()]))
        }
        other => panic!("no message: {other:?}"),
    }
    let incomplete = r#"syntax = "proto3"; import "b.proto"; message A { B b = 1; }"#;
    assert!(matches!(MessageSchema::new(set(incomplete), "A"), Err(Error::Invalid(_))));
}

/// Catalogs that were written by earlier versions contain these encodings.
#[test]
fn stored_encodings_stay_as_they_are() {
    let schema = MessageSchema { message: "p.A".to_owned(), descriptors: Descriptors(vec![1, 2, 255]) };
    for (encode, stored) in [
        (Encode::Json, r#""json""#),
        (Encode::JsonDocument, r#""json_document""#),
        (Encode::Bytes, r#""bytes""#),
        (Encode::HeadersOnly, r#""headers_only""#),
        (Encode::Protobuf(schema), r#"{"protobuf":{"message":"p.A","descriptors":"AQL/"}}"#),
    ] {
        assert_eq!(serde_json::to_string(&encode).expect("JSON"), stored);
        assert_eq!(serde_json::from_str::<Encode>(stored).expect("an encoding"), encode);
    }
}

//! Schemas on a disk and behind a real HTTP server; refused schemas and the positions of their
//! errors.

use prost::Message;
use prost_reflect::prost_types::FileDescriptorSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use weir_common::protobuf::columns;
use weir_sql::parser::{Statement, parse};

use super::*;

const PROTO: &str = "syntax = \"proto3\";\nimport \"google/protobuf/duration.proto\";\npackage p;\n\
                     message Event { int32 id = 1; google.protobuf.Duration took = 2; }\nmessage Other { bool b = 1; }\n";

/// Loads the schema that options name.
async fn loaded(options: &str) -> Result<Schema, Error> {
    let sql = format!("CREATE TABLE t WITH (a = 1) FORMAT PLAIN ENCODE PROTOBUF ({options})");
    let parsed = parse(&sql).expect("a statement").remove(0);
    let Statement::CreateTable(create) = &parsed.statement else { panic!("a CREATE TABLE: {sql}") };
    load(&parsed, create.format.as_ref().expect("a format")).await
}

/// Returns the columns of the schema, or the error.
async fn outcome(options: &str) -> String {
    match loaded(options).await {
        Ok(schema) => {
            let fields = columns(&schema.message.descriptor().expect("a message"), &schema.as_jsonb).expect("columns");
            fields.iter().map(|field| format!("{} {}", field.name, field.ty)).collect::<Vec<_>>().join(", ")
        }
        Err(error) => {
            let hint = error.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{} at {}: {}{hint}", error.sqlstate, error.position.unwrap_or(0), error.message)
        }
    }
}

async fn assert_outcome(options: &str, expected: &str) {
    let got = outcome(options).await;
    assert!(got.starts_with(expected), "{options}\n   gave: {got}\nexpected: {expected}");
}

/// An HTTP server that gives the same answer to every request, until it is dropped.
struct Server {
    address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(answer: Vec<u8>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _read = socket.read(&mut request).await;
                let _written = socket.write_all(&answer).await;
            }
        });
        Server { address, task }
    }

    async fn ok(body: &[u8]) -> Server {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        Server::start([head.as_bytes(), body].concat()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_file_is_text_or_descriptors() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("event.proto"), format!("// A comment.\n\n{PROTO}")).expect("a file");
    assert_outcome(
        &format!("message = 'p.Event', schema.location = 'file://{}'", path("event.proto")),
        "id integer, took interval",
    )
    .await;
    assert_outcome(&format!("message = '.p.Other', schema.location = '{}'", path("event.proto")), "b boolean").await;

    let file = protox::file::File::from_source("e.proto", PROTO).expect("a schema").file_descriptor_proto().clone();
    std::fs::write(path("set"), FileDescriptorSet { file: vec![file] }.encode_to_vec()).expect("a file");
    assert_outcome(&format!("message = 'p.Event', schema.location = '{}'", path("set")), "id integer, took interval")
        .await;

    let importing = "syntax = \"proto3\";\nimport \"event.proto\";\nmessage M { repeated p.Other others = 1; }";
    std::fs::write(path("importing.proto"), importing).expect("a file");
    assert_outcome(
        &format!("message = 'M', schema.location = '{}'", path("importing.proto")),
        "others struct<b boolean>[]",
    )
    .await;
}

#[tokio::test]
async fn what_protoc_takes_is_taken_or_refused_for_what_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let plain = b"syntax = \"proto3\"; package p;\nmessage M { bool b = 1; }\n".as_slice();
    let file = protox::file::File::from_source("e.proto", str::from_utf8(plain).expect("text")).expect("a schema");
    let file = file.file_descriptor_proto().clone();
    let utf16: Vec<u8> = str::from_utf8(plain).expect("text").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases = [
        (plain.to_vec(), "b boolean"),
        ([b"\xef\xbb\xbf", plain].concat(), "b boolean"),
        ([b"\n\n// \x01 in a comment\n", plain].concat(), "b boolean"),
        ([b"// caf\xe9 in Latin-1\r\n", plain, b"\x0b\x0c\r\n/* \xff */"].concat(), "b boolean"),
        (FileDescriptorSet { file: vec![file.clone()] }.encode_to_vec(), "b boolean"),
        (file.encode_to_vec(), "it is a FileDescriptorProto, and not a set of them (make one with protoc"),
        ([b"\xff\xfe", utf16.as_slice()].concat(), "it is text in UTF-16 (save it as UTF-8)"),
        (utf16, "it is neither the text of a .proto file nor a FileDescriptorSet (make one with protoc"),
        (b"\x1f\x8b\x08\x00".to_vec(), "it is compressed by gzip (decompress it)"),
        (
            b"package p; message M { optional string s = 1 [default = \"caf\xe9\"]; }".to_vec(),
            "it is not UTF-8 outside of comments (save it as UTF-8)",
        ),
        ([b"\xef\xbb\xbf\xef\xbb\xbf", plain].concat(), "not valid: "),
    ];
    for (bytes, expected) in &cases {
        std::fs::write(path("schema.proto"), bytes).expect("a file");
        let got = outcome(&format!("message = 'p.M', schema.location = '{}'", path("schema.proto"))).await;
        assert!(got.contains(expected), "{}: {got}", bytes.escape_ascii());
    }
    // Imported files are treated in the same way.
    std::fs::write(path("schema.proto"), b"import \"other.proto\"; message N { optional p.M m = 1; }").expect("a file");
    for (bytes, expected) in &cases[..4] {
        std::fs::write(path("other.proto"), bytes).expect("a file");
        let got = outcome(&format!("message = 'N', schema.location = '{}'", path("schema.proto"))).await;
        assert_eq!(got, format!("m struct<{expected}>"), "{}", bytes.escape_ascii());
    }
    std::fs::write(path("other.proto"), &cases[6].0).expect("a file");
    let got = outcome(&format!("message = 'N', schema.location = '{}'", path("schema.proto"))).await;
    assert!(got.contains("import 'other.proto': it is text in UTF-16"), "{got}");
}

#[tokio::test]
async fn a_schema_comes_over_http() {
    let server = Server::ok(PROTO.as_bytes()).await;
    let options = format!("message = 'p.Event', schema.location = 'http://{}/schema'", server.address);
    assert_outcome(&options, "id integer, took interval").await;

    let importing = Server::ok(b"syntax = \"proto3\"; import \"etc/passwd\"; message M {}").await;
    let options = format!("message = 'M', schema.location = 'http://{}/schema'", importing.address);
    assert!(
        outcome(&options).await.contains("not valid: import 'etc/passwd' not found"),
        "{}",
        outcome(&options).await
    );
}

#[tokio::test]
async fn what_a_server_answers_is_told() {
    let missing = Server::start(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let address = &missing.address;
    let options = format!("message = 'p.Event', schema.location = 'http://{address}/a'");
    let expected = format!("58030 at 98: the schema at http://{address}/a cannot be read: it answers 404 Not Found");
    assert_outcome(&options, &expected).await;

    let moved = b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
    let moved = Server::start(moved.to_vec()).await;
    let options = format!("message = 'p.Event', schema.location = 'http://{}/a'", moved.address);
    assert!(outcome(&options).await.contains("302 Found, to http://169.254.169.254/ (redirections are not followed"));

    let endless = Server::ok(&vec![b' '; (16 << 20) + 1]).await;
    let options = format!("message = 'p.Event', schema.location = 'http://{}/a'", endless.address);
    assert!(outcome(&options).await.contains("cannot be read: it is larger than 16777216 bytes"));

    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let options = format!("message = 'p.Event', schema.location = 'http://{free}/a'");
    assert!(outcome(&options).await.contains(&format!("58030 at 98: the schema at http://{free}/a cannot be read: ")));
}

#[tokio::test]
async fn options_are_checked_where_they_stand() {
    for (options, expected) in [
        ("", "22023 at 49: option \"message\" of ENCODE PROTOBUF is required (give the full name"),
        ("message = 'p.M'", "22023 at 49: option \"schema.location\" of ENCODE PROTOBUF is required"),
        (
            "mesage = 'p.M'",
            "22023 at 59: option \"mesage\" of ENCODE PROTOBUF does not exist (the options are message, ",
        ),
        ("schema.registry = 'http://x'", "0A000 at 59: a schema registry is not supported yet"),
        (
            "message = 'p.M', schema.location = 'ftp://x/y'",
            "22023 at 94: option \"schema.location\": \"ftp://x/y\" is no",
        ),
        ("message = 'p.M', schema.location = 'x.proto'", "22023 at 94: option \"schema.location\": \"x.proto\" is no"),
        (
            "message = 'p.M', schema.location = 's3://bucket'",
            "22023 at 94: option \"schema.location\": \"s3://bucket\"",
        ),
        ("message = 'p.M', schema.location = 'http://u:p@x/'", "0A000 at 94: option \"schema.location\": a user or"),
        (
            "message = 'p.M', schema.location = '/no/such'",
            "58030 at 94: the schema at file:///no/such cannot be read: No",
        ),
        (
            "message = 'p.M', schema.location = 'file:///dev'",
            "58030 at 94: the schema at file:///dev cannot be read: it is",
        ),
    ] {
        assert_outcome(options, expected).await;
    }
}

#[tokio::test]
async fn schemas_that_are_none_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("schema").display().to_string();
    let message_at = 69;
    let location_at = 74 + "p.M".len() + "schema.location = ".len() - 1;
    let deep = "message M {".repeat(101);
    for (bytes, at, expected) in [
        (&b""[..], location_at, "22023"),
        (b"message M {", location_at, "22023"),
        (b"\x0a\x03abc\x00\xff", location_at, "22023"),
        (deep.as_bytes(), location_at, "22023"),
        (b"syntax = \"proto3\"; import \"other.proto\"; message M {}", location_at, "22023"),
        (b"syntax = \"proto3\"; package p; message Other { Missing m = 1; }", location_at, "22023"),
        (b"syntax = \"proto3\"; package p; message Other {}", message_at, "42704"),
    ] {
        std::fs::write(&path, bytes).expect("a file");
        let got = outcome(&format!("message = 'p.M', schema.location = '{path}'")).await;
        assert!(got.starts_with(&format!("{expected} at {at}: the schema ")), "{}: {got}", bytes.escape_ascii());
    }
    std::fs::write(&path, b"syntax = \"proto3\"; package p; message Other {}").expect("a file");
    let got = outcome(&format!("message = 'p.M', schema.location = '{path}'")).await;
    assert!(got.ends_with("the schema has no message \"p.M\" (messages of the schema are p.Other)"), "{got}");
}

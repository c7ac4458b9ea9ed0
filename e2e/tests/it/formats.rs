//! Every encoding of payloads, from NATS to a query's answer: Protobuf with its schema from an HTTP server, a disk and a
//! bucket; bytes; JSON documents that are kept whole. What is no row is counted.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use prost::Message;
use weir_e2e::http;
use weir_e2e::process::{Process, Program};
use weir_e2e::s3::S3;
use weir_e2e::sandbox::{Sandbox, free_address, scenario};
use weir_e2e::servers::Nats;
use weir_e2e::wait::{eventually, eventually_equal};
use weir_e2e::weir::Weir;

use crate::crash::NODE_LOST;
use crate::support::{SOON, events_options, refuses, standalone, wait_for};

const SCHEMA: &str = r#"syntax = "proto3";
package livestream.schema;
import "google/protobuf/timestamp.proto";

message LiveStreamMetrics {
  string room_id = 1;
  int64 video_rtt = 2;
  google.protobuf.Timestamp report_timestamp = 3;
  repeated string tags = 4;
  Client client = 5;
  map<string, int32> counters = 6;
  Quality quality = 7;
  oneof reason { string error = 8; int32 code = 9; }
  uint64 bytes = 10;
}
message Client { string ip = 1; optional uint32 port = 2; }
enum Quality { UNKNOWN = 0; GOOD = 1; BAD = 2; }
"#;

/// The same message, as prost writes it.
#[derive(Clone, PartialEq, Message)]
struct Metrics {
    #[prost(string, tag = "1")]
    room_id: String,
    #[prost(int64, tag = "2")]
    video_rtt: i64,
    #[prost(message, optional, tag = "3")]
    report_timestamp: Option<Timestamp>,
    #[prost(string, repeated, tag = "4")]
    tags: Vec<String>,
    #[prost(message, optional, tag = "5")]
    client: Option<Client>,
    #[prost(btree_map = "string, int32", tag = "6")]
    counters: std::collections::BTreeMap<String, i32>,
    #[prost(int32, tag = "7")]
    quality: i32,
    #[prost(oneof = "Reason", tags = "8, 9")]
    reason: Option<Reason>,
    #[prost(uint64, tag = "10")]
    bytes: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Client {
    #[prost(string, tag = "1")]
    ip: String,
    #[prost(uint32, optional, tag = "2")]
    port: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Reason {
    #[prost(string, tag = "8")]
    Error(String),
    #[prost(int32, tag = "9")]
    Code(i32),
}

fn metrics(room: &str) -> Metrics {
    Metrics {
        room_id: room.to_owned(),
        video_rtt: 42,
        report_timestamp: Some(Timestamp { seconds: 1_772_323_200, nanos: 500_000_000 }),
        tags: vec!["a".to_owned(), "b c".to_owned()],
        client: Some(Client { ip: "::1".to_owned(), port: Some(4222) }),
        counters: [("drops".to_owned(), 3), ("joins".to_owned(), -1)].into(),
        quality: 2,
        reason: Some(Reason::Error("late".to_owned())),
        bytes: u64::MAX,
    }
}

async fn publish(nats: &Nats, payloads: impl IntoIterator<Item = Vec<u8>>) -> Result<()> {
    let jetstream = nats.jetstream().await?;
    for payload in payloads {
        jetstream.publish("events.a", payload.into()).await?.await?;
    }
    Ok(())
}

/// A server that hands out what is in a folder.
struct Files {
    process: Process,
    address: SocketAddr,
}

impl Files {
    async fn start(sandbox: &Sandbox, folder: &Path) -> Result<Files> {
        let address = free_address();
        let port = address.port().to_string();
        let arguments = ["-m", "http.server", "--bind", "127.0.0.1", "--directory"].map(str::to_owned);
        let program = Program::new(
            PathBuf::from("/usr/bin/python3"),
            arguments.into_iter().chain([folder.display().to_string(), port]),
        );
        let files = Files { process: Process::start(program, sandbox.log("files", false))?, address };
        eventually("the file server to answer", SOON, async || {
            let (status, body) = http::request(address, "GET", "/").await?;
            ensure!(status == 200, "{status} {body}");
            Ok(Some(()))
        })
        .await?;
        Ok(files)
    }
}

/// The first example of RisingWave's page, but for the addresses.
fn example(nats: &Nats, location: &str) -> String {
    format!(
        "CREATE TABLE live_stream_metrics WITH (
            connector = 'nats', server_url = '{}', subject = 'events.a', stream = 'EVENTS',
            allow_create_stream = 'true', connect_mode = 'plain'
        ) FORMAT PLAIN ENCODE PROTOBUF (
            message = 'livestream.schema.LiveStreamMetrics',
            schema.location = '{location}'
        );",
        nats.address()
    )
}

async fn is_ready(weir: &mut Weir) -> Result<()> {
    weir.process().kill9()?;
    weir.process().restart()?;
    weir.ready().await
}

#[test]
fn protobuf_needs_its_schema_once() {
    scenario("formats-protobuf", async |sandbox| {
        let (nats, mut weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["bad record"]);
        weir.expect_warnings(&NODE_LOST);
        let folder = sandbox.folder("schemas")?;
        std::fs::write(folder.join("schema"), SCHEMA)?;
        let mut files = Files::start(sandbox, &folder).await?;
        let mut sql = weir.sql();

        let create = example(&nats, &format!("http://{}/schema", files.address));
        sql.query(&create).await?;
        let described = sql.query("DESCRIBE live_stream_metrics").await?;
        let types: Vec<String> =
            described.rows.iter().map(|row| row[..2].iter().flatten().cloned().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            types,
            [
                "room_id character varying",
                "video_rtt bigint",
                "report_timestamp timestamp with time zone",
                "tags character varying[]",
                "client struct<ip character varying, port bigint>",
                "counters jsonb",
                "quality character varying",
                "error character varying",
                "code integer",
                "bytes numeric",
            ]
        );

        let bad = [
            b"not a message".to_vec(),
            b"\x12\x02no".to_vec(),
            b"\x0a\x02\xff\xff".to_vec(),
            b"\x0a\x09short".to_vec(),
        ];
        publish(&nats, [metrics("a").encode_to_vec()]).await?;
        publish(&nats, bad.clone()).await?;
        publish(&nats, [Vec::new()]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM live_stream_metrics", 2, SOON).await?;
        eventually_equal("bad records to be counted", SOON, bad.len() as f64, async || {
            weir.metric("weir_source_bad_records_total").await
        })
        .await?;
        let rows = sql.query("SELECT * FROM live_stream_metrics ORDER BY room_id DESC").await?;
        let shown = |row: usize| {
            rows.rows[row].iter().map(|cell| cell.as_deref().unwrap_or("∅")).collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(
            shown(0),
            "a | 42 | 2026-03-01 00:00:00.5+00 | {a,\"b c\"} | (::1,4222) | {\"drops\": 3, \"joins\": -1} | BAD | late | ∅ | \
             18446744073709551615"
        );
        assert_eq!(shown(1), " | 0 | ∅ | {} | ∅ | {} | UNKNOWN | ∅ | ∅ | 0");

        // The server is not needed any more: not after a crash, and not to find that the table is there.
        files.process.kill9()?;
        is_ready(&mut weir).await?;
        let mut sql = weir.sql();
        publish(&nats, [metrics("b").encode_to_vec()]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM live_stream_metrics WHERE (client).port = 4222", 2, SOON).await?;
        sql.query(&create.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")).await?;
        let refused = sql.refused(&create.replace("TABLE live", "TABLE other_live")).await?;
        assert_eq!(refused.code().code(), "58030", "{refused}");
        assert!(refused.message().contains("cannot be read"), "{refused}");
        Ok(())
    });
}

#[test]
fn protobuf_columns_can_be_named_and_be_a_key() {
    scenario("formats-protobuf-file", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        let schema = sandbox.folder("schemas")?.join("metrics.proto");
        std::fs::write(&schema, SCHEMA)?;
        let protobuf = format!(
            "FORMAT PLAIN ENCODE PROTOBUF (message = 'livestream.schema.LiveStreamMetrics', schema.location = 'file://{}')",
            schema.display()
        );
        let with = format!("WITH ({}) {protobuf}", events_options(&nats.address()));
        sql.query(&format!("CREATE TABLE inferred (PRIMARY KEY (room_id)) INCLUDE offset AS o {with}")).await?;
        sql.query(&format!(
            "CREATE TABLE named (bytes numeric, client struct<port bigint>, code int, counters jsonb) INCLUDE subject AS s \
             INCLUDE payload AS p INCLUDE timestamp AS t {with}"
        ))
        .await?;
        let refused = sql.refused(&format!("CREATE TABLE t (bytes bigint) {with}")).await?;
        assert_eq!(refused.code().code(), "42804", "{refused}");

        let second = Metrics { reason: Some(Reason::Code(7)), ..metrics("a") };
        publish(&nats, [metrics("a"), metrics("b"), second].map(|metrics| metrics.encode_to_vec())).await?;
        wait_for(&mut sql, "SELECT count(*) FROM named", 3, SOON).await?;
        sql.query(&format!("CREATE SOURCE source INCLUDE payload AS p {with}")).await?;
        let read = sql.query("SELECT room_id, code, length(p) > 0 FROM source WHERE code IS NOT NULL").await?;
        assert_eq!(read.row(0), ["a", "7", "t"], "a source is read by the same schema");
        wait_for(&mut sql, "SELECT count(*) FROM inferred WHERE o = '3'", 1, SOON).await?;
        let rows = sql.query("SELECT room_id, error, code, o FROM inferred ORDER BY room_id").await?;
        let cells =
            |row: usize| rows.rows[row].iter().map(|cell| cell.as_deref().unwrap_or("∅")).collect::<Vec<_>>().join(" ");
        assert_eq!([cells(0), cells(1)], ["a ∅ 7 3", "b late ∅ 2"]);
        let row = sql
            .query(
                "SELECT bytes, (client).port, counters ->> 'drops', s, encode(p, 'hex') LIKE '0a0161%', \
             t > '2026-01-01' FROM named WHERE code = 7",
            )
            .await?;
        assert_eq!(row.row(0), ["18446744073709551615", "4222", "3", "events.a", "t", "t"]);
        Ok(())
    });
}

#[test]
fn a_schema_is_refreshed_or_replaced() {
    scenario("formats-protobuf-later", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["kept a bad record"]);
        let mut sql = weir.sql();
        let folder = sandbox.folder("schemas")?;
        let write = |name: &str, schema: &str| std::fs::write(folder.join(name), schema);
        write("metrics.proto", SCHEMA)?;
        let format = |file: &str| {
            let location = folder.join(file);
            format!(
                "FORMAT PLAIN ENCODE PROTOBUF (message = 'livestream.schema.LiveStreamMetrics', schema.location = 'file://{}')",
                location.display()
            )
        };
        let with = format!("WITH ({})", events_options(&nats.address()));
        let protobuf = format!("{with} {}", format("metrics.proto"));
        sql.query(&format!("CREATE TABLE inferred (PRIMARY KEY (room_id)) INCLUDE offset AS o {protobuf}")).await?;
        sql.query(&format!("CREATE TABLE named (room_id varchar, code int) {protobuf}")).await?;
        sql.query(&format!("CREATE SOURCE source (*) {protobuf}")).await?;
        sql.query(&format!("CREATE TABLE json {with} FORMAT PLAIN ENCODE JSON")).await?;
        let first = Metrics { reason: Some(Reason::Code(7)), ..metrics("a") };
        publish(&nats, [first.encode_to_vec()]).await?;
        wait_for(&mut sql, "SELECT code FROM inferred", 7, SOON).await?;
        wait_for(&mut sql, "SELECT code FROM named", 7, SOON).await?;

        // A wider field, and one more.
        let later = SCHEMA.replace("int32 code = 9; }", "int64 code = 9; }\n  string region = 11;");
        write("metrics.proto", &later)?;
        write("later.proto", &later)?;
        sql.query("ALTER TABLE inferred REFRESH SCHEMA").await?;
        let narrow = sql.refused("ALTER TABLE named REFRESH SCHEMA").await?;
        ensure!(narrow.code().code() == "42804" && narrow.message().contains("int64"), "{narrow:?}");
        sql.query("ALTER TABLE named ALTER COLUMN code TYPE bigint").await?;
        sql.query("ALTER TABLE named REFRESH SCHEMA").await?;
        sql.query("ALTER TABLE named ADD COLUMN region varchar").await?;
        sql.query(&format!("ALTER SOURCE source {}", format("later.proto"))).await?;
        let mut second = Metrics { reason: None, ..metrics("b") }.encode_to_vec();
        second.extend_from_slice(b"\x48\x80\x80\x80\x80\x80\x20\x5a\x02eu");
        publish(&nats, [second]).await?;
        for relation in ["inferred", "named", "source"] {
            wait_for(&mut sql, &format!("SELECT count(*) FROM {relation} WHERE region = 'eu'"), 1, SOON).await?;
            let rows = sql.query(&format!("SELECT room_id, code, region FROM {relation} ORDER BY room_id")).await?;
            // What lies in the stream is read by the schema of now; one that is not there is empty in proto3.
            let before = if relation == "source" { "" } else { "NULL" };
            let region = rows.rows[0][2].as_deref().unwrap_or("NULL");
            ensure!(rows.row(0)[..2] == ["a", "7"] && region == before, "{relation}: {rows}");
            ensure!(rows.row(1) == ["b", "1099511627776", "eu"], "{relation}: {rows}");
        }
        let shown = sql.query("SHOW CREATE SOURCE source").await?.to_string();
        ensure!(shown.contains("later.proto") && !shown.contains("metrics.proto"), "{shown}");

        write("fewer.proto", &later.replace("  uint64 bytes = 10;\n", ""))?;
        for (statement, code, named) in [
            ("TABLE json REFRESH SCHEMA".to_owned(), "55000", "have no schema"),
            ("TABLE inferred FORMAT PLAIN ENCODE JSON".to_owned(), "0A000", "encoding of messages cannot change"),
            ("TABLE named FORMAT PLAIN ENCODE JSON".to_owned(), "0A000", "encoding of messages cannot change"),
            (format!("TABLE inferred {}", format("fewer.proto")), "0A000", "\"bytes\" cannot be removed"),
            (format!("TABLE inferred {}", format("none.proto")), "58030", "cannot be read"),
            ("TABLE inferred ADD COLUMN a int".to_owned(), "0A000", "without a list of columns"),
            ("TABLE named ADD COLUMN a int".to_owned(), "42703", "column \"a\""),
        ] {
            refuses(&mut sql, &format!("ALTER {statement}"), code, named).await?;
        }
        std::fs::remove_file(folder.join("metrics.proto"))?;
        let refused = sql.refused("ALTER TABLE inferred REFRESH SCHEMA").await?;
        ensure!(refused.code().code() == "58030", "{refused:?}");
        Ok(())
    });
}

#[test]
fn a_schema_can_be_in_a_bucket() {
    scenario("formats-protobuf-s3", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        let s3 = S3::start(sandbox).await?;
        let folder = sandbox.folder("schemas")?;
        std::fs::write(folder.join("metrics.proto"), SCHEMA)?;
        let set = folder.join("set");
        let made = Command::new("protoc")
            .arg(format!("--proto_path={}", folder.display()))
            .arg(format!("--descriptor_set_out={}", set.display()))
            .args(["--include_imports", "--include_source_info", "metrics.proto"])
            .status()
            .context("protoc makes a set of descriptors")?;
        ensure!(made.success(), "protoc: {made}");
        let location = s3.put("schemas/metrics", &std::fs::read(set)?).await?;

        let create = example(&nats, &location).replace(
            "schema.location",
            &format!(
                "s3.endpoint = 'http://{}', s3.region = 'us-east-1', s3.access.key = 'AccessMe', s3.secret.key = 'HideMe', \
                 schema.location",
                s3.socket()
            ),
        );
        sql.query(&create).await?;
        publish(&nats, [metrics("a").encode_to_vec()]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM live_stream_metrics WHERE quality = 'BAD'", 1, SOON).await?;

        let shown = sql.query("SHOW CREATE TABLE live_stream_metrics").await?;
        let shown = shown.row(0)[1];
        assert!(shown.contains("s3.access.key = '[REDACTED]', s3.secret.key = '[REDACTED]'"), "{shown}");
        assert!(shown.contains(&format!("schema.location = '{location}'")), "{shown}");
        assert!(!weir.log().read()?.contains("HideMe"));
        let refused = sql.refused("ALTER TABLE live_stream_metrics REFRESH SCHEMA").await?;
        assert!(refused.message().contains("credentials") && refused.code().code() == "55000", "{refused}");

        let missing = create.replace("TABLE live", "TABLE other_live").replace(&location, &format!("{location}-not"));
        let refused = sql.refused(&missing).await?;
        assert_eq!(refused.code().code(), "58030", "{refused}");
        assert!(refused.message().contains("metrics-not cannot be read"), "{refused}");
        Ok(())
    });
}

#[test]
fn bytes_are_kept_as_they_are() {
    scenario("formats-bytes", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        let with = format!("WITH ({}) FORMAT PLAIN ENCODE BYTES", events_options(&nats.address()));
        sql.query(&format!("CREATE TABLE raw (data bytea) INCLUDE subject AS s INCLUDE offset AS o {with}")).await?;
        let refused = sql.refused(&format!("CREATE TABLE t {with}")).await?;
        assert_eq!(refused.code().code(), "42P16", "{refused}");
        publish(&nats, [vec![0, 255, b'\\'], Vec::new(), b"{}".to_vec()]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM raw", 3, SOON).await?;
        let rows = sql.query("SELECT data, s FROM raw ORDER BY o").await?;
        assert_eq!(
            [rows.row(0), rows.row(1), rows.row(2)],
            [["\\x00ff5c", "events.a"], ["\\x", "events.a"], ["\\x7b7d", "events.a"]]
        );
        Ok(())
    });
}

#[test]
fn without_payloads_there_are_columns_of_include_only() {
    scenario("formats-headers-only", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        let options = format!("{}, consumer.headers_only = true", events_options(&nats.address()));
        let with = format!("WITH ({options}) FORMAT PLAIN ENCODE JSON");
        let include = "INCLUDE subject AS s INCLUDE header 'Nats-Msg-Size' varchar AS bytes INCLUDE offset AS o";
        sql.query(&format!("CREATE TABLE sizes (PRIMARY KEY (s)) {include} {with}")).await?;
        publish(&nats, [b"no JSON".to_vec(), vec![b'x'; 100_000], vec![b'y'; 31]]).await?;
        wait_for(&mut sql, "SELECT bytes::bigint FROM sizes", 31, SOON).await?;
        assert_eq!(sql.query("SELECT s, bytes, o FROM sizes").await?.row(0), ["events.a", "31", "3"]);
        for (columns, include, named) in
            [("(n bigint)", include, "\"n\""), ("", "INCLUDE payload AS p", "\"p\""), ("", "", "and there is none")]
        {
            let refused = sql.refused(&format!("CREATE TABLE t {columns} {include} {with}")).await?;
            assert!(refused.message().contains(named) && refused.hint().is_some(), "{refused:?}");
        }
        Ok(())
    });
}

#[test]
fn a_message_can_be_several_rows() {
    scenario("formats-several", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["kept a bad record"]);
        let mut sql = weir.sql();
        let with = format!("WITH ({}) FORMAT PLAIN ENCODE JSON", events_options(&nats.address()));
        sql.query(&format!("CREATE TABLE rows (n bigint) INCLUDE offset AS o INCLUDE payload AS own {with}")).await?;
        // The later of two objects of a message wins, as the later of two messages does.
        sql.query(&format!("CREATE TABLE keyed (n bigint, v varchar, PRIMARY KEY (n)) {with}")).await?;
        let payloads = [
            "{\"n\":1}\n{\"n\":2}\n",
            "[{\"n\":3},{\"n\":1,\"v\":\"a\"},{\"n\":1,\"v\":\"b\"}]",
            "[]",
            "[{\"n\":4},{\"n\":\"x\"}]",
            "{\"n\":5}",
        ];
        publish(&nats, payloads.map(|payload| payload.as_bytes().to_vec())).await?;
        wait_for(&mut sql, "SELECT count(*) FROM rows", 6, SOON).await?;
        wait_for(&mut sql, "SELECT count(*) FROM keyed", 4, SOON).await?;
        let rows = sql.query("SELECT o, n, own FROM rows ORDER BY o, n LIMIT 3").await?;
        assert_eq!(rows.row(0), ["1", "1", r#"{"n": 1}"#]);
        assert_eq!(rows.row(2), ["2", "1", r#"{"n": 1, "v": "a"}"#]);
        assert_eq!(sql.query("SELECT v FROM keyed WHERE n = 1").await?.row(0), ["b"]);
        wait_for(&mut sql, "SELECT count(*) FROM dead_letters.rows", 1, SOON).await?;
        let dead = sql.query("SELECT sequence, \"column\", error FROM dead_letters.rows").await?;
        let error =
            "object 2 of the payload: column \"n\": expected bigint, found string \"x\": invalid digit 'x', at byte 15";
        assert_eq!(dead.row(0), ["4", "n", error]);
        Ok(())
    });
}

#[test]
fn a_json_table_without_columns_keeps_documents() {
    scenario("formats-json", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["bad record"]);
        let mut sql = weir.sql();
        let with = format!("WITH ({}) FORMAT PLAIN ENCODE JSON", events_options(&nats.address()));
        sql.query(&format!("CREATE TABLE documents INCLUDE offset AS o {with}")).await?;
        let good = [r#" {"b": 1, "a": {"c": [2.50]}} "#, "[1, 2]", "\"text\"", "-1.0", "true", "null"];
        publish(&nats, good.map(|payload| payload.as_bytes().to_vec())).await?;
        publish(&nats, ["{", "", "1 2", "\u{1}"].map(|payload| payload.as_bytes().to_vec())).await?;
        wait_for(&mut sql, "SELECT count(*) FROM documents", 6, SOON).await?;
        eventually_equal("bad records to be counted", SOON, 4.0, async || {
            weir.metric("weir_source_bad_records_total").await
        })
        .await?;
        let rows = sql.query("SELECT payload FROM documents ORDER BY o::int").await?;
        let shown: Vec<_> = rows.rows.iter().map(|row| row[0].as_deref()).collect();
        assert_eq!(
            shown,
            [
                Some(r#"{"a": {"c": [2.50]}, "b": 1}"#),
                Some("[1, 2]"),
                Some("\"text\""),
                Some("-1.0"),
                Some("true"),
                None
            ]
        );
        let row = sql.query("SELECT payload -> 'a' -> 'c' FROM documents WHERE payload ->> 'b' = '1'").await?;
        assert_eq!(row.row(0), ["[2.50]"]);
        Ok(())
    });
}

//! The time a record takes from JSON or Protobuf to a column, and from there to a stored block and
//! back.
//!
//! The records are like the bids of the Nexmark benchmark: seven fields, about 200 bytes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use prost::Message as _;
use prost_reflect::prost_types::FileDescriptorSet;
use weir_common::catalog::{Column, Encode, Origin};
use weir_common::protobuf::MessageSchema;
use weir_common::types::SqlType;
use weir_compute::ingest::decode::Decoder;
use weir_compute::storage::block;
use weir_connector_nats::Message;

const RECORDS: u32 = 4096;
const ROUNDS: u32 = 100;

const SCHEMA: &str = r#"syntax = "proto3";
    import "google/protobuf/timestamp.proto";
    message Bid {
        int64 auction = 1; int64 bidder = 2; int64 price = 3; string channel = 4; string url = 5;
        google.protobuf.Timestamp date_time = 6; string extra = 7;
    }"#;

/// A bid as Protobuf.
#[derive(Clone, PartialEq, prost::Message)]
struct Bid {
    #[prost(int64, tag = "1")]
    auction: i64,
    #[prost(int64, tag = "2")]
    bidder: i64,
    #[prost(int64, tag = "3")]
    price: i64,
    #[prost(string, tag = "4")]
    channel: String,
    #[prost(string, tag = "5")]
    url: String,
    #[prost(message, optional, tag = "6")]
    date_time: Option<prost_reflect::prost_types::Timestamp>,
    #[prost(string, tag = "7")]
    extra: String,
}

fn main() {
    let columns = [
        ("auction", SqlType::BigInt),
        ("bidder", SqlType::BigInt),
        ("price", SqlType::BigInt),
        ("channel", SqlType::Varchar),
        ("url", SqlType::Varchar),
        ("date_time", SqlType::Timestamp),
        ("extra", SqlType::Varchar),
    ]
    .map(|(name, ty)| Column { name: name.to_owned(), ty, origin: Origin::Payload });
    let messages: Vec<Message> = (1..).zip(0..RECORDS).map(|(at, n)| Message::new(at, "bids.1", payload(n))).collect();
    println!("{} bytes a record", messages.iter().map(|message| message.payload.len()).sum::<usize>() / messages.len());

    let mut decoder = Decoder::new(&columns, "bids");
    let mut decode = |messages: &[Message]| {
        for message in messages {
            decoder.append(message).expect("a good record");
        }
        decoder.finish()
    };
    report("decode", || black_box(decode(&messages)).num_rows());
    decode_together(&columns, &messages);
    decode_protobuf(&columns);
    let batch = decode(&messages);
    report("encode", || black_box(block::encode(&batch, 0)).len());
    let (encoded, schema) = (block::encode(&batch, 0), block::schema(&columns));
    println!("{} bytes a row in the block", encoded.len() / messages.len());
    report("read back", || black_box(block::decode(&encoded, &schema, None).expect("a block")).num_rows());
    report("read back one column", || {
        black_box(block::decode(&encoded, &schema, Some(&[2])).expect("a block")).num_rows()
    });
}

/// The same records, a hundred in each message: as NDJSON, and as an array.
fn decode_together(columns: &[Column], messages: &[Message]) {
    let mut decoder = Decoder::new(columns, "bids");
    for (name, open, between, close) in [("decode NDJSON", "", "\n", ""), ("decode arrays", "[", ",", "]")] {
        let together = (1..).zip(messages.chunks(100)).map(|(at, several)| {
            let records: Vec<&str> =
                several.iter().map(|message| str::from_utf8(&message.payload).expect("JSON")).collect();
            Message::new(at, "bids.1", format!("{open}{}{close}", records.join(between)))
        });
        let together: Vec<Message> = together.collect();
        report(name, || {
            for message in &together {
                decoder.append(message).expect("good records");
            }
            black_box(decoder.finish()).num_rows()
        });
    }
}

/// The same columns from messages.
fn decode_protobuf(columns: &[Column]) {
    let file = protox::file::File::from_source("bid.proto", SCHEMA).expect("a schema").file_descriptor_proto().clone();
    let schema = MessageSchema::new(FileDescriptorSet { file: vec![file] }, "Bid").expect("a message");
    let columns: Vec<Column> = columns
        .iter()
        .map(|column| match column.ty {
            SqlType::Timestamp => Column { ty: SqlType::Timestamptz, ..column.clone() },
            _ => column.clone(),
        })
        .collect();
    let mut decoder =
        Decoder::new(&columns, "bids").with_encode(&Encode::Protobuf(schema), &columns).expect("columns of the schema");
    let messages = (1..).zip(0..RECORDS).map(|(at, n)| Message::new(at, "bids.1", bid(n).encode_to_vec()));
    let messages: Vec<Message> = messages.collect();
    println!(
        "{} bytes a message",
        messages.iter().map(|message| message.payload.len()).sum::<usize>() / messages.len()
    );
    report("decode a message", || {
        for message in &messages {
            decoder.append(message).expect("a good record");
        }
        black_box(decoder.finish()).num_rows()
    });
}

fn bid(n: u32) -> Bid {
    Bid {
        auction: i64::from(1000 + n % 100),
        bidder: i64::from(2000 + n % 97),
        price: i64::from(n) * 7919 % 1_000_000,
        channel: format!("channel-{}", n % 16),
        url: format!("https://www.nexmark.com/item.htm?query=1&item={n}"),
        date_time: Some(prost_reflect::prost_types::Timestamp {
            seconds: 1_709_294_400 + i64::from(n),
            nanos: 5_000_000,
        }),
        extra: "x".repeat(24),
    }
}

fn payload(n: u32) -> String {
    format!(
        "{{\"auction\":{},\"bidder\":{},\"price\":{},\"channel\":\"channel-{}\",\"url\":\"https://www.nexmark.com/item.htm?\
         query=1&item={}\",\"date_time\":\"2024-03-01 12:{:02}:{:02}.{:03}\",\"extra\":\"{}\"}}",
        1000 + n % 100,
        2000 + n % 97,
        u64::from(n) * 7919 % 1_000_000,
        n % 16,
        n,
        n / 60 % 60,
        n % 60,
        n % 1000,
        "x".repeat(24),
    )
}

/// The best of many rounds, in nanoseconds for each record.
fn report(what: &str, mut round: impl FnMut() -> usize) {
    let best = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        black_box(round());
        start.elapsed()
    });
    let best = best.min().unwrap_or(Duration::ZERO) / RECORDS;
    println!("{what}: {} ns a record", best.as_nanos());
}

//! How long a record takes from JSON to a column, and from there to a stored block and back.
//!
//! The records are like the bids of the Nexmark benchmark: seven fields, about 200 bytes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use weir_common::catalog::{Column, Origin};
use weir_common::types::SqlType;
use weir_compute::block;
use weir_compute::decode::{Decoder, block_schema};
use weir_connector_nats::Message;

const RECORDS: u32 = 4096;
const ROUNDS: u32 = 100;

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
    let batch = decode(&messages);
    report("encode", || black_box(block::encode(&batch)).len());
    let (encoded, schema) = (block::encode(&batch), block_schema(&columns));
    println!("{} bytes a row in the block", encoded.len() / messages.len());
    report("read back", || black_box(block::decode(&encoded, &schema, None).expect("a block")).num_rows());
    report("read back one column", || {
        black_box(block::decode(&encoded, &schema, Some(&[2])).expect("a block")).num_rows()
    });
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

/// The best of many rounds, in nanoseconds a record.
fn report(what: &str, mut round: impl FnMut() -> usize) {
    let best = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        black_box(round());
        start.elapsed()
    });
    let best = best.min().unwrap_or(Duration::ZERO) / RECORDS;
    println!("{what}: {} ns a record", best.as_nanos());
}

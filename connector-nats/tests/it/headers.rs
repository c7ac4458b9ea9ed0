//! Header blocks of every kind before the client library itself: it is known which ones it cannot get over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::HeaderMap;
use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use weir_connector_nats::headers;

use crate::support::log;

/// Some that are known to be difficult.
const BLOCKS: [&[u8]; 12] = [
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0\r\na: b\rc\r\n\r\n",
    b"NATS/1.0\r\na: \r\r\n\r\n",
    b"NATS/1.0\r\na: b\r\n \r c\r\n\r\n",
    b"NATS/1.0\ra: b\r\n\r\n",
    b"NATS/1.0 503\tx\r\n\r\n",
    b"NATS/1.0 099\r\n\r\n",
    b"NATS/1.0\r\na: b",
    b"NATS/1.0\r\na: b\r",
    b"NATS/1.0\na: b\n c\n\n",
    b"NATS/1.0\r\n: b\r\n\r\n",
    b"",
];
/// What random ones are made of.
const PARTS: [&[u8]; 22] = [
    b"NATS/1.0",
    b"NATS/1.0",
    b"\r\n",
    b"\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b":",
    b": ",
    b"a",
    b"b",
    b"Nats-Msg-Id",
    b"503",
    b"100 Idle",
    b"\xc2\xa0",
    b"\xe2\x80\xa8",
    b"\xc3\xa9",
    b"\xff",
    b"\0",
    b"\x0b",
];
const RANDOM_BLOCKS: u64 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn it_is_known_which_headers_the_client_cannot_parse() {
    log();
    let mut blocks: Vec<Vec<u8>> = BLOCKS.iter().map(|block| block.to_vec()).collect();
    blocks.extend((1..=RANDOM_BLOCKS).map(random));
    let mut readable = 0;
    for block in blocks {
        let parsed = parsed_by_the_client("s", &block).await;
        let shown = String::from_utf8_lossy(&block).into_owned();
        // An empty block is no block to us: messages without headers have none.
        if !block.is_empty() {
            assert_eq!(headers::is_readable("s", &block), parsed.is_some(), "{shown:?}");
        }
        assert_eq!(headers::read(&block), parsed, "{shown:?}");
        readable += usize::from(parsed.is_some());
    }
    assert!(readable > 30, "{readable} of the blocks can be read: too few to compare");
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_can_break_a_message_with_headers() {
    log();
    let block = b"NATS/1.0\r\na: b\r\n\r\n";
    for subject in ["s", "s.\u{e9}", "s.\u{1}x", "s.\u{a0}x", "s.\u{b}x", "s.\u{2028}x", "s.\u{85}x"] {
        let parsed = parsed_by_the_client(subject, block).await;
        assert_eq!(headers::is_readable(subject, block), parsed.is_some(), "{subject:?}");
    }
}

/// A block of up to sixteen parts, most of which begin as they should.
fn random(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).expect("31 bits") % bound
    };
    let mut block = if below(8) > 0 { b"NATS/1.0\r\n".to_vec() } else { Vec::new() };
    let count = below(16);
    block.extend((0..count).flat_map(|_| PARTS[below(PARTS.len())]).copied());
    block
}

/// The headers as a client of the library parses them; nothing if it gets no such message.
async fn parsed_by_the_client(subject: &str, block: &[u8]) -> Option<HeaderMap> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are free ports");
    let url = listener.local_addr().expect("it is bound").to_string();
    let (subject, block, sent) = (subject.to_owned(), block.to_vec(), Arc::new(AtomicBool::new(false)));
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, subject.clone(), block.clone(), Arc::clone(&sent)));
        }
    });
    let client = async_nats::connect(url).await.expect("it listens");
    let mut messages = client.subscribe("s").await.expect("it is connected");
    client.flush().await.expect("it is connected");
    // The end of the subscription is the end of the client.
    let message = messages.next().await.filter(|message| message.payload == "it");
    server.abort();
    message.map(|message| message.headers.unwrap_or_default())
}

/// Answers a subscription with the message, once, and with another one behind it.
async fn serve(stream: TcpStream, subject: String, block: Vec<u8>, sent: Arc<AtomicBool>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let info = r#"INFO {"server_id":"x","version":"2.10.0","headers":true,"max_payload":1048576,"proto":1}"#;
    let mut answer = format!("{info}\r\n").into_bytes();
    loop {
        if write.write_all(&answer).await.is_err() {
            return;
        }
        let Ok(Some(line)) = lines.next_line().await else { return };
        answer = match line.split(' ').collect::<Vec<_>>()[..] {
            ["PING"] => b"PONG\r\n".to_vec(),
            ["SUB", _, sid] => {
                let begin = format!("HMSG {subject} {sid} {} {}\r\n", block.len(), block.len() + 2);
                let behind = format!("MSG s {sid} 6\r\nbehind\r\n");
                match sent.swap(true, Ordering::SeqCst) {
                    false => [begin.as_bytes(), &block, b"it\r\n", behind.as_bytes()].concat(),
                    true => behind.into_bytes(),
                }
            }
            _ => Vec::new(),
        };
    }
}

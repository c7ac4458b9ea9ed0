//! A client that speaks the wire protocol message by message, for tests beyond the behaviour of
//! drivers.

use std::net::SocketAddr;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use futures::FutureExt;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::{ErrorFields, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::cluster::{Cluster, PATIENCE};

pub(crate) struct Wire {
    stream: TcpStream,
    received: BytesMut,
    /// The bytes that have not been sent yet.
    pub(crate) out: BytesMut,
}

impl Wire {
    /// Connects a client that has completed start-up.
    pub(crate) async fn connect(cluster: &Cluster) -> Wire {
        Wire::open(cluster.sql).await.introduced().await
    }

    /// Connects a client without a start-up.
    pub(crate) async fn open(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).await.expect("the frontend accepts");
        Wire { stream, received: BytesMut::new(), out: BytesMut::new() }
    }

    /// Connects a client that has completed start-up, with a small buffer for unread data.
    pub(crate) async fn connect_narrow(cluster: &Cluster) -> Wire {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("an option of every socket");
        let stream = socket.connect(cluster.sql).await.expect("the frontend accepts");
        Wire { stream, received: BytesMut::new(), out: BytesMut::new() }.introduced().await
    }

    async fn introduced(mut self) -> Wire {
        frontend::startup_message([("user", "root"), ("database", "dev")], &mut self.out).expect("short parameters");
        assert_eq!(self.until_ready().await.last().map(String::as_str), Some("ReadyForQuery I"));
        self
    }

    pub(crate) fn parse(&mut self, name: &str, sql: &str, types: &[u32]) -> &mut Wire {
        frontend::parse(name, sql, types.iter().copied(), &mut self.out).expect("a short text");
        self
    }

    /// Adds a Bind with all values in one format and all results in another; 0 is text, 1 binary.
    pub(crate) fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        format: i16,
        values: &[Option<&[u8]>],
        results: i16,
    ) -> &mut Wire {
        let write = |value: &Option<&[u8]>, out: &mut BytesMut| match value {
            Some(bytes) => {
                out.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        };
        frontend::bind(portal, statement, [format], values, write, [results], &mut self.out)
            .unwrap_or_else(|_| panic!("short values"));
        self
    }

    pub(crate) fn describe(&mut self, kind: u8, name: &str) -> &mut Wire {
        frontend::describe(kind, name, &mut self.out).expect("a short name");
        self
    }

    pub(crate) fn execute(&mut self, portal: &str, rows: i32) -> &mut Wire {
        frontend::execute(portal, rows, &mut self.out).expect("a short name");
        self
    }

    pub(crate) fn close(&mut self, kind: u8, name: &str) -> &mut Wire {
        frontend::close(kind, name, &mut self.out).expect("a short name");
        self
    }

    pub(crate) fn sync(&mut self) -> &mut Wire {
        frontend::sync(&mut self.out);
        self
    }

    pub(crate) fn flush(&mut self) -> &mut Wire {
        frontend::flush(&mut self.out);
        self
    }

    pub(crate) fn query(&mut self, sql: &str) -> &mut Wire {
        frontend::query(sql, &mut self.out).expect("a short text");
        self
    }

    /// Adds bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Wire {
        self.out.extend_from_slice(bytes);
        self
    }

    pub(crate) async fn send(&mut self) {
        let out = self.out.split();
        self.stream.write_all(&out).await.expect("the frontend reads");
    }

    /// Sends the pending bytes; returns all messages up to ReadyForQuery, or up to the end of the
    /// connection.
    pub(crate) async fn until_ready(&mut self) -> Vec<String> {
        self.until("ReadyForQuery").await
    }

    /// Sends the pending bytes; returns all messages up to one that begins with `last`, or up to
    /// the end of the connection.
    pub(crate) async fn until(&mut self, last: &str) -> Vec<String> {
        self.send().await;
        let mut messages = Vec::new();
        while let Some(message) = self.next().await {
            let found = message.starts_with(last);
            messages.push(message);
            if found {
                break;
            }
        }
        messages
    }

    /// Returns the next message; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(message) = Message::parse(&mut self.received).expect("messages of the protocol") {
                return Some(written(message));
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.expect("an answer comes");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Returns true if a message has arrived that was not read yet.
    pub(crate) fn has_answer(&mut self) -> bool {
        !self.received.is_empty() || self.stream.read_buf(&mut self.received).now_or_never().is_some()
    }
}

/// Returns a message as a line of text.
fn written(message: Message) -> String {
    match message {
        Message::ParseComplete => "ParseComplete".to_owned(),
        Message::BindComplete => "BindComplete".to_owned(),
        Message::CloseComplete => "CloseComplete".to_owned(),
        Message::NoData => "NoData".to_owned(),
        Message::EmptyQueryResponse => "EmptyQueryResponse".to_owned(),
        Message::PortalSuspended => "PortalSuspended".to_owned(),
        Message::CopyDone => "CopyDone".to_owned(),
        Message::CommandComplete(body) => format!("CommandComplete {}", body.tag().unwrap_or("?")),
        Message::ReadyForQuery(body) => format!("ReadyForQuery {}", char::from(body.status())),
        Message::ErrorResponse(body) => format!("Error {}", fields(body.fields())),
        Message::NoticeResponse(body) => format!("Notice {}", fields(body.fields())),
        Message::CopyData(body) => format!("CopyData {:?}", str::from_utf8(body.data()).unwrap_or("binary")),
        Message::CopyOutResponse(body) => format!("CopyOutResponse {}", body.format()),
        Message::ParameterDescription(body) => {
            let types: Vec<String> = body.parameters().map(|oid| Ok(oid.to_string())).collect().unwrap_or_default();
            format!("ParameterDescription {}", types.join(" "))
        }
        Message::RowDescription(body) => {
            let columns = body.fields().map(|f| Ok(format!("{}:{}:{}", f.name(), f.type_oid(), f.format())));
            format!("RowDescription {}", columns.collect::<Vec<_>>().unwrap_or_default().join(" "))
        }
        Message::DataRow(body) => {
            let buffer = body.buffer();
            let cells = body.ranges().map(|range| {
                Ok(range.map_or_else(
                    || "NULL".to_owned(),
                    |range| match str::from_utf8(&buffer[range.clone()]) {
                        Ok(text) if !text.contains('\0') => text.to_owned(),
                        _ => buffer[range].iter().map(|byte| format!("{byte:02x}")).collect(),
                    },
                ))
            });
            format!("DataRow {}", cells.collect::<Vec<_>>().unwrap_or_default().join("|"))
        }
        Message::ParameterStatus(body) => {
            format!("ParameterStatus {}={}", body.name().unwrap_or("?"), body.value().unwrap_or("?"))
        }
        Message::AuthenticationOk => "AuthenticationOk".to_owned(),
        Message::BackendKeyData(_) => "BackendKeyData".to_owned(),
        _ => "another message".to_owned(),
    }
}

/// Returns severity, SQLSTATE and message.
fn fields(fields: ErrorFields<'_>) -> String {
    let told = fields.filter(|field| Ok(matches!(field.type_(), b'S' | b'C' | b'M')));
    let values = told.map(|field| Ok(String::from_utf8_lossy(field.value_bytes()).into_owned()));
    values.collect::<Vec<_>>().unwrap_or_default().join(" ")
}

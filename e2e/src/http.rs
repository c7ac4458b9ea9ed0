//! One HTTP request on a connection of its own: what metrics, readiness and the test's object store need, and no more.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The status and the body of the answer to a request without a body.
///
/// # Errors
/// If nobody answers, or what is answered is no HTTP.
pub async fn request(address: SocketAddr, method: &str, path: &str) -> Result<(u16, String)> {
    request_with(address, method, path, &[]).await
}

/// The same for a request with a body.
///
/// # Errors
/// As [`request`].
pub async fn request_with(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<(u16, String)> {
    let mut socket = TcpStream::connect(address).await?;
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    socket.write_all(body).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer has a body")?;
    let status = head.split(' ').nth(1).context("an HTTP answer has a status")?.parse()?;
    Ok((status, body.trim_end().to_owned()))
}

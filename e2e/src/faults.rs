//! HTTP between clients and a server that goes wrong when told to, as requests to an object store do.
//!
//! Each connection carries one request: it is read whole, and then forwarded, or meets a fault. Unlike [`crate::proxy`] it
//! knows where a request ends, so that it can lose the answer to one that the server has carried out, which is the worst
//! that can happen to a conditional write.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::sandbox::free_address;

/// What can happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status and error code, and never reaches the server.
    Refuse(u16, &'static str),
    /// The connection is closed before it reaches the server.
    Cut,
    /// The server carries it out, but the connection is closed instead of the answer.
    LoseAnswer,
    /// It is forwarded after this time.
    Delay(Duration),
}

/// The proxy; it ends when it is dropped.
pub struct Faults {
    address: SocketAddr,
    rules: Arc<Mutex<Rules>>,
    _stop: DropGuard,
}

/// What happens to requests.
struct Rules {
    /// How many of a hundred requests meet a fault.
    percent: u32,
    /// Which, at random.
    faults: Vec<Fault>,
    random: StdRng,
    injected: u64,
}

impl Faults {
    /// Listens on a free address and forwards to the target. Random choices follow from the seed.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(target: SocketAddr, seed: u64) -> Result<Faults> {
        let address = free_address();
        let listener = TcpListener::bind(address).await?;
        let random = StdRng::seed_from_u64(seed);
        let rules = Arc::new(Mutex::new(Rules { percent: 0, faults: Vec::new(), random, injected: 0 }));
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, target, Arc::clone(&rules))));
        Ok(Faults { address, rules, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, so many of a hundred requests meet one of the faults; zero: none does.
    pub fn set(&self, percent: u32, faults: &[Fault]) {
        let mut rules = lock(&self.rules);
        (rules.percent, rules.faults) = (percent, faults.to_vec());
    }

    /// How many requests met a fault so far.
    pub fn injected(&self) -> u64 {
        lock(&self.rules).injected
    }
}

impl Rules {
    fn fate(&mut self) -> Option<Fault> {
        let unlucky = self.random.random_range(0..100) < self.percent;
        let fault = unlucky.then(|| self.faults.choose(&mut self.random).copied()).flatten();
        self.injected += u64::from(fault.is_some());
        fault
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, rules: Arc<Mutex<Rules>>) {
    while let Ok((client, _)) = listener.accept().await {
        let rules = Arc::clone(&rules);
        // What goes wrong looks to the client like a connection that is closed.
        tokio::spawn(async move { serve(client, target, &rules).await.ok() });
    }
}

/// Serves one request.
async fn serve(client: TcpStream, target: SocketAddr, rules: &Mutex<Rules>) -> Result<()> {
    let mut client = BufReader::new(client);
    let request = read_request(&mut client).await?;
    let fate = lock(rules).fate();
    match fate {
        Some(Fault::Cut) => return Ok(()),
        Some(Fault::Refuse(status, code)) => {
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected</Message></Error>");
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            );
            client.write_all(answer.as_bytes()).await?;
            return Ok(());
        }
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::LoseAnswer) | None => {}
    }
    let mut server = TcpStream::connect(target).await?;
    server.write_all(&request).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    if fate != Some(Fault::LoseAnswer) {
        client.write_all(&answer).await?;
    }
    Ok(())
}

/// A whole request, with a head that asks for the connection to be closed behind its answer.
async fn read_request(client: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let (mut request, mut length) = (Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        client.read_until(b'\n', &mut line).await?;
        let text = String::from_utf8_lossy(&line).to_ascii_lowercase();
        if text.trim_end().is_empty() {
            break;
        }
        if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse().context("a length is a number")?;
        }
        if !text.starts_with("connection:") {
            request.extend_from_slice(&line);
        }
    }
    request.extend_from_slice(b"Connection: close\r\n\r\n");
    let head = request.len();
    request.resize(head + length, 0);
    client.read_exact(&mut request[head..]).await?;
    Ok(request)
}

fn lock(rules: &Mutex<Rules>) -> MutexGuard<'_, Rules> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::http;

    /// A server that answers every request with how many it has had.
    async fn counting() -> Result<(SocketAddr, Arc<AtomicU64>)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, count) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let mut socket = BufReader::new(socket);
                if read_request(&mut socket).await.is_ok() {
                    let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
                    let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{number}");
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
            }
        });
        Ok((address, count))
    }

    #[tokio::test]
    async fn requests_are_forwarded_refused_cut_or_lose_their_answer() -> Result<()> {
        let (server, count) = counting().await?;
        let faults = Faults::start(server, 1).await?;
        let ask = async || http::request(faults.address(), "PUT", "/a").await;
        assert_eq!(ask().await?, (200, "1".to_owned()));
        faults.set(100, &[Fault::Refuse(503, "SlowDown")]);
        let (status, body) = ask().await?;
        assert!(status == 503 && body.contains("SlowDown"), "{body}");
        faults.set(100, &[Fault::Cut]);
        assert!(ask().await.is_err());
        assert_eq!(count.load(Ordering::Relaxed), 1, "neither has reached the server");
        faults.set(100, &[Fault::LoseAnswer]);
        assert!(ask().await.is_err());
        assert_eq!(count.load(Ordering::Relaxed), 2, "it was carried out");
        faults.set(0, &[]);
        assert_eq!(ask().await?, (200, "3".to_owned()));
        assert_eq!(faults.injected(), 3);
        Ok(())
    }
}

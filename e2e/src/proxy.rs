//! A network between clients and a server that fails when told to.
//!
//! Forwards TCP connections to one target. It can cut every connection at once, cut each new one after a random number
//! of bytes, or swallow everything of the present ones while their sockets stay open. Bytes are never altered or
//! reordered: within a connection the other side sees a prefix of what was sent.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::sandbox::free_address;

/// A proxy; it ends, with all its connections, when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    rules: Arc<Mutex<Rules>>,
    _stop: tokio_util::sync::DropGuard,
}

/// What happens to connections.
struct Rules {
    /// Cancelled to cut the present connections; replaced then.
    cut: CancellationToken,
    /// Set to true to swallow what the present connections carry; replaced then.
    swallow: watch::Sender<bool>,
    /// After how many bytes from the server a new connection is cut.
    lifetime: Option<Range<u64>>,
    random: StdRng,
    accepted: u64,
}

/// The fate of one connection.
struct Fate {
    cut: CancellationToken,
    swallow: watch::Receiver<bool>,
    lifetime: Option<u64>,
}

impl Proxy {
    /// Listens on a free address and forwards to the target. Random choices follow from the seed.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(target: SocketAddr, seed: u64) -> Result<Proxy> {
        let address = free_address();
        let listener = TcpListener::bind(address).await?;
        let stop = CancellationToken::new();
        let rules = Arc::new(Mutex::new(Rules {
            cut: stop.child_token(),
            swallow: watch::Sender::new(false),
            lifetime: None,
            random: StdRng::seed_from_u64(seed),
            accepted: 0,
        }));
        tokio::spawn(accept(listener, target, Arc::clone(&rules), stop.clone()));
        Ok(Proxy { address, rules, _stop: stop.drop_guard() })
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Closes every present connection; new ones are forwarded.
    pub fn cut_all(&self) {
        let mut rules = lock(&self.rules);
        // The new token hangs on nothing but the listener's task, which checks its own.
        std::mem::replace(&mut rules.cut, CancellationToken::new()).cancel();
    }

    /// Swallows everything that the present connections carry from now on, without closing them; new ones are
    /// forwarded.
    pub fn swallow(&self) {
        let mut rules = lock(&self.rules);
        // Both under one lock: a connection accepted in between would be swallowed or not by chance.
        std::mem::replace(&mut rules.swallow, watch::Sender::new(false)).send_replace(true);
    }

    /// From now on, cuts each new connection after a random number of bytes from the server; `None`: no longer.
    pub fn cut_after(&self, bytes: Option<Range<u64>>) {
        lock(&self.rules).lifetime = bytes;
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        lock(&self.rules).accepted
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        lock(&self.rules).cut.cancel();
    }
}

impl Rules {
    fn fate(&mut self) -> Fate {
        self.accepted += 1;
        let lifetime = self.lifetime.clone().map(|range| self.random.random_range(range));
        Fate { cut: self.cut.clone(), swallow: self.swallow.subscribe(), lifetime }
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, rules: Arc<Mutex<Rules>>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        if let Ok((client, _)) = accepted {
            let fate = lock(&rules).fate();
            tokio::spawn(forward(client, target, fate));
        }
    }
}

/// Forwards one connection in both directions until either side closes it or its fate does.
async fn forward(client: TcpStream, target: SocketAddr, fate: Fate) {
    // A target that is down looks to the client like one: the connection is closed at once.
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        () = fate.cut.cancelled() => {}
        () = copy(client_read, server_write, fate.swallow.clone(), None) => {}
        () = copy(server_read, client_write, fate.swallow, fate.lifetime) => {}
    }
}

/// Copies until the end, an error, or so many bytes.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    swallow: watch::Receiver<bool>,
    mut lifetime: Option<u64>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        if read == 0 {
            return;
        }
        if *swallow.borrow() {
            continue;
        }
        let wanted = lifetime.map_or(read, |left| read.min(usize::try_from(left).unwrap_or(usize::MAX)));
        if to.write_all(&buffer[..wanted]).await.is_err() {
            return;
        }
        if let Some(left) = &mut lifetime {
            *left -= wanted as u64;
            if *left == 0 {
                return;
            }
        }
    }
}

fn lock(rules: &Mutex<Rules>) -> std::sync::MutexGuard<'_, Rules> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A server that sends a counter's bytes without end.
    async fn endless() -> Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move { while socket.write_all(&[7; 1_000]).await.is_ok() {} });
            }
        });
        Ok(address)
    }

    #[tokio::test]
    async fn connections_are_cut_after_their_bytes_or_all_at_once() -> Result<()> {
        let proxy = Proxy::start(endless().await?, 1).await?;
        proxy.cut_after(Some(5_000..5_001));
        let mut received = Vec::new();
        TcpStream::connect(proxy.address()).await?.read_to_end(&mut received).await?;
        assert_eq!(received.len(), 5_000);

        proxy.cut_after(None);
        let mut socket = TcpStream::connect(proxy.address()).await?;
        socket.read_exact(&mut [0; 10_000]).await?;
        proxy.cut_all();
        // Ends, or is reset if bytes were under way.
        let _ = socket.read_to_end(&mut Vec::new()).await;
        assert_eq!(proxy.accepted(), 2);
        Ok(())
    }

    #[tokio::test]
    async fn swallowed_connections_stay_open_and_silent() -> Result<()> {
        let proxy = Proxy::start(endless().await?, 1).await?;
        let mut silent = TcpStream::connect(proxy.address()).await?;
        silent.read_exact(&mut [0; 1_000]).await?;
        proxy.swallow();
        let everything = tokio::time::timeout(Duration::from_millis(500), silent.read_to_end(&mut Vec::new())).await;
        assert!(everything.is_err(), "the connection was closed");
        TcpStream::connect(proxy.address()).await?.read_exact(&mut [0; 1_000]).await?;
        Ok(())
    }
}

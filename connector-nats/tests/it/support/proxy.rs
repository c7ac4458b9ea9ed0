//! A TCP proxy before a server: connections can be cut at any byte, or fall silent while they stay open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What all connections do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Silent,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    /// Every change ends the connections that are open.
    generation: watch::Sender<u64>,
    mode: watch::Sender<Mode>,
    /// Bytes from the server after which a connection is cut; 0: never.
    budget: Arc<AtomicU64>,
    /// Every change puts [`FATAL`] into what open connections bring.
    poison: watch::Sender<u64>,
}

/// A client library's task panics over it.
const FATAL: &[u8] = b"-ERR\r\n";

impl Proxy {
    pub(crate) async fn start(upstream: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("there are free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let (generation, generations) = watch::channel(0);
        let (mode, modes) = watch::channel(Mode::Forward);
        let budget = Arc::new(AtomicU64::new(0));
        let budgets = Arc::clone(&budget);
        let (poison, poisons) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)).await else { continue };
                let mut generations = generations.clone();
                generations.mark_unchanged();
                let (modes, budget) = (modes.clone(), budgets.load(Ordering::Relaxed));
                // Nobody changes the first, which is dropped here.
                let (never, mut poisons) = (watch::channel(0).1, poisons.clone());
                poisons.mark_unchanged();
                tokio::spawn(async move {
                    let (client_read, client_write) = client.into_split();
                    let (server_read, server_write) = server.into_split();
                    tokio::select! {
                        () = copy(client_read, server_write, modes.clone(), never, 0) => {}
                        () = copy(server_read, client_write, modes, poisons, budget) => {}
                        _ = generations.changed() => {}
                    }
                });
            }
        });
        Proxy { port, generation, mode, budget, poison }
    }

    /// Cuts every connection now.
    pub(crate) fn cut(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Ends the client of every connection.
    pub(crate) fn poison(&self) {
        self.poison.send_modify(|poison| *poison += 1);
    }

    /// Cuts every further connection after so many bytes from the server; 0: no longer.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }

    /// Forwards nothing any more, or goes on.
    pub(crate) fn silent(&self, silent: bool) {
        self.mode.send_replace(if silent { Mode::Silent } else { Mode::Forward });
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    mut poison: watch::Receiver<u64>,
    budget: u64,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut left = budget;
    loop {
        if mode.wait_for(|mode| *mode == Mode::Forward).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            Ok(()) = poison.changed() => {
                if to.write_all(FATAL).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Ok(mut count @ 1..) = read else { return };
        if mode.wait_for(|mode| *mode == Mode::Forward).await.is_err() {
            return;
        }
        if budget > 0 {
            count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= count as u64;
        }
        if to.write_all(&buffer[..count]).await.is_err() || (budget > 0 && left == 0) {
            return;
        }
    }
}

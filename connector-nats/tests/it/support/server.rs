//! A nats-server with JetStream in a directory of its own, which can be killed and started again on the same data.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use async_nats::jetstream;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_connector_nats::api::Api;
use weir_connector_nats::connect::connect;

use super::{context, eventually};

pub(crate) struct Server {
    pub(crate) port: u16,
    directory: TempDir,
    child: Child,
    /// Whether it speaks first.
    greets: bool,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::start_with("jetstream { store_dir: STORE }").await
    }

    /// `configuration` is the text of a configuration file, without the listener; STORE stands for the directory.
    pub(crate) async fn start_with(configuration: &str) -> Server {
        super::log();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        configure(directory.path(), port, configuration);
        let child = spawn(directory.path());
        let greets = !configuration.contains("handshake_first");
        let mut server = Server { port, directory, child, greets };
        server.ready().await;
        server
    }

    /// Takes effect at the next restart.
    pub(crate) fn configure(&self, configuration: &str) {
        configure(self.directory.path(), self.port, configuration);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the server runs");
        self.child.wait().expect("the server was killed");
    }

    /// Starts again on the same port and data.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(self.directory.path());
        self.ready().await;
    }

    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        let address = format!("127.0.0.1:{}", self.port);
        // The connection by which the server was found to be ready may still count.
        let mut client = None;
        eventually("the server takes a connection", async || {
            client = async_nats::connect(&address).await.ok();
            client.is_some()
        })
        .await;
        context(client.expect("it is connected"))
    }

    /// Whether it is of version 2.10.
    pub(crate) async fn is_oldest(&self) -> bool {
        self.api().await.server_version() == Some((2, 10))
    }

    /// Whether it can reset consumers.
    pub(crate) async fn can_reset(&self) -> bool {
        self.api().await.can_reset()
    }

    async fn api(&self) -> Api {
        let connection = connect(&super::options(self.port, &[]), "test").await;
        Api::new(connection.expect("the server runs"))
    }

    /// The warnings that the server has logged since it started.
    pub(crate) fn faults(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.directory.path().join("log")).expect("it has a log");
        log.lines()
            .filter(|line| ["[WRN]", "[ERR]", "[FTL]"].iter().any(|mark| line.contains(mark)))
            .map(str::to_owned)
            .collect()
    }

    /// Publishes with headers that no client would send, on a connection of its own.
    pub(crate) async fn publish_raw(&self, subject: impl AsRef<[u8]>, headers: impl AsRef<[u8]>, payload: &str) {
        let (subject, headers) = (subject.as_ref(), headers.as_ref());
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("the server runs");
        let (header_bytes, bytes) = (headers.len(), headers.len() + payload.len());
        let connect = r#"CONNECT {"verbose":false,"pedantic":false,"headers":true}"#;
        let begin = format!("{connect}\r\nHPUB ");
        let sizes = format!(" {header_bytes} {bytes}\r\n");
        let end = format!("{payload}\r\nPING\r\n");
        let text = [begin.as_bytes(), subject, sizes.as_bytes(), headers, end.as_bytes()].concat();
        stream.write_all(&text).await.expect("the server reads");
        let mut answer = String::new();
        while !answer.contains("PONG") {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.expect("the server answers");
            answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
            assert!(read > 0 && !answer.contains("-ERR"), "{answer}");
        }
    }

    async fn ready(&mut self) {
        let (port, greets) = (self.port, self.greets);
        let (child, log) = (&mut self.child, self.directory.path().join("log"));
        eventually("the server greets", async || {
            if let Some(status) = child.try_wait().expect("it is a child") {
                panic!("{status}: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            let mut greeting = [0; 4];
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(_) if !greets => true,
                Ok(mut stream) => stream.read_exact(&mut greeting).await.is_ok() && &greeting == b"INFO",
                Err(_) => false,
            }
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port nobody listens on, outside of the range that clients' sockets use: a server that is down keeps it for its
/// restart.
pub(crate) fn free_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 12_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests of one process get different ports; those of two processes begin at different places.
    let begin = u16::try_from(std::process::id() % 20_000).expect("below 20,000");
    for _ in PORTS {
        let at = (begin + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000) % 20_000;
        let port = PORTS.start + at;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}")
}

fn configure(directory: &Path, port: u16, configuration: &str) {
    let store = format!("\"{}\"", directory.display());
    let text = format!("listen: \"127.0.0.1:{port}\"\n{}\n", configuration.replace("STORE", &store));
    std::fs::write(directory.join("nats.conf"), text).expect("the directory is writable");
}

fn spawn(directory: &Path) -> Child {
    let log = std::fs::File::create(directory.join("log")).expect("the directory is writable");
    Command::new(binary())
        .arg("--config")
        .arg(directory.join("nats.conf"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("nats-server can be started")
}

/// `WEIR_NATS_SERVER`, else the one that the set-up script provides.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_NATS_SERVER") {
        return path.into();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/servers/bin/nats-server");
    let advice = "`deploy/setup.sh servers` provides it, or set WEIR_NATS_SERVER";
    assert!(path.exists(), "no {}: {advice}", path.display());
    path
}

//! A nats-server with JetStream in a directory of its own, which can be killed and started again on the same data.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use async_nats::jetstream;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::eventually;

pub(crate) struct Server {
    pub(crate) port: u16,
    directory: TempDir,
    child: Child,
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
        let store = format!("\"{}\"", directory.path().display());
        let text = format!("listen: \"127.0.0.1:{port}\"\n{}\n", configuration.replace("STORE", &store));
        std::fs::write(directory.path().join("nats.conf"), text).expect("the directory is writable");
        let child = spawn(directory.path());
        let mut server = Server { port, directory, child };
        server.ready().await;
        server
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
        let client = async_nats::connect(format!("127.0.0.1:{}", self.port)).await.expect("the server runs");
        jetstream::new(client)
    }

    async fn ready(&mut self) {
        let port = self.port;
        let (child, log) = (&mut self.child, self.directory.path().join("log"));
        eventually("the server greets", async || {
            if let Some(status) = child.try_wait().expect("it is a child") {
                panic!("{status}: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            let mut greeting = [0; 4];
            match TcpStream::connect(("127.0.0.1", port)).await {
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

/// A port nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("there are free ports");
    listener.local_addr().expect("it is bound").port()
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

/// `WEIR_NATS_SERVER`, else the one on the PATH, else the newest in the workspace's cache.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_NATS_SERVER") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|dir| dir.join("nats-server")).find(|file| file.is_file()) {
        return found;
    }
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/servers");
    let mut found = Vec::new();
    collect(&cache, &mut found);
    found.into_iter().max().map(|(_, file)| file).unwrap_or_else(|| {
        panic!("no nats-server: set WEIR_NATS_SERVER, or put one on the PATH or under {}", cache.display())
    })
}

fn collect(directory: &Path, found: &mut Vec<(SystemTime, PathBuf)>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => collect(&path, found),
            Ok(metadata) if metadata.is_file() && path.ends_with("nats-server") => {
                found.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), path));
            }
            _ => {}
        }
    }
}

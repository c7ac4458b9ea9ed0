//! A real etcd, an embedded store, and what both have in common for tests: they can be killed and come back.

use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use weir_meta::store::MetaStore;
use weir_meta::store::embedded::EmbeddedStore;
use weir_meta::store::etcd::EtcdStore;

/// How long anything may take that is expected to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until a condition holds, and fails if it does not come true.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A running etcd of one member, killed on drop.
pub(crate) struct Etcd {
    process: Child,
    ports: [u16; 2],
    directory: TempDir,
}

impl Etcd {
    /// Starts one with an empty data directory and waits until it answers.
    pub(crate) async fn start() -> Etcd {
        let directory = tempfile::tempdir().unwrap();
        let ports = [free_port(), free_port()];
        let mut etcd = Etcd { process: spawn(directory.path(), ports), ports, directory };
        etcd.wait_until_up().await;
        etcd
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// A new store in this etcd.
    pub(crate) async fn store(&self) -> EtcdStore {
        EtcdStore::open(&[self.endpoint()]).await.unwrap()
    }

    /// Ends the process with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same ports and data.
    pub(crate) async fn restart(&mut self) {
        self.process = spawn(self.directory.path(), self.ports);
        self.wait_until_up().await;
    }

    /// Sends a signal that does not end it.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    async fn wait_until_up(&mut self) {
        // A client of its own, so that nothing of the store under test helps it to reconnect.
        let deadline = Instant::now() + PATIENCE;
        while self.store().await.get("up").await.is_err() {
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(self.process.try_wait().unwrap().is_none(), "etcd ended:\n{}", log());
            assert!(Instant::now() < deadline, "etcd does not answer:\n{}", log());
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(directory: &Path, [client, peer]: [u16; 2]) -> Child {
    let client = format!("http://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
    Command::new(program())
        .args(["--data-dir".as_ref(), directory.join("data").as_os_str()])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A free port that clients' sockets do not use, so that a server which is down keeps its port for its restart; given to
/// nobody else by this process.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    let ports = std::iter::repeat_with(|| rand::rng().random_range(12_000..32_000));
    let is_free = |port: &u16| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = ports.take(1_000).find(is_free).expect("a free port");
    given.insert(port);
    port
}

/// The etcd to test with: `WEIR_ETCD`, else the one in the path, else the one that `deploy/setup.sh` fetched.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("WEIR_ETCD") {
        return program.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(program) = std::env::split_paths(&path).map(|entry| entry.join("etcd")).find(|file| file.is_file()) {
        return program;
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/servers/bin/etcd");
    assert!(fetched.is_file(), "no etcd: set WEIR_ETCD or run deploy/setup.sh");
    fetched
}

/// A metadata store under test, whichever it is.
pub(crate) enum Backend {
    Etcd { server: Etcd, store: Arc<dyn MetaStore> },
    Embedded { directory: TempDir, store: Option<Arc<dyn MetaStore>> },
}

impl Backend {
    pub(crate) async fn etcd() -> Backend {
        let server = Etcd::start().await;
        let store = Arc::new(server.store().await);
        Backend::Etcd { server, store }
    }

    pub(crate) async fn embedded() -> Backend {
        let mut backend = Backend::Embedded { directory: tempfile::tempdir().unwrap(), store: None };
        backend.restart().await;
        backend
    }

    pub(crate) fn store(&self) -> Arc<dyn MetaStore> {
        match self {
            Backend::Etcd { store, .. } => Arc::clone(store),
            Backend::Embedded { store, .. } => Arc::clone(store.as_ref().unwrap()),
        }
    }

    /// Kills and restarts etcd under the store that is in use; closes and opens the embedded one, whose other users
    /// have to be gone.
    pub(crate) async fn restart(&mut self) {
        match self {
            Backend::Etcd { server, .. } => {
                server.kill();
                server.restart().await;
            }
            Backend::Embedded { directory, store } => {
                if let Some(store) = store.take() {
                    assert_eq!(Arc::strong_count(&store), 1);
                }
                *store = Some(Arc::new(EmbeddedStore::open(directory.path().join("meta.redb")).await.unwrap()));
            }
        }
    }
}

/// Makes two tests of each case, a function of a [`Backend`].
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod on_etcd {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(crate::support::Backend::etcd().await).await;
            })*
        }
        mod on_embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(crate::support::Backend::embedded().await).await;
            })*
        }
    };
}
pub(crate) use on_both;

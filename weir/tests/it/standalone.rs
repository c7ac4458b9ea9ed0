//! A standalone node from its start to its end.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    process: Child,
    log: PathBuf,
    http: String,
    sql: String,
}

impl Node {
    /// Starts one on free ports and waits until it has said which.
    fn start(data: &TempDir) -> Node {
        let log = data.path().join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_")) {
            command.env_remove(name);
        }
        let process = command
            .args(["standalone", "--http-listen", "127.0.0.1:0", "--sql-listen", "127.0.0.1:0"])
            .args(["--parallelism", "2", "--data-dir"])
            .arg(data.path().join("data"))
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut node = Node { process, log, http: String::new(), sql: String::new() };
        wait("the line that says where it listens", || {
            assert_eq!(node.process.try_wait().unwrap(), None, "it ended:\n{}", node.logged());
            let logged = node.logged();
            let listens = logged.lines().find(|line| line.contains("standalone node listens"));
            let field = |name| listens?.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
            let (http, sql) = (field("http="), field("sql="));
            node.http = http.unwrap_or_default();
            node.sql = sql.unwrap_or_default();
            // The line may be there in part only.
            logged.ends_with('\n') && !node.http.is_empty()
        });
        node
    }

    /// The answer to a GET, status line included; none if nobody listens.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.http).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn wait_until_ready(&mut self) {
        let ready = |node: &mut Node| {
            assert_eq!(node.process.try_wait().unwrap(), None, "it ended:\n{}", node.logged());
            node.get("/ready").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        };
        wait("ready", || ready(self));
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it with a signal; until then it must have had nothing to complain about.
    fn stop(&mut self, signal: &str) -> ExitStatus {
        assert!(Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap().success());
        let mut status = None;
        wait("the end of the process", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        let logged = self.logged();
        assert!(!logged.contains(" WARN ") && !logged.contains("ERROR "), "{logged}");
        status.unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_standalone_node_becomes_ready_and_stops_in_order() {
    let data = TempDir::new().unwrap();
    for signal in ["-TERM", "-INT"] {
        let mut node = Node::start(&data);
        node.wait_until_ready();
        assert!(node.get("/health").unwrap().starts_with("HTTP/1.1 200"));
        assert!(node.get("/metrics").unwrap().starts_with("HTTP/1.1 200"));
        TcpStream::connect(&node.sql).unwrap();
        assert_eq!(node.stop(signal).code(), Some(0), "after {signal}");
    }
}

#[test]
fn a_standalone_node_that_was_killed_starts_again_on_its_data() {
    let data = TempDir::new().unwrap();
    for _ in 0..3 {
        let mut node = Node::start(&data);
        node.wait_until_ready();
        node.stop("-KILL");
    }
}

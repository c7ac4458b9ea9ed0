//! How the running cluster is told what to do: one JSON line each way over a Unix socket, one request a connection.
//!
//! Owns the socket's file: it is there while a cluster runs, and one that a killed program left behind is replaced.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// What can be asked of a running cluster.
#[derive(Clone, Debug, Deserialize, Serialize, Subcommand)]
pub(crate) enum Request {
    /// Starts one more compute node
    Add,
    /// Lets a compute node hand its share over and end (SIGTERM)
    Remove {
        /// Its name
        node: String,
    },
    /// Kills a process at once (SIGKILL)
    Kill {
        /// Its name
        node: String,
    },
    /// Starts a killed process again, on its ports and data
    Start {
        /// Its name
        node: String,
    },
    /// Lists the processes
    Status,
}

/// What is answered: a text to print, or why not.
type Answer = Result<String, String>;

/// The socket of a running cluster.
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// Somebody who asks.
pub(crate) struct Caller {
    stream: UnixStream,
    line: String,
}

impl Control {
    /// Makes the socket.
    pub(crate) async fn open(path: PathBuf) -> Result<Control> {
        let running = UnixStream::connect(&path).await.is_ok();
        ensure!(!running, "a cluster runs already and takes commands on {}", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        // Nobody answers there: what is left of a program that was killed.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        Ok(Control { listener, path })
    }

    /// The next one who asks.
    pub(crate) async fn accept(&self) -> Result<Caller> {
        loop {
            let (mut stream, _) = self.listener.accept().await?;
            let mut line = String::new();
            // Whoever connects without a line is looking whether a cluster runs.
            if BufReader::new(&mut stream).read_line(&mut line).await.is_ok_and(|read| read > 0) {
                return Ok(Caller { stream, line });
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Caller {
    /// What is asked.
    pub(crate) fn request(&self) -> Result<Request> {
        serde_json::from_str(&self.line).context("this is no request that the running cluster knows")
    }

    /// Answers. A caller that is gone does not want to know.
    pub(crate) async fn answer(mut self, answer: Result<String>) {
        let answer: Answer = answer.map_err(|error| format!("{error:#}"));
        let line = serde_json::to_string(&answer).expect("strings serialise");
        let _ = self.stream.write_all(line.as_bytes()).await;
    }
}

/// Asks the running cluster and returns what it answers.
pub(crate) async fn ask(path: &Path, request: &Request) -> Result<String> {
    let connected = UnixStream::connect(path).await;
    let mut stream = connected.context("no cluster runs; `make cluster` in another terminal starts one")?;
    let line = serde_json::to_string(request).expect("strings serialise");
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await?;
    let answer: Answer = serde_json::from_str(&answer).context("the cluster ended before it answered")?;
    answer.map_err(|error| anyhow!(error))
}

//! `make cluster`: nats-server, etcd and a Weir of several processes on this machine, to try out what happens when nodes
//! come, go and die.
//!
//! One program in two parts: the one that is started without a command runs the processes, in the foreground; the same
//! program with a command (`add`, `remove`, `kill`, `start`, `status`) asks it to change them, through a socket that both
//! find in the cache folder. All processes, and their data, end with the first: by a signal, or with its standard input if
//! that is no terminal, so that whoever starts it from a program need not remember to end it.

mod control;
mod members;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use weir_e2e::process::workspace;
use weir_e2e::sandbox::{Sandbox, program};

use control::{Control, Request};
use members::Members;

/// Runs a cluster on this machine, or changes the one that runs.
#[derive(Parser)]
struct Options {
    /// The socket on which the running cluster takes commands
    #[arg(long, global = true, value_name = "FILE", default_value_os_t = default_socket())]
    control: PathBuf,
    #[command(subcommand)]
    request: Option<Request>,
}

fn default_socket() -> PathBuf {
    workspace().join(".cache/cluster.sock")
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { control, request } = Options::parse();
    let done = match request {
        // The socket first: a second cluster must not even have a folder.
        None => match Control::open(control).await {
            Ok(control) => return program("cluster", async |sandbox| run(sandbox, &control).await).await,
            Err(error) => Err(error),
        },
        Some(request) => control::ask(&control, &request).await,
    };
    match done {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a cluster until it is told to stop.
async fn run(sandbox: &Sandbox, control: &Control) -> Result<()> {
    tokio::select! {
        stopped = stopped() => stopped,
        failed = serve(sandbox, control) => failed,
    }
}

/// Starts the cluster and does what is asked of it, for ever. One request at a time: whoever asks while a node is being
/// drained waits for that.
async fn serve(sandbox: &Sandbox, control: &Control) -> Result<()> {
    println!("* starting nats-server, etcd and Weir");
    let mut members = Members::start(sandbox).await?;
    println!("{}", members.greeting());
    loop {
        let caller = control.accept().await?;
        let answer = match caller.request() {
            Ok(request) => members.perform(request).await,
            Err(error) => Err(error),
        };
        caller.answer(answer).await;
    }
}

/// Returns when the cluster is to stop.
async fn stopped() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
        () = input_ended() => {}
    }
    println!("* stopping");
    Ok(())
}

/// Returns when standard input ends; never if it is a terminal. The thread is never joined: a read of standard input
/// cannot be interrupted, and must not hold the end of the program up.
async fn input_ended() {
    if std::io::stdin().is_terminal() {
        return std::future::pending().await;
    }
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut buffer = [0; 1024];
        // An input that cannot be read has ended too.
        while input.read(&mut buffer).is_ok_and(|read| read > 0) {}
        drop(ended);
    });
    // Ends with the sender.
    let _ = end.await;
}

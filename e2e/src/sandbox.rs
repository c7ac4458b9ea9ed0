//! A place for one scenario: a temporary folder, free ports, and the logs of every process in it.
//!
//! Owns the folder and the rule that a WARN or ERROR line in a Weir process's log which the scenario did not announce
//! fails the scenario, as does a Weir process that ends by itself. Does not own the processes: they are dropped, and so
//! killed, before the sandbox, also when a program is ended by a signal. When a scenario or a program fails, the end of
//! every log is printed and the folder stays.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use tokio::signal::unix::{SignalKind, signal};

/// Ports that clients' sockets do not use, so that a server which is down keeps its port for its restart.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// How many lines of each log are printed when a scenario fails.
const TAIL_LINES: usize = 40;

/// Where one scenario runs.
pub struct Sandbox {
    folder: tempfile::TempDir,
    logs: Mutex<Vec<Arc<Log>>>,
    /// Whether the program has nothing left to do but to stay.
    stays: AtomicBool,
}

/// The log of one process, over all its restarts.
#[derive(Debug)]
pub struct Log {
    name: String,
    path: PathBuf,
    /// Whether unannounced warnings fail the scenario: so for Weir, not for the servers of others.
    strict: bool,
    announced: Mutex<Vec<String>>,
    /// What was noticed of the process that it did not print itself.
    reported: Mutex<Vec<String>>,
}

impl Sandbox {
    /// A new folder, named after the scenario.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(name: &str) -> Result<Sandbox> {
        let folder = tempfile::Builder::new().prefix(&format!("weir-{name}-")).tempdir()?;
        std::fs::create_dir(folder.path().join("logs"))?;
        Ok(Sandbox { folder, logs: Mutex::default(), stays: AtomicBool::new(false) })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a folder in it, made if absent.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// A log for the process of that name.
    pub fn log(&self, name: &str, strict: bool) -> Arc<Log> {
        let path = self.path().join("logs").join(format!("{name}.log"));
        let log = Arc::new(Log {
            name: name.to_owned(),
            path,
            strict,
            announced: Mutex::default(),
            reported: Mutex::default(),
        });
        lock(&self.logs).push(Arc::clone(&log));
        log
    }

    /// Stays for ever: the [`program`] has done its work, and ends well when it is told to end.
    pub async fn stay(&self) -> ! {
        self.stays.store(true, Ordering::Relaxed);
        std::future::pending().await
    }

    /// Fails if a Weir process logged a WARN or ERROR line that was not announced, or ended by itself.
    ///
    /// # Errors
    /// With the lines that nobody announced.
    pub fn check_logs(&self) -> Result<()> {
        let mut unannounced = Vec::new();
        for log in lock(&self.logs).iter().filter(|log| log.strict) {
            unannounced.extend(log.unannounced()?.into_iter().map(|line| format!("{}: {line}", log.name)));
        }
        ensure!(unannounced.is_empty(), "lines in logs that were not announced:\n{}", unannounced.join("\n"));
        Ok(())
    }

    /// Prints the end of every log to standard error.
    fn print_tails(&self) {
        for log in lock(&self.logs).iter() {
            let text = log.read().unwrap_or_default();
            let lines = text.lines().collect::<Vec<_>>();
            eprintln!("--- {} (the last of {} lines of {})", log.name, lines.len(), log.path.display());
            for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Log {
    /// The name of the process.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that was logged so far.
    ///
    /// # Errors
    /// If the file cannot be read; a process that never started has an empty log.
    pub fn read(&self) -> Result<String> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        }
    }

    /// Announces that WARN and ERROR lines which contain one of the patterns belong to the scenario.
    pub fn expect_warnings(&self, patterns: &[&str]) {
        lock(&self.announced).extend(patterns.iter().map(|&pattern| pattern.to_owned()));
    }

    /// Notes something about the process that nothing announces and that fails the scenario.
    pub(crate) fn report(&self, what: String) {
        lock(&self.reported).push(what);
    }

    fn unannounced(&self) -> Result<Vec<String>> {
        let announced = lock(&self.announced);
        let text = self.read()?;
        let bad = text.lines().filter(|line| is_warning(line));
        let bad = bad.filter(|line| !announced.iter().any(|pattern| line.contains(pattern))).map(str::to_owned);
        Ok(bad.chain(lock(&self.reported).iter().cloned()).collect())
    }
}

/// Whether a line is a warning or an error in `tracing-subscriber`'s text format (time, level, …), a panic's first, or
/// what `weir` says last when it fails.
fn is_warning(line: &str) -> bool {
    let level = line.split_whitespace().nth(1);
    let panic = line.starts_with("thread '") && line.contains("panicked at");
    matches!(level, Some("WARN" | "ERROR")) || panic || line.starts_with("weir: ")
}

/// Runs one scenario in a sandbox of its own on a runtime of its own, and checks the logs at its end.
///
/// # Panics
/// If the scenario fails or a Weir process logged what was not announced; that is how a test fails.
pub fn scenario(name: &str, body: impl AsyncFnOnce(&Sandbox) -> Result<()>) {
    let sandbox = Sandbox::new(name).expect("a temporary folder can be made");
    let mut guard = OnFailure { sandbox: Some(sandbox) };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let sandbox = guard.sandbox.as_ref().expect("set above");
    let outcome = runtime.block_on(body(sandbox)).and_then(|()| sandbox.check_logs());
    drop(runtime);
    if let Err(error) = outcome {
        panic!("scenario {name} failed: {error:?}");
    }
    guard.sandbox = None;
}

/// Runs a program in a sandbox of its own: its success, or a failure that has been explained on standard error by the end
/// of every log and, after that, by the error. A signal that asks the program to end drops the body and with it every
/// process it has started; that is a success only when the body had said that it had nothing left to do.
pub async fn program(name: &str, body: impl AsyncFnOnce(&Sandbox) -> Result<()>) -> ExitCode {
    let sandbox = match Sandbox::new(name) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            eprintln!("{name} has no folder to run in: {error:?}");
            return ExitCode::FAILURE;
        }
    };
    let mut guard = OnFailure { sandbox: Some(sandbox) };
    let sandbox = guard.sandbox.as_ref().expect("set above");
    let outcome = tokio::select! {
        outcome = body(sandbox) => outcome.map(|()| ExitCode::SUCCESS),
        signal = told_to_end() => signal.map(|signal| match sandbox.stays.load(Ordering::Relaxed) {
            true => ExitCode::SUCCESS,
            // As a shell reports it.
            false => ExitCode::from(128 + signal),
        }),
    };
    match outcome {
        Ok(code) => {
            guard.sandbox = None;
            code
        }
        Err(error) => {
            drop(guard);
            // Without a backtrace, which would bury it.
            eprintln!("\n{name} failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for a signal that asks the process to end; its number.
async fn told_to_end() -> Result<u8> {
    let [mut interrupt, mut terminate, mut hangup] =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let kind = tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hangup.recv() => SignalKind::hangup(),
    };
    Ok(u8::try_from(kind.as_raw_value())?)
}

/// Keeps the folder and prints the logs, unless the sandbox is taken out: also when a scenario panics on its way.
struct OnFailure {
    sandbox: Option<Sandbox>,
}

impl Drop for OnFailure {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.print_tails();
            let path = sandbox.folder.keep();
            eprintln!("--- kept: {}", path.display());
        }
    }
}

/// A free address on the loopback interface, given to nobody else by this process.
///
/// # Panics
/// If no port is free.
pub fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = lock(&GIVEN);
    for _ in 0..1_000 {
        let port = rand::rng().random_range(PORTS);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if !given.contains(&port) && TcpListener::bind(address).is_ok() {
            given.insert(port);
            return address;
        }
    }
    panic!("no free port between {} and {}", PORTS.start, PORTS.end)
}

/// Locks; a panic elsewhere leaves these plain lists in order.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unannounced_warnings_are_reported() {
        let sandbox = Sandbox::new("log").expect("a folder");
        let log = sandbox.log("weir", true);
        let text = "2026-01-01T00:00:00.000000Z  INFO weir: started\n\
                    2026-01-01T00:00:01.000000Z  WARN weir: connection lost node=1\n\
                    2026-01-01T00:00:02.000000Z ERROR weir: WARN is only a word here\n\
                    thread 'main' panicked at src/main.rs:1:1:\n\
                    weir: compute node failed: no more room\n";
        std::fs::write(log.path(), text).expect("the folder is writable");
        log.expect_warnings(&["connection lost"]);
        let lines = log.unannounced().expect("the log is readable");
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("only a word") && lines[1].starts_with("thread 'main'"));
        assert!(lines[2].starts_with("weir: compute node failed"));
        assert!(sandbox.check_logs().is_err());
    }
}

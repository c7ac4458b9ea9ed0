//! A child process that can be killed, ended and started again on the same ports and data.
//!
//! Owns the child: when the handle goes, the process goes, by its id. Does not know what the process is nor when it
//! is ready. Invariants: at most one child lives per handle, everything it prints is appended to one log, and a child
//! that ends without being told to is noticed, at the latest when the handle goes. The id of a child that was waited for
//! may belong to somebody else by now, so it is forgotten with it.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::sandbox::Log;
use crate::wait::eventually;

/// What to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What is added to the environment.
    pub environment: Vec<(String, String)>,
}

/// A process, running or not.
pub struct Process {
    program: Program,
    log: Arc<Log>,
    state: State,
}

/// What became of the child.
enum State {
    /// It runs, or has ended and nobody has looked yet.
    Running(Child),
    /// It ended without being told to.
    Ended(ExitStatus),
    /// It was never started, or was killed or terminated here.
    Down,
}

impl Program {
    /// A program with arguments and an unchanged environment.
    pub fn new(path: PathBuf, arguments: impl IntoIterator<Item = String>) -> Program {
        Program { path, arguments: arguments.into_iter().collect(), environment: Vec::new() }
    }
}

impl Process {
    /// Starts the program.
    ///
    /// # Errors
    /// If the executable cannot be run.
    pub fn start(program: Program, log: Arc<Log>) -> Result<Process> {
        let mut process = Process { program, log, state: State::Down };
        process.restart()?;
        Ok(process)
    }

    /// Its log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The id of the running child.
    ///
    /// # Errors
    /// If none runs.
    pub fn pid(&self) -> Result<u32> {
        match &self.state {
            State::Running(child) => Ok(child.id()),
            State::Ended(status) => bail!("{} ended by itself: {status}", self.log.name()),
            State::Down => bail!("{} does not run", self.log.name()),
        }
    }

    /// Whether the child runs.
    ///
    /// # Errors
    /// If its state cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        self.look()?;
        Ok(matches!(self.state, State::Running(_)))
    }

    /// Notices the end of a child that ended by itself.
    fn look(&mut self) -> Result<()> {
        if let State::Running(child) = &mut self.state
            && let Some(status) = child.try_wait()?
        {
            self.state = State::Ended(status);
            self.log.report(format!("the process ended by itself: {status}"));
        }
        Ok(())
    }

    /// SIGKILL, and waits until the process is gone. Does nothing if none was started since the last kill.
    ///
    /// # Errors
    /// If it has ended by itself before, which a kill must not hide.
    pub fn kill9(&mut self) -> Result<()> {
        self.look()?;
        if let State::Ended(_) = self.state {
            self.pid()?;
        }
        self.kill_silently();
        Ok(())
    }

    fn kill_silently(&mut self) {
        if let State::Running(mut child) = std::mem::replace(&mut self.state, State::Down) {
            // Both fail only if the process is gone already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal: `STOP` and `CONT` do what a scheduler or a hypervisor might.
    ///
    /// # Errors
    /// If no child runs.
    pub fn signal(&self, name: &str) -> Result<()> {
        signal(name, &[self.pid()?])
    }

    /// SIGTERM, and waits for the process to end in its own way.
    ///
    /// # Errors
    /// If it had ended before, or has not ended by the deadline.
    pub async fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.look()?;
        self.signal("TERM")?;
        self.end(deadline).await
    }

    /// Waits for a process that ends when its work is done.
    ///
    /// # Errors
    /// If it has not ended by the deadline.
    pub async fn end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let State::Running(child) = &mut self.state else { bail!("{} does not run", self.log.name()) };
        let what = format!("the end of {}", self.log.name());
        let status = eventually(&what, deadline, async || Ok(child.try_wait()?)).await?;
        self.state = State::Down;
        Ok(status)
    }

    /// Starts the program again as it was, after killing it if it runs.
    ///
    /// # Errors
    /// If it has ended by itself before, or the executable cannot be run.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        let output = OpenOptions::new().create(true).append(true).open(self.log.path())?;
        let mut command = Command::new(&self.program.path);
        // What a developer has set for Weirs of their own would change those under test, or blind the check of their logs.
        for (name, _) in std::env::vars_os() {
            if ["WEIR_", "OTEL_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        let child = command
            .args(&self.program.arguments)
            .envs(self.program.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.path.display()))?;
        self.state = State::Running(child);
        Ok(())
    }

    /// The processor time that the running child has used, over all its threads.
    ///
    /// # Errors
    /// If none runs, or the system has no `/proc`.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time_of(self.pid()?)
    }
}

/// SIGKILL to all of them at once, so that none lives to tell of another's death.
pub fn kill9_together<'a>(processes: impl IntoIterator<Item = &'a mut Process>) {
    let mut processes = processes.into_iter().collect::<Vec<_>>();
    // If the state of one cannot be read, killing it will do no harm.
    processes.iter_mut().for_each(|process| drop(process.look()));
    let pids = processes.iter().filter_map(|process| process.pid().ok()).collect::<Vec<_>>();
    // What cannot be signalled is gone already; the rest is killed one by one below.
    let _ = signal("KILL", &pids);
    processes.into_iter().for_each(Process::kill_silently);
}

/// Sends a signal by the shell's builtin; otherwise that needs `unsafe` or one more dependency.
fn signal(name: &str, pids: &[u32]) -> Result<()> {
    let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pids}")]).stderr(Stdio::null()).status()?;
    ensure!(sent.success(), "process {pids} cannot be signalled");
    Ok(())
}

impl Drop for Process {
    fn drop(&mut self) {
        // Tells the log of a process that has ended by itself; if that cannot be known, there is nobody to tell.
        let _ = self.look();
        self.kill_silently();
    }
}

/// The processor time that a process has used, over all its threads, from `/proc/<pid>/stat`.
///
/// # Errors
/// If there is no such process, or the system has no `/proc`.
pub fn cpu_time_of(pid: u32) -> Result<Duration> {
    /// Ticks a second in what the kernel reports to users; fixed by its interface on every platform Weir runs on.
    const USER_HZ: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field, the name, may hold blanks and ends with the last parenthesis; utime is the 14th field.
    let after_name = stat.rsplit_once(')').context("a stat line has a name")?.1;
    let mut ticks = after_name.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || ticks.next().context("a stat line has 52 fields")?.context("ticks are a number");
    let (user, system) = (next()?, next()?);
    Ok(Duration::from_millis((user + system) * 1_000 / USER_HZ))
}

/// The executable `weir` that was built beside the running one.
///
/// # Errors
/// If there is none: `cargo build --workspace --bins` makes it.
pub fn weir_executable() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Tests lie in target/<profile>/deps, binaries in target/<profile>.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("weir")).find(|path| path.is_file());
    found.context("no weir beside this executable; build it with `cargo build --workspace --bins` of the same profile")
}

/// The executable of a server that the set-up script provides.
///
/// # Errors
/// If it is not there: `deploy/setup.sh servers` makes it.
pub fn server_executable(name: &str) -> Result<PathBuf> {
    let path = workspace().join(".cache/servers/bin").join(name);
    ensure!(path.exists(), "no {}; `deploy/setup.sh servers` provides it", path.display());
    Ok(path)
}

/// The nats-server that `WEIR_NATS_SERVER` names, else the one that the set-up script provides.
///
/// # Errors
/// If it is not there.
pub fn nats_executable() -> Result<PathBuf> {
    match std::env::var_os("WEIR_NATS_SERVER") {
        Some(path) => Ok(path.into()),
        None => server_executable("nats-server"),
    }
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::scenario;
    use crate::wait::{PATIENCE, eventually_equal};

    fn shell(script: &str) -> Program {
        Program::new("/bin/sh".into(), ["-c".to_owned(), script.to_owned()])
    }

    #[test]
    fn a_process_is_killed_restarted_and_terminated() {
        scenario("process", async |sandbox| {
            let program = shell("echo started; exec sleep 600");
            let mut process = Process::start(program, sandbox.log("shell", true))?;
            let first = process.pid()?;
            process.cpu_time()?;
            let log = Arc::clone(process.log());
            let lines = async || Ok(log.read()?.lines().count());
            eventually_equal("the first start", PATIENCE, 1, lines).await?;
            process.restart()?;
            eventually_equal("the second start", PATIENCE, 2, lines).await?;
            assert_ne!(process.pid()?, first);
            assert!(process.is_running()?);
            let status = process.terminate(PATIENCE).await?;
            assert!(!status.success());
            assert!(!process.is_running()?);
            Ok(())
        });
    }

    #[test]
    fn a_process_that_ends_by_itself_is_noticed_however_it_is_looked_at() {
        let sandbox = crate::sandbox::Sandbox::new("ended").expect("a folder");
        let start = |name: &str| {
            let mut process = Process::start(shell("exit 3"), sandbox.log(name, true)).expect("a shell");
            if let State::Running(child) = &mut process.state {
                // Waits, and leaves the status to be asked for again.
                child.wait().expect("a status");
            }
            process
        };
        assert!(start("killed").kill9().is_err());
        assert!(start("restarted").restart().is_err());
        assert!(start("signalled").is_running().is_ok_and(|running| !running));
        kill9_together([&mut start("together")]);
        drop(start("dropped"));
        let reported = sandbox.check_logs().expect_err("they ended by themselves").to_string();
        for name in ["killed", "restarted", "signalled", "together", "dropped"] {
            assert!(reported.contains(&format!("{name}: the process ended by itself: exit status: 3")), "{reported}");
        }
    }
}

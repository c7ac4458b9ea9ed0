//! `make demo` as a machine runs it: without a terminal it checks itself and ends well, and a signal ends all of it.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_e2e::process::{Process, Program};
use weir_e2e::sandbox::{Sandbox, scenario};
use weir_e2e::wait::eventually;
use weir_e2e::workload::LiveStreamMetrics;

use crate::support::SOON;

/// What the demo may take on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(180);

fn start(sandbox: &Sandbox) -> Result<Process> {
    Process::start(Program::new(env!("CARGO_BIN_EXE_demo").into(), []), sandbox.log("demo", false))
}

#[test]
fn the_demo_checks_itself_and_ends() {
    scenario("demo", async |sandbox| {
        let mut demo = start(sandbox)?;
        let ended = demo.end(DEADLINE).await;
        if ended.is_err() {
            // So that what it has started goes with it.
            demo.terminate(SOON).await?;
        }
        let (status, printed) = (ended?, demo.log().read()?);
        ensure!(status.success() && printed.contains(LiveStreamMetrics::SUBJECT) && printed.contains("Checked:"));
        Ok(())
    });
}

#[test]
fn a_demo_that_is_ended_takes_its_servers_with_it() {
    scenario("demo-ended", async |sandbox| {
        let mut demo = start(sandbox)?;
        let address = eventually("the demo's Weir to run", DEADLINE, async || {
            let printed = demo.log().read()?;
            let address = printed.lines().find_map(|line| line.strip_prefix("* weir standalone runs, SQL at "));
            Ok(address.map(str::parse::<SocketAddr>).transpose()?)
        })
        .await?;
        TcpStream::connect(address).context("the demo's Weir listens")?;
        let status = demo.terminate(SOON).await?;
        ensure!(status.code() == Some(128 + 15), "it had not done its work: {status}");
        ensure!(TcpStream::connect(address).is_err(), "the demo's Weir has outlived it");
        Ok(())
    });
}

//! The `weir` program: reads its configuration, starts logging, runs a role until it is told to stop.

use std::process::ExitCode;

use anyhow::Context;
use tracing::warn;
use weir::config::{self, Role};
use weir::{run, signal};
use weir_common::telemetry::{self, Export};

/// Rows travel in small buffers that one thread makes and another frees, which glibc's allocator is slow at
/// (docs/benchmarks.md).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// SQL is planned recursively: long expressions need deeper stacks than a thread has by default.
const STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    let role = match config::load(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(role) => role,
        // Help, version and misused flags: told in the usual form, with the usual exit status.
        Err(config::Error::Usage(usage)) => usage.exit(),
        Err(error) => return fail(&error.into()),
    };
    match start(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn start(role: Role) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build()
        .context("cannot start threads")?;
    let export = match role.otlp_endpoint(|name| std::env::var_os(name))? {
        Some(endpoint) => {
            let _runtime = runtime.enter();
            Some(Export::to(&endpoint, role.name())?)
        }
        None => None,
    };
    telemetry::start(export.as_ref());
    // A client takes two file descriptors, and the usual soft limit is 1,024.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        warn!(%error, "the limit of open files stays as it is");
    }
    if let Some(export) = &export {
        export.announce();
    }
    let ended = runtime.block_on(async {
        let cancel = signal::stop_on_signal().context("cannot watch signals")?;
        Ok(run::run(role, cancel).await?)
    });
    if let Some(export) = export {
        export.stop();
    }
    ended
}

/// One line with all causes.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("weir: {}", weir_common::error::chain(error.as_ref()));
    ExitCode::FAILURE
}

//! `make demo` as a machine runs it: without a terminal it checks itself and ends well.

use std::process::{Command, Stdio};

use weir_e2e::workload::LiveStreamMetrics;

#[test]
fn the_demo_checks_itself_and_ends() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).stdin(Stdio::null()).output().expect("the demo can be run");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains(LiveStreamMetrics::SUBJECT) && printed.contains("Checked:"), "{printed}");
}

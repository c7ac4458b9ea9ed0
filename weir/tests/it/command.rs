//! Help, refusals and failures, as the shell sees them.

use std::net::TcpListener;
use std::process::{Command, Output};

/// Runs `weir` with no variables of this process but these.
fn weir(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).output().unwrap()
}

/// The last line on standard error; the log may stand before it.
fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn help_and_version_are_no_failures() {
    for arguments in [&["--help"][..], &["--version"], &["standalone", "--help"], &["meta", "-h"]] {
        let output = weir(arguments, &[]);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn a_configuration_that_is_refused_is_told_in_one_line() {
    let output = weir(&["frontend"], &[("WEIR_SQL_LISTEN", "everywhere")]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("weir: environment variable WEIR_SQL_LISTEN cannot be \"everywhere\": "), "{stderr}");
    assert_eq!(weir(&["frontend", "--no-such-flag"], &[]).status.code(), Some(2));
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for role in ["standalone", "frontend", "compute", "meta"] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().to_str().unwrap();
        let mut arguments = vec![role, "--http-listen", &address];
        match role {
            "standalone" => arguments.extend(["--sql-listen", "127.0.0.1:0", "--data-dir", data]),
            "frontend" => arguments.extend(["--sql-listen", "127.0.0.1:0"]),
            _ => arguments.extend(["--listen", "127.0.0.1:0"]),
        }
        let output = weir(&arguments, &[]);
        assert_eq!(output.status.code(), Some(1), "{role}");
        let line = last_line(&output);
        assert!(line.starts_with(&format!("weir: cannot listen on {address}: ")), "{role}: {line}");
    }
}

#[test]
fn a_node_on_all_interfaces_has_to_say_how_it_is_reached() {
    let output = weir(&["compute", "--insecure", "--listen", "0.0.0.0:0", "--http-listen", "127.0.0.1:0"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(last_line(&output).contains("--advertise"), "{}", last_line(&output));
}

#[test]
fn a_node_may_be_reached_under_the_name_of_its_machine() {
    // Without an object store it goes no further than to say where it listens.
    let name = Command::new("uname").arg("-n").output().unwrap().stdout;
    let name = String::from_utf8(name).unwrap();
    let mut arguments = vec!["compute", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    arguments.extend(["--advertise", "{hostname}.weir:5688", "--state-url", "nowhere://state"]);
    let output = weir(&arguments, &[]);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains(&format!("advertise=\"{}.weir:5688\"", name.trim())), "{log}");
}

#[test]
fn a_listener_that_other_machines_reach_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    for (role, open, closed) in [
        ("standalone", "--sql-listen", "--http-listen"),
        ("standalone", "--http-listen", "--sql-listen"),
        ("frontend", "--sql-listen", "--http-listen"),
        ("frontend", "--http-listen", "--sql-listen"),
        ("compute", "--listen", "--http-listen"),
        ("compute", "--http-listen", "--listen"),
        ("meta", "--listen", "--http-listen"),
        ("meta", "--http-listen", "--listen"),
    ] {
        let mut arguments = vec![role, open, "0.0.0.0:0", closed, "127.0.0.1:0"];
        if role == "standalone" {
            arguments.extend(["--data-dir", data]);
        }
        let output = weir(&arguments, &[("WEIR_INSECURE", "false")]);
        assert_eq!(output.status.code(), Some(1), "{role} {open}");
        let line = last_line(&output);
        assert!(line.starts_with("weir: refusing to listen on 0.0.0.0:0, "), "{role} {open}: {line}");
        assert!(line.contains("WEIR_INSECURE=true"), "{line}");
    }
}

#[test]
fn a_node_that_lets_everybody_in_warns_of_it() {
    // It goes no further than to the next complaint, after it has listened.
    let arguments = ["compute", "--listen", "0.0.0.0:0", "--http-listen", "0.0.0.0:0"];
    let output = weir(&arguments, &[("WEIR_INSECURE", "true")]);
    assert!(last_line(&output).contains("--advertise"), "{}", last_line(&output));
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(log.matches("whoever reaches a port of this node is let in").count(), 1, "{log}");
}

#[test]
fn a_filter_of_the_log_that_cannot_be_read_is_told() {
    let stderr = |filter| {
        let arguments = ["compute", "--insecure", "--listen", "0.0.0.0:0", "--http-listen", "127.0.0.1:0"];
        let output = weir(&arguments, &[("WEIR_LOG", filter)]);
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(stderr("weir=loud").contains("WEIR_LOG cannot be read"), "{}", stderr("weir=loud"));
    assert!(!stderr("weir=debug").contains("WEIR_LOG"));
}

#[test]
fn a_data_directory_that_cannot_be_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let output =
        weir(&["standalone", "--data-dir", path, "--sql-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(last_line(&output).starts_with("weir: cannot use data directory"), "{}", last_line(&output));
}

//! Where values come from: every source below the command line becomes the parser's defaults, the weakest first. So the
//! parser itself lets the stronger one win, shows the effective defaults in the help, and checks all values alike.
//!
//! Invariant: nothing in the file is silently ignored; what does not belong there is refused, the tables of roles that
//! do not run included.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use super::{Cli, Error, Role};

/// Reads the configuration of the role that the command line names. `environment` looks a variable up.
///
/// # Errors
/// See [`Error`]; a request for help or the version is one too.
pub fn load(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Role, Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = describe_variables(Cli::command());
    // First only to learn of the file, if there is one.
    let role = parse(with_environment(command.clone(), &environment)?, &arguments)?;
    let Some(path) = role.file() else { return Ok(role) };
    parse(with_environment(with_file(command, path)?, &environment)?, &arguments)
}

fn parse(command: Command, arguments: &[OsString]) -> Result<Role, Error> {
    let mut matches = command.try_get_matches_from(arguments)?;
    Ok(Cli::from_arg_matches_mut(&mut matches)?.role)
}

/// The variable of a field.
fn variable(field: &Arg) -> String {
    format!("WEIR_{}", field.get_id().as_str().to_ascii_uppercase())
}

/// Makes the help of each field name its variable, which makes lines long.
fn describe_variables(command: Command) -> Command {
    let describe = |field: Arg| {
        let help = field.get_help().map(ToString::to_string).unwrap_or_default();
        let name = variable(&field);
        field.help(format!("{help} [env: {name}]"))
    };
    command.mut_subcommands(|role| role.next_line_help(true).mut_args(describe))
}

/// Makes variables the defaults of all fields.
fn with_environment(mut command: Command, environment: impl Fn(&str) -> Option<OsString>) -> Result<Command, Error> {
    for role in command.get_subcommands_mut() {
        let mut set = Vec::new();
        for field in role.get_arguments() {
            if let Some(value) = environment(&variable(field)) {
                check(field, &value, || format!("environment variable {}", variable(field)))?;
                set.push((field.get_id().to_string(), vec![value]));
            }
        }
        set_defaults(role, set);
    }
    Ok(command)
}

/// Makes the file's values the defaults of the fields they name.
fn with_file(mut command: Command, path: &Path) -> Result<Command, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let file = text.parse::<Table>().map_err(|error| syntax(path, &text, &error))?;
    let roles = listed(command.get_subcommands().map(Command::get_name));
    for (name, table) in &file {
        let (Some(role), Value::Table(table)) = (command.find_subcommand_mut(name), table) else {
            return Err(Error::UnknownTable { path: path.to_owned(), name: name.clone(), known: roles });
        };
        let mut set = Vec::new();
        for (key, value) in table {
            let fields = || role.get_arguments().filter(|field| field.get_id() != "config");
            let Some(field) = fields().find(|field| field.get_id() == key.as_str()) else {
                let (path, role, key) = (path.to_owned(), name.clone(), key.clone());
                return Err(Error::UnknownKey {
                    path,
                    role,
                    key,
                    known: listed(fields().map(|field| field.get_id().as_str())),
                });
            };
            let origin = || format!("key \"{key}\" in table [{name}] of configuration file \"{}\"", path.display());
            let values = texts(value).ok_or_else(|| Error::Value {
                origin: origin(),
                value: value.to_string(),
                source: "expected a string, a number or a list of strings".into(),
            })?;
            let together = values.join(OsStr::new(","));
            check(field, &together, origin)?;
            set.push((key.clone(), values));
        }
        set_defaults(role, set);
    }
    Ok(command)
}

fn set_defaults(role: &mut Command, defaults: Vec<(String, Vec<OsString>)>) {
    let mut changed = std::mem::take(role);
    for (field, values) in defaults {
        changed = changed.mut_arg(field, |field| field.default_values(values).hide_default_value(false));
    }
    *role = changed;
}

/// A value of the file as it would stand on the command line; none if it would not.
fn texts(value: &Value) -> Option<Vec<OsString>> {
    match value {
        Value::String(text) => Some(vec![text.into()]),
        Value::Integer(number) => Some(vec![number.to_string().into()]),
        Value::Float(number) => Some(vec![number.to_string().into()]),
        Value::Boolean(truth) => Some(vec![truth.to_string().into()]),
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(|item| item.as_str().map(OsString::from)).collect();
            items.filter(|items| !items.is_empty())
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

/// Parses a value as if it had been given as a flag, to name its origin if it does not fit.
fn check(field: &Arg, value: &OsStr, origin: impl Fn() -> String) -> Result<(), Error> {
    let mut flag = OsString::from(format!("--{}=", field.get_long().unwrap_or_default()));
    flag.push(value);
    let alone = Command::new("value").no_binary_name(true).arg(field.clone().required(false));
    match alone.try_get_matches_from([flag]) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Value {
            origin: origin(),
            value: value.to_string_lossy().into_owned(),
            source: reason(&error).into(),
        }),
    }
}

/// Why a value does not fit, in one line.
fn reason(error: &clap::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    }
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    Error::Syntax { path: path.to_owned(), line, message: error.message().replace('\n', " ") }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::super::{Compute, Frontend, Meta, Process, Standalone};
    use super::*;

    /// Loads with these words after `weir`, these variables, and this file.
    fn load_from(words: &str, variables: &[(&str, &str)], file: Option<&str>) -> Result<Role, Error> {
        let directory = TempDir::new().unwrap();
        let mut arguments: Vec<OsString> = std::iter::once("weir").chain(words.split(' ')).map(Into::into).collect();
        if let Some(text) = file {
            let path = directory.path().join("weir.toml");
            std::fs::write(&path, text).unwrap();
            arguments.extend(["--config".into(), path.into()]);
        }
        let lookup = |name: &str| Some(variables.iter().find(|(variable, _)| *variable == name)?.1.into());
        load(arguments, lookup)
    }

    fn frontend(words: &str, variables: &[(&str, &str)], file: Option<&str>) -> Frontend {
        match load_from(words, variables, file).unwrap() {
            Role::Frontend(frontend) => frontend,
            other => panic!("{other:?}"),
        }
    }

    /// The error as the user reads it.
    fn complaint(words: &str, variables: &[(&str, &str)], file: Option<&str>) -> String {
        let error = load_from(words, variables, file).unwrap_err();
        assert!(!matches!(error, Error::Usage(_)), "{error}");
        let text = weir_common::error::chain(&error);
        assert!(!text.contains('\n'), "{text}");
        text
    }

    #[test]
    fn the_parser_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_wins_over_the_variable_over_the_file_over_the_default() {
        let file = Some("[frontend]\nsql_listen = 'file:1'\n");
        let variables = [("WEIR_SQL_LISTEN", "variable:1")];
        let sql_listen = |words, variables, file| frontend(words, variables, file).sql.sql_listen.to_string();
        assert_eq!(sql_listen("frontend", &[], None), "127.0.0.1:4566");
        assert_eq!(sql_listen("frontend", &[], file), "file:1");
        assert_eq!(sql_listen("frontend", &variables, None), "variable:1");
        assert_eq!(sql_listen("frontend", &variables, file), "variable:1");
        assert_eq!(sql_listen("frontend --sql-listen flag:1", &variables, file), "flag:1");
    }

    #[test]
    fn the_default_of_the_barrier_interval_is_the_roles_own() {
        let interval = |words, file| match load_from(words, &[], file).unwrap() {
            Role::Standalone(standalone) => standalone.barriers.barrier_interval_ms,
            Role::Meta(meta) => meta.barriers.barrier_interval_ms,
            other => panic!("{other:?}"),
        };
        assert_eq!((interval("standalone", None), interval("meta", None)), (200, 1_000));
        let file = Some("[standalone]\nbarrier_interval_ms = 50\n[meta]\nbarrier_interval_ms = 60\n");
        assert_eq!((interval("standalone", file), interval("meta", file)), (50, 60));
    }

    #[test]
    fn lists_are_replaced_as_a_whole_from_each_source() {
        let addresses = |words, variables, file| {
            let frontend = frontend(words, variables, file);
            frontend.meta.meta_addr.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let file = Some("[frontend]\nmeta_addr = ['a:1', 'b:1']\n");
        let variables = [("WEIR_META_ADDR", "c:1,d:1")];
        assert_eq!(addresses("frontend", &[], None), "127.0.0.1:5690");
        assert_eq!(addresses("frontend", &[], file), "a:1 b:1");
        assert_eq!(addresses("frontend", &[], Some("[frontend]\nmeta_addr = 'a:1,b:1'")), "a:1 b:1");
        assert_eq!(addresses("frontend", &variables, file), "c:1 d:1");
        assert_eq!(addresses("frontend --meta-addr e:1,f:1", &variables, file), "e:1 f:1");
        assert_eq!(addresses("frontend --meta-addr e:1 --meta-addr f:1", &variables, file), "e:1 f:1");
    }

    #[test]
    fn numbers_and_paths_come_from_the_file_too() {
        let file = "[standalone]\ndata_dir = '/d'\nbarrier_interval_ms = 50\nparallelism = 3\n\
            [compute]\nparallelism = 4";
        let Role::Standalone(standalone) = load_from("standalone", &[], Some(file)).unwrap() else { panic!() };
        assert_eq!(standalone.data_dir, PathBuf::from("/d"));
        assert_eq!((standalone.barriers.barrier_interval_ms, standalone.capacity.parallelism), (50, 3));
        let Role::Compute(compute) = load_from("compute", &[], Some(file)).unwrap() else { panic!() };
        assert_eq!(compute.capacity.parallelism, 4);
    }

    #[test]
    fn the_file_may_be_named_by_its_variable() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("weir.toml");
        std::fs::write(&path, "[meta]\ncluster = 'c'").unwrap();
        let role = load_from("meta", &[("WEIR_CONFIG", path.to_str().unwrap())], None).unwrap();
        let Role::Meta(meta) = role else { panic!() };
        assert_eq!(meta.cluster.cluster, "c");
    }

    #[test]
    fn what_does_not_belong_in_the_file_is_refused_by_name() {
        let unknown = complaint("meta", &[], Some("[meta]\nlisten = 'a:1'\nlissen = 'a:1'"));
        assert!(unknown.contains("unknown key \"lissen\"") && unknown.contains("table [meta]"), "{unknown}");
        assert!(unknown.contains("listen, advertise, etcd_endpoints"), "{unknown}");
        // In the table of another role too.
        let unknown = complaint("meta", &[], Some("[compute]\nsql_listen = 'a:1'"));
        assert!(unknown.contains("unknown key \"sql_listen\"") && unknown.contains("table [compute]"), "{unknown}");
        let unknown = complaint("meta", &[], Some("[mata]\nlisten = 'a:1'"));
        assert!(unknown.contains("unknown table \"mata\"; there are standalone, meta, compute, frontend"), "{unknown}");
        let unknown = complaint("meta", &[], Some("listen = 'a:1'"));
        assert!(unknown.contains("unknown table \"listen\""), "{unknown}");
        let unknown = complaint("meta", &[], Some("[meta]\nconfig = 'other.toml'"));
        assert!(unknown.contains("unknown key \"config\""), "{unknown}");
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_with_its_origin() {
        let misfit = complaint("meta", &[], Some("[meta]\nlisten = 'here'"));
        assert!(misfit.contains("key \"listen\" in table [meta]") && misfit.contains("cannot be \"here\""), "{misfit}");
        assert!(misfit.ends_with("an address is written host:port, like 127.0.0.1:5690"), "{misfit}");
        // Even if it is not used.
        complaint("meta --listen a:1", &[], Some("[meta]\nlisten = 'here'"));
        complaint("meta --listen a:1", &[("WEIR_LISTEN", "here")], None);
        let misfit = complaint("compute", &[("WEIR_PARALLELISM", "0")], None);
        assert!(misfit.starts_with("environment variable WEIR_PARALLELISM cannot be \"0\": "), "{misfit}");
        let misfit = complaint("compute", &[], Some("[compute]\nparallelism = 1979-05-27"));
        assert!(misfit.ends_with("expected a string, a number or a list of strings"), "{misfit}");
        // No statement could run in less, and nobody waits for days.
        complaint("frontend", &[("WEIR_MEMORY_LIMIT_BYTES", "1024")], None);
        complaint("standalone", &[], Some("[standalone]\nretry_ms_max = 86400001"));
        complaint("frontend", &[], Some("[frontend]\nsql_listen = ['a:1', 'b:1']"));
        complaint("meta", &[], Some("[meta]\netcd_endpoints = []"));
        complaint("meta", &[], Some("[meta]\ncluster = 'a/b'"));
    }

    #[test]
    fn metrics_and_traces_go_where_weir_is_told_or_else_where_all_programs_are() {
        let standard =
            |value: &'static str| move |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| value.into());
        let role = |words, file| load_from(words, &[], file).unwrap();
        let none = role("meta", None);
        assert_eq!(none.otlp_endpoint(|_| None).unwrap(), None);
        assert_eq!(none.otlp_endpoint(standard("")).unwrap(), None);
        assert_eq!(none.otlp_endpoint(standard("http://all:4317/")).unwrap().unwrap(), "http://all:4317");
        let file = role("meta", Some("[meta]\notlp_endpoint = 'http://file:4317'"));
        assert_eq!(file.otlp_endpoint(standard("http://all:4317")).unwrap().unwrap(), "http://file:4317");
        let text = weir_common::error::chain(&none.otlp_endpoint(standard("https://all:4317")).unwrap_err());
        assert!(
            text.contains("variable OTEL_EXPORTER_OTLP_ENDPOINT cannot be") && text.contains("without TLS"),
            "{text}"
        );
        let text = complaint("meta", &[("WEIR_OTLP_ENDPOINT", "localhost:4317")], None);
        assert!(text.contains("http://host:port"), "{text}");
    }

    #[test]
    fn a_truth_is_a_bare_flag_or_has_a_value() {
        let insecure = |words, variables, file| frontend(words, variables, file).process.insecure;
        let file = Some("[frontend]\ninsecure = true\n");
        assert!(!insecure("frontend", &[], None));
        assert!(insecure("frontend --insecure", &[], None));
        assert!(insecure("frontend", &[], file));
        assert!(!insecure("frontend", &[("WEIR_INSECURE", "false")], file));
        assert!(insecure("frontend", &[("WEIR_INSECURE", "true")], None));
        assert!(!insecure("frontend --insecure=false", &[("WEIR_INSECURE", "true")], None));
        let text = complaint("frontend", &[("WEIR_INSECURE", "perhaps")], None);
        assert!(text.starts_with("environment variable WEIR_INSECURE cannot be \"perhaps\": "), "{text}");
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_with_the_line() {
        let text = complaint("meta", &[], Some("[meta]\nlisten = 'a:1'\nlisten = 'b:1'"));
        assert!(text.contains("line 3"), "{text}");
        let text = complaint("meta --config /nowhere/weir.toml", &[], None);
        assert!(text.starts_with("cannot read configuration file \"/nowhere/weir.toml\": "), "{text}");
    }

    #[test]
    fn misused_flags_are_told_in_the_usual_form() {
        for words in ["", "meta --sql-listen a:1", "nothing", "meta --listen", "compute --parallelism 257"] {
            let error = load_from(words, &[], None).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{words}: {error}");
        }
    }

    #[test]
    fn the_help_names_flags_variables_and_defaults() {
        let text = load_from("meta --help", &[], None).unwrap_err().to_string();
        for part in ["A meta node", "--etcd-endpoints", "WEIR_ETCD_ENDPOINTS", "http://127.0.0.1:2379", "--config"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(load_from("--version", &[], None).unwrap_err().to_string().starts_with("weir "));
    }

    #[test]
    fn the_example_file_says_what_the_defaults_are() {
        let example = include_str!("../../../deploy/weir.toml");
        for role in ["standalone", "meta", "compute", "frontend"] {
            let (with, without) = (load_from(role, &[], Some(example)).unwrap(), load_from(role, &[], None).unwrap());
            assert_eq!(without_site(with), without_site(without));
        }
        // Every field is in the example.
        let example: Table = example.parse().unwrap();
        for role in Cli::command().get_subcommands() {
            let fields = role.get_arguments().map(|field| field.get_id().as_str()).filter(|id| *id != "config");
            let missing: Vec<_> =
                fields.filter(|id| !example[role.get_name()].as_table().unwrap().contains_key(*id)).collect();
            assert!(missing.is_empty(), "{missing:?} of {}", role.get_name());
        }
    }

    fn forget(process: &mut Process) {
        process.config = None;
        process.otlp_endpoint = None;
    }

    /// Leaves out what depends on the machine.
    fn without_site(mut role: Role) -> Role {
        match &mut role {
            Role::Standalone(Standalone { capacity, process, .. }) => {
                capacity.parallelism = 1;
                forget(process);
            }
            Role::Meta(Meta { advertise, cluster, process, .. }) => {
                *advertise = None;
                cluster.state_url.clear();
                forget(process);
            }
            Role::Compute(Compute { advertise, cluster, capacity, process, .. }) => {
                *advertise = None;
                cluster.state_url.clear();
                capacity.parallelism = 1;
                forget(process);
            }
            Role::Frontend(Frontend { process, .. }) => forget(process),
        }
        role
    }
}

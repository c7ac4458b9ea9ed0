//! Session variables: the ones of PostgreSQL and RisingWave that drivers set or ask for.
//!
//! Most only have to exist. Values that Weir cannot honour are refused, except for time zones.
//! Drivers set a time zone unasked, so another one than UTC is answered with a notice; results
//! state their offset, which is always UTC's.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_sql::error::{Error, sqlstate};
use weir_sql::functions::is_utf8;

use super::messages::Messages;
use crate::names::SearchPath;
use crate::notice::Severity;

/// The version that RisingWave reports, because drivers choose their queries by it.
pub(crate) const SERVER_VERSION: &str = "15.20";

/// The values that a variable accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Any text.
    Free,
    /// One of these values, compared without regard to case.
    OneOf(&'static [&'static str]),
    /// A number of milliseconds, or a text with a unit.
    Duration,
    Integer,
    /// `ISO` with the fields in any order.
    DateStyle,
    /// A name of UTF-8, of which only letters and digits count.
    Encoding,
    /// A list of schemas, as [`SearchPath`] reads it.
    SearchPath,
    TimeZone,
    /// Messages that queries wait for, as [`Messages`] reads them.
    Messages,
    /// A number of rows a second, or `default`.
    Rate,
    /// A variable of RisingWave. Its clients set it, and a notice tells them that it has no effect.
    Unused,
    ReadOnly,
}

/// A variable, as PostgreSQL spells it.
struct Known {
    name: &'static str,
    default: &'static str,
    rule: Rule,
    /// True if clients receive its value, at start-up and when it changes.
    reported: bool,
}

const fn reported(name: &'static str, default: &'static str, rule: Rule) -> Known {
    Known { name, default, rule, reported: true }
}

const fn quiet(name: &'static str, default: &'static str, rule: Rule) -> Known {
    Known { name, default, rule, reported: false }
}

const ON_OFF: Rule = Rule::OneOf(&["on", "off", "true", "false", "1", "0", "yes", "no"]);

const ISOLATION: Rule = Rule::OneOf(&["read committed", "repeatable read", "serializable", "read uncommitted"]);

const MESSAGE_LEVELS: &[&str] =
    &["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"];

const KNOWN: &[Known] = &[
    reported("application_name", "", Rule::Free),
    quiet("backfill_rate_limit", "default", Rule::Rate),
    quiet("background_ddl", "off", ON_OFF),
    quiet("batch_enable_distributed_dml", "false", Rule::Unused),
    quiet("batch_enable_lookup_join", "true", Rule::Unused),
    quiet("batch_enable_sort_agg", "true", Rule::Unused),
    quiet("batch_expr_strict_mode", "true", Rule::Unused),
    quiet("batch_parallelism", "default", Rule::Unused),
    quiet("bypass_cluster_limits", "false", Rule::Unused),
    quiet("bytea_output", "hex", Rule::OneOf(&["hex"])),
    quiet("cdc_source_wait_streaming_start_timeout", "30", Rule::Unused),
    reported("client_encoding", "UTF8", Rule::Encoding),
    quiet("client_min_messages", "notice", Rule::OneOf(MESSAGE_LEVELS)),
    quiet("create_compaction_group_for_mv", "false", Rule::Unused),
    reported("DateStyle", "ISO, MDY", Rule::DateStyle),
    quiet("default_table_access_method", "heap", Rule::Free),
    quiet("default_tablespace", "", Rule::Free),
    quiet("default_transaction_deferrable", "off", ON_OFF),
    quiet("default_transaction_isolation", "read committed", ISOLATION),
    reported("default_transaction_read_only", "off", ON_OFF),
    quiet("dml_rate_limit", "default", Rule::Unused),
    quiet("enable_index_selection", "true", Rule::Unused),
    quiet("enable_join_ordering", "true", Rule::Unused),
    quiet("enable_serverless_backfill", "false", Rule::Unused),
    quiet("enable_share_plan", "true", Rule::Unused),
    quiet("enable_two_phase_agg", "true", Rule::Unused),
    quiet("extra_float_digits", "1", Rule::Integer),
    quiet("force_split_distinct_agg", "false", Rule::Unused),
    quiet("force_two_phase_agg", "false", Rule::Unused),
    quiet("idle_in_transaction_session_timeout", "0", Rule::Duration),
    quiet("idle_session_timeout", "0", Rule::Duration),
    reported("in_hot_standby", "off", Rule::ReadOnly),
    reported("integer_datetimes", "on", Rule::ReadOnly),
    reported("IntervalStyle", "postgres", Rule::OneOf(&["postgres"])),
    reported("is_superuser", "on", Rule::ReadOnly),
    quiet("jit", "off", ON_OFF),
    quiet("lc_collate", "C.UTF-8", Rule::ReadOnly),
    quiet("lc_ctype", "C.UTF-8", Rule::ReadOnly),
    quiet("lc_messages", "C.UTF-8", Rule::Free),
    quiet("lc_monetary", "C.UTF-8", Rule::Free),
    quiet("lc_numeric", "C.UTF-8", Rule::Free),
    quiet("lc_time", "C.UTF-8", Rule::Free),
    quiet("lock_timeout", "0", Rule::Duration),
    quiet("max_identifier_length", "63", Rule::ReadOnly),
    quiet("max_index_keys", "32", Rule::ReadOnly),
    quiet("max_split_range_gap", "8", Rule::Unused),
    quiet("query_mode", "auto", Rule::Unused),
    quiet("quote_all_identifiers", "off", ON_OFF),
    quiet("row_security", "on", ON_OFF),
    // Statements that write return after their commit anyway.
    quiet("rw_implicit_flush", "off", ON_OFF),
    quiet("search_path", "\"$user\", public", Rule::SearchPath),
    reported("server_encoding", "UTF8", Rule::ReadOnly),
    reported("server_version", SERVER_VERSION, Rule::ReadOnly),
    quiet("server_version_num", "150020", Rule::ReadOnly),
    reported("session_authorization", "root", Rule::ReadOnly),
    quiet("sink_decouple", "default", Rule::Unused),
    reported("standard_conforming_strings", "on", Rule::OneOf(&["on", "true", "1", "yes"])),
    quiet("session_replication_role", "origin", Rule::OneOf(&["origin"])),
    quiet("sink_rate_limit", "default", Rule::Unused),
    quiet("source_rate_limit", "default", Rule::Unused),
    quiet("statement_timeout", "0", Rule::Duration),
    quiet("streaming_allow_jsonb_in_stream_key", "false", Rule::Unused),
    quiet("streaming_enable_bushy_join", "true", Rule::Unused),
    quiet("streaming_enable_delta_join", "false", Rule::Unused),
    quiet("streaming_enable_unaligned_join", "false", Rule::Unused),
    quiet("streaming_force_filter_inside_join", "false", Rule::Unused),
    quiet("streaming_max_parallelism", "default", Rule::Unused),
    quiet("streaming_over_window_cache_policy", "full", Rule::Unused),
    quiet("streaming_parallelism", "default", Rule::Unused),
    quiet("streaming_parallelism_for_backfill", "default", Rule::Unused),
    quiet("streaming_parallelism_for_index", "default", Rule::Unused),
    quiet("streaming_parallelism_for_materialized_view", "default", Rule::Unused),
    quiet("streaming_parallelism_for_sink", "default", Rule::Unused),
    quiet("streaming_parallelism_for_source", "default", Rule::Unused),
    quiet("streaming_parallelism_for_table", "default", Rule::Unused),
    quiet("streaming_separate_consecutive_join", "false", Rule::Unused),
    quiet("streaming_use_arrangement_backfill", "true", Rule::Unused),
    quiet("streaming_use_shared_source", "true", Rule::Unused),
    quiet("streaming_use_snapshot_backfill", "true", Rule::Unused),
    quiet("synchronous_commit", "on", Rule::Free),
    reported("TimeZone", "UTC", Rule::TimeZone),
    quiet("transaction_deferrable", "off", ON_OFF),
    quiet("transaction_isolation", "read committed", ISOLATION),
    quiet("transaction_read_only", "off", ON_OFF),
    quiet("wait_for", "", Rule::Messages),
    quiet("wait_for_timeout", "10s", Rule::Duration),
];

/// Spellings of the only time zone.
const UTC: [&str; 9] = ["utc", "etc/utc", "gmt", "etc/gmt", "uct", "zulu", "universal", "0", "+00:00"];

/// A variable that was set to a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) reported: bool,
    /// A message for the client.
    pub(crate) notice: Option<String>,
}

/// A session's variables.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    /// The values that differ from the defaults, by name in lower case.
    values: BTreeMap<String, String>,
    /// The values that the client set when it connected, which are its session's defaults, by name
    /// in lower case.
    startup: BTreeMap<String, String>,
    /// While a transaction is open, the values that it will leave behind.
    ends: Option<Ends>,
}

/// The values after a transaction.
#[derive(Debug)]
struct Ends {
    committed: BTreeMap<String, String>,
    rolled_back: BTreeMap<String, String>,
}

impl Variables {
    /// Begins a transaction.
    pub(crate) fn begin(&mut self) {
        if self.ends.is_none() {
            self.ends = Some(Ends { committed: self.values.clone(), rolled_back: self.values.clone() });
        }
    }

    /// Ends a transaction; returns the reported variables whose values change.
    pub(crate) fn end(&mut self, is_committed: bool) -> Vec<Change> {
        let Some(Ends { committed, rolled_back }) = self.ends.take() else { return Vec::new() };
        let before = self.reported();
        self.values = if is_committed { committed } else { rolled_back };
        let after = self.reported().into_iter().zip(before).filter(|(after, before)| after != before);
        after.map(|((name, value), _)| Change { name: name.to_owned(), value, reported: true, notice: None }).collect()
    }

    fn put(&mut self, name: &str, value: &str) {
        let name = name.to_lowercase();
        if let Some(ends) = &mut self.ends {
            ends.committed.insert(name.clone(), value.to_owned());
        }
        self.values.insert(name, value.to_owned());
    }

    /// Sets `session_authorization` to the client's user.
    pub(crate) fn set_user(&mut self, user: &str) {
        self.values.insert("session_authorization".to_owned(), user.to_owned());
    }

    /// Returns a variable's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let name = name.to_lowercase();
        let set = self.values.get(&name).or_else(|| self.startup.get(&name)).map(String::as_str);
        if set.is_none() && is_of_transaction(&name) {
            return self.get(&format!("default_{name}"));
        }
        set.or_else(|| known(&name).map(|known| known.default))
    }

    /// Returns true if all statements of the transaction read the same epoch.
    pub(crate) fn is_repeatable(&self) -> bool {
        matches!(self.get("transaction_isolation"), Some("repeatable read" | "serializable"))
    }

    /// Returns true if a boolean variable is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.get(name) == Some("on")
    }

    /// Returns the default of a variable in this session.
    fn default_of(&self, known: &Known) -> &str {
        self.startup.get(&known.name.to_lowercase()).map_or(known.default, String::as_str)
    }

    /// # Errors
    /// `42704` if there is no such variable.
    pub(crate) fn show(&self, name: &str) -> Result<&str, Error> {
        self.get(name).ok_or_else(|| unknown(name))
    }

    /// Returns all variables, spelled as in PostgreSQL and in its order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        KNOWN.iter().map(|known| (known.name, self.get(known.name).unwrap_or(known.default)))
    }

    /// Returns the variables that a client receives at start-up.
    pub(crate) fn reported(&self) -> Vec<(&'static str, String)> {
        let reported = KNOWN.iter().filter(|known| known.reported);
        reported.map(|known| (known.name, self.get(known.name).unwrap_or(known.default).to_owned())).collect()
    }

    /// Sets a variable when the client connects. The value becomes the default of the session.
    ///
    /// # Errors
    /// The errors of [`Variables::set`].
    pub(crate) fn set_default(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let change = self.set(name, Some(value))?;
        let name = change.name.to_lowercase();
        self.values.remove(&name);
        self.startup.insert(name, change.value);
        Ok(())
    }

    /// Sets a variable, or resets it to its default if there is no value. A variable that belongs
    /// to the transaction is set until the transaction ends.
    ///
    /// # Errors
    /// `42704` if there is no such variable, `22023` if it does not accept the value, `55P02` if it
    /// cannot change.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> Result<Change, Error> {
        if is_of_transaction(name) {
            return self.set_local(name, value);
        }
        let change = self.accept(name, value)?;
        self.put(&change.name, &change.value);
        Ok(change)
    }

    /// Sets a variable until the transaction ends. Outside of a transaction the variable keeps its
    /// value.
    ///
    /// # Errors
    /// The errors of [`Variables::set`].
    pub(crate) fn set_local(&mut self, name: &str, value: Option<&str>) -> Result<Change, Error> {
        let change = self.accept(name, value)?;
        if self.ends.is_none() {
            return Ok(Change { reported: false, ..change });
        }
        self.values.insert(change.name.to_lowercase(), change.value.clone());
        Ok(change)
    }

    fn accept(&self, name: &str, value: Option<&str>) -> Result<Change, Error> {
        let Some(known) = known(name) else {
            // A name with a dot belongs to an extension or an application.
            if !name.contains('.') {
                return Err(unknown(name));
            }
            let value = value.unwrap_or_default().to_owned();
            return Ok(Change { name: name.to_owned(), value, reported: false, notice: None });
        };
        let (value, notice) = known.accept(value.unwrap_or(self.default_of(known)))?;
        Ok(Change { name: known.name.to_owned(), value, reported: known.reported, notice })
    }

    /// Resets all variables that can change to their defaults; returns those that are reported.
    pub(crate) fn reset(&mut self) -> Vec<Change> {
        let is_fixed = |name: &String| known(name).is_some_and(|known| known.rule == Rule::ReadOnly);
        self.values.retain(|name, _| is_fixed(name));
        if let Some(ends) = &mut self.ends {
            ends.committed.retain(|name, _| is_fixed(name));
        }
        let changed = KNOWN.iter().filter(|known| known.reported && known.rule != Rule::ReadOnly);
        changed
            .map(|known| Change {
                name: known.name.to_owned(),
                value: self.default_of(known).to_owned(),
                reported: true,
                notice: None,
            })
            .collect()
    }

    /// Returns the least severity of the notices that the client wants; `None` if it wants none.
    pub(crate) fn notices_from(&self) -> Option<Severity> {
        match self.get("client_min_messages") {
            Some("error") => None,
            Some("warning") => Some(Severity::Warning),
            _ => Some(Severity::Notice),
        }
    }

    /// Returns the time that a statement may take.
    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        self.duration("statement_timeout")
    }

    /// Returns the rows a second that new views read at most of what their inputs have already.
    pub(crate) fn backfill_rate(&self) -> Option<u32> {
        self.get("backfill_rate_limit")?.parse().ok()
    }

    /// Returns the schemas in which relations are looked for, with the user's own in its place.
    pub(crate) fn search_path(&self, user: &str) -> SearchPath {
        let path = self.get("search_path").and_then(SearchPath::parse).unwrap_or_else(SearchPath::of_stored);
        path.of_user(user)
    }

    /// Returns the time that a query waits for messages.
    pub(crate) fn wait_for_timeout(&self) -> Option<Duration> {
        self.duration("wait_for_timeout")
    }

    /// Returns the time that a client may be silent.
    pub(crate) fn idle_timeout(&self, in_transaction: bool) -> Option<Duration> {
        self.duration(if in_transaction { "idle_in_transaction_session_timeout" } else { "idle_session_timeout" })
    }

    /// Returns a variable's duration. Zero means that there is no limit.
    fn duration(&self, name: &str) -> Option<Duration> {
        let millis = self.get(name).and_then(millis).unwrap_or(0);
        (millis > 0).then(|| Duration::from_millis(millis))
    }
}

impl Known {
    /// Returns the value in the form in which it is stored, and a notice.
    fn accept(&self, value: &str) -> Result<(String, Option<String>), Error> {
        let same = || Ok((value.to_owned(), None));
        let refuse = || {
            let message = format!("invalid value for parameter \"{}\": \"{value}\"", self.name);
            Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
        };
        match self.rule {
            Rule::Free => same(),
            Rule::OneOf(allowed) if allowed.iter().any(|one| one.eq_ignore_ascii_case(value)) => {
                Ok((canonical(value), None))
            }
            Rule::Encoding if is_utf8(value) => Ok(("UTF8".to_owned(), None)),
            Rule::Encoding => Err(refuse().with_hint("available values: UTF8")),
            Rule::OneOf(allowed) => Err(refuse().with_hint(format!("available values: {}", allowed.join(", ")))),
            Rule::Duration => millis(value).map(|_| (value.to_owned(), None)).ok_or_else(refuse),
            Rule::Messages if Messages::parse(value).is_some() => same(),
            Rule::Messages => Err(refuse().with_hint("list streams and sequences: 'ORDERS:1234, PAYMENTS:5'")),
            Rule::Rate if value.eq_ignore_ascii_case(self.default) => Ok((self.default.to_owned(), None)),
            Rule::Rate => match value.parse::<u32>() {
                Ok(rate) if rate > 0 => same(),
                _ => Err(refuse().with_hint("a number of rows a second, or default")),
            },
            Rule::Integer => value.parse::<i64>().map(|_| (value.to_owned(), None)).map_err(|_| refuse()),
            Rule::DateStyle => match value.split(',').next().map(str::trim) {
                Some(style) if style.eq_ignore_ascii_case("iso") => same(),
                // This is only the order of fields, which does not affect ISO.
                Some(order) if ["mdy", "dmy", "ymd"].contains(&order.to_ascii_lowercase().as_str()) => {
                    Ok((format!("ISO, {}", order.to_ascii_uppercase()), None))
                }
                _ => Err(refuse().with_hint("dates are printed in the style ISO")),
            },
            Rule::SearchPath if SearchPath::parse(value).is_some() => same(),
            Rule::SearchPath => Err(refuse().with_detail("List syntax is invalid.")),
            Rule::TimeZone if UTC.contains(&value.to_ascii_lowercase().as_str()) => Ok(("UTC".to_owned(), None)),
            Rule::TimeZone => {
                let notice = format!("sessions are in UTC; the time zone \"{value}\" is not used");
                Ok(("UTC".to_owned(), Some(notice)))
            }
            Rule::Unused if value == self.default => same(),
            Rule::Unused => Ok((value.to_owned(), Some(format!("parameter \"{}\" has no effect", self.name)))),
            Rule::ReadOnly => Err(Error::user("55P02", format!("parameter \"{}\" cannot be changed", self.name))),
        }
    }
}

/// Returns true for a variable that belongs to a transaction. The session has a default for it.
pub(crate) fn is_of_transaction(name: &str) -> bool {
    ["transaction_deferrable", "transaction_isolation", "transaction_read_only"]
        .iter()
        .any(|variable| variable.eq_ignore_ascii_case(name))
}

fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(name))
}

fn unknown(name: &str) -> Error {
    Error::user(sqlstate::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
}

/// Returns a value as it is shown: booleans are `on` and `off`.
fn canonical(value: &str) -> String {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => "on".to_owned(),
        "false" | "0" | "no" | "off" => "off".to_owned(),
        other => other.to_owned(),
    }
}

/// Parses `250`, `5s` or `1 min`. The default unit is the millisecond.
fn millis(value: &str) -> Option<u64> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let number: u64 = value[..digits].parse().ok()?;
    let factor = match value[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_keeps_its_value_until_it_is_reset() {
        let mut variables = Variables::default();
        assert_eq!(variables.show("DATESTYLE").expect("known"), "ISO, MDY");
        let change = variables.set("Application_Name", Some("x")).expect("free");
        assert_eq!((change.name.as_str(), change.reported), ("application_name", true));
        assert_eq!(variables.get("application_name"), Some("x"));
        variables.set("application_name", None).expect("free");
        assert_eq!(variables.get("application_name"), Some(""));
    }

    #[test]
    fn a_variable_is_reset_to_what_the_client_connected_with() {
        let mut variables = Variables::default();
        variables.set_user("someone");
        variables.set_default("application_name", "pool").expect("free");
        variables.set("application_name", Some("x")).expect("free");
        let changes = variables.reset();
        let change = changes.iter().find(|change| change.name == "application_name").expect("reported");
        assert_eq!(change.value, "pool");
        assert_eq!(variables.get("application_name"), Some("pool"));
        assert_eq!(variables.get("session_authorization"), Some("someone"));
    }

    #[test]
    fn a_transaction_takes_back_what_it_set() {
        for (is_committed, expected) in [(true, "session"), (false, "before")] {
            let mut variables = Variables::default();
            variables.set("application_name", Some("before")).expect("free");
            variables.set_local("application_name", Some("no transaction")).expect("free");
            assert_eq!(variables.get("application_name"), Some("before"));
            variables.begin();
            variables.set("application_name", Some("session")).expect("free");
            variables.set_local("application_name", Some("local")).expect("free");
            assert_eq!(variables.get("application_name"), Some("local"));
            let changes = variables.end(is_committed);
            assert_eq!(variables.get("application_name"), Some(expected));
            let changes: Vec<_> = changes.iter().map(|change| (change.name.as_str(), change.value.as_str())).collect();
            assert_eq!(changes, [("application_name", expected)]);
        }
    }

    #[test]
    fn notices_are_sent_as_the_session_wants() {
        let mut variables = Variables::default();
        for (level, expected) in
            [("debug1", Some(Severity::Notice)), ("WARNING", Some(Severity::Warning)), ("error", None)]
        {
            variables.set("client_min_messages", Some(level)).expect(level);
            assert_eq!(variables.notices_from(), expected, "{level}");
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let mut variables = Variables::default();
        assert_eq!(variables.set("nonsense", Some("1")).expect_err("unknown").sqlstate, "42704");
        assert_eq!(variables.set("client_encoding", Some("LATIN1")).expect_err("refused").sqlstate, "22023");
        assert_eq!(variables.set("DateStyle", Some("German")).expect_err("refused").sqlstate, "22023");
        assert_eq!(variables.set("server_version", Some("15")).expect_err("fixed").sqlstate, "55P02");
        assert!(variables.set("my.variable", Some("1")).is_ok());
    }

    #[test]
    fn the_search_path_is_a_list_of_schemas() {
        let mut variables = Variables::default();
        let path = |variables: &Variables| variables.search_path("ann").to_string();
        assert_eq!(path(&variables), "ann, public");
        variables.set("search_path", Some("a, \"B\"")).expect("a list");
        assert_eq!((path(&variables).as_str(), variables.show("search_path")), ("a, \"B\"", Ok("a, \"B\"")));
        assert_eq!(variables.set("search_path", Some("a b")).expect_err("no list").sqlstate, "22023");
        variables.set("search_path", Some("")).expect("none");
        assert_eq!(path(&variables), "");
    }

    #[test]
    fn another_time_zone_is_answered_with_a_notice() {
        let mut variables = Variables::default();
        let change = variables.set("TimeZone", Some("Europe/Berlin")).expect("accepted");
        assert_eq!(change.value, "UTC");
        assert!(change.notice.is_some());
        assert_eq!(variables.set("timezone", Some("Etc/UTC")).expect("accepted").notice, None);
    }

    #[test]
    fn timeouts_have_units() {
        for (text, expected) in [("250", 250), ("5s", 5_000), ("1 min", 60_000), ("0", 0)] {
            assert_eq!(millis(text), Some(expected));
        }
        assert_eq!(millis("soon"), None);
        let mut variables = Variables::default();
        variables.set("statement_timeout", Some("2s")).expect("a duration");
        assert_eq!(variables.statement_timeout(), Some(Duration::from_secs(2)));
    }
}

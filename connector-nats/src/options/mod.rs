//! The options of `WITH (connector = 'nats', …)`, typed.
//!
//! Owns: which options there are, how they are spelt, what they mean, which contradict each other. Pure: what only the
//! server knows is checked by [`mod@crate::preflight`]. Invariant: nothing that the user wrote is dropped silently; an
//! option is honoured, or answered by an error, or by a notice.

mod change;
mod connection;
mod consumer;
mod known;
mod splits;
mod value;

use std::collections::BTreeMap;
use std::fmt;

use crate::subject;

pub use change::{changed, check_change, same_option};
pub use connection::{Auth, Text, Tls};
pub use consumer::{AckPolicy, ConsumerName, ConsumerOptions, Replay};
pub use known::secret_keys;
pub use splits::{stream_of, subject_of};
use value::Values;
pub use weir_common::catalog::OnError;

/// What is wrong with an option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("option \"{option}\": {message}")]
pub struct OptionError {
    /// The option, as the user spelt it.
    pub option: String,
    /// What is wrong; lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl OptionError {
    pub(crate) fn new(option: &str, message: impl Into<String>) -> OptionError {
        OptionError { option: option.to_owned(), message: message.into(), hint: None }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> OptionError {
        self.hint = Some(hint.into());
        self
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a table starts in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first message the stream holds.
    Earliest,
    /// After the last message the stream holds.
    Latest,
    /// At the first message stored at or after this time.
    Timestamp {
        /// Milliseconds since 1970, UTC.
        millis: i64,
    },
    /// At this sequence of the stream.
    Sequence(u64),
    /// At the last message of the table.
    Last,
    /// At the last message of each of the table's subjects.
    LastPerSubject,
}

/// What becomes of a table when its stream lost messages that were not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// It goes on with what is there, with a warning in the log.
    Skip,
    /// It stops, and says what is missing.
    Fail,
}

/// What becomes of a table when the stream of its name is another one than was read: created anew, or gone back to an earlier end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNewStream {
    /// It is told, and the stream is not read.
    Stop,
    /// The stream is read from its first message, as the next incarnation of the split.
    Read,
}

/// All options of a table, checked against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The servers, as `scheme://host:port` or `host:port`; never empty.
    pub servers: Vec<String>,
    /// What the table reads; never empty, normalised.
    pub subjects: Vec<String>,
    /// The stream.
    pub stream: String,
    /// Whether each of the subjects is a split of its own.
    pub split_by_subject: bool,
    /// If these are the options of one of several splits, see [`Options::of_split`]: its subject.
    pub split: Option<String>,
    /// Whether a missing stream is created.
    pub allow_create_stream: bool,
    /// Whether a stream with Interest retention is read, despite what its server may lose.
    pub allow_interest_stream: bool,
    /// How Weir proves who it is.
    pub auth: Auth,
    /// How the connection is encrypted; nothing: as the server demands.
    pub tls: Option<Tls>,
    /// What the subjects of JetStream's API begin with, without the last dot.
    pub api_prefix: String,
    /// Where the table starts.
    pub start: Start,
    /// What becomes of the table when the stream lost messages that were not read yet.
    pub on_gap: OnGap,
    /// What becomes of the table when its stream is another one.
    pub on_new_stream: OnNewStream,
    /// The consumer the table is read through.
    pub consumer: ConsumerOptions,
    /// What becomes of bad records.
    pub on_error: OnError,
    /// What the user should know about options that another one overrides.
    pub notices: Vec<String>,
}

impl Options {
    /// Every option there is, in all its spellings.
    pub fn names() -> impl Iterator<Item = &'static str> {
        known::spellings()
    }

    /// Reads the options of a WITH clause: keys in lower case, values without their quotes.
    ///
    /// # Errors
    /// The first option that is unknown, malformed, missing, not supported yet, or contradicts another one.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Options, OptionError> {
        let values = Values::new(options)?;
        let connector = values.required("connector")?;
        if !connector.eq_ignore_ascii_case("nats") {
            return Err(OptionError::new("connector", format!("\"{connector}\" is no connector"))
                .with_hint("the one connector is \"nats\""));
        }
        let mut notices = Vec::new();
        let subjects = parse_subjects(&values)?;
        let split_by_subject = splits::parse(&values, &subjects)?;
        let consumer = consumer::parse(&values, &subjects, &mut notices)?;
        Ok(Options {
            servers: connection::parse_servers(&values)?,
            stream: parse_stream(&values)?,
            allow_create_stream: values.bool("allow_create_stream")?.unwrap_or(false),
            allow_interest_stream: values.bool("allow_interest_stream")?.unwrap_or(false),
            auth: connection::parse_auth(&values)?,
            tls: connection::parse_tls(&values)?,
            api_prefix: connection::parse_api_prefix(&values)?,
            start: parse_start(&values)?,
            on_gap: parse_on_gap(&values)?,
            on_new_stream: parse_on_new_stream(&values)?,
            on_error: parse_on_error(&values)?,
            subjects,
            split_by_subject,
            split: None,
            consumer,
            notices,
        })
    }
}

fn parse_subjects(values: &Values<'_>) -> Result<Vec<String>, OptionError> {
    let option = "subject";
    let subjects = values.list(option)?.ok_or_else(|| Values::missing(option))?;
    check_subjects(option, &subjects)?;
    Ok(subject::normalise(&subjects))
}

fn check_subjects(option: &str, subjects: &[String]) -> Result<(), OptionError> {
    match subjects.iter().find(|s| !subject::is_valid(s)) {
        None => Ok(()),
        Some(bad) => Err(OptionError::new(option, format!("\"{bad}\" is no subject")).with_hint(
            "tokens are separated by dots; \"*\" stands for one token, a trailing \">\" for all that follow",
        )),
    }
}

fn parse_stream(values: &Values<'_>) -> Result<String, OptionError> {
    let option = "stream";
    let stream = values.required(option)?;
    check_name(option, stream, "stream")?;
    Ok(stream.to_owned())
}

/// Streams and consumers have names that are one token of a subject and one component of a path.
fn check_name(option: &str, name: &str, kind: &str) -> Result<(), OptionError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\');
    if name.contains(bad) || name.len() > 255 {
        return Err(OptionError::new(option, format!("\"{name}\" is no name for a {kind}"))
            .with_hint("leave out spaces, periods, asterisks, greater-than signs and slashes"));
    }
    Ok(())
}

fn parse_on_error(values: &Values<'_>) -> Result<OnError, OptionError> {
    let Some(written) = values.text("on_error")? else { return Ok(OnError::default()) };
    OnError::parse(written).ok_or_else(|| values.not_one_of("on_error", written, &OnError::WORDS))
}

fn parse_on_gap(values: &Values<'_>) -> Result<OnGap, OptionError> {
    let Some(action) = values.text("on_gap")? else { return Ok(OnGap::Skip) };
    match action.to_ascii_lowercase().as_str() {
        "skip" => Ok(OnGap::Skip),
        "fail" => Ok(OnGap::Fail),
        _ => Err(values.not_one_of("on_gap", action, &["fail", "skip"])),
    }
}

fn parse_on_new_stream(values: &Values<'_>) -> Result<OnNewStream, OptionError> {
    let Some(action) = values.text("on_new_stream")? else { return Ok(OnNewStream::Stop) };
    match action.to_ascii_lowercase().as_str() {
        "stop" => Ok(OnNewStream::Stop),
        "read" => Ok(OnNewStream::Read),
        _ => Err(values.not_one_of("on_new_stream", action, &["stop", "read"])),
    }
}

/// `scan.startup.mode` and `consumer.deliver_policy` say the same thing in two ways; they may not disagree.
fn parse_start(values: &Values<'_>) -> Result<Start, OptionError> {
    const MODES: &[&str] = &["earliest", "latest", "timestamp", "sequence", "last", "last_per_subject"];
    const POLICIES: &[&str] = &["all", "new", "by_start_time", "by_start_sequence", "last", "last_per_subject"];
    let by_mode = values.text("scan.startup.mode")?.map(|mode| match mode.to_ascii_lowercase().as_str() {
        "earliest" => Ok(Mode::Earliest),
        "latest" => Ok(Mode::Latest),
        "timestamp" | "timestamp_millis" => Ok(Mode::Timestamp),
        "sequence" => Ok(Mode::Sequence),
        "last" => Ok(Mode::Last),
        "last_per_subject" => Ok(Mode::LastPerSubject),
        _ => Err(values.not_one_of("scan.startup.mode", mode, MODES)),
    });
    let by_policy =
        values.text("consumer.deliver_policy")?.map(|policy| match Values::canonical_word(policy).as_str() {
            "all" => Ok(Mode::Earliest),
            "new" => Ok(Mode::Latest),
            "bystarttime" => Ok(Mode::Timestamp),
            "bystartsequence" => Ok(Mode::Sequence),
            "last" => Ok(Mode::Last),
            "lastpersubject" => Ok(Mode::LastPerSubject),
            _ => Err(values.not_one_of("consumer.deliver_policy", policy, POLICIES)),
        });
    let (by_mode, by_policy) = (by_mode.transpose()?, by_policy.transpose()?);
    if let (Some(mode), Some(policy)) = (by_mode, by_policy)
        && mode != policy
    {
        return Err(values.conflict("scan.startup.mode", "consumer.deliver_policy"));
    }
    start_of(values, by_mode.or(by_policy).unwrap_or(Mode::Earliest))
}

/// A mode, with the number that belongs to it.
fn start_of(values: &Values<'_>, mode: Mode) -> Result<Start, OptionError> {
    let (millis_option, sequence_option) = ("scan.startup.timestamp.millis", "consumer.opt_start_seq");
    let millis = values.integer(millis_option, i64::MIN..=i64::MAX)?;
    let sequence = values.integer(sequence_option, 1..=i64::MAX)?.map(i64::unsigned_abs);
    for (option, given, own, needed) in [
        (millis_option, millis.is_some(), Mode::Timestamp, "timestamp"),
        (sequence_option, sequence.is_some(), Mode::Sequence, "sequence"),
    ] {
        if given && mode != own {
            let message = format!("conflicts with a \"scan.startup.mode\" other than {needed}");
            return Err(OptionError::new(values.spelling(option).unwrap_or(option), message)
                .with_hint(format!("add scan.startup.mode = '{needed}'")));
        }
    }
    let missing = |option: &str, hint: &str| Err(OptionError::new(option, "is missing").with_hint(hint));
    match (mode, millis, sequence) {
        (Mode::Timestamp, Some(millis), _) => Ok(Start::Timestamp { millis }),
        (Mode::Timestamp, None, _) => missing(millis_option, "a start by time needs milliseconds since 1970, UTC"),
        (Mode::Sequence, _, Some(sequence)) => Ok(Start::Sequence(sequence)),
        (Mode::Sequence, _, None) => missing(sequence_option, "a start by sequence needs the first one to read"),
        (Mode::Earliest, ..) => Ok(Start::Earliest),
        (Mode::Latest, ..) => Ok(Start::Latest),
        (Mode::Last, ..) => Ok(Start::Last),
        (Mode::LastPerSubject, ..) => Ok(Start::LastPerSubject),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Earliest,
    Latest,
    Timestamp,
    Sequence,
    Last,
    LastPerSubject,
}

#[cfg(test)]
mod tests;

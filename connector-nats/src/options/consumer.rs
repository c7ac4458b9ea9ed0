//! The `consumer.…` options: the consumer that a user wants the table to be read through.

use std::time::Duration;

use super::value::Values;
use super::{OptionError, check_name, check_subjects};
use crate::subject;

/// What the server learns of what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckPolicy {
    /// Nothing.
    None,
    /// One acknowledgement stands for all that came before it.
    All,
    /// Every message is acknowledged.
    Explicit,
}

impl AckPolicy {
    /// The word of the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            AckPolicy::None => "none",
            AckPolicy::All => "all",
            AckPolicy::Explicit => "explicit",
        }
    }
}

/// How fast the server delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// As fast as it can.
    Instant,
    /// With the pauses that lay between the messages when they were stored.
    Original,
}

/// What the consumer is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerName {
    /// Whatever the reader likes: it lives as long as the reader.
    Anonymous,
    /// A name of the user's, but nothing the server keeps.
    Named(String),
    /// A durable of exactly this name.
    Durable(String),
}

impl ConsumerName {
    /// The name that the user gave.
    pub fn given(&self) -> Option<&str> {
        match self {
            ConsumerName::Anonymous => None,
            ConsumerName::Named(name) | ConsumerName::Durable(name) => Some(name),
        }
    }

    /// Whether acknowledgements make sense: only a durable remembers them.
    pub fn is_durable(&self) -> bool {
        matches!(self, ConsumerName::Durable(_))
    }
}

/// The consumer a table is read through. What is absent was not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// What it is called.
    pub name: ConsumerName,
    /// Free text.
    pub description: Option<String>,
    /// What the server learns of what was read.
    pub ack_policy: Option<AckPolicy>,
    /// After this time without an acknowledgement a message is delivered again.
    pub ack_wait: Option<Duration>,
    /// How often a message is delivered; −1 without end.
    pub max_deliver: Option<i64>,
    /// What of `subject` is read, if not all of it; within `subject`, normalised.
    pub filters: Option<Vec<String>>,
    /// How many messages may wait for their acknowledgement.
    pub max_ack_pending: Option<u64>,
    /// The largest pull request, in messages.
    pub max_batch: Option<u64>,
    /// The largest pull request, in bytes.
    pub max_bytes: Option<u64>,
    /// The longest-lived pull request.
    pub max_expires: Option<Duration>,
    /// How many pull requests may wait.
    pub max_waiting: Option<u64>,
    /// After this time without a reader the server forgets the consumer.
    pub inactive_threshold: Option<Duration>,
    /// On how many servers the consumer's state is kept.
    pub num_replicas: Option<u64>,
    /// Whether the consumer's state is kept in memory.
    pub memory_storage: Option<bool>,
    /// Replaces `ack_wait`: the waits before each further delivery.
    pub backoff: Vec<Duration>,
    /// How fast the server delivers.
    pub replay: Option<Replay>,
    /// Of how many acknowledgements in a hundred the server publishes a sample.
    pub sample_frequency: Option<u64>,
    /// Whether messages come without their payloads, whose sizes are then the header `Nats-Msg-Size`.
    pub headers_only: bool,
    /// Bits a second that the reader reads at most: pull consumers know no such limit.
    pub rate_limit: Option<u64>,
    /// What the user should know about options that have no effect, should nothing be acknowledged.
    pub unacknowledged_notices: Vec<String>,
}

impl ConsumerOptions {
    /// The policy of a consumer of this name that Weir creates: without a durable nothing is acknowledged.
    pub fn ack_policy_of(&self, name: &ConsumerName) -> AckPolicy {
        if name.is_durable() { self.ack_policy.unwrap_or(AckPolicy::Explicit) } else { AckPolicy::None }
    }
}

pub(super) fn parse(
    values: &Values<'_>,
    subjects: &[String],
    notices: &mut Vec<String>,
) -> Result<ConsumerOptions, OptionError> {
    let number = |name: &str| Ok(values.integer(name, 1..=i64::MAX)?.map(i64::unsigned_abs));
    let consumer = ConsumerOptions {
        name: parse_name(values)?,
        description: values.text("consumer.description")?.map(str::to_owned),
        ack_policy: parse_ack_policy(values)?,
        ack_wait: values.seconds("consumer.ack_wait.sec")?,
        max_deliver: parse_max_deliver(values)?,
        filters: parse_filters(values, subjects, notices)?,
        max_ack_pending: number("consumer.max_ack_pending")?,
        max_batch: number("consumer.max_batch")?,
        max_bytes: number("consumer.max_bytes")?,
        max_expires: values.seconds("consumer.max_expires.sec")?,
        max_waiting: number("consumer.max_waiting")?,
        inactive_threshold: values.seconds("consumer.inactive_threshold.sec")?,
        num_replicas: values.integer("consumer.num_replicas", 1..=5)?.map(i64::unsigned_abs),
        memory_storage: values.bool("consumer.memory_storage")?,
        backoff: values.seconds_list("consumer.backoff.sec")?,
        replay: parse_replay(values)?,
        sample_frequency: values.integer("consumer.sample_frequency", 0..=100)?.map(i64::unsigned_abs),
        headers_only: values.bool("consumer.headers_only")?.unwrap_or(false),
        rate_limit: number("consumer.rate_limit")?,
        unacknowledged_notices: Vec::new(),
    };
    check(values, &consumer, notices)?;
    let unacknowledged_notices = unacknowledged_notices(values, &consumer);
    Ok(ConsumerOptions { unacknowledged_notices, ..consumer })
}

fn parse_name(values: &Values<'_>) -> Result<ConsumerName, OptionError> {
    let durable = values.text("consumer.durable_name")?;
    let name = values.text("consumer.name")?;
    for (option, given) in [("consumer.durable_name", durable), ("consumer.name", name)] {
        if let Some(given) = given {
            check_name(option, given, "consumer")?;
        }
    }
    match (durable, name) {
        (Some(durable), Some(name)) if durable != name => {
            Err(values.conflict("consumer.name", "consumer.durable_name"))
        }
        (Some(durable), _) => Ok(ConsumerName::Durable(durable.to_owned())),
        (None, Some(name)) => Ok(ConsumerName::Named(name.to_owned())),
        (None, None) => Ok(ConsumerName::Anonymous),
    }
}

fn parse_ack_policy(values: &Values<'_>) -> Result<Option<AckPolicy>, OptionError> {
    let Some(policy) = values.text("consumer.ack_policy")? else { return Ok(None) };
    match policy.to_ascii_lowercase().as_str() {
        "none" => Ok(Some(AckPolicy::None)),
        "all" => Ok(Some(AckPolicy::All)),
        "explicit" => Ok(Some(AckPolicy::Explicit)),
        _ => Err(values.not_one_of("consumer.ack_policy", policy, &["all", "explicit", "none"])),
    }
}

fn parse_replay(values: &Values<'_>) -> Result<Option<Replay>, OptionError> {
    let Some(policy) = values.text("consumer.replay_policy")? else { return Ok(None) };
    match policy.to_ascii_lowercase().as_str() {
        "instant" => Ok(Some(Replay::Instant)),
        "original" => Ok(Some(Replay::Original)),
        _ => Err(values.not_one_of("consumer.replay_policy", policy, &["instant", "original"])),
    }
}

fn parse_max_deliver(values: &Values<'_>) -> Result<Option<i64>, OptionError> {
    let max_deliver = values.integer("consumer.max_deliver", -1..=i64::MAX)?;
    if max_deliver == Some(0) {
        return Err(values.malformed("consumer.max_deliver", "0", "an integer of at least 1, or -1 for no end"));
    }
    Ok(max_deliver)
}

/// Filters narrow `subject`. Where they lie outside of it, `subject` decides and a notice says so.
fn parse_filters(
    values: &Values<'_>,
    subjects: &[String],
    notices: &mut Vec<String>,
) -> Result<Option<Vec<String>>, OptionError> {
    let one = values.list("consumer.filter_subject")?;
    let many = values.list("consumer.filter_subjects")?;
    if one.is_some() && many.is_some() {
        return Err(values.conflict("consumer.filter_subject", "consumer.filter_subjects"));
    }
    if one.as_ref().is_some_and(|subjects| subjects.len() > 1) {
        let text = values.text("consumer.filter_subject")?.unwrap_or_default();
        return Err(values
            .malformed("consumer.filter_subject", text, "one subject")
            .with_hint("use \"consumer.filter_subjects\" for several"));
    }
    let (option, filters) = match (one, many) {
        (Some(filters), _) => ("consumer.filter_subject", filters),
        (None, Some(filters)) => ("consumer.filter_subjects", filters),
        (None, None) => return Ok(None),
    };
    check_subjects(option, &filters)?;
    let within = |filter: &String| subjects.iter().filter_map(|s| subject::intersect(filter, s)).collect::<Vec<_>>();
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for filter in filters {
        let common = within(&filter);
        if common.is_empty() { outside.push(filter) } else { inside.extend(common) }
    }
    if !outside.is_empty() {
        notices.push(format!(
            "{option}: {} lies outside of subject '{}' and is left out: subject decides what is read",
            outside.iter().map(|filter| format!("\"{filter}\"")).collect::<Vec<_>>().join(", "),
            subjects.join(",")
        ));
    }
    Ok((!inside.is_empty()).then(|| subject::normalise(&inside)))
}

/// What the server would refuse, or what one option makes of another.
fn check(values: &Values<'_>, consumer: &ConsumerOptions, notices: &mut Vec<String>) -> Result<(), OptionError> {
    let waits = consumer.backoff.len();
    if waits > 0 && consumer.max_deliver.is_some_and(|max| max != -1 && max.unsigned_abs() <= waits as u64) {
        return Err(values.conflict("consumer.max_deliver", "consumer.backoff.sec").with_hint(format!(
            "consumer.max_deliver must exceed the number of waits in consumer.backoff, which is {waits}"
        )));
    }
    let acks = consumer.ack_policy_of(&consumer.name) != AckPolicy::None;
    if acks
        && waits > 0
        && let Some(spelling) = values.spelling("consumer.ack_wait.sec")
    {
        notices.push(format!("{spelling} has no effect: consumer.backoff replaces it"));
    }
    Ok(())
}

/// Only a durable is acknowledged. Whether there is one follows from the stream too.
fn unacknowledged_notices(values: &Values<'_>, consumer: &ConsumerOptions) -> Vec<String> {
    let mut notices = Vec::new();
    if consumer.ack_policy_of(&consumer.name) != AckPolicy::None {
        return notices;
    }
    let why = if consumer.name.is_durable() {
        "with consumer.ack_policy = 'none'"
    } else {
        "without consumer.durable_name: nothing is acknowledged"
    };
    for name in ["consumer.ack_wait.sec", "consumer.max_ack_pending", "consumer.backoff.sec", "consumer.max_deliver"] {
        if let Some(spelling) = values.spelling(name) {
            notices.push(format!("{spelling} has no effect {why}"));
        }
    }
    if !consumer.name.is_durable() && consumer.ack_policy.is_some_and(|policy| policy != AckPolicy::None) {
        notices.push("consumer.ack_policy has no effect without consumer.durable_name".to_owned());
    }
    notices
}

//! Limits of the server, the account and the stream, and what of a table exceeds them.
//!
//! Owns which limit an error names: whose it is, its value, what the table needs, and which option
//! or setting changes it. Some limits are told beforehand, by the account and the stream; those of
//! a server only by its refusals. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::api::{Object, StreamConfig, StreamInfo};
use crate::error::code;
use crate::options::Options;
use crate::retention::Retention;

/// Shorter thresholds are over before a reader asks again.
const THRESHOLD_MIN: Duration = Duration::from_secs(1);

/// JetStream's answer about an account.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct AccountInfo {
    /// Its streams and limits, without tiers.
    #[serde(flatten)]
    pub tier: Tier,
    /// The same by replicas of a stream, `R1` for instance, where the account has limits by tiers.
    #[serde(default)]
    pub tiers: BTreeMap<String, Tier>,
}

/// The streams and limits of an account, or of one of its tiers.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Tier {
    /// The number of streams.
    #[serde(default)]
    pub streams: u64,
    /// Bounds; negative: none.
    #[serde(default)]
    pub limits: AccountLimits,
}

/// Bounds of an account; negative: none.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct AccountLimits {
    /// The largest number of streams.
    #[serde(default)]
    pub max_streams: i64,
    /// The largest number of consumers of each stream.
    #[serde(default)]
    pub max_consumers: i64,
    /// The largest `max_ack_pending` of a consumer.
    #[serde(default)]
    pub max_ack_pending: i64,
    /// The largest size of all streams in files, in bytes.
    #[serde(default)]
    pub max_storage: Option<i64>,
    /// True if every stream has to set `max_bytes`.
    #[serde(default)]
    pub max_bytes_required: bool,
}

impl AccountInfo {
    /// The tier of streams with so many replicas; nothing if the account may have none.
    pub fn of_replicas(&self, replicas: u64) -> Option<&Tier> {
        if self.tiers.is_empty() { Some(&self.tier) } else { self.tiers.get(&format!("R{replicas}")) }
    }
}

/// A quantity that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// How many messages of a consumer may wait for their acknowledgement.
    AckPending,
    /// How many messages one pull request may ask for.
    RequestBatch,
    /// How long the server keeps a consumer that nobody reads, in nanoseconds.
    InactiveThreshold,
    /// How many servers keep a consumer's state.
    Replicas,
    /// The same where it has to be as many as keep the stream.
    SameReplicas,
    /// How many consumers a stream has, of which so many are there.
    Consumers {
        /// How many there are, if that is known.
        present: Option<u64>,
    },
    /// How many streams an account has.
    Streams,
    /// How many bytes an account keeps in files.
    Storage,
    /// The size of a message, and so of a request.
    Payload,
    /// How many subscriptions a connection has.
    Subscriptions,
}

/// The owner of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The configuration file of the server.
    Server,
    /// The account of the user.
    Account,
    /// The stream of this name.
    Stream(String),
    /// The server does not say.
    Unknown,
}

/// A limit, and what exceeds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// The quantity.
    pub limit: Limit,
    /// Its owner.
    pub whose: Whose,
    /// The largest value that it allows, if that is known.
    pub allowed: Option<u64>,
    /// The value that is needed; of consumers: how many more.
    pub needed: u64,
}

impl Excess {
    /// The remedy.
    pub fn hint(&self) -> String {
        let raise = |setting: &str| match &self.whose {
            Whose::Server => format!("raise {setting} in the limits of the server's jetstream block"),
            Whose::Account => format!("raise {setting} of the account"),
            Whose::Stream(_) => format!("raise {setting} of the stream"),
            Whose::Unknown => format!("raise {setting} of the server, the account or the stream"),
        };
        let lower = |option: &str| match self.allowed {
            Some(allowed) => format!("set {option} to {} or less", self.printed(allowed)),
            None => format!("set {option} lower"),
        };
        match self.limit {
            Limit::AckPending => {
                let consumers = matches!(self.whose, Whose::Stream(_));
                let setting = if consumers { "consumer_limits.max_ack_pending" } else { "max_ack_pending" };
                format!("{}, or {}", lower("consumer.max_ack_pending"), raise(setting))
            }
            Limit::RequestBatch => format!("{}, or {}", lower("consumer.max_batch"), raise("max_request_batch")),
            Limit::InactiveThreshold if self.allowed.is_some_and(|allowed| allowed < nanos(THRESHOLD_MIN)) => {
                "raise consumer_limits.inactive_threshold of the stream".to_owned()
            }
            Limit::InactiveThreshold => {
                let lower = lower("consumer.inactive_threshold");
                format!("{lower}, or raise consumer_limits.inactive_threshold of the stream")
            }
            Limit::Replicas => {
                "set consumer.num_replicas lower or leave it out, or give the stream as many replicas".to_owned()
            }
            Limit::SameReplicas => {
                "leave out consumer.num_replicas: the consumer then has as many as the stream".to_owned()
            }
            Limit::Consumers { .. } => format!(
                "remove consumers that nobody reads through, or {}; with split_by_subject every subject has a consumer of its own",
                raise("max_consumers")
            ),
            Limit::Streams => "create the stream by another account, or raise max_streams of the account".to_owned(),
            Limit::Storage => {
                "create the stream with max_bytes or in memory, or raise max_file of the account".to_owned()
            }
            Limit::Payload => "name fewer subjects, or raise max_payload of the server".to_owned(),
            Limit::Subscriptions => "raise max_subscriptions of the server, or the account's".to_owned(),
        }
    }

    /// The same, with whose limit it is if the stream or the account says so: any that is not
    /// theirs is the server's.
    pub fn attributed(mut self, stream: Option<(&str, &StreamInfo)>, account: Option<&AccountInfo>) -> Excess {
        let Some((name, stream)) = stream else { return self };
        if self.limit == Limit::Replicas && must_match(&stream.config) {
            self.limit = Limit::SameReplicas;
        }
        let known = known(name, stream, account);
        if let Limit::Consumers { present } = &mut self.limit {
            present.get_or_insert(stream.state.consumer_count);
        }
        let same = |known: &&Known| {
            let is_it = match (known.limit, self.limit) {
                (Limit::Replicas, Limit::SameReplicas) | (Limit::Consumers { .. }, Limit::Consumers { .. }) => true,
                (one, other) => one == other,
            };
            is_it && self.allowed.is_none_or(|allowed| allowed == known.allowed)
        };
        // Whichever is met first.
        match known.iter().filter(same).min_by_key(|known| known.allowed) {
            Some(known) => {
                self.whose = known.whose.clone();
                self.allowed = Some(known.allowed);
            }
            None if self.allowed.is_some() && account.is_some() => self.whose = Whose::Server,
            None => {}
        }
        self
    }

    fn printed(&self, value: u64) -> String {
        match self.limit {
            Limit::InactiveThreshold => format!("{:?}", Duration::from_nanos(value)),
            _ => value.to_string(),
        }
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match &self.whose {
            Whose::Server => "the NATS server".to_owned(),
            Whose::Account => "the account".to_owned(),
            Whose::Stream(name) => format!("stream \"{name}\""),
            Whose::Unknown => "JetStream".to_owned(),
        };
        let allowed = self.allowed.map(|allowed| self.printed(allowed));
        let limited = |what: &str| match &allowed {
            Some(allowed) => format!("{whose} allows {what} {allowed} at most"),
            None => format!("{whose} allows no such {what}"),
        };
        let needed = self.printed(self.needed);
        match self.limit {
            Limit::AckPending => write!(f, "{}, and the table needs {needed}", limited("max_ack_pending")),
            Limit::RequestBatch => write!(f, "{}, and the table asks for {needed}", limited("max_request_batch")),
            Limit::InactiveThreshold => write!(f, "{}, and the table needs {needed}", limited("inactive_threshold")),
            Limit::Replicas | Limit::SameReplicas => {
                let has =
                    allowed.map_or_else(|| "fewer replicas".to_owned(), |allowed| format!("num_replicas {allowed}"));
                let must =
                    if self.limit == Limit::SameReplicas { ", which its consumers have to have too" } else { "" };
                write!(f, "{whose} has {has}{must}, and the table asks for {needed} of its consumer")
            }
            Limit::Consumers { present } => {
                let most = allowed.map_or_else(|| "no more".to_owned(), |allowed| format!("{allowed} at most"));
                write!(f, "{whose} allows {most} (max_consumers) of a stream")?;
                present.map_or(Ok(()), |present| write!(f, ", {present} are there"))?;
                write!(f, ", and the table needs {needed} more")
            }
            Limit::Streams => {
                let most = allowed.map_or_else(String::new, |allowed| format!(" than {allowed} (max_streams)"));
                write!(f, "{whose} allows no more streams{most}, and the table's would be created")
            }
            Limit::Storage => {
                write!(f, "{whose} allows no stream in files without max_bytes, and the table's would be created so")
            }
            Limit::Payload => write!(f, "{}, and a request needs {needed}", limited("max_payload")),
            Limit::Subscriptions => write!(f, "{whose} allows no more subscriptions, and the table needs {needed}"),
        }
    }
}

/// Reads the limit from the refusal of a consumer with this configuration, if it is about one.
pub(crate) fn of_refusal(refused: u64, description: &str, config: &Object) -> Option<Excess> {
    let asked = |field: &str| config.get(field).and_then(Value::as_u64).unwrap_or_default();
    let (limit, needed) = match refused {
        code::ACK_PENDING_EXCEEDED => (Limit::AckPending, asked("max_ack_pending")),
        code::REQUEST_BATCH_EXCEEDED => (Limit::RequestBatch, asked("max_batch")),
        code::THRESHOLD_EXCEEDED => (Limit::InactiveThreshold, asked("inactive_threshold")),
        code::REPLICAS_EXCEEDED | code::REPLICAS_UNSUPPORTED if asked("num_replicas") > 1 => {
            (Limit::Replicas, asked("num_replicas"))
        }
        code::REPLICAS_DIFFER => (Limit::SameReplicas, asked("num_replicas")),
        code::TOO_MANY_CONSUMERS => (Limit::Consumers { present: None }, 1),
        _ => return None,
    };
    // "… exceeds system limit of 100"
    let allowed = description.rsplit(' ').next().and_then(|last| last.parse().ok());
    let whose = match limit {
        Limit::RequestBatch => Whose::Server,
        _ => Whose::Unknown,
    };
    Some(Excess { limit, whose, allowed, needed })
}

/// A limit that was told.
struct Known {
    limit: Limit,
    whose: Whose,
    allowed: u64,
}

/// Collects the limits that the stream and its account tell.
fn known(name: &str, stream: &StreamInfo, account: Option<&AccountInfo>) -> Vec<Known> {
    let StreamConfig { consumer_limits, max_consumers, num_replicas, .. } = &stream.config;
    let theirs = || Whose::Stream(name.to_owned());
    let mut known = Vec::new();
    let mut add = |limit, whose, allowed: i64| {
        if let Some(allowed) = u64::try_from(allowed).ok().filter(|allowed| *allowed > 0) {
            known.push(Known { limit, whose, allowed });
        }
    };
    add(Limit::AckPending, theirs(), consumer_limits.max_ack_pending);
    add(Limit::InactiveThreshold, theirs(), consumer_limits.inactive_threshold);
    add(Limit::Consumers { present: None }, theirs(), *max_consumers);
    add(Limit::Replicas, theirs(), *num_replicas);
    if let Some(tier) = account.and_then(|account| account.of_replicas(u64::try_from(*num_replicas).unwrap_or(1))) {
        add(Limit::AckPending, Whose::Account, tier.limits.max_ack_pending);
        add(Limit::Consumers { present: None }, Whose::Account, tier.limits.max_consumers);
    }
    known
}

/// True if a stream's consumers have to have as many replicas as it has.
fn must_match(stream: &StreamConfig) -> bool {
    Retention::of(stream).is_some_and(Retention::deletes_acknowledged)
}

/// Finds the limits of the stream and its account that a consumer would exceed.
pub(crate) fn of_consumer(
    config: &Object,
    name: &str,
    stream: &StreamInfo,
    account: Option<&AccountInfo>,
) -> Vec<Excess> {
    let asked = |field: &str| config.get(field).and_then(Value::as_u64);
    let same = must_match(&stream.config);
    let known = known(name, stream, account).into_iter();
    let excesses = known.filter_map(|Known { mut limit, whose, allowed }| {
        let needed = match limit {
            Limit::AckPending => asked("max_ack_pending").filter(|asked| *asked > allowed)?,
            Limit::InactiveThreshold if allowed < nanos(THRESHOLD_MIN) => nanos(THRESHOLD_MIN),
            Limit::InactiveThreshold => asked("inactive_threshold").filter(|asked| *asked > allowed)?,
            Limit::Replicas => {
                let needed = asked("num_replicas")
                    .filter(|asked| *asked > allowed || (same && *asked > 0 && *asked != allowed))?;
                if same {
                    limit = Limit::SameReplicas;
                }
                needed
            }
            _ => return None,
        };
        Some(Excess { limit, whose, allowed: Some(allowed), needed })
    });
    excesses.collect()
}

/// How many consumers the stream may still be given, if there is a limit, and whose it is.
pub(crate) fn free_consumers(
    name: &str,
    stream: &StreamInfo,
    account: Option<&AccountInfo>,
) -> Option<(u64, Whose, u64)> {
    let known = known(name, stream, account).into_iter();
    let smallest =
        known.filter(|known| matches!(known.limit, Limit::Consumers { .. })).min_by_key(|known| known.allowed)?;
    Some((smallest.allowed.saturating_sub(stream.state.consumer_count), smallest.whose, smallest.allowed))
}

/// Finds the limit that so many more consumers exceed.
pub(crate) fn of_consumers(
    needed: u64,
    name: &str,
    stream: &StreamInfo,
    account: Option<&AccountInfo>,
) -> Option<Excess> {
    let (free, whose, allowed) = free_consumers(name, stream, account)?;
    let limit = Limit::Consumers { present: Some(stream.state.consumer_count) };
    (needed > free).then_some(Excess { limit, whose, allowed: Some(allowed), needed })
}

/// Finds the limit that the stream of `allow_create_stream` would exceed: it is in files, without
/// limits, with one replica.
pub(crate) fn of_stream(options: &Options, account: Option<&AccountInfo>) -> Option<Excess> {
    if let Some(needed) = options.consumer.num_replicas.filter(|replicas| *replicas > 1) {
        let whose = Whose::Stream(options.stream.clone());
        return Some(Excess { limit: Limit::Replicas, whose, allowed: Some(1), needed });
    }
    let of_account = |limit, allowed| Some(Excess { limit, whose: Whose::Account, allowed, needed: 1 });
    let account = account?;
    let Some(Tier { streams, limits }) = account.of_replicas(1) else { return of_account(Limit::Streams, Some(0)) };
    match u64::try_from(limits.max_streams).ok().filter(|most| *most > 0 && most <= streams) {
        Some(most) => of_account(Limit::Streams, Some(most)),
        None if limits.max_bytes_required || limits.max_storage == Some(0) => of_account(Limit::Storage, None),
        None => None,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a constant")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stream(config: Value, consumers: u64) -> StreamInfo {
        let state = json!({ "messages": 0, "first_seq": 0, "last_seq": 0, "consumer_count": consumers });
        let info = json!({ "config": config, "created": "x", "state": state });
        serde_json::from_value(info).expect("a stream")
    }

    fn account(info: Value) -> AccountInfo {
        serde_json::from_value(info).expect("an account")
    }

    fn consumer(config: Value) -> Object {
        serde_json::from_value(config).expect("an object")
    }

    #[test]
    fn each_limit_names_its_owner_its_value_and_what_changes_it() {
        let account = account(
            json!({ "streams": 1, "limits": { "max_ack_pending": 70, "max_consumers": 5, "max_streams": -1 } }),
        );
        let limited = json!({
            "num_replicas": 1, "max_consumers": 9, "consumer_limits": { "max_ack_pending": 80, "inactive_threshold": 10_000_000_000_u64 },
        });
        let stream = stream(limited, 5);
        let asked =
            consumer(json!({ "max_ack_pending": 75, "inactive_threshold": 60_000_000_000_u64, "num_replicas": 3 }));
        let mut told: Vec<_> = of_consumer(&asked, "s", &stream, Some(&account));
        told.extend(of_consumers(1, "s", &stream, Some(&account)));
        let told: Vec<_> = told.iter().map(|excess| (excess.to_string(), excess.hint())).collect();
        let expected = [
            (
                "stream \"s\" allows inactive_threshold 10s at most, and the table needs 60s",
                "set consumer.inactive_threshold to 10s or less",
            ),
            (
                "stream \"s\" has num_replicas 1, and the table asks for 3 of its consumer",
                "set consumer.num_replicas lower",
            ),
            (
                "the account allows max_ack_pending 70 at most, and the table needs 75",
                "set consumer.max_ack_pending to 70 or less",
            ),
            (
                "the account allows 5 at most (max_consumers) of a stream, 5 are there, and the table needs 1 more",
                "remove consumers",
            ),
        ];
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for ((text, hint), (expected, begins)) in told.iter().zip(expected) {
            assert!(text == expected && hint.starts_with(begins), "{text}: {hint}");
        }
    }

    #[test]
    fn a_tier_is_chosen_by_the_replicas_of_the_stream() {
        let tier = |most: i64| json!({ "streams": 0, "limits": { "max_consumers": most, "max_ack_pending": -1, "max_streams": 1 } });
        let account = account(json!({
            "streams": 0, "limits": { "max_consumers": 0, "max_storage": 0 }, "tiers": { "R1": tier(2), "R3": tier(-1) },
        }));
        let free = |replicas: i64| free_consumers("s", &stream(json!({ "num_replicas": replicas }), 1), Some(&account));
        assert_eq!(free(1), Some((1, Whose::Account, 2)));
        assert_eq!(free(3), None);
        assert_eq!(free(2), None);
    }

    #[test]
    fn a_refusal_is_of_whoever_has_the_limit() {
        let asked = consumer(json!({ "max_ack_pending": 200, "num_replicas": 2 }));
        let refused = |limit: u64| {
            let description = format!("consumer max ack pending exceeds system limit of {limit}");
            of_refusal(code::ACK_PENDING_EXCEEDED, &description, &asked).expect("it is about a limit")
        };
        let of_account = account(json!({ "limits": { "max_ack_pending": 70 } }));
        let stream = stream(
            json!({ "num_replicas": 3, "retention": "interest", "consumer_limits": { "max_ack_pending": 80 } }),
            0,
        );
        let whose = |limit, account| refused(limit).attributed(Some(("s", &stream)), account).whose;
        assert_eq!(whose(70, Some(&of_account)), Whose::Account);
        assert_eq!(whose(80, Some(&of_account)), Whose::Stream("s".to_owned()));
        assert_eq!(whose(90, Some(&of_account)), Whose::Server);
        assert_eq!(whose(90, None), Whose::Unknown);
        let differs = of_refusal(code::REPLICAS_DIFFER, "they differ", &asked).expect("it is about a limit");
        let differs = differs.attributed(Some(("s", &stream)), None);
        let expected = "stream \"s\" has num_replicas 3, which its consumers have to have too, and the table asks for 2 of its consumer";
        assert_eq!(differs.to_string(), expected);
        assert_eq!(of_consumer(&asked, "s", &stream, None).len(), 2);
        assert_eq!(of_refusal(code::REPLICAS_UNSUPPORTED, "no cluster", &Object::new()), None);
    }
}

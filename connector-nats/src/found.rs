//! A durable that Weir did not make: what its configuration can hold that the reader could not read through.
//!
//! Owns one rule for each field of a consumer's configuration: docs/nats-source.md has them as a table. The reader makes the
//! durable anew with its own configuration, except for where it starts, so those fields do not matter. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::api::{ConsumerInfo, Object};
use crate::retention::Retention;

/// What has to last longer: acknowledgements leave about once a second, and shorter requests would be a flood.
const DURATION_MIN: Duration = Duration::from_secs(1);

/// What the reader could not read through, and what to do about it; nothing if it can.
pub(crate) fn unreadable(config: &Object) -> Option<(String, String)> {
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
    let refuse =
        |message: String, change: &str| Some((message, format!("choose another consumer.durable_name, or {change}")));
    if !text("deliver_subject").is_empty() {
        return refuse("is a push consumer (deliver_subject)".to_owned(), "make a pull consumer of that name");
    }
    if let Some(field) = ["direct", "sourcing"].into_iter().find(|field| config.get(*field) == Some(&Value::Bool(true)))
    {
        return refuse(format!("is the server's own ({field})"), "delete it");
    }
    let groups = config.get("priority_groups").and_then(Value::as_array).is_some_and(|groups| !groups.is_empty());
    if groups || !matches!(text("priority_policy"), "" | "none") {
        let policy = text("priority_policy");
        let message = format!("chooses among several readers (priority_policy {policy}), but a table is its only one");
        return refuse(message, "make it anew without priority_policy and priority_groups");
    }
    if !matches!(text("ack_policy"), "none" | "all" | "explicit") {
        let message = format!("has ack_policy {}, which Weir does not know", text("ack_policy"));
        return refuse(message, "make it anew with ack_policy explicit");
    }
    for field in ["ack_wait", "max_expires", "inactive_threshold"] {
        // 0 is the server's default.
        if let Some(short) = duration(config.get(field)).filter(|short| !short.is_zero() && *short < DURATION_MIN) {
            let message = format!("has {field} {short:?}, and less than a second is too short to read through it");
            return refuse(message, &format!("change {field} to a second or more"));
        }
    }
    let waits = config.get("backoff").and_then(Value::as_array).into_iter().flatten();
    if let Some(short) = waits.filter_map(|wait| duration(Some(wait))).find(|wait| *wait < DURATION_MIN) {
        let message = format!("has a backoff of {short:?}, and less than a second is too short to read through it");
        return refuse(message, "change every wait of backoff to a second or more");
    }
    None
}

/// What the user should be told of a consumer that can be read through.
pub(crate) fn notices(info: &ConsumerInfo, retention: Retention, now: DateTime<Utc>) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some(until) = paused_until(&info.config, now) {
        notices.push(format!("consumer \"{}\" is paused until {until}: nothing is read before", info.name));
    }
    if let (Retention::Interest, Some(threshold)) = (retention, duration(info.config.get("inactive_threshold"))) {
        notices.push(format!(
            "consumer \"{}\" has inactive_threshold {threshold:?}: if Weir does not run for so long the server forgets it, and \
             drops what only it still wanted",
            info.name
        ));
    }
    notices
}

/// Until when a consumer delivers nothing, if that is still to come; in the server's notation.
pub(crate) fn paused_until(config: &Object, now: DateTime<Utc>) -> Option<&str> {
    let until = config.get("pause_until").and_then(Value::as_str)?;
    DateTime::parse_from_rfc3339(until).is_ok_and(|time| time > now).then_some(until)
}

/// Durations travel as nanoseconds.
fn duration(value: Option<&Value>) -> Option<Duration> {
    value.and_then(Value::as_u64).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        let Value::Object(mut object) = value else { panic!("{value} is no object") };
        object.entry("ack_policy").or_insert(json!("explicit"));
        object
    }

    #[test]
    fn what_cannot_be_read_through_is_named() {
        for (config, named) in [
            (json!({ "deliver_subject": "x" }), "deliver_subject"),
            (json!({ "priority_policy": "overflow", "priority_groups": ["g"] }), "priority_policy overflow"),
            (json!({ "priority_policy": "prioritized" }), "priority_policy prioritized"),
            (json!({ "priority_groups": ["g"] }), "priority_policy"),
            (json!({ "ack_policy": "flow_control" }), "ack_policy flow_control"),
            (json!({ "direct": true }), "direct"),
            (json!({ "ack_wait": 1 }), "ack_wait 1ns"),
            (json!({ "max_expires": 999_999_999 }), "max_expires"),
            (json!({ "inactive_threshold": 1_000_000 }), "inactive_threshold 1ms"),
            (json!({ "backoff": [1_000_000_000, 5] }), "backoff of 5ns"),
        ] {
            let (message, _) = unreadable(&object(config.clone())).expect("it cannot be read through");
            assert!(message.contains(named), "{config}: {message}");
        }
        for config in [
            json!({}),
            json!({ "priority_policy": "none", "direct": false, "deliver_subject": "" }),
            json!({ "ack_wait": 1_000_000_000, "max_expires": 0, "backoff": [], "pause_until": "2030-01-01T00:00:00Z" }),
        ] {
            assert_eq!(unreadable(&object(config.clone())), None, "{config}");
        }
    }

    #[test]
    fn a_pause_that_is_over_is_none() {
        let config = object(json!({ "pause_until": "2030-01-01T00:00:00Z" }));
        let at = |time: &str| time.parse::<DateTime<Utc>>().expect("a time");
        assert_eq!(paused_until(&config, at("2029-12-31T23:59:59Z")), Some("2030-01-01T00:00:00Z"));
        assert_eq!(paused_until(&config, at("2030-01-01T00:00:00Z")), None);
        assert_eq!(paused_until(&object(json!({})), at("2030-01-01T00:00:00Z")), None);
    }
}

//! Options of a table that is there already: which can change, and what becomes of those that are stored.

use std::collections::BTreeMap;

use super::OptionError;
use super::known::{KNOWN, Known};

/// What a table is, and where it began: with another value it would be another table.
const FIXED: &[&str] = &[
    "connector",
    "stream",
    "split_by_subject",
    "allow_create_stream",
    "scan.startup.mode",
    "scan.startup.timestamp.millis",
    "consumer.opt_start_seq",
    "consumer.deliver_policy",
    "consumer.durable_name",
    "consumer.name",
    "consumer.headers_only",
];

/// Whether two spellings are of one option.
pub fn same_option(one: &str, other: &str) -> bool {
    one == other || known(one).zip(known(other)).is_some_and(|(one, other)| one.name == other.name)
}

/// Stored options with some of them changed, whichever way each is spelt.
pub fn changed(stored: &BTreeMap<String, String>, changes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let kept = stored.iter().filter(|(key, _)| !changes.keys().any(|change| same_option(key, change)));
    kept.chain(changes).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Checks that only options differ that can change.
///
/// # Errors
/// Names the first that cannot.
pub fn check_change(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Result<(), OptionError> {
    for (key, value) in after {
        let fixed = known(key).is_some_and(|known| FIXED.contains(&known.name));
        let stored = before.iter().find(|(stored, _)| same_option(stored, key)).map(|(_, value)| value);
        if fixed && stored != Some(value) {
            return Err(OptionError::new(key, "cannot be changed")
                .with_hint("create another table: what this one is, or where it began, would be different"));
        }
    }
    Ok(())
}

fn known(key: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == key || known.aliases.contains(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_change_replaces_an_option_in_whichever_spelling() {
        let stored = options(&[("stream", "s"), ("consumer.ack_wait", "10"), ("subject", "a")]);
        let after = changed(&stored, &options(&[("consumer.ack_wait.sec", "20"), ("on_gap", "fail")]));
        let expected = [("stream", "s"), ("consumer.ack_wait.sec", "20"), ("subject", "a"), ("on_gap", "fail")];
        assert_eq!(after, options(&expected));
        assert_eq!(check_change(&stored, &after), Ok(()));
    }

    #[test]
    fn what_a_table_is_cannot_change() {
        assert!(FIXED.iter().all(|fixed| KNOWN.iter().any(|known| known.name == *fixed)), "every name is an option's");
        let stored = options(&[("connector", "nats"), ("consumer.start_sequence", "5")]);
        for same in [("connector", "nats"), ("consumer.opt_start_seq", "5")] {
            assert_eq!(check_change(&stored, &changed(&stored, &options(&[same]))), Ok(()), "{same:?}");
        }
        for other in [("consumer.opt_start_seq", "6"), ("scan.startup.sequence", "6"), ("stream", "s")] {
            let refused = check_change(&stored, &changed(&stored, &options(&[other]))).expect_err("cannot be changed");
            assert_eq!((refused.option.as_str(), refused.message.as_str()), (other.0, "cannot be changed"));
        }
    }
}

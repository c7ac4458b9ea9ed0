//! Reading values: one look-up by canonical name whatever the spelling, and one error text a kind of mistake.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::OptionError;
use super::known::{KNOWN, UNSUPPORTED, closest};

/// The options as they were given, found by their canonical names.
pub(super) struct Values<'a> {
    /// Canonical name → (spelling, value).
    given: HashMap<&'static str, (&'a str, &'a str)>,
}

impl<'a> Values<'a> {
    pub(super) fn new(options: &'a BTreeMap<String, String>) -> Result<Values<'a>, OptionError> {
        let mut given: HashMap<&'static str, (&str, &str)> = HashMap::new();
        for (key, value) in options {
            let value = value.trim();
            if let Some((_, why)) = UNSUPPORTED.iter().find(|(name, _)| name == key) {
                return Err(OptionError::new(key, "is not supported yet").with_hint(*why));
            }
            let found = KNOWN.iter().find(|known| known.name == key || known.aliases.contains(&key.as_str()));
            let Some(known) = found else {
                let unknown = OptionError::new(key, "there is no such option");
                return Err(match closest(key) {
                    Some(name) => unknown.with_hint(format!("did you mean \"{name}\"?")),
                    None => unknown,
                });
            };
            match given.get(known.name) {
                Some((other, existing)) if *existing != value => {
                    return Err(OptionError::new(key, format!("conflicts with \"{other}\""))
                        .with_hint("both spell the same option: keep one"));
                }
                _ => given.insert(known.name, (key, value)),
            };
        }
        Ok(Values { given })
    }

    /// How the user spelt an option; nothing if it was not given.
    pub(super) fn spelling(&self, name: &str) -> Option<&'a str> {
        self.given.get(name).map(|(spelling, _)| *spelling)
    }

    /// A value that, when given, is not empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, OptionError> {
        match self.given.get(name) {
            None => Ok(None),
            Some((spelling, "")) => Err(OptionError::new(spelling, "is empty")),
            Some((_, value)) => Ok(Some(value)),
        }
    }

    pub(super) fn required(&self, name: &str) -> Result<&'a str, OptionError> {
        self.text(name)?.ok_or_else(|| Values::missing(name))
    }

    pub(super) fn missing(name: &str) -> OptionError {
        OptionError::new(name, "is missing").with_hint(format!("add {name} = '…' to WITH"))
    }

    /// A comma-separated list without empty elements.
    pub(super) fn list(&self, name: &str) -> Result<Option<Vec<String>>, OptionError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let elements: Vec<String> = text.split(',').map(|element| element.trim().to_owned()).collect();
        if elements.iter().any(String::is_empty) {
            return Err(self.malformed(name, text, "a list separated by commas"));
        }
        Ok(Some(elements))
    }

    pub(super) fn bool(&self, name: &str) -> Result<Option<bool>, OptionError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(self.malformed(name, text, "true or false")),
        }
    }

    pub(super) fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, OptionError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ if *range.end() == i64::MAX && *range.start() == i64::MIN => {
                Err(self.malformed(name, text, "an integer"))
            }
            _ if *range.end() == i64::MAX => {
                Err(self.malformed(name, text, &format!("an integer of at least {}", range.start())))
            }
            _ => Err(self.malformed(name, text, &format!("an integer from {} to {}", range.start(), range.end()))),
        }
    }

    /// Whole seconds, at least one.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<Duration>, OptionError> {
        let seconds = self.integer(name, 1..=MAX_SECONDS)?;
        Ok(seconds.map(|seconds| Duration::from_secs(seconds.unsigned_abs())))
    }

    pub(super) fn seconds_list(&self, name: &str) -> Result<Vec<Duration>, OptionError> {
        let elements = self.list(name)?.unwrap_or_default();
        let parsed = elements.iter().map(|text| match text.parse::<i64>() {
            Ok(seconds @ 1..=MAX_SECONDS) => Ok(Duration::from_secs(seconds.unsigned_abs())),
            _ => Err(self.malformed(name, text, "a list of whole seconds separated by commas")),
        });
        parsed.collect()
    }

    pub(super) fn malformed(&self, name: &str, value: &str, expected: &str) -> OptionError {
        let spelling = self.spelling(name).unwrap_or(name);
        OptionError::new(spelling, format!("\"{value}\" is not {expected}"))
    }

    pub(super) fn not_one_of(&self, name: &str, value: &str, expected: &[&str]) -> OptionError {
        self.malformed(name, value, &format!("one of {}", expected.join(", ")))
    }

    pub(super) fn conflict(&self, a: &str, b: &str) -> OptionError {
        let (a_spelt, b_spelt) = (self.spelling(a).unwrap_or(a), self.spelling(b).unwrap_or(b));
        let value = |name| self.given.get(name).map_or("", |(_, value)| *value);
        OptionError::new(a_spelt, format!("conflicts with \"{b_spelt}\"")).with_hint(format!(
            "{a_spelt} = '{}' and {b_spelt} = '{}' disagree: keep one",
            value(a),
            value(b)
        ))
    }

    /// `ByStartTime`, `by_start_time` and `by-start-time` are one word.
    pub(super) fn canonical_word(text: &str) -> String {
        text.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
    }
}

/// Durations travel as nanoseconds in 63 bits.
const MAX_SECONDS: i64 = 9_000_000_000;

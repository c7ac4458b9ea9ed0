//! `split_by_subject`: a stream that is read as several splits, one for each subject, at the same time and on several nodes.
//!
//! A split reads through a consumer of its own, whose filter is the split's subject. The order of messages is kept within a
//! split. Without the option a stream is one split.

use std::collections::HashMap;

use weir_common::ids::SplitId;

use super::value::Values;
use super::{OptionError, Options};
use crate::subject;

const OPTION: &str = "split_by_subject";
/// Each split has a connection, a consumer and an actor.
const SPLITS_MAX: usize = 256;
/// Between the stream and the subject of a split: a stream's name has none.
const SEPARATOR: char = '/';

/// The subject of a split, if it is one of several of its stream.
pub fn subject_of(split: &SplitId) -> Option<&str> {
    split.0.split_once(SEPARATOR).map(|(_, subject)| subject)
}

/// The stream of a split.
pub fn stream_of(split: &SplitId) -> &str {
    split.0.split_once(SEPARATOR).map_or(split.0.as_str(), |(stream, _)| stream)
}

impl Options {
    /// The splits that the stream is read as.
    pub fn splits(&self) -> Vec<SplitId> {
        if !self.split_by_subject {
            return vec![SplitId(self.stream.clone())];
        }
        self.subjects.iter().map(|subject| SplitId(format!("{}{SEPARATOR}{subject}", self.stream))).collect()
    }

    /// The options with which one of the splits is read.
    pub fn of_split(&self, split: &SplitId) -> Options {
        let Some(subject) = subject_of(split) else { return self.clone() };
        Options { subjects: vec![subject.to_owned()], split: Some(subject.to_owned()), ..self.clone() }
    }

    /// The name of a split's consumer, of which `name` is what the user or the table gave.
    pub(crate) fn name_of_split(&self, name: &str) -> String {
        match &self.split {
            Some(subject) => format!("{name}-{:08x}", hash(subject)),
            None => name.to_owned(),
        }
    }
}

/// Consumers are recognised by it, so it never changes: the CRC-32 (IEEE).
fn hash(subject: &str) -> u32 {
    crc32fast::hash(subject.as_bytes())
}

/// Whether the stream is split. `subjects` are what is read, normalised.
pub(super) fn parse(values: &Values<'_>, subjects: &[String]) -> Result<bool, OptionError> {
    if values.bool(OPTION)? != Some(true) {
        return Ok(false);
    }
    for other in ["consumer.filter_subject", "consumer.filter_subjects"] {
        if values.spelling(other).is_some() {
            let hint = format!("leave out {other}, and name in subject what is to be read");
            return Err(values.conflict(OPTION, other).with_hint(hint));
        }
    }
    let refuse = |message: String, hint: &str| Err(OptionError::new(OPTION, message).with_hint(hint));
    let written = values.list("subject")?.unwrap_or_default();
    for (at, first) in written.iter().enumerate() {
        if let Some(second) = written[at + 1..].iter().find(|second| subject::intersect(first, second).is_some()) {
            let message = format!("subjects \"{first}\" and \"{second}\" overlap: a message would be in two splits");
            return refuse(message, "name subjects that have no message in common, or leave the option out");
        }
    }
    if subjects.len() > SPLITS_MAX {
        let message = format!("{} subjects are too many: a stream has at most {SPLITS_MAX} splits", subjects.len());
        return refuse(message, "use wildcards to gather subjects");
    }
    let mut hashes = HashMap::new();
    for subject in subjects {
        if let Some(other) = hashes.insert(hash(subject), subject) {
            let message =
                format!("subjects \"{other}\" and \"{subject}\" have the same hash, by which consumers are named");
            return refuse(message, "write one of them in another way, or leave the option out");
        }
    }
    Ok(true)
}

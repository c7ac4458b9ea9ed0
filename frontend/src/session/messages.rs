//! The messages that a session waits for, and its memory of what was read.

use std::collections::{BTreeMap, HashMap};

use weir_common::ids::{Epoch, Incarnation, JobSplit};

/// Messages that are waited for: the streams, each with a sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Messages(BTreeMap<String, u64>);

impl Messages {
    /// Parses `ORDERS:1234, PAYMENTS:5`; `None` if it is something else. Of several sequences of a
    /// stream the highest one counts.
    pub(crate) fn parse(list: &str) -> Option<Messages> {
        let mut messages = Messages::default();
        for item in list.split(',').map(str::trim).filter(|_| !list.trim().is_empty()) {
            let (stream, sequence) = item.rsplit_once(':')?;
            if stream.trim().is_empty() {
                return None;
            }
            messages.add(stream.trim(), sequence.trim().parse().ok()?);
        }
        Some(messages)
    }

    /// One message.
    pub(crate) fn one(stream: &str, sequence: u64) -> Messages {
        Messages(BTreeMap::from([(stream.to_owned(), sequence)]))
    }

    fn add(&mut self, stream: &str, sequence: u64) {
        let wanted = self.0.entry(stream.to_owned()).or_default();
        *wanted = sequence.max(*wanted);
    }

    /// Returns true if there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the streams and the sequences.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(stream, sequence)| (stream.as_str(), *sequence))
    }

    /// Returns the streams.
    pub(crate) fn streams(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

/// The splits that a session knows to have been read up to a place in a stream, although their
/// positions do not say so.
#[derive(Debug, Default)]
pub(crate) struct Included(HashMap<JobSplit, (Incarnation, u64, Epoch)>);

impl Included {
    /// Returns true if an epoch includes everything of a split up to a place in the stream.
    pub(crate) fn has(&self, split: &JobSplit, (incarnation, sequence): (Incarnation, u64), epoch: Epoch) -> bool {
        let includes =
            |(of, read, since): &(Incarnation, u64, Epoch)| *of == incarnation && sequence <= *read && *since <= epoch;
        self.0.get(split).is_some_and(includes)
    }

    /// An epoch includes everything of a split up to a place in the stream.
    pub(crate) fn add(&mut self, split: JobSplit, (incarnation, sequence): (Incarnation, u64), epoch: Epoch) {
        self.0.insert(split, (incarnation, sequence, epoch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_streams_and_sequences() {
        let parse = |list| Messages::parse(list).map(|messages| messages.0.into_iter().collect::<Vec<_>>());
        assert_eq!(parse(""), Some(Vec::new()));
        assert_eq!(parse(" ORDERS:12 , B:3,ORDERS:7"), Some(vec![("B".to_owned(), 3), ("ORDERS".to_owned(), 12)]));
        for wrong in ["ORDERS", "ORDERS:", ":5", "ORDERS:-1", "ORDERS:5,", "ORDERS:x"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}

//! Making a consumer anew, by the rules of its stream's retention.
//!
//! Owns the order of the requests. Invariants: a work queue's consumer delivers everything that was not acknowledged; an
//! Interest stream is never without interest from the given sequence on, whenever this ends in the middle.
//!
//! Under Interest retention messages go with the last consumer that wants them, so a **guard**, a consumer that nobody
//! reads, keeps them while the durable is deleted and made again. Every reader has a guard of its own: another reader
//! removes it only after it has made the durable anew, has seen the guard, and has learnt from a commit a while later that its own
//! term still reigned then; a newer reader's guard it has never seen so. A guard stays for as long because a request of an older
//! reader may still be on its way. For the same reason the name of a guard that is being removed is never used again: the server may
//! get to the removal when the next guard of the name is there already, and a durable without a guard is being deleted.

use std::time::Duration;

use tokio::time::Instant;
use weir_common::ids::Sequence;

use crate::api::{Api, ConsumerInfo, Object};
use crate::consumer;
use crate::error::{Error, code};
use crate::retention::{self, Retention};
use crate::subject;

/// A durable is not deleted when its guard was made longer ago than this: whoever paused in between may have to do with
/// the durable, and without the guard, of a newer reader.
const GUARD_FRESH: Duration = Duration::from_secs(5);

/// A consumer that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Making<'a> {
    pub(crate) api: &'a Api,
    pub(crate) stream: &'a str,
    pub(crate) retention: Retention,
    /// The table's owner, `<cluster>/<table>`.
    pub(crate) owner: &'a str,
    pub(crate) name: &'a str,
    /// What it is to be, where it starts left open.
    pub(crate) config: &'a Object,
}

impl Making<'_> {
    /// Deletes the consumer, if it is there, and makes it again. It starts at `from`, or at whatever was not acknowledged
    /// if the stream is a work queue. `guard` is the name of the caller's own guard.
    pub(crate) async fn remake(&self, from: Sequence, guard: &str) -> Result<ConsumerInfo, Error> {
        if self.retention == Retention::Interest {
            let asked = Instant::now();
            self.put_guard(from, guard).await?;
            if asked.elapsed() > GUARD_FRESH {
                let what = format!("to make guard \"{guard}\"");
                return Err(Error::Timeout { what, within: GUARD_FRESH });
            }
        }
        self.api.delete_consumer(self.stream, self.name).await?;
        self.make(from).await
    }

    /// Makes the consumer, which must not be there.
    pub(crate) async fn make(&self, from: Sequence) -> Result<ConsumerInfo, Error> {
        let config = match self.retention {
            Retention::WorkQueue => retention::delivering_all(self.config),
            Retention::Limits | Retention::Interest => consumer::starting_at(self.config, from),
        };
        match self.api.create_consumer(self.stream, &config).await {
            Err(error) if error.is_queue_overlap() => Err(self.overlap().await),
            result => result,
        }
    }

    /// Makes a guard, unless it is there already: then it keeps even more.
    pub(crate) async fn put_guard(&self, from: Sequence, guard: &str) -> Result<(), Error> {
        let config = retention::guard(self.config, guard, self.name, self.owner, from);
        match self.api.create_consumer(self.stream, &config).await {
            Ok(_) | Err(Error::Refused { code: code::CONSUMER_EXISTS, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Says who else has a part in what the consumer is to deliver.
    async fn overlap(&self) -> Error {
        let own = retention::explicit_filters(self.config);
        let overlaps = |other: &ConsumerInfo| {
            let theirs = retention::explicit_filters(&other.config);
            own.iter().any(|own| theirs.iter().any(|their| subject::intersect(own, their).is_some()))
        };
        // Without the permission to list them they stay unnamed.
        let others = self.api.consumers(self.stream).await.unwrap_or_default();
        let consumers = others.iter().filter(|other| overlaps(other)).map(|other| other.name.clone()).collect();
        Error::QueueOverlap { stream: self.stream.to_owned(), consumers }
    }
}

/// The name of a guard: `unique` is a name that nobody else has.
pub(crate) fn guard_name(durable: &str, unique: &str) -> String {
    format!("{durable}-guard-{}", unique.trim_start_matches("weir-"))
}

/// Removes the guards of a durable that Weir made for this owner, those that are `removable` by their names; returns the names of
/// the others.
pub(crate) async fn remove_guards(
    api: &Api,
    stream: &str,
    durable: &str,
    owner: &str,
    removable: impl Fn(&str) -> bool,
) -> Result<Vec<String>, Error> {
    let mut others = Vec::new();
    for info in api.consumers(stream).await? {
        if consumer::owner(&info) != Some(owner) || retention::guards(&info) != Some(durable) {
            continue;
        }
        if removable(&info.name) {
            api.delete_consumer(stream, &info.name).await?;
        } else {
            others.push(info.name);
        }
    }
    Ok(others)
}

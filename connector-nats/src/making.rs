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
//!
//! Where the server can, the durable of an Interest stream is reset instead, and never deleted while it is read: deleting a
//! consumer that many messages lie above can make nats-server lose what others want (docs/decisions, 0013). What has to be deleted
//! after all is moved to the end before, see [`retire`].

use std::time::Duration;

use tokio::time::Instant;
use weir_common::ids::Sequence;

use crate::api::{Api, ConsumerInfo, Object, StreamInfo};
use crate::consumer::{self, PIN_GROUP};
use crate::error::{Error, code};
use crate::retention::{self, Retention};
use crate::subject;

/// A durable is not deleted when its guard was made longer ago than this: whoever paused in between may have to do with
/// the durable, and without the guard, of a newer reader.
const GUARD_FRESH: Duration = Duration::from_secs(5);
/// How often it is tried to be the one whom a pinned consumer delivers to next.
const PIN_ATTEMPTS: usize = 3;
/// A consumer nearer to the end than this is deleted as it is.
const RETIRE_NEAR: u64 = 10_000;
/// How far a consumer is moved by one request, for each message of which the server finds out who wants it: about 1.5 s.
const RETIRE_STEP: u64 = 1_000_000;

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

    /// Makes a pinned consumer if it is not there, and has it start over: everything is delivered from a sequence on, to
    /// whoever asks first from now on, and what lies below is no longer wanted. `found` is how it was found.
    pub(crate) async fn start_over(&self, from: Sequence, found: Option<&ConsumerInfo>) -> Result<ConsumerInfo, Error> {
        match found {
            None => drop(self.make(from).await?),
            Some(found) => {
                if let Some(config) = consumer::update(self.config, &found.config) {
                    self.api.update_consumer(self.stream, &config).await?;
                }
            }
        }
        // One that was just made is reset as well: the server does harm with those that it has not looked at yet, and looks then.
        for _ in 0..PIN_ATTEMPTS {
            self.api.unpin_consumer(self.stream, self.name, PIN_GROUP).await?;
            let info = self.api.reset_consumer(self.stream, self.name, from).await?;
            // Otherwise a request of somebody else was served between the two, and nothing says whether it still waits.
            if !info.is_pinned() {
                return Ok(info);
            }
        }
        Err(Error::Busy { consumer: self.name.to_owned() })
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
        // Without the permission to list them they stay unnamed.
        let others = self.api.consumers(self.stream).await.unwrap_or_default();
        Error::QueueOverlap { stream: self.stream.to_owned(), consumers: overlapping(self.config, &others) }
    }
}

/// The names of consumers that have a part in what a consumer with this configuration filters.
pub(crate) fn overlapping(config: &Object, others: &[ConsumerInfo]) -> Vec<String> {
    let own = retention::explicit_filters(config);
    let overlaps = |other: &&ConsumerInfo| {
        let theirs = retention::explicit_filters(&other.config);
        own.iter().any(|own| theirs.iter().any(|their| subject::intersect(own, their).is_some()))
    };
    others.iter().filter(overlaps).map(|other| other.name.clone()).collect()
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
            retire(api, stream, &info.name).await?;
        } else {
            others.push(info.name);
        }
    }
    Ok(others)
}

/// Deletes a consumer that nobody is to read through any more; whether it was there. On an Interest stream it is moved to the end
/// before, if the server can: the server then finds out message by message what else goes, and not in the background after the
/// deletion, which has cost messages that other consumers wanted.
pub(crate) async fn retire(api: &Api, stream: &str, name: &str) -> Result<bool, Error> {
    if api.can_reset() {
        move_to_end(api, stream, name).await?;
    }
    api.delete_consumer(stream, name).await
}

/// Moves a consumer of an Interest stream so near to the end that nothing much lies above it, if it is there and its start allows it.
async fn move_to_end(api: &Api, stream: &str, name: &str) -> Result<(), Error> {
    let mut floor = None;
    loop {
        let StreamInfo { config, state, .. } = api.stream_info(stream).await?;
        if Retention::of(&config) != Some(Retention::Interest) {
            return Ok(());
        }
        let reached = match floor {
            Some(floor) => floor,
            None => match api.consumer_info(stream, name).await? {
                Some(info) => info.ack_floor.stream_seq.max(state.first_seq.saturating_sub(1)),
                None => return Ok(()),
            },
        };
        if state.last_seq < reached + RETIRE_NEAR {
            return Ok(());
        }
        let next = state.last_seq.min(reached + RETIRE_STEP);
        match api.reset_consumer(stream, name, Sequence(next + 1)).await {
            Err(Error::Refused { code: code::INVALID_RESET, .. }) => return Ok(()),
            result => drop(result?),
        }
        floor = Some(next);
    }
}

//! Making the consumer at a position: the requests of one attempt, and what comes out of them.
//!
//! Owns nothing between attempts except what [`Known`] remembers: what an attempt brought stays there until the task takes
//! it over, because an attempt may end with its connection at any time. Invariants: a consumer that Weir found is only deleted
//! once its configuration is remembered, and made again with exactly that; where acknowledgements delete messages it never
//! starts above the committed position; one that can be reset is never deleted.

use std::collections::HashSet;
use std::sync::Arc;

use async_nats::Subscriber;
use bytes::Bytes;
use serde_json::{Value, json};
use weir_common::ids::Sequence;
use weir_common::position::{Anchor, Position};

use super::fetch::{Fetched, Found, Unreadable, fetch, last_below, search, see};
use super::pin::Pin;
use crate::api::{Api, ConsumerInfo, Object, StreamInfo};
use crate::consumer::{self, Bounds, Fit, PIN_GROUP};
use crate::delivery::{Fence, Incarnation, Pull, Terms};
use crate::error::Error;
use crate::identity::{Another, judge};
use crate::making::{Making, guard_name, remove_guards};
use crate::options::{OnGap, Options};
use crate::preflight::{check_filters_understood, check_last, unique_name};
use crate::reply::Form;
use crate::retention::{self, Renewal, Retention};
use crate::subject;

/// What attempts remember of each other.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The configuration of a consumer that Weir did not make.
    pub(super) foreign: Option<Object>,
    /// The name of the newest consumer without a given name.
    pub(super) anonymous: Option<String>,
    /// Up to here it was told what the stream no longer holds.
    pub(super) first_seq: u64,
    /// The name of this reader's own guard, until it is removed.
    pub(super) guard: Option<String>,
    /// Where another stream of the name begins that was found instead.
    pub(super) another: Option<Position>,
    /// What was fetched and is not handed out yet.
    fetched: Fetched,
    /// Of a work queue that was searched: what the client cannot read and was handed out, until it is removed.
    found: Option<Found>,
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) api: Api,
    pub(super) options: Arc<Options>,
    pub(super) stream: String,
    pub(super) owner: String,
    pub(super) stored: bool,
    pub(super) incarnation: Incarnation,
    pub(super) position: Position,
    /// Everything below is committed.
    pub(super) committed: Sequence,
    /// Whether messages are fetched before, see [`fetch`].
    pub(super) fetch: bool,
    pub(super) known: Known,
}

/// What an attempt brought.
pub(super) struct Outcome {
    /// The consumer, unless messages had to be fetched and committed first.
    pub(super) built: Option<(Live, Terms)>,
    /// The last sequence of the stream.
    pub(super) stream_last: Sequence,
    /// What the stream no longer holds from the position on, as far as that is news.
    pub(super) gap: Option<Gap>,
}

/// Sequences that the stream lost before they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// The first.
    pub(super) from: Sequence,
    /// How many.
    pub(super) count: u64,
    /// Whether they were the table's. If the stream holds other subjects too, that is not known.
    pub(super) certain: bool,
}

/// A consumer that is being read.
pub(super) struct Live {
    pub(super) incarnation: Incarnation,
    pub(super) subscriber: Subscriber,
    /// The form of its replies, learnt from the first.
    pub(super) form: Option<Form>,
    /// Subjects to check each message against, because the consumer does not filter.
    pub(super) selection: Option<Selection>,
    /// Whether guards may be there, that are to be removed once the term is known to reign.
    pub(super) guarded: bool,
    /// If it delivers to one client only.
    pub(super) pin: Option<Pin>,
    name: String,
    created: String,
    inbox: String,
    next_subject: String,
    bounds: Bounds,
}

impl Known {
    /// What is still known once another stream is read: how its consumer is called and configured.
    pub(super) fn of_another(self) -> Known {
        let Known { foreign, anonymous, guard, .. } = self;
        Known { foreign, anonymous, guard, ..Known::default() }
    }

    /// What was fetched is handed out. From then on it has to be removed from a work queue what the client cannot read of it.
    pub(super) fn hand_out(&mut self) -> Fetched {
        let fetched = std::mem::take(&mut self.fetched);
        if let Some(found) = self.found.as_mut().filter(|_| fetched.position > fetched.from) {
            found.unreadable.extend(fetched.unreadable);
            found.position = fetched.position;
        }
        fetched
    }
}

impl Attempt {
    /// Makes the consumer, unless the attempt is void before. What is learnt on the way is in `known` whatever the
    /// result: a consumer that Weir found may have been deleted by then, and its configuration is nowhere else.
    pub(super) async fn run(mut self, void: impl Future<Output = ()>) -> (Known, Result<Outcome, Error>) {
        let result = tokio::select! {
            biased;
            () = void => Err(Error::Disconnected { what: "to build the consumer".to_owned() }),
            result = self.build() => result,
        };
        (self.known, result)
    }

    async fn build(&mut self) -> Result<Outcome, Error> {
        let info = self.api.stream_info(&self.stream).await?;
        check_last(&self.stream, &info)?;
        let retention = consumer::retention(&self.stream, &info.config)?;
        retention::check_use(&self.stream, retention, self.stored)?;
        if !self.fetch || self.known.fetched.from != self.position.next {
            self.known.fetched = Fetched::nothing(self.position);
        }
        self.identify(&info).await?;
        let gap = self.gap(&info)?;
        let stream_last = Sequence(info.state.last_seq);
        if self.fetch && retention.deletes_acknowledged() {
            // The consumer has to begin at the committed position, and would deliver again what is fetched.
            self.fetch(retention, stream_last).await?;
            return Ok(Outcome { built: None, stream_last, gap });
        }
        let Wanted { name, config, fence, found } = self.wanted(&info, retention).await?;
        let inbox = self.api.client().new_inbox();
        let subscriber = self
            .api
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|_| Error::Disconnected { what: format!("to subscribe for consumer \"{name}\"") })?;
        if self.fetch {
            self.fetch(retention, stream_last).await?;
        }
        let position = self.known.fetched.position;
        let making = self.making(retention, &name, &config);
        let made = match fence {
            Fence::Private => making.make(position).await?,
            Fence::Pinned => making.start_over(self.committed, found.as_ref()).await?,
            Fence::Made => self.make_anew(retention, &name, &config, position).await?,
        };
        check_filters_understood(&config, &made.config, &name)?;
        let (terms, bounds) = consumer::terms(&made.config, self.options.consumer.rate_limit, fence);
        let filtered = subject::normalise(&consumer::named_filters(&made.config));
        let unfiltered = filtered != subject::normalise(consumer::wanted_subjects(&self.options));
        let live = Live {
            incarnation: self.incarnation,
            subscriber,
            form: None,
            selection: unfiltered.then(|| Selection::new(&self.options)),
            guarded: retention == Retention::Interest,
            pin: (fence == Fence::Pinned).then(Pin::default),
            next_subject: self.api.subject(&format!("CONSUMER.MSG.NEXT.{}.{name}", self.stream)),
            name,
            created: made.created,
            inbox,
            bounds,
        };
        Ok(Outcome { built: Some((live, terms)), stream_last, gap })
    }

    /// Deletes the consumer of that name, if there is one, and makes it anew.
    async fn make_anew(
        &mut self,
        retention: Retention,
        name: &str,
        config: &Object,
        position: Sequence,
    ) -> Result<ConsumerInfo, Error> {
        if retention == Retention::WorkQueue {
            self.remove_unreadable().await?;
        }
        let from = if retention.deletes_acknowledged() { self.committed } else { position };
        let guard = self.known.guard.get_or_insert_with(|| guard_name(name, &unique_name(&self.api))).clone();
        self.making(retention, name, config).remake(from, &guard).await
    }

    fn making<'a>(&'a self, retention: Retention, name: &'a str, config: &'a Object) -> Making<'a> {
        Making { api: &self.api, stream: &self.stream, retention, owner: &self.owner, name, config }
    }

    /// Finds out whether the stream is the one that was read, before anything is done to it.
    async fn identify(&mut self, info: &StreamInfo) -> Result<(), Error> {
        let Attempt { api, stream, options, known, .. } = self;
        let Position { next, anchor } = known.fetched.read();
        let mut seen = see(api, stream, info, &anchor).await?;
        if seen.at_anchor.is_none() && info.state.messages > 0 {
            seen.below = last_below(api, stream, options, Sequence(info.state.first_seq.max(1)), next).await?;
        }
        match judge(anchor, next, &seen) {
            Ok(anchor) => {
                known.fetched.anchor = anchor;
                self.position.anchor = anchor;
                Ok(())
            }
            Err(Another { why, certain }) => {
                let begins =
                    if info.state.messages == 0 { info.state.last_seq + 1 } else { info.state.first_seq.max(1) };
                let anchor = Anchor { created_ns: seen.created_ns, newest_ns: 0, ..Anchor::default() };
                known.another = Some(Position { next: Sequence(begins), anchor });
                Err(Error::StreamReplaced { stream: stream.clone(), message: why, certain })
            }
        }
    }

    /// What the stream no longer holds from the position on, as far as that is news. Whoever stores nothing has lost nothing.
    fn gap(&self, info: &StreamInfo) -> Result<Option<Gap>, Error> {
        if !self.stored {
            return Ok(None);
        }
        let first = info.state.first_seq;
        let from = self.position.next.0.max(self.known.first_seq);
        let Some(count) = first.checked_sub(from).filter(|count| *count > 0) else { return Ok(None) };
        let gap = Gap {
            from: Sequence(from),
            count,
            certain: consumer::cover(consumer::wanted_subjects(&self.options), &info.config),
        };
        if gap.certain && self.options.on_gap == OnGap::Fail {
            return Err(Error::Gap { stream: self.stream.clone(), from: gap.from, to: Sequence(first - 1) });
        }
        Ok(Some(gap))
    }

    /// Fetches messages one by one, see [`fetch`].
    async fn fetch(&mut self, retention: Retention, last: Sequence) -> Result<(), Error> {
        let Attempt { api, stream, options, position, known, .. } = self;
        if retention == Retention::WorkQueue {
            let found = known.found.get_or_insert_default();
            search(api, stream, options, *position, found).await?;
            if !found.unreadable.is_empty() || found.position < position.next {
                return Ok(());
            }
        }
        fetch(api, stream, options, last, &mut known.fetched).await
    }

    /// A work queue hands out everything that was not acknowledged, and so these again and again: once committed, they are
    /// removed by a request.
    async fn remove_unreadable(&mut self) -> Result<(), Error> {
        let Some(Found { unreadable, .. }) = &mut self.known.found else { return Ok(()) };
        while let Some(at) = unreadable.iter().position(|known| known.sequence < self.committed.0) {
            let Unreadable { sequence, stored_ns } = unreadable[at];
            match self.api.message_with(&self.stream, sequence).await? {
                Some(there) if there.stored_ns == stored_ns => self.api.delete_message(&self.stream, sequence).await?,
                Some(_) => {
                    let message = format!("its message {sequence} is another one");
                    return Err(Error::StreamReplaced { stream: self.stream.clone(), message, certain: true });
                }
                None => {}
            }
            unreadable.swap_remove(at);
        }
        Ok(())
    }

    /// How the consumer is called and what it has to be. One without a name that others know is deleted here, because the
    /// next one has another.
    async fn wanted(&mut self, info: &StreamInfo, retention: Retention) -> Result<Wanted, Error> {
        let kind = retention::consumer_name(&self.options, retention, &self.owner);
        let Some(name) = kind.given().map(str::to_owned) else {
            if let Some(old) = self.known.anonymous.take() {
                self.api.delete_consumer(&self.stream, &old).await?;
            }
            let name = unique_name(&self.api);
            self.known.anonymous = Some(name.clone());
            let config = consumer::wanted(&self.options, &info.config, &kind, &name, &self.owner);
            return Ok(Wanted { name, config, fence: Fence::Private, found: None });
        };
        let found = self.api.consumer_info(&self.stream, &name).await?;
        if let Some(found) = &found {
            consumer::check_found(&self.options, &info.config, &name, &self.owner, found, Fit::Wider)?;
            if consumer::owner(found).is_none() {
                self.known.foreign = Some(found.config.clone());
            }
        }
        let renewal = retention::renewal(retention, self.api.can_reset(), self.known.foreign.is_some());
        let config = match &self.known.foreign {
            Some(foreign) => {
                let mut config = foreign.clone();
                config.insert("name".to_owned(), json!(name));
                config
            }
            None => consumer::wanted(&self.options, &info.config, &kind, &name, &self.owner),
        };
        Ok(match renewal {
            Renewal::Reset => Wanted { name, config: consumer::pinned(config), fence: Fence::Pinned, found },
            Renewal::Remade | Renewal::Guarded => Wanted { name, config, fence: Fence::Made, found },
        })
    }
}

/// The consumer that is to be there.
struct Wanted {
    name: String,
    /// What it has to be, where it starts left open.
    config: Object,
    fence: Fence,
    /// What is there, if its name is one that others know.
    found: Option<ConsumerInfo>,
}

impl Live {
    /// The consumer's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Subject, reply and payload of a pull request.
    pub(super) fn request(&self, pull: Pull) -> (String, String, Bytes) {
        let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let mut body = json!({
            "batch": pull.batch,
            "expires": nanos(self.bounds.expires),
            "idle_heartbeat": nanos(self.bounds.heartbeat),
        });
        if let (false, Value::Object(body)) = (pull.unbounded, &mut body) {
            body.insert("max_bytes".to_owned(), json!(self.bounds.max_bytes));
        }
        if let (Some(pin), Value::Object(body)) = (&self.pin, &mut body) {
            body.insert("group".to_owned(), json!(PIN_GROUP));
            body.extend(pin.id().map(|id| ("id".to_owned(), json!(id))));
        }
        (self.next_subject.clone(), self.inbox.clone(), body.to_string().into())
    }

    /// Removes guards of the consumer by their names, unless somebody else has replaced it; the names of the others, if that is
    /// known.
    pub(super) fn release(
        &self,
        api: Api,
        stream: String,
        owner: String,
        removable: HashSet<String>,
    ) -> impl Future<Output = Option<Vec<String>>> + use<> {
        let standing = self.standing(api.clone(), stream.clone());
        let name = self.name.clone();
        async move {
            if standing.await != Standing::Ours {
                return None;
            }
            remove_guards(&api, &stream, &name, &owner, |guard| removable.contains(guard)).await.ok()
        }
    }

    /// Asks the server which consumer bears the name now. The question leaves after everything sent before.
    pub(super) fn standing(&self, api: Api, stream: String) -> impl Future<Output = Standing> + use<> {
        let (name, created) = (self.name.clone(), self.created.clone());
        async move {
            match api.consumer_info(&stream, &name).await {
                Ok(Some(info)) if info.created == created => Standing::Ours,
                Ok(_) => Standing::Replaced,
                Err(_) => Standing::Unknown,
            }
        }
    }
}

/// Which consumer bears the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The one that was made.
    Ours,
    /// None, or somebody else's.
    Replaced,
    /// The server does not say.
    Unknown,
}

/// Tells the table's messages from others of the stream. An unfiltered consumer is much cheaper for the server, and its
/// stream may be given further subjects at any time.
#[derive(Debug)]
pub(super) struct Selection {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
enum Pattern {
    Exact(String),
    /// Everything below: `a.b.` for `a.b.>`, empty for `>`.
    Below(String),
    Other(String),
}

impl Selection {
    fn new(options: &Options) -> Selection {
        let patterns = consumer::wanted_subjects(options).iter().map(|pattern| match pattern.strip_suffix('>') {
            Some(prefix) if !prefix.contains('*') => Pattern::Below(prefix.to_owned()),
            None if !pattern.contains('*') => Pattern::Exact(pattern.clone()),
            _ => Pattern::Other(pattern.clone()),
        });
        Selection { patterns: patterns.collect() }
    }

    /// Whether a message published to `subject` belongs to the table.
    pub(super) fn admits(&self, subject: &str) -> bool {
        self.patterns.iter().any(|pattern| match pattern {
            Pattern::Exact(exact) => exact == subject,
            Pattern::Below(prefix) => subject.starts_with(prefix.as_str()),
            Pattern::Other(pattern) => subject::covers(pattern, subject),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_cannot_read_is_removed_only_once_it_is_handed_out() {
        let unreadable = |sequence| Unreadable { sequence, stored_ns: 7 };
        let found = Found { unreadable: vec![unreadable(3)], position: Sequence(10) };
        let fetched = Fetched::nothing(Sequence(20).into());
        let mut known = Known { found: Some(found), fetched, ..Known::default() };
        known.hand_out();
        let found = known.found.as_ref().expect("it was searched");
        assert_eq!(
            (found.position, &found.unreadable[..]),
            (Sequence(10), &[unreadable(3)][..]),
            "the search goes on where it was"
        );
        known.fetched = Fetched::nothing(Sequence(20).into());
        known.fetched.position = Sequence(31);
        known.fetched.unreadable = Some(unreadable(30));
        known.hand_out();
        assert!(known.fetched.messages.is_empty());
        let found = known.found.as_ref().expect("it was searched");
        assert_eq!((found.position, &found.unreadable[..]), (Sequence(31), &[unreadable(3), unreadable(30)][..]));
    }
}

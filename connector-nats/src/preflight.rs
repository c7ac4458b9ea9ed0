//! What CREATE TABLE asks the server before anything is stored.
//!
//! Owns: whether the stream exists, may be read and holds what the table wants; whether the consumer can be made; at
//! which sequence the table starts. Does not own what is stored of it. Invariant: it ends within [`DEADLINE`], and leaves
//! nothing behind on the server, except the stream that `allow_create_stream` made, and what [`Preflight::made`] names: where
//! acknowledgements delete messages the consumer has to exist before CREATE TABLE returns, because whatever is published
//! after that is the table's.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat};
use serde_json::json;
use weir_common::catalog::{Source, SplitStart};
use weir_common::ids::Sequence;

use crate::api::{Api, ConsumerInfo, Object, StreamInfo, StreamState};
use crate::connect;
use crate::consumer::{self, Fit};
use crate::error::Error;
use crate::found;
use crate::limits;
use crate::making::{Making, guard_name, remove_guards, retire};
use crate::options::{ConsumerName, OnNewStream, OptionError, Options, Start, check_change};
use crate::probe::Probe;
use crate::retention::{self, Renewal, Retention};
use crate::stored;
use crate::subject;

/// The longest that CREATE TABLE waits for the server.
pub const DEADLINE: Duration = Duration::from_secs(15);
/// How long is tried to remove what was made for a table that could not be created.
const UNDO_DEADLINE: Duration = Duration::from_secs(5);

/// What a table needs to know before it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// Its splits, with the first sequence that belongs to the table.
    pub splits: Vec<SplitStart>,
    /// What the user should be told.
    pub notices: Vec<String>,
    /// The consumers that were made and are there now. Should the table not be created after all, see [`undo`].
    pub made: Vec<String>,
    /// Whether reading takes messages from the stream: it loses what is acknowledged.
    pub consumes: bool,
}

/// Looks everything up, of a table or a source. `owner` is `<cluster>/<table>`, by which consumers are recognised.
///
/// # Errors
/// Of kind User if the table cannot be created as it stands, of kind Unavailable if the server cannot say.
pub async fn preflight(options: &Options, owner: &str) -> Result<Preflight, Error> {
    let mut made = Vec::new();
    let looking = look_up(options, owner, &mut made);
    match within(DEADLINE, &format!("to look up stream \"{}\"", options.stream), looking).await {
        Ok(Looked { splits, notices, consumes }) => Ok(Preflight { splits, notices, made, consumes }),
        Err(error) => {
            // If that fails too, the next attempt finds what is left and takes it over.
            let _ = undo(options, owner, &made).await;
            Err(error)
        }
    }
}

/// The first sequences that a view begins with that is created over a source now: those of the source, as far as the stream
/// still has them. What is gone by now is no gap.
///
/// # Errors
/// As [`preflight`]; of kind User if the stream is another one than when the source was created.
pub async fn preflight_of_view(
    options: &Options,
    owner: &str,
    source: &[SplitStart],
) -> Result<Vec<SplitStart>, Error> {
    let looking = async {
        let api = Api::new(connect::connect(options, &format!("weir {owner} preflight")).await?);
        let stream = api.stream_info(&options.stream).await?;
        let is_same = check_same(&stream, options, source);
        let reads_another = is_same.is_err() && options.on_new_stream == OnNewStream::Read;
        if !reads_another {
            is_same?;
        }
        let state = stream.state;
        let first = Sequence(if state.messages == 0 { state.last_seq + 1 } else { state.first_seq });
        let created = Some(stream.created);
        let begins = |start: &SplitStart| match reads_another {
            true => SplitStart { sequence: first, stream_created: created.clone(), ..start.clone() },
            false => SplitStart { sequence: start.sequence.max(first), ..start.clone() },
        };
        Ok(source.iter().map(begins).collect())
    };
    within(DEADLINE, &format!("to look up stream \"{}\"", options.stream), looking).await
}

/// Whether a stream is the one that splits were created of.
fn check_same(stream: &StreamInfo, options: &Options, splits: &[SplitStart]) -> Result<(), Error> {
    let known = splits.iter().find_map(|start| start.stream_created.as_ref());
    match known.filter(|created| **created != stream.created) {
        Some(created) => {
            let message = format!("it was created at {}, not at {created}", stream.created);
            Err(Error::StreamReplaced { stream: options.stream.clone(), message, certain: true })
        }
        None => Ok(()),
    }
}

/// Removes the consumers that a preflight made for a table that was not created after all.
///
/// # Errors
/// If the server does not answer.
pub async fn undo(options: &Options, owner: &str, made: &[String]) -> Result<(), Error> {
    if made.is_empty() {
        return Ok(());
    }
    let remove = async {
        let api = Api::new(connect::connect(options, &format!("weir {owner} preflight")).await?);
        for name in made {
            retire(&api, &options.stream, name).await?;
        }
        Ok(())
    };
    within(UNDO_DEADLINE, "to remove a consumer", remove).await
}

/// Ends what takes too long.
async fn within<T>(deadline: Duration, what: &str, doing: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let done = tokio::time::timeout(deadline, Box::pin(doing)).await;
    done.unwrap_or_else(|_| Err(Error::Timeout { what: what.to_owned(), within: deadline }))
}

/// What was looked up, see [`Preflight`].
struct Looked {
    splits: Vec<SplitStart>,
    notices: Vec<String>,
    consumes: bool,
}

async fn look_up(options: &Options, owner: &str, made: &mut Vec<String>) -> Result<Looked, Error> {
    let api = Api::new(connect::connect(options, &format!("weir {owner} preflight")).await?);
    let mut notices = options.notices.clone();
    let _inbox = api.subscribe().await?;
    let stream = find_or_create_stream(&api, options, &mut notices).await?;
    let retention = check_stream(options, &stream)?;
    notices.extend(check_subjects(&api, options, &stream).await?);
    // The reader knows its stream again by one of its messages.
    api.probe(&Probe::get_message(&options.stream)).await?;
    let found = Found { api: &api, stream: &stream, retention, owner, fit: Fit::Same };
    found.check_number(options).await?;
    let mut splits = Vec::new();
    for split in options.splits() {
        let mut told = Vec::new();
        let looked = found.split(&options.of_split(&split), made, &mut told).await;
        let sequence = attributed(&api, options, looked).await?;
        splits.push(SplitStart { split, sequence, stream_created: Some(stream.created.clone()), reads: None });
        // What is the same for all is said once.
        told.retain(|notice| !notices.contains(notice));
        notices.extend(told);
    }
    Ok(Looked { splits, notices, consumes: retention.deletes_acknowledged() })
}

/// A stream that can be read, for whom.
struct Found<'a> {
    api: &'a Api,
    stream: &'a StreamInfo,
    retention: Retention,
    owner: &'a str,
    /// How well a consumer that is there has to fit.
    fit: Fit,
}

impl Found<'_> {
    /// The consumers of several splits are tried one by one, and each is removed before the next;
    /// and a guard is needed besides.
    async fn check_number(&self, options: &Options) -> Result<(), Error> {
        let Found { api, stream, retention, owner, .. } = *self;
        let several = options.splits().len() > 1 && !retention.deletes_acknowledged();
        if !several && retention::renewal(retention, api.can_reset(), false) != Renewal::Guarded {
            return Ok(());
        }
        let Consumers { missing, guards, .. } = Consumers::of(api, options, retention, owner).await?;
        // Not every user may ask, and reading needs no such permission.
        let account = api.account_info().await.ok();
        let excess = limits::of_consumers(missing + guards, &options.stream, stream, account.as_ref());
        excess.map_or(Ok(()), |excess| Err(Error::Limit(excess)))
    }

    /// Looks a split up: the first sequence that belongs to the table.
    async fn split(
        &self,
        options: &Options,
        made: &mut Vec<String>,
        notices: &mut Vec<String>,
    ) -> Result<Sequence, Error> {
        let Found { api, stream, retention, owner, .. } = *self;
        let kind = retention::consumer_name(options, retention, owner);
        notices.extend(retention::notices(options, &stream.config, retention, &kind));
        let sequence = resolve_start(api, options, stream, notices).await?;
        self.consumer(options, &kind, sequence, made, notices).await?;
        if retention != Retention::Interest {
            return Ok(sequence);
        }
        // What went before there was a consumer to hold it is not the table's.
        let now = api.stream_info(&options.stream).await?;
        Ok(sequence.max(Sequence(now.state.first_seq)))
    }

    async fn consumer(
        &self,
        options: &Options,
        kind: &ConsumerName,
        start: Sequence,
        made: &mut Vec<String>,
        notices: &mut Vec<String>,
    ) -> Result<(), Error> {
        let Found { api, stream, retention, owner, fit } = *self;
        Check { api, options, stream, retention, owner, kind, fit }.consumer(start, made, notices).await
    }
}

/// The consumers that reading needs.
pub(crate) struct Consumers {
    /// How many are not there yet.
    pub(crate) missing: u64,
    /// How many of these have no name that others know.
    pub(crate) anonymous: u64,
    /// How many more are there now and then, to hold messages.
    pub(crate) guards: u64,
}

impl Consumers {
    /// Looks them up.
    pub(crate) async fn of(
        api: &Api,
        options: &Options,
        retention: Retention,
        owner: &str,
    ) -> Result<Consumers, Error> {
        let mut consumers = Consumers { missing: 0, anonymous: 0, guards: 0 };
        let mut theirs = false;
        for split in options.splits() {
            let found = match retention::consumer_name(&options.of_split(&split), retention, owner).given() {
                Some(name) => api.consumer_info(&options.stream, name).await?,
                None => {
                    consumers.anonymous += 1;
                    None
                }
            };
            match found {
                Some(info) => theirs |= consumer::owner(&info).is_none(),
                None => consumers.missing += 1,
            }
        }
        consumers.guards = u64::from(retention::renewal(retention, api.can_reset(), theirs) == Renewal::Guarded);
        Ok(consumers)
    }
}

/// The same, and of a limit that is in the way whose it is.
async fn attributed<T>(api: &Api, options: &Options, result: Result<T, Error>) -> Result<T, Error> {
    let Err(Error::Limit(excess)) = result else { return result };
    let stream = api.stream_info(&options.stream).await.ok();
    let account = api.account_info().await.ok();
    let named = stream.as_ref().map(|stream| (options.stream.as_str(), stream));
    Err(Error::Limit(excess.attributed(named, account.as_ref())))
}

/// A table or source whose options are to change.
pub struct Altered<'a> {
    /// As it is.
    pub before: &'a Source,
    /// As it is to be.
    pub after: &'a Source,
    /// Where its splits started.
    pub splits: &'a [SplitStart],
}

impl Altered<'_> {
    /// Checks that the table can be read with its new options, from where it is; what the user should be told. Leaves
    /// nothing on the server.
    ///
    /// # Errors
    /// As [`preflight`], and for options that cannot change.
    pub async fn preflight(&self, owner: &str) -> Result<Vec<String>, Error> {
        check_change(&self.before.options, &self.after.options)?;
        let before = Options::parse(&self.before.options)?;
        let after = Options::parse(&self.after.options)?;
        if before.splits() != after.splits() {
            let error = OptionError::new("subject", "cannot be changed where each subject is a split");
            return Err(error.with_hint("create another table for other subjects").into());
        }
        let what = format!("to look up stream \"{}\"", after.stream);
        within(DEADLINE, &what, self.look_up(&before, &after, owner)).await
    }

    async fn look_up(&self, before: &Options, after: &Options, owner: &str) -> Result<Vec<String>, Error> {
        let api = Api::new(connect::connect(after, &format!("weir {owner} preflight")).await?);
        let stream = api.stream_info(&after.stream).await?;
        if (&before.servers, &before.api_prefix) != (&after.servers, &after.api_prefix) {
            // Otherwise the reader finds out, and knows which of the streams of the name it reads.
            check_same(&stream, after, self.splits)?;
        }
        let retention = check_stream(after, &stream)?;
        let mut notices = after.notices.clone();
        if consumer::wanted_subjects(before) != consumer::wanted_subjects(after) {
            notices.extend(check_subjects(&api, after, &stream).await?);
            if retention.deletes_acknowledged() {
                let message = format!("cannot be changed on a stream with {} retention", retention.as_str());
                let hint = "what is published to the other subjects is held by a consumer only: create another table";
                return Err(OptionError::new("subject", message).with_hint(hint).into());
            }
            notices.push(
                "the subjects are read after the last message that was read: what they had before it is not".to_owned(),
            );
        }
        if retention.deletes_acknowledged() {
            // The consumer is there, and whatever is tried with it has an effect.
            if retention == Retention::Interest && api.can_reset() {
                retention::check_update(before, after)?;
            }
            for split in after.splits() {
                let kind = retention::consumer_name(&after.of_split(&split), retention, owner);
                if let Some(info) = api.consumer_info(&after.stream, kind.given().unwrap_or_default()).await? {
                    check_acks(&api, &after.stream, &info).await?;
                }
            }
            return Ok(notices);
        }
        let found = Found { api: &api, stream: &stream, retention, owner, fit: Fit::Wider };
        let begins = Sequence(stream.state.first_seq.max(1));
        for split in after.splits() {
            let options = after.of_split(&split);
            let kind = retention::consumer_name(&options, retention, owner);
            let mut told = Vec::new();
            let looked = found.consumer(&options, &kind, begins, &mut Vec::new(), &mut told).await;
            attributed(&api, &options, looked).await?;
            told.retain(|notice| !notices.contains(notice));
            notices.extend(told);
        }
        Ok(notices)
    }
}

async fn find_or_create_stream(api: &Api, options: &Options, notices: &mut Vec<String>) -> Result<StreamInfo, Error> {
    match api.stream_info(&options.stream).await {
        Err(Error::NoStream { .. }) if options.allow_create_stream => {
            if let Some(excess) = limits::of_stream(options, None) {
                return Err(Error::Limit(excess));
            }
            let stream = match api.create_stream(&options.stream, &options.subjects).await {
                Err(error @ Error::Refused { .. }) => {
                    let account = api.account_info().await.ok();
                    return Err(limits::of_stream(options, account.as_ref()).map_or(error, Error::Limit));
                }
                result => result?,
            };
            notices.push(format!(
                "created stream \"{}\" with subjects {}",
                options.stream,
                options.subjects.join(", ")
            ));
            Ok(stream)
        }
        result => result,
    }
}

/// Whether a stream can be read with these options, and what it keeps.
pub(crate) fn check_stream(options: &Options, stream: &StreamInfo) -> Result<Retention, Error> {
    let retention = consumer::retention(&options.stream, &stream.config)?;
    retention::check(options, retention)?;
    check_last(&options.stream, stream)?;
    Ok(retention)
}

/// Sequences have to fit into what is stored of them.
pub(crate) fn check_last(name: &str, stream: &StreamInfo) -> Result<(), Error> {
    match stream.state.last_seq {
        last if last >= Sequence::IN_STREAM_MAX => Err(Error::TooFar { stream: name.to_owned(), last }),
        _ => Ok(()),
    }
}

/// Checks that every subject is one under which the stream can store messages, or has stored some, perhaps under an earlier
/// configuration; what the user should be told.
pub(crate) async fn check_subjects(api: &Api, options: &Options, stream: &StreamInfo) -> Result<Vec<String>, Error> {
    let stored = stored::subjects(&stream.config);
    let mut notices = Vec::new();
    for wanted in consumer::wanted_subjects(options) {
        if stored.iter().any(|pattern| subject::intersect(pattern, wanted).is_some()) {
            continue;
        }
        if api.last_message(&options.stream, wanted).await?.is_none() {
            let listens = subject::normalise(&stream.config.subjects);
            let (stream, subject) = (options.stream.clone(), wanted.clone());
            let listens = (listens != stored).then_some(listens);
            return Err(Error::NoSubject { stream, subject, stored, listens });
        }
        notices.push(format!(
            "stream \"{}\" has messages under subject \"{wanted}\", but will store no further ones there: now it stores {}",
            options.stream,
            stored.join(", ")
        ));
    }
    Ok(notices)
}

/// Finds out whether the reader will be able to make its consumer.
struct Check<'a> {
    api: &'a Api,
    options: &'a Options,
    stream: &'a StreamInfo,
    retention: Retention,
    owner: &'a str,
    kind: &'a ConsumerName,
    fit: Fit,
}

impl Check<'_> {
    /// A consumer that is there is compared and touched in ways that change nothing, one that is not is made. It is removed
    /// again, unless acknowledgements delete messages: then it stays and holds what is published from now on.
    async fn consumer(&self, start: Sequence, made: &mut Vec<String>, notices: &mut Vec<String>) -> Result<(), Error> {
        let Check { api, options, stream, owner, kind, .. } = *self;
        let name = kind.given().map_or_else(|| unique_name(api), str::to_owned);
        let existing = match kind.given() {
            Some(name) => api.consumer_info(&options.stream, name).await?,
            None => None,
        };
        let theirs = existing.as_ref().filter(|info| consumer::owner(info).is_none());
        let renewal = retention::renewal(self.retention, api.can_reset(), theirs.is_some());
        if renewal == Renewal::Guarded {
            retention::check_guarded(options, api.server_version(), theirs.map(|info| info.name.as_str()))?;
        }
        if let Some(info) = &existing {
            consumer::check_found(options, &stream.config, &name, owner, info, self.fit)?;
            if theirs.is_some() {
                let config = own_configuration(&info.config, &name);
                api.update_consumer(&options.stream, &config).await?;
                api.may_delete_consumer(&options.stream, &name).await?;
                check_acks(api, &options.stream, info).await?;
                notices.push(format!(
                    "consumer \"{name}\" exists: the table reads through it, and starts it anew at its own position"
                ));
                notices.extend(found::notices(info, self.retention, SystemTime::now().into()));
                return self.hold(&self.making(&name, &config), start, made).await;
            }
            if !self.retention.deletes_acknowledged() {
                api.update_consumer(&options.stream, &own_configuration(&info.config, &name)).await?;
                check_acks(api, &options.stream, info).await?;
                return api.may_delete_consumer(&options.stream, &name).await;
            }
        }
        let mut config = consumer::wanted(options, &stream.config, kind, &name, owner);
        if renewal == Renewal::Reset {
            config = consumer::pinned(config);
        }
        let making = self.making(&name, &config);
        if self.retention.deletes_acknowledged() {
            // What an attempt that was not finished left behind is taken over.
            let guard = guard_name(&name, &unique_name(api));
            made.extend([name.clone(), guard.clone()]);
            let info = match renewal {
                Renewal::Remade | Renewal::Guarded => making.remake(start, &guard).await?,
                Renewal::Reset => {
                    if existing.is_some() {
                        making.put_guard(start, &guard).await?;
                        retire(api, &options.stream, &name).await?;
                    }
                    making.start_over(start, None).await?
                }
            };
            remove_guards(api, &options.stream, &name, owner, |_| true).await?;
            made.pop();
            check_acks(api, &options.stream, &info).await?;
            return check_filters_understood(&config, &info.config, &name);
        }
        let info = making.make(start).await?;
        let heard = check_acks(api, &options.stream, &info).await;
        api.delete_consumer(&options.stream, &name).await?;
        heard?;
        check_filters_understood(&config, &info.config, &name)
    }

    fn making<'a>(&'a self, name: &'a str, config: &'a Object) -> Making<'a> {
        let Check { api, options, retention, owner, .. } = *self;
        Making { api, stream: &options.stream, retention, owner, name, config }
    }

    /// Until the table's reader starts a consumer that was found anew, a guard holds what is the table's.
    async fn hold(&self, making: &Making<'_>, start: Sequence, made: &mut Vec<String>) -> Result<(), Error> {
        if self.retention != Retention::Interest {
            return Ok(());
        }
        remove_guards(self.api, making.stream, making.name, self.owner, |_| true).await?;
        let guard = guard_name(making.name, &unique_name(self.api));
        made.push(guard.clone());
        making.put_guard(start, &guard).await
    }
}

/// Checks that acknowledgements reach a consumer, if it wants any.
pub(crate) async fn check_acks(api: &Api, stream: &str, consumer: &ConsumerInfo) -> Result<(), Error> {
    if consumer::is_acknowledged(&consumer.config) { api.check_acks(stream, &consumer.name).await } else { Ok(()) }
}

/// Servers before 2.10 drop a list of filters without a word.
pub(crate) fn check_filters_understood(asked: &Object, made: &Object, name: &str) -> Result<(), Error> {
    if asked.get("filter_subjects").is_some() && made.get("filter_subjects") != asked.get("filter_subjects") {
        return Err(Error::Consumer {
            consumer: name.to_owned(),
            message: "cannot filter several subjects on this server".to_owned(),
            hint: "use nats-server 2.10 or later, or one subject".to_owned(),
        });
    }
    Ok(())
}

/// A configuration as the server reports it, fit to be sent again.
pub(crate) fn own_configuration(config: &Object, name: &str) -> Object {
    let mut config = config.clone();
    config.insert("name".to_owned(), json!(name));
    if let Some(serde_json::Value::Object(metadata)) = config.get_mut("metadata") {
        metadata.retain(|key, _| !key.starts_with("_nats."));
    }
    config
}

/// A name that no other consumer has.
pub(crate) fn unique_name(api: &Api) -> String {
    let inbox = api.client().new_inbox();
    format!("weir-{}", inbox.rsplit('.').next().unwrap_or(&inbox))
}

async fn resolve_start(
    api: &Api,
    options: &Options,
    stream: &StreamInfo,
    notices: &mut Vec<String>,
) -> Result<Sequence, Error> {
    let state = stream.state;
    let next = state.last_seq + 1;
    Ok(Sequence(match options.start {
        Start::Latest => next,
        Start::Earliest if state.messages == 0 => next,
        Start::Earliest => state.first_seq.max(1),
        Start::Sequence(sequence) => by_sequence(options, stream, sequence, notices)?,
        Start::Last => last(api, options).await?.unwrap_or(next),
        Start::LastPerSubject => last_per_subject(api, options, stream).await?.unwrap_or(next),
        Start::Timestamp { millis } => {
            let sequence = first_at(api, options, millis).await?;
            if state.messages > 0 && sequence >= next {
                notices.push(format!(
                    "stream \"{}\" has no message at or after {}: the table starts with the next one",
                    options.stream,
                    rfc3339(millis)
                ));
            }
            sequence
        }
    }))
}

/// A sequence that the stream holds, or the next to be given.
fn by_sequence(options: &Options, stream: &StreamInfo, sequence: u64, notices: &mut Vec<String>) -> Result<u64, Error> {
    let StreamState { messages, first_seq, last_seq, .. } = stream.state;
    let next = last_seq + 1;
    if sequence > next {
        let message = format!("{sequence} lies beyond the end of stream \"{}\", which is {last_seq}", options.stream);
        let error = OptionError::new("consumer.opt_start_seq", message);
        return Err(error.with_hint("use scan.startup.mode = 'latest' to start with the next message").into());
    }
    let first = if messages == 0 { next } else { first_seq.max(1) };
    if sequence < first {
        notices.push(format!("stream \"{}\" begins at sequence {first}, and so does the table", options.stream));
    }
    Ok(sequence.max(first))
}

/// The last message of the table.
async fn last(api: &Api, options: &Options) -> Result<Option<u64>, Error> {
    let mut last = None;
    for subject in consumer::wanted_subjects(options) {
        last = last.max(api.last_message(&options.stream, subject).await?.map(|message| message.sequence));
    }
    Ok(last)
}

/// A table begins at one sequence. The last messages of several subjects do, if nothing else is kept of them.
async fn last_per_subject(api: &Api, options: &Options, stream: &StreamInfo) -> Result<Option<u64>, Error> {
    let state = stream.state;
    // Some servers leave older messages where they are when the bound is lowered.
    if stream.config.max_msgs_per_subject == 1 && state.messages == state.num_subjects {
        return Ok((state.messages > 0).then_some(state.first_seq));
    }
    match consumer::wanted_subjects(options) {
        [one] if !one.contains(['*', '>']) => last(api, options).await,
        _ => {
            let message =
                "last_per_subject is not exact: older messages of a subject lie between the last ones of others";
            let hint = "it is for one subject without wildcards, or for a stream that keeps one message a subject \
                        (max_msgs_per_subject = 1); use earliest and a primary key to keep the last row of each";
            Err(OptionError::new("scan.startup.mode", message).with_hint(hint).into())
        }
    }
}

/// The first message stored at or after a time, resolved by the server: a consumer that starts there says what it would
/// deliver first.
async fn first_at(api: &Api, options: &Options, millis: i64) -> Result<u64, Error> {
    let name = unique_name(api);
    let config = json!({
        "name": name, "deliver_policy": "by_start_time", "opt_start_time": rfc3339(millis), "ack_policy": "none",
        "mem_storage": true, "inactive_threshold": 5_000_000_000_u64,
    });
    let serde_json::Value::Object(config) = config else { unreachable!("an object was written above") };
    let info = api.create_consumer(&options.stream, &config).await?;
    retire(api, &options.stream, &name).await?;
    Ok(info.delivered.stream_seq + 1)
}

fn rfc3339(millis: i64) -> String {
    // Options do not bound the number; beyond what a calendar knows lies the last year it knows.
    let time = DateTime::from_timestamp_millis(millis.clamp(-62_135_596_800_000, 253_402_300_799_999));
    time.unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

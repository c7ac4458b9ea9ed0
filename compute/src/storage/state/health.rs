//! Watches whether the object store works.
//!
//! SlateDB repeats a request until it succeeds, and says nothing about it. That makes an outage of
//! the object store harmless, but would make a lasting one invisible. Every request therefore
//! passes here first. This module tells an outage from an answer, logs the fault, once a minute
//! while it lasts, logs its end, and answers if there is one. It repeats no request itself.
//!
//! There are two kinds. A *refusal* (wrong credentials, no such bucket) stays until somebody fixes
//! it, and is logged at once. A *failure* (connections, 5xx, time limits) usually passes by itself,
//! and is logged if it lasts.
//!
//! A missing bucket looks like a missing object, and would make a database believe that its data is
//! gone. Here it becomes a failure that is repeated, so that nothing is concluded from it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tracing::{info, warn};
use weir_common::error::chain;

/// The time for which requests may fail before it is logged.
const PATIENCE: Duration = Duration::from_secs(5);
/// An outage is logged at most once in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// Answers of object stores are long.
const ERROR_CHARS_MAX: usize = 300;
/// In an error's text this comes before the status of an answer.
const STATUS: &str = "status code: ";
/// S3 says this in the body of a 404 if the bucket is missing, not the object.
const NO_BUCKET: &str = "NoSuchBucket";

/// The known state of an object store. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Ways>);

/// Reads may work while writes fail, so they are watched separately, but reported together.
#[derive(Debug, Default)]
struct Ways {
    read: Way,
    write: Way,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Way {
    /// True during an outage. A successful request looks at nothing else.
    fails: AtomicBool,
    outage: Mutex<Option<Outage>>,
}

/// The failures since the last success.
#[derive(Debug)]
struct Outage {
    since: Instant,
    /// True if somebody has to fix it.
    refused: bool,
    error: String,
}

/// The state of the log.
#[derive(Debug, Default)]
struct Said {
    /// The start of an outage whose end has to be logged.
    since: Option<Instant>,
    next_warning: Option<Instant>,
    warnings: u64,
}

impl Health {
    /// The present fault, if it deserves to be told.
    pub fn trouble(&self) -> Option<String> {
        self.lasting_trouble().map(|(trouble, _)| trouble)
    }

    /// As [`Health::trouble`], with the time at which it began.
    pub fn lasting_trouble(&self) -> Option<(String, Instant)> {
        // A failure to write comes first, because it keeps epochs from being committed.
        let trouble = |way: &Way| {
            let outage = way.outage()?;
            let notable = outage.as_ref().filter(|outage| outage.is_notable(Instant::now()));
            notable.map(|outage| (outage.error.clone(), outage.since))
        };
        let (error, since) = trouble(&self.0.write).or_else(|| trouble(&self.0.read))?;
        Some((format!("the object store cannot be used: {error}"), since))
    }

    /// The error of the last failed request, even if it does not deserve to be told.
    pub(super) fn last_failure(&self) -> Option<String> {
        let failure = |way: &Way| way.outage()?.as_ref().map(|outage| outage.error.clone());
        failure(&self.0.write).or_else(|| failure(&self.0.read))
    }

    /// A caller has given up waiting for the answer to a read.
    pub(super) fn is_silent(&self, error: String) {
        self.failed(&self.0.read, Outage { since: Instant::now(), refused: false, error });
    }

    fn note_read<T>(&self, result: &Result<T>) {
        self.note(&self.0.read, result);
    }

    fn note_write<T>(&self, result: &Result<T>) {
        self.note(&self.0.write, result);
    }

    fn note<T>(&self, way: &Way, result: &Result<T>) {
        match result.as_ref().err().and_then(failure) {
            Some((refused, error)) => self.failed(way, Outage { since: Instant::now(), refused, error }),
            None if way.fails.load(Ordering::Relaxed) => self.succeeded(way),
            None => {}
        }
    }

    fn failed(&self, way: &Way, failure: Outage) {
        let now = failure.since;
        let mut outage = lock(&way.outage);
        way.fails.store(true, Ordering::Relaxed);
        let since = outage.as_ref().map_or(now, |outage| outage.since);
        let outage = outage.insert(Outage { since, ..failure });
        let mut said = lock(&self.0.said);
        if outage.is_notable(now) && said.next_warning.is_none_or(|next| next <= now) {
            said.since.get_or_insert(since);
            said.next_warning = Some(now + WARNING_INTERVAL);
            said.warnings += 1;
            warn!(error = outage.error, "the object store cannot be used, nothing is committed until that is mended");
        }
    }

    fn succeeded(&self, way: &Way) {
        way.fails.store(false, Ordering::Relaxed);
        *lock(&way.outage) = None;
        let fails = [&self.0.read, &self.0.write].iter().any(|way| way.fails.load(Ordering::Relaxed));
        if !fails && let Some(since) = lock(&self.0.said).since.take() {
            info!(seconds = since.elapsed().as_secs(), "the object store can be used again");
        }
    }
}

impl Way {
    fn outage(&self) -> Option<MutexGuard<'_, Option<Outage>>> {
        self.fails.load(Ordering::Relaxed).then(|| lock(&self.outage))
    }
}

impl Outage {
    fn is_notable(&self, now: Instant) -> bool {
        self.refused || now.duration_since(self.since) >= PATIENCE
    }
}

/// Locks. A panic elsewhere leaves these plain values in order.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fault, if an error means that the store failed to answer, and true if somebody has to fix
/// it.
fn failure(error: &Error) -> Option<(bool, String)> {
    match error {
        // These are answers, which the callers handle.
        Error::NotFound { .. }
        | Error::AlreadyExists { .. }
        | Error::Precondition { .. }
        | Error::NotModified { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::InvalidPath { .. } => None,
        Error::PermissionDenied { .. } => {
            Some((true, format!("access is denied, check credentials and policies: {}", short(error))))
        }
        Error::Unauthenticated { .. } => Some((true, format!("the credentials are not known: {}", short(error)))),
        Error::Generic { source, .. } if source.is::<MissingBucket>() => Some((true, source.to_string())),
        _ => Some((is_refusal(error), short(error))),
    }
}

/// Returns true if the store says that repeating the request as it stands is useless. Errors of
/// listings have the status of the answer only in their text.
fn is_refusal(error: &Error) -> bool {
    let text = chain(error);
    let status = text.split_once(STATUS).and_then(|(_, rest)| rest.get(..3)?.parse::<u16>().ok());
    // The two that ask for patience are repeated like any 5xx.
    status.is_some_and(|status| (400..500).contains(&status) && ![408, 429].contains(&status))
}

/// An error with its causes, in one line of bounded length.
fn short(error: &Error) -> String {
    let text = chain(error).split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(ERROR_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The bucket does not exist.
#[derive(Debug, thiserror::Error)]
#[error("bucket \"{0}\" does not exist")]
struct MissingBucket(String);

/// An object store whose answers are watched.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Arc<dyn ObjectStore>,
    health: Health,
    /// The bucket, if the store has one that can be missing.
    bucket: Option<Arc<str>>,
}

impl Watched {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, health: Health, bucket: Option<&str>) -> Watched {
        Watched { inner, health, bucket: bucket.map(Arc::from) }
    }

    fn read<T>(&self, result: Result<T>) -> Result<T> {
        let result = tell_missing_bucket(self.bucket.as_deref(), result);
        self.health.note_read(&result);
        result
    }

    fn written<T>(&self, result: Result<T>) -> Result<T> {
        let result = tell_missing_bucket(self.bucket.as_deref(), result);
        self.health.note_write(&result);
        result
    }
}

/// Tells a missing bucket from a missing object.
fn tell_missing_bucket<T>(bucket: Option<&str>, result: Result<T>) -> Result<T> {
    match (result, bucket) {
        (Err(Error::NotFound { source, .. } | Error::Generic { source, .. }), Some(bucket))
            if chain(&*source).contains(NO_BUCKET) =>
        {
            Err(Error::Generic { store: "S3", source: Box::new(MissingBucket(bucket.to_owned())) })
        }
        (result, _) => result,
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Watched {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.written(self.inner.put_opts(location, payload, opts).await)
    }

    /// Parts are not watched: SlateDB's own policy repeats them, and a store that refuses parts
    /// also refuses the start of an upload.
    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.written(self.inner.put_multipart_opts(location, opts).await)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.read(self.inner.get_opts(location, options).await)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.read(self.inner.get_ranges(location, ranges).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (health, bucket) = (self.health.clone(), self.bucket.clone());
        let deleted = self.inner.delete_stream(locations).map(move |result| {
            let result = tell_missing_bucket(bucket.as_deref(), result);
            health.note_write(&result);
            result
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.read(self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.written(self.inner.copy_opts(from, to, options).await)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.written(self.inner.rename_opts(from, to, options).await)
    }
}

impl Watched {
    fn listed(&self, listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (health, bucket) = (self.health.clone(), self.bucket.clone());
        let listed = listed.map(move |result| {
            let result = tell_missing_bucket(bucket.as_deref(), result);
            health.note_read(&result);
            result
        });
        listed.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Error {
        Error::PermissionDenied { path: "a".to_owned(), source: "403 Forbidden".into() }
    }

    fn broken() -> Error {
        Error::Generic { store: "S3", source: "connection reset".into() }
    }

    fn missing(body: &'static str) -> Error {
        Error::NotFound { path: "a".to_owned(), source: body.into() }
    }

    #[test]
    fn a_refusal_is_told_at_once_and_until_the_same_way_works_again() {
        let health = Health::default();
        assert_eq!(health.trouble(), None);
        health.note_write::<()>(&Err(denied()));
        health.note_read(&Ok(()));
        let told = health.trouble().expect("reading works, but writing does not");
        assert!(told.starts_with("the object store cannot be used: access is denied"), "{told}");
        health.note_write(&Ok(()));
        assert_eq!(health.trouble(), None);
    }

    #[test]
    fn a_failure_is_told_only_if_it_lasts() {
        let health = Health::default();
        health.note_read::<()>(&Err(broken()));
        assert_eq!(health.trouble(), None);
        assert!(health.last_failure().is_some_and(|error| error.contains("connection reset")));
        let earlier = Instant::now().checked_sub(PATIENCE).expect("the machine has run for longer");
        lock(&health.0.read.outage).as_mut().expect("an outage").since = earlier;
        assert!(health.trouble().is_some_and(|told| told.contains("connection reset")));
    }

    #[test]
    fn it_is_said_once_a_minute_however_often_it_comes_and_goes_and_in_whatever_way() {
        let (health, start) = (Health::default(), Instant::now());
        for second in 0..150 {
            let outage = || {
                let since = start + Duration::from_secs(second);
                Outage { since, refused: true, error: "denied".to_owned() }
            };
            health.failed(&health.0.write, outage());
            health.failed(&health.0.read, outage());
            if second % 7 == 0 {
                health.note_read(&Ok(()));
                health.note_write(&Ok(()));
            }
        }
        assert_eq!(lock(&health.0.said).warnings, 3);
    }

    #[test]
    fn a_listing_that_is_refused_is_known_by_its_status() {
        let listing = |status: &str| Error::Generic {
            store: "S3",
            source: format!("Error performing list request: Server returned non-2xx status code: {status}: <Error/>")
                .into(),
        };
        let refused = ["403 Forbidden", "400 Bad Request"].map(|status| is_refusal(&listing(status)));
        let failed = ["500 Internal Server Error", "429 Too Many Requests"].map(|status| is_refusal(&listing(status)));
        assert_eq!((refused, failed), ([true; 2], [false; 2]));
    }

    #[test]
    fn answers_are_no_failures_but_a_missing_bucket_is() {
        let health = Health::default();
        let watched = Watched::new(Arc::new(object_store::memory::InMemory::new()), health.clone(), Some("weir"));
        assert!(matches!(watched.read::<()>(Err(missing("NoSuchKey"))), Err(Error::NotFound { .. })));
        assert_eq!(health.trouble(), None);
        assert!(matches!(watched.read::<()>(Err(missing("<Code>NoSuchBucket</Code>"))), Err(Error::Generic { .. })));
        assert!(health.trouble().is_some_and(|told| told.ends_with("bucket \"weir\" does not exist")));
    }
}

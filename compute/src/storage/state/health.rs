//! Whether the object store does what it is asked.
//!
//! SlateDB tries a request again and again until it succeeds, and says nothing about it. That is what makes an outage of the
//! object store harmless, and would make one that lasts invisible. So every request passes here first: this module tells
//! an outage from an answer, says in the log what is wrong, again once a minute while it lasts, and that it is over, and
//! answers whether there is one. It tries nothing again by itself.
//!
//! There are two kinds. What the store *refuses* (the credentials are wrong, the bucket does not exist) is wrong until
//! somebody mends it, and is said at once. What *fails* (connections, 5xx, time limits) passes by itself more often than
//! not, and is said if it lasts.
//!
//! A missing bucket looks like a missing object, which to a database would mean that its data is gone: here it becomes a
//! failure that is tried again, so that nothing is concluded from it.

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

/// How long requests may fail before it is said.
const PATIENCE: Duration = Duration::from_secs(5);
/// At most one line about an outage in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// The answers of object stores are long.
const ERROR_CHARS_MAX: usize = 300;
/// What stands before the status of an answer in an error's text.
const STATUS: &str = "status code: ";
/// What S3 says in the body of a 404 if it is not the object that is missing.
const NO_BUCKET: &str = "NoSuchBucket";

/// What is known of an object store. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Ways>);

/// Reading may work where writing does not, so they are looked at apart, but spoken of together.
#[derive(Debug, Default)]
struct Ways {
    read: Way,
    write: Way,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Way {
    /// Whether there is an outage: all that a request which succeeds looks at.
    fails: AtomicBool,
    outage: Mutex<Option<Outage>>,
}

/// Requests that fail, and have done so since the last one that did not.
#[derive(Debug)]
struct Outage {
    since: Instant,
    /// Whether it is one that somebody has to mend.
    refused: bool,
    error: String,
}

/// What the log knows.
#[derive(Debug, Default)]
struct Said {
    /// Since when there is an outage whose end has to be said.
    since: Option<Instant>,
    next_warning: Option<Instant>,
    warnings: u64,
}

impl Health {
    /// What is wrong now, if it is worth telling.
    pub fn trouble(&self) -> Option<String> {
        self.lasting_trouble().map(|(trouble, _)| trouble)
    }

    /// As [`Health::trouble`], with when it began.
    pub fn lasting_trouble(&self) -> Option<(String, Instant)> {
        // Whoever cannot write is told that first: it is what keeps epochs from being committed.
        let trouble = |way: &Way| {
            let outage = way.outage()?;
            let notable = outage.as_ref().filter(|outage| outage.is_notable(Instant::now()));
            notable.map(|outage| (outage.error.clone(), outage.since))
        };
        let (error, since) = trouble(&self.0.write).or_else(|| trouble(&self.0.read))?;
        Some((format!("the object store cannot be used: {error}"), since))
    }

    /// What the last failed request met with, whether or not it is worth telling.
    pub(super) fn last_failure(&self) -> Option<String> {
        let failure = |way: &Way| way.outage()?.as_ref().map(|outage| outage.error.clone());
        failure(&self.0.write).or_else(|| failure(&self.0.read))
    }

    /// Nobody waits for the answer to a read any more.
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

/// Locks; a panic elsewhere leaves these plain values in order.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an error is the store's failure to answer, and if so: whether somebody has to mend it, and what it is.
fn failure(error: &Error) -> Option<(bool, String)> {
    match error {
        // Answers, of which callers know what to make.
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

/// Whether the store says that the request, as it stands, is not one to be tried again. The errors of listings keep the
/// status of the answer in their text alone.
fn is_refusal(error: &Error) -> bool {
    let text = chain(error);
    let status = text.split_once(STATUS).and_then(|(_, rest)| rest.get(..3)?.parse::<u16>().ok());
    // The two that ask for patience are tried again like any 5xx.
    status.is_some_and(|status| (400..500).contains(&status) && ![408, 429].contains(&status))
}

/// An error with its causes, in one line that is not too long.
fn short(error: &Error) -> String {
    let text = chain(error).split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(ERROR_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The bucket is not there.
#[derive(Debug, thiserror::Error)]
#[error("bucket \"{0}\" does not exist")]
struct MissingBucket(String);

/// An object store whose answers are looked at.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Arc<dyn ObjectStore>,
    health: Health,
    /// The bucket, if there is one that can be missing.
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

    /// Parts are not looked at: SlateDB's own policy tries them again, and a store that takes no parts does not take
    /// the beginning of an upload either.
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

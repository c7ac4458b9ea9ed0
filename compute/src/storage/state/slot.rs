//! A slot's database. Its slot is its only writer. It lives for one term, and its path is never
//! used again.
//!
//! Writes are applied in memory at once, and reach the object store with the next checkpoint. There
//! is no write-ahead log: writes that no checkpoint holds are lost with the process, which is why
//! positions are committed.

use std::collections::{HashMap, HashSet};
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use futures::{Stream, StreamExt, TryStreamExt};
use slatedb::config::{CheckpointOptions, CheckpointScope, CloseOptions};
use slatedb::{CheckpointHandle, CompactorBuilder, Db, DbIterator, DbSnapshot, WriteBatch};
use tokio::sync::Mutex;
use uuid::Uuid;
use weir_common::error::chain;
use weir_common::ids::{TableId, VnodeRange};

use super::compaction::SchedulerSupplier;
use super::contents::{Content, Contents, Count};
use super::keys::TableSegment;
use super::lineage::{self, CloneSource};
use super::live::{FilterSupplier, Live, Shares};
use super::runs::{Runs, VALUES_BYTES_MAX, VALUES_MAX};
use super::{Error, Store, keys, settings};

/// Values that are looked up at the same time.
const GETS_MAX: usize = 32;

/// A slot's database, open for writing. Cheap to clone; the database lives until [`SlotDb::close`].
#[derive(Clone)]
pub struct SlotDb {
    db: Db,
    store: Store,
    path: Arc<str>,
    live: Live,
    contents: Arc<Mutex<Contents>>,
}

/// Figures about the inside of a database, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// SSTs that compaction has not touched yet. They grow when it cannot keep up, until writes
    /// stall.
    pub l0_ssts: usize,
    /// Sorted runs, over all tables.
    pub sorted_runs: usize,
    /// Other databases whose files this one still reads.
    pub ancestors: usize,
    /// Checkpoints that hold back files.
    pub checkpoints: usize,
    /// Bytes of all files that the database reads.
    pub bytes: u64,
}

impl SlotDb {
    /// Makes the database at `path`, which must never have been used, and opens it. It begins with
    /// the entries of the sources that belong to `tables` and `vnodes`, or empty if there are no
    /// sources. Sources must not overlap.
    ///
    /// # Errors
    /// [`Error::PathUsed`] if the path holds anything; [`Error::Database`] if a checkpoint does not
    /// exist (any more); [`Error::Late`] if the object store keeps it waiting for too long.
    pub async fn open(
        store: &Store,
        path: &str,
        vnodes: VnodeRange,
        sources: &[CloneSource],
        tables: &HashSet<TableId>,
    ) -> Result<SlotDb, Error> {
        // SlateDB tries for as long as the object store fails, even if nobody waits.
        let limit = store.tuning.open_timeout;
        let opened = tokio::time::timeout(limit, SlotDb::open_now(store, path, vnodes, sources, tables)).await;
        let late = |_| Error::Late { path: path.to_owned(), seconds: limit.as_secs(), last: store.last_failure() };
        opened.map_err(late)?
    }

    async fn open_now(
        store: &Store,
        path: &str,
        vnodes: VnodeRange,
        sources: &[CloneSource],
        tables: &HashSet<TableId>,
    ) -> Result<SlotDb, Error> {
        lineage::ensure_unused(store, path).await?;
        lineage::clone(store, path, vnodes, sources, tables).await?;
        let live = Live::new(tables.clone());
        let tuning = &store.tuning;
        let compactor = CompactorBuilder::new(path, store.objects.clone())
            .with_options(tuning.compactor())
            .with_scheduler_supplier(Arc::new(SchedulerSupplier::new(live.clone(), tuning.ancestors_max)))
            .with_compaction_filter_supplier(Arc::new(FilterSupplier::new(live.clone())));
        let db = Db::builder(path, store.objects.clone())
            .with_settings(tuning.database(store.conditional_overwrite))
            .with_sst_block_size(settings::BLOCK_SIZE)
            .with_block_cache_policy(tuning.caching())
            .with_filter_policies(settings::filters())
            .with_segment_extractor(Arc::new(TableSegment))
            .with_compactor_builder(compactor)
            .with_db_cache(store.cache.clone(), cache_id(path))
            .build();
        // The future holds the whole set-up of a database, so it is boxed.
        let db = Box::pin(db).await.map_err(Error::database("open", path))?;
        Ok(SlotDb { db, store: store.clone(), path: path.into(), live, contents: Arc::default() })
    }

    /// The database's path, relative to the state URL.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Applies the changes together; a key without a value is deleted. When it returns they are in
    /// the next snapshot and the next checkpoint, but not durable. Waits while too much is not
    /// durable yet.
    ///
    /// # Errors
    /// [`Error::Closed`] if the database takes no more writes.
    pub async fn write(&self, changes: impl IntoIterator<Item = (Bytes, Option<Bytes>)>) -> Result<(), Error> {
        let mut batch = WriteBatch::new();
        let mut last = None;
        for (key, value) in changes {
            let job = keys::state_job(&key);
            if let Some(job) = job.filter(|_| job != last) {
                self.live.writes(job);
                last = Some(job);
            }
            match value {
                Some(value) => batch.put_bytes(key, value),
                None => batch.delete(key),
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.db.write(batch).await.map_err(self.failed("write to"))?;
        Ok(())
    }

    /// The present value of each key, if it has one.
    ///
    /// # Errors
    /// [`Error::Closed`] if the database is closed; [`Error::Database`] if the object store fails.
    pub async fn get(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, Error> {
        let value = |key: Bytes| {
            let db = self.db.clone();
            async move { db.get(key).await }
        };
        let values = futures::stream::iter(keys).map(value).buffered(GETS_MAX);
        values.try_collect().await.map_err(self.failed("read"))
    }

    /// The present entries of state in a range, in the order of their keys: the first
    /// `entries_max` of them. The range is one of [`keys::state_range`], or a part of one.
    ///
    /// # Errors
    /// [`Error::Closed`] if the database is closed; [`Error::Database`] if the object store fails.
    ///
    /// # Panics
    /// If the range is not one of state.
    pub async fn scan_prefix(&self, range: Range<Bytes>, entries_max: usize) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let prefix = range.start.slice(..keys::STATE_PREFIX);
        let to = match range.end.strip_prefix(&*prefix) {
            Some(_) => Bound::Excluded(range.end.slice(keys::STATE_PREFIX..)),
            None => Bound::Unbounded,
        };
        let from = Bound::Included(range.start.slice(keys::STATE_PREFIX..));
        let failed = || self.failed("scan");
        let mut rows = self.db.scan_prefix(&prefix, (from, to)).await.map_err(failed())?;
        let mut entries = Vec::new();
        while entries.len() < entries_max
            && let Some(row) = rows.next().await.map_err(failed())?
        {
            entries.push((row.key, row.value));
        }
        Ok(entries)
    }

    /// A snapshot of the present contents, for as long as it is kept.
    ///
    /// # Errors
    /// [`Error::Closed`] if the database is closed.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let snapshot = self.db.snapshot().map_err(self.failed("take a snapshot of"))?;
        Ok(Snapshot { snapshot, db: self.clone() })
    }

    /// Begins a checkpoint. It holds the writes that returned before the call, and none that starts
    /// after it has returned. **Nothing may be written in between**, or the cut is anywhere among
    /// it. The checkpoint becomes durable in the background, and does not expire.
    ///
    /// # Errors
    /// [`Error::Closed`] if the database is closed.
    pub async fn begin_checkpoint(&self) -> Result<Pending, Error> {
        let handle = self.db.begin_checkpoint(CheckpointScope::All, &CheckpointOptions::default()).await;
        Ok(Pending { handle: handle.map_err(self.failed("begin a checkpoint of"))?, path: self.path.clone() })
    }

    /// Deletes a checkpoint of this database, so that files that only it holds can be collected.
    /// Deleting one that does not exist is no error.
    ///
    /// # Errors
    /// [`Error::Database`] if the object store fails for good.
    pub async fn delete_checkpoint(&self, checkpoint: Uuid) -> Result<(), Error> {
        let admin = slatedb::admin::Admin::builder(&*self.path, self.store.objects.clone()).build();
        admin.delete_checkpoint(checkpoint).await.map_err(self.failed("delete a checkpoint of"))
    }

    /// Forgets all of a table, and all state of the job that fills it. No write to it may come
    /// after; a snapshot may still be read, but need not show it.
    ///
    /// The compactor takes the files of the table's segment out of the database at its next look,
    /// and again whenever a late flush brings one. It rewrites nothing; deleting keys would have to
    /// read them all. State is left out of every compaction from now on, and
    /// [`SlotDb::reclaim`] has files rewritten that hold too much of it. A crash in between loses
    /// nothing, because the next term's clone takes over only tables of the catalog, and knows only
    /// their jobs.
    pub fn drop_table(&self, table: TableId) {
        self.live.drop_table(table);
    }

    /// Looks after the state of jobs that are gone, until the database is closed. The first look is
    /// [`super::Tuning::collection_interval`] after the opening, since a dropped job's state may
    /// have come from an earlier term; then as long after each drop, when all that the job wrote is
    /// in files.
    pub async fn reclaim(self) {
        let look = async {
            let (mut shares, mut changes) = (Shares::default(), self.live.changes());
            loop {
                tokio::time::sleep(self.store.tuning.collection_interval).await;
                changes.mark_unchanged();
                match shares.take(&self.store, &self.path, &self.db.manifest(), &self.live).await {
                    // The database lives as long as its handle, so the channel does, too.
                    Ok(0) => drop(changes.changed().await),
                    Ok(_) => {}
                    // The next look may succeed.
                    Err(error) => {
                        tracing::debug!(path = %self.path, error = chain(&error), "cannot look for state of dropped jobs");
                    }
                }
            }
        };
        tokio::select! {
            _ = self.closed() => {}
            () = look => {}
        }
    }

    /// Waits until the database takes no more work, for whatever reason, and returns the reason.
    /// The owner's term then has to end.
    pub async fn closed(&self) -> Error {
        let mut status = self.db.subscribe();
        let reason = status.wait_for(|status| status.close_reason.is_some()).await;
        // The channel ends with the database itself.
        let reason = reason.ok().and_then(|status| status.close_reason).unwrap_or(slatedb::CloseReason::Clean);
        Error::Closed { path: self.path.to_string(), reason: reason.into() }
    }

    /// Figures about the inside of the database.
    pub fn gauges(&self) -> Gauges {
        let manifest = self.db.manifest();
        let segments = manifest.segments();
        Gauges {
            l0_ssts: segments.iter().map(|segment| segment.l0().len()).sum(),
            sorted_runs: segments.iter().map(|segment| segment.compacted().len()).sum(),
            ancestors: manifest.external_dbs().iter().filter(|ancestor| !ancestor.sst_ids.is_empty()).count(),
            checkpoints: manifest.checkpoints().len(),
            bytes: manifest.all_sst_views().map(|view| view.sst.estimate_size()).sum(),
        }
    }

    /// Returns how much of the database belongs to each table, and how much is state of each job,
    /// as far as checkpoints have it. Those of large ones are estimates. At most some thousand
    /// entries of each table are read, and only if its files have changed since the last call.
    ///
    /// # Errors
    /// [`Error::Closed`] if the database is closed.
    pub async fn contents(&self, count: Count<'_>) -> Result<HashMap<TableId, Content>, Error> {
        let mut contents = self.contents.lock().await;
        let manifest = self.db.manifest();
        let snapshot = self.snapshot()?;
        Ok(contents.look((&self.store, &self.path), &manifest, &snapshot, count).await)
    }

    /// Stops all of the database's tasks. Writes that no checkpoint holds are lost; checkpoints
    /// that are not durable yet may or may not become so.
    pub async fn close(&self) {
        // This fails only if the database is closed already.
        let closed = self.db.close_with_options(CloseOptions::default().with_flush_type(None)).await;
        if let Err(error) = closed {
            tracing::debug!(path = %self.path, %error, "database was closed before");
        }
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(slatedb::Error) -> Error {
        Error::database(action, &self.path)
    }
}

/// Tells apart the blocks of different databases in the shared cache. Two databases of a process
/// collide only if their paths have the same 64-bit hash.
fn cache_id(path: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// A checkpoint that is on its way to the object store.
#[must_use = "a checkpoint is of use only when it is known to be durable"]
pub struct Pending {
    handle: CheckpointHandle,
    path: Arc<str>,
}

impl Pending {
    /// Waits until the checkpoint is durable.
    ///
    /// # Errors
    /// After any error it is unknown whether the checkpoint exists, so the term has to end.
    pub async fn wait(self) -> Result<Uuid, Error> {
        let result = self.handle.wait().await.map_err(Error::database("finish a checkpoint of", &self.path))?;
        Ok(result.id)
    }
}

/// The contents at one moment. Cheap to clone; the files that it needs are kept until the last
/// clone is dropped.
#[derive(Clone)]
pub struct Snapshot {
    snapshot: Arc<DbSnapshot>,
    db: SlotDb,
}

impl Snapshot {
    /// The entries of a table that belong to `vnodes`, in the order of their keys. Reads ahead. It
    /// may be read at any pace: if compaction replaces files and they are collected meanwhile, it
    /// goes on with the new ones.
    pub fn entries(&self, table: TableId, vnodes: VnodeRange) -> Entries {
        let Range { start, end } = keys::range(table, vnodes);
        Entries { snapshot: self.clone(), from: Bound::Included(start), end, rows: None }
    }

    /// The entries in a range of keys, in the order of their keys.
    pub(super) fn entries_in(&self, range: Range<Bytes>) -> Entries {
        Entries { snapshot: self.clone(), from: Bound::Included(range.start), end: range.end, rows: None }
    }

    /// The entries of a vnode of a table whose keys are above this one, in the order of their keys.
    pub fn entries_after(&self, table: TableId, vnode: u16, after: Option<Bytes>) -> Entries {
        let Range { start, end } = keys::range(table, VnodeRange { start: vnode, end: vnode + 1 });
        let from = after.map_or(Bound::Included(start), Bound::Excluded);
        Entries { snapshot: self.clone(), from, end, rows: None }
    }

    /// The entries of some vnodes of a table as a stream.
    ///
    /// # Errors
    /// The stream ends with the first error.
    pub fn scan(
        &self,
        table: TableId,
        vnodes: VnodeRange,
    ) -> impl Stream<Item = Result<(Bytes, Bytes), Error>> + Send + use<> {
        let entries = self.entries(table, vnodes);
        futures::stream::try_unfold(entries, |mut entries| async move {
            Ok(entries.next().await?.map(|entry| (entry, entries)))
        })
    }

    /// The values of the same keys, in the same order, many at a time. This is several times faster
    /// for many small values.
    pub fn values(&self, table: TableId, vnodes: VnodeRange) -> Values {
        let mut values = self.values_in(table, vec![Part::Range(keys::range(table, vnodes))]);
        values.many = true;
        values
    }

    /// The values of parts of a table, one part after the other.
    pub fn values_in(&self, table: TableId, parts: Vec<Part>) -> Values {
        Values { snapshot: self.clone(), table, parts: parts.into_iter(), many: false, current: None }
    }
}

/// A part of a table to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The entry with this key, if there is one.
    Key(Bytes),
    /// The entries with these keys.
    Range(Range<Bytes>),
}

/// Reads values out of a database, one part after the other.
pub struct Values {
    snapshot: Snapshot,
    table: TableId,
    parts: std::vec::IntoIter<Part>,
    /// Set once ranges have turned out to be long, so that files are looked for at once.
    many: bool,
    current: Option<RangeValues>,
}

impl Values {
    /// The next values, of which there is at least one; `None` at the end.
    ///
    /// # Errors
    /// If the object store fails for good, or its data is damaged.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        loop {
            if let Some(range) = &mut self.current {
                if let Some(values) = range.next(self.table).await? {
                    self.many |= values.len() == VALUES_MAX;
                    return Ok(Some(values));
                }
                self.current = None;
            }
            let keys = self.next_keys();
            if !keys.is_empty() {
                let found = try_join_all(keys.iter().map(|key| self.snapshot.snapshot.get(key))).await;
                let found = found.map_err(Error::database("read", &self.snapshot.db.path))?;
                let values: Vec<Bytes> = found.into_iter().flatten().collect();
                if !values.is_empty() {
                    return Ok(Some(values));
                }
                continue;
            }
            let Some(Part::Range(Range { start, end })) = self.parts.next() else { return Ok(None) };
            let scan = Entries { snapshot: self.snapshot.clone(), from: Bound::Included(start), end, rows: None };
            let way = if self.many { Way::Unknown } else { Way::Trial };
            self.current = Some(RangeValues { scan, way, moved: true });
        }
    }

    /// The next keys, as many as are looked up at the same time.
    fn next_keys(&mut self) -> Vec<Bytes> {
        let mut keys = Vec::new();
        while keys.len() < GETS_MAX
            && let Some(Part::Key(key)) = self.parts.as_slice().first()
        {
            keys.push(key.clone());
            self.parts.next();
        }
        keys
    }

    /// Frees the data that was read ahead. The next call reads it again.
    pub fn pause(&mut self) {
        if let Some(range) = &mut self.current {
            range.pause();
        }
    }

    /// The same as a stream.
    ///
    /// # Errors
    /// The stream ends with the first error.
    pub fn stream(self) -> impl Stream<Item = Result<Vec<Bytes>, Error>> + Send {
        futures::stream::try_unfold(
            self,
            |mut values| async move { Ok(values.next().await?.map(|next| (next, values))) },
        )
    }
}

/// The values of one range.
struct RangeValues {
    /// The start of the rest, and SlateDB's iterator over it.
    scan: Entries,
    way: Way,
    /// True if anything was returned since files were opened.
    moved: bool,
}

/// The way in which values are read.
enum Way {
    /// Through SlateDB's iterator, until the range turns out to be long.
    Trial,
    /// Files have yet to be looked for.
    Unknown,
    /// From files.
    Runs(Box<Runs>),
    /// Through SlateDB's iterator.
    Iterator,
}

impl RangeValues {
    async fn next(&mut self, table: TableId) -> Result<Option<Vec<Bytes>>, Error> {
        loop {
            match &mut self.way {
                Way::Unknown => self.way = Way::open(&self.scan, table).await,
                Way::Runs(runs) => match runs.next().await {
                    Ok(values) => {
                        self.moved = true;
                        return Ok(values);
                    }
                    Err(error) => {
                        tracing::debug!(path = %self.scan.snapshot.db.path, error = chain(&error), "a scan looks for files anew");
                        self.scan.goes_on_behind(runs.last());
                        // SlateDB knows how to handle lasting errors.
                        self.way = if std::mem::take(&mut self.moved) { Way::Unknown } else { Way::Iterator };
                    }
                },
                way @ (Way::Trial | Way::Iterator) => {
                    let (mut values, mut bytes) = (Vec::new(), 0);
                    while values.len() < VALUES_MAX
                        && bytes < VALUES_BYTES_MAX
                        && let Some((_, value)) = self.scan.next().await?
                    {
                        bytes += value.len();
                        values.push(value);
                    }
                    if values.len() == VALUES_MAX && matches!(way, Way::Trial) {
                        (self.way, self.scan.rows) = (Way::Unknown, None);
                    }
                    return Ok(Some(values).filter(|values| !values.is_empty()));
                }
            }
        }
    }

    fn pause(&mut self) {
        match &self.way {
            Way::Runs(runs) => {
                self.scan.goes_on_behind(runs.last());
                self.way = Way::Unknown;
            }
            Way::Trial | Way::Unknown | Way::Iterator => self.scan.pause(),
        }
    }
}

impl Way {
    async fn open(scan: &Entries, table: TableId) -> Way {
        let Snapshot { snapshot, db } = &scan.snapshot;
        let keys = (scan.from.clone(), Bound::Excluded(scan.end.clone()));
        let manifest = db.db.manifest();
        match Runs::open(&db.store, (&db.path, &manifest), &keys::segment(table), &keys, snapshot.seq()).await {
            Ok(Some(runs)) => Way::Runs(Box::new(runs)),
            Ok(None) => Way::Iterator,
            Err(error) => {
                tracing::debug!(path = %db.path, error = chain(&error), "a scan does not read files by itself");
                Way::Iterator
            }
        }
    }
}

/// How often files may be gone before an entry of them was read. Data that is damaged stays so.
const REOPENED_MAX: usize = 4;

/// A running scan of a range of entries.
pub struct Entries {
    snapshot: Snapshot,
    /// The start of the rest.
    from: Bound<Bytes>,
    end: Bytes,
    rows: Option<Box<DbIterator>>,
}

impl Entries {
    /// Frees the data that was read ahead. The next call reads it again.
    pub fn pause(&mut self) {
        self.rows = None;
    }

    /// Goes on behind a key, if there is one.
    fn goes_on_behind(&mut self, key: Option<&Bytes>) {
        if let Some(key) = key {
            self.from = Bound::Excluded(key.clone());
        }
    }

    /// The next entry, if there is one.
    ///
    /// # Errors
    /// If the object store fails for good, or its data is damaged.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, Error> {
        let mut reopened = 0;
        loop {
            let found = match &mut self.rows {
                Some(rows) => rows.next().await,
                None => {
                    let range = (self.from.clone(), Bound::Excluded(self.end.clone()));
                    match self.snapshot.snapshot.scan_with_options(range, &settings::scan()).await {
                        Ok(rows) => self.rows.insert(Box::new(rows)).next().await,
                        Err(error) => Err(error),
                    }
                }
            };
            match found {
                Ok(row) => {
                    let row = row.map(|row| (row.key, row.value));
                    if let Some((key, _)) = &row {
                        self.from = Bound::Excluded(key.clone());
                    }
                    return Ok(row);
                }
                // A file is gone. Others have replaced it, and may be gone as well by now.
                Err(error) if error.kind() == slatedb::ErrorKind::Data && reopened < REOPENED_MAX => {
                    tracing::debug!(path = %self.snapshot.db.path, %error, "a scan goes on with newer files");
                    reopened += 1;
                    self.rows = None;
                }
                Err(error) => return Err(Error::database("scan", &self.snapshot.db.path)(error)),
            }
        }
    }
}

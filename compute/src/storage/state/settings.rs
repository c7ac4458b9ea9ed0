//! Settings of SlateDB for Weir's way of writing: one checkpoint an epoch, about a second apart,
//! which writes one small SST for each table; values of tens to hundreds of kilobytes; scans of
//! whole tables; no write-ahead log, since uncommitted data is read again from NATS.
//!
//! With SlateDB's own bounds a checkpoint a second waits up to eight seconds for compaction. Here
//! the bounds on the SSTs of the lowest level are generous and compaction looks for work often;
//! [`super::SlotDb::gauges`] shows if it still falls behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, GarbageCollectorDirectoryOptions, GarbageCollectorOptions,
    GarbageCollectorScheduleOptions, ScanOptions, Settings, SizeTieredCompactionSchedulerOptions,
};
use slatedb::{BlockCachePolicy, BloomFilterPolicy, CacheTarget, FilterPolicy, SstBlockSize};

use super::keys;

/// Writes stall at this many SSTs of the lowest level in one database.
const L0_SSTS_MAX: usize = 4096;
/// The same bound, for those that may hold one and the same key.
const L0_SSTS_PER_KEY_MAX: usize = 256;
/// One scan fetches this much at a time, this often in parallel: enough for S3 to stream, and
/// little beside the memtables.
const READ_AHEAD_BYTES: usize = 2 << 20;
const READ_AHEAD_FETCHES: usize = 3;

/// Settings that may differ, chiefly to make tests quick.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The bound of the block cache that all slots of a process share.
    pub cache_bytes: u64,
    /// Writing waits beyond this many bytes of a slot that are not in the object store yet.
    pub unflushed_bytes_max: usize,
    /// The time that the opening of a database may take. It is less than meta waits for a node, so
    /// that the node can report the reason.
    pub open_timeout: Duration,
    /// The interval at which compaction looks for work.
    pub compaction_poll: Duration,
    /// A compaction waits for this many files or runs of similar sizes. Each one rewrites its rows.
    pub compaction_sources_min: usize,
    /// The time for which replaced files are kept for scans that read them. A longer scan goes on
    /// with the new files. The price of a long time is storage, and a checkpoint for each
    /// compaction.
    pub replaced_files_lifetime: Duration,
    /// The interval at which a live database looks for files that nothing needs.
    pub collection_interval: Duration,
    /// The least age of such files.
    pub collection_age_min: Duration,
    /// A database may use files of this many other databases before it rewrites the data of the
    /// smallest.
    pub ancestors_max: usize,
    /// Scans of values read files directly, past the block cache, if the files are together at
    /// least this large.
    pub bulk_bytes_min: u64,
    /// True if blocks enter the block cache when they are written, not only when they are read.
    pub cache_written: bool,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            cache_bytes: 256 << 20,
            unflushed_bytes_max: 256 << 20,
            open_timeout: Duration::from_secs(30),
            compaction_poll: Duration::from_millis(500),
            compaction_sources_min: 16,
            replaced_files_lifetime: Duration::from_secs(60),
            collection_interval: Duration::from_secs(60),
            collection_age_min: Duration::from_secs(60),
            ancestors_max: 4,
            bulk_bytes_min: 1 << 20,
            cache_written: true,
        }
    }
}

impl Tuning {
    pub(super) fn database(&self, conditional_overwrite: bool) -> Settings {
        Settings {
            wal_enabled: false,
            manifest_poll_interval: self.compaction_poll,
            l0_max_ssts: L0_SSTS_MAX,
            l0_max_ssts_per_key: L0_SSTS_PER_KEY_MAX,
            l0_sst_size_bytes: (self.unflushed_bytes_max / 4).max(1 << 20),
            max_unflushed_bytes: self.unflushed_bytes_max,
            min_filter_keys: 0,
            // The compactor has our own scheduler, so it is passed as a builder.
            compactor_options: None,
            garbage_collector_options: Some(self.collection(conditional_overwrite)),
            ..Settings::default()
        }
    }

    pub(super) fn caching(&self) -> BlockCachePolicy {
        let policy = BlockCachePolicy::default();
        if self.cache_written { policy } else { policy.with_flush_targets(&[CacheTarget::Index, CacheTarget::Filters]) }
    }

    pub(super) fn compactor(&self) -> CompactorOptions {
        CompactorOptions {
            poll_interval: self.compaction_poll,
            commit_compacted_interval: self.compaction_poll,
            max_concurrent_compactions: 2,
            checkpoint_lifetime: self.replaced_files_lifetime,
            scheduler_options: self.scheduler(),
            worker: Some(CompactionWorkerOptions {
                max_concurrent_compactions: 2,
                compactions_poll_interval: self.compaction_poll,
                // A slot has one core. Compaction must not take the cores of others.
                max_subcompactions: 1,
                max_fetch_tasks: READ_AHEAD_FETCHES,
                bytes_to_fetch: READ_AHEAD_BYTES,
                ..CompactionWorkerOptions::default()
            }),
            ..CompactorOptions::default()
        }
    }

    /// One compaction of a table takes in the writes of some seconds of checkpoints: it takes about
    /// three polls, and only one of a table's lowest level runs at a time. Reads of a table merge
    /// all of its runs, so a handful is enough.
    fn scheduler(&self) -> HashMap<String, String> {
        let options = SizeTieredCompactionSchedulerOptions {
            min_compaction_sources: self.compaction_sources_min,
            max_compaction_sources: 64,
            sorted_run_consolidation_threshold: 8,
            ..SizeTieredCompactionSchedulerOptions::default()
        };
        options.into()
    }

    pub(super) fn collection(&self, conditional_overwrite: bool) -> GarbageCollectorOptions {
        let directory = Some(GarbageCollectorDirectoryOptions {
            interval: Some(self.collection_interval),
            min_age: self.collection_age_min,
            dry_run: false,
        });
        GarbageCollectorOptions {
            manifest_options: directory,
            compacted_options: directory,
            compactions_options: directory,
            wal_options: None,
            wal_fence_options: None,
            detach_options: Some(GarbageCollectorScheduleOptions { interval: Some(self.collection_interval) }),
            // They need conditional overwrites. They guard against a stale process that repeats an
            // old update; terms do so already, because a database has one writer in its life.
            boundary_files_enabled: conditional_overwrite,
            ..GarbageCollectorOptions::default()
        }
    }
}

/// A filter of what is looked up, see [`keys::Lookup`]. Files of any size have one, since an
/// operator asks for many keys that do not exist.
pub(super) fn filters() -> Vec<Arc<dyn FilterPolicy>> {
    const BITS_PER_KEY: u32 = 10;
    let filter = BloomFilterPolicy::new(BITS_PER_KEY).with_prefix_extractor(Arc::new(keys::Lookup));
    vec![Arc::new(filter.with_whole_key_filtering(false))]
}

/// Rows are found and merged block by block. Small blocks cost a scan twice as much as blocks of
/// this size.
pub(super) const BLOCK_SIZE: SstBlockSize = SstBlockSize::Block32Kib;

/// Options for scans of a table.
pub(super) fn scan() -> ScanOptions {
    ScanOptions::default()
        .with_read_ahead_bytes(READ_AHEAD_BYTES)
        .with_max_fetch_tasks(READ_AHEAD_FETCHES)
        .with_cache_blocks(true)
}

//! How SlateDB is set up for Weir's way of writing: one checkpoint an epoch, about a second apart, of which each writes
//! one small SST a table; values of tens to hundreds of kilobytes; scans of whole tables; no write-ahead log, since
//! what is not in a committed checkpoint is read again from NATS.
//!
//! With SlateDB's own bounds a checkpoint a second waits up to eight seconds for compaction, so the bounds on the SSTs
//! of the lowest level are generous here and compaction looks for work often; [`super::SlotDb::gauges`] shows
//! when it falls behind nevertheless.

use std::collections::HashMap;
use std::time::Duration;

use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, GarbageCollectorDirectoryOptions, GarbageCollectorOptions,
    GarbageCollectorScheduleOptions, ScanOptions, Settings, SizeTieredCompactionSchedulerOptions,
};
use slatedb::{BlockCachePolicy, CacheTarget, SstBlockSize};

/// SSTs of the lowest level, in one database, at which writes stall.
const L0_SSTS_MAX: usize = 4096;
/// The same, counting only those that may hold one and the same key.
const L0_SSTS_PER_KEY_MAX: usize = 256;
/// One scan fetches this much at a time and this often at once: enough for S3 to stream, little beside the memtables.
const READ_AHEAD_BYTES: usize = 2 << 20;
const READ_AHEAD_FETCHES: usize = 3;

/// What may be set differently, chiefly to make tests quick.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The bound of the block cache that all slots of a process share.
    pub cache_bytes: u64,
    /// A slot's writes that are not in the object store yet, beyond which writing waits.
    pub unflushed_bytes_max: usize,
    /// How long the opening of a database may take. Less than meta waits for a node, so that the node can say why.
    pub open_timeout: Duration,
    /// How often compaction looks for work.
    pub compaction_poll: Duration,
    /// A compaction waits for so many files or runs of similar sizes. Each one rewrites its rows.
    pub compaction_sources_min: usize,
    /// How long files that compaction has replaced are kept for scans that read them. One that takes longer goes on
    /// with the new files; the price of a long time is storage, and a checkpoint a compaction.
    pub replaced_files_lifetime: Duration,
    /// How often files that nothing needs are looked for in a live database.
    pub collection_interval: Duration,
    /// How old such files must be.
    pub collection_age_min: Duration,
    /// Databases whose files a database may go on using before it rewrites what it has from the smallest of them.
    pub ancestors_max: usize,
    /// Scans of values read files by themselves, past the block cache, if the files are at least so large together.
    pub bulk_bytes_min: u64,
    /// Blocks get into the block cache when they are written, not only when they are read.
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
            // The compactor has a scheduler of ours, so it is handed over as a builder.
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
                // A slot has one core: compaction must not take the others'.
                max_subcompactions: 1,
                max_fetch_tasks: READ_AHEAD_FETCHES,
                bytes_to_fetch: READ_AHEAD_BYTES,
                ..CompactionWorkerOptions::default()
            }),
            ..CompactorOptions::default()
        }
    }

    /// One compaction of a table takes in all that some seconds of checkpoints have written: it
    /// takes about three polls, and only one of a table's lowest level runs at a time. Reads of a
    /// table merge all its runs: a handful is enough.
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
            // They need conditional overwrites. What they guard against, a stale process that repeats an old update,
            // is guarded against by terms: a database has one writer in its life.
            boundary_files_enabled: conditional_overwrite,
            ..GarbageCollectorOptions::default()
        }
    }
}

/// Rows are found and merged block by block, so small ones cost a scan twice as much as this size
/// does.
pub(super) const BLOCK_SIZE: SstBlockSize = SstBlockSize::Block32Kib;

/// How a table is scanned.
pub(super) fn scan() -> ScanOptions {
    ScanOptions::default()
        .with_read_ahead_bytes(READ_AHEAD_BYTES)
        .with_max_fetch_tasks(READ_AHEAD_FETCHES)
        .with_cache_blocks(true)
}

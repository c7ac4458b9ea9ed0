//! The cost of keyed rows in one slot's database, without NATS: writing them with a checkpoint
//! every 50,000 rows, compaction included, and scanning them all.
//!
//! The rows are like the bids of the Nexmark benchmark, about 200 bytes, and arrive in batches of
//! 4,096. Processor time is that of the whole process. `cargo bench -p weir-compute --bench keyed
//! [rows] [directory]`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use futures::TryStreamExt;
use weir_common::ids::{TableId, VnodeRange};
use weir_common::key::Keys;
use weir_compute::storage::row::Writer;
use weir_compute::storage::state::{SlotDb, Store, keys};

const TABLE: TableId = TableId(1);
const BATCH: i64 = 4_096;
const EPOCH: i64 = 50_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rows = arguments.first().map_or(1_000_000, |rows| rows.parse().expect("a number of rows"));
    let parent = arguments.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent).expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(rows, dir.path()));
}

async fn measure(rows: i64, dir: &Path) {
    let store = Store::open(&format!("file://{}", dir.display())).expect("a store");
    let tables = [TABLE].into();
    let slot = SlotDb::open(&store, "state/bench/1-a/0", VnodeRange::ALL, &[], &tables).await.expect("a database");

    let (start, before) = (Instant::now(), processor_time());
    let mut pending = None;
    for first in (0..rows).step_by(BATCH as usize) {
        slot.write(entries(first..rows.min(first + BATCH))).await.expect("a write");
        if (first + BATCH) / EPOCH > first / EPOCH || first + BATCH >= rows {
            let cut: weir_compute::storage::state::Pending = slot.begin_checkpoint().await.expect("a checkpoint");
            if let Some(before) = pending.replace(cut) {
                let id = before.wait().await.expect("durable");
                slot.delete_checkpoint(id).await.expect("a deletion");
            }
        }
    }
    pending.expect("a checkpoint").wait().await.expect("durable");
    report("written", rows, start, before);
    let mut quiet = 0;
    while quiet < 3 {
        let before = processor_time();
        tokio::time::sleep(Duration::from_millis(700)).await;
        quiet = if processor_time() - before < Duration::from_millis(50) { quiet + 1 } else { 0 };
    }
    report("written and compacted", rows, start, before);
    println!("{:?}", slot.gauges());

    let snapshot = slot.snapshot().expect("a snapshot");
    for _ in 0..3 {
        let (start, before) = (Instant::now(), processor_time());
        let one_by_one = snapshot.scan(TABLE, VnodeRange::ALL).try_fold(0, async |count, _| Ok(count + 1)).await;
        assert_eq!(one_by_one.expect("a scan"), rows);
        report("scanned one by one", rows, start, before);
        let (start, before) = (Instant::now(), processor_time());
        let values = snapshot.values(TABLE, VnodeRange::ALL).stream();
        let count = values.try_fold(0, async |count, values| Ok(count + values.len() as i64)).await;
        assert_eq!(count.expect("a scan"), rows);
        report("scanned in bulk", rows, start, before);
    }
    slot.close().await;
}

/// Rows as the shuffle makes them: slices of one buffer for each batch.
fn entries(numbers: std::ops::Range<i64>) -> Vec<(Bytes, Option<Bytes>)> {
    let column =
        |value: &dyn Fn(i64) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(numbers.clone().map(value))) };
    let text = |value: &dyn Fn(i64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(numbers.clone().map(value)))
    };
    let columns = [
        ("auction", column(&|n| n % 1_000)),
        ("bidder", column(&|n| n % 10_007)),
        ("price", column(&|n| n * 31 % 100_000)),
        ("channel", text(&|n| format!("channel-{}", n % 10_000))),
        ("url", text(&|n| format!("https://www.nexmark.com/item.htm?query=1&channel_id={}", n % 10_000))),
        ("extra", text(&|n| format!("{n:0>60}"))),
        ("message", column(&|n| n)),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let (keys, rows) = (Keys::new(&batch, &[6]), Writer::new(&batch, 7, 0));
    let (mut buffer, mut ends, mut key) = (Vec::new(), Vec::new(), Vec::new());
    for (row, sequence) in (0..batch.num_rows()).zip(1..) {
        key.clear();
        keys.write(row, &mut key);
        keys::write_row_key(TABLE, keys::vnode_of(&key), &key, &mut buffer);
        let value = buffer.len();
        rows.write(row, sequence, &mut buffer);
        ends.push((value, buffer.len()));
    }
    let (buffer, mut start) = (Bytes::from(buffer), 0);
    let entry = |(value, end)| {
        let entry = (buffer.slice(start..value), Some(buffer.slice(value..end)));
        start = end;
        entry
    };
    ends.into_iter().map(entry).collect()
}

fn report(what: &str, rows: i64, start: Instant, before: Duration) {
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), (processor_time() - before).as_secs_f64());
    let millions = rows as f64 / 1e6;
    println!("{what}: {:.2} CPU-seconds a million, {:.2} s a million", cpu / millions, elapsed / millions);
}

/// User and system time of this process.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a command's name");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

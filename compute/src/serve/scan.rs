//! Scans: frontends read stored rows of this node's slots, at a sealed epoch of the running term.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch};
use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Status;
use weir_common::catalog::Relation;
use weir_common::error::{Kind, chain};
use weir_common::ids::{Epoch, SlotId, TableId, VnodeRange};
use weir_common::rpc;
use weir_proto::{KeyRange, KeySet, ScanRequest, ScanResponse};

use super::prune::Pruning;
use super::serving::Serving;
use crate::metrics::{self, Metrics};
use crate::storage::layout::{self, Layout, Wanted};
use crate::storage::state::{Entries, Part, Snapshot, Values, keys};
use crate::storage::{block, row, state};

/// A scan that could not send for this long frees the data that it has read ahead.
const STALLED: Duration = Duration::from_secs(1);
/// Rows of keyed tables are sent in batches of at most as many rows or bytes as a block.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 1 << 20;
/// Blocks are sent in parts of this size, so that a stalled scan holds little.
const PART_BYTES: usize = 256 << 10;
/// The first batch is small, and each further one is twice as large, so that a cursor that fetches
/// a few rows holds little.
const FIRST_BATCH_ROWS: usize = 256;
/// A scan that only counts rows reports this many at once, so that it notices a frontend that has
/// gone.
const COUNTED_ROWS: u64 = 1 << 18;

/// A scan whose request was checked.
pub(crate) struct Scan {
    snapshot: Snapshot,
    vnodes: VnodeRange,
    relation: Arc<Relation>,
    projection: Vec<usize>,
    limit: u64,
    /// The parts of the slot's database to read; `None`: the whole table.
    parts: Option<Vec<Part>>,
    pruning: Pruning,
}

impl Scan {
    /// # Errors
    /// If the slot or the epoch is not on this node, or the request does not fit the table.
    pub(crate) fn prepare(serving: &Serving, request: &ScanRequest) -> Result<Scan, rpc::Error> {
        let slot = serving.slots.get(SlotId(request.slot))?;
        let epoch = Epoch(request.epoch);
        let snapshot = slot.snapshots.borrow().get(&epoch).cloned();
        let snapshot = snapshot
            .ok_or_else(|| rpc::Error::new(Kind::Unavailable, format!("epoch {epoch} is not kept here any more")))?;
        let relation = serving.relations.relation(TableId(request.table), request.layout)?;
        serving.check_complete(relation.id, SlotId(request.slot), epoch)?;
        let projection = request.projection.iter().map(|column| usize::try_from(*column).expect("at least 32 bits"));
        let projection: Vec<usize> = projection.collect();
        // UPDATE and DELETE read the hidden columns of a table's key.
        let known = projection.iter().all(|column| *column < relation.columns.len() + relation.hidden.len());
        if !known || (1..projection.len()).any(|place| projection[..place].contains(&projection[place])) {
            return Err(rpc::Error::new(
                Kind::Internal,
                "projection of a column that the table does not have, or twice",
            ));
        }
        let limit = request.limit.unwrap_or(u64::MAX);
        let parts = match &request.keys {
            Some(keys) if relation.is_keyed() => Some(parts_of(relation.id, slot.vnodes, keys)),
            Some(_) => return Err(rpc::Error::new(Kind::Internal, "keys of a table without a primary key")),
            None => None,
        };
        let pruning = Pruning::new(&relation, request);
        Ok(Scan { snapshot, vnodes: slot.vnodes, relation, projection, limit, parts, pruning })
    }

    /// The relation that is scanned.
    pub(crate) fn relation(&self) -> &Relation {
        &self.relation
    }

    /// Sends batches until the end, the limit, an error, or until the frontend has gone. The last
    /// message is missing if the scan ends in any other way, such as a panic. It reads nothing
    /// before there is room for it, so a stalled scan holds little.
    pub(crate) async fn run(mut self, out: mpsc::Sender<Result<ScanResponse, Status>>, metrics: Metrics) {
        let labels = [metrics::table(&self.relation.name)];
        let mut entries = self.reading();
        let failed = |kind, error: &(dyn std::error::Error + 'static)| {
            rpc::Error::new(kind, format!("table \"{}\": {}", self.relation.name, chain(error)))
        };
        let mut gathering = Gathering::new(&self);
        let (mut left, mut last, mut part_rows) = (self.limit, false, FIRST_BATCH_ROWS);
        while left > 0 && !last {
            if has_room(&out, &mut entries).await.is_err() {
                return;
            }
            let responses = loop {
                let responses = match entries.next().await {
                    Ok(Some(values)) => {
                        let taken = self.take_all(&mut gathering, &values, left);
                        taken.map_err(|error| failed(error.kind(), &error))
                    }
                    Err(error) => Err(failed(error.kind(), &error)),
                    Ok(None) => {
                        last = true;
                        gathering.finish(left).map_err(|error| failed(error.kind(), &error))
                    }
                };
                match responses {
                    Ok(responses) if responses.is_empty() && !last => {}
                    responses => break responses,
                }
            };
            let responses = match responses {
                Ok(responses) => responses,
                // It makes no difference if the frontend is still there.
                Err(error) => return drop(out.send(Err(error.into())).await),
            };
            for gathered in responses {
                left -= gathered.rows();
                metrics.scanned_rows.add(gathered.rows(), &labels);
                for response in gathered.parts(&mut part_rows) {
                    if has_room(&out, &mut entries).await.is_err() || out.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
            }
        }
        // It makes no difference if the frontend is still there.
        let _ = out.send(Ok(ScanResponse { done: true, ..ScanResponse::default() })).await;
    }
}

impl Scan {
    /// Begins to read.
    fn reading(&mut self) -> Reading {
        match self.parts.take() {
            Some(parts) => Reading::Rows(Box::new(self.snapshot.values_in(self.relation.id, parts))),
            None if self.relation.is_keyed() => {
                Reading::Rows(Box::new(self.snapshot.values(self.relation.id, self.vnodes)))
            }
            None => Reading::Blocks(Box::new(self.snapshot.entries(self.relation.id, self.vnodes))),
        }
    }

    /// Gathers entries, but skips blocks without a wanted row.
    fn take_all(
        &self,
        gathering: &mut Gathering,
        values: &[Bytes],
        mut limit: u64,
    ) -> Result<Vec<Gathered>, layout::Error> {
        let mut all = Vec::new();
        for value in values {
            if limit == 0 {
                break;
            }
            if !self.relation.is_keyed() && !self.pruning.wants(value)? {
                continue;
            }
            for gathered in gathering.take(value, limit)? {
                limit -= gathered.rows();
                all.push(gathered);
            }
        }
        Ok(all)
    }
}

/// Reads stored values out of a slot's database.
enum Reading {
    /// Blocks of a table without a primary key.
    Blocks(Box<Entries>),
    /// Rows of a table with a primary key.
    Rows(Box<Values>),
}

impl Reading {
    /// The next values; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>, state::Error> {
        match self {
            Reading::Blocks(blocks) => Ok(blocks.next().await?.map(|(_, block)| vec![block])),
            Reading::Rows(rows) => rows.next().await,
        }
    }

    /// Frees the data that was read ahead. The next call reads it again.
    fn pause(&mut self) {
        match self {
            Reading::Blocks(blocks) => blocks.pause(),
            Reading::Rows(rows) => rows.pause(),
        }
    }
}

/// The parts of a slot that hold the wanted keys. Each range of keys is read in every vnode.
fn parts_of(table: TableId, vnodes: VnodeRange, wanted: &KeySet) -> Vec<Part> {
    let points = wanted.points.iter().map(|key| {
        let mut stored = Vec::new();
        keys::write_row_key(table, keys::vnode_of(key), key, &mut stored);
        Part::Key(stored.into())
    });
    let ranges = (vnodes.start..vnodes.end).flat_map(|vnode| {
        let range = move |range: &KeyRange| {
            let to = (!range.to.is_empty()).then_some(&range.to[..]);
            Part::Range(keys::row_range(table, vnode, &range.from, to))
        };
        wanted.ranges.iter().map(range)
    });
    points.chain(ranges).collect()
}

/// Waits until there is room for a batch. If that takes long, frees the data that was read ahead.
///
/// # Errors
/// If the frontend has gone.
async fn has_room(out: &mpsc::Sender<Result<ScanResponse, Status>>, entries: &mut Reading) -> Result<(), Gone> {
    let room = tokio::time::timeout(STALLED, out.reserve()).await;
    let room = match room {
        Ok(room) => room,
        Err(_) => {
            entries.pause();
            out.reserve().await
        }
    };
    // Only this task sends, so the room stays until it has sent.
    room.map(drop).map_err(|_| Gone)
}

/// The frontend has gone.
struct Gone;

/// Turns stored entries into batches.
enum Gathering {
    /// Each entry is a block.
    Blocks(Wanted),
    /// Each entry is a block, and only the number of rows is wanted. No block is decoded.
    CountBlocks,
    /// Each entry is a row. Rows of one layout are gathered together.
    Rows { wanted: Wanted, readers: BTreeMap<u16, (Arc<Layout>, row::Reader)>, rows: usize, bytes: usize, full: usize },
    /// Each entry is a row, and only the number of rows is wanted.
    Count(u64),
}

impl Gathering {
    fn new(scan: &Scan) -> Gathering {
        let wanted = || Wanted::new(Arc::clone(&scan.relation), &scan.projection);
        match (scan.relation.is_keyed(), scan.projection.is_empty()) {
            (false, false) => Gathering::Blocks(wanted()),
            (false, true) => Gathering::CountBlocks,
            (true, false) => {
                let (readers, full) = (BTreeMap::new(), FIRST_BATCH_ROWS);
                Gathering::Rows { wanted: wanted(), readers, rows: 0, bytes: 0, full }
            }
            (true, true) => Gathering::Count(0),
        }
    }

    /// Takes an entry. Returns the batches that are full, with at most `limit` rows together.
    fn take(&mut self, value: &Bytes, limit: u64) -> Result<Vec<Gathered>, layout::Error> {
        match self {
            Gathering::Blocks(wanted) => {
                let batch = wanted.of(block::layout(value)?)?.read_block(value)?;
                let rows = batch.num_rows().min(usize::try_from(limit).unwrap_or(usize::MAX));
                Ok(vec![Gathered::Rows(batch.slice(0, rows))])
            }
            Gathering::CountBlocks => Ok(vec![Gathered::Count(u64::from(block::rows(value)?).min(limit))]),
            Gathering::Rows { wanted, readers, rows, bytes, full } => {
                let Some(row) = row::Stored::parse(value)? else { return Ok(Vec::new()) };
                let reader = match readers.entry(row.layout) {
                    Entry::Occupied(reader) => reader.into_mut(),
                    Entry::Vacant(place) => {
                        let layout = wanted.of(row.layout)?;
                        let reader = layout.row_reader()?;
                        place.insert((layout, reader))
                    }
                };
                reader.1.append(&row)?;
                *rows += 1;
                *bytes += value.len();
                let is_full = *rows >= *full || *bytes >= BATCH_BYTES || *rows as u64 == limit;
                if is_full { self.finish(limit) } else { Ok(Vec::new()) }
            }
            Gathering::Count(rows) => {
                *rows += u64::from(row::has_row(value)?);
                let full = *rows >= COUNTED_ROWS || *rows == limit;
                if full { self.finish(limit) } else { Ok(Vec::new()) }
            }
        }
    }

    /// Returns the rest. [`Gathering::take`] has made sure that it has at most `limit` rows.
    fn finish(&mut self, limit: u64) -> Result<Vec<Gathered>, layout::Error> {
        let responses = match self {
            Gathering::Blocks(_) | Gathering::CountBlocks => Vec::new(),
            Gathering::Rows { readers, rows, bytes, full, .. } => {
                (*rows, *bytes, *full) = (0, 0, BATCH_ROWS.min(2 * *full));
                let full = readers.values_mut().filter(|(_, reader)| reader.rows() > 0);
                let batches = full.map(|(layout, reader)| Ok(Gathered::Rows(layout.widen(&reader.finish()?)?)));
                batches.collect::<Result<_, layout::Error>>()?
            }
            Gathering::Count(0) => Vec::new(),
            Gathering::Count(rows) => vec![Gathered::Count(std::mem::take(rows))],
        };
        let rows: u64 = responses.iter().map(Gathered::rows).sum();
        assert!(rows <= limit, "a batch is sent when the limit is reached");
        Ok(responses)
    }
}

pub(crate) fn response(batch: &RecordBatch) -> ScanResponse {
    let (header, body) = block::wire_parts(batch);
    ScanResponse { header, body, rows: batch.num_rows() as u64, done: false }
}

/// Rows that are ready to be sent.
enum Gathered {
    Rows(RecordBatch),
    /// Only their number is wanted.
    Count(u64),
}

impl Gathered {
    fn rows(&self) -> u64 {
        match self {
            Gathered::Rows(batch) => batch.num_rows() as u64,
            Gathered::Count(rows) => *rows,
        }
    }

    /// The messages that carry the rows, each encoded when it is sent. The first one of a scan has
    /// `part_rows` rows, and each further one twice as many, up to a bound in bytes.
    fn parts(self, part_rows: &mut usize) -> impl Iterator<Item = ScanResponse> {
        let (batch, count) = match self {
            Gathered::Rows(batch) => (Some(batch), None),
            Gathered::Count(rows) => (None, Some(ScanResponse { rows, ..ScanResponse::default() })),
        };
        let rows = batch.as_ref().map_or(0, RecordBatch::num_rows);
        let size = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(PART_BYTES);
        let bytes: usize = batch.iter().flat_map(RecordBatch::columns).map(size).sum();
        let rows_max = (PART_BYTES * rows).checked_div(bytes).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS);
        let mut sent = 0;
        let parts = std::iter::from_fn(move || {
            let batch = batch.as_ref().filter(|_| sent < rows)?;
            let part = batch.slice(sent, (rows - sent).min(rows_max).min(*part_rows));
            sent += part.num_rows();
            *part_rows = BATCH_ROWS.min(2 * *part_rows);
            Some(response(&part))
        });
        count.into_iter().chain(parts)
    }
}

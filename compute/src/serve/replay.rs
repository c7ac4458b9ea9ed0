//! Replay: decodes dead letters again, with the columns that the table has now. Messages that
//! succeed become rows of the table or, for a source, of its views.
//!
//! A replay goes through a slot's dead letters block by block, while the slot's actors go on. It
//! takes only blocks that were there when the term began: no actor of the term writes under their
//! keys, and everything that their split had read before is stored.
//!
//! Rows of views and of tables without a key go into the same slot, in one write with the block of
//! the remaining letters, so that a crash leaves both or neither. Rows of a keyed table go first to
//! the slots that own their keys, where the row of a later message stays; the block is replaced in
//! no earlier epoch. A crash in between leaves rows whose dead letters are still there, and the
//! next replay makes the same rows. For the same reason two replays of one slot do not disturb each
//! other.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::try_join_all;
use tonic::transport::Channel;
use tracing::info;
use weir_common::catalog::{Entry, Plan, Relation, RelationKind, Source, dead_letter_columns};
use weir_common::error::{Kind, chain};
use weir_common::ids::{Epoch, JobSplit, Sequence, SlotId, SplitId, TableId};
use weir_common::key::Division;
use weir_common::rpc;
use weir_common::view::{self, Functions};
use weir_proto::exchange_client::ExchangeClient;
use weir_proto::{MergeRequest, ReplayResponse};
use weir_stream::chunk::Chunk;

use super::serving::Serving;
use crate::control::event::Event;
use crate::control::plan::Route;
use crate::dataflow::changes;
use crate::dataflow::divide::divide;
use crate::dataflow::exchange::Peers;
use crate::dataflow::failed::FailedRows;
use crate::dataflow::leaf::as_column;
use crate::dataflow::letters::{self, RowLetters};
use crate::dataflow::query::{Evaluated, Query};
use crate::ingest::dead_letters::{self, Letters};
use crate::ingest::decode::Decoder;
use crate::storage::entries::Entries;
use crate::storage::state::Snapshot;
use crate::storage::state::keys::BlockKey;
use crate::storage::{block, slot};

/// The replay of one job's dead letters in one slot.
pub(crate) struct Replay {
    serving: Arc<Serving>,
    slot: slot::Handle,
    snapshot: Snapshot,
    relation: Arc<Relation>,
    source: Source,
    letters: TableId,
    /// The views of a source, with their queries.
    views: Vec<(Arc<Relation>, Query, FailedRows)>,
    /// The division of rows over the slots, for a keyed table.
    division: Option<Division>,
    /// The slots that own keys, in the order of their vnodes.
    owners: Vec<Owner>,
    decoders: HashMap<SplitId, Decoder>,
}

/// A slot that owns keys.
enum Owner {
    /// It is on this node.
    Local(SlotId),
    /// It is on another node.
    Remote(SlotId, Channel),
}

/// The result of a block of dead letters.
struct Outcome {
    /// The number of letters that became rows.
    replayed: u64,
    /// The rows, in batches, each with the sequence of its first one.
    rows: Vec<(Sequence, RecordBatch)>,
    /// The remaining letters, with their present reasons.
    letters: RecordBatch,
    /// True if these letters differ from the stored ones.
    changed: bool,
}

impl Replay {
    /// # Errors
    /// If the table keeps no dead letters, no relation would get the rows, or the slot is about to
    /// end.
    pub(crate) async fn prepare(serving: Arc<Serving>, slot: slot::Handle, entry: Entry) -> Result<Replay, rpc::Error> {
        let Entry { relation, job, .. } = entry;
        let (Some(letters), Some(source)) = (job.dead_letters, job.stream().cloned()) else {
            let message = format!("table \"{}\" keeps no dead letters", relation.name);
            return Err(rpc::Error::new(Kind::User, message).with_sqlstate("55000"));
        };
        let views = views(&serving, &relation, &slot).await?;
        let newest = slot.snapshots.borrow().last_key_value().map(|(_, snapshot)| snapshot.clone());
        let snapshot = newest.ok_or_else(slot::ended)?;
        let slots = serving.routes.iter().map(|route| route.vnodes);
        let division = relation.is_keyed().then(|| Division::new(relation.primary_key.clone(), slots));
        let mut peers = Peers::default();
        let owner = |route: &Route| match serving.slots.handles.contains_key(&route.slot) {
            true => Ok(Owner::Local(route.slot)),
            false => peers.channel(&route.address).map(|channel| Owner::Remote(route.slot, channel)),
        };
        let owners = serving.routes.iter().map(owner).collect::<Result<_, _>>();
        let owners = owners.map_err(|error| rpc::Error::new(Kind::Internal, chain(&error)))?;
        Ok(Replay {
            serving,
            slot,
            snapshot,
            relation,
            source,
            letters,
            views,
            division,
            owners,
            decoders: HashMap::new(),
        })
    }

    /// Goes through all dead letters. Rows that it has made stay, however it ends.
    ///
    /// # Errors
    /// If the term ends, or stored data cannot be read.
    pub(crate) async fn run(mut self) -> Result<ReplayResponse, rpc::Error> {
        let (table, first_vnode) = (self.relation.name.clone(), self.slot.vnodes.start);
        info!(%table, first_vnode, "replaying dead letters");
        let mut told = ReplayResponse::default();
        let entries = self.snapshot.scan(self.letters, self.slot.vnodes);
        tokio::pin!(entries);
        while let Some((key, value)) = entries.try_next().await.map_err(|error| self.failed(error.kind(), &error))? {
            let key = BlockKey::decode(&key).map_err(|error| self.failed(error.kind(), &error))?;
            if self.is_of_this_term(&key) {
                continue;
            }
            let Outcome { replayed, rows, letters, changed } = self.decode(&key, &value)?;
            told.replayed += replayed;
            told.remaining += letters.num_rows() as u64;
            if changed {
                self.write(&key, rows, &letters).await?;
            }
        }
        info!(%table, first_vnode, replayed = told.replayed, remaining = told.remaining, "replayed dead letters");
        Ok(told)
    }

    /// Returns true if an actor of this term wrote the block. Everything committed before lies
    /// below the actor's first position.
    fn is_of_this_term(&self, key: &BlockKey) -> bool {
        let actor = JobSplit { job: self.relation.id, split: key.split.clone() };
        self.serving.starts.get(&actor).is_some_and(|start| key.sequence >= *start)
    }

    fn decode(&mut self, key: &BlockKey, value: &Bytes) -> Result<Outcome, rpc::Error> {
        let schema = block::schema(&dead_letter_columns());
        let before = block::decode(value, &schema, None).map_err(|error| self.failed(error.kind(), &error))?;
        if !self.decoders.contains_key(&key.split) {
            let decoder = Decoder::of(&self.relation, &self.source, &key.split.0);
            let decoder = decoder.map_err(|error| self.failed(Kind::Corrupt, &error))?;
            self.decoders.insert(key.split.clone(), decoder);
        }
        let decoder = self.decoders.get_mut(&key.split).expect("just seen to");
        let (mut letters, mut rows, mut replayed, mut first) = (Letters::new(&key.split), Vec::new(), 0, None);
        for message in dead_letters::messages(&before) {
            if let Err(bad) = decoder.append(&message) {
                letters.append(&message, &bad);
                continue;
            }
            replayed += 1;
            first.get_or_insert(Sequence(message.sequence));
            if decoder.len() >= block::ROWS_MAX || decoder.bytes() >= block::BYTES_MAX {
                rows.extend(first.take().map(|first| (first, decoder.finish())));
            }
        }
        rows.extend(first.take().map(|first| (first, decoder.finish())));
        let letters = letters.finish();
        Ok(Outcome { replayed, rows, changed: letters != before, letters })
    }

    async fn write(
        &mut self,
        key: &BlockKey,
        rows: Vec<(Sequence, RecordBatch)>,
        letters: &RecordBatch,
    ) -> Result<(), rpc::Error> {
        let mut stored = self.views.iter().map(|(view, ..)| view.id).chain([self.relation.id]);
        if stored.any(|relation| self.serving.following.is_followed(relation)) {
            return Err(begun_meanwhile(&self.relation));
        }
        let (mut entries, mut not_before) = (Entries::new(), Epoch::default());
        for (sequence, batch) in rows {
            // This key is free: only a row of the same message could have it, and there was none.
            let entry = |relation: &Relation, rows: &RecordBatch| {
                let place = BlockKey { table: relation.id, sequence, ..key.clone() };
                (place.encode(), Some(block::encode(rows, relation.layout())))
            };
            if self.division.is_some() {
                not_before = not_before.max(self.merge(&batch).await?);
            } else if self.relation.kind == RelationKind::Table {
                entries.push(entry(&self.relation, &batch));
            }
            let mut stopped = Vec::new();
            for (view, query, failed_rows) in &mut self.views {
                let Evaluated { rows, failed } = query.evaluate(&batch, &mut query.origin(&key.split));
                if let Err(reason) = failed_rows.note(&failed, |_| query.failing()) {
                    stopped.push((view.id, reason));
                    continue;
                }
                entries.append(&mut failed_rows.take());
                entries.extend(rows.map(|rows| entry(view, &rows)));
            }
            for (view, reason) in stopped {
                self.views.retain(|(other, ..)| other.id != view);
                // The node hears of it before the slot has the rows of the others.
                self.serving.node.send(Event::JobStopped(self.serving.slots.term, view, reason)).await;
            }
        }
        entries.push((key.encode(), Some(block::encode(letters, 0))));
        self.slot.replace(self.relation.id, entries, not_before).await
    }

    /// Sends rows to the owners of their keys. Returns the epoch in which all of them are.
    async fn merge(&self, rows: &RecordBatch) -> Result<Epoch, rpc::Error> {
        let division = self.division.as_ref().expect("only rows of keyed tables are merged");
        let (sequences, columns) = rows.columns().split_last().expect("the column of sequences");
        let sequences: ArrayRef = Arc::new(as_column(sequences));
        let columns = columns.iter().cloned().chain([sequences]);
        let names = (0..).map(|place: u32| place.to_string());
        let rows = RecordBatch::try_from_iter(names.zip(columns)).expect("columns of one length");
        let parts = divide(division, &Chunk::inserts(rows));
        let merged = parts.into_iter().map(|(part, rows)| self.merge_into(&self.owners[part], rows));
        // The rows wait for a barrier.
        self.serving.want_barrier().await;
        Ok(try_join_all(merged).await?.into_iter().fold(Epoch::default(), Epoch::max))
    }

    async fn merge_into(&self, owner: &Owner, rows: Chunk) -> Result<Epoch, rpc::Error> {
        let (table, rows) = (self.relation.id, rows.rows());
        match owner {
            Owner::Local(slot) => self.serving.router.merge(table, *slot, rows.clone()).await,
            Owner::Remote(slot, channel) => {
                let term = Some(self.serving.slots.term.into());
                let rows = changes::encode(rows).expect("a batch in memory can be written").into();
                let request = MergeRequest { term, slot: slot.0, table: table.0, rows };
                let merged = ExchangeClient::new(channel.clone()).merge(request).await?;
                Ok(Epoch(merged.into_inner().epoch))
            }
        }
    }

    fn failed(&self, kind: Kind, error: &(dyn std::error::Error + 'static)) -> rpc::Error {
        rpc::Error::new(kind, format!("dead letters of table \"{}\": {}", self.relation.name, chain(error)))
    }
}

/// The views that get the rows of a source; none for a table.
async fn views(
    serving: &Serving,
    source: &Relation,
    slot: &slot::Handle,
) -> Result<Vec<(Arc<Relation>, Query, FailedRows)>, rpc::Error> {
    let functions: Arc<dyn Functions> = Arc::clone(&serving.compiler) as _;
    let (mut views, catalog) = (Vec::new(), serving.relations.catalog());
    if source.is_keyed() {
        // The actors that store the rows pass them on to the jobs that follow the table.
        return Ok(views);
    }
    let is_kept = |view: &&Entry| view.job.is_running() && !matches!(view.job.plan, Plan::Definition(_));
    for view in catalog.readers(source.id).filter(is_kept) {
        let Plan::View(reads) = &view.job.plan else {
            return Err(not_replayed(source, &view.relation));
        };
        if let Some(above) = catalog.readers(view.id()).find(is_kept) {
            return Err(not_replayed(source, &above.relation));
        }
        let query = Query::of(view, reads, source, serving.compiler.as_ref()).await;
        let query = query.map_err(|error| not_compiled(&view.relation, &error))?;
        let letters = RowLetters::new(view, 0, letters::Place::Slot(slot.vnodes), &functions);
        let failed = FailedRows::new(&serving.usage, (view.id(), view.name()), (view.job.on_error, letters));
        views.push((Arc::clone(&view.relation), query, failed));
    }
    if source.kind == RelationKind::Source && views.is_empty() {
        let message = format!("no materialized view over source \"{}\" is running", source.name);
        let hint = "a source stores no rows: what its dead letters become goes into its views";
        return Err(rpc::Error::new(Kind::User, message).with_sqlstate("55000").with_hint(hint));
    }
    Ok(views)
}

/// A replay writes rows to places that the view has passed.
fn not_replayed(source: &Relation, view: &Relation) -> rpc::Error {
    let message = format!(
        "dead letters of \"{}\" cannot be replayed while materialized view \"{}\" reads its rows",
        source.name, view.name
    );
    rpc::Error::new(Kind::User, message)
        .with_sqlstate("0A000")
        .with_hint("drop the view, and create it again afterwards")
}

/// A view reads what was there when it was created, so nothing may be added to that.
fn begun_meanwhile(source: &Relation) -> rpc::Error {
    let message = format!(
        "dead letters of \"{}\" cannot be replayed: a materialized view that reads its rows is being created",
        source.name
    );
    rpc::Error::new(Kind::User, message)
        .with_sqlstate("0A000")
        .with_hint("drop the view, and create it again afterwards")
}

fn not_compiled(view: &Relation, error: &view::Error) -> rpc::Error {
    rpc::Error::new(Kind::Internal, format!("materialized view \"{}\" cannot be compiled: {error}", view.name))
}

#[cfg(test)]
mod tests;

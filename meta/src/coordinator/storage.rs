//! The coordinator's calls to the metadata store, each guarded by the leader's fence.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::{debug, info};
use weir_common::catalog::{Changed, Entry, Graph, Schema};
use weir_common::error::{Kind, chain};
use weir_common::head::Head;
use weir_common::ids::{Epoch, SchemaId, StatementId, TableId};
use weir_common::rpc;

use super::event::{Durable, Event, Outcome};
use super::positions::{Page, Positions};
use super::statements::REMEMBERED;
use crate::Error;
use crate::keys::Keys;
use crate::store::{self, Compare, MetaStore, Txn};

/// How long after a failed read the next is tried.
const RETRY: Duration = Duration::from_millis(200);

/// The most entries and schemas whose keys a transaction deletes itself, beside what else it does.
const DROPPED_MAX: usize = store::TXN_OPERATIONS_MAX - 4;

/// A transaction that changes the catalog, and keys that mean nothing any more after it.
pub(crate) struct CatalogTxn {
    txn: Txn,
    swept: Vec<String>,
}

impl From<Txn> for CatalogTxn {
    fn from(txn: Txn) -> CatalogTxn {
        CatalogTxn { txn, swept: Vec::new() }
    }
}

/// The metadata store as one reign uses it.
pub(crate) struct Storage {
    pub(crate) store: Arc<dyn MetaStore>,
    pub(crate) keys: Keys,
    /// Holds as long as this process leads.
    pub(crate) fence: Compare,
}

impl Storage {
    /// Reads what is durable; tries until the store answers.
    pub(crate) async fn load(&self) -> Event {
        loop {
            match self.try_load().await {
                Ok(loaded) => return loaded,
                Err(error) => info!(error = chain(&error), "cannot read the committed state, trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn try_load(&self) -> Result<Event, Error> {
        let leader = self.store.get(self.fence.key()).await?;
        let leading = leader.is_some_and(|leader| match &self.fence {
            Compare::CreateRevision(_, revision) => leader.create_revision == *revision,
            Compare::ModRevision(..) | Compare::Absent(_) => false,
        });
        let key = self.keys.head();
        let Some(stored) = self.store.get(&key).await? else {
            return Ok(Event::Loaded { leading, durable: Durable::default() });
        };
        let head: Head = serde_json::from_slice(&stored.value).map_err(|source| Error::Unreadable { key, source })?;
        let mut pages = Vec::new();
        for name in &head.positions {
            let found = self.store.get(&self.keys.at(name)).await?;
            let content = found.ok_or_else(|| Error::MissingPage(name.clone()))?.value.to_vec();
            pages.push(Page { key: name.clone(), content });
        }
        let positions = Positions::from_pages(pages)?;
        Ok(Event::Loaded { leading, durable: Durable { head, revision: stored.mod_revision, positions } })
    }

    /// Reads the head for a statement; none: the store is out of reach, or there is no head.
    pub(crate) async fn read_head(&self) -> Option<Head> {
        match self.store.get(&self.keys.head()).await {
            Ok(stored) => serde_json::from_slice(&stored?.value).ok(),
            Err(error) => {
                debug!(error = chain(&error), "cannot read the head");
                tokio::time::sleep(RETRY).await;
                None
            }
        }
    }

    /// Claims a term: rewrites the head, and marks jobs in the same transaction. `next`, the
    /// next id, is given if jobs are marked: the catalog has a new version then.
    pub(crate) async fn claim(&self, expected: u64, head: &Head, marked: &[Entry], next: Option<TableId>) -> Outcome {
        let mut txn = self.head_txn(expected, head);
        for entry in marked {
            txn = txn.put(self.keys.table(entry.id()), serde_json::to_vec(entry).expect("an entry serialises"));
        }
        if let Some(next) = next {
            txn = txn.put(self.keys.catalog(), next.0.to_string());
        }
        self.outcome(txn).await
    }

    /// Commits an epoch: the pages that the head names first, then the head, with a record of the
    /// statements.
    pub(crate) async fn commit(
        &self,
        expected: u64,
        head: &Head,
        pages: &[Page],
        statements: &[StatementId],
    ) -> Outcome {
        for page in pages {
            let put = Txn::new().when(self.fence.clone()).put(self.keys.at(&page.key), page.content.clone());
            match self.outcome(put).await {
                Outcome::Applied(_) => {}
                refused_or_unknown => return refused_or_unknown,
            }
        }
        let mut txn = self.head_txn(expected, head);
        if !statements.is_empty() {
            let at_ms = now_ms();
            let record = Record { ids: statements.iter().map(|id| id.0).collect(), at_ms };
            let record = serde_json::to_vec(&record).expect("a record serialises");
            txn = txn.put(self.keys.at(&Keys::statements_of(head.epoch)), record);
        }
        self.outcome(txn).await
    }

    /// The epoch whose commit made a statement durable. Its term has ended, and a newer one is
    /// claimed.
    ///
    /// # Errors
    /// If it was not committed; or if the store is out of reach, and nobody can tell.
    pub(crate) async fn recall(&self, id: StatementId) -> Result<Epoch, rpc::Error> {
        let records = self.records().await;
        let records = records.map_err(|error| rpc::Error::new(Kind::Unavailable, chain(&error)).with_outcome_unknown());
        let found = records?.into_iter().find(|(_, record)| record.ids.contains(&id.0));
        found.map(|(epoch, _)| epoch).ok_or_else(|| {
            rpc::Error::new(Kind::User, "the cluster changed before the statement was committed")
                .with_sqlstate("40001")
                .with_hint("run the statement again: nothing of it is stored")
        })
    }

    async fn records(&self) -> Result<Vec<(Epoch, Record)>, Error> {
        let stored = self.store.list(&self.keys.statements()).await?;
        let record = |stored: store::KeyValue| {
            let epoch = stored.key.rsplit('/').next().and_then(|epoch| epoch.parse().ok()).map(Epoch);
            let record = serde_json::from_slice(&stored.value);
            Ok((epoch.unwrap_or_default(), record.map_err(|source| Error::Unreadable { key: stored.key, source })?))
        };
        stored.into_iter().map(record).collect()
    }

    fn head_txn(&self, expected: u64, head: &Head) -> Txn {
        let key = self.keys.head();
        let unchanged = match expected {
            0 => Compare::Absent(key.clone()),
            revision => Compare::ModRevision(key.clone(), revision),
        };
        let value = serde_json::to_vec(head).expect("a head serialises");
        Txn::new().when(self.fence.clone()).when(unchanged).put(key, value)
    }

    async fn outcome(&self, txn: Txn) -> Outcome {
        match self.store.txn(txn).await {
            Ok(outcome) if outcome.succeeded => Outcome::Applied(outcome.revision),
            Ok(_) => Outcome::Refused,
            Err(error) => {
                info!(error = chain(&error), "metadata transaction failed");
                Outcome::Unknown
            }
        }
    }

    /// Deletes pages that no head names any more. What fails here is found again by the next reign.
    pub(crate) async fn forget(&self, pages: Vec<String>) {
        let keys = pages.iter().map(|page| self.keys.at(page)).collect();
        if let Err(error) = self.delete(keys).await {
            debug!(error = chain(&error), "cannot delete old position pages");
        }
    }

    /// Deletes keys, as many at once as a transaction holds.
    async fn delete(&self, keys: Vec<String>) -> Result<(), store::Error> {
        for batch in keys.chunks(store::TXN_OPERATIONS_MAX - 1) {
            let txn = batch.iter().fold(Txn::new().when(self.fence.clone()), |txn, key| txn.delete(key.clone()));
            self.store.txn(txn).await?;
        }
        Ok(())
    }

    /// Adds an entry to the catalog.
    pub(crate) fn create_txn(&self, entry: &Entry, next: TableId) -> Txn {
        let value = serde_json::to_vec(entry).expect("an entry serialises");
        let key = self.keys.table(entry.id());
        self.catalog_txn(next).when(Compare::Absent(key.clone())).put(key, value)
    }

    /// Replaces entries of the catalog.
    pub(crate) fn alter_txn(&self, entries: &[Entry], next: TableId) -> Txn {
        entries.iter().fold(self.catalog_txn(next), |txn, entry| {
            txn.put(self.keys.table(entry.id()), serde_json::to_vec(entry).expect("an entry serialises"))
        })
    }

    /// Stores what a change adds or replaces.
    pub(crate) fn change_txn(&self, changed: &Changed, next: TableId) -> Txn {
        changed.schema.iter().fold(self.alter_txn(&changed.entries, next), |txn, schema| {
            txn.put(self.keys.schema(schema.id), serde_json::to_vec(schema).expect("a schema serialises"))
        })
    }

    /// Removes entries and schemas from the catalog. If they are more than a transaction holds, it
    /// writes a record that names them, and their keys are deleted by [`Storage::store_ddl`].
    pub(crate) fn drop_txn(&self, entries: &[TableId], schemas: &[SchemaId], next: TableId) -> CatalogTxn {
        let txn = self.catalog_txn(next);
        let keys = || {
            let schemas = schemas.iter().map(|id| self.keys.schema(*id));
            entries.iter().map(|id| self.keys.table(*id)).chain(schemas)
        };
        match entries.len() + schemas.len() <= DROPPED_MAX {
            true => keys().fold(txn, Txn::delete).into(),
            false => {
                let ids: Vec<u32> = entries.iter().map(|id| id.0).chain(schemas.iter().map(|id| id.0)).collect();
                let record = serde_json::to_vec(&ids).expect("ids serialise");
                CatalogTxn { txn: txn.put(self.keys.dropped(), record), swept: keys().collect() }
            }
        }
    }

    fn catalog_txn(&self, next: TableId) -> Txn {
        Txn::new().when(self.fence.clone()).put(self.keys.catalog(), next.0.to_string())
    }

    /// Carries a DDL transaction out and returns the catalog's new version.
    pub(crate) async fn store_ddl(&self, CatalogTxn { txn, swept }: CatalogTxn) -> Result<u64, store::Error> {
        let outcome = self.store.txn(txn).await?;
        if !outcome.succeeded {
            return Err(store::Error::UnknownOutcome { source: "leadership was lost".into() });
        }
        // If this fails, the next reign does it, before another record can take this one's place.
        self.delete(swept).await?;
        Ok(outcome.revision)
    }

    /// Reads the catalog: its version, the next id, the entries and schemas.
    pub(crate) async fn catalog(&self) -> Result<(u64, TableId, Graph), Error> {
        let key = self.keys.catalog();
        let stored = self.store.get(&key).await?;
        let (version, next) = match stored {
            Some(stored) => {
                let next = serde_json::from_slice(&stored.value).map_err(|source| Error::Unreadable { key, source })?;
                (stored.mod_revision, TableId(next))
            }
            None => (0, TableId(1)),
        };
        let entries: Vec<Entry> = self.listed(&self.keys.tables()).await?;
        let schemas: Vec<Schema> = self.listed(&self.keys.schemas()).await?;
        let dropped = self.swept().await?;
        let schemas = schemas.into_iter().filter(|schema| !dropped.contains(&schema.id.0));
        let entries = entries.into_iter().filter(|entry| !dropped.contains(&entry.id().0));
        Ok((version, next, Graph::new(schemas, entries)))
    }

    /// Reads the values of all keys that begin so.
    async fn listed<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, Error> {
        let read = |stored: store::KeyValue| {
            serde_json::from_slice(&stored.value).map_err(|source| Error::Unreadable { key: stored.key, source })
        };
        self.store.list(prefix).await?.into_iter().map(read).collect()
    }

    /// Deletes the keys of entries and schemas that were dropped by a record, and returns their
    /// ids, which come from one counter.
    async fn swept(&self) -> Result<Vec<u32>, Error> {
        let key = self.keys.dropped();
        let Some(stored) = self.store.get(&key).await? else { return Ok(Vec::new()) };
        let ids: Vec<u32> =
            serde_json::from_slice(&stored.value).map_err(|source| Error::Unreadable { key, source })?;
        let keys = ids.iter().flat_map(|id| [self.keys.table(TableId(*id)), self.keys.schema(SchemaId(*id))]);
        self.delete(keys.collect()).await?;
        Ok(ids)
    }

    /// The cluster's id, made of `new` if it has none yet. It is part of every path: so whoever
    /// else has the cluster's name and state URL, but other metadata, has other paths, and neither
    /// deletes what the other has.
    pub(crate) async fn cluster_id(&self, new: u32) -> Result<String, Error> {
        let key = self.keys.id();
        let absent = Compare::Absent(key.clone());
        let create = Txn::new().when(self.fence.clone()).when(absent).put(key.clone(), format!("{new:08x}"));
        self.store.txn(create).await?;
        match self.store.get(&key).await? {
            Some(stored) => Ok(String::from_utf8_lossy(&stored.value).into_owned()),
            None => Err(store::Error::UnknownOutcome { source: "leadership was lost".into() }.into()),
        }
    }

    /// Deletes the position pages that the head does not name, and old records of statements: what
    /// crashes left behind.
    pub(crate) async fn forget_orphans(&self) -> Result<(), Error> {
        let named: Vec<String> = match self.store.get(&self.keys.head()).await? {
            Some(stored) => {
                let key = self.keys.head();
                let head: Head =
                    serde_json::from_slice(&stored.value).map_err(|source| Error::Unreadable { key, source })?;
                head.positions.iter().map(|name| self.keys.at(name)).collect()
            }
            None => Vec::new(),
        };
        let stored = self.store.list(&self.keys.positions()).await?;
        let orphans = stored.into_iter().map(|stored| stored.key).filter(|key| !named.contains(key));
        let oldest = now_ms().saturating_sub(u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX));
        let records = self.records().await?.into_iter().filter(|(_, record)| record.at_ms < oldest);
        let records = records.map(|(epoch, _)| self.keys.at(&Keys::statements_of(epoch)));
        self.delete(orphans.chain(records).collect()).await?;
        Ok(())
    }
}

/// The statements that a commit made durable.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    ids: Vec<u64>,
    /// When, in milliseconds since 1970.
    at_ms: u64,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use weir_common::catalog::{Change, Declaration, Definition, OnError, Plan, RelationKind, RelationName};

    use super::*;
    use crate::store::embedded::EmbeddedStore;

    /// More than a transaction has operations.
    const MANY: u32 = 150;

    fn view(id: u32) -> Entry {
        let declared = Declaration {
            kind: RelationKind::View,
            name: RelationName::public(format!("v{id}")),
            columns: Vec::new(),
            hidden: Vec::new(),
            primary_key: Vec::new(),
            plan: Plan::Definition(Definition { names: Vec::new() }),
            on_error: OnError::default(),
            sql: String::new(),
        };
        Entry::new(TableId(id), declared, Vec::new(), None)
    }

    #[tokio::test]
    async fn however_many_entries_are_dropped_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let storage = storage(&directory).await;
        let next = TableId(MANY + 2);
        let schema = Schema { id: SchemaId(MANY + 1), ..Schema::public() };
        let stored = Changed { entries: Vec::new(), schema: Some(schema.clone()) };
        storage.store_ddl(storage.change_txn(&stored, next).into()).await.expect("it is stored");
        for id in 1..=MANY {
            storage.store_ddl(storage.create_txn(&view(id), next).into()).await.expect("it is stored");
        }
        let ids = |ids: std::ops::RangeInclusive<u32>| ids.map(TableId).collect::<Vec<_>>();
        storage.store_ddl(storage.drop_txn(&ids(1..=3), &[], next)).await.expect("it is stored");
        let left = async || {
            let (_, _, catalog) = storage.catalog().await.expect("it is readable");
            catalog.entries().map(|entry| entry.id().0).collect::<Vec<_>>()
        };
        assert_eq!(left().await, (4..=MANY).collect::<Vec<_>>());
        // The leader dies before it has deleted what the record names.
        let CatalogTxn { txn, swept } = storage.drop_txn(&ids(4..=MANY - 1), &[schema.id], next);
        assert_eq!(swept.len(), MANY as usize - 3);
        storage.store_ddl(txn.into()).await.expect("it is stored");
        assert_eq!(left().await, [MANY]);
        let stored = storage.store.list(&storage.keys.tables()).await.expect("it is readable");
        assert_eq!(stored.len(), 1, "the next leader deletes them");
        let stored = storage.store.list(&storage.keys.schemas()).await.expect("it is readable");
        assert_eq!(stored.len(), 0, "the next leader deletes it");
    }

    #[tokio::test]
    async fn a_renamed_schema_is_stored_without_its_entries() {
        let directory = tempfile::tempdir().expect("a directory");
        let (storage, mut catalog) = (storage(&directory).await, Graph::default());
        let mut change = async |change: Change, next: u32| {
            let changed = catalog.changed(&change, SchemaId(next - 1)).expect("it can be made");
            let entries = changed.entries.len();
            storage.store_ddl(storage.change_txn(&changed, TableId(next)).into()).await.expect("it is stored");
            catalog.apply(changed);
            if let (Change::CreateSchema { .. }, Some(schema)) = (&change, catalog.schema_named("s")) {
                let entry = view(2).in_schema(schema);
                storage.store_ddl(storage.create_txn(&entry, TableId(3)).into()).await.expect("it is stored");
                catalog.insert(entry);
            }
            entries
        };
        assert_eq!(change(Change::CreateSchema { name: "s".to_owned() }, 2).await, 0);
        assert_eq!(change(Change::RenameSchema { schema: SchemaId(1), to: "t".to_owned() }, 3).await, 0);
        let (_, next, loaded) = storage.catalog().await.expect("it is readable");
        assert_eq!((next, &loaded), (TableId(3), &catalog));
        assert_eq!(loaded.named(&RelationName::new("t", "v2")).map(Entry::id), Some(TableId(2)));
    }

    async fn storage(directory: &tempfile::TempDir) -> Storage {
        let store = EmbeddedStore::open(directory.path().join("meta")).await.expect("it opens");
        let fence = Compare::Absent("somebody else leads".to_owned());
        Storage { store: Arc::new(store), keys: Keys::new("c"), fence }
    }
}

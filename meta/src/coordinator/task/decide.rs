//! Decides DDL statements by the catalog as it is: what they change, and the transaction that stores
//! it.

use weir_common::catalog::{Change, Changed, Column, Declaration, Entry, OnError, RelationKind};
use weir_common::error::Kind;
use weir_common::ids::{SchemaId, TableId};
use weir_common::rpc;

use super::{Begin, Dropped, Task};
use crate::coordinator::bounds;
use crate::coordinator::ddl::{self, Decided, Dropping, no_table};

impl Task {
    pub(super) fn create(
        &mut self,
        declared: Declaration,
        Begin { splits, consumes, backfill_rate, consumers }: Begin,
        if_not_exists: bool,
    ) -> Result<Decided<Entry, (TableId, bool)>, rpc::Error> {
        let catalog = self.core.catalog();
        let schema =
            catalog.schema_named(&declared.name.schema).ok_or_else(|| ddl::no_schema(&declared.name.schema))?;
        if let Some(existing) = catalog.named(&declared.name) {
            return if if_not_exists {
                Ok(Decided::Nothing((existing.id(), false)))
            } else {
                let message = format!("relation \"{}\" already exists", declared.name);
                Err(rpc::Error::new(Kind::User, message).with_sqlstate("42P07"))
            };
        }
        ddl::check_inputs(catalog, &declared)?;
        let id = self.next_id;
        let keeps_dead_letters = match declared.kind {
            RelationKind::Table => declared.plan.stream().is_some(),
            RelationKind::Source => consumes,
            RelationKind::MaterializedView => declared.on_error == OnError::DeadLetter,
            RelationKind::View => false,
        };
        let dead_letters = keeps_dead_letters.then(|| TableId(id.0 + 1));
        let entry = Entry::new(id, declared, splits, dead_letters).in_schema(schema).with_backfill_rate(backfill_rate);
        let entry = match consumers {
            Some(consumers) => entry.with_consumers(&consumers),
            None => entry,
        };
        bounds::check(&entry, catalog.entries())?;
        self.next_id = TableId(dead_letters.unwrap_or(id).0 + 1);
        let txn = self.storage.create_txn(&entry, self.next_id);
        Ok(Decided::Store(entry, txn.into()))
    }

    pub(super) fn alter(&mut self, declared: Declaration) -> Result<Decided<Entry, ()>, rpc::Error> {
        let Some(before) = self.core.catalog().named(&declared.name) else { return Err(no_table(&declared.name)) };
        for view in self.core.catalog().dependents(before.id()) {
            let reads = view.job.plan.depends().iter().filter(|reads| reads.relation == before.id());
            let mut columns = reads.flat_map(|reads| &reads.columns);
            let is_kept = |column: &Column| declared.columns.iter().chain(&declared.hidden).any(|kept| kept == column);
            if let Some(changed) = columns.find(|column| !is_kept(column)) {
                let (kind, view) = (view.relation.kind.as_str(), view.name());
                let message = format!("column \"{}\" cannot change: {kind} \"{view}\" reads it", changed.name);
                let hint = "drop the view, and create it again afterwards";
                return Err(rpc::Error::new(Kind::User, message).with_sqlstate("0A000").with_hint(hint));
            }
        }
        let entry = before.altered(declared);
        bounds::check(&entry, self.core.catalog().entries().filter(|other| other.id() != entry.id()))?;
        let txn = self.storage.alter_txn(std::slice::from_ref(&entry), self.next_id);
        Ok(Decided::Store(entry, txn.into()))
    }

    /// Drops what a statement names, unless a schema has entries now that it does not know of.
    pub(super) fn drop(&mut self, dropping: &Dropping) -> Result<Decided<Dropped, Option<Vec<Entry>>>, rpc::Error> {
        let catalog = self.core.catalog();
        let in_schemas = dropping.schemas.iter().flat_map(|schema| catalog.of_schema(*schema));
        if in_schemas.into_iter().any(|entry| !dropping.known.contains(&entry.id())) {
            return Ok(Decided::Nothing(None));
        }
        let entries: Vec<Entry> = ddl::dropped(catalog, dropping)?.into_iter().cloned().collect();
        let ids: Vec<TableId> = entries.iter().map(Entry::id).collect();
        let txn = self.storage.drop_txn(&ids, &dropping.schemas, self.next_id);
        Ok(Decided::Store(Dropped { entries, schemas: dropping.schemas.clone() }, txn))
    }

    pub(super) fn change(&mut self, change: &Change) -> Result<Decided<Changed, ()>, rpc::Error> {
        let catalog = self.core.catalog();
        let changed = ddl::changed(catalog, change, SchemaId(self.next_id.0))?;
        if changed.is_empty() {
            return Ok(Decided::Nothing(()));
        }
        for entry in &changed.entries {
            bounds::check(entry, catalog.entries().filter(|other| other.id() != entry.id()))?;
        }
        if let Some(schema) = &changed.schema {
            bounds::check_schema(schema, catalog.schemas().filter(|other| other.id != schema.id).count())?;
            // A new one takes the next id.
            self.next_id = self.next_id.max(TableId(schema.id.0 + 1));
        }
        let txn = self.storage.change_txn(&changed, self.next_id);
        Ok(Decided::Store(changed, txn.into()))
    }
}

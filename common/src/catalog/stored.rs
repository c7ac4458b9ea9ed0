//! The form in which the metadata store holds a catalog entry, and in which it travels.

use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{About, Column, Declaration, Entry, Job, JobState, Plan, Relation, SplitStart, Unknown};
use crate::ids::TableId;

/// An [`Entry`] as one flat document.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) id: TableId,
    #[serde(flatten)]
    pub(super) declared: Declaration,
    pub(super) splits: Vec<SplitStart>,
    pub(super) state: JobState,
    #[serde(default)]
    pub(super) dead_letters: Option<TableId>,
    #[serde(default)]
    pub(super) layouts: Vec<Vec<Column>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) backfill_rate: Option<u32>,
    #[serde(flatten)]
    pub(super) about: About,
}

impl From<Stored> for Entry {
    fn from(stored: Stored) -> Entry {
        let Stored { id, declared, splits, state, dead_letters, layouts, backfill_rate, about } = stored;
        let Declaration { kind, name, columns, hidden, primary_key, plan, on_error, sql } = declared;
        Entry {
            relation: Arc::new(Relation { id, kind, name, columns, hidden, primary_key, layouts, sql }),
            job: Arc::new(Job { id, plan, splits, state, on_error, dead_letters, backfill_rate }),
            about: Arc::new(about),
        }
    }
}

impl From<Entry> for Stored {
    fn from(entry: Entry) -> Stored {
        let Relation { id, kind, name, columns, hidden, primary_key, layouts, sql } =
            Arc::unwrap_or_clone(entry.relation);
        let Job { id: _, plan, splits, state, on_error, dead_letters, backfill_rate } = Arc::unwrap_or_clone(entry.job);
        let declared = Declaration { kind, name, columns, hidden, primary_key, plan, on_error, sql };
        let about = Arc::unwrap_or_clone(entry.about);
        Stored { id, declared, splits, state, dead_letters, layouts, backfill_rate, about }
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.job.plan {
            Plan::Unknown(unknown) => unknown.document(self).map_err(S::Error::custom)?.serialize(serializer),
            _ => Stored::from(self.clone()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        let stored = Box::<RawValue>::deserialize(deserializer)?;
        let entry = match serde_json::from_str::<Stored>(stored.get()) {
            Ok(stored) => Ok(stored.into()),
            Err(error) => Unknown::entry(stored.get(), error),
        };
        entry.map_err(D::Error::custom)
    }
}

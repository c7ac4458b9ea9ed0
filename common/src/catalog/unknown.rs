//! Entries that this version cannot read whole, because a newer one wrote them.
//!
//! Such an entry stays in the catalog with what can be told of it: its id, its name, its kind and
//! what it depends on. Its job does not run. The document is kept as it is, so the version that
//! wrote it finds everything again.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::stored::Stored;
use super::{
    About, Column, Declaration, Entry, JobState, OnError, Plan, Query, Reads, RelationKind, RelationName, SplitStart,
};
use crate::ids::TableId;

/// The plan of an entry that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The relations that the entry depends on, without columns.
    pub reads: Vec<Reads>,
    /// The part that this version does not know, for people.
    pub reason: String,
    /// The stored document.
    document: Map<String, Value>,
}

/// The fields of a document whose meaning does not depend on the plan.
#[derive(Deserialize)]
struct Legible {
    id: TableId,
    #[serde(flatten)]
    name: RelationName,
    #[serde(default)]
    sql: String,
    #[serde(default)]
    splits: Vec<SplitStart>,
    #[serde(default)]
    dead_letters: Option<TableId>,
    #[serde(flatten)]
    about: About,
}

/// A relation that an entry depends on, whatever else is said of it.
#[derive(Deserialize)]
struct Input {
    relation: TableId,
    #[serde(flatten)]
    name: RelationName,
}

/// The columns of a relation.
#[derive(Default, Deserialize)]
struct Columns {
    columns: Vec<Column>,
    #[serde(default)]
    hidden: Vec<Column>,
    #[serde(default)]
    primary_key: Vec<usize>,
    #[serde(default)]
    layouts: Vec<Vec<Column>>,
}

impl Unknown {
    /// Reads what can be read of a stored document. `error`: why it cannot be read whole.
    ///
    /// # Errors
    /// `error`, if it is no document of a catalog entry at all.
    pub(super) fn entry(stored: &str, error: serde_json::Error) -> Result<Entry, serde_json::Error> {
        let Ok(Value::Object(document)) = serde_json::from_str(stored) else { return Err(error) };
        let Ok(legible) = Legible::deserialize(&document) else { return Err(error) };
        let Legible { id, name, sql, splits, dead_letters, about } = legible;
        let field = |name: &str| document.get(name).unwrap_or(&Value::Null);
        let plan = field("source");
        // The reader of all plans does not say what is wrong with the one that it tried last.
        let error = match plan.get("plan") {
            Some(_) => Query::deserialize(plan).err().unwrap_or(error),
            None => error,
        };
        let unknown = Unknown { reads: reads(plan), reason: reason(&error), document: document.clone() };
        let Columns { columns, hidden, primary_key, layouts } = Columns::deserialize(&document).unwrap_or_default();
        let kind = RelationKind::deserialize(field("kind")).unwrap_or(RelationKind::MaterializedView);
        let state = JobState::deserialize(field("state")).unwrap_or(JobState::Running);
        let plan = Plan::Unknown(unknown);
        let on_error = OnError::default();
        let declared = Declaration { kind, name, columns, hidden, primary_key, plan, sql, on_error };
        Ok(Stored { id, declared, splits, state, dead_letters, layouts, backfill_rate: None, about }.into())
    }

    /// The document with what may have changed of its entry: its name, its state and its comments.
    pub(super) fn document(&self, entry: &Entry) -> Result<Value, serde_json::Error> {
        let mut document = self.document.clone();
        let legible = Legible::deserialize(&document)?;
        // Fields that an entry has only sometimes are absent otherwise.
        for before in [serde_json::to_value(&legible.about)?, serde_json::to_value(&legible.name)?] {
            document.retain(|name, _| before.get(name).is_none());
        }
        let state = serde_json::json!({ "state": entry.job.state });
        for now in [serde_json::to_value(&entry.about)?, serde_json::to_value(entry.name())?, state] {
            let Value::Object(now) = now else { unreachable!("a struct is an object") };
            document.extend(now);
        }
        Ok(Value::Object(document))
    }
}

/// The relations that a plan names, whatever else it says.
fn reads(plan: &Value) -> Vec<Reads> {
    let lists = ["reads", "names", "through"].into_iter().filter_map(|list| plan.get(list));
    let expanded = plan.get("expanded").and_then(|expanded| expanded.get("through"));
    let named = lists.chain(expanded).filter_map(Value::as_array).flatten().chain([plan]);
    let named = named.filter_map(|named| Input::deserialize(named).ok());
    named.map(|Input { relation, name }| Reads { relation, name, columns: Vec::new(), expanded: None }).collect()
}

/// The part that is unknown, without the list of all that is known.
fn reason(error: &serde_json::Error) -> String {
    let error = error.to_string();
    error.split_once(", expected").map_or(error.as_str(), |(unknown, _)| unknown).to_owned()
}

//! The catalog: relations that users name and read, and the jobs that fill them.
//!
//! * `schema`: schemas, and the names of relations in them;
//! * `declaration`: what a statement declares, before it has an id and start positions;
//! * `relation`: names, columns and layouts: what statements and scans need;
//! * `job`: plan, splits and state: what meta places and compute nodes run;
//! * `keyed`: the plan of a table that stores messages by key;
//! * `about`: an entry's comments, and by which name its consumers are known;
//! * `graph`: all entries, and which depends on which;
//! * `unknown`: entries that a newer version wrote;
//! * `change`: changes of names, comments and plain views, which leave alone what runs.
//!
//! An [`Entry`] holds a relation and its job. Serialised as JSON, entries are stored in the
//! metadata store and travel between nodes. The stored form is flat and older than the division
//! into relation and job: `stored` converts it, and a field added later needs a default.

mod about;
mod change;
mod declaration;
mod graph;
mod job;
mod keyed;
mod relation;
mod schema;
mod stored;
mod unknown;

use std::sync::Arc;

pub use about::About;
pub use change::{Change, Changed, Refused};
pub use declaration::{Declaration, Impossible, OnError};
pub use graph::Graph;
pub use job::{Definition, Encode, Expanded, Job, JobState, Named, Plan, Query, Reads, Source, SplitStart};
pub use relation::{Column, Constraints, Origin, Relation, RelationKind, dead_letter_columns, schema};
use relation::{failed_row_columns, letter_key};
pub use schema::{PUBLIC, RelationName, SYSTEM_SCHEMAS, Schema};

use crate::ids::TableId;
use stored::Stored;
pub use unknown::Unknown;

/// An entry of the catalog: a relation and the job that fills it. Cheap to clone.
///
/// A source has a job too: it has splits, and may fail, but stores no rows of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The relation that users name and read.
    pub relation: Arc<Relation>,
    /// The job that fills it.
    pub job: Arc<Job>,
    /// Its comments, and the name of its consumers.
    pub about: Arc<About>,
}

impl Entry {
    /// Creates the entry of a new relation, whose job runs. The job keeps dead letters if it is
    /// given an id for them.
    pub fn new(id: TableId, declared: Declaration, splits: Vec<SplitStart>, dead_letters: Option<TableId>) -> Entry {
        let (layouts, state, backfill_rate) = (Vec::new(), JobState::Running, None);
        Stored { id, declared, splits, state, dead_letters, layouts, backfill_rate, about: About::default() }.into()
    }

    /// The entry in a schema.
    #[must_use]
    pub fn in_schema(&self, schema: &Schema) -> Entry {
        if self.about.schema == schema.id && self.relation.name.schema == schema.name {
            return self.clone();
        }
        let name = RelationName::new(&schema.name, &self.relation.name.name);
        Entry {
            relation: Arc::new(Relation { name, ..Relation::clone(&self.relation) }),
            about: Arc::new(About { schema: schema.id, ..About::clone(&self.about) }),
            ..self.clone()
        }
    }

    /// The entry with its consumers known by a name, which is stored unless it is the relation's
    /// own in the schema `public`.
    #[must_use]
    pub fn with_consumers(&self, consumers: &str) -> Entry {
        let is_own = self.about.schema.is_public() && consumers == self.relation.name.name;
        let consumers = (!is_own).then(|| consumers.to_owned());
        Entry { about: Arc::new(About { consumers, ..About::clone(&self.about) }), ..self.clone() }
    }

    /// The name by which its consumers on NATS servers are known: the one that it was created with.
    pub fn consumers(&self) -> &str {
        self.about.consumers.as_deref().unwrap_or(&self.relation.name.name)
    }

    /// Returns true if a job fills it.
    pub fn has_job(&self) -> bool {
        self.relation.kind != RelationKind::View
    }

    /// The relations that it cannot exist without: those that it reads, and those that its
    /// statement names. May contain a relation more than once.
    pub fn depends_on(&self) -> impl Iterator<Item = TableId> + '_ {
        let read = self.job.plan.depends().iter().map(|reads| reads.relation);
        read.chain(self.job.plan.through().iter().map(|named| named.relation))
    }

    /// The id of the relation and of the job.
    pub fn id(&self) -> TableId {
        self.relation.id
    }

    /// The name of the relation.
    pub fn name(&self) -> &RelationName {
        &self.relation.name
    }

    /// The declaration, for statements that change it.
    pub fn declaration(&self) -> Declaration {
        Stored::from(self.clone()).declared
    }

    /// The entry as an ALTER statement leaves it. Its job runs again if it had failed. Data that is
    /// already stored keeps the layout of the earlier columns.
    #[must_use]
    pub fn altered(&self, declared: Declaration) -> Entry {
        let mut stored = Stored::from(self.clone());
        if declared.columns != stored.declared.columns {
            stored.layouts.push(stored.declared.columns);
        }
        Stored { declared, state: JobState::Running, ..stored }.into()
    }

    /// The entry with its job in another state.
    #[must_use]
    pub fn with_state(&self, state: JobState) -> Entry {
        Entry { job: Arc::new(Job { state, ..Job::clone(&self.job) }), ..self.clone() }
    }

    /// The entry with a job that reads so many rows a second at most of those that its inputs had
    /// before it.
    #[must_use]
    pub fn with_backfill_rate(&self, backfill_rate: Option<u32>) -> Entry {
        Entry { job: Arc::new(Job { backfill_rate, ..Job::clone(&self.job) }), ..self.clone() }
    }

    /// Returns true for a source over a stream that loses acknowledged messages. Its rows are
    /// stored only in its views, and its bad records only in its dead letters.
    pub fn is_consumed(&self) -> bool {
        self.relation.kind == RelationKind::Source && self.job.dead_letters.is_some()
    }

    /// The relation of its dead letters, if its job stores any: a row for each message that cannot
    /// be decoded into a row or, if it fills a view, for each row for which an expression fails.
    /// The same actors write it. The letters of a view have a hidden key, by which they go when
    /// their rows do.
    pub fn dead_letters(&self) -> Option<Relation> {
        let id = self.job.dead_letters?;
        let (columns, hidden) = match self.relation.kind {
            RelationKind::MaterializedView => (failed_row_columns(), vec![letter_key()]),
            _ => (dead_letter_columns(), Vec::new()),
        };
        Some(Relation {
            id,
            kind: RelationKind::Table,
            name: self.relation.name.clone(),
            primary_key: hidden.iter().map(|_| columns.len()).collect(),
            columns,
            hidden,
            layouts: Vec::new(),
            sql: String::new(),
        })
    }
}

#[cfg(test)]
mod tests;

//! Jobs: what meta places and compute nodes run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Column, OnError, Relation, RelationKind, RelationName, Unknown};
use crate::ids::{JobSplit, Sequence, SplitId, TableId};
use crate::plan::{JobPlan, StreamColumn};
use crate::position::{Anchor, Position};
use crate::protobuf::MessageSchema;
use crate::types::SqlType;
use crate::view;

/// The job that fills a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id, that of the relation that it fills.
    pub id: TableId,
    /// The origin of the rows.
    pub plan: Plan,
    /// Its splits with the positions at which they start, resolved when the relation was created. A
    /// view's are those of its sources.
    pub splits: Vec<SplitStart>,
    /// Running or failed.
    pub state: JobState,
    /// The treatment of rows for which an expression fails, if it fills a view.
    pub on_error: OnError,
    /// The id under which its dead letters are stored. Tables that are older than dead letters have
    /// none. Nor have most sources: their dead letters are looked for in the stream, unless that
    /// loses acknowledged messages. Nor have views that keep none.
    pub dead_letters: Option<TableId>,
    /// The rows a second that it reads at most of the rows that its inputs had before it.
    pub backfill_rate: Option<u32>,
}

impl Job {
    /// The stream that it reads. A view's job reads none of its own.
    pub fn stream(&self) -> Option<&Source> {
        self.plan.stream()
    }

    /// The columns that it reads of other relations, if it fills a view.
    pub fn reads(&self) -> &[Reads] {
        self.plan.reads()
    }

    /// The relations that it reads.
    pub fn inputs(&self) -> impl Iterator<Item = TableId> {
        self.reads().iter().map(|reads| reads.relation)
    }

    /// The split that is read for one of its own: a view's are those of its sources.
    pub fn read(&self, split: &SplitId) -> JobSplit {
        // Only splits of several sources have names of their own.
        let splits = if self.reads().len() > 1 { self.splits.as_slice() } else { &[] };
        let named = splits.iter().find(|start| start.split == *split).and_then(|start| start.reads.clone());
        let reader = || JobSplit { job: self.inputs().next().unwrap_or(self.id), split: split.clone() };
        named.unwrap_or_else(reader)
    }

    /// Returns true if it runs, provided that the jobs below it do.
    pub fn is_running(&self) -> bool {
        self.state == JobState::Running && !matches!(self.plan, Plan::Unknown(_))
    }

    /// The ids under which it stores something.
    pub fn stores(&self) -> impl Iterator<Item = TableId> + use<> {
        std::iter::once(self.id).chain(self.dead_letters)
    }
}

/// The origin of a job's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Plan {
    /// It decodes the messages of a stream: the job of a table or a source.
    Stream(Source),
    /// It evaluates the relation's statement over rows of a source, each alone: the job of a view
    /// that selects, filters and computes.
    View(Reads),
    /// It keeps the answer of a query up to date by a plan: the job of any other view.
    Query(Query),
    /// There is no job: statements that name the relation, a plain view, are planned with its query
    /// in its place.
    Definition(Definition),
    /// A newer version of Weir made it, and this one cannot read it.
    #[serde(skip)]
    Unknown(Unknown),
}

impl Plan {
    /// The stream that is read, unless it is a view's.
    pub fn stream(&self) -> Option<&Source> {
        match self {
            Plan::Stream(source) => Some(source),
            Plan::View(_) | Plan::Query(_) | Plan::Definition(_) | Plan::Unknown(_) => None,
        }
    }

    /// The columns that a job reads of other relations, if it fills a materialized view.
    pub fn reads(&self) -> &[Reads] {
        match self {
            Plan::Stream(_) | Plan::Definition(_) => &[],
            Plan::View(reads) => std::slice::from_ref(reads),
            Plan::Query(query) => &query.reads,
            Plan::Unknown(unknown) => &unknown.reads,
        }
    }

    /// The relations that the statement depends on, with the columns that cannot change as long as
    /// it is there: those that its job reads, or those that a plain view names.
    pub fn depends(&self) -> &[Reads] {
        match self {
            Plan::Definition(definition) => &definition.names,
            _ => self.reads(),
        }
    }

    /// The plain views that the statement of a materialized view names.
    pub fn through(&self) -> &[Named] {
        match self {
            Plan::Stream(_) | Plan::Definition(_) | Plan::Unknown(_) => &[],
            Plan::View(reads) => reads.expanded.as_ref().map_or(&[], |expanded| &expanded.through),
            Plan::Query(query) => &query.through,
        }
    }
}

/// The relations that the query of a plain view names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Each relation once, with the columns that the query uses. Later columns of the relation are
    /// hidden from the query, so its meaning stays.
    pub names: Vec<Reads>,
}

/// A relation under the name that a statement has for it. Statements keep the names that relations
/// had when they were planned; only ids tell which relations they mean. A name without a schema is
/// one of `public`: stored statements do not depend on the search path of whoever wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The relation.
    pub relation: TableId,
    /// Its name in the statement.
    #[serde(flatten)]
    pub name: RelationName,
}

/// A query that names plain views, with their queries in their places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expanded {
    /// The views that it named.
    pub through: Vec<Named>,
    /// The query, which names only the source.
    pub query: String,
}

/// A query whose answer a job keeps up to date. Nodes build the job from this alone; the relation's
/// statement is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Its inputs, each once.
    pub reads: Vec<Reads>,
    /// The plan. Its operators name columns of an input by their places in [`Reads::columns`].
    pub plan: JobPlan,
    /// The plain views that the statement names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub through: Vec<Named>,
}

impl Query {
    /// Returns true if the rows that the job stores never change.
    pub fn is_append_only(&self) -> bool {
        self.plan.fragments.last().is_some_and(|stored| stored.output.append_only)
    }
}

/// An input of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reads {
    /// The source.
    pub relation: TableId,
    /// The source's name in the view's statement.
    #[serde(flatten)]
    pub name: RelationName,
    /// The columns of the source that the view needs, in their order, as they were when the view
    /// was created. ALTER may not change them as long as the view is there.
    pub columns: Vec<Column>,
    /// The query of a view that is compiled from its statement, if the statement names plain views.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expanded: Option<Expanded>,
}

impl Reads {
    /// Columns of a relation under its own name.
    pub fn of(relation: &Relation, columns: Vec<Column>) -> Reads {
        Reads { relation: relation.id, name: relation.name.clone(), columns, expanded: None }
    }

    /// The places of the columns that are read among those of their relation, and the hidden ones
    /// behind them.
    ///
    /// # Errors
    /// If the relation lacks one.
    pub fn places(&self, relation: &Relation) -> Result<Vec<usize>, view::Error> {
        let place = |read: &Column| {
            let mut columns = relation.columns.iter().chain(&relation.hidden);
            let place = columns.position(|column| column.name == read.name && column.ty == read.ty);
            place.ok_or_else(|| {
                let (kind, relation) = (relation.kind.as_str(), &relation.name);
                view::Error::new(format!(
                    "{kind} \"{relation}\" has no column \"{}\" of type {} any more",
                    read.name, read.ty
                ))
            })
        };
        self.columns.iter().map(place).collect()
    }

    /// The columns that are read, and behind them those that identify a row of a stream: split,
    /// sequence and ordinal.
    pub fn with_origin(&self) -> Vec<StreamColumn> {
        let read = self.columns.iter().map(|column| (column.name.as_str(), column.ty.clone()));
        let origin = [("_split", SqlType::Varchar), ("_sequence", SqlType::BigInt), ("_ordinal", SqlType::Integer)];
        read.chain(origin).map(|(name, ty)| StreamColumn { name: name.to_owned(), ty }).collect()
    }

    /// The source as the view knows it, with no other columns than the view reads.
    pub fn as_read(&self) -> Relation {
        Relation {
            id: self.relation,
            kind: RelationKind::Source,
            name: self.name.clone(),
            columns: self.columns.clone(),
            hidden: Vec::new(),
            primary_key: Vec::new(),
            layouts: Vec::new(),
            sql: String::new(),
        }
    }
}

/// A stream, and how its messages are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The options of WITH: keys in lower case, values as written without their quotes. `connector`
    /// is `nats`.
    pub options: BTreeMap<String, String>,
    /// The encoding of payloads.
    pub encode: Encode,
}

/// The encoding of payloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encode {
    /// `FORMAT PLAIN ENCODE JSON`: one object a message.
    Json,
    /// The same, declared without columns: the whole document fills the one column, a jsonb.
    JsonDocument,
    /// `FORMAT PLAIN ENCODE BYTES`: the payload as it is fills the one column, a bytea.
    Bytes,
    /// `FORMAT PLAIN ENCODE PROTOBUF`: one message of this schema.
    Protobuf(MessageSchema),
    /// `consumer.headers_only`: payloads are not delivered, and no column is filled from them.
    HeadersOnly,
}

/// A split and the first sequence to read of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStart {
    /// The split.
    pub split: SplitId,
    /// The first stream sequence that belongs to the relation.
    pub sequence: Sequence,
    /// When the split's stream was created, in the server's notation: sequences mean nothing in
    /// another one of its name. Absent from jobs that were created before this was kept.
    #[serde(default)]
    pub stream_created: Option<String>,
    /// The split of a source that it is. Absent if it bears the same name, since its job reads
    /// nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<JobSplit>,
}

impl SplitStart {
    /// A split of a source, as one of a view that reads several relations.
    pub fn among_others(self, source: TableId) -> SplitStart {
        let reads = JobSplit { job: source, split: self.split };
        SplitStart { split: SplitId(reads.to_string()), reads: Some(reads), ..self }
    }

    /// The position at which reading begins.
    pub fn position(&self) -> Position {
        Position { next: self.sequence, anchor: Anchor::created(self.stream_created.as_deref()) }
    }
}

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It runs, provided that the jobs that fill its inputs do.
    Running,
    /// No node can build it from its plan: a newer version of Weir made it. It goes on once all nodes
    /// are of a version that can.
    Waiting {
        /// The part that cannot be built.
        error: String,
        /// Since when, in milliseconds since 1970.
        #[serde(default)]
        since_ms: Option<u64>,
    },
    /// It stopped for a reason that its user has to fix. Its rows stay readable, unless they are
    /// torn.
    Failed {
        /// The reason.
        error: String,
        /// When it failed, in milliseconds since 1970. Absent from failures that were noted before
        /// this was kept.
        #[serde(default)]
        since_ms: Option<u64>,
        /// True if it stopped in the middle of an epoch that was committed: its rows, and those of
        /// jobs above it, may have only a part of the changes of that epoch.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        torn: bool,
    },
}

//! Tables, sources and views as users declared them. Serialised as JSON, they are the catalog entries of the metadata store and travel in
//! that form between nodes; a field added later needs a default.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::ids::{Sequence, SplitId, TableId};
use crate::position::{Anchor, Position};
use crate::protobuf::MessageSchema;
use crate::types::{SqlType, StructField};

/// A validated `CREATE TABLE … WITH (connector = 'nats', …)`, or of a source or a view, before it has an id and start positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTable {
    /// What it is.
    #[serde(default)]
    pub kind: RelationKind,
    /// Lower case unless it was quoted; tables live in the schema `public`.
    pub name: String,
    /// In the order of the declaration, INCLUDE columns last.
    pub columns: Vec<Column>,
    /// The primary key, as indexes into the columns; empty: every message is a row of its own.
    #[serde(default)]
    pub primary_key: Vec<usize>,
    /// Where the rows come from.
    #[serde(rename = "source")]
    pub input: Input,
    /// The statement as it was written, secrets included; never shown as it stands.
    pub sql: String,
}

/// What a relation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationKind {
    /// `CREATE TABLE`: a job reads its rows and stores them.
    #[default]
    Table,
    /// `CREATE SOURCE`: its rows stay in the stream. They are read when a statement asks for them, and for views.
    Source,
    /// `CREATE MATERIALIZED VIEW`: a job makes its rows of those of a source, and stores them.
    MaterializedView,
}

impl RelationKind {
    /// What it is called in SQL, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            RelationKind::Table => "table",
            RelationKind::Source => "source",
            RelationKind::MaterializedView => "materialized view",
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// Its type. Every column is nullable.
    #[serde(rename = "type")]
    pub ty: SqlType,
    /// What it is filled with.
    pub origin: Origin,
}

/// What a column is filled with: what of a message, unless it is a view's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// What the query of a view makes of its source's columns.
    Expression,
    /// The field of the payload that bears the column's name.
    Payload,
    /// `INCLUDE offset`: the stream sequence in decimal, a varchar.
    Offset,
    /// `INCLUDE subject`: the subject the message was published to, a varchar.
    Subject,
    /// `INCLUDE partition`: the split's id, a varchar.
    Partition,
    /// `INCLUDE timestamp`: when the server stored the message, a timestamptz.
    Timestamp,
    /// `INCLUDE payload`: the payload as a whole, a jsonb if it is JSON, else a bytea.
    WholePayload,
    /// `INCLUDE header`: all headers, of [`Origin::headers_type`].
    Headers,
    /// `INCLUDE header 'name'`: the first value of one header, a bytea or a varchar.
    Header {
        /// The header's name; the case of letters counts, as for NATS.
        name: String,
    },
}

impl Origin {
    /// The type of a column of all headers: `struct<key varchar, value bytea>[]`.
    pub fn headers_type() -> SqlType {
        let field = |name: &str, ty| StructField { name: name.to_owned(), ty };
        let header = vec![field("key", SqlType::Varchar), field("value", SqlType::Bytea)];
        SqlType::Array(Box::new(SqlType::Struct(header)))
    }
}

/// Where a relation's rows come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Input {
    /// From a stream: those of a table or a source.
    Stream(Source),
    /// From another relation: those of a view.
    Relation(Reads),
}

/// What a view reads. How its rows are made of that says its statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// The source.
    pub relation: TableId,
    /// What the view's statement calls it.
    pub name: String,
    /// Those of its columns that the view needs, in their order, as they were when the view was created. As long as it is
    /// there, they stay so.
    pub columns: Vec<Column>,
}

/// What a relation's rows come from if that is a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The options of WITH, keys in lower case, values as written without their quotes. `connector` is `nats`.
    pub options: BTreeMap<String, String>,
    /// How payloads are read.
    pub encode: Encode,
}

/// How a payload becomes columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encode {
    /// `FORMAT PLAIN ENCODE JSON`: one object a message.
    Json,
    /// The same of a table that was declared without columns: the whole document, whatever it is, is its one jsonb.
    JsonDocument,
    /// `FORMAT PLAIN ENCODE BYTES`: the payload as it is, in the one bytea.
    Bytes,
    /// `FORMAT PLAIN ENCODE PROTOBUF`: one message of this schema.
    Protobuf(MessageSchema),
    /// `consumer.headers_only`: payloads are not delivered, and no column is filled from them.
    HeadersOnly,
}

/// A table, source or view of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its id, never reused.
    pub id: TableId,
    /// What was declared.
    #[serde(flatten)]
    pub declared: NewTable,
    /// Its splits with the positions at which they start, resolved when the table was created; a view has those of its source.
    pub splits: Vec<SplitStart>,
    /// Whether its job runs.
    pub state: JobState,
    /// The id under which its dead letters are stored. Tables that are older than dead letters have none; nor have sources, whose
    /// dead letters are looked for in the stream, unless that loses what is acknowledged.
    #[serde(default)]
    pub dead_letters: Option<TableId>,
    /// Its columns as they were before each change of them, the oldest first. What was stored by then is in that layout.
    #[serde(default)]
    pub layouts: Vec<Vec<Column>>,
}

/// A split and the first sequence to read of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStart {
    /// The split.
    pub split: SplitId,
    /// The first stream sequence that belongs to the table.
    pub sequence: Sequence,
    /// When the split's stream was created, in the server's notation: sequences mean nothing in another one of its name.
    /// Absent from tables that were created before this was kept.
    #[serde(default)]
    pub stream_created: Option<String>,
}

impl SplitStart {
    /// The position at which reading begins.
    pub fn position(&self) -> Position {
        Position { next: self.sequence, anchor: Anchor::created(self.stream_created.as_deref()) }
    }
}

/// Whether a job runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It does.
    Running,
    /// It stopped for a reason its user has to mend; its rows stay readable.
    Failed {
        /// What happened.
        error: String,
        /// When, in milliseconds since 1970. Absent from failures that were noted before this was kept.
        #[serde(default)]
        since_ms: Option<u64>,
    },
}

impl Table {
    /// The columns that users see.
    pub fn schema(&self) -> SchemaRef {
        self.declared.schema()
    }

    /// Whether a job keeps it up to date: a table or view does that has not failed, and of which nothing has failed that it reads.
    /// `other`: the relation of an id.
    pub fn runs<'a>(&self, other: impl FnOnce(TableId) -> Option<&'a Table>) -> bool {
        let fed = match self.declared.reads() {
            Some(reads) => other(reads.relation).is_some_and(|source| source.state == JobState::Running),
            None => self.declared.kind != RelationKind::Source,
        };
        fed && self.state == JobState::Running
    }

    /// Whether it is a source of a stream that loses what is acknowledged: what is read is nowhere but in its views, and what
    /// is no row in its dead letters.
    pub fn is_consumed(&self) -> bool {
        self.declared.kind == RelationKind::Source && self.dead_letters.is_some()
    }

    /// Whether it is a view that reads this relation.
    pub fn is_view_over(&self, relation: TableId) -> bool {
        self.declared.reads().is_some_and(|reads| reads.relation == relation)
    }

    /// The relation whose splits are read for it: a view's source, else itself.
    pub fn read(&self) -> TableId {
        self.declared.reads().map_or(self.id, |reads| reads.relation)
    }

    /// The number of the layout that its rows are written in now.
    ///
    /// # Panics
    /// If the columns changed 2¹⁶ times: long before, meta refuses a definition of that size.
    pub fn layout(&self) -> u16 {
        u16::try_from(self.layouts.len()).expect("a definition is smaller than so many layouts")
    }

    /// The columns of a layout, if it is one of the table's.
    pub fn columns_of(&self, layout: u16) -> Option<&[Column]> {
        match usize::from(layout) {
            now if now == self.layouts.len() => Some(&self.declared.columns),
            before => self.layouts.get(before).map(Vec::as_slice),
        }
    }

    /// The ids under which it stores something.
    pub fn ids(&self) -> impl Iterator<Item = TableId> {
        std::iter::once(self.id).chain(self.dead_letters)
    }

    /// Its dead-letter table, if it stores dead letters: a row for each message that is no row of the table, written by the
    /// same actors.
    pub fn dead_letter_table(&self) -> Option<Table> {
        let declared = NewTable {
            kind: RelationKind::Table,
            columns: dead_letter_columns(),
            primary_key: Vec::new(),
            ..self.declared.clone()
        };
        let id = self.dead_letters?;
        let (splits, layouts, state) = (Vec::new(), Vec::new(), self.state.clone());
        Some(Table { id, declared, splits, state, dead_letters: None, layouts })
    }
}

/// The columns of dead letters: where a message is, what it is, and why it is no row.
pub fn dead_letter_columns() -> Vec<Column> {
    let column = |name: &str, ty| Column { name: name.to_owned(), ty, origin: Origin::Payload };
    vec![
        column("stream", SqlType::Varchar),
        column("sequence", SqlType::BigInt),
        column("subject", SqlType::Varchar),
        column("headers", Origin::headers_type()),
        column("payload", SqlType::Bytea),
        column("error", SqlType::Varchar),
        column("column", SqlType::Varchar),
        column("time", SqlType::Timestamptz),
    ]
}

impl NewTable {
    /// The stream that its rows come from; a view has none of its own.
    pub fn stream(&self) -> Option<&Source> {
        match &self.input {
            Input::Stream(source) => Some(source),
            Input::Relation(_) => None,
        }
    }

    /// What it reads of another relation, if it is a view.
    pub fn reads(&self) -> Option<&Reads> {
        match &self.input {
            Input::Stream(_) => None,
            Input::Relation(reads) => Some(reads),
        }
    }

    /// Whether a message replaces the row of an earlier one that has its key.
    pub fn is_keyed(&self) -> bool {
        !self.primary_key.is_empty()
    }

    /// The columns that users see.
    pub fn schema(&self) -> SchemaRef {
        schema(&self.columns)
    }

    /// Checks that the table can become `after`: payloads are encoded as they were, every column is still there, filled from the
    /// same, and holds what it held.
    ///
    /// # Errors
    /// [`Impossible`], the first of the changes that cannot be.
    pub fn check_change(&self, after: &NewTable) -> Result<(), Impossible> {
        let encode = |table: &NewTable| table.stream().map(|source| mem::discriminant(&source.encode));
        if encode(self) != encode(after) {
            return Err(Impossible::Encoding);
        }
        for column in &self.columns {
            let name = || column.name.clone();
            let Some(now) = after.columns.iter().find(|now| now.name == column.name && now.origin == column.origin)
            else {
                return Err(Impossible::Gone { column: name() });
            };
            if !column.ty.widens_to(&now.ty) {
                return Err(Impossible::Type { column: name(), before: column.ty.clone(), after: now.ty.clone() });
            }
        }
        let key = |table: &NewTable| -> Vec<Column> {
            table.primary_key.iter().map(|place| table.columns[*place].clone()).collect()
        };
        if key(self) == key(after) { Ok(()) } else { Err(Impossible::Key) }
    }
}

/// The Arrow schema of columns.
pub fn schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|column| column.ty.field(&column.name)).collect::<Vec<_>>()))
}

/// Why a table cannot change so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// A column is missing, or filled from something else.
    #[error("column \"{column}\" cannot be removed")]
    Gone {
        /// Its name.
        column: String,
    },
    /// A column would not hold the values that it has.
    #[error("column \"{column}\" of type {before} cannot become {after}")]
    Type {
        /// Its name.
        column: String,
        /// The type that it has.
        before: SqlType,
        /// The type that it cannot have.
        after: SqlType,
    },
    /// The primary key would be another one.
    #[error("columns of the primary key cannot change")]
    Key,
    /// Payloads would be read as something else.
    #[error("the encoding of messages cannot change")]
    Encoding,
}

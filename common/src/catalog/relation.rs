//! Relations: what statements name and scans read.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::RelationName;
use crate::ids::TableId;
use crate::types::{SqlType, StructField};

/// A table, source or view as users name and read it, or the stored dead letters of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its id, never reused. The job that fills it has the same.
    pub id: TableId,
    /// Its kind.
    pub kind: RelationKind,
    /// Its name, with that of its schema.
    pub name: RelationName,
    /// In the order of the declaration, INCLUDE columns last.
    pub columns: Vec<Column>,
    /// Columns that a view stores behind those that users see, because its key needs them.
    pub hidden: Vec<Column>,
    /// The primary key, as indexes into the columns and the hidden ones behind them; empty: every
    /// message is a row of its own.
    pub primary_key: Vec<usize>,
    /// Its columns as they were before each change of them, the oldest first. Data that was stored
    /// by then has that layout.
    pub layouts: Vec<Vec<Column>>,
    /// The statement as it was written, secrets included; never shown as it stands. Empty if no
    /// statement declared the relation.
    pub sql: String,
}

impl Relation {
    /// The columns that users see.
    pub fn schema(&self) -> SchemaRef {
        schema(&self.columns)
    }

    /// A column by its place among those that users see and the hidden ones.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn column(&self, place: usize) -> &Column {
        self.columns.get(place).unwrap_or_else(|| &self.hidden[place - self.columns.len()])
    }

    /// The columns of a stored row: those that users see, then the hidden ones.
    pub fn stored_schema(&self) -> SchemaRef {
        let columns: Vec<Column> = self.columns.iter().chain(&self.hidden).cloned().collect();
        schema(&columns)
    }

    /// Returns true if a message replaces the row of an earlier one that has its key.
    pub fn is_keyed(&self) -> bool {
        !self.primary_key.is_empty()
    }

    /// The primary key that a statement declared. A view has none: its key may be NULL. Nor has a
    /// table whose rows are stored under a hidden column.
    pub fn declared_key(&self) -> &[usize] {
        let is_hidden = self.primary_key.iter().any(|place| *place >= self.columns.len());
        match self.kind {
            RelationKind::Table | RelationKind::Source if !is_hidden => &self.primary_key,
            _ => &[],
        }
    }

    /// The number of the layout that rows are written in now.
    ///
    /// # Panics
    /// If the columns changed 2¹⁶ times: long before, meta refuses a definition of that size.
    pub fn layout(&self) -> u16 {
        u16::try_from(self.layouts.len()).expect("a definition is smaller than so many layouts")
    }

    /// The columns of a layout, if the relation has it.
    pub fn columns_of(&self, layout: u16) -> Option<&[Column]> {
        match usize::from(layout) {
            now if now == self.layouts.len() => Some(&self.columns),
            before => self.layouts.get(before).map(Vec::as_slice),
        }
    }
}

/// The kind of a relation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationKind {
    /// `CREATE TABLE`: a job reads its rows and stores them.
    #[default]
    Table,
    /// `CREATE SOURCE`: its rows stay in the stream. They are read when a statement asks for them,
    /// and for views.
    Source,
    /// `CREATE MATERIALIZED VIEW`: a job computes its rows from those of its inputs, and stores
    /// them.
    MaterializedView,
    /// `CREATE VIEW`: a query with a name. It has no rows and no job: a statement that names it is
    /// planned with the query in its place.
    View,
}

impl RelationKind {
    /// Its name in SQL, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            RelationKind::Table => "table",
            RelationKind::Source => "source",
            RelationKind::MaterializedView => "materialized view",
            RelationKind::View => "view",
        }
    }
}

/// A column of a relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// Its type. Every column is nullable.
    #[serde(rename = "type")]
    pub ty: SqlType,
    /// The origin of its values.
    pub origin: Origin,
}

/// The origin of a column's values: a part of a message, unless it is a view's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The query of a view computes it from other columns; or the hidden column of a table, which
    /// numbers rows.
    Expression,
    /// Statements write it: the column of a table without a connector.
    Statement(Constraints),
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

/// The rules for the values that statements write into a column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraints {
    /// True if it has no NULLs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_null: bool,
    /// The expression for rows that name no value, as it was written; absent: NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The expression that computes it from the row's other columns, as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<String>,
}

impl Column {
    /// The rules for the values that statements write, if it has any.
    pub fn constraints(&self) -> Option<&Constraints> {
        match &self.origin {
            Origin::Statement(constraints) => Some(constraints),
            _ => None,
        }
    }
}

impl Origin {
    /// The type of a column of all headers: `struct<key varchar, value bytea>[]`.
    pub fn headers_type() -> SqlType {
        let field = |name: &str, ty| StructField { name: name.to_owned(), ty };
        let header = vec![field("key", SqlType::Varchar), field("value", SqlType::Bytea)];
        SqlType::Array(Box::new(SqlType::Struct(header)))
    }
}

/// The columns of dead letters: the place of a message, the message, and why it is not a row.
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

/// The columns of a view's dead letters: the place of the message that the row comes from, if it
/// comes from one; the row, and the reason for which an operator of the view left it out.
pub(super) fn failed_row_columns() -> Vec<Column> {
    let column = |name: &str, ty| Column { name: name.to_owned(), ty, origin: Origin::Expression };
    vec![
        column("stream", SqlType::Varchar),
        column("sequence", SqlType::BigInt),
        column("row", SqlType::Jsonb),
        column("error", SqlType::Varchar),
        column("sqlstate", SqlType::Varchar),
        column("operator", SqlType::Varchar),
        column("time", SqlType::Timestamptz),
    ]
}

/// The hidden column by which a view's dead letters are stored.
pub(super) fn letter_key() -> Column {
    Column { name: "_letter".to_owned(), ty: SqlType::Bytea, origin: Origin::Expression }
}

/// The Arrow schema of columns.
pub fn schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|column| column.ty.field(&column.name)).collect::<Vec<_>>()))
}

//! Declarations: what CREATE and ALTER statements ask for.

use std::mem;

use serde::{Deserialize, Serialize};

use super::{Column, Plan, RelationKind, RelationName};
use crate::types::SqlType;

/// A validated `CREATE TABLE … WITH (connector = 'nats', …)`, or of a source or a view, before it
/// has an id and start positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// The kind of the relation.
    #[serde(default)]
    pub kind: RelationKind,
    /// Its name, with that of its schema.
    #[serde(flatten)]
    pub name: RelationName,
    /// In the order of the declaration, INCLUDE columns last.
    pub columns: Vec<Column>,
    /// Columns that a view stores behind those that users see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<Column>,
    /// The primary key, as indexes into the columns and the hidden ones behind them; empty: every
    /// message is a row of its own.
    #[serde(default)]
    pub primary_key: Vec<usize>,
    /// The origin of the rows.
    #[serde(rename = "source")]
    pub plan: Plan,
    /// The treatment of rows for which an expression fails, if it is a materialized view. That of
    /// messages which cannot be decoded is one of the options of their stream.
    #[serde(default, skip_serializing_if = "OnError::is_default")]
    pub on_error: OnError,
    /// The statement as it was written, secrets included; never shown as it stands.
    pub sql: String,
}

impl Declaration {
    /// Checks that the relation can become `after`. Payloads keep their encoding, every column is
    /// still there, has the same origin, and holds the values that it has.
    ///
    /// # Errors
    /// [`Impossible`], the first change that cannot be made.
    pub fn check_change(&self, after: &Declaration) -> Result<(), Impossible> {
        let encode = |declared: &Declaration| declared.plan.stream().map(|source| mem::discriminant(&source.encode));
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
        let key = |declared: &Declaration| -> Vec<Column> {
            let all: Vec<&Column> = declared.columns.iter().chain(&declared.hidden).collect();
            declared.primary_key.iter().map(|place| all[*place].clone()).collect()
        };
        if key(self) == key(after) { Ok(()) } else { Err(Impossible::Key) }
    }
}

/// The treatment of an input that cannot become a row: a message that cannot be decoded, or a row
/// for which an expression of a view fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It becomes a dead letter.
    #[default]
    DeadLetter,
    /// It is counted, and left out.
    Skip,
    /// The job fails.
    Fail,
}

impl OnError {
    /// The words for them.
    pub const WORDS: [&str; 3] = ["dead_letter", "skip", "fail"];

    /// Reads one of the words, in upper or lower case.
    pub fn parse(word: &str) -> Option<OnError> {
        match word.to_ascii_lowercase().as_str() {
            "dead_letter" => Some(OnError::DeadLetter),
            "skip" => Some(OnError::Skip),
            "fail" => Some(OnError::Fail),
            _ => None,
        }
    }

    fn is_default(&self) -> bool {
        *self == OnError::default()
    }
}

/// The reason why a relation cannot change so.
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

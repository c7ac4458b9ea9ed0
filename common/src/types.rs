//! The SQL types and their Arrow storage. Both are part of stored state: see `docs/decisions/`.

use std::collections::HashMap;
use std::fmt;

use arrow::datatypes::{DataType, Field, TimeUnit};
use serde::{Deserialize, Serialize};

/// A column's type, as users name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SqlType {
    /// `boolean`, stored as Boolean.
    Boolean,
    /// `smallint`, stored as Int16.
    SmallInt,
    /// `integer`, stored as Int32.
    Integer,
    /// `bigint`, stored as Int64.
    BigInt,
    /// `real`, stored as Float32.
    Real,
    /// `double precision`, stored as Float64.
    Double,
    /// `varchar`, stored as Utf8.
    Varchar,
    /// `bytea`, stored as Binary.
    Bytea,
    /// `date`, stored as Date32.
    Date,
    /// `timestamp`, stored in microseconds without a zone.
    Timestamp,
    /// `timestamptz`, stored in microseconds of UTC.
    Timestamptz,
    /// `jsonb`, stored as normalised text in Utf8 with the extension type [`JSONB_EXTENSION`].
    Jsonb,
}

/// The Arrow extension name that marks a Utf8 column as `jsonb`.
pub const JSONB_EXTENSION: &str = "weir.jsonb";

impl SqlType {
    /// The Arrow type of a stored column.
    pub fn arrow(self) -> DataType {
        match self {
            SqlType::Boolean => DataType::Boolean,
            SqlType::SmallInt => DataType::Int16,
            SqlType::Integer => DataType::Int32,
            SqlType::BigInt => DataType::Int64,
            SqlType::Real => DataType::Float32,
            SqlType::Double => DataType::Float64,
            SqlType::Varchar | SqlType::Jsonb => DataType::Utf8,
            SqlType::Bytea => DataType::Binary,
            SqlType::Date => DataType::Date32,
            SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// A nullable Arrow field of this type.
    pub fn field(self, name: &str) -> Field {
        let field = Field::new(name, self.arrow(), true);
        match self {
            SqlType::Jsonb => {
                field.with_metadata(HashMap::from([("ARROW:extension:name".to_owned(), JSONB_EXTENSION.to_owned())]))
            }
            _ => field,
        }
    }

    /// Whether a column of this type can be part of a primary key: whether equal values are equal bytes, and sorted as
    /// PostgreSQL sorts them, in a stored key.
    pub fn can_be_key(self) -> bool {
        self != SqlType::Jsonb
    }

    /// The name that PostgreSQL prints for the type.
    pub fn sql(self) -> &'static str {
        match self {
            SqlType::Boolean => "boolean",
            SqlType::SmallInt => "smallint",
            SqlType::Integer => "integer",
            SqlType::BigInt => "bigint",
            SqlType::Real => "real",
            SqlType::Double => "double precision",
            SqlType::Varchar => "character varying",
            SqlType::Bytea => "bytea",
            SqlType::Date => "date",
            SqlType::Timestamp => "timestamp without time zone",
            SqlType::Timestamptz => "timestamp with time zone",
            SqlType::Jsonb => "jsonb",
        }
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sql())
    }
}

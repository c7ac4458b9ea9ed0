//! Column types: PostgreSQL's names and aliases → [`SqlType`].

use sqlparser::ast::{DataType, ExactNumberInfo, TimezoneInfo};
use weir_common::types::SqlType;

use super::cursor::Cursor;
use crate::error::{Error, sqlstate};

/// What is offered when a type is not one of them.
const SUPPORTED: &str = "the types are boolean, smallint, integer, bigint, real, double precision, varchar, bytea, \
                         date, timestamp, timestamptz, jsonb";

/// Digits of a `float(n)` up to which it is a `real`, and up to which a `double precision`.
const FLOAT_DIGITS_REAL: u64 = 24;
const FLOAT_DIGITS_DOUBLE: u64 = 53;

impl Cursor<'_> {
    /// A column's type.
    pub(super) fn column_type(&mut self) -> Result<SqlType, Error> {
        let location = self.here();
        let written = self.parser.parse_data_type().map_err(|error| self.lift(error))?;
        column_type(&written).map_err(|error| error.at(self.text.position(location)))
    }
}

/// The type of ours that is written so, if it is one.
pub(crate) fn known_type(written: &DataType) -> Option<SqlType> {
    column_type(written).ok()
}

fn column_type(written: &DataType) -> Result<SqlType, Error> {
    Ok(match written {
        DataType::Boolean | DataType::Bool => SqlType::Boolean,
        DataType::SmallInt(None) | DataType::Int2(None) => SqlType::SmallInt,
        DataType::Integer(None) | DataType::Int(None) | DataType::Int4(None) => SqlType::Integer,
        DataType::BigInt(None) | DataType::Int8(None) => SqlType::BigInt,
        DataType::Real | DataType::Float4 => SqlType::Real,
        DataType::DoublePrecision | DataType::Double(ExactNumberInfo::None) | DataType::Float8 => SqlType::Double,
        DataType::Float(info) => float(info).ok_or_else(|| unknown(written))?,
        DataType::Varchar(None)
        | DataType::CharacterVarying(None)
        | DataType::CharVarying(None)
        | DataType::Text
        | DataType::String(None) => SqlType::Varchar,
        DataType::Bytea => SqlType::Bytea,
        DataType::Date => SqlType::Date,
        DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Timestamp,
        DataType::Timestamp(None, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => SqlType::Timestamptz,
        DataType::JSONB => SqlType::Jsonb,
        DataType::Varchar(Some(_)) | DataType::CharacterVarying(Some(_)) | DataType::CharVarying(Some(_)) => {
            return Err(Error::unsupported("a varchar with a length is not supported yet").with_hint("use varchar"));
        }
        DataType::Timestamp(Some(_), _) => {
            return Err(Error::unsupported("a timestamp with a precision is not supported yet")
                .with_hint("use timestamp or timestamptz; both hold microseconds"));
        }
        other => return Err(unknown(other)),
    })
}

fn float(info: &ExactNumberInfo) -> Option<SqlType> {
    match info {
        ExactNumberInfo::None => Some(SqlType::Double),
        ExactNumberInfo::Precision(digits) if (1..=FLOAT_DIGITS_REAL).contains(digits) => Some(SqlType::Real),
        ExactNumberInfo::Precision(digits) if (1..=FLOAT_DIGITS_DOUBLE).contains(digits) => Some(SqlType::Double),
        _ => None,
    }
}

fn unknown(written: &DataType) -> Error {
    let name = written.to_string().to_lowercase();
    match written {
        DataType::Custom(..) => Error::user(sqlstate::UNDEFINED_OBJECT, format!("type \"{name}\" does not exist")),
        _ => Error::unsupported(format!("type \"{name}\" is not supported yet")),
    }
    .with_hint(SUPPORTED)
}

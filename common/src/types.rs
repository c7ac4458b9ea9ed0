//! The SQL types and their Arrow storage. Both are part of stored state: see
//! `docs/decisions/0005-types.md`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, Fields, IntervalUnit, TimeUnit,
};
use serde::{Deserialize, Serialize};

/// A column's type, as users name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// `numeric`, stored as Decimal256 of [`NUMERIC_PRECISION`] digits, [`NUMERIC_SCALE`] of them
    /// after the point.
    Numeric,
    /// `numeric(precision, scale)`, stored as Decimal128, above 38 digits as Decimal256.
    Decimal {
        /// The number of all digits: 1 to [`DECIMAL_PRECISION_MAX`].
        precision: u8,
        /// The number of digits after the point: 0 to `precision`.
        scale: u8,
    },
    /// `varchar`, stored as Utf8.
    Varchar,
    /// `bytea`, stored as Binary.
    Bytea,
    /// `date`, stored as Date32.
    Date,
    /// `time`, stored in microseconds since midnight; 24:00:00 is a valid time.
    Time,
    /// `timestamp`, stored in microseconds without a zone.
    Timestamp,
    /// `timestamptz`, stored in microseconds of UTC.
    Timestamptz,
    /// `interval`, stored as months, days and nanoseconds, the last a multiple of 1,000.
    Interval,
    /// `jsonb`, stored as normalised text in Utf8 with the extension type [`JSONB_EXTENSION`].
    Jsonb,
    /// `T[]`, stored as List. `T[][]` is an array of arrays.
    Array(Box<SqlType>),
    /// `struct<name type, …>`, stored as Struct. Every field is nullable.
    Struct(Vec<StructField>),
}

/// A field of a struct.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StructField {
    /// Lower case unless it was quoted.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: SqlType,
}

/// The Arrow extension name that marks a Utf8 column as `jsonb`.
pub const JSONB_EXTENSION: &str = "weir.jsonb";

/// Arrow's key of the extension type in a field's metadata.
const EXTENSION_NAME: &str = "ARROW:extension:name";

/// Returns true if a column of text holds jsonb.
pub fn is_jsonb(field: &Field) -> bool {
    field.metadata().get(EXTENSION_NAME).is_some_and(|name| name == JSONB_EXTENSION)
}

/// The digits of a `numeric` that was declared without a precision. No `numeric(p, s)` has as many,
/// so this number distinguishes them. Values of a plain `numeric` have no scale of their own and
/// are printed without trailing zeros.
pub const NUMERIC_PRECISION: u8 = DECIMAL256_MAX_PRECISION;
/// The digits of such a `numeric` after the point; RisingWave's decimals have at most as many.
pub const NUMERIC_SCALE: u8 = 28;
/// The largest precision that can be declared.
pub const DECIMAL_PRECISION_MAX: u8 = NUMERIC_PRECISION - 1;

/// Arrow's name of the field that holds an array's elements.
const ELEMENT: &str = "item";

impl SqlType {
    /// Returns the Arrow type of a stored column.
    pub fn arrow(&self) -> DataType {
        match self {
            SqlType::Boolean => DataType::Boolean,
            SqlType::SmallInt => DataType::Int16,
            SqlType::Integer => DataType::Int32,
            SqlType::BigInt => DataType::Int64,
            SqlType::Real => DataType::Float32,
            SqlType::Double => DataType::Float64,
            SqlType::Numeric => decimal(NUMERIC_PRECISION, NUMERIC_SCALE),
            SqlType::Decimal { precision, scale } => decimal(*precision, *scale),
            SqlType::Varchar | SqlType::Jsonb => DataType::Utf8,
            SqlType::Bytea => DataType::Binary,
            SqlType::Date => DataType::Date32,
            SqlType::Time => DataType::Time64(TimeUnit::Microsecond),
            SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            SqlType::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            SqlType::Array(element) => DataType::List(Arc::new(element.field(ELEMENT))),
            SqlType::Struct(fields) => DataType::Struct(StructField::arrow(fields)),
        }
    }

    /// Returns a nullable Arrow field of this type.
    pub fn field(&self, name: &str) -> Field {
        let field = Field::new(name, self.arrow(), true);
        match self {
            SqlType::Jsonb => {
                field.with_metadata(HashMap::from([(EXTENSION_NAME.to_owned(), JSONB_EXTENSION.to_owned())]))
            }
            _ => field,
        }
    }

    /// Returns true if `other` holds every value of this type, so that stored values can be read as
    /// `other`. Such types are the type itself, wider numbers, and structs with further fields at
    /// the end. A timestamp does not widen a date, because its range is smaller.
    pub fn widens_to(&self, other: &SqlType) -> bool {
        match (self, other) {
            (SqlType::SmallInt, SqlType::Integer | SqlType::BigInt)
            | (SqlType::Integer, SqlType::BigInt)
            | (SqlType::Real, SqlType::Double) => true,
            (SqlType::Array(element), SqlType::Array(other)) => element.widens_to(other),
            (SqlType::Struct(fields), SqlType::Struct(others)) => {
                fields.len() <= others.len()
                    && fields
                        .iter()
                        .zip(others)
                        .all(|(one, other)| one.name == other.name && one.ty.widens_to(&other.ty))
            }
            _ if self == other => true,
            _ => match (self.digits(), other.digits()) {
                (Some((whole, scale)), Some((other_whole, other_scale))) if other.is_decimal() => {
                    whole <= other_whole && scale <= other_scale
                }
                _ => false,
            },
        }
    }

    /// Returns the maximum number of digits before and after the point, for a type of exact
    /// numbers.
    fn digits(&self) -> Option<(u8, u8)> {
        match self {
            SqlType::SmallInt => Some((5, 0)),
            SqlType::Integer => Some((10, 0)),
            SqlType::BigInt => Some((19, 0)),
            SqlType::Numeric => Some((NUMERIC_PRECISION - NUMERIC_SCALE, NUMERIC_SCALE)),
            SqlType::Decimal { precision, scale } => Some((precision - scale, *scale)),
            _ => None,
        }
    }

    fn is_decimal(&self) -> bool {
        matches!(self, SqlType::Numeric | SqlType::Decimal { .. })
    }

    /// Returns true if rows can be grouped by a column of this type: equal values have equal keys,
    /// see [`crate::key`].
    pub fn can_be_grouped(&self) -> bool {
        match self {
            SqlType::Interval | SqlType::Jsonb => true,
            SqlType::Array(element) => element.can_be_grouped(),
            SqlType::Struct(fields) => fields.iter().all(|field| field.ty.can_be_grouped()),
            other => other.can_be_key(),
        }
    }

    /// Returns true if a column of this type can be part of a primary key. The value can then be
    /// read back from its key. Of the other types some values are equal but not the same, or hold
    /// such values.
    pub fn can_be_key(&self) -> bool {
        !matches!(self, SqlType::Interval | SqlType::Jsonb | SqlType::Array(_) | SqlType::Struct(_))
    }
}

fn decimal(precision: u8, scale: u8) -> DataType {
    let scale = i8::try_from(scale).expect("a scale is at most 76");
    if precision <= DECIMAL128_MAX_PRECISION {
        DataType::Decimal128(precision, scale)
    } else {
        DataType::Decimal256(precision, scale)
    }
}

impl StructField {
    /// Returns the Arrow fields of a struct.
    pub fn arrow(fields: &[StructField]) -> Fields {
        fields.iter().map(|field| field.ty.field(&field.name)).collect()
    }
}

/// The name that PostgreSQL prints for the type. PostgreSQL has no name for a struct; it gets
/// RisingWave's.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            SqlType::Boolean => "boolean",
            SqlType::SmallInt => "smallint",
            SqlType::Integer => "integer",
            SqlType::BigInt => "bigint",
            SqlType::Real => "real",
            SqlType::Double => "double precision",
            SqlType::Numeric => "numeric",
            SqlType::Decimal { precision, scale } => return write!(f, "numeric({precision},{scale})"),
            SqlType::Varchar => "character varying",
            SqlType::Bytea => "bytea",
            SqlType::Date => "date",
            SqlType::Time => "time without time zone",
            SqlType::Timestamp => "timestamp without time zone",
            SqlType::Timestamptz => "timestamp with time zone",
            SqlType::Interval => "interval",
            SqlType::Jsonb => "jsonb",
            SqlType::Array(element) => return write!(f, "{element}[]"),
            SqlType::Struct(fields) => {
                for (index, StructField { name, ty }) in fields.iter().enumerate() {
                    write!(f, "{}{name} {ty}", if index == 0 { "struct<" } else { ", " })?;
                }
                ">"
            }
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catalogs that were written by earlier versions contain these names.
    #[test]
    fn stored_names_stay_as_they_are() {
        let field = |name: &str, ty| StructField { name: name.to_owned(), ty };
        let nested = SqlType::Struct(vec![
            field("a", SqlType::Integer),
            field("b", SqlType::Array(Box::new(SqlType::Array(Box::new(SqlType::Varchar))))),
        ]);
        for (ty, stored, printed) in [
            (SqlType::Boolean, r#""boolean""#, "boolean"),
            (SqlType::SmallInt, r#""small_int""#, "smallint"),
            (SqlType::Integer, r#""integer""#, "integer"),
            (SqlType::BigInt, r#""big_int""#, "bigint"),
            (SqlType::Real, r#""real""#, "real"),
            (SqlType::Double, r#""double""#, "double precision"),
            (SqlType::Varchar, r#""varchar""#, "character varying"),
            (SqlType::Bytea, r#""bytea""#, "bytea"),
            (SqlType::Date, r#""date""#, "date"),
            (SqlType::Timestamp, r#""timestamp""#, "timestamp without time zone"),
            (SqlType::Timestamptz, r#""timestamptz""#, "timestamp with time zone"),
            (SqlType::Jsonb, r#""jsonb""#, "jsonb"),
            (SqlType::Time, r#""time""#, "time without time zone"),
            (SqlType::Interval, r#""interval""#, "interval"),
            (SqlType::Numeric, r#""numeric""#, "numeric"),
            (
                SqlType::Decimal { precision: 10, scale: 2 },
                r#"{"decimal":{"precision":10,"scale":2}}"#,
                "numeric(10,2)",
            ),
            (
                nested,
                r#"{"struct":[{"name":"a","type":"integer"},{"name":"b","type":{"array":{"array":"varchar"}}}]}"#,
                "struct<a integer, b character varying[][]>",
            ),
        ] {
            assert_eq!(serde_json::to_string(&ty).expect("JSON"), stored);
            assert_eq!(serde_json::from_str::<SqlType>(stored).expect("a type"), ty);
            assert_eq!(ty.to_string(), printed);
        }
    }

    #[test]
    fn a_type_widens_to_those_that_hold_its_values() {
        let decimal = |precision, scale| SqlType::Decimal { precision, scale };
        let row = |fields: &[(&str, SqlType)]| {
            let field = |(name, ty): &(&str, SqlType)| StructField { name: (*name).to_owned(), ty: ty.clone() };
            SqlType::Struct(fields.iter().map(field).collect())
        };
        let array = |ty| SqlType::Array(Box::new(ty));
        for (from, to) in [
            (SqlType::SmallInt, SqlType::Integer),
            (SqlType::Integer, SqlType::BigInt),
            (SqlType::BigInt, SqlType::Numeric),
            (SqlType::BigInt, decimal(21, 2)),
            (decimal(10, 2), decimal(12, 3)),
            (decimal(76 - 28, 28), SqlType::Numeric),
            (SqlType::Real, SqlType::Double),
            (array(SqlType::Integer), array(SqlType::BigInt)),
            (row(&[("a", SqlType::Integer)]), row(&[("a", SqlType::BigInt), ("b", SqlType::Jsonb)])),
        ] {
            assert!(from.widens_to(&from) && from.widens_to(&to) && !to.widens_to(&from), "{from} to {to}");
        }
        for (from, to) in [
            (SqlType::BigInt, SqlType::Double),
            (SqlType::BigInt, decimal(20, 2)),
            (SqlType::Numeric, decimal(75, 28)),
            (decimal(10, 2), decimal(12, 1)),
            (SqlType::Varchar, SqlType::Jsonb),
            (SqlType::Date, SqlType::Timestamp),
            (SqlType::Timestamp, SqlType::Timestamptz),
            (row(&[("a", SqlType::Integer)]), row(&[("b", SqlType::Jsonb), ("a", SqlType::Integer)])),
        ] {
            assert!(!from.widens_to(&to), "{from} to {to}");
        }
    }

    #[test]
    fn decimals_above_38_digits_are_stored_in_256_bits() {
        assert_eq!(SqlType::Decimal { precision: 38, scale: 3 }.arrow(), DataType::Decimal128(38, 3));
        assert_eq!(SqlType::Decimal { precision: 39, scale: 3 }.arrow(), DataType::Decimal256(39, 3));
        assert_eq!(SqlType::Numeric.arrow(), DataType::Decimal256(76, 28));
    }
}

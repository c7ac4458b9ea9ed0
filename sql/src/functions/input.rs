//! Texts as values of a column, as PostgreSQL's input functions read them.

use std::num::IntErrorKind;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, StringArray, new_null_array,
};
use datafusion::arrow::datatypes::{Float32Type, Float64Type, Int16Type, Int32Type, Int64Type};
use weir_common::types::SqlType;

use super::casts::from_text;
use super::jsonb::normalise;
use crate::error::{Error, sqlstate};

/// Reads a column of texts as values of a type.
///
/// # Errors
/// The user's for the first text that is not a value of the type.
pub fn column_from_text(texts: &StringArray, ty: &SqlType) -> Result<ArrayRef, Error> {
    Ok(match ty {
        SqlType::Varchar => Arc::new(texts.clone()),
        SqlType::Boolean => {
            let read = texts.iter().map(|text| text.map(|text| boolean(text.trim())).transpose());
            Arc::new(read.collect::<Result<BooleanArray, Error>>()?)
        }
        SqlType::SmallInt => whole::<Int16Type>(texts, "smallint")?,
        SqlType::Integer => whole::<Int32Type>(texts, "integer")?,
        SqlType::BigInt => whole::<Int64Type>(texts, "bigint")?,
        SqlType::Real => float::<Float32Type>(texts, "real")?,
        SqlType::Double => float::<Float64Type>(texts, "double precision")?,
        SqlType::Jsonb => {
            let read = texts.iter().map(|text| text.map(normalise).transpose());
            Arc::new(read.collect::<Result<StringArray, Error>>()?)
        }
        SqlType::Struct(_) if texts.null_count() == texts.len() => new_null_array(&ty.arrow(), texts.len()),
        SqlType::Struct(_) => return Err(Error::unsupported("a text cannot be read as a struct")),
        _ => from_text(texts, &ty.arrow())?,
    })
}

fn whole<T: ArrowPrimitiveType>(texts: &StringArray, name: &str) -> Result<ArrayRef, Error>
where
    T::Native: std::str::FromStr<Err = std::num::ParseIntError>,
{
    let one = |text: &str| {
        text.trim().parse::<T::Native>().map_err(|error| match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                Error::out_of_range(format!("value \"{text}\" is out of range for type {name}"))
            }
            _ => invalid(name, text),
        })
    };
    let read = texts.iter().map(|text| text.map(one).transpose());
    Ok(Arc::new(read.collect::<Result<PrimitiveArray<T>, Error>>()?))
}

fn float<T: ArrowPrimitiveType>(texts: &StringArray, name: &str) -> Result<ArrayRef, Error>
where
    T::Native: std::str::FromStr,
{
    let read = texts
        .iter()
        .map(|text| text.map(|text| text.trim().parse::<T::Native>().map_err(|_| invalid(name, text))).transpose());
    Ok(Arc::new(read.collect::<Result<PrimitiveArray<T>, Error>>()?))
}

/// Reads `on`, `off`, `1`, `0`, or any unambiguous prefix of `true`, `false`, `yes`, `no`, `off`.
fn boolean(value: &str) -> Result<bool, Error> {
    let lower = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| lower.len() >= least && word.starts_with(&lower);
    if begins("true", 1) || begins("yes", 1) || lower == "on" || lower == "1" {
        Ok(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || lower == "0" {
        Ok(false)
    } else {
        Err(invalid("boolean", value))
    }
}

fn invalid(ty: &str, text: &str) -> Error {
    let message = format!("invalid input syntax for type {ty}: \"{text}\"");
    Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_their_types() {
        let state = |ty: SqlType, text: &str| {
            let texts = StringArray::from(vec![Some(text), None]);
            column_from_text(&texts, &ty).map(|array| array.len()).map_err(|error| error.sqlstate.into_owned())
        };
        for (ty, good, bad, expected) in [
            (SqlType::Boolean, " T ", "o", "22P02"),
            (SqlType::SmallInt, " 7 ", "40000", "22003"),
            (SqlType::Integer, "-7", "1.5", "22P02"),
            (SqlType::BigInt, "+7", "99999999999999999999", "22003"),
            (SqlType::Double, "1e3", "x", "22P02"),
            (SqlType::Date, "2026-01-02", "2026-13-01", "22007"),
            (SqlType::Jsonb, "{\"a\": 1}", "{", "22P02"),
            (SqlType::Bytea, "\\x00", "\\x0", "22P02"),
            (SqlType::Array(Box::new(SqlType::Integer)), "{1,2}", "{1", "22P02"),
        ] {
            assert_eq!(state(ty.clone(), good), Ok(2), "{ty}");
            assert_eq!(state(ty.clone(), bad), Err(expected.to_owned()), "{ty}");
        }
    }
}

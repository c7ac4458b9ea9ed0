//! `like_escape(pattern, escape)`: converts a LIKE pattern with another escape character to one
//! with the backslash.
//!
//! `a LIKE p ESCAPE '/'` is read as `a LIKE like_escape(p, '/')`, as in PostgreSQL.

use std::iter::repeat_n;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use crate::error::{Error, sqlstate};

/// The function's name.
pub(crate) const LIKE_ESCAPE: &str = "like_escape";

pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(LikeEscape { signature: Signature::string(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LikeEscape {
    signature: Signature,
}

impl ScalarUDFImpl for LikeEscape {
    fn name(&self) -> &str {
        LIKE_ESCAPE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let texts = args.args.into_iter().map(|value| cast(&value.into_array(rows)?, &DataType::Utf8));
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        let pairs = texts[0].as_string::<i32>().iter().zip(texts[1].as_string::<i32>());
        let written = pairs.map(|(pattern, escape)| pattern.zip(escape).map(|(p, e)| rewritten(p, e)).transpose());
        let written = StringArray::from_iter(written.collect::<Result<Vec<_>, Error>>()?);
        match is_scalar && written.len() == 1 {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&written, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(written))),
        }
    }
}

/// # Errors
/// `22025` if the escape has more than one character. An empty one escapes nothing.
fn rewritten(pattern: &str, escape: &str) -> Result<String, Error> {
    let mut characters = escape.chars();
    let escape = characters.next();
    if characters.next().is_some() {
        return Err(Error::user(sqlstate::INVALID_ESCAPE_SEQUENCE, "invalid escape string")
            .with_hint("escape string must be empty or one character"));
    }
    let mut written = String::with_capacity(pattern.len() + 2);
    let mut is_escaped = false;
    for character in pattern.chars() {
        if Some(character) == escape && !is_escaped {
            written.push('\\');
            is_escaped = true;
            continue;
        }
        // A backslash stands for itself now, so it needs an escape.
        written.extend(repeat_n('\\', usize::from(character == '\\' && !is_escaped)));
        written.push(character);
        is_escaped = false;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_escape_character_becomes_the_backslash() {
        let rewritten = |pattern, escape| rewritten(pattern, escape).expect("an escape character");
        assert_eq!(rewritten("pg/_%", "/"), "pg\\_%");
        assert_eq!(rewritten("a//b\\c", "/"), "a\\/b\\\\c");
        assert_eq!(rewritten("/\\", "/"), "\\\\");
        assert_eq!(rewritten("a\\_b", "\\"), "a\\_b");
        assert_eq!(rewritten("a\\_b", ""), "a\\\\_b");
        assert!(super::rewritten("a", "ab").is_err());
    }
}

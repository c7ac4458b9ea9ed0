//! `SIMILAR TO`, whose patterns DataFusion would use as regular expressions without a conversion.

use sqlparser::ast::{BinaryOperator, Expr, Value};

use super::build::taken;
use crate::error::{Error, sqlstate};

/// Rewrites `SIMILAR TO` as a match of a regular expression.
///
/// # Errors
/// `0A000` for a pattern that is not a literal, `22025` for an invalid escape character.
pub(super) fn as_regex(expr: &mut Expr) -> Result<(), Error> {
    let Expr::SimilarTo { negated, expr: operand, pattern, escape_char } = expr else { return Ok(()) };
    let text = |value: &Value| match value {
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
        _ => None,
    };
    let written = match pattern.as_ref() {
        Expr::Value(value) => text(&value.value),
        _ => None,
    };
    let Some(written) = written else {
        return Err(Error::unsupported("SIMILAR TO is only supported with a pattern that is a literal")
            .with_hint("use ~ with a regular expression"));
    };
    let escape = match escape_char {
        None => Some('\\'),
        Some(value) => {
            let escape = text(&value.value).unwrap_or_default();
            let mut characters = escape.chars();
            let first = characters.next();
            if characters.next().is_some() {
                return Err(Error::user("22025", "invalid escape string"));
            }
            first
        }
    };
    let regex = regex(&written, escape)?;
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    let operand = taken(operand);
    let pattern = Expr::Value(Value::SingleQuotedString(regex).with_empty_span());
    *expr = Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(operand), op, right: Box::new(pattern) }));
    Ok(())
}

fn regex(pattern: &str, escape: Option<char>) -> Result<String, Error> {
    let mut regex = String::from("(?s)^(?:");
    let mut in_brackets = false;
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if Some(character) == escape {
            let escaped = characters.next().ok_or_else(|| {
                Error::user(sqlstate::INVALID_PARAMETER_VALUE, "the pattern must not end with its escape character")
            })?;
            if !escaped.is_alphanumeric() {
                regex.push('\\');
            }
            regex.push(escaped);
            continue;
        }
        match character {
            ']' if in_brackets => {
                in_brackets = false;
                regex.push(']');
            }
            '[' if !in_brackets => {
                in_brackets = true;
                regex.push('[');
            }
            '\\' => regex.push_str("\\\\"),
            other if in_brackets => regex.push(other),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '(' => regex.push_str("(?:"),
            '.' | '^' | '$' => {
                regex.push('\\');
                regex.push(character);
            }
            other => regex.push(other),
        }
    }
    regex.push_str(")$");
    Ok(regex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_text() {
        let regex = |pattern| regex(pattern, Some('\\')).expect(pattern);
        assert_eq!(regex("%(b|d)_"), "(?s)^(?:.*(?:b|d).)$");
        assert_eq!(regex("a.c[%_]"), "(?s)^(?:a\\.c[%_])$");
        assert_eq!(regex("\\%"), "(?s)^(?:\\%)$");
        assert!(super::regex("a\\", Some('\\')).is_err());
    }
}

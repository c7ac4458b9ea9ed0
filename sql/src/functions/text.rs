//! Functions that build a text from values of any type: `concat`, `concat_ws`, `format`,
//! `array_to_string`.
//!
//! Each value is printed, so a boolean is `t` or `f`, unlike in a cast to text.

use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::quote;
use crate::error::{Error, sqlstate};
use crate::keywords::quoted_identifier;
use crate::output::printed;

/// `array_to_string`
pub(crate) const ARRAY_TO_STRING: &str = "__array_to_string";

pub(super) fn functions() -> Vec<ScalarUDF> {
    [Function::Concat, Function::ConcatWs, Function::Format, Function::ArrayToString]
        .into_iter()
        .map(|function| {
            let any = TypeSignature::OneOf(vec![TypeSignature::VariadicAny, TypeSignature::Nullary]);
            ScalarUDF::from(Text { function, signature: Signature::new(any, Volatility::Stable) })
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Function {
    Concat,
    ConcatWs,
    Format,
    ArrayToString,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Text {
    function: Function,
    signature: Signature,
}

impl ScalarUDFImpl for Text {
    fn name(&self) -> &str {
        match self.function {
            Function::Concat => "concat",
            Function::ConcatWs => "concat_ws",
            Function::Format => "format",
            // DataFusion's own function keeps the plain name.
            Function::ArrayToString => ARRAY_TO_STRING,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let is_text = |ty: &DataType| ty.is_string() || ty.is_null();
        let is_list = |ty: &DataType| matches!(ty, DataType::List(_) | DataType::LargeList(_)) || ty.is_null();
        let fits = match (self.function, arguments) {
            (Function::Concat, arguments) => !arguments.is_empty(),
            (Function::ConcatWs, [separator, _, ..]) => is_text(separator),
            (Function::Format, [format, ..]) => is_text(format),
            (Function::ArrayToString, [list, separator]) => is_list(list) && is_text(separator),
            (Function::ArrayToString, [list, separator, null]) => is_list(list) && is_text(separator) && is_text(null),
            _ => false,
        };
        if fits {
            return Ok(DataType::Utf8);
        }
        let given: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let message = format!("function {}({}) does not exist", self.name(), given.join(", "));
        Err(Error::user(sqlstate::UNDEFINED_FUNCTION, message).into())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let mut columns = Vec::with_capacity(args.args.len());
        for (argument, field) in args.args.iter().zip(&args.arg_fields) {
            columns.push((argument.to_array(rows)?, Arc::clone(field)));
        }
        let result = match self.function {
            Function::Concat => joined(&all_texts(&columns)?, None, rows),
            Function::ConcatWs => {
                let texts = all_texts(&columns)?;
                joined(&texts[1..], texts.first(), rows)
            }
            Function::Format => formatted(&all_texts(&columns)?, rows)?,
            Function::ArrayToString => elements_joined(&columns, rows)?,
        };
        Ok(ColumnarValue::Array(Arc::new(result)))
    }
}

fn all_texts(columns: &[(ArrayRef, FieldRef)]) -> Result<Vec<StringArray>> {
    columns.iter().map(|(array, field)| texts(array, field)).collect()
}

/// The printed values of a column.
fn texts(array: &ArrayRef, field: &FieldRef) -> Result<StringArray> {
    if array.data_type().is_null() {
        return Ok(StringArray::new_null(array.len()));
    }
    let texts = if array.data_type().is_string() { cast(array, &DataType::Utf8)? } else { printed(array, field)? };
    Ok(texts.as_string::<i32>().clone())
}

fn cell(texts: &StringArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}

/// Joins each row's texts, without NULLs. A NULL separator gives NULL.
fn joined(texts: &[StringArray], separator: Option<&StringArray>, rows: usize) -> StringArray {
    let mut result = StringBuilder::new();
    let mut row_text = String::new();
    for row in 0..rows {
        let separator = match separator.map(|separator| cell(separator, row)) {
            Some(None) => {
                result.append_null();
                continue;
            }
            Some(Some(separator)) => separator,
            None => "",
        };
        row_text.clear();
        for (place, text) in texts.iter().filter_map(|texts| cell(texts, row)).enumerate() {
            row_text.push_str(if place == 0 { "" } else { separator });
            row_text.push_str(text);
        }
        result.append_value(&row_text);
    }
    result.finish()
}

fn elements_joined(columns: &[(ArrayRef, FieldRef)], rows: usize) -> Result<StringArray> {
    let [(lists, _), (separators, separator_field), rest @ ..] = columns else {
        return Err(Error::internal("array_to_string has too few arguments").into());
    };
    if lists.data_type().is_null() {
        return Ok(StringArray::new_null(rows));
    }
    let separators = texts(separators, separator_field)?;
    let nulls = rest.first().map(|(array, field)| texts(array, field)).transpose()?;
    let mut result = StringBuilder::new();
    for row in 0..rows {
        match cell(&separators, row) {
            Some(separator) if lists.is_valid(row) => {
                let mut parts = Vec::new();
                add_elements(&lists.slice(row, 1), &mut parts)?;
                let null = nulls.as_ref().and_then(|nulls| cell(nulls, row));
                let shown: Vec<&str> = parts.iter().filter_map(|part| part.as_deref().or(null)).collect();
                result.append_value(shown.join(separator));
            }
            _ => result.append_null(),
        }
    }
    Ok(result.finish())
}

/// Appends the elements of a list, including those of nested lists.
fn add_elements(lists: &ArrayRef, parts: &mut Vec<Option<String>>) -> Result<()> {
    let DataType::List(element) = lists.data_type() else {
        let element: FieldRef = match lists.data_type() {
            DataType::LargeList(element) => Arc::clone(element),
            other => Arc::new(Field::new("", other.clone(), true)),
        };
        let lists = cast(lists, &DataType::List(element))?;
        return add_elements(&lists, parts);
    };
    for elements in lists.as_list::<i32>().iter().flatten() {
        if matches!(element.data_type(), DataType::List(_) | DataType::LargeList(_)) {
            add_elements(&elements, parts)?;
        } else {
            parts.extend(texts(&elements, element)?.iter().map(|text| text.map(str::to_owned)));
        }
    }
    Ok(())
}

fn formatted(columns: &[StringArray], rows: usize) -> Result<StringArray, Error> {
    let mut result = StringBuilder::new();
    for row in 0..rows {
        let values: Vec<Option<&str>> = columns.iter().map(|texts| cell(texts, row)).collect();
        match values.split_first() {
            Some((Some(format), values)) => result.append_value(format_one(format, values)?),
            _ => result.append_null(),
        }
    }
    Ok(result.finish())
}

/// PostgreSQL's `format`: `%[position$][-][width]type` with the types s, I and L, and `%%`.
fn format_one(format: &str, values: &[Option<&str>]) -> Result<String, Error> {
    let invalid = |message: String| Error::user(sqlstate::INVALID_PARAMETER_VALUE, message);
    let unterminated =
        || invalid("unterminated format() type specifier".to_owned()).with_hint("For a single \"%\" use \"%%\".");
    let (mut result, mut next) = (String::new(), 0_usize);
    let mut characters = format.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '%' {
            result.push(character);
            continue;
        }
        if characters.next_if_eq(&'%').is_some() {
            result.push('%');
            continue;
        }
        let digits = |characters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut digits = String::new();
            while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits
        };
        let mut number = digits(&mut characters);
        let mut position = None;
        if !number.is_empty() && characters.next_if_eq(&'$').is_some() {
            position = Some(number.parse::<usize>().unwrap_or(usize::MAX));
            number.clear();
        }
        let mut is_left = false;
        if number.is_empty() {
            while characters.next_if_eq(&'-').is_some() {
                is_left = true;
            }
            number = digits(&mut characters);
        }
        if characters.peek() == Some(&'*') {
            return Err(Error::unsupported("a width from an argument of format() is not supported yet"));
        }
        let kind = characters.next().ok_or_else(unterminated)?;
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(invalid(format!("unrecognized format() type specifier \"{kind}\""))
                .with_hint("For a single \"%\" use \"%%\"."));
        }
        let index = match position {
            Some(0) => {
                return Err(invalid("format specifies argument 0, but arguments are numbered from 1".to_owned()));
            }
            Some(position) => position - 1,
            None => next,
        };
        next = index.saturating_add(1);
        let value = *values.get(index).ok_or_else(|| invalid("too few arguments for format()".to_owned()))?;
        let text = match (kind, value) {
            ('I', None) => {
                let message = "null values cannot be formatted as an SQL identifier";
                return Err(Error::user("22004", message));
            }
            ('I', Some(value)) => quoted_identifier(value),
            ('L', None) => "NULL".to_owned(),
            ('L', Some(value)) => quote::literal(value),
            (_, value) => value.unwrap_or_default().to_owned(),
        };
        let width = number.parse::<usize>().unwrap_or(0).min(WIDTH_MAX);
        let written = if is_left { write!(result, "{text:<width$}") } else { write!(result, "{text:>width$}") };
        written.map_err(|error| Error::internal(error.to_string()))?;
    }
    Ok(result)
}

/// The maximal width that a value is padded to.
const WIDTH_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 prints them.
    #[test]
    fn formats_are_filled_in() {
        let format = |format, values: &[Option<&str>]| format_one(format, values).map_err(|error| error.message);
        let values = [Some("a b"), None, Some("o'x")];
        assert_eq!(format("%s|%s|%s %%", &values).as_deref(), Ok("a b||o'x %"));
        assert_eq!(format("%I %L %L", &values).as_deref(), Ok("\"a b\" NULL 'o''x'"));
        assert_eq!(format("%3$s %1$s", &values).as_deref(), Ok("o'x a b"));
        assert_eq!(format("%5s|%-5s|", &[Some("x"), Some("y")]).as_deref(), Ok("    x|y    |"));
        assert!(format("%s %s", &[Some("x")]).is_err());
        assert!(format("%d", &[Some("x")]).is_err() && format("%", &[]).is_err());
        assert!(format("%I", &[None]).is_err());
    }
}

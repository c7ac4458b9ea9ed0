//! Column types: PostgreSQL's names and aliases, and RisingWave's structs → [`SqlType`].

use sqlparser::ast::{ArrayElemTypeDef, DataType, ExactNumberInfo, TimezoneInfo};
use sqlparser::tokenizer::Token;
use weir_common::types::{DECIMAL_PRECISION_MAX, SqlType, StructField};

use super::cursor::Cursor;
use super::lex::Text;
use crate::error::{Error, sqlstate};

/// The hint of errors about unknown types.
const SUPPORTED: &str = "the types are boolean, smallint, integer, bigint, real, double precision, numeric, varchar, \
                         bytea, date, time, timestamp, timestamptz, interval, jsonb, arrays (integer[]) and structs \
                         (struct<a integer, b varchar>)";

/// The maximal digits of a `float(n)` that is a `real`, and of one that is a `double precision`.
const FLOAT_DIGITS_REAL: u64 = 24;
const FLOAT_DIGITS_DOUBLE: u64 = 53;

/// The maximal nesting of arrays and structs. It keeps recursion over a type within the stack.
const NESTING_MAX: usize = 16;

impl Cursor<'_> {
    /// Parses a column's type.
    pub(super) fn column_type(&mut self) -> Result<SqlType, Error> {
        let location = self.here();
        let mut closed = 0;
        let ty = self.nested_type(0, &mut closed)?;
        if closed > 0 {
            let message = "syntax error at or near \">\"";
            return Err(Error::user(sqlstate::SYNTAX_ERROR, message)
                .with_detail("more structs are closed than were opened")
                .at(self.text.position(location)));
        }
        Ok(ty)
    }

    /// Parses a type inside `depth` structs. `>>` closes two structs; `closed` counts those closed
    /// in advance.
    fn nested_type(&mut self, depth: usize, closed: &mut usize) -> Result<SqlType, Error> {
        let location = self.here();
        let located = |error: Error, cursor: &Self| error.at(cursor.text.position(location));
        let is_struct =
            self.peek_word().as_deref() == Some("STRUCT") && self.parser.peek_nth_token_ref(1).token == Token::Lt;
        let mut ty = if is_struct {
            if depth >= NESTING_MAX {
                return Err(located(nested_too_deeply(), self));
            }
            self.struct_type(depth + 1, closed)?
        } else {
            let written = self.parser.parse_data_type().map_err(|error| self.lift(error))?;
            column_type(&written).map_err(|error| located(error, self))?
        };
        while *closed == 0 && self.parser.consume_token(&Token::LBracket) {
            // A length is allowed but ignored, as in PostgreSQL.
            if let Token::Number(..) = self.parser.peek_token_ref().token {
                self.parser.advance_token();
            }
            self.expect(&Token::RBracket)?;
            ty = SqlType::Array(Box::new(ty));
        }
        if nesting(&ty) > NESTING_MAX {
            return Err(located(nested_too_deeply(), self));
        }
        Ok(ty)
    }

    /// Parses `struct<name type, …>`.
    fn struct_type(&mut self, depth: usize, closed: &mut usize) -> Result<SqlType, Error> {
        self.expect_words(&["STRUCT"])?;
        self.expect(&Token::Lt)?;
        let mut fields: Vec<StructField> = Vec::new();
        loop {
            let (name, location) = self.exact_name("the name of a field")?;
            if fields.iter().any(|field| field.name == name) {
                let message = format!("the field \"{name}\" is declared more than once");
                return Err(Error::user(sqlstate::DUPLICATE_COLUMN, message).at(self.text.position(location)));
            }
            let ty = self.nested_type(depth, closed)?;
            fields.push(StructField { name, ty });
            if *closed > 0 {
                *closed -= 1;
                break;
            }
            if self.parser.consume_token(&Token::Comma) {
                continue;
            }
            let closing = match &self.parser.peek_token_ref().token {
                Token::Gt => 1,
                Token::ShiftRight => 2,
                Token::CustomBinaryOperator(sign) if sign.bytes().all(|byte| byte == b'>') => sign.len(),
                _ => return Err(self.expected("\",\" or \">\"")),
            };
            self.parser.advance_token();
            *closed = closing - 1;
            break;
        }
        Ok(SqlType::Struct(fields))
    }
}

/// The nesting depth of arrays and structs in a type.
fn nesting(ty: &SqlType) -> usize {
    match ty {
        SqlType::Array(element) => 1 + nesting(element),
        SqlType::Struct(fields) => 1 + fields.iter().map(|field| nesting(&field.ty)).max().unwrap_or(0),
        _ => 0,
    }
}

fn nested_too_deeply() -> Error {
    Error::user(sqlstate::STATEMENT_TOO_COMPLEX, "the type is nested too deeply")
        .with_hint(format!("at most {NESTING_MAX} arrays and structs can be within each other; use jsonb"))
}

/// The column type that a written type names, if it is one of ours.
pub(crate) fn known_type(written: &DataType) -> Option<SqlType> {
    column_type(written).ok()
}

/// The type that a text names, as [`SqlType`] prints it.
pub(crate) fn named_type(written: &str) -> Option<SqlType> {
    let text = Text(written);
    let mut cursor = Cursor::new(text.tokens().ok()?, text, &[]);
    cursor.column_type().ok().filter(|_| cursor.at_end())
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
        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => numeric(info)?,
        DataType::Varchar(None)
        | DataType::CharacterVarying(None)
        | DataType::CharVarying(None)
        | DataType::Text
        | DataType::String(None) => SqlType::Varchar,
        DataType::Bytea => SqlType::Bytea,
        DataType::Date => SqlType::Date,
        DataType::Time(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Time,
        DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Timestamp,
        DataType::Timestamp(None, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => SqlType::Timestamptz,
        DataType::Interval { fields: None, precision: None } => SqlType::Interval,
        DataType::JSONB => SqlType::Jsonb,
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => SqlType::Array(Box::new(column_type(element)?)),
        DataType::Varchar(Some(_)) | DataType::CharacterVarying(Some(_)) | DataType::CharVarying(Some(_)) => {
            return Err(Error::unsupported("a varchar with a length is not supported yet").with_hint("use varchar"));
        }
        DataType::Timestamp(Some(_), _) => {
            return Err(Error::unsupported("a timestamp with a precision is not supported yet")
                .with_hint("use timestamp or timestamptz; both hold microseconds"));
        }
        DataType::Time(Some(_), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            return Err(Error::unsupported("a time with a precision is not supported yet")
                .with_hint("use time, which holds microseconds"));
        }
        DataType::Interval { .. } => {
            return Err(Error::unsupported("an interval with fields or a precision is not supported yet")
                .with_hint("use interval"));
        }
        other => return Err(unknown(other)),
    })
}

fn numeric(info: &ExactNumberInfo) -> Result<SqlType, Error> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(SqlType::Numeric),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let refused = |message: String| {
        let hint = format!("a precision is from 1 to {DECIMAL_PRECISION_MAX}, a scale from 0 to the precision");
        Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint(hint)
    };
    let precision = u8::try_from(precision).ok().filter(|precision| (1..=DECIMAL_PRECISION_MAX).contains(precision));
    let precision = precision.ok_or_else(|| refused(format!("numeric{info} has a precision that is not supported")))?;
    let scale = u8::try_from(scale).ok().filter(|scale| *scale <= precision);
    let scale = scale.ok_or_else(|| refused(format!("numeric{info} has a scale that is not supported")))?;
    Ok(SqlType::Decimal { precision, scale })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Result<SqlType, Error> {
        let text = Text(sql);
        let mut cursor = Cursor::new(text.tokens()?, text, &[]);
        let ty = cursor.column_type()?;
        cursor.expect_end()?;
        Ok(ty)
    }

    #[test]
    fn types_have_many_names() {
        for (written, printed) in [
            ("decimal", "numeric"),
            ("NUMERIC", "numeric"),
            ("dec(5)", "numeric(5,0)"),
            ("numeric(10, 2)", "numeric(10,2)"),
            ("decimal(75,75)", "numeric(75,75)"),
            ("time", "time without time zone"),
            ("time without time zone", "time without time zone"),
            ("interval", "interval"),
            ("int[]", "integer[]"),
            ("int[3]", "integer[]"),
            ("varchar[][]", "character varying[][]"),
            ("timestamp with time zone[]", "timestamp with time zone[]"),
            ("numeric(10,2)[]", "numeric(10,2)[]"),
            ("struct<a int>", "struct<a integer>"),
            ("STRUCT < A int, \"B\" varchar >", "struct<a integer, B character varying>"),
            (
                "struct<a int[], b struct<c decimal(3,1), d struct<e time[][]>>[]>[]",
                "struct<a integer[], b struct<c numeric(3,1), d struct<e time without time zone[][]>>[]>[]",
            ),
            ("struct<a struct<b struct<c int>>>", "struct<a struct<b struct<c integer>>>"),
            ("struct<a struct<b struct<c struct<d jsonb>>>>", "struct<a struct<b struct<c struct<d jsonb>>>>"),
        ] {
            assert_eq!(read(written).map(|ty| ty.to_string()).as_deref(), Ok(printed), "{written}");
        }
    }

    #[test]
    fn what_is_no_type_is_refused() {
        for (written, sqlstate) in [
            ("numeric(76)", "22023"),
            ("numeric(0)", "22023"),
            ("numeric(5,6)", "22023"),
            ("numeric(5,-1)", "22023"),
            ("time(3)", "0A000"),
            ("timetz", "0A000"),
            ("interval day to second", "0A000"),
            ("varchar(5)[]", "0A000"),
            ("nothing", "42704"),
            ("struct<a int", "42601"),
            ("struct<a>", "42601"),
            ("struct<>", "42704"),
            ("struct<a int>>", "42601"),
            ("struct<a struct<b int>>>", "42601"),
            ("struct<a int, a int>", "42701"),
            ("int[", "42601"),
        ] {
            assert_eq!(
                read(written).map_err(|error| error.sqlstate.into_owned()),
                Err(sqlstate.to_owned()),
                "{written}"
            );
        }
        let deep = format!("{}int{}", "struct<a ".repeat(17), ">".repeat(17));
        assert_eq!(read(&deep).map_err(|error| error.sqlstate.into_owned()), Err("54001".to_owned()));
        assert!(read(&format!("int{}", "[]".repeat(16))).is_ok());
        assert!(read(&format!("int{}", "[]".repeat(17))).is_err());
    }
}

//! Rows in the formats of COPY: text, CSV, or binary.
//!
//! This module quotes and escapes values, given the text that PostgreSQL prints for them.

use bytes::{BufMut, Bytes, BytesMut};
use datafusion::arrow::array::RecordBatch;
use pgwire::api::results::{FieldFormat, FieldInfo};
use weir_sql::error::{Error, sqlstate};
use weir_sql::output::Form;
use weir_sql::parser::CopyFormat;

use super::Rows;

/// The header of a binary COPY: a signature, no flags, no extension.
const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The trailer of a binary COPY: a row of -1 columns.
const BINARY_TRAILER: &[u8] = b"\xff\xff";

/// Returns the encoding of values in a format.
pub(crate) fn field_format(format: &CopyFormat) -> FieldFormat {
    if *format == CopyFormat::Binary { FieldFormat::Binary } else { FieldFormat::Text }
}

/// Returns the bytes to send ahead of the rows.
pub(crate) fn head(format: &CopyFormat, fields: &[FieldInfo]) -> Option<Bytes> {
    let mut out = BytesMut::new();
    match format {
        CopyFormat::Binary => return Some(Bytes::from_static(BINARY_HEADER)),
        CopyFormat::Text { header: true, delimiter, .. } => {
            for (index, field) in fields.iter().enumerate() {
                delimit(index, *delimiter, &mut out);
                escape(field.name().as_bytes(), *delimiter, &mut out);
            }
        }
        CopyFormat::Csv { header: true, delimiter, null, quote, escape, .. } => {
            for (index, field) in fields.iter().enumerate() {
                delimit(index, *delimiter, &mut out);
                let name = field.name().as_bytes();
                let quoted = needs_quotes(name, *delimiter, *quote, null) || is_end_marker(name, fields.len());
                put_csv(name, quoted, *quote, *escape, &mut out);
            }
        }
        _ => return None,
    }
    out.put_u8(b'\n');
    Some(out.freeze())
}

/// Returns the bytes to send after the rows.
pub(crate) fn tail(format: &CopyFormat) -> Option<Bytes> {
    (*format == CopyFormat::Binary).then(|| Bytes::from_static(BINARY_TRAILER))
}

/// Returns for each column whether it is always quoted.
///
/// # Errors
/// `42703` if FORCE_QUOTE names a column that the result does not have.
pub(crate) fn forced(format: &CopyFormat, fields: &[FieldInfo]) -> Result<Vec<bool>, Error> {
    match format {
        CopyFormat::Csv { force_quote: names, .. } => {
            if let Some(name) = names.iter().find(|name| !fields.iter().any(|field| field.name() == *name)) {
                let message = format!("column \"{name}\" does not exist");
                return Err(Error::user(sqlstate::UNDEFINED_COLUMN, message));
            }
            Ok(fields.iter().map(|field| names.iter().any(|name| name == field.name())).collect())
        }
        _ => Ok(vec![false; fields.len()]),
    }
}

/// The rows of a batch, each as one message of COPY.
pub(crate) struct CopyRows<'a> {
    rows: Rows,
    format: &'a CopyFormat,
    forced: &'a [bool],
    /// A value before it is escaped.
    value: BytesMut,
}

impl<'a> CopyRows<'a> {
    /// # Errors
    /// `XX000` if the columns of the batch are not the described ones.
    pub(crate) fn new(
        batch: &RecordBatch,
        described: &[FieldInfo],
        format: &'a CopyFormat,
        forced: &'a [bool],
    ) -> Result<CopyRows<'a>, Error> {
        Ok(CopyRows { rows: Rows::new(batch, described)?, format, forced, value: BytesMut::new() })
    }

    fn delimited(&mut self) -> Result<Bytes, Error> {
        let Rows { columns, buffer, next, .. } = &mut self.rows;
        for (index, column) in columns.iter().enumerate() {
            self.value.clear();
            let is_value = column.write(*next, Form::Text, &mut self.value)?;
            match self.format {
                CopyFormat::Text { delimiter, null, .. } => {
                    delimit(index, *delimiter, buffer);
                    if is_value { escape(&self.value, *delimiter, buffer) } else { buffer.put_slice(null.as_bytes()) }
                }
                CopyFormat::Csv { delimiter, null, quote, escape, .. } => {
                    delimit(index, *delimiter, buffer);
                    if is_value {
                        let quoted = self.forced[index]
                            || needs_quotes(&self.value, *delimiter, *quote, null)
                            || is_end_marker(&self.value, columns.len());
                        put_csv(&self.value, quoted, *quote, *escape, buffer);
                    } else {
                        buffer.put_slice(null.as_bytes());
                    }
                }
                CopyFormat::Binary => {}
            }
        }
        buffer.put_u8(b'\n');
        *next += 1;
        Ok(buffer.split().freeze())
    }
}

impl Iterator for CopyRows<'_> {
    type Item = Result<Bytes, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rows.next >= self.rows.count {
            return None;
        }
        if *self.format != CopyFormat::Binary {
            return Some(self.delimited());
        }
        let row = self.rows.next()?;
        Some(row.map(|row| {
            let mut out = BytesMut::with_capacity(size_of::<i16>() + row.data.len());
            out.put_i16(row.field_count);
            out.put_slice(&row.data);
            out.freeze()
        }))
    }
}

fn delimit(index: usize, delimiter: u8, out: &mut BytesMut) {
    if index > 0 {
        out.put_u8(delimiter);
    }
}

/// Writes a value of the text format, with a backslash before bytes that would end the value or the
/// row.
fn escape(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    for byte in value {
        let letter = match byte {
            b'\\' => b'\\',
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x0b => b'v',
            byte if *byte == delimiter => delimiter,
            byte => {
                out.put_u8(*byte);
                continue;
            }
        };
        out.put_slice(&[b'\\', letter]);
    }
}

fn needs_quotes(value: &[u8], delimiter: u8, quote: u8, null: &str) -> bool {
    value == null.as_bytes()
        || value.iter().any(|byte| *byte == delimiter || *byte == quote || matches!(byte, b'\n' | b'\r'))
}

/// Returns true for a value that would end the data if it stood alone on a line.
fn is_end_marker(value: &[u8], columns: usize) -> bool {
    columns == 1 && value == b"\\."
}

fn put_csv(value: &[u8], quoted: bool, quote: u8, escape: u8, out: &mut BytesMut) {
    if !quoted {
        return out.put_slice(value);
    }
    out.put_u8(quote);
    for byte in value {
        if *byte == quote || *byte == escape {
            out.put_u8(escape);
        }
        out.put_u8(*byte);
    }
    out.put_u8(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    #[test]
    fn text_is_escaped_with_backslashes() {
        assert_eq!(written(|out| escape("a\tb\\c\nd\rä".as_bytes(), b'\t', out)), "a\\tb\\\\c\\nd\\rä");
        assert_eq!(written(|out| escape(b"a|b\t", b'|', out)), "a\\|b\\t");
    }

    #[test]
    fn csv_is_quoted_where_it_must_be() {
        let csv = |value: &str| {
            let quoted = needs_quotes(value.as_bytes(), b',', b'"', "");
            written(|out| put_csv(value.as_bytes(), quoted, b'"', b'"', out))
        };
        assert_eq!(csv("plain"), "plain");
        assert_eq!(csv(""), "\"\"");
        assert_eq!(csv("a,b"), "\"a,b\"");
        assert_eq!(csv("say \"x\""), "\"say \"\"x\"\"\"");
        assert_eq!(csv("two\nlines"), "\"two\nlines\"");
    }
}

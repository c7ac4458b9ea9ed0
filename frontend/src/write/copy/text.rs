//! The text and CSV formats of COPY: bytes → the texts of rows.
//!
//! Bytes come in pieces of any length. A row's bytes are read once it is whole; its values go into
//! builders of columns, so no row is allocated.

use std::mem;

use datafusion::arrow::array::StringBuilder;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::CopyFormat;

use super::Wrong;

/// Reads rows of texts.
#[derive(Debug)]
pub(super) struct Reader {
    form: Form,
    /// Bytes of rows that are not whole.
    rest: Vec<u8>,
    /// Bytes of `rest` that were looked at.
    looked: usize,
    /// True if `looked` is within quotes.
    in_quotes: bool,
    /// True if the byte before `looked` escapes the next one.
    is_escaped: bool,
    /// The line at which the next row begins, from 1.
    line: u64,
    /// Line ends within the row that is not whole.
    lines: u64,
    skips_header: bool,
    /// True once the marker of the end has come.
    has_ended: bool,
    scratch: Vec<u8>,
}

/// How values are written.
#[derive(Debug)]
struct Form {
    delimiter: u8,
    null: Vec<u8>,
    /// The quote and the escape of CSV.
    csv: Option<(u8, u8)>,
}

/// Takes the values of rows.
#[derive(Debug)]
pub(super) struct Texts {
    /// The names of the columns.
    pub(super) names: Vec<String>,
    pub(super) columns: Vec<StringBuilder>,
    /// The line of each row.
    pub(super) lines: Vec<u64>,
}

impl Texts {
    pub(super) fn new(names: Vec<String>) -> Texts {
        let columns = names.iter().map(|_| StringBuilder::new()).collect();
        Texts { names, columns, lines: Vec::new() }
    }

    /// The bytes of all values.
    pub(super) fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.values_slice().len()).sum()
    }
}

impl Reader {
    pub(super) fn new(format: &CopyFormat) -> Option<Reader> {
        let (form, skips_header) = match format {
            CopyFormat::Text { delimiter, null, header } => {
                (Form { delimiter: *delimiter, null: null.clone().into_bytes(), csv: None }, *header)
            }
            CopyFormat::Csv { delimiter, null, header, quote, escape, .. } => {
                let csv = Some((*quote, *escape));
                (Form { delimiter: *delimiter, null: null.clone().into_bytes(), csv }, *header)
            }
            CopyFormat::Binary => return None,
        };
        Some(Reader {
            form,
            rest: Vec::new(),
            looked: 0,
            in_quotes: false,
            is_escaped: false,
            line: 1,
            lines: 0,
            skips_header,
            has_ended: false,
            scratch: Vec::new(),
        })
    }

    /// Takes bytes, and appends the rows that are whole now.
    ///
    /// # Errors
    /// `22P04` for a row that has not the columns, `22021` for bytes that are not UTF-8.
    pub(super) fn take(&mut self, bytes: &[u8], texts: &mut Texts) -> Result<(), Box<Wrong>> {
        self.rest.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(end) = self.row_end() {
            let row = mem::take(&mut self.rest);
            let outcome = self.row(trimmed(&row[begin..end]), texts);
            self.rest = row;
            outcome?;
            begin = end + 1;
        }
        self.rest.drain(..begin);
        self.looked -= begin;
        Ok(())
    }

    /// Reads the last row, which needs no line end.
    ///
    /// # Errors
    /// As [`Reader::take`].
    pub(super) fn end(&mut self, texts: &mut Texts) -> Result<(), Box<Wrong>> {
        if self.in_quotes {
            let error = Error::user(sqlstate::BAD_COPY_FILE_FORMAT, "unterminated CSV quoted field");
            return Err(Wrong::at(error, format!("line {}", self.line)));
        }
        let rest = mem::take(&mut self.rest);
        self.looked = 0;
        if rest.is_empty() { Ok(()) } else { self.row(trimmed(&rest), texts) }
    }

    /// The place of the line end of the next row. Goes on where it stopped.
    fn row_end(&mut self) -> Option<usize> {
        while let Some(byte) = self.rest.get(self.looked).copied() {
            self.looked += 1;
            let was_escaped = mem::replace(&mut self.is_escaped, false);
            match self.form.csv {
                None if byte == b'\\' => self.is_escaped = !was_escaped,
                // A backslash before a line end makes it part of the value.
                None if byte == b'\n' && was_escaped => self.lines += 1,
                None if byte == b'\n' => return Some(self.looked - 1),
                Some((quote, escape)) if self.in_quotes && byte == escape && escape != quote => {
                    self.is_escaped = !was_escaped;
                }
                Some((quote, _)) if byte == quote && !was_escaped => self.in_quotes = !self.in_quotes,
                Some(_) if byte == b'\n' && self.in_quotes => self.lines += 1,
                Some(_) if byte == b'\n' => return Some(self.looked - 1),
                _ => {}
            }
        }
        None
    }

    fn row(&mut self, row: &[u8], texts: &mut Texts) -> Result<(), Box<Wrong>> {
        let line = self.line;
        self.line += 1 + mem::take(&mut self.lines);
        if mem::take(&mut self.skips_header) || self.has_ended {
            return Ok(());
        }
        if row == b"\\." {
            self.has_ended = true;
            return Ok(());
        }
        let failed = |error: Error, texts: &Texts, column: Option<usize>| {
            let shown = String::from_utf8_lossy(&row[..row.len().min(100)]);
            match column.and_then(|place| texts.names.get(place)) {
                Some(name) => Wrong::at(error, format!("line {line}, column {name}")),
                None => Wrong::at(error, format!("line {line}: \"{shown}\"")),
            }
        };
        let mut rest = Some(row);
        for place in 0..texts.columns.len() {
            let Some(field) = rest else {
                let message = format!("missing data for column \"{}\"", texts.names[place]);
                return Err(failed(Error::user(sqlstate::BAD_COPY_FILE_FORMAT, message), texts, None));
            };
            let (is_null, after) = self.form.value(field, &mut self.scratch);
            rest = after;
            if is_null {
                texts.columns[place].append_null();
                continue;
            }
            match str::from_utf8(&self.scratch) {
                Ok(text) => texts.columns[place].append_value(text),
                Err(_) => {
                    let message = "invalid byte sequence for encoding \"UTF8\"";
                    let error = Error::user(sqlstate::CHARACTER_NOT_IN_REPERTOIRE, message);
                    return Err(failed(error, texts, Some(place)));
                }
            }
        }
        if rest.is_some() {
            let error = Error::user(sqlstate::BAD_COPY_FILE_FORMAT, "extra data after last expected column");
            return Err(failed(error, texts, None));
        }
        texts.lines.push(line);
        Ok(())
    }
}

impl Form {
    /// Writes the first value of some bytes to `out`. Returns true if it is NULL, and the bytes
    /// behind the delimiter, if there is one.
    fn value<'a>(&self, bytes: &'a [u8], out: &mut Vec<u8>) -> (bool, Option<&'a [u8]>) {
        out.clear();
        match self.csv {
            Some((quote, escape)) => self.csv_value(bytes, (quote, escape), out),
            None => self.text_value(bytes, out),
        }
    }

    fn text_value<'a>(&self, bytes: &'a [u8], out: &mut Vec<u8>) -> (bool, Option<&'a [u8]>) {
        let mut place = 0;
        while let Some(byte) = bytes.get(place).copied() {
            place += 1;
            if byte == self.delimiter {
                return (bytes[..place - 1] == *self.null, Some(&bytes[place..]));
            }
            if byte != b'\\' {
                out.push(byte);
                continue;
            }
            let Some(escaped) = bytes.get(place).copied() else {
                out.push(byte);
                break;
            };
            place += 1;
            out.push(match escaped {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                b'0'..=b'7' => number(&bytes[place - 1..], 8, 3, &mut place, 1),
                b'x' if bytes.get(place).is_some_and(u8::is_ascii_hexdigit) => {
                    number(&bytes[place..], 16, 2, &mut place, 0)
                }
                other => other,
            });
        }
        (bytes == self.null, None)
    }

    fn csv_value<'a>(&self, bytes: &'a [u8], (quote, escape): (u8, u8), out: &mut Vec<u8>) -> (bool, Option<&'a [u8]>) {
        let (mut place, mut in_quotes, mut was_quoted) = (0, false, false);
        while let Some(byte) = bytes.get(place).copied() {
            place += 1;
            let next = bytes.get(place).copied();
            if in_quotes && byte == escape && next.is_some_and(|next| next == quote || next == escape) {
                out.extend(next);
                place += 1;
            } else if byte == quote {
                in_quotes = !in_quotes;
                was_quoted = true;
            } else if byte == self.delimiter && !in_quotes {
                return (!was_quoted && *out == self.null, Some(&bytes[place..]));
            } else {
                out.push(byte);
            }
        }
        (!was_quoted && *out == self.null, None)
    }
}

/// Reads up to `most` digits. `place` moves behind them; `read` of them were passed already.
fn number(bytes: &[u8], radix: u32, most: usize, place: &mut usize, read: usize) -> u8 {
    let digits = bytes.iter().take(most).map_while(|byte| char::from(*byte).to_digit(radix));
    let (value, count) = digits.fold((0, 0), |(value, count), digit| (value * radix + digit, count + 1));
    *place += count - read;
    value.to_le_bytes()[0]
}

/// A row without the carriage return at its end.
fn trimmed(row: &[u8]) -> &[u8] {
    row.strip_suffix(b"\r").unwrap_or(row)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Array;

    use super::*;

    /// Rows joined by `;`, values by `|`. The bytes come in pieces of `step`.
    fn read(format: &CopyFormat, columns: usize, data: &str, step: usize) -> Result<String, String> {
        let mut reader = Reader::new(format).expect("a format of texts");
        let mut texts = Texts::new((0..columns).map(|place| format!("c{place}")).collect());
        let told = |wrong: Box<Wrong>| {
            let Wrong { error, place } = *wrong;
            format!("{}: {} ({})", error.sqlstate, error.message, place.unwrap_or_default())
        };
        for piece in data.as_bytes().chunks(step) {
            reader.take(piece, &mut texts).map_err(told)?;
        }
        reader.end(&mut texts).map_err(told)?;
        let rows = texts.lines.len();
        let columns: Vec<_> = texts.columns.iter_mut().map(StringBuilder::finish).collect();
        let row = |row: usize| {
            let cell = |column: &datafusion::arrow::array::StringArray| {
                if column.is_null(row) { "NULL".to_owned() } else { column.value(row).to_owned() }
            };
            columns.iter().map(cell).collect::<Vec<_>>().join("|")
        };
        Ok((0..rows).map(row).collect::<Vec<_>>().join(";"))
    }

    fn text() -> CopyFormat {
        CopyFormat::Text { delimiter: b'\t', null: "\\N".to_owned(), header: false }
    }

    fn csv(header: bool) -> CopyFormat {
        let (null, force_quote) = (String::new(), Vec::new());
        CopyFormat::Csv { delimiter: b',', null, header, quote: b'"', escape: b'"', force_quote }
    }

    #[test]
    fn texts_are_read_in_pieces_of_any_length() {
        for step in [1, 2, 3, 1000] {
            let given = "1\ta\\tb\\n\\\\\\x41\\101\n\\N\t\r\n3\té\\\nd\n\\.\nrest";
            assert_eq!(read(&text(), 2, given, step).as_deref(), Ok("1|a\tb\n\\AA;NULL|;3|é\nd"), "{step}");
            let given = "a,b\n1,\"x,\"\"y\"\"\nz\"\n,\"\"\r\n2,w\n";
            assert_eq!(read(&csv(true), 2, given, step).as_deref(), Ok("1|x,\"y\"\nz;NULL|;2|w"), "{step}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        let missing = "22P04: missing data for column \"c1\" (line 2: \"2\")";
        assert_eq!(read(&text(), 2, "1\ta\n2\n", 100).expect_err("a wrong row"), missing);
        let extra = "22P04: extra data after last expected column (line 3: \"3,b,c\")";
        assert_eq!(read(&csv(false), 2, "1,\"a\nb\"\n3,b,c\n", 100).expect_err("a wrong row"), extra);
        let open = "22P04: unterminated CSV quoted field (line 1)";
        assert_eq!(read(&csv(false), 2, "1,\"a\n", 100).expect_err("a wrong row"), open);
    }
}

//! The binary format of COPY: bytes → the values of rows.

use datafusion::scalar::ScalarValue;
use postgres_types::Type;
use weir_sql::error::{Error, sqlstate};

use super::Wrong;
use crate::query::{Raw, scalar};

/// The beginning of the data: a signature.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// The header: the signature, flags, and the length of an extension.
const HEADER_BYTES: usize = SIGNATURE.len() + 8;

/// Reads rows of values.
#[derive(Debug)]
pub(super) struct Reader {
    types: Vec<Type>,
    /// Bytes of a row that is not whole.
    rest: Vec<u8>,
    has_begun: bool,
    has_ended: bool,
    /// The number of the next row, from 1.
    row: u64,
}

/// Takes the values of rows.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// A list for each column; `None` is NULL.
    pub(super) columns: Vec<Vec<Option<ScalarValue>>>,
    pub(super) bytes: usize,
}

impl Reader {
    pub(super) fn new(types: Vec<Type>) -> Reader {
        Reader { types, rest: Vec::new(), has_begun: false, has_ended: false, row: 1 }
    }

    /// Takes bytes, and appends the rows that are whole now.
    ///
    /// # Errors
    /// `22P04` if they are not rows of the format, `22P03` if a value is none of its type.
    pub(super) fn take(&mut self, bytes: &[u8], values: &mut Values) -> Result<(), Box<Wrong>> {
        self.rest.extend_from_slice(bytes);
        if !self.has_begun && !self.begin()? {
            return Ok(());
        }
        let mut read = 0;
        while !self.has_ended {
            let row = self.row;
            let at = |error: Error| Wrong::at(error, format!("line {row}"));
            match self.next_row(read, values).map_err(at)? {
                Some(end) => read = end,
                None => break,
            }
        }
        self.rest.drain(..read);
        Ok(())
    }

    /// # Errors
    /// `22P04` if the data ends within a row, or without its marker.
    pub(super) fn end(&self) -> Result<(), Box<Wrong>> {
        if self.has_ended { Ok(()) } else { Err(malformed("unexpected EOF in COPY data").into()) }
    }

    /// Reads the header; returns false if it is not whole.
    fn begin(&mut self) -> Result<bool, Error> {
        let known = self.rest.len().min(SIGNATURE.len());
        if self.rest[..known] != SIGNATURE[..known] {
            return Err(malformed("COPY file signature not recognized"));
        }
        let Some(&[.., a, b, c, d]) = self.rest.first_chunk::<HEADER_BYTES>() else { return Ok(false) };
        let extension = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let Some(end) = HEADER_BYTES.checked_add(extension).filter(|end| *end <= self.rest.len()) else {
            return Ok(false);
        };
        self.rest.drain(..end);
        self.has_begun = true;
        Ok(true)
    }

    /// Reads the row at a place; returns the place behind it, or `None` if it is not whole.
    fn next_row(&mut self, begin: usize, values: &mut Values) -> Result<Option<usize>, Error> {
        let mut rest = &self.rest[begin..];
        let Some((count, after)) = rest.split_first_chunk::<2>() else { return Ok(None) };
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            self.has_ended = true;
            return Ok(Some(self.rest.len()));
        }
        if usize::try_from(count).ok() != Some(self.types.len()) {
            let message = format!("row field count is {count}, expected {}", self.types.len());
            return Err(malformed(&message));
        }
        rest = after;
        let mut fields = Vec::with_capacity(self.types.len());
        for _ in &self.types {
            let Some((length, after)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            rest = after;
            let length = i32::from_be_bytes(*length);
            if length == -1 {
                fields.push(None);
                continue;
            }
            let length = usize::try_from(length).map_err(|_| malformed("invalid field size"))?;
            let Some((field, after)) = rest.split_at_checked(length) else { return Ok(None) };
            fields.push(Some(field));
            rest = after;
        }
        values.columns.resize_with(self.types.len(), Vec::new);
        for ((ty, field), column) in self.types.iter().zip(&fields).zip(&mut values.columns) {
            column.push(field.map(|field| scalar(ty, Raw::Binary(field))).transpose()?);
            values.bytes += field.map_or(1, <[u8]>::len);
        }
        self.row += 1;
        Ok(Some(self.rest.len() - rest.len()))
    }
}

fn malformed(message: &str) -> Error {
    Error::user(sqlstate::BAD_COPY_FILE_FORMAT, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_in_pieces_of_any_length() {
        let mut data = [SIGNATURE, &[0; 8]].concat();
        for (number, text) in [(7_i32, Some("é")), (8, None)] {
            data.extend(2_i16.to_be_bytes());
            data.extend(4_i32.to_be_bytes());
            data.extend(number.to_be_bytes());
            match text {
                Some(text) => {
                    data.extend(i32::try_from(text.len()).expect("short").to_be_bytes());
                    data.extend(text.as_bytes());
                }
                None => data.extend((-1_i32).to_be_bytes()),
            }
        }
        for step in [1, 5, 1000] {
            let (mut reader, mut values) = (Reader::new(vec![Type::INT4, Type::TEXT]), Values::default());
            for piece in data.chunks(step) {
                reader.take(piece, &mut values).expect("rows");
            }
            assert_eq!(reader.end().expect_err("no marker").error.sqlstate, "22P04");
            reader.take(&[255, 255], &mut values).expect("the marker");
            reader.end().expect("the end");
            let [numbers, texts] = values.columns.as_slice() else { panic!("two columns") };
            assert_eq!(numbers[1], Some(ScalarValue::Int32(Some(8))));
            assert_eq!(texts[..], [Some(ScalarValue::Utf8(Some("é".to_owned()))), None]);
        }
        let mut reader = Reader::new(vec![Type::INT4]);
        assert_eq!(reader.take(b"1\n", &mut Values::default()).expect_err("a text").error.sqlstate, "22P04");
    }
}

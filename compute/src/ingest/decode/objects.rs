//! Finds the objects of a payload that has several, in an array or one after the other, as in
//! NDJSON.

use super::bad_record::{BadRecord, describe};
use super::json::Scanner;

/// The objects of a payload, in order.
pub(super) struct Several<'a> {
    scanner: Scanner<'a>,
    in_array: bool,
    first: bool,
}

impl<'a> Several<'a> {
    pub(super) fn new(payload: &'a str) -> Several<'a> {
        let mut scanner = Scanner::new(payload);
        scanner.skip_whitespace();
        let in_array = scanner.take(b'[');
        Several { scanner, in_array, first: true }
    }

    /// A scanner in front of the next object, which the caller has to leave behind it; `None` at
    /// the end.
    ///
    /// # Errors
    /// If something other than an object comes.
    pub(super) fn next(&mut self) -> Result<Option<&mut Scanner<'a>>, BadRecord> {
        let first = std::mem::replace(&mut self.first, false);
        let scanner = &mut self.scanner;
        scanner.skip_whitespace();
        if self.in_array {
            if scanner.take(b']') {
                scanner.skip_whitespace();
                return match scanner.peek() {
                    None => Ok(None),
                    Some(_) => Err(scanner.error("trailing characters").into()),
                };
            }
            if !first {
                scanner.expect(b',', "expected , or ]")?;
                scanner.skip_whitespace();
            }
        }
        match scanner.peek() {
            Some(b'{') => Ok(Some(scanner)),
            None if !self.in_array => Ok(None),
            _ if !self.in_array => Err(scanner.error("trailing characters").into()),
            _ => Err(BadRecord::NotAnObject { found: describe(scanner.value(1)?, scanner.text()) }),
        }
    }
}

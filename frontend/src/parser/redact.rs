//! Secrets leave no statement: a stored `CREATE TABLE` is shown with the values of secret options blanked out.

use super::lex::Text;
use super::{Statement, parse};
use crate::error::Error;

/// What stands in the place of a secret.
const REDACTED: &str = "'[REDACTED]'";

/// The statement as it was written, but for the values of options that `is_secret` names.
///
/// # Errors
/// Internal, if the text is not a `CREATE TABLE`: then nothing of it is shown.
pub(crate) fn redact(sql: &str, is_secret: impl Fn(&str) -> bool) -> Result<String, Error> {
    let parsed = parse(sql).map_err(|_| Error::internal("the stored statement cannot be read"))?;
    let [statement] = parsed.as_slice() else {
        return Err(Error::internal("the stored text is not one statement"));
    };
    let Statement::CreateTable(create) = &statement.statement else {
        return Err(Error::internal("the stored statement is not a CREATE TABLE"));
    };
    let text = Text(sql);
    let mut shown = String::with_capacity(sql.len());
    let mut copied = 0;
    let options = create.options.iter().chain(&create.format.options);
    for option in options.filter(|option| is_secret(&option.key)) {
        shown.push_str(&sql[copied..text.offset(option.value_span.start)]);
        shown.push_str(REDACTED);
        copied = text.offset(option.value_span.end);
    }
    shown.push_str(&sql[copied..]);
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_values_of_secrets_are_blanked_out() {
        let sql = "CREATE TABLE t (ä int) WITH (\n  password = 'it''s', -- the password\n  user = 'root',\n  \
                   nkey=`SUAB--C`) FORMAT PLAIN ENCODE JSON";
        let shown = redact(sql, |key| ["password", "nkey"].contains(&key)).expect("a CREATE TABLE");
        assert_eq!(
            shown,
            "CREATE TABLE t (ä int) WITH (\n  password = '[REDACTED]', -- the password\n  user = 'root',\n  \
             nkey='[REDACTED]') FORMAT PLAIN ENCODE JSON"
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_shown() {
        assert!(redact("CREATE TABLE t (password = 'secret'", |_| true).is_err());
    }
}

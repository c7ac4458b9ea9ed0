//! Edits the text of a stored `CREATE`. The values of secret options are redacted where the
//! text is shown; ALTER changes options, the types of columns, the list of columns and names.

use std::ops::Range;

use sqlparser::tokenizer::Location;
use weir_common::catalog::{Origin, RelationName};

use super::lex::Text;
use super::{CreateTable, Parsed, Statement, parse};
use crate::error::Error;
use crate::keywords::{qualified_name, quoted_identifier};

/// The text that replaces a secret.
const REDACTED: &str = "'[REDACTED]'";

/// Redacts the values of the options for which `is_secret` returns true.
///
/// # Errors
/// Internal, if the text is not a `CREATE TABLE`. Nothing of the text is shown then.
pub fn redact(sql: &str, is_secret: impl Fn(&str) -> bool) -> Result<String, Error> {
    let create = stored(sql)?;
    let options = create.options.iter().chain(create.format.iter().flat_map(|format| &format.options));
    let secrets = options.filter(|option| is_secret(&option.key));
    Ok(replace(sql, secrets.map(|option| (range(sql, option), REDACTED.to_owned()))))
}

/// Changes or adds options of WITH. `is_same` tells whether two spellings name the same option.
///
/// # Errors
/// Internal, if the text is not a `CREATE TABLE`.
pub fn amend<'a>(
    sql: &str,
    changes: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    is_same: impl Fn(&str, &str) -> bool,
) -> Result<String, Error> {
    let create = stored(sql)?;
    let quoted = |value: &str| format!("'{}'", value.replace('\'', "''"));
    let mut edits = Vec::new();
    for option in &create.options {
        if let Some((_, value)) = changes.clone().find(|(key, _)| is_same(key, &option.key)) {
            edits.push((range(sql, option), quoted(value)));
        }
    }
    let end = create.options.iter().map(|option| range(sql, option).end).max().unwrap_or_default();
    for (key, value) in changes {
        if !create.options.iter().any(|option| is_same(key, &option.key)) {
            edits.push((end..end, format!(", {key} = {}", quoted(value))));
        }
    }
    Ok(replace(sql, edits.into_iter()))
}

/// Adds a column; `written` is its name and type. Returns `None` if the statement names no columns.
///
/// # Errors
/// Internal, if the text is not a `CREATE TABLE`.
pub fn add_column(sql: &str, written: &str) -> Result<Option<String>, Error> {
    let create = stored(sql)?;
    let named = create.columns.iter().any(|column| column.origin == Origin::Payload);
    let end = create.definition_end.filter(|_| named).map(|end| Text(sql).offset(end));
    Ok(end.map(|end| replace(sql, std::iter::once((end..end, format!(", {written}"))))))
}

/// Changes the type of a column. Returns `None` if the statement does not name that type.
///
/// # Errors
/// Internal, if the text is not a `CREATE TABLE`.
pub fn retype(sql: &str, column: &str, written: &str) -> Result<Option<String>, Error> {
    let create = stored(sql)?;
    let span = create.columns.iter().find(|known| known.name == column).and_then(|known| known.ty_span);
    let range = span.map(|span| Text(sql).offset(span.start)..Text(sql).offset(span.end));
    Ok(range.map(|range| replace(sql, std::iter::once((range, written.to_owned())))))
}

/// Replaces the FORMAT clause, which is the statement's last.
///
/// # Errors
/// Internal, if the text is not a `CREATE TABLE`.
pub fn reformat(sql: &str, written: &str) -> Result<String, Error> {
    let format = stored(sql)?.format.ok_or_else(|| Error::internal("the stored statement has no format"))?;
    let start = Text(sql).offset(format.start);
    Ok(format!("{}{written}", &sql[..start]))
}

/// Gives the relation that a `CREATE` creates another name. Without a schema it is in `public`.
///
/// # Errors
/// Internal, if the text is no `CREATE`.
pub fn renamed(sql: &str, name: &RelationName) -> Result<String, Error> {
    let unreadable = || Error::internal("the stored statement cannot be read");
    let parsed = parse(sql).map_err(|_| unreadable())?.pop().ok_or_else(unreadable)?;
    let written = match &parsed.statement {
        Statement::CreateTable(create) => &create.name,
        Statement::CreateView(create) => &create.name,
        _ => return Err(unreadable()),
    };
    if written.relation() == *name {
        return Ok(sql.to_owned());
    }
    let range = Text(sql).offset(written.location)..Text(sql).offset(written.end);
    let name = if name.is_public() { quoted_identifier(&name.name) } else { qualified_name(name) };
    Ok(replace(sql, std::iter::once((range, name))))
}

/// Returns the text of a statement with schemas before names, given the locations of the names in
/// the script.
pub fn with_schemas(parsed: &Parsed, schemas: impl IntoIterator<Item = (Location, String)>) -> String {
    let edits = schemas.into_iter().map(|(location, schema)| {
        let place = Text(&parsed.script).offset(location) - parsed.range.start;
        (place..place, format!("{}.", quoted_identifier(&schema)))
    });
    let mut edits: Vec<_> = edits.collect();
    edits.sort_unstable_by_key(|(range, _)| range.start);
    replace(parsed.sql(), edits.into_iter())
}

/// Gives the columns that a `CREATE TABLE` defines these names, in their order.
///
/// # Errors
/// Internal, if the text is not a `CREATE TABLE` with such columns.
pub fn with_columns<'a>(sql: &str, names: impl Iterator<Item = &'a str>) -> Result<String, Error> {
    let (create, text) = (stored(sql)?, Text(sql));
    let tokens = text.tokens()?;
    let mut edits = Vec::new();
    for (column, name) in create.columns.iter().zip(names).filter(|(column, name)| column.name != *name) {
        let key = create.primary_key.iter().filter(|part| part.name == column.name);
        let mut places: Vec<_> = key.map(|part| part.location).chain([column.location]).collect();
        places.sort_unstable();
        // The key that is declared with the column has its place.
        places.dedup();
        for place in places {
            let token = tokens.iter().find(|token| token.span.start == place);
            let token = token.ok_or_else(|| Error::internal("the stored statement cannot be read"))?;
            edits.push((text.offset(place)..text.offset(token.span.end), quoted_identifier(name)));
        }
    }
    edits.sort_unstable_by_key(|(range, _)| range.start);
    Ok(replace(sql, edits.into_iter()))
}

/// Parses a `CREATE TABLE` of the catalog.
///
/// # Errors
/// Internal, if the text is not a `CREATE TABLE`.
pub fn stored(sql: &str) -> Result<CreateTable, Error> {
    let mut parsed = parse(sql).map_err(|_| Error::internal("the stored statement cannot be read"))?;
    match (parsed.pop().map(|parsed| parsed.statement), parsed.is_empty()) {
        (Some(Statement::CreateTable(create)), true) => Ok(*create),
        _ => Err(Error::internal("the stored text is not a CREATE TABLE")),
    }
}

/// The bytes of an option's value.
fn range(sql: &str, option: &super::WithOption) -> Range<usize> {
    let text = Text(sql);
    text.offset(option.value_span.start)..text.offset(option.value_span.end)
}

/// Replaces parts of a text. The edits must be in the order of the text.
fn replace(sql: &str, edits: impl Iterator<Item = (Range<usize>, String)>) -> String {
    let (mut edited, mut copied) = (String::with_capacity(sql.len()), 0);
    for (range, text) in edits {
        edited.push_str(&sql[copied..range.start]);
        edited.push_str(&text);
        copied = range.end;
    }
    edited.push_str(&sql[copied..]);
    edited
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
    fn altered_options_are_replaced_or_added() {
        let sql = "CREATE TABLE t (a int) WITH (subject = 'old', -- of old\n  ack_wait=10 ) FORMAT PLAIN ENCODE JSON";
        let is_same = |one: &str, other: &str| one.trim_end_matches(".sec") == other.trim_end_matches(".sec");
        let amended = |changes: &[(&str, &str)]| amend(sql, changes.iter().copied(), is_same).expect("a CREATE TABLE");
        assert_eq!(
            amended(&[("password", "it's"), ("ack_wait.sec", "20"), ("subject", "a.>,b")]),
            "CREATE TABLE t (a int) WITH (subject = 'a.>,b', -- of old\n  ack_wait='20', password = 'it''s' ) \
             FORMAT PLAIN ENCODE JSON"
        );
        assert_eq!(amended(&[]), sql);
    }

    #[test]
    fn columns_are_added_and_get_other_types() {
        let sql = "CREATE TABLE t (\n  ä struct<x int, y struct<z int>>, -- one\n  PRIMARY KEY (b),\n  b numeric(10, 2) NOT NULL,\n) \
                   INCLUDE header 'h' varchar AS h WITH (a = b) FORMAT PLAIN ENCODE JSON";
        let added = add_column(sql, "\"C\" int[]").expect("a CREATE TABLE").expect("it has columns");
        assert!(added.contains("b numeric(10, 2) NOT NULL, \"C\" int[],\n)"), "{added}");
        let wider = retype(&added, "b", "numeric").expect("a CREATE TABLE").expect("it has the column");
        assert!(wider.contains("b numeric NOT NULL, \"C\""), "{wider}");
        let nested = retype(&wider, "ä", "struct<x bigint>").expect("a CREATE TABLE").expect("it has the column");
        assert!(nested.contains("(\n  ä struct<x bigint>, -- one"), "{nested}");
        assert_eq!(retype(sql, "h", "bytea").expect("a CREATE TABLE"), None);
        let reformatted = reformat(sql, "FORMAT PLAIN ENCODE BYTES").expect("a CREATE TABLE");
        assert!(reformatted.ends_with("WITH (a = b) FORMAT PLAIN ENCODE BYTES"), "{reformatted}");
        let none = "CREATE TABLE t WITH (a = b) FORMAT PLAIN ENCODE JSON";
        assert_eq!(add_column(none, "a int").expect("a CREATE TABLE"), None);
        let inferred = none.replace("t WITH", "t (PRIMARY KEY (id)) INCLUDE offset WITH");
        assert_eq!(add_column(&inferred, "a int").expect("a CREATE TABLE"), None);
    }

    #[test]
    fn a_relation_gets_another_name() {
        let moved = |sql: &str, name: RelationName| renamed(sql, &name).expect("a CREATE");
        let renamed = |sql: &str, name: &str| moved(sql, RelationName::public(name));
        let table = "CREATE TABLE IF NOT EXISTS t(a int) WITH (a = b) FORMAT PLAIN ENCODE JSON";
        assert_eq!(renamed(table, "T"), table.replacen(" t(", " \"T\"(", 1));
        assert_eq!(renamed("CREATE VIEW public.\"ä b\" AS SELECT 1", "c"), "CREATE VIEW c AS SELECT 1");
        let other = moved("CREATE VIEW v AS SELECT 1", RelationName::new("My s", "v"));
        assert_eq!(other, "CREATE VIEW \"My s\".v AS SELECT 1");
        assert_eq!(moved(&other, RelationName::new("My s", "v")), other);
        assert_eq!(renamed(&other, "v"), "CREATE VIEW v AS SELECT 1");
        let keyed = "CREATE TABLE t (a int, \"b c\" int DEFAULT 1, PRIMARY KEY (\"b c\", a))";
        let with = |sql: &str, names: &[&str]| with_columns(sql, names.iter().copied()).expect("a CREATE TABLE");
        let expected = "CREATE TABLE t (x int, \"Y\" int DEFAULT 1, PRIMARY KEY (\"Y\", x))";
        assert_eq!(with(keyed, &["x", "Y"]), expected);
        assert_eq!(
            with("CREATE TABLE t (a int PRIMARY KEY, b int)", &["c", "b"]),
            "CREATE TABLE t (c int PRIMARY KEY, b int)"
        );
        let view = "create materialized view v as select 1 as v";
        assert_eq!((renamed(view, "w"), renamed(view, "v")), (view.replacen(" v ", " w ", 1), view.to_owned()));
    }

    #[test]
    fn schemas_are_put_before_names() {
        let script = "SELECT 'ä'; CREATE VIEW v AS SELECT t.a FROM\n t JOIN public.u USING (a)";
        let parsed = parse(script).expect("two statements").pop().expect("the second one");
        let Statement::CreateView(create) = &parsed.statement else { panic!("a view") };
        let tables = crate::syntax::tables(&create.query).into_iter().filter(|parts| parts.len() == 1);
        let schemas = tables.map(|parts| (parts[0].span.start, "My s".to_owned()));
        let expected = "CREATE VIEW v AS SELECT t.a FROM\n \"My s\".t JOIN public.u USING (a)";
        assert_eq!(with_schemas(&parsed, schemas), expected);
    }

    #[test]
    fn what_cannot_be_read_is_not_shown() {
        assert!(redact("CREATE TABLE t (password = 'secret'", |_| true).is_err());
    }
}

//! The types `regclass`, `regtype` and the like: oids that are parsed from names and printed as
//! names.
//!
//! A cast to one of these types becomes a call of the function with the type's name, whose result
//! is a marked oid. A cast from there to text, or sending it, becomes a call of PostgreSQL's output
//! function of the type, such as `regclassout`.

use std::collections::HashMap;
use std::sync::LazyLock;

use pgwire::api::Type;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{DATABASE, PG_CATALOG};
use weir_sql::types::names as type_names;

use super::cells::Cell;
use super::functions::{Catalogs, Declared, Kind, oid, strict};
use super::objects::{Lookup, quoted};
use super::{PROCEDURES, ROOT, ROOT_OID};

pub(super) fn functions() -> Vec<Declared> {
    use Kind::{Named, Oid, Text};
    vec![
        strict("oid", &[Oid], 1, Type::OID, |_, row| Ok(oid(row).into())),
        strict("regclass", &[Named], 1, Type::REGCLASS, |catalogs, row| Ok(relation(catalogs, row)?.into())),
        strict("regtype", &[Named], 1, Type::REGTYPE, |_, row| {
            required(row, "type", sqlstate::UNDEFINED_OBJECT, type_oid)
        }),
        strict("regproc", &[Named], 1, Type::REGPROC, |_, row| {
            required(row, "function", sqlstate::UNDEFINED_FUNCTION, procedure)
        }),
        strict("regprocedure", &[Named], 1, Type::REGPROCEDURE, |_, row| {
            required(row, "function", sqlstate::UNDEFINED_FUNCTION, signature)
        }),
        strict("regnamespace", &[Named], 1, Type::REGNAMESPACE, |catalogs, row| {
            let lookup = catalogs.lookup()?;
            required(row, "schema", sqlstate::INVALID_SCHEMA_NAME, |text| schema_oid(lookup, text))
        }),
        strict("regrole", &[Named], 1, Type::REGROLE, |_, row| {
            required(row, "role", sqlstate::UNDEFINED_OBJECT, role_oid)
        }),
        strict("regoper", &[Named], 1, Type::REGOPER, |_, row| {
            required(row, "operator", sqlstate::UNDEFINED_FUNCTION, |_| None)
        }),
        strict("regoperator", &[Named], 1, Type::REGOPERATOR, |_, row| {
            required(row, "operator", sqlstate::UNDEFINED_FUNCTION, |_| None)
        }),
        strict("regcollation", &[Named], 1, Type::REGCOLLATION, |_, row| {
            required(row, "collation", sqlstate::UNDEFINED_OBJECT, collation)
        }),
        strict("to_regclass", &[Text], 1, Type::REGCLASS, |catalogs, row| {
            Ok(text(row).map(|name| find(catalogs, name)).transpose()?.flatten().into())
        }),
        strict("to_regtype", &[Text], 1, Type::REGTYPE, |_, row| Ok(text(row).and_then(type_oid).into())),
        strict("to_regproc", &[Text], 1, Type::REGPROC, |_, row| Ok(text(row).and_then(procedure).into())),
        strict("to_regprocedure", &[Text], 1, Type::REGPROCEDURE, |_, row| Ok(text(row).and_then(signature).into())),
        strict("to_regnamespace", &[Text], 1, Type::REGNAMESPACE, |catalogs, row| {
            let lookup = catalogs.lookup()?;
            Ok(text(row).and_then(|text| schema_oid(lookup, text)).into())
        }),
        strict("to_regrole", &[Text], 1, Type::REGROLE, |_, row| Ok(text(row).and_then(role_oid).into())),
        strict("to_regcollation", &[Text], 1, Type::REGCOLLATION, |_, row| Ok(text(row).and_then(collation).into())),
        strict("regclassout", &[Oid], 1, Type::TEXT, |catalogs, row| {
            let lookup = catalogs.lookup()?;
            named(row, |oid| {
                lookup.by_oid(oid).map(|found| match lookup.is_visible(&found) {
                    true => quoted(&found.name),
                    false => format!("{}.{}", quoted(&found.schema), quoted(&found.name)),
                })
            })
        }),
        strict("regtypeout", &[Oid], 1, Type::TEXT, |_, row| {
            named(row, |oid| type_names::by_oid(oid).map(|_| type_names::format_type(oid, None)))
        }),
        strict("regprocout", &[Oid], 1, Type::TEXT, |_, row| named(row, |oid| Some(BY_OID.get(&oid)?.name.to_owned()))),
        strict("regprocedureout", &[Oid], 1, Type::TEXT, |_, row| {
            named(row, |oid| BY_OID.get(&oid).map(Procedure::signature))
        }),
        strict("regnamespaceout", &[Oid], 1, Type::TEXT, |catalogs, row| {
            let lookup = catalogs.lookup()?;
            named(row, |oid| lookup.namespace_by_oid(oid).map(|namespace| quoted(&namespace.name)))
        }),
        strict("regroleout", &[Oid], 1, Type::TEXT, |_, row| {
            named(row, |oid| (oid == ROOT_OID).then(|| ROOT.to_owned()))
        }),
        strict("regoperout", &[Oid], 1, Type::TEXT, |_, row| named(row, |_| None)),
        strict("regoperatorout", &[Oid], 1, Type::TEXT, |_, row| named(row, |_| None)),
        strict("regcollationout", &[Oid], 1, Type::TEXT, |_, row| {
            named(row, |oid| COLLATIONS.iter().find(|(known, _)| *known == oid).map(|(_, name)| quoted(name)))
        }),
    ]
}

/// Returns the name that is printed for an oid: `-` for 0, and the number if the object has no
/// name.
fn named(row: &[Cell], name: impl Fn(u32) -> Option<String>) -> Result<Cell, Error> {
    Ok(oid(row).map(|oid| if oid == 0 { "-".to_owned() } else { name(oid).unwrap_or_else(|| oid.to_string()) }).into())
}

fn text(row: &[Cell]) -> Option<&str> {
    match row.first() {
        Some(Cell::Text(text)) => Some(text),
        _ => None,
    }
}

/// Returns the oid in a row's first argument. A text is an oid in digits, or a name that must
/// exist.
fn required(row: &[Cell], kind: &str, code: &'static str, find: impl Fn(&str) -> Option<u32>) -> Result<Cell, Error> {
    let Some(text) = text(row) else { return Ok(oid(row).into()) };
    if let Some(oid) = digits(text) {
        return Ok(oid.into());
    }
    let missing = || Error::user(code, format!("{kind} \"{text}\" does not exist"));
    Ok(find(text).ok_or_else(missing)?.into())
}

fn digits(text: &str) -> Option<u32> {
    if text == "-" {
        return Some(0);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Returns the oid of the relation in a row's first argument, which is an oid or a name.
pub(super) fn relation(catalogs: &Catalogs, row: &[Cell]) -> Result<Option<u32>, Error> {
    let Some(text) = text(row) else { return Ok(oid(row)) };
    if let Some(oid) = digits(text) {
        return Ok(Some(oid));
    }
    match find(catalogs, text)? {
        Some(oid) => Ok(Some(oid)),
        None => Err(Error::user(sqlstate::UNDEFINED_TABLE, format!("relation \"{text}\" does not exist"))),
    }
}

fn find(catalogs: &Catalogs, text: &str) -> Result<Option<u32>, Error> {
    let (parts, lookup) = (identifiers(text)?, catalogs.lookup()?);
    let found = match parts.as_slice() {
        [name] => lookup.by_name(None, name),
        [schema, name] => lookup.by_name(Some(schema), name),
        [database, schema, name] if database == DATABASE => lookup.by_name(Some(schema), name),
        _ => None,
    };
    Ok(found.map(|found| found.oid))
}

/// Splits a name in SQL into its parts. Quotes are removed; unquoted parts become lower case.
pub(super) fn identifiers(text: &str) -> Result<Vec<String>, Error> {
    let invalid = || Error::user(sqlstate::INVALID_NAME, format!("invalid name syntax: \"{text}\""));
    let (mut parts, mut rest) = (Vec::new(), text.trim());
    loop {
        let part;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut after = quoted;
            loop {
                let end = after.find('"').ok_or_else(invalid)?;
                name.push_str(&after[..end]);
                after = &after[end + 1..];
                match after.strip_prefix('"') {
                    Some(more) => {
                        name.push('"');
                        after = more;
                    }
                    None => break,
                }
            }
            (part, rest) = (name, after.trim_start());
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            (part, rest) = (rest[..end].trim_end().to_lowercase(), &rest[end..]);
        }
        if part.is_empty() {
            return Err(invalid());
        }
        parts.push(part);
        match rest.strip_prefix('.') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => return Ok(parts),
            None => return Err(invalid()),
        }
    }
}

fn type_oid(text: &str) -> Option<u32> {
    type_names::named(text).map(|ty| ty.oid())
}

fn schema_oid(lookup: &Lookup, text: &str) -> Option<u32> {
    match identifiers(text).ok()?.as_slice() {
        [name] => lookup.namespace(name).map(|namespace| namespace.oid),
        _ => None,
    }
}

fn role_oid(text: &str) -> Option<u32> {
    (identifiers(text).ok()?.as_slice() == [ROOT]).then_some(ROOT_OID)
}

const COLLATIONS: [(u32, &str); 3] = [(100, "default"), (950, "C"), (951, "POSIX")];

fn collation(text: &str) -> Option<u32> {
    let parts = identifiers(text).ok()?;
    let name = in_pg_catalog(&parts)?;
    COLLATIONS.iter().find(|(_, known)| *known == name).map(|(oid, _)| *oid)
}

fn in_pg_catalog(parts: &[String]) -> Option<&str> {
    match parts {
        [name] => Some(name),
        [schema, name] if schema == PG_CATALOG => Some(name),
        _ => None,
    }
}

/// A row of `pg_proc`.
struct Procedure {
    name: &'static str,
    arguments: Vec<u32>,
}

impl Procedure {
    fn signature(&self) -> String {
        let arguments: Vec<String> = self.arguments.iter().map(|oid| type_names::format_type(*oid, None)).collect();
        format!("{}({})", self.name, arguments.join(","))
    }
}

static BY_OID: LazyLock<HashMap<u32, Procedure>> = LazyLock::new(|| {
    let rows = PROCEDURES.lines().skip(1).filter_map(|line| {
        let values: Vec<&'static str> = line.split('\t').collect();
        let arguments = values.last()?.split(' ').filter_map(|oid| oid.parse().ok()).collect();
        Some((values.first()?.parse().ok()?, Procedure { name: values.get(1)?, arguments }))
    });
    rows.collect()
});

/// Returns the function with a name, if there is only one.
fn procedure(text: &str) -> Option<u32> {
    let parts = identifiers(text).ok()?;
    let name = in_pg_catalog(&parts)?;
    let mut found = BY_OID.iter().filter(|(_, procedure)| procedure.name == name).map(|(oid, _)| *oid);
    found.next().filter(|_| found.next().is_none())
}

/// Returns the function with a name and types of arguments.
fn signature(text: &str) -> Option<u32> {
    let (name, arguments) = text.trim().strip_suffix(')')?.split_once('(')?;
    let parts = identifiers(name).ok()?;
    let name = in_pg_catalog(&parts)?;
    let written = arguments.split(',').map(str::trim).filter(|argument| !argument.is_empty());
    let arguments: Vec<u32> = written.map(type_oid).collect::<Option<_>>()?;
    let mut found = BY_OID.iter().filter(|(_, known)| known.name == name && known.arguments == arguments);
    found.next().map(|(oid, _)| *oid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_in_sql() {
        let parts = |text| identifiers(text).map(|parts| parts.join("|")).map_err(|error| error.sqlstate.into_owned());
        assert_eq!(parts("Users").as_deref(), Ok("users"));
        assert_eq!(parts("public.\"A.\"\"b\"").as_deref(), Ok("public|A.\"b"));
        for wrong in ["", "a.", ".a", "\"a", "\"a\"b"] {
            assert_eq!(parts(wrong).as_deref(), Err(&"42602".to_owned()), "{wrong}");
        }
    }

    #[test]
    fn functions_are_found_by_name_and_by_arguments() {
        assert_eq!(procedure("pg_catalog.array_in"), Some(750));
        assert_eq!(procedure("lower"), Some(870));
        assert_eq!(procedure("length"), None);
        assert_eq!(signature("length(text)"), Some(1317));
        assert_eq!(BY_OID.get(&1317).map(Procedure::signature).as_deref(), Some("length(text)"));
    }
}

//! The names of PostgreSQL's types, and the Arrow types of those that DataFusion does not know.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::planner::TypePlanner;
use postgres_types::Type;
use sqlparser::ast;

use super::arrow_type;
use crate::parser::{fold, identifiers};

/// A selection of PostgreSQL 15's rows of `pg_type`.
pub const ROWS: &str = include_str!("data/pg_type.tsv");

/// A row of `pg_type`.
#[derive(Debug)]
pub struct PgType {
    /// The type with this oid.
    pub ty: Type,
    /// `typname`.
    pub name: &'static str,
    /// The oid of the element type; 0 for a type that is not an array.
    pub element: u32,
    /// `typlen`.
    pub length: i32,
    /// `typbyval`.
    pub is_by_value: bool,
    /// `typalign`.
    pub alignment: &'static str,
    /// `typstorage`.
    pub storage: &'static str,
    /// `typcollation`.
    pub collation: u32,
}

static BY_OID: LazyLock<HashMap<u32, PgType>> = LazyLock::new(|| {
    let header: Vec<&str> = ROWS.lines().next().unwrap_or_default().split('\t').collect();
    let types = ROWS.lines().skip(1).filter_map(|line| {
        let values: Vec<&'static str> = line.split('\t').collect();
        let value = |name: &str| Some(*values.get(header.iter().position(|column| *column == name)?)?);
        let oid = value("oid")?.parse().ok()?;
        let known = PgType {
            ty: Type::from_oid(oid)?,
            name: value("typname")?,
            element: value("typelem")?.parse().ok()?,
            length: value("typlen")?.parse().ok()?,
            is_by_value: value("typbyval")? == "t",
            alignment: value("typalign")?,
            storage: value("typstorage")?,
            collation: value("typcollation")?.parse().ok()?,
        };
        Some((oid, known))
    });
    types.collect()
});

static BY_NAME: LazyLock<HashMap<&'static str, u32>> =
    LazyLock::new(|| BY_OID.iter().map(|(oid, known)| (known.name, *oid)).collect());

/// The type with an oid.
pub fn by_oid(oid: u32) -> Option<&'static PgType> {
    BY_OID.get(&oid)
}

/// The type with a name as it stands in `pg_type`.
pub fn by_name(name: &str) -> Option<Type> {
    by_oid(*BY_NAME.get(name)?).map(|known| known.ty.clone())
}

/// SQL's names of the types that have another name in `pg_type`.
const SQL_NAMES: [(&str, &str); 14] = [
    ("bool", "boolean"),
    ("int2", "smallint"),
    ("int4", "integer"),
    ("int8", "bigint"),
    ("float4", "real"),
    ("float8", "double precision"),
    ("varchar", "character varying"),
    ("bpchar", "character"),
    ("char", "\"char\""),
    ("time", "time without time zone"),
    ("timestamp", "timestamp without time zone"),
    ("timestamptz", "timestamp with time zone"),
    ("varbit", "bit varying"),
    ("timetz", "time with time zone"),
];

/// PostgreSQL's `format_type`: the name of a type, with its modifier if one is given.
pub fn format_type(oid: u32, modifier: Option<i32>) -> String {
    if oid == 0 {
        return "-".to_owned();
    }
    let Some(known) = by_oid(oid) else { return "???".to_owned() };
    if known.name.starts_with('_') && known.element != 0 {
        return format!("{}[]", format_type(known.element, modifier));
    }
    let modifier = modifier.filter(|modifier| *modifier >= 0);
    let sql = SQL_NAMES.iter().find(|(name, _)| *name == known.name).map_or(known.name, |(_, sql)| *sql);
    match (known.name, modifier) {
        ("numeric", Some(modifier)) => {
            let modifier = modifier - 4;
            format!("numeric({},{})", (modifier >> 16) & 0xffff, modifier & 0x7ff)
        }
        ("varchar" | "bpchar", Some(modifier)) => format!("{sql}({})", modifier - 4),
        ("bpchar", None) if modifier.is_none() => "character".to_owned(),
        ("time" | "timestamp" | "timestamptz", Some(digits)) => {
            let (first, rest) = sql.split_once(' ').unwrap_or((sql, ""));
            format!("{first}({digits}) {rest}")
        }
        ("interval", Some(modifier)) if modifier & 0xffff != 0xffff => format!("interval({})", modifier & 0xffff),
        _ => sql.to_owned(),
    }
}

/// The type that a text names in SQL: `int4`, `pg_catalog.int4`, `integer`, `varchar(3)[]`.
pub fn named(text: &str) -> Option<Type> {
    let text = text.trim();
    let schemas = ["pg_catalog.", "\"pg_catalog\"."];
    let text = schemas.iter().find_map(|schema| text.strip_prefix(schema)).unwrap_or(text);
    if let Some(element) = text.strip_suffix("[]") {
        let element = named(element)?.oid();
        return BY_OID
            .values()
            .find(|known| known.element == element && known.name.starts_with('_'))
            .map(|known| known.ty.clone());
    }
    if let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return by_name(quoted);
    }
    let lower = text.to_lowercase();
    // A precision is not part of the type.
    let (name, rest) = match (lower.find('('), lower.find(')')) {
        (Some(open), Some(close)) if open < close => {
            (lower[..open].trim().to_owned(), lower[close + 1..].trim().to_owned())
        }
        _ => (lower, String::new()),
    };
    let name = if rest.is_empty() { name } else { format!("{name} {rest}") };
    let name = match name.as_str() {
        "int" => "int4",
        "decimal" | "dec" => "numeric",
        "float" => "float8",
        // Without quotes, `char` names bpchar; only `"char"` names the type char.
        "char" | "character" | "nchar" => "bpchar",
        "char varying" => "varchar",
        name => SQL_NAMES.iter().find(|(_, sql)| *sql == name).map_or(name, |(name, _)| *name),
    };
    by_name(name)
}

/// Plans the types of PostgreSQL's catalogs, and types that are named with their schema.
#[derive(Debug)]
pub(crate) struct TypeNames;

impl TypePlanner for TypeNames {
    fn plan_type_field(&self, written: &ast::DataType) -> Result<Option<FieldRef>> {
        let ast::DataType::Custom(name, modifiers) = written else { return Ok(None) };
        let Some(parts) = identifiers(name).filter(|_| modifiers.is_empty()) else { return Ok(None) };
        let folded: Vec<String> = parts.iter().map(|part| fold(part)).collect();
        let ty = match folded.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [name] | ["pg_catalog", name] => by_name(name).or_else(|| named(name)),
            ["information_schema", "sql_identifier"] => Some(Type::NAME),
            ["information_schema", "cardinal_number"] => Some(Type::INT4),
            ["information_schema", "character_data" | "yes_or_no"] => Some(Type::VARCHAR),
            _ => None,
        };
        let planned = ty.filter(|ty| *ty != Type::RECORD).map(|ty| arrow_type(&ty));
        Ok(planned.map(|ty| Arc::new(Field::new("", ty, true))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_called_as_in_sql() {
        for (oid, modifier, name) in [
            (23, None, "integer"),
            (1043, Some(-1), "character varying"),
            (1043, Some(14), "character varying(10)"),
            (1700, Some(655_366), "numeric(10,2)"),
            (1231, Some(655_366), "numeric(10,2)[]"),
            (1184, Some(3), "timestamp(3) with time zone"),
            (18, None, "\"char\""),
            (22, None, "int2vector"),
            (1003, None, "name[]"),
            (0, None, "-"),
            (4_000_000_000, None, "???"),
        ] {
            assert_eq!(format_type(oid, modifier), name);
        }
    }

    #[test]
    fn types_are_found_by_what_sql_calls_them() {
        for (text, oid) in [
            ("int4", 23),
            ("pg_catalog.int4", 23),
            ("\"pg_catalog\".\"int4\"", 23),
            ("Integer", 23),
            ("int[]", 1007),
            ("varchar(3)", 1043),
            ("timestamp(3) with time zone", 1184),
            ("\"char\"", 18),
            ("char", 1042),
            ("_int4", 1007),
            ("double precision", 701),
        ] {
            assert_eq!(named(text).map(|ty| ty.oid()), Some(oid), "{text}");
        }
        assert_eq!(named("nothing"), None);
    }
}

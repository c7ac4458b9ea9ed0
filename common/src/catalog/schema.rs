//! Schemas, and the names of relations in them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Refused;
use crate::ids::SchemaId;

/// The schema that every cluster begins with.
pub const PUBLIC: &str = "public";

/// The schemas of the system. Users create nothing in them.
pub const SYSTEM_SCHEMAS: [&str; 5] =
    ["pg_catalog", "information_schema", "dead_letters", "weir_catalog", "rw_catalog"];

/// Prefixes of names that belong to schemas of the system.
const RESERVED: [&str; 2] = ["pg_", "weir_"];

/// A schema, in which the names of relations are unique.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Its id, never reused. It comes from the same counter as those of relations.
    pub id: SchemaId,
    /// Its name.
    pub name: String,
    /// `COMMENT ON SCHEMA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Schema {
    /// The schema `public`, which cannot be renamed or dropped.
    pub fn public() -> Schema {
        Schema { id: SchemaId::PUBLIC, name: PUBLIC.to_owned(), comment: None }
    }

    /// Checks that a schema can have a name.
    ///
    /// # Errors
    /// `42939` for a name that begins as those of the system, `42P06` for another one of these.
    pub fn check_name(name: &str) -> Result<(), Refused> {
        if let Some(prefix) = RESERVED.iter().find(|prefix| name.starts_with(**prefix)) {
            return Err(Refused::Reserved { name: name.to_owned(), prefix });
        }
        if SYSTEM_SCHEMAS.contains(&name) {
            return Err(Refused::SchemaTaken(name.to_owned()));
        }
        Ok(())
    }
}

/// The name of a relation: that of its schema, and its own.
///
/// It is shown as people write it: without the schema in `public`. No two names are shown alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelationName {
    /// The name of the schema.
    #[serde(default = "public", skip_serializing_if = "is_public")]
    pub schema: String,
    /// Lower case unless it was quoted.
    pub name: String,
}

impl RelationName {
    /// A relation of a schema.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> RelationName {
        RelationName { schema: schema.into(), name: name.into() }
    }

    /// A relation of the schema `public`.
    pub fn public(name: impl Into<String>) -> RelationName {
        RelationName::new(PUBLIC, name)
    }

    /// True if it is in the schema `public`.
    pub fn is_public(&self) -> bool {
        is_public(&self.schema)
    }
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With a dot it could be the name of another one, with its schema.
        if self.is_public() && !self.name.contains('.') {
            return f.write_str(&self.name);
        }
        write_part(f, &self.schema)?;
        f.write_str(".")?;
        write_part(f, &self.name)
    }
}

fn write_part(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let is_plain = name.chars().all(|part| part.is_alphanumeric() && !part.is_uppercase() || part == '_');
    if is_plain { f.write_str(name) } else { write!(f, "\"{}\"", name.replace('"', "\"\"")) }
}

fn public() -> String {
    PUBLIC.to_owned()
}

fn is_public(schema: &str) -> bool {
    schema == PUBLIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_are_shown_alike() {
        let names = [
            RelationName::public("t"),
            RelationName::public("My t"),
            RelationName::public("s.t"),
            RelationName::new("s", "t"),
            RelationName::new("s", "My t"),
            RelationName::new("a", "b.c"),
            RelationName::new("a.b", "c"),
            RelationName::new("a\"", "b"),
        ];
        let shown = names.map(|name| name.to_string());
        let expected = ["t", "My t", "public.\"s.t\"", "s.t", "s.\"My t\"", "a.\"b.c\"", "\"a.b\".c", "\"a\"\"\".b"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn names_of_the_system_are_refused() {
        let checked = |name| Schema::check_name(name).map_err(|refused| refused.sqlstate());
        assert_eq!(checked("s"), Ok(()));
        for name in ["pg_x", "pg_catalog", "weir_x", "weir_catalog"] {
            assert_eq!(checked(name), Err("42939"), "{name}");
        }
        for name in ["information_schema", "dead_letters", "rw_catalog"] {
            assert_eq!(checked(name), Err("42P06"), "{name}");
        }
    }
}

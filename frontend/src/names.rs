//! Names of relations in statements, and the schemas in which they are looked for.

use std::fmt;

use weir_common::catalog::{PUBLIC, RelationName};
use weir_sql::keywords::quoted_identifier;
use weir_sql::parser::DATABASE;

/// The schema of dead letters.
pub(crate) const DEAD_LETTERS: &str = "dead_letters";

/// The element of a search path that stands for the schema of the user's name.
const USER: &str = "$user";

/// The schemas in which a session looks for relations whose names say no schema, in this order.
/// Schemas that do not exist are passed over. System catalogs are found before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SearchPath(Vec<String>);

impl SearchPath {
    /// Parses a list of names, as SQL writes them; `None` if it is not one.
    pub(crate) fn parse(list: &str) -> Option<SearchPath> {
        let (mut schemas, mut rest) = (Vec::new(), list.trim_start());
        if rest.is_empty() {
            return Some(SearchPath(schemas));
        }
        loop {
            let (name, after) = element(rest)?;
            schemas.push(name);
            match after.trim_start() {
                "" => return Some(SearchPath(schemas)),
                more => rest = more.strip_prefix(',')?.trim_start(),
            }
        }
    }

    /// The path of stored statements.
    pub(crate) fn of_stored() -> SearchPath {
        SearchPath(vec![PUBLIC.to_owned()])
    }

    /// The path of a user.
    #[must_use]
    pub(crate) fn of_user(self, user: &str) -> SearchPath {
        let named = self.0.into_iter().map(|schema| if schema == USER { user.to_owned() } else { schema });
        SearchPath(named.collect())
    }

    /// Returns the schemas.
    pub(crate) fn schemas(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// The list that [`SearchPath::parse`] reads.
impl fmt::Display for SearchPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(|name| quoted_identifier(name)).collect();
        f.write_str(&names.join(", "))
    }
}

/// Splits the first name off a list.
fn element(list: &str) -> Option<(String, &str)> {
    let Some(quoted) = list.strip_prefix('"') else {
        let end = list.find(|part: char| part == ',' || part.is_whitespace()).unwrap_or(list.len());
        let (name, rest) = list.split_at(end);
        return (!name.is_empty() && !name.contains('"')).then(|| (name.to_lowercase(), rest));
    };
    let (mut name, mut rest) = (String::new(), quoted);
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

/// The meaning of a name whose schema is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The rows of a relation.
    Rows(RelationName),
    /// The dead letters of the relation that is shown so.
    Letters(String),
}

impl Meaning {
    /// Returns the meaning of a name in a schema.
    pub(crate) fn in_schema(schema: &str, name: &str) -> Meaning {
        match schema {
            DEAD_LETTERS => Meaning::Letters(name.to_owned()),
            _ => Meaning::Rows(RelationName::new(schema, name)),
        }
    }

    /// Returns the meaning of a name in a stored statement.
    pub(crate) fn stored(parts: &[String]) -> Option<Meaning> {
        let (schema, name) = split(parts)?;
        Some(Meaning::in_schema(schema.unwrap_or(PUBLIC), name))
    }

    /// Returns true if it is a relation, or its dead letters.
    pub(crate) fn is(&self, relation: &RelationName) -> bool {
        match self {
            Meaning::Rows(name) => name == relation,
            Meaning::Letters(shown) => *shown == relation.to_string(),
        }
    }
}

/// Divides the parts of a name into its schema, if it has one, and the rest; `None` for a name in
/// another database.
pub(crate) fn split(parts: &[String]) -> Option<(Option<&str>, &str)> {
    match parts {
        [name] => Some((None, name)),
        [schema, name] => Some((Some(schema), name)),
        [database, schema, name] if database == DATABASE => Some((Some(schema), name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(list: &str) -> Option<String> {
        SearchPath::parse(list).map(|path| path.of_user("Ann").schemas().collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn a_search_path_is_a_list_of_names() {
        assert_eq!(parsed("\"$user\", public").as_deref(), Some("Ann|public"));
        assert_eq!(parsed(" S ,\"S, \"\"x\"").as_deref(), Some("s|S, \"x"));
        assert_eq!((parsed("").as_deref(), parsed("\"\"").as_deref()), (Some(""), Some("")));
        for wrong in ["a,", ",a", "a b", "\"a", "\"a\"b", "a\"b", "a,,b"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
        for list in ["", "a, \"B c\"", "\"\"", "\"$user\", public"] {
            assert_eq!(SearchPath::parse(list).map(|path| path.to_string()).as_deref(), Some(list));
        }
    }

    #[test]
    fn stored_names_without_a_schema_are_public() {
        let meaning =
            |parts: &[&str]| Meaning::stored(&parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        assert_eq!(meaning(&["t"]), Some(Meaning::Rows(RelationName::public("t"))));
        assert_eq!(meaning(&["dev", "s", "t"]), Some(Meaning::Rows(RelationName::new("s", "t"))));
        assert_eq!(meaning(&["other", "s", "t"]), None);
        let letters = meaning(&["dead_letters", "s.t"]).expect("a name");
        assert!(letters.is(&RelationName::new("s", "t")) && !letters.is(&RelationName::public("s.t")));
    }
}

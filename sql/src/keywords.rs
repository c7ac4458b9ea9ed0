//! The words of PostgreSQL 15's grammar, and names that are none of them.

use std::sync::LazyLock;

use weir_common::catalog::RelationName;

/// One line for each word: the word, its category, and whether it can be a label without AS.
/// Ordered by the words.
const KEYWORDS: &str = include_str!("keywords.tsv");

/// The places where a word can be a name without quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Everywhere.
    Unreserved,
    /// As the name of a column.
    ColumnName,
    /// As the name of a type or function.
    TypeOrFunction,
    /// Nowhere.
    Reserved,
}

/// A word of the grammar.
#[derive(Clone, Copy, Debug)]
pub struct Keyword {
    /// In lower case.
    pub word: &'static str,
    /// The places where it can be a name.
    pub category: Category,
    /// True if it can be a label without AS.
    pub is_bare_label: bool,
}

static ALL: LazyLock<Vec<Keyword>> = LazyLock::new(|| {
    let keywords = KEYWORDS.lines().skip(1).filter_map(|line| {
        let mut parts = line.split('\t');
        let (word, category, is_bare_label) = (parts.next()?, parts.next()?, parts.next()? == "t");
        let category = match category {
            "U" => Category::Unreserved,
            "C" => Category::ColumnName,
            "T" => Category::TypeOrFunction,
            _ => Category::Reserved,
        };
        Some(Keyword { word, category, is_bare_label })
    });
    let mut keywords: Vec<Keyword> = keywords.collect();
    keywords.sort_by_key(|keyword| keyword.word);
    keywords
});

/// All words, in order.
pub fn all() -> &'static [Keyword] {
    &ALL
}

/// The category of a lower-case word, if the word is one of the grammar's.
pub(crate) fn category(word: &str) -> Option<Category> {
    let place = ALL.binary_search_by_key(&word, |keyword| keyword.word).ok()?;
    ALL.get(place).map(|keyword| keyword.category)
}

/// The name of a relation in SQL, with its schema.
pub fn qualified_name(name: &RelationName) -> String {
    format!("{}.{}", quoted_identifier(&name.schema), quoted_identifier(&name.name))
}

/// Quotes a name if it is not in lower case, or if the grammar could read it as a keyword.
pub fn quoted_identifier(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && matches!(category(name), None | Some(Category::Unreserved));
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

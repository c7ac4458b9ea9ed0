//! Changes of names, comments and plain views. None of them concerns what runs: jobs and statements
//! find relations by their ids.
//!
//! A change that is already made changes nothing, so that a call whose answer was lost can be
//! repeated; only a renamed column is not found again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::stored::Stored;
use super::{About, Column, Declaration, Entry, Graph, RelationKind};
use crate::ids::TableId;

/// A change of one entry or two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// `ALTER … RENAME TO`.
    Rename {
        /// The relation.
        relation: TableId,
        /// Its new name.
        to: String,
    },
    /// `ALTER … RENAME COLUMN`, of a view or of a table without a connector.
    RenameColumn {
        /// The relation.
        relation: TableId,
        /// The column.
        column: String,
        /// Its new name.
        to: String,
    },
    /// `ALTER MATERIALIZED VIEW … SWAP WITH`: each gets the other's name.
    Swap {
        /// One of them, and its name before.
        one: (TableId, String),
        /// The other one, and its name before.
        other: (TableId, String),
    },
    /// `COMMENT ON`.
    Comment {
        /// The relation.
        relation: TableId,
        /// A column of it; otherwise the comment is on the relation.
        column: Option<String>,
        /// The text; `None` removes it.
        comment: Option<String>,
    },
    /// `CREATE OR REPLACE VIEW`.
    Replace {
        /// The view.
        relation: TableId,
        /// Its new declaration.
        declared: Box<Declaration>,
    },
}

/// The reason why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The relation is not there any more, or is another one now.
    #[error("the relation was changed or dropped by somebody else meanwhile")]
    Gone,
    /// Another relation has the name.
    #[error("relation \"{0}\" already exists")]
    Taken(String),
    /// There is no such column.
    #[error("column \"{column}\" of relation \"{relation}\" does not exist")]
    NoColumn {
        /// The relation.
        relation: String,
        /// The column.
        column: String,
    },
    /// There is such a column already.
    #[error("column \"{column}\" of relation \"{relation}\" already exists")]
    ColumnTaken {
        /// The relation.
        relation: String,
        /// The column.
        column: String,
    },
    /// The name of the column tells which field of messages it holds.
    #[error("columns of {kind} \"{relation}\" cannot be renamed")]
    Field {
        /// Its kind.
        kind: &'static str,
        /// The relation.
        relation: String,
    },
    /// The expression of another column names it.
    #[error("cannot rename column \"{column}\" of \"{relation}\": column \"{generated}\" is generated from it")]
    Generated {
        /// The relation.
        relation: String,
        /// The column.
        column: String,
        /// The column whose expression seems to name it.
        generated: String,
    },
    /// A statement names the column.
    #[error("cannot rename column \"{column}\" of \"{relation}\": {kind} \"{reader}\" reads it")]
    Read {
        /// The relation.
        relation: String,
        /// The column.
        column: String,
        /// The kind of what reads it.
        kind: &'static str,
        /// Its name.
        reader: String,
    },
    /// A column of a replaced view would be missing, or have another name or type.
    #[error("cannot change or drop columns of view \"{0}\"")]
    Columns(String),
    /// A materialized view would go on by the definition that it was created with.
    #[error("cannot replace view \"{view}\": materialized view \"{reader}\" was made by its definition")]
    Used {
        /// The view.
        view: String,
        /// The materialized view.
        reader: String,
    },
    /// The view would read itself.
    #[error("infinite recursion detected in view \"{0}\"")]
    Cycle(String),
}

impl Refused {
    /// The SQLSTATE for SQL clients.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Refused::Gone => "40001",
            Refused::Taken(_) => "42P07",
            Refused::NoColumn { .. } => "42703",
            Refused::ColumnTaken { .. } => "42701",
            Refused::Field { .. } | Refused::Generated { .. } | Refused::Read { .. } => "0A000",
            Refused::Columns(_) => "42P16",
            Refused::Used { .. } => "2BP01",
            Refused::Cycle(_) => "42P17",
        }
    }

    /// Advice on how to react.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Refused::Gone => Some("try again"),
            Refused::Field { .. } => {
                Some("a column has the name of the field that it holds; a view can give it another one")
            }
            Refused::Read { .. } | Refused::Used { .. } => Some("drop that view, and create it again afterwards"),
            Refused::Columns(_) => Some("columns can only be added at the end; otherwise drop the view first"),
            _ => None,
        }
    }
}

impl Graph {
    /// The entries that a change adds or replaces; none if it is already made.
    ///
    /// # Errors
    /// [`Refused`], if it cannot be made.
    pub fn changed(&self, change: &Change) -> Result<Vec<Entry>, Refused> {
        let find = |id: &TableId| self.get(*id).ok_or(Refused::Gone);
        let changed = match change {
            Change::Rename { relation, to } => {
                let entry = find(relation)?;
                match self.named(to) {
                    Some(other) if other.id() != entry.id() => return Err(Refused::Taken(to.clone())),
                    _ => vec![renamed(entry, to)],
                }
            }
            Change::Swap { one, other } => {
                let (first, second) = (find(&one.0)?, find(&other.0)?);
                let names = (first.name(), second.name());
                if names == (&other.1, &one.1) {
                    return Ok(Vec::new());
                }
                if names != (&one.1, &other.1) {
                    return Err(Refused::Gone);
                }
                vec![renamed(first, second.name()), renamed(second, first.name())]
            }
            Change::RenameColumn { relation, column, to } => {
                vec![self.with_column_renamed(find(relation)?, column, to)?]
            }
            Change::Comment { relation, column, comment } => {
                vec![commented(find(relation)?, column.as_ref(), comment.as_ref())?]
            }
            Change::Replace { relation, declared } => vec![self.replaced(find(relation)?, declared)?],
        };
        Ok(changed.into_iter().filter(|entry| self.get(entry.id()) != Some(entry)).collect())
    }

    fn with_column_renamed(&self, entry: &Entry, column: &str, to: &str) -> Result<Entry, Refused> {
        let Entry { relation, .. } = entry;
        let named = |name: &str| relation.columns.iter().any(|column| column.name == name);
        let taken = named(to) || relation.hidden.iter().any(|hidden| hidden.name == to);
        let name = || relation.name.clone();
        if !named(column) {
            return Err(Refused::NoColumn { relation: name(), column: column.to_owned() });
        }
        if taken {
            return Err(Refused::ColumnTaken { relation: name(), column: to.to_owned() });
        }
        if entry.job.stream().is_some() {
            return Err(Refused::Field { kind: relation.kind.as_str(), relation: name() });
        }
        let generated = |known: &&Column| {
            known.constraints().and_then(|rules| rules.generated.as_ref()).is_some_and(|text| mentions(text, column))
        };
        if let Some(generated) = relation.columns.iter().find(generated) {
            let generated = generated.name.clone();
            return Err(Refused::Generated { relation: name(), column: column.to_owned(), generated });
        }
        for reader in self.dependents(entry.id()) {
            let reads = reader.job.plan.depends().iter().filter(|reads| reads.relation == entry.id());
            let named = reads.flat_map(|reads| &reads.columns).any(|read| read.name == column);
            // A materialized view does not list which columns it reads of a plain view.
            let through = reader.job.plan.through().iter().any(|named| named.relation == entry.id());
            if named || through {
                return Err(Refused::Read {
                    relation: name(),
                    column: column.to_owned(),
                    kind: reader.relation.kind.as_str(),
                    reader: reader.name().to_owned(),
                });
            }
        }
        let mut stored = Stored::from(entry.clone());
        let layouts = stored.layouts.iter_mut().flatten();
        for known in stored.declared.columns.iter_mut().chain(layouts).filter(|known| known.name == column) {
            to.clone_into(&mut known.name);
        }
        stored.about.columns_renamed = true;
        if let Some(comment) = stored.about.column_comments.remove(column) {
            stored.about.column_comments.insert(to.to_owned(), comment);
        }
        Ok(stored.into())
    }

    fn replaced(&self, entry: &Entry, declared: &Declaration) -> Result<Entry, Refused> {
        if entry.relation.kind != RelationKind::View
            || declared.kind != RelationKind::View
            || declared.name != entry.name()
        {
            return Err(Refused::Gone);
        }
        if declared.plan.depends().iter().any(|reads| self.get(reads.relation).is_none()) {
            return Err(Refused::Gone);
        }
        let same = |(before, after): (&Column, &Column)| before.name == after.name && before.ty == after.ty;
        let columns = &entry.relation.columns;
        if declared.columns.len() < columns.len() || !columns.iter().zip(&declared.columns).all(same) {
            return Err(Refused::Columns(declared.name.clone()));
        }
        let above = self.above(entry.id());
        if declared
            .plan
            .depends()
            .iter()
            .any(|reads| reads.relation == entry.id() || above.iter().any(|above| above.id() == reads.relation))
        {
            return Err(Refused::Cycle(declared.name.clone()));
        }
        if let Some(reader) = above.iter().find(|above| above.relation.kind == RelationKind::MaterializedView) {
            let (view, reader) = (declared.name.clone(), reader.name().to_owned());
            return Err(Refused::Used { view, reader });
        }
        let about = About { columns_renamed: false, ..About::clone(&entry.about) };
        Ok(Stored { declared: declared.clone(), about, ..Stored::from(entry.clone()) }.into())
    }
}

/// The entry under another name. Its consumers keep the name that they are known by.
fn renamed(entry: &Entry, to: &str) -> Entry {
    let consumers = entry.consumers().to_owned();
    let mut stored = Stored::from(entry.clone());
    to.clone_into(&mut stored.declared.name);
    Entry::from(stored).with_consumers(&consumers)
}

/// Returns true if an expression may name a column: it has the name as a word, or quoted.
fn mentions(expression: &str, column: &str) -> bool {
    let mut words = expression.split(|part: char| !part.is_alphanumeric() && part != '_' && part != '$');
    words.any(|word| word.to_lowercase() == column.to_lowercase())
        || expression.contains(&column.replace('"', "\"\""))
            && !column.chars().all(|part| part.is_alphanumeric() || part == '_' || part == '$')
}

fn commented(entry: &Entry, column: Option<&String>, comment: Option<&String>) -> Result<Entry, Refused> {
    let mut about = About::clone(&entry.about);
    match column {
        None => about.comment = comment.cloned(),
        Some(column) if entry.relation.columns.iter().any(|known| known.name == *column) => match comment {
            Some(comment) => drop(about.column_comments.insert(column.clone(), comment.clone())),
            None => drop(about.column_comments.remove(column)),
        },
        Some(column) => {
            return Err(Refused::NoColumn { relation: entry.name().to_owned(), column: column.clone() });
        }
    }
    Ok(Entry { about: Arc::new(about), ..entry.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::{Definition, Encode, Plan, Reads, Source};
    use crate::types::SqlType;

    fn column(name: &str) -> Column {
        Column { name: name.to_owned(), ty: SqlType::Integer, origin: crate::catalog::Origin::Expression }
    }

    fn entry(id: u32, kind: RelationKind, on: Option<u32>) -> Entry {
        let reads =
            |id| Reads { relation: TableId(id), name: format!("r{id}"), columns: vec![column("a")], expanded: None };
        let plan = match (kind, on) {
            (RelationKind::View, on) => Plan::Definition(Definition { names: on.map(reads).into_iter().collect() }),
            (_, Some(on)) => Plan::View(reads(on)),
            (_, None) => Plan::Stream(Source { options: BTreeMap::new(), encode: Encode::Json }),
        };
        let declared = Declaration {
            kind,
            name: format!("r{id}"),
            columns: vec![column("a"), column("b")],
            hidden: Vec::new(),
            primary_key: Vec::new(),
            plan,
            sql: String::new(),
        };
        Entry::new(TableId(id), declared, Vec::new(), None)
    }

    /// A source, two materialized views over it, a plain view over the first, and one over that.
    fn graph() -> Graph {
        use RelationKind::{MaterializedView, Source, View};
        [
            entry(1, Source, None),
            entry(2, MaterializedView, Some(1)),
            entry(3, MaterializedView, Some(1)),
            entry(4, View, Some(2)),
            entry(5, View, Some(4)),
        ]
        .into_iter()
        .collect()
    }

    fn applied(graph: &mut Graph, change: &Change) -> Result<usize, Refused> {
        let changed = graph.changed(change)?;
        let count = changed.len();
        changed.into_iter().for_each(|entry| graph.insert(entry));
        assert_eq!(
            graph.changed(change).map(|again| again.len()).unwrap_or_default(),
            0,
            "a repeated change does nothing"
        );
        Ok(count)
    }

    fn names(graph: &Graph) -> Vec<&str> {
        graph.entries().map(Entry::name).collect()
    }

    #[test]
    fn a_renamed_relation_keeps_its_consumers_and_dependents() {
        let mut graph = graph();
        let rename = |id, to: &str| Change::Rename { relation: TableId(id), to: to.to_owned() };
        assert_eq!(graph.changed(&rename(1, "r2")), Err(Refused::Taken("r2".to_owned())));
        assert_eq!(graph.changed(&rename(9, "x")), Err(Refused::Gone));
        assert_eq!(applied(&mut graph, &rename(1, "x")), Ok(1));
        assert_eq!((names(&graph), graph.readers(TableId(1)).count()), (vec!["x", "r2", "r3", "r4", "r5"], 2));
        let consumers = |graph: &Graph| graph.get(TableId(1)).map(|entry| entry.consumers().to_owned());
        assert_eq!(consumers(&graph).as_deref(), Some("r1"));
        assert_eq!(applied(&mut graph, &rename(1, "r1")), Ok(1));
        assert_eq!(graph.get(TableId(1)), Some(&entry(1, RelationKind::Source, None)));
    }

    #[test]
    fn names_are_exchanged_once() {
        let mut graph = graph();
        let swap = |one: (u32, &str), other: (u32, &str)| Change::Swap {
            one: (TableId(one.0), one.1.to_owned()),
            other: (TableId(other.0), other.1.to_owned()),
        };
        assert_eq!(applied(&mut graph, &swap((2, "r2"), (3, "r3"))), Ok(2));
        assert_eq!(names(&graph), ["r1", "r3", "r2", "r4", "r5"]);
        assert_eq!(graph.changed(&swap((2, "r2"), (4, "r4"))), Err(Refused::Gone));
        assert_eq!(graph.dependents(TableId(2)).len(), 1, "dependents stay with what they were made over");
    }

    #[test]
    fn columns_that_nothing_reads_can_be_renamed() {
        let mut graph = graph();
        let rename = |id, column: &str, to: &str| Change::RenameColumn {
            relation: TableId(id),
            column: column.to_owned(),
            to: to.to_owned(),
        };
        let comment =
            Change::Comment { relation: TableId(2), column: Some("b".to_owned()), comment: Some("it".to_owned()) };
        assert_eq!(applied(&mut graph, &comment), Ok(1));
        assert!(matches!(graph.changed(&rename(1, "b", "c")), Err(Refused::Field { .. })));
        assert!(matches!(graph.changed(&rename(2, "a", "c")), Err(Refused::Read { .. })));
        assert!(matches!(graph.changed(&rename(2, "x", "c")), Err(Refused::NoColumn { .. })));
        assert!(matches!(graph.changed(&rename(2, "b", "a")), Err(Refused::ColumnTaken { .. })));
        assert_eq!(applied(&mut graph, &rename(2, "b", "c")), Ok(1));
        let renamed = graph.get(TableId(2)).expect("it is there");
        assert_eq!(renamed.relation.columns[1].name, "c");
        assert_eq!(renamed.about.column_comments.get("c").map(String::as_str), Some("it"));
        assert_eq!((renamed.relation.layout(), renamed.relation.columns.len()), (0, 2));
    }

    #[test]
    fn a_view_is_replaced_by_one_with_its_columns() {
        let mut graph = graph();
        let replace = |id, on, more: &[&str]| {
            let mut declared = entry(id, RelationKind::View, Some(on)).declaration();
            declared.columns.extend(more.iter().map(|name| column(name)));
            Change::Replace { relation: TableId(id), declared: Box::new(declared) }
        };
        assert_eq!(applied(&mut graph, &replace(4, 3, &["c"])), Ok(1));
        assert_eq!(graph.dependents(TableId(3)).len(), 1);
        assert_eq!(graph.changed(&replace(4, 3, &[])), Err(Refused::Columns("r4".to_owned())));
        assert_eq!(graph.changed(&replace(4, 5, &["c"])), Err(Refused::Cycle("r4".to_owned())));
        assert_eq!(graph.changed(&replace(4, 9, &["c"])), Err(Refused::Gone));
        graph.insert(entry(6, RelationKind::MaterializedView, Some(5)));
        assert!(matches!(graph.changed(&replace(4, 3, &["c"])), Err(Refused::Used { .. })));
    }
}

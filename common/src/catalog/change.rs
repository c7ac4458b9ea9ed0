//! Changes of names, schemas, comments and plain views. None of them concerns what runs: jobs and
//! statements find relations by their ids.
//!
//! A change that is already made changes nothing, so that a call whose answer was lost can be
//! repeated; only a renamed column and a new schema are not found again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::stored::Stored;
use super::{About, Column, Declaration, Entry, Graph, RelationKind, RelationName, Schema};
use crate::ids::{SchemaId, TableId};

/// A change of one entry, of two, or of a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// `ALTER … RENAME TO`.
    Rename {
        /// The relation.
        relation: TableId,
        /// Its new name in its schema.
        to: String,
    },
    /// `ALTER … SET SCHEMA`.
    SetSchema {
        /// The relation.
        relation: TableId,
        /// The name of its new schema.
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
    /// `ALTER MATERIALIZED VIEW … SWAP WITH`: each gets the other's name, and its schema.
    Swap {
        /// One of them, and its name before.
        one: (TableId, RelationName),
        /// The other one, and its name before.
        other: (TableId, RelationName),
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
    /// `CREATE SCHEMA`.
    CreateSchema {
        /// Its name.
        name: String,
    },
    /// `ALTER SCHEMA … RENAME TO`.
    RenameSchema {
        /// The schema.
        schema: SchemaId,
        /// Its new name.
        to: String,
    },
    /// `COMMENT ON SCHEMA`.
    CommentSchema {
        /// The schema.
        schema: SchemaId,
        /// The text; `None` removes it.
        comment: Option<String>,
    },
}

/// The parts of a catalog that a change adds or replaces; none if it is already made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Entries.
    pub entries: Vec<Entry>,
    /// A schema. Its entries get its name, and need not be stored again.
    pub schema: Option<Schema>,
}

impl Changed {
    /// True if nothing changes.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.schema.is_none()
    }
}

/// The reason why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The relation is not there any more, or is another one now.
    #[error("the relation was changed or dropped by somebody else meanwhile")]
    Gone,
    /// Another relation has the name.
    #[error("relation \"{0}\" already exists")]
    Taken(RelationName),
    /// Another schema has the name.
    #[error("schema \"{0}\" already exists")]
    SchemaTaken(String),
    /// There is no such schema.
    #[error("schema \"{0}\" does not exist")]
    NoSchema(String),
    /// The name of a schema begins as those of the system.
    #[error("unacceptable schema name \"{name}\"")]
    Reserved {
        /// The name.
        name: String,
        /// Its beginning.
        prefix: &'static str,
    },
    /// The schema `public` keeps its name.
    #[error("cannot rename schema \"{0}\"")]
    Permanent(String),
    /// There is no such column.
    #[error("column \"{column}\" of relation \"{relation}\" does not exist")]
    NoColumn {
        /// The relation.
        relation: RelationName,
        /// The column.
        column: String,
    },
    /// There is such a column already.
    #[error("column \"{column}\" of relation \"{relation}\" already exists")]
    ColumnTaken {
        /// The relation.
        relation: RelationName,
        /// The column.
        column: String,
    },
    /// The name of the column tells which field of messages it holds.
    #[error("columns of {kind} \"{relation}\" cannot be renamed")]
    Field {
        /// Its kind.
        kind: &'static str,
        /// The relation.
        relation: RelationName,
    },
    /// The expression of another column names it.
    #[error("cannot rename column \"{column}\" of \"{relation}\": column \"{generated}\" is generated from it")]
    Generated {
        /// The relation.
        relation: RelationName,
        /// The column.
        column: String,
        /// The column whose expression seems to name it.
        generated: String,
    },
    /// A statement names the column.
    #[error("cannot rename column \"{column}\" of \"{relation}\": {kind} \"{reader}\" reads it")]
    Read {
        /// The relation.
        relation: RelationName,
        /// The column.
        column: String,
        /// The kind of what reads it.
        kind: &'static str,
        /// Its name, as it is shown.
        reader: String,
    },
    /// A column of a replaced view would be missing, or have another name or type.
    #[error("cannot change or drop columns of view \"{0}\"")]
    Columns(RelationName),
    /// A materialized view would go on by the definition that it was created with.
    #[error("cannot replace view \"{view}\": materialized view \"{reader}\" was made by its definition")]
    Used {
        /// The view.
        view: RelationName,
        /// The materialized view.
        reader: RelationName,
    },
    /// The view would read itself.
    #[error("infinite recursion detected in view \"{0}\"")]
    Cycle(RelationName),
}

impl Refused {
    /// The SQLSTATE for SQL clients.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Refused::Gone => "40001",
            Refused::Taken(_) => "42P07",
            Refused::SchemaTaken(_) => "42P06",
            Refused::NoSchema(_) => "3F000",
            Refused::Reserved { .. } => "42939",
            Refused::NoColumn { .. } => "42703",
            Refused::ColumnTaken { .. } => "42701",
            Refused::Field { .. } | Refused::Generated { .. } | Refused::Read { .. } | Refused::Permanent(_) => "0A000",
            Refused::Columns(_) => "42P16",
            Refused::Used { .. } => "2BP01",
            Refused::Cycle(_) => "42P17",
        }
    }

    /// More about the reason.
    pub fn detail(&self) -> Option<String> {
        match self {
            Refused::Reserved { prefix, .. } => {
                Some(format!("The prefix \"{prefix}\" is reserved for system schemas."))
            }
            _ => None,
        }
    }

    /// Advice on how to react.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Refused::Gone => Some("try again"),
            Refused::Permanent(_) => Some("relations get into another schema by ALTER … SET SCHEMA"),
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
    /// The parts of the catalog that a change adds or replaces. A new schema gets the id `next`.
    ///
    /// # Errors
    /// [`Refused`], if it cannot be made.
    pub fn changed(&self, change: &Change, next: SchemaId) -> Result<Changed, Refused> {
        let find = |id: &TableId| self.get(*id).ok_or(Refused::Gone);
        let changed = match change {
            Change::CreateSchema { name } => {
                let schema = Schema { id: next, name: name.clone(), comment: None };
                return self.schema_changed(schema);
            }
            Change::RenameSchema { schema, to } => {
                let schema = self.schema(*schema).ok_or(Refused::Gone)?;
                if schema.id.is_public() && schema.name != *to {
                    return Err(Refused::Permanent(schema.name.clone()));
                }
                return self.schema_changed(Schema { name: to.clone(), ..schema.clone() });
            }
            Change::CommentSchema { schema, comment } => {
                let schema = self.schema(*schema).ok_or(Refused::Gone)?;
                return self.schema_changed(Schema { comment: comment.clone(), ..schema.clone() });
            }
            Change::Rename { relation, to } => {
                let entry = find(relation)?;
                vec![self.moved(entry, self.schema_of(entry)?, to)?]
            }
            Change::SetSchema { relation, to } => {
                let (entry, schema) = (find(relation)?, self.schema_named(to));
                let schema = schema.ok_or_else(|| Refused::NoSchema(to.clone()))?;
                vec![self.moved(entry, schema, &entry.name().name)?]
            }
            Change::Swap { one, other } => {
                let (first, second) = (find(&one.0)?, find(&other.0)?);
                let names = (first.name(), second.name());
                if names == (&other.1, &one.1) {
                    return Ok(Changed::default());
                }
                if names != (&one.1, &other.1) {
                    return Err(Refused::Gone);
                }
                let of = |entry: &Entry, name: &Entry| Ok(renamed(entry, self.schema_of(name)?, &name.name().name));
                vec![of(first, second)?, of(second, first)?]
            }
            Change::RenameColumn { relation, column, to } => {
                vec![self.with_column_renamed(find(relation)?, column, to)?]
            }
            Change::Comment { relation, column, comment } => {
                vec![commented(find(relation)?, column.as_ref(), comment.as_ref())?]
            }
            Change::Replace { relation, declared } => vec![self.replaced(find(relation)?, declared)?],
        };
        let entries = changed.into_iter().filter(|entry| self.get(entry.id()) != Some(entry)).collect();
        Ok(Changed { entries, schema: None })
    }

    /// The change that adds a schema or replaces one.
    fn schema_changed(&self, schema: Schema) -> Result<Changed, Refused> {
        let before = self.schema(schema.id);
        if before.is_none_or(|before| before.name != schema.name) {
            Schema::check_name(&schema.name)?;
            if self.schema_named(&schema.name).is_some() {
                return Err(Refused::SchemaTaken(schema.name));
            }
        }
        let schema = (before != Some(&schema)).then_some(schema);
        Ok(Changed { entries: Vec::new(), schema })
    }

    fn schema_of(&self, entry: &Entry) -> Result<&Schema, Refused> {
        self.schema(entry.about.schema).ok_or(Refused::Gone)
    }

    /// The entry under another name.
    fn moved(&self, entry: &Entry, schema: &Schema, to: &str) -> Result<Entry, Refused> {
        let name = RelationName::new(&schema.name, to);
        match self.named(&name) {
            Some(other) if other.id() != entry.id() => Err(Refused::Taken(name)),
            _ => Ok(renamed(entry, schema, to)),
        }
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
                    reader: reader.name().to_string(),
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
            || declared.name != *entry.name()
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
            let (view, reader) = (declared.name.clone(), reader.name().clone());
            return Err(Refused::Used { view, reader });
        }
        let about = About { columns_renamed: false, ..About::clone(&entry.about) };
        Ok(Stored { declared: declared.clone(), about, ..Stored::from(entry.clone()) }.into())
    }
}

/// The entry under another name. Its consumers keep the name that they are known by.
fn renamed(entry: &Entry, schema: &Schema, to: &str) -> Entry {
    let consumers = entry.consumers().to_owned();
    let mut stored = Stored::from(entry.clone());
    stored.declared.name = RelationName::new(&schema.name, to);
    stored.about.schema = schema.id;
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
            return Err(Refused::NoColumn { relation: entry.name().clone(), column: column.clone() });
        }
    }
    Ok(Entry { about: Arc::new(about), ..entry.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::{Definition, Encode, OnError, Plan, Reads, Source};
    use crate::types::SqlType;

    fn column(name: &str) -> Column {
        Column { name: name.to_owned(), ty: SqlType::Integer, origin: crate::catalog::Origin::Expression }
    }

    fn entry(id: u32, kind: RelationKind, on: Option<u32>) -> Entry {
        let reads = |id| Reads {
            relation: TableId(id),
            name: RelationName::public(format!("r{id}")),
            columns: vec![column("a")],
            expanded: None,
        };
        let plan = match (kind, on) {
            (RelationKind::View, on) => Plan::Definition(Definition { names: on.map(reads).into_iter().collect() }),
            (_, Some(on)) => Plan::View(reads(on)),
            (_, None) => Plan::Stream(Source { options: BTreeMap::new(), encode: Encode::Json }),
        };
        let declared = Declaration {
            kind,
            name: RelationName::public(format!("r{id}")),
            columns: vec![column("a"), column("b")],
            hidden: Vec::new(),
            primary_key: Vec::new(),
            plan,
            on_error: OnError::default(),
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

    /// The id of a new schema.
    const NEXT: SchemaId = SchemaId(20);

    fn applied(graph: &mut Graph, change: &Change) -> Result<usize, Refused> {
        let changed = graph.changed(change, NEXT)?;
        let count = changed.entries.len();
        graph.apply(changed);
        assert!(
            graph.changed(change, SchemaId(21)).is_ok_and(|again| again.is_empty()) || is_new(change),
            "a repeated change does nothing"
        );
        Ok(count)
    }

    /// True for changes that are not found to be made.
    fn is_new(change: &Change) -> bool {
        matches!(change, Change::RenameColumn { .. } | Change::CreateSchema { .. })
    }

    fn refused(graph: &Graph, change: &Change) -> Refused {
        graph.changed(change, SchemaId(21)).expect_err("it cannot be made")
    }

    fn names(graph: &Graph) -> Vec<String> {
        graph.entries().map(|entry| entry.name().to_string()).collect()
    }

    #[test]
    fn a_renamed_relation_keeps_its_consumers_and_dependents() {
        let mut graph = graph();
        let rename = |id, to: &str| Change::Rename { relation: TableId(id), to: to.to_owned() };
        assert_eq!(refused(&graph, &rename(1, "r2")), Refused::Taken(RelationName::public("r2")));
        assert_eq!(refused(&graph, &rename(9, "x")), Refused::Gone);
        assert_eq!(applied(&mut graph, &rename(1, "x")), Ok(1));
        assert_eq!(
            (names(&graph), graph.readers(TableId(1)).count()),
            (["x", "r2", "r3", "r4", "r5"].map(str::to_owned).into(), 2)
        );
        let consumers = |graph: &Graph| graph.get(TableId(1)).map(|entry| entry.consumers().to_owned());
        assert_eq!(consumers(&graph).as_deref(), Some("r1"));
        assert_eq!(applied(&mut graph, &rename(1, "r1")), Ok(1));
        assert_eq!(graph.get(TableId(1)), Some(&entry(1, RelationKind::Source, None)));
    }

    #[test]
    fn names_are_exchanged_once() {
        let mut graph = graph();
        let swap = |one: (u32, &str), other: (u32, &str)| Change::Swap {
            one: (TableId(one.0), RelationName::public(one.1)),
            other: (TableId(other.0), RelationName::public(other.1)),
        };
        assert_eq!(applied(&mut graph, &swap((2, "r2"), (3, "r3"))), Ok(2));
        assert_eq!(names(&graph), ["r1", "r3", "r2", "r4", "r5"]);
        assert_eq!(refused(&graph, &swap((2, "r2"), (4, "r4"))), Refused::Gone);
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
        assert!(matches!(refused(&graph, &rename(1, "b", "c")), Refused::Field { .. }));
        assert!(matches!(refused(&graph, &rename(2, "a", "c")), Refused::Read { .. }));
        assert!(matches!(refused(&graph, &rename(2, "x", "c")), Refused::NoColumn { .. }));
        assert!(matches!(refused(&graph, &rename(2, "b", "a")), Refused::ColumnTaken { .. }));
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
        let r4 = || RelationName::public("r4");
        assert_eq!(refused(&graph, &replace(4, 3, &[])), Refused::Columns(r4()));
        assert_eq!(refused(&graph, &replace(4, 5, &["c"])), Refused::Cycle(r4()));
        assert_eq!(refused(&graph, &replace(4, 9, &["c"])), Refused::Gone);
        graph.insert(entry(6, RelationKind::MaterializedView, Some(5)));
        assert!(matches!(refused(&graph, &replace(4, 3, &["c"])), Refused::Used { .. }));
    }

    #[test]
    fn relations_are_unique_in_their_schemas() {
        let mut graph = graph();
        let create = |name: &str| Change::CreateSchema { name: name.to_owned() };
        let into = |id, to: &str| Change::SetSchema { relation: TableId(id), to: to.to_owned() };
        let rename = |id, to: &str| Change::Rename { relation: TableId(id), to: to.to_owned() };
        assert_eq!(refused(&graph, &into(1, "s")), Refused::NoSchema("s".to_owned()));
        assert_eq!(applied(&mut graph, &create("s")), Ok(0));
        assert_eq!(refused(&graph, &create("s")), Refused::SchemaTaken("s".to_owned()));
        assert_eq!(refused(&graph, &create("public")), Refused::SchemaTaken("public".to_owned()));
        assert!(matches!(refused(&graph, &create("pg_s")), Refused::Reserved { .. }));
        assert_eq!(applied(&mut graph, &into(1, "s")), Ok(1));
        assert_eq!(applied(&mut graph, &rename(2, "r1")), Ok(1));
        assert_eq!(refused(&graph, &into(2, "s")), Refused::Taken(RelationName::new("s", "r1")));
        assert_eq!(refused(&graph, &into(1, "public")), Refused::Taken(RelationName::public("r1")));
        assert_eq!(names(&graph), ["s.r1", "r1", "r3", "r4", "r5"]);
        let found = graph.named(&RelationName::new("s", "r1")).map(Entry::id);
        assert_eq!((found, graph.of_schema(NEXT).count()), (Some(TableId(1)), 1));
        let swap = Change::Swap {
            one: (TableId(1), RelationName::new("s", "r1")),
            other: (TableId(3), RelationName::public("r3")),
        };
        assert_eq!(applied(&mut graph, &swap), Ok(2));
        assert_eq!(names(&graph), ["r3", "r1", "s.r1", "r4", "r5"]);
        assert_eq!(graph.of_schema(NEXT).map(Entry::id).collect::<Vec<_>>(), [TableId(3)]);
    }

    #[test]
    fn entries_have_the_present_name_of_their_schema() {
        let mut graph = graph();
        let schema = |name: &str| Schema { id: NEXT, name: name.to_owned(), comment: None };
        graph.insert_schema(schema("s"));
        let created = entry(6, RelationKind::Source, None).in_schema(&schema("s")).with_consumers("s.r6");
        graph.insert(created.clone());
        let rename = |id, to: &str| Change::RenameSchema { schema: id, to: to.to_owned() };
        assert_eq!(refused(&graph, &rename(NEXT, "public")), Refused::SchemaTaken("public".to_owned()));
        assert_eq!(refused(&graph, &rename(SchemaId::PUBLIC, "s")), Refused::Permanent("public".to_owned()));
        assert_eq!(refused(&graph, &rename(SchemaId(9), "x")), Refused::Gone);
        assert_eq!(applied(&mut graph, &rename(NEXT, "t")), Ok(0));
        let renamed = graph.get(TableId(6)).expect("it is there");
        assert_eq!((renamed.name().to_string().as_str(), renamed.consumers()), ("t.r6", "s.r6"));
        // What is stored of the entry has the name of before.
        let stored = Graph::new(graph.schemas().cloned().collect::<Vec<_>>(), [created]);
        assert_eq!(stored.get(TableId(6)), Some(renamed));
        let comment = Change::CommentSchema { schema: NEXT, comment: Some("it".to_owned()) };
        assert_eq!(applied(&mut graph, &comment), Ok(0));
        assert_eq!(graph.schema_named("t").and_then(|schema| schema.comment.as_deref()), Some("it"));
    }
}

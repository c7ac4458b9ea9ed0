//! Statements about objects of the catalog that read no rows: relations are dropped, get other
//! names and comments.

use tokio::time::Instant;
use weir_common::catalog::{Change, Entry, RelationKind};
use weir_common::ids::TableId;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{self, Alter, Comment, Parsed, TableName};

use crate::bind;
use crate::catalog::{Catalog, placed};
use crate::frontend::{Answer, Frontend, alter_tag, check_kind, done, drop_tag, find, missing};
use crate::names::SearchPath;
use crate::notice::Notice;
use crate::session::Limits;

impl Frontend {
    /// Drops relations in one transaction, with what depends on them if `cascade` is set.
    pub(crate) async fn drop_relations(
        &self,
        parsed: &Parsed,
        (kind, names): (RelationKind, &[TableName]),
        (if_exists, cascade): (bool, bool),
        (path, limits): (&SearchPath, &Limits),
    ) -> Result<Answer, Error> {
        loop {
            let deadline = limits.retry_until(self.config.retry_max());
            let catalog = self.newest_catalog(limits).await?;
            let (mut ids, mut notices) = (Vec::new(), Vec::new());
            for name in names {
                let at = |error: Error| error.at(parsed.position(name.location));
                match catalog.named(path, name) {
                    Some(entry) => {
                        check_kind(&entry.relation, kind).map_err(at)?;
                        ids.push(entry.id());
                    }
                    None => {
                        let error = missing(&catalog, kind.as_str(), name);
                        if !if_exists {
                            return Err(at(error));
                        }
                        notices.push(Notice::new(error.message + ", skipping"));
                    }
                }
            }
            if !ids.is_empty() {
                match self.meta.drop_tables(&ids, cascade, deadline).await {
                    // Somebody else dropped one of them meanwhile: the names are looked up again.
                    Err(error) if error.sqlstate == sqlstate::UNDEFINED_TABLE => continue,
                    dropped => notices.extend(cascaded(&catalog, &ids, &dropped?)),
                }
            }
            return Ok(Answer::Done { tag: drop_tag(kind).into(), notices, changes: Vec::new() });
        }
    }

    /// Changes the name or the schema of a relation, or the name of a column; `None` if the
    /// statement changes something else.
    pub(crate) async fn alter_names(
        &self,
        parsed: &Parsed,
        alter: &Alter,
        (catalog, path, entry): (&Catalog, &SearchPath, &Entry),
        deadline: Instant,
    ) -> Result<Option<Answer>, Error> {
        let at = |location| move |error: Error| error.at(parsed.position(location));
        let (change, location) = match &alter.change {
            parser::Change::Rename(to) => (Change::Rename { relation: entry.id(), to: to.name.clone() }, to.location),
            parser::Change::RenameColumn(column, to) => {
                let (column, location) = (column.name.clone(), column.location);
                (Change::RenameColumn { relation: entry.id(), column, to: to.name.clone() }, location)
            }
            parser::Change::Swap(with) => {
                let other = find(catalog, path, parsed, with)?;
                check_kind(&other.relation, alter.kind).map_err(at(with.location))?;
                let named = |entry: &Entry| (entry.id(), entry.name().clone());
                (Change::Swap { one: named(entry), other: named(other) }, with.location)
            }
            parser::Change::SetSchema(schema) => {
                // Meta refuses one that does not exist.
                let name = TableName { schema: Some(schema.name.clone()), ..alter.name.clone() };
                if catalog.has_schema(&schema.name) {
                    placed(catalog, path, &name).map_err(at(schema.location))?;
                }
                (Change::SetSchema { relation: entry.id(), to: schema.name.clone() }, schema.location)
            }
            _ => return Ok(None),
        };
        // As in PostgreSQL, ALTER TABLE also renames what else has a name among tables.
        if alter.kind != RelationKind::Table {
            check_kind(&entry.relation, alter.kind).map_err(at(alter.name.location))?;
        }
        if let parser::Change::RenameColumn(_, to) = &alter.change {
            bind::check_column_name(&to.name).map_err(at(to.location))?;
        }
        self.meta.change_catalog(&change, deadline).await.map_err(at(location))?;
        Ok(Some(done(alter_tag(alter.kind))))
    }

    /// Stores or removes a comment.
    pub(crate) async fn comment(
        &self,
        parsed: &Parsed,
        comment: &Comment,
        (path, limits): (&SearchPath, &Limits),
    ) -> Result<Answer, Error> {
        let catalog = self.newest_catalog(limits).await?;
        let entry = find(&catalog, path, parsed, &comment.name)?;
        let mut place = parsed.position(comment.name.location);
        if let Some(kind) = comment.kind {
            check_kind(&entry.relation, kind).map_err(|error| error.at(place))?;
        }
        if let Some(column) = &comment.column {
            place = parsed.position(column.location);
        }
        let change = Change::Comment {
            relation: entry.id(),
            column: comment.column.as_ref().map(|column| column.name.clone()),
            comment: comment.text.clone(),
        };
        let deadline = limits.retry_until(self.config.retry_max());
        self.meta.change_catalog(&change, deadline).await.map_err(|error| error.at(place))?;
        Ok(done("COMMENT"))
    }
}

/// Returns the notice about what was dropped without being named, in PostgreSQL's words.
pub(crate) fn cascaded(catalog: &Catalog, named: &[TableId], dropped: &[TableId]) -> Option<Notice> {
    let others = dropped.iter().rev().filter(|id| !named.contains(id)).filter_map(|id| catalog.by_id(*id));
    let told: Vec<String> =
        others.map(|entry| format!("drop cascades to {} {}", entry.relation.kind.as_str(), entry.name())).collect();
    match told.as_slice() {
        [] => None,
        [one] => Some(Notice::new(one.clone())),
        many => {
            Some(Notice::new(format!("drop cascades to {} other objects", many.len())).with_detail(many.join("\n")))
        }
    }
}

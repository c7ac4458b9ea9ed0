//! Schemas: they are created, dropped, get other names and comments.

use tokio::time::Instant;
use weir_common::catalog::{Change, RelationName, SYSTEM_SCHEMAS, Schema};
use weir_common::ids::SchemaId;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{Parsed, SchemaCommand, SchemaName, TableName};

use crate::catalog::{Catalog, no_schema, placed};
use crate::frontend::{Answer, Frontend, done};
use crate::names::SearchPath;
use crate::notice::Notice;
use crate::objects::cascaded;
use crate::session::Limits;

impl Frontend {
    /// Runs a statement about schemas.
    pub(crate) async fn schema_command(
        &self,
        parsed: &Parsed,
        command: &SchemaCommand,
        limits: &Limits,
    ) -> Result<Answer, Error> {
        let deadline = limits.retry_until(self.config.retry_max());
        let (change, place) = match command {
            SchemaCommand::Create { name, if_not_exists } => {
                return self.create_schema(parsed, name, (*if_not_exists, command.tag()), deadline).await;
            }
            SchemaCommand::Drop { names, if_exists, cascade } => {
                return self.drop_schemas(parsed, names, (*if_exists, *cascade), limits).await;
            }
            SchemaCommand::Rename { name, to } => {
                let schema = found(&*self.newest_catalog(limits).await?, parsed, name, "rename")?.id;
                (Change::RenameSchema { schema, to: to.name.clone() }, to)
            }
            SchemaCommand::Comment { name, text } => {
                let schema = found(&*self.newest_catalog(limits).await?, parsed, name, "comment on")?.id;
                (Change::CommentSchema { schema, comment: text.clone() }, name)
            }
        };
        let changed = self.meta.change_catalog(&change, deadline).await;
        changed.map_err(|error| error.at(parsed.position(place.location)))?;
        Ok(done(command.tag()))
    }

    async fn create_schema(
        &self,
        parsed: &Parsed,
        name: &SchemaName,
        (if_not_exists, tag): (bool, &'static str),
        deadline: Instant,
    ) -> Result<Answer, Error> {
        match self.meta.change_catalog(&Change::CreateSchema { name: name.name.clone() }, deadline).await {
            Ok(()) => Ok(done(tag)),
            Err(error) if if_not_exists && error.sqlstate == sqlstate::DUPLICATE_SCHEMA => {
                let message = format!("schema \"{}\" already exists, skipping", name.name);
                let notices = vec![Notice::with_sqlstate(sqlstate::DUPLICATE_SCHEMA, message)];
                Ok(Answer::Done { tag: tag.into(), notices, changes: Vec::new() })
            }
            Err(error) => Err(error.at(parsed.position(name.location))),
        }
    }

    /// Drops schemas in one transaction, with what is in them if `cascade` is set.
    async fn drop_schemas(
        &self,
        parsed: &Parsed,
        names: &[SchemaName],
        (if_exists, cascade): (bool, bool),
        limits: &Limits,
    ) -> Result<Answer, Error> {
        loop {
            let deadline = limits.retry_until(self.config.retry_max());
            let catalog = self.newest_catalog(limits).await?;
            let (mut ids, mut notices): (Vec<SchemaId>, Vec<Notice>) = (Vec::new(), Vec::new());
            for name in names {
                if if_exists && !catalog.has_schema(&name.name) {
                    notices.push(Notice::new(format!("schema \"{}\" does not exist, skipping", name.name)));
                    continue;
                }
                ids.push(found(&catalog, parsed, name, "drop")?.id);
            }
            if !ids.is_empty() {
                match self.meta.drop_schemas(&ids, cascade, deadline).await {
                    // Somebody else dropped one of them meanwhile: the names are looked up again.
                    Err(error) if error.sqlstate == sqlstate::INVALID_SCHEMA_NAME => continue,
                    dropped => notices.extend(cascaded(&catalog, &[], &dropped?)),
                }
            }
            return Ok(Answer::Done { tag: "DROP SCHEMA".into(), notices, changes: Vec::new() });
        }
    }

    /// Returns the name of a relation that a statement creates, and the newest catalog. Needs no
    /// running term.
    ///
    /// # Errors
    /// The errors of [`placed`].
    pub(crate) async fn placed(
        &self,
        path: &SearchPath,
        parsed: &Parsed,
        name: &TableName,
        deadline: Instant,
    ) -> Result<(RelationName, Catalog), Error> {
        let catalog = self.meta.catalog(deadline).await?;
        let placed = placed(&catalog, path, name).map_err(|error| error.at(parsed.position(name.location)))?;
        Ok((placed, catalog))
    }
}

/// Finds a schema that a statement changes.
fn found<'a>(catalog: &'a Catalog, parsed: &Parsed, name: &SchemaName, verb: &str) -> Result<&'a Schema, Error> {
    let at = |error: Error| error.at(parsed.position(name.location));
    if SYSTEM_SCHEMAS.contains(&name.name.as_str()) {
        let message = format!("cannot {verb} schema {} because it is required by the database system", name.name);
        let state =
            if verb == "drop" { sqlstate::DEPENDENT_OBJECTS_STILL_EXIST } else { sqlstate::FEATURE_NOT_SUPPORTED };
        return Err(at(Error::user(state, message)));
    }
    catalog.schema(&name.name).ok_or_else(|| at(no_schema(&name.name)))
}

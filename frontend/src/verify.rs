//! `VERIFY MATERIALIZED VIEW`: compares the rows of a view with those of its query.
//!
//! The statement becomes a query that reads the view, and evaluates the view's query over its
//! inputs ([`RECOMPUTED`]), at one epoch: the one that the statement pins. It returns the rows that
//! differ, counted as in a multiset. There are none if the view is right.

use std::sync::Arc;

use weir_common::catalog::{Entry, RelationKind};
use weir_sql::error::{Error, sqlstate};
use weir_sql::keywords::qualified_name;
use weir_sql::parser::{self, Parsed, Statement};

use crate::catalog::Catalog;
use crate::frontend::{Frontend, check_kind, find};
use crate::session::Session;
use crate::system::RECOMPUTED;

impl Frontend {
    /// Replaces a VERIFY statement by the query that answers it.
    ///
    /// # Errors
    /// `0A000` if the query cannot be evaluated at the view's epoch, `55000` if the view is not
    /// kept up to date.
    pub(crate) async fn expand(&self, session: &Arc<Session>, parsed: Parsed) -> Result<Parsed, Error> {
        let Statement::Verify(name) = &parsed.statement else { return Ok(parsed) };
        let catalog = self.newest_catalog(&session.limits()).await?;
        let entry = find(&catalog, &session.search_path(), &parsed, name)?;
        let query = query(&catalog, entry).map_err(|error| error.at(parsed.position(name.location)))?;
        parser::parse(&query)?.pop().ok_or_else(|| Error::internal("the query is empty"))
    }
}

/// Returns the query whose rows are the differences of a view.
fn query(catalog: &Catalog, entry: &Entry) -> Result<String, Error> {
    check_kind(&entry.relation, RelationKind::MaterializedView)?;
    let name = entry.name();
    if let Some(failure) = catalog.job(entry).and_then(|job| job.failure) {
        let (state, error) = (failure.state(), failure.error);
        let message = format!("materialized view \"{name}\" {state} and is not kept up to date: {error}");
        return Err(Error::user(sqlstate::NOT_IN_PREREQUISITE_STATE, message));
    }
    let inputs = entry.job.inputs().filter_map(|input| catalog.by_id(input));
    if let Some(source) = inputs.into_iter().find(|input| input.relation.kind == RelationKind::Source) {
        let source = source.name();
        let message = format!("materialized view \"{name}\" cannot be verified: it reads source \"{source}\"");
        let hint = "the messages that the view has read are stored nowhere but in the stream, which goes on meanwhile; \
                    views over tables and views can be verified";
        return Err(Error::unsupported(message).with_hint(hint));
    }
    let columns: Vec<String> = entry.relation.columns.iter().map(|column| quoted(&column.name)).collect();
    let columns = columns.join(", ");
    let view = format!("SELECT {columns} FROM {}", qualified_name(name));
    let computed = format!("SELECT {columns} FROM {RECOMPUTED}.{}", quoted(&name.to_string()));
    let is_taken = entry.relation.columns.iter().any(|column| column.name == "difference");
    let difference = if is_taken { "verify_difference" } else { "difference" };
    let differing = |of: &str, less: &str, word: &str| {
        format!("SELECT '{word}' AS {difference}, {columns} FROM (({of}) EXCEPT ALL ({less})) AS differing ({columns})")
    };
    let (missing, unexpected) = (differing(&computed, &view, "missing"), differing(&view, &computed, "unexpected"));
    Ok(format!("{missing} UNION ALL {unexpected}"))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

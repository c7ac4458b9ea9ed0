//! Creating tables that statements write to: the expressions of their columns are checked, and
//! `CREATE TABLE … AS` fills them.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use futures::TryStreamExt;
use tokio::time::{Instant, sleep};
use tracing::warn;
use uuid::Uuid;
use weir_common::catalog::{Change, Declaration, RelationName};
use weir_common::ids::TableId;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{CreateTable, CreateTableAs, Parsed};
use weir_sql::types::stored_type;
use weir_sql::writes;

use super::holding::Holding;
use super::rows::visible;
use super::{PAUSE, Writes};
use crate::bind;
use crate::catalog::{Catalog, placed};
use crate::meta::Meta;
use crate::notice::Notice;
use crate::query::is_lost;
use crate::session::{Limits, Session};

impl Writes {
    /// Checks the defaults and the generation expressions of a table.
    ///
    /// # Errors
    /// The user's, at the clause.
    pub(crate) async fn check_expressions(
        &self,
        session: &Arc<Session>,
        parsed: &Parsed,
        create: &CreateTable,
        declared: &Declaration,
    ) -> Result<(), Error> {
        let catalog: Arc<Catalog> = Arc::default();
        for (place, column) in declared.columns.iter().enumerate() {
            let Some(check) = writes::check(&declared.columns, place)? else { continue };
            let written = &create.columns[place];
            let clause = written.generated.as_ref().or(written.default.as_ref());
            let position = clause.map_or(create.name.location, |clause| clause.location);
            let at = |error: Error| Error { position: None, ..error }.at(parsed.position(position));
            let what = if written.generated.is_some() { "column generation" } else { "DEFAULT" };
            if check.has_query {
                return Err(at(Error::unsupported(format!("cannot use subquery in {what} expression"))));
            }
            let draft = self.queries.planner.read(parsed.clone(), check.query).map_err(at)?;
            let prepared = self.prepare_query(session, &catalog, draft, &[]).await.map_err(at)?;
            if !prepared.parameters.is_empty() {
                return Err(at(Error::user(sqlstate::UNDEFINED_PARAMETER, "there is no parameter $1")));
            }
            let prepared = Arc::new(prepared);
            let plan = self.queries.plan(session, Arc::clone(&prepared), &catalog).await.map_err(at)?;
            check_plan(&plan, what, &column.name).map_err(at)?;
            if check.is_literal {
                let (_, values) =
                    self.queries.stream(session, &prepared, None, (Arc::clone(&catalog), None)).await.map_err(at)?;
                values.try_collect::<Vec<_>>().await.map_err(at)?;
            }
        }
        Ok(())
    }

    /// Runs `CREATE TABLE … AS`. The query runs to its end before the table is created, so a
    /// query that fails creates nothing. The table and its rows appear together; if the process is
    /// killed while the table is filled, it is left under a name that nobody knows.
    pub(crate) async fn create_table_as(
        &self,
        session: &Arc<Session>,
        parsed: &Parsed,
        create: &CreateTableAs,
        limits: &Limits,
    ) -> Result<(String, Vec<Notice>), Error> {
        let deadline = || limits.retry_until(self.retry_max);
        let at = |error: Error| error.at(parsed.position(create.name.location));
        let snapshot = self.snapshots.acquire(deadline()).await?;
        let name = placed(&snapshot.catalog, &session.search_path(), &create.name).map_err(at)?;
        if snapshot.catalog.entry(&name).is_some() {
            if create.if_not_exists {
                return Ok(skipped(&name));
            }
            return Err(at(Error::user(sqlstate::DUPLICATE_TABLE, format!("relation \"{name}\" already exists"))));
        }
        let draft = self.queries.planner.read(parsed.clone(), create.query.clone())?;
        let prepared = Arc::new(self.prepare_query(session, &snapshot.catalog, draft, &[]).await?);
        if !prepared.parameters.is_empty() {
            return Err(Error::user(sqlstate::UNDEFINED_PARAMETER, "there is no parameter $1"));
        }
        let catalog = Arc::clone(&snapshot.catalog);
        let (columns, batches) = self.queries.stream(session, &prepared, None, (catalog, Some(snapshot))).await?;
        let declared = declared(parsed, (create, &name), &columns.names, columns.schema.fields())?;
        let memory = self.queries.planner.reservation("rows of a statement");
        let mut rows: Vec<RecordBatch> = Vec::new();
        if create.with_data {
            let mut batches = batches;
            while let Some(batch) = batches.try_next().await? {
                memory.try_grow(batch.get_array_memory_size())?;
                rows.push(batch);
            }
        }
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let tag = if create.with_data { format!("SELECT {count}") } else { "CREATE TABLE AS".to_owned() };
        let made = if count == 0 {
            let response = self.meta.create_table(&declared, create.if_not_exists, None, deadline()).await;
            response.map(|response| response.created.then_some(response.notices))
        } else {
            match self.create_filled(declared, &rows, deadline).await {
                Err(error) if create.if_not_exists && error.sqlstate == sqlstate::DUPLICATE_TABLE => Ok(None),
                made => made.map(Some),
            }
        };
        memory.free();
        match made.map_err(|error| if error.sqlstate == sqlstate::DUPLICATE_TABLE { at(error) } else { error })? {
            Some(notices) => Ok((tag, notices.iter().map(Notice::new).collect())),
            None => Ok(skipped(&name)),
        }
    }

    /// Creates a table with rows. It gets its name once they are committed; until then it has one
    /// that nobody knows. Returns the notices of its creation.
    async fn create_filled(
        &self,
        mut declared: Declaration,
        rows: &[RecordBatch],
        deadline: impl Fn() -> Instant,
    ) -> Result<Vec<String>, Error> {
        let unknown = format!("weir_new_{}", Uuid::new_v4().simple());
        let to = std::mem::replace(&mut declared.name.name, unknown);
        let response = self.meta.create_table(&declared, false, None, deadline()).await?;
        let relation = TableId(response.table_id);
        let unnamed = Unnamed { meta: Arc::clone(&self.meta), table: Some(relation), patience: self.retry_max };
        self.fill(relation, rows, deadline()).await?;
        self.meta.change_catalog(&Change::Rename { relation, to }, deadline()).await?;
        unnamed.keep();
        Ok(response.notices)
    }

    /// Writes the rows of a table that nobody else has written to.
    async fn fill(&self, table: TableId, rows: &[RecordBatch], deadline: Instant) -> Result<(), Error> {
        loop {
            match self.fill_once(table, rows, deadline).await {
                // A statement whose term has ended is not committed, and never will be.
                Err(error)
                    if (is_lost(&error) || error.sqlstate == sqlstate::SERIALIZATION_FAILURE)
                        && Instant::now() + PAUSE < deadline =>
                {
                    sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn fill_once(&self, table: TableId, rows: &[RecordBatch], deadline: Instant) -> Result<(), Error> {
        let snapshot = self.snapshots.acquire(deadline).await?;
        let entry = snapshot
            .catalog
            .by_id(table)
            .ok_or_else(|| Error::user(sqlstate::UNDEFINED_TABLE, "the table was dropped while it was being filled"))?;
        let relation = Arc::clone(&entry.relation);
        let nodes = Arc::clone(&self.queries.planner.nodes);
        let mut holding = Holding::new(snapshot.placement(), Arc::clone(&relation), nodes);
        for batch in rows {
            holding.insert(&visible(&relation, batch.columns(), batch.num_rows())?).await?;
        }
        if let Some(statement) = holding.held().await? {
            self.meta.commit(holding.placement.term, &statement, deadline).await?;
        }
        Ok(())
    }
}

/// A table that has not got its name yet. It is dropped if its statement fails or is cancelled.
struct Unnamed {
    meta: Arc<Meta>,
    table: Option<TableId>,
    /// The time for which it is tried.
    patience: Duration,
}

impl Unnamed {
    fn keep(mut self) {
        self.table = None;
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        let Some(table) = self.table else { return };
        let (meta, deadline) = (Arc::clone(&self.meta), Instant::now() + self.patience);
        tokio::spawn(async move {
            if let Err(error) = meta.drop_tables(&[table], false, deadline).await {
                warn!(table = table.0, error = error.message, "a table that got no rows is left");
            }
        });
    }
}

/// The answer for a table that exists.
fn skipped(table: &RelationName) -> (String, Vec<Notice>) {
    let message = format!("relation \"{table}\" already exists, skipping");
    ("CREATE TABLE AS".to_owned(), vec![Notice::with_sqlstate(sqlstate::DUPLICATE_TABLE, message)])
}

/// The table for the rows of a query.
fn declared(
    parsed: &Parsed,
    (create, name): (&CreateTableAs, &RelationName),
    names: &[String],
    fields: &datafusion::arrow::datatypes::Fields,
) -> Result<Declaration, Error> {
    if let Some(extra) = create.columns.get(names.len()) {
        let message = "too many column names were specified";
        return Err(Error::user(sqlstate::SYNTAX_ERROR, message).at(parsed.position(extra.location)));
    }
    let mut columns = Vec::with_capacity(names.len());
    for (place, (name, field)) in names.iter().zip(fields).enumerate() {
        let name = create.columns.get(place).map_or(name, |named| &named.name);
        let at = |error: Error| error.at(parsed.position(create.name.location));
        if columns.iter().any(|(known, _)| known == name) {
            let message = format!("column \"{name}\" specified more than once");
            let error = Error::user(sqlstate::DUPLICATE_COLUMN, message);
            return Err(at(error.with_hint("give it another name: … AS name")));
        }
        let ty = stored_type(field).ok_or_else(|| {
            at(Error::unsupported(format!(
                "column \"{name}\" has the type {}, which cannot be stored",
                field.data_type()
            )))
        })?;
        columns.push((name.clone(), ty));
    }
    bind::of_query(name.clone(), columns).map_err(|error| error.at(parsed.position(create.name.location)))
}

/// Checks that a column's expression has one value for a row, and that a generated column has
/// always the same.
fn check_plan(plan: &LogicalPlan, what: &str, column: &str) -> Result<(), Error> {
    let mut outcome = Ok(());
    plan.apply(|node| {
        if matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Unnest(_)) {
            let message =
                format!("aggregate, window and set-returning functions are not allowed in {what} expressions");
            outcome = Err(Error::user(sqlstate::GROUPING_ERROR, message));
            return Ok(TreeNodeRecursion::Stop);
        }
        if what != "DEFAULT" {
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    if let Expr::ScalarFunction(call) = part
                        && call.func.signature().volatility != Volatility::Immutable
                    {
                        let message = "generation expression is not immutable";
                        outcome = Err(Error::user(sqlstate::INVALID_OBJECT_DEFINITION, message)
                            .with_detail(format!("column \"{column}\" uses {}", call.name())));
                        return Ok(TreeNodeRecursion::Stop);
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    outcome
}

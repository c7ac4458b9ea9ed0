//! The relations and jobs of one version of the catalog.
//!
//! This module owns the frontend's copy. Invariant: the copy's version goes back only if the
//! version in the metadata store did, because that was restored or created anew.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use weir_common::catalog::{Entry, Graph, JobState, Plan, RelationKind, RelationName, SYSTEM_SCHEMAS, Schema};
use weir_common::ids::TableId;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{Parsed, SchemaName, TableName};

use crate::names::{Meaning, SearchPath, split};

/// All entries and schemas at one version.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) version: u64,
    graph: Graph,
    names: BTreeMap<RelationName, TableId>,
    /// The same, by the names as they are shown.
    shown: BTreeMap<String, TableId>,
}

impl Catalog {
    pub(crate) fn new(
        version: u64,
        schemas: impl IntoIterator<Item = Schema>,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Catalog {
        let graph = Graph::new(schemas, entries);
        let names = graph.entries().map(|entry| (entry.name().clone(), entry.id())).collect();
        let shown = graph.entries().map(|entry| (entry.name().to_string(), entry.id())).collect();
        Catalog { version, graph, names, shown }
    }

    pub(crate) fn entry(&self, name: &RelationName) -> Option<&Entry> {
        self.by_id(*self.names.get(name)?)
    }

    /// Returns the entry whose name is shown so.
    pub(crate) fn shown(&self, name: &str) -> Option<&Entry> {
        self.by_id(*self.shown.get(name)?)
    }

    /// Returns the entry that a statement of a session with this search path names.
    pub(crate) fn named(&self, path: &SearchPath, name: &TableName) -> Option<&Entry> {
        match &name.schema {
            Some(schema) => self.entry(&RelationName::new(schema, &name.name)),
            None => path.schemas().find_map(|schema| self.entry(&RelationName::new(schema, &name.name))),
        }
    }

    /// Returns the entry whose rows or dead letters a query names.
    pub(crate) fn read(&self, path: &SearchPath, parts: &[String]) -> Option<&Entry> {
        let (schema, name) = split(parts)?;
        let found = |schema| match Meaning::in_schema(schema, name) {
            Meaning::Rows(name) => self.entry(&name),
            Meaning::Letters(shown) => self.shown(&shown),
        };
        match schema {
            Some(schema) => found(schema),
            None => path.schemas().find_map(found),
        }
    }

    /// Returns the schemas that are not the system's.
    pub(crate) fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.graph.schemas()
    }

    /// Returns the schema of a name, unless it is the system's.
    pub(crate) fn schema(&self, name: &str) -> Option<&Schema> {
        self.graph.schema_named(name)
    }

    /// Returns true if there is a schema of a name.
    pub(crate) fn has_schema(&self, name: &str) -> bool {
        SYSTEM_SCHEMAS.contains(&name) || self.schema(name).is_some()
    }

    /// Returns the entry with an id, if there is one.
    pub(crate) fn by_id(&self, id: TableId) -> Option<&Entry> {
        self.graph.get(id)
    }

    /// Returns all entries, ordered by name.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.names.values().filter_map(|id| self.graph.get(*id))
    }

    /// Returns the job that keeps a relation up to date. A source has one only after it has failed,
    /// since nobody reads it for views from then on.
    pub(crate) fn job<'a>(&'a self, entry: &'a Entry) -> Option<Job<'a>> {
        let failure = self.graph.failed(entry).map(|failed| Failure::of(entry, failed));
        let kind = entry.relation.kind;
        if !entry.has_job() || kind == RelationKind::Source && failure.is_none() {
            return None;
        }
        Some(Job { name: entry.name(), kind: kind.as_str(), failure })
    }

    /// Checks that the rows of a relation are those of one epoch: no job that fills it has stopped
    /// in the middle of one.
    ///
    /// # Errors
    /// `55000`, with the reason.
    pub(crate) fn check_whole(&self, entry: &Entry) -> Result<(), Error> {
        let Some(torn) = self.graph.torn(entry) else { return Ok(()) };
        let (kind, name, cause) = (entry.relation.kind.as_str(), entry.name(), torn.name());
        let failed = match torn.id() == entry.id() {
            true => "it has failed".to_owned(),
            false => format!("materialized view \"{cause}\", which it reads, has failed"),
        };
        let reason = Failure::of(torn, torn).error;
        let message = format!("{kind} \"{name}\" cannot be read, because {failed}: {reason}");
        let hint = format!(
            "drop \"{cause}\" and create it again, once its input is mended or with another on_error; its rows may lack a \
             part of the changes of the epoch in which it stopped"
        );
        Err(Error::user(sqlstate::NOT_IN_PREREQUISITE_STATE, message).with_hint(hint))
    }

    /// Returns the entries whose rows a query of this one reads.
    pub(crate) fn read_by<'a>(&'a self, entry: &'a Entry) -> Vec<&'a Entry> {
        self.graph.read_by(entry)
    }

    /// Returns the number of plain views between an entry and the rows that it reads.
    pub(crate) fn depth(&self, entry: &Entry) -> usize {
        self.graph.depth(entry)
    }
}

/// A job in the catalog. Its condition comes from [`crate::jobs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job<'a> {
    pub(crate) name: &'a RelationName,
    /// The kind of the relation that it keeps up to date.
    pub(crate) kind: &'static str,
    /// Present if the job does not run.
    pub(crate) failure: Option<Failure<'a>>,
}

/// The reason why a job does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure<'a> {
    pub(crate) error: Cow<'a, str>,
    /// True if it goes on with another version of Weir.
    pub(crate) waits: bool,
    /// In milliseconds since 1970; absent if an older version recorded the failure.
    pub(crate) since_ms: Option<u64>,
}

impl<'a> Failure<'a> {
    /// Why `entry` does not run: because of `stopped`, which is the entry itself or below it.
    fn of(entry: &Entry, stopped: &'a Entry) -> Failure<'a> {
        let unknown = match &stopped.job.plan {
            Plan::Unknown(unknown) => unknown.reason.as_str(),
            _ => "",
        };
        let (error, since_ms) = match &stopped.job.state {
            JobState::Failed { error, since_ms, .. } => {
                return Failure { error: error.into(), waits: false, since_ms: *since_ms };
            }
            JobState::Waiting { error, since_ms } => (error.as_str(), *since_ms),
            JobState::Running => (unknown, None),
        };
        let whose = if stopped.id() == entry.id() {
            "it".to_owned()
        } else {
            format!("\"{}\", which it reads", stopped.name())
        };
        let error = format!("this version of Weir cannot build {whose} ({error}): it goes on with a version that can");
        Failure { error: error.into(), waits: true, since_ms }
    }

    /// The words for what the job does.
    pub(crate) fn state(&self) -> &'static str {
        if self.waits { "waits" } else { "has failed" }
    }
}

/// Refuses what needs the plan or the rows of a relation that this version cannot keep up to date.
///
/// # Errors
/// `55000`.
pub(crate) fn check_known(entry: &Entry) -> Result<(), Error> {
    let failure = (!entry.job.is_running()).then(|| Failure::of(entry, entry)).filter(|failure| failure.waits);
    let Some(failure) = failure else { return Ok(()) };
    let message = format!("{} \"{}\" waits: {}", entry.relation.kind.as_str(), entry.name(), failure.error);
    let hint = "start all nodes with the version that created it, or drop it and create it again";
    Err(Error::user(sqlstate::NOT_IN_PREREQUISITE_STATE, message).with_hint(hint))
}

/// Returns the name of a relation that a statement creates: in the schema that the statement names,
/// or in the first one of the search path.
///
/// # Errors
/// `3F000` if there is no schema for it, `42501` if that is the system's.
pub(crate) fn placed(catalog: &Catalog, path: &SearchPath, name: &TableName) -> Result<RelationName, Error> {
    let schema = match &name.schema {
        Some(schema) => Some(schema.as_str()),
        None => path.schemas().find(|schema| catalog.has_schema(schema)),
    };
    let schema = schema.ok_or_else(|| {
        let error = Error::user(sqlstate::INVALID_SCHEMA_NAME, "no schema has been selected to create in");
        error.with_hint("name one, or SET search_path to one that exists")
    })?;
    if SYSTEM_SCHEMAS.contains(&schema) {
        let message = format!("permission denied to create \"{schema}.{}\"", name.name);
        let error = Error::user(sqlstate::INSUFFICIENT_PRIVILEGE, message);
        return Err(error.with_detail(format!("\"{schema}\" is a schema of the system")));
    }
    match catalog.has_schema(schema) {
        true => Ok(RelationName::new(schema, &name.name)),
        false => Err(no_schema(schema)),
    }
}

/// The error for a schema that is not there.
pub(crate) fn no_schema(name: &str) -> Error {
    Error::user(sqlstate::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist"))
}

/// Checks the schema that a statement names, if it names one.
///
/// # Errors
/// `3F000` if it does not exist.
pub(crate) fn in_schema<'a>(
    catalog: &Catalog,
    parsed: &Parsed,
    schema: Option<&'a SchemaName>,
) -> Result<Option<&'a str>, Error> {
    match schema {
        Some(schema) if !catalog.has_schema(&schema.name) => {
            Err(no_schema(&schema.name).at(parsed.position(schema.location)))
        }
        schema => Ok(schema.map(|schema| schema.name.as_str())),
    }
}

/// The newest catalog that this frontend has seen. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatalogCache(Arc<RwLock<Arc<Catalog>>>);

impl CatalogCache {
    pub(crate) fn newest(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Stores a catalog if it is newer than the stored one; returns the stored one. `before` is the
    /// catalog that was stored at the time of the request. If it is newer than the answer, and
    /// still stored, then the versions have gone back.
    pub(crate) fn offer(&self, before: &Arc<Catalog>, catalog: Catalog) -> Arc<Catalog> {
        let mut newest = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let went_back = catalog.version < before.version && Arc::ptr_eq(&newest, before);
        if catalog.version > newest.version || went_back {
            *newest = Arc::new(catalog);
        }
        Arc::clone(&newest)
    }
}

#[cfg(test)]
mod tests {
    use weir_common::catalog::{Declaration, Definition, OnError, Plan};
    use weir_common::ids::SchemaId;

    use super::*;

    #[test]
    fn the_version_only_goes_back_with_the_store() {
        let cache = CatalogCache::default();
        let before = cache.newest();
        assert_eq!(cache.offer(&before, Catalog::new(3, [], [])).version, 3);
        // Requested before the newer one arrived.
        assert_eq!(cache.offer(&before, Catalog::new(2, [], [])).version, 3);
        assert_eq!(cache.offer(&cache.newest(), Catalog::new(1, [], [])).version, 1);
        assert_eq!(cache.newest().version, 1);
    }

    #[test]
    fn names_are_looked_for_along_the_search_path() {
        let schema = Schema { id: SchemaId(1), name: "s".to_owned(), comment: None };
        let view = |id, name: &str| {
            let declared = Declaration {
                kind: RelationKind::View,
                name: RelationName::public(name),
                columns: Vec::new(),
                hidden: Vec::new(),
                primary_key: Vec::new(),
                plan: Plan::Definition(Definition { names: Vec::new() }),
                on_error: OnError::default(),
                sql: String::new(),
            };
            Entry::new(TableId(id), declared, Vec::new(), None)
        };
        let entries = [view(2, "t"), view(3, "t").in_schema(&schema), view(4, "u")];
        let catalog = Catalog::new(1, [schema], entries);
        let found = |path: &str, parts: &[&str]| {
            let path = SearchPath::parse(path).expect("a list");
            let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            catalog.read(&path, &parts).map(|entry| entry.id().0)
        };
        assert_eq!((found("s, public", &["t"]), found("public, s", &["t"])), (Some(3), Some(2)));
        assert_eq!((found("x, s, public", &["u"]), found("s", &["u"]), found("", &["t"])), (Some(4), None, None));
        assert_eq!((found("", &["s", "t"]), found("", &["dev", "public", "t"])), (Some(3), Some(2)));
        assert_eq!((found("", &["dead_letters", "s.t"]), found("dead_letters", &["t"])), (Some(3), Some(2)));
        assert!(catalog.has_schema("s") && catalog.has_schema("pg_catalog") && !catalog.has_schema("x"));
    }
}

//! The graph that entries form by depending on each other: jobs read relations, and plain views
//! name them.

use std::collections::BTreeMap;

use super::{Changed, Entry, JobState, RelationKind, RelationName, Schema};
use crate::ids::{SchemaId, TableId};

/// The entries of a catalog, by their ids, and its schemas. A job lies above the relations that it
/// reads.
///
/// Acyclic: an entry depends only on relations that were there before it. `CREATE OR REPLACE VIEW`
/// is refused if it would close a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    entries: BTreeMap<TableId, Entry>,
    schemas: BTreeMap<SchemaId, Schema>,
}

impl Default for Graph {
    fn default() -> Graph {
        Graph { entries: BTreeMap::new(), schemas: BTreeMap::from([(SchemaId::PUBLIC, Schema::public())]) }
    }
}

impl Graph {
    /// The entries and schemas of a catalog. The names of entries have the names of their schemas.
    pub fn new(schemas: impl IntoIterator<Item = Schema>, entries: impl IntoIterator<Item = Entry>) -> Graph {
        let mut graph = Graph::default();
        schemas.into_iter().for_each(|schema| graph.insert_schema(schema));
        entries.into_iter().for_each(|entry| graph.insert(entry));
        graph
    }

    /// All schemas that are not the system's, in the order of their ids.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.schemas.values()
    }

    /// A schema.
    pub fn schema(&self, id: SchemaId) -> Option<&Schema> {
        self.schemas.get(&id)
    }

    /// The schema of a name.
    pub fn schema_named(&self, name: &str) -> Option<&Schema> {
        self.schemas().find(|schema| schema.name == name)
    }

    /// The entries of a schema, in the order of their ids.
    pub fn of_schema(&self, schema: SchemaId) -> impl Iterator<Item = &Entry> {
        self.entries().filter(move |entry| entry.about.schema == schema)
    }

    /// Adds a schema, or replaces the one that has its id. Its entries get its name.
    pub fn insert_schema(&mut self, schema: Schema) {
        for entry in self.entries.values_mut().filter(|entry| entry.about.schema == schema.id) {
            *entry = entry.in_schema(&schema);
        }
        self.schemas.insert(schema.id, schema);
    }

    /// Adds or replaces what a change does.
    pub fn apply(&mut self, changed: Changed) {
        changed.schema.into_iter().for_each(|schema| self.insert_schema(schema));
        changed.entries.into_iter().for_each(|entry| self.insert(entry));
    }

    /// Removes a schema.
    pub fn remove_schema(&mut self, id: SchemaId) -> Option<Schema> {
        self.schemas.remove(&id)
    }

    /// An entry.
    pub fn get(&self, id: TableId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// All entries, in the order of their ids.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Adds an entry, or replaces the one that has its id. Its name gets the name of its schema, if
    /// that is known.
    pub fn insert(&mut self, entry: Entry) {
        let entry =
            self.schemas.get(&entry.about.schema).map_or_else(|| entry.clone(), |schema| entry.in_schema(schema));
        self.entries.insert(entry.id(), entry);
    }

    /// Removes an entry and returns it.
    pub fn remove(&mut self, id: TableId) -> Option<Entry> {
        self.entries.remove(&id)
    }

    /// The entries whose jobs read a relation themselves, in the order of their ids.
    pub fn readers(&self, id: TableId) -> impl Iterator<Item = &Entry> {
        self.entries().filter(move |entry| entry.job.inputs().any(|input| input == id))
    }

    /// The entry of a name.
    pub fn named(&self, name: &RelationName) -> Option<&Entry> {
        self.entries().find(|entry| entry.name() == name)
    }

    /// The entries that cannot exist without a relation themselves, in the order of their names:
    /// those whose jobs read it, and those whose statements name it.
    pub fn dependents(&self, id: TableId) -> Vec<&Entry> {
        let mut found: Vec<&Entry> = self.entries().filter(|entry| entry.depends_on().any(|on| on == id)).collect();
        found.sort_by_key(|entry| entry.name());
        found
    }

    /// The entries that cannot exist without a relation: its dependents, their dependents, and so
    /// on. Each comes before those that it depends on.
    pub fn above(&self, id: TableId) -> Vec<&Entry> {
        let mut above = Vec::new();
        self.add_above(id, &mut above);
        above
    }

    fn add_above<'a>(&'a self, id: TableId, above: &mut Vec<&'a Entry>) {
        for dependent in self.dependents(id) {
            if above.iter().all(|known| known.id() != dependent.id()) {
                self.add_above(dependent.id(), above);
                above.push(dependent);
            }
        }
    }

    /// The entries whose rows a query of this entry reads: itself, or those below a plain view.
    pub fn read_by<'a>(&'a self, entry: &'a Entry) -> Vec<&'a Entry> {
        if entry.relation.kind != RelationKind::View {
            return vec![entry];
        }
        let mut found: Vec<&Entry> = Vec::new();
        for below in entry.depends_on().filter_map(|id| self.get(id)).flat_map(|below| self.read_by(below)) {
            if found.iter().all(|known| known.id() != below.id()) {
                found.push(below);
            }
        }
        found
    }

    /// The number of plain views between an entry and the rows that it reads, the entry included.
    pub fn depth(&self, entry: &Entry) -> usize {
        let below = entry.depends_on().filter_map(|id| self.get(id)).map(|below| self.depth(below)).max();
        below.unwrap_or(0) + usize::from(entry.relation.kind == RelationKind::View)
    }

    /// The failed entry that stops a job: its own, or one below it; `None` if none has failed.
    pub fn failed<'a>(&'a self, entry: &'a Entry) -> Option<&'a Entry> {
        if !entry.job.is_running() {
            return Some(entry);
        }
        entry.job.inputs().filter_map(|input| self.get(input)).find_map(|input| self.failed(input))
    }

    /// The failed entry because of which the rows of a relation are torn: its own, or one below it;
    /// `None` if the rows are whole.
    pub fn torn<'a>(&'a self, entry: &'a Entry) -> Option<&'a Entry> {
        if matches!(entry.job.state, JobState::Failed { torn: true, .. }) {
            return Some(entry);
        }
        entry.job.inputs().filter_map(|input| self.get(input)).find_map(|input| self.torn(input))
    }

    /// The jobs that stop if one fails: its own and those above it, as far as they run.
    pub fn stopped_by(&self, failed: TableId) -> Vec<TableId> {
        self.entries().filter(|entry| self.runs(entry) && self.is_above(entry, failed)).map(Entry::id).collect()
    }

    fn is_above(&self, entry: &Entry, below: TableId) -> bool {
        let is_above = |input| self.get(input).is_some_and(|input| self.is_above(input, below));
        entry.id() == below || entry.job.inputs().any(is_above)
    }

    /// Returns true if a job keeps the relation up to date: neither it nor a job below it has
    /// failed, and all inputs are there. Sources and plain views store no rows.
    pub fn runs(&self, entry: &Entry) -> bool {
        matches!(entry.relation.kind, RelationKind::Table | RelationKind::MaterializedView) && self.is_fed(entry)
    }

    fn is_fed(&self, entry: &Entry) -> bool {
        let is_fed = |input| self.get(input).is_some_and(|input| self.is_fed(input));
        entry.job.is_running() && entry.job.inputs().all(is_fed)
    }

    /// The relation whose changes a job misses for good while it does not run: one that it follows
    /// and that goes on changing. It reads the streams of sources from its own position, but for
    /// those that lose what others have read.
    pub fn missed<'a>(&'a self, entry: &Entry) -> Option<&'a Entry> {
        let is_followed = |input: &&Entry| match input.relation.kind {
            RelationKind::Table | RelationKind::MaterializedView => true,
            RelationKind::Source => input.is_consumed(),
            RelationKind::View => false,
        };
        let inputs = entry.job.inputs().filter_map(|input| self.get(input));
        inputs.filter(is_followed).find(|input| self.is_fed(input))
    }
}

impl FromIterator<Entry> for Graph {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Graph {
        Graph::new([], entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Declaration, Definition, Encode, Named, OnError, Plan, Reads, Source};

    fn reads(id: u32) -> Reads {
        Reads {
            relation: TableId(id),
            name: RelationName::public(format!("r{id}")),
            columns: Vec::new(),
            expanded: None,
        }
    }

    fn entry(id: u32, kind: RelationKind, input: Option<u32>) -> Entry {
        let plan = match input {
            Some(id) if kind == RelationKind::View => Plan::Definition(Definition { names: vec![reads(id)] }),
            Some(id) => Plan::View(reads(id)),
            None => Plan::Stream(Source { options: BTreeMap::new(), encode: Encode::Json }),
        };
        let (name, columns, hidden) = (RelationName::public(format!("r{id}")), Vec::new(), Vec::new());
        let (primary_key, on_error, sql) = (Vec::new(), OnError::default(), String::new());
        let declared = Declaration { kind, name, columns, hidden, primary_key, plan, on_error, sql };
        Entry::new(TableId(id), declared, Vec::new(), None)
    }

    /// Two views over a source, and one over the first of them.
    fn graph() -> Graph {
        let view = |id, input| entry(id, RelationKind::MaterializedView, Some(input));
        [entry(1, RelationKind::Source, None), view(2, 1), view(3, 1), view(4, 2)].into_iter().collect()
    }

    fn ids<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<u32> {
        entries.into_iter().map(|entry| entry.id().0).collect()
    }

    #[test]
    fn dependents_come_in_an_order_in_which_they_can_be_dropped() {
        let mut graph = graph();
        assert_eq!(ids(graph.readers(TableId(1))), [2, 3]);
        assert_eq!(ids(graph.above(TableId(1))), [4, 2, 3]);
        assert_eq!(ids(graph.above(TableId(2))), [4]);
        for dropped in ids(graph.above(TableId(1))) {
            assert_eq!(graph.readers(TableId(dropped)).count(), 0);
            graph.remove(TableId(dropped));
        }
        assert_eq!(ids(graph.entries()), [1]);
    }

    #[test]
    fn plain_views_depend_and_have_no_jobs() {
        let mut graph = graph();
        graph.insert(entry(5, RelationKind::View, Some(2)));
        graph.insert(entry(6, RelationKind::View, Some(5)));
        let mut through = reads(1);
        let through_view = vec![Named { relation: TableId(5), name: RelationName::public("r5") }];
        through.expanded = Some(crate::catalog::Expanded { through: through_view, query: String::new() });
        let mut declared = entry(7, RelationKind::MaterializedView, Some(1)).declaration();
        declared.plan = Plan::View(through);
        graph.insert(Entry::new(TableId(7), declared, Vec::new(), None));
        assert_eq!(ids(graph.readers(TableId(2))), [4], "a plain view reads nothing by itself");
        assert_eq!(ids(graph.above(TableId(2))), [4, 6, 7, 5]);
        let get = |id| graph.get(TableId(id)).expect("it is there");
        assert_eq!((ids(graph.read_by(get(6))), ids(graph.read_by(get(7)))), (vec![2], vec![7]));
        assert_eq!([1, 5, 6, 7].map(|id| graph.depth(get(id))), [0, 1, 2, 1]);
        assert!(!graph.runs(get(5)) && graph.runs(get(7)));
    }

    #[test]
    fn a_job_runs_unless_it_or_one_below_it_has_failed() {
        let mut graph = graph();
        let running = |graph: &Graph| ids(graph.entries().filter(|entry| graph.runs(entry)));
        assert_eq!(running(&graph), [2, 3, 4]);
        let stopped = |graph: &Graph| [1, 2, 4].map(|id| graph.stopped_by(TableId(id)).len());
        assert_eq!(stopped(&graph), [3, 2, 1]);
        let failed = |torn| JobState::Failed { error: "a division by zero".to_owned(), since_ms: None, torn };
        let torn = |graph: &Graph| ids(graph.entries().filter(|entry| graph.torn(entry).is_some()));
        graph.insert(graph.get(TableId(2)).expect("it is there").with_state(failed(true)));
        assert_eq!((running(&graph), torn(&graph)), (vec![3], vec![2, 4]));
        let failed = failed(false);
        graph.insert(graph.get(TableId(2)).expect("it is there").with_state(failed));
        assert_eq!((running(&graph), torn(&graph), stopped(&graph)), (vec![3], vec![], [1, 0, 0]));
        let by = |graph: &Graph, id| graph.failed(graph.get(TableId(id)).expect("it is there")).map(|by| by.id().0);
        assert_eq!((by(&graph, 2), by(&graph, 3), by(&graph, 4)), (Some(2), None, Some(2)));
        graph.remove(TableId(1));
        assert!(running(&graph).is_empty());
    }
}

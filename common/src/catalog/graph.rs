//! The graph that jobs form by reading each other's relations.

use std::collections::BTreeMap;

use super::{Entry, JobState, RelationKind};
use crate::ids::TableId;

/// The entries of a catalog, by their ids. A job lies above the relations that it reads.
///
/// Acyclic: an entry reads only relations that were there before it, and is never made to read
/// others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    entries: BTreeMap<TableId, Entry>,
}

impl Graph {
    /// An entry.
    pub fn get(&self, id: TableId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// All entries, in the order of their ids.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Adds an entry, or replaces the one that has its id.
    pub fn insert(&mut self, entry: Entry) {
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

    /// The entries that cannot exist without a relation: its readers, their readers, and so on.
    /// Each comes before those that it reads, so they can be dropped in this order.
    pub fn above(&self, id: TableId) -> Vec<&Entry> {
        let mut above = Vec::new();
        self.add_above(id, &mut above);
        above
    }

    fn add_above<'a>(&'a self, id: TableId, above: &mut Vec<&'a Entry>) {
        let mut readers: Vec<&Entry> = self.readers(id).collect();
        readers.sort_by_key(|reader| reader.name());
        for reader in readers {
            if above.iter().all(|known| known.id() != reader.id()) {
                self.add_above(reader.id(), above);
                above.push(reader);
            }
        }
    }

    /// The failed entry that stops a job: its own, or one below it; `None` if none has failed.
    pub fn failed<'a>(&'a self, entry: &'a Entry) -> Option<&'a Entry> {
        if entry.job.state != JobState::Running {
            return Some(entry);
        }
        entry.job.inputs().filter_map(|input| self.get(input)).find_map(|input| self.failed(input))
    }

    /// Returns true if a job keeps the relation up to date: neither it nor a job below it has
    /// failed, and all inputs are there. A source is never kept up to date: it stores no rows.
    pub fn runs(&self, entry: &Entry) -> bool {
        entry.relation.kind != RelationKind::Source && self.is_fed(entry)
    }

    fn is_fed(&self, entry: &Entry) -> bool {
        let is_fed = |input| self.get(input).is_some_and(|input| self.is_fed(input));
        entry.job.state == JobState::Running && entry.job.inputs().all(is_fed)
    }
}

impl FromIterator<Entry> for Graph {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Graph {
        Graph { entries: entries.into_iter().map(|entry| (entry.id(), entry)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Declaration, Encode, Plan, Reads, Source};

    fn entry(id: u32, kind: RelationKind, input: Option<u32>) -> Entry {
        let plan = match input {
            Some(id) => Plan::View(Reads { relation: TableId(id), name: format!("r{id}"), columns: Vec::new() }),
            None => Plan::Stream(Source { options: BTreeMap::new(), encode: Encode::Json }),
        };
        let (name, columns, hidden) = (format!("r{id}"), Vec::new(), Vec::new());
        let (primary_key, sql) = (Vec::new(), String::new());
        Entry::new(TableId(id), Declaration { kind, name, columns, hidden, primary_key, plan, sql }, Vec::new(), None)
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
    fn a_job_runs_unless_it_or_one_below_it_has_failed() {
        let mut graph = graph();
        let running = |graph: &Graph| ids(graph.entries().filter(|entry| graph.runs(entry)));
        assert_eq!(running(&graph), [2, 3, 4]);
        let failed = JobState::Failed { error: "a division by zero".to_owned(), since_ms: None };
        graph.insert(graph.get(TableId(2)).expect("it is there").with_state(failed));
        assert_eq!(running(&graph), [3]);
        let by = |graph: &Graph, id| graph.failed(graph.get(TableId(id)).expect("it is there")).map(|by| by.id().0);
        assert_eq!((by(&graph, 2), by(&graph, 3), by(&graph, 4)), (Some(2), None, Some(2)));
        graph.remove(TableId(1));
        assert!(running(&graph).is_empty());
    }
}

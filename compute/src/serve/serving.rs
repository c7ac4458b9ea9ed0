//! The running term of this node, as far as frontends may read it.
//!
//! Requests of another term are refused. An older one must not be answered with newer or
//! uncommitted data, and a newer one shows that this node was left behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::watch;
use weir_common::catalog::{Entry, Graph, Relation, RelationKind};
use weir_common::error::Kind;
use weir_common::ids::{Epoch, JobSplit, Sequence, SlotId, TableId, TermId};
use weir_common::rpc;
use weir_common::view::Compile;

use crate::control::event::{Event, Inputs};
use crate::control::placement::Placement;
use crate::control::plan::Route;
use crate::dataflow::follow::{Followed, Following};
use crate::dataflow::router::Router;
use crate::dataflow::usage::Usage;
use crate::ingest::progress::ReadSplit;
use crate::storage::slots::{Slots, not_running};
use crate::storage::state::Store;

/// The slots, relations and splits that may be read.
pub(crate) struct Serving {
    pub(crate) slots: Arc<Slots>,
    pub(crate) relations: Relations,
    /// The splits that actors read from NATS, by the relation and split that they were started for.
    pub(crate) splits: BTreeMap<JobSplit, watch::Receiver<Vec<ReadSplit>>>,
    /// How far the actors of this node that follow relations have got.
    pub(crate) following: Following,
    /// The processor time of the jobs on this node.
    pub(crate) usage: Usage,
    /// The positions at which the actors of the term began, on whichever node, by the split that
    /// they read.
    pub(crate) starts: HashMap<JobSplit, Sequence>,
    /// Every slot of the term, in the order of their vnodes.
    pub(crate) routes: Vec<Route>,
    pub(crate) cluster: String,
    pub(crate) compiler: Arc<dyn Compile>,
    pub(crate) store: Store,
    /// Reaches the actors of this node.
    pub(crate) router: Router,
    pub(crate) node: Inputs,
}

impl Serving {
    /// Returns the running term if it is `term`.
    ///
    /// # Errors
    /// If another term runs, or none.
    pub(crate) fn of_term(
        serving: Option<Arc<Serving>>,
        term: Option<weir_proto::TermId>,
    ) -> Result<Arc<Serving>, rpc::Error> {
        let term = term.map(TermId::from).unwrap_or_default();
        serving.filter(|serving| serving.slots.term == term).ok_or_else(|| not_running(term))
    }

    /// Asks for a barrier soon.
    pub(crate) async fn want_barrier(&self) {
        self.node.send(Event::CheckpointWanted(self.slots.term)).await;
    }

    /// Checks that a view, and every view below it, has read all rows that its inputs had when it
    /// was created, as far as a slot goes.
    ///
    /// # Errors
    /// If it is being created, or if it is not known yet.
    pub(crate) fn check_complete(&self, id: TableId, slot: SlotId, epoch: Epoch) -> Result<(), rpc::Error> {
        let catalog = self.relations.catalog();
        let is_view = |entry: &&Entry| entry.relation.kind == RelationKind::MaterializedView;
        let Some(entry) = catalog.get(id).filter(is_view) else { return Ok(()) };
        let Some(placement) = Placement::of(entry, catalog, &[], &self.routes) else { return Ok(()) };
        if !self.following.has_begun(id, epoch) {
            return Err(rpc::Error::new(Kind::Unavailable, format!("table {id} is being created")));
        }
        for (relation, actor, place) in placement.following() {
            self.check_complete(relation, slot, epoch)?;
            if place != slot {
                continue;
            }
            match self.following.of(actor) {
                Some(Followed { through: Some(through), .. }) if through <= epoch => {}
                Some(Followed { is_known: true, vnodes: (read, all), .. }) => {
                    let message = format!("materialized view \"{}\" is being created", entry.name());
                    let detail = format!("it has read {read} of {all} parts of what its input had before");
                    let hint = "try again later";
                    let error = rpc::Error::new(Kind::User, format!("{message}: {detail}"));
                    return Err(error.with_sqlstate("55000").with_hint(hint));
                }
                _ => return Err(rpc::Error::new(Kind::Unavailable, format!("table {id} is being built"))),
            }
        }
        Ok(())
    }
}

/// The relations of a term's catalog, and the stored dead letters of their jobs.
#[derive(Clone, Default)]
pub(crate) struct Relations {
    catalog: Graph,
    dead_letters: HashMap<TableId, Arc<Relation>>,
    /// The newest id that the node has heard of, dropped or not.
    newest: TableId,
}

impl Relations {
    /// Begins with the catalog of another term.
    pub(crate) fn replace(&mut self, catalog: &[Entry]) {
        *self = Relations { newest: self.newest, ..Relations::default() };
        for entry in catalog {
            self.insert(entry);
        }
    }

    /// Adds an entry.
    pub(crate) fn insert(&mut self, entry: &Entry) {
        self.newest = entry.job.stores().fold(self.newest, TableId::max);
        self.dead_letters.extend(entry.dead_letters().map(|letters| (letters.id, Arc::new(letters))));
        self.catalog.insert(entry.clone());
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, id: TableId) {
        if let Some(entry) = self.catalog.remove(id) {
            entry.job.dead_letters.and_then(|letters| self.dead_letters.remove(&letters));
        }
    }

    /// All entries.
    pub(crate) fn catalog(&self) -> &Graph {
        &self.catalog
    }

    /// A relation to scan, if node and caller know it with the same layout.
    pub(crate) fn relation(&self, id: TableId, layout: u32) -> Result<Arc<Relation>, rpc::Error> {
        let declared = self.catalog.get(id).map(|entry| &entry.relation);
        let relation = declared.or_else(|| self.dead_letters.get(&id)).ok_or_else(|| self.missing(id))?;
        check_layout(relation, layout)?;
        Ok(Arc::clone(relation))
    }

    /// An entry of the catalog, if node and caller know its relation with the same layout.
    pub(crate) fn entry(&self, id: TableId, layout: u32) -> Result<Entry, rpc::Error> {
        let entry = self.catalog.get(id).ok_or_else(|| self.missing(id))?;
        check_layout(&entry.relation, layout)?;
        Ok(entry.clone())
    }

    fn missing(&self, id: TableId) -> rpc::Error {
        if id > self.newest {
            // It is in the catalog, but the barrier that adds it has not come yet. A later epoch
            // has it.
            return rpc::Error::new(Kind::Unavailable, format!("table {id} is being created"));
        }
        rpc::Error::new(Kind::User, format!("table {id} was dropped")).with_sqlstate("42P01")
    }
}

fn check_layout(relation: &Relation, layout: u32) -> Result<(), rpc::Error> {
    if u32::from(relation.layout()) == layout {
        return Ok(());
    }
    // Columns change with the term, so either the node or the caller is behind.
    Err(rpc::Error::new(Kind::Unavailable, format!("columns of table {} are being changed", relation.id)))
}

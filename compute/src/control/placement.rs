//! The actors of a job's fragments and the edges between them.
//!
//! Every node works them out by itself, from the plan and the slots of the term, and all nodes come
//! to the same. A fragment that reads splits runs inside the readers of the splits; its instances
//! have the numbers of the splits. All others have an actor in each slot, or one in all; these have
//! the numbers of their slots. A fragment that follows a stored relation has its actors where the
//! relation's rows are.
//!
//! Where the rows are stored in blocks, in the slot of whichever reader read them, they come to the
//! fragment that follows them from the readers: each *forwards* what it reads to the actor beside
//! it. To the actors a reader that forwards is an actor of a fragment that the plan does not have.

use std::borrow::Cow;

use weir_common::catalog::{Entry, Graph, Job, Query, RelationName};
use weir_common::ids::{ActorId, EdgeId, FragmentId, SlotId, SplitId, TableId};
use weir_common::key::vnode_of;
use weir_common::plan::{Dispatch, Distribution, Edge};

use super::plan::{Route, SplitPlan};

/// Marks the number of a fragment that follows blocks: the readers that forward them to it.
const FORWARDS: u16 = 1 << 15;

/// The actors of one job.
pub struct Placement<'a> {
    id: TableId,
    name: &'a RelationName,
    job: &'a Job,
    query: Cow<'a, Query>,
    catalog: &'a Graph,
    splits: &'a [SplitPlan],
    routes: &'a [Route],
}

impl<'a> Placement<'a> {
    /// The actors of an entry's job in a term with these slots; `None` if it has no fragments or
    /// does not run. The catalog has the relations that it reads, and `splits` are those that are
    /// read for it, among others.
    pub fn of(
        entry: &'a Entry,
        catalog: &'a Graph,
        splits: &'a [SplitPlan],
        routes: &'a [Route],
    ) -> Option<Placement<'a>> {
        let query = entry.query().filter(|_| catalog.runs(entry))?;
        let (name, job) = (entry.name(), &entry.job);
        Some(Placement { id: entry.id(), name, job, query, catalog, splits, routes })
    }

    /// The name of the relation that the job fills.
    pub fn name(&self) -> &'a RelationName {
        self.name
    }

    /// The plan.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// The catalog that it was made with.
    pub fn catalog(&self) -> &'a Graph {
        self.catalog
    }

    /// The vnode at which a fragment with one actor keeps its state and its rows; `None` if the
    /// fragment has an actor in each slot.
    pub fn single(&self, fragment: u16) -> Option<u16> {
        match self.distribution(fragment) {
            Distribution::Single => Some(vnode_of(&self.id.0.to_be_bytes())),
            Distribution::SameAs(relation) => self.stored(relation)?.1,
            Distribution::Hash | Distribution::Splits(_) => None,
        }
    }

    /// The actors of a fragment and their slots.
    pub fn actors(&self, fragment: u16) -> Vec<(ActorId, SlotId)> {
        let id = FragmentId { job: self.id, index: fragment };
        if let Some(read) = self.readers(fragment) {
            let actor = |(instance, (_, slot)): (u32, (_, SlotId))| (ActorId { fragment: id, instance }, slot);
            return (0..).zip(read).map(actor).collect();
        }
        let single = self.single(fragment);
        let owns = |route: &&Route| single.is_none_or(|vnode| (route.vnodes.start..route.vnodes.end).contains(&vnode));
        let in_slot = |route: &Route| (ActorId { fragment: id, instance: route.slot.0 }, route.slot);
        self.routes.iter().filter(owns).map(in_slot).collect()
    }

    /// The fragment that stores the rows of a relation, and the vnode of all of them if one actor
    /// does; `None` if no fragment stores them.
    fn stored(&self, relation: TableId) -> Option<(FragmentId, Option<u16>)> {
        let below = Placement::of(self.catalog.get(relation)?, self.catalog, &[], self.routes)?;
        let index = below.fragments().last()?;
        Some((FragmentId { job: relation, index }, below.single(index)))
    }

    /// The edges over which the job follows relations, one for each actor that does so. They come
    /// from the actors that store the relations, in the same slots.
    pub fn followed(&self) -> Vec<EdgeId> {
        let followed = |fragment| match self.distribution(fragment) {
            Distribution::SameAs(relation) => self.stored(relation).map(|(from, _)| (fragment, from)),
            _ => None,
        };
        let edges = |(fragment, from): (u16, FragmentId)| {
            let edge = move |(to, _): (ActorId, SlotId)| EdgeId {
                from: ActorId { fragment: from, instance: to.instance },
                to,
                input: 0,
            };
            self.actors(fragment).into_iter().map(edge)
        };
        self.fragments().filter_map(followed).flat_map(edges).collect()
    }

    /// The relations that the job follows, each with every actor that does so and its slot.
    pub fn following(&self) -> Vec<(TableId, ActorId, SlotId)> {
        let followed = |fragment| match self.distribution(fragment) {
            Distribution::SameAs(relation) => Some((relation, self.actors(fragment))),
            _ => None,
        };
        let followed = self.fragments().filter_map(followed);
        followed
            .flat_map(|(relation, actors)| actors.into_iter().map(move |(actor, slot)| (relation, actor, slot)))
            .collect()
    }

    /// All actors of the job and their slots, with those that run inside readers.
    pub fn all(&self) -> impl Iterator<Item = (ActorId, SlotId)> {
        let forwarding = self.fragments().filter(|fragment| self.blocks(*fragment).is_some());
        let forwarding = forwarding.map(|fragment| fragment | FORWARDS);
        self.fragments().chain(forwarding).flat_map(|fragment| self.actors(fragment))
    }

    /// The actors that run in a slot by themselves.
    pub fn in_slot(&self, slot: SlotId) -> impl Iterator<Item = ActorId> {
        let own = self.fragments().filter(|fragment| self.readers(*fragment).is_none());
        own.flat_map(|fragment| self.actors(fragment)).filter(move |(_, place)| *place == slot).map(|(actor, _)| actor)
    }

    /// The edges into an actor, by input.
    pub fn inputs(&self, actor: ActorId) -> Vec<EdgeId> {
        let into = self.query.plan.inputs(usize::from(actor.fragment.index));
        let from = |edge: &Edge| {
            let (input, dispatch) = (edge.input, &edge.dispatch);
            let senders = self.actors(edge.from).into_iter().map(|(from, _)| from);
            let senders = senders.filter(|from| *dispatch != Dispatch::Forward || from.instance == actor.instance);
            senders.map(|from| EdgeId { from, to: actor, input }).collect::<Vec<_>>()
        };
        let followed = self.followed().into_iter().filter(|edge| edge.to == actor);
        let forwarding = self.blocks(actor.fragment.index).map(|_| self.actors(actor.fragment.index | FORWARDS));
        let forwarded = forwarding.into_iter().flatten().map(|(from, _)| EdgeId { from, to: actor, input: 0 });
        into.flat_map(from).chain(followed).chain(forwarded).collect()
    }

    /// The readers of the splits of the blocks that a fragment follows.
    pub fn forwarding(&self, fragment: u16) -> usize {
        self.blocks(fragment).map_or(0, |relation| self.stored_from(relation).len())
    }

    /// The edges over which a reader forwards what it reads, in the order of the slots' vnodes, and
    /// the place of the one to the actor beside it.
    ///
    /// # Panics
    /// If the actor does not forward.
    pub fn forwarded(&self, actor: ActorId) -> (Vec<EdgeId>, usize) {
        let to = self.actors(actor.fragment.index & !FORWARDS);
        let forwarding = self.actors(actor.fragment.index);
        let (_, own) = forwarding.iter().find(|(forwarding, _)| *forwarding == actor).expect("a reader that forwards");
        let beside = to.iter().position(|(_, slot)| slot == own).expect("there is an actor in every slot");
        (to.into_iter().map(|(to, _)| EdgeId { from: actor, to, input: 0 }).collect(), beside)
    }

    /// The edges of the plan out of a fragment, each with the edges of one of its actors to the
    /// actors that receive, in the order of the slots' vnodes.
    pub fn outputs(&self, actor: ActorId) -> Vec<(&Dispatch, Vec<EdgeId>)> {
        let from = actor.fragment.index;
        let out = self.query.plan.edges.iter().filter(|edge| edge.from == from);
        out.map(|edge| {
            let receivers = self.actors(edge.to).into_iter().map(|(to, _)| to);
            let receivers = receivers.filter(|to| edge.dispatch != Dispatch::Forward || to.instance == actor.instance);
            (&edge.dispatch, receivers.map(|to| EdgeId { from: actor, to, input: edge.input }).collect())
        })
        .collect()
    }

    /// The actors that run inside the reader of a split of the job, which is one of `source`.
    ///
    /// # Panics
    /// If the split is not read for the job.
    pub fn leaves(&self, split: &SplitId, source: TableId) -> impl Iterator<Item = ActorId> {
        let instance = instance(&self.read_of(source), split);
        let reads = move |fragment: &u16| self.distribution(*fragment) == Distribution::Splits(source);
        let actor = move |index| ActorId { fragment: FragmentId { job: self.id, index }, instance };
        self.fragments().filter(reads).map(actor)
    }

    /// The actors by which the reader of a split of `relation` forwards what it stores in blocks.
    ///
    /// # Panics
    /// If the split is not read for the relation.
    pub fn forwards(&self, split: &SplitId, relation: TableId) -> Vec<ActorId> {
        let follows = |fragment: &u16| self.blocks(*fragment) == Some(relation);
        let actor = |index| ActorId {
            fragment: FragmentId { job: self.id, index: index | FORWARDS },
            instance: instance(&self.stored_from(relation), split),
        };
        self.fragments().filter(follows).map(actor).collect()
    }

    /// The job's splits of a source, in the order of their numbers, and their slots.
    fn read_of(&self, source: TableId) -> Vec<(&'a SplitId, SlotId)> {
        let own = self.splits.iter().filter(|split| split.split.job == self.id);
        sorted(own.filter(|split| split.read(self.job).job == source))
    }

    /// The splits from which a relation is stored, in the order of their numbers, and their slots.
    fn stored_from(&self, relation: TableId) -> Vec<(&'a SplitId, SlotId)> {
        sorted(self.splits.iter().filter(|split| split.split.job == relation))
    }

    /// The splits in whose readers a fragment runs, and their slots; `None` if it runs by itself.
    fn readers(&self, fragment: u16) -> Option<Vec<(&'a SplitId, SlotId)>> {
        match self.distribution(fragment & !FORWARDS) {
            Distribution::Splits(source) => Some(self.read_of(source)),
            Distribution::SameAs(relation) if fragment & FORWARDS != 0 => Some(self.stored_from(relation)),
            _ => None,
        }
    }

    /// The relation that a fragment follows, if that is stored in blocks.
    pub fn blocks(&self, fragment: u16) -> Option<TableId> {
        let Distribution::SameAs(relation) = self.distribution(fragment) else { return None };
        self.catalog.get(relation).is_some_and(|entry| entry.query().is_none()).then_some(relation)
    }

    fn distribution(&self, fragment: u16) -> Distribution {
        self.query.plan.fragments[usize::from(fragment)].distribution
    }

    fn fragments(&self) -> impl Iterator<Item = u16> + use<> {
        0..u16::try_from(self.query.plan.fragments.len()).expect("fragments are numbered by u16")
    }
}

fn sorted<'a>(splits: impl Iterator<Item = &'a SplitPlan>) -> Vec<(&'a SplitId, SlotId)> {
    let mut sorted: Vec<_> = splits.map(|split| (&split.split.split, split.slot)).collect();
    sorted.sort();
    sorted
}

/// The number of a split among those that are read.
fn instance(readers: &[(&SplitId, SlotId)], split: &SplitId) -> u32 {
    let place = readers.iter().position(|(read, _)| *read == split).expect("a split that is read");
    u32::try_from(place).expect("a job has fewer splits")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use weir_common::catalog::{self, Declaration, Encode, OnError, Reads, RelationKind, Source, SplitStart};
    use weir_common::ids::{JobSplit, Sequence, VnodeRange};
    use weir_common::plan::{Fragment, JobPlan, Stream};

    use super::*;

    fn entry(id: u32, plan: catalog::Plan) -> Entry {
        let kind = match plan {
            catalog::Plan::Stream(_) => RelationKind::Source,
            _ => RelationKind::MaterializedView,
        };
        let (name, columns, hidden) = (RelationName::public(format!("r{id}")), Vec::new(), Vec::new());
        let (primary_key, on_error, sql) = (Vec::new(), OnError::default(), String::new());
        let declared = Declaration { kind, name, columns, hidden, primary_key, plan, on_error, sql };
        Entry::new(TableId(id), declared, Vec::new(), None)
    }

    fn query(reads: u32, fragments: &[Distribution], edges: &[(u16, u16, Dispatch)]) -> catalog::Plan {
        query_of(&[reads], fragments, edges)
    }

    fn query_of(reads: &[u32], fragments: &[Distribution], edges: &[(u16, u16, Dispatch)]) -> catalog::Plan {
        let relation = |id: &u32| Reads {
            relation: TableId(*id),
            name: RelationName::public(""),
            columns: Vec::new(),
            expanded: None,
        };
        let output = Stream { columns: Vec::new(), key: Vec::new(), append_only: false };
        let fragment = |distribution: &Distribution| Fragment {
            distribution: *distribution,
            operators: Vec::new(),
            output: output.clone(),
        };
        let edge = |(from, to, dispatch): &(u16, u16, Dispatch)| Edge {
            from: *from,
            to: *to,
            input: 0,
            dispatch: dispatch.clone(),
        };
        let plan = JobPlan {
            fragments: fragments.iter().map(fragment).collect(),
            edges: edges.iter().map(edge).collect(),
            tables: Vec::new(),
        };
        catalog::Plan::Query(Query { reads: reads.iter().map(relation).collect(), plan, through: Vec::new() })
    }

    /// A source, an aggregate over it, one that has a single row, views over these two, and one
    /// that follows the first relation as if that were stored in blocks.
    fn catalog() -> Graph {
        let stream = catalog::Plan::Stream(Source { options: Default::default(), encode: Encode::Json });
        let (splits, hash) = (Distribution::Splits(TableId(1)), || Dispatch::Hash(vec![0]));
        let plans = [
            stream,
            query(1, &[splits, Distribution::Hash], &[(0, 1, hash())]),
            query(1, &[splits, Distribution::Single], &[(0, 1, Dispatch::Single)]),
            query(2, &[Distribution::SameAs(TableId(2)), Distribution::Hash], &[(0, 1, hash())]),
            query(3, &[Distribution::SameAs(TableId(3))], &[]),
            query(1, &[Distribution::SameAs(TableId(1)), Distribution::Hash], &[(0, 1, hash())]),
        ];
        (1..).zip(plans).map(|(id, plan)| entry(id, plan)).collect()
    }

    /// A view over two sources of one stream and over a view, beside these; and its splits.
    fn over_several(catalog: &mut Graph) -> (Entry, Vec<SplitPlan>) {
        let stream = catalog::Plan::Stream(Source { options: Default::default(), encode: Encode::Json });
        catalog.insert(entry(7, stream));
        let fragments = [
            Distribution::Splits(TableId(1)),
            Distribution::Splits(TableId(7)),
            Distribution::SameAs(TableId(2)),
            Distribution::Hash,
        ];
        let hash = || Dispatch::Hash(vec![0]);
        let edges = [(0, 3, hash()), (1, 3, hash()), (2, 3, hash())];
        let declared = entry(8, query_of(&[1, 2, 7], &fragments, &edges)).declaration();
        let start = |(source, split): (u32, &str)| {
            let split = SplitId(split.to_owned());
            SplitStart { split, sequence: Sequence(1), stream_created: None, reads: None }.among_others(TableId(source))
        };
        let starts: Vec<SplitStart> = [(1, "a"), (1, "b"), (7, "a")].map(start).to_vec();
        let planned = |(start, slot): (&SplitStart, u32)| SplitPlan {
            split: JobSplit { job: TableId(8), split: start.split.clone() },
            slot: SlotId(slot),
            position: start.position(),
        };
        let splits = starts.iter().zip([2, 0, 1]).map(planned).collect();
        (Entry::new(TableId(8), declared, starts, None), splits)
    }

    fn routes() -> Vec<Route> {
        let route = |(slot, vnodes)| Route { slot: SlotId(slot), vnodes, address: String::new() };
        (0..).zip(VnodeRange::divide(3)).map(route).collect()
    }

    fn splits() -> Vec<SplitPlan> {
        let split = |(job, name, slot): (u32, &str, u32)| SplitPlan {
            split: JobSplit { job: TableId(job), split: SplitId(name.to_owned()) },
            slot: SlotId(slot),
            position: Sequence(1).into(),
        };
        [(2, "b", 0), (2, "a", 2), (1, "b", 0), (1, "a", 2)].map(split).to_vec()
    }

    fn actor(job: u32, index: u16, instance: u32) -> ActorId {
        ActorId { fragment: FragmentId { job: TableId(job), index }, instance }
    }

    #[test]
    fn every_edge_leaves_one_actor_and_enters_another() {
        let (catalog, routes, splits) = (catalog(), routes(), splits());
        for entry in catalog.entries() {
            let Some(placement) = Placement::of(entry, &catalog, &splits, &routes) else { continue };
            let actors: BTreeSet<ActorId> = placement.all().map(|(actor, _)| actor).collect();
            let (forwarding, others): (Vec<ActorId>, Vec<ActorId>) =
                actors.iter().partition(|actor| actor.fragment.index & FORWARDS != 0);
            let left = others.iter().flat_map(|actor| placement.outputs(*actor)).flat_map(|(_, edges)| edges);
            let forwarded = forwarding.iter().flat_map(|actor| placement.forwarded(*actor).0);
            let left: BTreeSet<EdgeId> = left.chain(forwarded).collect();
            let entered: BTreeSet<EdgeId> = others.iter().flat_map(|actor| placement.inputs(*actor)).collect();
            let followed: BTreeSet<EdgeId> = placement.followed().into_iter().collect();
            assert_eq!(entered, left.union(&followed).copied().collect(), "of job {}", entry.id());
            assert!(entered.iter().all(|edge| actors.contains(&edge.to)));
        }
    }

    #[test]
    fn readers_run_the_leaves_and_slots_the_rest() {
        let (catalog, routes, splits) = (catalog(), routes(), splits());
        let of = |id| Placement::of(catalog.get(TableId(id)).expect("it is there"), &catalog, &splits, &routes);
        let placement = of(2).expect("it has fragments");
        assert_eq!(placement.actors(0), [(actor(2, 0, 0), SlotId(2)), (actor(2, 0, 1), SlotId(0))]);
        let leaves: Vec<ActorId> = placement.leaves(&SplitId("b".to_owned()), TableId(1)).collect();
        assert_eq!(leaves, [actor(2, 0, 1)]);
        assert_eq!(placement.in_slot(SlotId(1)).collect::<Vec<_>>(), [actor(2, 1, 1)]);
        assert!(of(1).is_none(), "a source has no fragments");
    }

    #[test]
    fn each_source_has_leaves_of_its_own() {
        let (mut catalog, routes) = (catalog(), routes());
        let (entry, splits) = over_several(&mut catalog);
        let placement = Placement::of(&entry, &catalog, &splits, &routes).expect("it has fragments");
        assert_eq!(placement.actors(0), [(actor(8, 0, 0), SlotId(2)), (actor(8, 0, 1), SlotId(0))]);
        assert_eq!(placement.actors(1), [(actor(8, 1, 0), SlotId(1))]);
        assert_eq!(placement.actors(2).len(), 3, "one in each slot");
        assert_eq!(placement.inputs(actor(8, 3, 1)).len(), 6, "from all of them");
        for (split, source, leaf) in [(0, 1, actor(8, 0, 0)), (1, 1, actor(8, 0, 1)), (2, 7, actor(8, 1, 0))] {
            let split = &splits[split];
            assert_eq!(split.read(&entry.job).job, TableId(source));
            assert_eq!(placement.leaves(&split.split.split, TableId(source)).collect::<Vec<_>>(), [leaf]);
        }
    }

    #[test]
    fn a_reader_forwards_to_the_actor_beside_it() {
        let (catalog, routes, splits) = (catalog(), routes(), splits());
        let entry = catalog.get(TableId(6)).expect("it is there");
        let placement = Placement::of(entry, &catalog, &splits, &routes).expect("it has fragments");
        assert_eq!((placement.blocks(0), placement.blocks(1), placement.forwarding(0)), (Some(TableId(1)), None, 2));
        assert_eq!(placement.actors(0).len(), 3, "one in each slot");
        let forwards = placement.forwards(&SplitId("a".to_owned()), TableId(1));
        assert_eq!(forwards, [actor(6, FORWARDS, 0)]);
        let (edges, beside) = placement.forwarded(forwards[0]);
        assert_eq!((edges.len(), edges[beside].to), (3, actor(6, 0, 2)));
        assert!(placement.in_slot(SlotId(2)).all(|actor| actor.fragment.index & FORWARDS == 0));
    }

    #[test]
    fn a_follower_is_where_the_rows_are() {
        let (catalog, routes) = (catalog(), routes());
        let of = |id| Placement::of(catalog.get(TableId(id)).expect("it is there"), &catalog, &[], &routes);
        let (single, above) = (of(3).expect("fragments"), of(5).expect("fragments"));
        assert_eq!(above.single(0), single.single(1));
        let [(_, slot)] = single.actors(1)[..] else { panic!("one actor") };
        assert_eq!(above.actors(0), [(actor(5, 0, slot.0), slot)]);
        let edge = EdgeId { from: actor(3, 1, slot.0), to: actor(5, 0, slot.0), input: 0 };
        assert_eq!(above.followed(), [edge]);
        assert_eq!(of(4).expect("fragments").followed().len(), 3, "one in each slot");
    }
}

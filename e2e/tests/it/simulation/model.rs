//! What the cluster stands on, as models: the metadata store, the object store, the broker.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use weir_common::head::Head;
use weir_common::ids::{Epoch, JobSplit, Sequence, SplitId, StatementId, TableId, VnodeRange};
use weir_meta::coordinator::event::{Durable, Outcome};
use weir_meta::coordinator::positions::{Page, Positions};

/// Where a row is stored, and which it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) vnode: u16,
    pub(super) split: JobSplit,
    /// The message's sequence or, in a keyed table, what of it is the key.
    pub(super) key: u64,
}

/// What a database holds: of each row the message that it was read from.
pub(super) type Rows = BTreeMap<Key, u64>;

/// The key of a message of a keyed table: a few messages share each.
pub(super) fn key_of(sequence: u64) -> u64 {
    sequence % 7
}

/// The vnode of a key.
pub(super) fn vnode_of(key: u64) -> u16 {
    u16::try_from(key * 97 % 256).expect("less than 256")
}

/// The metadata store: one leader key, one head, position pages. Every call happens at once.
#[derive(Default)]
pub(super) struct MetaStore {
    revision: u64,
    leader: Option<u64>,
    head: Option<(Head, u64)>,
    pages: BTreeMap<String, Page>,
    /// Statements that a commit made durable.
    records: BTreeSet<StatementId>,
}

impl MetaStore {
    /// The leader key passes to somebody; its create revision.
    pub(super) fn elect(&mut self) -> u64 {
        self.revision += 1;
        self.leader = Some(self.revision);
        self.revision
    }

    pub(super) fn leads(&self, fence: u64) -> bool {
        self.leader == Some(fence)
    }

    pub(super) fn put_pages(&mut self, fence: u64, pages: &[Page]) {
        if self.leads(fence) {
            self.revision += 1;
            self.pages.extend(pages.iter().map(|page| (page.key.clone(), page.clone())));
        }
    }

    pub(super) fn forget(&mut self, fence: u64, pages: &[String]) {
        if self.leads(fence) {
            self.pages.retain(|key, _| !pages.contains(key));
        }
    }

    /// Replaces the head if the fence holds and it is as expected.
    pub(super) fn put_head(&mut self, fence: u64, expected: u64, head: &Head) -> Outcome {
        let current = self.head.as_ref().map_or(0, |(_, revision)| *revision);
        if !self.leads(fence) || current != expected {
            return Outcome::Refused;
        }
        self.revision += 1;
        self.head = Some((head.clone(), self.revision));
        Outcome::Applied(self.revision)
    }

    /// Records the statements of a commit, in one transaction with its head.
    pub(super) fn record(&mut self, statements: &[StatementId]) {
        self.records.extend(statements);
    }

    /// Returns true if a commit made a statement durable.
    pub(super) fn records(&self, id: StatementId) -> bool {
        self.records.contains(&id)
    }

    pub(super) fn head(&self) -> Head {
        self.head.as_ref().map(|(head, _)| head.clone()).unwrap_or_default()
    }

    pub(super) fn load(&self) -> Durable {
        let Some((head, revision)) = self.head.clone() else { return Durable::default() };
        let pages = head.positions.iter().map(|key| self.pages.get(key).expect("the head names pages that exist"));
        let positions = Positions::from_pages(pages.cloned().collect()).expect("pages are readable");
        Durable { head, revision, positions }
    }
}

/// The key of a statement's row.
pub(super) fn row_of(table: TableId, vnode: u16, id: StatementId) -> Key {
    Key { vnode, split: JobSplit { job: table, split: SplitId("statements".to_owned()) }, key: id.0 }
}

/// The object store: databases with their durable checkpoints.
#[derive(Default)]
pub(super) struct Databases {
    opened: BTreeSet<String>,
    checkpoints: BTreeMap<(String, Uuid), Rows>,
}

impl Databases {
    /// A new database, as a clone of checkpoints; none: one of them does not exist.
    pub(super) fn open(&mut self, path: &str, sources: &[(String, Uuid, VnodeRange)]) -> Option<Rows> {
        assert!(self.opened.insert(path.to_owned()), "path {path} is used a second time");
        let mut rows = Rows::new();
        for (source, checkpoint, vnodes) in sources {
            let stored = self.checkpoints.get(&(source.clone(), *checkpoint))?;
            let inside = stored.iter().filter(|(key, _)| (vnodes.start..vnodes.end).contains(&key.vnode));
            rows.extend(inside.map(|(key, sequence)| (key.clone(), *sequence)));
        }
        Some(rows)
    }

    pub(super) fn add(&mut self, path: &str, checkpoint: Uuid, rows: Rows) {
        self.checkpoints.insert((path.to_owned(), checkpoint), rows);
    }

    pub(super) fn remove(&mut self, path: &str, checkpoint: Uuid) {
        self.checkpoints.remove(&(path.to_owned(), checkpoint));
    }

    /// Everything that a head names.
    pub(super) fn content(&self, head: &Head) -> Rows {
        let mut rows = Rows::new();
        let mut next = 0;
        for slot in &head.slots {
            assert_eq!(slot.vnodes.start, next, "slots cover every vnode once, in order");
            next = slot.vnodes.end;
            let stored = self.checkpoints.get(&(slot.path.clone(), slot.checkpoint));
            let stored = stored.unwrap_or_else(|| panic!("checkpoint of slot {} at {} is gone", slot.slot, head.epoch));
            assert!(stored.keys().all(|key| (slot.vnodes.start..slot.vnodes.end).contains(&key.vnode)));
            rows.extend(stored.clone());
        }
        assert!(head.slots.is_empty() || next == 256, "slots cover every vnode");
        rows
    }
}

/// A stream: how many messages a split has, and up to where they were acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) acknowledged: Sequence,
}

/// What a client has seen: epochs never go back.
#[derive(Default)]
pub(super) struct Client {
    pub(super) newest: Epoch,
}

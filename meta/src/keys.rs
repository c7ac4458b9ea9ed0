//! What lies under which key of the metadata store. All keys of a cluster begin with `weir/<cluster>/`.
//!
//! | key | value |
//! | --- | --- |
//! | `leader` | the leader's address, under its lease |
//! | `id` | tells the cluster apart from others of its name, for ever |
//! | `head` | the committed state, [`weir_common::head::Head`] as JSON |
//! | `pos/<term>/<epoch>/<n>` | a page of committed positions |
//! | `catalog` | the next table id, put by every change of a table: its revision is the catalog's version |
//! | `table/<id>` | a [`weir_common::catalog::Entry`] as JSON |
//! | `schema/<id>` | a [`weir_common::catalog::Schema`] as JSON; `public` is there without |
//! | `dropped` | the ids of entries and schemas that the last large `DROP` removed; keys of them mean nothing |
//! | `statements/<epoch>` | the ids of the statements that the epoch committed, and when, as JSON |
//! | `node/<id>` | a compute node's address, under a lease |

use weir_common::ids::{Epoch, SchemaId, TableId};

/// The keys of a cluster.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// The keys of the named cluster.
    pub fn new(cluster: &str) -> Keys {
        Keys { prefix: format!("weir/{cluster}/") }
    }

    /// A key given relative to the cluster's prefix, such as that of a position page.
    pub fn at(&self, relative: &str) -> String {
        format!("{}{relative}", self.prefix)
    }

    /// The leader's key.
    pub fn leader(&self) -> String {
        self.at("leader")
    }

    /// The key of the cluster's id.
    pub fn id(&self) -> String {
        self.at("id")
    }

    /// The head's key.
    pub fn head(&self) -> String {
        self.at("head")
    }

    /// The key that every change of the catalog puts.
    pub fn catalog(&self) -> String {
        self.at("catalog")
    }

    /// The key of a catalog entry.
    pub fn table(&self, id: TableId) -> String {
        // Padded, so that the store's order is the order of creation.
        self.at(&format!("table/{:010}", id.0))
    }

    /// The prefix of the keys of all catalog entries.
    pub fn tables(&self) -> String {
        self.at("table/")
    }

    /// The key of a schema.
    pub fn schema(&self, id: SchemaId) -> String {
        self.at(&format!("schema/{:010}", id.0))
    }

    /// The prefix of the keys of all schemas.
    pub fn schemas(&self) -> String {
        self.at("schema/")
    }

    /// The key of the record that names dropped entries and schemas.
    pub fn dropped(&self) -> String {
        self.at("dropped")
    }

    /// A node's key.
    pub fn node(&self, node: &str) -> String {
        self.at(&format!("node/{node}"))
    }

    /// What the keys of all nodes begin with.
    pub fn nodes(&self) -> String {
        self.at("node/")
    }

    /// The key of the statements of an epoch, relative to the cluster's prefix.
    pub fn statements_of(epoch: Epoch) -> String {
        format!("statements/{:020}", epoch.0)
    }

    /// The prefix of the keys of all epochs' statements.
    pub fn statements(&self) -> String {
        self.at("statements/")
    }

    /// The prefix of the keys of all position pages.
    pub fn positions(&self) -> String {
        self.at("pos/")
    }
}

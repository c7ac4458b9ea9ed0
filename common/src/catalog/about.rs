//! Facts about an entry that neither scans nor jobs need.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::SchemaId;

/// The schema of an entry, the comments on it, and by which name its consumers are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its schema. The name of the relation has the schema's name as it was when the entry was
    /// stored; the graph knows the present one.
    #[serde(rename = "schema_id", default, skip_serializing_if = "SchemaId::is_public")]
    pub schema: SchemaId,
    /// `COMMENT ON TABLE` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// `COMMENT ON COLUMN`, by the names of the columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub column_comments: BTreeMap<String, String>,
    /// True if columns were renamed, so that the statement does not tell their names.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub columns_renamed: bool,
    /// The name by which its consumers on NATS servers are known, if that is not its own: a
    /// relation that is renamed keeps its consumers, and another one may have got its name since.
    /// Always there outside of the schema `public`, since schemas are renamed too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumers: Option<String>,
}

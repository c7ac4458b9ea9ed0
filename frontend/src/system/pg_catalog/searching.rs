//! The search path of a statement, for the functions that look up names.

use datafusion::common::extensions_options;
use datafusion::config::{ConfigExtension, ConfigOptions};

use crate::names::SearchPath;

extensions_options! {
    /// The search path, among the options of a statement.
    pub(crate) struct Searching {
        /// The list of schemas.
        pub path: String, default = String::new()
    }
}

impl ConfigExtension for Searching {
    const PREFIX: &'static str = "weir";
}

impl Searching {
    /// Adds a search path to the options of a statement.
    pub(crate) fn add(path: &SearchPath, options: &mut ConfigOptions) {
        options.extensions.insert(Searching { path: path.to_string() });
    }

    /// Returns the search path of a statement.
    pub(super) fn path(options: &ConfigOptions) -> SearchPath {
        let listed = options.extensions.get::<Searching>().and_then(|searching| SearchPath::parse(&searching.path));
        listed.unwrap_or_else(SearchPath::of_stored)
    }
}

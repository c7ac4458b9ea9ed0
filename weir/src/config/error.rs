//! What can be wrong with a configuration.

use std::path::PathBuf;

use weir_common::error::Kind;

/// The configuration cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Flags that do not fit, or a request for help or the version: prints itself.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file cannot be read.
    #[error("cannot read configuration file \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("configuration file \"{}\", line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The file has something at its top level that is no table of a role.
    #[error("configuration file \"{}\" has an unknown table \"{name}\"; there are {known}", path.display())]
    UnknownTable {
        /// The file.
        path: PathBuf,
        /// What it has.
        name: String,
        /// What it may have.
        known: String,
    },
    /// A table of the file has a key that the role does not know.
    #[error("table [{role}] of file \"{}\" has an unknown key \"{key}\"; there are {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The table.
        role: String,
        /// What it has.
        key: String,
        /// What it may have.
        known: String,
    },
    /// A value does not fit its field.
    #[error("{origin} cannot be \"{value}\"")]
    Value {
        /// Which key or variable.
        origin: String,
        /// What it is set to.
        value: String,
        /// Why it does not fit.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// All of them are for the user to mend.
    pub fn kind(&self) -> Kind {
        Kind::User
    }
}

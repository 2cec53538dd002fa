//! What a library offers: name, port, framing, schema, tables.

use crate::framing::Framing;
use crate::turn::code::Code;
use greenroom_state::compatibility::{StateShape, TableShape};
use serde::{Deserialize, Serialize};

/// What a library says of one of its services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Default TCP port on loopback; 0: none.
    pub port: u16,
    /// Its sessions are connections that are asked for, so it needs no port.
    #[serde(default)]
    pub dials: bool,
    /// How its stream is cut.
    pub framing: Framing,
    /// Its state's version, schema and migrations.
    pub shape: StateShape,
    /// The tables that it owns.
    pub tables: Vec<TableShape>,
}

/// What a library offers, with the code of each service.
pub type Serving = Vec<(Offer, Box<dyn Code>)>;

/// The build that serves now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The library's name.
    pub library: String,
    /// Counts the library's builds, from 1.
    pub generation: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub hash: String,
}

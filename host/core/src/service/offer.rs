//! Offer of a library: name, endpoints, schema, tables.
//!
//! The shell reads an offer from a loaded library, and the trial from its copy. The core judges
//! it (`crate::reload::judge`) before the build serves, and keeps it beside the code as long as
//! the build is of use. Offers are serializable, because the trial sends them from its child
//! process.

use crate::framing::Framing;
use crate::turn::code::Code;
use greenroom_state::compatibility::{StateShape, TableShape};
use greenroom_state::endpoint::{in_websocket, split_kind};
use serde::{Deserialize, Serialize};

/// Offer of one service: all that the core knows of it beside its code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Name of the service, by which a later build of the library continues with its sessions.
    pub name: String,
    /// Whether sessions are connections that turns ask for, so that the service needs no port.
    #[serde(default)]
    pub dials: bool,
    /// Endpoints, at least one, at most [`ENDPOINTS_MAX`]. The first is that of outbound
    /// connections, and of addresses without a kind.
    pub endpoints: Vec<EndpointOffer>,
    /// Subprotocols of WebSocket that it speaks.
    #[serde(default)]
    pub protocols: Vec<String>,
    /// Version, schema and migrations of the session state.
    pub shape: StateShape,
    /// Tables that the service owns. The place of each is the number its code converts it by,
    /// less 1.
    pub tables: Vec<TableShape>,
}

impl Offer {
    /// Offer of a service with this framing and nothing else: no port, no schema, version 1 of the
    /// state, no tables.
    pub fn new(name: impl Into<String>, framing: Framing) -> Offer {
        let shape = StateShape { version: 1, ..StateShape::default() };
        Offer {
            name: name.into(),
            dials: false,
            endpoints: vec![EndpointOffer { framing, port: 0 }],
            protocols: Vec::new(),
            shape,
            tables: Vec::new(),
        }
    }

    /// Framing of the first endpoint.
    pub fn framing(&self) -> &Framing {
        &self.endpoints[0].framing
    }

    /// Framing of the endpoints of a kind; the first endpoint's if `kind` is empty. A kind without
    /// parameters may be had of any service. In a stream of WebSocket it is the framing inside.
    /// `None`: there is no such kind.
    pub fn framing_of_kind(&self, kind: &str) -> Option<Framing> {
        let (_, kind) = split_kind(kind);
        if let Some(inside) = in_websocket(kind) {
            return self.framing_of_kind(inside).filter(Framing::may_be_inside);
        }
        let offered = self.endpoints.iter().find(|e| kind.is_empty() || e.framing.kind() == kind);
        let any = || Framing::of_kind(kind, self.framing().bytes_max());
        offered.map(|e| e.framing).or_else(any)
    }
}

/// Most endpoints that a service offers.
pub const ENDPOINTS_MAX: usize = 16;

/// Endpoint that a service offers, unless the configuration names others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointOffer {
    /// Framing that cuts the stream of a session into messages.
    pub framing: Framing,
    /// TCP port on loopback; 0: none.
    pub port: u16,
}

/// Offers of a library, with the code of each service.
pub type Serving = Vec<(Offer, Box<dyn Code>)>;

/// Build of a library, as reports and records name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Name of the library.
    pub library: String,
    /// Number of the commit that put the build in charge, counted by library from 1. Other
    /// settings of the same file are another generation. A rollback gives the old number back.
    pub generation: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub hash: String,
}

//! Encoding: how messages to a session are written, by its framing, its dialect and its service.
//!
//! A broadcast is encoded once for each encoding in use, and not once for a session. Most framings
//! write alike for all services. A framing of a library's own is that of its service alone.

use super::registry::Services;
use crate::framing::{Dialect, Framing};
use crate::ids::ServiceId;
use crate::session::life::Session;

/// Encoding of the messages to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encoding {
    framing: Framing,
    dialect: Dialect,
    /// Service whose library encodes; `None`: the framing itself does.
    service: Option<ServiceId>,
}

impl Encoding {
    /// Encoding in a dialect of a framing.
    fn new(framing: Framing, dialect: Dialect, service: ServiceId) -> Encoding {
        let by_library = matches!(framing, Framing::Custom { .. });
        Encoding { framing, dialect, service: by_library.then_some(service) }
    }

    /// Encoding of the messages to a session.
    pub(crate) fn of(services: &Services, s: &Session) -> Encoding {
        let framing = services[s.service].offer.framing;
        Encoding::new(framing, framing.dialect(&s.frame), s.service)
    }

    /// Encodings in use that change what is sent, each once. Costs O(services²).
    pub(crate) fn in_use(services: &Services) -> Vec<Encoding> {
        let mut all = Vec::new();
        let encoding = services.numbered().filter(|(_, s)| s.offer.framing.encodes() && s.sessions > 0);
        for (id, s) in encoding {
            for dialect in s.offer.framing.dialects() {
                let one = Encoding::new(s.offer.framing, *dialect, id);
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        all
    }

    /// Service whose library encodes; `None`: the host does. A library's answer may differ the next
    /// time, so it is asked once.
    pub(crate) fn library_of(&self) -> Option<ServiceId> {
        self.service
    }

    /// Appends a message. Fails with a sentence, and appends nothing then.
    pub(crate) fn encode(
        &self,
        services: &Services,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        match self.service {
            Some(service) => services[service].code.encode(message).map(|framed| out.extend(framed)),
            None => self.framing.encode_in(self.dialect, message, out).map_err(str::to_owned),
        }
    }
}

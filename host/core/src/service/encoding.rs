//! Encoding: how messages to a session are written, by its framing, its dialect and its service.
//!
//! A broadcast is encoded once for each encoding in use, and not once for a session. Most framings
//! write alike for all services. A framing of a library's own is that of its service alone.

use super::registry::Services;
use crate::framing::Framing;
use crate::framing::frame::Dialect;
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
        let framing = *services[s.service].framings.get(s.framing);
        Encoding::new(framing, framing.dialect(&s.frame), s.service)
    }

    /// Encodings in use that change what is sent, each once. Costs O(services²), as long as each
    /// has few framings.
    pub(crate) fn in_use(services: &Services) -> Vec<Encoding> {
        let mut all = Vec::new();
        for (id, s) in services.numbered() {
            for framing in s.framings.in_use().filter(Framing::encodes) {
                for dialect in framing.dialects() {
                    let one = Encoding::new(framing, *dialect, id);
                    if !all.contains(&one) {
                        all.push(one);
                    }
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

    /// Appends a message, which may be a line. Reserving and sending must agree, so both ask here.
    /// Fails with a sentence, and appends nothing then.
    pub(crate) fn encode(
        &self,
        services: &Services,
        (message, is_line): (&[u8], bool),
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let encoded = match self.service {
            Some(service) => {
                return services[service].code.encode(message).map(|framed| out.extend(framed));
            }
            None if is_line => self.framing.encode_line(self.dialect, message, out),
            None => self.framing.encode_in(self.dialect, message, out),
        };
        encoded.map_err(str::to_owned)
    }
}

//! Encoding: how messages to a session are written, by its framing, its dialect and its service.
//!
//! A broadcast is encoded once for each encoding in use, and not once for a session. Most framings
//! write alike for all services. A framing of a library's own is that of its service alone.

use super::registry::Services;
use crate::framing::Framing;
use crate::framing::frame::Dialect;
use crate::framing::websocket::sent::wrap;
use crate::ids::ServiceId;
use crate::session::life::Session;

/// Encoding of the messages to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encoding {
    framing: Framing,
    dialect: Dialect,
    /// Service whose library encodes; `None`: the framing itself does.
    service: Option<ServiceId>,
    /// Whether each message stands in a frame of WebSocket.
    in_socket: bool,
}

impl Encoding {
    /// Encoding in a dialect of a framing.
    fn new(framing: Framing, dialect: Dialect, service: ServiceId, in_socket: bool) -> Encoding {
        let by_library = matches!(framing, Framing::Custom { .. });
        Encoding { framing, dialect, service: by_library.then_some(service), in_socket }
    }

    /// Encoding of the messages to a session.
    pub(crate) fn of(services: &Services, s: &Session) -> Encoding {
        let framing = *services[s.service].framings.get(s.framing_sent());
        Encoding::new(framing, framing.dialect(&s.frame), s.service, s.in_socket())
    }

    /// Encodings in use that change what is sent, each once. `sockets`: there are streams of
    /// WebSocket, of whatever sessions. Costs O(services²), as long as each has few framings.
    pub(crate) fn in_use(services: &Services, sockets: bool) -> Vec<Encoding> {
        let mut all = Vec::new();
        for (id, s) in services.numbered() {
            for framing in s.framings.in_use() {
                let plain = framing.dialects().iter().filter(|_| framing.encodes()).map(|d| (*d, false));
                let inside = (sockets && framing.may_be_inside()).then_some((Dialect::Plain, true));
                for (dialect, in_socket) in plain.chain(inside) {
                    let one = Encoding::new(framing, dialect, id, in_socket);
                    if !all.contains(&one) {
                        all.push(one);
                    }
                }
            }
        }
        all
    }

    /// Appends a message, which may be a line. Reserving and sending must agree, so both ask here.
    /// `framed` is asked for what a library has made of the message: its answer may differ the next
    /// time, so the library is asked once. Fails with a sentence, and
    /// appends nothing then.
    pub(crate) fn encode(
        &self,
        (message, is_line): (&[u8], bool),
        out: &mut Vec<u8>,
        framed: impl FnOnce(ServiceId) -> Result<Vec<u8>, String>,
    ) -> Result<(), String> {
        let begin = out.len();
        match self.service {
            Some(service) => out.extend(framed(service)?),
            None if is_line => self.framing.encode_line(self.dialect, message, out)?,
            None => self.framing.encode_in(self.dialect, message, out)?,
        }
        if self.in_socket {
            wrap(out, begin);
        }
        Ok(())
    }
}

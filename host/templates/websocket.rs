//! Service `hello`: a page for browsers, and a WebSocket that counts messages.
#![forbid(unsafe_code)]

use greenroom_handler::{Framing, Handler, Page, Result, Turn, export, handler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

// A library may offer several services: name each.
export!(Service);

/// State of a session, which the host keeps across builds and crashes.
///
/// A new field needs `#[serde(default)]`. For any other change raise `STATE_VERSION` and add a
/// migration.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Seen {
    messages: u64,
}

/// The service. It has no settings; for some, see `type Config` in the SDK's guide.
struct Service;

// An action that has no function here does nothing: a timer, a note, the session's end.
#[handler]
impl Handler for Service {
    // Its name, unique in a host.
    const SERVICE: &'static str = "hello";
    // Its TCP port on loopback, unless greenroom.toml says otherwise.
    const PORT: u16 = 4100;
    // Longest message, in bytes, and the subprotocols that are spoken.
    const FRAMING: Framing = Framing::WebSocket { bytes_max: 64 * 1024, protocols: &[] };
    type State = Seen;

    /// Answers a plain GET at the same port. The page is a file beside this one.
    fn page(&self, path: &str) -> Option<Page> {
        (path == "/").then(|| Page::html(include_str!("page.html")))
    }

    /// A peer has connected.
    fn opened(&self, turn: &mut Turn<Seen>) -> Result {
        turn.send_line("Welcome. Say something.");
        Ok(())
    }

    /// A message came. An error or a panic undoes all of this, and the session goes on.
    fn message(&self, turn: &mut Turn<Seen>, text: &[u8]) -> Result {
        turn.state.messages += 1;
        // Change the answer, save, and the connected client gets it at its next message.
        // `send_line` sends text, `send` bytes.
        let answer = format!("{}: {}", turn.state.messages, String::from_utf8_lossy(text));
        turn.send_line(answer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_handler::testing::TestHost;

    #[test]
    fn messages_are_counted() {
        let mut host = TestHost::<Service>::new("{}").unwrap();
        let peer = host.open();
        host.output(peer);
        assert_eq!(host.line(peer, "good day"), "1: good day\n");
        assert_eq!(host.state(peer).messages, 1);
    }
}

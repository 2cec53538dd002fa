//! Service `hello`: counts the lines of each telnet session, and asks for the next with a prompt.
#![forbid(unsafe_code)]

use greenroom_handler::{Action, Framing, Handler, Result, Turn, export, handler, telnet};
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
    lines: u64,
    /// Whether the peer tells the size of its window.
    sized: bool,
}

/// The service. It has no settings; for some, see `type Config` in the SDK's guide.
struct Service;

#[handler]
impl Handler for Service {
    // Its name, unique in a host.
    const SERVICE: &'static str = "hello";
    // Its TCP port on loopback, unless greenroom.toml says otherwise.
    const PORT: u16 = 4100;
    // Longest line, in bytes. The host does telnet's negotiation.
    const FRAMING: Framing = Framing::Telnet { bytes_max: 1024 };
    type State = Seen;

    /// A peer has connected.
    fn opened(&self, turn: &mut Turn<Seen>) -> Result {
        turn.send_line("Welcome. Say something.");
        // Options are asked for in the first turn.
        turn.telnet_do(telnet::WINDOW_SIZE);
        turn.prompt("> ");
        Ok(())
    }

    /// A line came. An error or a panic undoes all of this, and the session goes on.
    fn message(&self, turn: &mut Turn<Seen>, line: &[u8]) -> Result {
        turn.state.lines += 1;
        // Change the answer, save, and the connected client gets it at its next line.
        let answer = format!("{}: {}", turn.state.lines, String::from_utf8_lossy(line));
        turn.send_line(answer);
        turn.prompt("> ");
        Ok(())
    }

    /// Anything else: options of telnet, notes, jobs.
    fn other(&self, turn: &mut Turn<Seen>, action: Action) -> Result {
        if let Action::Negotiated { option: telnet::WINDOW_SIZE, on, .. } = action {
            turn.state.sized = on;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_handler::testing::TestHost;

    #[test]
    fn lines_are_counted() {
        let mut host = TestHost::<Service>::new("{}").unwrap();
        let peer = host.open();
        assert_eq!(host.output(peer), "Welcome. Say something.\n> ");
        assert_eq!(host.line(peer, "good day"), "1: good day\n> ");
        assert_eq!(host.state(peer).lines, 1);
    }
}
